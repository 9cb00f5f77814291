"""How quickly a job gets on, as every edge tells it."""

from __future__ import annotations

import pytest

from nrrn_fiji.progress import Pace


def test_what_comes_before_the_first_piece_does_not_count() -> None:
    pace = Pace()
    begun = 1000.0
    pace.note(begun, 0, 100)
    assert pace.remaining is None
    # 40 s of preparing, then a step a second, told since the first one.
    for step in range(1, 6):
        pace.note(begun + 40 + step, step, 100)
    assert pace.remaining == pytest.approx(95 * 45 / 5)  # as long as it is all that is known
    for step in range(6, 40):
        pace.note(begun + 40 + step, step, 100)
    assert pace.remaining == pytest.approx(61.0)  # the preparing is forgotten


def test_a_job_that_tells_its_steps_alone_is_judged_by_them() -> None:
    pace = Pace()
    pace.note(500.0, 20, 100)  # it went on from step 20, after who knows how long
    assert (pace.rate, pace.remaining) == (None, None)
    pace.note(502.0, 24, 100)
    assert pace.rate == pytest.approx(2.0)
    assert pace.remaining == pytest.approx(38.0)


def test_a_new_phase_has_a_pace_of_its_own() -> None:
    pace = Pace()
    for second in range(5):
        pace.note(second, second, 10)
    pace.note(6.0, 0, 300)
    assert pace.rate is None
    pace.note(7.0, 3, 300)
    assert pace.remaining == pytest.approx(99.0)
