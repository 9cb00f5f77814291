"""Grey values: one mapping of a whole volume to about [0, 1], and back, with every type kept.

The network works on grey values scaled so that the useful range is about [0, 1].  The mapping
belongs to a *volume*: this module must never choose it per slice, slab or tile (brightness would
jump between them) and never clip (dark and bright detail outside of the percentiles is real).
What the network found is added to the original pixels, so that a network that changes nothing
returns exactly the input.

It also knows which pixels hold no image: NaN, infinite values, and black borders that
registration left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ArraySource",
    "GreyRange",
    "Source",
    "check_dtype",
    "fill_invalid",
    "grey_range",
    "invalid_mask",
    "restore",
    "to_unit",
]

DTYPES = ("uint8", "int8", "uint16", "int16", "float32", "float64")

SAMPLED_SLICES = 64
SAMPLED_PIXELS = 4_000_000
PERCENTILES = (0.1, 99.9)

SHORTEST_PADDING = 32
"""Pixels: a run of zeros along a side that is shorter is dark noise, not padding."""

LARGEST_UNIT = 1e4
"""Largest value given to the network: far beyond any image, far below where sums overflow."""

CHUNK = 1 << 20
"""Pixels that are brought back to grey values at a time; bounds the memory of the fp64 sum."""


class Source(Protocol):
    """A volume that is read slab by slab."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(Z, Y, X)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return slices ``start`` … ``stop - 1``, (stop - start, Y, X)."""


class ArraySource:
    """An array (Z, Y, X) as a source that is read slice by slice."""

    def __init__(self, array: NDArray[Any]):
        self.array, self.dtype = array, array.dtype

    @property
    def shape(self) -> tuple[int, int, int]:
        """(Z, Y, X)."""
        z, y, x = self.array.shape
        return z, y, x

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return slices ``start`` … ``stop - 1``."""
        return self.array[start:stop]


class GreyRange(NamedTuple):
    """The grey values that map to 0 and to 1."""

    low: float
    high: float

    @property
    def constant(self) -> bool:
        """Whether there is no range at all: all pixels that were looked at are equal."""
        return self.low == self.high


def check_dtype(dtype: Any, what: str = "the array") -> np.dtype[Any]:
    """Return ``dtype`` in native byte order if grey values of it can be denoised.

    Parameters
    ----------
    dtype
        Type of the grey values.
    what
        Name of the image, for the message.

    Raises
    ------
    TypeError
        For anything but (u)int8, (u)int16, float32 and float64.
    """
    native = np.dtype(dtype).newbyteorder("=")
    if native.name in DTYPES:
        return native
    if native.kind == "b":
        raise TypeError(
            f"{what} is a black-and-white mask (1 bit per pixel), but grey values are needed: "
            "give the grey image it was made from."
        )
    if native.kind == "c":
        raise TypeError(
            f"{what} holds complex numbers, but grey values are needed: save its magnitude or its "
            "real part as 32-bit float first."
        )
    if native.names is not None:
        raise TypeError(
            f"{what} holds colours ({native}), but grey values are needed: give each colour as a "
            "channel of its own."
        )
    raise TypeError(
        f"{what} has grey values of type {native}, but accepted are {', '.join(DTYPES)}: convert "
        "it to 16-bit or 32-bit float first."
    )


def grey_range(*sources: Source, asked: tuple[float, float] | None = None) -> GreyRange:
    """Choose the grey values that map to 0 and 1.

    Parameters
    ----------
    sources
        One volume, or all time points of one channel, of one type.
    asked
        The range a user asked for; it is checked and returned.

    Returns
    -------
    GreyRange
        8-bit: the type's range, (0, 255) or (-128, 127).  Else the 0.1 and 99.9 percentiles of
        pixels sampled over all of Z (up to 64 slices per source, 4 million pixels in all, always
        the same ones), without NaN, infinite values and registration padding.  Where these
        coincide every slice is looked at and the extremes are taken; ``constant`` is true if
        they coincide too, whatever the type.

    Raises
    ------
    ValueError
        If ``asked`` is not an increasing pair of finite numbers, or no pixel is valid.
    TypeError
        If the type cannot be denoised.
    """
    dtype = check_dtype(sources[0].dtype)
    if asked is not None:
        low, high = asked
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise ValueError(
                f"intensity is {low:g},{high:g}, but it must be two finite grey values, the lower "
                "one first: give LO,HI, or leave it out to have the range measured."
            )
        return GreyRange(float(low), float(high))
    if dtype.itemsize == 1:
        low, high = _extremes(sources, enough=True)
        limits = np.iinfo(dtype)
        return GreyRange(low, low) if low == high else GreyRange(limits.min, limits.max)
    most = SAMPLED_PIXELS // len(sources)
    values = np.concatenate([_sample(source, most) for source in sources])
    low, high = np.percentile(values, PERCENTILES) if values.size else (0.0, 0.0)
    if low == high:
        low, high = _extremes(sources)
    return GreyRange(float(low), float(high))


def _extremes(sources: Sequence[Source], *, enough: bool = False) -> tuple[float, float]:
    """Return the smallest and largest valid pixel of all slices.

    With ``enough``, stop as soon as they differ.  A black volume is (0, 0), although black borders
    do not count otherwise; one without any finite pixel is an error.
    """
    low, high = np.inf, -np.inf
    black = False
    for source in sources:
        for z in range(source.shape[0]):
            image = np.asarray(source.read(z, z + 1))[0]
            invalid = invalid_mask(image)
            values = image if invalid is None else image[~invalid]
            if values.size:
                low, high = min(low, float(values.min())), max(high, float(values.max()))
            else:
                black = black or bool((image == 0).any())
            if enough and low < high:
                return low, high
    if low <= high:
        return low, high
    if black:
        return 0.0, 0.0
    raise ValueError(
        "The image has no valid pixel: all are NaN or infinite. "
        "Check the file, or the channel, that was given."
    )


def _sample(source: Source, most: int) -> NDArray[np.float64]:
    """Return up to ``most`` valid pixels from slices evenly spread over Z, reproducibly."""
    depth = source.shape[0]
    count = min(depth, SAMPLED_SLICES)
    per_slice = max(1, most // count)
    # Random positions: a regular grid would alias with line noise.
    rng = np.random.default_rng(0)
    parts = []
    for z in np.unique(np.linspace(0, depth - 1, count).round().astype(int)):
        image = np.asarray(source.read(int(z), int(z) + 1))[0]
        invalid = invalid_mask(image)
        values = image.ravel() if invalid is None else image[~invalid]
        if values.size > per_slice:
            values = values[rng.integers(values.size, size=per_slice)]
        parts.append(values.astype(np.float64))
    return np.concatenate(parts)


def invalid_mask(image: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Find the pixels of a slice that hold no image.

    Parameters
    ----------
    image
        (Y, X), any accepted type.

    Returns
    -------
    ndarray or None
        (Y, X), true at NaN, at infinite values and in registration padding; None if all pixels
        are valid.  Padding are pixels that equal 0 (or are NaN) and are reached straight from a
        side of the slice through such pixels only, starting in a run along that side of at least
        32 pixels and an eighth of the side: the wedges and stripes that shifting and rotating
        leave.  Single dark pixels are no padding; where nearly every pixel at a side is 0 anyway
        (a dark image at less than one photon per pixel), such runs are taken for it too.
    """
    floating = image.dtype.kind == "f"
    mask = ~np.isfinite(image) if floating else np.zeros(image.shape, np.bool_)
    # Padding shows on a side; a slice without zeros there needs no further look.
    sides = (image[0], image[-1], image[:, 0], image[:, -1])
    if any(_long_runs(_empty(side)).any() for side in sides):
        empty = _empty(image)
        for view, found in (
            (empty, mask),
            (empty[::-1], mask[::-1]),
            (empty.T, mask.T),
            (empty.T[::-1], mask.T[::-1]),
        ):
            columns = np.flatnonzero(_long_runs(view[0]))
            if columns.size:
                found[:, columns] |= np.logical_and.accumulate(view[:, columns], axis=0)
    return mask if mask.any() else None


def _empty(pixels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where ``pixels`` are 0 or NaN."""
    empty = pixels == 0
    if pixels.dtype.kind == "f":
        empty |= np.isnan(pixels)
    return empty


def _long_runs(line: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the runs of true values that are long enough to be padding along a side."""
    shortest = max(SHORTEST_PADDING, -(-line.size // 8))
    edges = np.flatnonzero(np.diff(line, prepend=False, append=False))
    kept = np.zeros(line.size, np.bool_)
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if stop - start >= shortest:
            kept[start:stop] = True
    return kept


def fill_invalid(image: NDArray[Any], invalid: NDArray[np.bool_]) -> NDArray[Any]:
    """Return a copy of a slice whose invalid pixels have the value of the nearest valid one.

    ``image`` and ``invalid`` are (Y, X); at least one pixel is valid.  The network sees the copy,
    so that a border or a dead pixel does not leak into the pixels around it.
    """
    from scipy import ndimage  # a quarter of a second to import, and hardly ever needed

    nearest = ndimage.distance_transform_edt(invalid, return_distances=False, return_indices=True)
    return image[tuple(nearest)]


def to_unit(image: NDArray[Any], span: tuple[float, float]) -> NDArray[np.float32]:
    """Map grey values to the network's scale: ``low`` to 0 and ``high`` to 1, extrapolated.

    Values are finite.  Only beyond 10,000 times the range are they held, because sums would
    overflow there.
    """
    low, high = span
    unit = (image.astype(np.float64) - low) / (high - low)
    return np.clip(unit, -LARGEST_UNIT, LARGEST_UNIT, out=unit).astype(np.float32)


def restore(
    image: NDArray[Any],
    change: NDArray[np.float32],
    span: tuple[float, float],
    dtype: np.dtype[Any] | None = None,
    strength: float = 1.0,
) -> NDArray[Any]:
    """Add what the network found to the original pixels.

    Parameters
    ----------
    image
        (Y, X), the original.
    change
        (Y, X), f − centre on the network's scale.
    span
        The grey values that map to 0 and 1.
    dtype
        Type of the result; that of ``image`` when left out.
    strength
        Share of the change that is added, 0 … 1.

    Returns
    -------
    ndarray
        (Y, X) ``image + strength * (high - low) * change``, summed in fp64; for integer types
        rounded half to even and saturated at the ends of the type.  Exactly ``image`` where
        ``change`` or ``strength`` is 0.
    """
    dtype = image.dtype if dtype is None else dtype
    result = np.empty(image.shape, dtype)
    scale = strength * (float(span[1]) - float(span[0]))
    rows = max(1, CHUNK // max(1, image.shape[1]))
    for start in range(0, image.shape[0], rows):
        part = slice(start, start + rows)
        # NaN and infinite pixels are put back by the caller; their sums are of no interest.
        with np.errstate(invalid="ignore", over="ignore"):
            total = change[part].astype(np.float64)
            total *= scale
            total += image[part]
            if dtype.kind in "iu":
                limits = np.iinfo(dtype)
                np.clip(np.rint(total, out=total), limits.min, limits.max, out=total)
            result[part] = total
    return result
