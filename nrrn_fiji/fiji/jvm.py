"""Start ImageJ inside this Python: a Fiji folder's, or plain ImageJ.

Java starts once per Python process and never again: every choice (which Fiji, with or without a
screen, how much memory) is made before that.  This module must never start Java when it is
imported, and never fetch anything for a Fiji that is there.
"""

from __future__ import annotations

import atexit
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import appdirs

from .installed import Java, find_fiji, find_java, has_screen, lacks_windows
from .maven import fetch_imagej

__all__ = ["ImageJ", "adopt", "run_on_screen", "running", "start"]

SECONDS_FOR_JAVA_TO_END = 5.0

# ImageJ patches its own classes when they are loaded, and reaches into the toolkit for icons;
# Java 17 allows either only when told to.
OPENED_PACKAGES = ("java.base/java.lang", "java.base/java.util", "java.desktop/sun.awt")


@dataclass(frozen=True)
class ImageJ:
    """The ImageJ that runs in this Python.

    Attributes
    ----------
    fiji
        Its Fiji folder; None for plain ImageJ.
    gateway
        PyImageJ's ``ij``; None for plain ImageJ, which has no ImageJ2.
    context
        The SciJava context (``org.scijava.Context``).
    headless
        Whether it runs without a screen.
    java
        The Java that it runs in.
    """

    fiji: Path | None
    gateway: Any
    context: Any
    headless: bool
    java: Java

    def __str__(self) -> str:
        import jpype

        if self.gateway is None:
            name = f"plain ImageJ {jpype.JClass('ij.IJ').getVersion()}"
        else:
            where = f"in {self.fiji}" if self.fiji is not None else "from Maven"
            name = f"Fiji (ImageJ {self.gateway.getVersion()}) {where}"
        screen = "headless" if self.headless else "on a screen"
        return f"{name}, {screen}, Java {self.java.version_text} in {self.java.home}"


_running: ImageJ | None = None


def running() -> ImageJ | None:
    """Return the ImageJ that :func:`start` started in this Python, or None."""
    return _running


def start(
    fiji: str | Path | None = None,
    *,
    imagej: bool = False,
    headless: bool = True,
    memory: int | None = None,
    options: Sequence[str] = (),
) -> ImageJ:
    """Start Fiji, or plain ImageJ, inside this Python.

    Parameters
    ----------
    fiji
        The Fiji folder; :func:`find_fiji` looks for it when left out.
    imagej
        Start plain ImageJ 1.54p from Maven Central instead of a Fiji.
    headless
        Without a screen.  Otherwise the window is shown by :func:`run_on_screen`.
    memory
        The most memory that Java may take, in MiB; half of this computer's when left out (the
        other half is for the network).
    options
        More options for Java, such as ``-Dname=value``.

    Returns
    -------
    ImageJ
        The same object again when this Python already runs what is asked for.

    Raises
    ------
    FileNotFoundError
        If Java or Fiji is missing.
    ConnectionError
        If plain ImageJ has to be fetched and cannot be.
    RuntimeError
        If Java already runs with something else, if there is no screen, or if Java does not
        start.
    """
    global _running
    import jpype

    folder = None if imagej else find_fiji(fiji)
    if _running is not None and (_running.fiji, _running.headless) == (folder, headless):
        return _running
    if jpype.isJVMStarted():
        now = f"runs {_running}" if _running is not None else "was started by something else"
        raise RuntimeError(
            f"Java already {now}, and Java starts only once in a Python. Use a new Python, or "
            "pass the ImageJ that runs to nrrn_fiji.fiji.register."
        )
    if not headless:
        _check_screen()
    java = find_java(folder)
    jars = fetch_imagej() if folder is None else _jars_of(folder)
    # The last is where Fiji gives its windows their name, and exists on X11 alone.
    x11 = ["java.desktop/sun.awt.X11"] if platform.system() == "Linux" and not headless else []
    opened = [*OPENED_PACKAGES, *x11]
    arguments = [f"--add-opens={package}=ALL-UNNAMED" for package in opened]
    arguments.append("-XX:MaxRAMPercentage=50" if memory is None else f"-Xmx{memory}m")
    if headless:
        arguments.append("-Djava.awt.headless=true")
    else:
        _check_toolkit(java)
    # Plain ImageJ would otherwise take the current folder, whatever lies there, for its own.
    own = folder or Path(appdirs.user_data_dir("nrrn-fiji", appauthor=False)) / "imagej"
    arguments += [f"-Dplugins.dir={own}", f"-Dimagej.dir={own}"]
    _start_java(java, jars, [*arguments, *options], wrapped=folder is not None)
    _running = _wrap_fiji(folder, headless, java) if folder else _wrap_imagej(headless, java)
    import scyjava

    atexit.register(_end_workers)  # runs before JPype's own
    scyjava.when_jvm_stops(_let_java_end)  # after what closes Fiji's own threads
    return _running


def _jars_of(fiji: Path) -> list[Path]:
    """Return the class path of a Fiji folder, in a fixed order."""
    jars = (jar for name in ("jars", "plugins") for jar in (fiji / name).rglob("*.jar"))
    return sorted(jars)


def _check_screen() -> None:
    if not has_screen():
        raise RuntimeError(
            "There is no screen to show ImageJ on (the environment variable DISPLAY is not set). "
            "Log in with a desktop, or run a macro without a screen: nrrn macro FILE."
        )


def _check_toolkit(java: Java) -> None:
    """Refuse a Java without its window library, which fails much later and says little."""
    if lacks_windows(java):
        raise RuntimeError(
            f"The Java in {java.home} cannot show windows (a headless installation). Install a "
            "full one (on Debian and Ubuntu the package openjdk-17-jre), or set JAVA_HOME to one."
        )


def _start_java(java: Java, jars: Sequence[Path], arguments: list[str], *, wrapped: bool) -> None:
    if wrapped:
        # Before Java runs: afterwards, importing it fails where imglyb's jar is missing.
        import imagej  # noqa: F401
    import scyjava
    import scyjava._jvm

    if not any(jar.name.startswith("imglib2-imglyb-") for jar in jars):
        # imglyb (a dependency of PyImageJ) asks to be called when Java starts and then fails
        # without a jar that Fiji does not have; nothing here needs either.
        callbacks = scyjava._jvm._startup_callbacks
        callbacks[:] = [call for call in callbacks if not call.__module__.startswith("imglyb.")]
    os.environ["JAVA_HOME"] = str(java.home)  # scyjava and JPype both take it from there
    config = scyjava.config
    config.set_java_constraints(fetch="never")
    config.endpoints.clear()
    config.add_classpath(*map(str, jars))
    config.add_options(arguments)
    config.add_kwargs(interrupt=False)  # Ctrl-C stays Python's
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        scyjava.start_jvm()
    except (RuntimeError, OSError) as error:
        raise RuntimeError(
            f"Java {java.version_text} in {java.home} did not start: {error} Check the memory "
            "and the options that it was given, or set JAVA_HOME to another Java."
        ) from error
    if threading.current_thread() is threading.main_thread():
        # Java took the signals: through it, Ctrl-C would wake Python only after its current wait,
        # and a SIGTERM, which clusters send, would crash the process.
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)


def _end_workers() -> None:
    """End the threads that ImageJ keeps for its filters: Java would wait for them for good."""
    import jpype

    if jpype.isJVMStarted():
        jpype.JClass("ij.util.ThreadUtil").threadPoolExecutor.shutdownNow()


def _let_java_end() -> None:
    """See to it that Python can end: Java would wait for its threads, some of which never end.

    ImageJ's pool of threads is such a one; it ends with ``System.exit``, which would take Python
    along.  What is left after some seconds is not waited for.
    """
    import jpype

    jpype.JClass("ij.util.ThreadUtil").threadPoolExecutor.shutdown()
    if not jpype.JClass("java.awt.GraphicsEnvironment").isHeadless():
        for window in jpype.JClass("java.awt.Window").getWindows():
            window.dispose()
    thread = jpype.JClass("java.lang.Thread")
    end = time.monotonic() + SECONDS_FOR_JAVA_TO_END
    while any(
        not one.isDaemon() and one.isAlive() and not one.equals(thread.currentThread())
        for one in thread.getAllStackTraces().keySet()
    ):
        if time.monotonic() > end:
            jpype.config.destroy_jvm = False
            # JPype's own thread would then ask for a Python that has ended, and abort the process.
            jpype.JClass("org.jpype.ref.JPypeReferenceQueue").getInstance().stop()
            return
        time.sleep(0.05)


def _wrap_fiji(fiji: Path, headless: bool, java: Java) -> ImageJ:
    import imagej
    import jpype

    from .startup import leave_out_known_errors

    leave_out_known_errors()
    try:
        gateway = imagej.init(mode="headless" if headless else "interactive")
    except jpype.JException as error:
        if isinstance(error, jpype.JClass("java.lang.UnsupportedClassVersionError")):
            raise RuntimeError(
                f"This Fiji needs a newer Java than {java.version_text} in {java.home}: {error}. "
                "Set JAVA_HOME to the Java that came with Fiji (its folder java), or to Java 21 "
                "or newer."
            ) from error
        raise RuntimeError(f"The Fiji in {fiji} did not start: {error}") from error
    return ImageJ(fiji, gateway, gateway.context(), headless, java)


def _wrap_imagej(headless: bool, java: Java) -> ImageJ:
    import jpype

    if headless:
        # Before any class ij.* is loaded: it makes dialogs, menus and macros work headless.
        jpype.JClass("net.imagej.patcher.LegacyInjector").preinit()
    # Without services: a full context fails where ImageJ2's are missing.
    context = jpype.JClass("org.scijava.Context")(False)
    return ImageJ(None, None, context, headless, java)


def adopt(gateway: Any) -> ImageJ:
    """Return the ImageJ behind a PyImageJ gateway that someone else started.

    Parameters
    ----------
    gateway
        PyImageJ's ``ij``, started in whichever way.
    """
    global _running
    import jpype

    if _running is not None and _running.gateway is gateway:
        return _running
    system = jpype.JClass("java.lang.System")
    text = str(system.getProperty("java.version"))
    java = Java(
        home=Path(str(system.getProperty("java.home"))),
        version=int(jpype.getJVMVersion()[0]),
        version_text=text,
        machine=str(system.getProperty("os.arch")),
        origin="the running Python",
    )
    folder = system.getProperty("imagej.dir")
    headless = bool(jpype.JClass("java.awt.GraphicsEnvironment").isHeadless())
    fiji = Path(str(folder)) if folder is not None else None
    _running = ImageJ(fiji, gateway, gateway.context(), headless, java)
    return _running


def run_on_screen(body: Callable[[], None]) -> None:
    """Call ``body`` where windows may be made, and return when it has ended.

    ``body`` starts ImageJ with ``headless=False``, shows it and returns when the user has quit.
    On macOS the operating system owns the main thread while windows are open, so ``body`` runs
    on a second one (needs PyObjC; untried so far); elsewhere it simply runs.

    Raises
    ------
    RuntimeError
        On macOS without PyObjC.
    """
    if platform.system() != "Darwin":
        body()
        return
    import jpype

    try:
        jpype.setupGuiEnvironment(body)
    except ModuleNotFoundError as error:
        raise RuntimeError(
            "macOS needs PyObjC to show ImageJ from Python: python -m pip install pyobjc."
        ) from error
