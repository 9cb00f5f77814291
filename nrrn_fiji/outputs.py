"""Output files that are whole or absent, and runs that can be interrupted and resumed.

A long job writes into the folder ``OUT.partial`` beside its output ``OUT`` and moves the result
to its final name when everything is written.  The folder holds

``lock``
    held while a run writes, so that two runs into one output are refused; the operating system
    lets go of it however a process ends;
``state.json``
    what was asked for, and the plan by which it is computed;
``finished``
    one line per block that is safely on disk, appended after the block itself;
``image/``, ``noise/``, ``units/``, ``scans/``
    the unfinished files, under the names they will have.

This module knows neither image formats nor the network.  It must never leave a half-written file
under a final name, never delete what it did not write, and never go on with a run that was begun
with another input, model or setting.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from .files import sync_folder

__all__ = [
    "NO_SPACE",
    "BlockKey",
    "PartialOutput",
    "check_distinct",
    "check_parent",
    "free_space",
    "readable_size",
]

STATE, JOURNAL, LOCK, REPLACED = "state.json", "finished", "lock", "replaced"
STATE_VERSION = 1
KINDS = ("noise", "units", "scans", "image")  # in the order of moving: the image comes last
NO_SPACE = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}


class BlockKey(NamedTuple):
    """Which block of a run: time point, channel and number of the slab, each from 0."""

    time: int
    channel: int
    slab: int


class PartialOutput(contextlib.AbstractContextManager["PartialOutput"]):
    """The folder ``OUT.partial`` of one run, claimed for this process while in the context.

    Use it as ``with PartialOutput(...) as part``, then

    1. :meth:`check` when :attr:`begun`, else :meth:`begin`;
    2. write to :meth:`path` and :meth:`mark` every block after it was flushed to disk, leaving out
       those in :attr:`finished`;
    3. close the files and :meth:`finish`.

    When the context ends early the finished blocks are kept for the next run; a folder without
    any finished block is removed.

    Parameters
    ----------
    targets
        Final path of each output, by kind: ``"image"`` and, if wanted, ``"noise"``, ``"units"``
        and ``"scans"``.  ``OUT`` is the image.
    overwrite
        Replace finished outputs of these names.  They stay as they are until the new ones are
        whole.
    restart
        Drop what an interrupted run left, instead of resuming it.

    Raises
    ------
    FileExistsError
        On entering, if an output exists and ``overwrite`` is false.
    FileNotFoundError, NotADirectoryError
        On entering, if the folder of an output does not exist.
    BlockingIOError
        On entering, if another run writes to this output.
    ValueError
        On entering, if ``OUT.partial`` holds things that no run of this program left there, or
        its record is damaged.
    """

    def __init__(
        self, targets: Mapping[str, Path], *, overwrite: bool = False, restart: bool = False
    ):
        unknown = set(targets) - set(KINDS)
        if "image" not in targets or unknown:
            raise ValueError(
                f"targets has the kinds {sorted(targets)}, but it must have 'image' and may have "
                "'noise', 'units' and 'scans': name the outputs so."
            )
        # A link is followed, so that the file it stands for is replaced and not the link.
        self.targets = {
            kind: Path(os.path.realpath(targets[kind])) for kind in KINDS if kind in targets
        }
        image = self.targets["image"]
        self.folder = image.with_name(image.name + ".partial")
        self.finished: set[BlockKey] = set()
        self._overwrite = overwrite
        self._restart = restart
        self._lock: FileLock | None = None
        self._state: dict[str, Any] | None = None

    def __enter__(self) -> PartialOutput:
        for target in self.targets.values():
            check_parent(target)
        if not self.folder.exists():
            self._check_absent(self.targets)
        self._claim()
        try:
            if self._restart:
                self._check_absent(self.targets)
            else:
                self._state = self._read_state()
            if self._state is None:
                self._clear()  # unwanted, or left by a run that ended before its first block
            else:
                self.finished = self._read_journal()
                if not self.finished and not self.complete:
                    self._clear()  # killed before its first block: nothing that binds this run
            waiting = [kind for kind in self.targets if not self.complete or self._waits(kind)]
            if self.complete and not waiting:
                self._clear()  # ended between the last rename and the removal of the folder
                waiting = list(self.targets)
            self._check_absent(waiting)
        except BaseException:
            self._let_go(keep=(self.folder / STATE).exists())
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._let_go(keep=bool(self.finished) or self.complete)

    def look(self) -> bool:
        """Learn, without claiming anything, what an interrupted run left for this one.

        Returns
        -------
        bool
            Whether there is a run to go on with; :attr:`finished`, :attr:`plan` and :meth:`check`
            then tell about it.

        Raises
        ------
        ValueError
            As on entering.
        """
        self._check_ours()
        self._state = self._read_state()
        self.finished = self._read_journal(mend=False) if self._state is not None else set()
        return bool(self.finished) or self.complete

    @property
    def begun(self) -> bool:
        """Whether an interrupted run is being resumed, or :meth:`begin` was called."""
        return self._state is not None

    @property
    def complete(self) -> bool:
        """Whether all blocks were written and only the move to the final names is left."""
        return self._state is not None and bool(self._state["complete"])

    @property
    def plan(self) -> dict[str, Any]:
        """The plan that :meth:`begin` recorded."""
        return dict(self._begun_state()["plan"])

    @property
    def remembered(self) -> dict[str, Any]:
        """What :meth:`remember` recorded last; empty before."""
        return dict(self._begun_state().get("remembered", {}))

    def path(self, kind: str) -> Path:
        """Return where the output of this kind is written until it is finished."""
        return self.folder / kind / self.targets[kind].name

    def check(self, request: Mapping[str, Any]) -> None:
        """Check that the interrupted run was asked for the same thing.

        Parameters
        ----------
        request
            As in :meth:`begin`.

        Raises
        ------
        ValueError
            If anything differs; the message says what, and how to begin again.
        """
        before, now = self._begun_state()["request"], _as_json(request)
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

    def begin(self, request: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
        """Record what is asked for, and the plan by which it will be computed.

        Call it after the unfinished files were created: a folder without a record holds nothing
        worth keeping.

        Parameters
        ----------
        request
            What must be the same for a run to be resumed, by a name that users understand
            ("input image", "model", "tile", …); the values must suit JSON.
        plan
            What the resumed run must not choose anew; the values must suit JSON.

        Raises
        ------
        FileExistsError
            As in :meth:`finish`, known here already if the unfinished files have their names.
        """
        self._check_absent(self.targets)
        self._state = {
            "format_version": STATE_VERSION,
            "begun": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "request": _as_json(request),
            "plan": _as_json(plan),
            "complete": False,
        }
        self._write_state()

    def make_folders(self) -> None:
        """Make the folders that :meth:`path` lies in."""
        for kind in self.targets:
            self.path(kind).parent.mkdir(exist_ok=True)

    def remember(self, facts: Mapping[str, Any]) -> None:
        """Record what a resumed run needs to know about this one; the values must suit JSON."""
        self._begun_state()["remembered"] = _as_json(facts)
        self._write_state()

    def mark(self, key: BlockKey) -> None:
        """Record that a block is on disk, in every output.  Call it after flushing the files."""
        with open(self.folder / JOURNAL, "a", encoding="ascii") as journal:
            journal.write(" ".join(map(str, key)) + "\n")
            journal.flush()
            os.fsync(journal.fileno())
        self.finished.add(key)

    def finish(self) -> None:
        """Give the outputs their final names and remove the folder.

        A run that ends within this step is completed by the next one.

        Raises
        ------
        FileExistsError
            If an output appeared under a final name meanwhile and must not be overwritten, or
            would be replaced together with other things than a run of this program writes.
        """
        state = self._begun_state()
        if not state["complete"]:
            state["complete"] = True
            self._write_state()
        waiting = [kind for kind in self.targets if self._waits(kind)]
        self._check_absent(waiting)
        for kind in waiting:
            self._move(kind)
        self._clear()
        self.finished = set()

    @contextlib.contextmanager
    def no_space_said(self) -> Iterator[None]:
        """Turn "disk full" and "quota exceeded" within the context into one clear sentence.

        Raises
        ------
        OSError
            With the ``errno`` of the original error, if there was no space.
        """
        try:
            yield
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            full = OSError(
                f"There is no space left to write {self.targets['image']} "
                f"({os.strerror(error.errno or 0)}): {self.kept()} Make room, or choose another "
                "disk, and run the same command again."
            )
            full.errno = error.errno
            raise full from error

    def check_space(self, needed: int) -> None:
        """Check, before anything is computed, that the outputs fit on their disk.

        Parameters
        ----------
        needed
            Bytes of all outputs together.

        Raises
        ------
        OSError
            With errno ``ENOSPC``, if they do not fit.
        """
        missing = needed - _allocated(self.folder)
        free = free_space(self.folder)
        if missing > free:
            full = OSError(
                f"{self.targets['image']} needs {readable_size(missing)} of disk space, but only "
                f"{readable_size(free)} are free there: make room, or choose another disk."
            )
            full.errno = errno.ENOSPC
            raise full

    def kept(self) -> str:
        """Return a sentence about what an interruption at this point leaves."""
        if self.finished or self.complete:
            count = len(self.finished)
            blocks = f"{count} finished block{'s are' if count != 1 else ' is'}"
            return f"{blocks} kept in {self.folder}."
        return "No slab was finished yet, so nothing is left behind."

    # --- claiming and letting go ----------------------------------------------------------

    def _claim(self) -> None:
        """Make the folder if need be and hold its lock."""
        for _ in range(10):
            self._check_ours()
            try:
                self.folder.mkdir(exist_ok=True)
            except FileExistsError:
                raise FileExistsError(
                    f"{self.folder} is needed for unfinished work, but it is a file: move it away."
                ) from None
            # The lock may be let go in another thread than it was taken in.
            lock = FileLock(self.folder / LOCK, timeout=0, thread_local=False)
            try:
                lock.acquire()
            except Timeout:
                raise BlockingIOError(
                    f"Another run is writing {self.targets['image']}: wait until it ends, or "
                    "choose another output."
                ) from None
            except FileNotFoundError:
                continue  # the run that held it has just finished and removed the folder
            if (self.folder / LOCK).exists():
                self._lock = lock
                return
            lock.release()
        raise BlockingIOError(
            f"{self.folder} comes and goes, so another run is writing {self.targets['image']}: "
            "wait until it ends, or choose another output."
        )

    def _let_go(self, *, keep: bool) -> None:
        """Release the lock; drop the folder unless it is to be kept."""
        assert self._lock is not None
        if not keep:
            self._clear()
            # Where an open file can be removed, this is done before others can take the lock;
            # elsewhere (Windows) after it.
            with contextlib.suppress(OSError):
                (self.folder / LOCK).unlink()
                self.folder.rmdir()
        self._lock.release()
        self._lock = None
        if not keep:
            with contextlib.suppress(OSError):
                (self.folder / LOCK).unlink(missing_ok=True)
                self.folder.rmdir()

    def _clear(self) -> None:
        """Remove what runs leave in the folder, but not the lock."""
        # The record goes first: without it the rest is known to be worthless.
        (self.folder / STATE).unlink(missing_ok=True)
        (self.folder / JOURNAL).unlink(missing_ok=True)
        for name in (*KINDS, REPLACED):
            _remove(self.folder / name)
        self._state = None

    def _check_ours(self) -> None:
        """Refuse a folder that happens to have the name but was not made by this module."""
        if not self.folder.is_dir():
            return
        names = {entry.name for entry in self.folder.iterdir()}
        if names and not names & {LOCK, STATE}:
            raise ValueError(
                f"{self.folder} is needed for unfinished work, but it holds other things "
                f"({sorted(names)[0]!r}): move it away, or choose another output."
            )

    def _check_absent(self, kinds: Iterable[str]) -> None:
        """Refuse outputs that exist and must not be replaced."""
        for kind in kinds:
            target = self.targets[kind]
            if not target.exists() or _is_empty_folder(target):
                continue
            if not self._overwrite:
                raise FileExistsError(
                    f"{target} exists already: choose another output, or allow to replace it "
                    "with --overwrite (overwrite=True)."
                )
            if target.is_dir():
                self._check_replaceable(kind)

    def _check_replaceable(self, kind: str) -> None:
        """Refuse to replace a folder that holds more than the new one will."""
        new, old = self.path(kind), self.targets[kind]
        if not new.exists():
            return  # not yet known; asked again before the move
        if not new.is_dir():
            raise FileExistsError(
                f"{old} is a folder, but the output is a file: choose another output."
            )
        more = {entry.name for entry in old.iterdir()} - {entry.name for entry in new.iterdir()}
        if more:
            stays = f", so the result stays in {new}" if self.complete else ""
            raise FileExistsError(
                f"{old} also holds {sorted(more)[0]!r}, which --overwrite would delete{stays}: "
                "choose another output, or move the folder away."
            )

    def _waits(self, kind: str) -> bool:
        """Whether the output of this kind has not got its final name yet."""
        return self.path(kind).exists()

    def _move(self, kind: str) -> None:
        """Give one output its final name."""
        source, target = self.path(kind), self.targets[kind]
        if target.is_dir():
            if _is_empty_folder(target):
                target.rmdir()
            else:
                # A folder cannot be renamed onto another one.
                (self.folder / REPLACED).mkdir(exist_ok=True)
                _rename(target, self.folder / REPLACED / kind)
        _rename(source, target)

    # --- the record -----------------------------------------------------------------------

    def _begun_state(self) -> dict[str, Any]:
        if self._state is None:
            raise RuntimeError(f"{self.folder} has no record of a run yet: call begin() first.")
        return self._state

    def _read_state(self) -> dict[str, Any] | None:
        path = self.folder / STATE
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            if state["format_version"] == STATE_VERSION and {"request", "plan", "complete"} <= set(
                state
            ):
                return dict(state)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            pass
        raise ValueError(
            f"{path} is damaged or was written by another version of this program, so the "
            "interrupted run cannot be resumed: begin again with --restart (restart=True)."
        )

    def _write_state(self) -> None:
        """Write the record so that a crash leaves the old or the new one, never a part."""
        beside = self.folder / (STATE + ".new")
        with open(beside, "w", encoding="utf-8") as file:
            json.dump(self._state, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.folder / STATE)
        sync_folder(self.folder)

    def _read_journal(self, *, mend: bool = True) -> set[BlockKey]:
        try:
            text = (self.folder / JOURNAL).read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return set()
        # A crash can cut the last line short ("1 0 12" to "1 0 1"): it counts only with its end.
        whole = text[: text.rfind("\n") + 1]
        if mend and len(whole) < len(text):
            os.truncate(self.folder / JOURNAL, len(whole))
        try:
            keys = [BlockKey(*map(int, line.split())) for line in whole.splitlines()]
        except (ValueError, TypeError):
            raise ValueError(
                f"{self.folder / JOURNAL} is damaged, so the interrupted run cannot be resumed: "
                "begin again with --restart (restart=True)."
            ) from None
        return set(keys)


def check_distinct(inputs: Sequence[Path], outputs: Mapping[str, Path]) -> None:
    """Check that no output is, lies in, or holds one of the inputs, or is another output.

    Parameters
    ----------
    inputs
        The files and folders that are read.
    outputs
        The final paths, by the name of the argument that gave them.

    Raises
    ------
    ValueError
        If two of them are the same; the message names both.
    """
    seen: dict[str, str] = {}
    for name, output in outputs.items():
        real = Path(os.path.realpath(output))
        key = os.path.normcase(real)
        if key in seen:
            raise ValueError(
                f"{name} and {seen[key]} are both {output}: give each output its own name."
            )
        seen[key] = name
        for source in inputs:
            origin = Path(os.path.realpath(source))
            if origin == real or (real.exists() and origin.exists() and origin.samefile(real)):
                raise ValueError(
                    f"{name} is {output}, which is also the input: the input is never "
                    "overwritten, so choose another output."
                )
            if origin.is_dir() and origin in real.parents:
                raise ValueError(
                    f"{name} is {output}, which lies in the input folder {source} and would be "
                    "taken for a slice of it: choose an output elsewhere."
                )
            if real in origin.parents:
                raise ValueError(
                    f"{name} is {output}, the folder that the input {source} lies in: choose "
                    "another output."
                )


def free_space(folder: Path) -> int:
    """Return the number of bytes that can still be written into this folder."""
    return shutil.disk_usage(folder).free


def readable_size(size: int) -> str:
    """Return a number of bytes as people say it, in powers of 1000.

    >>> readable_size(1_530_000_000)
    '1.5 GB'
    """
    for unit, exponent in (("TB", 12), ("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**exponent:
            return f"{size / 10**exponent:.1f} {unit}"
    return f"{size} bytes"


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


def check_parent(target: Path) -> None:
    """Check that the folder of an output is there and can be written to.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, PermissionError
        If not, with one sentence.
    """
    parent = target.parent
    if not parent.exists():
        raise FileNotFoundError(
            f"The folder {parent} of the output {target.name} does not exist: create it, or "
            "choose another output."
        )
    if not parent.is_dir():
        raise NotADirectoryError(
            f"{parent}, where the output {target.name} should lie, is not a folder: choose "
            "another output."
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(
            f"The folder {parent} of the output {target.name} cannot be written to: choose "
            "another output, or ask for the right to write there."
        )


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _rename(source: Path, target: Path) -> None:
    """Move a file or folder; onto another disk by a copy that gets its name when it is whole."""
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = target.with_name(target.name + ".copying")
        _remove(beside)
        try:
            if source.is_dir():
                shutil.copytree(source, beside)
            else:
                shutil.copy2(source, beside)
            os.replace(beside, target)
        except BaseException:
            _remove(beside)
            raise
        _remove(source)
    sync_folder(target.parent)


def _allocated(folder: Path) -> int:
    """Return how many bytes on disk the files in a folder occupy; holes do not count."""
    total = 0
    for path in folder.rglob("*"):
        if path.is_file():
            stat = path.stat()
            total += stat.st_blocks * 512 if hasattr(stat, "st_blocks") else stat.st_size
    return total
