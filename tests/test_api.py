"""Arrays are denoised as the method says, whole and block by block."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plain_engine import FIXTURE, identity_network, plain_stack
from stack_files import Watch, noisy, strong_model, write

import nrrn_fiji as nrrn
from nrrn_fiji.api import denoise_file
from nrrn_fiji.formats.tiff import TiffVolume
from nrrn_fiji.models import Model, save_model
from nrrn_fiji.progress import Cancelled
from nrrn_fiji.volumes import open_volume


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return strong_model(tmp_path)


def test_published_network_gives_its_published_results() -> None:
    """Numbers that this package did not compute: the fixture's."""
    model = nrrn.import_checkpoint(FIXTURE.with_suffix(".pth"))
    with np.load(FIXTURE.with_suffix(".npz")) as reference:
        x = reference["x"].astype(np.float32)
        options: dict[str, Any] = {"intensity": (0, 1), "precision": "fp32"}
        stack = nrrn.denoise(x, model, **options)
        np.testing.assert_allclose(stack[1], reference["triplet"].squeeze(), atol=1e-5)
        scans = nrrn.denoise(x, model, scans=True, **options)
        np.testing.assert_allclose(scans, reference["triplet"].squeeze(), atol=1e-5)
        two = nrrn.denoise(x[:2], model, scans=True, **options)
        np.testing.assert_allclose(two, reference["two"].squeeze(), atol=1e-5)
        one = nrrn.denoise(x[0], model, **options)
        assert one.shape == x[0].shape
        np.testing.assert_allclose(one, reference["one"].squeeze(), atol=1e-5)


@pytest.mark.parametrize("units", [None, 1])
def test_noise_and_units_are_those_of_the_plain_network(model: Model, units: int | None) -> None:
    stack = noisy((4, 30, 41), "float32")
    low, high = 20.0, 220.0
    expected = plain_stack(model.network, (stack - low) / (high - low), units=units)
    expected = expected * (high - low) + low
    result = nrrn.denoise(
        stack,
        model,
        units=units,
        intensity=(low, high),
        tile=16,
        slab=2,
        return_noise=True,
        return_units=True,
    )
    assert isinstance(result, nrrn.DenoiseResult)
    assert result.units is not None and result.noise is not None
    assert result.units.shape == ((3 if units is None else 1), *stack.shape)
    assert result.units.dtype == result.noise.dtype == np.float32
    np.testing.assert_allclose(result.units, expected, atol=1e-5 * (high - low))
    np.testing.assert_allclose(result.image, expected[-1], atol=1e-5 * (high - low))
    np.testing.assert_allclose(result.noise, stack - result.image, atol=1e-4)
    assert np.abs(result.noise).max() > 5, "the network must matter for this test to mean anything"


def test_result_is_an_array_unless_more_is_asked_for(model: Model) -> None:
    stack = noisy((2, 12, 14))
    image = nrrn.denoise(stack, model)
    assert isinstance(image, np.ndarray)
    noise = nrrn.denoise(stack, model, return_noise=True)
    assert isinstance(noise, nrrn.DenoiseResult)
    assert noise.units is None
    np.testing.assert_array_equal(noise.image, image)
    single = nrrn.denoise(stack[0], model, return_units=True)
    assert isinstance(single, nrrn.DenoiseResult)
    assert single.noise is None and single.units is not None
    assert single.units.shape == (3, 12, 14)


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", ">u2", "int16", "float32", ">f4", "float64"]
)
def test_network_that_changes_nothing_returns_the_input(tmp_path: Path, dtype: str) -> None:
    model = save_model(tmp_path / "same.safetensors", identity_network(), {})
    rng = np.random.default_rng(1)
    stack = (rng.normal(60, 20, (3, 17, 19))).astype(dtype)
    before = stack.copy()
    result = nrrn.denoise(stack, model)
    assert isinstance(result, np.ndarray)
    assert result.dtype == stack.dtype
    np.testing.assert_array_equal(result, stack)
    np.testing.assert_array_equal(stack, before)


def test_blocks_are_those_of_the_whole(tmp_path: Path, model: Model) -> None:
    stack = noisy((7, 20, 22), "uint16")
    whole = nrrn.denoise(stack, model, return_noise=True)
    path = write(tmp_path / "raw.tif", stack)
    for volume in (stack, path, str(path)):
        blocks = list(nrrn.denoise_blocks(volume, model, slab=3, return_noise=True))
        assert [(block.start, block.stop) for block in blocks] == [(0, 3), (3, 6), (6, 7)]
        np.testing.assert_array_equal(np.concatenate([b.image for b in blocks]), whole.image)
        np.testing.assert_array_equal(np.concatenate([b.noise for b in blocks]), whole.noise)


def test_blocks_of_an_opened_volume_leave_it_open(model: Model) -> None:
    stack = noisy((2, 20, 22))
    with open_volume(stack) as volume:
        first = next(nrrn.denoise_blocks(volume, model, slab=1))
        np.testing.assert_array_equal(volume.read(0, 2), stack)
    assert first.image.shape == (1, 20, 22)


def test_blocks_need_one_channel_and_complain_at_once(tmp_path: Path, model: Model) -> None:
    stack = noisy((2, 3, 2, 16, 18), "uint16")
    path = write(tmp_path / "raw.tif", stack, "TZCYX")
    with pytest.raises(ValueError, match="channel is None, but raw has 2"):
        nrrn.denoise_blocks(path, model)
    with pytest.raises(ValueError, match="time is 2, but raw has 2"):
        nrrn.denoise_blocks(path, model, channel=0, time=2)
    blocks = nrrn.denoise_blocks(path, model, channel=1, time=0, intensity=(1000, 9000))
    found = np.concatenate([block.image for block in blocks])
    expected = nrrn.denoise(stack[0, :, 1], model, intensity=(1000, 9000))
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(FileNotFoundError):
        nrrn.denoise_blocks(tmp_path / "nothing.tif", model)


def test_array_job_can_be_cancelled(model: Model) -> None:
    with pytest.raises(Cancelled):
        nrrn.denoise(noisy((5, 20, 20)), model, slab=1, progress=Watch(after=2))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_arrays_and_files_agree_on_what_a_colour_image_is(
    tmp_path: Path, model: Model, dtype: str
) -> None:
    thin, colours = noisy((15, 20, 3), dtype), noisy((16, 16, 3), dtype)
    np.testing.assert_array_equal(
        nrrn.denoise(thin, model),
        np.concatenate([block.image for block in nrrn.denoise_blocks(thin, model)]),
    )
    assert denoise_file(thin, tmp_path / "thin.tif", model).slices == 15
    with pytest.raises(ValueError, match="looks like a colour"):
        nrrn.denoise(colours, model)
    with pytest.raises(ValueError, match="looks like a colour"):
        denoise_file(colours, tmp_path / "colours.tif", model)


def test_blocks_that_nobody_asked_for_leave_no_file_open(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "raw.tif", noisy((3, 20, 20)))
    closed: list[str] = []
    close = TiffVolume.close

    def noted(volume: TiffVolume) -> None:
        closed.append(volume.name)
        close(volume)

    monkeypatch.setattr(TiffVolume, "close", noted)
    blocks = nrrn.denoise_blocks(source, model)
    assert closed == []
    del blocks
    gc.collect()
    assert closed == ["raw"]
    assert sum(len(block.image) for block in nrrn.denoise_blocks(source, model)) == 3
    assert closed == ["raw", "raw"]
