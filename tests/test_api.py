"""Arrays and files are denoised as the method says; interrupted runs end as undisturbed ones."""

from __future__ import annotations

import copy
import gc
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from plain_engine import FIXTURE, identity_network, plain_stack, strong_network

import nrrn_fiji as nrrn
from nrrn_fiji.api import denoise_file, plan_file
from nrrn_fiji.formats.tiff import TiffVolume
from nrrn_fiji.jobs import denoise_block
from nrrn_fiji.models import Model, save_model
from nrrn_fiji.network import NRRN
from nrrn_fiji.outputs.journal import Journal
from nrrn_fiji.progress import Cancelled, NoProgress
from nrrn_fiji.settings import DenoiseSettings
from nrrn_fiji.volumes import open_volume

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and limits")


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """A random network in which every gate matters, saved as a model file."""
    folder = tmp_path / "models"
    folder.mkdir()
    return save_model(folder / "strong.safetensors", strong_network(2), {})


def noisy(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> NDArray[Any]:
    """Random grey values in a range that suits the type."""
    low, high = {"uint8": (0, 256), "int16": (-500, 900), "uint16": (1000, 9000)}.get(dtype, (0, 1))
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(100, 30, shape).astype(dtype)
    return rng.integers(low, high, shape).astype(dtype)


def write(path: Path, stack: NDArray[Any], axes: str = "ZYX", **metadata: Any) -> Path:
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": axes, **metadata})
    return path


def provenance(path: Path) -> dict[str, Any]:
    with open_volume(path) as volume:
        found = volume.provenance
    assert found is not None
    return found


# --- arrays -------------------------------------------------------------------------------


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


class Watch(NoProgress):
    """Remembers what it is told, and cancels after so many updates."""

    def __init__(self, after: float = float("inf")):
        self.after = after
        self.seen: list[tuple[float, float]] = []
        self.said: list[str] = []

    @property
    def cancelled(self) -> bool:  # type: ignore[override]
        return len(self.seen) >= self.after

    def update(self, done: float, total: float, text: str = "") -> None:
        self.seen.append((done, total))

    def message(self, text: str) -> None:
        self.said.append(text)


def test_array_job_can_be_cancelled(model: Model) -> None:
    with pytest.raises(Cancelled):
        nrrn.denoise(noisy((5, 20, 20)), model, slab=1, progress=Watch(after=2))


# --- files --------------------------------------------------------------------------------


def test_file_is_denoised_as_the_array_and_keeps_what_it_said(tmp_path: Path, model: Model) -> None:
    stack = noisy((5, 24, 26), "uint16")
    labels = [f"slice {z}" for z in range(5)]
    source = write(
        tmp_path / "raw.tif", stack, Labels=labels, spacing=8.0, unit="nm", Info="FIB-SEM"
    )
    before = source.read_bytes()
    watch = Watch()
    report = denoise_file(
        source, tmp_path / "clean.tif", model, DenoiseSettings(tile=32), progress=watch
    )
    expected = nrrn.denoise(stack, model)
    with tifffile.TiffFile(report.image) as result:
        found = result.asarray()
        said = result.imagej_metadata
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found, stack)
    assert said is not None
    assert (said["Labels"], said["spacing"], said["unit"]) == (labels, 8.0, "nm")
    assert said["Info"].startswith("FIB-SEM\nnrrn: {")
    made = provenance(report.image)
    assert made["model"] == {"name": "strong", "hash": model.hash}
    assert made["settings"] == {"tile": 32}
    assert made["version"] == nrrn.__version__
    assert made["plan"]["tile"] == 32
    assert made["plan"]["intensity"] == pytest.approx(
        np.percentile(stack, (0.1, 99.9)), rel=0.02
    ), "sampled percentiles"
    assert made["input"] == "raw"
    assert watch.seen[-1] == (5, 5)
    assert source.read_bytes() == before
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["clean.tif", "raw.tif"]
    assert "clean.tif" in report.summary
    json.dumps(report.as_dict())


def test_model_is_found_by_file_name(tmp_path: Path, model: Model) -> None:
    assert model.path is not None
    stack = noisy((2, 16, 16))
    source = write(tmp_path / "raw.tif", stack)
    denoise_file(str(source), str(tmp_path / "clean.tif"), str(model.path))
    found = tifffile.imread(tmp_path / "clean.tif")
    np.testing.assert_array_equal(found, nrrn.denoise(stack, model))


def test_noise_and_units_outputs(tmp_path: Path, model: Model) -> None:
    stack = noisy((3, 20, 21))
    source = write(tmp_path / "raw.tif", stack, Labels=["a", "b", "c"])
    report = denoise_file(
        source,
        tmp_path / "clean.tif",
        model,
        noise_out=tmp_path / "noise.tif",
        units_out=tmp_path / "units.tif",
    )
    expected = nrrn.denoise(stack, model, return_noise=True, return_units=True)
    assert isinstance(expected, nrrn.DenoiseResult) and expected.units is not None
    assert report.noise is not None and report.units is not None
    clean, noise = tifffile.imread(report.image), tifffile.imread(report.noise)
    np.testing.assert_array_equal(clean, expected.image)
    assert noise.dtype == np.float32
    np.testing.assert_array_equal(noise, stack.astype(np.float32) - clean)
    with tifffile.TiffFile(report.units) as file:
        assert file.series[0].axes == "ZCYX"
        units = file.asarray()
        said = file.imagej_metadata
    assert units.dtype == np.float32
    np.testing.assert_array_equal(units, expected.units.swapaxes(0, 1))
    assert said is not None
    assert said["Labels"][:4] == ["unit 1: a", "unit 2: a", "final: a", "unit 1: b"]


def test_units_output_when_stopped_early(tmp_path: Path, model: Model) -> None:
    source = write(tmp_path / "raw.tif", noisy((2, 20, 21), "float32"))
    report = denoise_file(
        source,
        tmp_path / "clean.tif",
        model,
        DenoiseSettings(units=1),
        units_out=tmp_path / "u.tif",
    )
    assert report.units is not None
    np.testing.assert_array_equal(tifffile.imread(report.units), tifffile.imread(report.image))


def test_channels_and_time_points_are_denoised_on_their_own(tmp_path: Path, model: Model) -> None:
    stack = noisy((2, 3, 2, 18, 20), "uint16")
    stack[:, :, 1] //= 10  # the second channel is darker
    source = write(tmp_path / "raw.tif", stack, "TZCYX")
    watch = Watch()
    report = denoise_file(
        source, tmp_path / "clean.tif", model, DenoiseSettings(slab=2), progress=watch
    )
    found = tifffile.imread(report.image)
    assert found.shape == stack.shape
    spans = [plan.intensity for plan in report.plans]
    for channel in range(2):
        assert spans[channel] == pytest.approx(
            np.percentile(stack[:, :, channel], (0.1, 99.9)), rel=0.02
        )
        for t in range(2):
            expected = nrrn.denoise(stack[t, :, channel], model, intensity=spans[channel])
            np.testing.assert_array_equal(found[t, :, channel], expected)
    assert report.slices == 12
    assert watch.seen[-1] == (12, 12)
    done = [done for done, _ in watch.seen]
    assert done == sorted(done), "progress never goes back"
    assert provenance(report.image)["plan"]["intensity"] == [list(span) for span in spans]


def test_range_of_slices_is_cut_from_the_whole(tmp_path: Path, model: Model) -> None:
    stack = noisy((8, 18, 20), "uint16")
    source = write(tmp_path / "raw.tif", stack, Labels=[str(z) for z in range(8)])
    report = denoise_file(
        source, tmp_path / "part.tif", model, DenoiseSettings(slab=2), slices=range(3, 6)
    )
    found = tifffile.imread(report.image)
    np.testing.assert_array_equal(found, nrrn.denoise(stack, model)[3:6])
    with tifffile.TiffFile(report.image) as file:
        assert file.imagej_metadata is not None
        assert file.imagej_metadata["Labels"] == ["3", "4", "5"]
    assert provenance(report.image)["slices"] == [3, 6]


def test_scans_give_one_slice(tmp_path: Path, model: Model) -> None:
    stack = noisy((3, 18, 20))
    source = write(tmp_path / "scans.tif", stack)
    report = denoise_file(source, tmp_path / "clean.tif", model, DenoiseSettings(scans=True))
    found = tifffile.imread(report.image)
    np.testing.assert_array_equal(found, nrrn.denoise(stack, model, scans=True))
    assert found.shape == (18, 20)


def test_folder_of_slices_becomes_a_folder_of_slices(tmp_path: Path, model: Model) -> None:
    stack = noisy((3, 18, 20))
    folder = tmp_path / "raw"
    folder.mkdir()
    for z, image in enumerate(stack):
        tifffile.imwrite(folder / f"sem_{z:03d}.tif", image)
    expected = nrrn.denoise(stack, model)
    for source, out in ((folder, "clean"), (f"{folder}/sem_*.tif", "again")):
        report = denoise_file(source, tmp_path / out, model)
        files = sorted(report.image.iterdir())
        assert [file.name for file in files] == [f"sem_{z:03d}.tif" for z in range(3)]
        np.testing.assert_array_equal(np.stack([tifffile.imread(f) for f in files]), expected)
    denoise_file(folder, tmp_path / "clean", model, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.endswith("partial")) == []


def test_plan_says_what_will_be_and_writes_nothing(tmp_path: Path, model: Model) -> None:
    stack = noisy((6, 40, 50), "uint16")
    source = write(tmp_path / "raw.tif", stack)
    before = sorted(tmp_path.iterdir())
    out = tmp_path / "clean.tif"
    plan = plan_file(
        source,
        out,
        model,
        DenoiseSettings(tile=16, slab=2, device="cpu"),
        slices=range(1, 5),
        units_out=tmp_path / "u.tif",
    )
    assert sorted(tmp_path.iterdir()) == before
    assert plan.outputs == {
        "image": (out, 4 * 40 * 50 * 2),
        "units": (tmp_path / "u.tif", 3 * 4 * 40 * 50 * 4),
    }
    assert (plan.plans[0].tile, plan.plans[0].slab, plan.plans[0].device) == (16, 2, "cpu")
    assert plan.seconds > 0 and plan.slices == 4
    assert dict(plan.table.rows)["tile"] == "16 px and a halo of 5 px"
    json.dumps(plan.as_dict())
    report = denoise_file(source, out, model, DenoiseSettings(tile=16, slab=2, device="cpu"))
    assert report.plans[0].intensity == plan.plans[0].intensity


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("x.png", "only .tif, .tiff, .zarr"),
        ("fo.v1", "a name without a dot"),
        ("nowhere/x.tif", "nowhere of the output x.tif does not exist"),
        ("raw.tif/x.tif", "is not a folder"),
    ],
)
@pytest.mark.parametrize("kind", ["out", "noise_out"])
def test_outputs_that_cannot_be_are_refused_before_any_work(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch, out: str, said: str, kind: str
) -> None:
    source = write(tmp_path / "raw.tif", noisy((3, 20, 20)))
    monkeypatch.setattr(denoise_block, "grey_range", lambda *_, **__: pytest.fail("measured"))
    outputs: dict[str, Any] = {"out": tmp_path / "clean.tif", kind: tmp_path / out}
    for function in (plan_file, denoise_file):
        with pytest.raises((ValueError, OSError), match=said):
            function(source, model=model, **outputs)


def test_plan_says_what_is_in_the_way(tmp_path: Path, model: Model) -> None:
    source = write(tmp_path / "raw.tif", noisy((3, 20, 20)))
    out = tmp_path / "clean.tif"
    assert plan_file(source, out, model).notes == ()
    out.write_text("old")
    (note,) = plan_file(source, out, model).notes
    assert note.startswith(f"{out} exists already") and "needs --overwrite" in note
    (note,) = plan_file(source, out, model, overwrite=True).notes
    assert "will be replaced" in note


def test_plan_of_slices_has_no_slab_beyond_them(tmp_path: Path, model: Model) -> None:
    source = write(tmp_path / "raw.tif", noisy((20, 20, 20)))
    plan = plan_file(source, tmp_path / "clean.tif", model, slices=range(4, 8))
    assert plan.plans[0].slab == 4
    assert dict(plan.table.rows)["slab"] == "4 slices"


def test_plan_shows_equal_grey_ranges_once(tmp_path: Path, model: Model) -> None:
    source = write(tmp_path / "raw.tif", noisy((3, 4, 20, 20)), "ZCYX")
    plan = plan_file(source, tmp_path / "clean.tif", model)
    assert len(plan.plans) == 4
    assert dict(plan.table.rows)["grey range"] == "0 to 255"


def test_note_is_said_once_for_all_channels_and_times(tmp_path: Path, model: Model) -> None:
    stack = noisy((2, 3, 2, 20, 20), "float32")
    for number, (t, c) in enumerate(np.ndindex(2, 2)):
        stack[t, number % 3, c, 5, 5] = np.nan
    source = write(tmp_path / "raw.tif", stack, "TZCYX")
    report = denoise_file(source, tmp_path / "clean.tif", model)
    (note,) = [note for note in report.notes if "NaN" in note]
    assert note.startswith("time point 0, channel 0: ") and "slice 0" in note


def test_slices_may_be_a_pair(tmp_path: Path, model: Model) -> None:
    source = write(tmp_path / "raw.tif", noisy((6, 20, 20)))
    denoise_file(source, tmp_path / "pair.tif", model, slices=(2, 4))
    denoise_file(source, tmp_path / "range.tif", model, slices=range(2, 4))
    pair, ranged = (tifffile.imread(tmp_path / name) for name in ("pair.tif", "range.tif"))
    np.testing.assert_array_equal(pair, ranged)
    for odd in (5, (1, 2, 3), (1.5, 2), "1:2"):
        with pytest.raises(TypeError, match="two whole numbers"):
            denoise_file(source, tmp_path / "odd.tif", model, slices=odd)  # type: ignore[arg-type]


def test_output_below_the_folder_of_a_pattern_is_no_slice_of_it(
    tmp_path: Path, model: Model
) -> None:
    for z in range(2):
        tifffile.imwrite(tmp_path / f"s{z}.tif", noisy((20, 20), seed=z))
    (tmp_path / "sub").mkdir()
    pattern = f"{tmp_path}/*.tif"
    assert denoise_file(pattern, tmp_path / "sub" / "clean.tif", model).slices == 2
    with pytest.raises(ValueError, match="taken for a slice"):
        denoise_file(pattern, tmp_path / "clean.tif", model)


def test_units_in_a_folder_have_their_names_and_channels(tmp_path: Path, model: Model) -> None:
    stack = noisy((2, 2, 20, 20))
    labels = [f"z{z} c{c}" for z in range(2) for c in range(2)]
    source = write(tmp_path / "raw.tif", stack, "ZCYX", Labels=labels)
    denoise_file(source, tmp_path / "clean.tif", model, units_out=tmp_path / "units")
    found = []
    for number in range(6):
        with tifffile.TiffFile(tmp_path / "units" / f"raw_0001_c{number}.tif") as tif:
            found.append(tif.imagej_metadata["Labels"])
    names = [f"channel {c}, {name}" for c in range(2) for name in ("unit 1", "unit 2", "final")]
    assert found == [f"{name}: z1 c{number // 3}" for number, name in enumerate(names)]


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


# --- interruption -------------------------------------------------------------------------


def undisturbed(source: Path, model: Model, **options: Any) -> NDArray[Any]:
    report = denoise_file(source, source.with_name("undisturbed.tif"), model, **options)
    return tifffile.imread(report.image)


def test_cancelled_run_goes_on_where_it_was(tmp_path: Path, model: Model) -> None:
    source = write(tmp_path / "raw.tif", noisy((2, 4, 2, 20, 20), "float32"), "TZCYX")
    settings = DenoiseSettings(slab=1)
    expected = undisturbed(source, model, settings=settings)
    out = tmp_path / "clean.tif"
    with pytest.raises(Cancelled, match="finished blocks are kept in"):
        denoise_file(source, out, model, settings, progress=Watch(after=14))
    assert not out.exists()
    again = Watch()
    report = denoise_file(source, out, model, settings, progress=again)
    assert 4 < report.resumed < 16
    assert again.seen[0][0] > report.resumed, "finished slices are not computed again"
    assert any("interrupted run" in text for text in again.said)
    np.testing.assert_array_equal(tifffile.imread(out), expected)
    assert not out.with_name("clean.tif.partial").exists()


def test_run_cancelled_at_once_leaves_nothing(tmp_path: Path, model: Model) -> None:
    source = write(tmp_path / "raw.tif", noisy((4, 20, 20)))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(Cancelled, match="nothing is left behind"):
        denoise_file(source, tmp_path / "clean.tif", model, progress=Watch(after=0))
    assert sorted(tmp_path.iterdir()) == before


def stopped(source: Path, out: Path, model: Model, **options: Any) -> None:
    """A run with some finished blocks."""
    with pytest.raises(Cancelled):
        denoise_file(
            source, out, model, DenoiseSettings(slab=1), progress=Watch(after=9), **options
        )


def change_plan(out: Path, **values: Any) -> list[dict[str, Any]]:
    """Change the plan that an interrupted run recorded; return what it was."""
    journal = Journal(out.with_name(out.name + ".partial"))
    assert journal.read()
    plans = journal.begun()["plan"]["channels"]
    before = copy.deepcopy(plans)
    plans[0].update(values)
    journal.write()
    return before


def test_resume_uses_the_plan_of_before(tmp_path: Path, model: Model) -> None:
    """What was chosen then holds now, whatever would be chosen now."""
    source = write(tmp_path / "raw.tif", noisy((6, 80, 80)))
    out = tmp_path / "clean.tif"
    stopped(source, out, model)
    fresh = plan_file(source, out, model, DenoiseSettings(slab=1)).plans[0]
    before = change_plan(out, tile=fresh.tile - 1)
    assert before == [fresh.as_dict() | {"memory": ANY}]
    report = denoise_file(source, out, model, DenoiseSettings(slab=1))
    assert report.resumed > 0
    assert report.plans[0].tile == fresh.tile - 1


def test_plan_tells_of_an_interrupted_run(tmp_path: Path, model: Model) -> None:
    source = write(tmp_path / "raw.tif", noisy((6, 80, 80)))
    out = tmp_path / "clean.tif"
    stopped(source, out, model)
    change_plan(out, tile=33)
    folder = tmp_path / "clean.tif.partial"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    plan = plan_file(source, out, model, DenoiseSettings(slab=1))
    done = finished_blocks(out)
    assert plan.notes == (f"An interrupted run with {done} of 6 slices will be continued.",)
    assert plan.plans[0].tile == 33, "the plan is that of the interrupted run"
    (note,) = plan_file(source, out, model, DenoiseSettings(slab=1), restart=True).notes
    assert "will be dropped" in note
    (note,) = plan_file(source, out, model, DenoiseSettings(slab=2)).notes
    assert "slab was 1, is now 2" in note and "--restart" in note
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before


def test_resume_on_a_machine_without_the_device(tmp_path: Path, model: Model) -> None:
    source = write(tmp_path / "raw.tif", noisy((6, 80, 80)))
    stopped(source, tmp_path / "clean.tif", model)
    change_plan(tmp_path / "clean.tif", device="cuda:99")
    with pytest.raises(ValueError, match="'cuda:99', which this machine does not have"):
        denoise_file(source, tmp_path / "clean.tif", model, DenoiseSettings(slab=1))
    assert finished_blocks(tmp_path / "clean.tif") > 0


def test_resume_on_a_machine_without_int8(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "raw.tif", noisy((6, 80, 80)))
    stopped(source, tmp_path / "clean.tif", model)
    change_plan(tmp_path / "clean.tif", precision="int8")
    monkeypatch.setattr("nrrn_fiji.jobs.denoise_block.missing_for_int8", lambda device: "Numba")
    with pytest.raises(ValueError, match=r"int8, which needs Numba: go on where .*--restart"):
        denoise_file(source, tmp_path / "clean.tif", model, DenoiseSettings(slab=1))
    assert finished_blocks(tmp_path / "clean.tif") > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("input", "the input image has changed"),
        ("model", "the model has changed"),
        ("settings", "images was 3, is now 1"),
        ("slices", "slices was not given, is now 1,3"),
        ("noise", "--noise (noise_out) was not given, is now noise.tif"),
    ],
)
def test_resume_is_refused_when_anything_differs(
    tmp_path: Path, model: Model, change: str, said: str
) -> None:
    source = write(tmp_path / "raw.tif", noisy((6, 20, 20)))
    out = tmp_path / "clean.tif"
    stopped(source, out, model)
    settings, options = DenoiseSettings(slab=1), dict[str, Any]()
    if change == "input":
        write(source, noisy((6, 20, 20), seed=1))
    elif change == "model":
        model = save_model(tmp_path / "models" / "other.safetensors", strong_network(2, seed=5), {})
    elif change == "settings":
        settings = DenoiseSettings(slab=1, images=1)
    elif change == "slices":
        options["slices"] = range(1, 3)
    else:
        options["noise_out"] = tmp_path / "noise.tif"
    with pytest.raises(ValueError, match="--restart") as refusal:
        denoise_file(source, out, model, settings, **options)
    assert said in str(refusal.value)
    assert not out.exists()
    report = denoise_file(source, out, model, settings, restart=True, **options)
    assert report.resumed == 0
    expected = undisturbed(source, model, settings=settings, slices=options.get("slices"))
    np.testing.assert_array_equal(tifffile.imread(out), expected)


def test_model_card_may_change_between_runs(tmp_path: Path, model: Model) -> None:
    """Same weights, same pixels: only they decide."""
    source = write(tmp_path / "raw.tif", noisy((6, 20, 20)))
    stopped(source, tmp_path / "clean.tif", model)
    renamed = save_model(
        tmp_path / "models" / "renamed.safetensors", model.network, {"description": "new"}
    )
    report = denoise_file(source, tmp_path / "clean.tif", renamed, DenoiseSettings(slab=1))
    assert report.resumed > 0


RUN = """
import sys
from nrrn_fiji.api import denoise_file
from nrrn_fiji.settings import DenoiseSettings
source, out, model, noise = sys.argv[1:]
denoise_file(source, out, model, DenoiseSettings(slab=1, device="cpu"), noise_out=noise)
"""
DEPTH = 30


def finished_blocks(out: Path) -> int:
    journal = out.with_name(out.name + ".partial") / "finished"
    try:
        return journal.read_text().count("\n")
    except FileNotFoundError:
        return 0


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
    """Wait for something that a run does."""
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the run ended before it could be interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def big_job(tmp_path: Path) -> tuple[Path, Model]:
    """A job whose slices take long enough to end a run between them."""
    (tmp_path / "big").mkdir()
    model = save_model(tmp_path / "big" / "big.safetensors", strong_network(2, 8), {})
    stack = noisy((DEPTH, 150, 140), "float32")
    return write(tmp_path / "big" / "raw.tif", stack), model


@POSIX
def test_killed_runs_end_as_an_undisturbed_one(tmp_path: Path) -> None:
    """kill -9 at random points, several times; then the run is finished and compared."""
    source, model = big_job(tmp_path)
    out, noise = tmp_path / "clean.tif", tmp_path / "noise.tif"
    command = [sys.executable, "-c", RUN, str(source), str(out), str(model.path), str(noise)]
    rng = random.Random(time.time_ns())
    before = 0
    for _ in range(2):
        enough = before + rng.randint(1, 5)
        process = subprocess.Popen(command)
        wait_until(lambda: finished_blocks(out) >= enough, process)  # noqa: B023
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert before < finished_blocks(out) < DEPTH
        before = finished_blocks(out)
        assert not out.exists() and not noise.exists()
    settings = DenoiseSettings(slab=1, device="cpu")
    report = denoise_file(source, out, model, settings, noise_out=noise)
    assert report.resumed == before
    expected = undisturbed(source, model, settings=settings, noise_out=tmp_path / "un.tif")
    np.testing.assert_array_equal(tifffile.imread(out), expected)
    np.testing.assert_array_equal(tifffile.imread(noise), tifffile.imread(tmp_path / "un.tif"))
    made, of_expected = provenance(out), provenance(source.with_name("undisturbed.tif"))
    assert made.pop("date") <= of_expected.pop("date")
    memory = made["plan"].pop("memory"), of_expected["plan"].pop("memory")
    assert made == of_expected and min(memory) > 0


@POSIX
def test_command_that_is_interrupted_and_given_again(tmp_path: Path) -> None:
    """Ctrl-C in the command line, then the same command; meanwhile a second run is refused."""
    source, model = big_job(tmp_path)
    out = tmp_path / "clean.tif"
    words = ["denoise", str(source), str(out), "--model", str(model.path), "--slab", "1"]
    command = [sys.executable, "-m", "nrrn_fiji", *words, "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: finished_blocks(out) >= 2, process)
    settings = DenoiseSettings(slab=1, device="cpu")
    with pytest.raises(BlockingIOError, match="Another run is writing"):
        denoise_file(source, out, model, settings)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    count = finished_blocks(out)
    assert 2 <= count < DEPTH
    assert f"{count} finished blocks are kept in {out}.partial" in said
    assert "Traceback" not in said
    assert not out.exists()
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"{count} of {DEPTH} slices are finished already" in done.stderr
    np.testing.assert_array_equal(
        tifffile.imread(out), undisturbed(source, model, settings=settings)
    )


@POSIX
def test_script_that_is_interrupted_keeps_its_blocks(tmp_path: Path) -> None:
    """Ctrl-C in a script that handles nothing: KeyboardInterrupt in the middle of something."""
    source, model = big_job(tmp_path)
    out, noise = tmp_path / "clean.tif", tmp_path / "noise.tif"
    command = [sys.executable, "-c", RUN, str(source), str(out), str(model.path), str(noise)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: finished_blocks(out) >= 3, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert said.rstrip().endswith("KeyboardInterrupt")
    count = finished_blocks(out)
    assert 3 <= count < DEPTH
    settings = DenoiseSettings(slab=1, device="cpu")
    report = denoise_file(source, out, model, settings, noise_out=noise)
    assert report.resumed == count
    np.testing.assert_array_equal(
        tifffile.imread(out), undisturbed(source, model, settings=settings)
    )


MEASURE = """
import re, sys
from nrrn_fiji.api import denoise_file
from nrrn_fiji.settings import DenoiseSettings
settings = DenoiseSettings(device="cpu", images=1, slab=8, intensity=(0, 200))
denoise_file(*sys.argv[1:4], settings)
status = open("/proc/self/status").read()
print(int(re.search(r"VmHWM:\\s*(\\d+) kB", status)[1]) * 1024)
"""


# Not resource.getrusage: a new process inherits that peak from the one that starts it.
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_depth(tmp_path: Path) -> None:
    """112 slices more are 59 MB more of input and as much of output; the peak must not notice."""
    model = save_model(tmp_path / "tiny.safetensors", NRRN(1, 4), {})
    peaks = []
    for depth in (16, 128):
        source = tmp_path / f"raw{depth}.tif"
        tifffile.imwrite(source, noisy((depth, 256, 256), "float64"))
        command = [sys.executable, "-c", MEASURE, str(source), str(tmp_path / f"{depth}.tif")]
        done = subprocess.run([*command, str(model.path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 30e6
