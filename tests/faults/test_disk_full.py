"""A full disk costs a sentence, and nothing that was finished; with room the same command goes on.

The disk is real where the test may mount one (a tmpfs of half a megabyte); where it may not, the
tests are skipped, and tests/test_bad_input.py has the same fault injected into the writers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from plain_engine import strong_network

from nrrn_fiji.api import denoise_file
from nrrn_fiji.cli import main
from nrrn_fiji.files import write_whole
from nrrn_fiji.jobs.train import train_files
from nrrn_fiji.models import install_model, load_model, save_model
from nrrn_fiji.progress import NoProgress
from nrrn_fiji.settings import DenoiseSettings, TrainSettings
from nrrn_fiji.terminal.log_file import LogFile
from nrrn_fiji.volumes import open_volume

SETTINGS = DenoiseSettings(slab=1, device="cpu", tile=64, precision="fp32")
DEPTH = 8


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 512 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A folder on another disk with the stack raw.tif (8, 64, 64) and a model."""
    folder = tmp_path / "given"
    folder.mkdir()
    stack = np.random.default_rng(0).integers(0, 200, (DEPTH, 64, 64)).astype(np.uint8)
    tifffile.imwrite(folder / "raw.tif", stack, photometric="minisblack")
    save_model(folder / "net.safetensors", strong_network(1, 4), {})
    return folder


def fill(disk: Path, left: int = 0) -> Path:
    """Fill a disk with a file, but for so many bytes; return the file."""
    hog = disk / "hog"
    size = max(0, shutil.disk_usage(disk).free - left)
    with contextlib.suppress(OSError), open(hog, "wb", buffering=0) as file:
        file.write(b"x" * size)
    return hog


class FillsAt(NoProgress):
    """Fills a disk when so many slices are done."""

    def __init__(self, disk: Path, slices: float, left: int) -> None:
        self.disk, self.slices, self.left = disk, slices, left

    def update(self, done: float, total: float, text: str = "") -> None:
        if done >= self.slices and not (self.disk / "hog").exists():
            fill(self.disk, self.left)


def pixels(path: Path) -> Any:
    with open_volume(path) as volume:
        return volume.read(0, DEPTH)


@pytest.mark.parametrize(
    ("name", "left"),
    [
        *(("clean.tif", 0), ("clean.tif", 3 * 4096)),
        *((name, 0) for name in ("clean", "clean.zarr", "clean.h5", "clean.mrc")),
    ],
)
def test_blocks_that_were_finished_are_kept(disk: Path, given: Path, name: str, left: int) -> None:
    model, out = given / "net.safetensors", disk / name
    expected = pixels(denoise_file(given / "raw.tif", given / name, model, SETTINGS).image)
    with pytest.raises(OSError, match="There is no space left to write") as full:
        denoise_file(
            given / "raw.tif", out, model, SETTINGS, progress=FillsAt(disk, DEPTH / 2, left)
        )
    assert full.value.errno == errno.ENOSPC and "[Errno" not in str(full.value)
    kept = [words for words in str(full.value).split(": ") if "kept in" in words]
    assert len(kept) == 1 and DEPTH / 2 - 1 <= int(kept[0].split()[0]) <= DEPTH
    assert not out.exists()
    (disk / "hog").unlink()
    report = denoise_file(given / "raw.tif", out, model, SETTINGS)
    assert report.resumed == int(kept[0].split()[0])
    np.testing.assert_array_equal(pixels(out), expected)
    assert [path.name for path in disk.iterdir()] == [name]


def test_wherever_the_disk_is_full_the_next_run_is_whole(disk: Path, given: Path) -> None:
    """Also in the middle of the record of the run, of a line of its journal, of a second output."""
    model = given / "net.safetensors"
    expected = pixels(denoise_file(given / "raw.tif", given / "clean.tif", model, SETTINGS).image)
    failures = 0
    for left in range(0, 30 * 4096, 4 * 4096):
        hog = fill(disk, left)
        with contextlib.suppress(OSError):
            denoise_file(
                given / "raw.tif", disk / "clean.tif", model, SETTINGS, noise_out=disk / "noise.tif"
            )
        failures += not (disk / "clean.tif").exists()
        hog.unlink()
        if not (disk / "clean.tif").exists():
            denoise_file(
                given / "raw.tif", disk / "clean.tif", model, SETTINGS, noise_out=disk / "noise.tif"
            )
        np.testing.assert_array_equal(pixels(disk / "clean.tif"), expected)
        assert sorted(path.name for path in disk.iterdir()) == ["clean.tif", "noise.tif"]
        for path in disk.iterdir():
            path.unlink()
    assert failures > 5


def test_training_keeps_its_last_checkpoint(
    disk: Path, given: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = TrainSettings(
        units=1, maps=4, steps=60, crop=16, batch=1, device="cpu", precision="fp32"
    )
    expected = train_files([given / "raw.tif"], given / "own.safetensors", settings).model
    with pytest.raises(OSError, match="There is no space left to write") as full:
        train_files(
            [given / "raw.tif"], disk / "own.safetensors", settings, progress=FillsAt(disk, 30, 0)
        )
    assert full.value.errno == errno.ENOSPC
    assert str(full.value).endswith("go on with --resume (resume=True).")
    assert not (disk / "own.safetensors").exists()
    (disk / "hog").unlink()
    resumed = train_files([given / "raw.tif"], disk / "own.safetensors", settings, resume=True)
    assert resumed.model.hash == expected.hash
    assert not [path for path in disk.iterdir() if "partial" in path.name]


def test_file_that_was_there_stays(disk: Path) -> None:
    path = disk / "report.html"
    write_whole(path, b"old")
    fill(disk)
    with pytest.raises(OSError, match=r"There is no space left to write .*report\.html") as full:
        write_whole(path, b"new" * 10_000)
    assert full.value.errno == errno.ENOSPC and str(full.value).endswith("same command again.")
    assert path.read_bytes() == b"old"
    assert sorted(file.name for file in disk.iterdir()) == ["hog", "report.html"]


def test_installed_model_stays_when_its_successor_does_not_fit(
    disk: Path, given: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NRRN_MODELS", str(disk))
    before = install_model(given / "net.safetensors", "mine").hash
    save_model(given / "large.safetensors", strong_network(2, 16), {})
    fill(disk)
    line = ["models", "import", str(given / "large.safetensors"), "--name", "mine", "--overwrite"]
    assert main(line) == 1
    said = capfd.readouterr().err
    assert said.startswith("Error: There is no space left to write") and said.count("\n") == 1
    assert load_model("mine").hash == before
    assert not [path for path in os.listdir(disk) if "partial" in path]


@pytest.mark.filterwarnings("default")  # as for a user, to whom a warning is a line
def test_log_that_finds_no_room_does_not_stop_the_run(
    disk: Path, given: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["denoise", str(given / "raw.tif"), str(given / "clean.tif"), "--slab", "1"]
    line += ["--model", str(given / "net.safetensors"), "--log", str(disk / "log.txt")]
    begin = LogFile.__init__

    def begin_and_fill(self: LogFile, *told: Any) -> None:
        begin(self, *told)
        fill(disk)

    monkeypatch.setattr(LogFile, "__init__", begin_and_fill)
    monkeypatch.setattr(LogFile, "progress", lambda self, text, last: self.write("x" * 5000))
    assert main(line) == 0
    said = capfd.readouterr().err
    assert said.count("log.txt cannot be written any more (No space left on device)") == 1
    assert (given / "clean.tif").exists()


def test_metrics_table_that_does_not_fit(
    disk: Path, given: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fill(disk)
    assert main(["metrics", str(given / "raw.tif"), "--out", str(disk / "numbers.csv")]) == 1
    assert "There is no space left to write" in capfd.readouterr().err
    assert [path.name for path in disk.iterdir()] == ["hog"]
