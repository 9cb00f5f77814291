"""What is checked about outputs before anything is computed: their places and the room on the disk.

This module must never change a file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = [
    "allocated",
    "check_distinct",
    "check_parent",
    "checked_output",
    "free_space",
    "readable_size",
]


def check_distinct(inputs: Sequence[Path], outputs: Mapping[str, Path]) -> None:
    """Check that no output is, lies in, or holds one of the inputs, nor another output.

    Parameters
    ----------
    inputs
        The files and folders that are read.
    outputs
        The final paths, by the name of the argument that gave them.

    Raises
    ------
    ValueError
        If two of them are the same, or one lies in the other; the message names both.
    """
    seen: dict[str, str] = {}
    reals = {name: Path(os.path.realpath(output)) for name, output in outputs.items()}
    for name, output in outputs.items():
        real = reals[name]
        for other, folder in reals.items():
            if folder in real.parents:
                raise ValueError(
                    f"{name} is {output}, which lies in {outputs[other]}, which is {other}: give "
                    "each output a place of its own."
                )
        key = os.path.normcase(real)
        if key in seen:
            raise ValueError(
                f"{name} and {seen[key]} are both {output}: give each output its own name."
            )
        seen[key] = name
        for source in inputs:
            origin = Path(os.path.realpath(source))
            if origin == real or (real.exists() and origin.exists() and origin.samefile(real)):
                raise ValueError(
                    f"{name} is {output}, which is also the input: the input is never "
                    "overwritten, so choose another output."
                )
            if origin.is_dir() and origin in real.parents:
                raise ValueError(
                    f"{name} is {output}, which lies in the input folder {source} and would be "
                    "taken for a slice of it: choose an output elsewhere."
                )
            if real in origin.parents:
                raise ValueError(
                    f"{name} is {output}, the folder that the input {source} lies in: choose "
                    "another output."
                )


def free_space(folder: Path) -> int:
    """Return the number of bytes that can still be written into this folder."""
    return shutil.disk_usage(folder).free


def readable_size(size: int) -> str:
    """Return a number of bytes as people say it, in powers of 1000.

    >>> readable_size(1_530_000_000)
    '1.5 GB'
    """
    for unit, exponent in (("TB", 12), ("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**exponent:
            return f"{size / 10**exponent:.1f} {unit}"
    return f"{size} bytes"


def check_parent(target: Path) -> None:
    """Check that the folder of an output is there and can be written to.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, PermissionError
        If not, with one sentence.
    """
    parent = target.parent
    if not parent.exists():
        raise FileNotFoundError(
            f"The folder {parent} of the output {target.name} does not exist: create it, or "
            "choose another output."
        )
    if not parent.is_dir():
        raise NotADirectoryError(
            f"{parent}, where the output {target.name} should lie, is not a folder: choose "
            "another output."
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(
            f"The folder {parent} of the output {target.name} cannot be written to: choose "
            "another output, or ask for the right to write there."
        )


def checked_output(
    out: str | Path | None,
    sources: Sequence[object],
    suffixes: Sequence[str],
    overwrite: bool,
) -> Path | None:
    """Return the path of an output file that may be written, or None if none was asked for.

    Parameters
    ----------
    out
        The file.
    sources
        What is read; the output must not be one of the paths among them.
    suffixes
        How the file's name may end, in lower case; the usual one first.
    overwrite
        Whether the file may exist.

    Raises
    ------
    ValueError
        If the name ends otherwise, or the file is one of the sources.
    FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError
        If the file exists, or its folder does not or cannot be written to.
    """
    if out is None:
        return None
    path = Path(out)
    if path.suffix.lower() not in suffixes:
        raise ValueError(
            f"out is {path}, but a {suffixes[0]} file is written: give a name that ends in "
            f"{suffixes[0]}."
        )
    check_distinct([Path(s) for s in sources if isinstance(s, (str, Path))], {"out": path})
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already: add --overwrite, or give another name.")
    check_parent(Path(os.path.realpath(path)))
    return path


def allocated(folder: Path) -> int:
    """Return how many bytes on disk the files in a folder occupy; holes do not count."""
    total = 0
    for path in folder.rglob("*"):
        if path.is_file():
            stat = path.stat()
            total += stat.st_blocks * 512 if hasattr(stat, "st_blocks") else stat.st_size
    return total
