"""The Java that the bridge talks to: the one in this process, or that of a Fiji that Java started.

Everything in this package that makes, calls or looks at Java's objects takes its names from here:
``JClass``, ``JArray``, ``JException`` and so on.  They are JPype's own where ImageJ runs in this
process; in the worker of an ordinary Fiji they are those of :mod:`nrrn_fiji.fiji.remote`, which
behave alike.  This module must never start Java, and imports neither side before it is needed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["calls", "here", "is_remote", "set_each", "stopped", "tell", "undone_at_death", "use"]

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


def calls(wanted: Sequence[tuple[Any, str, Sequence[Any]]]) -> list[Any]:
    """Call many methods in one go: an ordinary Fiji is another process, and every trip takes time.

    Parameters
    ----------
    wanted
        The object, the name of its method and the arguments, for each call.

    Returns
    -------
    list
        What each of them returned.
    """
    if _side is not None and is_remote():
        return list(_side.calls(wanted))
    return [getattr(on, name)(*given) for on, name, given in wanted]


def set_each(objects: Sequence[Any], name: str, values: Sequence[Any]) -> None:
    """Set a field of many objects in one go."""
    if _side is not None and is_remote():
        _side.set_each(objects, name, values)
        return
    for one, value in zip(objects, values, strict=True):
        setattr(one, name, value)


def tell(method: Any, *given: Any) -> None:
    """Call a method of which nobody needs to know what it returned, nor when."""
    if _side is not None and is_remote():
        _side.tell(method, *given)
    else:
        method(*given)


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    if _side is None:
        use(import_module("jpype"))
    return getattr(_side, name)
