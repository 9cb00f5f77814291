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
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from nrrn_fiji import training
from nrrn_fiji.device import bf16_is_fast, choose_device, describe, is_out_of_memory
from nrrn_fiji.distributed_training import ALONE, Team, joined
from nrrn_fiji.files import NO_SPACE, UNREACHABLE, write_whole
from nrrn_fiji.fitness import measured_noise
from nrrn_fiji.intensity import ArraySource
from nrrn_fiji.masks import POINT, MaskShape, fitting_mask
from nrrn_fiji.models import Model, load_model, save_model
from nrrn_fiji.network import NRRN, TwoBranches
from nrrn_fiji.noise_statistics import noise_correlation
from nrrn_fiji.plots import loss_curve, sample_picture
from nrrn_fiji.progress import Cancelled, NoProgress, Progress
from nrrn_fiji.reports import readable_time
from nrrn_fiji.settings import TrainSettings
from nrrn_fiji.stack_checks import warn
from nrrn_fiji.training_data import fingerprint, read_stacks
from nrrn_fiji.triplets import Batch, TrainingStack, TripletSampler, split
from nrrn_fiji.volumes import Volume

__all__ = ["TrainReport", "train", "train_files"]


SAMPLE_SIZE = 256
TRAINING_DATA, PARENT = "training data", "model to fine-tune"
FINE_TUNE_RATE = 0.1
"""Fine-tuning starts from a good place: its default learning rate is smaller by this factor."""

SMALLEST_CROP = 16
LOOKED_OVER = 4
"""Most stacks that are looked over, for drift and for their noise, before a training."""

SMALLEST_MEASURED = 64
"""Edge in pixels of the smallest slices whose noise can be told from structure."""

Watch = Callable[[training.History, NDArray[np.float32], NDArray[np.float32]], None]


@dataclass(frozen=True)
class TrainReport:
    """What a training did; see :class:`nrrn_fiji.reports.Reportable`."""

    model: Model
    ended: str
    """``"finished"``, ``"stopped"`` or ``"diverged"``."""
    steps: int
    best_step: int
    best_error: float | None
    """Held-out error of the best step; None if the training ended before its first validation."""
    seconds: float
    files: tuple[Path, ...]
    """The loss curve (CSV, PNG) and the sample picture."""
    silent: bool = False
    """Whether another process of the same training tells of it."""

    @property
    def model_path(self) -> Path:
        """The model file."""
        assert self.model.path is not None
        return self.model.path

    @property
    def summary(self) -> str:
        """What was done and where the result is."""
        error = (
            "not validated" if self.best_error is None else f"held-out error {self.best_error:.4g}"
        )
        lines = [
            f"Model: {self.model_path}",
            f"The best of {self.steps} steps is step {self.best_step} ({error}), after "
            f"{readable_time(self.seconds)} in all.",
        ]
        if self.files:
            lines.append(f"Look at {', '.join(str(file) for file in self.files)}.")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """The same in JSON's types."""
        return {
            "model": str(self.model_path),
            "hash": self.model.hash,
            "ended": self.ended,
            "steps": self.steps,
            "best_step": self.best_step,
            "best_error": self.best_error,
            "seconds": self.seconds,
            "files": [str(file) for file in self.files],
        }


def train(
    stack: NDArray[Any] | str | Path | Sequence[NDArray[Any] | str | Path],
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
        A stack (Z, Y, X), or several: arrays of (u)int8, (u)int16, float32 or float64, or files.
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
    several = [stack] if isinstance(stack, (np.ndarray, str, Path)) else list(stack)
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
        report = team.given(report)
        assert report is not None
        return replace(report, silent=not team.first)


@contextmanager
def checkpoint_told(files: Beside) -> Iterator[None]:
    """Say, where a disk is full or out of reach, that the last checkpoint is still there."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE | UNREACHABLE or not files.checkpoint.is_file():
            raise
        told = OSError(
            f"{error} The last checkpoint is kept in {files.checkpoint}: go on with --resume "
            "(resume=True)."
        )
        told.errno = error.errno
        raise told from error


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
        raise training.Diverged(f"{error} It is in {report.model_path}.") from error
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


# Where things lie ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Beside:
    """The files that a training keeps beside its model."""

    model: Path

    def named(self, suffix: str) -> Path:
        """Return ``mine<suffix>`` for the model ``mine.safetensors``."""
        return self.model.with_name(self.model.stem + suffix)

    @property
    def checkpoint(self) -> Path:
        """State of the training, to resume from."""
        return self.named(".checkpoint.safetensors")

    @property
    def losses(self) -> Path:
        """A row per step."""
        return self.named(".loss.csv")

    @property
    def curve(self) -> Path:
        """The loss curve."""
        return self.named(".loss.png")

    @property
    def sample(self) -> Path:
        """A held-out crop, denoised."""
        return self.named(".sample.png")

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Refuse to lose an existing model or an interrupted training."""
        if resume:
            if not self.checkpoint.is_file():
                raise FileNotFoundError(
                    f"There is no checkpoint {self.checkpoint} to resume from: start without "
                    "--resume (resume=True)."
                )
            return
        if overwrite:
            return
        if self.checkpoint.exists():
            raise FileExistsError(
                f"A training of {self.model} was interrupted: continue it with --resume "
                "(resume=True), or start again with --overwrite (overwrite=True)."
            )
        if self.model.exists():
            raise FileExistsError(
                f"The model {self.model} exists: choose another name, or replace it with "
                "--overwrite (overwrite=True)."
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second training out of the same files."""
        if not self.model.parent.is_dir():
            raise FileNotFoundError(
                f"The folder {self.model.parent} for the model does not exist: make it first."
            )
        lock = FileLock(self.named(".lock"), blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise FileExistsError(
                f"Another training is writing {self.model} right now: wait for it, or choose "
                "another name."
            ) from None
        try:
            yield
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()


def same_file(one: Path, other: Path) -> bool:
    """Whether both names are those of one existing file."""
    return one.exists() and other.exists() and one.samefile(other)


def model_path(out: str | Path) -> Path:
    """Return the file that a model called ``out`` is written to."""
    path = Path(out)
    if path.suffix == "":
        return path.with_suffix(".safetensors")
    if path.suffix != ".safetensors":
        raise ValueError(
            f"The model file {path} ends in {path.suffix}, but models are .safetensors files: "
            f"write to {path.with_suffix('.safetensors').name}, say."
        )
    return path


# Before the training ------------------------------------------------------------------------------


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
                words.append(",".join(f"{number:g}" for number in value))
            elif isinstance(value, float):
                words.append(f"{value:g}")
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
            f"{self.network.units} units x {self.network.maps} maps, crops of {s.crop} px, "
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
            "settings": asdict(settings),
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
