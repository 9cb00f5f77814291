"""Too little memory costs speed and a sentence, and no pixel: what tests/test_denoising.py lacks.

There the engine's own recovery is proved (smaller batches, smaller tiles, the CPU).  Here are the
shortages around it, what a user reads of them, and a real one where there is a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from plain_engine import ArraySource, strong_network

from nrrn_fiji import denoising
from nrrn_fiji.api import denoise_file
from nrrn_fiji.cli import main
from nrrn_fiji.denoising import denoise_slabs, make_plan
from nrrn_fiji.models import save_model
from nrrn_fiji.progress import NoProgress
from nrrn_fiji.settings import DenoiseSettings
from nrrn_fiji.volumes import open_volume

SETTINGS = DenoiseSettings(slab=2, device="cpu", tile=32, precision="fp32")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with raw.tif (6, 40, 36) and a model."""
    stack = np.random.default_rng(0).integers(0, 200, (6, 40, 36)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "raw.tif", stack, photometric="minisblack")
    save_model(tmp_path / "net.safetensors", strong_network(1, 4), {})
    return tmp_path


class Listener(NoProgress):
    """Remembers the sentences."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def test_gpu_too_full_for_the_network_hands_over_to_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a shared one that another process has filled."""
    stack = np.random.default_rng(0).random((3, 40, 36), np.float32)
    network, engines, asked = strong_network(1, 4), denoising.make_engine, []
    plan = make_plan(stack.shape, stack.dtype, network, SETTINGS, (0, 1))
    [*expected] = denoise_slabs(ArraySource(stack), network, plan)

    def make_engine(network: Any, *, device: torch.device, **options: Any) -> Any:
        asked.append(device.type)
        if device.type != "cpu":
            raise RuntimeError("CUDA error: out of memory")
        return engines(network, device=device, **options)

    monkeypatch.setattr(denoising, "make_engine", make_engine)
    elsewhere = denoising.dataclasses.replace(plan, device="cuda:0", batch=4)
    listener = Listener()
    [*blocks] = denoise_slabs(ArraySource(stack), network, elsewhere, progress=listener)
    assert asked == ["cuda", "cpu"]
    assert listener.messages == ["Memory on cuda:0 does not hold the network: going on on the CPU."]
    for block, other in zip(blocks, expected, strict=True):
        np.testing.assert_allclose(block.image, other.image, atol=1e-5)
        assert block.plan.device == "cpu"


def test_slab_too_large_for_memory_is_told_and_blocks_are_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    line = ["denoise", str(folder / "raw.tif"), str(folder / "clean.tif"), "--slab", "2"]
    line += ["--model", str(folder / "net.safetensors"), "--device", "cpu", "--tile", "32"]
    expected = denoise_file(
        folder / "raw.tif", folder / "expected.tif", folder / "net.safetensors", SETTINGS
    ).image
    block, made = denoising._Run.block, []

    def block_or_fail(self: Any, *given: Any) -> Any:
        if len(made) == 1:
            raise MemoryError("Unable to allocate 3.00 GiB for an array")
        made.append(1)
        return block(self, *given)

    with monkeypatch.context() as full:
        full.setattr(denoising._Run, "block", block_or_fail)
        assert main(line) == 1
    said = capfd.readouterr().err.splitlines()[-1]
    assert said.startswith("Error: There is not enough memory. Slabs of 2 slices do not fit")
    assert "1 finished slab is kept in" in said
    assert main(line) == 0
    assert "2 of 6 slices are finished already" in capfd.readouterr().err
    np.testing.assert_array_equal(tifffile.imread(folder / "clean.tif"), tifffile.imread(expected))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        MemoryError("Unable to allocate 1.00 TiB for an array"),
    ],
)
def test_nth_convolution_that_finds_no_memory_changes_no_pixel(
    folder: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was summed before is not counted twice, and what is told is in the record."""
    out, model = folder / "clean.tif", folder / "net.safetensors"
    settings = DenoiseSettings(slab=3, device="cpu", tile=64, precision="fp32")
    expected = denoise_file(folder / "raw.tif", folder / "expected.tif", model, settings).image
    convolve, count = torch.nn.functional.conv2d, [0]

    def fails_at_the_fortieth(*given: Any, **options: Any) -> Any:
        count[0] += 1
        if count[0] == 40:
            raise error
        return convolve(*given, **options)

    monkeypatch.setattr(torch.nn.functional, "conv2d", fails_at_the_fortieth)
    report = denoise_file(folder / "raw.tif", out, model, settings)
    assert count[0] > 40
    assert any("Memory ran out on cpu: going on with tiles of 32 px" in n for n in report.notes)
    with open_volume(out) as made, open_volume(expected) as planned:
        np.testing.assert_allclose(
            made.read(0, 6).astype(int), planned.read(0, 6).astype(int), atol=1
        )
        assert made.provenance is not None
        assert made.provenance["went_on_with"][0]["tile"] == 32


@pytest.mark.gpu
def test_real_shortage_on_a_gpu() -> None:
    """What fits only in small tiles is computed in small tiles, to the same result."""
    stack = np.random.default_rng(0).random((3, 1500, 1500), np.float32)
    network = strong_network(2, 64)
    asked = DenoiseSettings(device="cuda", precision="fp32", tile=1500)
    plan = make_plan(stack.shape, stack.dtype, network, asked, (0, 1))
    [*expected] = denoise_slabs(ArraySource(stack), network, plan)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    listener = Listener()
    torch.cuda.set_per_process_memory_fraction(min(1.0, 600e6 / total))
    try:
        [*blocks] = denoise_slabs(ArraySource(stack), network, plan, progress=listener)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert any("Memory ran out on cuda:0" in text for text in listener.messages)
    for block, other in zip(blocks, expected, strict=True):
        np.testing.assert_allclose(block.image, other.image, atol=1e-4)
