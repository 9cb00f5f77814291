"""OME-Zarr that is written: slabs, shards and the pyramid land where they belong."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import shutil
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from volume_files import NRRN, all_of, calibrated, copy, ramp, save
from zarr_files import described, foreign, level

from nrrn_fiji.formats.ngff_output import level_shapes
from nrrn_fiji.formats.ome_zarr_output import layout, mean_of_blocks
from nrrn_fiji.progress import Cancelled, NoProgress
from nrrn_fiji.volumes import (
    Origin,
    VolumeShape,
    create_volume,
    open_volume,
    reopen_volume,
)

SIZES = ((1, 2), (1, 2), (2, 6), (2, 9), (2, 9))  # fewest and most t, c, z, y, x


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
            worker.join(600)
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
