"""Scripts and macros for Fiji's menu: put into its folder, taken out again, and what they do."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

import nrrn_fiji
from nrrn_fiji import cli
from nrrn_fiji.fiji import jvm, scripts
from nrrn_fiji.resources import data_folder

Run = Callable[..., "subprocess.CompletedProcess[str]"]
OURS = data_folder("scripts") / "Plugins" / "NRRN"


PLUGIN = {"plugins/NRRN_Denoising.jar": b"plugin", "jars/appose-0.9.0.jar": b"appose"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for a Fiji folder, with a script of the user's own."""
    fiji = tmp_path / "Fiji.app"
    (fiji / "jars").mkdir(parents=True)
    for name in ("ij-1.54p.jar", "imagej-2.16.0.jar", "imagej-legacy-2.0.1.jar"):
        (fiji / "jars" / name).touch()
    (fiji / "scripts" / "Plugins" / "NRRN").mkdir(parents=True)
    (fiji / "plugins").mkdir()
    (fiji / "scripts" / "Plugins" / "NRRN" / "My_Own.ijm").write_text("print(1);")
    # Compiling takes seconds, and a Groovy: test_ordinary.py does it.
    monkeypatch.setattr(scripts, "plugin_files", lambda fiji: dict(PLUGIN))
    return fiji


def there(fiji: Path) -> set[str]:
    names = {path.name for path in (fiji / "scripts" / "Plugins" / "NRRN").iterdir()}
    return names - {scripts.LIST}


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(["fiji", *words])
    out, err = capsys.readouterr()
    return code, out, err


# --- install and uninstall


def test_what_is_installed_is_taken_out_and_nothing_else(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    code, out, _ = run(capsys, "--install", "--fiji", str(folder))
    assert code == 0
    assert "Denoise_Folder.ijm" in out
    macros = {file.name for file in OURS.glob("*.ijm")}
    assert there(folder) == macros | {"My_Own.ijm"}
    for name, content in PLUGIN.items():
        assert (folder / name).read_bytes() == content
    code, out, _ = run(capsys, "--install", "--fiji", str(folder))  # as after an update
    assert code == 0
    code, out, _ = run(capsys, "--uninstall", "--fiji", str(folder))
    assert code == 0
    assert "Denoise_Folder.ijm" in out
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == before
    code, out, _ = run(capsys, "--uninstall", "--fiji", str(folder))
    assert (code, "Nothing of NRRN is installed" in out) == (0, True)


def test_what_another_version_put_there_goes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts.install_scripts(folder)
    newer = {"plugins/NRRN_Denoising.jar": b"newer", "jars/appose-0.10.0.jar": b"appose"}
    monkeypatch.setattr(scripts, "plugin_files", lambda fiji: newer)
    scripts.install_scripts(folder)
    assert (folder / "plugins" / "NRRN_Denoising.jar").read_bytes() == b"newer"
    assert not (folder / "jars" / "appose-0.9.0.jar").exists()
    assert (folder / "jars" / "appose-0.10.0.jar").exists()


def test_a_library_that_fiji_has_is_left_alone(folder: Path) -> None:
    own = folder / "jars" / "appose-0.9.0.jar"
    own.write_bytes(b"Fiji's own build")
    scripts.install_scripts(folder)
    assert own.read_bytes() == b"Fiji's own build"
    scripts.uninstall_scripts(folder)
    assert own.read_bytes() == b"Fiji's own build"


def test_nothing_is_copied_into_a_fiji_that_cannot_run_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError, match="has no Groovy in its folder jars"):
        scripts.install_scripts(folder)
    assert there(folder) == {"My_Own.ijm"}
    assert not list((folder / "plugins").iterdir())


def test_an_empty_folder_goes_with_the_last_script(folder: Path) -> None:
    menu = folder / "scripts" / "Plugins" / "NRRN"
    (menu / "My_Own.ijm").unlink()
    scripts.install_scripts(folder)
    scripts.uninstall_scripts(folder)
    assert not menu.exists()
    assert menu.parent.is_dir()


def test_a_script_that_somebody_changed_stays(folder: Path) -> None:
    scripts.install_scripts(folder)
    changed = folder / "scripts" / "Plugins" / "NRRN" / "Denoise_Folder.ijm"
    changed.write_text("print('mine now');")
    with pytest.raises(
        FileExistsError, match=r"holds scripts/.*/Denoise_Folder\.ijm, .* move it away"
    ):
        scripts.install_scripts(folder)
    report = scripts.uninstall_scripts(folder)
    assert "somebody has changed them: scripts/Plugins/NRRN/Denoise_Folder.ijm" in report.summary
    assert changed.read_text() == "print('mine now');"
    assert there(folder) == {"My_Own.ijm", "Denoise_Folder.ijm"}


def test_a_file_of_the_users_that_has_our_name_stays(folder: Path) -> None:
    own = folder / "scripts" / "Plugins" / "NRRN" / "Denoise_Folder.ijm"
    own.write_text("print('mine');")
    with pytest.raises(FileExistsError, match="nrrn did not put there"):
        scripts.install_scripts(folder)
    assert own.read_text() == "print('mine');"
    assert there(folder) == {"My_Own.ijm", "Denoise_Folder.ijm"}


def test_a_damaged_list_leads_nowhere_else(folder: Path, tmp_path: Path) -> None:
    scripts.install_scripts(folder)
    outside = tmp_path / "outside.txt"
    outside.write_text("keep")
    list_file = folder / "scripts" / "Plugins" / "NRRN" / scripts.LIST
    list_file.write_text('{"files": {"../outside.txt": "x", "jars/../../outside.txt": "x"}}')
    scripts.uninstall_scripts(folder)
    assert outside.read_text() == "keep"
    list_file.write_text("{ damaged")
    with pytest.raises(ValueError, match="is damaged"):
        scripts.uninstall_scripts(folder)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--install", "--uninstall"], "--install and --uninstall contradict each other"),
        (["--imagej", "--install"], "--imagej is plain ImageJ without a Fiji folder"),
        (["--install", "--fiji", "/nowhere/Fiji.app"], "There is no folder /nowhere/Fiji.app"),
    ],
)
def test_what_makes_no_sense_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *words)
    assert (code, out) == (1, "")
    assert message in err


# --- the macro for a folder


@pytest.fixture
def stacks(tmp_path: Path) -> Path:
    """A folder with two stacks, one that was cut off, an RGB image and a text."""
    folder = tmp_path / "my stacks"
    folder.mkdir()
    random = np.random.default_rng(5)
    for name in ("a", "c"):
        planes = random.integers(0, 255, (3, 16, 20)).astype(np.uint8)
        tifffile.imwrite(folder / f"{name} 1.tif", planes, imagej=True, metadata={"axes": "ZYX"})
    (folder / "b.tif").write_bytes((folder / "a 1.tif").read_bytes()[:400])
    tifffile.imwrite(folder / "d.TIFF", np.zeros((16, 20, 3), np.uint8), photometric="rgb")
    (folder / "notes.txt").write_text("no image")
    return folder


def test_one_bad_file_does_not_stop_the_rest(
    app: jvm.ImageJ, stacks: Path, model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from nrrn_fiji.fiji.app import run_macro

    macro = (OURS / "Denoise_Folder.ijm").read_text(encoding="utf-8")
    out = tmp_path / "denoised stacks"
    asked = f"in=[{stacks}] model=[{model}] units=1 out=[{out}]"
    with pytest.raises(RuntimeError, match="ended itself with exit"):
        run_macro(app, macro, asked)
    said = capfd.readouterr().out
    assert "a 1.tif: denoised" in said
    assert "c 1.tif: denoised" in said
    assert "2 denoised, 0 there already, 2 failed" in said, said
    # ImageJ would open it without a word, with fewer slices.
    assert re.search(r"^b\.tif: failed: .*b\.tif is damaged or incomplete", said, re.MULTILINE)
    assert re.search(r"^d\.TIFF: failed: .*RGB", said, re.MULTILINE)
    assert sorted(file.name for file in out.iterdir()) == ["a 1.tif", "c 1.tif"]
    for name in ("a 1.tif", "c 1.tif"):
        expected = nrrn_fiji.denoise(tifffile.imread(stacks / name), model, units=1)
        assert np.array_equal(tifffile.imread(out / name), expected)

    # The same again does only what is missing, and is a success when nothing fails any more.
    (stacks / "b.tif").unlink()
    (stacks / "d.TIFF").unlink()
    (out / "c 1.tif").unlink()
    assert run_macro(app, macro, asked) == "1 denoised, 1 there already, 0 failed"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("in=somewhere", "Give two folders: in=FOLDER out=FOLDER"),
        ("in=/no/such/folder out=/tmp/x", "There is no folder /no/such/folder"),
        ("in=STACKS out=STACKS", "The results need a folder of their own"),
        ("in=OUT out=[OUT/new]", "There is no TIFF file in"),
    ],
)
def test_folders_that_cannot_be_used(
    app: jvm.ImageJ,
    stacks: Path,
    tmp_path: Path,
    asked: str,
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from nrrn_fiji.fiji.app import run_macro

    macro = (OURS / "Denoise_Folder.ijm").read_text(encoding="utf-8")
    (tmp_path / "empty").mkdir()
    asked = asked.replace("STACKS", f"[{stacks}]").replace("OUT/new", f"{tmp_path}/empty/new")
    with pytest.raises(RuntimeError, match="ended itself with exit"):
        run_macro(app, macro, asked.replace("OUT", str(tmp_path / "empty")))
    assert message in capfd.readouterr().out


def test_a_model_is_trained_and_used(app: jvm.ImageJ, stacks: Path, tmp_path: Path) -> None:
    from nrrn_fiji.fiji.app import run_macro

    macro = (OURS / "Train_Model.ijm").read_text(encoding="utf-8")
    source, out = stacks / "large.tif", tmp_path / "out.tif"
    planes = np.random.default_rng(6).integers(0, 255, (6, 64, 64)).astype(np.uint8)
    tifffile.imwrite(source, planes, imagej=True, metadata={"axes": "ZYX"})
    asked = f"in=[{source}] out={out} name=mine steps=2 units=1 maps=2 batch=1 crop=16"
    assert run_macro(app, macro, asked) == "Trained mine"
    assert np.array_equal(tifffile.imread(out), nrrn_fiji.denoise(tifffile.imread(source), "mine"))
    with pytest.raises(RuntimeError, match="A model named mine is there already"):
        run_macro(app, macro, asked)


def test_what_is_wrong_with_a_file(app: jvm.ImageJ, stacks: Path) -> None:
    from nrrn_fiji.fiji.app import run_macro

    asked = 'return call("nrrn.Batch.problem", getArgument());'
    assert not run_macro(app, asked, str(stacks / "a 1.tif"))
    assert "is damaged or incomplete" in str(run_macro(app, asked, str(stacks / "b.tif")))
    assert "notes.txt" in str(run_macro(app, asked, str(stacks / "notes.txt")))


def test_a_piece_of_macro_may_fail(app: jvm.ImageJ, model: str) -> None:
    from nrrn_fiji.fiji.app import run_macro

    said = run_macro(
        app,
        """
        setBatchMode(true);
        newImage("mine", "8-bit ramp", 20, 16, 2);
        first = call("nrrn.Batch.attempt", "return getArgument() + 1;", "a");
        second = call("nrrn.Batch.attempt", "\\n\\nx = ;", "");
        third = call("nrrn.Batch.attempt", "run('Denoise Stack...', 'model=nosuch');", "");
        return first + "|" + second + "|" + third + "|" + getTitle();
        """,
    )
    first, second, third, title = str(said).split("|")
    assert first == "a1"
    assert second == "failed: Number or numeric function expected."
    assert third.startswith("failed: No model is named 'nosuch'")
    assert title == "mine"  # and the macro goes on with its own image


# --- nrrn macro


def test_the_exit_code_tells_failure(app: jvm.ImageJ, in_new_python: Run, tmp_path: Path) -> None:
    which = ["--imagej"] if app.fiji is None else ["--fiji", str(app.fiji)]
    macro = tmp_path / "fails.ijm"
    macro.write_text('print("before");\nrun("Denoise Stack...", "unit=3");\nprint("after");')
    source = "import sys; from nrrn_fiji.cli import main; sys.exit(main({}))"
    done = in_new_python(source.format(["macro", str(macro), *which]))
    assert done.returncode == 1
    assert "before" in done.stdout
    assert "after" not in done.stdout
    assert "Error: 'unit' is no option of 'Denoise Stack...'" in done.stderr
    assert "(line 2 of the macro)" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as on POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_macro_can_be_stopped(app: jvm.ImageJ, tmp_path: Path, number: int) -> None:
    macro = tmp_path / "endless.ijm"
    macro.write_text('print("begun"); while (true) wait(20);')
    which = ["--imagej"] if app.fiji is None else ["--fiji", str(app.fiji)]
    with subprocess.Popen(
        [sys.executable, "-m", "nrrn_fiji", "macro", str(macro), *which],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        cwd=Path(nrrn_fiji.__file__).parents[1],
    ) as process:
        try:
            assert process.stdout is not None
            assert next(iter(process.stdout)) == "begun\n"
            process.send_signal(number)
            _, said = process.communicate(timeout=900)  # the macro alone would never end
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Stopped." in said


def test_a_macro_is_found_by_its_name_and_a_missing_one_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert scripts.our_macro("Denoise_Folder.ijm") == OURS / "Denoise_Folder.ijm"
    assert scripts.our_macro("../NRRN/Denoise_Folder.ijm") is None
    assert scripts.our_macro("README.md") is None
    assert cli.main(["macro", "gone.ijm", "--imagej"]) == 1
    assert "gone.ijm: No such file or directory." in capsys.readouterr().err
    assert cli.main(["macro"]) == 2


def test_help_of_these_commands_needs_no_java() -> None:
    code = (
        "import sys; from nrrn_fiji.cli import main\n"
        "for name in ('macro', 'fiji', 'doctor'): assert main([name, '-h']) == 0\n"
        "assert not {'jpype', 'scyjava', 'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=900)
