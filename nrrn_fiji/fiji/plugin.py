"""The commands as ImageJ plugins: menu entries, macro names and errors as ImageJ has them.

ImageJ runs plugins that are Java classes.  One small class, made when ImageJ runs, hands what it
is asked for to Python; the commands, their options and their help come from the command table.
Macros, the Recorder and batch mode then behave as with any plugin.

This module must never let a Python error reach a user as a traceback, never leave an image locked,
and never open a dialog in a macro that gives options.

Sources: ``ij.plugin.PlugIn``, ``ij.Macro`` and ``ij.Menus`` of ImageJ 1.54p.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..commands import Command, Option
from ..progress import Cancelled
from ..terminal.console import sentence
from . import java
from .jvm import ImageJ
from .macro_options import parse_macro_options
from .tasks import ImageJProgress

__all__ = [
    "Entry",
    "Plugin",
    "add_menu",
    "add_to_search",
    "adopt",
    "install",
    "message_of",
    "options_of",
    "unused_title",
]

CLASS = "nrrn.Bridge"
MENU = "NRRN"


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
    run: Callable[[Plugin, dict[str, Any]], None]
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
    window: Callable[[Plugin], None] | None = None
    """Takes the place of dialog and run where there is a screen and no options."""

    @property
    def command(self) -> str:
        """What ``run("…")`` calls it."""
        return self.name or self.label


def options_of(command: Command, *left_out: str) -> tuple[Option, ...]:
    """Return the options of a command but those that make no sense for an open image."""
    return tuple(option for option in command.all_options() if option.name not in left_out)


class Plugin:
    """The commands, installed into an ImageJ."""

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
        with self.errors_told(entry.label.rstrip(".")):
            if entry.window is not None and not self.without_dialogs(options):
                entry.window(self)
                return
            values = self.ask(entry, options)
            if values is not None:
                if entry.check is not None:
                    entry.check(values)
                entry.run(self, values)

    @contextmanager
    def errors_told(self, title: str) -> Iterator[None]:
        """Tell the user what went wrong inside, in a sentence; a macro ends there."""
        self.error = None
        try:
            yield
        except Exception as error:
            self.error = error
            if (
                isinstance(error, Cancelled)
                and java.JClass("ij.macro.Interpreter").getInstance() is None
            ):
                java.JClass("ij.IJ").showStatus(f"{title}: stopped")
                return
            # Inside a macro this aborts it, by an exception that goes on through here.
            java.JClass("ij.IJ").error(title, message_of(error))

    def without_dialogs(self, options: str | None) -> bool:
        """Whether a command must not ask: it has options, or there is nobody to answer."""
        given = options is not None and bool(options.strip())
        batch = bool(java.JClass("ij.macro.Interpreter").isBatchMode())
        return given or self.app.headless or batch

    def ask(self, entry: Entry, options: str | None) -> dict[str, Any] | None:
        """Return the values for a command: from a macro, from a dialog, or its defaults.

        None says that the user closed the dialog.
        """
        if options is not None and options.strip():
            return parse_macro_options(options, entry.options, entry.command)
        if self.without_dialogs(options) or not entry.options:
            return {}
        from .dialogs import show_dialog

        return show_dialog(entry, self.current_image() if entry.needs_image else None)

    def current_image(self) -> Any:
        """Return the image that a command works on: the macro's, or the front window's.

        Raises
        ------
        ValueError
            If there is none.
        """
        imp = java.JClass("ij.WindowManager").getCurrentImage()
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
        windows = java.JClass("ij.WindowManager")
        images = [windows.getImage(int(number)) for number in windows.getIDList() or ()]
        for imp in images:
            if imp is not None and str(imp.getTitle()) == title:
                return imp
        titles = ", ".join(str(imp.getTitle()) for imp in images if imp is not None)
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
        progress = ImageJProgress(self.app, title, counts=counts)
        try:
            yield progress
        finally:
            progress.close()
            imp.unlock()


def message_of(error: BaseException) -> str:
    """Return the sentence that a user reads, whichever side the error came from."""
    if isinstance(error, java.JException):
        if isinstance(error, java.JClass("java.lang.OutOfMemoryError")):
            return "Java's memory is full: close images, or give Java more memory (--memory)."
        return f"{error.message() or error}"
    return sentence(error)


def unused_title(title: str) -> str:
    """Return a title that no open image has: "a.tif", "a-1.tif", "a-2.tif", …"""
    taken = {str(name) for name in java.JClass("ij.WindowManager").getImageTitles()}
    stem, dot, suffix = title.rpartition(".")
    number, fresh = 0, title
    while fresh in taken:
        number += 1
        fresh = f"{stem}-{number}.{suffix}" if dot and stem else f"{title}-{number}"
    return fresh


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
    from .entries import entries

    plugin = Plugin(app, entries())

    def apply(key: Any, options: Any) -> None:
        plugin.handle(str(key), None if options is None else str(options))

    _handler = java.JProxy("java.util.function.BiFunction", {"apply": apply})
    _bridge_class().handler = _handler
    commands = _menu_commands()
    for entry in plugin.entries.values():
        commands.put(entry.command, f'{CLASS}("{entry.key}")')
    _plugin = plugin
    return plugin


def adopt(app: Any) -> Plugin:
    """Return the commands for an ImageJ that has classes of its own to call them; always the same.

    Parameters
    ----------
    app
        What :class:`~nrrn_fiji.fiji.jvm.ImageJ` says of ImageJ.
    """
    global _plugin
    if _plugin is None:
        from .entries import entries

        _plugin = Plugin(app, entries())
    return _plugin


def _menu_commands() -> Any:
    """Return ImageJ's table of commands, which it makes when it first runs one."""
    menus = java.JClass("ij.Menus")
    if menus.getCommands() is None:
        # What IJ.run does first of all; running any command for it could change a setting.
        fill = java.JClass("ij.IJ").class_.getDeclaredMethod("init")
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
    bar = java.JClass("ij.Menus").getMenuBar()
    menus = [bar.getMenu(number) for number in range(bar.getMenuCount())]
    plugins = next(menu for menu in menus if menu.getLabel() == "Plugins")
    labels = [str(plugins.getItem(number).getLabel()) for number in range(plugins.getItemCount())]
    if MENU in labels:
        return
    ours = java.JClass("java.awt.Menu")(MENU)
    for entry in plugin.entries.values():
        if not entry.in_menu:
            continue
        item = java.JClass("java.awt.MenuItem")(entry.label)
        item.setActionCommand(entry.command)
        item.addActionListener(window)
        ours.add(item)
    plugins.add(ours)


def add_to_search(plugin: Plugin) -> None:
    """Let the search field of a shown Fiji find the commands of the menu; once is enough.

    The search knows the commands that Fiji found when it started.  These are described as the
    plugins among them are, of which Fiji makes no second entry in a menu.
    """
    path = java.JClass("org.scijava.MenuPath")
    info = java.JClass("net.imagej.legacy.command.LegacyCommandInfo")
    loader = java.JClass("ij.IJ").class_.getClassLoader()
    found = java.JClass("java.util.ArrayList")()
    for entry in plugin.entries.values():
        if entry.in_menu:
            found.add(info(path(f"Plugins>{MENU}>{entry.label}"), CLASS, entry.key, loader))
    service = java.JClass("org.scijava.plugin.PluginService")
    plugin.app.context.getService(service).addPlugins(found)


def _bridge_class() -> Any:
    """Make the Java class that ImageJ runs, beside ImageJ's own classes."""
    pool = java.JClass("javassist.ClassPool")(True)
    beside = java.JClass("ij.IJ").class_
    pool.appendClassPath(java.JClass("javassist.ClassClassPath")(beside))
    made = pool.makeClass(CLASS)
    made.addInterface(pool.get("ij.plugin.PlugIn"))
    field = java.JClass("javassist.CtField")
    made.addField(field.make("public static java.util.function.BiFunction handler;", made))
    method = java.JClass("javassist.CtNewMethod")
    made.addMethod(
        method.make(
            "public void run(String key) { handler.apply(key, ij.Macro.getOptions()); }", made
        )
    )
    loader = beside.getClassLoader()
    made.toClass(loader, beside.getProtectionDomain())
    return java.JClass(CLASS, loader=loader)
