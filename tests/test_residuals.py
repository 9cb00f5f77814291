"""Structure in what was removed: filters with a known effect on known structure."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from nrrn_fiji.quality.residuals import detail, local_correlation, shared, shared_power

SHAPE = (6, 192, 192)


def pairs(sigma=15.0, seed=0):
    """The same structure twice, with noise of its own each time."""
    rng = np.random.default_rng(seed)
    structure = ndimage.gaussian_filter(rng.normal(size=SHAPE), (0, 1.2, 1.2), mode="wrap")
    structure *= 30 / structure.std()
    return structure, *(structure + rng.normal(0, sigma, SHAPE) for _ in range(2))


def blur(stack, s):
    return ndimage.gaussian_filter(stack, (0, s, s), mode="wrap")


def test_of_a_blur_the_transfer_function_is_found() -> None:
    _, one, other = pairs()
    found = detail(one, other, blur(one, 1.5), blur(other, 1.5))
    known = np.isfinite(found.kept)
    assert known.sum() > 30
    expected = np.exp(-2 * (np.pi * 1.5 * found.frequency[known]) ** 2)
    np.testing.assert_allclose(found.kept[known], expected, atol=0.05)
    assert found.kept_at(16) == pytest.approx(np.exp(-2 * (np.pi * 1.5 / 16) ** 2), abs=0.05)


def test_a_perfect_result_keeps_everything_and_agrees_everywhere() -> None:
    structure, one, other = pairs()
    found = detail(one, other, structure, structure)
    known = np.isfinite(found.kept)
    sure = known & (found.before > 0.5)
    np.testing.assert_allclose(found.kept[sure], 1, atol=0.1)
    np.testing.assert_allclose(found.after[known], 1, atol=1e-6)
    assert found.gain() > 0.2


def test_nothing_done_changes_nothing() -> None:
    _, one, other = pairs()
    found = detail(one, other, one, other)
    np.testing.assert_allclose(found.kept[np.isfinite(found.kept)], 1)
    np.testing.assert_allclose(found.after, found.before)
    assert found.gain() == 0


def test_what_noise_drowns_is_not_known() -> None:
    _, one, other = pairs(sigma=400)
    found = detail(one, other, one, other)
    assert np.isnan(found.kept_at(4))


def test_removed_noise_shares_nothing_and_removed_structure_does() -> None:
    structure, one, other = pairs()
    assert shared(one - structure, other - structure) == pytest.approx(0, abs=0.01)
    lost = structure - blur(structure, 2)
    one_removed, other_removed = (stack - blur(stack, 2) for stack in (one, other))
    # The share of the removed power that is structure.
    expected = (lost**2).mean() / (one_removed**2).mean()
    assert shared(one_removed, other_removed) == pytest.approx(expected, abs=0.02)
    assert shared(np.zeros(SHAPE), np.zeros(SHAPE)) == 0


def test_the_error_of_a_covariance_covers_chance() -> None:
    """In about 95 of 100 cases two errors hold what is due to chance alone."""
    rng = np.random.default_rng(4)
    found = [shared_power(*rng.normal(0, 5, (2, 2, 96, 96))) for _ in range(100)]
    assert sum(abs(value) < 2 * error for value, error in found) >= 88
    structure, one, other = pairs()
    value, error = shared_power(one, other)
    assert abs(value - structure.var()) < 4 * error
    assert error < 0.1 * value


def test_local_correlation_is_pearsons() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 70, 96))
    found = local_correlation(a, a + b)
    assert found.shape == (2, 3)
    tile = np.s_[32:64, 64:96]
    expected = np.corrcoef(a[tile].ravel(), (a + b)[tile].ravel())[0, 1]
    assert found[1, 2] == pytest.approx(expected)
    assert np.isnan(local_correlation(np.zeros((32, 32)), np.ones((32, 32)))).all()


def test_stacks_must_be_alike() -> None:
    a = np.zeros((1, 64, 64))
    with pytest.raises(ValueError, match="all four must be"):
        detail(a, a, a, np.zeros((1, 64, 65)))
