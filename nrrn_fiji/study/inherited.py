"""Does a network that is trained towards averaged scans inherit their noise?

The paper says so, and that the consensus loss avoids it, without an experiment.  Here scans of
the same slice are simulated, so that truth and noise are known.  Three scans go in; what differs
is the target: the clean slice, the average of N scans that the three are among (as when about ten
scans of a slice are averaged to be its "ground truth"), the average of N other scans, or no
target at all but the consensus loss.

What to expect: if the inputs' noise n is in the target with a share of 3 / N, the best guess of
the target is the best guess of the clean slice and 3 / N of the best guess of the mean of n.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .. import training
from ..device import choose_device
from ..metrics import psnr
from ..models import Model, load_model, save_model
from ..network import NRRN
from ..plots import colour_of
from ..reports import Table, counted
from ..scoring import Image, Level, Steps
from ..settings import TrainSettings
from ..triplets import Batch, SampleSettings, TrainingStack, TripletSampler, stacked
from .cache import digest
from .candidates import unit_estimates
from .context import Labelled, Study
from .figures import Curve, Panel, curves
from .flat import LINE, Line, flattest_lines
from .parts import Figure, Part, mean_and_sd, plus_minus

__all__ = ["TARGETS", "ScanSampler", "Target", "inherited"]

SIGMA = 25.0
"""Standard deviation of the scans' Gaussian noise, in grey levels of 255; nothing is clipped, so
that the noise has no mean."""

LINES = 12
CROP = 48
SEEN, UNSEEN = 1, 2
"""Keep the random numbers of training and of validation apart."""

Cut = tuple[NDArray[np.generic], tuple[float, float]]
"""What crops are cut from: an array (Z, Y, X) and the grey values that map to 0 and 1."""


@dataclass(frozen=True)
class Target:
    """What a network is trained towards."""

    name: str
    label: str
    scans: int = 0
    """How many scans are averaged; 0: the clean slice."""
    inputs_among_them: bool = False
    consensus: bool = False

    @property
    def share(self) -> float:
        """Share of the mean noise of the three inputs that is in the target."""
        return 3 / self.scans if self.inputs_among_them else 0.0


TARGETS = (
    Target("clean", "Clean slice"),
    Target("mean10", "Mean of 10 scans, inputs among them", 10, True),
    Target("mean4", "Mean of 4 scans, inputs among them", 4, True),
    Target("others4", "Mean of 4 other scans", 4),
    Target("consensus", "Consensus loss, no target", consensus=True),
)


class ScanSampler(TripletSampler):
    """Cuts crops from clean slices and simulates scans of them.

    Parameters
    ----------
    stacks
        Clean stacks.
    settings
        Crop, batch and seed count.
    target
        What the samples' target is.
    """

    def __init__(
        self,
        stacks: Sequence[TrainingStack],
        settings: SampleSettings,
        target: Target,
    ):
        super().__init__(stacks, settings)
        self.target = target

    def batch(self, step: int, part: range | None = None) -> Batch:
        """Return the samples of a step, or a part of them, the same for the same step and seed."""
        boxes = [(box.array, box.intensity) for box in self.training]
        place = [self.settings.seed, SEEN, step]
        numbers = range(self.settings.batch) if part is None else part
        return self._batch_of(place, boxes, numbers, self.settings.crop)

    def validation(self, count: int, crop: int) -> list[Batch]:
        """Return held-out samples with targets of the same kind; for the consensus loss, which has
        none, a further scan."""
        boxes = [(box.array, box.intensity) for box in self.held_out]
        edge = min(crop, *(min(array.shape[1:]) for array, _ in boxes))
        return [
            self._batch_of([self.settings.seed, UNSEEN, number], boxes, range(1), edge)
            for number in range(count)
        ]

    def _batch_of(
        self, place: Sequence[int], boxes: Sequence[Cut], numbers: range, crop: int
    ) -> Batch:
        """Return samples; each has a generator of its own, so that crops and the inputs' noise do
        not depend on how many scans the target takes."""
        samples = [
            self._scans(np.random.default_rng([*place, number]), boxes, crop) for number in numbers
        ]
        return stacked(samples)

    def _scans(
        self,
        rng: np.random.Generator,
        boxes: Sequence[Cut],
        crop: int,
    ) -> tuple[Image, ...]:
        """Return previous, centre, following, target and weight."""
        array, (low, high) = boxes[int(rng.integers(len(boxes)))]
        depth, height, width = array.shape
        z = int(rng.integers(depth))
        y, x = int(rng.integers(height - crop + 1)), int(rng.integers(width - crop + 1))
        clean = (array[z, y : y + crop, x : x + crop].astype(np.float32) - low) / (high - low)
        if rng.random() < 0.5:
            clean = clean[::-1]
        if rng.random() < 0.5:
            clean = clean.T
        clean = np.ascontiguousarray(clean, dtype=np.float32)
        wanted = 3 + max(1, self.target.scans)
        noise = rng.standard_normal((wanted, *clean.shape), dtype=np.float32) * (SIGMA / 255)
        scans = (clean + noise).astype(np.float32)
        target = clean
        if self.target.consensus:
            target = scans[3]
        elif self.target.inputs_among_them:
            target = scans[: self.target.scans].mean(0)
        elif self.target.scans:
            target = scans[3 : 3 + self.target.scans].mean(0)
        return scans[0], scans[1], scans[2], target, np.ones((1, 1), np.float32)


def trained(study: Study, target: Target) -> Model:
    """Train a small network towards a target, or load it if that was done before."""
    budget = study.budget
    device = choose_device(study.device)
    crop = min(CROP, *(min(stack.array.shape[1:]) for stack in study.stacks))
    settings = training.resolve(
        TrainSettings(
            objective="consensus" if target.consensus else "clean",
            gaussian=(SIGMA, SIGMA),
            units=budget.units,
            maps=budget.maps,
            crop=crop,
            steps=budget.inherited_steps,
            rate=4e-3,
            seed=study.seed,
        ),
        device=device,
        precision="fp32",
        objective="clean",
    )
    from ..training_data import fingerprint

    key = digest([repr(settings), repr(target), fingerprint(study.stacks)])
    folder = study.folder() / "trained"
    path = folder / f"inherited-{target.name}-{key[:10]}.safetensors"
    if path.is_file():
        return load_model(path)
    folder.mkdir(exist_ok=True)
    checkpoint = path.with_name(f"{path.stem}.checkpoint.safetensors")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(study.seed)
        network = NRRN(budget.units, budget.maps)
    _, best = training.train(
        network,
        ScanSampler(study.stacks, training.sample_settings(settings), target),
        settings,
        checkpoint=checkpoint,
        resume=checkpoint.is_file(),
        data={"target": repr(target)},
        progress=Labelled(study.progress, f"training towards {target.label}"),
    )
    network = NRRN(budget.units, budget.maps)
    network.load_state_dict(best)
    model = save_model(path, network, {"description": f"Study: trained towards {target.label}."})
    checkpoint.unlink()
    return model


def areas_of(lines: Sequence[Line], image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the grey values of the flat areas around lines, the mean of each taken away."""
    parts = []
    for line in lines:
        height = min(LINE // 2, image.shape[0])
        top = line.y - height // 2
        part = image[top : top + height, line.x : line.x + line.length]
        parts.append((part - part.mean()).ravel())
    return np.concatenate(parts)


def inherited(study: Study) -> Part:
    """Measure how much of the inputs' noise is left in flat areas, target by target."""
    scored = study.scored
    models = {target.name: trained(study, target) for target in TARGETS}
    lines = flattest_lines(scored, LINES)
    indices = sorted({line.z for line in lines})
    steps = Steps(study.progress, len(indices) * len(TARGETS), "trained networks are kept")
    level = Level("gaussian", SIGMA)
    noises: list[NDArray[np.float64]] = []
    left: dict[str, list[NDArray[np.float64]]] = {target.name: [] for target in TARGETS}
    quality: dict[str, list[float]] = {target.name: [] for target in TARGETS}
    for index in indices:
        clean = scored.clean(index)
        rng = level.rng(study.seed, index)
        noise = rng.standard_normal((3, *clean.shape), dtype=np.float32) * np.float32(SIGMA / 255)
        here = [line for line in lines if line.z == index]
        noises.append(areas_of(here, noise.mean(0).astype(np.float64)))
        for target in TARGETS:
            estimate = unit_estimates(models[target.name], clean + noise, device=study.device)[-1]
            quality[target.name].append(psnr(clean, estimate))
            residual = estimate.astype(np.float64) - clean
            left[target.name].append(areas_of(here, residual))
            steps.next(f"{target.label}: slice {index}")
    noise_in = np.concatenate(noises)

    def share(name: str) -> float:
        """Slope of what differs from the truth over the mean noise of the inputs."""
        residual = np.concatenate(left[name])
        return float((residual * noise_in).sum() / (noise_in**2).sum())

    floor = share("clean")
    rows, records = [], []
    for target in TARGETS:
        expected = floor + target.share * (1 - floor)
        mean, sd = mean_and_sd(quality[target.name])
        rms = 255 * float(np.concatenate(left[target.name]).std())
        rows.append(
            (
                target.label,
                f"{share(target.name):.3f}",
                f"{expected:.3f}",
                f"{rms:.2f}",
                plus_minus(mean, sd),
            )
        )
        records.append(
            {
                "target": target.name,
                "label": target.label,
                "noise_left": share(target.name),
                "expected": expected,
                "residual_sd": rms,
                "psnr_mean": mean,
                "psnr_sd": sd,
            }
        )
    out = study.folder()
    picture(records, out / "inherited-noise.png")
    shares = {target.name: share(target.name) for target in TARGETS}
    return Part(
        name="inherited",
        title="Do networks inherit the noise of averaged targets?",
        about=f"{study.about(tuned=False, competitors=False)} "
        f"Unlike elsewhere, three scans of the same slice with "
        f"Gaussian noise of sigma {SIGMA:g}, unclipped. Networks of "
        f"{counted(study.budget.units, 'unit')} × {study.budget.maps} maps, "
        f"{study.budget.inherited_steps} steps each, the same crops and noise. Noise left: "
        "slope of (output − truth) over the mean noise of the three inputs, in "
        f"{len(lines)} flat areas. Expected: that of the network with the clean target, plus the "
        "share of the inputs' noise that is in the target.",
        findings=(
            f"The network trained towards the mean of 10 scans keeps {shares['mean10']:.2f} of the "
            f"noise of its three inputs' mean, of 4 scans {shares['mean4']:.2f}; with a clean "
            f"target {shares['clean']:.2f}, with the mean of 4 scans it never saw "
            f"{shares['others4']:.2f}, with the consensus loss {shares['consensus']:.2f}.",
            verdict(shares),
        ),
        tables=(
            (
                "Flat areas; standard deviation of (output − truth) in grey levels of 255",
                Table(
                    ("Trained towards", "Noise left", "Expected", "Residual", "PSNR (dB)"),
                    tuple(rows),
                ),
            ),
        ),
        figures=(
            Figure("inherited-noise.png", "Noise that is left, measured and expected from theory."),
        ),
        records=tuple(records),
        facts=study.facts(competitors=False),
    )


def verdict(shares: Mapping[str, float]) -> str:
    """Return what the shares of noise say about the paper's claim."""
    shared = min(shares["mean10"], shares["mean4"]) - shares["clean"]
    others = max(shares["others4"], shares["consensus"]) - shares["clean"]
    if shared > 2 * max(others, 0.01):
        return (
            "So the claim holds where the averaged scans are also the inputs: the noise that "
            "inputs and target share is learned as if it were structure. Noise of scans that are "
            "no inputs is not inherited, nor is any with the consensus loss."
        )
    return "These trainings are too short, or the claim does not hold: no clear difference."


def picture(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Save the noise that is left, measured and expected."""
    words = {
        "clean": "Clean",
        "mean10": "Mean\nof 10",
        "mean4": "Mean\nof 4",
        "others4": "4 other\nscans",
        "consensus": "Con-\nsensus",
    }
    places = np.arange(len(records))
    curves(
        [
            Panel(
                "",
                (
                    Curve(
                        "Measured",
                        places,
                        [record["noise_left"] for record in records],
                        colour_of("nrrn"),
                        line="",
                        mark="o",
                    ),
                    Curve(
                        "Expected from the shared noise",
                        places,
                        [record["expected"] for record in records],
                        colour_of("mean"),
                        line="",
                        mark="x",
                    ),
                ),
                "Trained towards",
                "Share of the inputs' noise left",
                x_ticks=tuple(
                    (place, words[record["target"]])
                    for place, record in zip(places.tolist(), records, strict=True)
                ),
            )
        ],
        path,
    )
