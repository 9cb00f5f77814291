"""Without options a run says what it chose and why, and names a quicker model where that pays."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from nrrn_fiji import choices, device
from nrrn_fiji.choices import FASTER_MODEL, chosen, faster_model
from nrrn_fiji.cli import main
from nrrn_fiji.models import DEFAULT_MODEL, Model, load_model, save_model
from nrrn_fiji.network import NRRN
from nrrn_fiji.plan import Plan, make_plan
from nrrn_fiji.settings import DenoiseSettings

WHOLE = DenoiseSettings(device="cpu")


@pytest.fixture
def model() -> Model:
    return load_model(DEFAULT_MODEL)


def plan_of(model: Model, settings: DenoiseSettings = WHOLE, edge: int = 4000) -> Plan:
    return make_plan((500, edge, edge), np.uint8, model.network, settings, (0, 255))


def test_a_long_run_on_a_cpu_names_the_faster_model(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choices, "estimate_seconds", lambda network, plan: 3600.0 * network.units)
    told = faster_model(model, plan_of(model), WHOLE, 500)
    assert told == (
        "This will take about 5 h 0 min on the CPU; the model fibsem-medulla-fast, a little "
        "weaker, would take about 3 h 0 min."
    )
    half = faster_model(model, plan_of(model), WHOLE, 250)  # half of it is done already
    assert "about 2 h 30 min on the CPU" in half


def test_nothing_is_named_where_it_would_not_pay(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choices, "estimate_seconds", lambda network, plan: 3600.0)
    plan, faster = plan_of(model), load_model(FASTER_MODEL)
    assert faster_model(model, plan, WHOLE, 500) == ""  # not faster on this machine
    monkeypatch.setattr(choices, "estimate_seconds", lambda network, plan: 3600.0 * network.units)
    assert faster_model(model, plan, WHOLE, 500) != ""
    assert faster_model(faster, plan_of(faster), WHOLE, 500) == ""
    assert faster_model(model, plan_of(model, edge=100), WHOLE, 500) == ""
    on_gpu = dataclasses.replace(plan, device="cuda:0")
    assert faster_model(model, on_gpu, WHOLE, 500) == ""
    fewer = DenoiseSettings(device="cpu", units=2)
    assert faster_model(model, plan_of(model, fewer), fewer, 500) == ""


def test_choices_come_with_their_reasons(model: Model) -> None:
    plan = plan_of(model, edge=200)
    free = chosen(model, plan, DenoiseSettings())
    assert free.startswith("Using fibsem-medulla (the default) on cpu (")
    assert "; no GPU was found) in " in free
    asked = DenoiseSettings(device="cpu", precision="fp32")
    bound = chosen(model, plan_of(model, asked, edge=200), asked)
    assert "found" not in bound and " in fp32, tiles of 160 px" in bound
    away = chosen(model, plan, DenoiseSettings(), "2 workers (cpu, cpu)")
    assert " on 2 workers (cpu, cpu) in " in away


def test_a_quicker_precision_that_waits_for_numba_is_named(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True, raising=False)
    monkeypatch.setattr(device, "find_spec", lambda name: None)
    told = chosen(model, plan_of(model, edge=200), DenoiseSettings())
    assert "in fp32 (exact; python -m pip install numba makes 8-bit images" in told
    deep = make_plan((5, 200, 200), np.uint16, model.network, WHOLE, (0, 65535))
    assert "in fp32 (exact), tiles" in chosen(model, deep, DenoiseSettings())
    asked = DenoiseSettings(device="cpu", precision="fp32")
    assert "numba" not in chosen(model, plan_of(model, asked, edge=200), asked)
    assert "numba" not in chosen(model, plan_of(model, edge=200), DenoiseSettings(), "2 workers")
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False, raising=False)
    assert "numba" not in chosen(model, plan_of(model, edge=200), DenoiseSettings())


def test_a_run_says_what_it_chose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = save_model(tmp_path / "tiny.safetensors", NRRN(1, 4), {})
    tifffile.imwrite(tmp_path / "in.tif", np.eye(30, dtype=np.uint8) * 100)
    assert main(["denoise", str(tmp_path / "in.tif"), "-m", str(model.path)]) == 0
    assert "Using tiny on " in " ".join(capsys.readouterr().err.split())
