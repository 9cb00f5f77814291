"""What a user can ask for: one frozen dataclass per job.

The command line, ImageJ's dialogs, macro keys, ops and the Python API all derive their options
from these fields, so a setting declared here appears everywhere with the same name, default and
help.  This module must stay free of imports beyond the standard library: ``nrrn --help`` reads it.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

__all__ = [
    "SMALLEST_CROP",
    "DenoiseSettings",
    "NoiseSettings",
    "PreviewSettings",
    "RegisterSettings",
    "TrainSettings",
    "field_info",
    "setting",
    "size_in_bytes",
]


def setting(
    default: Any,
    *,
    label: str,
    help: str,
    choices: tuple[Any, ...] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    unit: str = "",
    expert: bool = False,
) -> Any:
    """Declare a field: its default, and what the edges need to ask for it.

    Parameters
    ----------
    default
        The value when nothing is asked for; ``None`` means "choose for me".
    label
        A few words for a dialog.
    help
        One or two sentences for ``--help`` and tooltips.
    choices
        The values that are accepted, if they are few.
    minimum, maximum
        The range of a number, both ends included.
    unit
        What the number counts ("px", "slices", "min").
    expert
        Leave the field out of short dialogs.
    """
    metadata = {
        "label": label,
        "help": help,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "unit": unit,
        "expert": expert,
    }
    return dataclasses.field(default=default, metadata=metadata)


def field_info(field: dataclasses.Field[Any], key: str) -> Any:
    """Return what :func:`setting` declared under ``key`` for a field."""
    return field.metadata[key]


def pair(name: str, value: Any) -> tuple[float, float]:
    """Return ``value`` as a range (low, high), or refuse it with a sentence."""
    try:
        low, high = (float(number) for number in value)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not low <= high:
        raise ValueError(
            f"{name} is {value!r}, but it must be two numbers (low, high), the lower one first: "
            "give both."
        )
    return low, high


def size_in_bytes(name: str, text: str | int) -> int:
    """Return a size such as "100MB", "1.5 GiB" or a number of bytes; refuse others in a sentence.

    >>> size_in_bytes("memory", "100MB"), size_in_bytes("memory", "1.5 GiB")
    (100000000, 1610612736)
    """
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([kmgt]?)(i?)b?\s*", str(text).lower())
    if found is None or float(found[1]) <= 0 or (found[3] and not found[2]):
        raise ValueError(
            f"{name} is {text!r}, but it must be a size above 0: give it as 100MB, 2GB or 1.5GiB."
        )
    base = 1024 if found[3] else 1000
    return round(float(found[1]) * base ** " kmgt".index(found[2] or " "))


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Checks every field against its declared choices and range when an object is made."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            if "tuple" in str(field.type):
                value = pair(field.name, value)
                object.__setattr__(self, field.name, value)
            choices = field.metadata["choices"]
            if choices is not None and value not in choices:
                known = ", ".join(str(choice) for choice in choices)
                raise ValueError(f"{field.name} is {value!r}, but it must be one of {known}.")
            low, high = field.metadata["minimum"], field.metadata["maximum"]
            for number in value if isinstance(value, tuple) else (value,):
                if low is not None and not number >= low:
                    raise ValueError(f"{field.name} is {value}, but it must be at least {low}.")
                if high is not None and not number <= high:
                    raise ValueError(f"{field.name} is {value}, but it must be at most {high}.")

    def asked(self) -> dict[str, Any]:
        """Return the settings that differ from their defaults, as they go into metadata."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }


DEVICE_HELP = 'Where to compute: "cpu", "cuda", "cuda:1", "mps"; the best there is when left out.'
PRECISION_HELP = "Arithmetic of the convolutions; chosen by device and bit depth when left out."
PRECISIONS = ("fp32", "bf16", "fp16", "int8")


@dataclass(frozen=True, kw_only=True)
class DenoiseSettings(Checked):
    """How to denoise; see :func:`nrrn_fiji.denoise`."""

    units: int | None = setting(
        None,
        label="Building units",
        help="Stop after this many building units of the model; all when left out.",
        minimum=1,
    )
    images: int = setting(
        3,
        label="Images per slice",
        help="3: both neighbours; 2: one neighbour (half the work); 1: the slice alone.",
        choices=(1, 2, 3),
    )
    orientations: int = setting(
        1,
        label="Orientations",
        help="Average over this many rotations and flips of the slices: 8 takes 8 times as long, "
        "and gains most where noise is very strong.",
        choices=(1, 2, 4, 8),
        expert=True,
    )
    strength: float = setting(
        1.0,
        label="Strength",
        help="How much of the noise to take away: 1 all that was found, 0 nothing; between them "
        "the result is blended with the source.",
        minimum=0.0,
        maximum=1.0,
    )
    scans: bool = setting(
        False,
        label="Stack holds scans of one slice",
        help="The 2 or 3 images of the stack are repeated scans of one slice; the result is one "
        "slice.",
    )
    intensity: tuple[float, float] | None = setting(
        None,
        label="Grey range",
        help="Grey values LO,HI that map to 0 and 1. When left out: 0,255 for 8-bit images, else "
        "the 0.1 and 99.9 percentiles of the volume. Values outside are kept, never clipped.",
    )
    tile: int | None = setting(
        None,
        label="Tile size",
        help="Edge of the square tiles, without their halo. The result does not depend on it.",
        minimum=1,
        unit="px",
        expert=True,
    )
    slab: int | None = setting(
        None,
        label="Slab depth",
        help="Slices that are read, denoised and written at a time. The result does not depend "
        "on it.",
        minimum=1,
        unit="slices",
        expert=True,
    )
    memory: str | None = setting(
        None,
        label="Memory",
        help="How much main memory a volume may take, such as 100MB or 2GB, beside the program "
        "itself (about 650 MB with PyTorch). A quarter of what is free, at most 2 GiB, when left "
        "out. The result does not depend on it.",
        expert=True,
    )
    device: str | None = setting(
        None,
        label="Device",
        help=DEVICE_HELP + ' Several of one kind, as "cuda:0,cuda:1", share the work on files.',
    )
    precision: str | None = setting(
        None, label="Precision", help=PRECISION_HELP, choices=PRECISIONS, expert=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory is not None:
            object.__setattr__(self, "memory", str(self.memory).strip())
            size_in_bytes("memory", self.memory)


SMALLEST_CROP = 16
"""Edge in pixels of the smallest crops that a network is trained on."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Checked):
    """How to train; see :func:`nrrn_fiji.train`.  ``None`` means: chosen for this machine."""

    objective: str | None = setting(
        None,
        label="Objective",
        help="consensus: the paper's Noise2Noise loss (default for scans); masked: masked centre "
        "(default for a noisy stack); clean: clean target with synthetic noise (default when "
        "noise levels are given).",
        choices=("consensus", "masked", "clean"),
    )
    scans: bool = setting(
        False,
        label="Stacks hold scans of one slice",
        help="Each stack holds 3 or more registered scans of one slice, not adjacent slices.",
    )
    units: int | None = setting(
        None, label="Building units", help="Building units of the network.", minimum=1
    )
    maps: int | None = setting(
        None, label="Feature maps", help="Feature maps of the network.", minimum=1
    )
    edge: bool = setting(
        False,
        label="Edge variant",
        help="Use the edge variant of the first layer (no visible gain in the paper).",
        expert=True,
    )
    steps: int | None = setting(
        None,
        label="Steps",
        help="Length of the training; the learning rate schedule ends with it. 3000 on a CPU and "
        "20000 on a GPU when left out.",
        minimum=1,
    )
    minutes: float | None = setting(
        None,
        label="Minutes",
        help="Length of the training by the clock; by steps when left out. Resuming is then not "
        "exact.",
        minimum=0.01,
        unit="min",
    )
    batch: int | None = setting(
        None, label="Batch", help="Crops per step.", minimum=1, unit="crops", expert=True
    )
    crop: int | None = setting(
        None,
        label="Crop size",
        help="Edge of the square crops.",
        minimum=SMALLEST_CROP,
        unit="px",
        expert=True,
    )
    rate: float | None = setting(
        None, label="Learning rate", help="Peak learning rate of Adam.", minimum=1e-12, expert=True
    )
    schedule: str | None = setting(
        None,
        label="Schedule",
        help="cosine: warm up, then fall to 1 %; halving: the paper's, halved every 10 epochs; "
        "constant.",
        choices=("cosine", "halving", "constant"),
        expert=True,
    )
    clip: float | None = setting(
        None,
        label="Gradient clipping",
        help="Largest norm of the gradient; 0 switches clipping off. 1 when left out.",
        minimum=0.0,
        expert=True,
    )
    average: float | None = setting(
        None,
        label="Weight averaging",
        help="Decay of the running average of the weights that is validated and kept; 0 switches "
        "it off. 0.999 when left out.",
        minimum=0.0,
        maximum=0.99999,
        expert=True,
    )
    poisson: tuple[float, float] | None = setting(
        None,
        label="Poisson peak",
        help="Range LO,HI of the peak of synthetic Poisson noise added to clean stacks; none when "
        "left out.",
        minimum=1e-3,
    )
    gaussian: tuple[float, float] | None = setting(
        None,
        label="Gaussian sigma",
        help="Range LO,HI of the standard deviation of synthetic Gaussian noise, in grey levels "
        "of 255; none when left out.",
        minimum=0.0,
    )
    levels: str | None = setting(
        None,
        label="Noise levels",
        help="spread (when left out): every sample has Poisson, Gaussian or (one in five) both "
        "kinds of noise, the peak evenly over its logarithm; logarithmic: sigma too, and one level "
        "in ten exactly at an end of its range; uniform: both kinds on every image, levels drawn "
        "evenly, as in the paper.",
        choices=("spread", "logarithmic", "uniform"),
        expert=True,
    )
    weighting: str | None = setting(
        None,
        label="Weighting",
        help="What divides a sample's squared error against a clean target. variance (when left "
        "out): the variance of its noise, right for fresh networks; deviation: its square root, "
        "with which a network that is good already improves alike at all levels; none: nothing, "
        "as in the paper.",
        choices=("variance", "deviation", "none"),
        expert=True,
    )
    clipped: float = setting(
        0.0,
        label="Clipped samples",
        help="Fraction of the samples whose synthetic noise is clipped to the grey range, as a "
        "detector does.",
        minimum=0.0,
        maximum=1.0,
        expert=True,
    )
    mask: float = setting(
        0.15,
        label="Masked fraction",
        help="Fraction of the centre's pixels that the masked objective replaces.",
        minimum=0.001,
        maximum=0.5,
        expert=True,
    )
    mask_shape: str | None = setting(
        None,
        label="Mask shape",
        help="X,Y,Z: how many pixels to each side along x and y, and slices along z (0 or 1), the "
        "masked objective hides together with a pixel, because their noise is alike. 0,0,0 for "
        "independent noise; measured on the stack when left out.",
        expert=True,
    )
    keep_orientation: bool = setting(
        False,
        label="Keep orientation",
        help="Do not augment with flips and transposes.",
        expert=True,
    )
    rescale: tuple[float, float] | None = setting(
        None,
        label="Rescaling",
        help="Augment by rescaling crops, before noise is added, by a factor in LO,HI "
        "(the paper: 0.5,2).",
        minimum=0.1,
        maximum=10,
        expert=True,
    )
    isotropic: bool = setting(
        False,
        label="Isotropic voxels",
        help="Voxels are cubes: crops are cut along all three axes.",
    )
    intensity: tuple[float, float] | None = setting(
        None,
        label="Grey range",
        help="Grey values LO,HI that map to 0 and 1; as in denoising when left out.",
    )
    seed: int = setting(0, label="Seed", help="Seed of every random choice.", minimum=0)
    device: str | None = setting(None, label="Device", help=DEVICE_HELP)
    precision: str | None = setting(
        None, label="Precision", help=PRECISION_HELP, choices=PRECISIONS, expert=True
    )
    preset: str | None = setting(
        None,
        label="Preset",
        help="paper: the settings of the paper (4 units x 64 maps, 256 px crops, batch 16, "
        "about 30 GB of memory).",
        choices=("paper",),
    )


@dataclass(frozen=True, kw_only=True)
class NoiseSettings(Checked):
    """Which synthetic noise to add; see :func:`nrrn_fiji.jobs.add_noise.add_noise_file`."""

    poisson: float | None = setting(
        None,
        label="Poisson peak",
        help="Photons at the white end of the grey range: 1 is very strong noise, 50 weak. No "
        "Poisson noise when left out.",
        minimum=1e-3,
    )
    gaussian: float | None = setting(
        None,
        label="Gaussian sigma",
        help="Standard deviation of Gaussian noise, in grey levels of 255. No Gaussian noise when "
        "left out.",
        minimum=0.0,
    )
    clipped: bool = setting(
        False,
        label="Clip to the grey range",
        help="Clip to the grey range, as a detector does. Integer images are always clipped to "
        "what their type holds.",
    )
    intensity: tuple[float, float] | None = setting(
        None,
        label="Grey range",
        help="Grey values LO,HI that count as 0 and 1; as in denoising when left out.",
    )
    seed: int = setting(0, label="Seed", help="Seed of the noise.", minimum=0)


@dataclass(frozen=True, kw_only=True)
class PreviewSettings(Checked):
    """What a preview compares; see :func:`nrrn_fiji.jobs.preview.preview_file`."""

    units: bool = setting(
        False,
        label="After every unit",
        help="Also show every model after fewer building units than it has.",
    )
    strengths: str = setting(
        "0.5",
        label="Strengths",
        help="Also show the first model at these strengths between 0 and 1, such as 0.5,0.75; the "
        "word none leaves them out.",
    )
    fine_tune_minutes: float | None = setting(
        None,
        label="Fine-tune",
        help="Fine-tune the first model on the stack for so long, and show that too; the tuned "
        "model is kept beside the picture. Not when left out.",
        minimum=0.01,
        unit="min",
    )
    crops: int = setting(
        3,
        label="Places",
        help="How many places to show: 3 are a detailed, a typical and a flat one.",
        choices=(1, 2, 3),
    )
    size: int | None = setting(
        None,
        label="Size",
        help="Edge of what is shown of each place; 160 px when left out, less in small slices.",
        minimum=16,
        unit="px",
    )
    intensity: tuple[float, float] | None = setting(
        None,
        label="Grey range",
        help="Grey values LO,HI that map to 0 and 1; as in denoising when left out.",
    )
    seed: int = setting(0, label="Seed", help="Seed of the fine-tuning.", minimum=0)
    device: str | None = setting(None, label="Device", help=DEVICE_HELP)
    precision: str | None = setting(
        None, label="Precision", help=PRECISION_HELP, choices=PRECISIONS, expert=True
    )


TRANSFORMS = ("affine", "rigid", "translation")
AVERAGES = ("clipped", "mean", "median")


@dataclass(frozen=True, kw_only=True)
class RegisterSettings(Checked):
    """How to lay repeated scans onto each other; see :mod:`nrrn_fiji.registration`."""

    transform: str = setting(
        "affine",
        label="Transform",
        help="How a scan may differ from the others in place: affine (shift, turn, stretch and "
        "shear), rigid (shift and turn), or translation.",
        choices=TRANSFORMS,
    )
    average: str = setting(
        "clipped",
        label="Average",
        help="clipped: the mean without outliers that one scan alone shows (from 3 scans on); "
        "mean; median.",
        choices=AVERAGES,
    )
    per_slice: bool = setting(
        False,
        label="Each slice on its own",
        help="Where each scan is a stack: register every slice on its own, as when all scans of a "
        "slice were taken before the next was cut. One transform for all slices of a scan when "
        "left out.",
    )
