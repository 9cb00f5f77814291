"""Java and Fiji are found where users have them, refused with a sentence, and started offline."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from nrrn_fiji.fiji import jvm

Run = Callable[..., "subprocess.CompletedProcess[str]"]

posix = pytest.mark.skipif(os.name == "nt", reason="the stand-in for Java is a shell script")


def stand_in_java(
    home: Path, version: str, machine: str | None = None, said_home: str = ""
) -> Path:
    """A ``java`` program that describes itself as the real one does."""
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(
        "#!/bin/sh\ncat >&2 <<END\nProperty settings:\n"
        f"    java.home = {said_home or home}\n"
        f"    java.version = {version}\n"
        f"    java.version.date = 2025-04-15\n"
        f"    os.arch = {machine or platform.machine()}\n"
        "END\n"
    )
    program.chmod(0o755)
    return home


def stand_in_fiji(folder: Path) -> Path:
    """A folder with the jars by which a Fiji is recognised."""
    (folder / "jars").mkdir(parents=True)
    (folder / "plugins").mkdir()
    for name in ("ij-1.54p.jar", "imagej-2.16.0.jar", "imagej-legacy-2.0.1.jar"):
        (folder / "jars" / name).touch()
    return folder


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A computer with no Java, no Fiji and nothing remembered."""
    for name in ("JAVA_HOME", "NRRN_FIJI", "FIJI_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(jvm, "_library_of_jpype", lambda: None)
    monkeypatch.setattr(jvm, "_settings_file", lambda: tmp_path / "config" / "fiji.json")
    monkeypatch.setattr(jvm, "usual_fiji_places", lambda: [tmp_path / "usual" / "Fiji.app"])
    return tmp_path


# --- Java


@posix
def test_java_home_comes_before_fiji_and_fiji_before_the_path(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cat = "/bin:/usr/bin"  # the stand-ins need cat; there may be a real java beside it
    own = stand_in_java(bare / "own", "17.0.2")
    on_path = stand_in_java(bare / "path", "21.0.1")
    platform_folder = {"Darwin": "macos-arm64"}.get(platform.system(), "linux-amd64")
    in_fiji = stand_in_java(bare / "Fiji.app" / "java" / platform_folder / "zulu21", "21.0.5")
    monkeypatch.setenv("PATH", f"{on_path / 'bin'}:{cat}")

    assert jvm.find_java().home == on_path
    assert jvm.find_java(bare / "Fiji.app").home == in_fiji
    monkeypatch.setenv("JAVA_HOME", str(own))
    found = jvm.find_java(bare / "Fiji.app")
    assert (found.home, found.version, found.origin) == (own, 17, "JAVA_HOME")
    homes = [java.home for java in jvm.look_for_java(bare / "Fiji.app")]
    assert homes == [own, in_fiji, on_path]


@posix
def test_a_java_that_is_too_old_is_passed_over_or_named(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jdk = bare / "jdk8"
    stand_in_java(jdk, "1.8.0_452", said_home=str(jdk / "jre"))
    monkeypatch.setenv("JAVA_HOME", str(jdk))
    monkeypatch.setenv("PATH", f"{bare / 'new' / 'bin'}:/bin:/usr/bin")
    stand_in_java(bare / "new", "11.0.9.1")
    assert jvm.find_java().home == bare / "new"

    old = jvm.look_for_java()[0]
    assert isinstance(old, jvm.Java)
    assert (old.version, old.home) == (8, jdk)  # the JDK, not the jre inside it
    (bare / "new" / "bin" / "java").write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(FileNotFoundError, match=r"Java 1\.8\.0_452, too old .*adoptium") as caught:
        jvm.find_java()
    assert "JAVA_HOME has" in str(caught.value)
    assert "does not run as Java (it ended with code 3)" in str(caught.value)


@posix
def test_a_java_for_another_processor_is_named(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = "aarch64" if platform.machine() == "x86_64" else "amd64"
    monkeypatch.setenv("JAVA_HOME", str(stand_in_java(bare / "other", "21", machine=other)))
    monkeypatch.setenv("PATH", "/bin")
    if Path("/bin/java").exists():
        monkeypatch.setattr(jvm.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match=f"made for {other} processors"):
        jvm.find_java()


def test_no_java_at_all(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"no java is on the PATH.*Install Java 17"):
        jvm.find_java()
    monkeypatch.setenv("JAVA_HOME", str(bare / "gone"))
    with pytest.raises(FileNotFoundError, match=r"JAVA_HOME names .*gone, which holds no Java"):
        jvm.find_java()


# --- Fiji


def test_a_fiji_folder_is_understood_however_it_is_named(tmp_path: Path) -> None:
    fiji = stand_in_fiji(tmp_path / "download" / "Fiji.app")
    program = fiji / "fiji-linux-x64"
    program.touch()
    inside = fiji / "Contents" / "MacOS" / "fiji-macos"
    inside.parent.mkdir(parents=True)
    inside.touch()
    for named in (fiji, fiji.parent, program, inside, str(fiji)):
        assert jvm.check_fiji(named) == fiji


def test_a_folder_that_is_no_fiji_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*gone"):
        jvm.check_fiji(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"is no Fiji folder: .*jars.*plain ImageJ"):
        jvm.check_fiji(tmp_path)
    plain = tmp_path / "ImageJ"
    (plain / "jars").mkdir(parents=True)
    (plain / "jars" / "ij-1.54p.jar").touch()  # ImageJ without ImageJ2
    with pytest.raises(FileNotFoundError, match="is no Fiji folder"):
        jvm.check_fiji(plain)
    fiji = stand_in_fiji(tmp_path / "Fiji.app")
    with pytest.raises(FileNotFoundError, match="is no Fiji folder"):
        jvm.check_fiji(fiji / "plugins")  # a folder is never looked for upwards


def test_where_fiji_is_looked_for(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"No Fiji was found.*usual.*--imagej"):
        jvm.find_fiji()
    usual = stand_in_fiji(bare / "usual" / "Fiji.app")
    assert jvm.find_fiji() == usual
    kept = stand_in_fiji(bare / "kept")
    jvm.remember_fiji(kept)
    assert jvm.remembered_fiji() == kept
    assert jvm.find_fiji() == kept
    second = stand_in_fiji(bare / "second")
    monkeypatch.setenv("FIJI_HOME", str(second))
    assert jvm.find_fiji() == second
    first = stand_in_fiji(bare / "first")
    monkeypatch.setenv("NRRN_FIJI", str(first))
    assert jvm.find_fiji() == first
    named = stand_in_fiji(bare / "named")
    assert jvm.find_fiji(named) == named


def test_a_wrong_variable_is_an_error_and_a_forgotten_folder_is_not(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = stand_in_fiji(bare / "usual" / "Fiji.app")
    jvm.remember_fiji(bare / "moved-away")
    assert jvm.find_fiji() == usual
    (bare / "config" / "fiji.json").write_text("{ damaged")
    assert jvm.remembered_fiji() is None
    assert jvm.find_fiji() == usual
    monkeypatch.setenv("NRRN_FIJI", str(bare / "gone"))
    with pytest.raises(FileNotFoundError, match=r"variable NRRN_FIJI is .*There is no folder"):
        jvm.find_fiji()


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("Linux", "/opt/Fiji.app"),
        ("Darwin", "/Applications/Fiji.app"),
        ("Windows", "C:\\Fiji.app"),
    ],
)
def test_the_usual_places_of_each_system(
    system: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setenv("SystemDrive", "C:")
    places = [str(place) for place in jvm.usual_fiji_places()]
    assert expected in [place.replace("\\/", "\\") for place in places]
    assert str(Path.home() / "Fiji.app") in places


# --- plain ImageJ from Maven Central


def test_a_fetch_that_was_cut_off_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jgo

    names = [":".join(endpoint.split(":")[1:]).replace(":", "-") for endpoint in jvm.ENDPOINTS]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder, present in ((whole, names), (cut, names[:2])):
        folder.mkdir()
        for name in present:
            (folder / f"{name}.jar").write_bytes(b"PK")
    asked = []

    def build(endpoint: str, update: bool) -> SimpleNamespace:
        asked.append(update)
        return SimpleNamespace(jars_dir=whole if update else cut, modules_dir=tmp_path / "none")

    monkeypatch.setattr(jgo, "build", build)
    jars = jvm.fetch_imagej()
    assert asked == [False, True]
    assert {jar.name for jar in jars} == {f"{name}.jar" for name in names}


def test_no_network_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import jgo

    def build(endpoint: str, update: bool) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(jgo, "build", build)
    with pytest.raises(ConnectionError, match=r"Maven Central \(no route to host\).*--fiji DIR"):
        jvm.fetch_imagej()


# --- start


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
        "begun = time.monotonic()\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT); time.sleep(20)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', time.monotonic() - begun < 10)\n"
    )
    assert done.returncode == 0, done.stderr
    first, folder, last = done.stdout.split("\n", 2)
    assert first == "seen True"
    assert Path(folder) != Path.cwd()  # what lies in the current folder is not ImageJ's
    assert last.strip() == "interrupted True"


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
        jvm.fetch_imagej()
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
