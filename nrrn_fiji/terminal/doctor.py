"""What this computer has for NRRN, in plain words: the answer of ``nrrn doctor``.

Every finding says what was looked for, what is there, and, where something is amiss, what to do.
This module must never start Java, never download and never change anything, and one broken part
must never keep the others from being looked at.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..outputs.partial import readable_size
from ..reports import Report, Table
from ..version import PACKAGE, full_version
from .support import support_request

__all__ = ["Finding", "examine"]

OLDEST_PYTHON = (3, 11)
SECONDS_FOR_PYTHON = 30.0
# What the bridge to Java is made of; the rest fails at once when it is missing.
BRIDGE = ("jpype1", "scyjava", "pyimagej", "jgo")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    found: str
    advice: str = ""
    """What to do; empty if nothing is amiss."""
    needed: bool = False
    """Whether stacks cannot be denoised, in any way, while it is amiss."""

    @property
    def state(self) -> str:
        """ "ok", "missing" (a part that not everybody needs) or "PROBLEM"."""
        if not self.advice:
            return "ok"
        return "PROBLEM" if self.needed else "missing"


def examine(fiji: Path | None = None, report: bool = False) -> Report:
    """Look at everything that NRRN uses.

    Parameters
    ----------
    fiji
        The Fiji folder to look at; the one that ``nrrn fiji`` would open when left out.
    report
        Write the summary as a support request, see :mod:`.support`.

    Returns
    -------
    Report
        A row for each finding; its exit code is 1 if stacks cannot be denoised here.
    """
    findings: list[Finding] = []
    for name, look in (
        ("Python", python),
        ("PyTorch", torch),
        ("engine", engine),
        ("models", models),
        ("bridge to Java", bridge),
        ("Fiji", lambda: fiji_and_java(fiji)),
        ("ImageJ", plain_imagej),
        ("this computer", machine),
    ):
        findings += looked(name, look)
    broken = [finding for finding in findings if finding.advice and finding.needed]
    lines = [f"{finding.what}: {finding.advice}" for finding in findings if finding.advice]
    if broken:
        lines.append("Stacks cannot be denoised on this computer yet: see above.")
    elif lines:
        lines.append("Stacks can be denoised here; the above concerns other things.")
    else:
        lines.append("Everything is there. Open Fiji with: nrrn fiji")
    table = Table(
        ("what", "state", "found"),
        tuple((finding.what, finding.state, finding.found) for finding in findings),
    )
    return Report(
        support_request(table, lines) if report else "\n".join(lines),
        {
            "findings": [
                {
                    "what": finding.what,
                    "state": finding.state,
                    "found": finding.found,
                    "advice": finding.advice,
                }
                for finding in findings
            ],
            "whole": not broken,
        },
        None if report else table,
        exit_code=1 if broken else 0,
    )


def looked(name: str, look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """Return what ``look`` finds, and a finding about whatever stops it."""
    findings: list[Finding] = []
    try:
        findings.extend(look())
    except Exception as error:  # a broken installation can fail in any way; that is the finding
        findings.append(
            Finding(
                name,
                f"{type(error).__name__}: {error}",
                "install nrrn-fiji again in a fresh environment, and report this if it stays.",
                needed=name in ("Python", "PyTorch", "engine", "models"),
            )
        )
    return findings


def python() -> Iterator[Finding]:
    """This Python and this package."""
    bits = "64-bit" if sys.maxsize > 2**32 else "32-bit"
    advice = ""
    if sys.version_info < OLDEST_PYTHON:
        advice = "install Python 3.11 or newer."
    elif bits == "32-bit":
        advice = "install a 64-bit Python."
    where = f"{bits}, {platform.system()} {platform.machine()}, {sys.executable}"
    yield Finding("Python", f"{platform.python_version()}, {where}", advice, needed=True)
    yield Finding("nrrn-fiji", f"{full_version()} in {PACKAGE}")


def torch() -> Iterator[Finding]:
    """The library that computes, and what it can compute on."""
    try:
        import torch as library
    except (ImportError, OSError) as error:  # OSError: one of its own libraries is missing
        yield Finding(
            "PyTorch", f"not usable ({error})", "run: python -m pip install torch", needed=True
        )
        return
    yield Finding("PyTorch", str(library.__version__))
    from ..device import INSTALL_NUMBA, choose_device, describe, missing_for_int8, wants_numba

    best = choose_device(None)
    names = [f"cuda:{number}" for number in range(library.cuda.device_count())]
    for device in dict.fromkeys([best, *map(library.device, names), library.device("cpu")]):
        taken = ", used unless you choose another" if device == best else ""
        yield Finding("device", f"{describe(device)}{taken}")
    if best.type == "cpu":
        yield Finding("GPU", "none that PyTorch can use: the processor computes, which is slower")
        if wants_numba(best):
            advice = f"to denoise 8-bit images two to three times as fast, type: {INSTALL_NUMBA}"
            yield Finding("8-bit arithmetic", "for want of Numba not used", advice)
        else:
            missing = missing_for_int8(best)
            yield Finding("8-bit arithmetic", f"needs {missing}" if missing else "ready")


def engine() -> Iterator[Finding]:
    """Our own parts: an installation that was cut short, or mixed with another, fails here."""
    importlib.import_module("nrrn_fiji.api")
    yield Finding("engine", "ready")


def models() -> Iterator[Finding]:
    """The models that can be used by name."""
    from ..models import DEFAULT_MODEL, known_models, user_models_dir

    entries = known_models()
    for entry in entries:
        if entry.problem:
            yield Finding(
                "model",
                f"{entry.name}: {entry.problem}",
                f"remove it (nrrn models remove {entry.name}) or import it again."
                if entry.origin == "installed"
                else "install nrrn-fiji again.",
                needed=entry.name == DEFAULT_MODEL,
            )
        else:
            yield Finding("model", f"{entry.name} ({entry.origin})")
    if not any(entry.name == DEFAULT_MODEL for entry in entries):
        yield Finding(
            "model",
            f"the shipped model {DEFAULT_MODEL} is not there",
            "install nrrn-fiji again, or name another model in every command (--model).",
            needed=True,
        )
    yield Finding("your models", str(user_models_dir()))


def bridge() -> Iterator[Finding]:
    """The Python packages between Python and Java."""
    versions, absent = [], []
    for name in BRIDGE:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            absent.append(name)
    advice = f"run: python -m pip install {' '.join(absent)}" if absent else ""
    yield Finding("bridge to Java", ", ".join(versions) or "nothing of it", advice)


def fiji_and_java(named: Path | None) -> Iterator[Finding]:
    """The Fiji folder, and the Java that it would run in."""
    from ..fiji import installed

    folder: Path | None = None
    try:
        folder = installed.find_fiji(named)
        yield Finding("Fiji", f"{folder}{imagej_in(folder)}")
        yield plugin(folder, named)
    except FileNotFoundError as error:
        yield Finding(
            "Fiji",
            "none" if named is None else f"not in {named}",
            f"{error} Fiji is at https://fiji.sc.",
        )
    answers = installed.look_for_java(folder)
    taken: Any = next(
        (one for one in answers if isinstance(one, installed.Java) and one.problem is None), None
    )
    for answer in answers:
        if isinstance(answer, str):
            yield Finding("Java", f"{answer} (not used)")
            continue
        use = "used" if answer is taken else f"not used: {answer.problem or 'another comes first'}"
        yield Finding(
            "Java", f"{answer.version_text} in {answer.home}, from {answer.origin} ({use})"
        )
    if taken is None:
        yield Finding(
            "Java",
            "none that can be used",
            "install Java 17 or newer (for example from https://adoptium.net), or set JAVA_HOME "
            "to the folder of one.",
        )
    elif installed.lacks_windows(taken):
        yield Finding(
            "Java",
            f"the one in {taken.home} cannot show windows",
            "install a full one (on Debian and Ubuntu the package openjdk-17-jre); macros run "
            "all the same.",
        )
    if not installed.has_screen():
        yield Finding(
            "screen",
            "none",
            "log in with a desktop to open Fiji; macros (nrrn macro) and all other commands need "
            "no screen.",
        )


def imagej_in(folder: Path) -> str:
    """Return which ImageJ a Fiji folder holds."""
    from ..fiji.installed import newest_jar

    jar = newest_jar(folder, "ij")
    return "" if jar is None else f", ImageJ {jar.stem.removeprefix('ij-')}"


def plugin(folder: Path, named: Path | None) -> Finding:
    """Whether Plugins > NRRN is in a Fiji however it is started, and whether it works there."""
    from ..fiji.ordinary import installed_plugin

    what, command = "NRRN in Fiji", "nrrn fiji --install"
    if named is not None:
        command += f' --fiji "{named}"'
    again = f"type: {command}"
    try:
        found = installed_plugin(folder)
    except ValueError as error:
        return Finding(what, str(error), again)
    if found is None:
        return Finding(
            what,
            "not installed",
            f"to have Plugins > NRRN however this Fiji is started, {again} "
            "(to open Fiji with it all the same: nrrn fiji)",
        )
    text = f"installed, version {found.version or 'unknown'}, works with {found.python}"
    if not Path(found.python).exists():
        return Finding(
            what, text, f"the Python that it works with is gone ({found.python}); {again}"
        )
    theirs = version_in(found.python)
    if theirs is None:
        return Finding(what, text, f"nrrn-fiji is no longer in {found.python}; {again}")
    if not found.current:
        return Finding(
            what, text, f"it was installed by another version than this ({__version__}); {again}"
        )
    if theirs != __version__:
        return Finding(
            what, text, f"{found.python} has nrrn-fiji {theirs} by now, not {__version__}; {again}"
        )
    return Finding(what, text)


def version_in(python: str) -> str | None:
    """Return which nrrn-fiji a Python has; None if it has none, or does not run."""
    if Path(python) == Path(sys.executable):
        return __version__
    ask = "import importlib.metadata as m; print(m.version('nrrn-fiji'))"
    try:
        done = subprocess.run(
            [python, "-P", "-c", ask], capture_output=True, text=True, timeout=SECONDS_FOR_PYTHON
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def machine() -> Iterator[Finding]:
    """Processor, memory and disk: what decides how large and how fast."""
    import psutil

    memory = psutil.virtual_memory()
    yield Finding(
        "memory",
        f"{readable_size(memory.available)} free of {readable_size(memory.total)}; "
        f"{psutil.cpu_count()} processor cores",
    )
    free = psutil.disk_usage(os.getcwd()).free
    yield Finding("disk", f"{readable_size(free)} free in {os.getcwd()}")


def plain_imagej() -> Iterator[Finding]:
    """The ImageJ that runs without a Fiji."""
    from ..fiji.maven import cached_imagej

    there = cached_imagej()
    text = "ready" if there else "will be fetched from Maven Central when it is first used (3 MB)"
    yield Finding("plain ImageJ", f"1.54p, {text}; open it with: nrrn fiji --imagej")
