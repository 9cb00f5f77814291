"""With a screen: the menu, the dialog, the Recorder and batch mode, in a window under Xvfb."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nrrn_fiji.fiji import jvm

Run = Callable[..., "subprocess.CompletedProcess[str]"]

SCRIPT = r"""
import json, sys, threading, time
from pathlib import Path
import jpype
from nrrn_fiji import fiji
from nrrn_fiji.fiji import app as running
from nrrn_fiji.fiji.images import volume_of

where, shots = json.loads(sys.argv[1]), Path(sys.argv[2])
app = fiji.start(where, imagej=where is None, headless=False, memory=1000)
running.show(app)
J = jpype.JClass
IJ, WM = J("ij.IJ"), J("ij.WindowManager")
told = {"about": str(app)}


def wait(what, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.1)
    raise TimeoutError(f"nothing after {seconds} s; windows: "
                       f"{[str(w) for w in J('java.awt.Window').getWindows() if w.isVisible()]}")


def dialog():
    kind = J("ij.gui.GenericDialog")
    for window in J("java.awt.Window").getWindows():
        if isinstance(window, kind) and window.isVisible():
            return window


def pixels(title):
    volume = volume_of(WM.getImage(title))
    return volume.read(0, volume.shape.z)


def shot(name):
    screen = J("java.awt.Toolkit").getDefaultToolkit().getScreenSize()
    picture = J("java.awt.Robot")().createScreenCapture(J("java.awt.Rectangle")(screen))
    J("javax.imageio.ImageIO").write(picture, "png", J("java.io.File")(str(shots / name)))


# The menu
bar = J("ij.Menus").getMenuBar()
menus = {str(bar.getMenu(n).getLabel()): bar.getMenu(n) for n in range(bar.getMenuCount())}
items = [menus["Plugins"].getItem(n) for n in range(menus["Plugins"].getItemCount())]
ours = [item for item in items if item.getLabel() == "NRRN"]
told["menus"] = len(ours)
told["items"] = [str(ours[0].getItem(n).getLabel()) for n in range(ours[0].getItemCount())]

# The dialog, opened by the menu, recorded
IJ.run("Record...", "")
recorder = wait(J("ij.plugin.frame.Recorder").getInstance)
front = IJ.createImage("front", "8-bit ramp", 40, 30, 3)
IJ.run(front, "Add Noise", "stack")
front.show()
item = ours[0].getItem(0)
event = J("java.awt.event.ActionEvent")
J("java.awt.EventQueue").invokeLater(
    jpype.JProxy("java.lang.Runnable", {"run": lambda: IJ.getInstance().actionPerformed(
        event(item, event.ACTION_PERFORMED, item.getActionCommand()))}))
asked = wait(dialog)
time.sleep(0.5)
shot("dialog.png")
told["title"] = str(asked.getTitle())
told["models"] = [str(asked.getChoices().get(0).getItem(n))
                  for n in range(asked.getChoices().get(0).getItemCount())]
asked.getChoices().get(0).select("tiny")
fields = asked.getStringFields()
told["fields"] = fields.size()
fields.get(1).setText("1")  # after Slices: Units
ok = asked.getButtons()[0]
asked.actionPerformed(event(ok, event.ACTION_PERFORMED, "OK"))
wait(lambda: WM.getImage("front-denoised"))
time.sleep(0.5)
shot("result.png")
# The Recorder writes when the command has ended, a little after its window appears.
told["recorded"] = wait(lambda: [line for line in str(recorder.getText()).splitlines()
                                 if "Denoise" in line])[-1]
by_dialog = pixels("front-denoised")
WM.getImage("front-denoised").changes = False
WM.getImage("front-denoised").close()

# The recorded line, replayed with a screen
IJ.selectWindow("front")
fiji.run_macro(app, told["recorded"])
told["replayed"] = bool((pixels("front-denoised") == by_dialog).all())
told["active"] = str(WM.getCurrentImage().getTitle())

# Batch mode: the macro's own hidden image, not the front window
told["batch"] = fiji.run_macro(app, '''
setBatchMode(true);
newImage("hidden", "8-bit ramp", 20, 16, 2);
run("Denoise Stack...", "model=tiny");
return getTitle() + " " + getWidth() + " " + nSlices;
''')

# An error, as a macro in the GUI sees it: its window is closed as a user would
def answer():
    box = wait(dialog)
    told["said"] = " ".join(str(getattr(part, "getText", part.getName)()) for part in
                            box.getComponents())
    box.actionPerformed(event(box.getButtons()[0], event.ACTION_PERFORMED, "OK"))
threading.Thread(target=answer, daemon=True).start()
try:
    then = 'newImage("on", "8-bit", 9, 9, 1);'
    fiji.run_macro(app, '\nrun("Denoise Stack...", "model=nosuch");\n' + then)
except RuntimeError as error:
    told["error"] = str(error)
told["on"] = WM.getImage("on") is not None

for number in list(WM.getIDList() or []):
    WM.getImage(int(number)).changes = False
recorder.close() if not hasattr(recorder, "dispose") else recorder.dispose()
IJ.getInstance().quit()
running.wait_until_quit()
print("TOLD", json.dumps(told))
"""


def test_menu_dialog_recorder_and_batch_mode(
    app: jvm.ImageJ, screen: str, in_new_python: Run, tmp_path: Path
) -> None:
    import torch

    from nrrn_fiji.models import save_model
    from nrrn_fiji.network import NRRN

    torch.manual_seed(3)
    models = tmp_path / "models"
    models.mkdir()
    save_model(models / "tiny.safetensors", NRRN(units=2, maps=4), {})
    where = None if app.fiji is None else str(app.fiji)
    script = SCRIPT.replace("sys.argv[1]", repr(json.dumps(where))).replace(
        "sys.argv[2]", repr(str(tmp_path))
    )
    done = in_new_python(script, DISPLAY=screen, NRRN_MODELS=str(models))
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("TOLD "))
    told: dict[str, Any] = json.loads(line.removeprefix("TOLD "))

    assert "on a screen" in told["about"]
    assert told["menus"] == 1
    assert told["items"][:8] == [
        "Denoise Stack...",
        "Preview...",
        "Train on This Stack...",
        "Add Noise...",
        "Measure Noise...",
        "Compare...",
        "Models...",
        "Help",
    ]
    assert told["title"] == "Denoise Stack"
    assert "tiny" in told["models"]
    assert told["fields"] == 3  # slices, units, intensity; experts' settings are for macros
    assert told["recorded"].startswith('run("Denoise Stack...", "model=tiny ')
    assert "units=1" in told["recorded"]
    assert told["replayed"]
    assert told["active"] == "front-denoised"
    assert told["batch"] == "hidden-denoised 20 2"
    assert "nosuch" in told["error"]
    assert "line 2" in told["error"]
    assert not told["on"]
    for picture in ("dialog.png", "result.png"):
        assert (tmp_path / picture).stat().st_size > 1000
