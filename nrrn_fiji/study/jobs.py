"""Runs one experiment or all of them on files, keeps what is finished, and writes the report.

The functions that commands call.  This module must never measure anything itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..models import DEFAULT_MODEL, Model, load_model, save_model
from ..progress import Cancelled, NoProgress, Progress
from ..reports import Report, readable_time
from ..scoring import Row
from .alone import alone, peers_at_hand
from .budgets import FULL, HOUR, QUICK, Budget
from .context import Study
from .cost import cost
from .edges import edges
from .inherited import inherited
from .inputs import inputs
from .iqr import iqr
from .levels import parse_levels, parse_slice_numbers
from .opening import open_study
from .parts import Part, kept_part, save_part
from .report import write_report
from .table2 import card_results, table1, table2_part
from .tiles import tiles, tiles_shown
from .transfer import transfer
from .units import units

__all__ = ["EXPERIMENTS", "Experiment", "all_files", "run_part", "study_files", "table2_files"]


@dataclass(frozen=True)
class Experiment:
    """One experiment of the study."""

    name: str
    function: Callable[[Study], Part]
    needs_model: bool = True
    variant: str = ""
    """What is asked of it beside what is usual: a result without that is another one."""
    trains: bool = False
    """Whether it trains networks of its own on the training volumes."""
    depends_on: Callable[[Study], Any] | None = None
    """Returns what its result depends on beside what all results do, in JSON's types."""

    def stem(self, study: Study) -> str:
        """Return the beginning of the names of its files."""
        if self.name == "table2":
            return f"table2-{study.models[0].name if study.models else 'filters'}"
        return self.name

    def key(self, study: Study) -> str:
        """Return a digest of everything that its result depends on."""
        particular = self.depends_on(study) if self.depends_on else None
        return study.key(self.name, self.variant, particular, trains=self.trains)


EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        Experiment("table1", table1, needs_model=False),
        Experiment("table2", table2_part, needs_model=False),
        Experiment("tiles", tiles, depends_on=tiles_shown),
        Experiment("iqr", iqr),
        Experiment("units", units),
        Experiment("inputs", inputs),
        Experiment("edges", edges),
        Experiment("cost", cost),
        Experiment("alone", alone, depends_on=peers_at_hand),
        Experiment("transfer", transfer, trains=True),
        Experiment("inherited", inherited, trains=True),
    )
}
"""Every experiment, in the order of the report."""


def run_part(study: Study, experiment: Experiment, *, overwrite: bool = False) -> tuple[Part, bool]:
    """Measure a part, or take it from an earlier run.

    Parameters
    ----------
    study
        What is measured on what.
    experiment
        Which experiment.
    overwrite
        Measure again what is finished, and replace what was measured otherwise.

    Returns
    -------
    part, kept
        The part, and whether it was finished before.

    Raises
    ------
    FileExistsError
        If the folder holds this part measured on other data, models or settings.
    """
    folder = study.folder()
    key = experiment.key(study)
    if not overwrite:
        kept = kept_part(folder, experiment.stem(study))
        if kept is not None:
            refuse_other(folder, experiment, study, kept[1], key)
            return kept[0], True
    start = time.monotonic()
    part = experiment.function(study)
    part = replace(part, facts={**part.facts, "seconds": round(time.monotonic() - start, 1)})
    save_part(folder, part, key)
    return part, False


def refuse_other(folder: Path, experiment: Experiment, study: Study, kept: str, key: str) -> None:
    """Raise a FileExistsError if a kept part was measured otherwise."""
    if kept != key:
        raise FileExistsError(
            f"{folder / experiment.stem(study)}.json holds a result of {experiment.name} on other "
            "data, models or settings: choose another folder, or replace it with --overwrite "
            "(overwrite=True)."
        )


def chosen_budget(
    quick: bool,
    full: bool,
    default: Budget,
    minutes: float | None,
    steps: int | None,
    competitors: str | None,
) -> Budget:
    """Return the budget that was asked for."""
    if quick and full:
        raise ValueError(
            "quick and full are both asked for, but they exclude each other: drop one."
        )
    budget = QUICK if quick else FULL if full else default
    if minutes is not None and steps is not None:
        raise ValueError(
            f"minutes is {minutes:g} and steps is {steps}, but competitors are trained either "
            "equally long or equally many steps: drop one."
        )
    if minutes is not None:
        budget = replace(budget, minutes=minutes, steps=None)
    if steps is not None:
        budget = replace(budget, minutes=None, steps=steps, transfer_steps=steps)
    if competitors is not None:
        budget = replace(budget, contenders=parse_competitors(competitors))
    return budget


def parse_competitors(text: str) -> tuple[str, ...]:
    """Return the keys in a list like "unet-mean,denoisenet-three"; ValueError lists those known."""
    from ..baselines.trained import CONTENDERS

    keys = tuple(word.strip() for word in text.split(","))
    for key in keys:
        if key not in CONTENDERS:
            raise ValueError(
                f"competitors is {text!r}, but {key!r} is none: choose from "
                f"{', '.join(CONTENDERS)}."
            )
    return keys


def study_files(
    name: str,
    volume: str | Path | None,
    tuning: str | Path | None,
    out: str | Path,
    model: Sequence[Model | str | Path] | Model | str | Path | None = None,
    *,
    train: Sequence[str | Path] | None = None,
    all_images: bool = False,
    slices: str | Sequence[int] | None = None,
    tuning_slices: Sequence[int] | None = None,
    levels: str | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    competitors: str | None = None,
    quick: bool = False,
    seed: int = 0,
    device: str | None = None,
    write_card: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Run one experiment on files and write everything into a folder.

    The folder then holds the experiment's tables (``.md``), numbers (``.csv``, ``.json``) and
    figures (``.png``), and whatever makes the next run quick: ``filters*.json``, ``tuned.json``
    and trained networks in ``trained``.

    Parameters
    ----------
    name
        A key of :data:`EXPERIMENTS`.
    volume, tuning
        Images with a clean stack: scored, and for tuning the filters; a small example takes the
        place of both when they are left out.
    out
        The folder, made if need be.
    model
        A model, its name or file, or several, the one that is measured first.  Tables without one
        measure filters alone; other experiments take the model that comes with the package.
    train
        Clean stacks to train competitors on, which then take part; without any there are no
        competitors, and experiments that train networks of their own do so on ``tuning``.
    all_images
        For Table 2: also denoise with 1 and 2 images per slice.
    slices, levels
        What to look at, like ``"10:120:10"`` and ``"P8,G25"``.
    tuning_slices
        Slices that filters are tuned on.
    minutes, steps
        Training time of each competitor, or how many steps it takes.
    competitors
        Which networks are trained, like ``"unet-mean,denoisenet-three"``.
    quick
        Use the smallest budget.
    seed, device
        As in :class:`~nrrn_fiji.study.context.Study`.
    write_card
        For Table 2: also put the table into the card of the model's file.
    overwrite
        Replace results of other settings.
    progress
        Told of the work.

    Returns
    -------
    Report
        The first table, what was found, and where the rest is.

    Raises
    ------
    ValueError, FileNotFoundError, FileExistsError
        If something is missing or cannot be used; the message says what is needed.
    Cancelled
        If the user stopped.
    """
    experiment = EXPERIMENTS[name]
    if name == "table2" and all_images:
        function = partial(table2_part, images=(3, 2, 1))
        experiment = replace(experiment, function=function, variant="all images")
    budget = chosen_budget(quick, False, FULL, minutes, steps, competitors)
    models = as_list(model) or ([DEFAULT_MODEL] if experiment.needs_model else [])
    loaded = [load_model(one) for one in models]
    if write_card and (not loaded or loaded[0].path is None):
        raise ValueError(
            "write_card is set, but there is no model file to write to: save the model first and "
            "give its file."
        )
    with open_study(
        volume,
        tuning,
        out,
        train=train or (),
        models=loaded,
        compete=bool(train),
        budget=budget,
        slices=parse_slice_numbers(slices) if isinstance(slices, str) else slices,
        tuning_slices=tuning_slices,
        levels=parse_levels(levels) if levels else None,
        seed=seed,
        device=device,
        progress=progress,
    ) as study:
        part, kept = run_part(study, experiment, overwrite=overwrite)
        write_report(study.folder(), [part], f"{part.beginning}.html")
    summary = [*part.findings]
    if not models:
        summary.append(f"No model was measured: add --model {DEFAULT_MODEL} to compare one.")
    if kept:
        summary.append("This was measured by an earlier run; --overwrite measures it again.")
    summary.append(f"Tables, figures and a page are in {Path(out) / part.beginning}*.")
    if write_card:
        saved = loaded[0]
        assert saved.path is not None
        facts = {key: value for key, value in part.facts.items() if key != "rows"}
        rows = [Row.from_dict(row) for row in part.facts["rows"]]
        results = {**saved.card.get("results", {}), "table2": card_results(facts, rows)}
        save_model(saved.path, saved.network, {**saved.card, "results": results})
        summary.append(f"The card of {saved.path} holds the table.")
    return Report("\n".join(summary), part.facts, part.tables[0][1])


def table2_files(
    volume: str | Path | None,
    tuning: str | Path | None,
    model: Sequence[Model | str | Path] | Model | str | Path | None,
    out: str | Path,
    **options: object,
) -> Report:
    """Run Table 2 on files; see :func:`study_files`."""
    return study_files("table2", volume, tuning, out, model, **options)  # type: ignore[arg-type]


table1_files = partial(study_files, "table1")
tiles_files = partial(study_files, "tiles")
iqr_files = partial(study_files, "iqr")
units_files = partial(study_files, "units")
inputs_files = partial(study_files, "inputs")
edges_files = partial(study_files, "edges")
cost_files = partial(study_files, "cost")
alone_files = partial(study_files, "alone")
transfer_files = partial(study_files, "transfer")
inherited_files = partial(study_files, "inherited")


def all_files(
    volume: str | Path | None,
    tuning: str | Path | None,
    out: str | Path,
    model: Sequence[Model | str | Path] | Model | str | Path | None = None,
    *,
    train: Sequence[str | Path] | None = None,
    parts: str | None = None,
    slices: str | None = None,
    levels: str | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    competitors: str | None = None,
    quick: bool = False,
    full: bool = False,
    seed: int = 0,
    device: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Run the whole study on files and write one page with everything.

    Competitors are trained on ``train``, or on ``tuning`` when that is left out.  A part that is
    finished is kept: the same call after an interruption goes on with the next one.

    Parameters
    ----------
    parts
        Names of experiments with commas between; all when left out.
    full
        Use the largest budget, hours, instead of that of an hour.

    The other parameters are those of :func:`study_files`.
    """
    progress = progress or NoProgress()
    chosen = list(EXPERIMENTS.values())
    if parts:
        names = [word.strip() for word in parts.split(",")]
        for word in names:
            if word not in EXPERIMENTS:
                raise ValueError(
                    f"parts is {parts!r}, but {word!r} is no experiment: choose from "
                    f"{', '.join(EXPERIMENTS)}."
                )
        chosen = [experiment for experiment in chosen if experiment.name in names]
    start = time.monotonic()
    finished: list[Part] = []
    fresh = 0
    told = Share(progress, len(chosen))
    with open_study(
        volume,
        tuning,
        out,
        train=train or (),
        models=as_list(model) or [DEFAULT_MODEL],
        compete=True,
        budget=chosen_budget(quick, full, HOUR, minutes, steps, competitors),
        slices=parse_slice_numbers(slices) if slices else None,
        levels=parse_levels(levels) if levels else None,
        seed=seed,
        device=device,
        progress=told,
    ) as study:
        folder = study.folder()
        if not overwrite:  # before the first hour is spent
            for experiment in chosen:
                kept = kept_part(folder, experiment.stem(study))
                if kept is not None:
                    refuse_other(folder, experiment, study, kept[1], experiment.key(study))
        for number, experiment in enumerate(chosen):
            told.begin(number, experiment.name)
            try:
                part, was_kept = run_part(study, experiment, overwrite=overwrite)
            except Cancelled as stop:
                raise Cancelled(
                    f"Stopped in part {number + 1} of {len(chosen)}, {experiment.name}: finished "
                    f"parts and trained networks are kept in {folder}. Run the same command again "
                    "to go on."
                ) from stop
            fresh += not was_kept
            finished.append(part)
            write_report(folder, finished)
    told.begin(len(chosen), "")
    seconds = time.monotonic() - start
    again = f", {len(finished) - fresh} taken from an earlier run" if fresh < len(finished) else ""
    findings = [f"{part.title}: {part.findings[0]}" for part in finished if part.findings]
    return Report(
        "\n".join(
            [
                *findings,
                f"{len(finished)} parts{again}, in {readable_time(seconds)}. Look at "
                f"{folder / 'index.html'}.",
            ]
        ),
        {
            "page": folder / "index.html",
            "parts": [part.name for part in finished],
            "measured": fresh,
            "seconds": round(seconds, 1),
        },
    )


def as_list(
    models: Sequence[Model | str | Path] | Model | str | Path | None,
) -> list[Model | str | Path]:
    """Return one model, several or none as a list."""
    if models is None:
        return []
    return [models] if isinstance(models, (Model, str, Path)) else list(models)


class Share:
    """Progress of one part as a share of the whole study."""

    def __init__(self, whole: Progress, parts: int):
        self.whole, self.parts, self.number, self.name = whole, parts, 0, ""

    @property
    def cancelled(self) -> bool:
        """Whether the user asked to stop."""
        return self.whole.cancelled

    def begin(self, number: int, name: str) -> None:
        """Begin a part."""
        self.number, self.name = number, name
        self.whole.update(number, self.parts, name)

    def update(self, done: float, total: float, text: str = "") -> None:
        """Report the progress of the part; a training within it begins at 0 again."""
        share = min(1.0, done / total) if total else 0.0
        self.whole.update(self.number + share, self.parts, f"{self.name}: {text}")

    def message(self, text: str) -> None:
        """Pass on."""
        self.whole.message(text)
