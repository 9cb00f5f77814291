"""Which peak learning rate suits which network of the study: equal short trainings.

    python benchmarks/learning_rates.py STACK.tif [--kind nrrn] [--rates 0.001,0.003]

Every line is one training of ``--steps`` steps with synthetic noise of all levels on clean slices;
PSNR in dB at the eight noise levels of the study, mean over four slices of the last tenth of STACK,
which no training sees, estimates clipped to [0, 1].  Seeds are the same everywhere.  The rates in
``nrrn_fiji.baselines.trained.CONTENDERS`` and the default of ``nrrn train`` on a CPU rest on it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tifffile
import torch

from nrrn_fiji import TrainSettings
from nrrn_fiji.baselines.trained import CONTENDERS, train_contender
from nrrn_fiji.metrics import psnr
from nrrn_fiji.noise import add_noise
from nrrn_fiji.study.context import TRAINING_NOISE
from nrrn_fiji.study.levels import LEVELS
from nrrn_fiji.triplets import TrainingStack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stack", help="a clean stack of 8 bits")
    parser.add_argument("--kind", action="append", choices=CONTENDERS)
    parser.add_argument("--rates", default="0.001,0.003,0.006")
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    torch.set_num_threads(1)
    stack = tifffile.imread(args.stack)
    clean = stack.astype(np.float32) / 255
    scored = range(len(clean) - 23, len(clean) - 2, 7)
    print(f"{'network':18} {'rate':>6} ", *(f"{level.label:>11}" for level in LEVELS), "  mean")
    for kind in args.kind or ("nrrn", "unet-mean", "denoisenet-three"):
        for rate in map(float, args.rates.split(",")):
            settings = TrainSettings(
                **TRAINING_NOISE, steps=args.steps, rate=rate, seed=1, device="cpu"
            )
            with TemporaryDirectory() as folder:
                contender = train_contender(
                    kind, [TrainingStack(stack, (0.0, 255.0))], settings, Path(folder)
                )
            means = []
            for level in LEVELS:
                scores = []
                for z in scored:
                    rng = np.random.default_rng([z, int(level.value)])
                    noisy = np.stack(
                        [
                            add_noise(image, **level.noise, rng=rng, clip=True)
                            for image in clean[z - 1 : z + 2]
                        ]
                    )
                    scores.append(psnr(clean[z], np.clip(contender.denoise(noisy), 0, 1)))
                means.append(float(np.mean(scores)))
            cells = " ".join(f"{mean:11.2f}" for mean in means)
            seconds = contender.facts["seconds"]
            print(
                f"{kind:18} {rate:6g}  {cells} {np.mean(means):6.2f}  ({seconds:.0f} s)", flush=True
            )


if __name__ == "__main__":
    main()
