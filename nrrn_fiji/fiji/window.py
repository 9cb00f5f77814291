"""``nrrn fiji``: open Fiji with NRRN in its menu, and end when the user quits it.

This module must never change a Fiji folder unless the user asks for it, and never end Python
behind the user's back: ImageJ asks about images that are not saved.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..reports import Report
from .installed import check_fiji, find_fiji, remember_fiji
from .jvm import run_on_screen, start
from .scripts import install_scripts, uninstall_scripts

__all__ = ["open_fiji"]


def open_fiji(
    fiji: Path | None = None,
    imagej: bool = False,
    memory: int | None = None,
    install: bool = False,
    uninstall: bool = False,
) -> Report:
    """Open Fiji, or plain ImageJ, and return when the user has quit it.

    Parameters
    ----------
    fiji
        The Fiji folder, which is remembered once it has started; looked for when left out.
    imagej
        Plain ImageJ instead.
    memory
        The most memory for Java, in MiB.
    install, uninstall
        Put our commands and macros into the Fiji folder, or take them out again, and open nothing.

    Raises
    ------
    ValueError
        If options contradict each other.
    FileNotFoundError, ConnectionError, RuntimeError
        If Fiji or Java is missing or does not start.
    """
    if imagej and (fiji is not None or install or uninstall):
        raise ValueError(
            "--imagej is plain ImageJ without a Fiji folder: leave out --fiji, --install and "
            "--uninstall, or leave out --imagej."
        )
    if install and uninstall:
        raise ValueError("--install and --uninstall contradict each other: give one of them.")
    if install or uninstall:
        folder = find_fiji(fiji)
        return install_scripts(folder) if install else uninstall_scripts(folder)
    told: list[str] = []
    print(f"Opening {'ImageJ' if imagej else 'Fiji'} …", file=sys.stderr, flush=True)

    def show_until_quit() -> None:
        app = start(fiji, imagej=imagej, headless=False, memory=memory)
        if fiji is not None:
            remember_fiji(check_fiji(fiji))
        told.append(str(app))
        from .app import show, wait_until_quit

        show(app)
        wait_until_quit()

    run_on_screen(show_until_quit)
    name = "ImageJ" if imagej else "Fiji"
    return Report(f"{name} was closed.", {"imagej": told[0]})
