"""With a screen: what every command of the menu does in ImageJ's windows.

One session in one ImageJ plays the scenes of the tests that run (``screen_session.py``); the tests
look at what it saw.
Pictures of the screen are kept beside, in pytest's temporary folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import copied_fiji
from leftovers import has_ended

from nrrn_fiji.fiji import jvm, scripts

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
SECONDS = 1800
ORDINARY = ("escape", "killed", "end")
NEEDS = {"search": "menu", "killed": "denoise", "end": "denoise"}
"""Scenes that go on from another one."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder for pictures of the screen."""
    return tmp_path_factory.mktemp("pictures")


def scene_of(item: pytest.Item) -> str:
    """Return the name of the scene that a test is about."""
    return item.name.removeprefix("test_").partition("[")[0]


@pytest.fixture(scope="module", params=["ours", pytest.param("ordinary", marks=pytest.mark.fiji)])
def told(
    request: pytest.FixtureRequest,
    app: jvm.ImageJ,
    screen: str,
    pictures: Path,
    model: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """Return what the session saw, by scene: in an ImageJ that Python started, or that Java did."""
    models = tmp_path_factory.mktemp("models")
    shutil.copy(model, models)
    words = ["" if app.fiji is None else str(app.fiji), str(pictures), "ours"]
    if request.param == "ordinary":
        assert app.fiji is not None
        copy = copied_fiji(app.fiji, tmp_path_factory.mktemp("ordinary"))
        scripts.install_scripts(copy)
        words = [str(copy), str(pictures), "ordinary"]
    scenes = {scene_of(item) for item in request.session.items if item.path == Path(__file__)}
    scenes |= {NEEDS[name] for name in scenes if name in NEEDS}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(HERE / "screen_session.py"), *words, *sorted(scenes)],
        env={
            **os.environ,
            "PYTHONPATH": str(CHECKOUT),
            "DISPLAY": screen,
            "NRRN_MODELS": str(models),
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("TOLD "))
    return dict(json.loads(line.removeprefix("TOLD ")))


@pytest.fixture
def seen(told: dict[str, Any], request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return what the scene saw that a test is named after."""
    name = scene_of(request.node)
    if name in ORDINARY and name not in told:
        pytest.skip("a scene of an ordinary Fiji alone")
    scene: dict[str, Any] = told[name]
    assert "failed" not in scene, scene["failed"]
    return scene


def test_menu(told: dict[str, Any], seen: dict[str, Any]) -> None:
    assert "on a screen" in told["about"]
    assert seen["menus"] == 1
    wanted = ["Denoise Stack...", "Denoise File...", "Preview...", "Preview Settings..."]
    wanted += ["Train on This Stack...", "Add Noise..."]
    wanted += ["Align and Average Scans...", "Measure Noise...", "Compare...", "Models...", "Help"]
    # In an ordinary Fiji an entry is called what macros call it.
    items = [label if label in wanted else label.removeprefix("NRRN ") for label in seen["items"]]
    assert [label for label in items if label in wanted] == wanted


@pytest.mark.fiji
def test_search(told: dict[str, Any], seen: dict[str, Any]) -> None:
    (path,) = seen["paths"]  # once
    assert path.split() == ["Plugins", "›", "NRRN", "›", "Denoise", "Stack..."]
    assert seen["items"] == told["menu"]["items"]  # nothing twice


def test_denoise(seen: dict[str, Any], pictures: Path) -> None:
    assert {"tiny", "fibsem-medulla"} <= set(seen["models"])
    assert seen["fields"] == 3  # slices, units, intensity; experts' settings are for macros
    assert seen["recorded"].startswith('run("Denoise Stack...", "model=tiny ')
    assert "units=1" in seen["recorded"]
    assert "for 3 slices" in seen["time"]
    assert seen["slice"] == 3  # that of the source
    assert seen["slider"]  # stands there
    assert seen["replayed"]
    assert seen["active"]  # the result
    assert seen["batch"] == "hidden-denoised 20"
    assert "nosuch" in seen["error"]
    assert "line 2" in seen["error"]
    assert not seen["went on"]
    for name in ("denoise-dialog", "denoise-result"):
        assert (pictures / f"{name}.png").stat().st_size > 1000


def test_preview(seen: dict[str, Any]) -> None:
    assert seen["different"]  # the model does something
    assert seen["slice"]
    assert seen["setting"]
    assert seen["moved"]
    assert seen["selection"]
    assert seen["note"] == "Shown: the selection in slice 5."
    assert "units is 7" in seen["refused"]
    assert seen["labels"] == ["after unit 1", "after unit 2", "final"]
    assert seen["still there"]  # the dialog, whoever asks for help
    assert seen["gone"]
    assert seen["kept"]
    assert seen["unchanged"]
    assert seen["cropped"]
    assert seen["size"] == [5, 25, 30]


def test_train(seen: dict[str, Any]) -> None:
    assert seen["name"] == "front"
    assert "20 min, about " in seen["time"]
    assert "masked objective, 3 units x 32 maps" in seen["time"]
    assert "for 100000 steps (cpu" in seen["steps"] or "for 100000 steps (cuda" in seen["steps"]
    assert seen["live"]
    assert seen["sample"] == [2 * 64 + 4, 64]
    assert seen["enlarged"]  # small samples are shown large
    assert seen["locked"]  # while it ran, and the windows answered
    assert seen["ended"] == "stopped"
    assert 0 < seen["best"] <= seen["steps taken"] < 4000
    assert seen["unchanged"]
    assert "mine" in seen["models"]
    assert seen["goes on"]  # a macro, with the stack


def test_compare(seen: dict[str, Any]) -> None:
    assert seen["pair"] == ["front", "front-denoised"]
    assert seen["active"]
    assert seen["beside"]
    assert seen["slice"]
    assert seen["slider"]
    assert seen["slice back"]
    assert seen["zoom"]
    assert seen["part"]


def test_measure(seen: dict[str, Any]) -> None:
    assert [row["image"] for row in seen["rows"]] == ["front", "front-denoised"]
    for row in seen["rows"]:
        assert row["iqr"][0] == pytest.approx(row["iqr"][1], abs=0.01)
        assert row["sd"][0] == pytest.approx(row["sd"][1], abs=0.01)
    assert seen["curves"] == [81, 81]
    assert seen["boxes"] >= 2
    assert seen["selection"] == "Straight Line"
    assert seen["goes on"]  # a macro, with its image


def test_add_noise(seen: dict[str, Any]) -> None:
    assert seen["deviation"] == pytest.approx(25, abs=1.5)


def test_align(seen: dict[str, Any]) -> None:
    assert seen["sizes"] == [1, 4]
    assert seen["shifts"] == pytest.approx([0, -2, -5, -9], abs=0.3)
    assert seen["active"]  # the average


def test_models(seen: dict[str, Any]) -> None:
    assert "tiny" in seen["list"]
    assert "fibsem-medulla" in seen["list"]
    assert "small and quick" in seen["card"]


def test_show_help(seen: dict[str, Any]) -> None:
    assert "Denoise Stack..." in seen["text"]
    assert "Esc stops" in seen["text"]


# --- an ordinary Fiji alone


def test_escape(seen: dict[str, Any]) -> None:
    assert seen["titles"] == ["long"]
    assert seen["shared"] == 0


def test_killed(seen: dict[str, Any]) -> None:
    assert "Python has ended unexpectedly" in seen["told"]
    assert "every image is as it was" in seen["told"]
    assert not seen["locked"]
    assert seen["shared"] == 0
    assert seen["next"]
    assert seen["new"]


def test_end(seen: dict[str, Any]) -> None:
    assert seen["shared"] == 0
    assert has_ended(seen["worker"])  # with Fiji
