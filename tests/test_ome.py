"""OME-TIFF: axes, sizes and all entries of the XML survive, and follow the slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from volume_files import NRRN, OME, all_of, copy, imagej_file, ramp, save

from nrrn_fiji.volumes import (
    create_volume,
    open_volume,
)


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
