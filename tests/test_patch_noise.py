"""Noise of patches that were chosen for being flat, against the filter that made the noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from nrrn_fiji.patch_noise import autocorrelation, noise_of_patches


def chosen_patches(across: tuple[int, ...], share: float = 0.02, seed: int = 0) -> np.ndarray:
    """The flattest patches of white noise that was filtered by (½, 1, ½) along some axes."""
    noise = np.random.default_rng(seed).normal(0, 5, (6000, 16 + 2, 16 + 2))
    for axis in across:
        noise = ndimage.convolve1d(noise, [0.5, 1, 0.5], axis=axis) / np.sqrt(1.5)
    noise = noise[:, 1:-1, 1:-1]
    noise -= noise.mean(axis=(1, 2), keepdims=True)
    between = noise.reshape(-1, 4, 4, 4, 4).mean(axis=(2, 4)).var(axis=(1, 2))
    return np.asarray(noise[np.argsort(between)[: round(share * len(noise))]])


@pytest.mark.parametrize("across", [(), (2,), (1, 2)])
def test_the_choice_of_flat_patches_does_not_show(across: tuple[int, ...]) -> None:
    found = noise_of_patches(chosen_patches(across))
    # Of the filter (½, 1, ½): 1 / 1.5 at lag 1, ¼ / 1.5 at lag 2, nothing at lag 3.
    filtered, none = np.array([2 / 3, 1 / 6, 0]), np.zeros(3)
    np.testing.assert_allclose(found.x, filtered if 2 in across else none, atol=0.04)
    np.testing.assert_allclose(found.y, filtered if 1 in across else none, atol=0.04)
    assert found.diagonal == pytest.approx(4 / 9 if len(across) == 2 else 0, abs=0.03)
    assert found.variance == pytest.approx(25, rel=0.05)


def test_without_the_correction_the_choice_would_show() -> None:
    """By more than the tolerance of the test above."""
    patches = chosen_patches((1, 2))
    assert autocorrelation(patches, 2, 1) < 2 / 3 - 0.04
    assert autocorrelation(patches, 2, 3) < -0.04


def test_patches_that_were_not_chosen_are_right_too() -> None:
    patches = chosen_patches((1, 2), share=1)
    found = noise_of_patches(patches)
    np.testing.assert_allclose(found.x, [2 / 3, 1 / 6, 0], atol=0.01)
    means = patches.reshape(-1, 4, 4, 4, 4).mean(axis=(2, 4))
    assert found.between == pytest.approx(means.var(axis=(1, 2)).mean() / 25, rel=0.03)


def test_autocorrelation_is_that_of_numpy() -> None:
    line = np.random.default_rng(1).normal(size=400)
    line -= line.mean()
    expected = np.mean(line[2:] * line[:-2]) / np.mean(line**2)
    assert autocorrelation(line[None], 1, 2) == pytest.approx(expected)
    assert autocorrelation(np.zeros((3, 3)), 0, 1) == 0
