"""What an output says on how it was made can be put right at the end; nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from nrrn_fiji.formats.tiff_output import record_provenance
from nrrn_fiji.volumes import (
    VolumeWriter,
    create_volume,
    open_volume,
    parse_provenance,
    reopen_volume,
)

PLANNED = {"program": "nrrn-fiji", "plan": {"tile": 160}}
LONGER = {**PLANNED, "went_on_with": [{"slice": number, "tile": 80} for number in range(9)]}
SHORTER = {"plan": "µ"}
ENTRIES: dict[str, Any] = {
    "Info": "Operator: nobody\nnrrn: an older line\n",
    "Labels": ["first", "second µ", "third"],
    "Ranges": (5.0, 200.0),
    "ROI": b"Iout a selection",
    "Overlays": [b"Iout one", b"Iout the other"],
    "Properties": {"Sample": "medulla"},
}


def begin(source: Path, out: Path, provenance: dict[str, Any] | None = None) -> VolumeWriter:
    """Write an output that holds its source's pixels."""
    with open_volume(source) as volume:
        writer = create_volume(out, volume, provenance=provenance)
        writer.write(0, volume.read(0, volume.shape.z))
    return writer


def said(path: Path) -> dict[int, Any]:
    """Every tag of the first directory but those that tell where something lies."""
    with tifffile.TiffFile(path) as file:
        return {tag.code: tag.value for tag in file.pages[0].tags if tag.code != 273}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", ["out.tif", "out.ome.tif"])
def test_a_record_is_replaced_and_nothing_else_changes(
    tmp_path: Path, name: str, order: Any
) -> None:
    stack = np.random.default_rng(1).integers(0, 256, (3, 5, 6)).astype(np.uint8)
    metadata = {"axes": "ZYX", "unit": "nm", **ENTRIES}
    tifffile.imwrite(tmp_path / "in.tif", stack, imagej=True, byteorder=order, metadata=metadata)
    out = tmp_path / name
    writer = begin(tmp_path / "in.tif", out, PLANNED)
    before = said(out)
    for provenance in (LONGER, SHORTER, LONGER):  # longer texts move to the end of the file
        writer.record(provenance)
        with open_volume(out) as volume:
            assert volume.provenance == provenance
            assert volume.metadata.labels == tuple(ENTRIES["Labels"])
            assert volume.metadata.roi == ENTRIES["ROI"]
        assert np.array_equal(tifffile.imread(out), stack)
    writer.record(PLANNED)
    writer.close()
    after = said(out)
    assert before[50839]["Info"].startswith(ENTRIES["Info"])
    assert {**after, 270: None} == {**before, 270: None}
    # OME's text is written anew: the same but for the order of its declarations.
    assert after[270] == before[270] or name == "out.ome.tif"
    with open_volume(out) as volume:
        assert volume.provenance == PLANNED


def test_every_slice_of_a_folder_has_the_new_record(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "in.tif", np.zeros((3, 5, 6), np.uint8), photometric="minisblack")
    begin(tmp_path / "in.tif", tmp_path / "out", PLANNED).record(LONGER)
    files = sorted((tmp_path / "out").iterdir())
    assert len(files) == 3
    for file in files:
        with open_volume(file) as volume:
            assert volume.provenance == LONGER


def test_an_output_that_is_gone_on_with_has_the_new_record(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "in.ome.tif", np.zeros((3, 5, 6), np.uint16))
    begin(tmp_path / "in.ome.tif", tmp_path / "once.ome.tif", SHORTER).close()
    # A second pass: the record of the first is the input's, and stays.
    begin(tmp_path / "once.ome.tif", tmp_path / "out.ome.tif", PLANNED).close()
    with (
        open_volume(tmp_path / "once.ome.tif") as volume,
        reopen_volume(tmp_path / "out.ome.tif", volume) as writer,
    ):
        writer.record(LONGER)
    with open_volume(tmp_path / "out.ome.tif") as volume:
        assert volume.provenance == LONGER
        notes = volume.metadata.info.splitlines()
    assert parse_provenance(notes[0]) == SHORTER


@pytest.mark.parametrize("name", ["out.tif", "out.ome.tif"])
def test_an_output_without_a_record_gets_none(tmp_path: Path, name: str) -> None:
    metadata = {"axes": "ZYX", "Info": "Operator: nobody"}
    stack = np.zeros((3, 5, 6), np.uint8)
    tifffile.imwrite(tmp_path / "in.tif", stack, imagej=True, metadata=metadata)
    begin(tmp_path / "in.tif", tmp_path / name).close()
    before = (tmp_path / name).read_bytes()
    with pytest.raises(ValueError, match=r"no (record|annotation)"):
        record_provenance(tmp_path / name, PLANNED)
    assert (tmp_path / name).read_bytes() == before
