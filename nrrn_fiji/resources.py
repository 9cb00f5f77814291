"""Where the files that come with the package lie: models, scripts, examples.

A source checkout uses its top-level folders in place; a wheel carries copies of them inside the
package.  This module must never create or change anything there.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["data_folder"]

# Name inside the package -> name at the top of a source checkout.
FOLDERS = {"models": "models", "scripts": "fiji_scripts", "examples": "examples"}


def data_folder(name: str) -> Path:
    """Return the folder ``"models"``, ``"scripts"`` or ``"examples"`` that came with the package.

    Raises
    ------
    ValueError
        If there is no folder of that name.
    FileNotFoundError
        If the installation lacks the folder.
    """
    if name not in FOLDERS:
        raise ValueError(f"name is {name!r}, but it must be one of {', '.join(FOLDERS)}.")
    package = Path(__file__).resolve().parent
    checkout = package.parent
    if (checkout / "pyproject.toml").is_file():
        folder = checkout / FOLDERS[name]
    else:
        folder = package / "_data" / name
    if not folder.is_dir():
        raise FileNotFoundError(
            f"This installation of nrrn-fiji lacks its folder {folder}: install the package again."
        )
    return folder
