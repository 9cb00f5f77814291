"""The training loop: read it from top to bottom.

:func:`train` takes a network and a sampler of triplets and minimises an objective.  It checkpoints,
resumes exactly, validates on held-out crops a running average of the weights, and hands the best
of them to a callback.  What is drawn or written beside that is the callbacks' business; this module
must never know about files of images, model cards or screens.

Source: nrrn.md of the method, "Training in the paper" and "What training experiments showed".
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nrrn_fiji.both_branches import both_branches
from nrrn_fiji.checkpoints import (
    History,
    history_in,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
    state_in,
    thinned,
)
from nrrn_fiji.distributed_training import ALONE, Team
from nrrn_fiji.network import NRRN, TwoBranches
from nrrn_fiji.objectives import consensus, weighted_squared_error
from nrrn_fiji.progress import Cancelled, NoProgress, Progress
from nrrn_fiji.settings import TrainSettings
from nrrn_fiji.triplets import Batch, SampleSettings, TripletSampler

__all__ = [
    "Diverged",
    "History",
    "Snapshot",
    "history_in",
    "learning_rate",
    "load_checkpoint",
    "read_checkpoint",
    "resolve",
    "sample_settings",
    "save_checkpoint",
    "state_in",
    "thinned",
    "train",
]

PAPER = {
    "objective": "consensus",
    "units": 4,
    "maps": 64,
    "crop": 256,
    "batch": 16,
    "rate": 1e-4,
    "schedule": "halving",
    "clip": 0.0,
    "average": 0.0,
    "levels": "uniform",
    "weighting": "none",
    "rescale": (0.5, 2.0),
    "steps": 15360,
}
"""The paper's settings: 30 epochs of 8190 crops, the rate halved every 10 epochs."""

EPOCH_CROPS = 8190
"""Crops in an epoch of the paper."""

CPU = {"units": 3, "maps": 32, "crop": 64, "batch": 8, "rate": 4e-3, "steps": 3000}
GPU = {"units": 4, "maps": 64, "crop": 128, "batch": 16, "rate": 5e-4, "steps": 20000}

EVERYWHERE = {
    "schedule": "cosine",
    "clip": 1.0,
    "average": 0.999,
    "levels": "spread",
    "weighting": "variance",
}

VALIDATIONS = 40
"""How often a training is validated, unless that would be more than every 25 steps."""

SECONDS_APART = 15
"""Least time between validations of a training by the clock; each takes seconds itself."""

SAVE_SECONDS = 300
"""A training that is killed loses no more than this."""

VALIDATION_CROPS = 40
VALIDATION_SIZE = 96
WARM_UP = 0.02
"""Fraction of the training in which the cosine schedule rises to the full rate."""


class Diverged(ArithmeticError):
    """The loss is not a number any more; the message says what was kept and what to try."""


@dataclass(frozen=True)
class Snapshot:
    """What the callback is shown after every validation."""

    network: TwoBranches
    """The validated network (averaged weights), in evaluation mode, on the training device."""
    history: History
    is_best: bool
    best_state: dict[str, Tensor]
    """Weights of the best network so far, on the CPU."""


def resolve(
    settings: TrainSettings, *, device: torch.device, precision: str, objective: str
) -> TrainSettings:
    """Fill in what was left out: the preset's values, or what suits the device.

    Parameters
    ----------
    settings
        As asked for.
    device
        Where the training runs.
    precision
        ``"fp32"`` or ``"bf16"``.
    objective
        The objective to use if neither the settings nor their preset name one.

    Raises
    ------
    ValueError
        If settings contradict each other.
    """
    if settings.steps is not None and settings.minutes is not None:
        raise ValueError(
            f"steps is {settings.steps} and minutes is {settings.minutes:g}, but only one of them "
            "can set the length of the training: leave one out."
        )
    if precision not in ("fp32", "bf16"):
        raise ValueError(
            f'precision is "{precision}", but training needs "fp32" or "bf16": choose one.'
        )
    machine = GPU if device.type in ("cuda", "mps") else CPU
    preset = PAPER if settings.preset == "paper" else {}
    values: dict[str, Any] = {**EVERYWHERE, "objective": objective, **machine, **preset}
    if settings.minutes is not None:
        del values["steps"]
    # What was asked for goes before every preset.
    left_out: dict[str, Any] = {
        name: value for name, value in values.items() if getattr(settings, name) is None
    }
    resolved = replace(settings, **left_out, device=str(device), precision=precision)
    synthetic = resolved.poisson is not None or resolved.gaussian is not None
    if resolved.objective == "masked" and resolved.rescale is not None and not synthetic:
        if settings.rescale is not None:
            raise ValueError(
                f"rescale is {settings.rescale} and objective is masked, but rescaling a noisy "
                "stack makes its noise alike from pixel to pixel, which masking would learn: "
                "leave rescale out."
            )
        resolved = replace(resolved, rescale=None)
    if resolved.objective == "clean" and resolved.poisson is None and resolved.gaussian is None:
        raise ValueError(
            "objective is clean, but no noise is asked for: give the range of poisson, of "
            "gaussian, or of both, as in poisson=1,50 gaussian=10,75."
        )
    if (
        resolved.levels == "logarithmic"
        and resolved.gaussian is not None
        and not resolved.gaussian[0]
    ):
        raise ValueError(
            f"gaussian is {resolved.gaussian[0]:g},{resolved.gaussian[1]:g} and levels is "
            "logarithmic, but 0 has no logarithm: begin gaussian above 0, or choose levels=spread."
        )
    check_used(settings, resolved)
    return resolved


def check_used(settings: TrainSettings, resolved: TrainSettings) -> None:
    """Refuse a setting that was asked for and would have no part in the training.

    Parameters
    ----------
    settings
        As asked for.
    resolved
        With everything filled in.

    Raises
    ------
    ValueError
        If there is one; the message says why it has no use.
    """
    asked, against_clean = settings.asked(), resolved.objective == "clean"
    synthetic = resolved.poisson is not None or resolved.gaussian is not None
    no_noise = "no synthetic noise is asked for (poisson, gaussian)"
    nothing_hidden = "objective is clean, which hides no pixels"
    for name, used, why in (
        (
            "weighting",
            against_clean,
            f"objective is {resolved.objective}, and only errors against a clean target are "
            "weighted",
        ),
        ("levels", synthetic, no_noise),
        ("clipped", synthetic, no_noise),
        ("mask", not against_clean, nothing_hidden),
        ("mask_shape", not against_clean, nothing_hidden),
        ("isotropic", not resolved.scans, "scans of one slice have no third axis to cut along"),
    ):
        if name in asked and not used:
            raise ValueError(f"{name} is {asked[name]}, but {why}: leave {name} out.")


def sample_settings(settings: TrainSettings) -> SampleSettings:
    """Return the part of resolved settings that concerns the samples."""
    return SampleSettings(
        **{field.name: getattr(settings, field.name) for field in fields(SampleSettings)}
    )


def learning_rate(settings: TrainSettings, step: int, fraction: float) -> float:
    """Return the learning rate of a step.

    Parameters
    ----------
    settings
        Resolved settings: ``rate``, ``schedule`` and ``batch`` count.
    step
        Steps taken before this one.
    fraction
        How much of the training is over, in [0, 1].
    """
    assert settings.rate is not None and settings.batch is not None
    if settings.schedule == "halving":
        return settings.rate * 0.5 ** (step * settings.batch // (10 * EPOCH_CROPS))
    if settings.schedule == "constant":
        return settings.rate
    if fraction < WARM_UP:
        return settings.rate * max(fraction / WARM_UP, 0.01)
    over = (fraction - WARM_UP) / (1 - WARM_UP)
    return settings.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(over, 1.0))))


def train(
    network: TwoBranches,
    sampler: TripletSampler,
    settings: TrainSettings,
    *,
    checkpoint: Path,
    resume: bool = False,
    data: Mapping[str, str] | None = None,
    callback: Callable[[Snapshot], None] = lambda snapshot: None,
    validate_every: int | None = None,
    progress: Progress | None = None,
    team: Team = ALONE,
) -> tuple[History, dict[str, Tensor]]:
    """Train a network in place.

    Parameters
    ----------
    network
        The network to train; its present weights are the start.
    sampler
        Makes the samples of every step, and those of the validation.
    settings
        Resolved settings (:func:`resolve`).
    checkpoint
        File that the state of the training is written to, after every validation and on
        cancelling; it is removed by nobody.
    resume
        Continue from ``checkpoint``.
    data
        Fingerprints of what the training stands on, by name (such as "training data"); kept in
        the checkpoint and compared on resuming.
    callback
        Called after every validation.
    validate_every
        Steps between two validations; a fortieth of the training when left out.
    progress
        Told how far the training is, and asked whether to stop.
    team
        The processes that train together.  All call this function with the same arguments; the
        first one validates, saves and tells, and decides when it is over.

    Returns
    -------
    history, best_state
        What happened, and the weights of the best network (float32, on the CPU; in the first
        process).

    Raises
    ------
    Diverged
        If the loss or a validation error is not finite.
    Cancelled
        If the user stopped; the checkpoint is up to date (there may be no validation yet).
    ValueError
        If the checkpoint is damaged or belongs to another training.
    """
    progress = progress or NoProgress()
    data = dict(data or {})
    device = torch.device(settings.device or "cpu")
    network.to(device).to(memory_format=torch.channels_last).train().requires_grad_(True)
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.0, betas=(0.9, 0.999), eps=1e-8)
    history = History()
    best_state: dict[str, Tensor] = {}
    if resume:
        if team.first:
            history, best_state = load_checkpoint(
                checkpoint, network, average, optimiser, settings, data
            )
        # The others get the weights when the network is wrapped.
        history, moments = team.given((history, optimiser.state_dict()))
        optimiser.load_state_dict(moments)
    learner = team.learner(Objective(network, settings))
    assert settings.batch is not None
    part, share = team.part(settings.batch), team.share(settings.batch)
    every = validate_every or max(25, (settings.steps or 0) // VALIDATIONS)
    validation = sampler.validation(VALIDATION_CROPS, VALIDATION_SIZE)
    clock = time.monotonic() - history.seconds
    saved = time.monotonic()
    stretch = 1 / VALIDATIONS
    if settings.minutes is not None:
        stretch = max(stretch, SECONDS_APART / (60 * settings.minutes))
    next_part = 0.0

    def over() -> float:
        if settings.minutes is not None:
            return (time.monotonic() - clock) / (60 * settings.minutes)
        assert settings.steps is not None
        return history.step / settings.steps

    def due() -> bool:
        """Whether to validate: every so many steps, or, by the clock, a part of the time."""
        if settings.minutes is None or validate_every is not None:
            return history.step % every == 0
        return over() >= next_part

    def save() -> None:
        nonlocal saved, clock
        begun = time.monotonic()
        history.seconds = begun - clock
        save_checkpoint(
            checkpoint, network, average, optimiser, settings, data, history, best_state
        )
        saved = time.monotonic()
        # Writing is no training: a network with many weights must not get fewer steps for it.
        clock += saved - begun

    def validate() -> None:
        nonlocal best_state, next_part
        next_part = over() + stretch
        tell(progress, settings, history, over(), "validating")
        error = validation_error(average, validation, settings)
        if not math.isfinite(error):
            raise diverged(settings, history, "held-out error")
        history.validation.append((history.step, error))
        is_best = history.best == (history.step, error)
        if is_best:
            best_state = {
                name: value.detach().to("cpu", copy=True).contiguous()
                for name, value in average.state_dict().items()
            }
        save()
        callback(Snapshot(average, copy.deepcopy(history), is_best, best_state))

    next_part = over() + stretch
    whole = True  # Whether weights, optimiser and history are those of the same step.
    with reproducible(), ThreadPoolExecutor(max_workers=1) as ahead:
        coming = ahead.submit(sampler.batch, history.step, part)
        try:
            while (fraction := team.agreed(over())) < 1:
                batch = coming.result()
                coming = ahead.submit(sampler.batch, history.step + 1, part)
                rate = learning_rate(settings, history.step, fraction)
                for group in optimiser.param_groups:
                    group["lr"] = rate
                loss = learner(batch) * share
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                if settings.clip:
                    nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
                value = team.mean(loss)
                if not math.isfinite(value):
                    raise diverged(settings, history, "loss")
                whole = False
                optimiser.step()
                follow(average, network, settings.average or 0.0, history.step)
                history.losses.append(value)
                history.rates.append(rate)
                whole = True
                if team.first:
                    if due():
                        validate()
                    elif time.monotonic() > saved + SAVE_SECONDS:
                        save()
                    tell(progress, settings, history, over())
                if team.agreed(progress.cancelled):
                    if team.first:
                        save()
                    raise Cancelled(f"Stopped after {history.step} steps.")
        except (KeyboardInterrupt, RuntimeError) as error:
            if whole and team.first and (isinstance(error, KeyboardInterrupt) or team.lost(error)):
                save()
            raise
        if team.first:
            if not history.validation or history.validation[-1][0] != history.step:
                validate()
            save()
    return history, best_state


class Objective(nn.Module):
    """A network together with what its training minimises: a batch in, the loss out.

    Parameters
    ----------
    network
        The network to train.
    settings
        Resolved settings.
    """

    def __init__(self, network: TwoBranches, settings: TrainSettings):
        super().__init__()
        self.network, self.settings = network, settings

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of a batch."""
        return objective_value(self.network, batch, self.settings)


def objective_value(network: TwoBranches, batch: Batch, settings: TrainSettings) -> Tensor:
    """Run both branches on a batch and return what training minimises."""
    device = torch.device(settings.device or "cpu")
    previous, centre, following, target, weight = (
        torch.from_numpy(part).to(device, non_blocking=True) for part in batch
    )
    with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
        if isinstance(network, NRRN):
            a, b = both_branches(network, previous, centre, following)
        else:
            a, b = network.branches(previous, centre, following)
    a, b = a.float(), b.float()
    if settings.objective == "consensus":
        return consensus(a, b, previous, following)
    return weighted_squared_error(a, b, target, weight)


@torch.no_grad()
def validation_error(network: TwoBranches, batches: list[Batch], settings: TrainSettings) -> float:
    """Return the mean error on held-out samples, lower is better.

    For a clean target it is the weighted squared error that training minimises; otherwise the
    squared error at masked pixels of the centre, because the consensus loss does not see blur.
    """
    judged = replace(settings, objective="clean" if settings.objective == "clean" else "masked")
    return float(np.mean([objective_value(network, batch, judged).item() for batch in batches]))


@torch.no_grad()
def follow(average: TwoBranches, network: TwoBranches, decay: float, step: int) -> None:
    """Move the running average of the weights, and of batch statistics, towards the network's."""
    # An average that starts at the initial weights would remember them too long.
    decay = min(decay, (1 + step) / (10 + step))
    for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)
    for kept, seen in zip(average.buffers(), network.buffers(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(seen, 1 - decay)
        else:  # a count of batches
            kept.copy_(seen)


def tell(
    progress: Progress, settings: TrainSettings, history: History, fraction: float, now: str = ""
) -> None:
    """Report how far the training is, and what it does ``now`` beside training."""
    recent = np.mean(history.losses[-50:])
    text = f"step {history.step}, loss {recent:.4g}"
    if now:
        text += f", {now}"
    if history.best is not None:
        text += f", best error {history.best[1]:.4g} (step {history.best[0]})"
    if settings.minutes is not None:
        progress.update(min(fraction, 1.0) * settings.minutes * 60, settings.minutes * 60, text)
    else:
        progress.update(history.step, settings.steps or history.step, text)


def diverged(settings: TrainSettings, history: History, what: str) -> Diverged:
    """Return the sentence for a loss or held-out error that is not finite."""
    kept = (
        f"the best model so far (step {history.best[0]}) is kept"
        if history.best is not None
        else "there was no good model yet to keep"
    )
    return Diverged(
        f"The training diverged: the {what} is not finite at step {history.step + 1}; {kept}. "
        f"Try rate={(settings.rate or 1e-3) / 3:.1g} and look for NaN or wrong grey ranges in the "
        "stack."
    )


@contextmanager
def reproducible() -> Iterator[None]:
    """Make cuDNN choose the same algorithms each time, so that a resumed run sees the same loss."""
    with torch.backends.cudnn.flags(
        enabled=torch.backends.cudnn.enabled, benchmark=False, deterministic=True
    ):
        yield
