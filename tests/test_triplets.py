"""Training samples: what is cut from where, with which noise, and that a seed decides."""

from dataclasses import replace

import numpy as np
import pytest

from nrrn_fiji.triplets import (
    Batch,
    MaskShape,
    SampleSettings,
    TrainingStack,
    TripletSampler,
    mask_pixels,
)

SCALE = 500_000.0
PLAIN = SampleSettings(objective="consensus", crop=16, batch=4, keep_orientation=True)


def numbered(depth: int = 20, height: int = 40, width: int = 48) -> np.ndarray:
    """A stack whose every pixel says where it is: z·10⁴ + y·10² + x."""
    z, y, x = np.mgrid[:depth, :height, :width]
    return (z * 10_000 + y * 100 + x).astype(np.float32)


class Placed(TripletSampler):
    """Gives the numbers of :func:`numbered` back, which the sampler maps to about [0, 1]."""

    def _batch(self, *arguments: object, **more: object) -> Batch:
        batch = super()._batch(*arguments, **more)  # type: ignore[arg-type]
        images = (np.rint(image * SCALE) for image in batch[:4])
        return Batch(*images, batch.weight)


def sampler(settings: SampleSettings, *arrays: np.ndarray) -> TripletSampler:
    if arrays and arrays[0].max() <= 1:
        return TripletSampler([TrainingStack(array, (0.0, 1.0)) for array in arrays], settings)
    stacks = [TrainingStack(array, (0.0, SCALE)) for array in arrays or (numbered(),)]
    return Placed(stacks, settings)


def test_a_triplet_is_three_adjacent_slices_at_one_place() -> None:
    batch = sampler(PLAIN).batch(0)
    assert batch.centre.shape == (4, 1, 16, 16)
    np.testing.assert_array_equal(batch.centre - batch.previous, 10_000)
    np.testing.assert_array_equal(batch.following - batch.centre, 10_000)
    np.testing.assert_array_equal(np.diff(batch.centre, axis=-1), 1)
    np.testing.assert_array_equal(np.diff(batch.centre, axis=-2), 100)


def test_a_step_has_the_same_samples_whatever_came_before() -> None:
    first, second = sampler(PLAIN), sampler(PLAIN)
    for step in range(5):
        first.batch(step)
    for one, other in zip(first.batch(7), second.batch(7), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(first.batch(7).centre, first.batch(8).centre)
    other_seed = sampler(replace(PLAIN, seed=1))
    assert not np.array_equal(first.batch(7).centre, other_seed.batch(7).centre)


@pytest.mark.parametrize("isotropic", [False, True])
def test_training_never_sees_the_held_out_slices(isotropic: bool) -> None:
    made = sampler(replace(PLAIN, isotropic=isotropic, keep_orientation=False, batch=200))
    seen = np.concatenate([np.ravel(part) for part in made.batch(0)[:3]]) // 10_000
    assert seen.max() == 16  # 20 slices less the last 3
    held_out = np.concatenate([b.following.ravel() for b in made.validation(30, 16)]) // 10_000
    assert held_out.min() >= 17


def test_a_shallow_stack_holds_out_a_strip_instead() -> None:
    made = sampler(replace(PLAIN, batch=300), numbered(depth=4))
    seen = made.batch(0).centre % 100
    held_out = np.concatenate([b.previous.ravel() % 100 for b in made.validation(20, 16)])
    assert seen.max() < held_out.min()
    assert seen.max() == 48 - 16 - 1  # A strip of 16 pixels, not a crop's width or half the stack.


def test_isotropic_cuts_along_all_three_axes() -> None:
    batch = sampler(replace(PLAIN, isotropic=True, batch=64), numbered(40, 40, 40)).batch(0)
    steps = {round(value) for value in (batch.following - batch.centre)[:, 0, 0, 0]}
    assert steps == {1, 100, 10_000}


def test_flips_reverse_and_transpose() -> None:
    batch = sampler(replace(PLAIN, keep_orientation=False, batch=64)).batch(0)
    along_x = {int(v) for v in (batch.centre[:, 0, 0, 1] - batch.centre[:, 0, 0, 0])}
    assert along_x == {1, -1, 100, -100}
    along_z = {int(v) for v in (batch.centre - batch.previous)[:, 0, 0, 0]}
    assert along_z == {10_000, -10_000}


def test_scans_may_be_combined_in_any_order() -> None:
    scans = np.arange(4, dtype=np.float32)[:, None, None] * np.full((4, 40, 80), 2, np.float32)
    batch = sampler(replace(PLAIN, scans=True, batch=64), scans).batch(0)
    triples = {tuple(int(part[i, 0, 0, 0]) for part in batch[:3]) for i in range(64)}
    assert all(len(set(triple)) == 3 for triple in triples)
    assert {triple[1] for triple in triples} == {0, 2, 4, 6}


def test_grey_values_are_mapped_and_not_clipped() -> None:
    stack = TrainingStack(np.full((9, 32, 32), 3000, np.uint16), (1000.0, 2000.0))
    assert np.all(TripletSampler([stack], PLAIN).batch(0).centre == 2.0)


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


@pytest.mark.parametrize("objective", ["consensus", "masked", "clean"])
def test_samples_are_float32_since_some_devices_have_nothing_wider(objective: str) -> None:
    settings = replace(PLAIN, objective=objective, gaussian=(5.0, 10.0))
    made = sampler(settings, flat())
    for batch in (made.batch(0), made.validation(1, 16)[0], made.example(16)):
        assert {part.dtype for part in batch} == {np.dtype(np.float32)}


def test_the_masked_objective_shows_the_replaced_centre_and_asks_for_the_recorded_one() -> None:
    batch = sampler(replace(PLAIN, objective="masked", mask=0.1)).batch(3)
    replaced = batch.weight > 0
    assert np.all((batch.centre != batch.target) == replaced)
    # Weights are normalised: their mean is 1 whatever the number of replaced pixels.
    np.testing.assert_allclose(batch.weight.mean(axis=(1, 2, 3)), 1, rtol=1e-5)
    np.testing.assert_array_equal(batch.target - batch.previous, 10_000)


def flat(value: float = 0.5) -> np.ndarray:
    return np.full((20, 64, 64), value, np.float32)


def test_the_clean_objective_asks_for_the_clean_centre_weighted_by_its_noise() -> None:
    settings = replace(
        PLAIN, objective="clean", gaussian=(51.0, 51.0), crop=64, poisson=None, batch=8
    )
    batch = sampler(settings, flat()).batch(0)
    np.testing.assert_array_equal(batch.target, 0.5)
    assert batch.centre.std() == pytest.approx(0.2, rel=0.05)
    assert batch.weight.ravel() == pytest.approx([1 / (0.2**2 + 0.003)] * 8)


def test_poisson_weights_follow_brightness_and_peak() -> None:
    settings = replace(PLAIN, objective="clean", poisson=(10.0, 10.0), crop=64)
    batch = sampler(settings, flat(0.5)).batch(0)
    assert batch.weight.ravel() == pytest.approx([1 / (0.05 + 0.003)] * 4)
    assert batch.previous.var() == pytest.approx(0.05, rel=0.1)


def test_spread_levels_give_either_kind_or_both_and_reach_low_peaks() -> None:
    settings = replace(
        PLAIN, objective="clean", poisson=(1.0, 50.0), gaussian=(10.0, 75.0), batch=400
    )
    variance = 1 / sampler(settings, flat(0.5)).batch(0).weight.ravel() - 0.003
    # Peaks below 4 have a variance above 0.125, more than sigma 75 alone has (0.0865).  Spread
    # over the logarithm they are 35 % of the peaks; drawn evenly, 6 %.
    assert 0.15 < np.mean(variance > 0.125) < 0.35
    assert variance.min() < 0.01 and variance.max() < 0.5 + 0.0866


def test_clipped_samples_stay_in_range_and_others_do_not() -> None:
    settings = replace(PLAIN, objective="clean", gaussian=(75.0, 75.0), crop=64)
    clipped = sampler(replace(settings, clipped=1.0), flat()).batch(0).centre
    assert clipped.min() == 0 and clipped.max() == 1
    assert sampler(settings, flat()).batch(0).centre.min() < 0


def test_consensus_validates_by_masked_centre_error_because_its_loss_cannot_see_blur() -> None:
    (batch, *_) = sampler(PLAIN).validation(3, 16)
    assert 0 < np.mean(batch.weight > 0) < 0.3
    assert np.all((batch.centre != batch.target) == (batch.weight > 0))


def test_the_example_is_a_whole_slice_nothing_masked() -> None:
    example = sampler(replace(PLAIN, objective="masked")).example(32)
    assert example.centre.shape == (1, 1, 32, 32)
    np.testing.assert_array_equal(np.diff(example.centre, axis=-1), 1)


def test_rescaling_changes_the_size_of_structures() -> None:
    settings = replace(PLAIN, rescale=(0.5, 0.5))
    batch = sampler(settings, numbered(20, 64, 64)).batch(0)
    assert batch.centre.shape == (4, 1, 16, 16)
    # At half the scale, neighbouring pixels are two apart.
    assert np.diff(batch.centre[..., 4:12], axis=-1).mean() == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 64, 64), "has 2 slices, but training needs at least 3"),
        ((20, 10, 64), "a crop is 16 x 16 px: choose crop=10 or smaller"),
        ((3, 20, 20), "leaves no room to hold out a part"),
    ],
)
def test_a_stack_that_is_too_small_is_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampler(PLAIN, np.zeros(shape, np.float32))
