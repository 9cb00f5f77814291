"""What a model's card says about its training, as facts to compare with and words to read.

Cards of every age are understood: a fact that a card lacks is left out, never guessed.  This
module must never read weights or images; listing models uses it, so it imports nothing heavy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .reports import counted, readable_number, readable_time

__all__ = [
    "TrainingFacts",
    "in_nanometres",
    "material_of",
    "psnr_by_noise",
    "size_in_words",
    "training_in_words",
    "units_were_added",
]

NANOMETRES = {
    "nm": 1.0,
    "nanometer": 1.0,
    "nanometre": 1.0,
    "um": 1e3,
    "µm": 1e3,
    "μm": 1e3,
    "micron": 1e3,
    "micrometer": 1e3,
    "micrometre": 1e3,
    "å": 0.1,
    "angstrom": 0.1,
}
"""Units that electron microscopes are calibrated in; mm, cm and inches are a printer's."""
BITS = re.compile(r"(?:u?int|float)(\d+)")
OBJECTIVES = {
    "clean": "clean images, to which noise was added",
    "masked": "noisy stacks alone: hidden pixels were predicted from those around them and from "
    "the neighbouring slices",
    "consensus": "noisy images alone: neighbours that show the same were predicted from each other "
    "(Noise2Noise)",
}

Size = tuple[float, float, float]


@dataclass(frozen=True)
class TrainingFacts:
    """What is compared with a stack."""

    bits: tuple[int, ...]
    """Bits per grey value of the training stacks, each once; empty if unknown."""
    voxel_sizes: tuple[Size, ...]
    """Voxel sizes (z, y, x) in nanometres, each once; empty if unknown."""
    poisson: tuple[float, float] | None
    """Range of the peak of synthetic noise."""
    gaussian: tuple[float, float] | None
    """Range of the standard deviation of synthetic noise, as a share of the grey range."""
    both: bool
    """Whether every image had both kinds of synthetic noise."""
    measured: tuple[float, ...]
    """Standard deviations of the noise that the training stacks had, as shares of their grey
    range; of those that the network was to learn it from."""

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> TrainingFacts:
        """Read a card."""
        training = mapping(card.get("training"))
        stacks = [mapping(stack) for stack in sequence(training.get("data"))]
        bits = [BITS.fullmatch(str(stack.get("dtype"))) for stack in stacks]
        sizes = [
            in_nanometres(size_of(stack.get("voxel_size")), stack.get("voxel_unit"))
            for stack in (stacks if any("voxel_size" in stack for stack in stacks) else [card])
        ]
        noise = mapping(training.get("noise"))
        gaussian = pair(noise.get("gaussian"))
        levels = [number(stack.get("noise_level")) for stack in stacks]
        synthetic = any(pair(noise.get(kind)) for kind in ("poisson", "gaussian"))
        return cls(
            bits=tuple(sorted({int(match[1]) for match in bits if match})),
            voxel_sizes=tuple(dict.fromkeys(size for size in sizes if size is not None)),
            poisson=pair(noise.get("poisson")),
            gaussian=None if gaussian is None else (gaussian[0] / 255, gaussian[1] / 255),
            both=mapping(training.get("settings")).get("levels") == "uniform",
            measured=() if synthetic else tuple(level for level in levels if level is not None),
        )

    @property
    def bits_in_words(self) -> str:
        """Return "8-bit" or "8- and 16-bit"."""
        *first, last = (f"{bits}-bit" for bits in self.bits)
        return ", ".join(bits.removesuffix("bit") for bits in first) + (
            f" and {last}" if first else last
        )

    def noise_range(self, mean: float) -> tuple[float, float] | None:
        """Return the weakest and the strongest noise of the training.

        Parameters
        ----------
        mean
            Mean grey value on [0, 1]: Poisson noise depends on it.

        Returns
        -------
        tuple of float or None
            Standard deviations as shares of the grey range; None if unknown.
        """
        kinds = [] if self.gaussian is None else [self.gaussian]
        if self.poisson is not None:
            photons = max(mean, 0.0)
            weak, strong = (math.sqrt(photons / peak) for peak in reversed(self.poisson))
            kinds.append((weak, strong))
        if kinds and self.both:
            low, high = (math.hypot(*(kind[end] for kind in kinds)) for end in (0, 1))
            return low, high
        if kinds:
            # A fifth of the samples has both kinds, so their sum is known too.
            high = math.hypot(*(kind[1] for kind in kinds))
            return min(kind[0] for kind in kinds), high
        return (min(self.measured), max(self.measured)) if self.measured else None


def training_in_words(card: Mapping[str, Any]) -> list[str]:
    """Return what a model was trained on, a sentence each, for people who look through microscopes.

    Parameters
    ----------
    card
        The model's card; what it does not say is left out.

    Returns
    -------
    list of str
        Empty for a card that says nothing of a training.
    """
    facts = TrainingFacts.of(card)
    training = mapping(card.get("training"))
    lines = []
    if what := material_of(card):
        lines.append(f"For: {what}")
    stacks = [mapping(stack) for stack in sequence(training.get("data"))]
    if stacks:
        lines.append(f"Trained on {stacks_in_words(stacks)}.")
    if facts.voxel_sizes:
        sizes = " and ".join(size_in_words(size) for size in facts.voxel_sizes)
        lines.append(f"Its voxels were {sizes}.")
    if facts.bits:
        span = pair(card.get("intensity"))
        grey = f"; {span[0]:g} was taken for black and {span[1]:g} for white" if span else ""
        lines.append(f"Its images had {facts.bits_in_words} grey values{grey}.")
    objective = training.get("objective")
    if objective in OBJECTIVES:
        scans = mapping(training.get("settings")).get("scans")
        what = "repeated scans of a slice, predicted from each other (Noise2Noise)"
        lines.append(f"It learnt from {what if scans else OBJECTIVES[objective]}.")
    if noise := noise_in_words(facts):
        lines.append(noise)
    if time := time_in_words(training):
        lines.append(time)
    return lines


def material_of(card: Mapping[str, Any]) -> str:
    """Return the material and the microscope, else the description, of a card; may be empty."""
    parts = [str(card[key]) for key in ("material", "microscope") if card.get(key)]
    return ", ".join(parts) or " ".join(str(card.get("description") or "").split())


def stacks_in_words(stacks: Sequence[Mapping[str, Any]]) -> str:
    """Return "2 stacks (a, b), 30 million voxels"."""
    names = list(dict.fromkeys(str(stack.get("name")) for stack in stacks if stack.get("name")))
    shown = f" ({', '.join(names[:4])}{', …' if len(names) > 4 else ''})" if names else ""
    count = counted(len(stacks), "stack")
    voxels = sum(math.prod(s) for stack in stacks if (s := sequence(stack.get("shape"))))
    if voxels >= 1e6:
        return f"{count}{shown}, {readable_number(voxels / 1e6)} million voxels"
    return f"{count}{shown}" + (f", {voxels} voxels" if voxels else "")


def noise_in_words(facts: TrainingFacts) -> str:
    """Return which noise the model knows; empty if that is unknown."""
    kinds = []
    if facts.poisson is not None:
        low, high = facts.poisson
        kinds.append(f"Poisson (shot) noise of {low:g} to {high:g} counts at white")
    if facts.gaussian is not None:
        low, high = (100 * end for end in facts.gaussian)
        span = f"{readable_number(low, 2)} to {readable_number(high, 2)}"
        kinds.append(f"Gaussian (read-out) noise of {span} % of the grey range")
    if kinds:
        return f"It knows {' and '.join(kinds)}."
    if facts.measured:
        ends = (readable_number(100 * end(facts.measured), 2) for end in (min, max))
        span = " to ".join(dict.fromkeys(ends))
        return f"The noise of its images was {span} % of the grey range."
    return ""


def time_in_words(training: Mapping[str, Any]) -> str:
    """Return how long and where the training ran, with those it continued; empty if unknown."""
    seconds, steps, first_model = 0.0, 0, None
    stage: Mapping[str, Any] = training
    while stage:
        seconds += number(stage.get("seconds")) or 0.0
        steps += int(number(stage.get("steps")) or 0)
        first_model = mapping(stage.get("fine_tuned_from")).get("name") or first_model
        stage = mapping(stage.get("before"))
    if not steps:
        return ""
    lines = f"The training took {counted(steps, 'step')}"
    if seconds:
        lines += f", {readable_time(seconds)} on {training.get('device', 'an unknown device')}"
    return lines + (f", and began from the model {first_model}." if first_model else ".")


def units_were_added(card: Mapping[str, Any]) -> bool:
    """Whether a model was given more units after its first training.

    Its units then stand for other things than when they were the last ones, and the estimates
    after fewer are no quicker version of it.
    """
    stage = mapping(card.get("training"))
    while stage:
        words = str(stage.get("command") or "").split()
        if "--fine-tune" in words and "--units" in words:
            return True
        stage = mapping(stage.get("before"))
    return False


def size_in_words(size: Size) -> str:
    """Return "10 nm cubes", "4 × 4 nm in slices 20 nm apart" and the like.

    Parameters
    ----------
    size
        (z, y, x) in nanometres.
    """
    z, y, x = map(readable_number, size)
    if max(size) < 1.05 * min(size):
        return f"{x} nm cubes"
    return f"{x} × {y} nm in slices {z} nm apart"


def in_nanometres(size: Sequence[float] | None, unit: Any) -> Size | None:
    """Return a voxel size (z, y, x) in nanometres; None if it or its unit is unknown."""
    factor = NANOMETRES.get(str(unit or "").strip().lower().rstrip("s"))
    if size is None or factor is None or not all(edge > 0 for edge in size):
        return None
    z, y, x = (float(edge) * factor for edge in size)
    return z, y, x


def psnr_by_noise(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the scores of a study (one per noise and method) with a column per noise.

    A score is a mean, or a list that begins with it.
    """
    table: dict[str, dict[str, Any]] = {}
    for row in rows:
        score = (row["psnr"] or [None])[0] if isinstance(row["psnr"], list) else row["psnr"]
        line = table.setdefault(str(row["method"]), {"PSNR (dB)": row["method"]})
        line[str(row["noise"])] = f"{score:.2f}" if isinstance(score, float) else score
    return list(table.values())


# A card is a file's: nothing is believed of it but what has the right form --------------------


def mapping(value: Any) -> Mapping[str, Any]:
    """Return ``value`` if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: Any) -> Sequence[Any]:
    """Return ``value`` if it is a list, else an empty one."""
    return value if isinstance(value, (list, tuple)) else ()


def number(value: Any) -> float | None:
    """Return ``value`` if it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def pair(value: Any) -> tuple[float, float] | None:
    """Return ``value`` if it is two numbers."""
    numbers = [number(item) for item in sequence(value)]
    if len(numbers) != 2 or numbers[0] is None or numbers[1] is None:
        return None
    return numbers[0], numbers[1]


def size_of(value: Any) -> Size | None:
    """Return ``value`` if it is three numbers."""
    numbers = [number(item) for item in sequence(value)]
    if len(numbers) != 3 or None in numbers:
        return None
    z, y, x = (item for item in numbers if item is not None)
    return z, y, x
