"""The Java that the bridge talks to: the one in this process, or that of a Fiji that Java started.

Everything in this package that makes, calls or looks at Java's objects takes its names from here:
``JClass``, ``JArray``, ``JException`` and so on.  They are JPype's own where ImageJ runs in this
process; in the worker of an ordinary Fiji they are those of :mod:`nrrn_fiji.fiji.remote`, which
behave alike.  This module must never start Java, and imports neither side before it is needed.
"""

from __future__ import annotations

import threading
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["here", "is_remote", "stopped", "undone_at_death", "use"]

_side: ModuleType | None = None
_own = threading.local()


def use(side: ModuleType) -> None:
    """Talk to another Java than the one in this process, from now on.

    Parameters
    ----------
    side
        A module with the names of JPype that this package uses.

    Raises
    ------
    RuntimeError
        If names were taken from another side already.
    """
    global _side
    if _side is not None and _side is not side:
        raise RuntimeError(f"Java is {_side.__name__} already: begin a new Python.")
    _side = side


def is_remote() -> bool:
    """Whether Java is another process."""
    return _side is not None and _side.__name__ != "jpype"


def here() -> Any:
    """Return what may hold attributes for the thread of Java that waits for this Python.

    A command that a macro runs inside of another command shares it, whatever thread of Python
    either has.
    """
    return _side.here() if _side is not None and is_remote() else _own


def stopped() -> bool:
    """Whether an ordinary Fiji has said that the user pressed Esc since the command began.

    In this process ImageJ is asked itself.
    """
    return _side is not None and is_remote() and _side.LINK.stopped


def undone_at_death(on: Any, method: str) -> None:
    """Have a method of a Java object called should this Python die before its command has ended.

    In this process nothing is left then that could be undone.
    """
    if _side is not None and is_remote():
        _side.undone_at_death(on, method)


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    if _side is None:
        use(import_module("jpype"))
    return getattr(_side, name)
