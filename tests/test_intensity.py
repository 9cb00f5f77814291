"""Grey values: one mapping per volume, every type kept, invalid pixels found."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_engine import ArraySource

from nrrn_fiji.intensity import (
    GreyRange,
    check_dtype,
    fill_invalid,
    grey_range,
    invalid_mask,
    restore,
    to_unit,
)


class Unreadable(ArraySource):
    def read(self, start, stop):
        raise AssertionError("nothing should be read")


@pytest.mark.parametrize(("dtype", "expected"), [("uint8", (0, 255)), ("int8", (-128, 127))])
def test_8_bit_is_the_types_range_after_one_slice(dtype, expected):
    class OneSlice(ArraySource):
        def read(self, start, stop):
            assert (start, stop) == (0, 1)
            return super().read(start, stop)

    stack = np.arange(36).reshape(4, 3, 3).astype(dtype)
    assert grey_range(OneSlice(stack)) == expected


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "float64", ">u2", ">f4"])
def test_percentiles_of_the_volume(dtype):
    stack = np.random.default_rng(0).integers(1000, 9000, (7, 40, 50)).astype(dtype)
    low, high = grey_range(ArraySource(stack))
    np.testing.assert_allclose([low, high], np.percentile(stack, [0.1, 99.9]), rtol=1e-12)


def test_the_whole_depth_counts_and_reading_is_bounded():
    # 500 slices that brighten along z.
    class Ramp:
        shape, dtype = (500, 100, 100), np.dtype(np.float32)
        read_slices: ClassVar[list[int]] = []

        def read(self, start, stop):
            self.read_slices += range(start, stop)
            values = np.arange(start + 1, stop + 1, dtype=np.float32)
            return np.repeat(values, 10000).reshape(-1, 100, 100)

    assert grey_range(Ramp()) == (1, 500)
    assert {0, 499} <= set(Ramp.read_slices)
    assert len(Ramp.read_slices) <= 64


def test_sampling_many_pixels_is_repeatable_and_close(monkeypatch):
    monkeypatch.setattr("nrrn_fiji.intensity.SAMPLED_PIXELS", 100_000)
    stack = np.random.default_rng(1).normal(0, 1, (4, 300, 300))
    first = grey_range(ArraySource(stack))
    assert grey_range(ArraySource(stack)) == first
    # ±0.5 of a percentile's standard error here is 0.06.
    np.testing.assert_allclose(first, [-3.09, 3.09], atol=0.25)


def test_all_sources_share_one_range():
    dark, bright = (np.full((2, 40, 40), value, np.uint16) for value in (100, 900))
    assert grey_range(ArraySource(dark), ArraySource(bright)) == (100, 900)


def test_invalid_pixels_and_padding_do_not_count():
    stack = np.random.default_rng(2).uniform(500, 600, (3, 64, 64)).astype(np.float32)
    stack[0, 5, 5], stack[1, 6, 6], stack[2, 7, 7] = np.nan, np.inf, -np.inf
    stack[:, :20] = 0
    low, high = grey_range(ArraySource(stack))
    assert 500 <= low < 501
    assert 599 < high <= 600


def test_rare_values_still_give_a_range():
    stack = np.zeros((1, 100, 100), np.uint16) + 7
    stack[0, 3, 3] = 12  # 0.01 %: both percentiles are 7
    assert grey_range(ArraySource(stack)) == (7, 12)


@pytest.mark.parametrize("value", [0, 5])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32", "float64"])
def test_a_constant_volume_says_so(dtype, value):
    stack = np.full((2, 40, 40), value, dtype)
    result = grey_range(ArraySource(stack))
    assert result == (value, value)
    assert result.constant
    stack[1, 20:22, 20] = 8, 9
    assert not grey_range(ArraySource(stack)).constant


def test_one_bright_slice_in_a_thousand_is_a_range():
    stack = np.full((1000, 4, 4), 3, np.uint16)
    stack[501] = 8  # among the slices that are not sampled
    assert grey_range(ArraySource(stack)) == (3, 8)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_valid_pixel_is_an_error(value):
    with pytest.raises(ValueError, match="no valid pixel"):
        grey_range(ArraySource(np.full((2, 9, 9), value, np.float32)))


@pytest.mark.parametrize("asked", [(5, 5), (9, 1), (0, np.inf), (np.nan, 1)])
def test_a_range_without_extent_is_refused(asked):
    with pytest.raises(ValueError, match=r"intensity is .*LO,HI"):
        grey_range(Unreadable(np.zeros((1, 2, 2), np.uint16)), asked=asked)


def test_an_asked_range_is_taken():
    source = Unreadable(np.zeros((1, 2, 2), np.uint16))
    assert grey_range(source, asked=(10, 20)) == GreyRange(10.0, 20.0)


@pytest.mark.parametrize(
    ("dtype", "hint"),
    [("complex64", "magnitude"), ("bool", "mask"), ("int64", "convert"), ("u1,u1,u1", "colours")],
)
def test_other_types_are_refused_with_a_pointer(dtype, hint):
    with pytest.raises(TypeError, match=hint):
        check_dtype(dtype)


def test_byte_order_is_made_native():
    assert check_dtype(">u2") == np.dtype("uint16")
    assert check_dtype(">u2").isnative


def test_values_outside_the_range_are_extrapolated():
    image = np.array([[0, 1000, 3000, 9000]], np.uint16)
    np.testing.assert_allclose(to_unit(image, (1000, 3000)), [[-0.5, 0, 1, 4]])
    assert to_unit(image, (1000, 3000)).dtype == np.float32


def test_huge_values_stay_finite():
    image = np.array([[-3e38, 0, 3e38]], np.float32)
    assert np.isfinite(to_unit(image, (0, 1e-3))).all()


everything = st.sampled_from(["uint8", "int8", "uint16", "int16", "float32", "float64"])


@given(everything, st.integers(0, 2**32 - 1), st.tuples(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6)))
def test_no_change_gives_the_input_exactly(dtype, seed, span):
    raw = np.random.default_rng(seed).bytes(30 * np.dtype(dtype).itemsize)
    image = np.frombuffer(raw, dtype).reshape(5, 6)
    image = np.where(np.isfinite(image), image, 0).astype(dtype)
    result = restore(image, np.zeros((5, 6), np.float32), (span[0], span[0] + span[1]))
    assert result.dtype == image.dtype
    np.testing.assert_array_equal(result, image)


def test_integers_are_rounded_half_to_even_and_saturated():
    image = np.array([[10, 11, 250, 3]], np.uint8)
    change = np.array([[0.5, 0.5, 20, -20]], np.float32)
    assert restore(image, change, (0, 1)).tolist() == [[10, 12, 255, 0]]
    image = np.array([[32000, -32000, -5]], np.int16)
    change = np.array([[1, -1, 2.5 / 1024]], np.float32)
    assert restore(image, change, (0, 1024)).tolist() == [[32767, -32768, -2]]


def test_the_sum_is_exact_in_fp64(monkeypatch):
    monkeypatch.setattr("nrrn_fiji.intensity.CHUNK", 16)  # several chunks of rows
    image = np.arange(63.0).reshape(9, 7) + 2**40
    change = np.random.default_rng(0).random((9, 7), np.float32)
    np.testing.assert_array_equal(restore(image, change, (0, 2)), image + 2 * change.astype(float))


def test_clean_slices_have_no_mask():
    image = np.random.default_rng(0).integers(0, 3, (64, 64)).astype(np.uint8)
    assert invalid_mask(image) is None  # many zeros, no long run


def test_nan_and_infinity_are_invalid():
    image = np.ones((8, 9), np.float32)
    image[1, 2], image[3, 4], image[5, 6] = np.nan, np.inf, -np.inf
    mask = invalid_mask(image)
    assert mask is not None
    assert np.argwhere(mask).tolist() == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("value", [0, np.nan])
def test_a_wedge_from_registration_is_padding(turns, value):
    rng = np.random.default_rng(3)
    image = rng.uniform(1, 2, (120, 160)).astype(np.float32)
    y, x = np.mgrid[:120, :160]
    wedge = y < 30 - x / 4  # as a rotation leaves it
    image[wedge] = value
    image[60:70, 60:70] = 0  # a dark object inside is not
    mask = invalid_mask(np.rot90(image, turns))
    assert mask is not None
    np.testing.assert_array_equal(mask, np.rot90(wedge, turns))


def test_short_dark_runs_on_a_side_are_noise():
    image = np.ones((300, 400), np.uint8)
    image[:5, 10:41] = 0  # 31 px
    image[:3, 100:149] = 0  # 49 px: below an eighth of 400
    assert invalid_mask(image) is None
    image[:3, 100:150] = 0
    mask = invalid_mask(image)
    assert mask is not None
    assert mask.sum() == 150


def test_padding_all_around_leaves_the_image():
    image = np.zeros((90, 80), np.uint16)
    image[20:70, 15:60] = 300
    mask = invalid_mask(image)
    np.testing.assert_array_equal(mask, image == 0)


def test_an_empty_slice_is_all_padding():
    mask = invalid_mask(np.zeros((40, 50), np.uint8))
    assert mask is not None
    assert mask.all()


def test_filling_takes_the_nearest_valid_pixel():
    image = np.array([[1, 2, 9, 9, 9], [3, 4, 9, 9, 9]], np.uint8)
    filled = fill_invalid(image, image == 9)
    assert filled.tolist() == [[1, 2, 2, 2, 2], [3, 4, 4, 4, 4]]
    assert image[0, 2] == 9
