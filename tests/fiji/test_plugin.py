"""Denoise Stack… in macros: as the Recorder writes it, headless, with ImageJ's own manners."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nrrn_fiji.fiji import jvm

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def no_images(java: Any) -> Iterator[None]:
    """Every test begins and ends without open images."""
    yield
    java("ij.IJ").runMacro('close("*");')


NEW = """
newImage("cortex.tif", "16-bit ramp", 20, 16, 4);
run("Add Specified Noise...", "stack standard=900");
run("Properties...", "channels=1 slices=4 frames=1 unit=nm pixel_width=4 pixel_height=4"
    + " voxel_depth=30");
setMinAndMax(100, 50000);
"""


def run(app: jvm.ImageJ, text: str, argument: str = "") -> Any:
    from nrrn_fiji.fiji.app import run_macro

    return run_macro(app, text, argument)


def pixels(imp: Any) -> np.ndarray[Any, Any]:
    from nrrn_fiji.fiji.images import volume_of

    volume = volume_of(imp)
    return volume.read(0, volume.shape.z)


def image(java: Any, title: str) -> Any:
    ids = java("ij.WindowManager").getIDList()
    found = [java("ij.WindowManager").getImage(int(i)) for i in ids or ()]
    return next(imp for imp in found if imp.getTitle() == title)


# --- options


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("units=3", {"units": 3}),
        ("Units=3 scans", {"units": 3, "scans": True}),
        ("model=[my model] images=2", {"model": "my model", "images": 2}),
        ("model=[/a [b]/c.safetensors] noise", {"model": "/a [b]/c.safetensors", "noise": True}),
        ("units=[] device=auto precision=auto tile=", {}),
        ("intensity=10,200", {"intensity": (10.0, 200.0)}),
        ("slices=2-3", {"slices": range(1, 3)}),
        ("slices=1:3", {"slices": range(1, 3)}),
        ("scans=false", {"scans": False}),
    ],
)
def test_macro_options(text: str, expected: dict[str, Any]) -> None:
    from nrrn_fiji.fiji.entries import entries
    from nrrn_fiji.fiji.macro_options import parse_macro_options

    assert parse_macro_options(text, entries()[0].options, "Denoise Stack...") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unit=3", r"'unit' is no option of 'Denoise Stack\.\.\.': use model, .*units"),
        ("out=x.tif", r"'out' is no option"),
        ("units=many", r"units is 'many', but it must be a whole number"),
        ("images=4", r"images is '4', but it must be one of 1, 2, 3"),
        ("slices=3-2", r"slices is '3-2', but it must be FIRST-LAST, counted from 1"),
        ("slices=0-2", r"slices is '0-2', but it must be FIRST-LAST, counted from 1"),
        ("model=[a b", r"not understood from .*\[a b"),
    ],
)
def test_options_that_are_not_understood(text: str, message: str) -> None:
    from nrrn_fiji.fiji.entries import entries
    from nrrn_fiji.fiji.macro_options import parse_macro_options

    with pytest.raises(ValueError, match=message):
        parse_macro_options(text, entries()[0].options, "Denoise Stack...")


def test_every_setting_is_a_macro_key_and_every_label_begins_with_its_key(app: jvm.ImageJ) -> None:
    import dataclasses

    import jpype

    from nrrn_fiji.fiji.dialogs import label_of
    from nrrn_fiji.fiji.entries import entries
    from nrrn_fiji.settings import DenoiseSettings

    options = entries()[0].options
    names = {option.name for option in options}
    assert {field.name for field in dataclasses.fields(DenoiseSettings)} <= names
    assert {"model", "slices", "noise"} <= names
    trim = jpype.JClass("ij.Macro").trimKey  # by which ImageJ's Recorder makes keys of labels
    assert [str(trim(label_of(option))) for option in options] == [o.name for o in options]
    # A check box that a macro leaves out is off, so off must be the default.
    assert not any(option.default for option in options if option.kind.name == "FLAG")


# --- macros


def test_a_macro_gets_the_pixels_of_the_python_api_as_its_active_image(
    app: jvm.ImageJ, java: Any, model: str
) -> None:
    import nrrn_fiji

    told = run(
        app,
        f'{NEW} run("Denoise Stack...", "model=[{model}] units=1 images=3");'
        "getVoxelSize(w, h, d, unit); getMinAndMax(low, high);"
        'return getTitle() + " " + nSlices + " " + bitDepth() + " " + d + unit + " " + high;',
    )
    assert told == "cortex-denoised.tif 4 16 30nm 50000"
    source, result = image(java, "cortex.tif"), image(java, "cortex-denoised.tif")
    stack = pixels(source)
    expected = nrrn_fiji.denoise(stack, model, units=1)
    assert np.array_equal(pixels(result), expected)
    assert not np.array_equal(pixels(result), stack)  # the model does something
    line = str(result.getProperty("Info")).splitlines()[-1]
    record = json.loads(line.removeprefix("nrrn: "))
    assert record["settings"] == {"units": 1}
    assert record["model"]["name"] == "tiny"
    assert record["input"] == "cortex.tif"
    assert not source.isLocked()


def test_slices_noise_and_names(app: jvm.ImageJ, java: Any, model: str) -> None:
    import nrrn_fiji

    text = f'{NEW} for (i = 0; i < 2; i++) {{ selectImage("cortex.tif");'
    told = run(
        app,
        f'{text} run("Denoise Stack...", "model=[{model}] slices=2-3 noise"); }}'
        'list = getList("image.titles"); return String.join(list, " ") + " : " + getTitle();',
    )
    assert told == (
        "cortex.tif cortex-noise.tif cortex-denoised.tif cortex-noise-1.tif cortex-denoised-1.tif"
        " : cortex-denoised-1.tif"
    )
    stack = pixels(image(java, "cortex.tif"))
    whole = nrrn_fiji.denoise(stack, model)
    part = pixels(image(java, "cortex-denoised.tif"))
    # The neighbours outside of the range are still looked at; the grey range is the stack's.
    assert np.array_equal(part, whole[1:3])
    noise = pixels(image(java, "cortex-noise.tif"))
    assert noise.dtype == np.float32
    assert np.abs(noise - (stack[1:3].astype(float) - part)).max() <= 0.5001  # before rounding


def test_a_variable_of_the_macro_as_a_value(app: jvm.ImageJ, java: Any, model: str) -> None:
    run(
        app,
        f'{NEW} path = "{model}"; count = 1;run("Denoise Stack...", "model=&path units=&count");',
    )
    info = str(image(java, "cortex-denoised.tif").getProperty("Info"))
    assert '"settings": {"units": 1}' in info
    with pytest.raises(RuntimeError, match="The macro has no variable 'nothing'"):
        run(app, f'{NEW} run("Denoise Stack...", "model=&nothing");')


def test_channels_and_time_points_are_stacks_of_their_own(
    app: jvm.ImageJ, java: Any, model: str
) -> None:
    import nrrn_fiji

    run(
        app,
        'newImage("hyper", "8-bit color-mode label", 12, 10, 2, 3, 2);'
        f'run("Denoise Stack...", "model=[{model}]");',
    )
    from nrrn_fiji.fiji.images import volume_of

    source, result = volume_of(image(java, "hyper")), volume_of(image(java, "hyper-denoised"))
    assert source.shape == result.shape == (2, 2, 3, 10, 12)
    for t in range(2):
        for c in range(2):
            expected = nrrn_fiji.denoise(source.read(0, 3, channel=c, time=t), model)
            assert np.array_equal(result.read(0, 3, channel=c, time=t), expected)


def test_no_options_take_the_defaults_and_open_no_dialog(app: jvm.ImageJ) -> None:
    from nrrn_fiji.fiji.plugin import install

    plugin = install(app)
    assert plugin.without_dialogs(None)
    assert plugin.given(plugin.entries["denoise"], None) == {}
    assert plugin.given(plugin.entries["denoise"], " ") == {}
    assert install(app) is plugin


# --- errors


@pytest.mark.parametrize(
    ("before", "options", "message"),
    [
        (
            NEW,
            "unit=1",
            r"'unit' is no option of 'Denoise Stack\.\.\.'.*\(line 9 of the macro\)\.$",
        ),
        (NEW, "model=no-such-model", r"no-such-model.*\(line 9 of the macro\)"),
        (NEW, "model=MODEL units=7", r"units is 7.*\(line 9"),
        (NEW, "model=MODEL slices=3-9", r"slices is 2:9, but cortex.tif has slices 0:4"),
        (NEW, "model=MODEL device=abacus", r"device is 'abacus'"),
        ("\n" * 6, "model=MODEL", r"No image is open: open a stack first \(line 9"),
        (NEW + 'run("RGB Color");', "model=MODEL", r"is an RGB colour image"),
    ],
)
def test_an_error_ends_the_macro_with_its_sentence_and_line(
    app: jvm.ImageJ, java: Any, model: str, before: str, options: str, message: str
) -> None:
    java("ij.IJ").log("\\Clear")
    options = options.replace("MODEL", f"[{model}]")
    with pytest.raises(RuntimeError, match=message):
        run(
            app,
            f'{before}\n\nrun("Denoise Stack...", "{options}");\nnewImage("on", "8-bit", 1, 1, 1);',
        )
    titles = [str(title) for title in java("ij.WindowManager").getImageTitles()]
    assert "on" not in titles  # nothing after the error ran
    assert not any("denoised" in title for title in titles)


def test_errors_that_are_not_ours(app: jvm.ImageJ) -> None:
    with pytest.raises(
        RuntimeError, match=r'Unrecognized command: "NoSuchThing\.\.\." \(line 2 of'
    ):
        run(app, '\nrun("NoSuchThing...");\nprint("on");')
    with pytest.raises(RuntimeError, match=r"Number or numeric function expected.*\(line 3 of"):
        run(app, "\n\nx = ;")
    missing = "\nopen('/no/such/file.tif');\nreturn 'went on';"
    with pytest.raises(RuntimeError, match=r"File not found: /no/such/file\.tif \(line 2 of"):
        run(app, missing)
    with pytest.raises(RuntimeError, match=r"ended itself with exit\(\)"):
        run(app, 'exit("enough");')
    assert run(app, "return getArgument() + 1;", "a") == "a1"  # and the next one runs


def test_an_image_in_use_is_left_alone_and_an_error_lets_go_of_it(
    app: jvm.ImageJ, java: Any, model: str
) -> None:
    from nrrn_fiji.fiji.plugin import install

    plugin = install(app)
    imp = java("ij.IJ").createImage("busy", "8-bit ramp", 9, 9, 2)
    java("ij.WindowManager").setTempCurrentImage(imp)
    try:
        owner = threading.Thread(target=imp.lock)  # a lock is its thread's
        owner.start()
        owner.join()
        with pytest.raises(ValueError, match="'busy' is in use by another command"):
            plugin.entries["denoise"].run(plugin, {"model": model})
        assert imp.isLocked()
        imp.unlock()
        with pytest.raises(ValueError, match="units is 7"):
            plugin.entries["denoise"].run(plugin, {"model": model, "units": 7})
        assert not imp.isLocked()
    finally:
        java("ij.WindowManager").setTempCurrentImage(None)


# --- progress and cancel


def test_esc_stops_and_leaves_every_image_as_it_was(
    app: jvm.ImageJ, java: Any, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nrrn_fiji.fiji import tasks as module
    from nrrn_fiji.progress import Cancelled

    seen = []

    def press_escape(self: Any, done: float, total: float, text: str = "") -> None:
        seen.append((done, total))
        java("ij.IJ").setKeyDown(java("java.awt.event.KeyEvent").VK_ESCAPE)

    monkeypatch.setattr(module.ImageJProgress, "update", press_escape)
    with pytest.raises(Cancelled):
        run(app, f'{NEW} run("Denoise Stack...", "model=[{model}] slab=1");')
    assert seen
    assert seen[-1][0] < 4  # stopped before the end
    titles = [str(title) for title in java("ij.WindowManager").getImageTitles()]
    assert not any("denoised" in title for title in titles)
    monkeypatch.undo()
    assert run(app, f'{NEW} run("Denoise Stack...", "model=[{model}]"); return getTitle();')


def test_progress_is_shown_and_esc_of_earlier_is_forgotten(app: jvm.ImageJ, java: Any) -> None:
    from nrrn_fiji.fiji.tasks import ImageJProgress

    java("ij.IJ").setKeyDown(java("java.awt.event.KeyEvent").VK_ESCAPE)
    progress = ImageJProgress(app, "Denoise")
    assert not progress.cancelled
    progress.update(1, 4, "working")
    java("ij.IJ").setKeyDown(java("java.awt.event.KeyEvent").VK_ESCAPE)
    assert progress.cancelled
    progress.close()
    java("ij.IJ").resetEscape()


def test_the_status_bar_says_first_what_matters_most(app: jvm.ImageJ, java: Any) -> None:
    from nrrn_fiji.fiji.tasks import ImageJProgress, shortened

    many = ["18 min left", "step 40", "loss 0.02131", "best error 0.02011 (step 25)"]
    assert shortened("Train", many) == "Train: 18 min left, step 40, loss 0.02131"
    assert shortened("Train", ["x" * 80]) == "Train: " + 48 * "x" + "…"
    shown: list[str] = []

    class Bar:
        def showStatus(self, text: str) -> None:
            shown.append(text)

        def showProgress(self, share: float) -> None:
            pass

    for counts in (True, False):
        progress = ImageJProgress(app, "Train", counts=counts)
        progress._ij, ij = Bar(), progress._ij
        progress.update(3, 3, "step 3, loss 0.1")
        progress._ij = ij
        progress.close()
    assert shown == ["Train: 3/3, step 3, loss 0.1", "Train: step 3, loss 0.1"]


@pytest.mark.fiji
def test_fijis_window_of_tasks_shows_the_job_and_its_red_x_cancels(app: jvm.ImageJ) -> None:
    from nrrn_fiji.fiji.tasks import ImageJProgress

    progress = ImageJProgress(app, "Denoise")
    progress.update(10, 40, "")
    assert (progress._task.getProgressValue(), progress._task.getProgressMaximum()) == (10, 40)
    assert str(progress._task.getStatusMessage()).startswith("10/40")
    assert not progress.cancelled
    progress._task.cancel("user")
    assert progress.cancelled
    progress.close()
    assert progress._task.isDone()


@pytest.mark.fiji
def test_a_dataset_in_gives_a_dataset(app: jvm.ImageJ, java: Any, model: str) -> None:
    import nrrn_fiji
    from nrrn_fiji.fiji.images import volume_of
    from nrrn_fiji.fiji.jobs import denoise_image

    imp = java("ij.IJ").createImage("ramp", "8-bit ramp", 20, 16, 3)
    dataset = app.gateway.convert().convert(imp, java("net.imagej.Dataset"))
    made = denoise_image(dataset, model, noise=True)
    assert isinstance(made.image, java("net.imagej.Dataset"))
    expected = nrrn_fiji.denoise(pixels(imp), model)
    assert np.array_equal(volume_of(made.image).read(0, 3), expected)
    assert volume_of(made.noise).dtype == np.float32


@pytest.mark.fiji
def test_a_gateway_that_the_user_has(in_new_python: Run, app: jvm.ImageJ, model: str) -> None:
    done = in_new_python(
        "import warnings\n"
        "from nrrn_fiji import fiji\n"
        f"ij = fiji.start({str(app.fiji)!r}).gateway\n"
        "from nrrn_fiji.fiji import jvm\n"
        "jvm._running = None  # as if someone else had started it\n"
        "app = fiji.register(ij)\n"
        "print(app)\n"
        'ramp = \'newImage("r", "8-bit ramp", 20, 16, 3);\'\n'
        f'command = \'run("Denoise Stack...", "model=[{model}]"); return getTitle();\'\n'
        "print(fiji.run_macro(app, ramp + command))\n"
        "import jpype\n"
        "imp = jpype.JClass('ij.IJ').createImage('s', '8-bit ramp', 20, 16, 3)\n"
        f"print(fiji.denoise(ij, imp, {model!r}, units=1))\n"
    )
    assert done.returncode == 0, done.stderr
    # The slices of a ramp are alike, which is told.
    lines = [line for line in done.stdout.splitlines() if not line.startswith("Denoise: ")]
    assert str(app.fiji) in lines[-3]
    assert lines[-2] == "r-denoised"
    assert lines[-1].startswith('img["s-denoised"')


# --- nrrn macro


def test_a_macro_file_from_start_to_end(
    app: jvm.ImageJ, in_new_python: Run, model: str, tmp_path: Path
) -> None:
    macro = tmp_path / "batch.ijm"
    macro.write_text(
        f'{NEW} run("Denoise Stack...", "model=[{model}]"); saveAs("Tiff", getArgument());'
        'print("saved µ"); return "2 files";',
        encoding="utf-8",
    )
    out = tmp_path / "out.tif"
    which = "imagej=True" if app.fiji is None else f"fiji={str(app.fiji)!r}"
    done = in_new_python(
        "from pathlib import Path\n"
        "from nrrn_fiji.fiji.app import macro_file\n"
        f"report = macro_file(Path({str(macro)!r}), {str(out)!r}, {which})\n"
        "print('summary:', report.summary)\n"
    )
    assert done.returncode == 0, done.stderr
    assert "saved µ" in done.stdout
    assert done.stdout.rstrip().endswith("summary: 2 files")
    assert out.exists()


def test_a_filter_of_imagej_does_not_keep_the_program_from_ending(
    app: jvm.ImageJ, in_new_python: Run, tmp_path: Path
) -> None:
    macro = tmp_path / "blur.ijm"
    macro.write_text(
        'newImage("a", "8-bit ramp", 300, 300, 4); run("Gaussian Blur...", "sigma=3 stack");'
        'return "blurred";'
    )
    which = "imagej=True" if app.fiji is None else f"fiji={str(app.fiji)!r}"
    done = in_new_python(  # it would run into the time limit
        "from pathlib import Path\n"
        "from nrrn_fiji.fiji.app import macro_file\n"
        f"print(macro_file(Path({str(macro)!r}), {which}).summary)\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("blurred")


def test_a_macro_file_that_is_none(tmp_path: Path) -> None:
    from nrrn_fiji.fiji.app import macro_file

    (tmp_path / "no.ijm").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ValueError, match=r"no\.ijm is no text .* save the macro as UTF-8"):
        macro_file(tmp_path / "no.ijm")
    with pytest.raises(FileNotFoundError):
        macro_file(tmp_path / "gone.ijm")
