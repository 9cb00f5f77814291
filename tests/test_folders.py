"""Folders, patterns and lists of single slices: their order, their types, their metadata."""

from __future__ import annotations

import errno
import os
import stat
import struct
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
from PIL import Image
from volume_files import copy, imagej_file, ramp, refused, save

from nrrn_fiji.formats.folders import natural_order
from nrrn_fiji.volumes import (
    create_volume,
    open_volume,
)


def selection(position: int, c: int = 0, z: int = 0, t: int = 0) -> bytes:
    """A rectangle as ImageJ's RoiEncoder stores it."""
    header = bytearray(64)
    struct.pack_into(">4shBxhhhh", header, 0, b"Iout", 227, 1, 1, 1, 3, 3)
    struct.pack_into(">ii", header, 56, position, 64)
    return bytes(header) + struct.pack(">iiii", 0, c, z, t).ljust(64, b"\0")


def test_slices_of_a_folder_have_their_own_selections(tmp_path: Path) -> None:
    overlays = [selection(1), selection(3), selection(0)]
    imagej_file(tmp_path / "in.tif", ramp((1, 4, 1, 5, 6)), ROI=selection(4), Overlays=overlays)
    copy(tmp_path / "in.tif", tmp_path / "out")
    with tifffile.TiffFile(tmp_path / "out" / "in_0002.tif") as out:
        assert out.imagej_metadata["Overlays"] == [selection(1), selection(0)]
        assert "ROI" not in out.imagej_metadata


def test_a_folder_of_slices_becomes_a_folder_of_slices(tmp_path: Path) -> None:
    source = tmp_path / "slices"
    source.mkdir()
    array = ramp((12, 5, 7))
    for i, plane in enumerate(array):
        save(
            source / f"cut {i}.tif",
            plane,
            imagej=True,
            metadata={"Info": f"slice {i}", "unit": "nm"},
            resolution=(0.5, 0.5),
        )
    copy(source, tmp_path / "clean", slices=range(1, 11))
    names = {path.name for path in (tmp_path / "clean").iterdir()}
    assert names == {f"cut {i}.tif" for i in range(1, 11)}
    for i in range(1, 11):
        with tifffile.TiffFile(tmp_path / "clean" / f"cut {i}.tif") as out:
            np.testing.assert_array_equal(out.asarray(), array[i])
            assert out.imagej_metadata["Info"].startswith(f"slice {i}\nnrrn: ")
            assert out.pages[0].tags[282].value == (1, 2)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_folders_and_globs_are_sorted_as_people_count(tmp_path: Path, suffix: str) -> None:
    array = ramp((11, 5, 7), "uint8")
    for i, plane in enumerate(array):
        imageio.imwrite(tmp_path / f"s{i}.{suffix}", plane)
    (tmp_path / "notes.txt").write_text("not a slice")
    (tmp_path / f"._s0.{suffix}").write_text("left by a Mac")
    for source in (tmp_path, f"{tmp_path}/s*.{suffix}"):
        with open_volume(source) as volume:
            np.testing.assert_array_equal(volume.read(0, 11), array)
            assert volume.metadata.labels == tuple(f"s{i}" for i in range(11))
            assert volume.name == tmp_path.name
    picked = [tmp_path / f"s{i}.{suffix}" for i in (4, 2, 7)]
    with open_volume(picked) as volume:
        np.testing.assert_array_equal(volume.read(0, 3), array[[4, 2, 7]])
    with open_volume(f"{tmp_path}/s*.{suffix}") as volume:
        create_volume(tmp_path / "out.tif", volume).close()
    with tifffile.TiffFile(tmp_path / "out.tif") as out:
        assert out.imagej_metadata["Labels"] == [f"s{i}" for i in range(11)]


def test_the_order_of_names_with_equal_numbers_is_always_the_same() -> None:
    names = [Path(name) for name in ("s2", "s1", "s01", "s001", "S1")]
    orders = {tuple(sorted(names[i:] + names[:i], key=natural_order)) for i in range(len(names))}
    assert len(orders) == 1 and orders.pop()[-1] == Path("s2")


@pytest.mark.skipif(os.name != "posix", reason="folders are synced on POSIX systems alone")
@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_disk_that_cannot_sync_folders_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    fsync = os.fsync

    def of_files_only(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", of_files_only)
    with open_volume(ramp((2, 5, 7))) as volume:
        if code == errno.EIO:  # which is a fault of the disk
            with pytest.raises(OSError, match="Input/output"):
                create_volume(tmp_path / "out", volume)
        else:
            create_volume(tmp_path / "out", volume).close()
    assert len(list((tmp_path / "out").iterdir())) == 2


@pytest.mark.parametrize("mode", ["P", "LA", "RGB", "RGBA"])
def test_grey_values_are_read_however_a_png_stores_them(tmp_path: Path, mode: str) -> None:
    array = ramp((3, 5, 7), "uint8")
    for i, plane in enumerate(array):
        picture = Image.fromarray(plane)
        if mode == "P":  # which need not be stored in the order of grey
            picture = Image.fromarray(255 - plane, "L").convert("P")
            picture.putpalette([255 - v for v in range(256) for _ in range(3)])
        else:
            picture = picture.convert(mode)
        picture.save(tmp_path / f"{i}.png")
    with Image.open(tmp_path / "0.png") as stored, open_volume(tmp_path) as volume:
        assert stored.mode == mode
        assert volume.dtype == np.uint8
        np.testing.assert_array_equal(volume.read(0, 3), array)


def test_pictures_that_are_not_grey_are_named(tmp_path: Path) -> None:
    colours = Image.fromarray(ramp((5, 7, 3), "uint8"))
    faint = Image.fromarray(ramp((5, 7), "uint8")).convert("LA")
    faint.putpixel((0, 0), (9, 100))
    for picture, said in (
        (colours, r"colour \(RGB\) image"),
        (colours.quantize(8), "indexed colour image"),
        (faint, "transparent pixels"),
    ):
        picture.save(tmp_path / "s.png")
        with pytest.raises(ValueError, match=said):
            open_volume(tmp_path / "s.png")


@pytest.mark.parametrize(
    "suffixes", [("png", "PNG"), ("jpg", "jpeg", "JPG"), ("tif", "TIFF", "tiff")]
)
def test_one_file_type_has_several_suffixes(tmp_path: Path, suffixes: tuple[str, ...]) -> None:
    for i, suffix in enumerate(suffixes):
        imageio.imwrite(tmp_path / f"{i}.{suffix}", ramp((5, 7), "uint8"))
    with open_volume(tmp_path) as volume:
        assert volume.shape.z == len(suffixes)
    imageio.imwrite(tmp_path / "other.bmp", ramp((5, 7), "uint8"))
    with pytest.raises(ValueError, match="different file types"):
        open_volume(tmp_path)


def test_sixteen_bit_png_keeps_its_values(tmp_path: Path) -> None:
    array = ramp((3, 5, 7), "uint16") + 60000
    for i, plane in enumerate(array):
        imageio.imwrite(tmp_path / f"{i}.png", plane)
    with open_volume(tmp_path) as volume:
        assert volume.dtype == np.uint16
        np.testing.assert_array_equal(volume.read(0, 3), array)


def test_slices_of_the_same_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    array = ramp((2, 5, 7))
    for i in range(2):
        (tmp_path / str(i)).mkdir()
        save(tmp_path / str(i) / "s.tif", array[i])
    paths = [tmp_path / "0" / "s.tif", tmp_path / "1" / "s.tif"]
    with open_volume(paths) as volume, create_volume(tmp_path / "out", volume) as writer:
        writer.write(0, array)
    np.testing.assert_array_equal(tifffile.imread(sorted((tmp_path / "out").iterdir())), array)


def test_slices_of_different_sizes(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / f"{i}.tif", ramp((5, 6 + (i == 2))))
    refused(tmp_path, "2.tif is 5 x 7 of uint16, but 0.tif is 5 x 6")
    save(tmp_path / "2.tif", ramp((5, 6), "uint8"))
    refused(tmp_path, "2.tif is 5 x 6 of uint8")
    save(tmp_path / "2.tif", ramp((4, 5, 6)))
    refused(tmp_path, "holds 4 planes")
    imageio.imwrite(tmp_path / "2.png", ramp((5, 6), "uint8"))
    refused(tmp_path, "different file types")
