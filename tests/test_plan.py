"""Plans keep to the memory there is, and survive being saved."""

from __future__ import annotations

import json
import re

import pytest
import torch
from plain_engine import strong_network

from nrrn_fiji import plan as planning
from nrrn_fiji.plan import Plan, make_plan
from nrrn_fiji.settings import DenoiseSettings, size_in_bytes


def test_a_plan_survives_json():
    asked = DenoiseSettings(units=2, images=2, tile=50, slab=4, device="cpu")
    plan = make_plan((9, 100, 120), "uint16", strong_network(3), asked, (3, 4), model_hash="abc")
    assert Plan.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan
    assert (plan.units, plan.halo, plan.tile, plan.slab) == (2, 4, 50, 4)
    assert (plan.precision, plan.device, plan.intensity) == ("fp32", "cpu", (3.0, 4.0))
    with pytest.raises(ValueError, match="does not fit this version"):
        Plan.from_dict({**plan.as_dict(), "colour": 1})


@pytest.mark.parametrize("megabytes", [100, 300, 2000])
@pytest.mark.parametrize("shape", [(500, 1024, 1024), (2000, 4000, 1000)])
def test_the_plan_keeps_to_the_budget(shape, megabytes):
    network = strong_network(4, 64)
    plan = make_plan(
        shape, "uint8", network, DenoiseSettings(device="cpu"), (0, 255), memory=megabytes * 2**20
    )
    assert plan.memory <= megabytes * 2**20
    assert 1 <= plan.slab <= 32
    assert plan.tile >= plan.halo


def test_more_depth_needs_no_more_memory():
    plans = [
        make_plan(
            (depth, 1024, 1024),
            "uint8",
            strong_network(3),
            DenoiseSettings(device="cpu"),
            (0, 255),
            memory=2**30,
        )
        for depth in (64, 5120)
    ]
    assert plans[0].memory == plans[1].memory


@pytest.mark.parametrize("gigabytes", [0.05, 1, 10])
def test_a_gpu_is_filled_but_not_overfilled(gigabytes, monkeypatch):
    free = int(gigabytes * 2**30)
    monkeypatch.setattr(planning, "choose_device", lambda name: torch.device("cuda:0"))
    monkeypatch.setattr(planning, "choose_precision", lambda *asked: "fp32")
    monkeypatch.setattr(planning, "free_memory", lambda device: free)
    network = strong_network(3, 32)
    plan = make_plan((50, 4000, 4000), "uint8", network, DenoiseSettings(), (0, 255))
    # 28 images of 32 maps in fp32 per pixel of a window.
    needed = plan.batch * (plan.tile + 2 * plan.halo) ** 2 * 28 * 32 * 4
    assert needed <= 0.6 * free * 1.05
    assert (plan.tile == 1024) == (gigabytes == 10)
    # A small tile that was asked for is computed many at a time.
    asked = DenoiseSettings(tile=64)
    small = make_plan((50, 4000, 4000), "uint8", network, asked, (0, 255))
    assert (small.batch > 20) == (gigabytes >= 1)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("100MB", 100 * 10**6),
        ("2GB", 2 * 10**9),
        ("1.5 GiB", 3 * 2**29),
        ("64kb", 64000),
        ("12345678", 12345678),
        ("1T", 10**12),
        (50000000, 50000000),
    ],
)
def test_sizes_of_memory_are_understood(text, size):
    assert size_in_bytes("memory", text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GB", "0", "0MB", "10 i", "1e9", "100 MBit"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match=r"memory is .*, but it must be a size .* as 100MB"):
        DenoiseSettings(memory=text)


@pytest.mark.parametrize("megabytes", [120, 400, 3000])
def test_memory_that_is_allowed_bounds_slabs_and_tiles(megabytes):
    asked = DenoiseSettings(device="cpu", memory=f"{megabytes}MB")
    plan = make_plan((500, 1024, 1024), "uint16", strong_network(3, 48), asked, (0, 255))
    assert plan.memory <= 0.6 * megabytes * 10**6
    free = make_plan(
        (500, 1024, 1024), "uint16", strong_network(3, 48), DenoiseSettings(device="cpu"), (0, 255)
    )
    assert plan.slab <= free.slab and plan.tile <= free.tile


def test_too_little_memory_says_what_is_enough():
    shape, network = (500, 1024, 1024), strong_network(3, 48)
    with pytest.raises(ValueError, match=r"memory is 20MB, but slices of 1024 × 1024") as caught:
        make_plan(shape, "uint16", network, DenoiseSettings(device="cpu", memory="20MB"), (0, 255))
    enough = int(re.search(r"need (\d+)MB", str(caught.value))[1])
    asked = DenoiseSettings(device="cpu", memory=f"{enough}MB")
    plan = make_plan(shape, "uint16", network, asked, (0, 255))
    assert plan.slab == 1
    with pytest.raises(ValueError, match=f"need {enough}MB"):
        asked = DenoiseSettings(device="cpu", memory=f"{enough - 2}MB")
        make_plan(shape, "uint16", network, asked, (0, 255))
