"""The synthetic noise has the mean and variance of its definition, and a seed decides it."""

from __future__ import annotations

import numpy as np
import pytest

from nrrn_fiji.noise import add_noise, noise_variance


def flat(grey: float) -> np.ndarray:
    return np.full((400, 500), grey, np.float32)


@pytest.mark.parametrize("grey", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(
    "level", [{"peak": 1}, {"peak": 30}, {"sigma": 10}, {"sigma": 75}, {"peak": 8, "sigma": 25}]
)
def test_mean_and_variance(grey, level):
    noise = add_noise(flat(grey), **level, rng=np.random.default_rng(0)) - grey
    variance = grey / level.get("peak", np.inf) + (level.get("sigma", 0) / 255) ** 2
    # 200 000 pixels: five standard errors of the mean; the variance within 5 %.
    assert abs(noise.mean()) < 5 * np.sqrt(variance / noise.size)
    assert noise.var() == pytest.approx(variance, rel=0.05)
    assert noise_variance(grey, **level) == pytest.approx(variance)


def test_poisson_values_are_photon_counts():
    photons = add_noise(flat(0.5), peak=4, rng=np.random.default_rng(1)) * 4
    np.testing.assert_array_equal(photons, np.round(photons))
    # P(no photon) of a Poisson distribution with mean 2.
    assert np.mean(photons == 0) == pytest.approx(np.exp(-2), abs=0.004)


def test_noise_is_independent_from_pixel_to_pixel():
    noise = add_noise(flat(0.5), sigma=25, peak=20, rng=np.random.default_rng(2)) - 0.5
    for axis in (0, 1):
        along = np.moveaxis(noise, axis, 0)
        assert abs(np.corrcoef(along[1:].ravel(), along[:-1].ravel())[0, 1]) < 0.012


def test_clipping_is_off_by_default_and_limits_to_the_range():
    rng = np.random.default_rng(3)
    free = add_noise(flat(0.9), sigma=75, rng=rng)
    assert free.min() < 0 and free.max() > 1
    clipped = add_noise(flat(0.9), sigma=75, rng=rng, clip=True)
    assert clipped.min() >= 0 and clipped.max() == 1


def test_the_papers_input_at_sigma_75():
    # nrrn.md: 10.6 dB unclipped; the level does not depend on the image.
    error = add_noise(flat(0.5), sigma=75, rng=np.random.default_rng(4)) - 0.5
    assert -10 * np.log10(np.mean(error**2)) == pytest.approx(10.63, abs=0.05)


def test_the_seed_decides_and_the_input_stays():
    image = flat(0.5)
    first, again, other = (
        add_noise(image, peak=8, sigma=10, rng=np.random.default_rng(seed)) for seed in (7, 7, 8)
    )
    np.testing.assert_array_equal(first, again)
    assert np.mean(first != other) > 0.9
    assert (image == 0.5).all() and first.dtype == np.float32


def test_without_a_level_nothing_changes_but_the_array_is_new():
    image = np.array([[0.2, 0.7]], np.float32)
    same = add_noise(image, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(same, image)
    assert not np.shares_memory(same, image)


def test_negative_grey_values_count_as_dark():
    dark = add_noise(np.full((50, 50), -0.5), peak=4, rng=np.random.default_rng(0))
    assert (dark == 0).all()


@pytest.mark.parametrize("level", [{"peak": 0}, {"peak": -1}, {"sigma": -1}, {"peak": np.nan}])
def test_impossible_levels_get_one_sentence(level):
    [name] = level
    with pytest.raises(ValueError, match=f"{name} is .*must be"):
        add_noise(flat(0.5), **level, rng=np.random.default_rng(0))
