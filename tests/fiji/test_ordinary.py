"""A Fiji that Java started, with our plugin in it: the same macro gives the same there as here.

"plain" is the original ImageJ with Groovy and Appose from Maven Central, laid out as a Fiji folder
is; "fiji" is a copy of the real one that NRRN_FIJI names.  Each is started as its launcher starts
it, without a screen; ``screen_session.py`` plays a user before its windows.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tifffile
from conftest import ASKED_FIJI, copied_fiji
from leftovers import has_ended, shared_memory, shared_since, workers_of

import nrrn_fiji
from nrrn_fiji.fiji import installed, jvm, ordinary, scripts
from nrrn_fiji.formats.image import parse_provenance
from nrrn_fiji.resources import data_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="starts Java as on POSIX"),
]
SECONDS = 900
MARK = "NRRN_TEST_FOLDER"
"""Tells the Fijis of this session from those of others."""
FOLDER_MACRO = data_folder("scripts") / "Plugins" / "NRRN" / "Denoise_Folder.ijm"
# Written for both worlds; every line that it prints is a key and what came of it.
MACRO = """
args = split(getArgument(), ",");
in = args[0]; out = args[1]; model = "model=[" + args[2] + "]";
setBatchMode(true);
open(in + "/cells.tif");
run("Denoise Stack...", model + " units=1 noise");
print("title " + getTitle());
saveAs("Tiff", out + "/denoised.tif");
selectWindow("cells-noise.tif");
saveAs("Tiff", out + "/noise.tif");
close("*");
run("TIFF Virtual Stack...", "open=[" + in + "/plain.tif]");
run("Denoise Stack...", model + " slices=2-3");
saveAs("Tiff", out + "/virtual.tif");
close("*");
open(in + "/plain.tif");
run("Add Noise...", "gaussian=20 seed=3");
saveAs("Tiff", out + "/noisy.tif");
makeRectangle(2, 2, 12, 10);
run("Measure Noise...", "show=table");
print("iqr " + getResult("IQR", nResults - 1));
run("NRRN Macro Extensions");
Ext.iqr(value);
print("ext " + value);
run("Denoise File...", "source=[" + in + "/plain.tif] out=[" + out + "/file.tif] " + model);
run("NRRN Preview...", model);
print("preview " + getTitle());
close("*");
print("folder " + runMacro(args[3], "in=[" + in + "] out=[" + out + "/all] " + model));
newImage("last", "8-bit ramp", 20, 16, 2);
run("Denoise Stack...", "unit=1");
print("went on");
"""


class World(NamedTuple):
    """What the macro did in one of the two worlds."""

    said: dict[str, str]
    """What it printed, by key."""
    output: str
    out: Path
    """The folder it wrote to."""


@pytest.fixture(scope="module", params=["plain", pytest.param("fiji", marks=pytest.mark.fiji)])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Fiji folder of its own, with our plugin installed."""
    made = tmp_path_factory.mktemp(request.param) / "Fiji.app"
    if request.param == "fiji":
        assert ASKED_FIJI is not None
        made = copied_fiji(installed.check_fiji(ASKED_FIJI), made.parent)
    else:
        import jgo

        from nrrn_fiji.fiji.maven import fetch_imagej

        (made / "jars").mkdir(parents=True)
        (made / "plugins").mkdir()
        try:
            environment = jgo.build("org.apposed:appose:0.9.0")
            libraries = [
                *environment.jars_dir.glob("*.jar"),
                *environment.modules_dir.glob("*.jar"),
            ]
            for jar in [*libraries, *fetch_imagej()]:
                # Appose comes with us.
                if not jar.name.startswith(("appose", "jna-platform")):
                    shutil.copy2(jar, made / "jars")
        except Exception as error:
            pytest.skip(f"NOT RUN: Maven Central gave no Groovy and ImageJ ({error})")
    scripts.install_scripts(made)
    return made


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated 16-bit stack of two channels with labels, and a plain one."""
    made = tmp_path_factory.mktemp("my stacks")
    rng = np.random.default_rng(5)
    cells = rng.integers(500, 4000, (3, 2, 24, 32)).astype(np.uint16)
    tifffile.imwrite(
        made / "cells.tif",
        cells,
        imagej=True,
        resolution=(125.0, 125.0),
        metadata={
            "axes": "ZCYX",
            "unit": "nm",
            "spacing": 10.0,
            "Labels": [f"plane {number}" for number in range(6)],
            "Info": "a cell",
        },
    )
    plain = rng.integers(0, 255, (4, 24, 32)).astype(np.uint8)
    tifffile.imwrite(made / "plain.tif", plain, imagej=True, metadata={"axes": "ZYX"})
    return made


def command_line(folder: Path, macro: Path, argument: str) -> list[str]:
    """How a launcher starts that folder without a screen."""
    java = installed.find_java(folder if ASKED_FIJI else None)
    jars = sorted(jar for name in ("jars", "plugins") for jar in (folder / name).rglob("*.jar"))
    words = [
        str(java.home / "bin" / "java"),
        "-Xmx700m",
        "-Djava.awt.headless=true",
        "--add-opens=java.base/java.lang=ALL-UNNAMED",
        f"-Dplugins.dir={folder}",
        f"-Dimagej.dir={folder}",
        "-cp",
        ":".join(map(str, jars)),
    ]
    if any(jar.name.startswith("imagej-legacy") for jar in jars):
        return [*words, "net.imagej.Main", "--headless", "-macro", str(macro), argument]
    patcher = next(jar for jar in jars if jar.name.startswith("ij1-patcher"))
    words.insert(1, f"-javaagent:{patcher}=init")
    return [*words, "ij.ImageJ", "-batch", str(macro), argument]


def in_ordinary(folder: Path, text: str, argument: str, work: Path) -> str:
    """Run a macro in an ordinary Fiji and return what it printed."""
    macro = work / "macro.ijm"
    macro.write_text(text)
    done = subprocess.run(
        command_line(folder, macro, argument),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", MARK: str(folder)},
    )
    return done.stdout + done.stderr


def said_by(output: str) -> dict[str, str]:
    keys = "title|iqr|ext|preview|folder"
    return dict(re.findall(rf"^({keys}) (.*)$", output, re.MULTILINE))


@pytest.fixture(scope="module")
def there(
    folder: Path, stacks: Path, model: str, tmp_path_factory: pytest.TempPathFactory
) -> World:
    """The ordinary Fiji."""
    out = tmp_path_factory.mktemp("there")
    argument = f"{stacks},{out},{model},{FOLDER_MACRO}"
    before = shared_memory()
    output = in_ordinary(folder, MACRO, argument, out)
    assert not shared_since(before)  # all shared memory was given back
    return World(said_by(output), output, out)


@pytest.fixture(scope="module")
def here(
    app: jvm.ImageJ, stacks: Path, model: str, tmp_path_factory: pytest.TempPathFactory
) -> World:
    """The ImageJ in this Python."""
    from nrrn_fiji.fiji.app import run_macro

    out = tmp_path_factory.mktemp("here")
    printed = out / "log.txt"
    text = MACRO.replace("print(", "File.append(").replace('");\n', '");\n')
    text = re.sub(r"File\.append\((.*)\);", rf'File.append(\1, "{printed}");', text)
    with pytest.raises(RuntimeError, match="'unit' is no option"):
        run_macro(app, text, f"{stacks},{out},{model},{FOLDER_MACRO}")
    output = printed.read_text()
    return World(said_by(output), output, out)


def test_the_same_macro_prints_the_same(there: World, here: World) -> None:
    assert set(there.said) == {"title", "iqr", "ext", "preview", "folder"}, there.output
    assert there.said == here.said
    assert there.said["title"] == "cells-denoised.tif"
    assert there.said["folder"] == "2 denoised, 0 there already, 0 failed"


@pytest.mark.parametrize("name", ["denoised", "noise", "virtual", "noisy", "all/plain"])
def test_pixels_and_all_that_goes_with_them_are_the_same(
    there: World, here: World, name: str
) -> None:
    with (
        tifffile.TiffFile(there.out / f"{name}.tif") as one,
        tifffile.TiffFile(here.out / f"{name}.tif") as other,
    ):
        assert np.array_equal(one.asarray(), other.asarray())
        assert one.series[0].axes == other.series[0].axes
        said = [dict(file.imagej_metadata or {}) for file in (one, other)]
    records = [parse_provenance(about.pop("Info")) for about in said]
    for record in records:
        assert record is not None
        record.pop("date")
    assert records[0] == records[1]
    assert json.dumps(said[0], default=str) == json.dumps(said[1], default=str)


def test_the_pixels_are_those_of_the_library(there: World, stacks: Path, model: str) -> None:
    source = tifffile.imread(stacks / "plain.tif")
    expected = nrrn_fiji.denoise(source, model)
    assert np.array_equal(tifffile.imread(there.out / "all" / "plain.tif"), expected)
    assert np.array_equal(tifffile.imread(there.out / "virtual.tif"), expected[1:3])


def test_a_file_is_denoised_without_being_opened(there: World, here: World, stacks: Path) -> None:
    one, other = (tifffile.imread(world.out / "file.tif") for world in (there, here))
    assert np.array_equal(one, other)
    assert np.array_equal(one, tifffile.imread(there.out / "all" / "plain.tif"))


def test_an_error_ends_the_macro_with_a_sentence(there: World) -> None:
    assert "'unit' is no option of 'Denoise Stack...'" in there.output
    assert "went on" not in there.output
    assert "Traceback" not in there.output
    assert "at nrrn." not in there.output  # as a line of Java's own traceback begins


def test_python_ends_with_fiji(there: World, folder: Path) -> None:
    assert there.said  # which Python had told
    assert all(has_ended(pid) for pid in workers_of(MARK, str(folder)))


def test_a_python_that_is_gone_is_said(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = folder / ordinary.PLUGIN
    before = plugin.read_bytes()
    gone = tmp_path / "Über" / "python"
    monkeypatch.setattr(sys, "executable", str(gone))
    try:
        plugin.unlink()
        plugin.write_bytes(ordinary.plugin_files(folder)[ordinary.PLUGIN])
        text = 'newImage("a", "8-bit ramp", 20, 16, 2); run("Denoise Stack...", "units=1");'
        output = in_ordinary(folder, text + '\nprint("went on");', "", tmp_path)
    finally:
        plugin.unlink()
        plugin.write_bytes(before)
    assert re.search(r"The Python that NRRN was installed with is gone \(.*python\)", output)
    assert "nrrn fiji --install" in output
    assert not re.search("^went on", output, re.MULTILINE)


def test_what_is_installed_says_so(folder: Path) -> None:
    found = ordinary.installed_plugin(folder)
    assert found == ordinary.InstalledPlugin(sys.executable, nrrn_fiji.__version__, current=True)


def test_what_was_installed_is_taken_out_again(folder: Path) -> None:
    """The last one: afterwards the folder is as it was."""
    names = set(scripts.installed_files(folder))
    assert {ordinary.PLUGIN, "jars/appose-0.9.0.jar"} <= names
    assert all((folder / name).exists() for name in names)
    scripts.uninstall_scripts(folder)
    assert not any((folder / name).exists() for name in names)
    scripts.install_scripts(folder)


# --- what the plugin is made of, without a Java


def test_the_menu_has_every_command() -> None:
    from nrrn_fiji.fiji.entries import entries

    lines = ordinary.menu().splitlines()
    assert len(lines) == len(entries())
    assert lines[0] == 'Plugins>NRRN, "Denoise Stack...", nrrn.Command("denoise")'


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("/usr/bin/python3", b"python=/usr/bin/python3\n"),
        ("C:\\Users\\J\\python.exe", b"python=C:\\\\Users\\\\J\\\\python.exe\n"),
        ("/home/Jürg/py", b"python=/home/J\\u00fcrg/py\n"),
        ("/home/\N{SNOWMAN}\N{GRINNING FACE}", b"python=/home/\\u2603\\ud83d\\ude00\n"),
    ],
)
def test_the_path_of_python_survives_javas_properties(path: str, written: bytes) -> None:
    assert ordinary._properties({"python": path}) == written
    assert ordinary._read_properties(written) == {"python": path}


def refused(folder: Path, names: list[str], expect: type[Exception], match: str) -> None:
    (folder / "jars").mkdir()
    for name in names:
        (folder / "jars" / name).touch()
    with pytest.raises(expect, match=match):
        ordinary.plugin_files(folder)


CASES: list[tuple[list[str], Any, str]] = [
    (["ij-1.54p.jar"], FileNotFoundError, "has no Groovy in its folder jars"),
    (["groovy-4.0.23.jar"], FileNotFoundError, "has no ImageJ in its folder jars"),
    (["appose-0.5.1.jar"], RuntimeError, r"has appose-0\.5\.1\.jar, but 0\.7 or newer is needed"),
]


@pytest.mark.parametrize(("names", "expect", "match"), CASES)
def test_a_fiji_that_cannot_run_it_is_told_so(
    tmp_path: Path, names: list[str], expect: type[Exception], match: str
) -> None:
    refused(tmp_path, names, expect, match)


def test_a_compiler_that_does_not_end_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jars").mkdir()
    for name in ("ij-1.54p.jar", "groovy-4.0.23.jar"):
        (tmp_path / "jars" / name).touch()

    def late(words: list[str], **how: Any) -> None:
        raise subprocess.TimeoutExpired(words, how["timeout"])

    monkeypatch.setattr(ordinary, "_java", lambda fiji: installed.Java(tmp_path, 17, "17", "", ""))
    monkeypatch.setattr(subprocess, "run", late)
    with pytest.raises(RuntimeError, match="takes more than 10 minutes: install again when"):
        ordinary.plugin_files(tmp_path)


def test_a_plugin_whose_bytes_were_changed_is_told_to_be_damaged(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    content = ordinary._properties({"python": sys.executable, "version": "1"})
    whole = bytearray(ordinary._jar({ordinary.PROPERTIES: content}))
    whole[30 + len(ordinary.PROPERTIES)] = 0xFF  # where the packed bytes begin
    (tmp_path / ordinary.PLUGIN).write_bytes(whole)
    with pytest.raises(ValueError, match=r"is damaged \(.*\): install again"):
        ordinary.installed_plugin(tmp_path)
