"""A preview shows what denoising would give, at places worth a look, with commands that work."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
import torch
from clocks import clock_of_training

import nrrn_fiji as nrrn
from nrrn_fiji import models
from nrrn_fiji.cli import main
from nrrn_fiji.intensity import ArraySource
from nrrn_fiji.jobs import preview as preview_job
from nrrn_fiji.jobs.preview import preview_file
from nrrn_fiji.jobs.preview_places import choose_places
from nrrn_fiji.jobs.preview_sheet import Row, draw_sheet, wrapped_command
from nrrn_fiji.models import Model, save_model
from nrrn_fiji.network import NRRN
from nrrn_fiji.progress import Cancelled, NoProgress
from nrrn_fiji.settings import PreviewSettings


@pytest.fixture(autouse=True)
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """One tiny shipped model, and an estimate of time that takes none."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    monkeypatch.setattr(models, "shipped_models_dir", lambda: folder)
    monkeypatch.setattr(preview_job, "estimate_seconds", lambda network, plan, count: 2.0 * count)
    torch.manual_seed(1)
    return save_model(folder / "given.safetensors", NRRN(3, 4), {})


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """Fine stripes in one corner, nothing in the opposite one, noise everywhere."""
    y, x = np.mgrid[:120, :130]
    clean = 120 + 80 * np.sin(x / 2.5) * np.clip((130 - x) / 130 + (120 - y) / 120 - 0.7, 0, 1)
    noise = np.random.default_rng(0).normal(0, 9, (9, 120, 130))
    path = tmp_path / "stack.tif"
    values = np.clip(clean + noise, 0, 255).astype(np.uint8)
    tifffile.imwrite(path, values, imagej=True, metadata={"axes": "ZYX"})
    return path


def test_places_are_detailed_typical_and_flat(stack: Path) -> None:
    places = choose_places(ArraySource(tifffile.imread(stack)), 3, 40)
    assert [place.kind for place in places] == ["detailed", "typical", "flat"]
    detailed, _, flat = places
    assert detailed.top + detailed.left < 40
    assert flat.top + flat.left > 120
    assert all(3 <= place.z <= 6 for place in places)
    for one in places:
        for other in places:
            apart = abs(one.top - other.top) >= 40 or abs(one.left - other.left) >= 40
            assert one is other or apart


def test_slices_are_counted_as_those_do_who_look(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[list[str]] = []
    monkeypatch.setattr(
        preview_job, "draw_sheet", lambda rows, columns, *rest: shown.append(columns)
    )
    for first in (0, 1):
        settings = PreviewSettings(crops=1, size=32, strengths="none")
        preview_file(stack, tmp_path / f"{first}.png", settings, first_slice=first)
    numbers = [int(columns[0].rpartition(" ")[2]) for columns in shown]
    assert numbers[1] == numbers[0] + 1


def test_places_avoid_what_is_no_image() -> None:
    image = np.full((3, 100, 100), 100, np.float32)
    image += np.random.default_rng(1).normal(0, 5, image.shape).astype(np.float32)
    image[:, :50] = np.nan
    for place in choose_places(ArraySource(image), 3, 30):
        assert place.top >= 50
    assert len(choose_places(ArraySource(image[:, :, :20]), 2, 60)) == 1  # room for one only


def test_crops_are_those_of_the_whole_stack_denoised(
    stack: Path, shipped: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: dict[str, Any] = {}

    def draw(rows: Any, columns: Any, title: str, subtitle: str, path: Path) -> None:
        drawn.update(rows=rows, columns=columns, subtitle=subtitle)

    monkeypatch.setattr(preview_job, "draw_sheet", draw)
    settings = PreviewSettings(strengths="0.25", size=32, units=True, device="cpu")
    report = preview_file(stack, tmp_path / "p.png", settings)
    values = tifffile.imread(stack)
    whole = nrrn.denoise(values, shipped, device="cpu", return_units=True)
    quarter = nrrn.denoise(values, shipped, strength=0.25, device="cpu")
    rows = {row.title: row for row in drawn["rows"]}
    assert list(rows) == [
        "Source",
        "given",
        "given, 1 of 3 units",
        "given, 2 of 3 units",
        "given, strength 0.25",
    ]
    expected = {
        "Source": values,
        "given": whole.image,
        "given, 2 of 3 units": np.clip(np.rint(whole.units[1]), 0, 255),
        "given, strength 0.25": quarter,
    }
    low, high = (
        float(word) for word in drawn["subtitle"].split("values ")[1].split(". ")[0].split(" to ")
    )
    for name, image in expected.items():
        for place, crop in zip(report.data["places"], rows[name].crops, strict=False):
            part = image[place["z"], place["top"] :, place["left"] :][:32, :32]
            # The subtitle's grey values have 4 digits.
            np.testing.assert_allclose(crop * (high - low) + low, part, rtol=0, atol=0.6)
    assert rows["Source"].crops[-1] is None
    assert "2.0 s per slice, 18 s in all" in rows["given"].lines


def test_the_commands_give_what_is_shown(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = save_model(tmp_path / "my own.safetensors", NRRN(1, 4), {})
    report = preview_file("stack.tif", None, PreviewSettings(units=True), model=[other.path])
    assert report.data["picture"] == "stack-preview.png"
    commands = [choice["command"] for choice in report.data["choices"]]
    assert commands == [
        "nrrn denoise stack.tif -m given",
        "nrrn denoise stack.tif -m given --units 1",
        "nrrn denoise stack.tif -m given --units 2",
        "nrrn denoise stack.tif -m given --strength 0.5",
        f"nrrn denoise stack.tif -m '{other.path}'",
    ]
    for number, command in enumerate(commands):
        words = shlex.split(command)[1:]
        assert main([*words[:2], f"out{number}.tif", *words[2:], "-q"]) == 0


@pytest.mark.parametrize(
    ("source", "picture"),
    [
        ("my.stack.tif", "my.stack-preview.png"),
        ("slices/*.tif", "slices-preview.png"),
        ("slices", "slices-preview.png"),
        ("slices/.", "slices-preview.png"),
    ],
)
def test_the_picture_lies_beside_its_stack(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, picture: str
) -> None:
    """Named as every other result is, whatever the source is: a pattern, a name with dots."""
    stack.rename(tmp_path / "my.stack.tif")
    (tmp_path / "slices").mkdir()
    for z, image in enumerate(tifffile.imread(tmp_path / "my.stack.tif")[:3]):
        tifffile.imwrite(tmp_path / "slices" / f"{z}.tif", image, photometric="minisblack")
    monkeypatch.chdir(tmp_path)
    settings = PreviewSettings(crops=1, size=32, strengths="none")
    assert preview_file(source, None, settings).data["picture"] == picture
    assert (tmp_path / picture).is_file()
    assert main(["preview", source, "--size", "32", "--crops", "1", "--overwrite", "-q"]) == 0
    assert len(list(tmp_path.rglob("*.png"))) == 1


def test_units_that_were_added_are_not_recommended(stack: Path, tmp_path: Path) -> None:
    card = {"training": {"command": "nrrn train a -o b --fine-tune c --units 2"}}
    grown = save_model(tmp_path / "grown.safetensors", NRRN(2, 4), card)
    report = preview_file(stack, None, PreviewSettings(units=True, strengths=""), model=[grown])
    commands = {c["choice"]: c["command"] for c in report.data["choices"]}
    assert commands["grown, 1 of 2 units"] == ""
    assert "grown" in commands["grown"]


def test_noise_removed_is_measured(stack: Path, tmp_path: Path, shipped: Model) -> None:
    """A network without weights changes nothing, and so removes nothing."""
    idle = NRRN(1, 4)
    with torch.no_grad():
        for weights in idle.parameters():
            weights.zero_()
    model = save_model(tmp_path / "idle.safetensors", idle, {})
    report = preview_file(stack, None, PreviewSettings(strengths=""), model=[model])
    removed = {c["choice"]: c["noise_removed"] for c in report.data["choices"]}
    assert removed["idle"] == 0
    assert all(c["seconds_per_slice"] == 2 for c in report.data["choices"])
    assert report.table is not None
    assert {row[0]: row[2] for row in report.table.rows}["idle"] == "0 %"


def test_nothing_is_taken_away_where_there_is_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Infinite and missing values are returned as they are, without a warning."""
    image = np.random.default_rng(1).normal(100, 5, (3, 40, 40)).astype(np.float32)
    image[:, ::9, ::9] = np.inf
    image[:, 4::9, ::9] = np.nan
    tifffile.imwrite(tmp_path / "odd.tif", image, photometric="minisblack")
    drawn: list[list[Row]] = []
    monkeypatch.setattr(preview_job, "draw_sheet", lambda rows, *rest: drawn.append(rows))
    settings = PreviewSettings(crops=1, size=32, strengths="none", device="cpu")
    preview_file(tmp_path / "odd.tif", None, settings)
    taken = drawn[0][1].crops[-1]
    assert taken is not None and np.isfinite(taken).all()
    # Rows and columns 4 … 35 hold 3 × 3 infinite pixels and 4 × 3 missing ones.
    assert (taken == 0.5).sum() == 21


def test_the_picture_is_as_large_as_its_rows_need(stack: Path, tmp_path: Path) -> None:
    sizes = []
    for units in (False, True):
        words = ["preview", str(stack), "-o", str(tmp_path / "p.png"), "--overwrite", "-q"]
        assert main([*words, *(["--units"] * units)]) == 0
        sizes.append(imageio.imread(tmp_path / "p.png").shape[:2])
    assert sizes[0][1] == sizes[1][1]
    assert 500 < sizes[1][0] - sizes[0][0] < 700  # two more rows


def test_a_sheet_has_pixels_where_they_belong(tmp_path: Path) -> None:
    black, white = np.zeros((20, 20)), np.ones((20, 20))
    rows = [Row("Source", (), (black, None)), Row("one", ("a",), (white, black), "nrrn x", 0)]
    draw_sheet(rows, ("a", "b"), "title", "below", tmp_path / "s.png")
    image = imageio.imread(tmp_path / "s.png")[..., :3].astype(int)
    ink = image.max(axis=2) == 0
    # 20 pixels are magnified 13 times; two black crops, one in either column.
    assert (ink.sum(axis=1) >= 260).sum() == 520
    with pytest.raises(ValueError, match="every row needs"):
        draw_sheet(rows, ("a",), "", "", tmp_path / "t.png")
    long = "nrrn denoise " + "a" * 30 + " -m " + "b" * 30
    lines = wrapped_command(long, 50)
    assert " ".join(line.removesuffix(" \\").strip() for line in lines) == long
    assert all(len(line) <= 50 for line in lines)


def test_what_cannot_be_shown_is_refused(stack: Path, tmp_path: Path) -> None:
    even = np.full((3, 40, 40), 7, np.uint8)
    tifffile.imwrite(tmp_path / "even.tif", even, photometric="minisblack")
    for given, message in (
        ({"source": tmp_path / "even.tif"}, "same grey value 7 everywhere"),
        ({"settings": PreviewSettings(strengths="0.5,2")}, "between 0 and 1"),
        ({"settings": PreviewSettings(strengths="half")}, "between 0 and 1"),
        ({"channel": 1}, "channel is 1"),
        ({"out": tmp_path / "p.jpg"}, r"\.png"),
    ):
        with pytest.raises(ValueError, match=message):
            preview_file(**{"source": stack, **given})
    preview_file(stack)
    with pytest.raises(FileExistsError, match="--overwrite"):
        preview_file(stack)


class Stopped(NoProgress):
    """A user who stops at once."""

    cancelled = True


def test_stopping_leaves_nothing(stack: Path, tmp_path: Path) -> None:
    with pytest.raises(Cancelled, match="nothing was written"):
        preview_file(stack, tmp_path / "p.png", progress=Stopped())
    assert not (tmp_path / "p.png").exists()


@pytest.mark.slow
def test_a_fine_tuned_model_is_shown_and_kept(
    stack: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock_of_training(monkeypatch, 0.1)
    words = ["preview", str(stack), "-o", str(tmp_path / "p.png"), "--json", "--seed", "3"]
    assert main([*words, "--fine-tune-minutes", "0.02", "--strengths", "none"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    choices = [c["choice"] for c in lines[-1]["choices"]]
    assert choices == ["given", "p-tuned"]
    tuned = models.load_model(tmp_path / "p-tuned.safetensors")
    assert tuned.card["training"]["seed"] == 3
