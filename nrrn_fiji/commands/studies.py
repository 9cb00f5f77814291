"""The experiments of the paper."""

from __future__ import annotations

from dataclasses import replace

from ..settings import DEVICE_HELP
from .declare import OVERWRITE, Command, Kind, Option

__all__ = ["COMMANDS"]

VOLUME = Option(
    name="volume",
    label="Clean volume",
    help="The clean stack that is scored; a small example that comes with the package when left "
    "out.",
    kind=Kind.IMAGE,
    position="[VOLUME]",
)
TUNING = Option(
    name="tuning",
    label="Tuning volume",
    help="Another clean stack, on which the filters are tuned.",
    kind=Kind.IMAGE,
)
TRAIN = Option(
    name="train",
    label="Training volume",
    help="A clean stack to train competitors on, which then take part; give it again for several. "
    "No competitors when left out.",
    kind=Kind.IMAGE,
    many=True,
)
MODEL = Option(
    name="model",
    label="Model",
    help="The model, a name or a .safetensors file; give it again to compare several. The model "
    "that comes with the package when left out.",
    kind=Kind.MODEL,
    many=True,
    spelling=("-m", "--model"),
)
OUT = Option(
    name="out",
    label="Results folder",
    help="The folder for tables, figures and whatever makes the next run quick.",
    kind=Kind.FILE,
    required=True,
    spelling=("-o", "--out"),
)
SLICES = Option(
    name="slices",
    label="Slices",
    help="Slices to score, counted from 0, like 10,20,30 or 10:120:10; 10, 20, ... 110 when left "
    "out.",
    kind=Kind.TEXT,
)
LEVELS = Option(
    name="levels",
    label="Noise levels",
    help="Noise levels of Table 2, like P8,G25 for Poisson peak 8 and Gaussian sigma 25; the "
    "paper's eight when left out.",
    kind=Kind.TEXT,
)
MINUTES = Option(
    name="minutes",
    label="Minutes per competitor",
    help="Training time of each competitor; 20 when left out.",
    kind=Kind.NUMBER,
    minimum=0.01,
    unit="min",
)
STEPS = Option(
    name="steps",
    label="Steps per competitor",
    help="Train every network for as many steps instead of equally long.",
    kind=Kind.INTEGER,
    minimum=1,
)
COMPETITORS = Option(
    name="competitors",
    label="Competitors",
    help="Which networks to train, like nrrn,unet-mean; a usual choice when left out. "
    "A name that is none gets a list.",
    kind=Kind.TEXT,
)
QUICK = Option(
    name="quick",
    label="Quick",
    help="Only a first look: few slices and levels, hardly any training.",
    kind=Kind.FLAG,
    default=False,
)
SEED = Option(
    name="seed",
    label="Seed",
    help="Seed of the synthetic noise and of every training.",
    kind=Kind.INTEGER,
    default=0,
)
DEVICE = Option(name="device", label="Device", help=DEVICE_HELP, kind=Kind.TEXT)

FIRST = (VOLUME, TUNING, TRAIN, MODEL, OUT, SLICES)
LAST = (MINUTES, STEPS, COMPETITORS, QUICK, SEED, DEVICE, OVERWRITE)
FILTERS_ALONE = replace(
    MODEL,
    help="The model, a name or a .safetensors file; give it again to compare several. Filters "
    "alone when left out.",
)


def experiment(
    name: str, title: str, summary: str, description: str, options: tuple[Option, ...] = ()
) -> Command:
    """Return the command of one experiment."""
    return Command(
        name=f"study {name}",
        title=title,
        summary=summary,
        description=description,
        examples=(
            f"nrrn study {name} clean.tif --tuning other.tif -m mine.safetensors -o results/",
            f"nrrn study {name} -o results/ --quick",
        ),
        function=f"nrrn_fiji.study.jobs:{name}_files",
        counts="steps",
        options=options or (*FIRST, *LAST),
    )


COMMANDS: tuple[Command, ...] = (
    Command(
        name="study all",
        title="Whole study",
        summary="Run every experiment of the paper and write one page with all of it.",
        description="Begin here. It needs two clean stacks: VOLUME is scored, and on --tuning "
        "filters are tuned and competing networks trained (or on --train). Without any it runs on "
        "a small example. It takes up to an hour on two CPU cores, with --quick minutes, with "
        "--full a night or a GPU. Interrupted, it goes on where it was when the same command is "
        "given again. The result is index.html in the results folder.",
        examples=(
            "nrrn study all -o results/ --quick",
            "nrrn study all clean.tif --tuning other.tif -m mine.safetensors -o results/",
        ),
        function="nrrn_fiji.study.jobs:all_files",
        counts="parts",
        options=(
            VOLUME,
            TUNING,
            replace(
                TRAIN,
                help="A clean stack to train competitors on; give it again for several. The "
                "tuning volume, without the part where filters are tuned, when left out.",
            ),
            MODEL,
            OUT,
            Option(
                name="parts",
                label="Parts",
                help="Only these experiments, like table1,tiles; all when left out.",
                kind=Kind.TEXT,
            ),
            SLICES,
            LEVELS,
            replace(MINUTES, help="Training time of each competitor; 3 when left out."),
            STEPS,
            COMPETITORS,
            QUICK,
            Option(
                name="full",
                label="Full",
                help="All slices, more competitors, and longer trainings: many hours on a CPU.",
                kind=Kind.FLAG,
                default=False,
            ),
            SEED,
            DEVICE,
            OVERWRITE,
        ),
    ),
    experiment(
        "table1",
        "Table 1 of the paper",
        "Score every method at noise as strong as in the paper's microscope.",
        "PSNR and SSIM at Gaussian sigma 18, whose input has about 23 dB, beside the paper's "
        "Table 1. Filters are tuned on another volume, which must be one that no training saw.",
        (VOLUME, TUNING, TRAIN, FILTERS_ALONE, OUT, SLICES, *LAST),
    ),
    experiment(
        "table2",
        "Table 2 of the paper",
        "Score a model and the usual filters at eight levels of synthetic noise.",
        "PSNR and SSIM at Poisson peak 1, 4, 8, 30 and Gaussian sigma 10, 25, 35, 75, "
        "on slices 10, 20, ... 110 of a clean volume. The filters are tuned for each level on "
        "another volume, which must be one that no training saw.",
        (
            *(VOLUME, TUNING, TRAIN, FILTERS_ALONE, OUT, SLICES, LEVELS),
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
            *LAST,
        ),
    ),
    experiment(
        "tiles",
        "Homogeneity",
        "Show whether noise is removed alike everywhere: the spread of PSNR over tiles.",
        "PSNR of tiles of 128 and 256 px over all slices, at Gaussian sigma 18, with a histogram "
        "for every network. The paper: 0.52 dB for NRRN, 1.26 dB for U-Net.",
    ),
    experiment(
        "iqr",
        "Noise that is left",
        "Measure the noise that is left in flat areas, and show the profile of an organelle.",
        "Interquartile range of the grey values along lines in the flattest areas (resin), which "
        "are chosen automatically, with a box plot; and the profile of the line with the strongest "
        "contrast.",
    ),
    experiment(
        "units",
        "Unit by unit",
        "Show what each building unit of a model removes.",
        "Output against input in flat areas with a line fitted per unit, and SSIM after every "
        "unit without added noise and at four noise levels.",
    ),
    experiment(
        "inputs",
        "One, two or three images",
        "Score a model with 1, 2 and 3 images per slice, with profiles and pictures.",
        "Two images are half the work; in the paper they cost 2 %.",
    ),
    experiment(
        "edges",
        "Edges",
        "Show what is left of every method's image without its smooth part.",
        "High-passed pictures side by side, and their correlation with the clean slice's.",
    ),
    experiment(
        "cost",
        "Quality and cost",
        "Plot quality against operations and parameters, for 1 unit to all of them.",
        "PSNR and interquartile range of a model stopped after each of its units; of several "
        "models, if they are given, and of competitors.",
    ),
    experiment(
        "alone",
        "From the noisy stack alone",
        "Train on nothing but the noisy stack, and compare with Noise2Void and the best filter.",
        "What most users have. At Gaussian sigma 25 and Poisson peak 8: NRRN with its centre "
        "masked, NRRN with the paper's loss, and Noise2Void where CAREamics is installed, each "
        "trained for the same time on the noisy stack that it then denoises.",
    ),
    experiment(
        "transfer",
        "With and without pretraining",
        "Fine-tune a model on a small volume, and train fresh ones on it, for the same steps.",
        "At Poisson peak 1 and Gaussian sigma 10, on a small part of the training volume (the "
        "tuning volume when there is none).",
    ),
    experiment(
        "inherited",
        "Inherited noise",
        "Test whether networks that are trained towards averaged scans inherit their noise.",
        "The paper says so without an experiment. Scans are simulated; small networks are trained "
        "towards the clean slice, averages of scans, and by the consensus loss.",
    ),
)
