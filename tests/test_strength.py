"""Strength blends the result with the source, in what is left, what is removed, and every unit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

import nrrn_fiji as nrrn
from nrrn_fiji.cli import main
from nrrn_fiji.models import Model, load_model, save_model
from nrrn_fiji.network import NRRN

DTYPES = ("uint8", "int8", "uint16", "int16", "float32", "float64")


@pytest.fixture
def model(tmp_path: Path) -> Model:
    torch.manual_seed(3)
    return save_model(tmp_path / "tiny.safetensors", NRRN(units=2, maps=4), {})


def stack_of(dtype: str) -> np.ndarray:
    """A noisy stack in the middle of a type's range, where nothing is saturated."""
    values = np.random.default_rng(0).random((4, 24, 28)) * 60 + 20
    return values.astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_strength_zero_returns_the_input(model: Model, dtype: str) -> None:
    stack = stack_of(dtype)
    made = nrrn.denoise(stack, model, strength=0, return_noise=True, return_units=True)
    assert made.image.dtype == stack.dtype
    np.testing.assert_array_equal(made.image, stack)
    assert not made.noise.any()
    for estimate in made.units:
        np.testing.assert_array_equal(estimate, stack.astype(np.float32))


@pytest.mark.parametrize("dtype", DTYPES)
def test_half_strength_is_the_mean_of_input_and_result(model: Model, dtype: str) -> None:
    stack = stack_of(dtype)
    given: dict[str, Any] = {"return_noise": True, "return_units": True, "intensity": (0, 255)}
    whole = nrrn.denoise(stack, model, **given)
    half = nrrn.denoise(stack, model, strength=0.5, **given)
    assert np.abs(whole.image.astype(float) - stack).max() > 2  # there is something to blend
    # The last unit is the result before it is rounded to the type.
    mean = (stack.astype(float) + whole.units[-1]) / 2
    if np.dtype(dtype).kind == "f":
        np.testing.assert_allclose(half.image, mean, rtol=0, atol=2e-5)
    else:
        rounding = np.abs(half.image.astype(float) - mean)
        assert rounding.max() <= 0.5 + 1e-4
    np.testing.assert_allclose(half.units, (stack + whole.units) / 2, rtol=0, atol=2e-5)


def test_noise_is_what_was_really_taken_away(model: Model) -> None:
    stack = stack_of("uint8")
    made = nrrn.denoise(stack, model, strength=0.3, return_noise=True)
    np.testing.assert_array_equal(made.noise, stack.astype(np.float32) - made.image)


def test_strength_blends_where_the_type_ends(model: Model) -> None:
    """Only the sum is held to the type's range, not the change."""
    stack = np.random.default_rng(1).choice(np.array([0, 255], np.uint8), (3, 20, 20))
    change = nrrn.denoise(stack.astype(np.float32), model, intensity=(0, 255)) - stack
    half = nrrn.denoise(stack, model, strength=0.5)
    np.testing.assert_allclose(half, np.clip(stack + change / 2, 0, 255), rtol=0, atol=0.5 + 1e-3)


@pytest.mark.parametrize("strength", [-0.1, 1.1])
def test_strength_beyond_its_range_is_refused(model: Model, strength: float) -> None:
    with pytest.raises(ValueError, match=f"strength is {strength}, but it must be at"):
        nrrn.denoise(stack_of("uint8"), model, strength=strength)


def test_strength_is_an_option_and_is_recorded(tmp_path: Path, model: Model) -> None:
    stack = stack_of("uint8")
    tifffile.imwrite(tmp_path / "in.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    words = ["denoise", str(tmp_path / "in.tif"), str(tmp_path / "out.tif"), "-q"]
    assert main([*words, "-m", str(model.path), "--strength", "0.25"]) == 0
    expected = nrrn.denoise(stack, load_model(model.path), strength=0.25)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), expected)
    with nrrn.open_volume(tmp_path / "out.tif") as volume:
        info = str(volume.metadata)
    assert '"strength": 0.25' in info
