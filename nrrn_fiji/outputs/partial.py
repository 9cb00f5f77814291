"""Output files that are whole or absent, and runs that can be interrupted and resumed.

A long job writes into the folder ``OUT.partial`` beside its output ``OUT`` and moves the result
to its final name when everything is written.  The folder holds

``lock``
    held while a run writes, so that two runs into one output are refused; the operating system
    lets go of it however a process ends;
``state.json`` and ``finished``
    the record of the run (:mod:`.journal`);
``workers/``
    what other processes that take part need to know;
``image/``, ``noise/``, ``units/``, ``scans/``
    the unfinished files, under the names they will have.

This module knows neither image formats nor the network.  It must never leave a half-written file
under a final name, never delete what it did not write, and never go on with a run that was begun
with another input, model or setting.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from ..files import NO_SPACE, sync_folder, trouble
from ..formats.table import parts_of_image
from ..hiccups import SourceLostError
from .checks import (
    allocated,
    check_distinct,
    check_parent,
    free_space,
    readable_size,
)
from .journal import NEW_STATE, STATE, BlockKey, Journal
from .locks import let_go, removed
from .renaming import identity, is_empty_folder, remove, rename, same_content

__all__ = [
    "NO_SPACE",
    "BlockKey",
    "PartialOutput",
    "check_distinct",
    "check_parent",
    "free_space",
    "readable_size",
]

LOCK, REPLACED, SHARED = "lock", "replaced", "workers"
KINDS = ("noise", "units", "scans", "image")  # in the order of moving: the image comes last


class PartialOutput(contextlib.AbstractContextManager["PartialOutput"]):
    """The folder ``OUT.partial`` of one run, claimed for this process while in the context.

    Use it as ``with PartialOutput(...) as part``, then

    1. ask :meth:`goes_on` whether there is a run to go on with, else :meth:`begin`;
    2. unless it is :attr:`complete`, write to :meth:`path` and :meth:`mark` every block after it
       was flushed to disk, leaving out those in :attr:`finished`;
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
        self.journal = Journal(self.folder)
        self._overwrite = overwrite
        self._restart = restart
        self._lock: FileLock | None = None
        self.moved = False
        """Whether an earlier run gave its outputs their final names, and ended before it could
        remove its folder; see :meth:`goes_on`."""

    def __enter__(self) -> PartialOutput:
        for target in self.targets.values():
            check_parent(target)
        if not self.folder.exists():
            self._check_absent(self.targets)
        self._claim()
        try:
            if self._restart:
                self._check_absent(self.targets)
            # Without a finished block there is nothing that binds this run.
            if self._restart or not self.journal.read() or not (self.finished or self.complete):
                self._clear()
            self.moved = self._all_moved()
            if not self.moved:
                if self.complete and not any(map(self._waits, self.targets)):
                    self._clear()  # the outputs have been replaced or removed since
                self._check_absent(self.waiting)
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
        self.journal.read(mend=False)
        self.moved = self._all_moved()
        if self.complete:
            return self.moved or any(map(self._waits, self.targets))
        return bool(self.finished)

    @property
    def finished(self) -> set[BlockKey]:
        """The blocks that are on disk, in every output."""
        return self.journal.finished

    @property
    def begun(self) -> bool:
        """Whether an interrupted run is being resumed, or :meth:`begin` was called."""
        return self.journal.state is not None

    @property
    def complete(self) -> bool:
        """Whether all blocks were written and only the move to the final names is left."""
        return self.journal.complete

    @property
    def waiting(self) -> dict[str, Path]:
        """The outputs that have not got their final names yet, by kind."""
        return {
            kind: target
            for kind, target in self.targets.items()
            if not self.complete or self._waits(kind)
        }

    @property
    def plan(self) -> dict[str, Any]:
        """The plan that :meth:`begin` recorded."""
        return dict(self.journal.begun()["plan"])

    @property
    def remembered(self) -> dict[str, Any]:
        """What :meth:`remember` recorded last; empty before."""
        return dict(self.journal.begun().get("remembered", {}))

    def path(self, kind: str) -> Path:
        """Return where the output of this kind is written until it is finished."""
        return self.folder / kind / self.targets[kind].name

    def goes_on(self, request: Mapping[str, Any]) -> bool:
        """Say whether there is an earlier run to go on with; if not, call :meth:`begin`.

        Where only the folder of an earlier run was left to be removed, its outputs are this
        run's, too, if it was asked for the same thing; :meth:`finish` is then all that is to do.
        If it was asked for something else they are outputs like any other.

        Parameters
        ----------
        request
            As in :meth:`begin`.

        Raises
        ------
        ValueError
            As :meth:`check` does.
        FileExistsError
            If the outputs are those of another request and must not be overwritten.
        """
        if not self.begun:
            return False
        if self.moved and not self.journal.is_for(request):
            self.moved = False
            self._clear()
            self._check_absent(self.targets)
            return False
        self.check(request)
        return True

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
        self.journal.check(request)

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
        for kind in self.targets:
            if self.path(kind).exists():
                sync_folder(self.path(kind).parent)
        self.journal.begin(request, plan)

    def make_folders(self) -> None:
        """Make the folders that :meth:`path` lies in."""
        for kind in self.targets:
            self.path(kind).parent.mkdir(exist_ok=True)

    @property
    def run(self) -> str:
        """How other processes know this run from others into the same outputs."""
        return str(self.journal.begun()["run"])

    def for_workers(self) -> Path:
        """Make and return the folder for what other processes need to know of the run."""
        folder = self.folder / SHARED
        folder.mkdir(exist_ok=True)
        return folder

    def remember(self, facts: Mapping[str, Any]) -> None:
        """Record what a resumed run needs to know about this one; the values must suit JSON."""
        self.journal.remember(facts)

    def mark(self, key: BlockKey) -> None:
        """Record that a block is on disk, in every output.  Call it after flushing the files."""
        self.journal.mark(key)

    def finish(self) -> None:
        """Give the outputs their final names and remove the folder.

        A run that ends within this step is completed by the next one.

        Raises
        ------
        FileExistsError
            If an output appeared under a final name meanwhile and must not be overwritten, or
            would be replaced together with other things than a run of this program writes.
        """
        waiting = [kind for kind in self.targets if self._waits(kind)]
        if not self.complete:
            self.journal.end({kind: identity(self.path(kind)) for kind in self.targets})
        self._check_absent(waiting)
        for kind in waiting:
            self._move(kind)
        self._clear(record_last=True)

    @contextlib.contextmanager
    def kept_said(self) -> Iterator[None]:
        """Say in one clear sentence what is kept, where a disk is full or out of reach, or memory.

        Raises
        ------
        OSError
            With the ``errno`` of the original error.
        MemoryError
            As it was, with what is kept.
        """
        try:
            yield
        except SourceLostError as error:
            lost = SourceLostError(f"{error} {self.kept()}")
            lost.errno = error.errno
            raise lost from error
        except MemoryError as error:
            if not self.finished:
                raise
            raise MemoryError(f"{error} {self.kept()} Run the same command again.") from error
        except OSError as error:
            told = trouble(self.targets["image"], error, self.kept())
            if told is None:
                raise
            raise told from error

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
        missing = needed - allocated(self.folder)
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
            slabs = f"{count} finished slab{'s are' if count != 1 else ' is'}"
            return f"{slabs} kept in {self.folder}."
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
        if keep:
            self._lock.release()
        else:
            self._clear()
            let_go(self._lock, self._remove_folder)
        self._lock = None

    def _remove_folder(self) -> bool:
        """Remove the lock, and with it the empty folder; return whether it could be removed."""
        if not removed(self.folder / LOCK):
            return False
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        return True

    def _clear(self, *, record_last: bool = False) -> None:
        """Remove what runs leave in the folder, but not the lock.

        The record goes first, because nothing is worth keeping without it; but last, where it
        says of outputs that have their names already that they are whole.
        """
        if not record_last:
            self.journal.clear()
        for name in (*KINDS, REPLACED, SHARED):
            remove(self.folder / name)
        self.journal.clear()

    def _check_ours(self) -> None:
        """Refuse a folder that happens to have the name but was not made by this module."""
        try:
            names = {entry.name for entry in self.folder.iterdir()}
        except (FileNotFoundError, NotADirectoryError):  # also removed at this moment, by its run
            return
        if names and not names & {LOCK, STATE, NEW_STATE}:
            raise ValueError(
                f"{self.folder} is needed for unfinished work, but it holds other things "
                f"({sorted(names)[0]!r}): move it away, or choose another output."
            )

    def _check_absent(self, kinds: Iterable[str]) -> None:
        """Refuse outputs that exist and must not be replaced."""
        for kind in kinds:
            target = self.targets[kind]
            if not target.exists() or is_empty_folder(target):
                continue
            if not self._overwrite:
                raise FileExistsError(
                    f"{target} exists already: choose another output, or allow to replace it "
                    "with --overwrite (overwrite=True)."
                )
            self._check_replaceable(kind)

    def _check_replaceable(self, kind: str) -> None:
        """Refuse to replace a folder that holds more than the new one will, and other kinds."""
        new, old = self.path(kind), self.targets[kind]
        if not new.exists():
            return  # not yet known; asked again before the move
        if new.is_dir() != old.is_dir():
            names = ("a folder", "a file") if old.is_dir() else ("a file", "a folder")
            raise FileExistsError(
                f"{old} is {names[0]}, but the output is {names[1]}: choose another output."
            )
        if not new.is_dir():
            return
        more = {entry.name for entry in old.iterdir()} - {entry.name for entry in new.iterdir()}
        more -= parts_of_image(old)
        if more:
            stays = f", so the result stays in {new}" if self.complete else ""
            raise FileExistsError(
                f"{old} also holds {sorted(more)[0]!r}, which --overwrite would delete{stays}: "
                "choose another output, or move the folder away."
            )

    def _all_moved(self) -> bool:
        """Whether all outputs of the recorded run have their final names."""
        return all(self._has_its_name(kind) and not self._waits(kind) for kind in self.targets)

    def _waits(self, kind: str) -> bool:
        """Whether the output of this kind has not got its final name yet."""
        unfinished, target = self.path(kind), self.targets[kind]
        if not unfinished.exists():
            return False
        # Both are there after a move onto another disk that was cut short; or what bears the name
        # is an older result of the same size and, by the clock of this disk, the same time.
        return not (self._has_its_name(kind) and same_content(unfinished, target))

    def _has_its_name(self, kind: str) -> bool:
        """Whether what bears the final name is what the record says was written."""
        written, target = self.journal.outputs.get(kind), self.targets[kind]
        return written is not None and target.exists() and written == identity(target)

    def _move(self, kind: str) -> None:
        """Give one output its final name."""
        source, target = self.path(kind), self.targets[kind]
        if target.is_dir():
            if is_empty_folder(target):
                target.rmdir()
            else:
                # A folder cannot be renamed onto another one.
                (self.folder / REPLACED).mkdir(exist_ok=True)
                rename(target, self.folder / REPLACED / kind)
        rename(source, target)
