"""What all new images have in common that take slabs: none is given out that is not whole.

This module must never know of a kind of image; each has a writer of its own.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from ..formats.image import Array, VolumeShape, VolumeWriter
from ..progress import Progress

__all__ = ["ImageWriter"]


class ImageWriter(VolumeWriter):
    """A new image that takes slabs and is the user's when it is whole.

    Parameters
    ----------
    title
        Name of the new image.
    shape, dtype
        Of its pixels.
    provenance
        How it was made; None records nothing.
    """

    def __init__(
        self,
        title: str,
        shape: VolumeShape,
        dtype: np.dtype[Any],
        provenance: dict[str, Any] | None,
        *,
        path: Path | None = None,
    ) -> None:
        super().__init__(Path(title) if path is None else path, shape, dtype)
        self.title = title
        self.provenance = provenance
        self._written: set[tuple[int, int, int]] = set()

    @abstractmethod
    def _put_plane(self, plane: Array, t: int, c: int, z: int) -> None:
        """Keep one plane (Y, X) of the right type."""

    @abstractmethod
    def _make(self) -> Any:
        """Return the new image; every plane is there."""

    def _put_planes(self, block: Array, t: int, c: int, start: int) -> None:
        """Keep consecutive planes (n, Y, X) of the right type."""
        for z, plane in enumerate(block, start):
            self._put_plane(plane, t, c, z)

    def _write_planes(self, block: Array, t: int, c: int, start: int) -> None:
        self._put_planes(block, t, c, start)
        self._written.update((t, c, z) for z in range(start, start + len(block)))

    def _write_plane(self, plane: Array, t: int, c: int, z: int) -> None:
        self._write_planes(plane[None], t, c, z)

    def record(self, provenance: dict[str, Any]) -> None:
        """Replace what the image will say on how it was made."""
        self.provenance = provenance

    def flush(self) -> None:
        """Do nothing: pixels are in the image at once."""

    def close(self) -> None:
        """Do nothing: :meth:`finish` gives the image out."""

    def finish(self, progress: Progress | None = None) -> Any:
        """Return the new image; it is not shown yet.

        Raises
        ------
        ValueError
            If a plane was never written: no image appears that is not whole.
        """
        missing = self.shape.planes - len(self._written)
        if missing:
            raise ValueError(
                f"{missing} of {self.shape.planes} planes of {self.title!r} were never written: "
                "write every slice before finish()."
            )
        return self._make()
