"""Models by name: those that come with the package, and the user's own in a folder.

This is the one door to models: what a model file is lies in :mod:`.model_files`, what the authors'
checkpoints are in :mod:`.published_checkpoints`, and both are offered here too.  This module must
never write a file in place: a model appears under its name only when it is whole.  Listing models
reads headers alone, so torch is imported by the functions that need it and not by the module.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import appdirs

from .files import write_whole
from .model_files import (
    FORMAT_VERSION,
    SUFFIX,
    Model,
    load_file,
    read_card,
    save_model,
    weights_hash,
)
from .published_checkpoints import CHECKPOINT_SUFFIXES, import_checkpoint
from .resources import data_folder

__all__ = [
    "CHECKPOINT_SUFFIXES",
    "DEFAULT_MODEL",
    "FORMAT_VERSION",
    "SUFFIX",
    "Model",
    "ModelEntry",
    "import_checkpoint",
    "install_model",
    "known_models",
    "load_model",
    "remove_model",
    "save_model",
    "shipped_models_dir",
    "user_models_dir",
    "weights_hash",
]

DEFAULT_MODEL = "fibsem-medulla"
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ModelEntry:
    """A model that can be loaded by its name."""

    name: str
    path: Path
    origin: str
    """``"shipped"`` with the package or ``"installed"`` by the user."""

    card: dict[str, Any]
    problem: str = ""
    """One sentence if the file cannot be used (the card is then empty)."""


def shipped_models_dir() -> Path:
    """Return the folder of the models that come with the package."""
    return data_folder("models")


def user_models_dir() -> Path:
    """Return the folder of the user's own models; it need not exist.

    The environment variable ``NRRN_MODELS`` names another folder.
    """
    if folder := os.environ.get("NRRN_MODELS"):
        return Path(folder)
    return Path(appdirs.user_data_dir("nrrn-fiji", appauthor=False)) / "models"


def known_models() -> list[ModelEntry]:
    """Return the models that can be loaded by name: the shipped ones, then the user's, by name.

    Only headers are read.  A damaged file is listed with its ``problem``.
    """
    entries = []
    for origin, folder in (("shipped", shipped_models_dir()), ("installed", user_models_dir())):
        for path in sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.stem):
            if path.name.startswith("."):
                continue
            try:
                card, problem = read_card(path), ""
            except (OSError, ValueError) as error:
                card, problem = {}, str(error)
            entries.append(ModelEntry(path.stem, path, origin, card, problem))
    return entries


def load_model(name_or_path: str | Path | Model) -> Model:
    """Return a model by its shipped or installed name, or from a ``.safetensors`` file.

    Parameters
    ----------
    name_or_path
        A name (the shipped models come first), a file (anything with the suffix or a folder in
        it), or a model, which is returned as it is.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or no model of that name; the message lists those there are.
    ValueError
        If the file is not a model, is damaged, or was written by a newer version.
    """
    if isinstance(name_or_path, Model):
        return name_or_path
    path = Path(name_or_path).expanduser()
    if path.suffix in CHECKPOINT_SUFFIXES:
        raise ValueError(
            f"{path} is a PyTorch checkpoint, not a model file: import it first with "
            f"`nrrn models import {path}` or nrrn_fiji.import_checkpoint."
        )
    if isinstance(name_or_path, Path) or path.suffix == SUFFIX or path.name != str(name_or_path):
        return load_file(path)
    return load_file(find_entry(str(name_or_path)).path)


def install_model(path: str | Path, name: str | None = None, overwrite: bool = False) -> Model:
    """Put a model into the user's folder, where it is found by its name.

    Parameters
    ----------
    path
        A ``.safetensors`` model, or a published checkpoint (``.pth``), which is converted.
    name
        The name; the file's name without suffix when left out.  Letters, digits, ``.``, ``_``
        and ``-``.
    overwrite
        Replace an installed model of that name.

    Raises
    ------
    FileExistsError
        If the name is taken.
    FileNotFoundError, ValueError
        If the file is not there or not a model, or the name cannot be used.
    """
    path = Path(path).expanduser()
    name = path.stem if name is None else name
    if not NAME_PATTERN.fullmatch(name) or name.endswith((SUFFIX, *CHECKPOINT_SUFFIXES)):
        raise ValueError(
            f"The name is {name!r}, but a model's name is made of letters, digits, dots, "
            "underscores and hyphens, without a suffix: choose another name."
        )
    if (shipped_models_dir() / f"{name}{SUFFIX}").exists():
        raise FileExistsError(f"{name} is a shipped model: choose another name.")
    target = user_models_dir() / f"{name}{SUFFIX}"
    if target.exists() and not overwrite:
        raise FileExistsError(
            f"A model named {name} is installed already: choose another name, or replace it with "
            "--overwrite (overwrite=True)."
        )
    imported = path.suffix in CHECKPOINT_SUFFIXES
    model = import_checkpoint(path) if imported else load_file(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if imported:
        return save_model(target, model.network, model.card)
    write_whole(target, path.read_bytes())
    return load_file(target)


def remove_model(name: str) -> Path:
    """Delete an installed model and return the path that the file had.

    Raises
    ------
    FileNotFoundError
        If no model has that name.
    ValueError
        If the model is a shipped one.
    """
    installed = [
        entry for entry in known_models() if (entry.name, entry.origin) == (name, "installed")
    ]
    if not installed:
        raise ValueError(f"{find_entry(name).name} came with the package and cannot be removed.")
    installed[0].path.unlink()
    return installed[0].path


def find_entry(name: str) -> ModelEntry:
    """Return the known model of that name, or raise a FileNotFoundError that lists them all."""
    entries = known_models()
    for entry in entries:
        if entry.name == name:
            return entry
    known = ", ".join(entry.name for entry in entries) or "none"
    hint = f" Did you mean the file {name}{SUFFIX}?" if Path(f"{name}{SUFFIX}").exists() else ""
    raise FileNotFoundError(
        f"No model is named {name!r}; known models: {known}. Give one of these names, or a "
        f"{SUFFIX} file.{hint}"
    )
