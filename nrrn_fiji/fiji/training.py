"""Train on This Stack…: a model from the open image, watched while it learns.

The loss curve is an ImageJ plot and a held-out sample an image, both renewed after every
validation.  Esc ends the training early; the best model so far is kept then too.  The model is in
the list of models afterwards, with the name that was given.  This module must never replace a model
that is there unless it is asked to.

Source: ``ij.gui.Plot`` and ``ij.gui.PlotWindow`` of ImageJ 1.54p.
"""

from __future__ import annotations

import functools
import re
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..commands import Kind, Option, find_command
from ..models import install_model, known_models, user_models_dir
from ..progress import Cancelled
from ..reports import counted, readable_time
from ..settings import TrainSettings
from . import java
from .entry import Entry, Host, options_of, unused_title
from .images import volume_of
from .layout import activate, enlarge, put_beside
from .pixels import java_array, pixels_to_java

if TYPE_CHECKING:
    from ..training import History

__all__ = ["train_entry"]

# The open image is the stack, and the model goes into the list.
LEFT_OUT = ("stacks", "out", "resume")
LABELS = {
    "fine_tune": "Start from model",
    "overwrite": "Overwrite a model of that name",
    "scans": "Scans of one slice instead of adjacent slices",
    "steps": "Steps instead of minutes",
    "poisson": "Poisson peak to add to clean slices",
    "gaussian": "Gaussian sigma to add to clean slices",
}
"""What says more in a dialog for one open image than the option's own label."""
MINUTES_TO_BEGIN_WITH = 20.0
TIMED_EDGE, TIMED_CROPS, TIMED_STEPS = 64, 2, 2
"""What is timed to estimate how long a training takes: small, for a dialog must not take memory."""
SAMPLE_ON_SCREEN = 256
"""Least height of the held-out sample on the screen, in pixels."""
SAMPLE_GAP = 4


def train_entry() -> Entry:
    """Return Train on This Stack…"""
    command = find_command("train")
    name = Option(
        name="name",
        label="Name of the model",
        help="Under this name the model is in the list afterwards; made from the image's name when "
        "left out.",
        kind=Kind.TEXT,
    )
    return Entry(
        label="Train on This Stack...",
        key="train",
        summary="Train a model on the open stack. Esc ends the training and keeps the best model.",
        options=(name, *map(relabelled, options_of(command, *LEFT_OUT))),
        check=command.make_settings,
        run=train,
        note=time_needed,
        start=lambda imp: {
            "name": free_name(str(imp.getTitle())),
            "minutes": MINUTES_TO_BEGIN_WITH,
        },
    )


def relabelled(option: Option) -> Option:
    """Return an option with the label that it has in the dialog."""
    return replace(option, label=LABELS.get(option.name, option.label))


def time_needed(imp: Any, values: dict[str, Any]) -> str:
    """Return how long a training would take, or how many steps its minutes are, in a sentence."""
    from ..jobs.train_setup import with_defaults
    from ..models import load_model

    settings: TrainSettings = find_command("train").make_settings(values)
    parent = load_model(values["fine_tune"]) if "fine_tune" in values else None
    resolved = with_defaults(settings, parent)
    check_name(values.get("name") or free_name(volume_of(imp).name), values.get("overwrite", False))
    seconds = seconds_per_step(resolved)
    assert resolved.units is not None and resolved.maps is not None
    size = f"{counted(resolved.units, 'unit')} x {counted(resolved.maps, 'map')}"
    how = f"{resolved.objective} objective, {size}"
    if resolved.minutes is not None:
        steps = max(round(60 * resolved.minutes / seconds), 1)
        length = f"{resolved.minutes:g} min, about {two_digits(steps)} steps"
    else:
        assert resolved.steps is not None
        length = f"About {readable_time(seconds * resolved.steps)} for {resolved.steps} steps"
    return f"{length} ({resolved.device}): {how}."


def two_digits(number: int) -> int:
    """Return a number that is only an estimate: 1234 -> 1200."""
    return round(number, 2 - len(str(number)))


def seconds_per_step(settings: TrainSettings) -> float:
    """Estimate how long a step of a training takes, from a few of its pixels.

    Parameters
    ----------
    settings
        Resolved settings.
    """
    assert settings.crop is not None and settings.batch is not None
    edge, crops = min(settings.crop, TIMED_EDGE), min(settings.batch, TIMED_CROPS)
    # What makes no difference to the time must not make it be measured again.
    plain = TrainSettings(
        objective=settings.objective,
        units=settings.units,
        maps=settings.maps,
        edge=settings.edge,
        device=settings.device,
        precision=settings.precision,
    )
    share = crops * edge**2 / (settings.batch * settings.crop**2)
    return seconds_for(plain, edge, crops) / share


@functools.cache
def seconds_for(settings: TrainSettings, edge: int, crops: int) -> float:
    """Return how long a step with so many crops of that size takes, without taking it."""
    import torch

    from ..network import NRRN
    from ..training import objective_value
    from ..triplets import Batch

    assert settings.units is not None and settings.maps is not None
    network = NRRN(settings.units, settings.maps, settings.edge).to(settings.device)
    part = np.random.default_rng(0).random((crops, 1, edge, edge), np.float32)
    batch = Batch(part, part, part, part, np.ones((crops, 1, 1, 1), np.float32))
    seconds = []
    for _ in range(1 + TIMED_STEPS):  # the first one also prepares kernels
        begun = time.perf_counter()
        network.zero_grad()
        loss = objective_value(network.to(memory_format=torch.channels_last), batch, settings)
        loss.backward()
        loss.item()  # a device works ahead of Python until something is asked back
        seconds.append(time.perf_counter() - begun)
    return min(seconds[1:])


def free_name(title: str) -> str:
    """Return a name for a model of this image that no model has: "cortex.tif" -> "cortex"."""
    stem = title.rsplit(".", 1)[0] if re.search(r"\.\w{1,4}$", title) else title
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip(".-_") or "model"
    taken = {entry.name for entry in known_models()}
    number, fresh = 1, name
    while fresh in taken:
        number += 1
        fresh = f"{name}-{number}"
    return fresh


def train(host: Host, values: dict[str, Any]) -> None:
    """Train on the open image and put the model into the list."""
    from ..jobs.train import train_files

    imp = host.current_image()
    volume = volume_of(imp)
    settings: TrainSettings = find_command("train").make_settings(values)
    name = values.get("name") or free_name(volume.name)
    overwrite = values.get("overwrite", False)
    check_name(name, overwrite)
    log = java.JClass("ij.IJ").log
    folder = user_models_dir()
    folder.mkdir(parents=True, exist_ok=True)
    # Until it has ended the model is no model: it grows in a folder of its own.
    with (
        host.working_on(imp, "Train", counts=False) as progress,  # its text names the step
        tempfile.TemporaryDirectory(prefix=".training-", dir=folder) as work,
    ):
        made = Path(work) / f"{name}.safetensors"
        for note in volume.notes:
            progress.message(note)
        view = None if host.without_dialogs(None) else View(name)
        try:
            report = train_files(
                [volume],
                made,
                settings,
                fine_tune=values.get("fine_tune"),
                description=values.get("description", ""),
                licence=values.get("licence", ""),
                watch=None if view is None else view.show,
                progress=progress,
            )
            log(
                f"Trained {name}: the best of {report.steps} steps is step {report.best_step}, "
                f"after {readable_time(report.seconds)}."
            )
        except Cancelled as stopped:
            if not made.is_file():
                raise Cancelled("Stopped: there is no model yet.") from stopped
            log(f"Training of {name} was ended early: the best model so far is kept.")
        except Exception:
            if made.is_file():
                log(f"The best model so far is kept as {name}.")
            raise
        finally:
            if made.is_file():
                install_model(made, name, overwrite)
    if view is not None and host.in_macro:  # the next command is for the stack, not for a plot
        activate(imp)
    java.JClass("ij.IJ").showStatus(f"{name} is in the list of models now")


def check_name(name: str, overwrite: bool) -> None:
    """Refuse a name that cannot be installed, before any time is spent."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or name.endswith(".safetensors"):
        raise ValueError(
            f"name is {name!r}, but a model's name is made of letters, digits, dots, underscores "
            "and hyphens: choose another name."
        )
    for entry in known_models():
        if entry.name == name and (entry.origin == "shipped" or not overwrite):
            more = "" if entry.origin == "shipped" else ", or use overwrite"
            raise FileExistsError(f"A model named {name} is there already: choose another{more}.")


class View:
    """The windows of a training: its loss curve and a held-out sample."""

    def __init__(self, name: str):
        self.name = name
        self._window: Any = None
        self._sample: Any = None

    def show(
        self, history: History, noisy: NDArray[np.float32], denoised: NDArray[np.float32]
    ) -> None:
        """Renew both windows; one that the user closed stays closed."""
        plot = loss_plot(f"Training of {self.name}", history)
        if self._window is None:
            self._window = plot.show()
        elif self._window.isVisible():
            self._window.drawPlot(plot)
        gap = np.ones((noisy.shape[0], SAMPLE_GAP), np.float32)
        picture = np.hstack([noisy, gap, denoised]).astype(np.float32)
        processor = float_processor(picture)
        low, high = np.percentile(noisy, (0.5, 99.5))
        processor.setMinAndMax(float(low), float(high))
        if self._sample is None:
            title = unused_title(f"Sample of {self.name} (noisy, denoised)")
            self._sample = java.JClass("ij.ImagePlus")(title, processor)
            self._sample.show()
            enlarge(self._sample, SAMPLE_ON_SCREEN)
            put_beside(self._sample, self._window.getImagePlus(), over=True)
        elif self._sample.isVisible():
            self._sample.setProcessor(processor)
            self._sample.changes = False


def loss_plot(title: str, history: History) -> Any:
    """Return an ``ij.gui.Plot`` of the loss and the held-out error over the steps."""
    from ..training import thinned

    plot = java.JClass("ij.gui.Plot")(title, "Step", "Loss")
    plot.setFrameSize(520, 300)
    numbers = java.JArray(java.JDouble)
    curves = [("Loss", "#7d9fc9", "line", thinned(history.losses))]
    if history.validation:
        pairs = [list(pair) for pair in history.validation]
        # With circles the first one shows, too.
        curves.append(("Held-out error", "#c2571a", "connected circle", pairs))
    for _, colour, shape, pairs in curves:
        steps, values = zip(*pairs, strict=True)
        plot.setColor(colour, colour)  # of circles, and of what connects them
        plot.setLineWidth(2)
        plot.add(shape, numbers([float(s) for s in steps]), numbers([float(v) for v in values]))
    plot.setAxisYLog(True)
    plot.setLimitsToFit(False)
    plot.setColor("black")
    plot.addLegend("\n".join(label for label, *_ in curves))
    return plot


def float_processor(picture: NDArray[np.float32]) -> Any:
    """Return an ``ij.process.FloatProcessor`` of a picture (Y, X)."""
    pixels = java_array(picture.size, picture.dtype)
    pixels_to_java(picture, pixels)
    height, width = picture.shape
    return java.JClass("ij.process.FloatProcessor")(width, height, pixels)
