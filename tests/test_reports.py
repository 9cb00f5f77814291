"""What a command hands back: its numbers as people write them."""

from __future__ import annotations

import math

import pytest

from nrrn_fiji.reports import readable_number


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0, 3, "0"),
        (12, 3, "12"),
        (0.105, 3, "0.105"),
        (1583.2, 3, "1580"),
        (-43.14, 3, "-43.1"),
        (-110.3, 2, "-110"),
        (99.7, 2, "100"),
        (999.7, 3, "1000"),
        (28310.2, 4, "28310"),
        (3_600_000, 3, "3600000"),
        (0.0000712, 2, "0.000071"),
        (0.0000996, 2, "0.0001"),
        (3.6e9, 3, "3.6e+09"),
        (2e-9, 3, "2e-09"),
        (math.nan, 3, "nan"),
        (-math.inf, 3, "-inf"),
    ],
)
def test_a_number_is_written_without_a_power_of_ten(value: float, digits: int, text: str) -> None:
    assert readable_number(value, digits) == text


def test_a_sign_is_shown_where_it_is_asked_for() -> None:
    assert readable_number(1221.2, sign=True) == "+1220"
    assert readable_number(-1221.2, sign=True) == "-1220"
    assert readable_number(3.5, sign=True) == "+3.5"
