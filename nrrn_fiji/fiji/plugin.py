"""The commands as ImageJ plugins: menu entries, macro names and errors as ImageJ has them.

ImageJ runs plugins that are Java classes.  One small class, made when ImageJ runs, hands what it
is asked for to Python; the commands, their options and their help come from the command table.
Macros, the Recorder and batch mode then behave as with any plugin.

This module must never let a Python error reach a user as a traceback (that of a fault of ours goes
into the Log, to be reported), never leave an image locked, and never open a dialog in a macro that
gives options.

Sources: ``ij.plugin.PlugIn``, ``ij.Macro`` and ``ij.Menus`` of ImageJ 1.54p.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..progress import Cancelled
from . import java
from .entry import Entry, Host, message_of
from .jvm import ImageJ
from .macro_options import parse_macro_options
from .texts import DIALOG_LETTERS, SEE_THE_LOG, in_lines

__all__ = ["Plugin", "add_menu", "add_to_search", "adopt", "install"]

CLASS = "nrrn.Bridge"
MENU = "NRRN"


class Plugin(Host):
    """The commands, installed into an ImageJ."""

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
                entry.window(self, entry)
                return
            asks = bool(entry.options) and not self.without_dialogs(options)
            imp = self.current_image() if asks and entry.needs_image else None
            values = self.ask(entry, imp) if asks else self.given(entry, options)
            if values is None:
                return
            if entry.check is not None:
                entry.check(values)
            with self.at(imp):
                entry.run(self, values)

    @contextmanager
    def errors_told(self, title: str) -> Iterator[None]:
        """Tell the user what went wrong inside, in a sentence; a macro ends there."""
        self.error = None
        try:
            yield
        except Exception as error:
            self.error = error
            if isinstance(error, Cancelled) and not self.in_macro:
                java.JClass("ij.IJ").showStatus(f"{title}: stopped")
                return
            # Inside a macro this aborts it, by an exception that goes on through here.
            said = message_of(error)
            if said.endswith(SEE_THE_LOG):
                java.JClass("ij.IJ").log("".join(traceback.format_exception(error)))
            if not self.app.headless:
                said = in_lines(said, DIALOG_LETTERS)
            java.JClass("ij.IJ").error(title, said)

    def given(self, entry: Entry, options: str | None) -> dict[str, Any]:
        """Return the values that a macro gives for a command; none stand for the defaults."""
        if options is not None and options.strip():
            return parse_macro_options(options, entry.options, entry.command)
        return {}

    def ask(self, entry: Entry, imp: Any) -> dict[str, Any] | None:
        """Return the values that a user gives in a dialog; None if it was closed."""
        from .dialogs import show_dialog

        return show_dialog(entry, imp)

    @contextmanager
    def at(self, imp: Any) -> Iterator[None]:
        """Let the image that a dialog was for be the current one, whichever window is active now.

        When a dialog closes, the screen decides which window is active next.
        """
        windows = java.JClass("ij.WindowManager")
        if imp is not None:
            windows.setTempCurrentImage(imp)  # for this thread of Java alone
        try:
            yield
        finally:
            if imp is not None:
                windows.setTempCurrentImage(None)


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
