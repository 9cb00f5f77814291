"""What goes wrong in Fiji is said in a sentence, and no image is lost by it."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nrrn_fiji.fiji import jvm
from nrrn_fiji.progress import Cancelled


@pytest.fixture
def model(model: str, tmp_path: Path) -> Path:
    """A copy that a test may delete."""
    return Path(shutil.copy(model, tmp_path))


@pytest.fixture(autouse=True)
def no_images(java: Any) -> Iterator[None]:
    """Every test begins and ends without open images."""
    yield
    java("ij.IJ").runMacro('close("*");')


NEW = 'newImage("cortex.tif", "8-bit noise", 40, 30, 5);'


def run(app: jvm.ImageJ, text: str) -> Any:
    from nrrn_fiji.fiji.app import run_macro

    return run_macro(app, text)


def image(java: Any, title: str) -> Any:
    ids = java("ij.WindowManager").getIDList()
    found = [java("ij.WindowManager").getImage(int(i)) for i in ids or ()]
    return next(imp for imp in found if imp.getTitle() == title)


def titles(java: Any) -> list[str]:
    return [str(title) for title in java("ij.WindowManager").getImageTitles()]


def pixels(imp: Any) -> np.ndarray[Any, Any]:
    from nrrn_fiji.fiji.images import volume_of

    volume = volume_of(imp)
    return volume.read(0, volume.shape.z)


def when_half_done(monkeypatch: pytest.MonkeyPatch, act: Any) -> None:
    """Call ``act`` once, in the middle of the next job."""
    from nrrn_fiji.fiji import tasks

    acted = []

    def update(self: Any, done: float, total: float, text: str = "") -> None:
        if not acted and done >= total / 2:
            acted.append(1)
            act()

    monkeypatch.setattr(tasks.ImageJProgress, "update", update)


def test_an_image_that_is_closed_while_it_is_denoised(
    app: jvm.ImageJ, java: Any, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nrrn_fiji

    run(app, NEW)
    imp = image(java, "cortex.tif")
    stack = pixels(imp)
    when_half_done(monkeypatch, lambda: (imp.close(), imp.flush()))
    run(app, f'run("Denoise Stack...", "model=[{model}] slab=1");')
    assert titles(java) == ["cortex-denoised.tif"]
    made = image(java, "cortex-denoised.tif")  # its pixels stay until the command has ended
    assert np.array_equal(pixels(made), nrrn_fiji.denoise(stack, model))
    assert not imp.isLocked()


def test_an_image_without_window_that_is_emptied_while_it_is_denoised(
    app: jvm.ImageJ, java: Any, model: Path
) -> None:
    from nrrn_fiji.fiji.jobs import denoise_image
    from nrrn_fiji.progress import NoProgress
    from nrrn_fiji.settings import DenoiseSettings

    imp = java("ij.IJ").createImage("cortex.tif", "8-bit ramp", 40, 30, 5)

    class Flush(NoProgress):
        def update(self, done: float, total: float, text: str = "") -> None:
            if done >= 2:
                imp.flush()

    with pytest.raises(ValueError, match=r"'cortex\.tif' was closed while it was read"):
        denoise_image(imp, model, DenoiseSettings(slab=1), progress=Flush())


def test_a_model_that_is_deleted(
    app: jvm.ImageJ, java: Any, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    when_half_done(monkeypatch, model.unlink)
    run(app, f'{NEW} run("Denoise Stack...", "model=[{model}]");')  # it was read before
    assert titles(java) == ["cortex.tif", "cortex-denoised.tif"]
    source = image(java, "cortex.tif")
    with pytest.raises(RuntimeError, match=r"tiny\.safetensors.*\(line 1 of the macro\)"):
        run(app, f'selectImage("cortex.tif"); run("Denoise Stack...", "model=[{model}]");')
    assert not source.isLocked()
    assert pixels(source).any()


def test_gpu_memory_runs_out_and_the_record_says_with_what_it_went_on(
    app: jvm.ImageJ,
    java: Any,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    import torch

    import nrrn_fiji
    from nrrn_fiji.fused import FusedNRRN

    run(app, 'newImage("cortex.tif", "8-bit noise", 200, 70, 4);')
    expected = nrrn_fiji.denoise(pixels(image(java, "cortex.tif")), model)
    branches = FusedNRRN.branches
    failed = []

    def fail_once(self: Any, *given: Any) -> Any:
        if not failed:
            failed.append(1)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return branches(self, *given)

    monkeypatch.setattr(FusedNRRN, "branches", fail_once)
    run(app, f'run("Denoise Stack...", "model=[{model}] tile=160 device=cpu slab=2");')
    made = image(java, "cortex-denoised.tif")
    assert np.array_equal(pixels(made), expected)
    assert "going on with tiles of 80 px instead of 160 px" in capfd.readouterr().out
    record = json.loads(str(made.getProperty("Info")).splitlines()[-1].removeprefix("nrrn: "))
    assert record["plan"]["tile"] == 160
    assert record["went_on_with"] == [
        {
            "time": 0,
            "channel": 0,
            "slice": 0,
            "device": "cpu",
            "precision": record["plan"]["precision"],
            "tile": 80,
            "batch": 1,
        }
    ]


def test_two_images_at_once(app: jvm.ImageJ, java: Any, model: Path) -> None:
    import nrrn_fiji
    from nrrn_fiji.fiji.plugin import install

    plugin = install(app)
    sources = [java("ij.IJ").createImage(f"{n}.tif", "8-bit ramp", 60 + n, 50, 6) for n in (1, 2)]
    problems: list[Any] = []
    both = threading.Barrier(2)

    def work(imp: Any) -> None:
        java("ij.WindowManager").setTempCurrentImage(imp)  # of this thread
        both.wait()
        plugin.handle("denoise", f"model=[{model}] slab=1")
        problems.append(plugin.error)

    threads = [threading.Thread(target=work, args=(imp,)) for imp in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == [None, None]
    for imp in sources:
        made = image(java, str(imp.getTitle()).replace(".", "-denoised."))
        assert np.array_equal(pixels(made), nrrn_fiji.denoise(pixels(imp), model))


def test_one_run_that_fails_says_nothing_about_another(app: jvm.ImageJ) -> None:
    from nrrn_fiji.fiji.plugin import install

    plugin = install(app)
    plugin.error = None

    def fail() -> None:
        plugin.error = ValueError("of the other")

    other = threading.Thread(target=fail)
    other.start()
    other.join()
    assert plugin.error is None


def test_a_single_image_is_denoised_and_told(
    app: jvm.ImageJ, java: Any, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import nrrn_fiji

    run(
        app,
        'newImage("one.tif", "8-bit noise", 40, 30, 1);'
        f'run("Denoise Stack...", "model=[{model}]");',
    )
    assert "one.tif has one slice and no neighbours: it is denoised from itself alone" in (
        capfd.readouterr().out
    )
    expected = nrrn_fiji.denoise(pixels(image(java, "one.tif")), model)
    assert np.array_equal(pixels(image(java, "one-denoised.tif")), expected)


def test_add_noise_can_be_stopped(
    app: jvm.ImageJ, java: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(app, NEW)
    source = image(java, "cortex.tif")
    before = pixels(source)
    escape = java("java.awt.event.KeyEvent").VK_ESCAPE
    when_half_done(monkeypatch, lambda: java("ij.IJ").setKeyDown(escape))
    with pytest.raises(Cancelled, match="every image is as it was"):
        run(app, 'run("Add Noise...", "gaussian=20");')
    assert not any("noisy" in title for title in titles(java))
    assert np.array_equal(pixels(source), before)
    assert not source.isLocked()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ('run("Denoise Stack...", "modle=x");', "'modle' is no option of 'Denoise Stack...'"),
        ('run("Denoise Stack...", "model=x");', "No model is named 'x'"),
        ('run("Add Noise...", "sigma=3");', "'sigma' is no option of 'Add Noise...'"),
    ],
)
def test_a_macro_with_an_unknown_key_or_model(
    app: jvm.ImageJ, java: Any, command: str, message: str
) -> None:
    run(app, NEW)
    source = image(java, "cortex.tif")
    with pytest.raises(RuntimeError) as caught:
        run(app, f'\n{command}\nrename("went on");')
    assert message in str(caught.value)
    assert str(caught.value).endswith("(line 2 of the macro).")
    assert source.getTitle() == "cortex.tif"  # nothing after the error ran
    assert not source.isLocked()
    assert pixels(source).any()


def test_a_fault_of_ours_is_said_and_its_traceback_is_in_the_log(
    app: jvm.ImageJ, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from nrrn_fiji.fiji import jobs

    def fail(*given: Any, **more: Any) -> Any:
        raise KeyError("nobody thought of that")

    monkeypatch.setattr(jobs, "denoise_image", fail)
    with pytest.raises(RuntimeError, match=r"should not: KeyError: 'nobody.*window Log") as caught:
        run(app, f'{NEW} run("Denoise Stack...", "units=1");')
    assert "--debug" not in str(caught.value)
    log = capfd.readouterr().out  # without a screen ImageJ's log is the standard output
    assert "Traceback" in log and "raise KeyError" in log


def test_java_that_is_full_is_said(app: jvm.ImageJ, java: Any) -> None:
    from nrrn_fiji.fiji.entry import message_of

    error = java("java.lang.OutOfMemoryError")("Java heap space")
    assert message_of(error).startswith("Java's memory is full: close images")


@pytest.mark.fiji
@pytest.mark.parametrize(("start", "stop"), [(1, 3), (3, 5)])
def test_some_slices_of_a_dataset(
    app: jvm.ImageJ, java: Any, model: Path, start: int, stop: int
) -> None:
    import nrrn_fiji
    from nrrn_fiji.fiji.images import volume_of
    from nrrn_fiji.fiji.jobs import denoise_image

    imp = java("ij.IJ").createImage("ramp", "8-bit ramp", 20, 16, 5)
    java("ij.IJ").run(imp, "Add Specified Noise...", "stack standard=20")
    imp.getCalibration().setUnit("nm")
    imp.getCalibration().pixelDepth = 30.0
    dataset = app.gateway.convert().convert(imp, java("net.imagej.Dataset"))
    made = denoise_image(dataset, model, slices=range(start, stop)).image
    assert isinstance(made, java("net.imagej.Dataset"))
    assert np.array_equal(
        volume_of(made).read(0, 2), nrrn_fiji.denoise(pixels(imp), model)[start:stop]
    )
    axis = made.axis(made.dimensionIndex(java("net.imagej.axis.Axes").Z))
    assert (axis.calibratedValue(0), axis.calibratedValue(1)) == (30.0 * start, 30.0 * start + 30)
    assert volume_of(dataset).shape.z == 5
