"""Train from files or arrays to a model file: joins stacks, training, pictures and models.

Beside the model ``mine.safetensors`` a training keeps, from its first validation on,
``mine.loss.csv``, ``mine.loss.png`` and ``mine.sample.png`` to look at, and
``mine.checkpoint.safetensors`` to resume from, which is removed when the training is finished.
The model itself appears when the training ends: finished, stopped or diverged, it is the best one
so far.  This module must never decide how to train: that is :mod:`nrrn_fiji.training`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from nrrn_fiji import training
from nrrn_fiji.device import describe, is_out_of_memory
from nrrn_fiji.distributed_training import Team, joined
from nrrn_fiji.files import write_whole
from nrrn_fiji.fitness import measured_noise
from nrrn_fiji.intensity import ArraySource
from nrrn_fiji.jobs.train_outputs import (
    Beside,
    TrainReport,
    checkpoint_told,
    few_steps,
    model_path,
    same_file,
)
from nrrn_fiji.jobs.train_setup import TRAINING_DATA, Job, prepare
from nrrn_fiji.models import Model, save_model
from nrrn_fiji.network import NRRN, TwoBranches
from nrrn_fiji.plots import loss_curve, sample_picture
from nrrn_fiji.progress import Cancelled, NoProgress, Progress
from nrrn_fiji.settings import TrainSettings
from nrrn_fiji.triplets import Batch, TrainingStack
from nrrn_fiji.volumes import Volume

__all__ = ["TrainReport", "train", "train_files"]


Watch = Callable[[training.History, NDArray[np.float32], NDArray[np.float32]], None]


def train(
    stack: ArrayLike | Path | Volume | Sequence[ArrayLike | Path | Volume],
    out: str | Path,
    *,
    fine_tune: str | Path | Model | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Model:
    """Train a model from a noisy stack alone, from repeated scans, or from clean volumes.

    Parameters
    ----------
    stack
        A stack (Z, Y, X), or several: arrays of (u)int8, (u)int16, float32 or float64 (also what
        turns into one, such as an ``xarray.DataArray`` with z, y, x in this order), files, or
        opened volumes.
    out
        The model file to write, ``.safetensors``.
    fine_tune
        A model to continue from, instead of fresh weights.
    resume
        Continue an interrupted training into ``out``.
    overwrite
        Replace an existing model ``out``.
    progress
        Told how far the training is, and asked whether to stop.
    **settings
        Fields of :class:`nrrn_fiji.TrainSettings`, such as ``objective="masked"``,
        ``minutes=10`` or ``poisson=(1, 50)``.

    Returns
    -------
    Model
        The best model, also in ``out``.

    Raises
    ------
    ValueError, TypeError
        If a stack or a setting cannot be used; the message says what to do.
    FileExistsError
        If ``out`` exists and neither ``resume`` nor ``overwrite`` is asked for.
    ArithmeticError
        If the training diverged.  The last good model is in ``out``.
    nrrn_fiji.progress.Cancelled, KeyboardInterrupt
        If the user stopped.  The best model so far is in ``out``.
    MemoryError
        If the memory of the device does not suffice for the crops and batches.
    """
    one = isinstance(stack, (str, Path, Volume)) or hasattr(stack, "__array__")
    several: list[Any] = [stack] if one else list(cast(Sequence[Any], stack))
    report = train_files(
        several,
        out,
        TrainSettings(**settings),
        fine_tune=fine_tune,
        resume=resume,
        overwrite=overwrite,
        progress=progress,
    )
    return report.model


def train_files(
    stacks: Sequence[NDArray[Any] | str | Path | Volume],
    out: str | Path,
    settings: TrainSettings,
    *,
    fine_tune: str | Path | Model | None = None,
    resume: bool = False,
    overwrite: bool = False,
    description: str = "",
    licence: str = "",
    watch: Watch | None = None,
    progress: Progress | None = None,
) -> TrainReport:
    """Train with settings; see :func:`train`.

    Parameters
    ----------
    description, licence
        What to write into the model's card.
    watch
        Shown the course of the training and a held-out sample, noisy and denoised, (Y, X) on about
        [0, 1], after every validation.
    """
    out = model_path(out)
    files = Beside(out)
    with joined(settings.device) as team, ExitStack() as held:
        progress = team.progress(progress or NoProgress())
        with team.together():
            if team.first:
                held.enter_context(files.locked())
                files.check(resume=resume, overwrite=overwrite)
            job = prepare(stacks, settings, fine_tune, progress, team)
            if (
                job.parent is not None
                and job.parent.path is not None
                and same_file(job.parent.path, out)
            ):
                raise ValueError(
                    f"fine_tune and out are the same file, {out}, which the training would "
                    "replace: choose another name for the new model."
                )
        if not resume and team.first:
            # What an earlier training left must not be taken for this one's.
            files.checkpoint.unlink(missing_ok=True)
        progress.message(job.described(resume, team.size))

        def look(snapshot: training.Snapshot) -> None:
            write_course(files, snapshot.history, job.settings)
            sample = denoised_sample(snapshot.network, job.example, job.settings)
            title = f"Held-out sample at step {snapshot.history.step}"
            sample_picture(*sample, files.sample, title)
            if watch is not None:
                watch(snapshot.history, *sample)

        with checkpoint_told(files):
            with best_kept(files, job, team, description, licence):
                history, best = training.train(
                    job.network,
                    job.sampler,
                    job.settings,
                    checkpoint=files.checkpoint,
                    resume=resume,
                    data=job.data,
                    callback=look,
                    progress=progress,
                    team=team,
                )
            report = None
            if team.first:
                report = write_model(files, job, "finished", history, best, description, licence)
                files.checkpoint.unlink()
                minutes = job.settings.minutes
                if minutes is not None and (told := few_steps(history.step, minutes)):
                    progress.message(told)
        report = team.given(report)
        assert report is not None
        return replace(report, silent=not team.first)


@contextmanager
def best_kept(
    files: Beside, job: Job, team: Team, description: str, licence: str
) -> Iterator[None]:
    """Write the best model so far of a training that ends early, and say so in its error."""
    try:
        yield
    except Cancelled as error:
        if not team.first:
            raise
        report = keep_best(files, job, "stopped", description, licence)
        raise Cancelled(
            f"{error} The best model so far is that of step {report.best_step}, kept in "
            f"{report.model_path}; continue with --resume (resume=True)."
        ) from error
    except training.Diverged as error:
        if not team.first or not files.checkpoint.is_file():
            raise
        report = keep_best(files, job, "diverged", description, licence)
        what = "It" if report.best_error is not None else f"That of step {report.steps}"
        raise training.Diverged(f"{error} {what} is in {report.model_path}.") from error
    except (KeyboardInterrupt, MemoryError, RuntimeError) as error:
        kept = ""
        if team.first and files.checkpoint.is_file():
            report = keep_best(files, job, "stopped", description, licence)
            kept = f" The best model so far is in {report.model_path}."
        if team.lost(error):
            goes_on = " Continue with --resume (resume=True)." if kept else ""
            raise team.peer_lost(kept + goes_on) from error
        if is_out_of_memory(error):
            raise MemoryError(
                f"Memory ran out with batches of {job.settings.batch} crops of "
                f"{job.settings.crop} px: choose a smaller batch or crop.{kept}"
            ) from error
        raise


# While it runs ------------------------------------------------------------------------------------


def write_course(files: Beside, history: training.History, settings: TrainSettings) -> None:
    """Write the loss curve as CSV and PNG."""
    validation = dict(history.validation)
    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerow(["step", "loss", "learning_rate", "validation_error"])
    for index, (loss, rate) in enumerate(zip(history.losses, history.rates, strict=True), 1):
        rows.writerow([index, loss, f"{rate:.4g}", validation.get(index, "")])
    write_whole(files.losses, table.getvalue().encode())
    steps = list(validation)
    loss_curve(
        range(1, history.step + 1),
        history.losses,
        steps,
        [validation[step] for step in steps],
        files.curve,
        criterion=criterion(settings),
    )


def criterion(settings: TrainSettings) -> str:
    """Return the name of what chooses the best model."""
    if settings.objective == "clean":
        return "Held-out weighted error"
    return "Held-out error at masked pixels"


@torch.no_grad()
def denoised_sample(
    network: TwoBranches, example: Batch, settings: TrainSettings
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the example's centre, noisy and denoised, (Y, X)."""
    previous, centre, following = (
        torch.from_numpy(part).to(settings.device or "cpu")
        for part in (example.previous, example.centre, example.following)
    )
    a, b = network.branches(previous, centre, following)
    return example.centre[0, 0], (0.5 * (a + b))[0, 0].float().cpu().numpy()


# After the training -------------------------------------------------------------------------------


def with_effect(settings: TrainSettings) -> dict[str, Any]:
    """Return the settings that had a part in a training, as its model's card tells them.

    A reader would take the others for facts about the model.
    """
    kept = asdict(settings)
    without = [] if settings.objective == "clean" else ["weighting"]
    if settings.poisson is None and settings.gaussian is None:
        without += ["levels", "clipped"]
    return {name: value for name, value in kept.items() if name not in without}


def keep_best(files: Beside, job: Job, ended: str, description: str, licence: str) -> TrainReport:
    """Write the best model in the checkpoint of a training that did not finish.

    Before the first validation that is the present one.
    """
    header, tensors = training.read_checkpoint(files.checkpoint)
    history = training.history_in(header, tensors)
    state = training.state_in(tensors, "average" if history.best is None else "best")
    return write_model(files, job, ended, history, state, description, licence)


def about(stack: TrainingStack) -> dict[str, Any]:
    """Return what the card says of a training stack."""
    noise = measured_noise(ArraySource(stack.array))
    low, high = stack.intensity
    facts = {
        "voxel_size": stack.voxel_size,
        "voxel_unit": None if stack.voxel_size is None else stack.voxel_unit,
        # As a share of the grey range, which is what the network sees.
        "noise_level": None if noise is None else round(noise[0] / (high - low), 6),
    }
    return {
        "name": stack.name,
        "shape": stack.array.shape,
        "dtype": stack.array.dtype.name,
        "intensity": stack.intensity,
        **{key: value for key, value in facts.items() if value is not None},
    }


def write_model(
    files: Beside,
    job: Job,
    ended: str,
    history: training.History,
    best: dict[str, Tensor],
    description: str,
    licence: str,
) -> TrainReport:
    """Write the model with its card."""
    best_step, best_error = history.best or (history.step, None)
    network = NRRN(job.network.units, job.network.maps, job.network.edge)
    network.load_state_dict(best)
    settings = job.settings
    spans = {stack.intensity for stack in job.stacks}
    noise = {"poisson": settings.poisson, "gaussian": settings.gaussian}
    card = {
        "description": description,
        "licence": licence,
        "intensity": spans.pop() if len(spans) == 1 else None,
        "training": {
            "command": job.command(files.model),
            "objective": settings.objective,
            "data": [about(stack) for stack in job.stacks],
            "data_sha256": job.data[TRAINING_DATA],
            "noise": noise if any(noise.values()) else None,
            "settings": with_effect(settings),
            "fine_tuned_from": (
                {"name": job.parent.name, "hash": job.parent.hash} if job.parent else None
            ),
            "ended": ended,
            "steps": history.step,
            "best_step": best_step,
            "criterion": criterion(settings),
            "best_error": best_error,
            "seed": settings.seed,
            "device": describe(torch.device(settings.device or "cpu")),
            "seconds": round(history.seconds, 1),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "torch": torch.__version__,
            "history": {
                "loss": training.thinned(history.losses),
                "validation": history.validation,
            },
        },
    }
    model = save_model(files.model, network, card)
    return TrainReport(
        model=model,
        ended=ended,
        steps=history.step,
        best_step=best_step,
        best_error=best_error,
        seconds=history.seconds,
        files=tuple(f for f in (files.curve, files.losses, files.sample) if f.exists()),
    )
