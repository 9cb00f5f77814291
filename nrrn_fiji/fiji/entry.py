"""What a command is to ImageJ, and what it finds there: images, progress, whether anybody answers.

Every module of a command stands on this one, and none of them on those that run commands
(:mod:`.plugin`) or ask for their options (:mod:`.dialogs`).  This module must never run a command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..commands import Command, Option
from ..sentences import sentence
from . import java
from .jvm import ImageJ
from .pixels import more_memory
from .tasks import ImageJProgress
from .texts import as_in_fiji

__all__ = ["Entry", "Host", "message_of", "open_images", "options_of", "unused_title"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A command as ImageJ shows it."""

    label: str
    """In the menu."""
    key: str
    """What the Java class passes on."""
    summary: str
    """What it does, in one sentence."""
    options: tuple[Option, ...] = ()
    """What a macro can give; a dialog asks for those that are not for experts."""
    run: Callable[[Host, dict[str, Any]], None]
    """Does the work, with parsed values by option name."""
    name: str = ""
    """In ``run("…")``, where that is not the label: ImageJ's commands share one table."""
    in_menu: bool = True
    needs_image: bool = True
    """Whether it works on an image that is open."""
    check: Callable[[Mapping[str, Any]], Any] | None = None
    """Refuses values that are out of range, before anything is done."""
    start: Callable[[Any], dict[str, Any]] | None = None
    """Returns values that a dialog starts with for an image, instead of the defaults."""
    note: Callable[[Any, dict[str, Any]], str] | None = None
    """Returns a line for the dialog on the values as they stand, such as the time it will take;
    called with the image, on a thread of its own."""
    window: Callable[[Host, Entry], None] | None = None
    """Takes the place of dialog and run where there is a screen and no options."""

    @property
    def command(self) -> str:
        """What ``run("…")`` calls it."""
        return self.name or self.label


def options_of(command: Command, *left_out: str) -> tuple[Option, ...]:
    """Return the options of a command but those that make no sense for an open image."""
    return tuple(option for option in command.all_options() if option.name not in left_out)


class Host:
    """The ImageJ that commands work in, as far as a command may touch it.

    Parameters
    ----------
    app
        What :class:`~nrrn_fiji.fiji.jvm.ImageJ` says of ImageJ.
    entries
        Every command.
    """

    def __init__(self, app: ImageJ, entries: Sequence[Entry]):
        self.app = app
        self.entries = {entry.key: entry for entry in entries}

    @property
    def error(self) -> BaseException | None:
        """What the last command of this thread of Java failed with, or None."""
        return getattr(java.here(), "error", None)

    @error.setter
    def error(self, error: BaseException | None) -> None:
        java.here().error = error

    def without_dialogs(self, options: str | None) -> bool:
        """Whether a command must not ask: it has options, or there is nobody to answer."""
        given = options is not None and bool(options.strip())
        batch = bool(java.JClass("ij.macro.Interpreter").isBatchMode())
        return given or self.app.headless or batch

    @property
    def in_macro(self) -> bool:
        """Whether a macro runs the command."""
        return java.JClass("ij.macro.Interpreter").getInstance() is not None

    def current_image(self) -> Any:
        """Return the image that a command works on: the macro's, or the front window's.

        Raises
        ------
        ValueError
            If there is none.
        """
        windows = java.JClass("ij.WindowManager")
        if (imp := windows.getTempCurrentImage()) is not None:  # this thread's, open or not
            return imp
        imp, images = windows.getCurrentImage(), open_images()
        # While a window closes, ImageJ may still name its image, or none.
        if images and (imp is None or imp.getID() not in [one.getID() for one in images]):
            return images[-1]
        if imp is None:
            raise ValueError("No image is open: open a stack first.")
        return imp

    def open_image(self, title: str) -> Any:
        """Return the open image of that title.

        Raises
        ------
        ValueError
            If there is none.
        """
        images = open_images()
        for imp in images:
            if str(imp.getTitle()) == title:
                return imp
        titles = ", ".join(str(imp.getTitle()) for imp in images)
        raise ValueError(f"No open image is called {title!r}: open are {titles or 'none'}.")

    @contextmanager
    def working_on(self, imp: Any, title: str, *, counts: bool = True) -> Iterator[ImageJProgress]:
        """Keep other commands away from an image, and show the progress of this one.

        ``title`` and ``counts`` are those of :class:`~nrrn_fiji.fiji.tasks.ImageJProgress`.

        Raises
        ------
        ValueError
            If another command uses the image.
        """
        if not imp.lockSilently():
            raise ValueError(
                f"The image {str(imp.getTitle())!r} is in use by another command: wait until that "
                "has ended."
            )
        java.undone_at_death(imp, "unlock")
        try:
            with self.progress(title, counts=counts) as progress:
                yield progress
        finally:
            imp.unlock()

    @contextmanager
    def progress(self, title: str, *, counts: bool = True) -> Iterator[ImageJProgress]:
        """Show the progress of a job that works on no open image."""
        progress = ImageJProgress(self.app, title, counts=counts)
        try:
            yield progress
        finally:
            progress.close()


def open_images() -> list[Any]:
    """Return the images that are open, in the order in which they were opened."""
    windows = java.JClass("ij.WindowManager")
    found = [windows.getImage(int(number)) for number in windows.getIDList() or ()]
    return [imp for imp in found if imp is not None]


def message_of(error: BaseException) -> str:
    """Return the sentence that a user reads, whichever side the error came from."""
    if isinstance(error, java.JException):
        if isinstance(error, java.JClass("java.lang.OutOfMemoryError")):
            return f"Java's memory is full: close images, or give Java more ({more_memory()})."
        return f"{error.message() or error}"
    return as_in_fiji(sentence(error))


def unused_title(title: str) -> str:
    """Return a title that no open image has: "a.tif", "a-1.tif", "a-2.tif", …"""
    taken = {str(name) for name in java.JClass("ij.WindowManager").getImageTitles()}
    stem, dot, suffix = title.rpartition(".")
    number, fresh = 0, title
    while fresh in taken:
        number += 1
        fresh = f"{stem}-{number}.{suffix}" if dot and stem else f"{title}-{number}"
    return fresh
