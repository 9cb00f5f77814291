"""Decompresses chunks of Zarr arrays into room of their proper size, whatever a chunk announces.

The Zarr library believes what a compressed chunk says of its own size: one that is cut short can
be read beyond its end, and a small one can unfold into any amount of memory.  Here imagecodecs
decompresses, into a buffer that holds a chunk and nothing more.  This module must never decode
with a codec that can run code.

Sources: Blosc 1 chunk header (github.com/Blosc/c-blosc, README_CHUNK_FORMAT); Zarr v3 codecs.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import struct
from typing import Any

import imagecodecs
import numcodecs.abc
import numpy as np
import zarr
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec
from zarr.registry import register_codec
from zarr.storage import LocalStore

__all__ = ["open_array"]

ROOM = 256
"""Bytes that a checksum or the frame of a further codec may add to a chunk."""
WIDER = 8
"""How many times larger a filter of Zarr v2 may make a chunk."""


def decompressed(codec: str, data: Any, most: int) -> Any:
    """Return what a compressed chunk holds.

    Parameters
    ----------
    codec
        "blosc", "zstd", "gzip", "zlib" or "lz4".
    data
        The chunk as stored.
    most
        Bytes that it may unfold into.

    Raises
    ------
    ValueError
        If it is cut short or damaged, or does not fit.
    """
    data = bytes(data)
    if codec == "blosc" and (len(data) < 16 or struct.unpack_from("<I", data, 12)[0] != len(data)):
        raise ValueError("a chunk is cut short")
    decode = getattr(imagecodecs, f"{codec}_decode")
    options = {"header": True} if codec == "lz4" else {}
    try:
        return decode(data, out=np.empty(most, np.uint8), **options)
    except Exception as error:
        raise ValueError(f"a chunk is damaged: {error}") from error


class _Bounded:
    """What the codecs below share: decompressing into a buffer that holds a chunk."""

    zarr_name = ""

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        size = math.prod(chunk_spec.shape) * chunk_spec.dtype.to_native_dtype().itemsize
        data = chunk_bytes.as_numpy_array()
        result = await asyncio.to_thread(decompressed, self.zarr_name, data, size + ROOM)
        return chunk_spec.prototype.buffer.from_bytes(result)


class BoundedBlosc(_Bounded, BloscCodec):
    """Blosc of Zarr v3."""

    zarr_name = "blosc"


class BoundedGzip(_Bounded, GzipCodec):
    """Gzip of Zarr v3."""

    zarr_name = "gzip"


class BoundedZstd(_Bounded, ZstdCodec):
    """Zstandard of Zarr v3."""

    zarr_name = "zstd"


BOUNDED = (BoundedBlosc, BoundedGzip, BoundedZstd)
# Further implementations beside the library's, which stay those that others get.
for _codec in BOUNDED:
    register_codec(_codec.zarr_name, _codec, qualname=f"{__name__}.{_codec.__name__}")


class BoundedV2(numcodecs.abc.Codec):
    """A compressor of Zarr v2, for reading."""

    codec_id = "bounded"

    def __init__(self, name: str, most: int) -> None:
        self.name, self.most = name, most

    def encode(self, buf: Any) -> Any:
        """Refuse: this is for reading."""
        raise NotImplementedError("chunks are written with the library's own compressors")

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Return what a chunk holds."""
        return decompressed(self.name, buf, self.most)


def open_array(store: LocalStore, zarr_format: Any) -> Any:
    """Open an array for reading, with decompressors that hold to its sizes."""
    names = {f"codecs.{codec.zarr_name}": f"{__name__}.{codec.__name__}" for codec in BOUNDED}
    with zarr.config.set(names):
        array = zarr.open_array(store, mode="r", zarr_format=zarr_format)
        said: Any = array.metadata
        # Metadata of version 2 name the compressor, those of version 3 have it built in by now.
        if zarr_format == 3 or said.compressor is None:
            return array
        most = math.prod(array.chunks) * array.dtype.itemsize
        most = most * WIDER if said.filters else most
        bounded = BoundedV2(said.compressor.codec_id, most + ROOM)
        changed = dataclasses.replace(said, compressor=bounded)
        inner: Any = zarr.AsyncArray(changed, array.store_path, array.config)
        return zarr.Array(inner)
