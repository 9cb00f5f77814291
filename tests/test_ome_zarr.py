"""OME-Zarr that others wrote is read with all it says, and none of it is trusted."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from volume_files import all_of, ramp, refused
from zarr_files import foreign

from nrrn_fiji.formats.table import FORMATS, load_format
from nrrn_fiji.volumes import (
    open_volume,
)

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

    monkeypatch.delitem(sys.modules, "nrrn_fiji.formats.ome_zarr_output", raising=False)
    monkeypatch.setitem(sys.modules, "zarr", None)
    kind = next(kind for kind in FORMATS if kind.extra == "zarr")
    with pytest.raises(ImportError, match=r"pip install 'nrrn-fiji\[zarr\]'\.$"):
        load_format(kind)
