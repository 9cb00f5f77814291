"""Processes to be killed: forked from one that has imported everything, so each starts at once.

They are real processes and really killed.  A victim runs the ``nrrn`` command as a user would; on
request it works slowly, so that a kill falls into the middle of something, or kills itself before
its n-th step on the disk, so that every such moment can be tried.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
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
PATIENCE = 300
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
    pause: float
    seed: int
    last_step: int | None


class Victim:
    """A process that runs ``nrrn`` with these words.

    Parameters
    ----------
    words
        The words after ``nrrn``.
    folder
        Where its files lie; also what it prints (``log``).
    pause
        Mean of the seconds that it idles before and after every block, of random length.
    seed
        Of these pauses.
    last_step
        Before which step on the disk it kills itself, counted from 0.
    """

    def __init__(
        self,
        words: list[str | Path],
        folder: Path,
        *,
        pause: float = 0.0,
        seed: int = 0,
        last_step: int | None = None,
    ) -> None:
        self.folder = folder
        self.log = folder.with_name(folder.name + ".log")
        orders = Orders(tuple(map(str, words)), str(self.log), str(folder), pause, seed, last_step)
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
    if orders.pause:
        slow_down(orders)
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


def slow_down(orders: Orders) -> None:
    """Idle around all that writes, so that a kill from outside can fall anywhere."""
    chance = random.Random(orders.seed)

    def slowly(function: Callable[..., Any]) -> Callable[..., Any]:
        def slow(*args: Any, **more: Any) -> Any:
            time.sleep(chance.uniform(0, 2 * orders.pause))
            result = function(*args, **more)
            time.sleep(chance.uniform(0, 2 * orders.pause))
            return result

        return slow

    VolumeWriter.write = slowly(VolumeWriter.write)  # type: ignore[method-assign]
    PartialOutput.mark = slowly(PartialOutput.mark)  # type: ignore[method-assign]
    training.objective_value = slowly(training.objective_value)


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
