"""Files are denoised as arrays are, and keep what they said; plans tell it before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from stack_files import Watch, noisy, provenance, strong_model, write

import nrrn_fiji as nrrn
from nrrn_fiji.api import denoise_file, plan_file
from nrrn_fiji.jobs import denoise_block
from nrrn_fiji.models import Model
from nrrn_fiji.settings import DenoiseSettings


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return strong_model(tmp_path)


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


def test_an_array_of_another_kind_is_taken_for_an_array(tmp_path: Path, model: Model) -> None:
    """Not for a list of file names."""
    xarray = pytest.importorskip("xarray")
    labelled = xarray.DataArray(noisy((4, 20, 22)), dims=("z", "y", "x"))
    report = denoise_file(labelled, tmp_path / "clean.tif", model)
    expected = nrrn.denoise(labelled.data, model)
    np.testing.assert_array_equal(tifffile.imread(report.image), expected)


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
