"""What cannot be denoised gets one sentence, and nothing is lost or left behind.

Every case goes through the Python API and through the command line.
"""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from plain_engine import strong_network

import nrrn_fiji as nrrn
from nrrn_fiji.api import denoise_file
from nrrn_fiji.cli import main
from nrrn_fiji.models import save_model
from nrrn_fiji.outputs import partial as outputs
from nrrn_fiji.settings import DenoiseSettings
from nrrn_fiji.volumes import VolumeWriter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with a good stack, raw.tif (6, 40, 36), and a model, net.safetensors."""
    folder = tmp_path / "work"
    folder.mkdir()
    stack(folder / "raw.tif", (6, 40, 36))
    save_model(folder / "net.safetensors", strong_network(2, 4), {})
    return folder


def stack(path: Path, shape: tuple[int, ...], dtype: str = "uint8", **options: Any) -> Path:
    values = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    tifffile.imwrite(path, values, photometric="minisblack", **options)
    return path


@dataclass(frozen=True)
class Case:
    """A way to go wrong."""

    said: str
    """What the sentence must contain."""
    prepare: Callable[[Path], object] = lambda folder: None
    """Makes the bad input."""
    source: str = "bad.tif"
    out: str = "clean.tif"
    model: str = "net.safetensors"
    settings: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of denoise_file; file names lie in the folder."""


def write_text(folder: Path) -> None:
    (folder / "bad.tif").write_text("Dear diary, today the microscope was down.\n" * 20)


def write_bytes(count: int) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        stack(folder / "whole.tif", (6, 40, 36))
        (folder / "bad.tif").write_bytes((folder / "whole.tif").read_bytes()[:count])

    return prepare


def write_array(array: np.ndarray[Any, Any], **options: Any) -> Callable[[Path], None]:
    options.setdefault("photometric", "minisblack")
    return lambda folder: tifffile.imwrite(folder / "bad.tif", array, **options)


def write_slices(*shapes: tuple[int, int]) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        (folder / "slices").mkdir()
        for number, shape in enumerate(shapes):
            stack(folder / "slices" / f"{number}.tif", shape)

    return prepare


def damage_model(folder: Path) -> None:
    whole = (folder / "net.safetensors").read_bytes()
    (folder / "bad.safetensors").write_bytes(whole[: len(whole) // 2])


def write_old_result(folder: Path) -> None:
    (folder / "clean.tif").write_text("a result of yesterday")


RGB = np.zeros((20, 30, 3), np.uint8)
CASES = {
    "missing file": Case("does not exist", source="nothing.tif"),
    "pattern that matches nothing": Case("matches no file", source="nothing_*.tif"),
    "folder without images": Case(
        "zero slices", lambda folder: (folder / "empty").mkdir(), source="empty"
    ),
    "not an image": Case("is not a TIFF", write_text),
    "not an image, by name": Case(
        "is not a TIFF", lambda folder: (folder / "notes.txt").write_text("hello"), "notes.txt"
    ),
    "empty file": Case("is empty", write_bytes(0)),
    "truncated header": Case("bad.tif", write_bytes(60)),
    "truncated pixels": Case("damaged or incomplete", write_bytes(5000)),
    "colours": Case("colour (RGB)", write_array(RGB, photometric="rgb")),
    "stack of colours": Case(
        "colour (RGB)", write_array(np.zeros((4, 20, 30, 3), np.uint8), photometric="rgb")
    ),
    "slices of different sizes": Case(
        "all slices must have one size", write_slices((20, 30), (20, 30), (21, 30)), "slices"
    ),
    "complex numbers": Case("complex", write_array(np.ones((3, 20, 20), np.complex64))),
    "mask": Case("black-and-white", write_array(np.ones((3, 20, 20), bool))),
    "32-bit integers": Case("uint32", write_array(np.ones((3, 20, 20), np.uint32))),
    "all NaN": Case("no valid pixel", write_array(np.full((3, 20, 20), np.nan, np.float32))),
    "output equal to input": Case("also the input", source="raw.tif", out="raw.tif"),
    "output equal to input, overwriting": Case(
        "also the input", source="raw.tif", out="raw.tif", options={"overwrite": True}
    ),
    "noise output equal to input": Case(
        "also the input", source="raw.tif", options={"noise_out": "raw.tif"}
    ),
    "outputs equal": Case(
        "--noise (noise_out) and out are both", source="raw.tif", options={"noise_out": "clean.tif"}
    ),
    "output in the input folder": Case(
        "taken for a slice", write_slices((20, 30)), source="slices", out="slices/clean.tif"
    ),
    "output that matches the pattern": Case(
        "taken for a slice", write_slices((20, 30)), source="slices/*.tif", out="slices/clean.tif"
    ),
    "output exists": Case("--overwrite", write_old_result, source="raw.tif"),
    "output folder missing": Case("does not exist", source="raw.tif", out="nowhere/clean.tif"),
    "output of unknown kind": Case("clean.png", source="raw.tif", out="clean.png"),
    "unknown model": Case("fibsem", source="raw.tif", model="fibsem-medula"),
    "missing model file": Case(
        "nothing.safetensors", source="raw.tif", model="nothing.safetensors"
    ),
    "damaged model": Case("damaged", damage_model, source="raw.tif", model="bad.safetensors"),
    "model that is an image": Case("raw.tif", source="raw.tif", model="raw.tif"),
    "tile below the halo": Case("halo", source="raw.tif", settings={"tile": 3}),
    "too many units": Case("2 building units", source="raw.tif", settings={"units": 3}),
    "too many scans": Case("scans needs 2 or 3", source="raw.tif", settings={"scans": True}),
    "range of slices beyond the end": Case(
        "0:6", source="raw.tif", options={"slices": range(4, 9)}
    ),
    "slices of scans": Case(
        "leave it out",
        lambda folder: stack(folder / "bad.tif", (3, 40, 36)),
        settings={"scans": True},
        options={"slices": range(1, 2)},
    ),
    "unknown device": Case("tpu", source="raw.tif", settings={"device": "tpu"}),
    "grey range without range": Case(
        "intensity", source="raw.tif", settings={"intensity": (7.0, 7.0)}
    ),
    "depth along an axis that is none": Case(
        "leave z_axis out", source="raw.tif", options={"z_axis": "T"}
    ),
}


def contents(folder: Path) -> dict[str, str]:
    """Every file and folder below, with a hash."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        )
        for path in sorted(folder.rglob("*"))
    }


FILES = ("noise_out", "units_out")


def call(case: Case, folder: Path) -> None:
    """Denoise through the Python API."""
    options = {
        name: folder / value if name in FILES else value for name, value in case.options.items()
    }
    model = folder / case.model if "." in case.model else case.model
    denoise_file(
        folder / case.source, folder / case.out, model, DenoiseSettings(**case.settings), **options
    )


def words(case: Case, folder: Path) -> list[str]:
    """The same as a command line, without ``nrrn``."""
    model = str(folder / case.model) if "." in case.model else case.model
    line = ["denoise", str(folder / case.source), str(folder / case.out), "--model", model]
    spelling = {"noise_out": "--noise"}
    for name, value in {**case.settings, **case.options}.items():
        line.append(spelling.get(name, "--" + name.replace("_", "-")))
        if name in FILES:
            line.append(str(folder / value))
        elif isinstance(value, range):
            line.append(f"{value.start}:{value.stop}")
        elif isinstance(value, tuple):
            line.append(",".join(map(str, value)))
        elif value is not True:
            line.append(str(value))
    return line


@pytest.mark.parametrize("name", CASES)
def test_api_says_one_sentence_and_leaves_nothing(name: str, folder: Path) -> None:
    case = CASES[name]
    case.prepare(folder)
    before = contents(folder)
    with pytest.raises((ValueError, TypeError, OSError)) as refusal:
        call(case, folder)
    said = str(refusal.value)
    assert case.said in said
    assert "[Errno" not in said and "\n" not in said and said.endswith(".")
    assert contents(folder) == before


@pytest.mark.parametrize("name", CASES)
def test_command_says_one_sentence_and_leaves_nothing(
    name: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name]
    case.prepare(folder)
    before = contents(folder)
    code = main(words(case, folder))
    result, said = capfd.readouterr()
    assert code == 1
    lines = [line for line in said.splitlines() if line.startswith("Error: ")]
    # A command line is not told of Python's names.
    assert len(lines) == 1 and case.said.replace(" (noise_out)", "") in lines[0]
    assert said.endswith(lines[0] + "\n"), "the sentence is the last thing that is said"
    assert "Traceback" not in said and result == ""
    assert contents(folder) == before


def test_unknown_model_lists_the_known_ones(folder: Path, user_models: Path) -> None:
    nrrn.install_model(folder / "net.safetensors", "my-own")
    with pytest.raises(FileNotFoundError, match="my-own"):
        denoise_file(folder / "raw.tif", folder / "clean.tif", "my-won")


def test_single_slice_is_allowed_and_said(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stack(folder / "flat.tif", (40, 36))
    arguments = ["denoise", str(folder / "flat.tif"), str(folder / "clean.tif")]
    assert main([*arguments, "--model", str(folder / "net.safetensors")]) == 0
    assert "flat is a single slice, so it is denoised without neighbours" in capfd.readouterr().err
    assert tifffile.imread(folder / "clean.tif").shape == (40, 36)


def test_command_ends_with_its_exit_code(folder: Path) -> None:
    """The real command, as a script sees it."""
    case = CASES["too many units"]
    line = [sys.executable, "-m", "nrrn_fiji", *words(case, folder)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1 and "2 building units" in done.stderr


# --- arrays -------------------------------------------------------------------------------

ARRAYS: dict[str, tuple[Any, type[Exception], str]] = {
    "colours": (np.zeros((20, 30, 3), np.uint8), ValueError, "colour"),
    "colours of type float": (np.zeros((20, 30, 4), np.float32), ValueError, "colour"),
    "one axis": (np.zeros(20, np.uint8), ValueError, "1 axes"),
    "four axes": (np.zeros((2, 3, 20, 30), np.uint8), ValueError, "4 axes"),
    "no slices": (np.zeros((0, 20, 30), np.uint8), ValueError, "empty"),
    "no rows": (np.zeros((3, 0, 30), np.uint8), ValueError, "empty"),
    "mask": (np.zeros((3, 20, 30), bool), TypeError, "mask"),
    "complex numbers": (np.zeros((3, 20, 30), np.complex64), TypeError, "magnitude"),
    "32-bit integers": (np.zeros((3, 20, 30), np.int32), TypeError, "int32"),
    "words": (np.array([["a", "b"]]), TypeError, "float32"),
    "all NaN": (np.full((3, 20, 30), np.nan, np.float32), ValueError, "no valid pixel"),
    "all infinite": (np.full((3, 20, 30), np.inf, np.float32), ValueError, "no valid pixel"),
    "mask over pixels": (
        np.ma.masked_less(np.arange(1800, dtype=np.uint16).reshape(3, 20, 30), 9),
        TypeError,
        "filled",
    ),
    "file name": ("raw.tif", TypeError, "denoise_file"),
    "path": (Path("raw.tif"), TypeError, "denoise_file"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_are_no_stack(name: str, folder: Path) -> None:
    array, kind, said = ARRAYS[name]
    with pytest.raises(kind, match=said):
        nrrn.denoise(array, folder / "net.safetensors")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"units": 3}, "2 building units"),
        ({"units": 0}, "units is 0"),
        ({"images": 4}, "images is 4"),
        ({"tile": 2}, "halo"),
        ({"slab": 0}, "slab is 0"),
        ({"intensity": (5, 5)}, "intensity is 5,5"),
        ({"intensity": 255}, "intensity is 255"),
        ({"intensity": (0, 1, 2)}, "intensity is"),
        ({"device": "abacus"}, "abacus"),
        ({"precision": "fp8"}, "fp8"),
        ({"scans": True}, "scans needs 2 or 3"),
    ],
)
def test_settings_that_cannot_be(folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        nrrn.denoise(np.zeros((5, 20, 30), np.uint8), folder / "net.safetensors", **options)


def test_one_image_is_no_scans(folder: Path) -> None:
    with pytest.raises(ValueError, match="2 or 3 images"):
        nrrn.denoise(np.zeros((20, 30), np.uint8), folder / "net.safetensors", scans=True)


def test_stack_of_thin_slices_is_no_colour_image(folder: Path) -> None:
    thin = np.random.default_rng(0).integers(0, 255, (5, 40, 3)).astype(np.float32)
    assert np.shape(nrrn.denoise(thin, folder / "net.safetensors")) == (5, 40, 3)


# --- full disks ---------------------------------------------------------------------------


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A disk that is full after so many blocks; the number can be changed."""
    room = [4]
    write = VolumeWriter.write

    def write_or_fail(self: Any, start: int, block: Any, **place: int) -> None:
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, start, block, **place)

    monkeypatch.setattr(VolumeWriter, "write", write_or_fail)
    return room


def test_disk_full_keeps_the_finished_blocks(
    folder: Path, small_disk: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    line = ["denoise", str(folder / "raw.tif"), str(folder / "clean.tif"), "--slab", "1"]
    line += ["--model", str(folder / "net.safetensors")]
    assert main(line) == 1
    said = capfd.readouterr().err
    assert "There is no space left to write" in said and "4 finished slabs are kept" in said
    assert "Traceback" not in said and "[Errno" not in said
    assert not (folder / "clean.tif").exists()
    small_disk[0] = 100
    assert main(line) == 0
    assert "4 of 6 slices are finished already" in capfd.readouterr().err
    expected = nrrn.denoise(tifffile.imread(folder / "raw.tif"), folder / "net.safetensors")
    np.testing.assert_array_equal(tifffile.imread(folder / "clean.tif"), expected)


def test_disk_full_at_once_leaves_nothing(folder: Path, small_disk: list[int]) -> None:
    small_disk[0] = 0
    before = contents(folder)
    with pytest.raises(OSError, match="nothing is left behind") as full:
        denoise_file(folder / "raw.tif", folder / "clean.tif", folder / "net.safetensors")
    assert full.value.errno == errno.ENOSPC
    assert contents(folder) == before


def test_too_small_a_disk_is_noticed_before_the_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "free_space", lambda folder: 5000)
    before = contents(folder)
    with pytest.raises(OSError, match=r"needs 8\.6 kB of disk space, but only 5\.0 kB are free"):
        denoise_file(folder / "raw.tif", folder / "clean.tif", folder / "net.safetensors")
    assert contents(folder) == before


LIMITED = """
import resource, signal, sys
from nrrn_fiji.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX limits")
def test_file_that_may_not_grow_so_large(folder: Path) -> None:
    """A real refusal by the system: files end at 20 kB (as at 4 GiB on some USB disks)."""
    stack(folder / "large.tif", (10, 100, 100))
    before = contents(folder)
    line = ["denoise", str(folder / "large.tif"), str(folder / "clean.tif")]
    line += ["--model", str(folder / "net.safetensors"), "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *line], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: There is no space left to write")
    assert done.stderr.count("\n") == 1
    assert contents(folder) == before
