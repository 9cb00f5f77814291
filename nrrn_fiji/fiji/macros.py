"""Macros, run so that what fails in them fails here.

ImageJ prints the error of a macro and goes on as if nothing had happened.  This module must never
swallow what a macro, or a command in it, says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..progress import Cancelled
from . import java
from .entry import message_of
from .plugin import Plugin

__all__ = ["run_text"]

MACRO_THREAD = "_Macro$"
"""How ImageJ's own threads for macros are called: ``ij.Macro.abort`` ends macros on these."""


def run_text(plugin: Plugin, text: str, argument: str = "", *, quiet: bool = False) -> str | None:
    """Run an ImageJ macro in batch mode and return what it returns.

    Parameters
    ----------
    plugin
        The commands, in the ImageJ that runs.
    text
        The macro.
    argument
        What its ``getArgument()`` gives.
    quiet
        Show no dialog about an error, even where there is a screen; ImageJ then does not tell
        the line.

    Raises
    ------
    RuntimeError
        If the macro, or a command in it, fails; with the sentence and the line.
    Cancelled
        If an NRRN command in it was stopped.
    """
    plugin.error = None
    interpreter = java.JClass("ij.macro.Interpreter")()
    imagej = java.JClass("ij.IJ")
    if quiet:
        interpreter.setIgnoreErrors(True)
        imagej.redirectErrorMessages(True)
    imagej.getErrorMessage()  # forgets the last one
    value: Any = None
    try:
        with _macro_thread():
            value = interpreter.run(text, argument)
    except java.JException as error:
        message = _why(plugin, interpreter) or imagej.getErrorMessage()
        if message is None and str(error.message()) == java.JClass("ij.Macro").MACRO_CANCELED:
            raise RuntimeError(
                "The macro ended itself with exit(): what it printed says why."
            ) from error
        sentence = str(message or message_of(error))
        raise RuntimeError(_with_line(sentence, interpreter, ended=True)) from (
            plugin.error or error
        )
    finally:
        if quiet:
            imagej.redirectErrorMessages(False)
    # An error in a command ends the macro, but run() returns as if nothing had happened.
    message = _why(plugin, interpreter)
    if message is not None:
        if isinstance(plugin.error, Cancelled):
            raise Cancelled(str(message)) from plugin.error
        raise RuntimeError(_with_line(str(message), interpreter)) from plugin.error
    return None if value is None else str(value)


@contextmanager
def _macro_thread() -> Iterator[None]:
    """Let this thread of Java have a name by which ImageJ's functions know that it runs a macro.

    Otherwise one that fails, such as ``open`` of a file that is not there, says so and lets the
    macro go on.
    """
    thread = java.JClass("java.lang.Thread").currentThread()
    name = str(thread.getName())
    if name.endswith(MACRO_THREAD):
        yield
        return
    thread.setName(name + MACRO_THREAD)
    try:
        yield
    finally:
        thread.setName(name)


def _why(plugin: Plugin, interpreter: Any) -> str | None:
    """Return why a macro ended, or None; inside of a block ImageJ itself only misses its end."""
    message = interpreter.getErrorMessage()
    if plugin.error is not None:
        return message_of(plugin.error)
    return None if message is None else str(message)


def _with_line(message: str, interpreter: Any, *, ended: bool = False) -> str:
    """Return a macro's error, on one line, with the line of the macro where it happened.

    Parameters
    ----------
    ended
        Whether the interpreter still stands where it was ended.
    """
    # getLineNumber() is one token ahead; the error itself was numbered by this.
    field = interpreter.getClass().getDeclaredField("lineNumber")
    field.setAccessible(True)
    line = int(field.get(interpreter))
    if not line and ended:
        line = int(interpreter.getLineNumber())
    where = f" (line {line} of the macro)" if line else ""  # an error that is ignored has none
    return f"{' '.join(message.split()).rstrip('.')}{where}."
