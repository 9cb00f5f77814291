"""The kernel for GPUs computes what the plain operations do, and compiles; no GPU is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from plain_engine import ArraySource, strong_network

from nrrn_fiji import denoising, one_pass
from nrrn_fiji.fused import FusedNRRN
from nrrn_fiji.network import NRRN
from nrrn_fiji.one_pass import missing_for_one_pass, pixel_by_pixel
from nrrn_fiji.progress import NoProgress
from nrrn_fiji.settings import DenoiseSettings

pytest.importorskip("triton", reason="Triton comes with PyTorch for CUDA on Linux alone")

# In a process of its own: Triton decides when it is imported whether it interprets.
COMPARE = """
import json, sys
import torch
from nrrn_fiji.fused import _gates
from nrrn_fiji.one_pass import gates_in_one_pass

maps, height, width, dtype, merged = json.loads(sys.argv[1])
dtype = getattr(torch, dtype)
generator = torch.Generator().manual_seed(0)

def made(count, channels):
    values = 2 * torch.randn((count, channels, height, width), generator=generator)
    return values.to(dtype).contiguous(memory_format=torch.channels_last)

def three():
    if merged:
        return made(2, 3 * maps).chunk(3, dim=1)
    return tuple(made(2, maps) for _ in range(3))

v, w, m = three(), three(), made(2, maps).tanh_()
image = torch.rand((2, 1, height, width), generator=generator)
change = torch.rand((2, 1, height, width), generator=generator) / 9
given = [one.clone() for one in (*v, *w, m, image)]
results = []
for work in (gates_in_one_pass, lambda *all: _gates(*all, keep=True)):
    h, added = torch.full_like(m, torch.nan), change.clone()
    work(v, w, m, image, added, h)
    results.append((h.float(), added))
assert all(torch.equal(a, b) for a, b in zip(given, (*v, *w, m, image), strict=True))
(h, added), (expected, sums) = results
assert expected.std() > 0.1 and (sums - change).abs().max() > 0.1
print(json.dumps([float((h - expected).abs().max()), float((added - sums).abs().max())]))
"""

COMPILE = """
import json, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from nrrn_fiji.one_pass_kernel import gates_kernel

capability, dtype = json.loads(sys.argv[1])
pointers = dict.fromkeys(("vr", "vu", "vc", "wr", "wu", "wc", "m", "h"), f"*{dtype}")
pointers |= {"image": "*fp32", "change": "*fp32"}
steps = {name: "i32" for name in gates_kernel.arg_names if name.endswith("_step")}
constants = {"maps": 24, "places": 32, "block": 64}
signature = {**pointers, "pixels": "i32", **steps, **dict.fromkeys(constants, "constexpr")}
signature = {name: signature[name] for name in gates_kernel.arg_names}
source = ASTSource(gates_kernel, signature, constants)
compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
print(json.dumps(len(compiled.asm["cubin"])))
"""


def run(code, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("maps", "height", "width", "dtype", "merged"),
    [
        (6, 5, 7, "float32", True),
        (32, 9, 11, "float32", False),
        (1, 3, 1, "float32", True),
        (16, 1, 4, "bfloat16", True),
    ],
)
def test_one_pass_computes_the_gates(maps, height, width, dtype, merged):
    state, change = run(COMPARE, maps, height, width, dtype, merged, TRITON_INTERPRET="1")
    # bf16 keeps 8 bits; the plain operations round after each step.
    tolerance = 1e-5 if dtype == "float32" else 3e-2
    assert state <= tolerance and change <= tolerance


@pytest.mark.parametrize(("capability", "dtype"), [(75, "fp16"), (80, "bf16"), (90, "fp32")])
def test_the_kernel_compiles_without_a_gpu(capability, dtype, tmp_path):
    assert run(COMPILE, capability, dtype, TRITON_CACHE_DIR=str(tmp_path)) > 1000


def test_a_cpu_has_no_kernel():
    assert missing_for_one_pass(torch.device("cpu")) == "a CUDA GPU"
    assert not FusedNRRN(NRRN(1, 4), device=torch.device("cpu")).one_pass


@pytest.fixture
def pretended_gpu(monkeypatch):
    """A GPU as far as questions about it go, which knows no answer to Triton."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    one_pass.missing_for_one_pass.cache_clear()
    yield torch.device("cuda:0")
    one_pass.missing_for_one_pass.cache_clear()


def test_a_kernel_that_cannot_be_built_is_told(pretended_gpu, monkeypatch):
    def fails(device):
        raise RuntimeError("Failed to find C compiler.\nmore")

    monkeypatch.setattr(one_pass, "try_it", fails)
    missing = missing_for_one_pass(pretended_gpu)
    assert missing == "Triton, which failed (RuntimeError: Failed to find C compiler.)"


def test_too_little_memory_is_no_missing_kernel(pretended_gpu, monkeypatch):
    def fails(device):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(one_pass, "try_it", fails)
    with pytest.raises(torch.OutOfMemoryError):
        missing_for_one_pass(pretended_gpu)


def test_old_gpus_and_other_systems_have_no_kernel(pretended_gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    assert missing_for_one_pass(pretended_gpu) == "a GPU from 2018 or later"
    one_pass.missing_for_one_pass.cache_clear()
    monkeypatch.setattr(one_pass, "find_spec", lambda name: None)
    assert "Triton" in missing_for_one_pass(pretended_gpu)


def test_a_run_says_once_what_its_gpu_lacks(monkeypatch):
    told, make_engine = [], denoising.make_engine

    class Listens(NoProgress):
        def message(self, text):
            told.append(text)

    def lacking(*arguments, **options):
        engine = make_engine(*arguments, **options)
        engine.lacks = "Triton"
        return engine

    monkeypatch.setattr(denoising, "make_engine", lacking)
    stack = np.random.default_rng(0).random((4, 16, 16), np.float32)
    asked = DenoiseSettings(device="cpu", slab=2, orientations=2)
    network = strong_network(1, 4)
    plan = denoising.make_plan(stack.shape, stack.dtype, network, asked, (0, 1))
    list(denoising.denoise_slabs(ArraySource(stack), network, plan, progress=Listens()))
    assert len(told) == 1 and told[0].endswith("because a single one needs Triton.")


@pytest.mark.gpu
def test_the_gpu_computes_gates_in_one_pass():
    assert missing_for_one_pass(torch.device("cuda:0")) is None


def test_maps_that_do_not_lie_pixel_by_pixel_are_copied():
    packed = torch.rand(2, 12, 5, 7).contiguous(memory_format=torch.channels_last)
    part = packed.chunk(3, dim=1)[1]
    laid, step = pixel_by_pixel(part)
    assert laid.data_ptr() == part.data_ptr() and step == 12
    laid, step = pixel_by_pixel(packed[:, :, 1:])
    assert step == 12 and laid.data_ptr() != packed[:, :, 1:].data_ptr()
    assert torch.equal(laid, packed[:, :, 1:])
