"""Repeated scans: found where they are, averaged without what one of them shows alone."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from nrrn_fiji.progress import Cancelled
from nrrn_fiji.registration import median_placement, place_scans, register_scans, resample
from nrrn_fiji.scans.average import as_type, average_scans

EXAMPLE = Path(__file__).parents[1] / "examples" / "fibsem_medulla.tif"
SIZE = 256


def real_slice() -> NDArray[np.float64]:
    """A larger slice made of four far ones of the real stack that is shipped, side by side."""
    stack = tifffile.imread(EXAMPLE).astype(float)
    whole: NDArray[np.float64] = np.block([[stack[2], stack[8]], [stack[14], stack[20]]])
    return whole


def matrix(turn: float, stretch: float, shear: float, dy: float, dx: float) -> NDArray[np.float64]:
    """A transform (x, y) of the reference to a scan, about the middle of the scan."""
    middle = (SIZE - 1) / 2
    linear = np.array(
        [[stretch * np.cos(turn), shear - np.sin(turn)], [np.sin(turn), np.cos(turn) / stretch]]
    )
    made = np.eye(3)
    made[:2, :2] = linear
    made[:2, 2] = np.array([dx, dy]) + middle - linear @ [middle, middle]
    return made


def scan(transform: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a microscope would record of the middle of a larger slice: no border is missing.

    The reference pixel (x, y) lies at transform @ (x, y, 1) in the scan.
    """
    large = real_slice()
    margin = (len(large) - SIZE) // 2
    y, x = np.mgrid[:SIZE, :SIZE]
    places = np.linalg.inv(transform) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    assert places[:2].min() > -margin and places[:2].max() < SIZE - 1 + margin
    found: NDArray[np.float64] = ndimage.map_coordinates(large, places[1::-1] + margin, order=5)
    return found.reshape(SIZE, SIZE)


def error(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Mean distance in pixels over the image between where two transforms lead."""
    y, x = np.mgrid[:SIZE, :SIZE]
    away = (one - other) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    return float(np.hypot(away[0], away[1]).mean())


DRIFT = [
    matrix(0, 1, 0, 0, 0),
    matrix(0.012, 1.004, 0.003, 2.3, -3.6),
    matrix(-0.008, 0.996, -0.004, -4.4, 1.7),
    matrix(0.005, 1.006, 0.005, 5.2, 4.1),
    matrix(-0.015, 1.0, 0.0, -1.1, -5.8),
]


def noisy_scans(transforms: list[NDArray[np.float64]], sigma: float = 25) -> NDArray[np.uint8]:
    rng = np.random.default_rng(3)
    scans = [scan(transform) + rng.normal(0, sigma, (SIZE, SIZE)) for transform in transforms]
    return np.clip(np.rint(scans), 0, 255).astype(np.uint8)


def test_affine_drift_is_found_to_a_tenth_of_a_pixel_at_sigma_25() -> None:
    placement = place_scans(noisy_scans(DRIFT))
    assert placement.rejected == {} and placement.reference == 0
    errors = [error(f, t) for f, t in zip(placement.transforms, DRIFT, strict=True)]
    assert max(errors) < 0.1, errors
    np.testing.assert_array_equal(placement.transforms[0], np.eye(3))
    np.testing.assert_allclose(placement.shifts[1:, 0], [2.3, -4.4, 5.2, -1.1], atol=0.1)
    np.testing.assert_allclose(placement.shifts[1:, 1], [-3.6, 1.7, 4.1, -5.8], atol=0.1)


@pytest.mark.parametrize("transform", ["rigid", "translation"])
def test_simpler_transforms_stay_simple(transform: str) -> None:
    turn = 0.02 if transform == "rigid" else 0.0
    true = [matrix(0, 1, 0, 0, 0), matrix(turn, 1, 0, 3.4, -2.2), matrix(-turn, 1, 0, -1.6, 4.8)]
    found = place_scans(noisy_scans(true), transform).transforms
    assert max(error(f, t) for f, t in zip(found, true, strict=True)) < 0.1
    for one in found:
        np.testing.assert_allclose(one[:2, :2] @ one[:2, :2].T, np.eye(2), atol=1e-6)
        if transform == "translation":
            np.testing.assert_allclose(one[:2, :2], np.eye(2), atol=1e-9)


def test_a_large_shift_is_found() -> None:
    true = [matrix(0, 1, 0, 0, 0), matrix(0, 1, 0, 20.4, -17.3)]
    found = place_scans(noisy_scans(true, 10), "translation").transforms
    assert error(found[1], true[1]) < 0.1


def test_a_scan_of_another_place_is_left_out_even_if_it_is_the_first() -> None:
    scans = noisy_scans(DRIFT[:4])
    # Upside down it is as real, and shows something else.
    scans[0] = scans[0][::-1, ::-1]
    found = register_scans(scans, "translation")
    assert list(found.placement.rejected) == [0]
    assert "correlation" in found.placement.rejected[0]
    assert found.placement.kept == (1, 2, 3)
    assert len(found.aligned) == 3 and found.placement.reference != 0


def test_scans_that_have_nothing_in_common_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="check that all show the same slice"):
        place_scans(rng.normal(100, 25, (3, 96, 96)).astype(np.float32))


def test_the_average_is_less_noisy_and_not_blurred() -> None:
    found = register_scans(noisy_scans(DRIFT))
    clean = scan(np.eye(3))
    inner = np.s_[16:-16, 16:-16]
    rest = (found.average - clean)[inner].std()
    # Five scans leave sigma / sqrt(5); interpolation takes some of the noise away besides.
    assert 0.75 * 25 / 5**0.5 < rest < 1.05 * 25 / 5**0.5
    unaligned = noisy_scans(DRIFT).mean(axis=0) - clean
    assert rest < 0.75 * unaligned[inner].std()


def test_resampling_is_exact_where_nothing_moves_and_empty_where_there_is_no_data() -> None:
    image = noisy_scans(DRIFT[:1])[0]
    np.testing.assert_array_equal(resample(image, np.eye(3)), image)
    moved = resample(image, matrix(0, 1, 0, 0, 3))  # column 0 shows what lies at column 3
    np.testing.assert_allclose(moved[:, :-3], image[:, 3:], atol=1e-3)
    assert np.isnan(moved[:, -3:]).all() and np.isfinite(moved[:, :-3]).all()
    black = image.copy()
    black[:40] = 0
    assert np.isnan(resample(black, np.eye(3))[:40]).all()
    assert np.isnan(resample(black, matrix(0, 1, 0, 0.5, 0))[:40]).all()


def test_sparks_are_clipped_and_everything_else_is_averaged() -> None:
    rng = np.random.default_rng(1)
    scans = (100 + rng.normal(0, 10, (6, 64, 80))).astype(np.float32)
    plain = scans.mean(axis=0)
    spark = scans.copy()
    spark[2, 20:50, 30:60] += 120  # larger than the squares that the noise is measured in
    spark[4, 5, 5] = 1e6
    average, clipped = average_scans(spark, "clipped")
    assert abs(average[20:50, 30:60].mean() - 100) < 1
    assert abs(average[5, 5] - 100) < 20
    assert clipped == pytest.approx(901 / scans.size, rel=0.1)
    outside = np.ones(plain.shape, bool)
    outside[20:50, 30:60] = outside[5, 5] = False
    assert (np.abs(average - plain) < 1e-3)[outside].mean() > 0.99
    assert average_scans(spark, "mean")[0][30, 40] > 115


def test_pixels_without_data_are_left_out_of_every_average() -> None:
    scans = np.full((4, 32, 32), 7, np.float32)
    scans[0, :4] = np.nan
    scans[:, 0] = np.nan
    for method in ("mean", "median", "clipped"):
        average, _ = average_scans(scans, method)
        assert np.isnan(average[0]).all() and (average[1:] == 7).all()


def test_integers_are_rounded_held_and_empty_is_black() -> None:
    values = np.array([[-3.0, 1.5, 254.6, 300.0, np.nan]])
    assert as_type(values, np.dtype(np.uint8)).tolist() == [[0, 2, 255, 255, 0]]
    assert np.isnan(as_type(values, np.dtype(np.float32))[0, 4])


def test_one_transform_for_a_stack_is_the_median_of_its_slices() -> None:
    from nrrn_fiji.registration import Placement

    def placed(shift: float) -> Placement:
        moves = np.stack([np.eye(3), matrix(0.01, 1, 0, shift, 2)])
        return Placement(moves, np.zeros((2, 2)), np.ones(2), {}, 0)

    one = median_placement([placed(1), placed(1.2), placed(9)], (SIZE, SIZE), rigid=True)
    np.testing.assert_allclose(one.transforms[1], matrix(0.01, 1, 0, 1.2, 2), atol=1e-9)
    np.testing.assert_allclose(one.shifts[1], [1.2, 2])


def test_what_cannot_be_registered_is_refused_in_a_sentence() -> None:
    image = np.zeros((80, 80), np.uint8)
    for scans, transform, message in (
        ([image], "affine", "at least 2"),
        ([image, image[:70]], "affine", "crop them alike"),
        ([image[:40], image[:40]], "affine", "64 x 64"),
        ([image, image], "projective", "affine, rigid, translation"),
        ([image, image.astype(complex)], "affine", "complex"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            place_scans(scans, transform)
    with pytest.raises(ValueError, match="same slice"):
        place_scans([image, image])  # nothing to see


def test_without_pystackreg_the_command_to_install_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pystackreg", None)
    with pytest.raises(ImportError, match=r"pip install 'nrrn-fiji\[register\]'"):
        place_scans(noisy_scans(DRIFT[:2]))


def test_a_broken_pystackreg_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pystackreg.py").write_text("raise ImportError('DLL load failed')")
    monkeypatch.delitem(sys.modules, "pystackreg", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"cannot be loaded \(DLL load failed\)"):
        place_scans(noisy_scans(DRIFT[:2]))


def test_cancelling_stops_between_scans() -> None:
    class Stops:
        done = 0.0

        def update(self, done: float, total: float, text: str = "") -> None:
            self.done = done

        def message(self, text: str) -> None:
            pass

        @property
        def cancelled(self) -> bool:
            return self.done >= 2

    user = Stops()
    with pytest.raises(Cancelled):
        place_scans(noisy_scans(DRIFT[:3]), progress=user)
    assert user.done == 2
