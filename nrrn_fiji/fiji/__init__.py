"""NRRN in Fiji and ImageJ, through PyImageJ: the only place that talks to Java.

    from nrrn_fiji import fiji

    app = fiji.start()                         # a Fiji folder that is on this computer
    app = fiji.start(imagej=True)              # or plain ImageJ, from Maven Central
    fiji.register(ij)                          # adds NRRN to a PyImageJ gateway you have
    made = fiji.denoise(ij, image, "my-model", units=3)

Names are imported from their modules when they are first used.  Importing this package must never
import JPype nor start Java.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import denoise, macro_file, register, run_macro
    from .installed import find_fiji, find_java
    from .jvm import ImageJ, running, start

__all__ = [
    "ImageJ",
    "denoise",
    "find_fiji",
    "find_java",
    "macro_file",
    "register",
    "run_macro",
    "running",
    "start",
]

_MODULES = {
    "app": ("denoise", "macro_file", "register", "run_macro"),
    "installed": ("find_fiji", "find_java"),
    "jvm": ("ImageJ", "running", "start"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
