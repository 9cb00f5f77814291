"""Fourier ring correlation against loops over Fourier pixels and against what noise must give."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from nrrn_fiji.resolution import (
    ONE_SEVENTH,
    RingCorrelation,
    half_bit,
    ring_correlation,
    split_correlation,
)


@pytest.fixture
def rng() -> np.random.Generator:
    """The same noise for every test, whichever tests run."""
    return np.random.default_rng(5)


def blobs(shape=(256, 256), blur=3.0, spread=30.0, seed=1):
    """Structure without detail finer than a few pixels, of a given standard deviation."""
    noise = np.random.default_rng(seed).normal(size=shape)
    image = ndimage.gaussian_filter(noise, blur, mode="wrap")
    return image * spread / image.std()


def loop_correlation(a, b):
    """The definition, one Fourier coefficient after the other."""
    fa, fb = np.fft.fft2(a), np.fft.fft2(b)
    height, width = a.shape
    edge = min(a.shape)
    sums = {}
    for v in range(height):
        for u in range(width):
            fy = (v if v < height / 2 else v - height) / height
            fx = (u if u < width / 2 else u - width) / width
            ring = round(np.hypot(fy, fx) * edge)
            if 0 < ring <= edge // 2:
                top, one, other = sums.get(ring, (0, 0, 0))
                sums[ring] = (
                    top + (fa[v, u] * fb[v, u].conjugate()).real,
                    one + abs(fa[v, u]) ** 2,
                    other + abs(fb[v, u]) ** 2,
                )
    return np.array([sums[r][0] / np.sqrt(sums[r][1] * sums[r][2]) for r in sorted(sums)])


@pytest.mark.parametrize("shape", [(40, 40), (36, 51), (47, 34)])
def test_the_curve_agrees_with_a_loop_over_the_definition(shape):
    rng = np.random.default_rng(3)
    structure = ndimage.gaussian_filter(rng.normal(size=shape), 1.5) * 8
    a, b = structure + rng.normal(size=shape), structure + rng.normal(size=shape)
    found = ring_correlation(a, b, apodise=False)
    np.testing.assert_allclose(found.correlation, loop_correlation(a, b), atol=1e-9)
    assert found.frequency[-1] == pytest.approx((min(shape) // 2) / min(shape))


def test_equal_images_agree_on_every_ring_and_noise_on_none(rng):
    a = rng.normal(size=(128, 128))
    same = ring_correlation(a, 7 * a + 100)
    np.testing.assert_allclose(same.correlation, 1, atol=1e-9)
    assert same.resolution() is None and same.half_bit is None
    assert not same.drowned
    noise = ring_correlation(a, rng.normal(size=(128, 128)))
    # Spread around 0 as n independent coefficients do.
    assert abs(noise.correlation[10:].mean()) < 0.02
    assert noise.resolution() is not None and noise.resolution() > 20


@pytest.mark.parametrize("apodise", [True, False])
def test_noise_alone_spreads_as_the_count_of_independent_coefficients_says(apodise, rng):
    many = [ring_correlation(*rng.normal(size=(2, 64, 64)), apodise=apodise) for _ in range(40)]
    spread = np.array([f.correlation * np.sqrt(2 * f.count) for f in many])[:, 5:]
    assert spread.std() == pytest.approx(1, abs=0.1)


def test_noise_alone_spreads_so_in_a_split_image_too(rng):
    many = [split_correlation(rng.normal(size=(8, 128, 128))) for _ in range(40)]
    spread = np.array([f.correlation * np.sqrt(2 * f.count) for f in many])[:, 8:]
    assert spread.std() == pytest.approx(1, abs=0.15)
    assert spread.mean() == pytest.approx(0, abs=0.06)
    assert sum(f.drowned for f in many) > 36


def test_the_curve_is_the_signal_to_noise_ratio(rng):
    """FRC = SNR / (1 + SNR) for the same structure with independent white noise."""
    shape, sigma = (256, 256), 12.0
    stack = np.stack([blobs(shape, 2.0, seed=s) for s in range(4)])
    a, b = (stack + rng.normal(0, sigma, stack.shape) for _ in range(2))
    power = np.mean([np.abs(np.fft.fft2(image)) ** 2 for image in stack], 0) / stack[0].size
    found = ring_correlation(a, b)
    f = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)[None, :])
    for low in (0.03, 0.08, 0.12, 0.16, 0.25):
        snr = power[(f >= low) & (f < low + 0.02)].mean() / sigma**2
        ring = (found.frequency >= low) & (found.frequency < low + 0.02)
        assert found.correlation[ring].mean() == pytest.approx(snr / (1 + snr), abs=0.06)


def test_a_blurred_copy_has_the_same_curve(rng):
    """A linear filter changes signal and noise alike: FRC cannot be bettered by smoothing."""
    clean = blobs(blur=2.0)
    a, b = (clean + rng.normal(0, 10, clean.shape) for _ in range(2))
    before = ring_correlation(a, b)
    after = ring_correlation(ndimage.gaussian_filter(a, 1), ndimage.gaussian_filter(b, 1))
    np.testing.assert_allclose(after.correlation[:100], before.correlation[:100], atol=0.05)


@pytest.mark.parametrize(("blur", "sigma"), [(3.0, 10.0), (3.0, 30.0), (2.5, 15.0)])
def test_splitting_one_image_finds_what_two_images_show(blur, sigma, rng):
    clean = np.stack([blobs((384, 384), blur, seed=s) for s in range(6)])
    a, b = (clean + rng.normal(0, sigma, clean.shape) for _ in range(2))
    two = ring_correlation(a, b)
    one = split_correlation(a)
    assert one.limit == 0.25
    assert one.resolution() == pytest.approx(two.resolution(), rel=0.1)
    both = (one.frequency < 0.2) & (one.frequency > 0.02)
    at = np.interp(one.frequency[both], two.frequency, two.correlation)
    smooth = ndimage.uniform_filter1d(one.correlation[both] - at, 5)
    assert np.abs(smooth).max() < 0.1


def test_splitting_needs_its_calibration(rng):
    """Without turning the phase back and unfolding, the split image looks worse than it is."""
    clean = np.stack([blobs((384, 384), 2.5, seed=s) for s in range(3)])
    a, b = (clean + rng.normal(0, 15, clean.shape) for _ in range(2))
    raw = ring_correlation(a[:, ::2, ::2], a[:, 1::2, 1::2])
    assert 2 * raw.resolution() > 1.15 * ring_correlation(a, b).resolution()


def test_correlated_noise_alone_looks_like_detail_when_one_image_is_split(rng):
    """The reason why a split denoised image proves nothing: here is no structure at all."""
    smooth = ndimage.gaussian_filter(rng.normal(size=(3, 256, 256)), (0, 1.2, 1.2))
    found = split_correlation(smooth, noise_correlation=0.5)
    assert found.correlation[found.frequency < 0.1].mean() > 0.8
    assert not found.trusted
    white = split_correlation(rng.normal(size=(3, 256, 256)), noise_correlation=0.01)
    assert abs(white.correlation[10:].mean()) < 0.06
    assert white.trusted


def test_thresholds():
    # Van Heel and Schatz: with very many coefficients half a bit is a correlation of 0.1716.
    assert half_bit(1e12) == pytest.approx(0.2071 / 1.2071, abs=1e-5)
    few, many = half_bit([16, 1600])
    assert few == pytest.approx((0.2071 + 1.9102 / 4) / (1.2071 + 0.9102 / 4))
    assert few > many > ONE_SEVENTH


def test_the_crossing_is_interpolated():
    frequency = np.arange(1, 11) / 20
    straight = RingCorrelation(frequency, 1 - 2 * frequency, np.full(10, 100.0), 0.5)
    # 1 - 2 f = 1/7 at f = 3/7; a mean of three on a straight line is the line itself.
    assert straight.crossing() == pytest.approx(3 / 7)
    assert straight.resolution() == pytest.approx(7 / 3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ring_correlation(np.zeros((40, 40)), np.zeros((40, 41))), "same shape"),
        (lambda: ring_correlation(np.zeros((9, 9)), np.zeros((9, 9))), "9 × 9 pixels.*32 × 32"),
        (lambda: ring_correlation(np.full((40, 40), np.nan), np.zeros((40, 40))), "NaN"),
        (lambda: split_correlation(np.zeros((60, 60))), "64 × 64: choose a larger part"),
        (lambda: split_correlation(np.zeros(9)), "choose one channel"),
    ],
)
def test_misuse_gets_one_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
