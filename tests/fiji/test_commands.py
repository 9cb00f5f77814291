"""Preview…, Train on This Stack…, Compare, Models… and Help in macros without a screen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nrrn_fiji.fiji import jvm


@pytest.fixture(autouse=True)
def clean(java: Any) -> Iterator[None]:
    """Every test begins and ends without open images."""
    yield
    java("ij.IJ").runMacro('close("*");')


NOISY = """
newImage("cortex.tif", "8-bit ramp", 90, 70, 5);
run("Add Noise...", "gaussian=20 seed=1");
rename("cortex noisy.tif");
setSlice(3);
"""


def run(app: jvm.ImageJ, text: str) -> Any:
    from nrrn_fiji.fiji.app import run_macro

    return run_macro(app, text)


def pixels(imp: Any) -> np.ndarray[Any, Any]:
    from nrrn_fiji.fiji.images import volume_of

    volume = volume_of(imp)
    return volume.read(0, volume.shape.z)


def image(java: Any, title: str) -> Any:
    ids = java("ij.WindowManager").getIDList()
    found = [java("ij.WindowManager").getImage(int(i)) for i in ids or ()]
    return next(imp for imp in found if imp.getTitle() == title)


def test_every_command_has_its_keys_in_its_labels(app: jvm.ImageJ, java: Any) -> None:
    from nrrn_fiji.fiji.dialogs import label_of
    from nrrn_fiji.fiji.entries import entries

    trim = java("ij.Macro").trimKey  # by which ImageJ's Recorder makes keys of labels
    for entry in entries():
        assert entry.summary
        assert [str(trim(label_of(o))) for o in entry.options] == [o.name for o in entry.options]
        assert not any(o.default for o in entry.options if o.kind.name == "FLAG")


def test_help_counts_slices_as_the_dialog_does(app: jvm.ImageJ) -> None:
    from nrrn_fiji.fiji.dialogs import help_of
    from nrrn_fiji.fiji.entries import entries

    pages = [help_of(entry) for entry in entries()]
    assert any("3-9, counted from 1" in page for page in pages)
    assert not any("counted from 0" in page or "`nrrn" in page for page in pages)


def test_no_command_takes_the_name_of_another(app: jvm.ImageJ, java: Any) -> None:
    from nrrn_fiji.fiji.plugin import install

    commands = java("ij.Menus").getCommands()
    for entry in install(app).entries.values():
        assert str(commands.get(entry.command)) == f'nrrn.Bridge("{entry.key}")'


# --- Preview


@pytest.mark.parametrize(
    ("draw", "inside"),
    [("", np.s_[:, :]), ("makeRectangle(20, 30, 25, 15);", np.s_[30:45, 20:45])],
)
def test_a_preview_is_what_denoising_gives_there(
    app: jvm.ImageJ, java: Any, model: str, draw: str, inside: Any
) -> None:
    import nrrn_fiji

    told = run(
        app, f'{NOISY}{draw} run("NRRN Preview...", "model=[{model}] units=1"); return getTitle();'
    )
    assert told == "Preview of cortex noisy.tif"
    stack = pixels(image(java, "cortex noisy.tif"))
    expected = nrrn_fiji.denoise(stack, model, units=1)[2][inside].astype(float)
    got = pixels(image(java, told))[0]
    assert np.abs(got - expected).max() <= 1  # at most by rounding to whole grey values
    assert (got == expected).mean() > 0.99
    assert np.abs(got - stack[2][inside]).max() > 1  # the model does something


def test_a_preview_after_each_unit(app: jvm.ImageJ, java: Any, model: str) -> None:
    import nrrn_fiji

    told = run(
        app,
        f'{NOISY} run("NRRN Preview...", "model=[{model}] each"); labels = "";'
        'for (i = 1; i <= nSlices; i++) { setSlice(i); labels += getInfo("slice.label") + ","; }'
        "return labels;",
    )
    assert told == "after unit 1,after unit 2,final,"
    stack = pixels(image(java, "cortex noisy.tif"))
    expected = nrrn_fiji.denoise(stack, model, return_units=True).units[:, 2]
    got = pixels(image(java, "Preview of cortex noisy.tif"))
    np.testing.assert_allclose(got, expected, atol=0.01)


def test_settings_are_previewed_as_one_picture(
    app: jvm.ImageJ, java: Any, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nrrn_fiji.jobs import preview as preview_job

    monkeypatch.setattr(preview_job, "estimate_seconds", lambda network, plan, count: 1.0)
    macro = f'{NOISY} run("NRRN Preview Settings...", "strengths=0.5,0.75 crops=1 size=32");'
    told = run(app, f'{macro} return getTitle() + "," + getWidth() + "," + getHeight();')
    title, width, height = told.split(",")
    assert title == "cortex noisy.tif preview"
    # Three models' rows at least, and two more strengths, each of 8 * 32 pixels.
    assert int(width) > 700 and int(height) > 4 * 256
    colours = np.array(image(java, title).getProcessor().getPixels())  # grey images, coloured words
    assert len(np.unique(colours)) > 50


def test_channels_are_called_channels(app: jvm.ImageJ, java: Any, model: str) -> None:
    from nrrn_fiji.fiji.dialogs import concerns, label_of
    from nrrn_fiji.fiji.stacks import denoise_entry

    entry = denoise_entry()
    assert entry.note is not None
    slices = next(option for option in entry.options if option.name == "slices")
    make = java("ij.IJ").createHyperStack
    for counts, amount, label in (
        ((8, 1, 1), "8 channels", "Slices (all when empty)"),
        ((2, 5, 1), "5 slices x 2 channels", "Slices (1-5, all when empty)"),
        ((1, 5, 3), "5 slices x 3 time points", "Slices (1-5, all when empty)"),
        ((1, 5, 1), "5 slices", "Slices (1-5, all when empty)"),
        ((1, 1, 1), "1 slice", None),
    ):
        imp = make("many", 20, 16, *counts, 8)
        assert f" for {amount} (" in entry.note(imp, {"model": model})
        assert concerns(slices, imp) == (label is not None)
        assert label is None or label_of(slices, imp) == label
    deep = make("deep", 20, 16, 8, 1, 1, 8)  # its slices were saved as channels
    assert " for 3 slices (" in entry.note(
        deep, {"model": model, "z_axis": "C", "slices": range(2, 5)}
    )


def test_a_preview_that_is_not_possible(app: jvm.ImageJ, model: str) -> None:
    for before, options, message in (
        ("", f"model=[{model}]", "No image is open"),
        (NOISY, f"model=[{model}] units=7", "units is 7"),
        (NOISY, "model=nosuch", "No model is named 'nosuch'"),
        ('newImage("a", "RGB ramp", 9, 9, 1);', f"model=[{model}]", "RGB colour image"),
    ):
        with pytest.raises(RuntimeError, match=message):
            run(app, f'{before} run("NRRN Preview...", "{options}");')


def test_work_that_nobody_waits_for_is_given_up(app: jvm.ImageJ, java: Any, model: str) -> None:
    from nrrn_fiji.fiji.images import volume_of
    from nrrn_fiji.fiji.preview import preview_of
    from nrrn_fiji.progress import Cancelled

    volume = volume_of(java("ij.IJ").createImage("r", "8-bit ramp", 40, 30, 3))
    with pytest.raises(Cancelled):
        preview_of(volume, (0, 1, 0), None, {"model": model}, stale=lambda: True)


def test_a_watcher_waits_until_typing_has_ended_and_says_what_is_out_of_date() -> None:
    import threading

    from nrrn_fiji.fiji.dialogs import watched

    typed, seen, stale = ["a"], [], []
    rested = threading.Event()

    def changed(text: str, out_of_date: Any) -> None:
        seen.append(text)
        stale.append(out_of_date())
        if text == "a":
            typed[0] = "abc"
            stale.append(out_of_date())
        else:
            rested.set()

    with watched(lambda: typed[0], changed):
        assert rested.wait(900)
    assert seen == ["a", "abc"]
    assert stale == [False, True, False]


# --- Train


def test_a_trained_model_is_in_the_list_and_denoises(
    app: jvm.ImageJ, java: Any, user_models: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from nrrn_fiji.models import known_models, load_model

    options = "units=1 maps=2 steps=30 crop=16 batch=2 seed=1"
    told = run(
        app,
        f'{NOISY} run("Train on This Stack...", "{options}"); before = getTitle();'
        'run("Denoise Stack...", "model=cortex-noisy"); return before + "|" + getTitle();',
    )
    assert told == "cortex noisy.tif|cortex noisy-denoised.tif"
    assert "cortex-noisy" in {entry.name for entry in known_models()}
    card = load_model("cortex-noisy").card["training"]
    assert (card["ended"], card["steps"]) == ("finished", 30)
    assert [file.name for file in user_models.iterdir()] == ["cortex-noisy.safetensors"]
    assert "Trained cortex-noisy: the best of 30 steps" in capfd.readouterr().out
    assert not image(java, "cortex noisy.tif").isLocked()
    # The next one gets a name of its own; a name that is taken is refused before any work.
    run(app, f'selectImage("cortex noisy.tif"); run("Train on This Stack...", "{options}");')
    assert "cortex-noisy-2" in {entry.name for entry in known_models()}
    with pytest.raises(RuntimeError, match="A model named cortex-noisy is there already"):
        run(
            app,
            'selectImage("cortex noisy.tif");'
            'run("Train on This Stack...", "name=cortex-noisy steps=1000000");',
        )


def test_esc_ends_a_training_early_and_keeps_the_best_model(
    app: jvm.ImageJ,
    java: Any,
    monkeypatch: pytest.MonkeyPatch,
    user_models: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from nrrn_fiji.fiji import tasks
    from nrrn_fiji.models import load_model

    def press_escape(self: Any, done: float, total: float, text: str = "") -> None:
        if done == 40:
            java("ij.IJ").setKeyDown(java("java.awt.event.KeyEvent").VK_ESCAPE)

    monkeypatch.setattr(tasks.ImageJProgress, "update", press_escape)
    told = run(
        app,
        f'{NOISY} run("Train on This Stack...", "name=mine units=1 maps=2 steps=100000 crop=16'
        ' batch=2"); return getTitle();',
    )
    assert told == "cortex noisy.tif"  # no error: the macro goes on with the model
    card = load_model("mine").card["training"]
    assert (card["ended"], card["steps"]) == ("stopped", 40)
    assert "ended early: the best model so far is kept" in capfd.readouterr().out
    assert [file.name for file in user_models.iterdir()] == ["mine.safetensors"]


def test_scans_of_one_slice_are_trained_on_by_the_papers_objective(
    app: jvm.ImageJ, user_models: Path
) -> None:
    from nrrn_fiji.models import load_model

    options = "name=of-scans scans units=1 maps=2 steps=30 crop=16 batch=2"
    run(app, f'{NOISY} run("Train on This Stack...", "{options}");')
    card = load_model("of-scans").card["training"]
    assert card["objective"] == "consensus"
    assert card["settings"]["scans"] is True


def test_a_training_that_is_not_possible(app: jvm.ImageJ, user_models: Path) -> None:
    for before, options, message in (
        ("", "steps=9", "No image is open"),
        (NOISY, "name=[my model] steps=9", "name is 'my model', but a model's name is made of"),
        (NOISY, "steps=9 minutes=2", "only one of them"),
        (NOISY, "steps=0", "steps is 0, but it must be at least 1"),
        (NOISY, "fine_tune=nosuch", "No model is named 'nosuch'"),
        ('newImage("a", "8-bit black", 90, 90, 5);', "steps=9", "same grey value 0 everywhere"),
        ('newImage("a", "RGB ramp", 90, 90, 5);', "steps=9", "RGB colour image"),
    ):
        with pytest.raises(RuntimeError, match=message):
            run(app, f'{before} run("Train on This Stack...", "{options}");')
        assert not user_models.exists() or not list(user_models.iterdir())


def test_the_loss_plot_holds_loss_and_held_out_error(app: jvm.ImageJ) -> None:
    from nrrn_fiji.fiji.training import loss_plot
    from nrrn_fiji.training import History

    history = History([0.4, 0.2, 0.1], [1e-3] * 3, [(2, 0.3), (3, 0.15)])
    plot = loss_plot("Training", history)
    assert list(plot.getDataObjectArrays(0)[1]) == pytest.approx([0.4, 0.2, 0.1])
    assert list(plot.getDataObjectArrays(1)[0]) == [2, 3]
    assert list(plot.getDataObjectArrays(1)[1]) == pytest.approx([0.3, 0.15])


# --- Compare, Models, Help


def test_comparing_needs_a_screen(app: jvm.ImageJ) -> None:
    with pytest.raises(RuntimeError, match="Comparing needs windows to look at"):
        run(app, f'{NOISY} run("NRRN Compare...", "first=[cortex noisy.tif] second=cortex.tif");')


def test_the_pair_to_compare_is_a_result_and_its_source(
    app: jvm.ImageJ, java: Any, model: str
) -> None:
    from nrrn_fiji.fiji.compare import likely_pair

    run(app, f'{NOISY} run("Denoise Stack...", "model=[{model}]"); rename("other name");')
    pair = {"first": "cortex noisy.tif", "second": "other name"}
    assert likely_pair(image(java, "other name")) == pair
    assert likely_pair(image(java, "cortex noisy.tif")) == pair


def test_models_are_imported_listed_shown_and_removed(
    app: jvm.ImageJ, model: str, user_models: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(app, f'run("NRRN Models...", "action=import file=[{model}] name=mine");')
    assert (user_models / "mine.safetensors").exists()
    run(
        app,
        'run("NRRN Models...", "action=list");run("NRRN Models...", "action=show model=mine");',
    )
    again = f"action=import file=[{model}] name=mine"
    with pytest.raises(RuntimeError, match="or replace it with the option overwrite"):
        run(app, f'run("NRRN Models...", "{again}");')
    run(app, f'run("NRRN Models...", "{again} overwrite");')
    log = capfd.readouterr().out
    assert "installed" in log
    assert "mine: 2 units × 4 maps" in log
    assert "small and quick" in log
    run(app, 'run("NRRN Models...", "action=remove model=mine");')
    assert not list(user_models.iterdir())
    for options, message in (
        ("action=show", "model is missing: choose which model to show"),
        ("action=import", "file is missing"),
        ("action=import file=/no/such.safetensors", "no/such.safetensors"),
        ("action=remove model=mine", "No model is named 'mine'"),
        ("action=burn", "action is 'burn', but it must be one of list, show, import, remove"),
    ):
        with pytest.raises(RuntimeError, match=message):
            run(app, f'run("NRRN Models...", "{options}");')


def test_help_names_every_command_and_key(
    app: jvm.ImageJ, capfd: pytest.CaptureFixture[str]
) -> None:
    from nrrn_fiji.fiji.library import help_page
    from nrrn_fiji.fiji.plugin import install

    run(app, 'run("NRRN Help");')
    log, page = capfd.readouterr().out, help_page(install(app))
    for entry in install(app).entries.values():
        assert entry.command in log
        assert entry.command in page
        assert all(option.name in page for option in entry.options)
