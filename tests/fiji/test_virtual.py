"""Results that do not fit into Java: in a file, shown as a virtual stack, as good as any other."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from nrrn_fiji.fiji import jvm
from nrrn_fiji.progress import Cancelled, NoProgress
from nrrn_fiji.volumes import open_volume

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def full(app: jvm.ImageJ, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Java without room for results, and the folder for temporary files."""
    from nrrn_fiji.fiji import images

    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(images, "fits_in_java", lambda size: False)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder


class Told(NoProgress):
    """Keeps what it is told, and stops where it is asked to."""

    def __init__(self, stop_at: float = 1e9):
        self.texts: list[str] = []
        self.stop_at, self.done = stop_at, 0.0

    def update(self, done: float, total: float, text: str = "") -> None:
        self.done = done

    def message(self, text: str) -> None:
        self.texts.append(text)

    @property
    def cancelled(self) -> bool:
        return self.done >= self.stop_at


def pixels(imp: Any) -> np.ndarray[Any, Any]:
    from nrrn_fiji.fiji.images import volume_of

    volume = volume_of(imp)
    parts = [
        volume.read(0, volume.shape.z, channel=c, time=t)
        for t in range(volume.shape.t)
        for c in range(volume.shape.c)
    ]
    return np.array(parts).reshape(volume.shape)


def lines(imp: Any) -> list[str]:
    return str(imp.getProperty("Info")).splitlines()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_pixels_and_all_that_the_source_carries(
    full: Path, java: Any, model: str, tmp_path: Path, dtype: str
) -> None:
    import nrrn_fiji
    from nrrn_fiji.fiji.jobs import denoise_image

    random = np.random.default_rng(1)
    stack = random.integers(0, 120, (4, 18, 25)).astype(dtype)
    tifffile.imwrite(tmp_path / "cortex.tif", stack, photometric="minisblack")
    imp = java("ij.IJ").openImage(str(tmp_path / "cortex.tif"))
    java("ij.IJ").run(imp, "Fire", "")
    imp.getCalibration().setUnit("nm")
    imp.getCalibration().pixelDepth = 30.0
    for n in range(4):
        imp.getStack().setSliceLabel(f"slice {n}", n + 1)
    imp.setProperty("Info", "Operator: nobody")
    imp.setRoi(2, 3, 7, 5)
    imp.setDisplayRange(20, 90)
    told = Told()
    made = denoise_image(imp, model, slices=range(1, 4), noise=True, progress=told).image

    path = tmp_path / "cortex-denoised.tif"
    assert f"cortex-denoised.tif: its pixels go into the file {path}" in told.texts[0]
    expected = nrrn_fiji.denoise(stack, model)[1:4]
    assert made.getStack().isVirtual()
    assert np.array_equal(pixels(made)[0, 0], expected)
    assert np.array_equal(tifffile.imread(path), expected)
    assert sorted(file.name for file in tmp_path.glob("*.tif")) == [
        "cortex-denoised.tif",
        "cortex-noise.tif",
        "cortex.tif",
    ]
    assert not list(tmp_path.glob(".*"))
    assert made.getTitle() == "cortex-denoised.tif"
    assert (made.getCalibration().getUnit(), made.getCalibration().pixelDepth) == ("nm", 30.0)
    assert made.getCalibration().isSigned16Bit() == (dtype == "int16")
    assert [made.getStack().getSliceLabel(n) for n in (1, 3)] == ["slice 1", "slice 3"]
    assert lines(made)[:2] == ["Operator: nobody", f"Pixels in the file {path}"]
    assert json.loads(lines(made)[-1].removeprefix("nrrn: "))["slices"] == [1, 4]
    assert made.getRoi().equals(imp.getRoi())
    for n in (2, 3):  # and while it is leafed through
        made.setSlice(n)
        assert (made.getDisplayRangeMin(), made.getDisplayRangeMax()) == (20, 90)
        assert bytes(made.getLuts()[0].getBytes()) == bytes(imp.getLuts()[0].getBytes())
    assert not made.changes
    again = java("ij.IJ").openImage(str(path))  # the file stands by itself
    assert again.getCalibration().getUnit() == "nm"
    assert np.array_equal(pixels(again)[0, 0], expected)
    assert lines(again)[-1].startswith("nrrn: ")


def test_a_composite_hyperstack(full: Path, java: Any, model: str) -> None:
    from nrrn_fiji.fiji import images
    from nrrn_fiji.fiji.jobs import denoise_image

    imp = java("ij.IJ").createImage("hyper", "8-bit composite-mode label", 20, 16, 2, 3, 2)
    virtual = denoise_image(imp, model).image
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "fits_in_java", lambda size: True)
        memory = denoise_image(imp, model).image
    assert virtual.getStack().isVirtual()
    assert not memory.getStack().isVirtual()
    assert list(virtual.getDimensions()) == [20, 16, 2, 3, 2]
    assert (virtual.isHyperStack(), virtual.isComposite()) == (True, True)
    assert virtual.getMode() == imp.getMode()
    assert np.array_equal(pixels(virtual), pixels(memory))
    for ours, theirs in zip(virtual.getLuts(), memory.getLuts(), strict=True):
        assert bytes(ours.getBytes()) == bytes(theirs.getBytes())
        assert (ours.min, ours.max) == (theirs.min, theirs.max)
    # No file of its own: the folder for temporary files.
    assert [file.name for file in full.iterdir()] == ["hyper-denoised.tif"]


def test_a_virtual_source_is_streamed_and_no_file_is_replaced(
    full: Path, java: Any, model: str, tmp_path: Path
) -> None:
    import nrrn_fiji
    from nrrn_fiji.fiji.jobs import denoise_image, noisy_image
    from nrrn_fiji.settings import DenoiseSettings, NoiseSettings

    stack = np.random.default_rng(1).integers(0, 256, (5, 18, 25)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    (tmp_path / "a-denoised.tif").write_text("mine")
    imp = java("ij.plugin.FileInfoVirtualStack").openVirtual(str(tmp_path / "a.tif"))
    made = denoise_image(imp, model, DenoiseSettings(slab=2)).image
    expected = nrrn_fiji.denoise(stack, model)
    assert np.array_equal(tifffile.imread(tmp_path / "a-denoised-1.tif"), expected)
    assert (tmp_path / "a-denoised.tif").read_text() == "mine"
    twice = denoise_image(made, model).image  # and the result is a source like any other
    assert np.array_equal(pixels(twice)[0, 0], nrrn_fiji.denoise(expected, model))
    assert (tmp_path / "a-denoised-denoised.tif").exists()
    noisy = noisy_image(imp, NoiseSettings(gaussian=20))
    assert noisy.getStack().isVirtual()
    assert (tmp_path / "a-noisy.tif").exists()


def test_slices_in_files_of_their_own_get_no_neighbour_that_is_none(
    full: Path, java: Any, model: str, tmp_path: Path
) -> None:
    from nrrn_fiji.fiji.jobs import denoise_image

    slices = tmp_path / "slices"
    slices.mkdir()
    for z in range(3):
        tifffile.imwrite(slices / f"{z}.tif", np.full((12, 14), 40 + z, np.uint8))
    for options in ("virtual", ""):
        imp = java("ij.plugin.FolderOpener").open(str(slices), options)
        path = Path(str(denoise_image(imp, model).image.getOriginalFileInfo().getFilePath()))
        assert path.parent == tmp_path
    assert len(list(slices.iterdir())) == 3


def test_nothing_is_left_of_a_run_that_was_stopped(full: Path, java: Any, model: str) -> None:
    from nrrn_fiji.fiji.jobs import denoise_image
    from nrrn_fiji.settings import DenoiseSettings

    imp = java("ij.IJ").createImage("ramp", "8-bit ramp", 30, 20, 6)
    with pytest.raises(Cancelled):
        denoise_image(imp, model, DenoiseSettings(slab=1), noise=True, progress=Told(stop_at=3))
    assert list(full.iterdir()) == []


def test_a_file_beyond_4_gib_is_shown_though_imagej_cannot_open_it(
    full: Path, java: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nrrn_fiji.fiji import virtual
    from nrrn_fiji.fiji.images import volume_of
    from nrrn_fiji.formats import tiff_output

    for module in (tiff_output, virtual):  # so that a small file takes the form of a large one
        monkeypatch.setattr(module, "CLASSIC_LIMIT", 1000)
    imp = java("ij.IJ").createImage("ramp", "16-bit ramp", 40, 30, 4)
    volume = volume_of(imp)
    writer = virtual.VirtualWriter(
        volume,
        title="big",
        dtype=volume.dtype,
        slices=range(4),
        same_values=True,
        provenance={"a": 1},
    )
    block = np.random.default_rng(1).integers(0, 65536, (4, 30, 40)).astype(np.uint16)
    writer.write(0, block[:3])
    with pytest.raises(ValueError, match="1 of 4 planes of 'big' were never written"):
        writer.finish()
    writer.write(3, block[3:])
    made = writer.finish()
    assert [file.name for file in full.iterdir()] == ["big.ome.tif"]
    with tifffile.TiffFile(full / "big.ome.tif") as file:
        assert file.is_bigtiff
    assert np.array_equal(pixels(made)[0, 0], block)


def test_memory_that_lies_in_pieces_is_known_before_anything_is_computed(
    java: Any, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nrrn_fiji.fiji import pixels
    from nrrn_fiji.fiji.jobs import denoise_image
    from nrrn_fiji.fiji.pixels import java_array, java_is_full

    taken = []

    def two_planes(size: int, dtype: Any) -> Any:
        taken.append(size)
        if len(taken) > 2:
            raise java_is_full(size)
        return java_array(size, dtype)

    monkeypatch.setattr(pixels, "java_array", two_planes)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    imp = java("ij.IJ").createImage("ramp", "8-bit ramp", 30, 20, 4)
    told = Told()
    made = denoise_image(imp, model, progress=told).image
    assert made.getStack().isVirtual()
    assert (tmp_path / "ramp-denoised.tif").exists()
    assert told.texts and told.done == 4
    assert len(taken) == 3


def test_two_runs_of_one_name_do_not_meet(full: Path, java: Any) -> None:
    from nrrn_fiji.fiji.images import volume_of
    from nrrn_fiji.fiji.virtual import VirtualWriter

    imp = java("ij.IJ").createImage("ramp", "8-bit ramp", 30, 20, 2)
    volume = volume_of(imp)
    about: dict[str, Any] = {
        "title": "made.tif",
        "dtype": volume.dtype,
        "slices": range(2),
        "same_values": True,
        "provenance": {"a": 1},
    }
    writers = [VirtualWriter(volume, **about) for _ in range(2)]
    for number, writer in enumerate(writers):
        writer.write(0, np.full((2, 20, 30), number, np.uint8))
    made = [writer.finish() for writer in writers]
    assert sorted(file.name for file in full.iterdir()) == ["made-1.tif", "made.tif"]
    assert [pixels(image).max() for image in made] == [0, 1]


def test_a_disk_that_fills_up_is_said_and_nothing_is_left(
    full: Path, java: Any, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from nrrn_fiji.fiji.jobs import denoise_image
    from nrrn_fiji.formats.tiff_output import TiffSlabWriter, disk_full
    from nrrn_fiji.settings import DenoiseSettings

    def write(self: Any, plane: Any, t: int, c: int, z: int) -> None:
        if z == 2:
            raise disk_full(self.path, "No space left on device")

    monkeypatch.setattr(TiffSlabWriter, "_write_plane", write)
    imp = java("ij.IJ").createImage("ramp", "8-bit ramp", 30, 20, 6)
    with pytest.raises(OSError, match=r"has no room for ramp-denoised\.tif") as caught:
        denoise_image(imp, model, DenoiseSettings(slab=1))
    assert caught.value.errno == errno.ENOSPC
    assert "every image is as it was" in str(caught.value)
    assert "what is finished is kept" not in str(caught.value)
    assert list(full.iterdir()) == []


@pytest.mark.parametrize("large", [False, True])
def test_a_file_says_with_what_a_run_went_on(
    full: Path, java: Any, model: str, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    import torch

    from nrrn_fiji.fiji import virtual
    from nrrn_fiji.fiji.jobs import denoise_image
    from nrrn_fiji.formats import tiff_output
    from nrrn_fiji.fused import FusedNRRN
    from nrrn_fiji.settings import DenoiseSettings

    if large:
        for module in (tiff_output, virtual):
            monkeypatch.setattr(module, "CLASSIC_LIMIT", 1000)
    branches = FusedNRRN.branches
    failed = []

    def fail_once(self: Any, *given: Any) -> Any:
        if not failed:
            failed.append(1)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return branches(self, *given)

    monkeypatch.setattr(FusedNRRN, "branches", fail_once)
    imp = java("ij.IJ").createImage("ramp", "8-bit ramp", 200, 70, 3)
    imp.setProperty("Info", "Operator: nobody")
    made = denoise_image(imp, model, DenoiseSettings(tile=160, device="cpu")).image
    record = json.loads(lines(made)[-1].removeprefix("nrrn: "))
    assert record["went_on_with"][0]["tile"] == 80
    path = Path(str(made.getOriginalFileInfo().getFilePath()))
    with open_volume(path) as volume:
        assert volume.provenance == record
        assert np.array_equal(volume.read(0, 3), pixels(made)[0, 0])
    if not large:  # which ImageJ cannot open
        again = java("ij.IJ").openImage(str(path))
        assert lines(again) == ["Operator: nobody", lines(made)[-1]]
        assert np.array_equal(pixels(again), pixels(made))


SMALL_HEAP = """
from pathlib import Path
from nrrn_fiji.fiji import jvm
app = jvm.start(imagej=True, memory=64)
import jpype, tempfile
from nrrn_fiji.fiji.app import run_macro
tempfile.tempdir = FOLDER
title = run_macro(app, '''
newImage("big", "8-bit ramp", 1000, 1000, 28);
run("Denoise Stack...", "model=[MODEL]");
setSlice(28);
return getTitle() + " " + nSlices + " " + getValue(500, 500);''')
print("made:", title)
imp = jpype.JClass("ij.WindowManager").getCurrentImage()
print("virtual:", imp.getStack().isVirtual())
keep = []
try:
    while True:
        keep.append(jpype.JArray(jpype.JByte)(10_000_000))
except jpype.JException as error:
    print("full:", type(error).__name__)
try:
    run_macro(app, 'newImage("more", "8-bit ramp", 5000, 5000, 2);')
except RuntimeError as error:
    print("said:", error)
keep.clear()
print("alive:", run_macro(app, 'return getTitle();'))
"""


@pytest.mark.slow
def test_a_java_with_little_memory(in_new_python: Run, model: str, tmp_path: Path) -> None:
    source = SMALL_HEAP.replace("FOLDER", repr(str(tmp_path))).replace("MODEL", model)
    done = in_new_python(source)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert f"28.0 MB left for big-denoised: its pixels go into the file {tmp_path}" in said
    assert "made: big-denoised 28 " in said
    assert "virtual: True" in said
    assert "full: java.lang.OutOfMemoryError" in said
    assert "said: Java's memory is full: close images" in said
    assert "alive: big-denoised" in said
    assert "Traceback" not in done.stderr
    assert tifffile.memmap(tmp_path / "big-denoised.tif").shape == (28, 1000, 1000)
