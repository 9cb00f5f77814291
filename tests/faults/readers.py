"""A process that reads what may be damaged, so that a crash, a hang or greed can be told from it.

It runs each reader as a user's call would, and says what came of it.  Its memory is limited, and
asking for more than there is counts as greed even where the reader made a sentence of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import resource
import shutil
import tracemalloc
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from plain_engine import strong_network
from victims import IMPORTED

from nrrn_fiji import training
from nrrn_fiji.api import denoise_file
from nrrn_fiji.exchange.importing import take_in
from nrrn_fiji.jobs.models import show_model
from nrrn_fiji.models import import_checkpoint, load_model, user_models_dir
from nrrn_fiji.progress import NoProgress
from nrrn_fiji.settings import DenoiseSettings, TrainSettings
from nrrn_fiji.volumes import create_volume, open_volume

__all__ = ["SETTINGS", "Reader", "training_settings"]

PATIENCE = 600
"""Seconds after which a reader hangs."""

ROOM = 1 << 30
"""Bytes of address space that a reader gets beyond what importing it took."""

GREED = 200_000_000
"""Bytes that no reader of a file of some kilobytes may ask for."""

SETTINGS = DenoiseSettings(slab=1, device="cpu", tile=32, precision="fp32")


def read_image(path: Path) -> None:
    """Open an image, read of it, and lay out an output like it."""
    with open_volume(path) as volume:
        t, c, z, y, x = volume.shape
        for channel, time in {(0, 0), (c - 1, t - 1)}:
            for start in {0, z // 2, z - 1}:
                block = volume.read(start, start + 1, channel=channel, time=time)
                assert block.shape == (1, y, x) and block.dtype == volume.dtype
        volume.fingerprint()
        assert volume.provenance is None or isinstance(volume.provenance, dict)
        if volume.shape.planes * y * x * volume.dtype.itemsize > 5_000_000:
            return
        for name in ("out.tif", "out.ome.tif"):
            out = path.parent.parent / name
            with create_volume(out, volume, provenance={"program": "test"}) as writer:
                writer.write(0, volume.read(0, 1))
            with open_volume(out) as made:
                assert made.shape == volume.shape and made.dtype == volume.dtype
            out.unlink()


def read_model(path: Path) -> None:
    """Load a model file, and show its card."""
    show_model(str(path))
    load_model(path)


def import_model(path: Path) -> None:
    """Import a published checkpoint."""
    import_checkpoint(path)


def take_in_package(path: Path) -> None:
    """Install the model in a package."""
    take_in(path, "mine", overwrite=True)


def training_settings() -> TrainSettings:
    """The settings of the checkpoint among the seeds."""
    return training.resolve(
        TrainSettings(units=1, maps=4, steps=10, crop=16, batch=1),
        device=torch.device("cpu"),
        precision="fp32",
        objective="masked",
    )


def read_checkpoint(path: Path) -> None:
    """Put a checkpoint into a training."""
    networks = [strong_network(1, 4).requires_grad_(True) for _ in range(2)]
    optimiser = torch.optim.Adam(networks[0].parameters(), lr=0.0)
    training.load_checkpoint(
        path, *networks, optimiser, training_settings(), {"training data": "x"}
    )


def go_on(path: Path) -> None:
    """Go on with an interrupted run."""
    out = path / "clean.tif"
    report = denoise_file(
        path / "raw.tif", out, path / "net.safetensors", SETTINGS, progress=NoProgress()
    )
    with open_volume(report.image) as made, open_volume(path / "expected.tif") as expected:
        assert (made.read(0, made.shape.z) == expected.read(0, made.shape.z)).all()


READERS: dict[str, Callable[[Path], None]] = {
    "image": read_image,
    "model": read_model,
    "published": import_model,
    "package": take_in_package,
    "checkpoint": read_checkpoint,
    "record": go_on,
}


def serve(requests: Connection, folder: str) -> None:
    """Read what is asked for, until nothing more is."""
    os.environ["NRRN_MODELS"] = folder
    assert user_models_dir() == Path(folder)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (space + ROOM, resource.RLIM_INFINITY))
    tracemalloc.start()
    while True:
        try:
            reader, path = requests.recv()
        except EOFError:
            return
        requests.send(attempt(READERS[reader], Path(path)))


def attempt(reader: Callable[[Path], None], path: Path) -> str:
    """Return "read", "refused: …" or what went wrong."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        reader(path)
        answer = "read"
    except (ValueError, TypeError, OSError) as error:
        answer = judged(error, path)
    except BaseException as error:
        answer = f"wrong: {type(error).__name__}: {error}"
    asked = tracemalloc.get_traced_memory()[1] - before
    if asked > GREED:
        return f"wrong: it asked for {asked:,} bytes ({answer})"
    return answer


def judged(error: BaseException, path: Path) -> str:
    """Return "refused: …" for a sentence that tells a user what to do."""
    text = str(error)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError):
            return f"wrong: memory was asked for before sizes were checked: {text}"
        cause = cause.__cause__ or cause.__context__
    sentence = text.endswith((".", ")")) and "\n" not in text and "[Errno" not in text
    if not sentence or str(path.parent) not in text or ": " not in text:
        return f"wrong: {type(error).__name__} without a sentence: {text}"
    return f"refused: {text}"


@dataclasses.dataclass
class Reader:
    """The process; started when it is needed, and again when it has ended.

    Parameters
    ----------
    folder
        Where it may leave files.
    """

    folder: Path
    process: Any = None
    pipe: Connection | None = None

    def read(self, reader: str, path: Path) -> str:
        """Return what came of reading, one of :data:`READERS`."""
        if self.process is None:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(IMPORTED)
            self.pipe, theirs = context.Pipe()
            self.process = context.Process(target=serve, args=(theirs, str(self.folder)))
            self.process.start()
            theirs.close()
        assert self.pipe is not None
        try:
            self.pipe.send((reader, str(path)))
            if self.pipe.poll(PATIENCE):
                answer = self.pipe.recv()
                assert isinstance(answer, str)
                return answer
            problem = f"wrong: it hangs for {PATIENCE} s"
        except (EOFError, ConnectionError):
            self.process.join()
            problem = f"wrong: the process ended with {self.process.exitcode}"
        self.end()
        return problem

    def end(self) -> None:
        """End the process."""
        if self.process is not None and self.pipe is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
        self.process = self.pipe = None


def write_tree(folder: Path, files: dict[str, bytes]) -> None:
    """Write files into a folder that is emptied before."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def read_tree(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def as_json(values: Any) -> bytes:
    """Return JSON as bytes."""
    return json.dumps(values).encode()
