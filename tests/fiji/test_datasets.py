"""Datasets and ImgPlus of ImageJ2: every way to hold pixels, any order of axes, both ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nrrn_fiji.fiji import jvm

pytestmark = pytest.mark.fiji

SIZES = {"X": 7, "Y": 5, "Z": 4, "Channel": 2, "Time": 3}
PIXELS = {
    "UnsignedByteType": ("integer", "uint8"),
    "ByteType": ("integer", "int8"),
    "UnsignedShortType": ("integer", "uint16"),
    "ShortType": ("integer", "int16"),
    "FloatType": ("real", "float32"),
    "DoubleType": ("real", "float64"),
}


def img_plus(
    java: Any, axes: list[str], kind: str = "UnsignedShortType", img: str = "array"
) -> Any:
    """An ImgPlus filled pixel by pixel: x + 10 y + 100 z + 1000 c + 10000 t, kept in range."""
    import jpype

    package = PIXELS[kind][0]
    pixel = java(f"net.imglib2.type.numeric.{package}.{kind}")()
    factories = {
        "array": "net.imglib2.img.array.ArrayImgFactory",
        "planar": "net.imglib2.img.planar.PlanarImgFactory",
        "cell": "net.imglib2.img.cell.CellImgFactory",
    }
    factory = java(factories[img])
    made = factory(pixel, 3) if img == "cell" else factory(pixel)
    data = made.create(jpype.JArray(jpype.JLong)([SIZES[axis] for axis in axes]))
    access = data.randomAccess()
    for position in np.ndindex(*(SIZES[axis] for axis in axes)):
        access.setPosition(jpype.JArray(jpype.JLong)(position))
        access.get().setReal(float(value(dict(zip(axes, position, strict=True)), kind)))
    linear = java("net.imagej.axis.DefaultLinearAxis")
    names = java("net.imagej.axis.Axes")
    scales = {"X": 4.0, "Y": 5.0, "Z": 30.0}
    calibrated = [
        linear(names.get(axis), "nm" if axis in scales else None, scales.get(axis, 1.0), 0.0)
        for axis in axes
    ]
    return java("net.imagej.ImgPlus")(data, "cortex", calibrated)


def value(position: dict[str, int], kind: str) -> int:
    weights = {"X": 1, "Y": 10, "Z": 100, "Channel": 1000, "Time": 10000}
    total = sum(weights[axis] * number for axis, number in position.items())
    if PIXELS[kind][1] in ("uint8", "int8"):
        total = total % 251 - (120 if kind == "ByteType" else 0)
    return total - (5000 if kind == "ShortType" else 0)


def expected(axes: list[str], kind: str) -> np.ndarray[Any, Any]:
    """(T, C, Z, Y, X) of the same values."""
    order = ["Time", "Channel", "Z", "Y", "X"]
    shape = [SIZES[axis] if axis in axes else 1 for axis in order]
    return np.array(
        [
            value({a: n for a, n in zip(order, position, strict=True) if a in axes}, kind)
            for position in np.ndindex(*shape)
        ],
        dtype=PIXELS[kind][1],
    ).reshape(shape)


def contents(volume: Any) -> np.ndarray[Any, Any]:
    """(T, C, Z, Y, X), read through the code under test."""
    return np.array(
        [
            [volume.read(0, volume.shape.z, channel=c, time=t) for c in range(volume.shape.c)]
            for t in range(volume.shape.t)
        ]
    )


def copied(volume: Any, **options: Any) -> Any:
    from nrrn_fiji.fiji.datasets import ImgPlusWriter

    writer = ImgPlusWriter(volume, title="copy", **options)
    for t in range(volume.shape.t):
        for c in range(volume.shape.c):
            block = volume.read(0, volume.shape.z, channel=c, time=t).astype(writer.dtype)
            writer.write(0, block, channel=c, time=t)
    return writer.finish()


@pytest.mark.parametrize("img", ["array", "planar", "cell"])
@pytest.mark.parametrize(
    "axes",
    [
        ["X", "Y", "Z"],
        ["X", "Y", "Channel", "Z", "Time"],
        ["X", "Y", "Time", "Z"],
        ["Z", "X", "Y"],
        ["Channel", "Y", "X", "Z"],
        ["X", "Y"],
    ],
)
def test_any_order_of_axes_both_ways(java: Any, axes: list[str], img: str) -> None:
    from nrrn_fiji.fiji.images import volume_of

    kind = "UnsignedShortType"
    volume = volume_of(img_plus(java, axes, kind, img))
    assert np.array_equal(contents(volume), expected(axes, kind))
    if "Z" in axes:
        assert np.array_equal(volume.read(2, 4), expected(axes, kind)[0, 0, 2:4])

    result = copied(volume)
    assert isinstance(result, java("net.imagej.ImgPlus"))
    labels = [str(result.axis(d).type().getLabel()) for d in range(result.numDimensions())]
    assert labels == ["X", "Y", *[axis for axis in axes if axis not in ("X", "Y")]]
    scales = {label: result.axis(d).averageScale(0, 1) for d, label in enumerate(labels)}
    assert (scales["X"], scales["Y"], scales.get("Z", 30.0)) == (4.0, 5.0, 30.0)
    assert result.axis(0).unit() == "nm"
    assert np.array_equal(contents(volume_of(result)), expected(axes, kind))
    access = result.getImg().randomAccess()  # and by ImgLib2's own reading
    for d, label in enumerate(labels):
        access.setPosition(SIZES[label] - 1, d)
    last = {axis: SIZES[axis] - 1 for axis in axes}
    assert access.get().getRealDouble() == value(last, kind)


@pytest.mark.parametrize("kind", list(PIXELS))
def test_every_type_of_grey_value(java: Any, kind: str) -> None:
    from nrrn_fiji.fiji.images import volume_of

    axes = ["X", "Y", "Z"]
    volume = volume_of(img_plus(java, axes, kind, "planar"))
    assert volume.dtype == PIXELS[kind][1]
    assert np.array_equal(contents(volume), expected(axes, kind))
    assert (volume.voxel_size, volume.voxel_unit) == ((30.0, 5.0, 4.0), "nm")
    result = copied(volume)
    assert type(result.firstElement()).__name__.endswith(f".{kind}")
    assert np.array_equal(contents(volume_of(result)), expected(axes, kind))
    noise = copied(volume, dtype=np.float32)
    assert type(noise.firstElement()).__name__.endswith(".FloatType")


def test_a_dataset_made_from_an_imageplus(app: jvm.ImageJ, java: Any) -> None:
    from nrrn_fiji.fiji.images import volume_of

    imp = java("ij.IJ").createImage("ramp", "16-bit ramp", 9, 6, 2, 3, 2)
    for n in range(imp.getStackSize()):
        imp.getStack().getProcessor(n + 1).add(n)
    imp.getCalibration().setUnit("nm")
    imp.getCalibration().pixelDepth = 20.0
    dataset = app.gateway.convert().convert(imp, java("net.imagej.Dataset"))
    volume = volume_of(dataset)
    direct = volume_of(imp)
    assert volume.shape == direct.shape == (2, 2, 3, 6, 9)
    assert np.array_equal(contents(volume), contents(direct))

    result = copied(volume, provenance={"model": "m"})
    assert isinstance(result, java("net.imagej.Dataset"))
    assert result.getName() == "copy"
    assert result.getImgPlus().getProperties().get("nrrn") == '{"model": "m"}'
    back = app.gateway.convert().convert(result, java("ij.ImagePlus"))
    assert np.array_equal(contents(volume_of(back)), contents(direct))
    assert back.getCalibration().pixelDepth == 20.0
    assert back.getCalibration().getUnit() == "nm"
    assert list(back.getDimensions()) == list(imp.getDimensions())


def test_a_virtual_stack_seen_through_a_dataset(app: jvm.ImageJ, java: Any, tmp_path: Any) -> None:
    import tifffile

    from nrrn_fiji.fiji.images import volume_of

    planes = np.random.default_rng(3).integers(0, 60000, (4, 6, 8)).astype(np.uint16)
    path = tmp_path / "v.tif"
    tifffile.imwrite(path, planes, imagej=True, metadata={"axes": "ZYX"})
    imp = java("ij.plugin.FileInfoVirtualStack").openVirtual(str(path))
    dataset = app.gateway.convert().convert(imp, java("net.imagej.Dataset"))
    assert np.array_equal(contents(volume_of(dataset))[0, 0], planes)


def test_what_is_no_grey_image_is_refused(app: jvm.ImageJ, java: Any) -> None:
    import jpype

    from nrrn_fiji.fiji.images import volume_of

    rgb = java("ij.IJ").createImage("photo", "RGB white", 8, 8, 1)
    with pytest.raises(ValueError, match=r"'photo' is an RGB colour image"):
        volume_of(app.gateway.convert().convert(rgb, java("net.imagej.Dataset")))
    bits = java("net.imglib2.img.array.ArrayImgs").bits(jpype.JArray(jpype.JLong)([4, 4]))
    axes = java("net.imagej.axis.Axes")
    named = jpype.JArray(java("net.imagej.axis.AxisType"))([axes.X, axes.Y])
    with pytest.raises(ValueError, match=r"'mask' has pixels of type BitType, but accepted are"):
        volume_of(java("net.imagej.ImgPlus")(bits, "mask", named))
    shorts = java("net.imglib2.img.array.ArrayImgs").unsignedShorts(
        jpype.JArray(jpype.JLong)([4, 4, 3])
    )
    with pytest.raises(ValueError, match=r"'plain' has the axes X, Y, Unknown"):
        volume_of(java("net.imagej.ImgPlus")(shorts, "plain", named))
    named = jpype.JArray(java("net.imagej.axis.AxisType"))([axes.X, axes.Z, axes.TIME])
    with pytest.raises(ValueError, match=r"but X and Y are needed"):
        volume_of(java("net.imagej.ImgPlus")(shorts, "side", named))


def test_slices_on_the_wrong_axis_are_noted(java: Any) -> None:
    import jpype

    from nrrn_fiji.fiji.images import volume_of

    shorts = java("net.imglib2.img.array.ArrayImgs").unsignedShorts(
        jpype.JArray(jpype.JLong)([4, 5, 12])
    )
    axes = java("net.imagej.axis.Axes")
    named = jpype.JArray(java("net.imagej.axis.AxisType"))([axes.X, axes.Y, axes.CHANNEL])
    volume = volume_of(java("net.imagej.ImgPlus")(shorts, "unlabelled", named))
    assert "12 planes along Channel and one slice" in volume.notes[0]
    volume.reinterpret("C")
    assert volume.read(0, 12).shape == (12, 5, 4)
    result = copied(volume)
    assert str(result.axis(2).type().getLabel()) == "Z"
    assert volume_of(result).shape.z == 12
