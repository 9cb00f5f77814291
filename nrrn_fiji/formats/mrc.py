"""Reads and writes MRC files (MRC2014, as IMOD and tomography programs use it) by means of mrcfile.

Planes are read and written at their places with plain file I/O: the pages of a memory map would
count as memory, and a map of a file that is cut short ends the process.  The header, and the file
at its full size, are laid out by mrcfile.

An MRC file has room for ten lines of text only, so the record of how an image was made is
shortened there, and says so.  This module must never read a size from a header without comparing
it with the file.

Sources: Cheng et al., J. Struct. Biol. 192 (2015) 146, "MRC2014"; IMOD's mrc_format.txt for
unsigned bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from mrcfile import utils
from mrcfile.dtypes import HEADER_DTYPE
from numpy.typing import NDArray

from ..intensity import check_dtype
from .calibration import converted
from .image import Volume, VolumeWriter, check_unchanged
from .metadata import PROVENANCE, ImageMetadata, VolumeShape
from .plane_files import PlaneFileWriter
from .table import Output, check_same, plain_name

__all__ = ["MrcVolume", "MrcWriter", "create", "open_file", "reopen"]

Array = NDArray[Any]

IMOD_STAMP, IMOD_PLACE, SIGNED_BYTES = 1146047817, 40, 1
"""Says within the second extra part of the header that flags follow, such as "bytes have signs"."""
LABELS, LABEL = 10, 80
"""Lines of text, and characters of each."""
RECORD = 3
"""Labels for the record of how an image was made."""


def _damaged(path: Path, what: object) -> ValueError:
    return ValueError(f"{path} is damaged or no MRC file ({what}): copy it again.")


class MrcVolume(Volume):
    """An MRC file: a volume, a stack of images, or a series of volumes (as time points).

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    ValueError
        If it is no MRC file, damaged, or stores its axes in another order.
    TypeError
        If it holds no grey values.
    """

    def __init__(self, path: Path) -> None:
        header, dtype = _read_header(path)
        try:
            sizes = utils.data_shape_from_header(header)
        except ZeroDivisionError as error:
            raise _damaged(path, "it announces volumes of no sections") from error
        if math.prod(sizes[:-2]) != int(header.nz):
            raise _damaged(path, f"{int(header.nz)} sections are no volumes of {int(header.mz)}")
        if min(sizes) < 1 or int(header.nsymbt) < 0:
            raise _damaged(path, f"it announces {sizes} voxels")
        axes = tuple(int(n) for n in (header.mapc, header.mapr, header.maps))
        if axes not in ((1, 2, 3), (0, 0, 0)):
            raise ValueError(
                f"{path} stores its axes in the order {axes}, but columns, rows, sections (1, 2, "
                "3) is needed: save it again from the program that made it."
            )
        shape = VolumeShape(sizes[0] if len(sizes) == 4 else 1, 1, int(header.nz), *sizes[-2:])
        if len(sizes) == 4:
            shape = shape._replace(z=sizes[1])
        self._stored = dtype
        self.data_offset = HEADER_DTYPE.itemsize + int(header.nsymbt)
        if self.data_offset + math.prod(shape) * dtype.itemsize > path.stat().st_size:
            raise _damaged(path, "its pixels end too early")
        self.header = header
        voxel = _voxel_size(header)
        labels = _labels(header)
        metadata = ImageMetadata(
            "mrc",
            axes="ZYX",
            byteorder="<" if header.mode.dtype.newbyteorder("<") == header.mode.dtype else ">",
            voxel_size=voxel,
            voxel_unit="Å" if voxel else None,
            info="\n".join(_lines(labels)),
        )
        super().__init__(
            plain_name(path), path, shape, check_dtype(dtype.newbyteorder("="), str(path)), metadata
        )
        self._file = open(path, "rb")  # noqa: SIM115
        self._opened = self._identity()

    def _read_plane(self, out: Array, t: int, c: int, z: int) -> None:
        self._file.seek(self.data_offset + (t * self.shape.z + z) * out.nbytes)
        buffer: Any = out.data.cast("B")
        if self._file.readinto(buffer) != out.nbytes:
            assert self.path is not None
            raise _damaged(self.path, f"slice {z} ends too early")
        if not self._stored.isnative:
            out.byteswap(inplace=True)

    def _reopen(self) -> None:
        assert self.path is not None
        self._file.close()
        self._file = open(self.path, "rb")  # noqa: SIM115
        check_unchanged(self.path, self._opened, self._identity())

    def extended_header(self) -> bytes:
        """Return what follows the header, as it is in the file."""
        self._file.seek(HEADER_DTYPE.itemsize)
        return self._file.read(int(self.header.nsymbt))

    def _identity(self) -> str:
        assert self.path is not None
        status = self.path.stat()
        return f"{status.st_size} {status.st_mtime_ns}"

    def close(self) -> None:
        self._file.close()


def _read_header(path: Path) -> tuple[Any, np.dtype[Any]]:
    """Return the header and the type of the pixels, both in the file's byte order."""
    with open(path, "rb") as file:
        data = file.read(HEADER_DTYPE.itemsize)
    if len(data) < HEADER_DTYPE.itemsize:
        raise _damaged(path, "it ends within its header")
    header: Any = np.frombuffer(data, HEADER_DTYPE).reshape(()).view(np.recarray)
    if bytes(header.map)[:3] != b"MAP":
        raise _damaged(path, "its header is not marked as MAP")
    try:
        order = utils.byte_order_from_machine_stamp(header.machst)
        header.dtype = header.dtype.newbyteorder(order)
        mode = int(header.mode)
        if mode in (3, 4):
            raise TypeError(
                f"{path} holds complex numbers (mode {mode}), but grey values are needed: save its "
                "magnitude first."
            )
        dtype = utils.data_dtype_from_header(header)
    except ValueError as error:
        raise _damaged(path, error) from error
    stamp, flags = np.frombuffer(bytes(header.extra2), order + "i4", 2, IMOD_PLACE)
    if dtype.kind == "i" and dtype.itemsize == 1 and stamp == IMOD_STAMP:
        dtype = dtype if flags & SIGNED_BYTES else np.dtype(np.uint8)
    return header, dtype


def _voxel_size(header: Any) -> tuple[float, float, float] | None:
    """Return (z, y, x) in Å; None where the header does not say."""
    sizes = []
    for axis in "zyx":
        count = int(header["m" + axis])
        size = float(header.cella[axis]) / count if count > 0 else 0.0
        # The header keeps single precision: 40.0 and not 39.99999.
        sizes.append(float(f"{size:.6g}"))
    z, y, x = sizes
    if not (math.isfinite(y) and math.isfinite(x) and y > 0 and x > 0):
        return None
    return (z if math.isfinite(z) and z > 0 else 1.0, y, x)


def _labels(header: Any) -> list[str]:
    """Return the text lines of a header."""
    count = min(max(int(header.nlabl), 0), LABELS)
    return [bytes(label).decode("latin-1").rstrip("\0") for label in header.label[:count]]


def _lines(labels: list[str]) -> Iterator[str]:
    """Yield the labels, those that hold one record joined."""
    rest = list(labels)
    while rest:
        line = rest.pop(0)
        if line.startswith(PROVENANCE):
            for more in range(RECORD):
                text = "".join([line, *rest[:more]])
                if _is_record(text):
                    line, rest = text, rest[more:]
                    break
        yield line.rstrip()


def _is_record(text: str) -> bool:
    try:
        return isinstance(json.loads(text.removeprefix(PROVENANCE)), dict)
    except json.JSONDecodeError:
        return False


def short_record(provenance: dict[str, Any]) -> list[str]:
    """Return as much of a record as three labels hold: what most needs to be known comes first.

    >>> short_record({"version": "1.0", "plan": {}})
    ['nrrn: {"shortened":true,"version":"1.0"}']
    """
    model = provenance.get("model")
    model = model if isinstance(model, dict) else {"name": model} if model else {}
    facts = {
        "version": provenance.get("version"),
        "date": str(provenance.get("date", ""))[:10],
        "command": provenance.get("command"),
        "content": provenance.get("content"),
        "model": model.get("name"),
        "hash": str(model.get("hash", ""))[:12],
        "settings": provenance.get("settings"),
        "input": provenance.get("input"),
    }
    kept: dict[str, Any] = {"shortened": True}
    text = PROVENANCE + json.dumps(kept, separators=(",", ":"))
    for name, value in facts.items():
        longer = PROVENANCE + json.dumps({**kept, name: value}, separators=(",", ":"))
        if value and len(longer) <= RECORD * LABEL:
            kept[name], text = value, longer
    return [text[i : i + LABEL] for i in range(0, len(text), LABEL)]


class MrcWriter(PlaneFileWriter):
    """Writes planes into an MRC file that :func:`create` laid out."""

    def __init__(
        self, path: Path, shape: VolumeShape, dtype: np.dtype[Any], offset: int, stored: Any
    ) -> None:
        super().__init__(path, shape, dtype, offset, stored)
        self.notes.append(
            f"{path.name} keeps a shortened record of how it was made: an MRC file has room for "
            "ten lines of text."
        )
        if stored.itemsize > dtype.itemsize:
            self.notes.append(
                f"{path.name} stores 8-bit grey values as 16-bit ones: MRC has no type for "
                "unsigned bytes that all programs read. The values are the same."
            )

    def record(self, provenance: dict[str, Any]) -> None:
        with mrcfile.mmap(self.path, mode="r+") as mrc:
            _set_labels(mrc, _before_record(_labels(mrc.header)), provenance)


def _before_record(labels: list[str]) -> list[str]:
    """Return the labels without the last record."""
    starts = [i for i, label in enumerate(labels) if label.startswith(PROVENANCE)]
    if not starts:
        raise ValueError("it has no record of how it was made: begin it with its provenance.")
    return labels[: starts[-1]]


def _set_labels(mrc: Any, labels: list[str], provenance: dict[str, Any] | None) -> None:
    """Fill the header's text lines: those of the input, as many as fit, and then the record."""
    record = [] if provenance is None else short_record(provenance)
    lines = [line.encode("latin-1", "replace")[:LABEL] for line in labels if line.strip()]
    lines = lines[: LABELS - len(record)] + [line.encode("ascii") for line in record]
    for i in range(LABELS):
        mrc.header.label[i] = lines[i] if i < len(lines) else b""
    mrc.header.nlabl = len(lines)


def _check_holds(path: Path, output: Output) -> np.dtype[Any]:
    """Return the type in which an output is stored; refuse what MRC cannot hold."""
    if output.shape.t * output.shape.c > 1:
        raise ValueError(
            f"{path.name} would have {output.shape.t} time points and {output.shape.c} channels, "
            "but an MRC file holds one stack: choose a .tif, .zarr or .h5 output."
        )
    if output.dtype.name == "float64":
        raise ValueError(
            f"{path.name} would hold 64-bit floats, which MRC has no type for: choose a .tif, "
            ".zarr or .h5 output."
        )
    stored: np.dtype[Any] = utils.dtype_from_mode(utils.mode_from_dtype(output.dtype))
    return stored.newbyteorder("<")


def open_file(path: Path, inside: str) -> Volume:
    """Open an MRC file; see :mod:`.table`."""
    return MrcVolume(path)


def create(path: Path, output: Output) -> VolumeWriter:
    """Lay out an MRC file; see :mod:`.table`."""
    stored = _check_holds(path, output)
    like, metadata = output.like, output.metadata
    extended: dict[str, Any] = {}
    labels = metadata.info.splitlines()
    if isinstance(like, MrcVolume):
        labels = _labels(like.header)
        if output.slices == range(like.shape.z) and int(like.header.nsymbt):
            data = np.frombuffer(like.extended_header(), "V1")
            extended = {"extended_header": data, "exttyp": like.header.exttyp}
    mode = utils.mode_from_dtype(output.dtype)
    with mrcfile.new_mmap(path, output.shape[2:], mode, **extended) as mrc:
        mrc.set_volume()
        size = metadata.voxel_size and converted(metadata.voxel_size, metadata.voxel_unit, "Å")
        if size:
            mrc.voxel_size = size[::-1]
        if isinstance(like, MrcVolume):
            for axis in "xyz":
                mrc.header.origin[axis] = like.header.origin[axis]
        if mode == 0:
            extra = bytearray(bytes(mrc.header.extra2))
            flags = np.array([IMOD_STAMP, SIGNED_BYTES], "<i4").tobytes()
            extra[IMOD_PLACE : IMOD_PLACE + len(flags)] = flags
            mrc.header.extra2 = np.void(bytes(extra))
        _set_labels(mrc, labels, output.provenance)
    with MrcVolume(path) as begun:
        return MrcWriter(path, output.shape, output.dtype, begun.data_offset, stored)


def reopen(path: Path, output: Output) -> VolumeWriter:
    """Continue an MRC file that :func:`create` laid out; see :mod:`.table`."""
    stored = _check_holds(path, output)
    with MrcVolume(path) as begun:
        kind = output.dtype if begun.dtype == stored.newbyteorder("=") else begun.dtype
        check_same(path, begun.shape, kind, output)
        return MrcWriter(path, output.shape, output.dtype, begun.data_offset, stored)
