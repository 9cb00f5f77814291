"""How long a training takes, as its dialog says before anything is trained."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from nrrn_fiji.fiji import training
from nrrn_fiji.settings import TrainSettings


def test_the_time_of_a_step_grows_with_the_pixels_of_its_crops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "seconds_for", lambda settings, edge, crops: 0.01)
    small = {"objective": "masked", "units": 1, "maps": 2, "device": "cpu", "precision": "fp32"}
    # Two crops of 64 px are timed.
    assert training.seconds_per_step(TrainSettings(crop=64, batch=2, **small)) == 0.01
    assert training.seconds_per_step(TrainSettings(crop=64, batch=8, **small)) == 0.04
    assert training.seconds_per_step(TrainSettings(crop=256, batch=16, **small)) == 1.28


def test_the_estimate_is_that_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from nrrn_fiji.jobs.train_setup import with_defaults
    from nrrn_fiji.network import NRRN
    from nrrn_fiji.training import objective_value
    from nrrn_fiji.triplets import Batch

    settings = with_defaults(TrainSettings(units=2, maps=16, crop=64, batch=4, device="cpu"))
    network = NRRN(units=2, maps=16).to(memory_format=torch.channels_last)
    part = torch.rand(4, 1, 64, 64).numpy()
    batch = Batch(part, part, part, part, torch.ones(4, 1, 1, 1).numpy())
    # Another program may take the processor meanwhile: the work of this one alone counts.
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=time.process_time))
    estimates, times = [], []
    for _ in range(4):
        training.seconds_for.cache_clear()
        estimates.append(training.seconds_per_step(settings))
        begun = time.process_time()
        objective_value(network, batch, settings).backward()
        times.append(time.process_time() - begun)
    assert min(times) / 4 < min(estimates) < 4 * min(times)


def test_an_estimate_has_two_digits() -> None:
    assert [training.two_digits(n) for n in (7, 42, 1234, 98765)] == [7, 42, 1200, 99000]
