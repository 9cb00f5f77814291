"""ImageJ starts in this Python as it was asked for, offline, and lets Python end."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nrrn_fiji.fiji import jvm, maven

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_imagej_runs_macros_headless(app: jvm.ImageJ) -> None:
    import jpype

    assert app.headless
    assert jpype.JClass("java.awt.GraphicsEnvironment").isHeadless()
    result = jpype.JClass("ij.IJ").runMacro(
        'newImage("ramp", "8-bit ramp", 256, 4, 3); run("Invert", "stack");'
        'value = getPixel(10, 2); close(); return "" + value;'
    )
    assert result == "245"


def test_a_second_start_gives_the_same_or_says_why_not(app: jvm.ImageJ) -> None:
    assert jvm.running() is app
    assert jvm.start(app.fiji, imagej=app.fiji is None) is app
    assert "headless" in str(app)
    with pytest.raises(RuntimeError, match=r"Java already runs .*starts only once"):
        jvm.start(app.fiji, imagej=app.fiji is None, headless=False)


def test_the_choices_of_a_start_hold_and_control_c_stays_with_python(
    app: jvm.ImageJ, in_new_python: Run
) -> None:
    done = in_new_python(
        "import os, signal, sys, time\n"
        "from nrrn_fiji import fiji\n"
        "assert not {'jpype', 'scyjava', 'imagej', 'numpy'} & set(sys.modules)\n"
        "fiji.start(imagej=True, memory=300, options=['-Dnrrn.test=seen'])\n"
        "import jpype\n"
        "system = jpype.JClass('java.lang.System')\n"
        "memory = jpype.JClass('java.lang.Runtime').getRuntime().maxMemory() / 2**20\n"
        "print(system.getProperty('nrrn.test'), 250 < memory <= 300)\n"
        "print(jpype.JClass('ij.IJ').getDirectory('imagej'))\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT); time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    assert done.returncode == 0, done.stderr
    first, folder, last = done.stdout.split("\n", 2)
    assert first == "seen True"
    assert Path(folder) != Path.cwd()  # what lies in the current folder is not ImageJ's
    assert last.strip() == "interrupted"


def test_python_ends_although_threads_of_java_do_not(app: jvm.ImageJ, in_new_python: Run) -> None:
    which = "imagej=True" if app.fiji is None else f"{str(app.fiji)!r}"
    done = in_new_python(
        "import time\n"
        "from nrrn_fiji import fiji\n"
        f"fiji.start({which})\n"
        "import jpype\n"
        "J = jpype.JClass\n"
        "work = jpype.JProxy('java.lang.Runnable', {'run': lambda: None})\n"
        "J('ij.util.ThreadUtil').threadPoolExecutor.submit(work).get()\n"  # as its filters do
        "wait = jpype.JProxy('java.lang.Runnable', {'run': lambda: time.sleep(600)})\n"
        "J('java.lang.Thread')(wait).start()\n"
        "print('the end')\n"
    )  # would not return
    assert done.returncode == 0, done.stderr
    assert "the end" in done.stdout


def test_no_screen_is_said_before_java_starts(in_new_python: Run) -> None:
    if platform.system() != "Linux":
        pytest.skip("only X11 tells beforehand")
    done = in_new_python(
        "from nrrn_fiji import fiji\n"
        "try:\n"
        "    fiji.start(imagej=True, headless=False)\n"
        "except RuntimeError as error:\n"
        "    print(error)\n"
        "import jpype; print(jpype.isJVMStarted())\n",
        DISPLAY="",
    )
    assert "There is no screen" in done.stdout
    assert "nrrn macro" in done.stdout
    assert done.stdout.endswith("False\n")


def test_a_java_that_cannot_start_is_said(app: jvm.ImageJ, in_new_python: Run) -> None:
    done = in_new_python(
        "from nrrn_fiji import fiji\n"
        "try:\n"
        "    fiji.start(imagej=True, options=['-XX:NoSuchOption=1'])\n"
        "except RuntimeError as error:\n"
        "    print(error)\n"
    )
    assert "did not start" in done.stdout, done.stderr
    assert "JAVA_HOME" in done.stdout


@pytest.mark.parametrize("kind", ["imagej", pytest.param("fiji", marks=pytest.mark.fiji)])
def test_nothing_is_fetched_once_it_is_there(
    app: jvm.ImageJ, in_new_python: Run, kind: str
) -> None:
    if kind == "imagej":
        maven.fetch_imagej()
    choice = "imagej=True" if kind == "imagej" else f"{str(app.fiji)!r}"
    done = in_new_python(
        "import socket\n"
        "def refuse(*args): raise OSError('a connection was asked for')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from nrrn_fiji import fiji\n"
        f"app = fiji.start({choice}, options=['-Dhttp.proxyHost=127.0.0.1', '-Dhttp.proxyPort=9',"
        " '-Dhttps.proxyHost=127.0.0.1', '-Dhttps.proxyPort=9'])\n"
        "print(app)\n"
    )
    assert done.returncode == 0, done.stderr
    assert ("plain ImageJ 1.54p" if kind == "imagej" else "Fiji (ImageJ 2.") in done.stdout


@pytest.mark.fiji
def test_fiji_has_imagej2_and_its_own_folders(app: jvm.ImageJ) -> None:
    import jpype

    assert app.gateway is not None
    assert app.gateway.legacy.isActive()
    assert Path(str(jpype.JClass("ij.IJ").getDirectory("plugins"))) == app.fiji / "plugins"
    assert app.gateway.py.to_java([1, 2]).size() == 2  # PyImageJ's own converters are in place
