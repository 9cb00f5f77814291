"""The ops: from Python, Groovy and Jython, for every kind of image, as ImageJ lists them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nrrn_fiji
from nrrn_fiji.commands import find_command
from nrrn_fiji.fiji import jvm

pytestmark = pytest.mark.fiji


@pytest.fixture(scope="module")
def ij(app: jvm.ImageJ) -> Any:
    """A gateway with NRRN in it, as a user has."""
    from nrrn_fiji import fiji

    fiji.register(app.gateway)
    fiji.register(app.gateway)  # a cell of a notebook that is run again
    return app.gateway


@pytest.fixture
def imp(java: Any) -> Any:
    """A noisy calibrated stack of 4 slices."""
    made = java("ij.IJ").createImage("cortex", "8-bit ramp", 20, 16, 4)
    java("ij.IJ").run(made, "Add Specified Noise...", "stack standard=20")
    made.getCalibration().setUnit("nm")
    made.getCalibration().pixelDepth = 30.0
    return made


def pixels(image: Any) -> np.ndarray[Any, Any]:
    from nrrn_fiji.fiji.images import volume_of

    volume = volume_of(image)
    return volume.read(0, volume.shape.z)


def kinds(ij: Any, java: Any, imp: Any) -> list[Any]:
    dataset = ij.convert().convert(imp, java("net.imagej.Dataset"))
    return [imp, dataset, dataset.getImgPlus()]


def test_an_op_gives_the_pixels_of_the_python_api_in_the_same_kind_of_image(
    ij: Any, java: Any, imp: Any, model: str
) -> None:
    stack = pixels(imp)
    expected = nrrn_fiji.denoise(stack, model)
    assert not np.array_equal(expected, stack)
    names = ("ij.ImagePlus", "net.imagej.Dataset", "net.imagej.ImgPlus")
    for image, name in zip(kinds(ij, java, imp), names, strict=True):
        result = ij.op().run("nrrn.denoise", image, model)
        assert isinstance(result, java(name))
        assert np.array_equal(pixels(result), expected)
    assert result.axis(2).averageScale(0, 1) == 30.0
    assert result.axis(2).unit() == "nm"
    assert np.array_equal(pixels(imp), stack)


def test_every_setting_is_a_parameter_in_the_order_of_the_table(
    ij: Any, java: Any, imp: Any, model: str
) -> None:
    everything = str(ij.op().help())
    for op, command, first in (
        ("nrrn.denoise", "denoise", ["img", "model"]),
        ("nrrn.noiseMap", "denoise", ["img", "model"]),
        ("nrrn.addNoise", "add-noise", ["img"]),
    ):
        helped = str(ij.op().help(op))
        shown = [line.split()[1].rstrip(",?)") for line in helped.splitlines() if "\t\t" in line]
        settings = [o.name for o in find_command(command).all_options() if o.setting]
        assert shown == [*first, *settings], helped
        assert op in [str(name) for name in ij.op().ops()]
        assert helped.split("\n", 1)[1] in everything
    result = ij.op().run("nrrn.denoise", imp, model, 1, 2, 1, 0.5, False, "10,240")
    expected = nrrn_fiji.denoise(
        pixels(imp), model, units=1, images=2, strength=0.5, intensity=(10, 240)
    )
    assert np.array_equal(pixels(result), expected)


def test_the_noise_map_is_what_was_taken_away(ij: Any, java: Any, imp: Any, model: str) -> None:
    expected = nrrn_fiji.denoise(pixels(imp), model, return_noise=True).noise
    for image in kinds(ij, java, imp):
        noise = pixels(ij.op().run("nrrn.noiseMap", image, model))
        assert noise.dtype == np.float32
        assert np.array_equal(noise, expected)


def test_synthetic_noise_is_that_of_the_command_line(
    ij: Any, java: Any, imp: Any, tmp_path: Path
) -> None:
    import tifffile

    from nrrn_fiji.jobs.add_noise import add_noise_file
    from nrrn_fiji.settings import NoiseSettings

    stack = pixels(imp)
    settings = NoiseSettings(poisson=8, gaussian=25, seed=7)
    add_noise_file(stack, tmp_path / "noisy.tif", settings)
    expected = tifffile.imread(tmp_path / "noisy.tif")
    for image in kinds(ij, java, imp):
        noisy = ij.op().run("nrrn.addNoise", image, 8, 25.0, None, None, 7)
        assert np.array_equal(pixels(noisy), expected)
    other = ij.op().run("nrrn.addNoise", imp, 8, 25.0, None, None, 8)
    assert not np.array_equal(pixels(other), expected)


@pytest.mark.parametrize("script", ["denoise.groovy", "denoise.py"])
def test_scripts_of_other_languages(ij: Any, imp: Any, model: str, script: str) -> None:
    code = (
        "#@ OpService ops\n#@ Object img\n#@ String model\n#@output Object out\n"
        'out = ops.run("nrrn.denoise", img, model, 1)\n'
    )
    done = ij.script().run(script, code, True, ["img", imp, "model", model]).get()
    expected = nrrn_fiji.denoise(pixels(imp), model, units=1)
    assert np.array_equal(pixels(done.getOutput("out")), expected)


def test_the_script_of_the_guide(ij: Any, java: Any, imp: Any, model: str) -> None:
    guide = Path(__file__).parents[2] / "docs" / "fiji.md"
    blocks = re.findall(r"^```groovy\n(.*?)^```", guide.read_text(encoding="utf-8"), re.M | re.S)
    assert blocks
    dataset = ij.convert().convert(imp, java("net.imagej.Dataset"))
    for block in blocks:
        code = block.replace("fibsem-medulla", model)
        done = ij.script().run("guide.groovy", code, True, ["image", dataset]).get()
        expected = nrrn_fiji.denoise(pixels(imp), model)
        assert np.array_equal(pixels(done.getOutput("clean")), expected)


def test_an_error_is_one_sentence(ij: Any, java: Any, imp: Any, model: str) -> None:
    rgb = java("ij.IJ").createImage("photo", "RGB white", 8, 8, 1)
    for arguments, message in (
        (("nrrn.denoise", imp, "no-such-model"), "No model is named 'no-such-model'"),
        (("nrrn.denoise", imp, model, 1.5), "units is '1.5', but it must be a whole number"),
        (("nrrn.denoise", imp, model, 7), "units is 7"),
        (("nrrn.denoise", rgb, model), "'photo' is an RGB colour image"),
        (("nrrn.noiseMap", "cortex"), "accepted are ij.ImagePlus, net.imagej.Dataset"),
        (("nrrn.addNoise", imp), "No noise was asked for"),
    ):
        with pytest.raises(java("java.lang.IllegalArgumentException"), match=message):
            ij.op().run(*arguments)


def test_a_second_context_gets_the_ops_too(
    app: jvm.ImageJ, java: Any, imp: Any, model: str
) -> None:
    from nrrn_fiji.fiji.ops import register_ops

    second = java("net.imagej.ImageJ")(
        java("org.scijava.Context")(java("net.imagej.ops.OpService").class_)
    )
    register_ops(second)
    assert np.array_equal(
        pixels(second.op().run("nrrn.denoise", imp, model)),
        nrrn_fiji.denoise(pixels(imp), model),
    )
    second.context().dispose()
