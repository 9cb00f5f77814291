"""Volumes of any format: what is read is what is there, bad input gets a sentence."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from volume_files import NRRN, all_of, imagej_file, ramp, refused, save

from nrrn_fiji.volumes import (
    VolumeShape,
    create_volume,
    open_volume,
    reopen_volume,
)


def test_arrays_are_read_without_a_copy_of_the_whole() -> None:
    array = ramp((5, 4, 3))
    with open_volume(array) as volume:
        assert volume.metadata.kind == "array"
        part = volume.read(1, 3)
        np.testing.assert_array_equal(part, array[1:3])
        part[:] = 0
        assert array[1:3].any()
        print_before = volume.fingerprint()
        array[2, 1, 1] += 1
        assert volume.fingerprint() != print_before


@pytest.mark.parametrize(
    "request_", [(0, 6, 0, 0), (-1, 2, 0, 0), (3, 2, 0, 0), (0, 1, 1, 0), (0, 1, 0, 1)]
)
def test_slices_that_are_not_there_are_refused(request_: tuple[int, int, int, int]) -> None:
    start, stop, channel, time = request_
    with open_volume(ramp((5, 4, 3))) as volume, pytest.raises(IndexError, match="there are"):
        volume.read(start, stop, channel=channel, time=time)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    shape=st.tuples(*[st.integers(1, 4)] * 5),
    dtype=st.sampled_from(["uint8", "int16", "float32"]),
    kind=st.sampled_from(["out.tif", "out.ome.tif", "folder"]),
    order=st.randoms(use_true_random=False),
)
def test_planes_written_in_any_order_land_where_they_belong(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, kind: str, order: Any
) -> None:
    array = ramp(shape, dtype)
    t, z, c, y, x = shape
    out = tmp_path / kind
    if out.is_dir():
        shutil.rmtree(out)
    out.unlink(missing_ok=True)
    planes = [(i, j, k) for i in range(t) for j in range(z) for k in range(c)]
    order.shuffle(planes)
    with (
        open_volume(np.zeros((z, y, x), dtype)) as like,
        create_volume(out, like, shape=VolumeShape(t, c, z, y, x)) as writer,
    ):
        for i, j, k in planes:
            writer.write(j, array[i, j : j + 1, k], channel=k, time=i)
    if kind == "folder":
        files = sorted(out.iterdir())
        assert len(files) == len(planes)
        found = np.stack([tifffile.imread(file) for file in files]).reshape(z, t, c, y, x)
        np.testing.assert_array_equal(found, array.swapaxes(0, 1))
    else:
        with tifffile.TiffFile(out) as tif:
            np.testing.assert_array_equal(tif.asarray().reshape(shape), array)
        with open_volume(out) as volume:
            np.testing.assert_array_equal(all_of(volume), array)


@pytest.mark.parametrize("name", ["out.tif", "out.ome.tif", "folder"])
def test_an_interrupted_output_is_continued(tmp_path: Path, name: str) -> None:
    array = ramp((6, 5, 7))
    out = tmp_path / name
    with open_volume(array) as volume:
        writer = create_volume(out, volume, slices=range(1, 5), provenance=NRRN)
        writer.write(0, array[1:3])
        # No flush and no close: the process was killed here.  Another handle sees what is there.
        with reopen_volume(out, volume, slices=range(1, 5)) as second:
            second.write(2, array[3:5])
        writer.close()
        with pytest.raises((ValueError, FileNotFoundError), match="start again"):
            reopen_volume(out, volume, slices=range(0, 6))
    files = sorted(out.iterdir()) if out.is_dir() else out
    np.testing.assert_array_equal(tifffile.imread(files), array[1:5])


def test_blocks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with (
        open_volume(ramp((4, 5, 6))) as volume,
        create_volume(tmp_path / "out.tif", volume) as writer,
    ):
        for block in (ramp((1, 6, 5)), ramp((1, 5, 6), "uint8"), ramp((5, 6))):
            with pytest.raises(ValueError, match=r"takes \(n, 5, 6\) of uint16"):
                writer.write(0, block)
        with pytest.raises(IndexError, match="slices 3:5"):
            writer.write(3, ramp((2, 5, 6)))


def test_a_full_disk_is_said_before_and_while_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = ramp((4, 5, 6))
    with open_volume(array) as volume:
        writer = create_volume(tmp_path / "out.tif", volume)
        writer.write(0, array[:2])
        file = writer._file  # type: ignore[attr-defined]

        class Full:
            """A file on a disk that has become full."""

            seek, fileno, close = file.seek, file.fileno, file.close
            closed = False

            def write(self, data: bytes) -> int:
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(writer, "_file", Full())
        with pytest.raises(OSError, match="make room") as caught:
            writer.write(2, array[2:])
        assert caught.value.errno == errno.ENOSPC
        monkeypatch.undo()
        writer.close()
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif")[:2], array[:2])
        usage = shutil.disk_usage(tmp_path)._replace(free=100)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(OSError, match="make room") as caught:
            create_volume(tmp_path / "more.tif", volume)
        assert caught.value.errno == errno.ENOSPC
    assert not (tmp_path / "more.tif").exists()


def test_outputs_never_replace_what_exists(tmp_path: Path) -> None:
    save(tmp_path / "in.tif", ramp((3, 4, 5)))
    (tmp_path / "there.tif").write_text("precious")
    with open_volume(tmp_path / "in.tif") as volume:
        with pytest.raises(ValueError, match="is the input itself"):
            create_volume(tmp_path / "in.tif", volume)
        with pytest.raises(FileExistsError, match="exists already"):
            create_volume(tmp_path / "there.tif", volume)
        with pytest.raises(ValueError, match=r"only \.tif"):
            create_volume(tmp_path / "out.png", volume)
        with pytest.raises(ValueError, match="slices 0:3"):
            create_volume(tmp_path / "out.tif", volume, slices=range(2, 9))
    assert (tmp_path / "there.tif").read_text() == "precious"


@pytest.mark.parametrize("axis", ["T", "C"])
@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_a_stack_saved_along_the_wrong_axis(tmp_path: Path, axis: str, kind: str) -> None:
    array = ramp((6, 5, 7))
    path = tmp_path / ("in.ome.tif" if kind == "ome" else "in.tif")
    said: dict[str, Any] = {"axes": f"{axis}YX"}
    if kind == "imagej":
        said["Labels"] = [f"label {i}" for i in range(6)]
    save(path, array, imagej=kind == "imagej", metadata=said)
    with open_volume(path) as volume:
        assert volume.shape.z == 1
        assert getattr(volume.shape, axis.lower()) == 6
        assert len(volume.notes) == 1 and f"--z-axis {axis}" in volume.notes[0]
    with open_volume(path, z_axis=axis) as volume:
        assert volume.shape == VolumeShape(1, 1, 6, 5, 7)
        assert volume.notes == []
        np.testing.assert_array_equal(volume.read(1, 5), array[1:5])
        with create_volume(tmp_path / "out.tif", volume, slices=range(1, 5)) as writer:
            writer.write(0, volume.read(1, 5))
    with tifffile.TiffFile(tmp_path / "out.tif") as out:
        assert out.series[0].axes == "ZYX"
        np.testing.assert_array_equal(out.asarray(), array[1:5])
        if kind == "imagej":
            assert out.imagej_metadata["Labels"] == [f"label {i}" for i in range(1, 5)]


def test_a_depth_that_is_there_is_not_reinterpreted(tmp_path: Path) -> None:
    imagej_file(tmp_path / "in.tif", ramp((2, 4, 1, 5, 6)))
    for axis, message in (("T", "4 slices in depth already"), ("Q", '"Z", "T" or "C"')):
        with pytest.raises(ValueError, match=message):
            open_volume(tmp_path / "in.tif", z_axis=axis)


def test_a_single_image_is_a_volume_and_says_so(tmp_path: Path) -> None:
    save(tmp_path / "in.tif", ramp((5, 6)))
    with open_volume(tmp_path / "in.tif") as volume:
        assert volume.shape == VolumeShape(1, 1, 1, 5, 6)
        assert ["single slice" in note for note in volume.notes] == [True]


def test_the_fingerprint_tells_a_changed_file(tmp_path: Path) -> None:
    array = ramp((9, 5, 6))
    save(tmp_path / "a.tif", array)
    with open_volume(tmp_path / "a.tif") as volume:
        first = volume.fingerprint()
        assert volume.fingerprint() == first
    (tmp_path / "a.tif").rename(tmp_path / "moved.tif")
    with open_volume(tmp_path / "moved.tif") as volume:
        assert volume.fingerprint() == first
    array[4, 2, 2] += 1
    save(tmp_path / "a.tif", array)
    with open_volume(tmp_path / "a.tif") as volume:
        assert volume.fingerprint() != first


def test_what_is_not_there_or_no_image(tmp_path: Path) -> None:
    refused(tmp_path / "missing.tif", "does not exist", FileNotFoundError)
    refused(f"{tmp_path}/*.tif", "matches no file", FileNotFoundError)
    refused([tmp_path / "a.tif"], "does not exist", FileNotFoundError)
    refused([], "zero slices")
    refused([np.zeros((4, 4))], "list of something else", TypeError)
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "zero slices")
    for name in ("text.tif", "text.png", "text.txt"):
        (tmp_path / name).write_text("this is not an image")
        refused(tmp_path / name, "not an? (TIFF )?image")
    (tmp_path / "nothing.tif").touch()
    refused(tmp_path / "nothing.tif", "is empty")
    refused(np.zeros((0, 4, 4), np.uint8), "zero slices")


def test_colours_masks_and_complex_numbers(tmp_path: Path) -> None:
    save(tmp_path / "rgb.tif", np.zeros((8, 9, 3), np.uint8), photometric="rgb")
    refused(tmp_path / "rgb.tif", r"colour \(RGB\)")
    imageio.imwrite(tmp_path / "rgb.png", ramp((8, 9, 3), "uint8"))
    refused(tmp_path / "rgb.png", r"colour \(RGB\)")
    refused(np.zeros((16, 16, 3), np.uint8), r"colour \(RGB\)")
    grey_alpha = np.zeros((8, 9, 2), np.uint8)
    save(tmp_path / "alpha.tif", grey_alpha, photometric="minisblack", planarconfig="contig")
    refused(tmp_path / "alpha.tif", "2 colour samples per pixel")
    save(tmp_path / "mask.tif", np.zeros((8, 9), bool))
    refused(tmp_path / "mask.tif", "black-and-white mask", TypeError)
    refused(np.zeros((4, 8, 9), bool), "black-and-white mask", TypeError)
    save(tmp_path / "complex.tif", np.zeros((8, 9), np.complex64))
    refused(tmp_path / "complex.tif", "complex numbers", TypeError)
    refused(np.zeros((4, 8, 9), np.complex128), "complex numbers", TypeError)
    refused(np.zeros((4, 8, 9), np.int64), "type int64", TypeError)
    refused(np.zeros((2, 4, 8, 9), np.uint8), "4 axes")
    save(tmp_path / "4d.tif", np.zeros((2, 4, 8, 9), np.uint8))
    refused(tmp_path / "4d.tif", "which one is depth")
