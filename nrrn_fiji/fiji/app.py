"""NRRN in an ImageJ that runs: for a user's own gateway, and for macros without a screen.

A macro that fails must fail the program: ImageJ itself prints the error and goes on as if nothing
had happened.  This module must never exit the process and never swallow what a macro says.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from ..models import DEFAULT_MODEL, Model
from ..reports import Report
from ..settings import DenoiseSettings
from . import java
from .batch import install_batch
from .jobs import denoise_image
from .jvm import ImageJ, adopt, start
from .macros import run_text
from .ops import register_ops
from .plugin import MENU, Plugin, add_menu, add_to_search, install
from .scripts import our_macro

__all__ = [
    "denoise",
    "macro_file",
    "register",
    "run_macro",
    "show",
    "wait_until_quit",
]


SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_TO_STOP = 10.0
WAITING = threading.Event()
"""Set once ImageJ is shown and everything is in it."""


def register(ij: Any) -> ImageJ:
    """Add the NRRN commands to a PyImageJ gateway, however it was started.

    Parameters
    ----------
    ij
        What ``imagej.init()`` returned.

    Returns
    -------
    ImageJ
        For :func:`run_macro`.
    """
    app = adopt(ij)
    install_all(app)
    return app


def install_all(app: ImageJ) -> None:
    """Add to a running ImageJ everything that it can take: commands, the batch call, ops."""
    install(app)
    install_batch(app)
    if app.gateway is not None:
        register_ops(app.gateway)


def denoise(ij: Any, image: Any, model: str | Path | Model = DEFAULT_MODEL, **settings: Any) -> Any:
    """Denoise an image of ImageJ, ImageJ2 or PyImageJ and return a new one of the same kind.

    Parameters
    ----------
    ij
        PyImageJ's gateway.
    image
        ``ij.ImagePlus``, ``net.imagej.Dataset``, ``net.imagej.ImgPlus``, or an
        ``xarray.DataArray`` as ``ij.py.from_java`` gives.
    model
        A name, a file, or a loaded model.
    **settings
        Fields of :class:`nrrn_fiji.DenoiseSettings`.

    Raises
    ------
    TypeError, ValueError
        If the image or a setting cannot be used.
    """
    adopt(ij)
    return denoise_image(image, model, DenoiseSettings(**settings)).image


def show(app: ImageJ) -> None:
    """Open ImageJ's window with the menu Plugins > NRRN.

    Call it on the main thread: Swing fails on a thread that Java did not start.  Quitting ImageJ
    then leaves Python running (ImageJ's own way ends the process on the spot).
    """
    if app.gateway is not None:
        app.gateway.ui().showUI()
    else:
        java.JClass("ij.ImageJ")()
    window = java.JClass("ij.IJ").getInstance()
    window.exitWhenQuitting(False)
    install_all(app)
    items = take_out_menu()
    add_menu(install(app), window)
    put_into_menu(items, install(app))
    if app.gateway is not None:
        add_to_search(install(app))


def our_menu() -> tuple[Any, Any]:
    """Return the menu Plugins and, if there is one, the menu NRRN in it."""
    bar = java.JClass("ij.Menus").getMenuBar()
    menus = [bar.getMenu(number) for number in range(bar.getMenuCount())]
    plugins = next(menu for menu in menus if menu.getLabel() == "Plugins")
    items = [plugins.getItem(number) for number in range(plugins.getItemCount())]
    return plugins, next((item for item in items if item.getLabel() == MENU), None)


def take_out_menu() -> list[Any]:
    """Take out the menu that Fiji made for what is installed, and return what was in it."""
    plugins, found = our_menu()
    if found is None:
        return []
    items = [found.getItem(number) for number in range(found.getItemCount())]
    plugins.remove(found)
    return items


def put_into_menu(items: Sequence[Any], plugin: Plugin) -> None:
    """Put installed macros back behind the commands; none that a command already is."""
    _, ours = our_menu()
    commands = {entry.command.rstrip(".") for entry in plugin.entries.values()}
    for item in items:
        if str(item.getLabel()).rstrip(".") not in commands:  # labels of scripts have no dots
            ours.add(item)


def wait_until_quit() -> None:
    """Return when the user has quit ImageJ.

    Ctrl-C is taken as quitting, so that ImageJ asks about images that are not saved.
    """
    imagej = java.JClass("ij.IJ")
    while True:
        try:
            WAITING.set()
            while imagej.getInstance() is not None:
                time.sleep(SECONDS_BETWEEN_LOOKS)
            return
        except KeyboardInterrupt:
            imagej.getInstance().quit()


def run_macro(app: ImageJ, text: str, argument: str = "", *, quiet: bool = False) -> str | None:
    """Run an ImageJ macro in batch mode and return what it returns.

    Parameters
    ----------
    app
        The ImageJ that runs.
    text
        The macro.
    argument
        What its ``getArgument()`` gives.
    quiet
        Show no dialog about an error, even where there is a screen; ImageJ then does not tell
        the line.

    Raises
    ------
    RuntimeError
        If the macro, or a command in it, fails; with the sentence and the line.
    Cancelled
        If an NRRN command in it was stopped.
    """
    install_all(app)
    return run_text(install(app), text, argument, quiet=quiet)


def _run_stoppable(app: ImageJ, text: str, argument: str) -> str | None:
    """Run a macro so that Ctrl-C, or a SIGTERM, stops it as Esc does.

    Signals reach Python's main thread alone, and not while that waits in Java: the macro gets a
    thread of its own.
    """
    if threading.current_thread() is not threading.main_thread():
        return run_macro(app, text, argument)
    values: list[str | None] = []
    errors: list[BaseException] = []

    def body() -> None:
        thread = java.JClass("java.lang.Thread").currentThread()
        thread.setContextClassLoader(java.JClass("java.lang.ClassLoader").getSystemClassLoader())
        try:
            values.append(run_macro(app, text, argument))
        except BaseException as error:  # raised again below
            errors.append(error)

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    worker = threading.Thread(target=body, name="nrrn macro", daemon=True)
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        worker.start()
        while worker.is_alive():
            worker.join(SECONDS_BETWEEN_LOOKS)
    except KeyboardInterrupt:
        java.JClass("ij.IJ").setKeyDown(java.JClass("java.awt.event.KeyEvent").VK_ESCAPE)
        interpreter = java.JClass("ij.macro.Interpreter").getInstance()
        if interpreter is not None:
            interpreter.abortMacro()
        worker.join(SECONDS_TO_STOP)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if errors:
        raise errors[0]
    return values[0]


def macro_file(
    path: Path,
    argument: str | None = None,
    *,
    fiji: Path | None = None,
    imagej: bool = False,
    memory: int | None = None,
) -> Report:
    """Start ImageJ without a screen and run a macro file in it.

    Parameters
    ----------
    path
        The macro (``.ijm`` or ``.txt``), or the name of one that came with this package.
    argument
        What its ``getArgument()`` gives.
    fiji, imagej, memory
        Which ImageJ, and the most memory for it in MiB; see :func:`nrrn_fiji.fiji.start`.

    Raises
    ------
    FileNotFoundError
        If there is no such macro, or no Fiji or Java.
    RuntimeError
        If the macro fails.
    KeyboardInterrupt
        If Ctrl-C or a SIGTERM stopped it.
    """
    if not path.exists():
        path = our_macro(str(path)) or path
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no text that can be read ({error.reason}): save the macro as UTF-8."
        ) from error
    app = start(fiji, imagej=imagej, memory=memory)
    value = _run_stoppable(app, text, argument or "")
    return Report(
        summary=value or f"The macro {path.name} has ended.",
        data={"macro": str(path), "value": value, "imagej": str(app)},
    )
