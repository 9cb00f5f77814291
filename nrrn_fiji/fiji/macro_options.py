"""The options that a macro gives to a command: ``"model=mine units=2 slices=[3-9] noise"``.

They are ImageJ's own: keys are the first words of a dialog's labels, a name alone is a check box,
values with spaces stand in brackets, and ``&name`` is a variable of the macro.  This module must
never guess: what is not understood is refused with a sentence.

Sources: ``ij.Macro`` and ``ij.gui.GenericDialog`` of ImageJ 1.54p.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..commands import Kind, Option
from . import java

__all__ = ["CHOSEN", "NONE", "parse_macro_options", "parse_value"]

CHOSEN = "auto"  # in a list of choices: chosen for you
NONE = "none"  # in a list of choices: no model, no image
# One word of a macro's options: a key, and what follows it.
WORD = re.compile(
    r"""\s*(\w+)(=(?:\[((?:[^\[\]]|\[[^\[\]]*\])*)\]|'([^']*)'|([^\s\[']\S*)?))?(?=\s|$)"""
)
IMAGEJ_SLICES = re.compile(r"\s*(\d+)\s*-\s*(\d+)\s*")


def parse_macro_options(text: str, options: Sequence[Option], command: str) -> dict[str, Any]:
    """Return the values that a macro gives.

    Parameters
    ----------
    text
        Such as ``"model=mine units=2 slices=[3-9] noise"``; a name alone is a check box.
    options
        The options that there are.
    command
        The command's name, for messages.

    Raises
    ------
    ValueError
        If a key is unknown or a value is not understood.
    """
    known = {option.name: option for option in options}
    values: dict[str, Any] = {}
    position, text = 0, text.rstrip()
    while position < len(text):
        match = WORD.match(text, position)
        if match is None:
            raise ValueError(
                f"The macro options of {command!r} are not understood from {text[position:]!r} on: "
                "write key=value, and [ ] around a value with spaces."
            )
        position = match.end()
        key = match[1].lower()
        if key not in known:
            raise ValueError(
                f"{key!r} is no option of {command!r}: use {', '.join(known)}, as the Recorder "
                "writes them."
            )
        given = next((part for part in match.groups()[2:] if part is not None), None)
        if given is not None and given.startswith("&"):
            given = macro_variable(given[1:])
        if match[2] is None:
            given = "true" if known[key].kind is Kind.FLAG else ""
        parsed = parse_value(known[key], given or "")
        if parsed is not None:
            values[key] = parsed
    return values


def macro_variable(name: str) -> str:
    """Return the value of a variable of the macro that runs: ``key=&name`` in its options.

    Raises
    ------
    ValueError
        If the macro has no such variable.
    """
    interpreter = java.JClass("ij.macro.Interpreter").getInstance()
    value = None if interpreter is None else interpreter.getVariableAsString(name)
    if value is None:
        raise ValueError(
            f"The macro has no variable {name!r}: set it before it is used as &{name}."
        )
    # ImageJ has one kind of number: 3 comes as "3.0".
    return re.sub(r"\.0$", "", str(value))


def parse_value(option: Option, text: str) -> Any:
    """Return the value of one option, or None where it is left to its default.

    Slices are counted from 1 when written as ImageJ does, ``3-9``, both ends included.
    """
    text = text.strip()
    if not text or (text in (CHOSEN, NONE) and option.default is None):
        return None
    if option.kind is Kind.SLICES:
        match = IMAGEJ_SLICES.fullmatch(text)
        if match is not None:
            first, last = int(match[1]), int(match[2])
            if not 1 <= first <= last:
                raise ValueError(
                    f"{option.name} is {text!r}, but it must be FIRST-LAST, counted from 1."
                )
            return range(first - 1, last)
    return option.parse(text)
