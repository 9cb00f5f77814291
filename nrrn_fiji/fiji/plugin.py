"""The commands as ImageJ plugins: menu names, dialogs, macro options and errors as ImageJ has them.

ImageJ runs plugins that are Java classes.  One small class, made when ImageJ runs, hands what it
is asked for to Python; the commands, their options and their help come from the command table.
Macros, the Recorder and batch mode then behave as with any plugin.

This module must never let a Python error reach a user as a traceback, never leave an image locked,
and never open a dialog in a macro that gives options.

Sources: ``ij.plugin.PlugIn``, ``ij.Macro`` and ``ij.gui.GenericDialog`` of ImageJ 1.54p.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jpype

from ..commands import Command, Kind, Option, find_command
from ..console import sentence
from ..models import known_models
from ..progress import Cancelled
from .jvm import ImageJ

__all__ = ["Entry", "Plugin", "add_menu", "install", "parse_macro_options"]

CLASS = "nrrn.Bridge"
MENU = "NRRN"
CHOSEN = "auto"  # in a list of choices: chosen for you
# One word of a macro's options: a key, and what follows it.
WORD = re.compile(
    r"""\s*(\w+)(=(?:\[((?:[^\[\]]|\[[^\[\]]*\])*)\]|'([^']*)'|([^\s\[']\S*)?))?(?=\s|$)"""
)
IMAGEJ_SLICES = re.compile(r"\s*(\d+)\s*-\s*(\d+)\s*")
SECONDS_BETWEEN_UPDATES = 0.1
# What a run into files needs and a run on the open image does not.
FILE_OPTIONS = {"source", "out", "noise_out", "units_out", "overwrite", "restart"}


@dataclass(frozen=True)
class Entry:
    """A command as ImageJ shows it."""

    label: str
    """In the menu, and in ``run("…")``."""
    key: str
    """What the Java class passes on."""
    command: Command
    extra: tuple[Option, ...]
    """Options beside those of the command that make sense for an open image."""
    run: Callable[[Plugin, dict[str, Any]], None]

    @property
    def options(self) -> tuple[Option, ...]:
        """What a macro can give; a dialog asks for those that are not for experts."""
        kept = (option for option in self.command.all_options() if option.name not in FILE_OPTIONS)
        return (*kept, *self.extra)


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
    interpreter = jpype.JClass("ij.macro.Interpreter").getInstance()
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
    if not text or (text == CHOSEN and option.default is None):
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


class ImageJProgress:
    """A job's progress in ImageJ: bar, status text, Esc, and Fiji's window of tasks."""

    def __init__(self, app: ImageJ, title: str):
        self._ij = jpype.JClass("ij.IJ")
        self._ij.resetEscape()
        self._title = title
        self._task: Any = None
        if app.gateway is not None:
            service = app.context.getService(jpype.JClass("org.scijava.task.TaskService"))
            self._task = service.createTask(title)
            self._task.start()
        self._started = time.monotonic()
        self._shown = 0.0

    def update(self, done: float, total: float, text: str = "") -> None:
        """Show how far the job is, at most ten times a second."""
        now = time.monotonic()
        if now - self._shown < SECONDS_BETWEEN_UPDATES and done < total:
            return
        self._shown = now
        remaining = ""
        if 0 < done < total:
            seconds = (now - self._started) * (total - done) / done
            remaining = f", {seconds:.0f} s left"
        status = f"{self._title}: {done:.0f}/{total:.0f}{remaining}{' ' if text else ''}{text}"
        self._ij.showStatus(status)
        self._ij.showProgress(min(done / total, 1.0) if total else 1.0)
        if self._task is not None:
            self._task.setStatusMessage(status)
            self._task.setProgressMaximum(int(total))
            self._task.setProgressValue(int(done))

    def message(self, text: str) -> None:
        """Write a sentence into ImageJ's log."""
        self._ij.log(f"{self._title}: {text}")

    @property
    def cancelled(self) -> bool:
        """Whether Esc was pressed, or the task's red X."""
        if self._ij.escapePressed():
            return True
        return self._task is not None and bool(self._task.isCanceled())

    def close(self) -> None:
        """Take the bar and the task away."""
        self._ij.showProgress(1.0)
        if self._task is not None:
            self._task.finish()


class Plugin:
    """The commands, installed into an ImageJ."""

    def __init__(self, app: ImageJ, entries: Sequence[Entry]):
        self.app = app
        self.entries = {entry.key: entry for entry in entries}
        self.error: BaseException | None = None
        """What the last command failed with, or None."""

    def handle(self, key: str, options: str | None) -> None:
        """Run a command for ImageJ; its Java thread waits.

        Parameters
        ----------
        key
            Which command.
        options
            The macro's options; None if there are none.
        """
        entry = self.entries[key]
        self.error = None
        try:
            values = self.ask(entry, options)
            if values is not None:
                entry.command.make_settings(values)
                entry.run(self, values)
        except Exception as error:
            self.error = error
            if (
                isinstance(error, Cancelled)
                and jpype.JClass("ij.macro.Interpreter").getInstance() is None
            ):
                jpype.JClass("ij.IJ").showStatus(f"{entry.label.rstrip('.')}: stopped")
                return
            # Inside a macro this aborts it, by an exception that goes on through here.
            jpype.JClass("ij.IJ").error(entry.label.rstrip("."), message_of(error))

    def ask(self, entry: Entry, options: str | None) -> dict[str, Any] | None:
        """Return the values for a command: from a macro, from a dialog, or its defaults.

        None says that the user closed the dialog.
        """
        if options is not None and options.strip():
            return parse_macro_options(options, entry.options, entry.label)
        batch = jpype.JClass("ij.macro.Interpreter").isBatchMode()
        if self.app.headless or batch:
            return {}
        return show_dialog(entry)

    def current_image(self) -> Any:
        """Return the image that a command works on: the macro's, or the front window's.

        Raises
        ------
        ValueError
            If there is none.
        """
        imp = jpype.JClass("ij.WindowManager").getCurrentImage()
        if imp is None:
            raise ValueError("No image is open: open a stack first.")
        return imp


def message_of(error: BaseException) -> str:
    """Return the sentence that a user reads, whichever side the error came from."""
    if isinstance(error, jpype.JException):
        if isinstance(error, jpype.JClass("java.lang.OutOfMemoryError")):
            return "Java's memory is full: close images, or give Java more memory (--memory)."
        return f"{error.message() or error}"
    return sentence(error)


# --- dialogs -----------------------------------------------------------------------------------


def label_of(option: Option) -> str:
    """Return the label of an option: ImageJ takes the first word for the macro key."""
    name = option.name[0].upper() + option.name[1:]
    if option.label.lower() == option.name.lower():
        return name
    return f"{name} ({option.label.lower()}{', ' + option.unit if option.unit else ''})"


def choices_of(option: Option) -> list[str] | None:
    """Return what a list offers, or None if the option is typed in."""
    if option.kind is Kind.MODEL:
        return [entry.name for entry in known_models()]
    if option.choices is None:
        return None
    first = [CHOSEN] if option.default is None else []
    return first + [str(choice) for choice in option.choices]


def show_dialog(entry: Entry) -> dict[str, Any] | None:
    """Ask the user with ImageJ's own dialog, which also tells the Recorder.

    Returns
    -------
    dict or None
        Values by option name; None if the user closed the dialog.

    Raises
    ------
    ValueError
        If a value is not understood.
    """
    dialog = jpype.JClass("ij.gui.GenericDialog")(entry.label.rstrip("."))
    asked = [option for option in entry.options if not option.expert]
    for option in asked:
        choices = choices_of(option)
        if option.kind is Kind.FLAG:
            dialog.addCheckbox(label_of(option), bool(option.default))
        elif choices:
            default = CHOSEN if option.default is None else str(option.default)
            dialog.addChoice(
                label_of(option), choices, default if default in choices else choices[0]
            )
        else:
            text = "" if option.default is None else str(option.default)
            dialog.addStringField(label_of(option), text, 12)
    rows = (f"<p><b>{label_of(option)}</b><br>{option.help}</p>" for option in asked)
    dialog.addHelp(f"<html><h3>{entry.command.summary}</h3>{''.join(rows)}</html>")
    dialog.showDialog()
    if dialog.wasCanceled():
        return None
    values: dict[str, Any] = {}
    for option in asked:
        if option.kind is Kind.FLAG:
            value = bool(dialog.getNextBoolean())
        elif choices_of(option):
            value = parse_value(option, str(dialog.getNextChoice()))
        else:
            value = parse_value(option, str(dialog.getNextString()))
        if value is not None:
            values[option.name] = value
    return values


# --- commands ----------------------------------------------------------------------------------


def denoise(plugin: Plugin, values: dict[str, Any]) -> None:
    """Denoise the open image into a new window."""
    from .jobs import denoise_image

    imp = plugin.current_image()
    if not imp.lockSilently():
        raise ValueError(
            f"The image {str(imp.getTitle())!r} is in use by another command: wait until that has "
            "ended."
        )
    progress = ImageJProgress(plugin.app, "Denoise")
    begun = time.monotonic()
    try:
        command = find_command("denoise")
        made = denoise_image(
            imp,
            values.get("model", default_of(command, "model")),
            command.make_settings(values),
            slices=values.get("slices"),
            noise=values.get("noise", False),
            z_axis=values.get("z_axis"),
            progress=progress,
        )
    finally:
        progress.close()
        imp.unlock()
    for result in (made.noise, made.image):  # the image last: it is then the active one
        if result is not None:
            result.setTitle(unused_title(str(result.getTitle())))
            result.show()
    seconds = time.monotonic() - begun
    jpype.JClass("ij.IJ").showStatus(f"Denoised {made.slices} slices in {seconds:.1f} s")


def unused_title(title: str) -> str:
    """Return a title that no open image has: "a.tif", "a-1.tif", "a-2.tif", …"""
    taken = {str(name) for name in jpype.JClass("ij.WindowManager").getImageTitles()}
    stem, dot, suffix = title.rpartition(".")
    number, fresh = 0, title
    while fresh in taken:
        number += 1
        fresh = f"{stem}-{number}.{suffix}" if dot and stem else f"{title}-{number}"
    return fresh


def default_of(command: Command, name: str) -> Any:
    """Return the default of an option."""
    return next(option.default for option in command.options if option.name == name)


def entries() -> tuple[Entry, ...]:
    """Return every command that works on an image open in ImageJ."""
    return (
        Entry(
            label="Denoise Stack...",
            key="denoise",
            command=find_command("denoise"),
            extra=(
                Option(
                    name="noise",
                    label="Show removed noise",
                    help="Also show what was taken away: input - output, 32-bit.",
                    kind=Kind.FLAG,
                    default=False,
                ),
            ),
            run=denoise,
        ),
    )


# --- the Java side -----------------------------------------------------------------------------

_plugin: Plugin | None = None
_handler: Any = None  # kept alive for Java


def install(app: ImageJ) -> Plugin:
    """Make the commands known to an ImageJ; once is enough, twice does no harm.

    Afterwards ``run("Denoise Stack...", "…")`` works in macros.
    """
    global _plugin, _handler
    if _plugin is not None:
        return _plugin
    plugin = Plugin(app, entries())

    def apply(key: Any, options: Any) -> None:
        plugin.handle(str(key), None if options is None else str(options))

    _handler = jpype.JProxy("java.util.function.BiFunction", {"apply": apply})
    _bridge_class().handler = _handler
    commands = _menu_commands()
    for entry in plugin.entries.values():
        commands.put(entry.label, f'{CLASS}("{entry.key}")')
    _plugin = plugin
    return plugin


def _menu_commands() -> Any:
    """Return ImageJ's table of commands, which it makes when it first runs one."""
    menus = jpype.JClass("ij.Menus")
    if menus.getCommands() is None:
        # What IJ.run does first of all; running any command for it could change a setting.
        fill = jpype.JClass("ij.IJ").class_.getDeclaredMethod("init")
        fill.setAccessible(True)
        fill.invoke(None)
    return menus.getCommands()


def add_menu(plugin: Plugin, window: Any) -> None:
    """Add the commands to the menu Plugins of a shown ImageJ; twice does no harm.

    Parameters
    ----------
    window
        The ``ij.ImageJ``, which runs what its menus name.
    """
    bar = jpype.JClass("ij.Menus").getMenuBar()
    menus = [bar.getMenu(number) for number in range(bar.getMenuCount())]
    plugins = next(menu for menu in menus if menu.getLabel() == "Plugins")
    labels = [str(plugins.getItem(number).getLabel()) for number in range(plugins.getItemCount())]
    if MENU in labels:
        return
    ours = jpype.JClass("java.awt.Menu")(MENU)
    for entry in plugin.entries.values():
        item = jpype.JClass("java.awt.MenuItem")(entry.label)
        item.addActionListener(window)
        ours.add(item)
    plugins.add(ours)


def _bridge_class() -> Any:
    """Make the Java class that ImageJ runs, beside ImageJ's own classes."""
    pool = jpype.JClass("javassist.ClassPool")(True)
    beside = jpype.JClass("ij.IJ").class_
    pool.appendClassPath(jpype.JClass("javassist.ClassClassPath")(beside))
    made = pool.makeClass(CLASS)
    made.addInterface(pool.get("ij.plugin.PlugIn"))
    field = jpype.JClass("javassist.CtField")
    made.addField(field.make("public static java.util.function.BiFunction handler;", made))
    method = jpype.JClass("javassist.CtNewMethod")
    made.addMethod(
        method.make(
            "public void run(String key) { handler.apply(key, ij.Macro.getOptions()); }", made
        )
    )
    loader = beside.getClassLoader()
    made.toClass(loader, beside.getProtectionDomain())
    return jpype.JClass(CLASS, loader=loader)
