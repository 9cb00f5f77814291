"""Which image is the active one: for a command that begins, and after one that shows results.

Without any ImageJ: what its windows say at the wrong moment is hard to come by on a screen.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from nrrn_fiji.commands import Kind, Option
from nrrn_fiji.fiji import dialogs, entry, layout, plugin


class Image:
    """An ``ij.ImagePlus`` as far as it is asked."""

    def __init__(self, number: int):
        self.getID = lambda: number


def host(
    monkeypatch: pytest.MonkeyPatch,
    *,
    opened: list[Image],
    current: Image | None,
    own: Image | None = None,
) -> entry.Host:
    """An ImageJ with images in windows; one of them current, or that of the thread alone."""
    windows = SimpleNamespace(
        getIDList=lambda: [image.getID() for image in opened] or None,
        getImage=lambda number: next(one for one in opened if one.getID() == number),
        getCurrentImage=lambda: own or current,
        getTempCurrentImage=lambda: own,
    )
    fake = SimpleNamespace(JClass=lambda name: {"ij.WindowManager": windows}[name])
    monkeypatch.setattr(entry, "java", fake)
    return entry.Host(None, ())  # type: ignore[arg-type]


STACK, OTHER, GONE = Image(-1), Image(-2), Image(-3)


@pytest.mark.parametrize(
    ("opened", "current", "own", "expected"),
    [
        ([STACK, OTHER], STACK, None, STACK),
        ([STACK, OTHER], OTHER, GONE, GONE),  # given to the thread, by IJ.run(imp, …)
        ([STACK, OTHER], GONE, None, OTHER),  # its window closes
        ([STACK], None, None, STACK),  # has closed, and the other one is not active yet
        ([], GONE, None, GONE),  # not in a window: without a screen
    ],
)
def test_a_command_takes_no_image_that_is_closed(
    monkeypatch: pytest.MonkeyPatch,
    opened: list[Image],
    current: Image | None,
    own: Image | None,
    expected: Image,
) -> None:
    found = host(monkeypatch, opened=opened, current=current, own=own).current_image()
    assert found is expected


def test_no_image_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="No image is open"):
        host(monkeypatch, opened=[], current=None).current_image()


class Shown:
    """An ``ij.ImagePlus`` or ``ij.gui.Plot`` that notes what happens."""

    def __init__(self, name: str, happened: list[str]):
        self.name, self.happened = name, happened

    def __getattr__(self, method: str) -> Any:
        return lambda: self.happened.append(f"{method} {self.name}")


class Plot(Shown):
    """An ``ij.gui.Plot``, whose window belongs to its image."""

    def getImagePlus(self) -> Any:
        return Shown(f"image of {self.name}", self.happened)


def test_the_next_window_is_shown_when_the_one_before_is_active(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layout, "java", SimpleNamespace(JClass=lambda name: Plot))
    happened: list[str] = []
    for made in (Plot("plot", happened), Shown("average", happened)):
        layout.show(made)
    assert happened == [
        *("show plot", "waitTillActivated image of plot"),
        *("show average", "waitTillActivated average"),
    ]


def test_a_command_works_on_the_image_that_its_dialog_was_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own: list[Image] = []
    active = [STACK]
    windows = SimpleNamespace(
        getIDList=lambda: [-1, -2],
        getImage=lambda number: {-1: STACK, -2: OTHER}[number],
        getCurrentImage=lambda: [*active, *own][-1],
        getTempCurrentImage=lambda: own[-1] if own else None,
        setTempCurrentImage=lambda imp: own.append(imp) if imp else own.clear(),
    )
    interpreter = SimpleNamespace(isBatchMode=lambda: False, getInstance=lambda: None)
    classes = {"ij.WindowManager": windows, "ij.macro.Interpreter": interpreter}
    fake = SimpleNamespace(JClass=classes.__getitem__, here=SimpleNamespace)
    for module in (entry, plugin):
        monkeypatch.setattr(module, "java", fake)

    def answer(asked: entry.Entry, imp: Image) -> dict[str, Any]:
        active[:] = [OTHER]  # which the screen makes active when the dialog is gone
        return {"units": imp.getID()}

    monkeypatch.setattr(dialogs, "show_dialog", answer)
    worked: list[tuple[Any, dict[str, Any]]] = []
    command = entry.Entry(
        label="Work...",
        key="work",
        summary="Work.",
        options=(Option(name="units", label="Units", help="", kind=Kind.NUMBER),),
        run=lambda host, values: worked.append((host.current_image(), values)),
    )
    there = plugin.Plugin(SimpleNamespace(headless=False), (command,))  # type: ignore[arg-type]
    there.handle("work", None)
    assert worked == [(STACK, {"units": -1})]
    assert there.current_image() is OTHER  # afterwards


class Page:
    """An ``ij.gui.HTMLDialog`` that notes what happens."""

    def __init__(self, happened: list[str], showing: bool = True):
        self.isShowing = lambda: showing
        self.toFront = lambda: happened.append("to front")


def test_help_comes_to_the_front_when_it_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    pages: list[Any] = [object(), Page(happened, showing=False)]
    waiting: list[Any] = []
    classes = {
        "ij.gui.HTMLDialog": Page,
        "java.awt.Window": SimpleNamespace(getWindows=lambda: pages),
        "java.awt.EventQueue": SimpleNamespace(invokeLater=waiting.append),
    }
    fake = SimpleNamespace(JClass=classes.__getitem__, JProxy=lambda interface, methods: methods)
    monkeypatch.setattr(layout, "java", fake)
    layout._before_help.cache_clear()
    heard: list[Any] = []
    buttons = [SimpleNamespace(addActionListener=lambda _: pytest.fail("not Help"))] * 3
    layout.help_in_front(
        SimpleNamespace(
            getButtons=lambda: [*buttons, SimpleNamespace(addActionListener=heard.append)]
        )
    )
    layout._before_help.cache_clear()
    heard[0]["actionPerformed"](None)  # the dialog hears after us,
    pages.append(Page(happened))  # and opens its page
    assert not happened
    waiting[0]["run"]()
    assert happened == ["to front"]


def test_units_of_a_column_begin_with_no_capital() -> None:
    titles = [layout.as_title(text) for text in ("choice", "s per slice", "px", "units × maps")]
    assert titles == ["Choice", "s per slice", "px", "Units × maps"]
