"""Add Noise…, Measure Noise… and the numbers that macros get back, checked with NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nrrn_fiji.fiji import jvm


@pytest.fixture(autouse=True)
def clean(java: Any) -> Iterator[None]:
    """Every test begins and ends without open images and rows."""
    yield
    java("ij.IJ").runMacro('close("*"); run("Clear Results");')


FLAT = """
newImage("flat.tif", "16-bit black", 300, 200, 3);
run("Set...", "value=1000 stack");
run("Add Noise...", "gaussian=10 intensity=0,2550 seed=4");
rename("noisy.tif");
setSlice(2);
"""


def run(app: jvm.ImageJ, text: str) -> Any:
    from nrrn_fiji.fiji.app import run_macro

    return run_macro(app, text)


def image(java: Any, title: str) -> Any:
    ids = java("ij.WindowManager").getIDList()
    found = [java("ij.WindowManager").getImage(int(i)) for i in ids or ()]
    return next(imp for imp in found if imp.getTitle() == title)


def pixels(imp: Any) -> np.ndarray[Any, Any]:
    from nrrn_fiji.fiji.images import volume_of

    volume = volume_of(imp)
    return volume.read(0, volume.shape.z)


def row(app: jvm.ImageJ, number: int = 0) -> dict[str, Any]:
    """A row of the Results table."""
    names = ("Pixels", "Mean", "StdDev", "Median", "IQR", "Noise")
    got = run(
        app, 'return "" + ' + ' + " " + '.join(f'getResult("{n}", {number})' for n in names) + ";"
    )
    texts = ("Image", "Place", "Selection")
    words = run(
        app, "return " + ' + "|" + '.join(f'getResultString("{n}", {number})' for n in texts) + ";"
    )
    numbers = [float(value) for value in got.split()]
    return dict(zip(names, numbers, strict=True)) | dict(zip(texts, words.split("|"), strict=True))


# --- Add Noise


def test_added_noise_is_that_of_the_command_line(
    app: jvm.ImageJ, java: Any, tmp_path: Path
) -> None:
    import tifffile

    from nrrn_fiji.jobs.add_noise import add_noise_file
    from nrrn_fiji.settings import NoiseSettings

    told = run(
        app,
        'newImage("ramp.tif", "8-bit ramp", 40, 30, 3);'
        'run("Add Noise...", "poisson=8 gaussian=5 seed=2");'
        'return getTitle() + " " + nSlices + " " + bitDepth();',
    )
    assert told == "ramp-noisy.tif 3 8"
    stack = pixels(image(java, "ramp.tif"))
    settings = NoiseSettings(poisson=8, gaussian=5, seed=2)
    add_noise_file(stack, tmp_path / "noisy.tif", settings)
    noisy = pixels(image(java, "ramp-noisy.tif"))
    np.testing.assert_array_equal(noisy, tifffile.imread(tmp_path / "noisy.tif"))
    assert (noisy != stack).mean() > 0.9
    assert '"command": "add-noise"' in str(image(java, "ramp-noisy.tif").getProperty("Info"))


@pytest.mark.parametrize(
    ("before", "options", "message"),
    [
        ('newImage("a", "8-bit ramp", 9, 9, 1);', "seed=1", "No noise was asked for: give poisson"),
        ('newImage("a", "8-bit ramp", 9, 9, 1);', "gaussian=-1", "gaussian is -1.0, but it must"),
        ('newImage("a", "8-bit black", 9, 9, 1);', "gaussian=9", "same grey value 0 everywhere"),
        ("", "gaussian=9", "No image is open"),
        ('newImage("a", "RGB ramp", 9, 9, 1);', "gaussian=9", "RGB colour image"),
    ],
)
def test_noise_that_cannot_be_added(
    app: jvm.ImageJ, java: Any, before: str, options: str, message: str
) -> None:
    with pytest.raises(RuntimeError, match=message):
        run(app, f'{before} run("Add Noise...", "{options}");')
    assert not any("noisy" in str(title) for title in java("ij.WindowManager").getImageTitles())


# --- Measure Noise


def test_a_line(app: jvm.ImageJ, java: Any) -> None:
    run(app, FLAT + 'makeLine(10, 50, 289, 50); run("Measure Noise...", "show=table");')
    line = pixels(image(java, "noisy.tif"))[1, 50, 10:290].astype(float)
    found = row(app)
    assert found["Pixels"] == 280
    assert found["StdDev"] == pytest.approx(line.std(ddof=1))
    assert found["IQR"] == pytest.approx(np.subtract(*np.percentile(line, (75, 25))))
    assert found["Median"] == pytest.approx(np.median(line))
    # Of the whole slice; 10 of 255 grey levels of a range of 2550 is 100.
    assert found["Noise"] == pytest.approx(100, rel=0.03)
    assert (found["Image"], found["Place"]) == ("noisy.tif", "slice 2")
    assert found["Selection"] == "straight line"


@pytest.mark.parametrize(
    ("draw", "inside", "kind"),
    [
        ("makeRectangle(20, 30, 100, 60);", np.s_[30:90, 20:120], "rectangle area"),
        # Partly outside of the image
        ("makeRectangle(250, 150, 100, 100);", np.s_[150:, 250:], "rectangle area"),
        ("", np.s_[:, :], "whole slice"),
    ],
)
def test_an_area(app: jvm.ImageJ, java: Any, draw: str, inside: Any, kind: str) -> None:
    run(app, FLAT + draw + 'run("Measure Noise...", "show=table");')
    values = pixels(image(java, "noisy.tif"))[1][inside].astype(float).ravel()
    found = row(app)
    assert found["Pixels"] == values.size
    assert found["StdDev"] == pytest.approx(values.std(ddof=1))
    assert found["IQR"] == pytest.approx(np.subtract(*np.percentile(values, (75, 25))))
    assert found["Noise"] == pytest.approx(100, rel=0.06)
    assert found["Selection"] == kind


@pytest.mark.parametrize(
    "draw",
    [
        "makeOval(20, 30, 101, 60);",
        "makePolygon(5, 5, 200, 20, 120, 150);",
        'makeOval(20, 30, 100, 60); setKeyDown("alt"); makeRectangle(40, 40, 20, 20);',
    ],
)
def test_areas_of_any_shape_agree_with_imagej(app: jvm.ImageJ, draw: str) -> None:
    told = run(
        app,
        FLAT + draw + 'run("Measure Noise...", "show=table"); getStatistics(area, mean, min, max,'
        ' std); return "" + area + " " + mean + " " + std;',
    )
    found = row(app)
    expected = [float(value) for value in told.split()]
    got = [found["Pixels"], found["Mean"], found["StdDev"]]
    assert got == pytest.approx(expected, rel=1e-6)


def test_lines_of_any_shape_agree_with_imagej(app: jvm.ImageJ) -> None:
    for draw in (
        "makeLine(5, 5, 200, 150);",
        'makeSelection("polyline", newArray(5, 100, 180), newArray(9, 80, 20));',
        'makeSelection("freeline", newArray(5, 100, 180), newArray(9, 80, 20));',
        "makeLine(5, 5, 200, 5, 9);",
    ):
        told = run(
            app,
            FLAT + draw + 'run("Measure Noise...", "show=table"); p = getProfile();'
            "Array.getStatistics(p, min, max, mean, std);"
            'return "" + p.length + " " + mean + " " + std;',
        )
        found = row(app)
        expected = [float(value) for value in told.split()]
        assert [found["Pixels"], found["Mean"], found["StdDev"]] == pytest.approx(
            expected, rel=1e-6
        )
        run(app, 'close("*"); run("Clear Results");')


def test_signed_values_and_what_is_not_finite(app: jvm.ImageJ, java: Any) -> None:
    from nrrn_fiji.fiji.measure import measured

    processor = java("ij.process.ShortProcessor")(30, 20)
    processor.setValue(32768 - 500)
    processor.fill()
    imp = java("ij.ImagePlus")("signed", processor)
    imp.getCalibration().setSigned16BitCalibration()
    assert measured(imp, None).box == (-500,) * 5
    processor = java("ij.process.FloatProcessor")(30, 20)
    processor.setf(3, 4, float("nan"))
    imp = java("ij.ImagePlus")("float", processor)
    found = measured(imp, None)
    assert found.values.size == 599
    assert found.level == 0
    small = measured(imp, java("ij.gui.Roi")(10, 10, 4, 4))
    assert np.isnan(small.level)  # too small to tell
    assert small.deviation == 0


def test_two_images_side_by_side_with_plots(app: jvm.ImageJ, java: Any, tmp_path: Path) -> None:
    told = run(
        app,
        FLAT + 'run("Properties...", "unit=nm pixel_width=4 pixel_height=4 voxel_depth=8");'
        'run("Duplicate...", "title=calm.tif duplicate"); run("Gaussian Blur...", "sigma=2 stack");'
        'setSlice(3); selectImage("noisy.tif"); makeLine(10, 50, 289, 50);'
        'run("Measure Noise...", "second=calm.tif");'
        'title = getTitle(); list = getList("image.titles");'
        'selectImage("Profile of noisy.tif"); Plot.getValues(x, y); end = x[x.length - 1];'
        'return title + "|" + String.join(list, ",") + "|" + nResults + "|" + end;',
    )
    title, titles, rows, end = told.split("|")
    assert title == "noisy.tif"  # the macro goes on with its image
    assert {"Profile of noisy.tif", "Noise of noisy.tif"} <= set(titles.split(","))
    assert rows == "2"
    assert float(end) == pytest.approx(279 * 4)  # nm
    assert row(app, 1)["Image"] == "calm.tif"
    assert row(app, 1)["IQR"] < 0.3 * row(app, 0)["IQR"]
    assert row(app, 1)["Place"] == row(app, 0)["Place"] == "slice 2"
    for name in ("Profile", "Noise"):
        plot = image(java, f"{name} of noisy.tif")
        file = tmp_path / f"{name}.png"
        java("ij.IJ").saveAs(plot, "PNG", str(file))
        assert file.stat().st_size > 2000


def test_numbers_above_a_box_are_written_as_everywhere() -> None:
    from nrrn_fiji.fiji.measure import Measured, spread_in_words

    values = np.array([0.0, 1234567.0, 2469134.0])
    about = {"title": "a", "place": "slice 1", "selection": "line", "level": 1.0}
    words = spread_in_words(Measured(values=values, **about))
    assert words == "IQR 1230000\nSD 1230000"


@pytest.mark.parametrize(
    ("before", "options", "message"),
    [
        ("", "", "No image is open"),
        (FLAT + "makePoint(5, 5);", "show=table", "is a point, but noise is measured along a line"),
        (FLAT + "makeRectangle(900, 900, 9, 9);", "show=table", "lies outside of the image"),
        (FLAT + "makeRectangle(9, 9, 1, 1);", "show=table", "holds 1 finite pixels"),
        (FLAT, "second=nothing.tif", "No open image is called 'nothing.tif': open are flat.tif"),
        (FLAT, "show=nothing", "show is 'nothing', but it must be one of all, table"),
        (
            'newImage("b", "8-bit", 9, 9, 1);' + FLAT,
            "second=b",
            r"'noisy.tif' of 300 x 200 and 'b' of 9 x 9 pixels differ in size",
        ),
    ],
)
def test_what_cannot_be_measured(app: jvm.ImageJ, before: str, options: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        run(app, f'{before} run("Measure Noise...", "{options}");')


# --- numbers for macros


def test_numbers_for_macros(app: jvm.ImageJ, java: Any) -> None:
    told = run(
        app,
        'run("NRRN Macro Extensions");' + FLAT + "makeLine(10, 50, 289, 50);"
        'Ext.noiseLevel(sigma); Ext.iqr(value); return "" + sigma + " " + value;',
    )
    sigma, value = (float(number) for number in told.split())
    line = pixels(image(java, "noisy.tif"))[1, 50, 10:290].astype(float)
    assert sigma == pytest.approx(100, rel=0.03)
    assert value == pytest.approx(np.subtract(*np.percentile(line, (75, 25))), abs=1e-3)
    with pytest.raises(RuntimeError, match="No image is open"):
        run(app, 'close("*"); run("NRRN Macro Extensions"); Ext.iqr(value); print("on");')


def test_the_extensions_are_for_macros_alone(app: jvm.ImageJ) -> None:
    from nrrn_fiji.fiji.plugin import install

    plugin = install(app)
    with pytest.raises(ValueError, match="This command is for macros: write run"):
        plugin.entries["extensions"].run(plugin, {})
