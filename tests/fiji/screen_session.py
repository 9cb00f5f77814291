"""A user's session at ImageJ's windows, for test_screen.py: every scene, in one ImageJ.

Usage: python screen_session.py FIJI PICTURES ours|ordinary [SCENE ...]; FIJI is "" for plain
ImageJ, and every scene is played where none is named.  NRRN_MODELS names a folder with a model
"tiny".  With "ordinary" the Fiji is started as by its own launcher, and has our plugin installed:
this process then only plays the user.  The last line says, as JSON, what each scene saw, or how it
failed.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import jpype
import numpy as np
import user
from scipy import ndimage
from user import java

import nrrn_fiji
from nrrn_fiji import fiji
from nrrn_fiji.fiji import app as running

ORDINARY = sys.argv[3] == "ordinary"
WANTED = set(sys.argv[4:])
if ORDINARY:
    from ordinary_fiji import open_window, run_macro

    app = open_window(Path(sys.argv[1]))
else:
    from nrrn_fiji.fiji import run_macro

    app = fiji.start(sys.argv[1] or None, imagej=not sys.argv[1], headless=False, memory=1000)
    running.show(app)

PICTURES = Path(sys.argv[2])
IJ = java("ij.IJ")
DRIFT = (0, 2, 5, 9)
"""Of scans, downwards in pixels."""
SECONDS_TO_QUIT = 60.0
SECONDS_TO_SETTLE = 5.0
"""A Fiji that has just opened still runs macros of its own, and greets its user."""


def front(depth: int = 5, width: int = 90, height: int = 70) -> Any:
    """Open the noisy stack "front" as the only image."""
    imp = IJ.createImage("front", "8-bit ramp", width, height, depth)
    IJ.run(imp, "Add Noise", "stack")
    imp.changes = False
    user.show(imp)
    imp.setSlice(3)
    return imp


def denoised_front() -> Any:
    """Denoise "front", as a macro does."""
    IJ.selectWindow("front")
    user.becomes_active("front")
    run_macro(app, 'run("Denoise Stack...", "model=tiny");')
    return user.image("front-denoised")


def leave_alone(imp: Any) -> None:
    """Close every image but one, which then is the active one.

    When a dialog or a window closes, the screen makes another window active, at a moment of its
    own: of several images it could be any.
    """
    manager = java("ij.WindowManager")
    for number in list(manager.getIDList()):
        if int(number) != int(imp.getID()):
            user.close_image(manager.getImage(int(number)))
    user.becomes_active(str(imp.getTitle()))


def keep(name: str) -> None:
    """Keep a picture of the screen, once it is drawn."""
    time.sleep(0.5)
    user.keep_picture(PICTURES / f"{name}.png")


def menu() -> dict[str, Any]:
    """The menu Plugins > NRRN."""
    plugins = user.menu_of("Plugins")
    labels = [str(plugins.getItem(n).getLabel()) for n in range(plugins.getItemCount())]
    return {"menus": labels.count("NRRN"), "items": list(user.entries_of_nrrn())}


def search() -> dict[str, Any]:
    """Fiji's search: what it finds for a word, and what Run does with the first of it."""
    if app.gateway is None:  # plain ImageJ has none
        return {}
    searcher = java("org.scijava.search.module.ModuleSearcher")()
    app.context.inject(searcher)
    front(3, 40, 30)
    found = list(searcher.search("denoise stack", False))
    service = app.context.getService(java("org.scijava.search.SearchService"))
    run = next(action for action in service.actions(found[0]) if str(action) == "Run")
    run.run()
    asked = user.dialog("Denoise Stack")
    user.close(asked, "Cancel")
    return {
        "paths": [str(one.properties().get("Menu path")) for one in found],
        "items": list(user.entries_of_nrrn()),
    }


def denoise() -> dict[str, Any]:
    """Denoise Stack…: the dialog, the Recorder, the recorded line again, batch mode, an error."""
    recorder = java("ij.plugin.frame.Recorder")()
    front(3, 40, 30)
    user.choose("Denoise Stack...")
    asked = user.dialog("Denoise Stack")
    choices = user.field(asked, "Model")
    seen: dict[str, Any] = {
        "models": [str(choices.getItem(n)) for n in range(choices.getItemCount())],
        "fields": asked.getStringFields().size(),
        "time": user.wait(lambda: user.note(asked)),
    }
    user.fill(asked, Model="tiny", Units="1")
    keep("denoise-dialog")
    user.close(asked)
    by_dialog = user.pixels("front-denoised")
    result = user.image("front-denoised")
    seen["slice"] = int(result.getCurrentSlice())
    seen["slider"] = user.wait(lambda: user.slider(result) == seen["slice"])
    keep("denoise-result")
    # The Recorder writes when the command has ended, a little after its window appears.
    seen["recorded"] = user.wait(
        lambda: [line for line in str(recorder.getText()).splitlines() if "Denoise" in line]
    )[-1]
    user.close_image(user.image("front-denoised"))

    IJ.selectWindow("front")
    user.becomes_active("front")
    run_macro(app, seen["recorded"])
    seen["replayed"] = bool((user.pixels("front-denoised") == by_dialog).all())
    seen["active"] = user.becomes_active("front-denoised")

    hidden = (
        'setBatchMode(true); newImage("hidden", "8-bit ramp", 20, 16, 2);'
        'run("Denoise Stack...", "model=tiny"); return getTitle() + " " + getWidth();'
    )
    seen["batch"] = run_macro(app, hidden)

    # An error, as a macro in the GUI sees it: its window is read, and closed as a user would.
    def answer() -> None:
        window = user.dialog("Macro Error")
        seen["error"] = user.note(window)
        user.close(window)

    reader = threading.Thread(target=answer, daemon=True)
    reader.start()
    then = 'newImage("on", "8-bit", 9, 9, 1);'
    with suppress(RuntimeError):  # what it says is for programs; a user reads the window
        run_macro(app, f'\nrun("Denoise Stack...", "model=nosuch");\n{then}')
    reader.join()
    seen["went on"] = java("ij.WindowManager").getImage("on") is not None
    user.on_event_thread(recorder.close)
    return seen


def preview() -> dict[str, Any]:
    """Preview…: follows settings, slice and selection, and shows every unit."""
    imp = front()
    before = user.pixels("front")
    expected = {units: nrrn_fiji.denoise(before, "tiny", units=units) for units in (None, 1)}
    user.choose("Preview...")
    asked = user.dialog("Preview of front")
    user.fill(asked, Model="tiny")
    title = "Preview of front"

    def shows(units: int | None, z: int, part: Any = np.s_[:, :]) -> bool:
        """Whether the preview comes to show that."""
        return comes_to_show(title, expected[units][z][part])

    def comes_to_show(title: str, image: Any) -> bool:
        """Whether a preview comes to show an image; whole grey values are rounded."""
        wanted = image.astype(float)

        def look() -> bool:
            got = user.shown_slice(title)
            return got.shape == wanted.shape and bool(np.abs(got - wanted).max() <= 1)

        return user.wait(look)

    seen: dict[str, Any] = {
        "slice": shows(None, 2),
        "different": bool((before != expected[1]).any()),
    }
    keep("preview")
    user.fill(asked, Units="1")
    seen["setting"] = shows(1, 2)
    user.on_event_thread(lambda: imp.setSlice(5))
    seen["moved"] = shows(1, 4)
    user.fill(asked, Units="")
    user.on_event_thread(lambda: imp.setRoi(10, 20, 30, 25))
    seen["selection"] = shows(None, 4, np.s_[20:45, 10:40])
    seen["note"] = user.wait(lambda: user.note(asked) if "Shown" in user.note(asked) else "")
    user.fill(asked, Units="7")
    seen["refused"] = user.wait(lambda: user.note(asked) if "units" in user.note(asked) else "")
    user.fill(asked, Units="", Each=True)
    user.wait(lambda: user.image(title).getStackSize() == 3)
    user.wait(lambda: "Shown" in user.note(asked))  # and is complete
    stack = user.image(title).getStack()
    seen["labels"] = [str(stack.getSliceLabel(n)) for n in (1, 2, 3)]
    helped = next(part for part in user.parts(asked) if user.said(part).strip() == "Help")
    user.press(helped)
    user.window("Preview of front Help").dispose()
    seen["still there"] = bool(asked.isShowing())
    user.close(asked, "Close")
    seen["gone"] = not is_open(title)  # before its dialog
    user.choose("Preview...")
    asked = user.dialog("Preview of front")
    user.fill(asked, Model="tiny")
    user.image(title)
    user.close(asked, "Keep Image")
    user.wait(lambda: not user.running())
    seen["kept"] = is_open(title) and user.becomes_active(title)
    seen["unchanged"] = bool((user.pixels("front") == before).all())
    leave_alone(imp)
    user.choose("Preview...")
    asked = user.dialog("Preview of front")
    user.fill(asked, Model="tiny")
    user.image(title)
    IJ.run(imp, "Crop", "")  # to the selection
    cropped = user.pixels("front")
    seen["cropped"] = comes_to_show(title, nrrn_fiji.denoise(cropped, "tiny")[4])
    seen["size"] = list(cropped.shape)
    user.close(asked, "Close")
    return seen


def is_open(title: str) -> bool:
    """Whether an image of that title is open."""
    return java("ij.WindowManager").getImage(title) is not None


def train() -> dict[str, Any]:
    """Train on This Stack…: dialog, loss plot and sample while it runs, ended early by Esc."""
    imp = front(12, 64, 64)
    before = user.pixels("front")
    user.choose("Train on This Stack...")
    asked = user.dialog("Train on This Stack")
    seen: dict[str, Any] = {"name": str(user.field(asked, "Name").getText())}
    seen["time"] = user.wait(lambda: user.note(asked))
    user.fill(asked, Name="mine", Units="1", Maps="2", Minutes="", Steps="100000")
    seen["steps"] = user.wait(
        lambda: user.note(asked) if "100000 steps" in user.note(asked) else ""
    )
    user.fill(asked, Steps="4000")
    keep("train-dialog")
    user.close(asked)
    plot = user.plot_window("Training of mine")

    def validations() -> int:
        objects = plot.getPlot().getNumPlotObjects()
        return len(plot.getPlot().getDataObjectArrays(1)[0]) if objects > 1 else 0

    first = validations()
    seen["live"] = user.wait(lambda: validations() > first)
    sample = user.image("Sample of mine (noisy, denoised)")
    seen["sample"] = [int(sample.getWidth()), int(sample.getHeight())]
    seen["enlarged"] = user.wait(lambda: int(sample.getCanvas().getHeight()) >= 256)
    keep("train")
    for _ in range(10):  # a click would be answered
        user.on_event_thread(lambda: None)
    seen["locked"] = bool(imp.isLocked())  # it still runs
    user.press_escape()
    user.wait(lambda: not imp.isLocked())
    user.wait(lambda: not user.running())
    card = nrrn_fiji.load_model("mine").card["training"]
    seen |= {"ended": card["ended"], "steps taken": card["steps"], "best": card["best_step"]}
    seen["unchanged"] = bool((user.pixels("front") == before).all())
    IJ.selectWindow("front")
    user.becomes_active("front")
    user.choose("Denoise Stack...")
    asked = user.dialog("Denoise Stack")
    choices = user.field(asked, "Model")
    seen["models"] = [str(choices.getItem(n)) for n in range(choices.getItemCount())]
    user.close(asked, "Cancel")
    leave_alone(imp)
    options = "name=second units=1 maps=2 steps=25 crop=16 batch=2"
    run_macro(app, f'run("Train on This Stack...", "{options}");')
    user.image("Sample of second (noisy, denoised)")
    seen["goes on"] = user.becomes_active("front")
    return seen


def compare() -> dict[str, Any]:
    """Compare…: the suggested pair side by side, with linked slices and zoom."""
    first = front()
    IJ.run(first, "Stack to Hyperstack...", "order=xyczt(default) channels=1 slices=5 frames=1")
    first = user.image("front")
    second = denoised_front()
    user.show(IJ.createImage("another", "8-bit ramp", 90, 70, 5))
    IJ.selectWindow("front-denoised")
    user.becomes_active("front-denoised")
    user.choose("Compare...")
    asked = user.dialog("Compare")
    seen: dict[str, Any] = {
        "pair": [str(user.field(asked, name).getSelectedItem()) for name in ("First", "Second")]
    }
    user.close(asked)
    user.wait(lambda: not user.running())
    seen["active"] = user.becomes_active("front-denoised")  # as before
    one, other = first.getWindow(), second.getWindow()
    seen["beside"] = user.wait(lambda: other.getX() >= one.getX() + one.getWidth() - 1)
    user.on_event_thread(lambda: first.setSlice(5))
    seen["slice"] = user.wait(lambda: second.getCurrentSlice() == 5)
    seen["slider"] = user.wait(lambda: user.slider(second) == 5)
    user.on_event_thread(lambda: second.setSlice(2))
    seen["slice back"] = user.wait(lambda: first.getCurrentSlice() == 2)
    before = float(first.getCanvas().getMagnification())
    user.on_event_thread(lambda: first.getCanvas().zoomIn(200, 200))
    zoomed = user.wait(lambda: float(first.getCanvas().getMagnification()) > before)
    seen["zoom"] = zoomed and user.wait(
        lambda: first.getCanvas().getMagnification() == second.getCanvas().getMagnification()
    )
    seen["part"] = user.wait(
        lambda: str(first.getCanvas().getSrcRect()) == str(second.getCanvas().getSrcRect())
    )
    keep("compare")
    return seen


def measure() -> dict[str, Any]:
    """Measure Noise… along a line, with a second image: table, profile and box plot."""
    imp = front()
    denoised_front()
    IJ.selectWindow("front")
    user.becomes_active("front")
    imp.setRoi(java("ij.gui.Line")(0, 40, 80, 40))
    user.choose("Measure Noise...")
    asked = user.dialog("Measure Noise")
    user.fill(asked, Second="front-denoised")
    user.close(asked)
    boxes, profile = user.plot_window("Noise of front"), user.plot_window("Profile of front")
    table = java("ij.measure.ResultsTable").getResultsTable()
    user.wait(lambda: table.size() == 2)
    keep("measure")
    seen: dict[str, Any] = {"rows": []}
    for row, title in enumerate(("front", "front-denoised")):
        values = user.pixels(title)[2, 40, :81].astype(float)
        quartiles = np.percentile(values, (25, 75))
        seen["rows"].append(
            {
                "image": str(table.getStringValue("Image", row)),
                "iqr": [float(table.getValue("IQR", row)), float(quartiles[1] - quartiles[0])],
                "sd": [float(table.getValue("StdDev", row)), float(values.std(ddof=1))],
            }
        )
    drawn = profile.getPlot()
    seen["curves"] = [len(drawn.getDataObjectArrays(n)[1]) for n in (0, 1)]
    seen["boxes"] = int(boxes.getPlot().getNumPlotObjects())
    seen["selection"] = str(imp.getRoi().getTypeAsString())
    user.wait(lambda: not user.running())
    leave_alone(imp)
    run_macro(app, 'run("Measure Noise...", "show=all");')
    user.plot_window("Noise of front")
    seen["goes on"] = user.becomes_active("front")
    return seen


def add_noise() -> dict[str, Any]:
    """Add Noise…: begins with a level that does something."""
    user.show(IJ.createImage("ramp", "8-bit ramp", 64, 64, 3))
    user.choose("Add Noise...")
    asked = user.dialog("Add Noise")
    keep("add-noise")
    user.close(asked)
    added = user.pixels("ramp-noisy") - user.pixels("ramp").astype(float)
    return {"deviation": float(added[..., 22:42].std())}  # where nothing is clipped


def align() -> dict[str, Any]:
    """Align and Average Scans… of a slice that drifts: the average, and the plot of its shifts."""
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.normal(0, 1, (90, 90)), 3)
    image = 128 + 40 * image / image.std()
    stack = java("ij.ImageStack")(64, 64)
    for drift in DRIFT:
        part = image[drift : drift + 64, 4 : 4 + 64] + rng.normal(0, 5, (64, 64))
        pixels = np.clip(np.rint(part), 0, 255).astype(np.uint8)
        stack.addSlice(f"drift {drift}", jpype.JArray(jpype.JByte)(pixels.view(np.int8).ravel()))
    user.show(java("ij.ImagePlus")("scans", stack))
    user.choose("Align and Average Scans...")
    asked = user.dialog("Align and Average Scans")
    user.fill(asked, Transform="translation", Keep=True)
    keep("align-dialog")
    user.close(asked)
    average, aligned = user.image("scans-average"), user.image("scans-aligned")
    plot = user.plot_window("Shifts of scans").getPlot()
    keep("align")
    down = plot.getDataObjectArrays(1)[1]
    user.wait(lambda: not user.running())
    return {
        "sizes": [int(average.getStackSize()), int(aligned.getStackSize())],
        "shifts": [float(shift) for shift in down],
        "active": user.becomes_active("scans-average"),
    }


def models() -> dict[str, Any]:
    """Models…: the list and one card."""
    user.choose("Models...")
    asked = user.dialog("Models")
    keep("models-dialog")
    user.close(asked)
    listed = user.window("NRRN Models")
    keep("models")
    seen = {"list": str(listed.getTextPanel().getText())}
    user.choose("Models...")
    asked = user.dialog("Models")
    user.fill(asked, Action="show", Model="tiny")
    user.close(asked)
    return seen | {"card": str(user.window("NRRN Model").getTextPanel().getText())}


def show_help() -> dict[str, Any]:
    """Help."""
    user.choose("Help")
    page = user.window("NRRN Help")
    keep("help")
    text = [user.said(part) for part in user.parts(page)]
    return {"text": max(text, key=len)}


SCENES: tuple[Callable[[], dict[str, Any]], ...] = (
    menu,
    denoise,
    preview,
    train,
    compare,
    measure,
    add_noise,
    align,
    models,
    show_help,
    search,
)

told: dict[str, Any] = {"about": str(app)}
if app.fiji is not None:
    time.sleep(SECONDS_TO_SETTLE)
    user.close_all()
for scene in [scene for scene in SCENES if not WANTED or scene.__name__ in WANTED]:
    try:
        told[scene.__name__] = scene()
        user.wait(lambda: not user.running())  # it may still show something
        user.close_all()
    except Exception:  # the other scenes may work
        keep(f"failed-{scene.__name__}")
        told[scene.__name__] = {"failed": traceback.format_exc()}
        user.press_escape()  # whatever it has begun
        user.close_all()
        with suppress(TimeoutError):
            user.wait(lambda: not user.running())
        user.close_all()
if ORDINARY:
    from ordinary_fiji import SCENES as ORDINARY_SCENES

    for scene in [one for one in ORDINARY_SCENES if not WANTED or one.__name__ in WANTED]:
        try:
            told[scene.__name__] = scene()
        except Exception:
            keep(f"failed-{scene.__name__}")
            told[scene.__name__] = {"failed": traceback.format_exc()}
        user.close_all()
    print("TOLD", json.dumps(told), flush=True)
    IJ.getInstance().quit()  # which ends this process on the spot, as it ends an ordinary Fiji
    time.sleep(SECONDS_TO_QUIT)
    sys.exit("Fiji did not quit.")
IJ.getInstance().quit()
running.wait_until_quit()
print("TOLD", json.dumps(told))
