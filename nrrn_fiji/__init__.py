"""Denoise FIB-SEM stacks with the NRRN: from Python, a command line and Fiji.

    import nrrn_fiji as nrrn

    model = nrrn.load_model("fibsem-medulla")
    clean = nrrn.denoise(stack, model)

Names are imported from their modules when they are first used, because torch takes seconds to
import and most uses of the package (``nrrn --help``, a macro that lists models) never need it.
This module must never import a heavy package, nor a module of ours that does.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import DenoiseResult, denoise, denoise_blocks
    from .exchange.importing import fetch_model
    from .jobs.train import train
    from .models import (
        Model,
        import_checkpoint,
        install_model,
        known_models,
        load_model,
        remove_model,
        save_model,
    )
    from .network import NRRN
    from .noise import add_noise
    from .settings import DenoiseSettings, TrainSettings
    from .volumes import Volume, open_volume

# Threads of torch that spin long while they wait make a busy machine ten times slower and more; a
# short spin costs nothing either way (docs/decisions/engine.md).  It must be said before torch is
# first imported; who has chosen already is left alone.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__version__ = "0.1.0"

__all__ = [
    "NRRN",
    "DenoiseResult",
    "DenoiseSettings",
    "Model",
    "TrainSettings",
    "Volume",
    "__version__",
    "add_noise",
    "denoise",
    "denoise_blocks",
    "fetch_model",
    "import_checkpoint",
    "install_model",
    "known_models",
    "load_model",
    "open_volume",
    "remove_model",
    "save_model",
    "train",
]

_MODULES = {
    "api": ("DenoiseResult", "denoise", "denoise_blocks"),
    "exchange.importing": ("fetch_model",),
    "models": (
        "Model",
        "import_checkpoint",
        "install_model",
        "known_models",
        "load_model",
        "remove_model",
        "save_model",
    ),
    "network": ("NRRN",),
    "noise": ("add_noise",),
    "settings": ("DenoiseSettings", "TrainSettings"),
    "jobs.train": ("train",),
    "volumes": ("Volume", "open_volume"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
