"""Runs that stand still at a known place, so that a test stops them there on any machine.

A run that is merely slow may be over before a busy machine has let the test look.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["COMMAND", "PATIENCE", "finished_blocks", "held", "wait_until"]

PATIENCE = 600
"""Seconds after which a process that does nothing more is a failure."""

HOLD = f"""
import os, sys, time
from nrrn_fiji.outputs.partial import PartialOutput
mark, left, sign = PartialOutput.mark, int(sys.argv.pop(1)), sys.argv.pop(1)
def mark_and_wait(part, key):
    global left
    mark(part, key)
    left -= 1
    end = time.monotonic() + {PATIENCE}  # not for ever: the test may have ended
    while left <= 0 and not os.path.exists(sign) and time.monotonic() < end:
        time.sleep(0.01)
PartialOutput.mark = mark_and_wait
"""

COMMAND = """
from nrrn_fiji.cli import main
if __name__ == "__main__":
    sys.exit(main())
"""
"""The command line, as code for :func:`held`."""


@contextmanager
def held(
    code: str, blocks: int, sign: Path, *words: str | Path, **more: Any
) -> Iterator[subprocess.Popen[str]]:
    """Start a run that stands still when it has finished so many blocks; end it with the context.

    Parameters
    ----------
    code
        Of Python, for which ``words`` are the arguments.
    blocks
        After how many blocks of its own it waits.
    sign
        File that does not exist: it goes on when there is one.
    more
        For ``subprocess.Popen``.
    """
    line = [sys.executable, "-c", HOLD + code, str(blocks), str(sign), *words]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, **more) as process:
        try:
            yield process
        finally:
            process.kill()


def finished_blocks(out: Path) -> int:
    """Return how many blocks of an unfinished output are noted as finished."""
    journal = out.with_name(out.name + ".partial") / "finished"
    try:
        return journal.read_text().count("\n")
    except FileNotFoundError:
        return 0


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
    """Wait for something that a process does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, "the process ended before"
        assert time.monotonic() < deadline
        time.sleep(0.01)
