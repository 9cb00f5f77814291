"""How two compared images follow each other, whatever Java does to their windows meanwhile.

Without any ImageJ: on a screen such moments come by chance.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from nrrn_fiji.fiji import compare

SHOWN = compare.View((1, 1, 1), 1.0, (0, 0, 90, 70), (90, 70))
LOOKS = 8


class Image:
    """An image in a window; what happens to it before each look is scripted."""

    def __init__(self, slices: int = 5, **script: Callable[[compare.View], compare.View]):
        self.view, self.slices, self.looks = SHOWN, slices, 0
        self.script = {int(look.removeprefix("look")): act for look, act in script.items()}

    def seen(self) -> compare.View | None:
        self.looks += 1
        if self.looks in self.script:
            self.view = self.script[self.looks](self.view)
        return self.view if self.looks < LOOKS else None  # it was closed


def linked(monkeypatch: pytest.MonkeyPatch, first: Image, second: Image) -> None:
    def show_position(imp: Image, position: tuple[int, int, int]) -> Any:
        shown = (position[0], min(position[1], imp.slices), position[2])
        imp.view = imp.view._replace(position=shown)
        return shown

    def show_part(imp: Image, now: compare.View, view: compare.View) -> None:
        imp.view = view._replace(position=imp.view.position)

    monkeypatch.setattr(compare, "view_of", Image.seen)
    monkeypatch.setattr(compare, "show_position", show_position)
    monkeypatch.setattr(compare, "show_part", show_part)
    never = SimpleNamespace(Event=lambda: SimpleNamespace(wait=lambda seconds: None))
    monkeypatch.setattr(compare, "threading", never)
    compare.link(first, second)


def to_slice(z: int) -> Callable[[compare.View], compare.View]:
    return lambda view: view._replace(position=(1, z, 1))


def zoomed(factor: float) -> Callable[[compare.View], compare.View]:
    return lambda view: view._replace(magnification=factor)


def test_either_image_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Image(look2=to_slice(4), look6=zoomed(2.0)), Image(look4=to_slice(2))
    linked(monkeypatch, first, second)
    assert first.view == second.view == SHOWN._replace(position=(1, 2, 1), magnification=2.0)


def test_a_window_that_is_laid_out_anew_takes_no_slice_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = Image(look3=zoomed(2.0)), Image(look3=to_slice(4))
    linked(monkeypatch, first, second)
    assert first.view == second.view == SHOWN._replace(position=(1, 4, 1), magnification=2.0)


def test_what_java_does_to_a_follower_is_nobodys_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    smaller = zoomed(1.5)  # its window does not fit the screen
    first, second = Image(look3=zoomed(2.0)), Image(look4=smaller)
    linked(monkeypatch, first, second)
    assert first.view.magnification == 2.0


def test_an_image_with_fewer_slices_shows_its_last_and_does_not_lead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = Image(look2=to_slice(5)), Image(slices=3)
    linked(monkeypatch, first, second)
    assert (first.view.position, second.view.position) == ((1, 5, 1), (1, 3, 1))
