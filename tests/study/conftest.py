"""Small studies: of tissue that is made, of tiny models, with one filter of two settings."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from small_studies import TINY, tissue

from nrrn_fiji.baselines.filters import filter_named
from nrrn_fiji.models import save_model
from nrrn_fiji.network import NRRN
from nrrn_fiji.study import candidates
from nrrn_fiji.study.context import Study
from nrrn_fiji.triplets import TrainingStack


@pytest.fixture(autouse=True)
def few_settings(monkeypatch):
    """One filter with two settings, so that tuning takes no time."""
    kind = filter_named("gaussian")
    short = dataclasses.replace(kind, grid=lambda noise: kind.grid(noise)[8:12:3])
    monkeypatch.setattr(candidates, "FILTERS", (short,))
    monkeypatch.setattr(candidates, "FILTERS_3D", ())
    monkeypatch.setattr(candidates, "bm3d_is_installed", lambda: False)
    monkeypatch.setattr("nrrn_fiji.training.VALIDATION_CROPS", 2)


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(3)
    return save_model(tmp_path / "tiny.safetensors", NRRN(units=2, maps=4), {})


@pytest.fixture
def idle(tmp_path):
    """A model that changes nothing: without weights every noise estimate is 0."""
    network = NRRN(units=2, maps=4)
    torch.nn.init.zeros_(network.W0.bias)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    return save_model(tmp_path / "idle.safetensors", network, {})


@pytest.fixture
def make(tmp_path):
    """Makes a small study of a model."""

    def study(model, **options) -> Study:
        given = {
            "models": (model,),
            "budget": TINY,
            "out": tmp_path / "out",
            "slices": (3, 6),
            "tuning_slices": (4,),
            "read_training": lambda: [TrainingStack(tissue(seed=1), (0.0, 255.0), "one", "one")],
        }
        return Study(tissue(), tissue(seed=1), **{**given, **options})

    return study
