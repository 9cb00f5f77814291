"""The synthetic noise has the mean and variance of its definition, and a seed decides it."""

from __future__ import annotations

import numpy as np
import pytest

from nrrn_fiji.noise import add_noise, estimate_sigma, noise_variance


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


@pytest.mark.parametrize("sigma", [1, 2, 5, 20])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_the_noise_level_of_flat_and_smooth_areas(sigma, dtype):
    rows, columns = np.mgrid[:300, :200]
    for clean in (np.full((300, 200), 120.0), 90 + 0.1 * rows + 0.2 * columns):
        noisy = clean + sigma * np.random.default_rng(0).standard_normal(clean.shape)
        expected = sigma if dtype == np.float32 else np.sqrt(sigma**2 + 1 / 12)  # of rounding
        noisy = noisy if dtype == np.float32 else np.clip(np.rint(noisy), 0, 255)
        assert estimate_sigma(noisy.astype(dtype)) == pytest.approx(expected, rel=0.04)


def test_the_noise_level_hardly_sees_edges_and_leaves_out_what_is_not_finite():
    clean = np.full((300, 300), 60.0)
    clean[:, ::30] = 200  # lines, which a standard deviation would take for noise
    noisy = clean + 10 * np.random.default_rng(0).standard_normal(clean.shape)
    assert noisy.std() > 25
    assert estimate_sigma(noisy) == pytest.approx(10, rel=0.25)
    noisy = 10 * np.random.default_rng(0).standard_normal(clean.shape)
    noisy[100:200], noisy[20, 30] = np.nan, np.inf
    assert estimate_sigma(noisy) == pytest.approx(10, rel=0.04)


def test_no_noise_and_too_little_to_tell():
    assert estimate_sigma(np.full((9, 9), 7, np.uint16)) == 0
    with pytest.raises(ValueError, match=r"shape \(2, 9\).* 3 × 3"):
        estimate_sigma(np.zeros((2, 9)))
    with pytest.raises(ValueError, match="no 3 × 3 pixels that are all finite"):
        estimate_sigma(np.full((9, 9), np.nan))
