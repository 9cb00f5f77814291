"""What this machine has: Java, a Fiji folder, a screen.

PyImageJ fetches what it does not see, and fails with one bare sentence where it may not.  Here
what was looked for is said in plain words.  This module must never start Java inside this Python,
never fetch anything, and never write into a Fiji folder.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import appdirs

from ..files import write_whole

__all__ = [
    "FIJI_VARIABLES",
    "Java",
    "check_fiji",
    "find_fiji",
    "find_java",
    "has_screen",
    "lacks_windows",
    "look_for_java",
    "newest_jar",
    "remember_fiji",
    "remembered_fiji",
    "usual_fiji_places",
]

FIJI_VARIABLES = ("NRRN_FIJI", "FIJI_HOME")
OLDEST_JAVA = 11  # JPype 1.6 and scyjava 1.12 dropped Java 8.


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


def lacks_windows(java: Java) -> bool:
    """Whether a Java came without its window library, as some packages of Linux do."""
    return platform.system() == "Linux" and not list(java.home.glob("**/libawt_xawt.so"))


# --- Fiji --------------------------------------------------------------------------------------


def _settings_file() -> Path:
    return Path(appdirs.user_config_dir("nrrn-fiji", appauthor=False)) / "fiji.json"


def remember_fiji(folder: Path) -> None:
    """Keep a Fiji folder as the one to take when none is named."""
    file = _settings_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps({"fiji": str(folder)}).encode())


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


def newest_jar(fiji: Path, name: str) -> Path | None:
    """Return the newest jar of that name in a Fiji folder; None if it has none.

    Parameters
    ----------
    name
        What comes before the version, as a regular expression: "ij" finds ij-1.54p.jar.
    """
    jars = [jar for jar in (fiji / "jars").glob("*.jar") if re.match(rf"{name}-\d", jar.name)]

    def version(jar: Path) -> list[tuple[int, str]]:
        parts = re.findall(r"(\d+)(\D*)", re.sub(rf"^{name}-", "", jar.stem))
        return [(int(number), text) for number, text in parts]

    return max(jars, key=version, default=None)


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


# --- a screen ------------------------------------------------------------------------------------


def has_screen() -> bool:
    """Whether windows can be shown; only X11 tells beforehand."""
    return platform.system() != "Linux" or bool(os.environ.get("DISPLAY"))
