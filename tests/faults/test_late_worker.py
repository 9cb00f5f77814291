"""A worker that was taken for lost wakes late: what others wrote in its stead stays as it is.

The late worker is a second copy of the workers' module, with whatever it keeps open, in a thread
that sleeps between the computing of its block and the writing.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from plain_engine import strong_network
from victims import contents

from nrrn_fiji.api import denoise_file
from nrrn_fiji.jobs import cluster_blocks
from nrrn_fiji.models import save_model
from nrrn_fiji.settings import DenoiseSettings
from nrrn_fiji.volumes import create_volume, open_volume, reopen_volume

distributed = pytest.importorskip("distributed")

SETTINGS = DenoiseSettings(tile=32, slab=2, device="cpu", precision="fp32")
PATIENCE = 600


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stack raw.tif (6, 20, 24) and a model."""
    folder = tmp_path_factory.mktemp("given")
    stack = np.random.default_rng(0).integers(0, 256, (6, 20, 24)).astype(np.uint8)
    tifffile.imwrite(folder / "raw.tif", stack, photometric="minisblack")
    save_model(folder / "net.safetensors", strong_network(1, 4), {})
    return folder


class LateWorker:
    """Computes a block, other pixels than anybody else, and sleeps before it writes them."""

    def __init__(self) -> None:
        about = importlib.util.spec_from_file_location(
            "nrrn_fiji.jobs.late_worker", cluster_blocks.__file__
        )
        assert about is not None and about.loader is not None
        self.module: ModuleType = importlib.util.module_from_spec(about)
        sys.modules[about.name] = self.module  # dataclasses look there
        about.loader.exec_module(self.module)
        compute = self.module.denoise_slabs

        def sleep_before_writing(*given: Any, **more: Any) -> Iterator[Any]:
            for block in compute(*given, **more):
                self.asleep.set()
                assert self.awake.wait(PATIENCE)
                yield block._replace(image=255 - block.image)

        self.module.denoise_slabs = sleep_before_writing  # type: ignore[attr-defined]
        self.asleep, self.awake = threading.Event(), threading.Event()
        self.error: BaseException | None = None
        self.thread: threading.Thread | None = None

    def begin(self, *block: Any) -> None:
        """Let it compute a block and fall asleep."""

        def work() -> None:
            try:
                self.module.compute_block(*block)
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=work)
        self.thread.start()
        assert self.asleep.wait(PATIENCE)

    def wake(self) -> None:
        """Let it do the rest."""
        assert self.thread is not None
        self.awake.set()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        self.module._close()


class Workers:
    """Compute in this process; the first block falls to the late worker, and to another one."""

    devices: tuple[str, ...] = ()
    size, local = 2, False

    def __init__(self, late: LateWorker, woken_after: int | None):
        self.late, self.woken_after = late, woken_after

    def described(self, device: str) -> str:
        return f"2 workers ({device})"

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    def blocks(self, run: Any, keys: list[Any]) -> Iterator[Any]:
        self.late.begin(run, keys[0])
        for number, key in enumerate(keys):
            yield cluster_blocks.compute_block(run, key)
            if number == self.woken_after:  # the block of before is marked by now
                self.late.wake()
        cluster_blocks.close_run(run.name)


@pytest.mark.parametrize("woken_after", [0, None], ids=["while it goes on", "when it is over"])
@pytest.mark.parametrize("out", ["clean.tif", "clean.zarr", "clean", "clean.h5", "clean.mrc"])
def test_a_block_that_another_worker_wrote_stays_as_it_is(
    given: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    out: str,
    woken_after: int | None,
) -> None:
    late = LateWorker()

    @contextmanager
    def crew_for(*given: object) -> Iterator[Workers]:
        yield Workers(late, woken_after)

    here = SimpleNamespace(state=SimpleNamespace(nthreads=1), name="0", address="here")
    monkeypatch.setattr(distributed, "get_worker", lambda: here)
    (tmp_path / "alone").mkdir()
    expected = denoise_file(
        given / "raw.tif", tmp_path / "alone" / out, given / "net.safetensors", SETTINGS
    )
    monkeypatch.setattr("nrrn_fiji.jobs.denoise.crew_for", crew_for)
    result = denoise_file(
        given / "raw.tif", tmp_path / out, given / "net.safetensors", SETTINGS, workers=2
    )
    finished = contents(tmp_path)
    if woken_after is None:
        late.wake()
    assert isinstance(late.error, RuntimeError) and "not wait for this block" in str(late.error)
    assert contents(tmp_path) == finished
    assert not (tmp_path / f"{out}.partial").exists()
    with open_volume(result.image) as ours, open_volume(expected.image) as theirs:
        np.testing.assert_array_equal(ours.read(0, 6), theirs.read(0, 6))


@pytest.fixture
def written(given: Path, tmp_path: Path) -> Iterator[tuple[Path, Any, np.ndarray]]:
    """An OME-Zarr whose slices are written, a late writer of it, and the slices."""
    path = tmp_path / "clean.zarr.partial" / "image" / "clean.zarr"
    path.parent.mkdir(parents=True)
    with open_volume(given / "raw.tif") as raw:
        slices = raw.read(0, 6)
        with create_volume(path, raw, slab=2) as writer:
            writer.write(0, slices)
        with reopen_volume(path, raw) as late:
            yield path, late, slices


def test_a_shard_is_there_while_it_is_written_again(
    written: tuple[Path, Any, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads it meanwhile, to compute the pyramid, must not take it for empty."""
    path, late, slices = written
    set_item, seen = zarr.Array.__setitem__, []

    def look_first(self: Any, *given: Any) -> None:
        with open_volume(path) as volume:
            seen.append(volume.read(0, 6))
        set_item(self, *given)

    monkeypatch.setattr(zarr.Array, "__setitem__", look_first)
    late.write(0, slices[:2])
    assert seen
    for found in seen:
        np.testing.assert_array_equal(found, slices)


def test_a_late_shard_does_not_make_the_folder_anew(
    written: tuple[Path, Any, np.ndarray], tmp_path: Path
) -> None:
    """A folder under the unfinished name would be in the way of the next run."""
    path, late, slices = written
    path.rename(tmp_path / "clean.zarr")
    path.parent.rmdir()
    path.parent.parent.rmdir()
    before = contents(tmp_path)
    with pytest.raises(FileNotFoundError):
        late.write(0, slices[:2])
    assert contents(tmp_path) == before


def test_a_damaged_shard_is_replaced_unseen(written: tuple[Path, Any, np.ndarray]) -> None:
    """A crash may have left it so; its block is computed again."""
    path, late, slices = written
    for shard in (path / "0").glob("c/**/0"):
        if shard.is_file():
            shard.write_bytes(b"half a shard")
    late.write(0, slices)
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume.read(0, 6), slices)
