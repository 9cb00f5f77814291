#!/usr/bin/env bash
# Train a model on a noisy stack alone, then denoise that stack with it.
# Usage: train_on_your_stack.sh STACK.tif [MINUTES]
set -eu
stack=$1 minutes=${2:-20}
nrrn train "$stack" -o mine.safetensors --minutes "$minutes"
nrrn denoise "$stack" denoised.tif --model mine.safetensors
