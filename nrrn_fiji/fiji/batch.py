"""What a macro needs for many files: to run a piece of macro whose failure it survives.

In ImageJ an error ends the whole macro, and there is nothing to catch it with.  With this,
``call("nrrn.Batch.attempt", macro, argument)`` runs a macro and gives back what it returns, or
why it failed.  This module must never open a dialog about a failure: nobody may be there.
"""

from __future__ import annotations

from typing import Any

import jpype

from ..progress import Cancelled
from .jvm import ImageJ

__all__ = ["FAILED", "STOPPED", "install_attempt"]

CLASS = "nrrn.Batch"
FAILED = "failed: "
STOPPED = "stopped"

_handler: Any = None  # kept alive for Java


def install_attempt(app: ImageJ) -> None:
    """Make ``nrrn.Batch.attempt`` known to an ImageJ; twice does no harm.

    It returns what the macro returns, "failed: " and the reason, or "stopped" when the user
    pressed Esc.
    """
    global _handler
    if _handler is not None:
        return

    def attempt(macro: Any, argument: Any) -> str:
        from .app import run_macro

        try:
            return run_macro(app, str(macro), str(argument), quiet=True) or ""
        except Cancelled:
            return STOPPED
        except Exception as error:
            return FAILED + str(error)

    _handler = jpype.JProxy("java.util.function.BiFunction", {"apply": attempt})
    make_class(
        CLASS,
        "public static String attempt(String macro, String argument) "
        "{ return String.valueOf(handler.apply(macro, argument)); }",
    ).handler = _handler


def make_class(name: str, method: str) -> Any:
    """Make a Java class beside ImageJ's own: a static ``handler`` and one method that uses it."""
    pool = jpype.JClass("javassist.ClassPool")(True)
    beside = jpype.JClass("ij.IJ").class_
    pool.appendClassPath(jpype.JClass("javassist.ClassClassPath")(beside))
    made = pool.makeClass(name)
    field = "public static java.util.function.BiFunction handler;"
    made.addField(jpype.JClass("javassist.CtField").make(field, made))
    made.addMethod(jpype.JClass("javassist.CtNewMethod").make(method, made))
    loader = beside.getClassLoader()
    made.toClass(loader, beside.getProtectionDomain())
    return jpype.JClass(name, loader=loader)
