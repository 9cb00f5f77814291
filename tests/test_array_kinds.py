"""xarray's and dask's arrays are denoised to the pixels of NumPy's, and stay what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plain_engine import strong_network

import nrrn_fiji as nrrn
from nrrn_fiji.models import Model, save_model

xarray = pytest.importorskip("xarray")
arrays = pytest.importorskip("dask.array")

# As deep as a chunk, so that NumPy's array is cut alike.
SAME: dict[str, Any] = {"slab": 3, "tile": 32, "device": "cpu", "precision": "fp32"}


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return save_model(tmp_path / "strong.safetensors", strong_network(1), {})


def grey(depth: int = 8) -> np.ndarray:
    """A stack (depth, 20, 40), brighter from slice to slice, of 16 bits."""
    rng = np.random.default_rng(0)
    z = np.arange(depth)[:, None, None]
    return (1000 * z + rng.integers(0, 9000, (depth, 20, 40))).astype(np.uint16)


def test_a_labelled_array_keeps_its_labels(model: Model) -> None:
    expected = nrrn.denoise(grey(), model, **SAME)
    stack = xarray.DataArray(
        grey().transpose(2, 0, 1),
        dims=("x", "z", "y"),
        coords={"z": np.arange(8) * 6.0, "sample": "medulla"},
        attrs={"unit": "nm"},
        name="raw",
    )
    clean = nrrn.denoise(stack, model, **SAME)
    assert clean.dims == ("x", "z", "y") and clean.name == "raw"
    assert clean.attrs == {"unit": "nm"} and clean.dtype == np.uint16
    xarray.testing.assert_identical(clean.z, stack.z)
    assert clean.sample.item() == "medulla"
    np.testing.assert_array_equal(clean.transpose("z", "y", "x").values, expected)
    assert np.array_equal(stack.values, grey().transpose(2, 0, 1))


def test_more_than_the_image_is_labelled_too(model: Model) -> None:
    stack = xarray.DataArray(grey(3), dims=("pln", "row", "col"), coords={"pln": [5, 6, 7]})
    made = nrrn.denoise(stack, model, return_noise=True, return_units=True, **SAME)
    plain = nrrn.denoise(grey(3), model, return_noise=True, return_units=True, **SAME)
    assert made.units.dims == ("unit", "pln", "row", "col")
    assert made.units.unit.values.tolist() == [1, 2] and made.units.pln.values.tolist() == [5, 6, 7]
    for one, other in zip(made, plain, strict=True):
        np.testing.assert_array_equal(one.values, other)
    one = nrrn.denoise(stack, model, scans=True, tile=32, device="cpu")
    assert one.dims == ("row", "col")


def test_other_dimensions_are_refused(model: Model) -> None:
    with pytest.raises(ValueError, match=r"dimensions \(t, y, x\), but z, y and x"):
        nrrn.denoise(xarray.DataArray(grey(), dims=("t", "y", "x")), model)
    with pytest.raises(ValueError, match=r"dimensions \(dim_0, dim_1, dim_2\)"):
        nrrn.denoise(xarray.DataArray(grey()), model)


def test_a_dask_array_is_denoised_when_it_is_computed(model: Model) -> None:
    calls: list[int] = []

    def counted(block: np.ndarray) -> np.ndarray:
        calls.append(len(block))
        return block

    stack = arrays.from_array(grey(), chunks=(3, 20, 13)).map_blocks(counted, dtype=np.uint16)
    calls.clear()  # dask tries it on an empty block
    clean = nrrn.denoise(stack, model, intensity=(0, 16000), **SAME)
    assert calls == []  # with a given range nothing needs to be looked at
    assert clean.chunks == ((3, 3, 2), (20,), (40,)) and clean.dtype == np.uint16
    expected = nrrn.denoise(grey(), model, intensity=(0, 16000), **SAME)
    np.testing.assert_array_equal(clean.compute(), expected)
    assert calls
    # Only what a part needs is computed: its chunk, and those of the neighbouring slices.
    calls.clear()
    np.testing.assert_array_equal(clean[:2].compute(), expected[:2])
    assert len(calls) < 3 * 4


def test_the_grey_range_of_a_dask_array_is_that_of_the_whole_stack(model: Model) -> None:
    expected = nrrn.denoise(grey(), model, return_noise=True, return_units=True, **SAME)
    stack = arrays.from_array(grey(), chunks=(3, -1, -1))
    lazy = nrrn.denoise(stack, model, return_noise=True, return_units=True, **SAME)
    for one, other in zip(lazy, expected, strict=True):
        assert isinstance(one, arrays.Array)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one.compute(), other)
    # A chunk of its own would have been mapped by its own grey values.
    alone = nrrn.denoise(grey()[:3], model, **SAME)
    assert not np.array_equal(alone[:2], expected.image[:2])


@pytest.mark.parametrize("scans", [False, True])
def test_dask_within_xarray_and_single_slices(model: Model, scans: bool) -> None:
    stack = xarray.DataArray(grey(3), dims=("z", "y", "x")).chunk(z=1, y=7)
    lazy = nrrn.denoise(stack, model, scans=scans, **SAME)
    assert isinstance(lazy.data, arrays.Array)
    expected = nrrn.denoise(grey(3), model, scans=scans, **{**SAME, "slab": 1})
    np.testing.assert_array_equal(lazy.values, expected)
    flat = nrrn.denoise(arrays.from_array(grey()[0]), model, **SAME)
    np.testing.assert_array_equal(flat.compute(), nrrn.denoise(grey()[0], model, **SAME))


def test_a_dask_array_of_unknown_size_is_refused(model: Model) -> None:
    stack = arrays.from_array(grey(), chunks=3)
    with pytest.raises(ValueError, match="unknown size"):
        nrrn.denoise(stack[stack[:, 0, 0] > 0], model)
