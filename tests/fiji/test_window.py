"""``nrrn fiji`` on a screen: Fiji opens with its menu, whatever is installed, and ends cleanly."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nrrn_fiji.fiji import jvm, scripts

Run = Callable[..., "subprocess.CompletedProcess[str]"]

# The command itself; a thread does what a user does, who looks at the menu and quits.
SCRIPT = r"""
import sys, threading, time
import jpype
from nrrn_fiji import cli

found = []

def labels():
    bar = jpype.JClass("ij.Menus").getMenuBar()
    menus = [bar.getMenu(n) for n in range(bar.getMenuCount())]
    plugins = [m for m in menus if m.getLabel() == "Plugins"][0]
    items = [plugins.getItem(n) for n in range(plugins.getItemCount())]
    ours = [item for item in items if item.getLabel() == "NRRN"]
    return [str(m.getItem(n).getLabel()) for m in ours for n in range(m.getItemCount())]

def user():
    from nrrn_fiji.fiji import app
    while not app.WAITING.is_set():
        time.sleep(0.1)
    found.extend(labels())
    HOW

threading.Thread(target=user, daemon=True).start()
code = cli.main(["fiji", *WORDS])
import json
from nrrn_fiji.fiji import installed
print("TOLD", json.dumps([code, found, str(installed.remembered_fiji())]))
"""
BY_MENU = 'jpype.JClass("ij.IJ").getInstance().quit()'
BY_CONTROL_C = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"


def opened(
    run: Run, screen: str, config: Path, words: list[str], how: str = BY_MENU
) -> tuple[int, list[str], str]:
    """Exit code, the entries of the menu, and the folder that is remembered."""
    script = SCRIPT.replace("WORDS", repr(words)).replace("HOW", how)
    done = run(script, DISPLAY=screen, XDG_CONFIG_HOME=str(config))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("TOLD "))
    code, found, remembered = json.loads(line.removeprefix("TOLD "))
    return code, found, remembered


@pytest.mark.parametrize("how", [BY_MENU, BY_CONTROL_C], ids=["quit", "Ctrl-C"])
def test_imagej_opens_and_ends(
    app: jvm.ImageJ, screen: str, in_new_python: Run, tmp_path: Path, how: str
) -> None:
    code, found, remembered = opened(in_new_python, screen, tmp_path, ["--imagej"], how)
    assert code == 0
    assert found[0] == "Denoise Stack..."
    assert remembered == "None"


@pytest.mark.fiji
def test_nothing_is_in_the_menu_twice(
    app: jvm.ImageJ, screen: str, in_new_python: Run, tmp_path: Path
) -> None:
    assert app.fiji is not None
    fiji = tmp_path / "Fiji.app"
    try:
        shutil.copytree(app.fiji, fiji, copy_function=os.link)
    except (OSError, shutil.Error):
        pytest.skip("NOT RUN: needs the Fiji folder on the same disk as the temporary folder")
    scripts.install_scripts(fiji)
    menu = fiji / "scripts" / "Plugins" / "NRRN"
    (menu / "Denoise_Stack.ijm").write_text('print("the same command again");')
    (menu / "My_Own.ijm").write_text('print("of the user");')

    code, found, remembered = opened(in_new_python, screen, tmp_path, ["--fiji", str(fiji)])
    assert code == 0
    plain = [label.rstrip(".") for label in found]
    assert len(plain) == len(set(plain)), found
    assert {"Denoise Stack...", "Denoise Folder", "My Own"} <= set(found)
    assert remembered == str(fiji)
