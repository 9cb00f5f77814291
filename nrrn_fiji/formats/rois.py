"""Selections of ImageJ, as the bytes that ImageJ stores, for images that hold part of the slices.

This module must never change of a selection anything but the plane that it belongs to.
"""

from __future__ import annotations

import struct

__all__ = ["moved_roi"]

# Where a stored selection of ImageJ says to which plane it belongs; C and Z in a second header.
HEADER, POSITION, SECOND_HEADER, C, Z = 64, 56, 60, 4, 8


def moved_roi(roi: bytes, slices: range, same_channels: bool = True) -> bytes | None:
    """Return an ImageJ selection for an image that holds ``slices`` of the one it was drawn on.

    Parameters
    ----------
    roi
        As ImageJ stores it.  Positions count from 1, and 0 stands for every slice.
    slices
        Which slices are held.
    same_channels
        False if the channels are others: the selection is then shown on all of them.

    Returns
    -------
    bytes or None
        None if it belongs to a slice that is not held.

    Notes
    -----
    Source: ImageJ's ``ij.io.RoiDecoder`` (offsets; big-endian) and ``ij.gui.ImageCanvas``
    (``POSITION`` means the slice wherever an image has depth).
    """
    if roi[:4] != b"Iout" or len(roi) < HEADER:
        return roi
    data = bytearray(roi)
    (second,) = struct.unpack_from(">i", data, SECOND_HEADER)
    places = [POSITION]
    if HEADER <= second <= len(data) - 16:
        places.append(second + Z)
        if not same_channels:
            struct.pack_into(">i", data, second + C, 0)
    for place in places:
        (position,) = struct.unpack_from(">i", data, place)
        if position > 0:
            if position - 1 not in slices:
                return None
            struct.pack_into(">i", data, place, position - slices.start)
    return bytes(data)
