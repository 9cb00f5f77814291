"""What an ordinary Fiji needs to run our commands: a plugin of ImageJ, and Appose.

The plugin is made where it is installed: its Groovy sources (``fiji_scripts/ordinary``) are
compiled with the Fiji's own Groovy, against its own ImageJ, and its menu comes from the same table
as everything else.  It knows the Python that installed it.  Appose comes with this package, for a
Fiji that has none.  This module must never write into the Fiji folder (:mod:`.scripts` does),
and never fetch anything.

Sources: ``plugins.config`` as ``ij.Menus`` of ImageJ 1.54p reads it; ``java.util.Properties``;
``org.codehaus.groovy.tools.FileSystemCompiler`` of Groovy 2.4 to 4.
"""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .. import __version__
from ..resources import data_folder
from .installed import Java, look_for_java, newest_jar

__all__ = ["PLUGIN", "InstalledPlugin", "installed_plugin", "plugin_files"]

PROPERTIES = "nrrn.properties"
"""In the jar: which Python, and which version of this package has made it."""
PLUGIN = "plugins/NRRN_Denoising.jar"  # ImageJ looks only into jars with an underscore
COMMAND = "nrrn.Command"
OLDEST_JAVA = 8
OLDEST_APPOSE = (0, 7)
COMPILER = "org.codehaus.groovy.tools.FileSystemCompiler"
SECONDS_TO_COMPILE = 600
SAME_TIME = (1980, 1, 1, 0, 0, 0)
"""Of every file in the jar: what is the same must look the same."""


def plugin_files(fiji: Path) -> dict[str, bytes]:
    """Return the files that make a Fiji run our commands by itself, by their place in its folder.

    Raises
    ------
    FileNotFoundError
        If the Fiji lacks Groovy or ImageJ, or there is no Java to compile with.
    RuntimeError
        If compiling fails, or its Appose is too old.
    """
    files = {f"jars/{jar.name}": jar.read_bytes() for jar in _missing_jars(fiji)}
    files[PLUGIN] = _jar(
        {
            **_compiled(fiji),
            "plugins.config": menu().encode(),
            PROPERTIES: _properties(
                {"python": sys.executable, "version": __version__, "sources": _fingerprint()}
            ),
        }
    )
    return files


@dataclass(frozen=True)
class InstalledPlugin:
    """What the plugin in a Fiji folder says of itself."""

    python: str
    """The program that it starts."""
    version: str
    """Of the package that installed it; empty if it does not say."""
    current: bool
    """Whether this package would install the same commands and classes."""


def installed_plugin(fiji: Path) -> InstalledPlugin | None:
    """Return what the plugin in a Fiji folder says of itself; None if there is none.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    file = fiji / PLUGIN
    if not file.is_file():
        return None
    try:
        with zipfile.ZipFile(file) as jar:
            said = _read_properties(jar.read(PROPERTIES))
        python = said["python"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{file} is damaged ({error}): install again.") from error
    version = said.get("version", "")
    same = (version, said.get("sources")) == (__version__, _fingerprint())
    return InstalledPlugin(python, version, same)


def _fingerprint() -> str:
    """Return a hash of what a plugin is made from: its sources and its menu."""
    whole = hashlib.sha256(menu().encode())
    for source in _sources():
        whole.update(source.read_bytes())
    return whole.hexdigest()


def _sources() -> list[Path]:
    return sorted(data_folder("scripts").glob("ordinary/nrrn/*.groovy"))


def menu() -> str:
    """Return ``plugins.config``: a line for every command, in the order of the menu."""
    from .entries import entries
    from .plugin import MENU

    lines = [f'Plugins>{MENU}, "{entry.command}", {COMMAND}("{entry.key}")' for entry in entries()]
    return "\n".join(lines) + "\n"


def _missing_jars(fiji: Path) -> list[Path]:
    """Return those of our jars that a Fiji has in no version."""
    there = [jar.name for jar in (fiji / "jars").glob("*.jar")]
    ours = sorted(data_folder("scripts").glob("jars/*.jar"))
    missing = []
    for jar in ours:
        name = re.sub(r"-\d.*", "", jar.name)
        same = [other for other in there if re.fullmatch(rf"{name}-\d.*\.jar", other)]
        # One that we put there is put there again: it belongs to what is installed.
        if not same or same == [jar.name]:
            missing.append(jar)
        elif name == "appose":
            _check_appose(fiji, same)
    return missing


def _check_appose(fiji: Path, names: list[str]) -> None:
    for name in names:
        numbers = tuple(int(number) for number in re.findall(r"\d+", name)[:2])
        if numbers < OLDEST_APPOSE:
            raise RuntimeError(
                f"{fiji} has {name}, but {'.'.join(map(str, OLDEST_APPOSE))} or newer is needed: "
                "update this Fiji (Help > Update...), and install again."
            )


def _compiled(fiji: Path) -> dict[str, bytes]:
    """Return the compiled classes of the plugin, by their names in its jar."""
    groovy = _jar_of(fiji, "groovy(-all)?", "Groovy")
    imagej = _jar_of(fiji, "ij", "ImageJ")
    appose = sorted((fiji / "jars").glob("appose-*.jar"))
    appose = appose or sorted(data_folder("scripts").glob("jars/appose-*.jar"))
    java = _java(fiji)
    program = java.home / "bin" / ("java.exe" if sys.platform == "win32" else "java")
    path = ";".join if sys.platform == "win32" else ":".join
    with tempfile.TemporaryDirectory(prefix="nrrn-") as work:
        against = path([str(imagej), *map(str, appose)])
        words = [str(program), "-cp", str(groovy), COMPILER, "-cp", against, "-d", work]
        try:
            done = subprocess.run(
                [*words, *map(str, _sources())],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SECONDS_TO_COMPILE,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise RuntimeError(
                f"Compiling the plugin with {groovy.name} of {fiji} takes more than "
                f"{SECONDS_TO_COMPILE // 60} minutes: install again when this computer has less "
                "to do, or use `nrrn fiji`, which needs nothing installed."
            ) from late
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise RuntimeError(
                f"The plugin could not be compiled with {groovy.name} of {fiji} and Java "
                f"{java.version_text}: {said}. Update this Fiji (Help > Update...), or use "
                "`nrrn fiji`, which needs nothing installed."
            )
        classes = sorted(Path(work).rglob("*.class"))
        return {file.relative_to(work).as_posix(): file.read_bytes() for file in classes}


def _jar_of(fiji: Path, name: str, what: str) -> Path:
    if (jar := newest_jar(fiji, name)) is None:
        raise FileNotFoundError(
            f"{fiji} has no {what} in its folder jars: update this Fiji (Help > Update...), or "
            "use `nrrn fiji`, which needs nothing installed."
        )
    return jar


def _java(fiji: Path) -> Java:
    """Return a Java that can compile; the one that a Fiji of Java 8 brings is new enough."""
    found = look_for_java(fiji)
    for java in found:
        if isinstance(java, Java) and java.version >= OLDEST_JAVA:
            return java
    reasons = "; ".join(answer for answer in found if isinstance(answer, str))
    raise FileNotFoundError(
        f"No Java was found{': ' if reasons else ''}{reasons}. Install Java 17 or newer (for "
        "example from https://adoptium.net), or set JAVA_HOME to the folder of the one that "
        "Fiji runs with."
    )


def _properties(values: Mapping[str, str]) -> bytes:
    """Return values as a file of Java's Properties."""
    lines = []
    for key, value in values.items():
        escaped = value.replace("\\", "\\\\").encode("utf-16-be")
        units = [int.from_bytes(escaped[i : i + 2]) for i in range(0, len(escaped), 2)]
        text = "".join(chr(unit) if 32 <= unit < 127 else f"\\u{unit:04x}" for unit in units)
        lines.append(f"{key}={text}\n")
    return "".join(lines).encode("ascii")


def _read_properties(content: bytes) -> dict[str, str]:
    """Return what :func:`_properties` has written."""

    def character(match: re.Match[str]) -> str:
        return chr(int(match[1], 16)) if match[1] else match[2]

    values = {}
    for line in content.decode("ascii").splitlines():
        key, _, text = line.partition("=")
        units = re.sub(r"\\u([0-9a-f]{4})|\\(.)", character, text)
        values[key] = units.encode("utf-16", "surrogatepass").decode("utf-16")
    return values


def _jar(files: Mapping[str, bytes]) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as jar:
        for name, content in sorted(files.items()):
            jar.writestr(zipfile.ZipInfo(name, SAME_TIME), content, zipfile.ZIP_DEFLATED)
    return whole.getvalue()
