"""What pretraining is worth when there is only a small volume: fine-tuned against fresh.

The paper trains a network of one unit on a small volume alone: 17.9 dB at Poisson peak 1 and
28.5 dB at Gaussian sigma 10.  Here the same small volume and the same number of steps go into
fine-tuning the model, into a fresh network of its size, and into a fresh one of one unit.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..baselines.trained import train_contender
from ..models import Model, load_model
from ..progress import Progress
from ..scoring import Candidate, Level, Row, Steps, score
from ..settings import TrainSettings
from ..triplets import TrainingStack
from .cache import digest
from .candidates import model_candidate, untreated
from .context import Labelled, Study
from .figures import level_dots
from .parts import Figure, Part, scores_records, scores_table

__all__ = ["SMALL", "small_volume", "trained_once", "transfer"]

LEVELS = {Level("poisson", 1): "17.9 dB", Level("gaussian", 10): "28.5 dB"}
"""The paper's strongest and weakest noise, and what its network of one unit reached."""

WORDS = {
    "filter": "Best\nfilter",
    "pretrained": "Pre-\ntrained",
    "tuned": "Fine-\ntuned",
    "fresh": "Fresh",
    "single": "Fresh,\n1 unit",
    "trained-unet-mean": "Fresh\nU-Net",
    "trained-denoisenet-three": "Fresh\nDenoise-\nNet",
}
"""Names of the methods beneath the figure."""

OWN = ("pretrained", "tuned", "fresh", "single")
"""Methods that are NRRNs."""

SMALL = (16, 128, 128)
"""Slices, rows and columns of the small volume, at most."""


def small_volume(stack: TrainingStack) -> TrainingStack:
    """Return the beginning of a stack, central in y and x, no larger than :data:`SMALL`."""
    depth, *edges = (min(a, b) for a, b in zip(stack.array.shape, SMALL, strict=True))
    top, left = (
        (size - edge) // 2 for size, edge in zip(stack.array.shape[1:], edges, strict=True)
    )
    part = stack.array[:depth, top : top + edges[0], left : left + edges[1]]
    return replace(stack, array=np.ascontiguousarray(part), name=f"{stack.name}, small part")


def trained_once(
    folder: Path,
    name: str,
    stack: TrainingStack,
    settings: TrainSettings,
    fine_tune: Model | None,
    progress: Progress,
) -> Model:
    """Train a model, or go on with its training, or load it if it was trained before.

    Parameters
    ----------
    folder
        Where models are kept; a file's name says what it was trained with.
    name
        Beginning of that name.
    stack
        What to train on.
    settings
        How to train.
    fine_tune
        The model to continue from; fresh weights when None.
    progress
        Told of the training.
    """
    from ..jobs.train import train_files
    from ..training_data import fingerprint

    settings = replace(settings, intensity=stack.intensity)
    key = digest([asdict(settings), fingerprint([stack]), fine_tune.hash if fine_tune else None])
    path = folder / f"{name}-{key[:10]}.safetensors"
    interrupted = path.with_name(f"{path.stem}.checkpoint.safetensors").is_file()
    if path.is_file() and not interrupted:
        return load_model(path)
    folder.mkdir(parents=True, exist_ok=True)
    return train_files(
        [stack.array],
        path,
        settings,
        fine_tune=fine_tune,
        resume=interrupted,
        description=f"Trained by the study on {stack.name}.",
        progress=progress,
    ).model


def noise_range(level: Level) -> dict[str, Any]:
    """Return the noise of a level as a setting of a training."""
    return {level.kind: (level.value, level.value)}


def transfer(study: Study) -> Part:
    """Train and fine-tune on a small volume, at the paper's strongest and weakest noise."""
    pretrained = study.model
    small = small_volume(study.stacks[0])
    folder = study.folder() / "trained"
    rows: list[Row] = []
    steps = Steps(study.progress, len(LEVELS) * len(study.scored.indices), "trainings are kept")
    for level in LEVELS:
        settings = TrainSettings(
            objective="clean",
            clipped=1.0,
            steps=study.budget.transfer_steps,
            seed=study.seed,
            device=study.device,
            **noise_range(level),
        )
        fresh = replace(settings, units=pretrained.units, maps=pretrained.maps)
        single = replace(fresh, units=1)
        short = f"transfer-{level.kind[0]}{level.value:g}"

        def train(
            name: str, settings: TrainSettings, parent: Model | None = None, short: str = short
        ) -> Model:
            named = f"{short}-{name}"
            told = Labelled(study.progress, f"training {named}")
            return trained_once(folder, named, small, settings, parent, told)

        models = [
            ("pretrained", f"{pretrained.name} as it is", pretrained),
            ("tuned", f"{pretrained.name}, fine-tuned", train("tuned", settings, pretrained)),
            ("fresh", f"Fresh, {pretrained.units} × {pretrained.maps}", train("fresh", fresh)),
            ("single", f"Fresh, 1 × {pretrained.maps}", train("single", single)),
        ]
        candidates = [untreated()[0], replace(study.best_filter(level), method="filter")]
        candidates += [named(model, key, label, study) for key, label, model in models]
        for kind in study.budget.transfer_contenders:
            told = Labelled(study.progress, f"{level.label}: training {kind}")
            one = train_contender(kind, [small], fresh, folder, told)
            candidates += [
                replace(candidate, label=f"Fresh, {candidate.label}")
                for candidate in one.candidates()
            ]
        rows += score(candidates, study.scored, level, steps)
    out = study.folder()
    level_dots(rows, tuple(LEVELS), WORDS, out / "transfer-psnr.png", OWN)
    by_key = {(row.level, row.method): row for row in rows}
    findings = [
        f"{level.label}: on the small volume alone the fresh network of {pretrained.units} units "
        f"reaches {by_key[level, 'fresh'].mean('psnr'):.2f} dB and one of a single unit "
        f"{by_key[level, 'single'].mean('psnr'):.2f} dB (the paper's, on other data: {paper}); "
        f"fine-tuning reaches {by_key[level, 'tuned'].mean('psnr'):.2f} dB, where the pretrained "
        f"model was at {by_key[level, 'pretrained'].mean('psnr'):.2f} dB."
        for level, paper in LEVELS.items()
    ]
    shape = " × ".join(map(str, small.array.shape))
    return Part(
        name="transfer",
        title="With and without pretraining",
        about=f"{study.about(competitors=False)} "
        f"The small volume is {shape} voxels of `{small.source}`, its last "
        f"slices held out to choose the best step; {study.budget.transfer_steps} steps each, clean "
        "target, noise of the level alone. The pretrained model may have seen this volume in its "
        "own training.",
        findings=tuple(findings),
        tables=(scores_table(rows),),
        figures=(Figure("transfer-psnr.png", "PSNR; bars: standard deviation over slices."),),
        records=scores_records(rows),
        facts={**study.facts(competitors=False), "small": list(small.array.shape)},
    )


def named(model: Model, method: str, label: str, study: Study) -> Candidate:
    """Return a model as a candidate under a name of its own."""
    return replace(model_candidate(model, label=label, device=study.device), method=method)
