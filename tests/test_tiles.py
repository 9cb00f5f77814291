"""Windows cover every slice once, with real pixels around what is kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nrrn_fiji.tiles import check_tile, slabs, spans, tile_bytes, window_size, windows

halos = st.integers(3, 8)


@given(st.integers(1, 300), halos, st.data())
def test_spans_cover_an_axis_once_with_a_halo(length, halo, data):
    tile = data.draw(st.integers(halo, 310))
    cut = spans(length, tile, halo)
    kept = [x for span in cut for x in range(span.first, span.last)]
    assert kept == list(range(length))
    for span in cut:
        assert 0 <= span.start <= span.first < span.last <= span.stop <= length
        assert span.stop - span.start == window_size(length, tile, halo) <= tile + 2 * halo
        assert span.start == 0 or span.first - span.start >= halo
        assert span.stop == length or span.stop - span.last >= halo


@given(st.integers(1, 5000), halos, st.integers(8, 600))
def test_no_more_windows_than_needed(length, halo, tile):
    # n windows of at most tile + 2 halo reach n · tile + 2 halo pixels.
    needed = max(1, int(np.ceil((length - 2 * halo) / tile)))
    assert len(spans(length, tile, halo)) <= needed


@given(st.tuples(st.integers(1, 90), st.integers(1, 90)), halos, st.integers(8, 100))
def test_windows_cover_a_slice_once(shape, halo, tile):
    covered = np.zeros(shape, int)
    for y, x in windows(shape, tile, halo):
        covered[y.first : y.last, x.first : x.last] += 1
    assert (covered == 1).all()


@pytest.mark.parametrize(("tile", "halo"), [(6, 7), (1, 4)])
def test_a_tile_below_the_halo_is_refused(tile, halo):
    with pytest.raises(ValueError, match=f"tile is {tile}.*choose 64 or more"):
        check_tile(tile, halo)
    assert check_tile(halo, halo) == halo


@given(st.integers(0, 20), st.integers(1, 50), st.integers(1, 60))
def test_slabs_are_in_order_and_whole(start, count, depth):
    cut = list(slabs(range(start, start + count), depth))
    assert [z for slab in cut for z in slab] == list(range(start, start + count))
    assert all(len(slab) == depth for slab in cut[:-1])


def test_memory_grows_with_pixels_maps_and_bytes():
    one = tile_bytes(100, 32, 2)
    assert tile_bytes(200, 32, 2) == tile_bytes(100, 64, 2) == tile_bytes(100, 32, 4) == 2 * one
