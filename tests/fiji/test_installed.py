"""Java and Fiji are found where users have them, and refused with a sentence."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from nrrn_fiji.fiji import installed

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
    monkeypatch.setattr(installed, "_library_of_jpype", lambda: None)
    monkeypatch.setattr(installed, "_settings_file", lambda: tmp_path / "config" / "fiji.json")
    monkeypatch.setattr(installed, "usual_fiji_places", lambda: [tmp_path / "usual" / "Fiji.app"])
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

    assert installed.find_java().home == on_path
    assert installed.find_java(bare / "Fiji.app").home == in_fiji
    monkeypatch.setenv("JAVA_HOME", str(own))
    found = installed.find_java(bare / "Fiji.app")
    assert (found.home, found.version, found.origin) == (own, 17, "JAVA_HOME")
    homes = [java.home for java in installed.look_for_java(bare / "Fiji.app")]
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
    assert installed.find_java().home == bare / "new"

    old = installed.look_for_java()[0]
    assert isinstance(old, installed.Java)
    assert (old.version, old.home) == (8, jdk)  # the JDK, not the jre inside it
    (bare / "new" / "bin" / "java").write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(FileNotFoundError, match=r"Java 1\.8\.0_452, too old .*adoptium") as caught:
        installed.find_java()
    assert "JAVA_HOME has" in str(caught.value)
    assert "does not run as Java (it ended with code 3)" in str(caught.value)


@posix
def test_a_java_for_another_processor_is_named(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = "aarch64" if platform.machine() == "x86_64" else "amd64"
    monkeypatch.setenv("JAVA_HOME", str(stand_in_java(bare / "other", "21", machine=other)))
    monkeypatch.setenv("PATH", "/bin")
    if Path("/bin/java").exists():
        monkeypatch.setattr(installed.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match=f"made for {other} processors"):
        installed.find_java()


def test_no_java_at_all(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"no java is on the PATH.*Install Java 17"):
        installed.find_java()
    monkeypatch.setenv("JAVA_HOME", str(bare / "gone"))
    with pytest.raises(FileNotFoundError, match=r"JAVA_HOME names .*gone, which holds no Java"):
        installed.find_java()


# --- Fiji


def test_a_fiji_folder_is_understood_however_it_is_named(tmp_path: Path) -> None:
    fiji = stand_in_fiji(tmp_path / "download" / "Fiji.app")
    program = fiji / "fiji-linux-x64"
    program.touch()
    inside = fiji / "Contents" / "MacOS" / "fiji-macos"
    inside.parent.mkdir(parents=True)
    inside.touch()
    for named in (fiji, fiji.parent, program, inside, str(fiji)):
        assert installed.check_fiji(named) == fiji


def test_a_folder_that_is_no_fiji_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*gone"):
        installed.check_fiji(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"is no Fiji folder: .*jars.*plain ImageJ"):
        installed.check_fiji(tmp_path)
    plain = tmp_path / "ImageJ"
    (plain / "jars").mkdir(parents=True)
    (plain / "jars" / "ij-1.54p.jar").touch()  # ImageJ without ImageJ2
    with pytest.raises(FileNotFoundError, match="is no Fiji folder"):
        installed.check_fiji(plain)
    fiji = stand_in_fiji(tmp_path / "Fiji.app")
    with pytest.raises(FileNotFoundError, match="is no Fiji folder"):
        installed.check_fiji(fiji / "plugins")  # a folder is never looked for upwards


def test_where_fiji_is_looked_for(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"No Fiji was found.*usual.*--imagej"):
        installed.find_fiji()
    usual = stand_in_fiji(bare / "usual" / "Fiji.app")
    assert installed.find_fiji() == usual
    kept = stand_in_fiji(bare / "kept")
    installed.remember_fiji(kept)
    assert installed.remembered_fiji() == kept
    assert installed.find_fiji() == kept
    second = stand_in_fiji(bare / "second")
    monkeypatch.setenv("FIJI_HOME", str(second))
    assert installed.find_fiji() == second
    first = stand_in_fiji(bare / "first")
    monkeypatch.setenv("NRRN_FIJI", str(first))
    assert installed.find_fiji() == first
    named = stand_in_fiji(bare / "named")
    assert installed.find_fiji(named) == named


def test_a_wrong_variable_is_an_error_and_a_forgotten_folder_is_not(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = stand_in_fiji(bare / "usual" / "Fiji.app")
    installed.remember_fiji(bare / "moved-away")
    assert installed.find_fiji() == usual
    (bare / "config" / "fiji.json").write_text("{ damaged")
    assert installed.remembered_fiji() is None
    assert installed.find_fiji() == usual
    monkeypatch.setenv("NRRN_FIJI", str(bare / "gone"))
    with pytest.raises(FileNotFoundError, match=r"variable NRRN_FIJI is .*There is no folder"):
        installed.find_fiji()


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
    places = [str(place) for place in installed.usual_fiji_places()]
    assert expected in [place.replace("\\/", "\\") for place in places]
    assert str(Path.home() / "Fiji.app") in places


@pytest.mark.parametrize(
    ("jars", "name", "newest"),
    [
        (["ij-1.53t.jar", "ij-1.54p.jar", "ij1-patcher-2.0.jar"], "ij", "ij-1.54p.jar"),
        (
            ["groovy-4.0.9.jar", "groovy-4.0.23.jar", "groovy-json-5.jar"],
            "groovy",
            "groovy-4.0.23.jar",
        ),
        (["groovy-all-2.4.8.jar", "groovy-xml-4.0.jar"], "groovy(-all)?", "groovy-all-2.4.8.jar"),
        (["imagej-2.16.0.jar"], "ij", None),
    ],
)
def test_of_several_jars_the_newest_counts(
    tmp_path: Path, jars: list[str], name: str, newest: str | None
) -> None:
    (tmp_path / "jars").mkdir()
    for jar in jars:
        (tmp_path / "jars" / jar).touch()
    found = installed.newest_jar(tmp_path, name)
    assert found == (newest and tmp_path / "jars" / newest)
