"""Workers compute the pixels of one process, and whoever dies loses a block at most."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from held_runs import COMMAND, PATIENCE, finished_blocks, held, wait_until
from plain_engine import strong_network

from nrrn_fiji.jobs.denoise import DenoiseReport, denoise_file
from nrrn_fiji.jobs.denoise_checks import several_devices
from nrrn_fiji.models import save_model
from nrrn_fiji.progress import Cancelled, NoProgress
from nrrn_fiji.settings import DenoiseSettings
from nrrn_fiji.volumes import open_volume

distributed = pytest.importorskip("distributed")

SETTINGS = DenoiseSettings(tile=32, slab=2, device="cpu", precision="fp32")
SLICES = 31


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two workers, each a process, whom a nanny starts again when they die."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, memory_limit=None, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a stack, an image of two channels and time points, and a network."""
    folder = tmp_path_factory.mktemp("given")
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 256, (SLICES, 40, 50)).astype(np.uint8)
    tifffile.imwrite(folder / "raw.tif", stack, photometric="minisblack")
    many = rng.integers(0, 60000, (2, 3, 2, 20, 24)).astype(np.uint16)
    tifffile.imwrite(folder / "many.tif", many, imagej=True, metadata={"axes": "TZCYX"})
    save_model(folder / "net.safetensors", strong_network(1, 4), {})
    return folder


def denoise(given: Path, out: Path, source: str = "raw.tif", **more: Any) -> DenoiseReport:
    return denoise_file(given / source, out, given / "net.safetensors", SETTINGS, **more)


def pixels(path: Path) -> np.ndarray:
    with open_volume(path) as volume:
        t, c, z = volume.shape[:3]
        planes = [volume.read(0, z, channel=j, time=i) for i in range(t) for j in range(c)]
        return np.array(planes).reshape(volume.shape)


@pytest.fixture(scope="module")
def expected(given: Path) -> np.ndarray:
    """What one process makes of the stack."""
    denoise(given, given / "alone.tif")
    return pixels(given / "alone.tif")


def worker_pids(cluster: Any) -> dict[str, int]:
    with distributed.Client(cluster, set_as_default=False) as client:
        return client.run(os.getpid)


class Meanwhile(NoProgress):
    """Does something once when so many slices are done."""

    def __init__(self, slices: int, what: Any):
        self.slices, self.what = slices, what
        self.seen: list[float] = []

    def update(self, done: float, total: float, text: str = "") -> None:
        self.seen.append(done)
        if self.what is not None and self.slices <= done < total:
            what, self.what = self.what, None
            what()


@pytest.mark.parametrize("out", ["clean.tif", "clean.zarr", "clean", "clean.h5"])
def test_workers_make_the_pixels_and_the_record_of_one_process(
    given: Path, tmp_path: Path, cluster: Any, out: str, expected: np.ndarray
) -> None:
    told = Meanwhile(0, None)
    report = denoise(
        given, tmp_path / out, dask=cluster.scheduler_address, progress=told,
        slices=(3, 12), noise_out=tmp_path / "noise.tif",
    )  # fmt: skip
    assert np.array_equal(pixels(report.image), expected[:, :, 3:12])
    difference = pixels(given / "raw.tif")[:, :, 3:12] - expected[:, :, 3:12].astype(np.float32)
    assert report.noise is not None and np.array_equal(pixels(report.noise), difference)
    assert told.seen == sorted(told.seen) and told.seen[-1] == 9
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([out, "noise.tif"])
    with open_volume(report.noise) as made, open_volume(given / "alone.tif") as alone:
        assert made.provenance is not None and alone.provenance is not None
        plans = [volume.provenance["plan"] for volume in (made, alone)]
        assert {**plans[0], "memory": 0} == {**plans[1], "memory": 0}


def test_every_channel_and_time_point_is_shared_out(
    given: Path, tmp_path: Path, cluster: Any
) -> None:
    alone = denoise(given, tmp_path / "alone.tif", "many.tif")
    shared = denoise(given, tmp_path / "shared.tif", "many.tif", dask=cluster.scheduler_address)
    assert alone.plans == shared.plans and len(shared.plans) == 2
    assert np.array_equal(pixels(alone.image), pixels(shared.image))


def test_a_worker_that_is_killed_loses_its_block_and_nothing_else(
    given: Path, tmp_path: Path, cluster: Any, expected: np.ndarray
) -> None:
    before = worker_pids(cluster)

    def kill() -> None:
        os.kill(next(iter(before.values())), signal.SIGKILL)

    report = denoise(
        given, tmp_path / "clean.tif", dask=cluster.scheduler_address, progress=Meanwhile(4, kill)
    )
    assert np.array_equal(pixels(report.image), expected)
    assert worker_pids(cluster) != before


def test_a_stopped_run_keeps_its_blocks_and_goes_on_alone(
    given: Path, tmp_path: Path, cluster: Any, expected: np.ndarray
) -> None:
    class Stop(Meanwhile):
        @property
        def cancelled(self) -> bool:  # type: ignore[override]
            return bool(self.seen) and self.seen[-1] >= 4

    out = tmp_path / "clean.tif"
    with pytest.raises(Cancelled, match=r"finished slabs are kept .* Run the same command again"):
        denoise(given, out, dask=cluster.scheduler_address, progress=Stop(0, None))
    report = denoise(given, out)
    assert 4 <= report.resumed < SLICES
    assert np.array_equal(pixels(out), expected)


def test_a_client_that_is_killed_goes_on_with_the_same_command(
    given: Path, tmp_path: Path, cluster: Any, expected: np.ndarray
) -> None:
    out = tmp_path / "clean.tif"
    words = [
        *("denoise", given / "raw.tif", out, "-m", given / "net.safetensors", "--tile", "32"),
        *("--slab", "2", "--device", "cpu", "--precision", "fp32"),
        *("--dask", cluster.scheduler_address),
    ]
    with held(COMMAND, 3, tmp_path / "go on", *words) as process:
        wait_until(lambda: finished_blocks(out) >= 3, process)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    told = Meanwhile(0, None)
    report = denoise(given, out, dask=cluster.scheduler_address, progress=told)
    assert 6 - 1 <= report.resumed <= 6  # the last of the blocks has one slice
    assert told.seen[0] == report.resumed
    assert np.array_equal(pixels(out), expected)


def test_what_cannot_be_shared_out_is_refused(given: Path, tmp_path: Path, cluster: Any) -> None:
    out, address = tmp_path / "clean.tif", cluster.scheduler_address
    stack = np.zeros((3, 20, 20), np.uint8)
    with pytest.raises(ValueError, match="array in memory, but workers read from files"):
        denoise_file(stack, out, given / "net.safetensors", SETTINGS, dask=address)
    with pytest.raises(ValueError, match="leave workers out"):
        denoise(given, out, dask=address, workers=2)
    with pytest.raises(FileNotFoundError, match=r"scheduler file .* does not exist"):
        denoise(given, out, dask=str(tmp_path / "scheduler.json"))
    assert list(tmp_path.iterdir()) == []


def test_without_a_scheduler_a_sentence_says_so(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nrrn_fiji.jobs import cluster

    monkeypatch.setattr(cluster, "SECONDS_TO_CONNECT", 0.5)
    with pytest.raises(ConnectionError, match=r"no Dask scheduler at tcp://127.0.0.1:9 .*start"):
        denoise(given, tmp_path / "clean.tif", dask="tcp://127.0.0.1:9")


def test_without_dask_a_sentence_says_what_to_install(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "nrrn_fiji.jobs.cluster", raising=False)
    monkeypatch.delitem(sys.modules, "nrrn_fiji.jobs.cluster_blocks", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'nrrn-fiji\[cluster\]'"):
        denoise(given, tmp_path / "clean.tif", workers=2)


def test_a_list_of_devices_is_of_one_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    assert several_devices("cpu") == several_devices(None) == ()
    assert several_devices("cpu, cpu") == ("cpu", "cpu")
    with pytest.raises(ValueError, match="this machine has cpu"):
        several_devices("cpu,tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert several_devices("cuda:0,cuda:1") == ("cuda:0", "cuda:1")
    with pytest.raises(ValueError, match="must be of one kind"):
        several_devices("cuda:0,cpu")


@pytest.mark.slow
def test_the_command_line_starts_a_worker_for_every_device(
    given: Path, tmp_path: Path, expected: np.ndarray
) -> None:
    out = tmp_path / "clean.tif"
    words = [
        *(sys.executable, "-m", "nrrn_fiji", "denoise", given / "raw.tif", out),
        *("-m", given / "net.safetensors", "--tile", "32", "--slab", "2", "--precision", "fp32"),
    ]
    done = subprocess.run(
        [*words, "--device", "cpu,cpu"], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert " on 2 workers" in done.stderr and "(cpu, cpu)" in done.stderr
    assert np.array_equal(pixels(out), expected)


def test_what_happens_to_a_cluster_is_said_in_sentences() -> None:
    from types import SimpleNamespace

    from nrrn_fiji.jobs.cluster import Crew

    client = SimpleNamespace(scheduler=SimpleNamespace(address="tcp://first:8786"))
    crew = Crew(client, (), NoProgress())
    with pytest.raises(RuntimeError, match="ended one worker after the other"), crew.watched():
        raise distributed.KilledWorker("block", None, 3)
    lost = [
        distributed.comm.core.CommClosedError("closed"),
        distributed.client.FutureCancelledError("block", "scheduler-connection-lost"),
    ]
    for error in lost:
        with pytest.raises(ConnectionError, match="tcp://first:8786 is lost"), crew.watched():
            raise error


def test_workers_of_another_version_are_refused(
    given: Path, tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nrrn_fiji
    from nrrn_fiji.jobs import cluster as module

    monkeypatch.setattr(module, "__version__", "9.0")
    with pytest.raises(ValueError, match=rf"has nrrn-fiji {nrrn_fiji.__version__}, but 9.0 is"):
        denoise(given, tmp_path / "clean.tif", dask=cluster.scheduler_address)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to a process group")
def test_control_c_reaches_the_run_and_not_its_workers(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 256, (60, 200, 200)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "raw.tif", stack, photometric="minisblack")
    save_model(tmp_path / "net.safetensors", strong_network(2, 8), {})
    out = tmp_path / "clean.tif"
    words = [
        *("denoise", tmp_path / "raw.tif", out, "-m", tmp_path / "net.safetensors"),
        *("--slab", "1", "--device", "cpu", "--workers", "2"),
    ]
    sign = tmp_path / "go on"
    with held(COMMAND, 1, sign, *words, start_new_session=True) as process:
        try:
            wait_until(lambda: finished_blocks(out) >= 1, process)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            sign.touch()
            _, errors = process.communicate(timeout=PATIENCE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the workers too
    assert process.returncode == 130, errors
    assert "finished slab" in errors and "Run the same command again to go on" in errors
    assert "Traceback" not in errors
    assert 0 < finished_blocks(out) < 60
