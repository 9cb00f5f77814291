"""An xarray in, an xarray out: as PyImageJ hands images to Python."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import xarray

import nrrn_fiji
from nrrn_fiji.fiji.jobs import denoise_image, noisy_image
from nrrn_fiji.fiji.xarrays import XarrayVolume
from nrrn_fiji.settings import DenoiseSettings, NoiseSettings


@pytest.fixture(scope="module")
def model(model: str) -> Any:
    """The same, loaded."""
    from nrrn_fiji.models import load_model

    return load_model(model)


def stack(shape: tuple[int, ...], dtype: str = "uint16") -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_names_coordinates_and_attributes_stay(model: Any, dtype: str) -> None:
    source = xarray.DataArray(
        stack((4, 12, 14), dtype),
        dims=("pln", "row", "col"),
        coords={"pln": [0.0, 30.0, 60.0, 90.0], "col": np.arange(14) * 4.0},
        attrs={"imagej": {"unit": "nm"}},
        name="cortex",
    )
    before = source.copy(deep=True)
    made = denoise_image(source, model, noise=True)
    expected = nrrn_fiji.denoise(source.values, model, return_noise=True)
    assert np.array_equal(made.image.values, expected.image)
    assert made.image.dtype == dtype
    assert np.array_equal(made.noise.values, expected.noise)
    assert made.image.dims == source.dims
    assert made.image.coords.equals(source.coords)
    assert made.image.attrs["imagej"] == {"unit": "nm"}
    assert json.loads(made.image.attrs["nrrn"])["model"]["name"] == "tiny"
    assert made.image.name == "cortex-denoised"
    assert source.identical(before)


@pytest.mark.parametrize(
    "dims",
    [
        ("t", "pln", "row", "col", "ch"),  # PyImageJ's order
        ("T", "C", "Z", "Y", "X"),
        ("x", "c", "y", "z", "t"),
    ],
)
def test_any_order_of_dimensions(model: Any, dims: tuple[str, ...]) -> None:
    sizes = {"t": 2, "z": 3, "y": 10, "x": 12, "c": 2}
    usual = {"pln": "z", "row": "y", "col": "x", "ch": "c"}
    roles = [usual.get(dim.lower(), dim.lower()) for dim in dims]
    source = xarray.DataArray(stack(tuple(sizes[role] for role in roles)), dims=dims)
    result = denoise_image(source, model, DenoiseSettings(intensity=(0, 200))).image
    assert result.dims == dims
    assert result.name is None
    ordered = dict(zip(roles, dims, strict=True))
    for t in range(2):
        for c in range(2):
            place = {ordered["t"]: t, ordered["c"]: c}
            before = source.isel(place).transpose(ordered["z"], ordered["y"], ordered["x"])
            after = result.isel(place).transpose(ordered["z"], ordered["y"], ordered["x"])
            expected = nrrn_fiji.denoise(before.values, model, intensity=(0, 200))
            assert np.array_equal(after.values, expected)


def test_some_slices_a_single_slice_and_a_wrong_axis(model: Any) -> None:
    values = stack((5, 12, 14))
    whole = nrrn_fiji.denoise(values, model)
    source = xarray.DataArray(values, dims=("z", "y", "x"), coords={"z": list("abcde")})
    part = denoise_image(source, model, slices=range(1, 3)).image
    assert np.array_equal(part.values, whole[1:3])
    assert list(part.coords["z"].values) == ["b", "c"]

    single = denoise_image(source[0].drop_vars("z"), model).image
    assert single.dims == ("y", "x")
    assert np.array_equal(single.values, nrrn_fiji.denoise(values[0], model))

    frames = xarray.DataArray(values, dims=("t", "y", "x"))
    assert "5 planes along T" in XarrayVolume(frames).notes[0]
    turned = denoise_image(frames, model, z_axis="T").image
    assert turned.dims == ("t", "y", "x")
    assert np.array_equal(turned.values, whole)


def test_synthetic_noise() -> None:
    source = xarray.DataArray(stack((3, 12, 14), "uint8"), dims=("pln", "row", "col"))
    noisy = noisy_image(source, NoiseSettings(gaussian=25, seed=2))
    assert isinstance(noisy, xarray.DataArray)
    assert 10 < (noisy.astype(float) - source.astype(float)).std() < 40


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        (("a", "row", "col"), r"has the dimensions \(a, row, col\), but row and col are needed"),
        (("z", "pln", "x"), "each once"),
        (("t", "z", "x"), "row and col are needed"),
    ],
)
def test_dimensions_that_are_not_understood(
    model: Any, dims: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        denoise_image(xarray.DataArray(stack((3, 12, 14)), dims=dims), model)


def test_what_holds_no_grey_values(model: Any) -> None:
    mask = xarray.DataArray(np.zeros((3, 12, 14), bool), dims=("z", "y", "x"), name="mask")
    with pytest.raises(TypeError, match="mask is a black-and-white mask"):
        denoise_image(mask, model)
