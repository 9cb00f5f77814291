"""Time that passes by what is done, not by how quick the machine is."""

from __future__ import annotations

from typing import Any

import pytest

from nrrn_fiji import training

__all__ = ["Clock", "clock_of_training"]


class Clock:
    """Stands still until it is moved; takes the place of the module ``time``."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Return the seconds that have passed."""
        return self.now


def clock_of_training(monkeypatch: pytest.MonkeyPatch, seconds: float) -> Clock:
    """Let every loss that trainings compute, in validations too, take so many seconds.

    Returns
    -------
    Clock
        By which trainings go.
    """
    clock, honest = Clock(), training.objective_value

    def slow(*given: Any) -> Any:
        clock.now += seconds
        return honest(*given)

    monkeypatch.setattr(training, "objective_value", slow)
    monkeypatch.setattr(training, "time", clock)
    return clock
