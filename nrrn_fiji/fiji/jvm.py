"""Find Java and Fiji on this machine, and start ImageJ inside this Python.

PyImageJ downloads Java and ImageJ when it starts, and fails with one bare sentence where it may
not.  Here nothing is downloaded when a Fiji folder is there, what was looked for is said in plain
words, and a machine without Fiji gets the real ImageJ 1.54p from Maven Central.

Java starts once per Python process and never again: every choice (which Fiji, with or without a
screen, how much memory) is made before that.  This module must never start Java when it is
imported, never write into a Fiji folder, and never fetch anything for a Fiji that is there.
"""

from __future__ import annotations

import atexit
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import appdirs
from filelock import FileLock, Timeout

__all__ = [
    "FIJI_VARIABLES",
    "ImageJ",
    "Java",
    "adopt",
    "cached_imagej",
    "check_fiji",
    "fetch_imagej",
    "find_fiji",
    "find_java",
    "has_screen",
    "lacks_windows",
    "look_for_java",
    "remember_fiji",
    "remembered_fiji",
    "run_on_screen",
    "running",
    "start",
    "usual_fiji_places",
]

FIJI_VARIABLES = ("NRRN_FIJI", "FIJI_HOME")
SECONDS_FOR_JAVA_TO_END = 5.0
SECONDS_FOR_A_FETCH = 600.0
OLDEST_JAVA = 11  # JPype 1.6 and scyjava 1.12 dropped Java 8.

# The original ImageJ and what its patched headless mode needs.  parsington is pinned because the
# version that ij's parent asks for lacks a class that scijava-common needs.
ENDPOINTS = (
    "net.imagej:ij:1.54p",
    "org.scijava:scijava-common:2.99.0",
    "org.scijava:parsington:3.1.0",
    "org.javassist:javassist:3.30.2-GA",
    "net.imagej:ij1-patcher:2.0.0",
)

# ImageJ patches its own classes when they are loaded, and reaches into the toolkit for icons;
# Java 17 allows either only when told to.
OPENED_PACKAGES = ("java.base/java.lang", "java.base/java.util", "java.desktop/sun.awt")


# --- Java --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Java:
    """One installed Java, as it describes itself.

    ``version`` is 17 for "17.0.15" and 8 for "1.8.0_452"; ``machine`` is Java's own name of the
    processor ("amd64", "aarch64"); ``origin`` says where it was found, in words for a user.
    """

    home: Path
    version: int
    version_text: str
    machine: str
    origin: str

    @property
    def problem(self) -> str | None:
        """Why this Java cannot be used, as a clause; None if it can."""
        if self.version < OLDEST_JAVA:
            return (
                f"it is Java {self.version_text}, too old (Java {OLDEST_JAVA} or newer is needed)"
            )
        if _machine(self.machine) != _machine(platform.machine()):
            return (
                f"it is made for {self.machine} processors and this Python for {platform.machine()}"
            )
        return None


def _machine(name: str) -> str:
    """Return one name for each kind of processor, whoever names it."""
    aliases = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}
    return aliases.get(name.lower(), name.lower())


def _ask_java(program: Path, origin: str) -> Java | str:
    """Run a ``java`` program and return what it says of itself, or why it says nothing.

    Running it is the only way that also sees through the launchers of macOS, SDKMAN and jenv,
    and that proves that it runs at all.
    """
    try:
        answer = subprocess.run(
            [str(program), "-XshowSettings:properties", "-version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{program} does not run ({error})"
    said = dict(re.findall(r"^\s*([\w.]+) = (.*?)\s*$", answer.stdout + answer.stderr, re.M))
    if answer.returncode != 0 or not {"java.home", "java.version"} <= said.keys():
        return f"{program} does not run as Java (it ended with code {answer.returncode})"
    home = Path(said["java.home"])
    if home.name == "jre" and (home.parent / "bin").is_dir():
        home = home.parent  # the JDK that a Java 8 runtime lies in
    text = said["java.version"]
    numbers = [int(number) for number in re.findall(r"\d+", text)] or [0]
    version = numbers[1] if numbers[0] == 1 and len(numbers) > 1 else numbers[0]
    return Java(home, version, text, said.get("os.arch", ""), origin)


def _java_programs(fiji: Path | None) -> list[tuple[str, Path]]:
    """Return (where it was found, java program), in the order in which they are tried."""
    name = "java.exe" if os.name == "nt" else "java"
    programs = []
    if os.environ.get("JAVA_HOME"):
        programs.append(("JAVA_HOME", Path(os.environ["JAVA_HOME"]) / "bin" / name))
    if fiji is not None:
        # java/PLATFORM/NAME; other platforms' Javas may lie there too and do not run here.
        system = {"Windows": "win", "Darwin": "mac"}.get(platform.system(), "linux")
        for below in ("bin", "Contents/Home/bin"):
            found = sorted((fiji / "java").glob(f"{system}*/*/{below}/{name}"), reverse=True)
            programs += [("the Fiji folder", program) for program in found]
    on_path = shutil.which("java")
    if on_path:
        programs.append(("the PATH", Path(on_path)))
    return programs


def look_for_java(fiji: Path | None = None) -> list[Java | str]:
    """Return every Java that was found, in order of preference, and a clause for each failure.

    The order is JAVA_HOME, the Fiji folder's own, the PATH, and where JPype knows that this
    operating system keeps Java.  ``nrrn doctor`` shows this list; :func:`find_java` takes the
    first that can be used.
    """
    answers: list[Java | str] = []
    homes = set()
    for origin, program in _java_programs(fiji):
        if not program.is_file():
            answers.append(f"{origin} names {program.parent.parent}, which holds no Java")
            continue
        answer = _ask_java(program, origin)
        if isinstance(answer, Java):
            if answer.home in homes:
                continue
            homes.add(answer.home)
        answers.append(answer)
    if not any(isinstance(answer, Java) and answer.problem is None for answer in answers):
        library = _library_of_jpype()
        home = library and next(
            (up for up in library.parents if (up / "bin" / "java").is_file()), None
        )
        if home is not None and home not in homes:
            answers.append(_ask_java(home / "bin" / "java", "the system's folder of Javas"))
    return answers


def _library_of_jpype() -> Path | None:
    """Return the Java library that JPype would take by itself, or None."""
    import jpype

    try:
        return Path(jpype.getDefaultJVMPath()).resolve()
    except (OSError, ValueError):  # JPype's own exceptions for "none" and "of another kind"
        return None


def find_java(fiji: Path | None = None) -> Java:
    """Return the Java to start: the first usable one of :func:`look_for_java`.

    Raises
    ------
    FileNotFoundError
        If there is none; the message lists what was found instead and what to do.
    """
    reasons = []
    for answer in look_for_java(fiji):
        if isinstance(answer, str):
            reasons.append(answer)
        elif answer.problem is None:
            return answer
        else:
            reasons.append(f"{answer.origin} has {answer.home}, but {answer.problem}")
    found = "; ".join(reasons) if reasons else "JAVA_HOME is not set and no java is on the PATH"
    raise FileNotFoundError(
        f"No Java that can be used was found: {found}. Install Java 17 or newer (for example "
        "from https://adoptium.net), or set JAVA_HOME to the folder of one."
    )


# --- Fiji --------------------------------------------------------------------------------------


def _settings_file() -> Path:
    return Path(appdirs.user_config_dir("nrrn-fiji", appauthor=False)) / "fiji.json"


def remember_fiji(folder: Path) -> None:
    """Keep a Fiji folder as the one to take when none is named."""
    file = _settings_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps({"fiji": str(folder)}), encoding="utf-8")
    fresh.replace(file)


def remembered_fiji() -> Path | None:
    """Return the folder that :func:`remember_fiji` kept, or None."""
    try:
        return Path(json.loads(_settings_file().read_text(encoding="utf-8"))["fiji"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def usual_fiji_places() -> list[Path]:
    """Return the folders where Fiji usually lies on this operating system, there or not."""
    home = Path.home()
    system = platform.system()
    if system == "Windows":
        named = [os.environ.get(name) for name in ("ProgramFiles", "LOCALAPPDATA", "SystemDrive")]
        # "C:" alone would mean the current folder of that drive.
        parents = [
            Path(name + "\\") if name.endswith(":") else Path(name) for name in named if name
        ]
    elif system == "Darwin":
        parents = [Path("/Applications"), home / "Applications"]
    else:
        parents = [Path("/opt"), Path("/usr/local"), home / "opt", home / ".local" / "share"]
    parents = [home, *parents, home / "Desktop", home / "Downloads"]
    return [parent / name for parent in parents for name in ("Fiji.app", "Fiji", "fiji")]


def check_fiji(folder: str | Path) -> Path:
    """Return the Fiji folder that a user means, or say why there is none.

    The folder itself, a folder that holds ``Fiji.app`` or ``Fiji`` (an unpacked download), or a
    program inside a Fiji folder are understood.

    Raises
    ------
    FileNotFoundError
        If it does not exist or is no Fiji.
    """
    path = Path(folder).expanduser().absolute()
    if not path.exists():
        raise FileNotFoundError(f"There is no folder {path}: name the folder that Fiji lies in.")
    candidates = [path, path / "Fiji.app", path / "Fiji", *list(path.parents)[:3]]
    if path.is_dir():
        candidates = candidates[:3]  # only a program is looked for upwards
    for candidate in candidates:
        if _imagej_jars(candidate):
            return candidate
    raise FileNotFoundError(
        f"{path} is no Fiji folder: a Fiji folder holds a folder jars with ij-….jar and "
        "imagej-….jar, and a folder plugins. Name the folder that Fiji lies in (often Fiji.app), "
        "or leave Fiji out and use plain ImageJ."
    )


def _imagej_jars(folder: Path) -> bool:
    """Whether a folder holds the original ImageJ, ImageJ2 and the legacy layer between them."""
    names = [jar.name for jar in (folder / "jars").glob("*.jar")]
    wanted = (r"ij-\d.*", r"imagej-\d.*", r"imagej-legacy-\d.*")
    return all(any(re.fullmatch(pattern, name) for name in names) for pattern in wanted)


def find_fiji(folder: str | Path | None = None) -> Path:
    """Return the Fiji folder: named, from the environment, remembered, or in a usual place.

    Parameters
    ----------
    folder
        What the user named.  A name, or one of the environment variables NRRN_FIJI and
        FIJI_HOME, that leads to no Fiji is an error and is never passed over in silence.

    Raises
    ------
    FileNotFoundError
        If no Fiji is found.
    """
    if folder is not None:
        return check_fiji(folder)
    for variable in FIJI_VARIABLES:
        value = os.environ.get(variable)
        if value:
            try:
                return check_fiji(value)
            except FileNotFoundError as error:
                raise FileNotFoundError(
                    f"The environment variable {variable} is {value!r}, but: {error}"
                ) from error
    remembered = remembered_fiji()
    places = usual_fiji_places()
    for place in [remembered, *places] if remembered is not None else places:
        if _imagej_jars(place):
            return place
    looked = ", ".join(sorted({str(place.parent) for place in places}))
    raise FileNotFoundError(
        "No Fiji was found: the environment variables NRRN_FIJI and FIJI_HOME are not set, and "
        f"there is no Fiji in {looked}. Name its folder (--fiji DIR), or use plain ImageJ "
        "(--imagej)."
    )


# --- plain ImageJ ------------------------------------------------------------------------------


def fetch_imagej() -> list[Path]:
    """Return the jars of the original ImageJ 1.54p, fetched from Maven Central the first time.

    Later calls answer from the cache (``~/.cache/jgo``) and need no network.

    Raises
    ------
    ConnectionError
        If they are not in the cache and Maven Central cannot be reached.
    """
    import jgo

    endpoint = "+".join(ENDPOINTS)
    names = [f"{artifact}-{version}.jar" for _, artifact, version in map(_coordinate, ENDPOINTS)]
    try:
        with _alone_with_the_cache():
            for update in (False, True):  # a cache that an interrupted fetch left is fetched again
                environment = jgo.build(endpoint, update=update)
                folders = (environment.jars_dir, environment.modules_dir)
                jars = sorted(jar for folder in folders for jar in folder.glob("*.jar"))
                there = {jar.name for jar in jars} >= set(names)
                if there and all(jar.stat().st_size for jar in jars):
                    return jars
    except Exception as error:  # jgo and requests raise many kinds; the cause is kept
        raise ConnectionError(
            f"ImageJ 1.54p could not be fetched from Maven Central ({error}). Connect this "
            "computer to the Internet once, or name the folder of a Fiji (--fiji DIR), which "
            "needs no network."
        ) from error
    raise ConnectionError(
        f"Maven Central gave no complete ImageJ 1.54p (wanted {', '.join(names)}). Try again, or "
        "name the folder of a Fiji (--fiji DIR), which needs no network."
    )


@contextmanager
def _alone_with_the_cache() -> Iterator[None]:
    """Let one process at a time fill the cache: filling it takes out what others start with."""
    folder = Path(appdirs.user_cache_dir("nrrn-fiji", appauthor=False))
    lock = FileLock(folder / "imagej.lock", timeout=SECONDS_FOR_A_FETCH)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise
    except OSError:  # a home that cannot be written to: then nobody fills the cache either
        yield
        return
    try:
        yield
    finally:
        lock.release()


def cached_imagej() -> bool:
    """Whether plain ImageJ was fetched before, so that it starts without a network."""
    from jgo.config import GlobalSettings

    group, artifact, version = _coordinate(ENDPOINTS[0])
    folder = GlobalSettings.load().cache_dir / "envs" / Path(*group.split(".")) / artifact
    return any(folder.glob(f"*/*/{artifact}-{version}.jar"))


def _coordinate(endpoint: str) -> tuple[str, str, str]:
    group, artifact, version = endpoint.split(":")
    return group, artifact, version


# --- start -------------------------------------------------------------------------------------


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

    scyjava.when_jvm_stops(_let_java_end)  # after what closes Fiji's own threads
    return _running


def _jars_of(fiji: Path) -> list[Path]:
    """Return the class path of a Fiji folder, in a fixed order."""
    jars = (jar for name in ("jars", "plugins") for jar in (fiji / name).rglob("*.jar"))
    return sorted(jars)


def has_screen() -> bool:
    """Whether windows can be shown; only X11 tells beforehand."""
    return platform.system() != "Linux" or bool(os.environ.get("DISPLAY"))


def _check_screen() -> None:
    if not has_screen():
        raise RuntimeError(
            "There is no screen to show ImageJ on (the environment variable DISPLAY is not set). "
            "Log in with a desktop, or run a macro without a screen: nrrn macro FILE."
        )


def lacks_windows(java: Java) -> bool:
    """Whether a Java came without its window library, as some packages of Linux do."""
    return platform.system() == "Linux" and not list(java.home.glob("**/libawt_xawt.so"))


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
    atexit.register(_end_workers)  # runs before JPype's own
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
