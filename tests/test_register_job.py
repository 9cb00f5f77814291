"""``nrrn register``: scans in files to their average, with all that belongs to it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from nrrn_fiji.cli import main
from nrrn_fiji.jobs import register_places
from nrrn_fiji.jobs.register import register_files
from nrrn_fiji.progress import Cancelled, NoProgress
from nrrn_fiji.registration import Placement
from nrrn_fiji.settings import RegisterSettings
from nrrn_fiji.volumes import open_volume

EXAMPLE = Path(__file__).parents[1] / "examples" / "fibsem_medulla.tif"
SHIFTS = [(0.0, 0.0), (2.5, -3.2), (-4.1, 1.4), (1.2, 4.6)]  # (y, x), of each scan
SIZE = 96
QUICK = RegisterSettings(transform="translation")


def scan(shift: tuple[float, float], z: int = 4, dtype: str = "uint8") -> NDArray[np.generic]:
    """A crop of a real slice, moved by ``shift`` and with a little noise."""
    rng = np.random.default_rng(abs(int(10 * shift[0])) + 100 * z)
    moved = ndimage.shift(tifffile.imread(EXAMPLE)[z].astype(float), shift, order=5)
    crop = moved[40 : 40 + SIZE, 40 : 40 + SIZE] + rng.normal(0, 8, (SIZE, SIZE))
    if dtype == "uint8":
        return np.clip(np.rint(crop), 0, 255).astype(np.uint8)
    return (crop * (100 if dtype == "uint16" else 1)).astype(dtype)


def save(path: Path, array: NDArray[np.generic], axes: str) -> Path:
    metadata = {"axes": axes, "unit": "nm", "spacing": 8.0}
    tifffile.imwrite(path, array, imagej=True, resolution=(0.25, 0.25), metadata=metadata)
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A file per scan."""
    return [save(tmp_path / f"scan{i}.tif", scan(s), "YX") for i, s in enumerate(SHIFTS)]


def close_to(shifts: object) -> None:
    np.testing.assert_allclose(np.array(shifts, float), SHIFTS, atol=0.15)


def test_files_of_one_scan_each_become_one_average(tmp_path: Path, files: list[Path]) -> None:
    report = register_files(files, tmp_path / "mean.tif", QUICK, keep=tmp_path / "aligned.tif")
    close_to(report.placements[0].shifts)
    assert "average of 4 of 4 scans" in report.summary
    json.dumps(report.as_dict())
    with open_volume(tmp_path / "mean.tif") as mean:
        assert mean.shape == (1, 1, 1, SIZE, SIZE) and mean.dtype == np.uint8
        assert mean.voxel_size is not None and mean.voxel_size[1:] == pytest.approx((4, 4))
        said = mean.provenance
        average = mean.read(0, 1)[0].astype(float)
    assert said is not None and said["command"] == "register"
    assert said["scans"] == ["scan0", "scan1", "scan2", "scan3"]
    assert said["settings"]["transform"] == "translation"
    clean = tifffile.imread(EXAMPLE)[4, 40 : 40 + SIZE, 40 : 40 + SIZE]
    assert (average - clean)[8:-8, 8:-8].std() < 0.65 * 8  # 8 / sqrt(4), and a little more
    aligned = tifffile.imread(tmp_path / "aligned.tif")
    assert aligned.shape == (4, SIZE, SIZE)
    np.testing.assert_array_equal(aligned[0], tifffile.imread(files[0]))
    assert (aligned[1, -2:] == 0).all()  # moved down: the last rows have no data
    rows = list(csv.DictReader((tmp_path / "mean.shifts.csv").read_text().splitlines()))
    close_to([(row["shift_y_px"], row["shift_x_px"]) for row in rows])
    assert (tmp_path / "mean.shifts.png").read_bytes()[:4] == b"\x89PNG"
    assert not list(tmp_path.glob("*.partial"))


def test_the_slices_or_the_time_points_of_one_file_are_scans(tmp_path: Path) -> None:
    scans = np.stack([scan(s, dtype="uint16") for s in SHIFTS])
    save(tmp_path / "z.tif", scans, "ZYX")
    save(tmp_path / "t.tif", scans, "TYX")
    for name in ("z", "t"):
        report = register_files([tmp_path / f"{name}.tif"], tmp_path / f"{name}-out.tif", QUICK)
        close_to(report.placements[0].shifts)
        with open_volume(tmp_path / f"{name}-out.tif") as mean:
            assert mean.shape == (1, 1, 1, SIZE, SIZE) and mean.dtype == np.uint16


def test_stacks_of_scans_share_a_transform_or_have_one_per_slice(tmp_path: Path) -> None:
    # In slice 1 everything has moved twice as far.
    for i, (y, x) in enumerate(SHIFTS[:3]):
        two = np.stack([scan((y, x), 4), scan((2 * y, 2 * x), 10)])
        save(tmp_path / f"pass{i}.tif", two, "ZYX")
        save(tmp_path / f"same{i}.tif", np.stack([scan((y, x), 4), scan((y, x), 10)]), "ZYX")
    own = RegisterSettings(transform="translation", per_slice=True)
    report = register_files(
        sorted(tmp_path.glob("pass?.tif")),
        tmp_path / "own.tif",
        own,
        keep=tmp_path / "kept.tif",
    )
    expected = np.array(SHIFTS[:3])
    np.testing.assert_allclose(report.placements[0].shifts, expected, atol=0.15)
    np.testing.assert_allclose(report.placements[1].shifts, 2 * expected, atol=0.15)
    with open_volume(tmp_path / "kept.tif") as kept:
        # Each time point holds the scans of one slice, as `train --scans` takes them.
        assert kept.shape == (2, 1, 3, SIZE, SIZE)
        np.testing.assert_array_equal(kept.read(0, 1, time=1)[0], scan((0, 0), 10))
    one = register_files(sorted(tmp_path.glob("same?.tif")), tmp_path / "one.tif", QUICK)
    assert len(one.placements) == 1
    np.testing.assert_allclose(one.placements[0].shifts, expected, atol=0.15)
    assert tifffile.imread(tmp_path / "one.tif").shape == (2, SIZE, SIZE)


def test_a_scan_that_does_not_fit_is_named(tmp_path: Path, files: list[Path]) -> None:
    other = save(tmp_path / "elsewhere.tif", scan((0, 0))[::-1, ::-1], "YX")
    told: list[str] = []

    class Listens(NoProgress):
        def message(self, text: str) -> None:
            told.append(text)

    keep = tmp_path / "aligned.tif"
    report = register_files(
        [*files, other], tmp_path / "mean.tif", QUICK, keep=keep, progress=Listens()
    )
    assert "average of 4 of 5 scans" in report.summary
    assert any(line.startswith("elsewhere was left out because") for line in told)
    assert tifffile.imread(keep).shape == (4, SIZE, SIZE)
    text = (tmp_path / "mean.shifts.csv").read_text().splitlines()[-1]
    assert "correlation" in text


def test_float_keeps_its_type_and_nan_its_place(tmp_path: Path) -> None:
    scans = np.stack([scan(s, dtype="float32") for s in SHIFTS])
    scans[:, 20:24, 30:34] = np.nan
    register_files([scans], tmp_path / "mean.tif", QUICK, keep=tmp_path / "aligned.tif")
    aligned = tifffile.imread(tmp_path / "aligned.tif")
    assert aligned.dtype == np.float32
    assert np.isnan(aligned[1, -2:]).all() and np.isnan(aligned[0, 20:24, 30:34]).all()
    # Elsewhere another scan has data.
    assert np.isfinite(np.delete(tifffile.imread(tmp_path / "mean.tif"), slice(18, 27), 0)).all()


@pytest.mark.slow
def test_aligned_scans_can_be_denoised_and_learnt_from(tmp_path: Path, files: list[Path]) -> None:
    from nrrn_fiji.models import save_model
    from nrrn_fiji.network import NRRN

    keep = tmp_path / "aligned.tif"
    register_files(files[:3], tmp_path / "mean.tif", QUICK, keep=keep)
    save_model(tmp_path / "tiny.safetensors", NRRN(units=1, maps=4), {})
    words = ["denoise", str(keep), str(tmp_path / "clean.tif"), "--scans", "-m"]
    assert main([*words, str(tmp_path / "tiny.safetensors")]) == 0
    assert tifffile.imread(tmp_path / "clean.tif").shape == (SIZE, SIZE)
    model = str(tmp_path / "mine.safetensors")
    small = ["--units", "1", "--maps", "4", "--crop", "32", "--batch", "1", "--steps", "2"]
    assert main(["train", str(keep), "--scans", "-o", model, *small]) == 0


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    for i, shift in enumerate(SHIFTS[:3]):
        save(tmp_path / f"scan{i}.tif", np.stack([scan(shift, z) for z in (3, 9, 15)]), "ZYX")
    sources = sorted(tmp_path.glob("scan?.tif"))
    straight = register_files(sources, tmp_path / "straight.tif", QUICK)

    class Stops(NoProgress):
        done = 0.0

        def update(self, done: float, total: float, text: str = "") -> None:
            self.done = done / total

        @property
        def cancelled(self) -> bool:
            return self.done > 0.85

    with pytest.raises(Cancelled, match="same command again"):
        register_files(sources, tmp_path / "out.tif", QUICK, progress=Stops())
    assert not (tmp_path / "out.tif").exists() and not (tmp_path / "out.shifts.csv").exists()
    other = RegisterSettings(transform="rigid")
    with pytest.raises(ValueError, match="transform was translation, is now rigid"):
        register_files(sources, tmp_path / "out.tif", other)
    report = register_files(sources, tmp_path / "out.tif", QUICK)
    np.testing.assert_array_equal(
        report.placements[0].transforms, straight.placements[0].transforms
    )
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "out.tif"), tifffile.imread(tmp_path / "straight.tif")
    )
    # Nothing is replaced unasked, neither the image nor what lies beside it.
    with pytest.raises(FileExistsError, match="--overwrite"):
        register_files(sources, tmp_path / "out.tif", QUICK)
    (tmp_path / "out.tif").unlink()
    with pytest.raises(FileExistsError, match=r"out\.shifts\.csv exists"):
        register_files(sources, tmp_path / "out.tif", QUICK)
    assert not list(tmp_path.glob("*.partial"))
    register_files(sources, tmp_path / "out.tif", QUICK, overwrite=True)


@pytest.mark.parametrize("per_slice", [True, False])
def test_a_run_that_was_stopped_while_it_searched_does_not_search_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_slice: bool
) -> None:
    for i, shift in enumerate(SHIFTS[:2]):
        save(tmp_path / f"scan{i}.tif", np.stack([scan(shift, z) for z in (3, 9, 15)]), "ZYX")
    sources = sorted(tmp_path.glob("scan?.tif"))
    settings = RegisterSettings(transform="translation", per_slice=per_slice)
    straight = register_files(sources, tmp_path / "straight.tif", settings)
    searched: list[object] = []
    real = register_places.place_scans

    def searches(*args: Any, **options: Any) -> Placement:
        searched.append(args[0][0][0, 0])
        return real(*args, **options)

    monkeypatch.setattr(register_places, "place_scans", searches)

    class Stops(NoProgress):
        @property
        def cancelled(self) -> bool:
            return len(searched) == 3

    with pytest.raises(Cancelled, match=r"2 finished slabs are kept in .*same command again"):
        register_files(sources, tmp_path / "out.tif", settings, progress=Stops())
    assert [path.name for path in tmp_path.glob("out*")] == ["out.tif.partial"]
    report = register_files(sources, tmp_path / "out.tif", settings)
    assert len(searched) == 4  # the third slice was begun twice
    for one, other in zip(report.placements, straight.placements, strict=True):
        np.testing.assert_array_equal(one.transforms, other.transforms)
    assert [path.name for path in tmp_path.glob("*.partial")] == []


def test_slices_without_a_picture_do_not_stop_a_stack(tmp_path: Path) -> None:
    told: list[str] = []

    class Listens(NoProgress):
        def message(self, text: str) -> None:
            told.append(text)

    for i, shift in enumerate(SHIFTS[:3]):
        stack = np.stack([scan(shift, z) for z in (4, 4, 9, 15)])
        stack[0] = 0
        save(tmp_path / f"scan{i}.tif", stack, "ZYX")
    sources = sorted(tmp_path.glob("scan?.tif"))
    one = register_files(sources, tmp_path / "one.tif", QUICK, progress=Listens())
    np.testing.assert_allclose(one.placements[0].shifts, SHIFTS[:3], atol=0.15)
    assert not told
    own = RegisterSettings(transform="translation", per_slice=True)
    each = register_files(sources, tmp_path / "each.tif", own)
    np.testing.assert_array_equal(each.placements[0].shifts, each.placements[1].shifts)
    assert not tifffile.imread(tmp_path / "each.tif")[0].any()
    # A slice that shows something else in every scan says nothing about a stack, and is told;
    # it cannot have a place of its own.
    rng = np.random.default_rng(0)
    arrays = [tifffile.imread(source) for source in sources]
    for array in arrays:
        array[0] = rng.normal(100, 20, array[0].shape)
    register_files(arrays, tmp_path / "told.tif", QUICK, progress=Listens())
    assert len(told) == 1 and told[0].startswith("Slice 0 says nothing")
    with pytest.raises(ValueError, match=r"^Slice 0: Only"):
        register_files(arrays, tmp_path / "not.tif", own)
    assert not list(tmp_path.glob("not*"))


def test_slices_that_drift_differently_are_told_of(tmp_path: Path) -> None:
    told: list[str] = []

    class Listens(NoProgress):
        def message(self, text: str) -> None:
            told.append(text)

    for i in range(2):
        stack = np.stack([scan((3.0 * i * n, -2.0 * i * n), 3 + 6 * n) for n in range(3)])
        save(tmp_path / f"scan{i}.tif", stack, "ZYX")
    sources = sorted(tmp_path.glob("scan?.tif"))
    register_files(sources, tmp_path / "out.tif", QUICK, progress=Listens())
    (line,) = told
    assert "differently from slice to slice" in line and "--per-slice" in line


def test_scans_of_one_name_in_two_folders_are_told_apart(tmp_path: Path, files: list[Path]) -> None:
    for folder in ("monday", "tuesday"):
        (tmp_path / folder).mkdir()
    files[0].rename(tmp_path / "monday" / "scan.tif")
    files[1].rename(tmp_path / "tuesday" / "scan.tif")
    sources = [tmp_path / "monday" / "scan.tif", tmp_path / "tuesday" / "scan.tif", files[2]]
    report = register_files(sources, tmp_path / "out.ome.tif", QUICK)
    assert report.names == ("monday/scan", "tuesday/scan", "scan2")
    assert (tmp_path / "out.shifts.csv").is_file()


def test_the_command_line(
    tmp_path: Path, files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["register", *map(str, files), "-o", str(tmp_path / "mean.tif")]
    assert main([*words, "--transform", "translation", "--average", "median"]) == 0
    told = capsys.readouterr()
    assert "the average of 4 of 4 scans" in told.out + told.err
    assert "scan3" in told.out + told.err
    assert main([*words, "--transform", "translation"]) == 1
    assert "exists already" in capsys.readouterr().err


def test_what_does_not_belong_together_is_refused_and_nothing_is_left(
    tmp_path: Path, files: list[Path]
) -> None:
    small = save(tmp_path / "small.tif", scan((0, 0))[:80], "YX")
    colours = save(tmp_path / "two.tif", np.stack([scan(s) for s in SHIFTS[:2]]), "CYX")
    before = set(tmp_path.iterdir())
    for sources, message in (
        ([files[0]], "single scan"),
        ([files[0], files[1], files[0]], "given twice"),
        ([*files, small], "one size and type"),
        ([colours], "2 channels.*make them slices"),
        ([files[0], tmp_path / "nowhere.tif"], "does not exist"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            register_files(sources, tmp_path / "out.tif", QUICK)
    with pytest.raises(ValueError, match="also the input"):
        register_files(files, files[1], QUICK)
    assert set(tmp_path.iterdir()) == before
