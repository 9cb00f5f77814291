"""Stripes and seams that were put there on purpose, and images that have none."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy import ndimage

from nrrn_fiji.quality.artefacts import Lines, line_power, lines


def specimen(depth: int = 10, edge: int = 128) -> np.ndarray:
    """Structure with a standard deviation of 30 grey levels."""
    noise = np.random.default_rng(0).normal(size=(depth, edge, edge))
    found = ndimage.gaussian_filter(noise, (2, 3, 3), mode="wrap")
    return np.asarray(128 + 30 * found / found.std())


def noise(sigma: float = 15, depth: int = 10, edge: int = 128) -> np.ndarray:
    return np.random.default_rng(1).normal(0, sigma, (depth, edge, edge))


def of(noisy: np.ndarray, denoised: np.ndarray) -> Lines:
    pairs: Iterator[tuple[np.ndarray, np.ndarray]] = zip(noisy, denoised, strict=True)
    found = lines(pairs)
    assert found is not None
    return found


@pytest.mark.parametrize("sigma", [0, 15, 60])
def test_noise_and_blur_add_nothing(sigma: float) -> None:
    clean = specimen()
    noisy = clean + noise(sigma)
    results = (clean, (clean + noisy) / 2, ndimage.gaussian_filter(noisy, (0, 2, 2)), noisy)
    for result in results:
        found = of(noisy, result)
        assert max(found.added) < 0.3
        assert found.seams == ((), ())


@pytest.mark.parametrize("axis", [0, 1])
def test_stripes_have_their_size(axis: int) -> None:
    """Independent lines of sd 3; what is taken away as coarse is a weighted mean around each."""
    clean = specimen()
    shape = (10, 128, 1) if axis == 0 else (10, 1, 128)
    stripes = np.random.default_rng(2).normal(0, 3, shape)
    found = of(clean + noise(), clean + stripes)
    weight = np.exp(-(np.arange(-16, 17) ** 2) / (2 * 4.0**2))
    weight /= weight.sum()
    left = np.sqrt(1 - 2 * weight[16] + (weight**2).sum())
    expected = np.sqrt((3 * left) ** 2 + of(clean, clean).before[axis] ** 2)
    assert found.after[axis] == pytest.approx(expected, rel=0.1)
    assert 2.0 < found.added[axis] < 3.0
    assert found.added[1 - axis] < 0.3


def test_stripes_that_were_removed_are_not_added() -> None:
    clean = specimen()
    found = of(clean + noise() + np.random.default_rng(2).normal(0, 3, (10, 128, 1)), clean)
    assert found.before[0] > 2.5
    assert found.after == of(clean, clean).before
    assert found.added == (0, 0)


def test_the_power_of_a_stripe() -> None:
    """One line of 1: its own share after a Gaussian mean of sigma 4 is 1 - 1 / (4 sqrt(2 pi))."""
    image = np.zeros((64, 64))
    image[:, 30] = 1
    expected = (1 - 1 / (4 * np.sqrt(2 * np.pi))) ** 2
    assert line_power(image, 1)[30] == pytest.approx(expected, rel=1e-3)
    np.testing.assert_allclose(line_power(image, 0), 0, atol=1e-12)


def test_a_single_slice_is_not_accused_by_chance() -> None:
    for seed in range(10):
        drawn = np.random.default_rng(seed).normal(0, 50, (1, 128, 128))
        clean = specimen(1)
        assert max(of(clean + drawn, clean).added) < 1.0
    stripes = np.random.default_rng(2).normal(0, 4, (1, 128, 1))
    assert of(clean + drawn / 5, clean + stripes).added[0] > 2


def test_tiles_of_other_brightness() -> None:
    clean = specimen()
    offset = np.zeros((128, 128))
    offset[:, 64:], offset[40:, :64] = 5, -4
    found = of(clean + noise(), clean + offset)
    assert found.seams[1] == (64,)
    assert set(found.seams[0]) <= {40}


def test_tiles_that_are_rougher_at_their_borders() -> None:
    clean = specimen()
    rough = clean.copy()
    rough[:, 63:65] += np.random.default_rng(3).normal(0, 20, (10, 2, 128))
    found = of(clean + noise(), rough)
    assert len(found.seams[0]) == 1 and abs(found.seams[0][0] - 64) <= 1
    assert found.seams[1] == ()


def test_the_seam_of_a_mosaic_is_no_fault_of_the_denoiser() -> None:
    clean = specimen()
    clean[:, :, 50:] += 20
    assert of(clean + noise(), clean).seams == ((), ())


def test_places_count_from_the_whole_slice() -> None:
    clean = specimen(4)
    noisy = clean + noise(depth=4)
    clean[:, :, 70:] += 9
    found = lines(zip(noisy, clean, strict=True), origin=(100, 1000))
    assert found is not None and found.seams == ((), (1070,))


def test_no_slices() -> None:
    assert lines([]) is None
