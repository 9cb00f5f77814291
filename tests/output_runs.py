"""Runs that write small files of text as jobs write images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nrrn_fiji.outputs.partial import BlockKey, PartialOutput

__all__ = ["PLAN", "REQUEST", "begin", "files", "interrupt", "run"]

REQUEST = {"input image": "abc", "model": "net 1f", "tile": 64, "intensity": (0, 255)}
PLAN = {"tile": 64, "precision": "fp32"}


def begin(part: PartialOutput, text: str = "new", kinds: tuple[str, ...] = ("image",)) -> None:
    """Do what a run does: create its files, record itself."""
    part.make_folders()
    for kind in kinds:
        part.path(kind).write_text(f"{text} {kind}")
    part.begin(REQUEST, PLAN)


def run(out: Path, *, blocks: int = 2, stop: bool = False, **options: Any) -> None:
    """A whole run, or one that is interrupted after its blocks."""
    with PartialOutput({"image": out}, **options) as part:
        begin(part)
        for number in range(blocks):
            part.mark(BlockKey(0, 0, number))
        if stop:
            raise KeyboardInterrupt
        part.finish()


def interrupt(out: Path, **options: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(out, stop=True, **options)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
