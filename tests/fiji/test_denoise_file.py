"""Denoise File…: from file to file in a macro, without a window, and gone on with after Esc."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import nrrn_fiji
from nrrn_fiji.fiji import jvm
from nrrn_fiji.volumes import open_volume


@pytest.fixture(autouse=True)
def clean(java: Any) -> Iterator[None]:
    """Every test ends with no key pressed."""
    yield
    java("ij.IJ").resetEscape()


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """A noisy stack in a folder with a space in its name."""
    folder = tmp_path / "my stacks"
    folder.mkdir()
    noisy = np.random.default_rng(5).integers(0, 255, (6, 24, 32)).astype(np.uint8)
    tifffile.imwrite(folder / "cells.tif", noisy, imagej=True, metadata={"axes": "ZYX"})
    return folder / "cells.tif"


def run(app: jvm.ImageJ, options: str) -> Any:
    from nrrn_fiji.fiji.app import run_macro

    return run_macro(app, f'run("Denoise File...", "{options}"); return d2s(nImages, 0);')


def read(path: Path) -> Any:
    with open_volume(path) as volume:
        return volume.read(0, volume.shape.z)


@pytest.mark.parametrize("name", ["out.tif", "out.zarr", "out.h5", "out.mrc", "slices"])
def test_every_format_holds_the_pixels_of_the_library(
    app: jvm.ImageJ, model: str, stack: Path, name: str
) -> None:
    for library, ending in (("zarr", ".zarr"), ("h5py", ".h5"), ("mrcfile", ".mrc")):
        if name.endswith(ending):
            pytest.importorskip(library)
    out = stack.with_name(name)
    told = run(app, f"source=[{stack}] out=[{out}] model=[{model}] units=1 slices=2-4 strength=0.5")
    assert told == "0"  # nothing was opened
    expected = nrrn_fiji.denoise(
        tifffile.imread(stack), model, units=1, strength=0.5, intensity=(0, 255)
    )
    np.testing.assert_array_equal(read(out), expected[1:4])


def test_an_output_that_is_not_named_lies_beside_its_input(
    app: jvm.ImageJ, model: str, stack: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(app, f"source=[{stack}] model=[{model}]")
    assert stack.with_name("cells-denoised.tif").is_file()
    said = capfd.readouterr().out
    assert "Denoised 6 slices in" in said
    assert str(stack.with_name("cells-denoised.tif")) in said


def test_esc_keeps_what_is_finished_and_the_same_command_goes_on(
    app: jvm.ImageJ,
    java: Any,
    model: str,
    stack: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from nrrn_fiji.fiji import tasks
    from nrrn_fiji.progress import Cancelled

    def press_escape(self: Any, done: float, total: float, text: str = "") -> None:
        if done >= 3:
            java("ij.IJ").setKeyDown(java("java.awt.event.KeyEvent").VK_ESCAPE)

    out = stack.with_name("out.tif")
    options = f"source=[{stack}] out=[{out}] model=[{model}] slab=1"
    with monkeypatch.context() as pressing:
        pressing.setattr(tasks.ImageJProgress, "update", press_escape)
        with pytest.raises(Cancelled, match=r"kept.*Run the same command again to go on"):
            run(app, options)
    assert not out.exists()
    assert "Run the same command again" in capfd.readouterr().out  # in the log, too
    run(app, options)
    assert "are finished already" in capfd.readouterr().out
    expected = nrrn_fiji.denoise(tifffile.imread(stack), model, intensity=(0, 255), slab=1)
    np.testing.assert_array_equal(tifffile.imread(out), expected)


def test_mistakes_end_the_macro_with_the_words_of_fiji(
    app: jvm.ImageJ, model: str, stack: Path
) -> None:
    out = stack.with_name("out.tif")
    for options, said in (
        (f"out=[{out}]", "source is missing"),
        (f"source=[{stack}x] out=[{out}]", r"cells\.tifx"),
        (f"source=[{stack}] out=[{out}] dask=local", "'dask' is no option of 'Denoise File"),
    ):
        with pytest.raises(RuntimeError, match=said):
            run(app, f"{options} model=[{model}]")
    run(app, f"source=[{stack}] out=[{out}] model=[{model}]")
    with pytest.raises(RuntimeError, match="the option overwrite") as refused:
        run(app, f"source=[{stack}] out=[{out}] model=[{model}]")
    assert "--" not in str(refused.value)
    assert run(app, f"source=[{stack}] out=[{out}] model=[{model}] overwrite") == "0"


def test_the_dialog_says_what_would_be_done(model: str, stack: Path) -> None:
    from nrrn_fiji.fiji.files import file_entry

    note = file_entry().note
    assert note is not None
    assert "Name the input" in note(None, {})
    said = note(None, {"source": stack, "model": model, "slices": range(1, 4)})
    assert "for 3 slices (cpu" in said or "for 3 slices (cuda" in said
    assert said.endswith(str(stack.with_name("cells-denoised.tif")))
    assert not stack.with_name("cells-denoised.tif").exists()
