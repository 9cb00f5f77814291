"""Stack in, stack out: seamless, every type kept, bounded memory, recovery."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from engine_runs import NETWORKS, PUBLISHED, Listener, noise_stack, run
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_engine import (
    ArraySource,
    branch,
    identity_network,
    plain_stack,
    shifting_network,
    strong_network,
)

from nrrn_fiji import engines
from nrrn_fiji.denoising import denoise_slabs, estimate_seconds, make_plan
from nrrn_fiji.intensity import grey_range
from nrrn_fiji.settings import DenoiseSettings


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_tiles_and_slabs_leave_no_trace(data):
    whole = data.draw(st.sampled_from([1, 2, 3]), "units of the model")
    network = NETWORKS[whole]
    units = data.draw(st.sampled_from([None, *range(1, whole + 1)]), "units")
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 60), st.integers(1, 60)), "shape")
    images = data.draw(st.sampled_from([1, 2, 3]), "images")
    tile = data.draw(st.integers(whole + 3, 64), "tile")
    stack = noise_stack(shape, data.draw(st.integers(0, 99), "seed"))
    expected = plain_stack(network, stack, images, units)
    image, noise, estimates = run(
        stack,
        network,
        images=images,
        units=units,
        tile=tile,
        slab=data.draw(st.integers(1, 7), "slab"),
        batch=data.draw(st.integers(1, 4), "batch"),
    )
    assert estimates.shape == expected.shape
    np.testing.assert_allclose(estimates, expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(image, expected[-1], atol=1e-5, rtol=0)
    np.testing.assert_allclose(noise, stack - expected[-1], atol=1e-5, rtol=0)


@settings(max_examples=15, deadline=None)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 45), st.integers(1, 45)),
    st.sampled_from([1, 2, 3]),
    st.integers(4, 40),
    st.integers(1, 4),
)
def test_published_weights_leave_no_trace(shape, images, tile, slab):
    stack = noise_stack(shape)
    expected = plain_stack(PUBLISHED, stack, images)
    image, _, estimates = run(stack, PUBLISHED, images=images, tile=tile, slab=slab)
    np.testing.assert_allclose(estimates, expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(image, expected[-1], atol=1e-5, rtol=0)


def test_the_seamless_test_would_see_a_small_halo():
    # One pixel of halo too few is visible, so the tolerance above means something.
    network = NETWORKS[3]
    stack = noise_stack((1, 60, 60))
    plan = make_plan(stack.shape, stack.dtype, network, DenoiseSettings(tile=16), (0, 1))
    plan = dataclasses.replace(plan, halo=plan.halo - 1)
    [block] = denoise_slabs(ArraySource(stack), network, plan)
    assert np.abs(block.image - plain_stack(network, stack)[-1]).max() > 1e-4


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 3),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([None, 1, 2]),
    st.integers(6, 40),
)
def test_scans_of_one_slice(count, plane, units, tile):
    network = NETWORKS[2]
    scans = noise_stack((count, *plane))
    first, centre, last = scans[0], scans[1], scans[-1]
    if count == 2:
        centre = (first + last) / 2
    expected = (branch(network, first, centre, units) + branch(network, last, centre, units)) / 2
    image, noise, estimates = run(scans, network, scans=True, units=units, tile=tile)
    assert image.shape == (1, *plane)
    np.testing.assert_allclose(estimates[:, 0], expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(image[0], expected[-1], atol=1e-5, rtol=0)
    np.testing.assert_allclose(noise[0], centre - expected[-1], atol=1e-5, rtol=0)


def extremes(dtype, shape=(3, 21, 33)):
    """Every kind of value of a type, and its ends."""
    rng = np.random.default_rng(0)
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        stack = (rng.standard_normal(shape) * 10.0 ** rng.integers(-20, 20, shape)).astype(dtype)
    else:
        stack = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)
        stack[0, 0, :2] = np.iinfo(dtype).min, np.iinfo(dtype).max
    return stack


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32", "float64"])
def test_a_network_that_changes_nothing_returns_the_input(dtype, precision):
    stack = extremes(dtype)
    span = grey_range(ArraySource(stack))
    for images in (1, 2, 3):
        image, noise, units = run(
            stack, identity_network(), span=span, precision=precision, images=images, tile=16
        )
        assert image.dtype == stack.dtype
        np.testing.assert_array_equal(image, stack)
        assert not noise.any()
        np.testing.assert_array_equal(units[0], stack.astype(np.float32))


def test_two_scans_of_a_network_that_changes_nothing_are_their_mean():
    scans = np.array([[[10, 11]], [[11, 12]]], np.uint8)
    image, _, _ = run(scans, identity_network(), span=(0, 255), scans=True)
    assert image.tolist() == [[[10, 12]]]  # 10.5 and 11.5, half to even
    assert image.dtype == np.uint8


def test_other_byte_order_is_read_right():
    stack = extremes("uint16")
    image, _, _ = run(stack.astype(">u2"), identity_network(), span=(0, 65535))
    np.testing.assert_array_equal(image, stack)
    assert image.dtype == np.uint16


@pytest.mark.parametrize("asked", [None, (3000, 7000)])
def test_16_bit_keeps_its_levels(asked):
    # A smooth 16-bit image in 1000 … 9000: banding would leave few levels, clipping would flatten
    # the ends.
    y, x = np.mgrid[:90, :120]
    smooth = 5000 + 3900 * np.sin(x / 17) * np.cos(y / 23)
    rng = np.random.default_rng(0)
    stack = np.rint([smooth + 40 * rng.standard_normal(smooth.shape) for _ in range(3)])
    stack = stack.astype(np.uint16)
    stack[:, 50, 60] = 9000
    stack[:, 51, 61] = 1000
    span = grey_range(ArraySource(stack), asked=asked)
    network = strong_network(2)
    with torch.no_grad():  # an output near the input, as of a trained network
        for name, value in network.named_parameters():
            if not name.startswith("W0"):
                value.mul_(0.15)
    image, _, _ = run(stack, network, span=span, tile=32)
    low, high = span
    unit = ((stack - low) / (high - low)).astype(np.float32)
    expected = low + (high - low) * plain_stack(network, unit)[-1].astype(np.float64)
    assert np.abs(image - expected).max() < 0.5 + 1e-5 * (high - low)
    levels = len(np.unique(np.rint(expected)))
    assert len(np.unique(image)) > 0.99 * levels > 4000
    assert image.max() == np.rint(expected.max())
    assert image.min() == np.rint(expected.min())
    # Values outside of the mapped range live on.
    assert image.min() < 2000
    assert image.max() > 8000


@pytest.mark.parametrize(("dtype", "ends"), [("uint8", (0, 255)), ("int16", (-32768, 32767))])
def test_integers_saturate_at_their_ends(dtype, ends):
    stack = np.full((2, 9, 9), 100, dtype)
    up, _, _ = run(stack, shifting_network(1e3), span=(0, 255))
    down, _, _ = run(stack, shifting_network(-1e3), span=(0, 255))
    assert (up == ends[1]).all()
    assert (down == ends[0]).all()


def test_float64_is_added_in_float64():
    stack = 2.0**40 + np.random.default_rng(0).random((1, 9, 9))
    image, _, _ = run(stack, shifting_network(2.0), span=(2.0**40, 2.0**40 + 1))
    np.testing.assert_allclose(image - stack, 2, atol=1e-3)
    assert len(np.unique(image - stack)) > 1 or (image - stack == 2).all()
    assert image.dtype == np.float64


def test_invalid_pixels_are_returned_and_do_not_leak():
    network = NETWORKS[2]
    clean = noise_stack((3, 50, 60))
    stack = clean.copy()
    stack[1, 20, 20], stack[1, 30, 31], stack[0, 40, 50] = np.nan, np.inf, -np.inf
    listener = Listener()
    image, noise, _ = run(stack, network, tile=16, slab=1, progress=listener)
    bad = ~np.isfinite(stack)
    np.testing.assert_array_equal(image[bad], stack[bad])
    assert np.isfinite(image[~bad]).all()
    assert not noise[bad].any()
    # What is far from them does not know of them.
    expected, _, _ = run(clean, network)
    np.testing.assert_allclose(image[:, :10, :10], expected[:, :10, :10], atol=1e-5)
    np.testing.assert_allclose(image[2, 10:, :5], expected[2, 10:, :5], atol=1e-5)
    # Said once, with the first slice.
    assert len(listener.messages) == 1
    assert "returned unchanged" in listener.messages[0]
    assert "slice 0" in listener.messages[0]


def test_a_dead_pixel_looks_like_its_surroundings():
    # NaN in a flat area: the network must see a flat area.
    network = NETWORKS[2]
    flat = np.full((1, 30, 30), 0.5, np.float32)
    stack = flat.copy()
    stack[0, 15, 15] = np.nan
    image, _, _ = run(stack, network)
    expected, _, _ = run(flat, network)
    there = np.isfinite(image)
    np.testing.assert_array_equal(image[there], expected[there])


def test_black_borders_are_returned_and_do_not_leak():
    network = NETWORKS[2]
    inner = noise_stack((3, 64, 64)) + 1
    stack = inner.copy()
    stack[1, :, :10] = 0
    image, _, _ = run(stack, network, tile=16)
    assert not image[1, :, :10].any()
    filled = stack.copy()
    filled[1, :, :10] = stack[1, :, 10:11]  # the nearest valid pixel of each row
    expected, _, _ = run(filled, network)
    np.testing.assert_allclose(image[1, :, 10:], expected[1, :, 10:], atol=1e-5)
    np.testing.assert_allclose(image[[0, 2]], expected[[0, 2]], atol=1e-5)


@pytest.mark.parametrize("slab", [1, 2, 5])
@pytest.mark.parametrize("images", [2, 3])
def test_an_empty_slice_is_no_neighbour(images, slab):
    network = NETWORKS[1]
    stack = noise_stack((5, 40, 40)) + 0.1
    stack[2] = 0
    listener = Listener()
    image, _, _ = run(stack, network, images=images, slab=slab, progress=listener)
    assert not image[2].any()
    np.testing.assert_allclose(image[1], branch(network, stack[0], stack[1])[-1], atol=1e-5)
    np.testing.assert_allclose(image[3], branch(network, stack[4], stack[3])[-1], atol=1e-5)
    assert any("slice 2" in text for text in listener.messages)


def test_a_slice_between_empty_slices_is_its_own_neighbour():
    stack = noise_stack((3, 40, 40)) + 0.1
    stack[[0, 2]] = np.nan
    image, _, _ = run(stack, NETWORKS[1])
    np.testing.assert_allclose(image[1], branch(NETWORKS[1], stack[1], stack[1])[-1], atol=1e-5)
    assert np.isnan(image[[0, 2]]).all()


def test_two_scans_stand_in_for_each_others_invalid_pixels():
    network = NETWORKS[1]
    scans = noise_stack((2, 20, 20))
    scans[0, 3, 3], scans[1, 9, 9], scans[:, 15, 15] = np.nan, np.nan, np.nan
    image, _, _ = run(scans, network, scans=True)
    assert np.argwhere(np.isnan(image[0])).tolist() == [[15, 15]]


def test_a_constant_volume_is_returned_and_said():
    stack = np.full((3, 12, 12), 700, np.uint16)
    listener = Listener()
    image, _, _ = run(stack, NETWORKS[1], span=(700, 700), progress=listener, slab=1)
    np.testing.assert_array_equal(image, stack)
    assert listener.messages == [
        "All pixels that were looked at equal 700: the image is returned as it is."
    ]


def test_a_range_of_slices_uses_its_neighbours():
    network = NETWORKS[1]
    stack = noise_stack((7, 20, 20))
    whole, _, _ = run(stack, network)
    for slab in (1, 2, 9):
        part, _, _ = run(stack, network, slices=range(2, 5), slab=slab)
        np.testing.assert_allclose(part, whole[2:5], atol=1e-5)


@pytest.mark.parametrize("slices", [range(0, 8), range(-1, 3), range(3, 3), range(0, 6, 2)])
def test_a_range_outside_the_stack_is_refused(slices):
    with pytest.raises(ValueError, match="slices 0 … 6"):
        run(noise_stack((7, 9, 9)), NETWORKS[1], slices=slices)


def test_finished_slabs_are_skipped_and_the_rest_is_identical():
    network = NETWORKS[2]
    stack = noise_stack((9, 30, 30))
    plan = make_plan(stack.shape, stack.dtype, network, DenoiseSettings(tile=16, slab=2), (0, 1))
    whole = list(denoise_slabs(ArraySource(stack), network, plan))
    assert [(block.start, block.stop) for block in whole] == [
        (0, 2),
        (2, 4),
        (4, 6),
        (6, 8),
        (8, 9),
    ]
    listener = Listener()
    rest = list(denoise_slabs(ArraySource(stack), network, plan, done={0, 3}, progress=listener))
    assert [block.start for block in rest] == [2, 4, 8]
    for block, same in zip(rest, (whole[1], whole[2], whole[4]), strict=True):
        np.testing.assert_array_equal(block.image, same.image)
    assert listener.updates[-1] == (5, 5)
    done = [done for done, _ in listener.updates]
    assert done == sorted(done)


def test_a_damaged_model_is_an_error_not_an_image():
    network = strong_network(1)
    with torch.no_grad():
        network.W2.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="the model is damaged"):
        run(noise_stack((1, 9, 9)), network)


def test_bf16_is_close_to_fp32():
    stack = noise_stack((2, 40, 40))
    fine, _, _ = run(stack, NETWORKS[3])
    coarse, _, _ = run(stack, NETWORKS[3], precision="bf16")
    error = np.sqrt(np.mean((fine - coarse) ** 2))
    assert 0 < error < 2e-2


def test_a_tile_below_the_halo_is_refused():
    with pytest.raises(ValueError, match=r"tile is 5.*halo around it, 6 px"):
        run(noise_stack((1, 40, 40)), NETWORKS[3], tile=5)
    # Stopped after one unit the network looks less far.
    image, _, _ = run(noise_stack((1, 40, 40)), NETWORKS[3], tile=5, units=1)
    assert image.shape == (1, 40, 40)


def test_units_above_the_models_are_refused():
    with pytest.raises(ValueError, match="choose 1 … 3"):
        run(noise_stack((1, 9, 9)), NETWORKS[3], units=4)


@pytest.mark.parametrize("shape", [(0, 5, 5), (5, 0, 5)])
def test_an_empty_stack_is_refused(shape):
    with pytest.raises(ValueError, match="every axis needs at least 1"):
        run(np.zeros(shape, np.uint8), NETWORKS[1])


@pytest.mark.parametrize("count", [1, 4])
def test_only_two_or_three_scans_are_taken(count):
    with pytest.raises(ValueError, match="register"):
        run(noise_stack((count, 9, 9)), NETWORKS[1], scans=True)


def test_scans_set_the_number_of_images():
    with pytest.raises(ValueError, match="number of scans, 3: leave it out"):
        run(noise_stack((3, 9, 9)), NETWORKS[1], scans=True, images=2)


def test_complex_images_are_refused():
    with pytest.raises(TypeError, match=r"complex numbers.*magnitude"):
        run(np.zeros((1, 9, 9), np.complex64), NETWORKS[1])


def test_a_plan_for_another_stack_is_refused():
    stack = noise_stack((2, 9, 9))
    plan = make_plan((3, 9, 9), stack.dtype, NETWORKS[1], DenoiseSettings(), (0, 1))
    with pytest.raises(ValueError, match="make a new plan"):
        list(denoise_slabs(ArraySource(stack), NETWORKS[1], plan))


def test_a_source_that_reads_too_little_is_noticed():
    class Short(ArraySource):
        def read(self, start, stop):
            return self.array[start : stop - 1]

    stack = noise_stack((2, 9, 9))
    plan = make_plan(stack.shape, stack.dtype, NETWORKS[1], DenoiseSettings(), (0, 1))
    with pytest.raises(ValueError, match="check the file"):
        list(denoise_slabs(Short(stack), NETWORKS[1], plan))


def test_the_time_estimate_counts_tiles_and_slabs(monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(engines.time, "perf_counter", lambda: float(next(ticks)))
    asked = DenoiseSettings(tile=16, slab=5, device="cpu")
    plan = make_plan((10, 30, 30), "uint8", NETWORKS[1], asked, (0, 255))
    # A clock that ticks once a tile: 4 tiles, and each of 2 slabs costs a slice more.
    assert estimate_seconds(NETWORKS[1], plan) == 4 * (10 + 2)
    assert estimate_seconds(NETWORKS[1], plan, slices=5) == 4 * (5 + 1)
    constant = dataclasses.replace(plan, intensity=(5.0, 5.0))
    assert estimate_seconds(NETWORKS[1], constant) == 0


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 5e-2)])
def test_the_gpu_computes_the_same(precision, tolerance):
    stack = noise_stack((4, 90, 110))
    expected = plain_stack(NETWORKS[3], stack)
    _, _, estimates = run(stack, NETWORKS[3], device="cuda", precision=precision, tile=32, batch=3)
    np.testing.assert_allclose(estimates, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("orientations", [2, 4, 8])
def test_orientations_are_averaged(orientations):
    stack = noise_stack((3, 20, 33))
    network = NETWORKS[2]

    def turned(k):
        flipped = stack[:, :, ::-1] if k >= 4 else stack
        return np.ascontiguousarray(np.rot90(flipped, -(k % 4), (1, 2)))

    def back(estimate, k):
        estimate = np.rot90(estimate, k % 4, (-2, -1))
        return estimate[..., ::-1] if k >= 4 else estimate

    expected = np.mean(
        [back(plain_stack(network, turned(k)), k) for k in range(orientations)], axis=0
    )
    image, _, estimates = run(stack, network, orientations=orientations, tile=16)
    np.testing.assert_allclose(estimates, expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(image, expected[-1], atol=1e-5, rtol=0)
    assert np.abs(image - run(stack, network)[0]).max() > 1e-3
