"""What a training needs before it begins: stacks read, open settings chosen, the network made.

This module must never train or write anything.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from nrrn_fiji import training
from nrrn_fiji.device import bf16_is_fast, choose_device, describe
from nrrn_fiji.distributed_training import ALONE, Team
from nrrn_fiji.intensity import ArraySource
from nrrn_fiji.masks import POINT, MaskShape, fitting_mask
from nrrn_fiji.models import Model, load_model
from nrrn_fiji.network import NRRN
from nrrn_fiji.noise_statistics import noise_correlation
from nrrn_fiji.progress import Progress
from nrrn_fiji.reports import counted
from nrrn_fiji.settings import SMALLEST_CROP, TrainSettings
from nrrn_fiji.stack_checks import warn
from nrrn_fiji.training_data import fingerprint, read_stacks
from nrrn_fiji.triplets import Batch, TrainingStack, TripletSampler, split
from nrrn_fiji.volumes import Volume

__all__ = [
    "TRAINING_DATA",
    "Job",
    "fitting_crop",
    "mask_shape",
    "prepare",
    "start_from",
    "with_defaults",
]

SAMPLE_SIZE = 256
TRAINING_DATA, PARENT = "training data", "model to fine-tune"
FINE_TUNE_RATE = 0.1
"""Fine-tuning starts from a good place: its default learning rate is smaller by this factor."""

LOOKED_OVER = 4
"""Most stacks that are looked over, for drift and for their noise, before a training."""

SMALLEST_MEASURED = 64
"""Edge in pixels of the smallest slices whose noise can be told from structure."""


@dataclass(frozen=True)
class Job:
    """Everything that a training needs, read and chosen."""

    network: NRRN
    sampler: TripletSampler
    settings: TrainSettings
    example: Batch
    stacks: tuple[TrainingStack, ...]
    data: dict[str, str]
    """Fingerprints of the training data and the model that is fine-tuned."""
    parent: Model | None
    asked: TrainSettings
    """The settings before anything was filled in."""

    def command(self, out: Path) -> str:
        """Return the command line that asks for this training."""
        words = ["nrrn", "train", *dict.fromkeys(stack.source for stack in self.stacks)]
        words += ["-o", out.name]
        if self.parent is not None:
            words += ["--fine-tune", self.parent.name]
        for name, value in self.asked.asked().items():
            words.append("--" + name.replace("_", "-"))
            if isinstance(value, tuple):
                words.append(",".join(map(exactly, value)))
            elif isinstance(value, float):
                words.append(exactly(value))
            elif value is not True:
                words.append(str(value))
        return shlex.join(words)

    def described(self, resume: bool, processes: int = 1) -> str:
        """Return the settings that were chosen, in a sentence."""
        s = self.settings
        length = f"{s.steps} steps" if s.minutes is None else f"{s.minutes:g} min"
        start = f"fine-tuning {self.parent.name}" if self.parent else "fresh weights"
        if resume:
            start = "going on from the checkpoint"
        noise = ", ".join(
            f"{name} {low:g}-{high:g}"
            for name, pair in (("Poisson peak", s.poisson), ("Gaussian sigma", s.gaussian))
            if pair is not None
            for low, high in [pair]
        )
        if s.objective == "masked" and s.mask_shape != str(POINT):
            noise = f"mask {s.mask_shape}, as the noise of neighbouring pixels is alike"
        by = f"by {processes} processes, this one " if processes > 1 else ""
        return (
            f"Training {by}on {describe(torch.device(s.device or 'cpu'))} in {s.precision}: "
            f"{s.objective} objective{f' ({noise})' if noise else ''}, {start}, "
            f"{counted(self.network.units, 'unit')} x {counted(self.network.maps, 'map')}, "
            f"crops of {s.crop} px, "
            f"batches of {s.batch}, {length}, learning rate {s.rate:g} ({s.schedule})."
        )


def prepare(
    stacks: Sequence[NDArray[Any] | str | Path | Volume],
    settings: TrainSettings,
    fine_tune: str | Path | Model | None,
    progress: Progress,
    team: Team = ALONE,
) -> Job:
    """Read the stacks and fill in what the settings leave open."""
    parent = None if fine_tune is None else load_model(fine_tune)
    asked = settings
    resolved = with_defaults(replace(settings, device=team.device(settings.device)), parent)
    assert resolved.batch is not None
    team.part(resolved.batch)
    data = read_stacks(stacks, settings.intensity, progress)
    for stack in data[:: -(-len(data) // LOOKED_OVER)]:
        warn(ArraySource(stack.array), progress, scans=settings.scans, name=stack.name)
    if settings.crop is None:
        resolved = replace(resolved, crop=fitting_crop(data, resolved))
    if resolved.mask_shape is None:
        resolved = replace(resolved, mask_shape=str(mask_shape(data, resolved)))
    sampler = TripletSampler(data, training.sample_settings(resolved))
    assert resolved.units is not None and resolved.maps is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(resolved.seed)
        network = NRRN(resolved.units, resolved.maps, resolved.edge)
    if parent is not None:
        start_from(network, parent.network)
    return Job(
        network,
        sampler,
        resolved,
        sampler.example(SAMPLE_SIZE),
        tuple(data),
        {TRAINING_DATA: fingerprint(data), PARENT: parent.hash if parent else ""},
        parent,
        asked,
    )


def exactly(number: float) -> str:
    """Return a number with as many digits as it takes to read the same number again.

    >>> exactly(50.0), exactly(0.004), exactly(1234567.5)
    ('50', '0.004', '1234567.5')
    """
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


def mask_shape(stacks: Sequence[TrainingStack], settings: TrainSettings) -> MaskShape:
    """Return the mask that suits the noise of the stacks."""
    if settings.poisson is not None or settings.gaussian is not None:
        return POINT  # Synthetic noise is independent from pixel to pixel.
    measured = []
    for stack in stacks[:: -(-len(stacks) // LOOKED_OVER)]:
        # Scans are independent of each other; within one, noise may be alike.
        images = stack.array[:1] if settings.scans else stack.array
        # Where slices are too small to measure anything, nothing is known: single pixels.
        if min(images.shape[1:]) >= SMALLEST_MEASURED:
            measured.append(noise_correlation(images))
    return fitting_mask(measured, isotropic=settings.isotropic and not settings.scans)


def with_defaults(settings: TrainSettings, parent: Model | None = None) -> TrainSettings:
    """Fill in what suits the device, the kind of data and the model to fine-tune."""
    settings = with_architecture(settings, parent)
    device = choose_device(settings.device)
    synthetic = settings.poisson is not None or settings.gaussian is not None
    objective = "consensus" if settings.scans else "clean" if synthetic else "masked"
    resolved = training.resolve(
        settings,
        device=device,
        precision=settings.precision or ("bf16" if bf16_is_fast(device) else "fp32"),
        objective=objective,
    )
    if parent is not None and settings.rate is None and resolved.rate is not None:
        resolved = replace(resolved, rate=resolved.rate * FINE_TUNE_RATE)
    return resolved


def with_architecture(settings: TrainSettings, parent: Model | None) -> TrainSettings:
    """Take the architecture of the model to fine-tune; it can grow by units, and no other way."""
    if parent is None:
        return settings
    if settings.units is not None and settings.units < parent.units:
        raise ValueError(
            f"units is {settings.units}, but the model to fine-tune, {parent.name}, has "
            f"{parent.units}, and units can only be added: leave units out."
        )
    if settings.maps not in (None, parent.maps):
        raise ValueError(
            f"maps is {settings.maps}, but the model to fine-tune, {parent.name}, has "
            f"{parent.maps}: leave maps out."
        )
    if settings.edge and not parent.edge:
        raise ValueError(
            f"edge is asked for, but the model to fine-tune, {parent.name}, has no edge layer: "
            "leave edge out."
        )
    units = settings.units or parent.units
    return replace(settings, units=units, maps=parent.maps, edge=parent.edge)


def start_from(network: NRRN, parent: NRRN) -> None:
    """Give a network the weights of its parent; units that the parent lacks start as its last."""
    network.load_state_dict(parent.state_dict(), strict=False)
    for unit in network.BU[parent.units :]:
        unit.load_state_dict(parent.BU[-1].state_dict())


def fitting_crop(stacks: Sequence[TrainingStack], settings: TrainSettings) -> int:
    """Return the largest crop up to the default that leaves room to hold a part out."""
    assert settings.crop is not None
    for crop in range(settings.crop, SMALLEST_CROP - 1, -8):
        try:
            for stack in stacks:
                split(stack, training.sample_settings(replace(settings, crop=crop)))
        except ValueError:
            continue
        return crop
    return SMALLEST_CROP  # The sampler says which stack is too small, and why.
