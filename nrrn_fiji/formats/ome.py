"""Reads, rewrites and composes OME-XML, the description inside OME-TIFF files.

An output keeps the XML of its input, with only those entries changed that the output makes false
(sizes, pixel type, where planes lie).  This module must never drop an entry it does not know.

Source: OME data model 2016-06, https://docs.openmicroscopy.org/ome-model/
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from .metadata import VolumeShape

__all__ = ["OmeSummary", "compose", "rewrite", "summarise", "swap_depth", "with_provenance"]

NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
ANNOTATION = "nrrn"
PIXEL_TYPES = {"float32": "float", "float64": "double"}
UNITS = {
    "micron": "µm",
    "microns": "µm",
    "um": "µm",
    "\u03bcm": "µm",
    "nanometer": "nm",
    "nanometers": "nm",
    "angstrom": "Å",
    "A": "Å",
    "inch": "in",
    "pixels": "pixel",
}
# What may stand in PhysicalSizeXUnit; anything else becomes "reference frame".
LENGTHS = ("m", "dm", "cm", "mm", "µm", "nm", "pm", "fm", "Å", "in", "pt", "pixel")
METRES = {"m": 1, "cm": 1e-2, "mm": 1e-3, "µm": 1e-6, "nm": 1e-9, "pm": 1e-12, "Å": 1e-10}

Element = ElementTree.Element


@dataclass(frozen=True)
class OmeSummary:
    """What the package itself wants to know from an OME-XML text."""

    voxel_size: tuple[float, float, float] | None
    voxel_unit: str | None
    channel_names: tuple[str, ...]
    info: str


def summarise(xml: str, shape: VolumeShape) -> OmeSummary:
    """Return voxel size, channel names and provenance of the image of this shape.

    Raises
    ------
    ValueError
        If the text is not well-formed XML.
    """
    root, space = _parse(xml)
    pixels = _pixels(_image(root, space, shape), space)
    names = tuple(
        channel.get("Name") or f"Channel {i}"
        for i, channel in enumerate(pixels.findall(f"{space}Channel"))
    )
    voxel, unit = _voxel(pixels)
    annotations = root.findall(f"{space}StructuredAnnotations/{space}CommentAnnotation")
    notes = [
        f"{ANNOTATION}: {note.findtext(f'{space}Value', '')}"
        for note in annotations
        if note.get("Namespace") == ANNOTATION
    ]
    named = names if any(c.get("Name") for c in pixels.findall(f"{space}Channel")) else ()
    return OmeSummary(voxel, unit, named, "\n".join(notes))


def _voxel(pixels: Element) -> tuple[tuple[float, float, float] | None, str | None]:
    """Return the size of a voxel (z, y, x) in the unit of x, and that unit."""
    unit = pixels.get("PhysicalSizeXUnit", "µm")
    sizes = []
    for axis in "ZYX":
        try:
            size = float(pixels.get(f"PhysicalSize{axis}", ""))
        except ValueError:
            size = math.nan
        other = pixels.get(f"PhysicalSize{axis}Unit", "µm")
        if other != unit:
            size *= METRES.get(other, math.nan) / METRES.get(unit, math.nan)
        sizes.append(size)
    z, y, x = sizes
    if not (y > 0 and x > 0):
        return None, None
    return (z if z > 0 else 1.0, y, x), unit


def swap_depth(xml: str, shape: VolumeShape, axis: str) -> str:
    """Return the text for an image whose axis "T" or "C" is read as depth (its z is 1)."""
    root, space = _parse(xml)
    pixels = _pixels(_image(root, space, shape), space)
    pixels.set("SizeZ", str(shape.t if axis == "T" else shape.c))
    pixels.set(f"Size{axis}", "1")
    if axis == "T":
        for key in ("TimeIncrement", "TimeIncrementUnit"):
            pixels.attrib.pop(key, None)
    else:
        for channel in pixels.findall(f"{space}Channel")[1:]:
            pixels.remove(channel)
    for plane in pixels.findall(f"{space}Plane"):
        plane.set("TheZ", plane.get(f"The{axis}", "0"))
        plane.set(f"The{axis}", "0")
    return _text(root, xml)


def rewrite(
    xml: str,
    *,
    like: VolumeShape,
    shape: VolumeShape,
    slices: range,
    dtype: str,
    big_endian: bool,
    channel_names: tuple[str, ...],
    provenance: dict[str, Any] | None,
) -> str:
    """Return the text for an output whose planes lie one after the other, channel fastest.

    Parameters
    ----------
    xml
        Text of the input.
    like, shape
        Shape of the input and of the output.
    slices
        Which slices of the input the output holds.
    dtype
        Name of the output's type, e.g. "uint16".
    big_endian
        Byte order of the output.
    channel_names
        Names of the channels, used if their number changes.
    provenance
        Object for the annotation named "nrrn"; None adds none.
    """
    root, space = _parse(xml)
    image = _image(root, space, like)
    pixels = _pixels(image, space)
    _keep_only(root, space, image)
    root.attrib.pop("UUID", None)
    if pixels.get("Type") != _pixel_type(dtype):
        pixels.attrib.pop("SignificantBits", None)
    pixels.set("Type", _pixel_type(dtype))
    pixels.set("DimensionOrder", "XYCZT")
    pixels.set("BigEndian", "true" if big_endian else "false")
    pixels.attrib.pop("Interleaved", None)
    for axis, size in zip("TCZYX", shape, strict=True):
        pixels.set(f"Size{axis}", str(size))
    for kind in ("TiffData", "BinData", "MetadataOnly"):
        for element in pixels.findall(f"{space}{kind}"):
            pixels.remove(element)
    if shape.c != like.c or not pixels.findall(f"{space}Channel"):
        for channel in pixels.findall(f"{space}Channel"):
            pixels.remove(channel)
        for i in range(shape.c):
            channel = Element(f"{space}Channel", ID=f"Channel:0:{i}", SamplesPerPixel="1")
            if i < len(channel_names):
                channel.set("Name", channel_names[i])
            pixels.insert(i, channel)
    data = Element(f"{space}TiffData", IFD="0", PlaneCount=str(shape.planes))
    pixels.insert(len(pixels.findall(f"{space}Channel")), data)
    for plane in pixels.findall(f"{space}Plane"):
        z = int(plane.get("TheZ", "0"))
        if z not in slices or (shape.t, shape.c) != (like.t, like.c):
            pixels.remove(plane)
        else:
            plane.set("TheZ", str(slices.index(z)))
    _move_regions(root, space, image, slices, (shape.t, shape.c) == (like.t, like.c))
    if provenance is not None:
        _annotate(root, space, image, json.dumps(provenance))
    return _text(root, xml)


def with_provenance(xml: str, provenance: dict[str, Any]) -> str:
    """Return the text with another object for the annotation that :func:`rewrite` added.

    Raises
    ------
    ValueError
        If there is none.
    """
    root, space = _parse(xml)
    notes = root.findall(f"{space}StructuredAnnotations/{space}CommentAnnotation")
    values = [note.find(f"{space}Value") for note in notes if note.get("Namespace") == ANNOTATION]
    if not values or values[-1] is None:
        raise ValueError(f"its OME-XML has no annotation named {ANNOTATION!r}")
    values[-1].text = json.dumps(provenance)  # those before it are of the input
    return _text(root, xml)


def compose(
    name: str,
    shape: VolumeShape,
    dtype: str,
    *,
    voxel_size: tuple[float, float, float] | None,
    voxel_unit: str | None,
    channel_names: tuple[str, ...] = (),
    colours: tuple[tuple[int, int, int], ...] = (),
    description: str = "",
    lines: tuple[str, ...] = (),
) -> str:
    """Return a first OME-XML text for an image that had none; :func:`rewrite` completes it.

    Parameters
    ----------
    colours
        Colour (red, green, blue) of every channel, or empty.
    description
        Free text, such as ImageJ's Info.
    lines
        ImageJ's "key=value" lines, kept as an annotation named "imagej".
    """
    space = f"{{{NAMESPACE}}}"
    root = Element(f"{space}OME", Creator="nrrn-fiji")
    image = ElementTree.SubElement(root, f"{space}Image", ID="Image:0", Name=name)
    if description:
        ElementTree.SubElement(image, f"{space}Description").text = _printable(description)
    pixels = ElementTree.SubElement(
        image, f"{space}Pixels", ID="Pixels:0", DimensionOrder="XYCZT", Type=_pixel_type(dtype)
    )
    for axis, size in zip("XYZCT", reversed(shape), strict=True):
        pixels.set(f"Size{axis}", str(size))
    if voxel_size is not None:
        unit = UNITS.get(voxel_unit or "pixel", voxel_unit or "pixel")
        unit = unit if unit in LENGTHS else "reference frame"
        for axis, length in zip("ZYX", voxel_size, strict=True):
            pixels.set(f"PhysicalSize{axis}", repr(float(length)))
            pixels.set(f"PhysicalSize{axis}Unit", unit)
    for i in range(shape.c):
        channel = ElementTree.SubElement(
            pixels, f"{space}Channel", ID=f"Channel:0:{i}", SamplesPerPixel="1"
        )
        if i < len(channel_names):
            channel.set("Name", channel_names[i])
        if i < len(colours):
            rgba = bytes((*colours[i], 255))
            channel.set("Color", str(int.from_bytes(rgba, "big", signed=True)))
    pairs = [line.split("=", 1) for line in lines if "=" in line]
    if pairs:
        label = "Annotation:imagej-0"
        ElementTree.SubElement(image, f"{space}AnnotationRef", ID=label)
        notes = ElementTree.SubElement(root, f"{space}StructuredAnnotations")
        note = ElementTree.SubElement(notes, f"{space}MapAnnotation", ID=label, Namespace="imagej")
        entries = ElementTree.SubElement(note, f"{space}Value")
        for key, value in pairs:
            entry = ElementTree.SubElement(entries, f"{space}M", K=_printable(key))
            entry.text = _printable(value)
    return _text(root, "")


def _printable(text: str) -> str:
    """Return text without the characters that XML cannot hold."""
    return "".join(c for c in text if c.isprintable() or c in "\n\t")


def _pixel_type(dtype: str) -> str:
    """Return OME's name of a NumPy type."""
    return PIXEL_TYPES.get(dtype, dtype)


def _parse(xml: str) -> tuple[Element, str]:
    """Return the root element and its namespace in braces."""
    try:
        root = ElementTree.fromstring(_undeclared(xml))
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"its OME-XML is not well-formed: {error}") from error
    return root, root.tag[: root.tag.index("}") + 1] if "}" in root.tag else ""


def _undeclared(xml: str) -> str:
    """Return XML without its declaration, whose encoding does not hold for decoded text."""
    text = xml[xml.index("?>") + 2 :] if xml.lstrip().startswith("<?xml") else xml
    return text.strip().strip("\0")


def _text(root: Element, original: str) -> str:
    """Return XML with the prefixes that the original used."""
    space = root.tag[1 : root.tag.index("}")] if "}" in root.tag else ""
    if original:
        text = io.StringIO(_undeclared(original))
        for _, (prefix, uri) in ElementTree.iterparse(text, events=("start-ns",)):
            if prefix and not prefix.startswith("ns") and uri != space:
                ElementTree.register_namespace(prefix, uri)
    if space:
        ElementTree.register_namespace("", space)
    return '<?xml version="1.0" encoding="UTF-8"?>' + ElementTree.tostring(root, "unicode")


def _image(root: Element, space: str, shape: VolumeShape) -> Element:
    """Return the first Image element of this shape."""
    for image in root.findall(f"{space}Image"):
        pixels = image.find(f"{space}Pixels")
        if pixels is not None:
            sizes = tuple(int(pixels.get(f"Size{axis}", "1")) for axis in "TCZYX")
            if sizes == tuple(shape):
                return image
    raise ValueError(f"its OME-XML describes no image of size {tuple(shape)} (T, C, Z, Y, X)")


def _pixels(image: Element, space: str) -> Element:
    """Return the Pixels element of an image."""
    pixels = image.find(f"{space}Pixels")
    assert pixels is not None
    return pixels


def _keep_only(root: Element, space: str, image: Element) -> None:
    """Remove the other images, and the references to them."""
    for other in root.findall(f"{space}Image"):
        if other is image:
            continue
        root.remove(other)
        for parent in root.iter():
            for child in parent.findall(f"{space}ImageRef"):
                if child.get("ID") == other.get("ID"):
                    parent.remove(child)


def _move_regions(
    root: Element, space: str, image: Element, slices: range, same_channels: bool
) -> None:
    """Let regions of interest follow their slices; those of slices that are left out go."""
    for region in root.findall(f"{space}ROI"):
        union = region.find(f"{space}Union")
        shapes = [] if union is None else list(union)
        for shape in shapes:
            if not same_channels:
                shape.attrib.pop("TheC", None)
            z = shape.get("TheZ")
            if z is None:
                continue
            assert union is not None
            if int(z) in slices:
                shape.set("TheZ", str(slices.index(int(z))))
            else:
                union.remove(shape)
        if shapes and union is not None and not len(union):
            root.remove(region)
            for reference in image.findall(f"{space}ROIRef"):
                if reference.get("ID") == region.get("ID"):
                    image.remove(reference)


def _annotate(root: Element, space: str, image: Element, value: str) -> None:
    """Add a comment named "nrrn" to the image, at the places where the schema wants its parts."""
    notes = root.find(f"{space}StructuredAnnotations")
    if notes is None:
        notes = Element(f"{space}StructuredAnnotations")
        root.insert(list(root).index(image) + 1, notes)
    known = {element.get("ID") for element in notes}
    number = next(i for i in range(len(known) + 1) if f"Annotation:{ANNOTATION}-{i}" not in known)
    label = f"Annotation:{ANNOTATION}-{number}"
    note = ElementTree.SubElement(
        notes, f"{space}CommentAnnotation", ID=label, Namespace=ANNOTATION
    )
    ElementTree.SubElement(note, f"{space}Value").text = value
    ElementTree.SubElement(image, f"{space}AnnotationRef", ID=label)
