"""Denoising takes bounded memory, and gets by with less when memory runs out."""

from __future__ import annotations

import dataclasses
import tracemalloc
import weakref
from typing import ClassVar

import numpy as np
import pytest
import torch
from engine_runs import NETWORKS, Listener, noise_stack, run
from plain_engine import (
    ArraySource,
    plain_stack,
)

from nrrn_fiji import denoising
from nrrn_fiji.denoising import denoise_slabs, make_plan
from nrrn_fiji.device import TORCH_DTYPES
from nrrn_fiji.fused import FusedNRRN
from nrrn_fiji.progress import Cancelled
from nrrn_fiji.settings import DenoiseSettings


class CountingSource(ArraySource):
    """Records what is read, and how many slices of it are still held."""

    def __init__(self, array):
        super().__init__(array)
        self.reads, self.held, self.most = [], 0, 0

    def read(self, start, stop):
        self.reads.append((start, stop))
        self.held += stop - start
        self.most = max(self.most, self.held)
        result = self.array[start:stop].copy()
        weakref.finalize(result, self.release, stop - start)
        return result

    def release(self, count):
        self.held -= count


@pytest.mark.parametrize("slab", [1, 3, 4])
@pytest.mark.parametrize("images", [1, 3])
def test_slices_are_read_once_in_order_and_let_go(images, slab):
    network = NETWORKS[1]
    source = CountingSource(noise_stack((14, 12, 12)))
    plan = make_plan(
        source.shape, source.dtype, network, DenoiseSettings(slab=slab, images=images), (0, 1)
    )
    for _ in denoise_slabs(source, network, plan):
        pass
    assert [z for start, stop in source.reads for z in range(start, stop)] == list(range(14))
    assert source.most <= slab + 2


def test_memory_does_not_grow_with_depth():
    network = NETWORKS[1]

    class Endless:
        dtype = np.dtype(np.uint16)

        def __init__(self, depth):
            self.shape = (depth, 128, 128)

        def read(self, start, stop):
            return np.full((stop - start, 128, 128), start + 1, np.uint16)

    peaks = []
    for depth in (6, 60):
        source = Endless(depth)
        plan = make_plan(source.shape, source.dtype, network, DenoiseSettings(slab=2), (0, 100))
        tracemalloc.start()
        for _ in denoise_slabs(source, network, plan, want_noise=True):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    one_slice = 128 * 128 * 2
    assert peaks[0] > 3 * one_slice
    assert abs(peaks[1] - peaks[0]) < one_slice


def test_cancelling_stops_between_tiles():
    stack = noise_stack((6, 40, 40))
    plan = make_plan(
        stack.shape, stack.dtype, NETWORKS[1], DenoiseSettings(tile=16, slab=2), (0, 1)
    )
    steps = 4 * 3 + 4 * 4  # 4 tiles; a slab of 2 has 3 neighbours at the end, else 4
    listener = Listener(cancel_after=steps - 5)
    blocks = denoise_slabs(ArraySource(stack), NETWORKS[1], plan, progress=listener)
    assert next(blocks).start == 0
    with pytest.raises(Cancelled, match="after 2 of 6 slices"):
        next(blocks)
    assert len(listener.updates) == steps - 5


class ScarceNetwork(FusedNRRN):
    """Runs out of memory like a GPU: above a number of pixels, or always."""

    limit = 0
    limited = ("cpu", "cuda")
    devices: ClassVar[list[str]] = []

    def __init__(self, network, *, device, **options):
        self.claimed = device.type
        self.devices.append(device.type)
        super().__init__(network, device=torch.device("cpu"), **options)

    def branches(self, neighbour, centres):
        if self.claimed in self.limited and neighbour.numel() > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 TiB.")
        return super().branches(neighbour, centres)


def scarce_engine(network, *, precision, **options):
    return ScarceNetwork(network, dtype=TORCH_DTYPES[precision], **options)


def scarce_plan(monkeypatch, stack, network, *, limit, limited, device="cuda:0", batch=1):
    monkeypatch.setattr(denoising, "make_engine", scarce_engine)
    monkeypatch.setattr(ScarceNetwork, "limit", limit)
    monkeypatch.setattr(ScarceNetwork, "limited", limited)
    monkeypatch.setattr(ScarceNetwork, "devices", [])
    asked = DenoiseSettings(tile=128, slab=2, device="cpu")
    plan = make_plan(stack.shape, stack.dtype, network, asked, (0, 1))
    return dataclasses.replace(plan, device=device, batch=batch)


def test_out_of_memory_halves_the_tile(monkeypatch):
    network = NETWORKS[1]
    stack = noise_stack((3, 90, 90))
    expected = plain_stack(network, stack)[-1]
    plan = scarce_plan(monkeypatch, stack, network, limit=40**2, limited=("cuda",))
    listener = Listener()
    blocks = list(denoise_slabs(ArraySource(stack), network, plan, progress=listener))
    image = np.concatenate([block.image for block in blocks])
    np.testing.assert_allclose(image, expected, atol=1e-5)
    assert len(listener.messages) == 2
    assert "tiles of 64 px instead of 128 px" in listener.messages[0]
    assert "tiles of 32 px instead of 64 px" in listener.messages[1]
    assert ScarceNetwork.devices == ["cuda"]


def test_out_of_memory_first_gives_up_batches(monkeypatch):
    network = NETWORKS[1]
    stack = noise_stack((1, 300, 300))
    plan = scarce_plan(monkeypatch, stack, network, limit=140**2, limited=("cuda",), batch=4)
    listener = Listener()
    [block] = denoise_slabs(ArraySource(stack), network, plan, progress=listener)
    np.testing.assert_allclose(block.image, plain_stack(network, stack)[-1], atol=1e-5)
    assert [text for text in listener.messages if "one tile at a time" in text]
    assert len(listener.messages) == 1


def test_a_gpu_that_stays_full_hands_over_to_the_cpu(monkeypatch):
    network = NETWORKS[1]
    stack = noise_stack((3, 90, 90))
    plan = scarce_plan(monkeypatch, stack, network, limit=0, limited=("cuda",))
    listener = Listener()
    blocks = list(denoise_slabs(ArraySource(stack), network, plan, progress=listener))
    image = np.concatenate([block.image for block in blocks])
    np.testing.assert_allclose(image, plain_stack(network, stack)[-1], atol=1e-5)
    assert "going on on the CPU" in listener.messages[-1]
    assert ScarceNetwork.devices == ["cuda", "cpu"]


def test_no_memory_at_all_is_an_error(monkeypatch):
    stack = noise_stack((1, 90, 90))
    plan = scarce_plan(
        monkeypatch, stack, NETWORKS[1], limit=0, limited=("cpu", "cuda"), device="cpu"
    )
    with pytest.raises(MemoryError, match="tiles of 32 px: close other programs"):
        list(denoise_slabs(ArraySource(stack), NETWORKS[1], plan))


def test_other_errors_are_not_taken_for_lack_of_memory(monkeypatch):
    def broken(self, neighbour, centres):
        raise RuntimeError("expected scalar type Half")

    monkeypatch.setattr(FusedNRRN, "branches", broken)
    with pytest.raises(RuntimeError, match="scalar type Half"):
        run(noise_stack((1, 9, 9)), NETWORKS[1])


def test_orientations_survive_a_shortage_of_memory(monkeypatch):
    # What was summed before memory ran out must not be counted twice.
    stack, network = noise_stack((3, 40, 40)), NETWORKS[1]
    expected = run(stack, network, orientations=4, tile=32)[0]
    branches, calls = FusedNRRN.branches, []

    def scarce(self, *arguments):
        calls.append(1)
        if len(calls) == 5:
            raise MemoryError
        return branches(self, *arguments)

    monkeypatch.setattr(FusedNRRN, "branches", scarce)
    np.testing.assert_allclose(
        run(stack, network, orientations=4, tile=32, batch=2)[0], expected, atol=1e-6
    )
    assert len(calls) > 5
