"""What tests of the command line share: a small table with functions of our own, and a model."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nrrn_fiji.commands import Command, Kind, Option
from nrrn_fiji.models import Model, save_model
from nrrn_fiji.network import NRRN
from nrrn_fiji.progress import Cancelled, Progress
from nrrn_fiji.reports import Report, Table
from nrrn_fiji.settings import setting


@dataclass(frozen=True, kw_only=True)
class FakeSettings:
    """Settings of every kind."""

    whole: int | None = setting(None, label="Whole", help="A whole number.", minimum=2, unit="px")
    real: float = setting(0.5, label="Real", help="A number.", minimum=0.0, maximum=1.0)
    pair: tuple[float, float] | None = setting(None, label="Pair", help="Two; or left out.")
    few: int = setting(3, label="Few", help="A choice.", choices=(1, 2, 3))
    word: str | None = setting(None, label="Word", help="A word.", choices=("a", "b"), expert=True)
    off: bool = setting(False, label="Off", help="A flag that is off.")
    on: bool = setting(True, label="On", help="A flag that is on.")

    def __post_init__(self) -> None:
        if self.whole is not None and self.whole < 2:
            raise ValueError(f"whole is {self.whole}, but it must be at least 2.")


calls: list[dict[str, Any]] = []


def work(*, progress: Progress | None = None, **arguments: Any) -> Report:
    """Note what it was called with."""
    calls.append(arguments)
    if progress is not None:
        progress.message("Computing on the CPU.")
        for done in range(3):
            progress.update(done, 2, "busy")
    return Report("Wrote out.tif.", {"path": "out.tif"}, Table(("k", "v"), (("a", "1"),)))


def plan(**arguments: Any) -> Report:
    """Note what it was called with, and that it was the plan."""
    calls.append({"plan": True, **arguments})
    return Report("2 tiles.", {"tiles": 2})


errors: list[BaseException] = []


def fail(**_: Any) -> Report:
    """Raise what the test put there."""
    raise errors[0]


def warn(progress: Progress, **_: Any) -> Report:
    """Warn, as a library may do."""
    warnings.warn("low\n  memory", UserWarning, stacklevel=1)
    return Report("Done.", {})


def wait(progress: Progress, **_: Any) -> Report:
    """Be stopped by the signals in ``signals`` and say what is kept."""
    for number in signals:
        os.kill(os.getpid(), number)
    if progress.cancelled:
        raise Cancelled("Stopped; 3 of 8 slices are kept.")
    return Report("Done.", {})


signals: list[int] = []

SOURCE = Option(
    name="source", label="In", help="Input.", kind=Kind.IMAGE, required=True, position="IN"
)
FAKES = (
    Command(
        name="work",
        title="Work",
        summary="Do some work.",
        description="More about it.",
        examples=("nrrn work a.tif --whole 3",),
        function="fake_commands:work",
        plan="fake_commands:plan",
        plan_without=("overwrite",),
        settings=FakeSettings,
        counts="slices",
        options=(
            SOURCE,
            Option(name="slices", label="Slices", help="Some.", kind=Kind.SLICES),
            Option(
                name="noise_out", label="N", help="Noise.", kind=Kind.FILE, spelling=("--noise",)
            ),
            Option(name="overwrite", label="O", help="Over.", kind=Kind.FLAG, default=False),
        ),
    ),
    Command(
        name="many",
        title="Many",
        summary="Take many.",
        examples=("nrrn many a b",),
        function="fake_commands:work",
        options=(
            dataclasses.replace(SOURCE, many=True),
            Option(
                name="out",
                label="Out",
                help="Output.",
                kind=Kind.FILE,
                required=True,
                spelling=("-o", "--out"),
            ),
        ),
    ),
    Command(
        name="named",
        title="Named",
        summary="Name the output.",
        examples=("nrrn named a.tif",),
        function="fake_commands:work",
        options=(
            SOURCE,
            Option(
                name="out",
                label="Out",
                help="Output.",
                kind=Kind.FILE,
                position="[OUT]",
                named_after="source",
                ending="-new",
            ),
        ),
    ),
    *(
        Command(
            name=f"group {name}",
            title=name,
            summary=f"Will {name}.",
            examples=(f"nrrn group {name}",),
            function=f"fake_commands:{name}",
            counts="slices",
        )
        for name in ("fail", "wait", "warn")
    ),
)


Run = Callable[..., tuple[int, str, str]]


def model_with_a_card(folder: Path) -> Model:
    """A tiny model file whose card says something of everything."""
    card = {
        "description": "A test\nmodel.",
        "licence": "CC0",
        "intensity": [0, 255],
        "training": {"steps": 5, "losses": [0.5] * 20, "resumed": False, "note": None},
        "results": {"table2": {"input": {"P1": 5.98765432}, "nrrn": {"P1": 17.33}}},
    }
    return save_model(folder / "mine.safetensors", NRRN(2, 4), card)


def forget() -> None:
    """Begin a test with nothing noted."""
    calls.clear()
    errors.clear()
    signals.clear()
