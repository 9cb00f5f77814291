"""Preview Settings…: a few places of the open image under several settings, as one picture.

The picture is that of ``nrrn preview``, with what a macro would say beneath each row.  This module
must never change the image, nor leave a file behind.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ..commands import find_command
from ..models import known_models
from . import java
from .entry import Entry, Host, options_of, unused_title
from .images import volume_of
from .layout import move_away, put_beside, show, show_table

__all__ = ["sheet_entry"]

# What belongs to files, or to the image that is open.
NOT_HERE = ("source", "out", "model", "channel", "z_axis", "overwrite", "fine_tune_minutes", "seed")


def sheet_entry() -> Entry:
    """Return Preview Settings…"""
    command = find_command("preview")
    return Entry(
        label="Preview Settings...",
        name="NRRN Preview Settings...",
        key="sheet",
        summary=command.summary,
        options=options_of(command, *NOT_HERE),
        check=command.make_settings,
        run=sheet,
    )


def sheet(host: Host, values: dict[str, Any]) -> None:
    """Draw the picture and open it, with the settings as a table on a screen."""
    from ..jobs.preview import preview_file

    imp = host.current_image()
    own = [e.name for e in known_models() if e.origin == "installed" and not e.problem]
    volume = volume_of(imp)
    with (
        host.working_on(imp, "Preview Settings") as progress,
        tempfile.TemporaryDirectory(prefix="nrrn-") as folder,
    ):
        path = Path(folder) / "preview.png"
        report = preview_file(
            volume,
            path,
            find_command("preview").make_settings(values),
            model=own,
            channel=int(imp.getC()) - 1,
            command=macro_of,
            first_slice=1,
            progress=progress,
        )
        picture = java.JClass("ij.IJ").openImage(str(path))
    title = unused_title(f"{volume.name} preview")
    picture.setTitle(title)
    show(picture)
    if host.without_dialogs(None) or picture.getWindow() is None:
        return
    put_beside(picture, imp, over=True)
    picture.getWindow().repaint()  # the line above the image too
    if report.table is not None:
        # Beneath a picture that is shown smaller, nobody can read what a macro says, nor copy it.
        move_away(show_table(f"Settings of {title}", report.table), [picture])


def macro_of(choice: Any) -> str:
    """Return what a macro says to denoise with a :class:`~nrrn_fiji.jobs.preview.Choice`."""
    name = choice.called
    words = [f"model=[{name}]" if " " in name else f"model={name}"]
    if choice.units is not None:
        words.append(f"units={choice.units}")
    if choice.strength < 1:
        words.append(f"strength={choice.strength:g}")
    return f'run("Denoise Stack...", "{" ".join(words)}");'
