"""The file that ``--log`` writes for a support request."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

import nrrn_fiji
from nrrn_fiji import cli
from nrrn_fiji.terminal import console
from nrrn_fiji.terminal.log_file import LogFile, package_versions


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.txt"


def said(log: Path) -> str:
    """What stands in the log, without the seconds."""
    lines = log.read_text(encoding="utf-8").splitlines()
    matches = [re.fullmatch(r" *\d+\.\d s  (.*)", line) for line in lines]
    assert all(matches)
    return "\n".join(match[1] for match in matches if match)


def test_a_run_is_written_down(
    tmp_path: Path, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = np.arange(3 * 16 * 16, dtype=np.uint16).reshape(3, 16, 16)
    tifffile.imwrite(tmp_path / "my stack.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    words = ["add-noise", str(tmp_path / "my stack.tif"), "--gaussian", "9", "--log", str(log)]
    assert cli.main(words) == 0
    text = said(log)
    assert f"nrrn add-noise '{tmp_path}/my stack.tif' --gaussian 9 --log" in text
    assert f"nrrn-fiji {nrrn_fiji.__version__}" in text
    assert f"torch {package_versions()['torch']}" in text
    assert "3/3 slices" in text
    assert capsys.readouterr().out.splitlines()[-1] in text
    assert text.endswith("exit code: 0")


def test_an_error_is_written_with_its_traceback_and_the_user_sees_a_sentence(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["models", "show", "nobody", "--log", str(log)]) == 1
    assert "Traceback" not in capsys.readouterr().err
    text = said(log)
    assert "Traceback (most recent call last)" in text
    assert "No model is named 'nobody'" in text
    assert text.endswith("exit code: 1")


def test_runs_are_appended_and_json_stays_json(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert cli.main(["models", "list", "--json", "--log", str(log)]) == 0
    assert [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert said(log).count("nrrn run of") == 2


def test_messages_and_warnings_are_written_whatever_is_shown(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import warnings

    shown = console.Console(quiet=True)
    shown.log = LogFile(log, ["work"])
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = cli.show_warning
        with shown.log.open(), shown.job("slices", "work") as progress:
            progress.message("The slices drift.")
            warnings.warn("low\n memory", UserWarning, stacklevel=1)
    assert "The slices drift.\nWarning: low memory" in said(log)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "Warning: low memory\n")


def test_a_log_that_cannot_be_written_is_one_sentence_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["models", "list", "--log", str(tmp_path / "none" / "log.txt")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch("Error: .*log.txt: No such file or directory.\n", err)


def test_nothing_of_the_environment_is_written(log: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "nrrn_fiji", "models", "list", "--log", str(log)],
        env={**os.environ, "SECRET_WORD": "xyzzy"},
        check=True,
        capture_output=True,
    )
    assert "xyzzy" not in log.read_text()
