"""Training samples: what is cut from where, with which noise, and that a seed decides."""

from dataclasses import replace

import numpy as np
import pytest

from nrrn_fiji.triplets import (
    SampleSettings,
    TrainingStack,
    TripletSampler,
)

SCALE = 500_000.0
PLAIN = SampleSettings(objective="consensus", crop=16, batch=4, keep_orientation=True)


def numbered(depth: int = 20, height: int = 40, width: int = 48) -> np.ndarray:
    """A stack whose every pixel says where it is: z·10⁴ + y·10² + x."""
    z, y, x = np.mgrid[:depth, :height, :width]
    return (z * 10_000 + y * 100 + x).astype(np.float32)


class Placed(TripletSampler):
    """Gives the numbers of :func:`numbered` back, which the sampler maps to about [0, 1]."""

    def _sample(self, *arguments: object) -> tuple[np.ndarray, ...]:
        *images, weight = super()._sample(*arguments)  # type: ignore[arg-type]
        return (*(np.rint(image * SCALE) for image in images), weight)


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


def test_the_parts_of_a_step_are_its_samples_whoever_makes_them() -> None:
    whole = sampler(PLAIN).batch(7)
    parts = [sampler(PLAIN).batch(7, part) for part in (range(0, 1), range(1, 4))]
    for one, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(one, np.concatenate(pieces))
    assert not np.array_equal(whole.centre[0], whole.centre[1])


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


def test_slices_are_not_turned_where_the_mask_is_longer_along_one_axis() -> None:
    settings = replace(PLAIN, keep_orientation=False, batch=64, objective="masked")
    for shape, steps in (("1,0,0", {1, -1}), ("1,1,0", {1, -1, 100, -100})):
        batch = sampler(replace(settings, mask_shape=shape)).batch(0)
        assert {int(v) for v in batch.target[:, 0, 0, 1] - batch.target[:, 0, 0, 0]} == steps


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


def test_weighting_by_deviation_or_by_nothing() -> None:
    settings = replace(PLAIN, objective="clean", gaussian=(51.0, 51.0))
    root = sampler(replace(settings, weighting="deviation"), flat()).batch(0).weight
    assert root.ravel() == pytest.approx([(0.2**2 + 0.003) ** -0.5] * 4)
    assert (sampler(replace(settings, weighting="none"), flat()).batch(0).weight == 1).all()


def test_logarithmic_levels_draw_as_many_sigmas_per_octave() -> None:
    settings = replace(
        PLAIN, objective="clean", gaussian=(5.0, 80.0), batch=400, levels="logarithmic"
    )
    sigma = 255 * np.sqrt(1 / sampler(settings, flat()).batch(0).weight.ravel() - 0.003)
    shares, _ = np.histogram(sigma, [4.99, 10, 20, 40, 80.01])
    assert shares.sum() == 400
    assert shares / 400 == pytest.approx([0.25] * 4, abs=0.07)


def test_logarithmic_levels_reach_the_ends_of_their_range() -> None:
    # Peak 1, clipped: every pixel is 0 or 1, which no higher peak gives.
    settings = replace(
        PLAIN, objective="clean", poisson=(1.0, 50.0), batch=200, levels="logarithmic", clipped=1.0
    )
    centres = sampler(settings, flat(0.5)).batch(0).centre
    black_and_white = [set(np.unique(centre)) <= {0.0, 1.0} for centre in centres]
    assert 0.01 < np.mean(black_and_white) < 0.12
    spread = sampler(replace(settings, levels="spread"), flat(0.5)).batch(0).centre
    assert not any(set(np.unique(centre)) <= {0.0, 1.0} for centre in spread)


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
        ((20, 10, 64), "a crop is 16 x 16 px: give a stack whose slices have 16 px or more"),
        ((3, 20, 20), "leaves no room to hold out a part"),
    ],
)
def test_a_stack_that_is_too_small_is_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampler(PLAIN, np.zeros(shape, np.float32))
