"""What can be learned where there is nothing but the noisy stack, as most users have it.

The paper trains on clean volumes or on repeated scans.  Here every network sees the noisy stack
alone, for the same time (or steps), and is then asked to denoise it: the NRRN with its centre
masked (what ``nrrn train NOISY`` does), the NRRN with the paper's consensus loss on adjacent
slices, and Noise2Void where CAREamics is installed.  The clean slices only score; this module must
never show them to a training.  That a network is scored on slices it was trained on is the point:
it never saw what they look like without noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..baselines.noise2void import careamics_is_installed, train_noise2void
from ..baselines.trained import train_contender
from ..device import choose_device
from ..plots import picture_grid
from ..progress import Progress
from ..scoring import Candidate, CleanSlices, Image, Level, Row, Steps, score
from ..triplets import TrainingStack
from .candidates import untreated
from .context import SMALLEST_EDGE, Labelled, Study
from .figures import level_dots
from .levels import central
from .parts import Figure, Part, scores_records, scores_table

__all__ = ["LARGEST", "alone", "part_of", "peers_at_hand"]

LEVELS = (Level("gaussian", 25), Level("poisson", 8))
"""Noise as in the other figures; the first as many as the budget has time for."""

LARGEST = (128, 512, 512)
"""Slices, rows and columns of the noisy stack, at most: it is held in memory."""

CROP = 150
"""Edge in pixels of the pictures."""

NETWORKS = {
    "nrrn-masked": "NRRN, masked centre",
    "nrrn-n2n": "NRRN, consensus of adjacent slices",
}
"""Contenders that need no clean image, and what they are called here."""

LEARNERS = (*(f"trained-{kind}" for kind in NETWORKS), "noise2void")

WORDS = {
    "filter": "Best\nfilter",
    "trained-nrrn-masked": "NRRN,\nmasked",
    "trained-nrrn-n2n": "NRRN,\ncon-\nsensus",
    "noise2void": "Noise2-\nVoid",
    "nrrn": "Trained\non clean\nvolumes",
}
"""Names of the methods beneath a figure."""


def part_of(study: Study) -> CleanSlices:
    """Return the part of the scored volume that stands for a user's stack, at most
    :data:`LARGEST`: from the slice before the first scored one on, the middle in y and x."""
    whole = study.scored
    depth, *size = whole.source.shape
    count = min(depth, LARGEST[0])
    start = min(max(0, min(whole.indices) - 1), depth - count)
    top, left = (max(0, (have - most) // 2) for have, most in zip(size, LARGEST[1:], strict=True))
    rows, columns = slice(top, top + LARGEST[1]), slice(left, left + LARGEST[2])
    values = whole.source.read(start, start + count)[:, rows, columns]
    indices = [z - start for z in whole.indices if start <= z < start + count]
    part = CleanSlices(values, indices, study.seed, name="volume")
    part.range = whole.range
    return part


Learned = tuple[Candidate, dict[str, Any]]
"""A method that was trained, and what its training took."""


def learned(study: Study, part: CleanSlices, level: Level) -> list[Learned]:
    """Train everything that learns from a noisy stack alone, or take it from an earlier run."""
    noisy = np.stack([part.noisy(z, level) for z in range(part.depth)])
    stack = TrainingStack(noisy, (0.0, 1.0), f"{study.volume_name} with {level.label}", "noisy")
    settings = study.training_settings([stack])
    folder = study.folder() / "trained"
    found: list[Learned] = []
    for kind, label in NETWORKS.items():
        one = train_contender(kind, [stack], settings, folder, told(study, level, kind))
        took = {name: one.facts[name] for name in ("steps", "best_step", "seconds")}
        found += [(replace(candidate, label=label), took) for candidate in one.candidates()]
    if careamics_is_installed() and min(noisy.shape[1:]) >= SMALLEST_EDGE:
        peer = train_noise2void(
            noisy,
            folder,
            steps=study.budget.steps,
            minutes=study.budget.minutes,
            seed=study.seed,
            device=choose_device(study.device).type,
            progress=told(study, level, "Noise2Void"),
        )
        found.append((replace(peer, setting=None), dict(peer.setting or {})))
    return found


def told(study: Study, level: Level, name: str) -> Progress:
    """Return the study's progress, labelled with what is trained."""
    return Labelled(study.progress, f"{level.label} alone: training {name}")


def peers_at_hand(study: Study) -> bool:
    """Whether Noise2Void can take part here."""
    return careamics_is_installed()


def alone(study: Study) -> Part:
    """Train on the noisy stack alone, and score what it makes of that stack."""
    part = part_of(study)
    levels = LEVELS[: study.budget.alone_levels]
    rows: list[Row] = []
    pictures: list[list[tuple[str, Image]]] = []
    trainings: list[dict[str, Any]] = []
    steps = Steps(study.progress, len(levels) * len(part.indices), "trained networks are kept")
    middle = part.indices[len(part.indices) // 2]
    for level in levels:
        pretrained = [
            replace(candidate, label=f"{study.model.name}, trained on clean volumes")
            for candidate in study.nrrn()
        ]
        best = replace(study.best_filter(level), method="filter")
        taught = learned(study, part, level)
        trainings += [{"noise": level.label, "label": c.label, **took} for c, took in taught]
        candidates = [*untreated(), best, *(candidate for candidate, _ in taught), *pretrained]
        rows += score(candidates, part, level, steps)
        pictures.append(pictured(candidates, part, middle, level))
    out = study.folder()
    level_dots(rows, levels, WORDS, out / "alone-psnr.png")
    picture_grid(pictures, out / "alone-pictures.png", labels=[level.label for level in levels])
    without = "" if careamics_is_installed() else " Noise2Void is left out: CAREamics is missing."
    shape = " × ".join(map(str, part.source.shape))
    return Part(
        name="alone",
        title="When there is nothing but the noisy stack",
        about=f"{study.about(competitors=False)} "
        f"The networks of this part were trained on the noisy stack that "
        f"they denoise ({shape} voxels), for {study.budget.length} each, and never saw a clean "
        f"slice. The filter's setting was found on clean slices of `{study.tuning_name}`, which a "
        f"user with a noisy stack alone does not have.{without}",
        findings=tuple(finding(rows, level) for level in levels),
        tables=(scores_table(rows),),
        figures=(
            Figure("alone-psnr.png", "PSNR; bars: standard deviation over slices."),
            Figure("alone-pictures.png", f"The middle of slice {middle} of that part."),
        ),
        records=scores_records(rows),
        facts={
            **study.facts(competitors=False),
            "part": list(part.source.shape),
            "part_slices": list(part.indices),
            "training": trainings,
        },
    )


def pictured(
    candidates: Sequence[Candidate], part: CleanSlices, index: int, level: Level
) -> list[tuple[str, Image]]:
    """Return the middle of a slice as every method makes it, and clean."""
    triplet = part.triplet(index, level)
    shown = [(one.label, one.denoise(triplet)) for one in candidates if one.method != "mean"]
    return [
        (label, central(image, CROP)) for label, image in [*shown, ("Clean", part.clean(index))]
    ]


def finding(rows: Sequence[Row], level: Level) -> str:
    """Say in a sentence who did best at a level, of those that had the noisy stack alone."""
    here = {row.method: row for row in rows if row.level == level}
    learners = [row for row in here.values() if row.method in LEARNERS]
    order = sorted(learners, key=lambda row: row.mean("psnr"), reverse=True)
    reached = ", ".join(f"{row.label} {row.mean('psnr'):.2f} dB" for row in order)
    sentence = (
        f"{level.label}, input {here['input'].mean('psnr'):.2f} dB: from the noisy stack alone "
        f"{reached}; the best filter, its setting found on clean slices, "
        f"{here['filter'].mean('psnr'):.2f} dB"
    )
    if "nrrn" in here:
        sentence += f"; a model trained on clean volumes {here['nrrn'].mean('psnr'):.2f} dB"
    return f"{sentence}."
