"""The metrics against independent implementations, written out from their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from nrrn_fiji.metrics import PAPER_WINDOW, Spread, line_iqr, line_profile, psnr, ssim


def noisy_pair(shape=(40, 37), spread=0.1, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    clean = 0.5 + 0.3 * np.sin(x / 5) * np.cos(y / 7)
    return clean, clean + rng.normal(0, spread, shape)


def ssim_from_definition(a, b, window):
    """Wang et al. 2004, eq. 13, uniform window inside the image, sample covariance."""
    wa, wb = (sliding_window_view(image, (window, window)) for image in (a, b))
    n = window**2
    ma, mb = wa.mean((2, 3)), wb.mean((2, 3))
    va = ((wa - ma[..., None, None]) ** 2).sum((2, 3)) / (n - 1)
    vb = ((wb - mb[..., None, None]) ** 2).sum((2, 3)) / (n - 1)
    cov = ((wa - ma[..., None, None]) * (wb - mb[..., None, None])).sum((2, 3)) / (n - 1)
    c1, c2 = 0.01**2, 0.03**2
    return np.mean((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))


def test_psnr_of_a_known_error():
    clean = np.full((8, 8), 0.5, np.float32)
    # An error of 0.1 everywhere: 10 log10(1 / 0.01) dB.
    assert psnr(clean, clean + 0.1) == pytest.approx(20, abs=1e-4)


def test_psnr_is_infinite_for_a_perfect_estimate_and_does_not_warn():
    clean = noisy_pair()[0]
    assert psnr(clean, clean) == math.inf


def test_psnr_clips_the_estimate_and_not_more():
    clean = np.array([[0.0, 1.0], [0.25, 0.75]])
    # Values outside the detector's range cost nothing, a shift inside does.
    assert psnr(clean, np.array([[-3.0, 9.0], [0.25, 0.75]])) == math.inf
    assert psnr(clean, np.array([[0.0, 1.0], [0.25, 0.55]])) == pytest.approx(20)


@pytest.mark.parametrize("window", [3, 7, 21])
def test_ssim_agrees_with_its_definition(window):
    clean, noisy = noisy_pair()
    assert ssim(clean, noisy, window) == pytest.approx(
        ssim_from_definition(clean, np.clip(noisy, 0, 1), window), abs=1e-9
    )


def test_ssim_with_the_papers_window():
    clean, noisy = noisy_pair((130, 141))
    assert ssim(clean, noisy, PAPER_WINDOW) == pytest.approx(
        ssim_from_definition(clean, np.clip(noisy, 0, 1), 127), abs=1e-9
    )


def test_ssim_falls_with_noise_and_is_one_for_equal_slices():
    scores = [ssim(*noisy_pair(spread=spread)) for spread in (0, 0.02, 0.1, 0.3)]
    assert scores[0] == pytest.approx(1)
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 0.5


def test_iqr_along_a_row_is_that_of_its_pixels():
    image = np.random.default_rng(3).normal(100, 8, (20, 201))
    row = image[7, 10:191]
    expected = np.quantile(row, 0.75) - np.quantile(row, 0.25)
    assert line_iqr(image, (7, 10), (7, 190)) == pytest.approx(expected)


def test_iqr_of_a_ramp_is_half_its_rise_along_any_line():
    y, x = np.mgrid[:50, :50].astype(float)
    # From (0, 0) to (40, 40) the sum of the coordinates rises evenly from 0 to 80.
    assert line_iqr(x + y, (0, 0), (40, 40)) == pytest.approx(40, abs=0.8)
    assert line_iqr(np.full((9, 9), 3.0), (0, 0), (8, 8)) == pytest.approx(0, abs=1e-12)


def test_a_profile_has_a_value_per_pixel_between_both_ends():
    image = np.arange(30.0).reshape(5, 6)
    np.testing.assert_allclose(line_profile(image, (2, 1), (2, 4)), [13, 14, 15, 16])
    np.testing.assert_allclose(line_profile(image, (0, 3), (4, 3)), image[:, 3])
    # Between pixels, the mean of both.
    np.testing.assert_allclose(line_profile(image, (1.5, 0), (1.5, 2)), [9, 10, 11])


def test_a_spread_is_that_of_the_definitions():
    spread = Spread(values=np.array([1.0, 2.0, 3.0, 4.0, 10.0]))
    assert spread.box == (1, 2, 3, 4, 10)
    assert spread.iqr == 2
    assert spread.deviation == pytest.approx(math.sqrt((9 + 4 + 1 + 0 + 36) / 4))


def test_iqr_of_gaussian_noise_is_1_349_sigma():
    image = np.random.default_rng(4).normal(0, 5, (3, 40_000))
    assert line_iqr(image, (1, 0), (1, 39_999)) == pytest.approx(1.349 * 5, rel=0.03)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: psnr(np.zeros((4, 4)), np.zeros((4, 5))), r"estimate.*\(4, 5\).*same shape"),
        (lambda: psnr(np.zeros((4, 4)), np.full((4, 4), np.nan)), "estimate holds NaN"),
        (lambda: ssim(np.zeros((2, 9, 9)), np.zeros((2, 9, 9))), "single slices"),
        (lambda: ssim(np.zeros((9, 9)), np.zeros((9, 9)), 11), "window is 11.*fit"),
        (lambda: ssim(np.zeros((9, 9)), np.zeros((9, 9)), 4), "window is 4.*odd"),
        (lambda: line_iqr(np.zeros((9, 9)), (0, 0), (0, 9)), r"stop is \(0, 9\).*inside"),
        (lambda: line_iqr(np.zeros((2, 9, 9)), (0, 0), (0, 8)), "line runs in a slice"),
    ],
)
def test_misuse_gets_one_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
