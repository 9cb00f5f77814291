"""What a TIFF says beside its pixels is in the result: ImageJ's tags byte by byte, and others'."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from volume_files import NRRN, all_of, copy, imagej_file, ramp, save

from nrrn_fiji.volumes import (
    VolumeShape,
    create_volume,
    open_volume,
    parse_provenance,
)


def raw_tags(path: Path, codes: tuple[int, ...]) -> dict[int, bytes]:
    """The bytes of tags of the first directory, as they are in the file."""
    with tifffile.TiffFile(path) as tif:
        found = {}
        for tag in tif.pages[0].tags:
            if tag.code in codes:
                tif.filehandle.seek(tag.valueoffset)
                found[tag.code] = tif.filehandle.read(tag.valuebytecount)
        return found


def selection(position: int, c: int = 0, z: int = 0, t: int = 0) -> bytes:
    """A rectangle as ImageJ's RoiEncoder stores it."""
    header = bytearray(64)
    struct.pack_into(">4shBxhhhh", header, 0, b"Iout", 227, 1, 1, 1, 3, 3)
    struct.pack_into(">ii", header, 56, position, 64)
    return bytes(header) + struct.pack(">iiii", 0, c, z, t).ljust(64, b"\0")


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
