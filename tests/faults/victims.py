"""Processes to be killed: forked from one that has imported everything, so each starts at once.

They are real processes and really killed.  A victim runs the ``nrrn`` command as a user would; on
request it kills itself before its n-th step on the disk, so that every such moment can be tried,
or at a line of Python in the middle of a block, or it stands still after so many blocks until it
is killed from outside.  None of these moments depends on how quick the machine is.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import h5py

import nrrn_fiji.jobs.denoise_job
from nrrn_fiji import training
from nrrn_fiji.cli import main
from nrrn_fiji.formats.image import VolumeWriter
from nrrn_fiji.outputs.partial import PartialOutput

__all__ = ["KILLED", "Victim", "contents", "journal_of"]

IMPORTED = [
    *("nrrn_fiji.formats.ome_zarr_output", "nrrn_fiji.formats.hdf5", "nrrn_fiji.formats.mrc"),
    *("nrrn_fiji.cli", "nrrn_fiji.jobs.denoise", "nrrn_fiji.jobs.train", "nrrn_fiji.plots"),
    *(
        "matplotlib.figure",
        "matplotlib.backends.backend_agg",
        "scipy.ndimage",
        "torch",
        "torch._dynamo",
    ),
]
"""What takes long to import, and is imported once, before the forks."""

KILLED = -signal.SIGKILL
PATIENCE = 600
"""Seconds after which a process that does not end is a failure."""

STEPS = {
    *("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"),
    *("fcntl.flock", "shutil.rmtree"),
}
"""What Python tells its auditors, as far as it changes something on a disk."""


@dataclass(frozen=True)
class Orders:
    """What a victim is to do."""

    words: tuple[str, ...]
    log: str
    folder: str
    last_step: int | None
    pieces: int | None
    fraction: float | None


class Victim:
    """A process that runs ``nrrn`` with these words.

    Parameters
    ----------
    words
        The words after ``nrrn``.
    folder
        Where its files lie; also what it prints (``log``).
    last_step
        Before which step on the disk it kills itself, counted from 0.
    pieces
        After how many pieces of work of this process (finished blocks, or steps of a training) it
        stands still, or begins to die.
    fraction
        How far into a piece it kills itself, in [0, 1): the lines of Python that run in the piece
        after ``pieces`` are counted, and in the next one it dies at this fraction of them; so
        ``pieces`` + 1 are finished then, or one more.  It stands still instead when left out.
    """

    def __init__(
        self,
        words: list[str | Path],
        folder: Path,
        *,
        last_step: int | None = None,
        pieces: int | None = None,
        fraction: float | None = None,
    ) -> None:
        self.folder = folder
        self.log = folder.with_name(folder.name + ".log")
        orders = Orders(
            tuple(map(str, words)), str(self.log), str(folder), last_step, pieces, fraction
        )
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        self.process = context.Process(target=obey, args=(orders,))
        self.process.start()

    def wait(self) -> int:
        """Return the exit code, :data:`KILLED` if it was killed."""
        self.process.join(PATIENCE)
        code = self.process.exitcode
        if code is None:
            self.kill()
            raise AssertionError(f"it hangs; it said: {self.said}")
        self.process.close()
        return code

    def wait_until(self, happened: Callable[[], bool]) -> bool:
        """Wait until something has happened; return False if the process ended before."""
        end = time.monotonic() + PATIENCE
        while not happened():
            if not self.process.is_alive():
                return happened()
            assert time.monotonic() < end, f"it hangs; it said: {self.said}"
            time.sleep(0.001)
        return True

    def kill(self) -> int:
        """Kill it as ``kill -9`` does; return its exit code: it may have ended before."""
        self.process.kill()
        return self.wait()

    @property
    def said(self) -> str:
        """What it printed so far."""
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    @property
    def steps(self) -> int:
        """How many steps on the disk it took, if it ended by itself."""
        return int(self.log.with_suffix(".steps").read_text())


def obey(orders: Orders) -> None:
    """Be a victim."""
    log = os.open(orders.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    nrrn_fiji.jobs.denoise_job.datetime = StandingClock
    count_steps(orders)
    if orders.pieces is not None:
        count_pieces(orders.pieces, orders.fraction)
    sys.exit(main(orders.words))


class StandingClock(datetime.datetime):
    """So that two results are equal to the last bit, with the date of their making."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> StandingClock:
        return cls(2026, 1, 1, tzinfo=tz)


def count_steps(orders: Orders) -> None:
    """Count what is done to the disk; end before one of these steps as if by ``kill -9``."""
    count = 0
    counts = Path(orders.log).with_suffix(".steps")

    def step() -> None:
        nonlocal count
        if count == orders.last_step:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    def heard(event: str, args: tuple[Any, ...]) -> None:
        if event not in STEPS:
            return
        if event == "open":
            path, _, flags = args
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
            if not isinstance(path, str | bytes) or not os.fsdecode(path).startswith(orders.folder):
                return
        step()

    write = VolumeWriter.write

    def fsync_as_step(file: int) -> None:
        # A killed process loses nothing that the system has; the disk itself need not be waited
        # for.
        step()

    def write_as_step(self: VolumeWriter, *args: Any, **place: int) -> None:
        step()
        write(self, *args, **place)

    os.fsync = fsync_as_step
    VolumeWriter.write = write_as_step  # type: ignore[method-assign]
    sys.addaudithook(heard)

    exit_ = sys.exit

    def exit_with_count(code: Any = None) -> None:
        steps = count
        counts.write_text(str(steps))
        exit_(code)

    sys.exit = exit_with_count  # type: ignore[assignment]


def count_pieces(pieces: int, fraction: float | None) -> None:
    """Count finished blocks and steps of a training; then stand still, or die within a piece."""
    done, death = 0, None if fraction is None else Death(fraction)

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def count(*args: Any, **more: Any) -> Any:
            nonlocal done
            result = function(*args, **more)
            done += 1
            if done >= pieces and death is None:
                time.sleep(PATIENCE)  # until it is killed; not for ever, if nobody is left to
                os._exit(1)
            if done >= pieces and death is not None:
                death.next_piece()
            return result

        return count

    PartialOutput.mark = counted(PartialOutput.mark)  # type: ignore[method-assign]
    training.follow = counted(training.follow)


class Death:
    """Counts the lines of a piece of work and ends the process in the middle of the next one.

    Parameters
    ----------
    fraction
        Where in that piece, in [0, 1).
    """

    def __init__(self, fraction: float):
        self.fraction, self.lines, self.last = fraction, 0, -1
        self.begun = 0

    def next_piece(self) -> None:
        """Note that a piece ends here."""
        self.begun += 1
        if self.begun == 1:
            frame: FrameType | None = sys._getframe()
            while frame is not None:  # what is under way already
                frame.f_trace, frame = self.line, frame.f_back
            sys.settrace(self.line)
        elif self.begun == 2:
            self.last, self.lines = int(self.fraction * self.lines), 0
        else:
            os.kill(os.getpid(), signal.SIGKILL)  # fewer lines than in the piece before

    def line(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        """Count a line that is about to run."""
        if event == "line":
            if self.begun == 2 and self.lines >= self.last:
                os.kill(os.getpid(), signal.SIGKILL)
            self.lines += 1
        return self.line


def journal_of(out: Path) -> int:
    """Return how many blocks an unfinished run has finished."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        text = (out.with_name(out.name + ".partial") / "finished").read_bytes()
        return text.count(b"\n")
    return 0


def contents(folder: Path) -> dict[str, str]:
    """Every file below, with a hash of what is in it, and every folder."""
    return {
        str(path.relative_to(folder)): _hash(path) if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


def _hash(path: Path) -> str:
    """Return a hash of a file; of HDF5, which notes the time of each change, of what it holds."""
    if path.suffix != ".h5":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    with h5py.File(path, "r") as file:

        def add(name: str, item: Any) -> None:
            digest.update(f"{name} {sorted((k, str(v)) for k, v in item.attrs.items())}".encode())
            if isinstance(item, h5py.Dataset):
                digest.update(f"{item.dtype} {item.shape}".encode() + item[()].tobytes())

        add("/", file)
        file.visititems(add)
    return digest.hexdigest()
