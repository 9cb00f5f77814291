"""The command table: everything that can be asked for, declared once.

The ``nrrn`` command line, ImageJ's menu, dialogs and macro keys all derive from :data:`COMMANDS`:
a command has a name, a settings dataclass whose fields carry their own labels and help, a few
options that only make sense where there are files, and the function that does the work.  A new
setting is one field in :mod:`nrrn_fiji.settings`, a new command is one entry here.

This module must never import what it names: functions are found when they are called, so that
``nrrn --help`` and a menu answer at once.  It must know nothing of any edge.
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

from .models import DEFAULT_MODEL
from .progress import Progress
from .reports import Reportable
from .settings import DEVICE_HELP, DenoiseSettings, NoiseSettings, TrainSettings, field_info

__all__ = ["COMMANDS", "GROUPS", "Command", "Kind", "Option", "find_command"]


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
            Parsed values by option name; what is left out has its default.
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


def find_command(name: str) -> Command:
    """Return the command of that name.

    Raises
    ------
    ValueError
        If there is none; the message lists those there are.
    """
    for command in COMMANDS:
        if command.name == name:
            return command
    known = ", ".join(command.name for command in COMMANDS)
    raise ValueError(f"{name!r} is no command: choose one of {known}.")


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
MODEL_NAME = Option(
    name="name",
    label="Model",
    help="A model's name, or a model file.",
    kind=Kind.MODEL,
    required=True,
    position="NAME",
)

FIJI = Option(
    name="fiji",
    label="Fiji folder",
    help="The folder that Fiji lies in. When left out: the environment variable NRRN_FIJI or "
    "FIJI_HOME, the folder that `nrrn fiji --fiji DIR` was last given, or the usual places.",
    kind=Kind.FOLDER,
)
IMAGEJ = Option(
    name="imagej",
    label="Plain ImageJ",
    help="Use plain ImageJ 1.54p instead of a Fiji; the first time it is fetched from Maven "
    "Central (3 MB).",
    kind=Kind.FLAG,
    default=False,
)
MEMORY = Option(
    name="memory",
    label="Memory for Java",
    help="The most memory that Java may take for its images; half of this computer's when left "
    "out.",
    kind=Kind.INTEGER,
    minimum=100,
    unit="MiB",
)

GROUPS = {
    "models": "List, show, import and remove models.",
    "study": "Measure denoisers as the paper does, on your own clean volumes.",
}
"""What the commands of two words have in common, by their first word."""

COMMANDS: tuple[Command, ...] = (
    Command(
        name="denoise",
        title="Denoise",
        summary="Denoise a stack: the same kind of image comes out, with the noise taken away.",
        description="Size, bit depth, calibration and labels stay as they are; what was done is "
        "written into the image's metadata. A run that was stopped goes on where it stopped when "
        "the same command is given again.",
        examples=(
            "nrrn denoise stack.tif denoised.tif",
            "nrrn denoise 'slices/*.tif' denoised/ --model mine --slices 100:200",
            "nrrn denoise stack.tif denoised.tif --noise noise.tif --plan",
        ),
        function="nrrn_fiji.api:denoise_file",
        plan="nrrn_fiji.api:plan_file",
        settings=DenoiseSettings,
        counts="slices",
        options=(
            Option(
                name="source",
                label="Input",
                help="The stack: a file, a folder of single-slice images, or a quoted pattern.",
                kind=Kind.IMAGE,
                required=True,
                position="IN",
            ),
            Option(
                name="out",
                label="Output",
                help="The result: a .tif file (ImageJ TIFF), an .ome.tif file, or a folder.",
                kind=Kind.FILE,
                required=True,
                position="OUT",
            ),
            Option(
                name="model",
                label="Model",
                help="The model: a name from `nrrn models list`, or a .safetensors file.",
                kind=Kind.MODEL,
                default=DEFAULT_MODEL,
                spelling=("-m", "--model"),
            ),
            Option(
                name="slices",
                label="Slices",
                help="Denoise only the slices A to B - 1, counted from 0. Their neighbours outside "
                "of the range are still looked at.",
                kind=Kind.SLICES,
            ),
            Option(
                name="noise_out",
                label="Noise output",
                help="Also write what was taken away: input - output, float32.",
                kind=Kind.FILE,
                spelling=("--noise",),
            ),
            Option(
                name="units_out",
                label="Units output",
                help="Also write the image after every building unit, float32.",
                kind=Kind.FILE,
            ),
            Option(
                name="z_axis",
                label="Slices lie along",
                help="The axis that holds the slices of a stack that was saved as time points (T) "
                "or channels (C); as the file says when left out.",
                kind=Kind.TEXT,
                choices=("Z", "T", "C"),
            ),
            OVERWRITE,
            RESTART,
        ),
    ),
    Command(
        name="train",
        title="Train on this stack",
        summary="Train a model on noisy stacks alone, or on clean stacks with synthetic noise.",
        description="A loss curve and a denoised sample lie beside the model while it trains. "
        "Ctrl-C keeps the best model so far, and --resume goes on from there.",
        examples=(
            "nrrn train noisy.tif -o mine.safetensors --minutes 20",
            "nrrn train scans.tif --scans -o mine.safetensors --steps 20000",
            "nrrn train clean1.tif clean2.tif -o mine.safetensors --poisson 1,50 --gaussian 10,75",
            f"nrrn train noisy.tif -o mine.safetensors --fine-tune {DEFAULT_MODEL} --minutes 5",
        ),
        function="nrrn_fiji.train_job:train_files",
        settings=TrainSettings,
        counts="steps",
        clock="minutes",
        options=(
            Option(
                name="stacks",
                label="Stacks",
                help="The stacks to train on: files, folders or quoted patterns.",
                kind=Kind.IMAGE,
                required=True,
                many=True,
                position="STACK",
            ),
            Option(
                name="out",
                label="Model file",
                help="The model file to write, ending in .safetensors.",
                kind=Kind.FILE,
                required=True,
                spelling=("-o", "--out"),
            ),
            Option(
                name="fine_tune",
                label="Fine-tune",
                help="Begin with the weights of this model: a name or a .safetensors file.",
                kind=Kind.MODEL,
            ),
            Option(
                name="resume",
                label="Resume",
                help="Go on with the interrupted training of this output.",
                kind=Kind.FLAG,
                default=False,
            ),
            OVERWRITE,
            Option(
                name="description",
                label="Description",
                help="A sentence for the model's card: what it is for.",
                kind=Kind.TEXT,
                default="",
                expert=True,
            ),
            Option(
                name="licence",
                label="Licence",
                help="Under which licence others may use the model, for its card.",
                kind=Kind.TEXT,
                default="",
                expert=True,
            ),
        ),
    ),
    Command(
        name="add-noise",
        title="Add noise",
        summary="Add synthetic Poisson or Gaussian noise to a stack, to test or to train on.",
        examples=(
            "nrrn add-noise clean.tif noisy.tif --gaussian 25",
            "nrrn add-noise clean.tif noisy.tif --poisson 8 --clipped --seed 1",
        ),
        function="nrrn_fiji.noise_job:add_noise_file",
        settings=NoiseSettings,
        counts="slices",
        options=(
            Option(
                name="source",
                label="Input",
                help="The stack: a file, a folder of single-slice images, or a quoted pattern.",
                kind=Kind.IMAGE,
                required=True,
                position="IN",
            ),
            Option(
                name="out",
                label="Output",
                help="The result: a .tif file (ImageJ TIFF), an .ome.tif file, or a folder.",
                kind=Kind.FILE,
                required=True,
                position="OUT",
            ),
            OVERWRITE,
            RESTART,
        ),
    ),
    Command(
        name="models list",
        title="List models",
        summary="List the models that can be used by name.",
        examples=("nrrn models list",),
        function="nrrn_fiji.catalogue:list_models",
    ),
    Command(
        name="models show",
        title="Show model",
        summary="Show what a model is, how it was trained, and how well it does.",
        examples=(f"nrrn models show {DEFAULT_MODEL}", "nrrn models show mine.safetensors --json"),
        function="nrrn_fiji.catalogue:show_model",
        options=(MODEL_NAME,),
    ),
    Command(
        name="models import",
        title="Import model",
        summary="Put a model file into your model folder, where it is found by its name.",
        description="Takes a .safetensors model, or a checkpoint (.pth) as the authors of the "
        "method publish them, which is converted. Checkpoints are read without running any code "
        "in them.",
        examples=(
            "nrrn models import mine.safetensors",
            "nrrn models import checkpoint.pth --name published-4-units",
        ),
        function="nrrn_fiji.catalogue:import_model",
        options=(
            Option(
                name="path",
                label="File",
                help="The .safetensors or .pth file.",
                kind=Kind.FILE,
                required=True,
                position="FILE",
            ),
            Option(
                name="name",
                label="Name",
                help="The name to give it; the file's name when left out.",
                kind=Kind.TEXT,
            ),
            dataclasses.replace(OVERWRITE, help="Replace an installed model of the same name."),
        ),
    ),
    Command(
        name="models remove",
        title="Remove model",
        summary="Delete a model from your model folder.",
        examples=("nrrn models remove mine",),
        function="nrrn_fiji.catalogue:remove_installed",
        options=(
            dataclasses.replace(
                MODEL_NAME, help="The model's name. Shipped models cannot be removed."
            ),
        ),
    ),
    Command(
        name="study table2",
        title="Table 2 of the paper",
        summary="Score a model and the usual filters at eight levels of synthetic noise.",
        description="PSNR and SSIM at Poisson peak 1, 4, 8, 30 and Gaussian sigma 10, 25, 35, 75, "
        "on slices 10, 20, ... 110 of a clean volume. The filters are tuned for each level on "
        "another volume, which must be one that no training saw.",
        examples=(
            "nrrn study table2 clean.tif --tuning other.tif -m mine.safetensors -o results/",
            "nrrn study table2 clean.tif --tuning other.tif -o results/",
        ),
        function="nrrn_fiji.study:table2_files",
        counts="steps",
        options=(
            Option(
                name="volume",
                label="Clean volume",
                help="The clean stack that is scored.",
                kind=Kind.IMAGE,
                required=True,
                position="VOLUME",
            ),
            Option(
                name="tuning",
                label="Tuning volume",
                help="Another clean stack, on which the filters are tuned.",
                kind=Kind.IMAGE,
                required=True,
            ),
            Option(
                name="model",
                label="Model",
                help="The model: a name or a .safetensors file; filters alone when left out.",
                kind=Kind.MODEL,
                spelling=("-m", "--model"),
            ),
            Option(
                name="out",
                label="Results folder",
                help="The folder for the table, plots and pictures.",
                kind=Kind.FILE,
                required=True,
                spelling=("-o", "--out"),
            ),
            Option(
                name="all_images",
                label="1, 2 and 3 images",
                help="Also score the model with 1 and 2 images per slice.",
                kind=Kind.FLAG,
                default=False,
            ),
            Option(
                name="write_card",
                label="Write into the card",
                help="Also put the table into the card of the model's file.",
                kind=Kind.FLAG,
                default=False,
            ),
            Option(
                name="seed",
                label="Seed",
                help="Seed of the synthetic noise.",
                kind=Kind.INTEGER,
                default=0,
            ),
            Option(name="device", label="Device", help=DEVICE_HELP, kind=Kind.TEXT),
        ),
    ),
    Command(
        name="fiji",
        title="Open Fiji",
        summary="Open Fiji with NRRN in its menu: Plugins > NRRN.",
        description="Nothing is downloaded and nothing in the Fiji folder is changed, unless you "
        "ask for --install. The command ends when you quit Fiji.",
        examples=(
            "nrrn fiji",
            "nrrn fiji --fiji ~/Fiji.app",
            "nrrn fiji --imagej",
            "nrrn fiji --install --fiji ~/Fiji.app",
        ),
        function="nrrn_fiji.fiji.window:open_fiji",
        options=(
            FIJI,
            IMAGEJ,
            MEMORY,
            Option(
                name="install",
                label="Install",
                help="Copy the NRRN scripts and macros that this Fiji can run into its folder, say "
                "which, and open nothing.",
                kind=Kind.FLAG,
                default=False,
            ),
            Option(
                name="uninstall",
                label="Uninstall",
                help="Take out of the Fiji folder what --install put there, and nothing else.",
                kind=Kind.FLAG,
                default=False,
            ),
        ),
    ),
    Command(
        name="macro",
        title="Run a macro",
        summary="Run an ImageJ macro without a screen, with the NRRN commands in it.",
        description="What the macro prints is shown. The exit code is 0 only if the macro came to "
        "its end without an error.",
        examples=(
            "nrrn macro batch.ijm",
            "nrrn macro Denoise_Folder.ijm 'in=stacks out=denoised model=fibsem-medulla'",
            "nrrn macro batch.ijm stacks/ --imagej",
        ),
        function="nrrn_fiji.fiji.app:macro_file",
        options=(
            Option(
                name="path",
                label="Macro",
                help="The macro: an .ijm file, or the name of one that came with nrrn-fiji "
                "(Denoise_Folder.ijm, Train_Model.ijm).",
                kind=Kind.FILE,
                required=True,
                position="FILE",
            ),
            Option(
                name="argument",
                label="Argument",
                help="What getArgument() gives in the macro; empty when left out.",
                kind=Kind.TEXT,
                position="[ARG]",
            ),
            FIJI,
            IMAGEJ,
            MEMORY,
        ),
    ),
    Command(
        name="doctor",
        title="Check this installation",
        summary="Say what was found on this computer, and what to do about each problem.",
        description="Looks at Python, torch, devices, Java, Fiji, ImageJ and models; changes "
        "and downloads nothing. The exit code is 1 if stacks cannot be denoised here.",
        examples=("nrrn doctor", "nrrn doctor --fiji ~/Fiji.app"),
        function="nrrn_fiji.doctor:examine",
        options=(FIJI,),
    ),
)
"""Every command, in the order of the help."""
