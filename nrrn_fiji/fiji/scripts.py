"""Our scripts and macros in a Fiji folder: which that Fiji can run, put there and taken out again.

A Fiji that Java starts can run macros; one that runs in Python mode also Python scripts.  What was
put there is written down, file by file with its hash, so that exactly that is taken out again.
This module must never touch a file that it did not put there, nor one that a user has changed.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from ..files import write_whole
from ..reports import Report
from ..resources import data_folder

__all__ = [
    "install_scripts",
    "installed_files",
    "installed_labels",
    "label_of_file",
    "our_macro",
    "runnable_scripts",
    "uninstall_scripts",
]

MENU = Path("Plugins") / "NRRN"
LIST = "installed-by-nrrn.json"
PYTHON_SUPPORT = re.compile(r"scripting-python-\d.*\.jar")


def label_of_file(name: str) -> str:
    """Return the menu label that Fiji gives a script: "Denoise_Folder.ijm" -> "Denoise Folder"."""
    return Path(name).stem.replace("_", " ").strip()


def our_macro(name: str) -> Path | None:
    """Return the macro of that file name that came with this package, or None."""
    file = data_folder("scripts") / MENU / name
    return file if file.suffix == ".ijm" and Path(name).name == name and file.is_file() else None


def runnable_scripts(fiji: Path) -> list[Path]:
    """Return those of our files that a Fiji can run when it is started in its own way.

    Macros always; Python scripts where Fiji's support for Python is in its folder ``jars``.
    """
    has_python = any(PYTHON_SUPPORT.fullmatch(jar.name) for jar in (fiji / "jars").glob("*.jar"))
    suffixes = {".ijm", ".py"} if has_python else {".ijm"}
    files = (data_folder("scripts") / MENU).iterdir()
    return sorted(file for file in files if file.suffix in suffixes)


def installed_files(fiji: Path) -> dict[str, str]:
    """Return the files that :func:`install_scripts` put into a Fiji folder, each with its hash.

    Names as they are in ``scripts/Plugins/NRRN``; some may have been deleted since.

    Raises
    ------
    ValueError
        If the list of them is damaged.
    """
    file = _list_of(fiji)
    if not file.is_file():
        return {}
    try:
        said = json.loads(file.read_text(encoding="utf-8"))["files"]
        # A damaged list must not lead to files elsewhere.
        return {str(name): str(said[name]) for name in said if Path(name).name == name}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is damaged ({error}): delete the folder {file.parent} yourself, if nothing "
            "of your own is in it, and install again."
        ) from error


def installed_labels(fiji: Path) -> set[str]:
    """Return the menu labels of what is installed in a Fiji folder."""
    return {label_of_file(name) for name in installed_files(fiji)}


def install_scripts(fiji: Path) -> Report:
    """Copy what a Fiji can run into its folder ``scripts/Plugins/NRRN``; again after an update.

    Raises
    ------
    FileExistsError
        If a file of that name is there that is not ours, or that somebody has changed; nothing is
        copied then.
    OSError
        If the Fiji folder cannot be written to.
    """
    folder = fiji / "scripts" / MENU
    before = installed_files(fiji)
    ours = {file.name: file for file in runnable_scripts(fiji)}
    foreign = [name for name in ours if _is_foreign(folder / name, before.get(name))]
    if foreign:
        raise FileExistsError(
            f"{folder} holds {', '.join(foreign)}, which nrrn did not put there or which somebody "
            "has changed: move it away, and install again."
        )
    folder.mkdir(parents=True, exist_ok=True)
    hashes = {name: _hash(file) for name, file in ours.items()}
    # Written first: whatever happens while copying, uninstalling finds everything.
    _write_list(fiji, {**before, **hashes})
    for name, file in ours.items():
        write_whole(folder / name, file.read_bytes())
    for name in before.keys() - ours.keys():  # of an older version
        if not _is_foreign(folder / name, before[name]):
            (folder / name).unlink(missing_ok=True)
    _write_list(fiji, hashes)
    lines = [f"Installed in {folder}: {', '.join(sorted(ours))}."]
    if not any(name.endswith(".py") for name in ours):
        lines.append(
            "This Fiji has no support for Python scripts (Fiji's Python mode), so macros alone "
            "were installed."
        )
    lines.append(
        "They are in its menu Plugins > NRRN when it starts again. All commands, with nothing "
        "installed: nrrn fiji"
    )
    return Report("\n".join(lines), {"folder": str(folder), "files": sorted(ours)})


def uninstall_scripts(fiji: Path) -> Report:
    """Take out of a Fiji folder what :func:`install_scripts` put there, and nothing else.

    Raises
    ------
    OSError
        If the Fiji folder cannot be written to.
    """
    folder = fiji / "scripts" / MENU
    before = installed_files(fiji)
    if not before:
        return Report(
            f"Nothing of NRRN is installed in {fiji}.",
            {"folder": str(folder), "removed": [], "kept": []},
        )
    kept = sorted(name for name in before if _is_foreign(folder / name, before[name]))
    removed = sorted(name for name in before if name not in kept and (folder / name).exists())
    for name in removed:
        (folder / name).unlink()
    _list_of(fiji).unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
    lines = [f"Removed from {folder}: {', '.join(removed) or 'nothing, all were gone'}."]
    if kept:
        lines.append(f"Kept, because somebody has changed them: {', '.join(kept)}.")
    return Report("\n".join(lines), {"folder": str(folder), "removed": removed, "kept": kept})


def _list_of(fiji: Path) -> Path:
    return fiji / "scripts" / MENU / LIST


def _write_list(fiji: Path, hashes: dict[str, str]) -> None:
    text = json.dumps({"files": dict(sorted(hashes.items()))}, indent=2)
    write_whole(_list_of(fiji), text.encode())


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _is_foreign(file: Path, known: str | None) -> bool:
    """Whether a file is there that is not, byte for byte, what was installed."""
    return file.exists() and _hash(file) != known
