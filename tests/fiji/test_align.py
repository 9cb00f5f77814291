"""Align and Average Scans… in macros without a screen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from nrrn_fiji.fiji import jvm

EXAMPLE = Path(__file__).parents[2] / "examples" / "fibsem_medulla.tif"
SHIFTS = [(0.0, 0.0), (2.5, -3.2), (-4.1, 1.4), (1.2, 4.6)]  # (y, x), of each scan


@pytest.fixture(autouse=True)
def clean(java: Any) -> Iterator[None]:
    """Every test begins and ends without open images."""
    yield
    java("ij.IJ").runMacro('close("*");')


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Four scans of one slice, and one of another place."""
    rng = np.random.default_rng(0)
    image = tifffile.imread(EXAMPLE)[4].astype(float)
    moved = [ndimage.shift(image, shift, order=5)[40:136, 40:136] for shift in SHIFTS]
    stack = np.stack([*moved, moved[0][::-1, ::-1]]) + rng.normal(0, 8, (5, 96, 96))
    path = tmp_path / "scans.tif"
    tifffile.imwrite(
        path,
        np.clip(np.rint(stack), 0, 255).astype(np.uint8),
        imagej=True,
        resolution=(0.25, 0.25),
        metadata={"axes": "ZYX", "unit": "nm", "Labels": [f"scan {i}" for i in range(5)]},
    )
    return path


def run(app: jvm.ImageJ, text: str) -> str:
    from nrrn_fiji.fiji.app import run_macro

    return str(run_macro(app, text))


def pixels(imp: Any) -> np.ndarray[Any, Any]:
    from nrrn_fiji.fiji.images import volume_of

    volume = volume_of(imp)
    return volume.read(0, volume.shape.z)


def image(java: Any, title: str) -> Any:
    ids = java("ij.WindowManager").getIDList()
    found = [java("ij.WindowManager").getImage(int(i)) for i in ids or ()]
    return next(imp for imp in found if imp.getTitle() == title)


def test_the_average_is_that_of_the_command_line(
    app: jvm.ImageJ, java: Any, scans: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from nrrn_fiji.jobs.register import register_files
    from nrrn_fiji.settings import RegisterSettings

    told = run(
        app,
        f'open("{scans}"); run("Align and Average Scans...", "transform=translation keep"); '
        "getPixelSize(unit, width, height); "
        'return getTitle() + " " + nSlices + " " + width + " " + unit;',
    )
    assert told == "scans-average.tif 1 4 nm"
    aligned = image(java, "scans-aligned.tif")
    names = [str(aligned.getStack().getSliceLabel(i)) for i in range(1, 5)]
    assert names == ["scan 0", "scan 1", "scan 2", "scan 3"] and aligned.getStackSize() == 4
    register_files(
        [scans],
        tmp_path / "mean.tif",
        RegisterSettings(transform="translation"),
        keep=tmp_path / "kept.tif",
    )
    average = image(java, "scans-average.tif")
    assert average.getProp("Slice_Label") is None  # it is of several scans
    assert average.getStack().getSliceLabel(1) is None
    np.testing.assert_array_equal(pixels(average)[0], tifffile.imread(tmp_path / "mean.tif"))
    np.testing.assert_array_equal(pixels(aligned), tifffile.imread(tmp_path / "kept.tif"))
    assert '"command": "register"' in str(average.getInfoProperty())
    # Without a screen ImageJ's log is the standard output.
    assert "scan 4 was left out because" in capfd.readouterr().out


def test_the_plot_shows_the_shifts(app: jvm.ImageJ, java: Any, scans: Path) -> None:
    from nrrn_fiji.fiji.align import align_image, shift_plot
    from nrrn_fiji.settings import RegisterSettings

    imp = java("ij.IJ").openImage(str(scans))
    before = pixels(imp)
    made = align_image(imp, RegisterSettings(transform="translation"))
    assert made.aligned is None
    plot = shift_plot("scans.tif", made)
    data = plot.getDataObjectArrays(0)
    assert list(data[0]) == [1, 2, 3, 4]
    np.testing.assert_allclose(list(data[1]), [x for _, x in SHIFTS], atol=0.2)
    np.testing.assert_array_equal(pixels(imp), before)
    left, right, bottom, top = plot.getLimits()
    assert left < 1 and right > 5  # no mark is cut by the frame
    assert bottom < made.placement.shifts.min() and top > made.placement.shifts.max()


def test_scans_that_drifted_are_told_of_before_they_are_denoised(
    app: jvm.ImageJ, java: Any, scans: Path, model: str
) -> None:
    from nrrn_fiji.fiji.jobs import denoise_image
    from nrrn_fiji.progress import NoProgress
    from nrrn_fiji.settings import DenoiseSettings

    told: list[str] = []

    class Listens(NoProgress):
        def message(self, text: str) -> None:
            told.append(text)

    imp = java("ij.IJ").openImage(str(scans))
    three = java("ij.plugin.Duplicator")().run(imp, 1, 3)
    denoise_image(three, model, DenoiseSettings(scans=True), progress=Listens())
    (line,) = (text for text in told if "shifted against each other" in text)
    assert "Plugins > NRRN > Align and Average Scans" in line


def test_what_is_no_stack_of_scans_is_refused(app: jvm.ImageJ) -> None:
    for text, message in (
        ('newImage("one", "8-bit ramp", 90, 90, 1);', "at least 2"),
        ('newImage("hyper", "8-bit composite-mode", 90, 90, 1, 3, 4);', "time points"),
        ("", "No image is open"),
    ):
        with pytest.raises(RuntimeError, match=message):
            run(app, f'{text} run("Align and Average Scans...", "transform=rigid");')
