"""OME-Zarr: pixels, calibration and records survive; shards never straddle; nothing is trusted."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import shutil
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from volume_files import NRRN, all_of, calibrated, copy, ramp, refused, save

from nrrn_fiji.formats.ngff_output import level_shapes
from nrrn_fiji.formats.ome_zarr import layout, mean_of_blocks
from nrrn_fiji.formats.table import FORMATS, load_format
from nrrn_fiji.progress import Cancelled, NoProgress
from nrrn_fiji.volumes import (
    Origin,
    VolumeShape,
    create_volume,
    open_volume,
    reopen_volume,
)

SIZES = ((1, 2), (1, 2), (2, 6), (2, 9), (2, 9))  # fewest and most t, c, z, y, x


def foreign(
    folder: Path, array: np.ndarray, version: str = "0.4", axes: str = "zyx", **options: Any
) -> Path:
    """Write an OME-Zarr by hand, as other programs do: two levels, calibrated, with colours."""
    zarr_format: Any = 2 if version == "0.4" else 3
    units = {"space": "nanometer", "time": "second", "channel": None}
    kinds = {"t": "time", "c": "channel"}
    described = []
    for axis in axes:
        kind = kinds.get(axis, "space")
        unit = {"unit": units[kind]} if units[kind] else {}
        described.append({"name": axis, "type": kind, **unit})
    sizes = {"t": 2.5, "c": 1.0, "z": 8.0, "y": 4.0, "x": 4.0}
    transforms = [
        [{"type": "scale", "scale": [sizes[a] * (n if a in "yx" else 1) for a in axes]}]
        for n in (1, 2)
    ]
    datasets = [
        {"path": f"s{i}", "coordinateTransformations": steps} for i, steps in enumerate(transforms)
    ]
    window = {"start": 3, "end": 77, "min": 0, "max": 255}
    count = array.shape[axes.index("c")] if "c" in axes else 1
    channels = [
        {"label": f"detector {i}", "color": "FF0000", "window": window} for i in range(count)
    ]
    said: dict[str, Any] = {
        "multiscales": [{"version": version, "axes": described, "datasets": datasets}],
        "omero": {"channels": channels, "id": 7},
    }
    if version == "0.5":
        said = {"ome": {"version": version, **said}}
    said["microscope"] = {"name": "Crossbeam", "dwell": [1, 2]}
    group = zarr.create_group(folder, zarr_format=zarr_format, attributes=said)
    for i, level in enumerate((array, array[..., ::2, ::2])):
        group.create_array(f"s{i}", data=np.ascontiguousarray(level), **options)
    return folder


def described(folder: Path) -> dict[str, Any]:
    """What the root of an OME-Zarr says, as others would read it."""
    attributes = dict(zarr.open_group(folder, mode="r").attrs)
    return {**attributes, **attributes.get("ome", {})}


def level(folder: Path, number: int) -> np.ndarray:
    return np.asarray(zarr.open_array(folder / str(number), mode="r")[...])


# Reading -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["zyx", "czyx", "tczyx"])
def test_what_others_wrote_is_read(tmp_path: Path, version: str, axes: str) -> None:
    array = ramp((2, 3, 5, 6, 7)[-len(axes) :])
    options = {"chunks": (1,) * (len(axes) - 3) + (2, 4, 4)}
    if version == "0.5":
        options["shards"] = (1,) * (len(axes) - 3) + (4, 8, 8)
    with open_volume(foreign(tmp_path / "a.ome.zarr", array, version, axes, **options)) as volume:
        assert volume.name == "a" and volume.dtype == np.uint16
        assert volume.shape[5 - len(axes) :] == array.shape
        five = array.reshape(volume.shape)
        np.testing.assert_array_equal(all_of(volume), five.transpose(0, 2, 1, 3, 4))
        assert volume.voxel_size == (8.0, 4.0, 4.0) and volume.voxel_unit == "nm"
        assert volume.metadata.channel_names[0] == "detector 0"
        assert volume.metadata.ranges[:2] == (3.0, 77.0)
        assert volume.notes == []


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32", "float64"])
def test_every_type_and_byte_order_keeps_its_values(tmp_path: Path, dtype: str, order: str) -> None:
    array = ramp((3, 5, 6), dtype)
    stored = array.astype(array.dtype.newbyteorder(order))
    zarr.create_array(tmp_path / "a.zarr", data=stored, chunks=(2, 3, 4), zarr_format=2)
    with open_volume(tmp_path / "a.zarr") as volume:
        assert volume.dtype == array.dtype and volume.dtype.isnative
        np.testing.assert_array_equal(volume.read(1, 3), array[1:3])


def test_an_array_or_image_within_a_folder_is_chosen(tmp_path: Path) -> None:
    folder = tmp_path / "a.zarr"
    group = zarr.create_group(folder)
    raw = group.create_array("volumes/raw", data=ramp((3, 4, 5)), chunks=(3, 4, 5))
    raw.attrs.update({"resolution": [40, 4, 4], "units": ["nm"] * 3})
    with open_volume(f"{folder}:/volumes/raw") as volume, open_volume(folder / "volumes") as same:
        assert volume.voxel_size == (40.0, 4.0, 4.0) and volume.voxel_unit == "nm"
        np.testing.assert_array_equal(volume.read(0, 3), same.read(0, 3))
    group.create_array("volumes/mask", data=ramp((3, 4, 5), "uint8"), chunks=(3, 4, 5))
    refused(
        folder / "volumes", r"group of 2 images: it holds mask, raw; choose one as volumes/mask"
    )
    refused(f"{folder}:/volumes/../../x", "outside of itself")
    refused(f"{folder}:/nothing", "does not exist")


@pytest.mark.parametrize(
    ("unit", "scale", "voxel", "symbol"),
    [
        (["nanometer"] * 3, (8, 4, 4), (8.0, 4.0, 4.0), "nm"),
        (["nanometer", "micrometer", "micrometer"], (500, 1, 1), (0.5, 1.0, 1.0), "µm"),
        (["angstrom"] * 3, (8, 4, 4), (8.0, 4.0, 4.0), "Å"),
        ([None] * 3, (1, 1, 1), None, None),
        (["nanometer"] * 3, (8, 0, 4), None, None),
    ],
)
def test_voxel_sizes_are_understood(
    tmp_path: Path, unit: list[str], scale: Any, voxel: Any, symbol: str
) -> None:
    folder = foreign(tmp_path / "a.zarr", ramp((2, 4, 4)), "0.5")
    said = json.loads((folder / "zarr.json").read_text())
    scales = said["attributes"]["ome"]["multiscales"][0]
    for axis, name in zip(scales["axes"], unit, strict=True):
        axis["unit"] = name
    # The scale of all levels multiplies that of each.
    scales["datasets"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [2, 2, 2]}]
    scales["coordinateTransformations"] = [{"type": "scale", "scale": [v / 2 for v in scale]}]
    (folder / "zarr.json").write_text(json.dumps(said))
    with open_volume(folder) as volume:
        assert volume.voxel_unit == symbol
        assert volume.voxel_size == (None if voxel is None else pytest.approx(voxel))


# Writing -----------------------------------------------------------------------------------------


@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    shape=st.tuples(*(st.integers(least, most) for least, most in SIZES)),
    dtype=st.sampled_from(["uint8", "int16", "uint16", "float32"]),
    slab=st.integers(1, 6),
    old=st.booleans(),
    seed=st.integers(0, 9),
)
def test_slabs_written_in_any_order_land_where_they_belong(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, slab: int, old: bool, seed: int
) -> None:
    for name in ("in.zarr", "out.zarr"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    array = ramp(shape, dtype)
    source = foreign(tmp_path / "in.zarr", array, "0.4" if old else "0.5", "tczyx")
    rng = np.random.default_rng(seed)
    with open_volume(source) as volume:
        parts = list(product(range(shape[0]), range(shape[1]), range(0, shape[2], slab)))
        create_volume(tmp_path / "out.zarr", volume, slab=slab, provenance=NRRN).close()
        for i in rng.permutation(len(parts)):
            t, c, z = parts[i]
            # Every part by another writer, as processes of a cluster do.
            with reopen_volume(tmp_path / "out.zarr", volume) as writer:
                writer.write(z, array[t, c, z : z + slab], channel=c, time=t)
    with open_volume(tmp_path / "out.zarr") as volume:
        np.testing.assert_array_equal(all_of(volume), array.transpose(0, 2, 1, 3, 4))
        assert volume.provenance == NRRN and volume.notes == []
        assert volume.voxel_size == (8.0, 4.0, 4.0)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_output_is_what_its_input_was(tmp_path: Path, version: str) -> None:
    array = ramp((2, 2, 5, 6, 7))
    copy(foreign(tmp_path / "in.zarr", array, version, "tczyx"), tmp_path / "out.zarr")
    group = zarr.open_group(tmp_path / "out.zarr", mode="r")
    assert group.metadata.zarr_format == (2 if version == "0.4" else 3)
    said = described(tmp_path / "out.zarr")
    assert said["omero"]["id"] == 7 and len(said["omero"]["channels"]) == 2
    assert said["microscope"] == {"name": "Crossbeam", "dwell": [1, 2]}
    assert said["nrrn"] == NRRN
    scales = said["multiscales"][0]
    assert scales.get("version", said.get("version")) == version
    assert [(a["name"], a["type"], a.get("unit")) for a in scales["axes"]] == [
        ("t", "time", "second"),
        ("c", "channel", None),
        ("z", "space", "nanometer"),
        ("y", "space", "nanometer"),
        ("x", "space", "nanometer"),
    ]
    steps = scales["datasets"][0]["coordinateTransformations"]
    assert steps == [{"type": "scale", "scale": [2.5, 1.0, 8.0, 4.0, 4.0]}]


def test_the_older_version_is_written_where_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with calibrated(ramp((4, 20, 300))) as volume:
        monkeypatch.setenv("NRRN_OME_ZARR", "0.4")
        with create_volume(tmp_path / "a.zarr", volume, slab=2) as writer:
            writer.write(0, volume.read(0, 4))
            writer.finish()
        said = described(tmp_path / "a.zarr")["multiscales"][0]
        assert said["version"] == "0.4" and len(said["datasets"]) == 2
        assert (tmp_path / "a.zarr" / "1" / ".zarray").is_file()
        monkeypatch.setenv("NRRN_OME_ZARR", "3")
        with pytest.raises(ValueError, match=r"NRRN_OME_ZARR is '3', but .* 0\.4 or 0\.5"):
            create_volume(tmp_path / "b.zarr", volume)
    with open_volume(tmp_path / "a.zarr") as volume:
        np.testing.assert_array_equal(volume.read(0, 4), ramp((4, 20, 300)))


def test_part_of_a_stack_keeps_its_place(tmp_path: Path) -> None:
    foreign(tmp_path / "in.zarr", ramp((5, 6, 7)))
    copy(tmp_path / "in.zarr", tmp_path / "out.zarr", slices=range(2, 4))
    copy(tmp_path / "out.zarr", tmp_path / "again.zarr", slices=range(1, 2))
    for name, place in (("out.zarr", 16.0), ("again.zarr", 24.0)):
        dataset = described(tmp_path / name)["multiscales"][0]["datasets"][0]
        assert dataset["coordinateTransformations"][1] == {
            "type": "translation",
            "translation": [place, 0.0, 0.0],
        }


def test_the_pyramid_holds_means_and_says_where_they_lie(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 60000, (21, 301, 520), np.uint16)
    with (
        calibrated(array, (8.0, 4.0, 4.0)) as volume,
        create_volume(tmp_path / "a.zarr", volume, slab=8) as writer,
    ):
        for z in range(0, 21, 8):
            writer.write(z, array[z : z + 8])
        writer.finish()
    # In the plane first: 8 nm of depth are two pixels.  Odd ends count their last pixel twice.
    wide = np.pad(array, ((0, 0), (0, 1), (0, 0)), mode="edge").astype(float)
    first = wide.reshape(21, 151, 2, 260, 2).mean((2, 4))
    assert np.abs(level(tmp_path / "a.zarr", 1) - first).max() <= 0.5
    below = np.pad(level(tmp_path / "a.zarr", 1), ((0, 1), (0, 1), (0, 0)), mode="edge")
    second = below.astype(float).reshape(11, 2, 76, 2, 130, 2).mean((1, 3, 5))
    assert np.abs(level(tmp_path / "a.zarr", 2) - second).max() <= 0.5
    assert not (tmp_path / "a.zarr" / "3").exists()
    datasets = described(tmp_path / "a.zarr")["multiscales"][0]["datasets"]
    # The centre of two pixels of 4 nm lies 2 nm behind that of the first.
    assert [d["coordinateTransformations"] for d in datasets] == [
        [{"type": "scale", "scale": [8.0, 4.0, 4.0]}],
        [
            {"type": "scale", "scale": [8.0, 8.0, 8.0]},
            {"type": "translation", "translation": [0.0, 2.0, 2.0]},
        ],
        [
            {"type": "scale", "scale": [16.0, 16.0, 16.0]},
            {"type": "translation", "translation": [4.0, 6.0, 6.0]},
        ],
    ]


@pytest.mark.parametrize("voxel", [(1e308, 1e308, 1e308), (4.0, 1e308, 1e-308)])
def test_a_pyramid_ends_whatever_the_voxels(voxel: tuple[float, float, float]) -> None:
    levels = level_shapes(VolumeShape(1, 1, 2000, 3000, 4000), voxel)
    assert max(levels[-1]) <= 256
    assert all(sum(after) < sum(before) for before, after in pairwise(levels))


def test_voxels_of_infinite_size_are_of_unknown_size(tmp_path: Path) -> None:
    path = foreign(tmp_path / "in.zarr", ramp((2, 4, 5)))
    said = json.loads((path / ".zattrs").read_text())
    steps = [{"type": "scale", "scale": [1e308, 1e308, 1e308]}]
    said["multiscales"][0]["coordinateTransformations"] = steps
    (path / ".zattrs").write_text(json.dumps(said))
    with open_volume(path) as volume:
        assert volume.voxel_size is None


@given(
    block=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
    factors=st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 2)),
    dtype=st.sampled_from(["uint8", "int8", "uint16", "int16", "float32", "float64"]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_means_are_rounded_and_never_overflow(
    block: tuple[int, ...], factors: tuple[int, int, int], dtype: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        values = rng.normal(size=block).astype(dtype)
    else:
        ends = np.iinfo(dtype)
        values = rng.choice([ends.min, ends.max, ends.max - 1, 0, 1], block).astype(dtype)
    result = mean_of_blocks(values, factors)
    assert result.dtype == values.dtype
    for place in np.ndindex(*result.shape):
        box = tuple(slice(i * f, i * f + f) for i, f in zip(place, factors, strict=True))
        part = np.pad(
            values.astype(np.float64)[box],
            [(0, f - n) for f, n in zip(factors, values[box].shape, strict=True)],
            mode="edge",
        )
        close = 1e-6 if dtype.startswith("float") else 0.5
        assert abs(float(result[place]) - part.mean()) <= close


def test_means_of_the_largest_floats_are_finite() -> None:
    most = np.finfo(np.float32).max
    assert (mean_of_blocks(np.full((2, 3, 4), most), (2, 2, 2)) == most).all()
    odd = np.array([[[np.inf, -np.inf]]], np.float32)
    assert np.isnan(mean_of_blocks(odd, (1, 1, 2))).all()


@given(
    sizes=st.tuples(st.integers(1, 4000), st.integers(1, 9000), st.integers(1, 9000)),
    slab=st.integers(1, 300),
    most=st.integers(1, 1 << 30),
    old=st.booleans(),
)
def test_chunks_and_shards_fit_into_slabs_and_memory(
    sizes: tuple[int, int, int], slab: int, most: int, old: bool
) -> None:
    chunk, shard = layout(sizes, 2, slab, most, 2 if old else 3)
    file = shard or chunk
    assert slab % file[0] == 0 or slab >= sizes[0]
    assert all(whole % part == 0 for whole, part in zip(file, chunk, strict=True))
    assert np.prod(chunk) <= (1 << 22)
    assert np.prod(file) * 2 <= max(most, np.prod(chunk) * 2)


def write_part(path: Path, origin: Origin, first: int, stop: int) -> None:
    """What a process of its own does: open both again, and write one part."""
    with (
        open_volume(origin.source, z_axis=origin.z_axis) as volume,
        reopen_volume(path, volume) as writer,
    ):
        writer.write(first, volume.read(first, stop))
        writer.flush()


def test_several_processes_write_one_output(tmp_path: Path) -> None:
    array = ramp((24, 40, 50))
    save(tmp_path / "in.tif", array, imagej=True, metadata={"axes": "ZYX"})
    with open_volume(tmp_path / "in.tif") as volume:
        assert volume.origin is not None
        origin = pickle.loads(pickle.dumps(volume.origin))
        out = tmp_path / "out.zarr"
        with create_volume(out, volume, slab=6) as writer:
            step = writer.depth_multiple
            assert 6 % step == 0
        spawned = multiprocessing.get_context("spawn")
        parts = [(first, first + 12) for first in (0, 12)]
        workers = [spawned.Process(target=write_part, args=(out, origin, *part)) for part in parts]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
            assert worker.exitcode == 0
        with reopen_volume(out, volume) as writer:
            writer.finish()
    with open_volume(out) as volume:
        np.testing.assert_array_equal(volume.read(0, 24), array)


def test_damaged_files_of_a_slab_are_replaced_unread(tmp_path: Path) -> None:
    array = ramp((8, 600, 1000))  # several pieces, whose edges lie between those of files
    with (
        open_volume(array) as volume,
        create_volume(tmp_path / "out.zarr", volume, slab=8) as writer,
    ):
        writer.write(0, array)
        files = [file for file in (tmp_path / "out.zarr" / "0" / "c").rglob("*") if file.is_file()]
        assert len(files) > 4
        for file in files:
            file.write_bytes(b"damaged")
        writer.write(0, array)
        writer.finish()
    with open_volume(tmp_path / "out.zarr") as volume:
        np.testing.assert_array_equal(volume.read(0, 8), array)


def test_a_part_that_vanished_from_an_output_is_not_taken_for_black(tmp_path: Path) -> None:
    array = ramp((4, 30, 40))
    with (
        open_volume(array) as volume,
        create_volume(tmp_path / "out.zarr", volume, slab=2) as writer,
    ):
        writer.write(0, array)
        file = next(file for file in (tmp_path / "out.zarr" / "0").rglob("1/*/*"))
        file.unlink()
        with pytest.raises(FileNotFoundError, match="has vanished: begin again"):
            writer.finish()


def test_a_stop_while_the_pyramid_is_written_loses_nothing(tmp_path: Path) -> None:
    array = ramp((4, 300, 300))

    class Stopped(NoProgress):
        @property
        def cancelled(self) -> bool:
            return True

    with calibrated(array) as volume:
        with create_volume(tmp_path / "a.zarr", volume, slab=2) as writer:
            writer.write(0, array)
            with pytest.raises(Cancelled):
                writer.finish(Stopped())
        with reopen_volume(tmp_path / "a.zarr", volume) as writer:
            writer.finish()
    assert level(tmp_path / "a.zarr", 1).any()


def test_a_shard_that_a_crash_damaged_is_written_again(tmp_path: Path) -> None:
    array = ramp((4, 30, 30))
    with calibrated(array) as volume:
        with create_volume(tmp_path / "a.zarr", volume, slab=2) as writer:
            writer.write(0, array)
        damaged = [p for p in (tmp_path / "a.zarr" / "0").rglob("*") if p.is_file()]
        for file in damaged:
            if file.name != "zarr.json":
                file.write_bytes(b"")
        with reopen_volume(tmp_path / "a.zarr", volume) as writer:
            writer.write(0, array[:2])
            writer.write(2, array[2:])
    with open_volume(tmp_path / "a.zarr") as volume:
        np.testing.assert_array_equal(volume.read(0, 4), array)


def test_a_record_is_replaced(tmp_path: Path) -> None:
    for version in ("0.4", "0.5"):
        foreign(tmp_path / version, ramp((2, 4, 4)), version)
        with open_volume(tmp_path / version) as volume:
            with create_volume(tmp_path / f"{version}.zarr", volume, provenance=NRRN) as writer:
                writer.record({"tile": 80})
            assert described(tmp_path / f"{version}.zarr")["nrrn"] == {"tile": 80}
            assert described(tmp_path / f"{version}.zarr")["multiscales"]
            with (
                create_volume(tmp_path / f"{version}b.zarr", volume) as writer,
                pytest.raises(ValueError, match="no record"),
            ):
                writer.record({"tile": 80})


def test_black_slices_are_written_as_chunks(tmp_path: Path) -> None:
    black = np.zeros((2, 8, 8), np.uint8)
    with calibrated(black) as volume, create_volume(tmp_path / "a.zarr", volume) as writer:
        writer.write(0, black)
    with open_volume(tmp_path / "a.zarr") as volume:
        assert volume.notes == []


# What must not be trusted ------------------------------------------------------------------------


def array_metadata(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The metadata of the full-size array."""
    for name in ("zarr.json", ".zarray"):
        if (folder / "s0" / name).is_file():
            return folder / "s0" / name, json.loads((folder / "s0" / name).read_text())
    raise AssertionError(folder)


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "unpickled"
    trap = pickle.dumps(Trap(mark))
    for changes, message, kind in (
        ({"filters": [{"id": "pickle", "protocol": 5}]}, "'pickle', which is not read", ValueError),
        ({"compressor": {"id": "pickle"}}, "'pickle', which is not read", ValueError),
        ({"dtype": "|O", "filters": [{"id": "vlen-utf8"}]}, "vlen-utf8", ValueError),
        ({"dtype": "|O", "filters": None, "compressor": None}, "values of type", TypeError),
        ({"dtype": [["a", "<u2"]]}, "values of type", TypeError),
        ({"dtype": "<U4"}, "values of type", TypeError),
    ):
        folder = tmp_path / "a.zarr"
        shutil.rmtree(folder, ignore_errors=True)
        foreign(folder, ramp((2, 4, 4)), chunks=(2, 4, 4))
        path, said = array_metadata(folder)
        path.write_text(json.dumps({**said, **changes}))
        for chunk in (folder / "s0").rglob("0*"):
            if chunk.is_file():
                chunk.write_bytes(trap)
        refused(folder, message, kind)
    assert not mark.exists()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_sizes_are_checked_before_memory_is_taken(tmp_path: Path, version: str) -> None:
    folder = foreign(tmp_path / "a.zarr", ramp((2, 4, 4)), version, chunks=(2, 4, 4))
    path, said = array_metadata(folder)
    path.write_text(json.dumps({**said, "shape": [2, 10**7, 10**7]}))
    refused(folder, "announces slices of 10000000 x 10000000")
    if version == "0.4":
        said["chunks"] = [10**4, 10**4, 10**4]
    else:
        said["chunk_grid"]["configuration"]["chunk_shape"] = [10**4, 10**4, 10**4]
    path.write_text(json.dumps(said))
    refused(folder, "which cannot be read")
    path.write_text(json.dumps({**said, "shape": [2, -4, 4]}))
    refused(folder, "which cannot be read")
    path.write_text(json.dumps({**said, "shape": "large"}))
    refused(folder, "damaged or incomplete")


def test_a_level_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "other", data=ramp((2, 4, 4)), chunks=(2, 4, 4))
    for path in ("../other", "..\\other", "C:/other"):
        folder = tmp_path / "a.zarr"
        shutil.rmtree(folder, ignore_errors=True)
        foreign(folder, ramp((2, 4, 4)), "0.5")
        said = json.loads((folder / "zarr.json").read_text())
        said["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = path
        (folder / "zarr.json").write_text(json.dumps(said))
        refused(folder, "outside of itself")


def test_missing_and_damaged_chunks_are_noticed(tmp_path: Path) -> None:
    folder = foreign(tmp_path / "a.zarr", ramp((6, 8, 8)), chunks=(2, 8, 8))
    chunks = sorted(p for p in (folder / "s0").rglob("*") if p.is_file() and p.name[0] != ".")
    assert len(chunks) == 3
    chunks[0].unlink()
    with open_volume(folder) as volume:
        assert "1 of the 3 files of chunks of a are not there" in volume.notes[0]
    for chunk in chunks[1:]:
        chunk.unlink()
    refused(folder, "none of its 3 chunks")


def codecs() -> list[dict[str, Any]]:
    """Every compressor that is read, in both versions of Zarr."""
    import numcodecs
    from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

    old = [numcodecs.Blosc(), numcodecs.Zstd(), numcodecs.GZip(), numcodecs.Zlib(), numcodecs.LZ4()]
    new = [BloscCodec(), ZstdCodec(), GzipCodec()]
    return [
        *({"zarr_format": 2, "compressors": codec} for codec in old),
        *({"compressors": codec} for codec in new),
        *({"compressors": codec, "shards": (4, 32, 32)} for codec in new),
    ]


@pytest.mark.parametrize("number", range(11))
def test_chunks_are_held_to_their_size(tmp_path: Path, number: int) -> None:
    options = codecs()[number]
    array = np.random.default_rng(0).integers(0, 99, (4, 32, 32), np.uint16)
    folder = tmp_path / "a.zarr"
    zarr.create_array(folder, data=array, chunks=(2, 32, 32), **options)
    with open_volume(folder) as volume:
        np.testing.assert_array_equal(volume.read(0, 4), array)
    files = [p for p in folder.rglob("*") if p.is_file() and p.stat().st_size > 1500]
    whole = files[0].read_bytes()
    damaged = [whole[:-9]]
    if "shards" not in options:  # the same chunk, but of an image 20 times as large
        large = np.ones((40, 32, 32), np.uint16)
        zarr.create_array(tmp_path / "large", data=large, chunks=(40, 32, 32), **options)
        bombs = [p for p in (tmp_path / "large").rglob("*") if p.is_file() and p.name[0] != "."]
        damaged += [p.read_bytes() for p in bombs if p.name != "zarr.json"]
        assert len(damaged) == 2
    for data in damaged:
        files[0].write_bytes(data)
        with (
            open_volume(folder) as volume,
            pytest.raises(ValueError, match=r"damaged or incomplete .* copy it again\."),
        ):
            volume.read(0, 4)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    version=st.sampled_from(["0.4", "0.5"]),
    which=st.integers(0, 30),
    place=st.floats(0, 1, exclude_max=True),
    change=st.one_of(st.binary(min_size=1, max_size=4), st.none()),
)
def test_damaged_bytes_end_in_a_sentence_or_in_pixels(
    tmp_path: Path, version: str, which: int, place: float, change: bytes | None
) -> None:
    folder = tmp_path / "a.zarr"
    shutil.rmtree(folder, ignore_errors=True)
    foreign(folder, ramp((4, 8, 8), "uint8"), version, chunks=(2, 8, 8))
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    file = files[which % len(files)]
    data = bytearray(file.read_bytes())
    at = int(place * len(data))
    if change is None:
        del data[at:]
    else:
        data[at : at + len(change)] = change
    file.write_bytes(bytes(data))
    try:
        with open_volume(folder) as volume:
            for z in range(min(volume.shape.z, 8)):
                volume.read(z, z + 1)
    except (ValueError, TypeError, OSError) as error:
        assert "\n" not in str(error)


def test_other_layouts_are_named(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "plate.zarr", attributes={"ome": {"version": "0.5", "plate": {}}})
    refused(tmp_path / "plate.zarr", "plate of many images")
    zarr.create_array(tmp_path / "b.zarr", data=ramp((2, 3, 4, 5)), chunks=(2, 3, 4, 5))
    refused(tmp_path / "b.zarr", "4 of them without names")
    zarr.create_array(
        tmp_path / "c.zarr", data=ramp((3, 4, 5)), chunks=(3, 4, 5), dimension_names="xyz"
    )
    refused(tmp_path / "c.zarr", "the axes x, y, z, but the order t, c, z, y, x")
    zarr.create_group(tmp_path / "d.zarr")
    refused(tmp_path / "d.zarr", "group of 0 images: it is empty")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "nrrn_fiji.formats.ome_zarr")
    monkeypatch.setitem(sys.modules, "zarr", None)
    kind = next(kind for kind in FORMATS if kind.extra == "zarr")
    with pytest.raises(ImportError, match=r"pip install 'nrrn-fiji\[zarr\]'\.$"):
        load_format(kind)


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    array = ramp((4, 30, 30))
    with calibrated(array) as volume, create_volume(tmp_path / "a.zarr", volume) as writer:
        monkeypatch.setattr(zarr.Array, "__setitem__", full)
        with pytest.raises(OSError, match="does not fit on its disk") as caught:
            writer.write(0, array)
        assert caught.value.errno == errno.ENOSPC
