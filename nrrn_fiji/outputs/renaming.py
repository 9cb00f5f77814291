"""Files and folders that get their final names, are known again under them, or are removed.

This module must never leave a part of something under a name.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
from pathlib import Path

from ..files import replace, sync_folder

__all__ = ["identity", "is_empty_folder", "remove", "rename", "same_content"]


def identity(path: Path) -> str:
    """Return what a rename leaves as it is and a change does not: sizes and times of all files."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            status = file.stat()
            name = file.relative_to(path).as_posix()
            digest.update(f"{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def same_content(path: Path, other: Path) -> bool:
    """Whether two files, or two folders with all that is in them, hold the same bytes."""
    return _content(path) == _content(other)


def _content(path: Path) -> dict[str, str]:
    """Return a hash of every file, by its name within the path."""
    hashes = {}
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
            hashes[file.relative_to(path).as_posix()] = digest
    return hashes


def is_empty_folder(path: Path) -> bool:
    """Whether there is a folder with nothing in it."""
    return path.is_dir() and not any(path.iterdir())


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def rename(source: Path, target: Path) -> None:
    """Move a file or folder; onto another disk by a copy that gets its name when it is whole."""
    try:
        replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = target.with_name(target.name + ".copying")
        remove(beside)
        try:
            if source.is_dir():
                shutil.copytree(source, beside)
            else:
                shutil.copy2(source, beside)
            replace(beside, target)
        except BaseException:
            remove(beside)
            raise
        remove(source)
    sync_folder(target.parent)
