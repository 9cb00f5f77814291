"""Remembers what was measured, so that an interrupted study continues and a second model is quick.

A result is kept with a digest of everything it depends on; this module must never hand out one
whose digest differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import write_whole
from ..scoring import Level, Row

__all__ = ["JsonCache", "RowCache", "digest"]


class JsonCache:
    """Named results in a JSON file, all of them under one key.

    Parameters
    ----------
    path
        The file; it need not exist.  None keeps everything in memory alone.
    key
        Digest of everything the results depend on; results of another key are forgotten.
    """

    def __init__(self, path: Path | None, key: str):
        self.path, self.key = path, key
        self.content: dict[str, Any] = {}
        if path is None:
            return
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["key"] == key:
                self.content = dict(kept["content"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            pass  # A cache that cannot be read is no cache: everything is measured again.

    def get(self, name: str) -> Any:
        """Return a result in JSON's types, or None if it was never kept."""
        return self.content.get(name)

    def put(self, name: str, value: Any) -> None:
        """Keep a result, on disk at once."""
        self.content[name] = value
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"key": self.key, "content": self.content}, indent=1)
            write_whole(self.path, text.encode())


class RowCache:
    """Remembers the rows of a table, level by level; see :class:`JsonCache`."""

    def __init__(self, path: Path | None, key: str):
        self.kept = JsonCache(path, key)

    def get(self, level: Level) -> list[Row] | None:
        """Return the rows of a level, or None if they were never measured."""
        rows = self.kept.get(level.label)
        return None if rows is None else [Row.from_dict(row) for row in rows]

    def put(self, level: Level, rows: Sequence[Row]) -> None:
        """Keep the rows of a level."""
        self.kept.put(level.label, [row.as_dict() for row in rows])


def digest(facts: Mapping[str, Any] | Sequence[Any]) -> str:
    """Return a digest (64 hex digits) of facts in JSON's types."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
