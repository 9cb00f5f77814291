"""What a macro needs for many files, and ImageJ does not have: two calls.

``call("nrrn.Batch.attempt", macro, argument)`` runs a piece of macro and gives back what it
returns, or why it failed: in ImageJ an error ends the whole macro, and nothing catches it.
``call("nrrn.Batch.problem", path)`` says what is wrong with an image file, or nothing: ImageJ
opens a file that was cut off without a word, with black slices or with fewer of them.

This module must never open a dialog about a failure: nobody may be there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..progress import Cancelled
from ..sentences import sentence
from ..volumes import open_volume
from . import java
from .jvm import ImageJ
from .plugin import install

__all__ = ["FAILED", "STOPPED", "attempt", "install_batch", "problem"]

CLASS = "nrrn.Batch"
FAILED = "failed: "
STOPPED = "stopped"

_handler: Any = None  # kept alive for Java


def install_batch(app: ImageJ) -> None:
    """Make ``nrrn.Batch`` known to an ImageJ; twice does no harm."""
    global _handler
    if _handler is not None:
        return

    def apply(what: Any, given: Any) -> str:
        if str(what) == "problem":
            return problem(Path(str(given[0])))
        return attempt(app, str(given[0]), str(given[1]))

    _handler = java.JProxy("java.util.function.BiFunction", {"apply": apply})
    made = make_class(
        CLASS,
        "public static String attempt(String macro, String argument) "
        '{ return String.valueOf(handler.apply("attempt", new String[] {macro, argument})); }',
        "public static String problem(String path) "
        '{ return String.valueOf(handler.apply("problem", new String[] {path})); }',
    )
    made.handler = _handler


def attempt(app: ImageJ, macro: str, argument: str) -> str:
    """Run a macro; return what it returns, "failed: " and why, or "stopped" if the user did."""
    from .macros import run_text

    try:
        return run_text(install(app), macro, argument, quiet=True) or ""
    except Cancelled:
        return STOPPED
    except Exception as error:  # whatever happened, the macro that asked decides what to do
        return FAILED + sentence(error)
    finally:
        install(app).error = None


def problem(path: Path) -> str:
    """Return why an image file cannot be used, in a sentence; empty if it can."""
    try:
        open_volume(path).close()
    except Exception as error:  # as above
        return sentence(error)
    return ""


def make_class(name: str, *methods: str) -> Any:
    """Make a Java class beside ImageJ's own: a static ``handler``, and methods that use it."""
    pool = java.JClass("javassist.ClassPool")(True)
    beside = java.JClass("ij.IJ").class_
    pool.appendClassPath(java.JClass("javassist.ClassClassPath")(beside))
    made = pool.makeClass(name)
    field = "public static java.util.function.BiFunction handler;"
    made.addField(java.JClass("javassist.CtField").make(field, made))
    for method in methods:
        made.addMethod(java.JClass("javassist.CtNewMethod").make(method, made))
    loader = beside.getClassLoader()
    made.toClass(loader, beside.getProtectionDomain())
    return java.JClass(name, loader=loader)
