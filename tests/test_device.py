"""Devices and precisions: what was asked for, or an error that says what there is."""

from __future__ import annotations

import pytest
import torch

from nrrn_fiji.device import (
    choose_device,
    choose_precision,
    describe,
    free_memory,
    is_out_of_memory,
    release_memory,
)

CPU = torch.device("cpu")


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_the_best_device_is_taken(two_gpus):
    assert choose_device() == torch.device("cuda:0")
    assert choose_device("cuda") == torch.device("cuda:0")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("cpu") == CPU


def test_without_a_gpu_it_is_the_cpu(no_gpu):
    assert choose_device() == choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "gpu", "tpu:0", "", "meta"])
def test_a_missing_device_is_an_error(no_gpu, name):
    with pytest.raises(ValueError, match=f"device is '{name}', but this machine has cpu"):
        choose_device(name)


def test_a_missing_second_gpu_is_an_error(two_gpus):
    with pytest.raises(ValueError, match="has cuda:0, cuda:1, cpu"):
        choose_device("cuda:2")


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("capability", [(7, 5), (9, 0)])
def test_above_8_bits_the_default_is_fp32(dtype, capability, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision(None, CPU, dtype) == "fp32"
    assert choose_precision(None, torch.device("cuda:0"), dtype) == "fp32"


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")]
)
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_8_bit_uses_bf16_on_gpus_that_have_it(dtype, capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision(None, torch.device("cuda:0"), dtype) == expected
    assert choose_precision("fp32", torch.device("cuda:0"), dtype) == "fp32"


@pytest.mark.parametrize(("tiles", "expected"), [(True, "bf16"), (False, "fp32")])
def test_8_bit_uses_bf16_on_cpus_with_amx(tiles, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles, raising=False)
    assert choose_precision(None, CPU, "uint8") == expected


def test_8_bit_is_fp32_where_torch_cannot_tell(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    assert choose_precision(None, CPU, "uint8") == "fp32"
    assert choose_precision(None, torch.device("mps"), "uint8") == "fp32"


def test_the_precision_asked_for_is_taken():
    assert choose_precision("bf16", CPU, "uint16") == "bf16"
    assert choose_precision("fp16", torch.device("cuda:0"), "uint8") == "fp16"


def test_bad_precisions_are_refused():
    with pytest.raises(ValueError, match="fp32, bf16, fp16"):
        choose_precision("fp8", CPU, "uint8")
    with pytest.raises(ValueError, match="fp32 or bf16"):
        choose_precision("fp16", CPU, "uint8")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: 12 bytes"),
    ],
)
def test_out_of_memory_is_recognised(error):
    assert is_out_of_memory(error)


def test_torch_itself_raises_what_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), OSError("out of memory card")])
def test_other_errors_are_not(error):
    assert not is_out_of_memory(error)


def test_the_cpu_in_words():
    assert describe(CPU).startswith("cpu (")
    assert free_memory(CPU) is None
    release_memory(CPU)


@pytest.mark.gpu
def test_the_gpu_in_words():
    device = choose_device("cuda")
    assert torch.cuda.get_device_name(0) in describe(device)
    assert (free_memory(device) or 0) > 0
    release_memory(device)
