"""Take the pictures of docs/fiji.md: a real Fiji does on a screen what a user would do.

Usage: python docs/make_screenshots.py --fiji DIR [--out DIR] [--steps N] [--only NAME ...]

It uses the screen that DISPLAY names; hands off while it works there. Without one it starts a
screen that nobody looks at, which needs Xvfb and openbox (on Debian and Ubuntu the packages xvfb
and openbox). The whole takes some minutes, most of it a short training. Settings of Fiji and
models of yours are neither used nor changed.
"""

from __future__ import annotations

import argparse
import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import jpype
import numpy as np
import tifffile
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "fiji"))
import user  # what a user does is what the tests do

CHECKOUT = Path(__file__).parents[1]

STACK = CHECKOUT / "examples" / "fibsem_medulla_noisy.tif"
RESULT = "fibsem_medulla_noisy-denoised.tif"
LARGEST = 300_000
"""Bytes of a picture."""
SIZE = (1500, 1100)
"""Of the screen that nobody looks at."""
MARGIN = 8
GAP = 6
ZOOM = 2.0
MENU_BAR = 24
"""Height of a menu bar in pixels."""
LINE = (38, 50, 72, 50)
"""Through a dark body that is flat inside, in pixels of the example."""
SLICE = 12
ENOUGH_DONE = ("Denoise: 9/", "Denoise: 10/", "Denoise: 11/", "Denoise: 12/", "Denoise: 13/")
"""What the status line says when a third of the example is denoised."""
SECONDS_TO_DRAW = 1.5
ZOOM_BESIDE_MENU = 1.75
BESIDE_MENU = (750, 300)
"""Where windows are that an opened menu shall not hide, in pixels."""
SECONDS_TO_SETTLE = 8.0
"""A new Fiji greets its user with windows of its own; they are closed."""
SECONDS_TO_QUIT = 60.0
STEPS = 1000
SMALL = {"Units": "2", "Maps": "16"}
"""A network that shows within minutes how a training goes."""
CLEAN = CHECKOUT / "examples" / "fibsem_medulla.tif"
DRIFT = ((0, 0), (2, 1), (3, 3), (5, 4), (6, 4), (8, 5), (9, 7), (11, 8))
"""Where the scans lie that are aligned, (y, x) in pixels; and one more that shows another place."""
SCAN, ELSEWHERE, SCAN_NOISE = 150, (40, 30), 30


# --- the screen --------------------------------------------------------------------------------


@contextmanager
def screen() -> Iterator[str]:
    """Name a screen: the one there is, or one that nobody looks at."""
    if name := os.environ.get("DISPLAY"):
        yield name
        return
    missing = [program for program in ("Xvfb", "openbox") if shutil.which(program) is None]
    if missing:
        sys.exit(
            f"There is no screen (DISPLAY is not set), and {' and '.join(missing)} to make one "
            "is not installed: apt-get install xvfb openbox, or run this on a desktop."
        )
    read, write = os.pipe()
    geometry = f"{SIZE[0]}x{SIZE[1]}x24"
    server = subprocess.Popen(
        ["Xvfb", "-nolisten", "tcp", "-displayfd", str(write), "-screen", "0", geometry],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    with open(read) as number:
        name = f":{number.readline().strip()}"
    manager = subprocess.Popen(["openbox"], env={**os.environ, "DISPLAY": name})
    try:
        yield name
    finally:
        for process in (manager, server):
            process.terminate()
            process.wait()


# --- pictures ----------------------------------------------------------------------------------


class Photographer:
    """Places windows, and keeps pictures of them."""

    def __init__(self, out: Path, steps: int):
        self.out = out
        self.steps = steps

    def place(self, window: Any, x: int, y: int) -> None:
        """Move a window."""
        user.on_event_thread(lambda: window.setLocation(x, y))

    def beside(self, window: Any, other: Any) -> None:
        """Move a window to the right of another one."""
        time.sleep(SECONDS_TO_DRAW)
        self.place(window, int(other.getX() + other.getWidth()) + GAP, int(other.getY()))

    def keep(
        self,
        name: str,
        windows: Sequence[Any],
        also: Sequence[tuple[int, int, int, int]] = (),
        *,
        front: bool = True,
    ) -> None:
        """Write a picture of windows on white; what is around them does not show.

        Parameters
        ----------
        name
            ``fiji-NAME.png`` is written.
        windows
            Shown as they lie upon each other.
        also
            Left, top, width and height of further parts of the screen, such as a menu.
        front
            Bring the windows to the front before.
        """
        for window in windows if front else ():
            user.on_event_thread(window.toFront)
            user.on_event_thread(window.repaint)
            time.sleep(0.2)
        time.sleep(SECONDS_TO_DRAW)
        shot = user.screen_picture()
        bounds = [window.getBounds() for window in windows]
        boxes = [(int(b.x), int(b.y), int(b.width), int(b.height)) for b in bounds]
        shown = np.zeros(shot.shape[:2], bool)
        for left, top, width, height in (*boxes, *also):
            shown[max(top, 0) : top + height, max(left, 0) : left + width] = True
        rows, columns = np.nonzero(shown.any(1))[0], np.nonzero(shown.any(0))[0]
        shot[~shown] = 255
        part = shot[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        part = np.pad(part, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), constant_values=255)
        file = self.out / f"fiji-{name}.png"
        # A palette halves the file; 256 colours are plenty for windows and grey images.
        Image.fromarray(part).quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
        size = file.stat().st_size
        if size > LARGEST:
            sys.exit(f"{file} has {size} bytes, more than {LARGEST}: show less.")
        print(f"{file}: {part.shape[1]} x {part.shape[0]} pixels, {size // 1000} kB")


def open_stack(take: Photographer) -> Any:
    """Open the example as File > Open does, at its place on the screen."""
    ij = user.java("ij.IJ")
    imp = ij.openImage(str(STACK))
    user.show(imp)
    window = imp.getWindow()
    user.on_event_thread(lambda: zoom(imp))
    imp.setSlice(SLICE)
    take.place(window, 20, 150)
    return imp


def zoom(imp: Any, factor: float = ZOOM) -> None:
    """Show an image at so many times its size, in a window that fits."""
    canvas = imp.getCanvas()
    width, height = int(imp.getWidth() * factor), int(imp.getHeight() * factor)
    canvas.setSize(width, height)
    canvas.setMagnification(factor)
    imp.getWindow().pack()


# --- scenes ------------------------------------------------------------------------------------


def menu(take: Photographer) -> None:
    """Plugins > NRRN, opened with the mouse."""
    open_stack(take)
    main = imagej(take)
    before = user.screen_picture()
    labels = [str(entry.getLabel()) for entry in user.menus()]
    x, y = word_in_menu_bar(before, main, labels.index("Plugins"), len(labels))
    click(x, y)
    plugins = changed(before)
    opened = user.screen_picture()
    left, top, width, height = plugins
    click(left + width // 2, top + height - 14)  # the last entry
    ours = changed(opened, left + width)
    robot().mouseMove(ours[0] + 40, ours[1] + 12)
    take.keep("menu", [main], [plugins, ours], front=False)
    for _ in range(3):
        press_key("VK_ESCAPE")


def preview(take: Photographer) -> None:
    """Preview… beside its source."""
    imp = open_stack(take)
    title = f"Preview of {imp.getTitle()}"
    asked = ask(imp, "Preview...", title)
    user.wait(lambda: "Shown" in user.note(asked))
    shown = user.image(title)
    take.beside(shown.getWindow(), imp.getWindow())
    take.beside(asked, shown.getWindow())
    take.keep("preview", [imp.getWindow(), shown.getWindow(), asked])
    user.close(asked, "Close")


def denoise(take: Photographer) -> None:
    """Denoise Stack…: the dialog, the job while it runs, and its result in two ways."""
    imp = open_stack(take)
    main = imagej(take)
    asked = ask(imp, "Denoise Stack...", "Denoise Stack")
    user.wait(lambda: "About" in user.note(asked))
    take.beside(asked, imp.getWindow())
    take.keep("denoise", [imp.getWindow(), asked])
    user.close(asked)

    user.wait(imp.isLocked)
    swing = user.java("javax.swing.JComponent")
    fields = [part for part in user.parts(main) if isinstance(part, swing)]
    field = max(fields, key=lambda part: int(part.getLocationOnScreen().x))
    corner, known = field.getLocationOnScreen(), user.windows()
    click(int(corner.x) + int(field.getWidth()) // 2, int(corner.y) + int(field.getHeight()) // 2)
    tasks = user.wait(lambda: [window for window in user.windows() if window not in known])[0]
    user.on_event_thread(lambda: tasks.setSize(int(main.getWidth()), 130))
    take.place(tasks, int(main.getX()), int(main.getY() + main.getHeight()) + GAP)
    user.wait(lambda: any(user.said(part).startswith(ENOUGH_DONE) for part in user.parts(main)))
    take.keep("tasks", [main, tasks])
    user.on_event_thread(tasks.dispose)

    result = user.image(RESULT)
    user.close(ask(result, "Compare...", "Compare"))
    user.wait(lambda: result.getWindow().getX() > imp.getWindow().getX())
    user.on_event_thread(lambda: zoom(imp))  # the other one follows
    user.on_event_thread(lambda: imp.setSlice(SLICE))
    take.place(imp.getWindow(), 20, 150)
    take.beside(result.getWindow(), imp.getWindow())
    take.keep("compare", [imp.getWindow(), result.getWindow()])

    user.on_event_thread(lambda: imp.setRoi(user.java("ij.gui.Line")(*LINE)))
    asked = ask(imp, "Measure Noise...", "Measure Noise")
    user.fill(asked, Second=RESULT)
    user.close(asked)
    boxes = user.window(f"Noise of {imp.getTitle()}")
    profile = user.window(f"Profile of {imp.getTitle()}")
    table = user.window("Results")
    take.place(profile, 20, 150)
    take.beside(boxes, profile)
    width = int(boxes.getX() + boxes.getWidth() - profile.getX())
    user.on_event_thread(lambda: table.setSize(width, 130))
    take.place(table, 20, 150 + GAP + int(max(profile.getHeight(), boxes.getHeight())))
    take.keep("measure", [profile, boxes, table])


def train(take: Photographer) -> None:
    """Train on This Stack…: the dialog, and the training while it runs."""
    imp = open_stack(take)
    main = imagej(take)
    asked = ask(imp, "Train on This Stack...", "Train on This Stack")
    user.wait(lambda: "steps" in user.note(asked))
    take.place(asked, 20, 150)
    take.keep("train-dialog", [asked])
    user.fill(asked, Minutes="", Steps=str(take.steps), **SMALL)
    user.close(asked)
    name = STACK.stem
    plot = user.plot_window(f"Training of {name}")
    sample = user.image(f"Sample of {name} (noisy, denoised)").getWindow()

    def nearly_over() -> bool:
        steps = plot.getPlot().getDataObjectArrays(0)[0]
        return not imp.isLocked() or float(max(steps)) > 0.75 * take.steps

    user.wait(nearly_over, 3600)
    take.place(plot, 20, int(main.getY() + main.getHeight()) + GAP)
    take.beside(sample, plot)
    take.keep("train", [main, plot, sample])
    user.press_escape()
    user.wait(lambda: not imp.isLocked())


def align(take: Photographer) -> None:
    """Align and Average Scans… of repeated scans: their average, and how they drifted."""
    rng = np.random.default_rng(0)
    clean = tifffile.imread(CLEAN).astype(float)
    places = [(SLICE, *place) for place in DRIFT]
    places[5] = (0, *ELSEWHERE)
    stack = user.java("ij.ImageStack")(SCAN, SCAN)
    for number, (z, y, x) in enumerate(places):
        part = clean[z, y : y + SCAN, x : x + SCAN]
        noisy = np.clip(np.rint(part + rng.normal(0, SCAN_NOISE, part.shape)), 0, 255)
        pixels = np.ascontiguousarray(noisy, np.uint8).view(np.int8).ravel()
        stack.addSlice(f"scan {number + 1}", jpype.JArray(jpype.JByte)(pixels))
    imp = user.java("ij.ImagePlus")("scans.tif", stack)
    user.show(imp)
    user.on_event_thread(lambda: zoom(imp))
    take.place(imp.getWindow(), 20, 150)
    user.close(ask(imp, "Align and Average Scans...", "Align and Average Scans"))
    average = user.image("scans-average.tif")
    plot = user.window("Shifts of scans.tif")
    user.on_event_thread(lambda: zoom(average))
    take.beside(average.getWindow(), imp.getWindow())
    take.beside(plot, average.getWindow())
    take.keep("align", [imp.getWindow(), average.getWindow(), plot])


def ordinary(take: Photographer) -> None:
    """Plugins > NRRN in a Fiji that was started by itself, and a stack before and after."""
    imp = open_stack(take)
    user.close(ask(imp, "Denoise Stack...", "Denoise Stack"))
    result = user.image(RESULT)
    user.wait(lambda: not user.running())
    for shown in (imp, result):
        user.on_event_thread(lambda shown=shown: zoom(shown, ZOOM_BESIDE_MENU))
    take.place(imp.getWindow(), *BESIDE_MENU)
    take.beside(result.getWindow(), imp.getWindow())
    main = imagej(take)
    before = user.screen_picture()
    labels = [str(entry.getLabel()) for entry in user.menus()]
    click(*word_in_menu_bar(before, main, labels.index("Plugins"), len(labels)))
    plugins = changed(before)
    opened = user.screen_picture()
    entries = [label for label in user.entries_of(user.menu_of("Plugins")) if label != "-"]
    for _ in range(entries.index("NRRN")):  # the first one is chosen already
        press_key("VK_DOWN", 0.1)
    press_key("VK_RIGHT")
    ours = changed(opened, plugins[0] + plugins[2])
    take.keep("ordinary", [main, imp.getWindow(), result.getWindow()], [plugins, ours], front=False)
    for _ in range(3):
        press_key("VK_ESCAPE")


def ask(imp: Any, entry: str, title: str) -> Any:
    """Choose an entry of the menu for an image and return the dialog that opens."""
    user.java("ij.IJ").selectWindow(imp.getTitle())
    user.choose(entry)
    return user.dialog(title)


# --- the mouse ---------------------------------------------------------------------------------


def imagej(take: Photographer) -> Any:
    """Return ImageJ's own window, at its place on the screen."""
    main = user.java("ij.IJ").getInstance()
    take.place(main, 20, 10)
    user.on_event_thread(main.toFront)
    time.sleep(1.0)
    return main


def robot() -> Any:
    """Return the hand on mouse and keyboard."""
    return user.java("java.awt.Robot")()


def click(x: int, y: int) -> None:
    """Press the mouse there, and give what it opens time to be drawn."""
    button = user.java("java.awt.event.InputEvent").BUTTON1_DOWN_MASK
    hand = robot()
    hand.mouseMove(x, y)
    hand.mousePress(button)
    hand.mouseRelease(button)
    time.sleep(1.5)


def press_key(name: str, seconds: float = 0.5) -> None:
    """Press a key, and give what it does so much time to be drawn."""
    key = getattr(user.java("java.awt.event.KeyEvent"), name)
    robot().keyPress(key)
    robot().keyRelease(key)
    time.sleep(seconds)


def changed(before: Any, beyond: int = 0) -> tuple[int, int, int, int]:
    """Return left, top, width and height of what has changed on the screen, right of a column."""
    different = (user.screen_picture() != before).any(-1)
    different[:, :beyond] = False
    if not different.any():
        sys.exit("The mouse opened no menu: is another window in front of ImageJ's?")
    rows, columns = np.nonzero(different.any(1))[0], np.nonzero(different.any(0))[0]
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1


def word_in_menu_bar(shot: Any, main: Any, number: int, count: int) -> tuple[int, int]:
    """Return where a word of the menu bar is on the screen; Java itself does not tell."""
    corner, inset = main.getLocationOnScreen(), main.getInsets()
    bottom = int(corner.y + inset.top)
    rows = slice(bottom - MENU_BAR + 4, bottom - 4)
    bar = shot[rows, corner.x + 3 : corner.x + main.getWidth() - 3].astype(int)
    inked = np.nonzero((np.abs(bar - np.median(bar, (0, 1))) > 60).any((0, 2)))[0]
    words = np.split(inked, np.nonzero(np.diff(inked) > 8)[0] + 1)
    if len(words) != count:
        sys.exit(f"The menu bar shows {len(words)} words instead of {count}: cannot find a menu.")
    return int(corner.x) + 3 + int(words[number].mean()), bottom - MENU_BAR // 2


def main() -> None:
    """Take the pictures that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fiji", type=Path, help="the Fiji folder; looked for when left out")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs" / "images")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the training that is shown")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[*SCENES, ORDINARY])
    parser.add_argument("--ordinary-in", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.ordinary_in is not None:
        take_picture_of_ordinary(asked.fiji, Photographer(asked.out, 0), asked.ordinary_in)
    stack = ExitStack()
    # At the very end: where its screen goes first, Java ends the program with an error.
    atexit.register(stack.close)

    def end(number: int, frame: FrameType | None) -> None:
        stack.close()
        os._exit(128 + number)  # Java and what it runs would not let Python end in order

    signal.signal(signal.SIGTERM, end)
    os.environ["DISPLAY"] = stack.enter_context(screen())
    home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    os.environ["NRRN_MODELS"] = str(home / "models")
    os.environ["XDG_CONFIG_HOME"] = str(home / "config")
    take = Photographer(asked.out, asked.steps)
    names = asked.only or [ORDINARY, *SCENES]
    if ORDINARY in names:
        # A Fiji that quits ends its process on the spot: it has one of its own.
        words = [sys.executable, __file__, "--ordinary-in", str(home), "--out", str(asked.out)]
        words += ["--fiji", str(asked.fiji)] if asked.fiji else []
        subprocess.run(words, check=True)
    scenes = [name for name in names if name != ORDINARY]
    if scenes:
        take_pictures(asked.fiji, take, scenes, home)


def take_picture_of_ordinary(fiji: Path | None, take: Photographer, home: Path) -> None:
    """Install NRRN into a copy of Fiji, start that as Java does, let the scene play, and quit."""
    import ordinary_fiji

    from nrrn_fiji.fiji.installed import find_fiji
    from nrrn_fiji.fiji.scripts import install_scripts

    copy = home / "Fiji.app"
    shutil.copytree(find_fiji(fiji), copy, symlinks=True)
    install_scripts(copy)
    options = [f"-Duser.home={home}", "-Dawt.useSystemAAFontSettings=on"]
    ordinary_fiji.open_window(copy, options)
    time.sleep(SECONDS_TO_SETTLE)
    user.close_all()
    ordinary(take)
    user.close_all()
    user.java("ij.IJ").getInstance().quit()
    time.sleep(SECONDS_TO_QUIT)
    sys.exit("Fiji did not quit.")


def take_pictures(fiji: Path | None, take: Photographer, names: Sequence[str], home: Path) -> None:
    """Start Fiji, let every scene play, and quit."""
    from nrrn_fiji.fiji import jvm
    from nrrn_fiji.fiji.app import show, wait_until_quit

    options = [f"-Duser.home={home}", "-Dawt.useSystemAAFontSettings=on"]
    app = jvm.start(fiji, headless=False, options=options)
    show(app)
    time.sleep(SECONDS_TO_SETTLE)
    user.close_all()
    for name in names:
        SCENES[name](take)
        user.close_all()
    user.java("ij.IJ").getInstance().quit()
    wait_until_quit()


ORDINARY = "ordinary"
SCENES: dict[str, Callable[[Photographer], None]] = {
    "menu": menu,
    "preview": preview,
    "denoise": denoise,
    "train": train,
    "align": align,
}

if __name__ == "__main__":
    main()
