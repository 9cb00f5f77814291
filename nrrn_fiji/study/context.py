"""What all experiments share: the volumes, the noisy slices, the methods, and where results go.

Experiments only measure: what is compared, tuned and trained is decided here, once, for all.  This
module must never tune or train on slices that are scored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..baselines.filters import Filter, filter_named
from ..intensity import Source
from ..models import Model
from ..progress import NoProgress, Progress
from ..scoring import METHOD_VERSION, Candidate, CleanSlices, Level, Steps
from ..settings import TrainSettings
from .budgets import FULL, Budget
from .cache import JsonCache, digest
from .candidates import (
    TUNING_CROP,
    filter_candidates,
    inputs_of,
    model_candidate,
    model_candidates,
    study_filters,
    tuned_filters,
    untreated,
)
from .levels import TABLE1_LEVEL, central, default_slices, default_tuning_slices

if TYPE_CHECKING:
    from ..baselines.trained import Contender
    from ..triplets import TrainingStack

__all__ = ["NOISE", "Labelled", "Study"]

SMALLEST_EDGE = 64
"""Pixels: training crops of the usual size fit into slices of this size."""

TRAINING_NOISE: dict[str, Any] = {"poisson": (1, 50), "gaussian": (10, 75), "clipped": 0.85}
"""Synthetic noise that competitors are trained with: the paper's ranges, most of it clipped as in
the tests."""

SAME_BUDGET = "NRRN trained alike"
"""What an NRRN among the competitors is called, so that it is not taken for the measured model."""

NOISE = "Poisson (peak) or Gaussian (sigma of 255), clipped to [0, 1]"


class Labelled:
    """Progress that says what it is the progress of."""

    def __init__(self, whole: Progress, name: str):
        self.whole, self.name = whole, name

    @property
    def cancelled(self) -> bool:
        """Whether the user asked to stop."""
        return self.whole.cancelled

    def update(self, done: float, total: float, text: str = "") -> None:
        """Pass on, with the name."""
        self.whole.update(done, total, f"{self.name}: {text}" if text else self.name)

    def message(self, text: str) -> None:
        """Pass on."""
        self.whole.message(text)


@dataclass
class Study:
    """Volumes, methods and settings of a study.

    Parameters
    ----------
    volume
        Clean stack (Z, Y, X) that is scored; an array or a source.
    tuning
        Clean stack that filters are tuned on; not the one that is scored.
    models
        The model that is measured, and further ones to compare it with where that makes sense;
        none measures filters alone.
    read_training
        Reads the clean stacks that networks are trained on, when an experiment trains any.
    compete
        Whether the budget's competitors are trained and take part.
    budget
        How much work.
    out
        Folder for results and whatever is worth keeping; None keeps nothing.
    slices, tuning_slices, levels
        What to look at; the budget's choice when left out.
    seed
        Seed of the noise and of all trainings.
    device
        Where networks compute.
    volume_name, tuning_name
        What to call the volumes.

    Raises
    ------
    ValueError
        If a volume is no stack, a slice number is outside it, or there are no levels.
    """

    volume: NDArray[Any] | Source
    tuning: NDArray[Any] | Source
    models: tuple[Model, ...] = ()
    read_training: Callable[[], Sequence[TrainingStack]] | None = None
    compete: bool = False
    budget: Budget = FULL
    out: Path | None = None
    slices: Sequence[int] | None = None
    tuning_slices: Sequence[int] | None = None
    levels: Sequence[Level] | None = None
    seed: int = 0
    device: str | None = None
    volume_name: str = "volume"
    tuning_name: str = "tuning_volume"
    progress: Progress = field(default_factory=NoProgress)

    def __post_init__(self) -> None:
        if self.levels is None:
            self.levels = self.budget.levels
        if not self.levels:
            raise ValueError("levels is empty, but the study needs at least one: choose some.")
        if self.volume is self.tuning:
            raise ValueError(
                "tuning_volume is the volume that is scored: tune on slices that are not scored, "
                "say those of another volume."
            )
        self.slices_asked = self.slices is not None
        if self.slices is None:
            self.slices = default_slices(self.volume.shape[0], self.budget.slices)
        if self.tuning_slices is None:
            self.tuning_slices = default_tuning_slices(self.tuning.shape[0])
        self.scored = CleanSlices(self.volume, self.slices, self.seed, name="volume")
        self.tuned = CleanSlices(self.tuning, self.tuning_slices, self.seed, name="tuning_volume")
        self._tuned_candidates: dict[Level, list[Candidate]] = {}

    # What is compared ---------------------------------------------------------------------------

    @property
    def model(self) -> Model:
        """The model that is measured.

        Raises
        ------
        ValueError
            If there is none.
        """
        if not self.models:
            raise ValueError("model is missing, but this experiment looks at one: name a model.")
        return self.models[0]

    def kinds(self, level: Level) -> tuple[Filter, ...]:
        """Return the filters that take part at a noise level."""
        slow = self.budget.slow_filters == "always" or (
            self.budget.slow_filters == "table1" and level == TABLE1_LEVEL
        )
        return study_filters(slow=slow, thin=self.budget.thin)

    def filter_steps(self, level: Level) -> int:
        """Return how many pieces of work :meth:`filters` tells of."""
        return sum(len(inputs_of(kind)) for kind in self.kinds(level))

    def filter_facts(self, *levels: Level) -> list[Any]:
        """Return what the filters' results depend on besides the scored slices, for a digest."""
        kinds = {kind.name: kind.grid(1.0) for level in levels for kind in self.kinds(level)}
        return [METHOD_VERSION, self.tuned.fingerprint(), TUNING_CROP, kinds]

    def filters(self, level: Level, steps: Steps | None = None) -> list[Candidate]:
        """Return the filters, each at its best at a noise level, without and with grey correction.

        ``steps`` is told of every filter, whether it is tuned or its setting is known already.
        """
        if level in self._tuned_candidates:
            if steps:
                steps.skip(self.filter_steps(level))
            return self._tuned_candidates[level]
        key = digest(self.filter_facts(level))
        kept = self._settings.get(level.label)
        if kept is not None and kept["key"] == key:
            found = [
                candidate
                for name, images, plain, after in kept["settings"]
                for candidate in filter_candidates(filter_named(name), images, plain, after, level)
            ]
            if steps:
                steps.skip(self.filter_steps(level))
        else:
            found = tuned_filters(self.tuned, level, steps, self.kinds(level))
            settings = [
                [plain.method, plain.images, plain.setting, after.setting]
                for plain, after in zip(found[::2], found[1::2], strict=True)
            ]
            self._settings.put(level.label, {"key": key, "settings": settings})
        self._tuned_candidates[level] = found
        return found

    @cached_property
    def _settings(self) -> JsonCache:
        return JsonCache(None if self.out is None else self.out / "tuned.json", "settings")

    def best_filter(self, level: Level, steps: Steps | None = None) -> Candidate:
        """Return the filter that is best in PSNR on the tuning slices, grey-corrected or not.

        Chosen there and not on the scored slices, so that nothing is chosen by what is reported.
        """
        from ..metrics import psnr

        candidates = self.filters(level, steps)
        clean = [central(self.tuned.clean(z), TUNING_CROP) for z in self.tuned.indices]
        noisy = [central(self.tuned.triplet(z, level), TUNING_CROP) for z in self.tuned.indices]

        def quality(candidate: Candidate) -> float:
            return float(
                np.mean([psnr(c, candidate.denoise(n)) for c, n in zip(clean, noisy, strict=True)])
            )

        return max(candidates, key=quality)

    @property
    def tile_slices(self) -> tuple[int, ...]:
        """The slices whose tiles are scored: those asked for, all, or as many as the budget has.

        Some of many are taken from the middles of equal parts of the stack, because its first and
        its last slice, which have one neighbour and so a lower PSNR, would count too much.
        """
        if self.slices_asked:
            return self.scored.indices
        depth = self.volume.shape[0]
        most = min(self.budget.tile_slices or depth, depth)
        return tuple((2 * part + 1) * depth // (2 * most) for part in range(most))

    def nrrn(self, images: Sequence[int] = (3,)) -> list[Candidate]:
        """Return the measured model as a candidate per number of images; none without a model."""
        if not self.models:
            return []
        return model_candidates(self.models[0], images, self.device)

    def turned(self) -> list[Candidate]:
        """Return the model averaged over orientations of the slices, if the budget has it."""
        count = self.budget.orientations
        if count == 1 or not self.models:
            return []
        turned = model_candidate(self.models[0], orientations=count, device=self.device)
        return [dataclasses.replace(turned, method="nrrn-turned")]

    def further_models(self) -> list[Candidate]:
        """Return the models that stand beside the first one, by their names."""
        return [
            dataclasses.replace(
                model_candidate(model, label=f"NRRN {model.name}", device=self.device),
                method=f"nrrn:{model.name}",
            )
            for model in self.models[1:]
        ]

    def networks(self, images: Sequence[int] = (3,)) -> list[Candidate]:
        """Return the model, further models, and the trained competitors."""
        return [*self.nrrn(images), *self.further_models(), *self.contenders()]

    @cached_property
    def stacks(self) -> tuple[TrainingStack, ...]:
        """The clean stacks that networks are trained on.

        Raises
        ------
        ValueError
            If there are none, or one holds a slice that is scored.
        """
        stacks = () if self.read_training is None else tuple(self.read_training())
        if not stacks:
            raise ValueError("train is missing, but this experiment trains: give clean stacks.")
        # A copy under another name is not seen by its path.
        scored = [self.scored.source.read(z, z + 1)[0] for z in self.scored.indices]
        scored = [image for image in scored if image.min() < image.max()]
        for stack in stacks:
            for image in stack.array:
                if any(np.array_equal(image, one) for one in scored):
                    raise ValueError(
                        f"{stack.name} holds a slice of {self.volume_name} that is scored, but "
                        "networks must be trained on other slices: give another stack."
                    )
        return stacks

    def training_settings(self, stacks: Sequence[TrainingStack], **noise: Any) -> TrainSettings:
        """Return the settings of every competitor's training on these stacks.

        Parameters
        ----------
        stacks
            What is trained on.
        noise
            Settings of the synthetic noise; none is added when left out.
        """
        edge = min(min(stack.array.shape[1:]) for stack in stacks)
        units, maps = self.budget.size or (None, None)
        return TrainSettings(
            **noise,
            units=units,
            maps=maps,
            minutes=self.budget.minutes,
            steps=self.budget.steps,
            crop=None if edge >= SMALLEST_EDGE else edge,
            seed=self.seed,
            device=self.device,
        )

    @cached_property
    def trained(self) -> tuple[Contender, ...]:
        """The budget's competitors, trained or taken from an earlier run."""
        if not self.compete:
            return ()
        from ..baselines.trained import train_contender

        settings = self.training_settings(self.stacks, **TRAINING_NOISE)
        folder = self.folder() / "trained"
        count = len(self.budget.contenders)
        return tuple(
            train_contender(
                kind,
                self.stacks,
                settings,
                folder,
                Labelled(self.progress, f"training {kind}, {number} of {count}"),
            )
            for number, kind in enumerate(self.budget.contenders, 1)
        )

    def contenders(self) -> list[Candidate]:
        """Return the trained competitors as candidates."""
        return [
            dataclasses.replace(candidate, label=candidate.label.replace("NRRN", SAME_BUDGET))
            for one in self.trained
            for candidate in one.candidates()
        ]

    def usual(self, level: Level, steps: Steps | None = None) -> list[Candidate]:
        """Return what most figures show: input, best filter, model and competitors."""
        return [untreated()[0], self.best_filter(level, steps), *self.networks()]

    # What is said about it ----------------------------------------------------------------------

    def facts(self, *, competitors: bool = True) -> dict[str, Any]:
        """Return what was measured on what, in JSON's types.

        ``competitors`` is False for experiments that they have no part in: asking what they are
        trains them.
        """
        return {
            "volume": self.volume_name,
            "tuning": self.tuning_name,
            "slices": list(self.scored.indices),
            "tuning_slices": list(self.tuned.indices),
            "seed": self.seed,
            "noise": NOISE,
            "model": ({"name": self.model.name, "hash": self.model.hash} if self.models else None),
            "further_models": [{"name": m.name, "hash": m.hash} for m in self.models[1:]],
            "trained": [
                {"method": one.kind.key, "trained_on": [stack.name for stack in self.stacks]}
                | {
                    name: one.facts[name]
                    for name in ("steps", "best_step", "seconds", "parameters", "macs", "device")
                }
                for one in (self.trained if competitors else ())
            ],
            "budget": dataclasses.asdict(self.budget),
            "package_version": __version__,
        }

    def about(self, *, tuned: bool = True, competitors: bool = True) -> str:
        """Return a paragraph that says what was measured on what; see :meth:`facts`."""

        def listed(numbers: Sequence[int]) -> str:
            return ", ".join(map(str, numbers))

        first = (
            f"Model `{self.model.name}` ({self.model.hash[:12]}), "
            if self.models
            else "Filters alone, "
        )
        text = (
            f"{first}nrrn-fiji {__version__}. `{self.volume_name}`, slices "
            f"{listed(self.scored.indices)} (0-based), with synthetic noise clipped to [0, 1], "
            f"seed {self.seed}; mean ± standard deviation over the slices, estimates clipped to "
            "[0, 1]."
        )
        if tuned:
            text += (
                f" Filters tuned for every level on `{self.tuning_name}`, slices "
                f"{listed(self.tuned.indices)}."
            )
        if competitors and self.trained:
            text += (
                f" Competitors trained for {self.budget.length} each on "
                + ", ".join(f"`{stack.name}`" for stack in self.stacks)
                + ", all with the same samples, noise, seed, and choice of the best step."
            )
        return text

    def key(self, *particulars: Any, trains: bool = False) -> str:
        """Return a digest of everything that an experiment's result depends on.

        Parameters
        ----------
        *particulars
            The experiment's name, and what its result depends on beside what all results do; in
            JSON's types.
        trains
            Whether it trains networks of its own on the training volumes.
        """
        trained_on = None
        if self.compete or trains:
            from ..training_data import fingerprint

            trained_on = fingerprint(self.stacks)
        assert self.levels is not None
        return digest(
            [
                METHOD_VERSION,
                list(particulars),
                self.scored.fingerprint(),
                self.tuned.fingerprint(),
                self.filter_facts(*self.levels, TABLE1_LEVEL),
                [model.hash for model in self.models],
                trained_on,
                [list(level) for level in self.levels],
                dataclasses.asdict(self.budget),
            ]
        )

    def folder(self) -> Path:
        """Return the folder for results, made if need be."""
        if self.out is None:
            raise ValueError("out is missing, but figures need a folder: give one.")
        self.out.mkdir(parents=True, exist_ok=True)
        return self.out
