"""The Python of an ordinary Fiji, which Java started: Appose's worker, and the commands in it.

Fiji starts ``main`` in the environment that nrrn-fiji was installed in, at the first command, and
keeps it until it quits.  The commands are the same as where Python starts Fiji; only their way to
Java's objects is another (:mod:`nrrn_fiji.fiji.remote`).  This module must never start Java, and
never outlive Fiji.

Source: ``appose.python_worker`` of Appose 0.12; its other end is ``fiji_scripts/ordinary``.
"""

from __future__ import annotations

import gc
import io
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from . import java, remote

__all__ = ["OrdinaryImageJ", "answer", "channel", "main", "run"]


ANSWER = "worker.answer("


@dataclass(frozen=True)
class OrdinaryImageJ:
    """The ImageJ that this worker belongs to; as :class:`nrrn_fiji.fiji.jvm.ImageJ`."""

    headless: bool
    context: Any
    """The SciJava context; None for plain ImageJ, which has none."""

    @property
    def gateway(self) -> Any:
        """What tells whether there is ImageJ2 beside ImageJ."""
        return self.context


class Lines(io.TextIOBase):
    """Standard output for messages: every line is written as a whole, whichever thread writes.

    Whatever else is printed goes where errors go.
    """

    def __init__(self, out: TextIO):
        self._out = out
        self._lock = threading.Lock()
        self._begun = threading.local()

    def write(self, text: str) -> int:
        """Keep a piece of a line until it is complete."""
        line = getattr(self._begun, "text", "") + text
        whole, newline, self._begun.text = line.rpartition("\n")
        if newline:
            with self._lock:
                out = self._out if whole.startswith("{") else sys.stderr
                out.write(whole + newline)
                out.flush()
        return len(text)

    def flush(self) -> None:
        """Do nothing: whole lines are out already."""


# --- what Fiji calls ---------------------------------------------------------------------------


def run(task: Any, function: str, context: str, outermost: bool, inputs: Mapping[str, Any]) -> Any:
    """Call a function for the thread of Java that waits for it, and return what Fiji is to know.

    Parameters
    ----------
    task
        Appose's.
    function
        One of :data:`FUNCTIONS`.
    context
        Names the thread of Java.
    outermost
        Whether no other function of that thread waits for this one.
    inputs
        The function's arguments.

    Returns
    -------
    dict
        "value", or "error" for what Java threw and nobody caught, and "drop", what to let go of.
    """
    outputs: dict[str, Any] = {}
    with remote.LINK.task(task, context, outermost):
        thrown = None
        try:
            outputs["value"] = remote.encode(FUNCTIONS[function](**inputs))
        except remote.JException as error:
            thrown = error.with_traceback(None)
            outputs["error"] = remote.encode(thrown)
        if outermost:
            remote.give_back_memory()
            forget_errors()
    gc.collect(1)  # images that only a circle of objects holds would stay open in Fiji
    return {**outputs, "drop": remote.LINK.dropped()}


def answer(number: int, reply: dict[str, Any]) -> None:
    """Hand over what came of something that was asked of Fiji."""
    remote.LINK.answer(number, reply)


def channel(task: Any) -> None:
    """Let threads ask that no command waits for; for as long as Fiji runs."""
    remote.LINK.channel = task
    remote.LINK.ended.wait()


def command(key: str, options: str | None) -> None:
    """Run a command of the menu, as a macro or a user asks for it."""
    the_plugin().handle(key, options)


def attempt(given: list[str]) -> str:
    """Run a macro; return what came of it, as ``nrrn.Batch.attempt`` does."""
    from . import batch

    return batch.attempt(the_plugin().app, *given)


def problem(given: list[str]) -> str:
    """Return why an image file cannot be used; empty if it can."""
    from . import batch

    return batch.problem(Path(given[0]))


def called(key: str, method: str, given: list[Any]) -> Any:
    """Call a function of Python that Java knows as an object's method."""
    return remote.called(key, method, given)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "command": command,
    "attempt": attempt,
    "problem": problem,
    "called": called,
}


_plugin: Any = None


def the_plugin() -> Any:
    """Return the commands, which live as long as this process."""
    global _plugin
    if _plugin is None:
        from . import plugin

        headless = bool(remote.JClass("java.awt.GraphicsEnvironment").isHeadless())
        _plugin = plugin.adopt(OrdinaryImageJ(headless, context_of()))
    return _plugin


def context_of() -> Any:
    """Return Fiji's SciJava context, or None where ImageJ runs without ImageJ2."""
    try:
        remote.JClass("ij.IJ").getClassLoader().loadClass("net.imagej.legacy.IJ1Helper")
    except remote.JException:
        return None
    return remote.JClass("ij.IJ").runPlugIn("org.scijava.Context", "")


def forget_errors() -> None:
    """Let go of what a failed command held."""
    error = getattr(java.here(), "error", None)
    if error is not None:
        error.__traceback__ = None


def next_line() -> str:
    """Return the next line that is Appose's to read; answers take a shorter way.

    Every answer is a task to Appose, with a thread of its own; there are hundreds in a second.

    Raises
    ------
    EOFError
        If Fiji has ended.
    """
    while True:
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        if ANSWER not in line:
            return line
        message = json.loads(line)
        answer(**message["inputs"])
        print(json.dumps({"task": message["task"], "responseType": "COMPLETION"}))


# --- the process -------------------------------------------------------------------------------


def main() -> None:
    """Work for Fiji until it ends; then end this process at once, whatever it is doing."""
    java.use(remote)
    # Messages have the standard output for themselves; what libraries print goes the way of errors.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = Lines(out)
    if os.name == "nt":
        # There, libraries that are imported while another thread reads the standard input hang.
        import torch  # noqa: F401
    from appose import python_worker

    python_worker.input = next_line
    python_worker.main()
    remote.LINK.end()
    os._exit(0)
