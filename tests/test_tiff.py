"""TIFF of every kind: what is read is what is there, and what is damaged is refused."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from volume_files import copy, imagej_file, ramp, refused, save

from nrrn_fiji.formats import tiff_output
from nrrn_fiji.volumes import (
    VolumeShape,
    create_volume,
    open_volume,
)


def read_bytes() -> int:
    """How many bytes this process has read so far."""
    source = Path("/proc/self/io")
    if not source.exists():
        pytest.skip("this system does not count the bytes a process reads")
    return int(source.read_text().split("rchar:")[1].split()[0])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32", "float64"])
def test_every_type_and_byte_order_keeps_its_values(tmp_path: Path, dtype: str, order: str) -> None:
    array = ramp((5, 6, 7), dtype)
    save(tmp_path / "in.tif", array, byteorder=order, photometric="minisblack")
    copy(tmp_path / "in.tif", tmp_path / "out.tif")
    with open_volume(tmp_path / "in.tif") as volume:
        assert volume.dtype == np.dtype(dtype) and volume.dtype.isnative
        np.testing.assert_array_equal(volume.read(1, 4), array[1:4])
    with tifffile.TiffFile(tmp_path / "out.tif") as out:
        assert out.byteorder == order
        assert out.series[0].dtype == np.dtype(dtype)
        np.testing.assert_array_equal(out.asarray(), array)


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "zlib", "rowsperstrip": 3},
        {"compression": "lzw", "predictor": True},
        {"compression": "zstd", "tile": (16, 32)},
        {"tile": (16, 16)},
        {"bigtiff": True},
        {"compression": "packbits"},
        {"rowsperstrip": 5},
        {"imagej": True, "compression": "zlib"},
        {"ome": True, "compression": "deflate", "tile": (32, 16)},
    ],
    ids=lambda options: "-".join(f"{k}={v}" for k, v in options.items()),
)
def test_compressed_tiled_and_big_files_are_read(tmp_path: Path, options: dict[str, Any]) -> None:
    array = ramp((9, 40, 50))
    kind = {"metadata": {"axes": "ZYX"}} if options.keys() & {"imagej", "ome"} else {}
    save(tmp_path / "in.tif", array, photometric="minisblack", **options, **kind)
    with open_volume(tmp_path / "in.tif") as volume:
        assert volume.shape == VolumeShape(1, 1, 9, 40, 50)
        np.testing.assert_array_equal(volume.read(3, 8), array[3:8])


def test_hyperstack_axes_are_not_mixed_up(tmp_path: Path) -> None:
    array = ramp((2, 5, 3, 4, 6))
    imagej_file(tmp_path / "in.tif", array)
    with open_volume(tmp_path / "in.tif") as volume:
        assert volume.shape == VolumeShape(t=2, c=3, z=5, y=4, x=6)
        np.testing.assert_array_equal(volume.read(1, 4, channel=2, time=1), array[1, 1:4, 2])
        assert volume.notes == []


def test_imagejs_form_beyond_4_gib_is_read(tmp_path: Path) -> None:
    height = width = 8192
    count = 70  # 4.4 GiB, of which the disk holds only what is written
    path = tmp_path / "large.tif"
    one = np.broadcast_to(ramp((width,), "uint8"), (height, width))
    save(path, one, imagej=True, metadata=None)
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[0].dataoffsets[0]
        place = tif.pages[0].tags[270].valueoffset
    text = f"ImageJ=1.54f\nimages={count}\nslices={count}\n".encode()
    with open(path, "r+b") as file:
        file.seek(place)
        file.write(text + b"\0")
        file.truncate(offset + count * one.nbytes)
        file.seek(offset + (count - 1) * one.nbytes)
        file.write(one[:, ::-1].tobytes())
    assert path.stat().st_size > 2**32
    with open_volume(path) as volume:
        assert volume.shape == VolumeShape(1, 1, count, height, width)
        np.testing.assert_array_equal(volume.read(count - 1, count)[0], one[:, ::-1])


def test_opening_a_deep_file_reads_none_of_its_pixels(tmp_path: Path) -> None:
    path = tmp_path / "deep.tif"
    save(path, shape=(4096, 256, 256), dtype="uint8", imagej=True, metadata={"axes": "ZYX"})
    before = read_bytes()
    with open_volume(path) as volume:
        assert volume.shape.z == 4096
    assert read_bytes() - before < 4_000_000  # of 268 million


def test_beyond_4_gib_the_output_is_ome_bigtiff(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < 6e9:
        pytest.skip("needs 6 GB of free disk (it does not fill them)")
    save(
        tmp_path / "in.tif",
        shape=(70, 4096, 4096),
        dtype="uint8",
        imagej=True,
        metadata={"axes": "ZYX", "Info": "said", "unit": "um", "spacing": 0.5},
    )
    last = np.repeat(ramp((1, 1, 4096), "float32"), 4096, axis=1)
    with (
        open_volume(tmp_path / "in.tif") as volume,
        create_volume(tmp_path / "out.tif", volume, dtype="float32") as writer,
    ):
        writer.write(69, last)
    with tifffile.TiffFile(tmp_path / "out.tif") as out:
        assert out.is_bigtiff and out.is_ome
        assert out.series[0].shape == (70, 4096, 4096)
        np.testing.assert_array_equal(out.pages[69].asarray(), last[0])
        assert not out.pages[0].asarray().any()


@pytest.mark.parametrize(
    "options",
    [
        {"imagej": True},
        {"metadata": None},
        {"ome": True},
        {"metadata": None, "compression": "zlib"},
        {"imagej": True, "compression": "zlib"},
        {},
    ],
    ids=str,
)
def test_a_truncated_file_is_never_taken_for_a_whole_one(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    whole, cut = tmp_path / "whole.tif", tmp_path / "cut.tif"
    if options.get("imagej"):
        options = {**options, "metadata": {"axes": "ZYX"}}
    noise = np.random.default_rng(0).integers(0, 65535, (9, 20, 21), dtype=np.uint16)
    save(whole, noise, photometric="minisblack", **options)
    data = whole.read_bytes()
    for size in [*range(1, 500, 13), *range(500, len(data) - 1, len(data) // 60)]:
        cut.write_bytes(data[:size])
        try:
            with open_volume(cut) as volume:
                # What is cut off may be directories that ImageJ's form does not need.
                np.testing.assert_array_equal(volume.read(0, 9), noise)
        except ValueError as error:
            assert str(error).endswith(".") and "\n" not in str(error)
            assert str(cut) in str(error)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kind=st.sampled_from(["imagej", "ome", "plain"]),
    places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_bytes_end_in_a_sentence_or_in_pixels(
    tmp_path: Path, kind: str, places: list[tuple[float, int]]
) -> None:
    path = tmp_path / "damaged.tif"
    options: dict[str, Any] = {"imagej": {"imagej": True}, "ome": {"ome": True}, "plain": {}}[kind]
    save(path, ramp((4, 5, 6)), photometric="minisblack", **options)
    data = bytearray(path.read_bytes())
    for place, value in places:
        data[int(place * (len(data) - 1))] = value
    path.write_bytes(data)
    try:
        with open_volume(path) as volume:
            if np.prod(volume.shape) < 10**7:
                volume.read(0, volume.shape.z)
    except (ValueError, TypeError, OSError) as error:
        assert str(error).endswith(".")


def test_a_circle_of_directories_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "circle.tif"
    save(path, ramp((3, 5, 6)), metadata=None)
    with tifffile.TiffFile(path) as tif:
        last, first = tif.pages[2], tif.pages[0].offset
        link = last.offset + 2 + 12 * len(last.tags)
        code = tif.byteorder + "I"
    with open(path, "r+b") as file:
        file.seek(link)
        file.write(struct.pack(code, first))
    refused(path, "circle")


def test_a_missing_codec_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "lzw.tif", ramp((3, 5, 6)), compression="lzw")

    def missing(*args: Any, **kwargs: Any) -> None:
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", missing)
    monkeypatch.setattr(tifffile.TiffFrame, "asarray", missing)
    refused(tmp_path / "lzw.tif", r"compressed \(lzw\).*pip install imagecodecs")


def test_what_cannot_be_told_is_noted(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "two.tif") as writer:
        writer.write(ramp((3, 5, 6)), metadata=None, photometric="minisblack")
        writer.write(ramp((7, 8)), metadata=None)
    with open_volume(tmp_path / "two.tif") as volume:
        assert volume.shape.z == 3
        assert any("only the first is read" in note for note in volume.notes)


def test_tiff_limit_is_that_of_classic_tiff() -> None:
    assert 2**32 - 2**26 < tiff_output.CLASSIC_LIMIT < 2**32
