"""Two runs into one output are refused, however its path is spelt; a killed run holds nothing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from plain_engine import strong_network

from nrrn_fiji.cli import main
from nrrn_fiji.models import save_model

if os.name != "posix":
    pytest.skip("needs fork and SIGKILL", allow_module_level=True)

from victims import KILLED, Victim, journal_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the stack raw.tif (20, 20, 30), a model, and a link to itself."""
    folder = tmp_path / "stacks"
    folder.mkdir()
    stack = np.random.default_rng(0).integers(0, 200, (20, 20, 30)).astype(np.uint8)
    tifffile.imwrite(folder / "raw.tif", stack, photometric="minisblack")
    save_model(folder / "net.safetensors", strong_network(1, 4), {})
    (tmp_path / "link").symlink_to(folder)
    return folder


def words(folder: Path, out: str | Path) -> list[str | Path]:
    line: list[str | Path] = ["denoise", folder / "raw.tif", out, "--slab", "1", "--tile", "32"]
    return [*line, "--model", folder / "net.safetensors", "--device", "cpu"]


def test_second_run_is_refused_by_every_spelling(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = folder / "clean.tif"
    (folder / "alias.tif").symlink_to(out)
    monkeypatch.chdir(folder)
    victim = Victim(words(folder, out), folder, pieces=1)
    assert victim.wait_until(lambda: journal_of(out) >= 1), victim.said
    spellings = (out, "clean.tif", "../stacks/clean.tif", "../link/clean.tif", folder / "alias.tif")
    for spelling in spellings:
        for more in ([], ["--restart"], ["--overwrite"]):
            assert main([str(word) for word in [*words(folder, spelling), *more]]) == 1
            assert "Another run is writing" in capfd.readouterr().err
    assert victim.process.is_alive(), "the first run must not notice"
    assert victim.kill() == KILLED
    assert journal_of(out) == 1
    assert main([str(word) for word in words(folder, "../link/clean.tif")]) == 0
    assert "slices are finished already" in capfd.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == [
        *("alias.tif", "clean.tif", "net.safetensors", "raw.tif")
    ]


def test_second_training_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    line: list[str | Path] = ["train", folder / "raw.tif", "--units", "1", "--maps", "4"]
    line += ["--crop", "16", "--batch", "1", "--steps", "100", "--device", "cpu"]
    victim = Victim([*line, "-o", folder / "own.safetensors"], folder, pieces=30)
    assert victim.wait_until((folder / "own.checkpoint.safetensors").exists), victim.said
    monkeypatch.chdir(folder)
    for spelling in (folder / "own.safetensors", "own", "../link/own.safetensors"):
        assert main([str(word) for word in [*line, "-o", spelling, "--overwrite"]]) == 1
        assert "Another training is writing" in capfd.readouterr().err
    assert victim.kill() == KILLED
    assert main([str(word) for word in [*line, "-o", folder / "own.safetensors", "--resume"]]) == 0
    assert not list(folder.glob("*.lock"))
