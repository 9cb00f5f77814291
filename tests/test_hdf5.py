"""HDF5: datasets, voxel sizes and records survive; links, objects and wrong sizes are refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from volume_files import NRRN, all_of, calibrated, copy, imagej_file, ramp, refused

from nrrn_fiji.formats.table import FORMATS, load_format, split_inside
from nrrn_fiji.volumes import create_volume, file_of, open_volume, reopen_volume


def foreign(path: Path, array: np.ndarray, name: str = "raw", **said: Any) -> Path:
    """Write a dataset as other programs do: in chunks, compressed."""
    with h5py.File(path, "a") as file:
        dataset = file.create_dataset(name, data=array, chunks=True, compression="gzip")
        dataset.attrs.update(said)
    return path


# Reading -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32", "float64"])
def test_every_type_and_byte_order_keeps_its_values(tmp_path: Path, dtype: str, order: str) -> None:
    array = ramp((5, 6, 7), dtype)
    foreign(tmp_path / "a.h5", array.astype(array.dtype.newbyteorder(order)))
    with open_volume(tmp_path / "a.h5") as volume:
        assert volume.dtype == array.dtype and volume.dtype.isnative
        np.testing.assert_array_equal(volume.read(1, 4), array[1:4])
        np.testing.assert_array_equal(volume.read(4, 5), array[4:])


def test_the_only_stack_or_the_named_dataset_is_read(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.hdf5", ramp((3, 4, 5)), "volumes/raw")
    with h5py.File(path, "a") as file:
        file["table"] = np.arange(12).reshape(3, 4)  # no stack
        file["name"] = "a text"
    with open_volume(path) as volume:
        assert volume.shape[2:] == (3, 4, 5) and volume.name == "a"
    foreign(path, ramp((3, 4, 5), "uint8"), "volumes/labels")
    refused(path, r"several images \(/volumes/labels, /volumes/raw\): choose one as a.hdf5:/vol")
    for inside in (":/volumes/raw", ":/volumes/raw/"):
        with open_volume(f"{path}{inside}") as volume:
            assert volume.dtype == np.uint16
            assert volume.origin is not None
            with open_volume(volume.origin.source) as again:
                assert again.dtype == np.uint16
    refused(f"{path}:/volumes", "no dataset /volumes; it holds /table, /volumes/labels")
    assert file_of(f"{path}:/volumes/raw") == path


def test_files_are_told_from_datasets() -> None:
    assert split_inside("a.h5:/raw/x") == ("a.h5", "/raw/x")
    assert split_inside("C:\\data\\a.H5:\\raw") == ("C:\\data\\a.H5", "/raw")
    assert split_inside("C:/data/a.h5") == ("C:/data/a.h5", "")
    assert split_inside("a.tif:/raw") == ("a.tif:/raw", "")


@pytest.mark.parametrize(
    ("said", "voxel", "unit"),
    [
        ({"element_size_um": [0.04, 0.004, 0.004]}, (0.04, 0.004, 0.004), "µm"),
        ({"resolution": [40, 4, 4]}, (40.0, 4.0, 4.0), "nm"),
        ({"voxel_size": [8, 4, 4], "units": ["nm"] * 3}, (8.0, 4.0, 4.0), "nm"),
        ({"voxel_size": [8, 4, 4], "unit": "angstrom"}, (8.0, 4.0, 4.0), "Å"),
        ({"element_size_um": [1, 0, 1]}, None, None),
        ({"element_size_um": "large"}, None, None),
        ({}, None, None),
    ],
)
def test_voxel_sizes_are_understood(tmp_path: Path, said: Any, voxel: Any, unit: Any) -> None:
    with open_volume(foreign(tmp_path / "a.h5", ramp((2, 3, 4)), **said)) as volume:
        assert volume.voxel_size == voxel and volume.voxel_unit == unit


@pytest.mark.parametrize(
    ("axes", "how"), [("tzyxc", "tags"), ("tczyx", "labels"), ("czyx", "labels"), ("zyx", "none")]
)
def test_named_axes_are_not_mixed_up(tmp_path: Path, axes: str, how: str) -> None:
    sizes = {"t": 2, "c": 1 if axes[-1] == "c" else 3, "z": 4, "y": 5, "x": 6}
    array = ramp(tuple(sizes[axis] for axis in axes))
    path = foreign(tmp_path / "a.h5", array)
    with h5py.File(path, "a") as file:
        if how == "tags":
            tags = {"axes": [{"key": axis, "typeFlags": 2} for axis in axes]}
            file["raw"].attrs["axistags"] = json.dumps(tags)
        elif how == "labels":
            for dimension, axis in zip(file["raw"].dims, axes, strict=True):
                dimension.label = axis
    with open_volume(path) as volume:
        shape = tuple(sizes[axis] if axis in axes else 1 for axis in "tczyx")
        assert tuple(volume.shape) == shape
        ordered = np.einsum(f"{axes}->{''.join(a for a in 'tzcyx' if a in axes)}", array)
        np.testing.assert_array_equal(
            all_of(volume), ordered.reshape(shape[0], shape[2], shape[1], *shape[3:])
        )


def test_axes_without_names_must_be_clear(tmp_path: Path) -> None:
    with open_volume(foreign(tmp_path / "a.h5", ramp((1, 3, 4, 5, 1)))) as volume:
        assert tuple(volume.shape) == (1, 1, 3, 4, 5)
        np.testing.assert_array_equal(volume.read(1, 3), ramp((3, 4, 5))[1:])
    refused(foreign(tmp_path / "b.h5", ramp((2, 3, 4, 5))), "the axes unknown, but z, y, x")


# Writing -----------------------------------------------------------------------------------------


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    shape=st.tuples(*(st.integers(1, most) for most in (2, 2, 6, 5, 5))),
    dtype=st.sampled_from(["uint8", "int8", "uint16", "int16", "float32", "float64"]),
    seed=st.integers(0, 9),
)
def test_planes_written_in_any_order_land_where_they_belong(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, seed: int
) -> None:
    for name in ("in.h5", "out.h5"):
        (tmp_path / name).unlink(missing_ok=True)
    array = ramp(shape, dtype)
    foreign(tmp_path / "in.h5", array, voxel_size=[8.0, 4.0, 4.0], units="nm", operator="nobody")
    with h5py.File(tmp_path / "in.h5", "a") as file:
        for dimension, axis in zip(file["raw"].dims, "tczyx", strict=True):
            dimension.label = axis
    with open_volume(tmp_path / "in.h5") as volume:
        create_volume(tmp_path / "out.h5", volume, provenance=NRRN).close()
        places = list(np.ndindex(*shape[:3]))
        for i in np.random.default_rng(seed).permutation(len(places)):
            t, c, z = places[i]
            with reopen_volume(tmp_path / "out.h5", volume) as writer:
                writer.write(z, volume.read(z, z + 1, channel=c, time=t), channel=c, time=t)
    with h5py.File(tmp_path / "out.h5") as file:
        written = file["raw"]  # the name that it had
        np.testing.assert_array_equal(written[...].reshape(shape), array)
        assert written.dtype == array.dtype
        assert written.attrs["operator"] == "nobody"
        assert json.loads(written.attrs["nrrn"]) == NRRN
        assert list(written.attrs["voxel_size"]) == [8.0, 4.0, 4.0]
        np.testing.assert_allclose(written.attrs["element_size_um"], [0.008, 0.004, 0.004])
    with open_volume(tmp_path / "out.h5") as volume:
        assert volume.provenance == NRRN
        assert volume.voxel_size == (8.0, 4.0, 4.0) and volume.voxel_unit == "nm"
        np.testing.assert_array_equal(all_of(volume), array.transpose(0, 2, 1, 3, 4))


def test_records_are_replaced_also_by_longer_ones(tmp_path: Path) -> None:
    with calibrated(ramp((2, 3, 4))) as volume:
        with create_volume(tmp_path / "a.h5", volume, provenance=NRRN) as writer:
            writer.write(0, volume.read(0, 2))
            for record in ({"a": 1}, {"long": "µ" * 3000}, {"longer": "x" * 90000}, {"b": None}):
                writer.record(record)
                with h5py.File(tmp_path / "a.h5") as file:
                    assert json.loads(file["data"].attrs["nrrn"]) == record
        with (
            create_volume(tmp_path / "b.h5", volume) as writer,
            pytest.raises(ValueError, match="no record"),
        ):
            writer.record(NRRN)
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["data"][...], ramp((2, 3, 4)))


def test_what_imagej_said_travels_through_hdf5(tmp_path: Path) -> None:
    said = imagej_file(tmp_path / "a.tif", ramp((1, 3, 1, 4, 5)))
    copy(tmp_path / "a.tif", tmp_path / "b.h5")
    copy(tmp_path / "b.h5", tmp_path / "c.tif")
    with open_volume(tmp_path / "c.tif") as volume:
        assert volume.voxel_size == (8.5, 4.0, 8.0) and volume.voxel_unit == "nm"
        assert volume.metadata.info.startswith(said["Info"])
        np.testing.assert_array_equal(volume.read(0, 3), ramp((3, 4, 5)))


def test_an_unfinished_file_can_be_opened_at_any_time(tmp_path: Path) -> None:
    """A killed process must not leave a file that HDF5 cannot open: it is closed from the start."""
    with calibrated(ramp((4, 5, 6))) as volume:
        writer = create_volume(tmp_path / "a.h5", volume, provenance=NRRN)
        writer.write(2, volume.read(2, 3))
        with h5py.File(tmp_path / "a.h5", "r") as file:
            np.testing.assert_array_equal(file["data"][2], ramp((4, 5, 6))[2])
            assert not file["data"][3].any()
        writer.close()


def test_another_file_is_not_continued(tmp_path: Path) -> None:
    with calibrated(ramp((4, 5, 6))) as volume:
        foreign(tmp_path / "a.h5", ramp((4, 5, 6)))
        with pytest.raises(ValueError, match="not what was begun"):
            reopen_volume(tmp_path / "a.h5", volume)
        foreign(tmp_path / "b.h5", ramp((4, 5, 7)))
        with pytest.raises(ValueError, match="is to be continued"):
            reopen_volume(tmp_path / "b.h5", volume)


# What must not be trusted ------------------------------------------------------------------------


def test_links_objects_and_pixels_elsewhere_are_refused(tmp_path: Path) -> None:
    foreign(tmp_path / "other.h5", ramp((3, 4, 5)))
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["outside"] = h5py.ExternalLink("other.h5", "/raw")
        file["objects"] = np.array(["a", "b"], dtype=object)
        file.create_dataset("colours", (3, 4, 5), np.dtype([("r", "u1"), ("g", "u1")]))
    refused(path, "no dataset that can be an image")
    refused(f"{path}:/outside", "links are not followed")
    refused(f"{path}:/objects", "values of type object", TypeError)
    refused(f"{path}:/colours", "values of type", TypeError)
    (tmp_path / "secret").write_bytes(bytes(60))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("raw", (3, 4, 5), "u1", external=[(str(tmp_path / "secret"), 0, 60)])
    refused(tmp_path / "b.h5", "pixels of /raw in other files")
    layout = h5py.VirtualLayout((3, 4, 5), "u2")
    layout[...] = h5py.VirtualSource(str(tmp_path / "other.h5"), "raw", (3, 4, 5))
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_virtual_dataset("raw", layout)
    refused(tmp_path / "c.h5", "pixels of /raw in other files")


def test_sizes_are_checked_before_memory_is_taken(tmp_path: Path) -> None:
    for name, shape, chunks, message in (
        ("a.h5", (3, 10**7, 10**7), (1, 64, 64), "announces slices of 10000000 x 10000000"),
        ("b.h5", (3, 4, 10**6), None, "announces more pixels than the file has bytes"),
        ("c.h5", (3000, 1000, 1000), (3000, 1000, 1000), "too large to be read"),
    ):
        with h5py.File(tmp_path / name, "w") as file:
            file.create_dataset("raw", shape, "u1", chunks=chunks)
        refused(tmp_path / name, message)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.7, 0.99])
def test_a_truncated_file_ends_in_a_sentence(tmp_path: Path, share: float) -> None:
    path = foreign(tmp_path / "a.h5", np.random.default_rng(0).integers(0, 99, (9, 40, 40)))
    with h5py.File(path, "w") as file:
        file["raw"] = np.random.default_rng(0).integers(0, 99, (9, 40, 40), np.uint8)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(path, r"is damaged or no HDF5 file .* copy it again\.")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "nrrn_fiji.formats.hdf5", raising=False)
    monkeypatch.setitem(sys.modules, "h5py", None)
    kind = next(kind for kind in FORMATS if kind.extra == "hdf5")
    with pytest.raises(ImportError, match=r"pip install 'nrrn-fiji\[hdf5\]'\.$"):
        load_format(kind)
