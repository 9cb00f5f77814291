"""Noise measured on the image itself, against noise that is known."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from nrrn_fiji.intensity import ArraySource
from nrrn_fiji.noise_statistics import (
    fit_noise,
    flat_places,
    noise_correlation,
    noise_level,
    sampled_slices,
)


def cells(shape=(12, 256, 256), seed=0):
    """Flat regions of many brightnesses with sharp outlines that change slowly along z."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=shape), (6, 30, 30), mode="wrap")
    field /= field.std()
    image = 60 + 25 * np.round((field + 2.5) * 1.2)
    outlines = np.abs((field + 2.5) * 1.2 % 1 - 0.5) < 0.04
    return np.where(outlines, 20.0, image)


def white(shape, sigma=1.0, seed=1):
    return np.random.default_rng(seed).normal(0, sigma, shape)


def kernel_correlation(sigma, lag):
    """Correlation of white noise after a Gaussian filter, from the filter's own weights."""
    line = np.zeros(65)
    line[32] = 1
    weights = ndimage.gaussian_filter1d(line, sigma)
    return float((weights[lag:] * weights[:-lag]).sum() / (weights**2).sum())


def test_white_noise_is_independent_from_pixel_to_pixel() -> None:
    found = noise_correlation(cells() + white((12, 256, 256), 12))
    for lags in (found.x, found.y, found.z):
        assert lags is not None
        np.testing.assert_allclose(lags, 0, atol=0.04)
    assert found.diagonal == pytest.approx(0, abs=0.04)
    assert found.sigma == pytest.approx(12, rel=0.05)
    assert found.patches >= 48


def test_filtered_noise_has_the_correlation_of_its_filter() -> None:
    sigmas = (0.45, 0.5, 0.65)  # z, y, x
    noise = ndimage.gaussian_filter(white((16, 256, 256)), sigmas, mode="wrap")
    noise *= 8 / noise.std()
    found = noise_correlation(cells((16, 256, 256)) + noise)
    assert found.z is not None
    for lags, sigma in ((found.z, sigmas[0]), (found.y, sigmas[1]), (found.x, sigmas[2])):
        expected = [kernel_correlation(sigma, lag) for lag in (1, 2, 3)]
        np.testing.assert_allclose(lags, expected, atol=0.07)
    both = kernel_correlation(sigmas[1], 1) * kernel_correlation(sigmas[2], 1)
    assert found.diagonal == pytest.approx(both, abs=0.05)
    assert found.strongest == found.x[0]
    assert found.sigma == pytest.approx(8, rel=0.08)


def test_line_noise_shows_along_x_alone() -> None:
    lines = white((8, 192, 1), 6) + white((8, 192, 192), 6, seed=2)
    found = noise_correlation(100 + lines)
    # Half of the variance is the same along each line.
    assert found.x[0] == pytest.approx(0.5, abs=0.12)
    assert found.y[0] == pytest.approx(0, abs=0.06)


def test_a_single_slice_has_no_z_and_a_thin_stack_not_all_lags() -> None:
    image = 100 + white((2, 128, 128), 5)
    assert noise_correlation(image[0]).z is None
    thin = noise_correlation(image).z
    assert thin is not None
    assert np.isfinite(thin).tolist() == [True, False, False]


@pytest.mark.parametrize("gain", [0.0, 0.4, 2.0])
def test_the_fit_finds_gain_and_read_noise(gain: float) -> None:
    clean = cells((10, 320, 320))
    rng = np.random.default_rng(3)
    noisy = clean + rng.normal(0, 7, clean.shape)
    if gain:
        noisy += gain * rng.poisson(clean / gain) - clean
    found = fit_noise(noisy)
    assert found.gain == pytest.approx(gain, abs=0.06 + 0.1 * gain)
    # At a mean of 150 the variance is that of both kinds together.
    assert found.sigma_at(150) == pytest.approx(np.sqrt(gain * 150 + 49), rel=0.05)
    assert found.rises == (gain > 0)
    if not gain:
        assert found.read_noise == pytest.approx(7, rel=0.12)


def test_a_dark_level_is_the_offset_where_the_noise_would_vanish() -> None:
    clean = cells((10, 320, 320))
    noisy = 500 + np.random.default_rng(4).poisson(clean * 2) / 2
    found = fit_noise(noisy)
    assert found.gain == pytest.approx(0.5, rel=0.1)
    assert found.offset == pytest.approx(500, abs=15)
    assert found.read_noise is None


def test_correlated_noise_has_its_full_strength_in_the_fit() -> None:
    """Where differences of neighbouring pixels see too little of it."""
    noise = ndimage.gaussian_filter(white((8, 256, 256)), (0, 0.8, 0.8), mode="wrap")
    noise *= 10 / noise.std()
    image = cells((8, 256, 256)) + noise
    assert fit_noise(image).sigma == pytest.approx(10, rel=0.12)
    assert noise_level(image[0]) < 6


def test_clipped_and_padded_places_are_not_taken_for_flat() -> None:
    image = cells((6, 256, 256)) + white((6, 256, 256), 9)
    image[:, :80] = 255  # saturated: no noise at all
    image[:, 200:] = 0  # padding of registration
    found = noise_correlation(np.clip(image, 0, 255).astype(np.uint8))
    assert found.sigma == pytest.approx(9, rel=0.08)
    image[:, :, :20] = np.nan
    assert np.isfinite(noise_correlation(image).sigma)


def test_real_data_have_the_correlation_that_is_known(example: np.ndarray) -> None:
    """Of this volume: 0.45 along x, 0.24 along y and z, where it is flattest (larger volume)."""
    found = noise_correlation(example)
    assert found.z is not None
    assert found.x[0] == pytest.approx(0.5, abs=0.15)
    assert found.x[0] > found.y[0] and found.x[0] > found.z[0]
    assert 0.15 < found.y[0] < 0.6
    assert 0.1 < found.z[0] < 0.6


@pytest.fixture
def example() -> np.ndarray:
    import tifffile

    from nrrn_fiji.resources import data_folder

    stack: np.ndarray = tifffile.imread(data_folder("examples") / "fibsem_medulla.tif")
    return stack


class Counting(ArraySource):
    """Counts the slices that are read, and never gives many at a time."""

    def __init__(self, array: np.ndarray) -> None:
        super().__init__(array)
        self.slices = 0

    def read(self, start: int, stop: int) -> np.ndarray:
        assert stop - start <= 4
        self.slices += stop - start
        return super().read(start, stop)


def test_of_a_deep_stack_a_sample_is_read() -> None:
    source = Counting(np.broadcast_to(100 + white((64, 64), 4), (5000, 64, 64)))
    noise_correlation(source)
    assert source.slices == 32


def test_slices_are_spread_and_do_not_overlap() -> None:
    assert sampled_slices(10, 3, 2) == [range(0, 2), range(4, 6), range(8, 10)]
    assert sampled_slices(1, 8, 4) == [range(0, 1)]
    for depth in range(1, 40):
        parts = sampled_slices(depth, 8, 4)
        assert all(a.stop <= b.start for a, b in pairwise(parts))
        assert parts[-1].stop <= depth


def test_flat_places_avoid_edges() -> None:
    image = np.full((64, 64), 50.0) + white((64, 64), 1)
    image[:32, 24:] += 80
    places = flat_places(image, 0.5)
    assert not places[:2, 1].any()  # an edge runs through these
    assert places.sum() == 8


@pytest.mark.parametrize(
    ("stack", "words"),
    [
        (np.zeros((2, 20, 60)), "20 × 60 pixels.*at least four of 16 × 16"),
        (np.full((2, 64, 64), 7.0), "no patch of 16 × 16 pixels in which grey values vary"),
        (np.full((2, 64, 64), np.nan), "no noise to measure"),
        (np.zeros((2, 2, 64, 64)), "choose one channel and time point"),
    ],
)
def test_misuse_gets_one_sentence(stack: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        noise_correlation(stack)
