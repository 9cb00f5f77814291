"""Where a denoised stack lies beside its noisy one, on images that were moved on purpose."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from nrrn_fiji.quality.matching import Match, correlation_surface, match
from nrrn_fiji.resolution import spectrum


def stack(seed: int = 0, depth: int = 9) -> np.ndarray:
    """Structure that changes from slice to slice."""
    noise = np.random.default_rng(seed).normal(size=(depth, 64, 80))
    found = ndimage.gaussian_filter(noise, (1.5, 3, 3), mode="wrap")
    return np.asarray(found / found.std())


def found_in(noisy: np.ndarray, denoised: np.ndarray) -> Match:
    pairs = (({d: noisy[z + d] for d in (-1, 0, 1)}, denoised[z]) for z in range(1, len(noisy) - 1))
    return match(pairs, expected=0.8)


def test_in_place() -> None:
    clean = stack()
    noisy = clean + np.random.default_rng(1).normal(size=clean.shape)
    found = found_in(noisy, clean)
    assert found.offset == (0, 0, 0)
    # Structure and noise are equally strong: 1 / sqrt(2).
    assert found.correlation == pytest.approx(0.707, abs=0.05)
    assert found.share == pytest.approx(found.correlation / 0.8)


@pytest.mark.parametrize("offset", [(0, 4, -7), (1, 0, 0), (-1, 2, 0), (0, 0, 1)])
def test_moved(offset: tuple[int, int, int]) -> None:
    clean = stack()
    noisy = clean + np.random.default_rng(1).normal(size=clean.shape)
    assert found_in(noisy, np.roll(clean, offset, (0, 1, 2))).offset == offset


def test_a_damaged_slice_does_not_hide_that_the_stack_is_moved() -> None:
    clean = stack(depth=14)
    noisy = clean + np.random.default_rng(1).normal(size=clean.shape)
    moved = np.roll(clean, 1, axis=0)
    moved[3] = clean[3]
    assert found_in(noisy, moved).offset == (1, 0, 0)


def test_where_all_slices_are_alike_chance_moves_nothing() -> None:
    """The same slice nine times: another one may be the best by chance, but not for certain."""
    clean = np.repeat(stack()[:1], 9, axis=0)
    for seed in range(12):
        noisy = clean + np.random.default_rng(seed).normal(size=clean.shape)
        assert found_in(noisy, clean).offset == (0, 0, 0)
        assert found_in(noisy, np.roll(clean, 3, axis=2)).offset == (0, 0, 3)


def test_unrelated_and_constant() -> None:
    assert abs(found_in(stack(), stack(5)).correlation) < 0.2
    constant = found_in(stack(), np.full((9, 64, 80), 7.0))
    assert constant.correlation == pytest.approx(0)
    assert constant.offset == (0, 0, 0)
    assert found_in(stack(), -stack()).correlation == pytest.approx(-1)


def test_the_surface_is_pearsons_correlation_where_nothing_is_moved() -> None:
    one, other = stack()[:2]
    surface = correlation_surface(spectrum(one), spectrum(other), one.shape)
    windowed = [np.fft.irfft2(spectrum(image), s=image.shape) for image in (one, other)]
    expected = (windowed[0] * windowed[1]).sum() / np.sqrt(
        (windowed[0] ** 2).sum() * (windowed[1] ** 2).sum()
    )
    assert surface[0, 0] == pytest.approx(expected)
    assert surface.max() <= 1 + 1e-9
