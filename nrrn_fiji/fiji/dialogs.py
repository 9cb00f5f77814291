"""ImageJ's own dialogs, derived from the options of a command.

A dialog asks for what a macro can give, begins with the declared defaults (never with what was
typed last time: a macro must not depend on history), tells the Recorder, and may say beneath what
the present values mean.  This module must never do what a dialog asks for.

Source: ``ij.gui.GenericDialog`` of ImageJ 1.54p.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

from ..commands import Kind, Option
from ..models import DEFAULT_MODEL, known_models
from . import java
from .entry import Entry, message_of
from .images import volume_of
from .layout import mark_as_ours
from .macro_options import CHOSEN, NONE, parse_value
from .texts import exactly

__all__ = ["Form", "OpenImage", "add_note", "choices_of", "label_of", "show_dialog", "watched"]

SECONDS_BETWEEN_LOOKS = 0.25
COLUMNS = {Kind.TEXT: 24, Kind.FILE: 24, Kind.IMAGE: 32}
"""Width of a field that is typed in, in letters; 14 for other kinds."""
ABOVE_CHECK_BOX = (5, 20, 0)
"""Pixels above, left of and below a check box: ImageJ would set the first one apart."""
SLIDER_STEP = 0.05
NOTE_LINES, NOTE_LETTERS = 2, 62


@dataclass(frozen=True, kw_only=True)
class OpenImage(Option):
    """An option whose value is the title of an open image."""

    kind: Kind = Kind.TEXT


def label_of(option: Option, imp: Any = None) -> str:
    """Return the label of an option: ImageJ takes the first word for the macro key.

    Parameters
    ----------
    imp
        The image that the dialog is for; with it, the label says what that has.
    """
    name = option.name[0].upper() + option.name[1:]
    if option.kind is Kind.SLICES and imp is not None:
        depth = volume_of(imp).shape.z
        # With a single one they lie along an axis that is only chosen in this dialog.
        return f"{name} (1-{depth}, all when empty)" if depth > 1 else f"{name} (all when empty)"
    words = [option.label[0].lower() + option.label[1:]]
    if words[0].split()[0].lower() == option.name.lower():  # ImageJ's key is its first word already
        name, words = option.label, []
    words += [option.kind.metavar] if option.kind is Kind.PAIR else []
    words += [option.unit] if option.unit and option.unit not in option.label.lower() else []
    return f"{name} ({', '.join(words)})" if words else name


def choices_of(option: Option) -> list[str] | None:
    """Return what a list offers, or None if the option is typed in."""
    if option.kind is Kind.MODEL:
        names = [entry.name for entry in known_models() if not entry.problem]
        return names if option.required or option.default is not None else [NONE, *names]
    if isinstance(option, OpenImage):
        titles = [str(title) for title in java.JClass("ij.WindowManager").getImageTitles()]
        return titles if option.required else [NONE, *titles]
    if option.name == "device":
        return [CHOSEN, *devices()]
    if option.choices is None:
        return None
    first = [CHOSEN] if option.default is None else []
    return first + [str(choice) for choice in option.choices]


def devices() -> list[str]:
    """Return the names of the devices of this machine that can compute."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    apple = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *apple, *(f"cuda:{number}" if number else "cuda" for number in range(count))]


def is_slider(option: Option) -> bool:
    """Whether an option is asked for by a slider: a number between two ends, with a default."""
    ends = (option.minimum, option.maximum, option.default)
    return option.kind is Kind.NUMBER and not option.choices and None not in ends


def is_input(option: Option) -> bool:
    """Whether an option names a file that is there: ImageJ's button Browse opens no other."""
    return option.kind is Kind.IMAGE or (
        option.kind is Kind.FILE and not option.named_after and not option.name.endswith("_out")
    )


class Form:
    """The fields of a dialog, for a set of options.

    Parameters
    ----------
    dialog
        The ``ij.gui.GenericDialog``.
    options
        Which fields it gets.
    start
        Values to begin with, where these are not the defaults.
    imp
        The image that it is for, if any.
    """

    def __init__(
        self, dialog: Any, options: Sequence[Option], start: Mapping[str, Any], imp: Any = None
    ):
        self.dialog = dialog
        self.options = tuple(options)
        self._choices: dict[str, list[str]] = {}
        self._parts: list[tuple[Any, str, tuple[()]]] | None = None
        for option in self.options:
            value = start.get(option.name, option.default)
            label = label_of(option, imp)
            choices = choices_of(option)
            if option.kind is Kind.FLAG:
                dialog.setInsets(*ABOVE_CHECK_BOX)
                dialog.addCheckbox(label, bool(value))
            elif choices:
                text = str(value) if value is not None else choices[0]
                if option.kind is Kind.MODEL and text not in choices and DEFAULT_MODEL in choices:
                    text = DEFAULT_MODEL
                dialog.addChoice(label, choices, text if text in choices else choices[0])
                self._choices[option.name] = choices
            elif is_slider(option):
                dialog.addSlider(label, option.minimum, option.maximum, value, SLIDER_STEP)
            elif is_input(option):
                dialog.addFileField(label, as_text(value), COLUMNS[option.kind])
            else:
                dialog.addStringField(label, as_text(value), COLUMNS.get(option.kind, 14))

    def texts(self) -> tuple[str, ...]:
        """Return what the fields hold at the moment, one text per option."""
        if self._parts is None:
            strings = iter(self.dialog.getStringFields() or ())
            numbers = iter(self.dialog.getNumericFields() or ())
            choices = iter(self.dialog.getChoices() or ())
            boxes = iter(self.dialog.getCheckboxes() or ())

            def part(option: Option) -> tuple[Any, str, tuple[()]]:
                if option.kind is Kind.FLAG:
                    return next(boxes), "getState", ()
                if option.name in self._choices:
                    return next(choices), "getSelectedItem", ()
                if is_slider(option):
                    return next(numbers), "getText", ()
                return next(strings), "getText", ()

            self._parts = [part(option) for option in self.options]
        said = java.calls(self._parts)
        return tuple(
            str(bool(value)).lower() if option.kind is Kind.FLAG else str(value)
            for option, value in zip(self.options, said, strict=True)
        )

    def parsed(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return the values that texts stand for, without those left to their defaults.

        Raises
        ------
        ValueError
            If a value is not understood.
        """
        values = {
            option.name: parse_value(option, text)
            for option, text in zip(self.options, texts, strict=True)
        }
        return {name: value for name, value in values.items() if value is not None}

    def values(self) -> dict[str, Any]:
        """Return the values of a dialog that was confirmed, and tell the Recorder."""
        texts = []
        for option in self.options:
            if option.kind is Kind.FLAG:
                texts.append(str(bool(self.dialog.getNextBoolean())).lower())
            elif option.name in self._choices:
                texts.append(str(self.dialog.getNextChoice()))
            elif is_slider(option):
                texts.append(f"{float(self.dialog.getNextNumber()):g}")
            else:
                texts.append(str(self.dialog.getNextString()))
        return self.parsed(texts)


def as_text(value: Any) -> str:
    """Return a value as it is typed."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(f"{number:g}" for number in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def explained(option: Option) -> str:
    """Return what the help says of an option, in the words of Fiji, not of the terminal."""
    if option.kind is Kind.SLICES:
        return (
            "The first and the last slice to denoise, as 3-9, counted from 1 as Fiji does; all "
            "when empty. Their neighbours outside of the range are still looked at."
        )
    if option.kind is Kind.MODEL and option.default == DEFAULT_MODEL:
        return (
            "Which network denoises. NRRN > Models... says what is known of each, and brings "
            "others into the list. Macros can also name a .safetensors file."
        )
    return option.help


def help_of(entry: Entry, more: str = "") -> str:
    """Return the page behind a dialog's button Help; with ``more`` beneath what it does."""
    about = f"<p>{escape(more)}</p>" if more else ""
    rows = (
        f"<p><b>{escape(label_of(option))}</b><br>{escape(explained(option))}</p>"
        for option in entry.options
        if not option.expert
    )
    experts = ", ".join(option.name for option in entry.options if option.expert)
    macros = f"<p>Macros can also give: {experts}.</p>" if experts else ""
    return f"<html><h3>{escape(entry.summary)}</h3>{about}{''.join(rows)}{macros}</html>"


def show_dialog(entry: Entry, imp: Any) -> dict[str, Any] | None:
    """Ask the user with ImageJ's own dialog, which also tells the Recorder.

    Parameters
    ----------
    imp
        The image that it is for; None if it needs none.

    Returns
    -------
    dict or None
        Values by option name; None if the user closed the dialog.

    Raises
    ------
    ValueError
        If the image cannot be used, or a value is not understood.
    """
    if imp is not None:
        volume_of(imp)  # refused before anything is asked
    dialog = java.JClass("ij.gui.GenericDialog")(entry.label.rstrip("."))
    start = {} if entry.start is None else entry.start(imp)
    asked = [option for option in entry.options if not option.expert and concerns(option, imp)]
    form = Form(dialog, asked, start, imp)
    dialog.addHelp(help_of(entry))
    mark_as_ours(dialog)
    note = entry.note
    if note is None:
        dialog.showDialog()
    else:
        tell = add_note(dialog)

        def say(texts: tuple[str, ...], stale: Callable[[], bool]) -> None:
            try:
                text = note(imp, form.parsed(texts))
            except Exception as error:
                text = message_of(error)
            if not stale():
                tell(text)

        with watched(form.texts, say):
            dialog.showDialog()
    return None if dialog.wasCanceled() else form.values()


def concerns(option: Option, imp: Any) -> bool:
    """Whether an option can make a difference to an image; any can where there is none."""
    if imp is None:
        return True
    shape = volume_of(imp).shape
    if option.kind is Kind.SLICES:
        return shape.planes > 1
    return option.name != "z_axis" or (shape.z == 1 and shape.t * shape.c > 1)


def add_note(dialog: Any, count: int = NOTE_LINES) -> Callable[[str], None]:
    """Keep room for ``count`` lines beneath the fields; return what writes a sentence there."""
    dialog.addMessage("\n".join([" " * NOTE_LETTERS] * count))
    label = dialog.getMessage()
    return lambda text: label.setText(exactly(text, NOTE_LETTERS, count))


@contextmanager
def watched(
    look: Callable[[], Any], changed: Callable[[Any, Callable[[], bool]], None]
) -> Iterator[None]:
    """Call ``changed`` now, and whenever what ``look`` returns has changed and come to rest.

    It is called on a thread of its own, with what was seen and a function that says whether that
    is out of date by now, so that long work can be given up.  The thread has ended on leaving.
    """
    over = threading.Event()

    def stale(acted: Any) -> bool:
        return over.is_set() or look() != acted

    def run() -> None:
        acted: Any = None
        before: Any = None
        while not over.is_set():
            seen = look()
            if seen != acted and (acted is None or seen == before):
                acted = seen
                changed(seen, partial(stale, seen))
            before = seen
            over.wait(SECONDS_BETWEEN_LOOKS)

    thread = threading.Thread(target=run, name="nrrn-dialog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
