"""What masks hide, and how the shape of a mask follows from the noise of a stack."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from nrrn_fiji.jobs.train_setup import mask_shape
from nrrn_fiji.masks import MaskShape, fitting_mask, mask_pixels
from nrrn_fiji.noise_statistics import noise_correlation
from nrrn_fiji.settings import TrainSettings
from nrrn_fiji.triplets import TrainingStack


def positions(height: int, width: int) -> np.ndarray:
    """A triplet whose values say where they are: 10⁶ z + 10³ y + x."""
    z, y, x = np.mgrid[:3, :height, :width]
    return (z * 1_000_000 + y * 1000 + x).astype(np.float32)


def test_masking_replaces_about_the_fraction_by_a_neighbour_within_two_pixels() -> None:
    triplet = positions(100, 100)
    masked, mask = mask_pixels(triplet, 0.06, np.random.default_rng(0))
    assert mask.mean() == pytest.approx(0.06, abs=0.01)
    np.testing.assert_array_equal(masked[[0, 2]], triplet[[0, 2]])
    np.testing.assert_array_equal(masked[1][~mask], triplet[1][~mask])
    moved = masked[1] - triplet[1]
    moved_y, moved_x = np.round(moved / 1000), moved - 1000 * np.round(moved / 1000)
    assert np.abs(moved_y).max() == 2 and np.abs(moved_x).max() == 2


@pytest.mark.parametrize("size", [4, 5, 32])
def test_no_masked_pixel_keeps_its_own_value_which_the_network_could_copy(size: int) -> None:
    triplet = positions(size, size)
    for seed in range(50):
        masked, mask = mask_pixels(triplet, 0.3, np.random.default_rng(seed))
        assert np.all(masked[1][mask] != triplet[1][mask])


@pytest.mark.parametrize("shape", [MaskShape(2, 0, 0), MaskShape(1, 1, 0), MaskShape(2, 1, 1)])
def test_a_mask_hides_everything_in_the_box_around_its_middle(shape: MaskShape) -> None:
    triplet = positions(60, 60)
    # So few that boxes do not touch: what is near a middle belongs to it.
    rng = np.random.default_rng(3)
    masked, mask = mask_pixels(triplet, 0.003, rng, shape)
    middles = np.argwhere(mask)
    hidden = np.argwhere(masked != triplet)
    images = {0, 1, 2} if shape.z else {1}
    assert set(hidden[:, 0]) == images
    for y, x in middles:
        for image in images:
            for dy in range(-shape.y, shape.y + 1):
                for dx in range(-shape.x, shape.x + 1):
                    if not (0 <= y + dy < 60 and 0 <= x + dx < 60):
                        continue
                    from_z, rest = divmod(masked[image, y + dy, x + dx], 1_000_000)
                    from_y, from_x = divmod(rest, 1000)
                    assert from_z == image
                    assert abs(from_y - y) > shape.y or abs(from_x - x) > shape.x
                    assert abs(from_y - y) <= shape.y + 2 and abs(from_x - x) <= shape.x + 2
    assert len(hidden) <= len(middles) * len(images) * (2 * shape.x + 1) * (2 * shape.y + 1)


def test_larger_masks_replace_the_same_fraction_in_all_and_never_show_a_middle() -> None:
    triplet = positions(200, 200)
    masked, mask = mask_pixels(triplet, 0.2, np.random.default_rng(1), MaskShape(2, 1, 1))
    changed = np.mean(masked[1] != triplet[1])
    assert 0.15 < changed < 0.21  # Boxes overlap here and there.
    assert np.all(masked[:, mask] != triplet[:, mask])


@pytest.mark.parametrize("text", ["2", "1,2", "a,b,c", "-1,0,0", "6,0,0", "0,0,2", "1,1,1,1", ""])
def test_a_mask_shape_that_is_none_gets_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"mask_shape is '.*', but it must be X,Y,Z.*0,0,0"):
        MaskShape.from_text(text)
    assert MaskShape.from_text("2, 1, 0") == (2, 1, 0)


def noise(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    """A flat stack whose noise comes from a kernel (a, 1, a) along each axis."""
    values = np.random.default_rng(0).standard_normal((24, 160, 160))
    for axis, a in ((0, z), (1, y), (2, x)):
        values = ndimage.convolve1d(values, [a, 1, a], axis=axis)
    return (100 + 10 * values).astype(np.float32)


# The kernel (a, 1, a) has the correlations 2a / (1 + 2a²) at lag 1 and a² / (1 + 2a²) at lag 2:
# 0.26 gives 0.46 and 0.06; 0.7 gives 0.71 and 0.25.
@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ({}, (0, 0, 0)),
        ({"x": 0.26}, (1, 0, 0)),
        ({"y": 0.7}, (0, 2, 0)),
        ({"x": 0.7, "y": 0.26, "z": 0.7}, (2, 1, 1)),
    ],
)
def test_the_mask_is_as_large_as_noise_is_alike(
    kernel: dict[str, float], expected: tuple[int, int, int]
) -> None:
    stack = TrainingStack(noise(**kernel), (0.0, 255.0))
    settings = TrainSettings(objective="masked")
    assert mask_shape([stack], settings) == expected
    assert mask_shape([TrainingStack(noise(), (0.0, 255.0)), stack], settings) == expected


def test_crops_along_all_axes_need_a_mask_that_is_as_large_along_each() -> None:
    assert fitting_mask([noise_correlation(noise(y=0.7))], isotropic=True) == (2, 2, 1)


def test_synthetic_noise_needs_single_pixels_whatever_the_stack_has() -> None:
    stack = TrainingStack(noise(x=0.5), (0.0, 255.0))
    assert mask_shape([stack], TrainSettings(objective="masked", gaussian=(5, 9))) == (0, 0, 0)


def test_scans_are_masked_within_themselves_only() -> None:
    scans = TrainingStack(noise(x=0.26, z=0.5), (0.0, 255.0))
    assert mask_shape([scans], TrainSettings(scans=True)) == (1, 0, 0)
