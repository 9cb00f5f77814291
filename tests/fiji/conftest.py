"""One real ImageJ for all tests of the bridge: Java starts once per process, so once per run.

Without more, that is plain ImageJ 1.54p from Maven Central, headless.  With NRRN_FIJI or
FIJI_HOME set, the same tests run in that Fiji, and those that need one (marker ``fiji``) too.  A
Fiji that merely lies on the machine is never taken.  Other modes run in processes of their own.
"""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nrrn_fiji.fiji import installed, jvm

ASKED_FIJI = next(
    (os.environ[name] for name in installed.FIJI_VARIABLES if os.environ.get(name)), None
)
CHECKOUT = Path(__file__).parents[2]
used: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """Let Ctrl-C reach the programs that are started here, some of which are tested with it."""
    # A shell has what it runs in the background ignore it, and so would all its children.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that need a Fiji folder when none was named."""
    if ASKED_FIJI is not None:
        return
    skip = pytest.mark.skip(reason="NOT RUN: needs a real Fiji; set NRRN_FIJI to its folder")
    for item in items:
        if item.get_closest_marker("fiji"):
            item.add_marker(skip)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which ImageJ the tests ran in."""
    for line in used:
        terminalreporter.write_line(f"ImageJ under test: {line}")


def copied_fiji(fiji: Path, into: Path) -> Path:
    """A copy of a Fiji folder, to install into; files that are never written in place are shared.

    Parameters
    ----------
    fiji
        The Fiji folder.
    into
        Where the copy is made.
    """
    made = into / "Fiji.app"
    same = into.stat().st_dev == fiji.stat().st_dev
    shutil.copytree(fiji, made, symlinks=True, copy_function=os.link if same else shutil.copy2)
    return made


@pytest.fixture(scope="session")
def app() -> jvm.ImageJ:
    """The ImageJ under test, headless."""
    try:
        installed.find_java(installed.check_fiji(ASKED_FIJI) if ASKED_FIJI else None)
    except FileNotFoundError as error:
        pytest.skip(f"NOT RUN: {error}")
    # Java answers segmentation faults of its own making.  pytest's fault handler would take that
    # signal back when it ends, and the process would die with Java's next one.
    faulthandler.disable()
    started = jvm.start(ASKED_FIJI, imagej=ASKED_FIJI is None, memory=1500)
    used.append(str(started))
    return started


@pytest.fixture(scope="session")
def java(app: jvm.ImageJ) -> Any:
    """Look up a Java class by its name."""
    import jpype

    return jpype.JClass


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small model file that changes an image, in a folder with a space in its name."""
    import torch

    from nrrn_fiji.models import save_model
    from nrrn_fiji.network import NRRN

    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("my models") / "tiny.safetensors"
    save_model(path, NRRN(units=2, maps=4), {"description": "small and quick"})
    return str(path)


@pytest.fixture
def in_new_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python source in a process of its own, which may start a Java of its own."""

    def run(source: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), **variables}
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", source],
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a screen that nobody looks at."""
    xvfb = shutil.which("Xvfb")
    if xvfb is None:
        pytest.skip("NOT RUN: needs Xvfb (on Debian and Ubuntu the package xvfb)")
    number = tmp_path_factory.mktemp("xvfb") / "display"
    with open(number, "wb") as file:
        server = subprocess.Popen(
            [xvfb, "-displayfd", "1", "-screen", "0", "1280x1024x24", "-nolisten", "tcp"],
            stdout=file,
            stderr=subprocess.DEVNULL,
        )
    try:
        while not (display := number.read_text()).endswith("\n"):  # written when it is ready
            assert server.poll() is None, "Xvfb has ended."
            time.sleep(0.1)
        yield f":{display.strip()}"
    finally:
        server.terminate()
        server.wait()
