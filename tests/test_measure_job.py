"""``nrrn metrics`` and ``nrrn measure``: the numbers of files, checked with NumPy."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nrrn_fiji.cli import main
from nrrn_fiji.jobs.denoise import denoise_file
from nrrn_fiji.jobs.measure import measure_files
from nrrn_fiji.jobs.metrics import flat_line, metrics_files
from nrrn_fiji.reports import as_json


def stack(seed: int = 0, sigma: float = 8.0, edge: int = 140) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = np.full((5, edge, edge), 100.0) + rng.normal(0, sigma, (5, edge, edge))
    image[:, 20:60, 30:50] += 60
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def test_against_a_reference(tmp_path: Path) -> None:
    clean, noisy = stack(sigma=0), stack()
    report = metrics_files(noisy, clean, out=tmp_path / "scores.csv")
    errors = ((clean.astype(float) - noisy) ** 2).mean(axis=(1, 2))
    expected = 10 * np.log10(255**2 / errors)
    scores = report.data["scores"]
    assert scores["psnr"]["mean"] == pytest.approx(expected.mean())
    assert scores["psnr"]["sd"] == pytest.approx(expected.std(ddof=1))
    assert set(scores) == {"psnr", "ssim7", "ssim127"}
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["psnr"]) for row in rows] == pytest.approx(list(expected), rel=1e-5)
    assert report.table is not None
    assert f"{expected.mean():.2f} ± {expected.std(ddof=1):.2f}" in report.table.rows[0]


def test_small_slices_have_no_large_window() -> None:
    report = metrics_files(stack()[:, :20, :20], stack(1)[:, :20, :20])
    assert set(report.data["scores"]) == {"psnr", "ssim7"}


def test_equal_images_do_not_warn() -> None:
    assert metrics_files(stack(), stack()).data["scores"]["psnr"]["sd"] is None


def test_alone(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "in.tif",
        stack(edge=256),
        imagej=True,
        resolution=(0.25, 0.25),
        metadata={"axes": "ZYX", "unit": "nm", "spacing": 4},
    )
    report = metrics_files(tmp_path / "in.tif", out=tmp_path / "n.csv")
    data = report.data
    assert data["noise_level"]["mean"] == pytest.approx(8, rel=0.05)
    assert data["noise_fit"]["sigma"] == pytest.approx(8, rel=0.1)
    assert abs(data["noise_correlation"]["x"][0]) < 0.1
    assert data["line_iqr"]["value"] == pytest.approx(1.349 * 8, rel=0.4)
    assert data["ring_correlation"]["trusted"]
    assert report.table is not None
    texts = {row[0]: row[1] for row in report.table.rows}
    assert "nm)" in texts["resolution"]
    with (tmp_path / "n.csv").open() as file:
        assert {row["number"] for row in csv.DictReader(file)} == set(texts)


@pytest.mark.parametrize(
    ("image", "absent"),
    [
        (np.full((3, 70, 70), 9, np.uint8), "noise in flat areas"),
        (np.full((2, 70, 70), np.nan, np.float32), "line IQR"),
        (stack()[:, :5, :5], "noise level"),
        (stack()[:, :40, :40], "resolution"),
        (stack()[0], "noise correlation, z"),
    ],
)
def test_what_cannot_be_measured_is_left_out(image: np.ndarray, absent: str) -> None:
    report = metrics_files(image)
    assert report.table is not None
    assert absent not in {row[0] for row in report.table.rows}
    assert not any("nan" in row[1] for row in report.table.rows)
    json.dumps(as_json(report.data), allow_nan=False)


def test_few_flat_patches_are_doubted() -> None:
    table = metrics_files(stack()[:2, :40, :40]).table
    assert table is not None
    (words,) = (row[2] for row in table.rows if row[0] == "noise in flat areas")
    assert "so few that structure may count" in words


def test_noise_alone_has_no_resolution() -> None:
    noise = np.random.default_rng(0).normal(100, 9, (8, 128, 128)).astype(np.float32)
    table = metrics_files(noise).table
    assert table is not None
    assert {row[0]: row[1] for row in table.rows}["resolution"] == "none: noise drowns everything"


def test_a_denoised_image_is_given_no_resolution(tmp_path: Path) -> None:
    """Its halves agree because of how it was made, so the number says nothing."""
    tifffile.imwrite(tmp_path / "in.tif", stack()[:3, :64, :64], photometric="minisblack")
    denoise_file(tmp_path / "in.tif", tmp_path / "out.tif")
    report = metrics_files(tmp_path / "out.tif")
    assert not report.data["ring_correlation"]["trusted"]
    assert report.table is not None
    ((_, value, words),) = (row for row in report.table.rows if row[0] == "resolution")
    assert value == "not given"
    assert "it would mean nothing" in words


def test_two_scans_agree_down_to_some_detail() -> None:
    report = metrics_files(stack(), stack(1))
    assert report.table is not None
    (row,) = (row for row in report.table.rows if row[0] == "agreement down to")
    assert row[1].endswith("px")
    assert "a resolution only of two scans" in row[2]


def test_a_line_of_ones_own() -> None:
    image = stack()
    line = image[2, 100, 10:130].astype(float)
    found = metrics_files(image, line="10,100,129,100").data["line_iqr"]
    assert found["value"] == pytest.approx(np.subtract(*np.percentile(line, (75, 25))))
    assert not found["chosen"] and found["slice"] == 2


def test_the_flat_line_is_flat() -> None:
    image = np.full((120, 120), 3.0)
    image[:, 40:] = np.add.outer(np.arange(120), np.arange(80)) * 2
    image += np.random.default_rng(0).normal(0, 0.5, image.shape)
    x0, y0, x1, y1 = flat_line(image)
    assert 0 <= x0 < x1 < 60 and y0 == y1
    assert x1 - x0 == 47


def test_measure_a_box_and_a_line(tmp_path: Path) -> None:
    one, other = stack(), stack(1, 2.0)
    report = measure_files(one, other, slice=3, box="60,70,99,89", out=tmp_path / "box.png")
    for image, found in zip((one, other), report.data["images"], strict=True):
        part = image[3, 70:90, 60:100].astype(float)
        assert found["pixels"] == part.size
        assert found["sd"] == pytest.approx(part.std(ddof=1))
        assert found["IQR"] == np.subtract(*np.percentile(part, (75, 25)))
    assert report.data["images"][0]["noise level"] == pytest.approx(8, rel=0.15)
    line = measure_files(one, line="5,70,104,70", out=tmp_path / "line.png").data
    assert line["slice"] == 2
    assert line["images"][0]["mean"] == pytest.approx(one[2, 70, 5:105].mean())
    for name in ("box.png", "line.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, image in (("a", stack()), ("b", stack(sigma=0))):
        tifffile.imwrite(tmp_path / f"{name}.tif", image, photometric="minisblack")
    a, b = str(tmp_path / "a.tif"), str(tmp_path / "b.tif")
    assert main(["metrics", a, b, "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["scores"]["psnr"]["mean"] == pytest.approx(30.1, abs=0.3)
    assert main(["measure", a, b, "--line", "60,100,120,100"]) == 0
    assert "IQR" in capsys.readouterr().out
    assert main(["report", a, b]) == 0
    assert "Noise removed" in capsys.readouterr().out
    assert (tmp_path / "b-report.html").is_file()  # beside the stack, whatever the current folder
    page = tmp_path / "page.html"
    assert main(["report", a, b, "-o", str(page)]) == 0
    assert page.is_file()
    capsys.readouterr()
    assert main(["report", a, b]) == 1
    assert "exists already: add --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics_files(stack(), stack()[1:]), "two images of the same shape"),
        (lambda: metrics_files(stack(), np.zeros((5, 140, 140), np.uint8)), "is constant"),
        (lambda: metrics_files(stack(), line="1,2,3"), "four numbers x0,y0,x1,y1"),
        (lambda: metrics_files(stack(), line="0,0,140,0"), "inside the slice.* x0,y0,x1,y1"),
        (lambda: metrics_files(stack(), stack(), line="0,0,9,0"), "leave one out"),
        (lambda: metrics_files(stack(), out="scores.txt"), "ends in .csv"),
        (lambda: measure_files(stack(), slice=5), "has slices 0 … 4: choose one"),
        (lambda: measure_files(stack(), box="0,0,140,5"), "box is 0,0,140,5, but it must lie"),
        (lambda: measure_files(stack(), box="0,0,inf,5"), "box is '0,0,inf,5', but it must be fo"),
        (lambda: measure_files(stack(), box="nan,0,9,5"), "box is 'nan,0,9,5', but it must be fo"),
        (lambda: measure_files(stack(), box="0,0,9,9", line="0,0,9,9"), "one at a time"),
        (lambda: measure_files(stack(), stack()[:, 1:]), "two images of one shape"),
        (lambda: measure_files(stack(), box="4,4,4,4"), "holds 1 finite pixels"),
    ],
)
def test_misuse_gets_one_sentence(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
