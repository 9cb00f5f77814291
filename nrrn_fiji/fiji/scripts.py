"""Our commands and macros in a Fiji folder: put there, and taken out again.

What was put there is written down, file by file with its hash, so that exactly that is taken out
again.  This module must never touch a file that it did not put there, nor one that a user has
changed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ..files import write_whole
from ..reports import Report
from ..resources import data_folder
from .ordinary import plugin_files

__all__ = [
    "install_scripts",
    "installed_files",
    "our_macro",
    "uninstall_scripts",
]

MENU = Path("Plugins") / "NRRN"
LIST = "installed-by-nrrn.json"
SCRIPTS = "scripts/Plugins/NRRN"
FOLDERS = (SCRIPTS, "plugins", "jars")
"""Where in a Fiji folder something is put."""


def our_macro(name: str) -> Path | None:
    """Return the macro of that file name that came with this package, or None."""
    file = data_folder("scripts") / MENU / name
    return file if file.suffix == ".ijm" and Path(name).name == name and file.is_file() else None


def installed_files(fiji: Path) -> dict[str, str]:
    """Return the files that :func:`install_scripts` put into a Fiji folder, each with its hash.

    Names are relative to the Fiji folder, with slashes; some may have been deleted since.

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
        return {name: str(said[name]) for name in said if name.rpartition("/")[0] in FOLDERS}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file} is damaged ({error}): delete the folder {file.parent} yourself, if nothing "
            "of your own is in it, and install again."
        ) from error


def install_scripts(fiji: Path) -> Report:
    """Put our commands and macros into a Fiji folder; again after an update of either.

    Raises
    ------
    FileExistsError
        If a file of that name is there that is not ours, or that somebody has changed; nothing is
        copied then.
    FileNotFoundError, RuntimeError
        If this Fiji cannot run our commands; nothing is copied then.
    OSError
        If the Fiji folder cannot be written to.
    """
    before = installed_files(fiji)
    macros = sorted((data_folder("scripts") / MENU).glob("*.ijm"))
    ours = {f"{SCRIPTS}/{file.name}": file.read_bytes() for file in macros}
    for name, content in plugin_files(fiji).items():
        # A library that is there and that we did not put there is Fiji's own.
        if name.startswith("jars/") and name not in before and (fiji / name).exists():
            continue
        ours[name] = content
    foreign = [name for name in ours if _is_foreign(fiji / name, before.get(name))]
    if foreign:
        raise FileExistsError(
            f"{fiji} holds {', '.join(foreign)}, which nrrn did not put there or which somebody "
            "has changed: move it away, and install again."
        )
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in ours.items()}
    (fiji / SCRIPTS).mkdir(parents=True, exist_ok=True)
    # Written first: whatever happens while copying, uninstalling finds everything.
    _write_list(fiji, {**hashes, **{name: before[name] for name in before if name not in hashes}})
    for name, content in ours.items():
        if not (fiji / name).exists() or _hash(fiji / name) != hashes[name]:
            write_whole(fiji / name, content)
    for name in before.keys() - ours.keys():  # of an older version
        if not _is_foreign(fiji / name, before[name]):
            (fiji / name).unlink(missing_ok=True)
    _write_list(fiji, hashes)
    lines = [
        f"Installed in {fiji}: {', '.join(sorted(ours))}.",
        "The commands are in its menu Plugins > NRRN when it starts again, however it is started. "
        "They work with this Python, so keep it; after moving or updating it, install again.",
    ]
    return Report("\n".join(lines), {"folder": str(fiji), "files": sorted(ours)})


def uninstall_scripts(fiji: Path) -> Report:
    """Take out of a Fiji folder what :func:`install_scripts` put there, and nothing else.

    Raises
    ------
    OSError
        If the Fiji folder cannot be written to.
    """
    before = installed_files(fiji)
    if not before:
        return Report(
            f"Nothing of NRRN is installed in {fiji}.",
            {"folder": str(fiji), "removed": [], "kept": []},
        )
    kept = sorted(name for name in before if _is_foreign(fiji / name, before[name]))
    removed = sorted(name for name in before if name not in kept and (fiji / name).exists())
    for name in removed:
        (fiji / name).unlink()
    _list_of(fiji).unlink()
    if not any((fiji / SCRIPTS).iterdir()):
        (fiji / SCRIPTS).rmdir()
    lines = [f"Removed from {fiji}: {', '.join(removed) or 'nothing, all were gone'}."]
    if kept:
        lines.append(f"Kept, because somebody has changed them: {', '.join(kept)}.")
    return Report("\n".join(lines), {"folder": str(fiji), "removed": removed, "kept": kept})


def _list_of(fiji: Path) -> Path:
    return fiji / SCRIPTS / LIST


def _write_list(fiji: Path, hashes: dict[str, str]) -> None:
    text = json.dumps({"files": dict(sorted(hashes.items()))}, indent=2)
    write_whole(_list_of(fiji), text.encode())


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _is_foreign(file: Path, known: str | None) -> bool:
    """Whether a file is there that is not, byte for byte, what was installed."""
    return file.exists() and _hash(file) != known
