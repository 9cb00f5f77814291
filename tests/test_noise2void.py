"""Noise2Void: what we do around CAREamics, and, where it is installed, that it denoises."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nrrn_fiji.baselines import noise2void
from nrrn_fiji.baselines.noise2void import careamics_is_installed, train_noise2void
from nrrn_fiji.progress import Cancelled, NoProgress

STACK = (0.5 + 0.2 * np.random.default_rng(0).standard_normal((4, 70, 66))).astype(np.float32)


class Engine:
    """Stands in for CAREamics: its network learns to halve what it is given."""

    trainings = 0

    def __init__(self) -> None:
        self.model = torch.nn.Conv2d(1, 1, 1)

    def train(self, train_data: np.ndarray) -> None:
        Engine.trainings += 1
        assert abs(train_data.mean()) < 1e-4 and abs(train_data.std() - 1) < 1e-3
        with torch.no_grad():
            self.model.weight.fill_(0.5)
            assert self.model.bias is not None
            self.model.bias.zero_()


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[Engine]:
    Engine.trainings = 0
    monkeypatch.setattr(noise2void, "careamics_is_installed", lambda: True)
    monkeypatch.setattr(noise2void, "careamics", lambda *_: (Engine(), SimpleNamespace(steps=7)))
    return Engine


def test_slices_are_normalised_like_the_stack_and_keep_their_size(stand_in, tmp_path):
    candidate = train_noise2void(STACK, tmp_path, steps=7)
    result = candidate.denoise(STACK[:3])
    assert result.dtype == np.float32
    # Half the distance from the mean of the stack, of the middle slice alone.
    np.testing.assert_allclose(result, 0.5 * (STACK[1] + STACK.mean()), atol=1e-5)
    assert candidate.images == 1 and candidate.setting is not None
    assert candidate.setting["steps"] == 7


def test_what_was_trained_is_read_again_and_nothing_else(stand_in, tmp_path):
    first = train_noise2void(STACK, tmp_path, steps=7)
    again = train_noise2void(STACK, tmp_path, steps=7)
    assert stand_in.trainings == 1
    np.testing.assert_array_equal(first.denoise(STACK[:3]), again.denoise(STACK[:3]))
    for more in ({"steps": 8}, {"steps": 7, "seed": 1}, {"steps": 7, "batch": 8}):
        train_noise2void(STACK, tmp_path, **more)
    train_noise2void(STACK[:, :, ::-1], tmp_path, steps=7)
    assert stand_in.trainings == 5
    # CAREamics' own files are gone.
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors"}


def test_a_damaged_file_is_trained_again(stand_in, tmp_path):
    train_noise2void(STACK, tmp_path, steps=7)
    [path] = tmp_path.iterdir()
    path.write_bytes(b"nonsense")
    train_noise2void(STACK, tmp_path, steps=7)
    assert stand_in.trainings == 2


def test_a_stopped_training_leaves_nothing(stand_in, tmp_path):
    class Stopped(NoProgress):
        cancelled = True

    with pytest.raises(Cancelled):
        train_noise2void(STACK, tmp_path, steps=7, progress=Stopped())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "exactly one of them"),
        ({"steps": 5, "minutes": 1}, "exactly one of them"),
        ({"steps": 5, "crop": 68}, r"shape \(4, 70, 66\)"),
    ],
)
def test_misuse_gets_one_sentence(more, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        train_noise2void(STACK, tmp_path, **more)


def test_careamics_that_is_not_installed_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(noise2void, "careamics_is_installed", lambda: False)
    with pytest.raises(ImportError, match=r"nrrn-fiji\[careamics\]"):
        train_noise2void(STACK, tmp_path, steps=5)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # its libraries warn of their own
def test_careamics_itself_trains_and_is_read_again(tmp_path: Path) -> None:
    if not careamics_is_installed():
        pytest.skip("NOISE2VOID IS NOT TESTED: the extra careamics is not installed")
    y, x = np.mgrid[:96, :96]
    clean = np.float32(0.5) + 0.3 * np.sin(x / 6) * np.cos(y / 7)
    noise = 0.15 * np.random.default_rng(0).standard_normal((8, 96, 96))
    noisy = (clean + noise).astype(np.float32)
    candidate = train_noise2void(noisy, tmp_path, steps=60, batch=8)
    result = candidate.denoise(noisy[:3])
    assert np.mean((result - clean) ** 2) < 0.5 * np.mean((noisy[1] - clean) ** 2)
    again = train_noise2void(noisy, tmp_path, steps=60, batch=8)
    np.testing.assert_allclose(again.denoise(noisy[:3]), result, atol=1e-6)
