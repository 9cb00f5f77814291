"""Lengths and voxel sizes in words."""

from __future__ import annotations

import doctest

import pytest

from nrrn_fiji.formats import calibration


def test_the_examples_hold() -> None:
    assert doctest.testmod(calibration).failed == 0


@pytest.mark.parametrize(
    ("length", "unit", "expected"),
    [
        (0.0613, "µm", "61.3 nm"),
        (999.4, "nm", "999 nm"),
        (999.6, "nm", "1 µm"),
        (2500, "micron", "2.5 mm"),
        (7, None, "7"),
        (7, "parsec", "7 parsec"),
    ],
)
def test_lengths_are_said_in_the_unit_that_gives_short_numbers(
    length: float, unit: str | None, expected: str
) -> None:
    assert calibration.readable_length(length, unit) == expected


def test_a_voxel_size_is_said_x_first_and_only_if_it_is_one() -> None:
    assert calibration.readable_voxel((20, 5, 4), "nm") == "4 × 5 × 20 nm"
    assert calibration.readable_voxel((1, 1, 1), "pixel") == ""
    assert calibration.readable_voxel((1, 1, 1), None) == ""
    assert calibration.readable_voxel(None, "nm") == ""
    assert calibration.readable_voxel((3, 2, 1), "parsec") == "1 × 2 × 3 parsec"
