"""The record of a run that can be interrupted: what was asked for, the plan, what is finished.

It lies in the folder of the unfinished output as

``state.json``
    what was asked for, the plan by which it is computed, and which files the outputs are when
    they are whole;
``finished``
    one line per block that is safely on disk, appended after the block itself.

Both carry checksums: a disk that gives back something else than was written must not make a block
count that was never computed.  This module must never go on with a run that was begun with another
input, model or setting, and never count a block whose line is not whole.
"""

from __future__ import annotations

import datetime
import errno
import hashlib
import json
import os
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..files import replace, sync_folder
from ..hiccups import patiently

__all__ = ["JOURNAL", "NEW_STATE", "STATE", "BlockKey", "Journal", "is_wanted"]

STATE, JOURNAL = "state.json", "finished"
NEW_STATE = STATE + ".new"
STATE_VERSION = 3
CHECKSUM = "checksum"
REPLACED_NOW = frozenset({errno.EACCES, errno.EPERM})
"""What Windows says of a file that is being replaced at this moment."""


class BlockKey(NamedTuple):
    """Which block of a run: time point, channel and number of the slab, each from 0."""

    time: int
    channel: int
    slab: int


class Journal:
    """The record in one folder.

    Parameters
    ----------
    folder
        Where it lies.

    Attributes
    ----------
    state
        What ``state.json`` says; None before :meth:`begin` or :meth:`read`, and without a run.
    finished
        The blocks that are on disk.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.state: dict[str, Any] | None = None
        self.finished: set[BlockKey] = set()

    @property
    def complete(self) -> bool:
        """Whether all blocks were written."""
        return self.state is not None and bool(self.state["complete"])

    def begun(self) -> dict[str, Any]:
        """Return what was recorded.

        Raises
        ------
        RuntimeError
            If there is nothing yet.
        """
        if self.state is None:
            raise RuntimeError(f"{self.folder} has no record of a run yet: call begin() first.")
        return self.state

    def begin(self, request: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
        """Record what is asked for, and the plan; see :meth:`PartialOutput.begin`."""
        self.state = {
            "format_version": STATE_VERSION,
            "begun": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "run": uuid.uuid4().hex,
            "request": _as_json(request),
            "plan": _as_json(plan),
            "complete": False,
        }
        self.write()

    def is_for(self, request: Mapping[str, Any]) -> bool:
        """Return whether the run was asked for the same thing."""
        return bool(self.begun()["request"] == _as_json(request))

    def check(self, request: Mapping[str, Any]) -> None:
        """Check that the run was asked for the same thing; see :meth:`PartialOutput.check`."""
        before, now = self.begun()["request"], _as_json(request)
        changes = [
            _difference(name, before.get(name), now.get(name))
            for name in dict.fromkeys([*now, *before])
            if before.get(name) != now.get(name)
        ]
        if changes:
            raise ValueError(
                f"{self.folder} holds an interrupted run that differs from this one "
                f"({'; '.join(changes)}): repeat the former command to go on with it, or begin "
                "again with --restart (restart=True)."
            )

    def remember(self, facts: Mapping[str, Any]) -> None:
        """Record what a resumed run needs to know about this one; the values must suit JSON."""
        self.begun()["remembered"] = _as_json(facts)
        self.write()

    def mark(self, key: BlockKey) -> None:
        """Record that a block is on disk."""
        with open(self.folder / JOURNAL, "a", encoding="ascii") as journal:
            journal.write(_line(key))
            journal.flush()
            os.fsync(journal.fileno())
        if not self.finished:  # the file is new
            sync_folder(self.folder)
        self.finished.add(key)

    def end(self, outputs: Mapping[str, str]) -> None:
        """Record that all blocks are written, and how the outputs are known again, by kind."""
        if not self.complete:
            self.begun().update(complete=True, outputs=dict(outputs))
            self.write()

    @property
    def outputs(self) -> dict[str, str]:
        """What :meth:`end` recorded of the outputs; empty before."""
        return {} if self.state is None else dict(self.state.get("outputs", {}))

    def clear(self) -> None:
        """Remove the record."""
        # The state goes first: without it the rest is known to be worthless.
        for name in (STATE, NEW_STATE, JOURNAL):
            (self.folder / name).unlink(missing_ok=True)
        self.state, self.finished = None, set()

    def read(self, *, mend: bool = True) -> bool:
        """Read the record, if there is one.

        Parameters
        ----------
        mend
            Cut off a line that was not written to its end.

        Returns
        -------
        bool
            Whether there is one.

        Raises
        ------
        ValueError
            If it is damaged.
        """
        self.state = self._read_state()
        self.finished = set() if self.state is None else self._read_finished(mend=mend)
        return self.state is not None

    def _read_state(self) -> dict[str, Any] | None:
        path = self.folder / STATE
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            checksum = state.pop(CHECKSUM)
            if state["format_version"] == STATE_VERSION and checksum == _checksum(state):
                return dict(state)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            pass
        raise ValueError(
            f"{path} is damaged or was written by another version of this program, so the "
            "interrupted run cannot be resumed: begin again with --restart (restart=True)."
        )

    def write(self) -> None:
        """Write the record so that a crash leaves the old or the new one, never a part."""
        state = self.begun()
        beside = self.folder / NEW_STATE
        with open(beside, "w", encoding="utf-8") as file:
            json.dump({**state, CHECKSUM: _checksum(state)}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        replace(beside, self.folder / STATE)
        sync_folder(self.folder)

    def _read_finished(self, *, mend: bool) -> set[BlockKey]:
        try:
            text = (self.folder / JOURNAL).read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return set()
        # A crash can cut the last line short: the next one must not be joined to the rest of it.
        whole = text[: text.rfind("\n") + 1]
        if mend and len(whole) < len(text):
            os.truncate(self.folder / JOURNAL, len(whole))
        keys = (_key(line) for line in whole.splitlines(keepends=True))
        return {key for key in keys if key is not None}


def is_wanted(folder: Path, run: str, key: BlockKey) -> bool:
    """Whether a run that is under way still waits for a block; asked by other processes.

    Parameters
    ----------
    folder
        Where its record lies.
    run
        Which run, as its record names it: another one may have taken its place.
    key
        Which block.

    Raises
    ------
    SourceLostError
        If the record cannot be read, also after some waiting: nobody knows then.
    """
    journal = Journal(folder)
    try:
        begun = patiently(
            lambda: journal.read(mend=False),
            folder / STATE,
            again=lambda: None,
            tell=lambda text: None,
            passing=REPLACED_NOW,
        )
    except ValueError:  # of another version of this program, so it is another run
        return False
    return (
        begun
        and journal.begun()["run"] == run
        and not journal.complete
        and key not in journal.finished
    )


def _line(key: BlockKey) -> str:
    """Return the line of a finished block: its numbers and their checksum."""
    numbers = " ".join(map(str, key))
    return f"{numbers} {zlib.crc32(numbers.encode()):08x}\n"


def _key(line: str) -> BlockKey | None:
    """Return the block of a line; None if the line is damaged: the block is then computed again."""
    try:
        key = BlockKey(*map(int, line.split()[:3]))
    except (ValueError, TypeError):
        return None
    return key if line == _line(key) else None


def _checksum(state: Mapping[str, Any]) -> str:
    """Return a hash of a record, whatever the order and spacing of its entries."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values as they come back from a JSON file (tuples become lists)."""
    result: dict[str, Any] = json.loads(json.dumps(dict(values)))
    return result


def _difference(name: str, before: Any, now: Any) -> str:
    """Say how one thing that was asked for differs; long values such as hashes are not shown."""
    shown = [_shown(value) for value in (before, now)]
    if max(map(len, shown)) > 40:
        return f"the {name} has changed"
    return f"{name} was {shown[0]}, is now {shown[1]}"


def _shown(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    return str(value)
