"""What a user does in ImageJ's windows: choose from menus, fill in dialogs, press, look.

For the tests with a screen and for the pictures of ``docs/make_screenshots.py``.  Buttons and menus
are pressed on Java's event thread, as the mouse does.  This module must never call what a button
would call: then nobody would notice that the button does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jpype
import numpy as np
from numpy.typing import NDArray

Found = TypeVar("Found")
SECONDS = 600.0


def java(name: str) -> Any:
    """Return a Java class."""
    return jpype.JClass(name)


def wait(what: Callable[[], Found], seconds: float = SECONDS) -> Found:
    """Return what a function finds, as soon as it finds something.

    Raises
    ------
    TimeoutError
        If it does not within ``seconds``; the message says what was on the screen.
    """
    end = time.monotonic() + seconds
    while not (found := what()):
        if time.monotonic() > end:
            raise TimeoutError(f"Nothing after {seconds} s; on the screen: {screen_as_text()}.")
        time.sleep(0.05)
    return found


def screen_as_text() -> str:
    """Return the titles of the windows, and what the dialogs among them say."""
    texts = []
    for window in windows():
        title = getattr(window, "getTitle", window.getName)()
        speaks = isinstance(window, java("java.awt.Dialog"))
        words = [said(part) for part in parts(window)] if speaks else []
        texts.append(f"{title!s} {[word for word in words if word.strip()] or ''}".strip())
    return "; ".join(texts)


def on_event_thread(act: Callable[[], Any]) -> None:
    """Do something on Java's event thread, and return when it is done."""
    java("java.awt.EventQueue").invokeAndWait(jpype.JProxy("java.lang.Runnable", {"run": act}))


# --- windows -----------------------------------------------------------------------------------


def windows() -> list[Any]:
    """Return the windows that are on the screen."""
    return [window for window in java("java.awt.Window").getWindows() if window.isShowing()]


def parts(container: Any) -> Iterator[Any]:
    """Return every component in a window."""
    for part in container.getComponents():
        yield part
        if isinstance(part, java("java.awt.Container")):
            yield from parts(part)


def said(part: Any) -> str:
    """Return the text of a component; "" if it has none."""
    for name in ("getText", "getLabel"):
        if hasattr(part, name):
            return str(getattr(part, name)() or "")
    return ""


def is_dialog(window: Any) -> bool:
    """Whether a window is a dialog of ImageJ."""
    return isinstance(window, java("ij.gui.GenericDialog"))


def waiting() -> int:
    """Return how many threads of Java wait until somebody answers a modal dialog."""
    stacks = java("java.lang.Thread").getAllStackTraces().values()
    return sum(
        any(str(call.getClassName()) == "java.awt.WaitDispatchSupport" for call in stack)
        and any(str(call.getClassName()) == "java.awt.Dialog" for call in stack)
        for stack in stacks
    )


def modal() -> int:
    """Return how many modal dialogs are on the screen."""
    kind = java("java.awt.Dialog")
    return sum(isinstance(window, kind) and bool(window.isModal()) for window in windows())


def ready() -> bool:
    """Whether every modal dialog on the screen waits for an answer.

    Java shows a dialog first, and then waits: one that is closed in between, faster than a person
    can, is waited for for good.
    """
    return waiting() >= modal()


def dialog(title: str) -> Any:
    """Return the dialog of that title, as soon as it waits for an answer."""

    def look() -> Any:
        found = [w for w in windows() if is_dialog(w) and str(w.getTitle()) == title]
        return found[0] if found and ready() else None

    return wait(look)


def window(title: str) -> Any:
    """Return the window of that title, as soon as it is there."""

    def look() -> Any:
        found = [w for w in windows() if hasattr(w, "getTitle") and str(w.getTitle()) == title]
        return found[0] if found else None

    return wait(look)


def plot_window(title: str) -> Any:
    """Return the window of the ``ij.gui.Plot`` of that title, as soon as it has its plot.

    ImageJ shows the window first.
    """
    found = window(title)
    wait(found.getPlot)
    return found


def image(title: str) -> Any:
    """Return the ``ij.ImagePlus`` of that title, as soon as it is open and has a window."""

    def look() -> Any:
        for number in java("ij.WindowManager").getIDList() or ():
            imp = java("ij.WindowManager").getImage(int(number))
            if imp is not None and str(imp.getTitle()) == title and imp.getWindow() is not None:
                return imp
        return None

    return wait(look)


def show(imp: Any) -> None:
    """Show an image, and return when it is the active one.

    Which one that is ImageJ learns from the screen's events, each of which comes some time later.
    """
    imp.show()
    wait(imp.windowActivated)


def active() -> str:
    """Return the title of the active image; "" if there is none."""
    imp = java("ij.WindowManager").getCurrentImage()
    return "" if imp is None else str(imp.getTitle())


def becomes_active(title: str) -> bool:
    """Whether an image comes to be the active one."""
    return wait(lambda: active() == title)


def pixels(title: str) -> NDArray[Any]:
    """Return the pixels of an open image, (Z, Y, X)."""
    from nrrn_fiji.fiji.images import volume_of

    volume = volume_of(image(title))
    return volume.read(0, volume.shape.z)


def slider(imp: Any) -> int:
    """Return at which slice the slider of an image's window stands; 0 as long as it has none."""
    kind = java("ij.gui.ScrollbarWithLabel")
    found = [part for part in parts(imp.getWindow()) if isinstance(part, kind)]
    return int(found[0].getValue()) if found else 0


def shown_slice(title: str) -> NDArray[Any]:
    """Return the slice that an image shows, (Y, X); whole even while the image is replaced."""
    processor = image(title).getProcessor()
    size = (int(processor.getHeight()), int(processor.getWidth()))
    return np.array(processor.getPixels()).reshape(size)


# --- hands -------------------------------------------------------------------------------------


def press(part: Any) -> None:
    """Press a button, or choose an entry of a menu."""
    event = java("java.awt.event.ActionEvent")
    pressed = event(part, event.ACTION_PERFORMED, part.getActionCommand())
    # A modal dialog that this opens must not keep the hand on the button.
    act = jpype.JProxy("java.lang.Runnable", {"run": lambda: part.dispatchEvent(pressed)})
    java("java.awt.EventQueue").invokeLater(act)


def menus() -> list[Any]:
    """Return the menus of ImageJ's menu bar."""
    bar = java("ij.Menus").getMenuBar()
    return [bar.getMenu(number) for number in range(bar.getMenuCount())]


def menu_of(label: str) -> Any:
    """Return the menu of that label in ImageJ's menu bar."""
    return next(menu for menu in menus() if str(menu.getLabel()) == label)


def entries_of(menu: Any) -> dict[str, Any]:
    """Return the entries of a menu by their labels."""
    items = [menu.getItem(number) for number in range(menu.getItemCount())]
    return {str(item.getLabel()): item for item in items}


def entries_of_nrrn() -> dict[str, Any]:
    """Return the entries of Plugins > NRRN by their labels, in their order."""
    return entries_of(entries_of(menu_of("Plugins"))["NRRN"])


def choose(label: str) -> None:
    """Choose an entry of Plugins > NRRN; an ordinary Fiji calls some by what macros call them."""
    entries = entries_of_nrrn()
    press(entries[label] if label in entries else entries[f"NRRN {label}"])


def running() -> list[str]:
    """Return the commands of Plugins > NRRN that were chosen and have not ended."""
    commands = {str(item.getActionCommand()) for item in entries_of_nrrn().values()}
    threads = java("java.lang.Thread").getAllStackTraces().keySet()
    names = {str(thread.getName()).removeprefix("Run$_") for thread in threads}
    return sorted(names & commands)


def close(shown: Any, button: str = "OK") -> None:
    """Press a button of a dialog and wait until the dialog is gone; with Cancel, its command too.

    A dialog that was cancelled aborts whatever macro runs at that moment, and does so a little
    after its window has gone.
    """
    press(next(part for part in parts(shown) if said(part).strip() == button))
    wait(lambda: not shown.isShowing())
    wait(lambda: waiting() <= modal())  # nobody waits for this one any more
    if button == "Cancel":
        wait(lambda: not running())


def field(shown: Any, label: str) -> Any:
    """Return the field of a dialog whose label begins like that; of a slider, where one types."""
    before = None
    beside = tuple(java(f"java.awt.{kind}") for kind in ("Panel", "Scrollbar", "Button"))
    for part in parts(shown):
        if isinstance(part, java("java.awt.Checkbox")):
            if said(part).startswith(label):
                return part
        elif isinstance(part, java("java.awt.Label")):
            before = part
        elif before is None or isinstance(part, beside):
            continue  # a button Browse comes after its field
        elif said(before).startswith(label):
            return part
    raise LookupError(f"no field {label!r}; on the screen: {screen_as_text()}")


def fill(shown: Any, **values: Any) -> None:
    """Fill in fields of a dialog, each named by the first word of its label."""
    for name, value in values.items():
        part = field(shown, name)

        def act(part: Any = part, value: Any = value) -> None:
            if isinstance(part, java("java.awt.Checkbox")):
                part.setState(bool(value))
            elif isinstance(part, java("java.awt.Choice")):
                part.select(str(value))
            else:
                part.setText(str(value))

        on_event_thread(act)


def note(shown: Any) -> str:
    """Return what a dialog says beneath its fields."""
    label = shown.getMessage()
    lines = label.getClass().getDeclaredField("lines")  # it has no getText()
    lines.setAccessible(True)
    return " ".join(str(line).strip() for line in lines.get(label)).strip()


def press_escape() -> None:
    """Press Esc, as ImageJ hears it from any of its windows."""
    java("ij.IJ").setKeyDown(java("java.awt.event.KeyEvent").VK_ESCAPE)


def close_image(imp: Any) -> None:
    """Close an image without the question whether to save it."""
    imp.changes = False
    imp.close()


def close_all() -> None:
    """Close every image and window but ImageJ's own, without a question."""
    wait(ready)
    for shown in [shown for shown in windows() if is_dialog(shown)]:
        # As its red X does: a dialog that merely vanishes counts as confirmed.
        on_event_thread(lambda shown=shown: shown.windowClosing(None))
    for number in list(java("ij.WindowManager").getIDList() or ()):
        imp = java("ij.WindowManager").getImage(int(number))
        if imp is not None:
            close_image(imp)
    for other in windows():
        if hasattr(other, "getTitle") and other != java("ij.IJ").getInstance():
            on_event_thread(other.dispose)


# --- eyes --------------------------------------------------------------------------------------


def screen_picture() -> NDArray[np.uint8]:
    """Return what is on the screen, (Y, X, 3)."""
    size = java("java.awt.Toolkit").getDefaultToolkit().getScreenSize()
    robot = java("java.awt.Robot")()
    shot = robot.createScreenCapture(java("java.awt.Rectangle")(size))
    colours = np.asarray(
        shot.getRGB(0, 0, shot.getWidth(), shot.getHeight(), None, 0, shot.getWidth())
    )
    colours = colours.reshape(int(size.height), int(size.width)).astype(np.uint32)
    return np.stack([colours >> 16, colours >> 8, colours], -1).astype(np.uint8)


def keep_picture(file: Path) -> None:
    """Write what is on the screen into a PNG file."""
    import imageio.v3 as imageio

    imageio.imwrite(file, screen_picture())
