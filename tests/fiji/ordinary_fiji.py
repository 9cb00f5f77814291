"""An ordinary Fiji, as its own launcher starts it, with our plugin in it and a user before it.

For ``screen_session.py``.  Java lies in this process only so that a user can be played; nothing of
nrrn_fiji may be used here to do a command's work: the plugin's own Python has to.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jpype
import leftovers
import psutil
import user
from user import java

from nrrn_fiji.fiji import installed

OPENED = ("java.base/java.lang", "java.base/java.util", "java.desktop/sun.awt.X11")
"""What Fiji's launcher allows."""
BEFORE = leftovers.shared_memory()
"""What others left there."""


@dataclass(frozen=True)
class OrdinaryFiji:
    """The Fiji that runs; as far as the scenes ask."""

    fiji: Path
    context: Any
    gateway: Any

    def __str__(self) -> str:
        return f"ordinary Fiji in {self.fiji}, on a screen"


def open_window(fiji: Path, options: Sequence[str] = ()) -> OrdinaryFiji:
    """Start Java with a Fiji folder as its launcher does, and wait for Fiji's window.

    Parameters
    ----------
    fiji
        The Fiji folder.
    options
        Further ones for Java.
    """
    home = installed.find_java(fiji).home
    jars = [str(jar) for name in ("jars", "plugins") for jar in (fiji / name).rglob("*.jar")]
    jpype.startJVM(
        next(str(file) for file in home.glob("**/libjvm.so")),
        *(f"--add-opens={package}=ALL-UNNAMED" for package in OPENED),
        f"-Dplugins.dir={fiji}",
        f"-Dimagej.dir={fiji}",
        "-Xmx1000m",
        *options,
        classpath=sorted(jars),
    )
    java("net.imagej.Main").main([])
    user.wait(lambda: java("ij.IJ").getInstance())
    context = java("ij.IJ").runPlugIn("org.scijava.Context", "")
    return OrdinaryFiji(fiji, context, context)


def run_macro(app: OrdinaryFiji, text: str) -> str | None:
    """Run a macro as Fiji does.

    Raises
    ------
    RuntimeError
        If it fails.
    """
    interpreter = java("ij.macro.Interpreter")()
    value = interpreter.run(text, "")
    error = interpreter.getErrorMessage()
    if error is not None:
        raise RuntimeError(str(error))
    return None if value is None else str(value)


def worker() -> psutil.Process:
    """Return the Python that the plugin has started."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # Java starts and ends helpers of its own
            if "nrrn_fiji.fiji.worker" in " ".join(child.cmdline()):
                found.append(child)
    (one,) = found
    return one


def shared() -> int:
    """Return how many pieces of memory this session shares in Appose's way."""
    this = psutil.Process()
    family = [this.pid, *(child.pid for child in this.children(recursive=True))]
    return len(leftovers.shared_since(BEFORE, family))


def said_by_messages() -> str:
    """Return what ImageJ's messages on the screen say; "" if there is none."""
    texts = []
    for window in user.windows():
        if isinstance(window, java("ij.gui.MessageDialog")):
            for part in user.parts(window):
                if isinstance(part, java("ij.gui.MultiLineLabel")):
                    lines = part.getClass().getDeclaredField("lines")
                    lines.setAccessible(True)
                    texts.append(" ".join(str(line) for line in lines.get(part)))
    return " ".join(texts)


# --- scenes of an ordinary Fiji alone ----------------------------------------------------------


def stack(width: int = 512, depth: int = 200) -> Any:
    """Open the noisy stack "long", which takes minutes."""
    imp = java("ij.IJ").createImage("long", "8-bit ramp", width, width, depth)
    user.show(imp)
    return imp


def wait_for_progress(imp: Any) -> None:
    """Return when a command works on an image and has begun to share its pixels."""
    user.wait(lambda: imp.isLocked() and shared())
    time.sleep(1)


def escape() -> dict[str, Any]:
    """Esc stops a denoising soon, and leaves nothing behind."""
    imp = stack()
    user.choose("Denoise Stack...")
    asked = user.dialog("Denoise Stack")
    user.close(asked)
    wait_for_progress(imp)
    user.press_escape()
    user.wait(lambda: not imp.isLocked())
    user.wait(lambda: not user.running())
    titles = [str(title) for title in java("ij.WindowManager").getImageTitles()]
    return {"titles": titles, "shared": shared()}


def killed() -> dict[str, Any]:
    """A Python that dies: a sentence, an image that can be used, and a new one for what follows."""
    imp = stack()
    old = worker().pid
    user.choose("Denoise Stack...")
    asked = user.dialog("Denoise Stack")
    user.close(asked)
    wait_for_progress(imp)
    os.kill(old, signal.SIGKILL)
    told = user.wait(lambda: said_by_messages())
    seen: dict[str, Any] = {"told": told, "locked": bool(imp.isLocked()), "shared": shared()}
    user.close_all()
    user.wait(lambda: not user.running())
    user.show(java("ij.IJ").createImage("next", "8-bit ramp", 20, 16, 2))
    run_macro(None, 'run("Denoise Stack...", "model=tiny");')  # type: ignore[arg-type]
    seen["next"] = user.becomes_active("next-denoised")
    seen["new"] = worker().pid != old
    return seen


def end() -> dict[str, Any]:
    """What is there before Fiji quits."""
    return {"worker": worker().pid, "shared": shared()}


SCENES: tuple[Callable[[], dict[str, Any]], ...] = (escape, killed, end)
