"""Pixels and metadata survive the way from ImageJ to NumPy and back, for every kind of image.

Images are made and checked with ImageJ's own means (macros, getVoxel, its TIFF writer), never
with the code under test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile


@pytest.fixture
def stack() -> np.ndarray[Any, Any]:
    """(Z, Y, X) with all three edges different and every grey value of 8 bits."""
    return np.random.default_rng(4).integers(0, 256, (5, 17, 23)).astype(np.uint8)


def imagej(java: Any, planes: np.ndarray[Any, Any], title: str = "stack.tif") -> Any:
    """An ImagePlus of the planes (n, Y, X), built voxel by voxel through ImageJ."""
    depth = planes.dtype.itemsize * 8
    count, height, width = planes.shape
    made = java("ij.ImageStack").create(width, height, count, depth)
    for (z, y, x), value in np.ndenumerate(planes):
        made.setVoxel(x, y, z, float(value))
    return java("ij.ImagePlus")(title, made)


def voxels(imp: Any) -> np.ndarray[Any, Any]:
    """(planes, Y, X) of raw values, read voxel by voxel through ImageJ."""
    made = imp.getStack()
    shape = (made.getSize(), imp.getHeight(), imp.getWidth())
    values = np.empty(shape)
    for z, y, x in np.ndindex(shape):
        values[z, y, x] = made.getVoxel(x, y, z)
    return values


def copied(volume: Any, title: str = "copy", **options: Any) -> Any:
    """A new ImagePlus with the same pixels, written in two slabs."""
    from nrrn_fiji.fiji.images import ImagePlusWriter

    with ImagePlusWriter(volume, title=title, **options) as writer:
        for t in range(volume.shape.t):
            for c in range(volume.shape.c):
                for start, stop in ((1, volume.shape.z), (0, 1)):
                    block = volume.read(start, stop, channel=c, time=t)
                    writer.write(start, block.astype(writer.dtype), channel=c, time=t)
        return writer.finish()


# --- pixels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pixels_both_ways(java: Any, dtype: Any) -> None:
    from nrrn_fiji.fiji.images import volume_of

    random = np.random.default_rng(1)
    planes = random.integers(0, 2**16 if dtype != np.uint8 else 256, (4, 5, 7)).astype(dtype)
    planes[0, 0, :2] = (0, 255) if dtype == np.uint8 else (0, 65535)
    if dtype == np.float32:
        planes[1, 2, :3] = (np.nan, -np.inf, 1e-30)
    volume = volume_of(imagej(java, planes))
    assert volume.dtype == dtype
    assert volume.shape == (1, 1, 4, 5, 7)
    assert np.array_equal(volume.read(0, 4), planes, equal_nan=dtype == np.float32)
    assert np.array_equal(volume.read(2, 3), planes[2:3])
    assert np.array_equal(voxels(copied(volume)), planes, equal_nan=dtype == np.float32)


def test_signed_16_bit_has_its_own_values_and_stays_signed(java: Any, tmp_path: Path) -> None:
    from nrrn_fiji.fiji.images import volume_of

    planes = np.array([[[-32768, -1, 0], [1, 1000, 32767]]] * 2, dtype=np.int16)
    tifffile.imwrite(tmp_path / "signed.tif", planes, photometric="minisblack")
    imp = java("ij.IJ").openImage(str(tmp_path / "signed.tif"))
    assert imp.getCalibration().isSigned16Bit()  # ImageJ's own reading of the file
    volume = volume_of(imp)
    assert volume.dtype == np.int16
    assert np.array_equal(volume.read(0, 2), planes)

    result = copied(volume)
    assert result.getCalibration().isSigned16Bit()
    assert [result.getPixel(x, 0)[0] for x in range(3)] == [0, 32767, 32768]
    result.setSlice(2)
    value = result.getCalibration().getCValue(result.getProcessor().get(1, 1))
    assert value == 1000
    noise = copied(volume, dtype=np.float32)
    assert not noise.getCalibration().calibrated()  # its values are what they are
    assert np.array_equal(voxels(noise), planes)


def test_a_hyperstack_by_channel_and_time(java: Any, stack: np.ndarray[Any, Any]) -> None:
    from nrrn_fiji.fiji.images import volume_of

    t, z, c = 2, 3, 4
    planes = np.random.default_rng(2).integers(0, 256, (t * z * c, 5, 6)).astype(np.uint8)
    imp = imagej(java, planes)
    imp.setDimensions(c, z, t)
    imp.setOpenAsHyperStack(True)
    java("ij.IJ").run(imp, "Fire", "")
    imp.setDisplayRange(20, 180)
    volume = volume_of(imp)
    assert volume.shape == (t, c, z, 5, 6)
    ordered = planes.reshape(t, z, c, 5, 6)  # ImageJ: channel fastest, then slice, then time
    assert np.array_equal(volume.read(1, 3, channel=3, time=1), ordered[1, 1:3, 3])
    result = copied(volume)
    assert list(result.getDimensions()) == [6, 5, c, z, t]
    assert result.isHyperStack()
    assert np.array_equal(voxels(result), planes)
    assert (result.getDisplayRangeMin(), result.getDisplayRangeMax()) == (20, 180)
    assert bytes(result.getLuts()[0].getBytes()) == bytes(imp.getLuts()[0].getBytes())


def test_a_single_image(java: Any, stack: np.ndarray[Any, Any]) -> None:
    from nrrn_fiji.fiji.images import volume_of

    imp = imagej(java, stack[:1])
    imp.setProp("Slice_Label", "tile 7")
    volume = volume_of(imp)
    assert volume.shape.z == 1
    assert volume.metadata.labels == ("tile 7",)
    result = copied(volume)
    assert result.getStackSize() == 1
    assert result.getProp("Slice_Label") == "tile 7"
    assert np.array_equal(voxels(result), stack[:1])


def test_edits_of_the_result_are_kept(java: Any, stack: np.ndarray[Any, Any]) -> None:
    from nrrn_fiji.fiji.images import volume_of

    result = copied(volume_of(imagej(java, stack)))
    java("ij.IJ").run(result, "Invert", "stack")
    assert np.array_equal(voxels(result), 255 - stack.astype(int))


def test_a_virtual_stack_is_read_slice_by_slice(
    java: Any, stack: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    from nrrn_fiji.fiji.images import volume_of

    path = tmp_path / "big.tif"
    tifffile.imwrite(path, stack.astype(np.uint16) * 200, imagej=True, metadata={"axes": "ZYX"})
    imp = java("ij.plugin.FileInfoVirtualStack").openVirtual(str(path))
    assert imp.getStack().isVirtual()
    volume = volume_of(imp)
    assert volume.path == path
    assert np.array_equal(volume.read(1, 4), stack[1:4].astype(np.uint16) * 200)
    before = volume.fingerprint()
    assert volume_of(imp).fingerprint() == before
    result = copied(volume)
    assert not result.getStack().isVirtual()
    assert np.array_equal(voxels(result), stack.astype(int) * 200)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"file of slice 3 of 'big\.tif' is gone"):
        volume.read(2, 3)  # ImageJ itself would give a black slice


def test_a_folder_as_a_virtual_stack(
    java: Any, stack: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    from nrrn_fiji.fiji.images import volume_of

    for z, plane in enumerate(stack):
        tifffile.imwrite(tmp_path / f"slice{z}.tif", plane)
    imp = java("ij.plugin.FolderOpener").open(str(tmp_path), "virtual")
    volume = volume_of(imp)
    assert np.array_equal(volume.read(0, 5), stack)
    assert volume.metadata.labels == tuple(f"slice{z}.tif" for z in range(5))


# --- metadata


def dressed(java: Any, planes: np.ndarray[Any, Any]) -> Any:
    """An ImagePlus with everything that can be told about one."""
    imp = imagej(java, planes, "cortex.tif")
    calibration = imp.getCalibration()
    calibration.pixelWidth, calibration.pixelHeight, calibration.pixelDepth = 4.0, 5.0, 30.0
    calibration.setUnit("nm")
    calibration.xOrigin, calibration.zOrigin = 3.0, 2.0
    calibration.frameInterval = 1.5
    for n in range(imp.getStackSize()):
        imp.getStack().setSliceLabel(f"slice {n}", n + 1)
    imp.setProperty("Info", "Microscope: one\nOperator: nobody")
    imp.setProperty("Attached", "by a plugin")
    imp.setProp("Sample", "medulla")
    imp.setRoi(java("ij.gui.OvalRoi")(2, 3, 7, 5))
    overlay = java("ij.gui.Overlay")(java("ij.gui.Line")(0, 0, 5, 5))
    imp.setOverlay(overlay)
    imp.setDisplayRange(20, 180)
    return imp


def test_everything_the_source_carries_is_kept(java: Any, stack: np.ndarray[Any, Any]) -> None:
    from nrrn_fiji.fiji.images import volume_of

    imp = dressed(java, stack)
    java("ij.IJ").run(imp, "Fire", "")
    imp.setSlice(3)
    imp.setDisplayRange(20, 180)
    volume = volume_of(imp)
    result = copied(volume, "cortex-denoised.tif", provenance={"model": "m", "units": 3})

    assert result.getTitle() == "cortex-denoised.tif"
    there, here = imp.getCalibration(), result.getCalibration()
    assert here.equals(there)
    assert (here.getUnit(), here.pixelDepth, here.xOrigin) == ("nm", 30.0, 3.0)
    assert here.frameInterval == 1.5
    assert [result.getStack().getSliceLabel(n + 1) for n in range(5)] == [
        f"slice {n}" for n in range(5)
    ]
    info = str(result.getProperty("Info")).splitlines()
    assert info[:2] == ["Microscope: one", "Operator: nobody"]
    assert info[2:] == ['nrrn: {"model": "m", "units": 3}']
    assert result.getProperty("Attached") == "by a plugin"
    assert result.getProp("Sample") == "medulla"
    assert result.getRoi().equals(imp.getRoi())
    assert result.getRoi() is not imp.getRoi()
    assert result.getOverlay().size() == 1
    assert (result.getDisplayRangeMin(), result.getDisplayRangeMax()) == (20, 180)
    assert bytes(result.getLuts()[0].getBytes()) == bytes(imp.getLuts()[0].getBytes())
    assert result.getCurrentSlice() == 3
    assert result.changes


def test_the_source_is_left_as_it_was(java: Any, stack: np.ndarray[Any, Any]) -> None:
    from nrrn_fiji.fiji.images import volume_of

    imp = dressed(java, stack)
    imp.setSlice(2)
    imp.changes = False
    description = java("ij.io.FileSaver")(imp).getDescriptionString()
    result = copied(volume_of(imp), provenance={"model": "m"})
    result.getCalibration().setUnit("mm")
    result.getRoi().setLocation(0, 0)
    result.getOverlay().clear()
    java("ij.IJ").run(result, "Select All", "")
    java("ij.IJ").run(result, "Multiply...", "value=0 stack")

    assert np.array_equal(voxels(imp), stack)
    assert java("ij.io.FileSaver")(imp).getDescriptionString() == description
    assert (imp.getRoi().getBounds().x, imp.getOverlay().size()) == (2, 1)
    assert imp.getProperty("Info") == "Microscope: one\nOperator: nobody"
    assert (imp.getCurrentSlice(), imp.changes) == (2, False)


@pytest.mark.parametrize("mode", ["composite", "color", "grayscale"])
def test_a_composite_keeps_its_colours(java: Any, mode: str) -> None:
    from nrrn_fiji.fiji.images import volume_of

    planes = np.random.default_rng(6).integers(0, 60000, (6, 5, 7)).astype(np.uint16)
    flat = dressed(java, planes)
    flat.setDimensions(2, 3, 1)
    number = {"composite": 1, "color": 2, "grayscale": 3}[mode]
    imp = java("ij.CompositeImage")(flat, number)
    imp.setLuts([java("ij.process.LUT").createLutFromColor(c) for c in _colours(java)])
    for channel, (low, high) in enumerate(((100, 5000), (7, 40000))):
        imp.setPosition(channel + 1, 1, 1)
        imp.setDisplayRange(low, high)
    imp.setPosition(2, 3, 1)
    if mode == "composite":
        imp.setActiveChannels("01")
    volume = volume_of(imp)
    result = copied(volume)
    assert result.isComposite()
    assert result.getMode() == number
    ranges = [(lut.min, lut.max) for lut in result.getLuts()]
    assert ranges == [(100, 5000), (7, 40000)]
    for ours, theirs in zip(result.getLuts(), imp.getLuts(), strict=True):
        assert bytes(ours.getBytes()) == bytes(theirs.getBytes())
    if mode == "composite":
        assert list(result.getActiveChannels())[:2] == [False, True]
    assert (result.getChannel(), result.getSlice()) == (2, 3)
    assert result.getCalibration().equals(imp.getCalibration())
    assert result.getStack().getSliceLabel(6) == "slice 5"
    assert result.getProperty("Info") == "Microscope: one\nOperator: nobody"
    assert result.getProp("Sample") == "medulla"
    assert result.getRoi().equals(imp.getRoi())
    assert np.array_equal(voxels(result), planes)

    noise = copied(volume, dtype=np.float32)
    assert noise.isComposite()
    # The source's range means nothing for other values; ImageJ's own choice does.
    assert [lut.max for lut in noise.getLuts()] == [planes[0].max(), planes[1].max()]


def _colours(java: Any) -> list[Any]:
    colour = java("java.awt.Color")
    return [colour.green, colour.magenta]


def test_a_range_of_slices(java: Any, stack: np.ndarray[Any, Any]) -> None:
    from nrrn_fiji.fiji.images import ImagePlusWriter, volume_of

    volume = volume_of(dressed(java, stack))
    writer = ImagePlusWriter(volume, title="part", slices=range(2, 4))
    writer.write(0, volume.read(2, 4))
    result = writer.finish()
    assert np.array_equal(voxels(result), stack[2:4])
    assert [result.getStack().getSliceLabel(n) for n in (1, 2)] == ["slice 2", "slice 3"]
    assert result.getCalibration().zOrigin == 0.0  # was slice 2 of the source


def test_a_file_written_from_an_image_says_what_imagej_would(
    java: Any, stack: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    from nrrn_fiji.fiji.images import volume_of
    from nrrn_fiji.volumes import create_volume

    imp = dressed(java, stack)
    volume = volume_of(imp)
    assert volume.voxel_size == (30.0, 5.0, 4.0)
    assert volume.voxel_unit == "nm"
    path = tmp_path / "out.tif"
    with create_volume(
        path, volume, shape=volume.shape, dtype=volume.dtype, slices=None, provenance={"a": 1}
    ) as writer:
        writer.write(0, volume.read(0, 5))
    opened = java("ij.IJ").openImage(str(path))
    assert np.array_equal(voxels(opened), stack)
    there, here = imp.getCalibration(), opened.getCalibration()
    assert (here.getUnit(), here.pixelWidth, here.pixelHeight) == ("nm", 4.0, 5.0)
    assert (here.pixelDepth, here.xOrigin) == (there.pixelDepth, there.xOrigin)
    assert opened.getStack().getSliceLabel(2) == "slice 1"
    assert opened.getProp("Sample") == "medulla"
    assert opened.getRoi().equals(imp.getRoi())
    assert opened.getOverlay().size() == 1
    assert (opened.getDisplayRangeMin(), opened.getDisplayRangeMax()) == (20, 180)
    assert str(opened.getProperty("Info")).startswith("Microscope: one\nOperator: nobody\nnrrn: ")


# --- bad input


def test_what_is_no_grey_image_is_refused(java: Any, stack: np.ndarray[Any, Any]) -> None:
    from nrrn_fiji.fiji.images import volume_of

    rgb = java("ij.IJ").createImage("photo", "RGB white", 8, 8, 3)
    plot = java("ij.gui.Plot")("drawn", "x", "y")
    plot.setColor("red")
    plot.add("line", [1.0, 2.0], [3.0, 5.0])
    with pytest.raises(ValueError, match="'drawn' is a plot: click on your stack first"):
        volume_of(plot.getImagePlus())
    with pytest.raises(ValueError, match=r"'photo' is an RGB colour image.*8-bit"):
        volume_of(rgb)
    with pytest.raises(TypeError, match=r"image is of type str, but accepted are ij\.ImagePlus"):
        volume_of("stack.tif")


def test_an_image_that_is_closed_is_said(java: Any, stack: np.ndarray[Any, Any]) -> None:
    from nrrn_fiji.fiji.images import volume_of

    imp = java("ij.IJ").createImage("stack.tif", "16-bit ramp", 9, 8, 5)
    volume = volume_of(imp)
    imp.flush()  # what closing its window does
    with pytest.raises(ValueError, match=r"'stack\.tif' was closed while it was read"):
        volume.read(0, 1)
    with pytest.raises(ValueError, match="closed"):
        volume_of(imp)


def test_a_stack_on_the_wrong_axis_is_noted_and_can_be_turned(
    java: Any, stack: np.ndarray[Any, Any]
) -> None:
    from nrrn_fiji.fiji.images import volume_of

    imp = imagej(java, stack)
    imp.setDimensions(1, 1, 5)
    volume = volume_of(imp)
    assert "5 time points and one slice" in volume.notes[0]
    volume.reinterpret("T")
    assert volume.shape.z == 5
    assert np.array_equal(volume.read(0, 5), stack)
    result = copied(volume)
    assert list(result.getDimensions())[2:] == [1, 5, 1]
    assert np.array_equal(voxels(result), stack)


def test_a_result_is_whole_and_of_a_type_that_imagej_has(
    java: Any, stack: np.ndarray[Any, Any]
) -> None:
    from nrrn_fiji.fiji.images import ImagePlusWriter, volume_of

    volume = volume_of(imagej(java, stack))
    with pytest.raises(ValueError, match=r"dtype is float64.*uint8.*float32"):
        ImagePlusWriter(volume, title="x", dtype=np.dtype(np.float64))
    writer = ImagePlusWriter(volume, title="half")
    writer.write(0, volume.read(0, 2))
    with pytest.raises(ValueError, match="3 of 5 planes of 'half' were never written"):
        writer.finish()
    with pytest.raises(ValueError, match=r"block is \(1, 17, 23\) of float32"):
        writer.write(2, volume.read(2, 3).astype(np.float32))


def test_java_full_is_said_before_it_is(java: Any) -> None:
    from nrrn_fiji.fiji.images import ImagePlusWriter, volume_of
    from nrrn_fiji.fiji.pixels import fits_in_java

    most = java("java.lang.Runtime").getRuntime().maxMemory()
    assert not fits_in_java(most)
    assert fits_in_java(most // 100)
    virtual = java("ij.VirtualStack")(20000, 20000, 20)  # 8 GB of nothing
    virtual.setBitDepth(8)
    volume = volume_of(java("ij.ImagePlus")("huge", virtual))
    with pytest.raises(MemoryError, match=r"no 8\.0 GB left.*write the result to a file"):
        ImagePlusWriter(volume, title="x")
