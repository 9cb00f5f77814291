"""A disk that fails for a moment costs seconds; one that stays away costs no finished block."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from plain_engine import strong_network
from victims import journal_of

from nrrn_fiji import hiccups
from nrrn_fiji.api import denoise_file
from nrrn_fiji.cli import main
from nrrn_fiji.formats.image import Volume
from nrrn_fiji.hiccups import SourceLostError, patiently
from nrrn_fiji.models import save_model
from nrrn_fiji.progress import Cancelled, NoProgress
from nrrn_fiji.settings import DenoiseSettings
from nrrn_fiji.volumes import create_volume, open_volume

SETTINGS = DenoiseSettings(slab=1, device="cpu", tile=32, precision="fp32")
FORMATS = ("raw.tif", "raw.zarr", "raw.h5", "raw.mrc", "raw")


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hiccups, "WAITS", (0.001, 0.002, 0.003))


@pytest.fixture
def stack() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 200, (6, 20, 30)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path, stack: np.ndarray[Any, Any]) -> Path:
    """A working folder with raw.tif (6, 20, 30) and a model."""
    tifffile.imwrite(tmp_path / "raw.tif", stack, photometric="minisblack")
    save_model(tmp_path / "net.safetensors", strong_network(1, 4), {})
    return tmp_path


def stored(folder: Path, name: str) -> Path:
    """Write the stack in the format of this name."""
    if name != "raw.tif":
        with open_volume(folder / "raw.tif") as raw, create_volume(folder / name, raw) as writer:
            writer.write(0, raw.read(0, raw.shape.z))
            writer.finish(NoProgress())
    return folder / name


def failing(
    monkeypatch: pytest.MonkeyPatch, kind: type[Volume], number: int, when: Callable[[int], bool]
) -> None:
    """Let the reads of a format fail, by their count from 1."""
    read, count = kind._read_planes, [0]

    def read_or_fail(self: Volume, *given: Any) -> None:
        count[0] += 1
        if when(count[0]):
            raise OSError(number, os.strerror(number))
        read(self, *given)

    monkeypatch.setattr(kind, "_read_planes", read_or_fail)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("raw.tif", errno.EIO),
        ("raw.tif", errno.ETIMEDOUT),
        *((name, errno.ESTALE) for name in FORMATS),
    ],
)
def test_one_failure_is_told_and_leaves_no_trace(
    folder: Path,
    stack: np.ndarray[Any, Any],
    name: str,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with open_volume(stored(folder, name)) as volume:
        said: list[str] = []
        volume.tell = said.append
        failing(monkeypatch, type(volume), number, lambda count: count in (1, 3))
        np.testing.assert_array_equal(volume.read(0, 2), stack[:2])
        np.testing.assert_array_equal(volume.read(2, 6), stack[2:])
    assert len(said) == 2
    for text in said:
        assert str(folder / name) in text and os.strerror(number) in text
        assert text.endswith("trying again in 0.001 s.")


@pytest.mark.parametrize("name", ["raw.tif", "raw.h5", "raw.mrc"])
def test_stale_file_is_opened_anew(
    folder: Path, stack: np.ndarray[Any, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open file of a disk in a network does not heal by itself."""
    path = stored(folder, name)
    with open_volume(path) as volume:
        volume.tell = lambda text: None
        before: Any = volume._tif.filehandle._fh if name == "raw.tif" else volume._file  # type: ignore[attr-defined]
        failing(monkeypatch, type(volume), errno.ESTALE, lambda count: count == 1)
        np.testing.assert_array_equal(volume.read(0, 6), stack)
        after: Any = volume._tif.filehandle._fh if name == "raw.tif" else volume._file  # type: ignore[attr-defined]
        assert after is not before


@pytest.mark.parametrize("name", ["raw.tif", "raw.h5", "raw.mrc"])
def test_another_file_in_its_place_is_not_taken_for_it(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stored(folder, name)
    with open_volume(path) as volume:
        volume.tell = lambda text: None
        failing(monkeypatch, type(volume), errno.ESTALE, lambda count: count == 1)
        os.utime(path, ns=(1, 1))
        with pytest.raises(ValueError, match="changed while it was in use"):
            volume.read(0, 6)


@pytest.mark.parametrize("name", ["raw.zarr", "raw"])
def test_image_that_vanishes_is_not_black(folder: Path, name: str) -> None:
    """Zarr takes a chunk that is missing for one of zeros."""
    path = stored(folder, name)
    with open_volume(path) as volume:
        volume.tell = lambda text: None
        volume.read(0, 1)
        shutil.rmtree(path)
        with pytest.raises(SourceLostError, match="cannot be read any more") as lost:
            volume.read(1, 2)
    assert lost.value.errno == errno.ENOENT


def test_chunk_that_vanishes_is_not_black(folder: Path) -> None:
    path = stored(folder, "raw.zarr")
    with open_volume(path) as volume:
        volume.tell = lambda text: None
        chunk = next(file for file in path.glob("0/c/**/*") if file.is_file())
        chunk.unlink()
        with pytest.raises(SourceLostError):
            volume.read(0, 6)


def test_disk_that_stays_away_costs_no_finished_block(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["denoise", str(folder / "raw.tif"), str(folder / "clean.tif"), "--slab", "1"]
    line += ["--model", str(folder / "net.safetensors"), "--device", "cpu", "--tile", "32"]
    expected = denoise_file(
        folder / "raw.tif", folder / "expected.tif", folder / "net.safetensors", SETTINGS
    ).image
    out = folder / "clean.tif"
    with open_volume(folder / "raw.tif") as volume, monkeypatch.context() as broken:
        failing(broken, type(volume), errno.EIO, lambda count: journal_of(out) >= 2)
        assert main(line) == 1
    said = capfd.readouterr().err.splitlines()
    assert sum("trying again" in text for text in said) == 3
    assert "raw.tif cannot be read any more (Input/output error; tried 4 times" in said[-1]
    assert "2 finished slabs are kept in" in said[-1] and said[-1].startswith("Error: ")
    assert not (folder / "clean.tif").exists()
    assert main(line) == 0
    assert "2 of 6 slices are finished already" in capfd.readouterr().err
    np.testing.assert_array_equal(tifffile.imread(folder / "clean.tif"), tifffile.imread(expected))


def test_failure_in_the_middle_changes_no_pixel(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = folder / "net.safetensors"
    expected = denoise_file(folder / "raw.tif", folder / "expected.tif", model, SETTINGS).image
    with open_volume(folder / "raw.tif") as volume:
        failing(monkeypatch, type(volume), errno.EIO, lambda count: count % 4 == 0)
    report = denoise_file(folder / "raw.tif", folder / "clean.tif", model, SETTINGS)
    assert any("trying again" in note for note in report.notes)
    np.testing.assert_array_equal(tifffile.imread(folder / "clean.tif"), tifffile.imread(expected))


def test_what_waiting_cannot_mend_is_not_tried_again() -> None:
    def read() -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with pytest.raises(PermissionError):
        patiently(read, "raw.tif", again=lambda: None, tell=pytest.fail)


def test_error_of_hdf5_is_understood_from_its_text() -> None:
    answers = iter([OSError("read failed: errno = 5, error message = 'Input/output error'"), "ok"])

    def read() -> str:
        answer = next(answers)
        if isinstance(answer, str):
            return answer
        raise answer

    said: list[str] = []
    assert patiently(read, "raw.h5", again=lambda: None, tell=said.append) == "ok"
    assert "Input/output error" in said[0]


@pytest.mark.parametrize("name", FORMATS)
def test_source_that_changed_since_the_interruption_is_refused(folder: Path, name: str) -> None:
    """Also where only its time of change tells."""
    path = stored(folder, name)
    model, out = folder / "net.safetensors", folder / "clean.tif"

    class Stops:
        cancelled = False

        def update(self, done: float, total: float, text: str = "") -> None:
            self.cancelled = done >= 2

        def message(self, text: str) -> None:
            pass

    with pytest.raises(Cancelled, match="kept in"):
        denoise_file(path, out, model, SETTINGS, progress=Stops())
    touched = [path] if path.is_file() else list(path.rglob("*"))
    for one in touched:
        os.utime(one, ns=(10**18, 10**18))
    with pytest.raises(ValueError, match=r"the input image has changed.*--restart"):
        denoise_file(path, out, model, SETTINGS)
    assert denoise_file(path, out, model, SETTINGS, restart=True).resumed == 0
