"""What a command and its options are: names, kinds of values, and how a user's words are read.

This module must never import what a command names: functions are found when they are called, so
that ``nrrn --help`` and a menu answer at once.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any

from ..files import beside
from ..progress import Progress
from ..reports import Reportable
from ..settings import field_info

__all__ = ["OVERWRITE", "RESTART", "Command", "Kind", "Option", "settings_options"]


class Kind(Enum):
    """What sort of value an option takes: a word for its place in a usage line, and a meaning."""

    FLAG = ("", "true or false")
    INTEGER = ("N", "a whole number")
    NUMBER = ("X", "a number")
    TEXT = ("TEXT", "a text")
    PAIR = ("LO,HI", "two numbers LO,HI, the lower one first")
    SLICES = ("A:B", "two slice numbers A:B, A below B; the first slice is 0 and B is left out")
    IMAGE = ("IMAGE", "a file, a folder, or a quoted pattern of single-slice images")
    FILE = ("FILE", "a file")
    FOLDER = ("DIR", "a folder")
    MODEL = ("MODEL", "a model's name, or a model file")

    @property
    def metavar(self) -> str:
        """The word that stands for a value."""
        return self.value[0]

    @property
    def accepts(self) -> str:
        """What is accepted, to go into a sentence."""
        return self.value[1]


# Python's types of settings fields -> kinds; ``| None`` is taken off first.
KINDS_BY_TYPE: dict[Any, Kind] = {
    bool: Kind.FLAG,
    int: Kind.INTEGER,
    float: Kind.NUMBER,
    str: Kind.TEXT,
    tuple[float, float]: Kind.PAIR,
}
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
PAIR = re.compile(rf"\s*({NUMBER})\s*[,-]\s*({NUMBER})\s*")
SLICES = re.compile(r"\s*(\d+)\s*:\s*(\d+)\s*")
TRUE, FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


@dataclass(frozen=True, kw_only=True)
class Option:
    """One value that a command takes: a field of its settings, or a file and the like."""

    name: str
    """Name of the setting or of the function's argument; also the macro key."""

    label: str
    help: str
    kind: Kind
    default: Any = None
    choices: tuple[Any, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    unit: str = ""
    expert: bool = False
    setting: bool = False
    """Whether it is a field of the settings dataclass."""

    required: bool = False
    position: str = ""
    """Its name in a command line, if it is given there by position."""

    many: bool = False
    """Takes one value or more; the function gets a list."""

    spelling: tuple[str, ...] = ()
    """How a command line spells it, where that is not ``--name``."""

    named_after: str = ""
    """For an output: the option that names the input beside which it lies when left out."""

    ending: str = ""
    """What such a name adds to the input's: "-denoised" makes stack-denoised.tif of stack.tif; with
    a suffix of its own ("-model.safetensors") it takes the place of the input's."""

    def parse(self, text: str) -> Any:
        """Return the value that a user wrote.

        Raises
        ------
        ValueError
            If ``text`` is not of this kind or not among the choices.  Ranges are checked by the
            settings dataclass.
        """
        try:
            value = PARSERS[self.kind](text)
        except ValueError:
            raise ValueError(
                f"{self.name} is {text!r}, but it must be {self.kind.accepts}."
            ) from None
        if self.choices is not None and value not in self.choices:
            known = ", ".join(str(choice) for choice in self.choices)
            raise ValueError(f"{self.name} is {text!r}, but it must be one of {known}.")
        return value


def parse_flag(text: str) -> bool:
    """Return True for "true", "yes", "on", "1" and False for their opposites."""
    word = text.strip().lower()
    if word not in TRUE | FALSE:
        raise ValueError(text)
    return word in TRUE


def parse_pair(text: str) -> tuple[float, float]:
    """Return (LO, HI) from "LO,HI" or "LO-HI", LO not above HI."""
    match = PAIR.fullmatch(text)
    if match is None or float(match[1]) > float(match[2]):
        raise ValueError(text)
    return float(match[1]), float(match[2])


def parse_slices(text: str) -> range:
    """Return the range from "A:B", A below B."""
    match = SLICES.fullmatch(text)
    if match is None or int(match[1]) >= int(match[2]):
        raise ValueError(text)
    return range(int(match[1]), int(match[2]))


def parse_number(text: str) -> float:
    """Return a finite number."""
    number = float(text)
    if number - number != 0:
        raise ValueError(text)
    return number


def parse_text(text: str) -> str:
    """Return ``text``, which must not be empty."""
    if not text:
        raise ValueError(text)
    return text


def parse_file(text: str) -> Path:
    """Return a path, the home folder's ``~`` filled in; whether it exists is the job's to say."""
    return Path(parse_text(text)).expanduser()


PARSERS: dict[Kind, Callable[[str], Any]] = {
    Kind.FLAG: parse_flag,
    Kind.INTEGER: int,
    Kind.NUMBER: parse_number,
    Kind.TEXT: parse_text,
    Kind.PAIR: parse_pair,
    Kind.SLICES: parse_slices,
    Kind.IMAGE: parse_file,
    Kind.FILE: parse_file,
    Kind.FOLDER: parse_file,
    Kind.MODEL: parse_text,
}


@dataclass(frozen=True, kw_only=True)
class Command:
    """Something that can be asked for."""

    name: str
    """One word, or two where commands form a group ("models list")."""

    title: str
    """Label in a menu."""

    summary: str
    """What it does, in one sentence."""

    description: str = ""
    """What a user should know besides, for the long help."""

    examples: tuple[str, ...]
    """Command lines that work."""

    function: str
    """``"module:name"`` of the function, which takes the options by their names (and
    ``settings``, and ``progress`` if it is a job) and returns a
    :class:`~nrrn_fiji.reports.Reportable`."""

    settings: type | None = None
    """The settings dataclass."""

    options: tuple[Option, ...] = ()
    """What it takes besides its settings."""

    counts: str = ""
    """What a job's progress counts ("slices"); empty if it is not a long job."""

    clock: str = ""
    """The setting that ends the job by the clock, if any: its progress then counts seconds."""

    plan: str = ""
    """``"module:name"`` of the function that only says what the job would do, if there is one."""

    plan_without: tuple[str, ...] = ()
    """The options that make no difference to a plan."""

    def all_options(self) -> tuple[Option, ...]:
        """Return the options and then the settings' fields, each as an :class:`Option`."""
        return self.options + settings_options(self.settings)

    def named_outputs(self, values: Mapping[str, Any]) -> dict[str, Path]:
        """Return the names of the outputs that ``values`` leave out, made from the inputs' names.

        Returns
        -------
        dict of str to Path
            By option name; empty if all are given.  Whether a file of such a name exists already
            is for the job to see, which never replaces one without being told to.
        """
        names = {}
        for option in self.options:
            source = values.get(option.named_after) if option.named_after else None
            first = source[0] if isinstance(source, list) and source else source
            if first and values.get(option.name) is None:
                names[option.name] = beside(Path(first), option.ending)
        return names

    def make_settings(self, values: Mapping[str, Any]) -> Any:
        """Return the settings object from those of ``values`` that belong to it; None if it has
        no settings.

        Raises
        ------
        ValueError
            If a value is out of its range.
        """
        if self.settings is None:
            return None
        names = {field.name for field in dataclasses.fields(self.settings)}
        return self.settings(**{name: values[name] for name in values if name in names})

    def call(
        self, values: Mapping[str, Any], progress: Progress | None = None, *, plan: bool = False
    ) -> Reportable:
        """Do the work.

        Parameters
        ----------
        values
            Parsed values by option name; what is left out has its default, an output's name one
            made from its input's.
        progress
            Passed on if the command is a long job.
        plan
            Only say what would be done; for commands with a ``plan``.

        Raises
        ------
        ValueError
            If a value has no option of its name, is required and missing, or is out of range.
            Whatever the function raises passes through.
        """
        values = {**values, **self.named_outputs(values)}
        known = {option.name: option for option in self.all_options()}
        for name in values:
            if name not in known:
                raise ValueError(
                    f"{name!r} is no option of {self.name}: it takes {', '.join(known)}."
                )
        arguments: dict[str, Any] = {}
        for option in self.options:
            if option.required and not values.get(option.name):
                raise ValueError(f"{option.name} is missing: {self.name} needs {option.help}")
            if not (plan and option.name in self.plan_without):
                arguments[option.name] = values.get(option.name, option.default)
        if self.settings is not None:
            arguments["settings"] = self.make_settings(values)
        if self.counts and progress is not None:
            arguments["progress"] = progress
        report: Reportable = resolve(self.plan if plan else self.function)(**arguments)
        return report


def settings_options(settings: type | None) -> tuple[Option, ...]:
    """Return an :class:`Option` for each field of a settings dataclass."""
    if settings is None:
        return ()
    hints = typing.get_type_hints(settings)
    options = []
    for field in dataclasses.fields(settings):
        kinds = [kind for kind in typing.get_args(hints[field.name]) if kind is not type(None)]
        is_optional = type(None) in typing.get_args(hints[field.name])
        options.append(
            Option(
                name=field.name,
                kind=KINDS_BY_TYPE[kinds[0] if is_optional else hints[field.name]],
                default=field.default,
                setting=True,
                **{
                    key: field_info(field, key)
                    for key in ("label", "help", "choices", "minimum", "maximum", "unit", "expert")
                },
            )
        )
    return tuple(options)


def resolve(function: str) -> Callable[..., Any]:
    """Import and return the function called ``"module:name"``."""
    module, _, name = function.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


OVERWRITE = Option(
    name="overwrite",
    label="Overwrite",
    help="Replace a finished output of the same name.",
    kind=Kind.FLAG,
    default=False,
)
RESTART = Option(
    name="restart",
    label="Restart",
    help="Throw away the finished part of an interrupted run, and begin again.",
    kind=Kind.FLAG,
    default=False,
)
