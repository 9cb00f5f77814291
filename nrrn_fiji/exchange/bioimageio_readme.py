"""The README of a model package for bioimage.io: what a person needs to know who has not got nrrn.

This module must never say what the model's card does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import __version__
from ..models import SUFFIX, Model
from ..training_facts import psnr_by_noise, training_in_words

__all__ = ["ARCHITECTURE", "PERCENTILES", "documentation"]

PERCENTILES = (0.1, 99.9)
"""Of the input, which map to 0 and 1 where no grey values are given."""

ARCHITECTURE = "nrrn_network.py"


def documentation(
    model: Model, licence: str, intensity: tuple[float, float] | None, halo: int
) -> str:
    """Return the README of a package."""
    facts: list[str] = training_in_words(model.card) or ["The model's card says nothing of it."]
    if intensity is None:
        grey = (
            f"Percentiles {PERCENTILES[0]} and {PERCENTILES[1]} of the input map to 0 and 1 before "
            "the network (`scale_range`), nothing is clipped. **The output is on that scale**: "
            "multiply by the difference of the two percentiles and add the lower one to get grey "
            "values."
        )
    else:
        grey = (
            f"Grey values {intensity[0]:g} and {intensity[1]:g} map to 0 and 1 before the network "
            "(`scale_linear`), and back after it; nothing is clipped. For images of another grey "
            "range change these numbers, or scale the images."
        )
    table = scores(model.card)
    results = (
        f"PSNR in dB on a volume that no training saw, by `nrrn study table2`:\n\n{table}\n"
        if table
        else "The card has no measurements."
    )
    return f"""# {model.name}

Denoises a slice of an electron microscopy stack from itself and the slices beside it. NRRN
(*Noise Reconstruction and Removal Network*) of {model.units} units and {model.maps} maps;
exported by nrrn-fiji {__version__}; SHA-256 of the weights `{model.hash}`.

## Input and output

Input `slices`: batch × 3 × y × x, the channels being the previous slice, the slice to denoise and
the following slice of a registered stack. At an end of the stack give the neighbour there is twice.
Output `denoised`: batch × 1 × y × x, the middle slice.

{grey}

An output pixel depends on {halo} pixels around it (units + 3): with a halo of {halo} px, tiles of
any size give exactly the result of the whole image. The network pads with zeros at the edges of
what it is given, as nrrn does at the edges of an image; a program that pads images by reflection
gives other values in the outermost {halo} pixels.

## Training

{chr(10).join(f"- {line}" for line in facts)}

## Validation

{results}

To validate it on your own data: compare with a clean image by PSNR and SSIM (`nrrn metrics`), or,
without one, look at what was removed (`nrrn report NOISY DENOISED`): it must show no structure.

Not for noise that is alike from pixel to pixel, nor for material, staining or voxel sizes far from
the training's, unless you have looked at what it removes there.

## Licence

{licence.strip()}

The network's source, `{ARCHITECTURE}`, is BSD-3-Clause.

## With nrrn

`nrrn models import` takes this package; `{model.name}{SUFFIX}` in it is the model with its card.
"""


def scores(card: Mapping[str, Any]) -> str:
    """Return the table of PSNR that a study wrote into the card, as Markdown; empty without one."""
    results = card.get("results")
    table = results.get("table2") if isinstance(results, Mapping) else None
    rows = table.get("rows") if isinstance(table, Mapping) else None
    if not isinstance(rows, list) or not all(
        isinstance(row, Mapping) and {"noise", "method", "psnr"} <= row.keys() for row in rows
    ):
        return ""
    lines = psnr_by_noise(rows)
    kept = [line for line in lines if str(line["PSNR (dB)"]).startswith(("Input", "NRRN"))]
    if not kept:
        return ""
    head = list(kept[0])
    cells = [head, ["---"] * len(head), *([str(v) for v in line.values()] for line in kept)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
