#!/usr/bin/env bash
# Denoise every TIFF of a folder into another; a bad file is reported and does not stop the rest.
# Given again it takes up what failed or was interrupted, and nothing twice.
# Usage: denoise_folder.sh IN_FOLDER OUT_FOLDER [MODEL]
set -u
in=$1 out=$2 model=${3:-fibsem-medulla}
mkdir -p "$out"
failed=0
for file in "$in"/*.tif "$in"/*.tiff; do
    [ -e "$file" ] || continue
    result=$out/$(basename "$file")
    [ -e "$result" ] && continue
    nrrn denoise "$file" "$result" --model "$model" || failed=$((failed + 1))
done
echo "$failed failed"
[ "$failed" -eq 0 ]
