"""Pictures show the pixels they are given, and need no screen."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from skimage.io import imread

from nrrn_fiji import plots
from nrrn_fiji.plots import (
    Dot,
    before_after,
    dot_plot,
    loss_curve,
    picture_grid,
    sample_picture,
)


def contains(picture: np.ndarray, image: np.ndarray, zoom: int) -> bool:
    """Whether ``image`` (8-bit) is somewhere in the RGBA ``picture``, each pixel zoom × zoom."""
    grey = picture[..., 0].astype(int)
    large = np.kron(image, np.ones((zoom, zoom))).astype(int)
    height, width = large.shape
    starts = np.argwhere(grey[: -height + 1, : -width + 1] == large[0, 0])
    return any(np.array_equal(grey[y : y + height, x : x + width], large) for y, x in starts)


def random_slice(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape)


def test_images_stand_side_by_side_at_whole_zoom(tmp_path):
    one, two = random_slice((50, 60)), random_slice((50, 60), 1)
    before_after([("Before", one / 255), ("After", two / 255)], tmp_path / "pair.png")
    picture = imread(tmp_path / "pair.png")
    # 60 pixels five times, twice, and what is around them.
    assert contains(picture, one, 5) and contains(picture, two, 5)
    assert 600 < picture.shape[1] < 660


def test_images_upright_and_unstretched(tmp_path):
    ramp = np.linspace(0, 1, 100)[:, None].repeat(300, 1)
    before_after([("Ramp", ramp)], tmp_path / "ramp.png")
    picture = imread(tmp_path / "ramp.png")
    assert contains(picture, np.round(ramp * 255), 1), "dark at the top, 0 black, 1 white"


def test_values_outside_the_range_are_black_and_white(tmp_path):
    image = np.array([[-5.0, 9.0], [np.nan, 0.5]])
    before_after([("", image)], tmp_path / "range.png")
    assert contains(imread(tmp_path / "range.png"), np.array([[0, 255], [0, 128]]), 150)


def test_a_grid_holds_all_rows(tmp_path):
    images = [random_slice((40, 40), seed) for seed in range(4)]
    cells = [("", image / 255) for image in images]
    path = tmp_path / "grid.png"
    picture_grid([cells[:2], cells[2:]], path, labels=["a", "b"], title="Four")
    assert all(contains(imread(path), image, 8) for image in images)


def test_a_sample_shows_what_was_removed_around_mid_grey(tmp_path):
    noisy = np.random.default_rng(0).normal(0.5, 0.1, (60, 60))
    path = tmp_path / "sample.png"
    sample_picture(noisy, np.full((60, 60), 0.5), path, "Step 10")
    spread = 6 * noisy.std()
    removed = np.round(255 * np.clip(0.5 + (noisy - 0.5) / spread, 0, 1))
    assert contains(imread(path), removed, 5)
    sample_picture(noisy, noisy, path, "Nothing removed")
    assert contains(imread(path), np.full((60, 60), 127.5).round(), 5)


def test_curves_of_any_length(tmp_path):
    path = tmp_path / "loss.png"
    heights = []
    for count, validations in ((1, 0), (30, 1), (3000, 20)):
        steps = np.arange(1, count + 1)
        at = np.linspace(1, count, validations)
        held_out = [float("nan"), *(1 / at[1:])] if validations > 1 else [0.5] * validations
        loss_curve(steps, 1 / steps, at, held_out, path, criterion="Masked-centre error")
        heights.append(imread(path).shape[0])
    assert heights[0] < heights[1] == heights[2], "the criterion has a panel of its own"
    loss_curve([1, 2], [-0.1, 0.2], [], [], path, criterion="")
    assert not list(tmp_path.glob(".*")), "nothing half-written stays"


def test_dots_of_several_panels(tmp_path):
    dots = [Dot("Filter", 20.0, 0.5, "#333333", second=21.0), Dot("NRRN", 22.0, 0.3, "#c8361d")]
    dot_plot([(f"Level {i}", dots) for i in range(5)], tmp_path / "dots.png", axis="PSNR (dB)")
    picture = imread(tmp_path / "dots.png")[..., :3].reshape(-1, 3)
    assert (picture == (0xC8, 0x36, 0x1D)).all(1).sum() > 5 * 20, "five red dots"


def test_importing_needs_no_matplotlib_and_drawing_no_screen(tmp_path):
    code = f"""
import sys, numpy as np
from nrrn_fiji import plots
assert "matplotlib" not in sys.modules
plots.before_after([("a", np.zeros((9, 9)))], r"{tmp_path / "a.png"}")
assert "matplotlib.pyplot" not in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "a.png").is_file()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: before_after([], p), "images is empty"),
        (lambda p: before_after([("", np.zeros((2, 9, 9)))], p), r"\(2, 9, 9\).*slices"),
        (lambda p: sample_picture(np.zeros((9, 9)), np.zeros((9, 8)), p, ""), "same slice"),
        (lambda p: picture_grid([[("", np.zeros((9, 9)))]], p, labels=["a", "b"]), "2 labels"),
        (lambda p: loss_curve([1], [1, 2], [], [], p, criterion=""), "2 losses for 1 steps"),
        (lambda p: loss_curve([], [], [], [], p, criterion=""), "losses is empty"),
        (lambda p: dot_plot([], p, axis=""), "panels is empty"),
        (
            lambda p: dot_plot(
                [("", [Dot("a", 1, 0, "k")]), ("", [Dot("b", 1, 0, "k")])], p, axis=""
            ),
            "different methods",
        ),
    ],
)
def test_misuse_gets_one_sentence_and_leaves_no_file(call, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        call(tmp_path / "never.png")
    assert not list(tmp_path.iterdir())


# What red-, green- and blue-blind people see of linear RGB, after Machado, Oliveira and Fernandes
# 2009 (severity 1).
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.mark.parametrize("vision", VISION)
def test_methods_differ_for_colour_blind_people_too(vision: str) -> None:
    from skimage.color import deltaE_ciede2000, rgb2lab

    colours = [*plots.COLOURS.values(), plots.SAME_BUDGET]
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(VISION[vision]), 0, 1)
    seen = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = rgb2lab(seen[None])[0]
    differences = deltaE_ciede2000(lab[:, None], lab[None]) + 100 * np.eye(len(lab))
    # A difference of 2 is just seen where patches touch; dots lie apart.
    assert differences.min() > 8
