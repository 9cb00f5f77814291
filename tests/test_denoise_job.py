"""A result says with what it was really computed, whatever happened while it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from plain_engine import strong_network
from stack_files import StopAt

from nrrn_fiji.api import denoise_file
from nrrn_fiji.fused import FusedNRRN
from nrrn_fiji.models import Model, save_model
from nrrn_fiji.progress import Cancelled, NoProgress
from nrrn_fiji.settings import DenoiseSettings
from nrrn_fiji.volumes import open_volume

SETTINGS = DenoiseSettings(tile=160, slab=1, device="cpu", precision="fp32")


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """A network that changes an image."""
    return save_model(tmp_path / "strong.safetensors", strong_network(1), {})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A stack (4, 30, 200) of which one tile is a part."""
    stack = np.random.default_rng(0).integers(0, 256, (4, 30, 200)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "raw.tif", stack, photometric="minisblack")
    return tmp_path / "raw.tif"


def memory_runs_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    branches = FusedNRRN.branches
    failed = []

    def fail_once(self: Any, *given: Any) -> Any:
        if not failed:
            failed.append(1)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return branches(self, *given)

    monkeypatch.setattr(FusedNRRN, "branches", fail_once)


def record(path: Path) -> dict[str, Any]:
    with open_volume(path) as volume:
        assert volume.provenance is not None
        return volume.provenance


@pytest.mark.parametrize("out", ["clean.tif", "clean.ome.tif", "clean"])
def test_a_file_says_with_what_a_run_went_on(
    source: Path, model: Model, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = denoise_file(source, source.with_name("as-planned.tif"), model, SETTINGS)
    assert "went_on_with" not in record(expected.image)
    memory_runs_out_once(monkeypatch)
    noise = source.with_name("noise.tif")
    report = denoise_file(source, source.with_name(out), model, SETTINGS, noise_out=noise)
    (change,) = report.went_on
    assert (change["slice"], change["tile"], change["device"]) == (0, 80, "cpu")
    paths = [noise, *sorted(report.image.iterdir())] if out == "clean" else [noise, report.image]
    for path in paths:
        assert record(path)["went_on_with"] == [change]
        assert record(path)["plan"]["tile"] == 160
    assert record(noise)["content"] != record(paths[-1])["content"]
    with open_volume(report.image) as made, open_volume(expected.image) as planned:
        assert np.array_equal(made.read(0, 4), planned.read(0, 4))


def test_a_run_that_is_gone_on_with_remembers_it(
    source: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_runs_out_once(monkeypatch)
    out = source.with_name("clean.tif")
    with pytest.raises(Cancelled, match="2 finished slabs are kept"):
        denoise_file(source, out, model, SETTINGS, progress=StopAt(2))
    report = denoise_file(source, out, model, SETTINGS)
    assert report.resumed == 2
    told = record(out)["went_on_with"]
    assert [(one["slice"], one["tile"]) for one in told] == [(0, 80), (2, 160)]
    assert list(report.went_on) == told


def test_what_memory_sufficed_for_holds_for_the_channels_and_time_points_that_follow(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = np.random.default_rng(0).integers(0, 256, (2, 3, 2, 30, 200)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "many.tif", many, imagej=True, metadata={"axes": "TZCYX"})
    branches = FusedNRRN.branches
    tiles: list[int] = []

    def only_small(self: Any, image: torch.Tensor, *given: Any) -> Any:
        tiles.append(image.shape[-1])
        if image.shape[-1] > 90:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return branches(self, image, *given)

    monkeypatch.setattr(FusedNRRN, "branches", only_small)
    report = denoise_file(tmp_path / "many.tif", tmp_path / "clean.tif", model, SETTINGS)
    assert sum(width > 90 for width in tiles) == 1
    (change,) = report.went_on
    assert (change["time"], change["channel"], change["slice"], change["tile"]) == (0, 0, 0, 80)
    assert record(report.image)["went_on_with"] == [change]


def test_a_run_without_a_finished_block_binds_nobody(source: Path, model: Model) -> None:
    class Killed(BaseException):
        pass

    class KilledAtOnce(NoProgress):
        def update(self, done: float, total: float, text: str = "") -> None:
            if done:
                raise Killed

    out = source.with_name("clean.tif")
    with pytest.raises(Killed):
        denoise_file(source, out, model, SETTINGS, progress=KilledAtOnce())
    report = denoise_file(source, out, model, DenoiseSettings(slab=2, tile=96, device="cpu"))
    assert report.resumed == 0 and report.plans[0].slab == 2


def test_an_interruption_of_a_small_stack_does_not_lose_all(tmp_path: Path, model: Model) -> None:
    stack = np.random.default_rng(0).integers(0, 256, (30, 20, 24)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "small.tif", stack, photometric="minisblack")
    out, settings = tmp_path / "clean.tif", DenoiseSettings(device="cpu")
    with pytest.raises(Cancelled, match=r"finished slabs? (is|are) kept"):
        denoise_file(tmp_path / "small.tif", out, model, settings, progress=StopAt(20))
    report = denoise_file(tmp_path / "small.tif", out, model, settings)
    assert 8 <= report.resumed < 30
