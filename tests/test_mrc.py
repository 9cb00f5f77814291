"""MRC: pixels, voxel sizes and labels survive; headers are compared with their files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from volume_files import NRRN, all_of, calibrated, copy, ramp, refused

from nrrn_fiji.formats.mrc import short_record
from nrrn_fiji.formats.table import FORMATS, load_format
from nrrn_fiji.volumes import VolumeShape, create_volume, open_volume, reopen_volume

RECORD = {
    "program": "nrrn-fiji",
    "version": "1.2.3",
    "date": "2026-01-02T03:04:05+00:00",
    "command": "denoise",
    "content": "image",
    "input": "stack µ",
    "model": {"name": "fibsem-medulla", "hash": "0123456789abcdef" * 4},
    "settings": {"units": 3},
    "plan": {"tile": 160, "slab": 8, "much": "more" * 100},
}


def foreign(path: Path, array: np.ndarray, voxel: Any = (40.0, 40.0, 80.0)) -> Path:
    """Write a file with mrcfile; the voxel size is (x, y, z) in Å."""
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(array)
        mrc.voxel_size = voxel
        mrc.header.origin.z = 7
        mrc.add_label("tilted by hand")
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float32"])
def test_every_mode_and_byte_order_keeps_its_values(tmp_path: Path, dtype: str, order: str) -> None:
    array = ramp((5, 6, 7), dtype)
    foreign(tmp_path / "a.mrc", array.astype(array.dtype.newbyteorder(order)))
    with open_volume(tmp_path / "a.mrc") as volume:
        assert volume.dtype == array.dtype and volume.dtype.isnative and volume.name == "a"
        np.testing.assert_array_equal(volume.read(1, 4), array[1:4])
        assert volume.voxel_size == (80.0, 40.0, 40.0) and volume.voxel_unit == "Å"
        assert "tilted by hand" in volume.metadata.info


def test_imods_unsigned_bytes_are_told_from_signed_ones(tmp_path: Path) -> None:
    array = ramp((2, 30, 30), "uint8")
    path = foreign(tmp_path / "a.st", array.view(np.int8))
    with open_volume(path) as volume:
        assert volume.dtype == np.int8
    for flags, dtype in ((0, "uint8"), (1, "int8")):
        data = bytearray(path.read_bytes())
        # IMOD's description: its mark at byte 152 of the header, flags at 156.
        data[152:160] = np.array([1146047817, flags], "<i4").tobytes()
        path.write_bytes(bytes(data))
        with open_volume(path) as volume:
            assert volume.dtype == np.dtype(dtype)
            np.testing.assert_array_equal(volume.read(0, 2), array.view(dtype))


def test_a_series_of_volumes_has_time_points(tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(ramp((2, 3, 4, 5)))
    with open_volume(tmp_path / "a.mrc") as volume:
        assert volume.shape == VolumeShape(2, 1, 3, 4, 5)
        np.testing.assert_array_equal(all_of(volume)[:, :, 0], ramp((2, 3, 4, 5)))
        assert volume.voxel_size is None
        with pytest.raises(ValueError, match=r"2 time points .* but an MRC file holds one stack"):
            create_volume(tmp_path / "b.mrc", volume)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    shape=st.tuples(*(st.integers(1, most) for most in (6, 5, 5))),
    dtype=st.sampled_from(["uint8", "int8", "uint16", "int16", "float32"]),
    seed=st.integers(0, 9),
)
def test_planes_written_in_any_order_land_where_they_belong(
    tmp_path: Path, shape: tuple[int, int, int], dtype: str, seed: int
) -> None:
    (tmp_path / "out.mrc").unlink(missing_ok=True)
    array = ramp(shape, dtype)
    with calibrated(array) as volume:
        create_volume(tmp_path / "out.mrc", volume, provenance=RECORD).close()
        for z in np.random.default_rng(seed).permutation(shape[0]):
            with reopen_volume(tmp_path / "out.mrc", volume) as writer:
                writer.write(int(z), array[z : z + 1])
    with mrcfile.open(tmp_path / "out.mrc") as mrc:
        np.testing.assert_array_equal(mrc.data, array)  # 8 bits without sign as 16 bits
        assert mrc.data.dtype == (np.uint16 if dtype == "uint8" else array.dtype)
        assert tuple(mrc.voxel_size.tolist()) == (40.0, 40.0, 80.0)
        assert mrc.is_volume()
    assert mrcfile.validate(tmp_path / "out.mrc")
    with open_volume(tmp_path / "out.mrc") as volume:
        record = volume.provenance
        assert record is not None and record["shortened"] is True
        assert record["model"] == "fibsem-medulla" and record["hash"] == "0123456789ab"
        assert record["date"] == "2026-01-02" and record["settings"] == {"units": 3}


def test_the_shortened_record_always_fits(tmp_path: Path) -> None:
    for record in (NRRN, RECORD, {}, {"settings": "x" * 1000}, {"model": None, "version": "1"}):
        labels = short_record(record)
        assert 1 <= len(labels) <= 3 and all(len(label) <= 80 for label in labels)
    # A blank at the end of a label must not get lost.
    for length in range(60, 90):
        out = tmp_path / f"{length}.mrc"
        name = ("a " * 50)[:length]
        with calibrated(ramp((1, 2, 2))) as volume:
            create_volume(out, volume, provenance={"command": name}).close()
        with open_volume(out) as volume:
            assert volume.provenance == {"shortened": True, "command": name}


def test_what_a_header_said_is_kept(tmp_path: Path) -> None:
    foreign(tmp_path / "a.mrc", ramp((3, 4, 5)))
    with mrcfile.open(tmp_path / "a.mrc", mode="r+") as mrc:
        mrc.set_extended_header(np.frombuffer(b"made by a microscope" * 4, "V1"))
        mrc.header.exttyp = b"AGAR"
        for i in range(7):
            mrc.add_label(f"line {i}")
    copy(tmp_path / "a.mrc", tmp_path / "b.mrc")
    copy(tmp_path / "b.mrc", tmp_path / "c.mrc", slices=range(1, 3))
    with mrcfile.open(tmp_path / "b.mrc") as mrc:
        assert mrc.extended_header.tobytes() == b"made by a microscope" * 4
        assert mrc.header.exttyp == b"AGAR" and mrc.header.origin.z == 7
        assert "tilted by hand" in mrc.get_labels() and "line 5" in mrc.get_labels()
    with mrcfile.open(tmp_path / "c.mrc") as mrc:  # it may describe single slices
        assert mrc.extended_header.size == 0
        np.testing.assert_array_equal(mrc.data, ramp((3, 4, 5))[1:])
        assert 0 < mrc.header.nlabl <= 10
    with open_volume(tmp_path / "c.mrc") as volume:
        assert volume.provenance is not None and volume.provenance["model"] == NRRN["model"]


def test_a_record_is_replaced(tmp_path: Path) -> None:
    with calibrated(ramp((2, 3, 4))) as volume:
        with create_volume(tmp_path / "a.mrc", volume, provenance=RECORD) as writer:
            assert "shortened record" in writer.notes[0]
            writer.write(0, volume.read(0, 2))
            writer.record({"version": "2"})
        with (
            create_volume(tmp_path / "b.mrc", volume) as writer,
            pytest.raises(ValueError, match="no record"),
        ):
            writer.record(RECORD)
    with open_volume(tmp_path / "a.mrc") as volume:
        assert volume.provenance == {"shortened": True, "version": "2"}
        np.testing.assert_array_equal(volume.read(0, 2), ramp((2, 3, 4)))


def test_types_that_mrc_has_not_are_refused(tmp_path: Path) -> None:
    with (
        calibrated(ramp((2, 3, 4), "float64")) as volume,
        pytest.raises(ValueError, match=r"64-bit floats, .* choose a \.tif, \.zarr or \.h5"),
    ):
        create_volume(tmp_path / "a.mrc", volume)
    foreign(tmp_path / "b.mrc", np.zeros((2, 3, 4), np.complex64))
    refused(tmp_path / "b.mrc", "complex numbers", TypeError)
    foreign(tmp_path / "c.mrc", np.zeros((2, 3, 4), np.float16))
    refused(tmp_path / "c.mrc", "float16", TypeError)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_truncated_file_ends_in_a_sentence(tmp_path: Path, share: float) -> None:
    path = foreign(tmp_path / "a.mrc", ramp((5, 40, 40)))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(path, r"is damaged or no MRC file .*: copy it again\.")


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(place=st.integers(0, 1023), change=st.binary(min_size=1, max_size=8))
def test_a_damaged_header_ends_in_a_sentence_or_in_pixels(
    tmp_path: Path, place: int, change: bytes
) -> None:
    path = foreign(tmp_path / "a.mrc", ramp((3, 4, 5)))
    data = bytearray(path.read_bytes())
    data[place : place + len(change)] = change
    path.write_bytes(bytes(data))
    try:
        with open_volume(path) as volume:
            assert np.prod(volume.shape) <= 200  # the file holds no more
            volume.read(0, volume.shape.z)
    except (ValueError, TypeError) as error:
        assert str(error).endswith(".") and "\n" not in str(error)


@pytest.mark.parametrize("count", [0, 3])
def test_sections_that_make_no_whole_volumes_are_refused(tmp_path: Path, count: int) -> None:
    path = foreign(tmp_path / "a.mrc", ramp((4, 5, 6)))
    header = bytearray(path.read_bytes())
    header[36:40] = count.to_bytes(4, "little")  # mz, the sections of a volume
    header[88:92] = (401).to_bytes(4, "little")  # ispg: a series of volumes
    path.write_bytes(header)
    refused(path, r"is damaged or no MRC file .*: copy it again\.")


def test_other_axes_are_named(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.map", ramp((3, 4, 5)))
    with mrcfile.open(path, mode="r+") as mrc:
        mrc.header.mapc, mrc.header.maps = 3, 1
    refused(path, r"its axes in the order \(3, 2, 1\)")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "nrrn_fiji.formats.mrc", raising=False)
    monkeypatch.setitem(sys.modules, "mrcfile", None)
    kind = next(kind for kind in FORMATS if kind.extra == "mrc")
    with pytest.raises(ImportError, match=r"pip install 'nrrn-fiji\[mrc\]'\.$"):
        load_format(kind)
