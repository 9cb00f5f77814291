"""The experiments of the paper."""

from __future__ import annotations

from ..settings import DEVICE_HELP
from .declare import Command, Kind, Option

__all__ = ["COMMANDS"]

COMMANDS: tuple[Command, ...] = (
    Command(
        name="study table2",
        title="Table 2 of the paper",
        summary="Score a model and the usual filters at eight levels of synthetic noise.",
        description="PSNR and SSIM at Poisson peak 1, 4, 8, 30 and Gaussian sigma 10, 25, 35, 75, "
        "on slices 10, 20, ... 110 of a clean volume. The filters are tuned for each level on "
        "another volume, which must be one that no training saw.",
        examples=(
            "nrrn study table2 clean.tif --tuning other.tif -m mine.safetensors -o results/",
            "nrrn study table2 clean.tif --tuning other.tif -o results/",
        ),
        function="nrrn_fiji.study:table2_files",
        counts="steps",
        options=(
            Option(
                name="volume",
                label="Clean volume",
                help="The clean stack that is scored.",
                kind=Kind.IMAGE,
                required=True,
                position="VOLUME",
            ),
            Option(
                name="tuning",
                label="Tuning volume",
                help="Another clean stack, on which the filters are tuned.",
                kind=Kind.IMAGE,
                required=True,
            ),
            Option(
                name="model",
                label="Model",
                help="The model: a name or a .safetensors file; filters alone when left out.",
                kind=Kind.MODEL,
                spelling=("-m", "--model"),
            ),
            Option(
                name="out",
                label="Results folder",
                help="The folder for the table, plots and pictures.",
                kind=Kind.FILE,
                required=True,
                spelling=("-o", "--out"),
            ),
            Option(
                name="all_images",
                label="1, 2 and 3 images",
                help="Also score the model with 1 and 2 images per slice.",
                kind=Kind.FLAG,
                default=False,
            ),
            Option(
                name="write_card",
                label="Write into the card",
                help="Also put the table into the card of the model's file.",
                kind=Kind.FLAG,
                default=False,
            ),
            Option(
                name="seed",
                label="Seed",
                help="Seed of the synthetic noise.",
                kind=Kind.INTEGER,
                default=0,
            ),
            Option(name="device", label="Device", help=DEVICE_HELP, kind=Kind.TEXT),
        ),
    ),
)
