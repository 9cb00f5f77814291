"""Volumes: what is read is what is there, what a file said is kept, bad input gets a sentence.

Inputs are written by tifffile and imageio, and outputs are read back with them, so that nothing
is proved by our own reader alone.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from nrrn_fiji import tiff_output
from nrrn_fiji.folders import natural_order
from nrrn_fiji.volumes import (
    Volume,
    VolumeShape,
    create_volume,
    open_volume,
    parse_provenance,
    reopen_volume,
)

OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"
NRRN = {"model": "fibsem-medulla", "tile": 128, "µ": [1.5, None]}


def ramp(shape: tuple[int, ...], dtype: str = "uint16") -> np.ndarray:
    """Different values everywhere, also at the ends of the type."""
    values = np.arange(np.prod(shape)).reshape(shape)
    if dtype.startswith("float"):
        return (values - 3.5).astype(dtype)
    info = np.iinfo(dtype)
    return (info.min + values * 7 % (int(info.max) - int(info.min) + 1)).astype(dtype)


def save(path: Path, *array: np.ndarray, **options: Any) -> None:
    """Write a grey TIFF with tifffile."""
    tifffile.imwrite(path, *array, **{"photometric": "minisblack", **options})


def all_of(volume: Volume) -> np.ndarray:
    """All pixels in the order T, Z, C, Y, X."""
    t, c, z = volume.shape[:3]
    planes = [
        [volume.read(0, z, channel=channel, time=time) for channel in range(c)] for time in range(t)
    ]
    return np.array(planes).transpose(0, 2, 1, 3, 4)


def copy(source: Path | str, out: Path, **options: Any) -> None:
    """Write an output that holds the input's pixels, slab by slab."""
    with open_volume(source) as volume:
        slices = options.get("slices") or range(volume.shape.z)
        with create_volume(out, volume, provenance=NRRN, **options) as writer:
            for time in range(volume.shape.t):
                for channel in range(volume.shape.c):
                    for z in slices:
                        slab = volume.read(z, z + 1, channel=channel, time=time)
                        writer.write(z - slices.start, slab, channel=channel, time=time)


def imagej_file(path: Path, array: np.ndarray, **options: Any) -> dict[str, Any]:
    """Write an ImageJ hyperstack (T, Z, C, Y, X) with everything ImageJ can say about one."""
    t, z, c = array.shape[:3]
    luts = [np.stack([np.arange(256) // (i + 1 + k) for k in range(3)]) for i in range(c)]
    said = {
        "axes": "TZCYX",
        "mode": "composite",
        "unit": "nm",
        "spacing": 8.5,
        "finterval": 2.0,
        "zorigin": 3.0,
        "min": 5.0,
        "max": 99.0,
        "cf": 0,
        "c0": -32768.0,
        "c1": 1.0,
        "vunit": "Gray Value",
        "Info": "Made by hand\nµ = 0.5, 日本\n",
        "Labels": [f"plane {i} é" for i in range(t * z * c)],
        "Ranges": tuple(float(v) for i in range(c) for v in (i, 100 + i)),
        "LUTs": [lut.astype(np.uint8) for lut in luts],
        "ROI": b"Iout\x00\xe3 a selection",
        "Overlays": [b"Iout first", b"Iout second one"],
        "Properties": {"key": "value", "CZ": "µ"},
        **options,
    }
    save(path, array, imagej=True, resolution=(0.125, 0.25), metadata=said)
    return said


# Reading -----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("axes", ["TCZYX", "CTZYX", "ZTCYX"])
def test_ome_dimension_orders_are_not_mixed_up(tmp_path: Path, axes: str) -> None:
    array = ramp((2, 3, 5, 4, 6))
    save(tmp_path / "in.ome.tif", array, metadata={"axes": axes})
    expected = array.transpose([axes.index(axis) for axis in "TZCYX"])
    with open_volume(tmp_path / "in.ome.tif") as volume:
        np.testing.assert_array_equal(all_of(volume), expected)
    copy(tmp_path / "in.ome.tif", tmp_path / "out.ome.tif")
    with tifffile.TiffFile(tmp_path / "out.ome.tif") as out:
        assert out.series[0].get_axes(squeeze=False) == "TZCYXS"
        np.testing.assert_array_equal(out.asarray(), expected)


def test_ome_split_over_several_files_is_read(tmp_path: Path) -> None:
    uuids = [f"urn:uuid:00000000-0000-0000-0000-00000000000{i}" for i in range(2)]
    data = "".join(
        f'<TiffData FirstZ="{i}" IFD="0" PlaneCount="1"><UUID FileName="{i}.ome.tif">{uuid}</UUID>'
        "</TiffData>"
        for i, uuid in enumerate(uuids)
    )
    array = ramp((2, 4, 6))
    for i, uuid in enumerate(uuids):
        xml = (
            f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{OME[1:-1]}" UUID="{uuid}">'
            '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" '
            'SizeX="6" SizeY="4" SizeZ="2" SizeC="1" SizeT="1">'
            f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{data}</Pixels></Image></OME>'
        )
        save(tmp_path / f"{i}.ome.tif", array[i], description=xml, metadata=None, ome=False)
    with open_volume(tmp_path / "0.ome.tif") as volume:
        np.testing.assert_array_equal(volume.read(0, 2), array)
    copy(tmp_path / "0.ome.tif", tmp_path / "out.ome.tif")
    (tmp_path / "1.ome.tif").unlink()
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.ome.tif"), array)
    with pytest.raises(ValueError, match="plane 1 of 2 is missing"):
        open_volume(tmp_path / "0.ome.tif")


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


def read_bytes() -> int:
    """How many bytes this process has read so far."""
    source = Path("/proc/self/io")
    if not source.exists():
        pytest.skip("this system does not count the bytes a process reads")
    return int(source.read_text().split("rchar:")[1].split()[0])


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


# What the file said ------------------------------------------------------------------------------


def raw_tags(path: Path, codes: tuple[int, ...]) -> dict[int, bytes]:
    """The bytes of tags of the first directory, as they are in the file."""
    with tifffile.TiffFile(path) as tif:
        found = {}
        for tag in tif.pages[0].tags:
            if tag.code in codes:
                tif.filehandle.seek(tag.valueoffset)
                found[tag.code] = tif.filehandle.read(tag.valuebytecount)
        return found


@pytest.mark.parametrize("order", ["<", ">"])
def test_imagej_metadata_survive_byte_by_byte(tmp_path: Path, order: str) -> None:
    array = ramp((2, 4, 3, 5, 6))
    said = imagej_file(tmp_path / "in.tif", array)
    if order == ">":
        said.pop("axes")
        save(
            tmp_path / "in.tif",
            array,
            imagej=True,
            byteorder=">",
            resolution=(0.125, 0.25),
            metadata={"axes": "TZCYX", **said},
        )
    with open_volume(tmp_path / "in.tif") as volume:
        assert volume.voxel_size == (8.5, 4.0, 8.0)
        assert volume.voxel_unit == "nm"
        with create_volume(tmp_path / "out.tif", volume):
            pass
    codes = (270, 282, 283, 296, 305, 50838, 50839)
    before, after = (raw_tags(tmp_path / name, codes) for name in ("in.tif", "out.tif"))
    before[270], after[270] = (text.rstrip(b"\0") for text in (before[270], after[270]))
    assert before.keys() == set(codes)
    assert after == before


@pytest.mark.parametrize("name", ["imagej_hyperstack.tif", "imagej_signed16.tif"])
def test_what_imagej_itself_wrote_survives_byte_by_byte(
    tmp_path: Path, data: Path, name: str
) -> None:
    with open_volume(data / name) as volume:
        array = all_of(volume)
        with create_volume(tmp_path / name, volume) as writer:
            for t, z, c in np.ndindex(array.shape[:3]):
                writer.write(z, array[t, z : z + 1, c], channel=c, time=t)
    before, after = (
        {
            code: value.rstrip(b"\0") if code == 270 else value
            for code, value in raw_tags(path / name, (262, 270, 339, 50838, 50839)).items()
        }
        for path in (data, tmp_path)
    )
    assert after == before
    with tifffile.TiffFile(tmp_path / name) as out, tifffile.TiffFile(data / name) as original:
        np.testing.assert_array_equal(out.asarray(), original.asarray())
        for code in (282, 283):
            new = out.pages[0].tags[code].value
            # Where ImageJ wrote no calibration, one pixel is one unit.
            old = original.pages[0].tags.valueof(code, default=(1, 1))
            assert old[0] * new[1] == old[1] * new[0]


def test_values_imagej_itself_wrote_are_understood(data: Path) -> None:
    with open_volume(data / "imagej_hyperstack.tif") as volume:
        assert volume.shape == VolumeShape(t=2, c=2, z=4, y=5, x=7)
        assert volume.voxel_size == pytest.approx((0.02, 0.009, 0.008))
        assert volume.voxel_unit == "µm"
        assert volume.metadata.labels[1] == "plane 2 é\nsecond line"
        assert volume.metadata.ranges == (10, 5000, 20, 10000)
        assert volume.metadata.properties == {"dwell": "3 us"}
        assert len(volume.metadata.overlays) == 2
        # As it was made: plane number (from 1, channel fastest) times 1000, plus 7 y + x.
        assert volume.read(2, 3, channel=1, time=1)[0, 3, 4] == 14_000 + 7 * 3 + 4


def test_provenance_is_the_last_line_of_info(tmp_path: Path) -> None:
    said = imagej_file(tmp_path / "in.tif", ramp((1, 4, 1, 5, 6)))
    copy(tmp_path / "in.tif", tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as out:
        info = out.imagej_metadata["Info"]
    assert info.startswith(said["Info"])
    assert info.splitlines()[-1].startswith("nrrn: {")
    assert parse_provenance(info) == NRRN
    with open_volume(tmp_path / "out.tif") as volume:
        assert volume.provenance == NRRN


def test_labels_and_origin_follow_the_slices(tmp_path: Path) -> None:
    array = ramp((2, 6, 3, 5, 6))
    said = imagej_file(tmp_path / "in.tif", array)
    copy(tmp_path / "in.tif", tmp_path / "out.tif", slices=range(2, 5))
    with tifffile.TiffFile(tmp_path / "out.tif") as out:
        meta = out.imagej_metadata
        np.testing.assert_array_equal(out.asarray(), array[:, 2:5])
    labels = np.array(said["Labels"]).reshape(2, 6, 3)
    assert meta["Labels"] == list(labels[:, 2:5].ravel())
    assert (meta["images"], meta["channels"], meta["slices"], meta["frames"]) == (18, 3, 3, 2)
    assert meta["zorigin"] == 1.0
    assert meta["Ranges"] == said["Ranges"]
    assert [bytes(o) for o in meta["Overlays"]] == said["Overlays"]


def test_an_output_of_other_values_has_no_display_range_of_the_input(tmp_path: Path) -> None:
    imagej_file(tmp_path / "in.tif", ramp((1, 4, 1, 5, 6)))
    with open_volume(tmp_path / "in.tif") as volume:
        create_volume(tmp_path / "noise.tif", volume, dtype="float32").close()
        shape = volume.shape._replace(c=3)
        create_volume(
            tmp_path / "units.tif", volume, dtype="float32", shape=shape, channel_names="abc"
        ).close()
    for name, channels in (("noise.tif", 1), ("units.tif", 3)):
        with tifffile.TiffFile(tmp_path / name) as out:
            meta = out.imagej_metadata
            assert out.series[0].dtype == np.float32
        assert not {"min", "max", "cf", "c0", "c1", "vunit", "Ranges"} & meta.keys()
        assert meta.get("channels", 1) == channels
        assert meta["unit"] == "nm" and meta["spacing"] == 8.5
        assert len(meta["Labels"]) == 4 * channels
    # ImageJ shows no names of channels, but the label of the plane.
    assert meta["Labels"][:4] == ["a: plane 0 é", "b: plane 0 é", "c: plane 0 é", "a: plane 1 é"]


def test_sixteen_bit_signed_keeps_its_calibration(tmp_path: Path) -> None:
    # ImageJ itself stores signed images as unsigned ones with a calibration line.
    said = imagej_file(tmp_path / "in.tif", ramp((1, 4, 1, 5, 6)))
    copy(tmp_path / "in.tif", tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as out:
        meta = out.imagej_metadata
        np.testing.assert_array_equal(out.asarray(), ramp((4, 5, 6)))
    assert {key: meta[key] for key in ("cf", "c0", "c1", "vunit", "min", "max")} == {
        key: said[key] for key in ("cf", "c0", "c1", "vunit", "min", "max")
    }


@pytest.mark.parametrize(("dtype", "photometric"), [("uint8", "palette"), ("uint16", "minisblack")])
def test_colour_tables_are_kept(tmp_path: Path, dtype: str, photometric: str) -> None:
    table = (np.arange(768).reshape(3, 256) * 85).astype(np.uint16)
    save(
        tmp_path / "in.tif",
        ramp((3, 5, 6), dtype),
        imagej=True,
        photometric=photometric,
        colormap=table,
        metadata={"axes": "ZYX"},
    )
    copy(tmp_path / "in.tif", tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as out:
        page = out.pages[0]
        assert page.photometric == tifffile.PHOTOMETRIC[photometric.upper()]
        np.testing.assert_array_equal(page.colormap, table)
        np.testing.assert_array_equal(out.asarray(), ramp((3, 5, 6), dtype))


def test_inverted_grey_values_stay_inverted(tmp_path: Path) -> None:
    array = ramp((3, 5, 6), "uint8")
    save(tmp_path / "in.tif", array, photometric="miniswhite", metadata=None)
    copy(tmp_path / "in.tif", tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as out:
        assert out.pages[0].photometric == tifffile.PHOTOMETRIC.MINISWHITE
        np.testing.assert_array_equal(out.asarray(), array)


def test_what_a_microscope_wrote_into_a_plain_tiff_is_kept(tmp_path: Path) -> None:
    zeiss = b"AP_PIXEL_SIZE\r\nPixel Size = 5.000 nm\r\n"
    save(
        tmp_path / "in.tif",
        ramp((3, 5, 6)),
        description="Lamella 4, \u00b5 side".encode("latin-1"),
        metadata=None,
        software=b"SmartSEM \xa9",
        datetime="2020:01:02 03:04:05",
        resolution=((20, 7), (30, 7)),
        resolutionunit="CENTIMETER",
        extratags=[(34682, 7, len(zeiss), zeiss, True), (315, 2, 0, "A. Microscopist", True)],
    )
    copy(tmp_path / "in.tif", tmp_path / "out.tif")
    codes = (282, 283, 296, 305, 306, 315, 34682)
    before, after = (raw_tags(tmp_path / name, codes) for name in ("in.tif", "out.tif"))
    assert before.keys() == set(codes)
    assert after == before
    with tifffile.TiffFile(tmp_path / "out.tif") as out:
        assert out.imagej_metadata["Info"].startswith("Lamella 4, µ side\nnrrn: ")


def test_ome_metadata_are_kept(tmp_path: Path) -> None:
    array = ramp((2, 6, 5, 7))
    said = {
        "axes": "CZYX",
        "PhysicalSizeX": 4.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 5.0,
        "PhysicalSizeYUnit": "nm",
        "PhysicalSizeZ": 8.0,
        "PhysicalSizeZUnit": "nm",
        "Channel": {"Name": ["SE2", "ESB µ"], "EmissionWavelength": [500, 600]},
        "Plane": {"PositionZ": [float(i) for i in range(12)]},
        "Description": "with <brackets> & é",
    }
    save(tmp_path / "in.ome.tif", array, metadata=said)
    with open_volume(tmp_path / "in.ome.tif") as volume:
        assert volume.voxel_size == (8.0, 5.0, 4.0)
        assert volume.voxel_unit == "nm"
        assert volume.metadata.channel_names == ("SE2", "ESB µ")
    # The name alone does not make it an OME-TIFF; that the input is one does.
    copy(tmp_path / "in.ome.tif", tmp_path / "out.tif", slices=range(1, 4))
    with tifffile.TiffFile(tmp_path / "out.tif") as out:
        assert out.is_ome
        np.testing.assert_array_equal(out.asarray(), array[:, 1:4].swapaxes(0, 1))
        root = ElementTree.fromstring(out.ome_metadata)
        before = tifffile.TiffFile(tmp_path / "in.ome.tif")
        old = ElementTree.fromstring(before.ome_metadata)
        before.close()
    image, old_image = root.find(f"{OME}Image"), old.find(f"{OME}Image")
    assert image.findtext(f"{OME}Description") == said["Description"]
    pixels, old_pixels = image.find(f"{OME}Pixels"), old_image.find(f"{OME}Pixels")
    for key, value in old_pixels.attrib.items():
        if key not in ("SizeZ", "DimensionOrder"):
            assert pixels.get(key) == value
    assert pixels.get("SizeZ") == "3"
    channels = [dict(c.attrib) for c in pixels.findall(f"{OME}Channel")]
    assert channels == [dict(c.attrib) for c in old_pixels.findall(f"{OME}Channel")]
    planes = [
        (p.get("TheC"), p.get("TheZ"), p.get("PositionZ")) for p in pixels.iter(f"{OME}Plane")
    ]
    assert planes == [(c, str(z), str(float(int(c) * 6 + z + 1))) for c in "01" for z in range(3)]
    note = root.find(f"{OME}StructuredAnnotations/{OME}CommentAnnotation[@Namespace='nrrn']")
    assert image.find(f"{OME}AnnotationRef").get("ID") == note.get("ID")
    with open_volume(tmp_path / "out.tif") as volume:
        assert volume.provenance == NRRN
        # A second run adds a second note.
        create_volume(tmp_path / "2.ome.tif", volume, provenance={"again": 1}).close()
    with open_volume(tmp_path / "2.ome.tif") as volume:
        assert volume.provenance == {"again": 1}
        assert volume.metadata.ome_xml.count('Namespace="nrrn"') == 2


def test_ome_sizes_in_different_units_are_brought_to_one(tmp_path: Path) -> None:
    said = {"axes": "ZYX", "PhysicalSizeX": 4.0, "PhysicalSizeXUnit": "nm"}
    said |= {"PhysicalSizeY": 0.005, "PhysicalSizeYUnit": "µm"}
    said |= {"PhysicalSizeZ": 80.0, "PhysicalSizeZUnit": "Å"}
    save(tmp_path / "in.ome.tif", ramp((3, 4, 5)), metadata=said)
    with open_volume(tmp_path / "in.ome.tif") as volume:
        assert volume.voxel_size == pytest.approx((8.0, 5.0, 4.0))
        assert volume.voxel_unit == "nm"


def test_ome_whose_other_files_are_named_elsewhere_is_noted(tmp_path: Path) -> None:
    xml = f'<OME xmlns="{OME[1:-1]}"><BinaryOnly MetadataFile="a.companion.ome" UUID="u"/></OME>'
    save(tmp_path / "in.ome.tif", ramp((9, 4, 5)), description=xml, metadata=None, ome=False)
    with open_volume(tmp_path / "in.ome.tif") as volume:
        assert volume.shape.z == 9
        assert len(volume.notes) == 1 and "OME-XML" in volume.notes[0]


def test_an_ome_stack_becomes_a_folder_of_calibrated_slices(tmp_path: Path) -> None:
    array = ramp((2, 3, 4, 5))
    said = {"axes": "CZYX", "PhysicalSizeX": 4.0, "PhysicalSizeY": 5.0, "PhysicalSizeZ": 8.0}
    save(tmp_path / "in.ome.tif", array, metadata=said)
    copy(tmp_path / "in.ome.tif", tmp_path / "out")
    with tifffile.TiffFile(tmp_path / "out" / "in_0002_c1.tif") as out:
        np.testing.assert_array_equal(out.asarray(), array[1, 2])
        assert out.imagej_metadata["unit"] == "um" and out.imagej_metadata["spacing"] == 8.0
        assert out.pages[0].tags[282].value == (1, 4) and out.pages[0].tags[283].value == (1, 5)
        assert 'PhysicalSizeZ="8.0"' in out.imagej_metadata["Info"]


def test_what_others_wrote_into_the_description_becomes_info(tmp_path: Path) -> None:
    save(tmp_path / "bare.tif", ramp((3, 4, 5)))
    save(tmp_path / "more.tif", ramp((3, 4, 5)), metadata={"axes": "ZYX", "detector": "ESB"})
    with open_volume(tmp_path / "bare.tif") as bare, open_volume(tmp_path / "more.tif") as more:
        assert bare.metadata.info == ""
        assert '"detector": "ESB"' in more.metadata.info


def test_scifios_second_shape_does_not_stay_behind(tmp_path: Path) -> None:
    text = "SCIFIO=0.46\naxes=X,Y,Z\nlengths=5,4,9\nimages=9\nslices=9\nunit=nm\n"
    save(tmp_path / "in.tif", ramp((9, 4, 5)), description=text, metadata=None)
    copy(tmp_path / "in.tif", tmp_path / "out.tif", slices=range(2, 4))
    with tifffile.TiffFile(tmp_path / "out.tif") as out:
        assert out.imagej_metadata["slices"] == 2 and out.imagej_metadata["unit"] == "nm"
        assert "lengths" not in out.imagej_metadata
        np.testing.assert_array_equal(out.asarray(), ramp((9, 4, 5))[2:4])


def test_imagej_metadata_travel_into_ome(tmp_path: Path) -> None:
    array = ramp((1, 4, 2, 5, 6))
    said = imagej_file(tmp_path / "in.tif", array)
    copy(tmp_path / "in.tif", tmp_path / "out.ome.tif")
    with tifffile.TiffFile(tmp_path / "out.ome.tif") as out:
        assert out.is_ome
        pixels = ElementTree.fromstring(out.ome_metadata).find(f"{OME}Image/{OME}Pixels")
        entries = out.pages[0].tags[50839].value
        np.testing.assert_array_equal(out.asarray(), array[0])
    sizes = {axis: float(pixels.get(f"PhysicalSize{axis}")) for axis in "ZYX"}
    assert sizes == {"Z": 8.5, "Y": 4.0, "X": 8.0}
    assert pixels.get("PhysicalSizeXUnit") == "nm"
    assert entries["Labels"] == said["Labels"]
    assert entries["ROI"] == said["ROI"]
    copy(tmp_path / "out.ome.tif", tmp_path / "again.ome.tif")
    with open_volume(tmp_path / "again.ome.tif") as volume:
        assert volume.metadata.labels == tuple(said["Labels"])
        assert "Made by hand" in volume.metadata.info
        assert 'K="finterval">2.0<' in volume.metadata.ome_xml


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ROI", b"Iout\x00\xe3 a selection"),
        ("Overlays", [b"Iout first", b"Iout second one"]),
        ("Properties", {"key": "value"}),
        ("Ranges", (5.0, 99.0)),
        ("Plot", b"a plot"),
        ("Info", "Made by hand"),
    ],
)
def test_imagej_entries_survive_a_second_pass_through_ome(
    tmp_path: Path, name: str, value: Any
) -> None:
    save(tmp_path / "in.tif", ramp((4, 5, 6)), imagej=True, metadata={"axes": "ZYX", name: value})
    copy(tmp_path / "in.tif", tmp_path / "out.ome.tif")
    copy(tmp_path / "out.ome.tif", tmp_path / "again.ome.tif")
    with tifffile.TiffFile(tmp_path / "again.ome.tif") as out:
        assert out.is_ome
        entry = out.pages[0].tags[50839].value[name]
    assert entry.startswith(value) if name == "Info" else entry == value


def test_an_ome_tiff_gets_no_imagej_entries_for_provenance_alone(tmp_path: Path) -> None:
    save(tmp_path / "in.ome.tif", ramp((4, 5, 6)), metadata={"axes": "ZYX"})
    copy(tmp_path / "in.ome.tif", tmp_path / "out.ome.tif")
    copy(tmp_path / "out.ome.tif", tmp_path / "again.ome.tif")
    with tifffile.TiffFile(tmp_path / "again.ome.tif") as out:
        assert 50839 not in out.pages[0].tags


def selection(position: int, c: int = 0, z: int = 0, t: int = 0) -> bytes:
    """A rectangle as ImageJ's RoiEncoder stores it."""
    header = bytearray(64)
    struct.pack_into(">4shBxhhhh", header, 0, b"Iout", 227, 1, 1, 1, 3, 3)
    struct.pack_into(">ii", header, 56, position, 64)
    return bytes(header) + struct.pack(">iiii", 0, c, z, t).ljust(64, b"\0")


def test_selections_follow_the_slices(tmp_path: Path) -> None:
    overlays = [selection(p) for p in (0, 1, 4, 6)]
    overlays += [selection(0, c=2, z=z, t=1) for z in (2, 3, 5)]
    imagej_file(
        tmp_path / "in.tif", ramp((2, 6, 3, 5, 6)), ROI=selection(0, z=4), Overlays=overlays
    )
    copy(tmp_path / "in.tif", tmp_path / "out.tif", slices=range(2, 5))
    with tifffile.TiffFile(tmp_path / "out.tif") as out:
        meta = out.imagej_metadata
    expected = [selection(0), selection(2), *(selection(0, c=2, z=z, t=1) for z in (1, 3))]
    assert [bytes(overlay) for overlay in meta["Overlays"]] == expected
    assert meta["ROI"] == selection(0, z=2)
    copy(tmp_path / "in.tif", tmp_path / "last.tif", slices=range(5, 6))
    with tifffile.TiffFile(tmp_path / "last.tif") as last:
        assert "ROI" not in last.imagej_metadata
        # A single overlay is not a list to tifffile's reader of a file with one.
        assert last.imagej_metadata["Overlays"] == [selection(0), selection(1)]


def test_selections_on_one_channel_are_shown_on_all_others_made_of_it(tmp_path: Path) -> None:
    imagej_file(tmp_path / "in.tif", ramp((1, 4, 2, 5, 6)), Overlays=[selection(0, c=2, z=3)] * 2)
    with open_volume(tmp_path / "in.tif") as volume:
        shape = volume.shape._replace(c=6)
        create_volume(tmp_path / "out.tif", volume, shape=shape).close()
    with tifffile.TiffFile(tmp_path / "out.tif") as out:
        assert out.imagej_metadata["Overlays"] == [selection(0, z=3)] * 2


def test_slices_of_a_folder_have_their_own_selections(tmp_path: Path) -> None:
    overlays = [selection(1), selection(3), selection(0)]
    imagej_file(tmp_path / "in.tif", ramp((1, 4, 1, 5, 6)), ROI=selection(4), Overlays=overlays)
    copy(tmp_path / "in.tif", tmp_path / "out")
    with tifffile.TiffFile(tmp_path / "out" / "in_0002.tif") as out:
        assert out.imagej_metadata["Overlays"] == [selection(1), selection(0)]
        assert "ROI" not in out.imagej_metadata


def test_ome_regions_follow_the_slices(tmp_path: Path) -> None:
    regions = "".join(
        f'<ROI ID="ROI:{i}"><Union><Rectangle ID="Shape:{i}" X="0" Y="0" Width="1" Height="1"{z}/>'
        "</Union></ROI>"
        for i, z in enumerate(["", ' TheZ="1"', ' TheZ="3"', ' TheZ="5"'])
    )
    xml = (
        f'<OME xmlns="{OME[1:-1]}"><Image ID="Image:0"><Pixels ID="Pixels:0" '
        'DimensionOrder="XYZCT" Type="uint16" SizeX="6" SizeY="5" SizeZ="6" SizeC="1" SizeT="1">'
        '<TiffData IFD="0" PlaneCount="6"/></Pixels><ROIRef ID="ROI:1"/><ROIRef ID="ROI:2"/>'
        f"</Image>{regions}</OME>"
    )
    save(tmp_path / "in.ome.tif", ramp((6, 5, 6)), description=xml, metadata=None, ome=False)
    copy(tmp_path / "in.ome.tif", tmp_path / "out.ome.tif", slices=range(2, 5))
    with tifffile.TiffFile(tmp_path / "out.ome.tif") as out:
        root = ElementTree.fromstring(out.ome_metadata)
    found = {r.get("ID"): r.find(f"{OME}Union/{OME}Rectangle") for r in root.findall(f"{OME}ROI")}
    assert {name: shape.get("TheZ") for name, shape in found.items()} == {
        "ROI:0": None,
        "ROI:2": "1",
    }
    assert [r.get("ID") for r in root.iter(f"{OME}ROIRef")] == ["ROI:2"]


@pytest.mark.parametrize("channels", [1, 2])
def test_labels_go_to_every_channel_made_of_one(tmp_path: Path, channels: int) -> None:
    imagej_file(tmp_path / "in.tif", ramp((2, 3, channels, 5, 6)))
    names = [f"{c}{k}" for c in range(channels) for k in "ab"]
    with open_volume(tmp_path / "in.tif") as volume:
        labels = np.array(volume.metadata.labels).reshape(2, 3, channels)
        shape = volume.shape._replace(c=2 * channels)
        for out in ("out.tif", "folder"):
            create_volume(
                tmp_path / out, volume, shape=shape, dtype="float32", channel_names=names
            ).close()
    expected = [
        f"{name}: {labels[t, z, c // 2]}"
        for t in range(2)
        for z in range(3)
        for c, name in enumerate(names)
    ]
    with tifffile.TiffFile(tmp_path / "out.tif") as tif:
        assert tif.imagej_metadata["Labels"] == expected
    found = []
    for t in range(2):
        for z in range(3):
            for c in range(2 * channels):
                file = tmp_path / "folder" / f"in_{z:04d}_t{t:03d}_c{c}.tif"
                with tifffile.TiffFile(file) as tif:
                    found.append(tif.imagej_metadata["Labels"])
    assert found == expected


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


# Writing -----------------------------------------------------------------------------------------


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


# Axes that were saved wrongly --------------------------------------------------------------------


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


# The same image? ---------------------------------------------------------------------------------


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


# Bad input ---------------------------------------------------------------------------------------


def refused(source: Any, message: str, kind: type[Exception] = ValueError) -> None:
    """The source is refused with one sentence that ends with what to do."""
    with pytest.raises(kind, match=message) as caught:
        open_volume(source)
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text and "Traceback" not in text


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
