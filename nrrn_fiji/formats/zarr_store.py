"""The folder of a Zarr array that several processes write into, of which one may be out of date.

A worker of a cluster can be taken for lost and wake when its block has long been written by another
one, or when the whole result has its final name.  Zarr's own store for folders would then make the
folder anew under the old name.  This module must never make the folder of an array, nor let a chunk
or shard that was there be absent for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import LocalStore

__all__ = ["PARTIAL", "SharedStore"]

PARTIAL = ".partial"
"""What the passing name ends with, of a chunk that is being written."""


class SharedStore(LocalStore):
    """A folder that must be there, whose files are replaced in one step.

    Parameters
    ----------
    root
        The folder of an array.
    """

    def __init__(self, root: Path | str, *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self._hidden: frozenset[str] = frozenset()

    @contextlib.contextmanager
    def replacing(self, keys: Iterable[str]) -> Iterator[None]:
        """Let these keys seem absent: what is replaced as a whole must not be looked at first.

        A crash may have damaged it; and it stays as it is until the new one takes its place.
        """
        self._hidden = frozenset(keys)
        try:
            yield
        finally:
            self._hidden = frozenset()

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Buffer | None:
        """Return a file, or None; see :class:`zarr.abc.store.Store`."""
        if key in self._hidden:
            return None
        return await super().get(key, prototype or default_buffer_prototype(), byte_range)

    def get_sync(self, key: str, *, prototype: Any = None, byte_range: Any = None) -> Buffer | None:
        """Return a file, or None; see :class:`zarr.abc.store.Store`."""
        if key in self._hidden:
            return None
        return super().get_sync(key, prototype=prototype, byte_range=byte_range)

    async def set(self, key: str, value: Buffer) -> None:
        """Write a file; see :class:`zarr.abc.store.Store`.

        Raises
        ------
        FileNotFoundError
            If the folder of the array is not there any more.
        """
        await asyncio.to_thread(self.set_sync, key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Write a file, as :meth:`set` does."""
        self._check_writable()
        *folders, name = Path(key).parts
        folder = Path(self.root)
        for part in folders:
            folder /= part
            with contextlib.suppress(FileExistsError):
                folder.mkdir()  # never the folder of the array itself
        beside = folder / f"{name}.{uuid.uuid4().hex}{PARTIAL}"
        try:
            beside.write_bytes(value.as_buffer_like())
            os.replace(beside, folder / name)
        finally:
            beside.unlink(missing_ok=True)
