"""The study scores what it says, on the slices it says, and writes it down completely."""

from __future__ import annotations

import csv
import dataclasses
import json

import numpy as np
import pytest
import tifffile
import torch

from nrrn_fiji.baselines.filters import filter_named
from nrrn_fiji.models import load_model, save_model
from nrrn_fiji.network import NRRN
from nrrn_fiji.noise import add_noise
from nrrn_fiji.progress import Cancelled, NoProgress
from nrrn_fiji.scoring import CleanSlices, Level, Row, score
from nrrn_fiji.study import candidates, levels
from nrrn_fiji.study.cache import JsonCache, RowCache
from nrrn_fiji.study.jobs import table2_files
from nrrn_fiji.study.levels import LEVELS, parse_levels, parse_slice_numbers
from nrrn_fiji.study.parts import as_csv, markdown_table
from nrrn_fiji.study.table2 import table2
from nrrn_fiji.tables import as_records, as_tables, best_filter

POISSON, GAUSSIAN = Level("poisson", 8), Level("gaussian", 75)


def tissue(depth=8, edge=28, seed=0) -> np.ndarray:
    """Smooth structure that changes slowly along z, 8-bit."""
    z, y, x = np.mgrid[:depth, :edge, :edge]
    grey = 0.5 + 0.2 * np.sin((x + z) / 4 + seed) * np.cos(y / 5) + 0.15 * np.sin(y / 9 + z / 7)
    return np.round(grey * 255).astype(np.uint8)


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(3)
    return save_model(tmp_path / "tiny.safetensors", NRRN(units=1, maps=8), {"licence": "none"})


@pytest.fixture
def few_settings(monkeypatch):
    """One or two settings per filter, so that tuning takes no time."""

    def first_two(kind):
        return dataclasses.replace(kind, grid=lambda noise: kind.grid(noise)[10:200:50])

    monkeypatch.setattr(candidates, "FILTERS", (first_two(filter_named("gaussian")),))
    monkeypatch.setattr(candidates, "FILTERS_3D", ())
    monkeypatch.setattr(candidates, "bm3d_is_installed", lambda: False)


SMALL = {"levels": (POISSON, GAUSSIAN), "slices": (2, 5), "tuning_slices": (1, 4)}


class Recorded:
    """A source that remembers which slices were read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.seen = array, array.shape, array.dtype, set()

    def read(self, start, stop):
        self.seen |= set(range(start, stop))
        return self.array[start:stop]


def test_the_levels_are_those_of_the_paper():
    assert [level.label for level in LEVELS] == [
        *("Poisson 1", "Poisson 4", "Poisson 8", "Poisson 30"),
        *("Gaussian 10", "Gaussian 25", "Gaussian 35", "Gaussian 75"),
    ]
    assert (POISSON.noise, GAUSSIAN.noise) == ({"peak": 8}, {"sigma": 75})


def test_slices_are_those_of_the_shared_volumes_unless_a_stack_is_shallow():
    assert levels.default_slices(128) == (10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110)
    assert levels.default_slices(1000) == levels.default_slices(128)
    assert levels.default_slices(40) == (10, 20, 30)
    assert levels.default_slices(5) == (2,)
    # Of 250 slices the last 25 are held out of training, so neighbours are 226 … 248.
    assert levels.default_tuning_slices(250) == (227, 233, 240, 247)
    for depth in (1, 2, 30, 64, 70, 500):
        chosen = levels.default_tuning_slices(depth)
        assert 1 <= len(chosen) <= 4
        assert all(depth - max(1, round(depth / 10)) <= z < depth for z in chosen)


def test_a_slice_carries_the_same_noise_as_centre_and_as_neighbour():
    slices = CleanSlices(tissue(), (2,), 7, name="volume")
    two, three = slices.triplet(2, GAUSSIAN), slices.triplet(3, GAUSSIAN)
    np.testing.assert_array_equal(two[2], three[1])
    np.testing.assert_array_equal(two[1], three[0])
    noise = [image - slices.clean(z) for z, image in zip((1, 2, 3), two, strict=True)]
    assert np.mean(np.abs(noise[0] - noise[1]) > 0.01) > 0.8, "neighbours have their own noise"
    assert two.min() >= 0 and two.max() <= 1


def test_noise_depends_on_seed_and_level():
    one, other = (CleanSlices(tissue(), (2,), seed, name="volume") for seed in (0, 1))
    assert np.mean(one.noisy(2, GAUSSIAN) != other.noisy(2, GAUSSIAN)) > 0.5
    again = CleanSlices(tissue(), (5, 2), 0, name="volume")
    np.testing.assert_array_equal(one.noisy(2, POISSON), again.noisy(2, POISSON))
    # The strength is that of the level: undo the seed by hand.
    expected = add_noise(tissue()[2] / 255, sigma=75, rng=GAUSSIAN.rng(0, 2), clip=True)
    np.testing.assert_array_equal(one.noisy(2, GAUSSIAN), expected)


def test_the_ends_of_a_stack_are_mirrored():
    slices = CleanSlices(tissue(depth=4), (0,), 0, name="volume")
    assert slices.neighbours(0) == (1, 0, 1)
    assert slices.neighbours(3) == (2, 3, 2)
    assert CleanSlices(tissue(depth=1), (0,), 0, name="volume").neighbours(0) == (0, 0, 0)


def test_16_bit_and_float_volumes_are_mapped_to_the_unit_range():
    for volume in (tissue().astype(np.uint16) * 30 + 1000, tissue().astype(np.float32) - 300):
        clean = CleanSlices(volume, (2, 5), 0, name="volume").clean(2)
        assert clean.dtype == np.float32
        assert 0 <= clean.min() < 0.15 and 0.85 < clean.max() <= 1
        correlation = np.corrcoef(clean.ravel(), tissue()[2].ravel())[0, 1]
        assert correlation > 0.999


def test_rows_hold_the_scores_of_their_definition(few_settings):
    volume = tissue()
    rows = table2(volume, tissue(seed=1), None, seed=5, **SMALL)
    by_key = {(row.level, *row.key): row for row in rows}
    clean = CleanSlices(volume, (2, 5), 5, name="volume")
    for level in SMALL["levels"]:
        for method, images, select in (("input", 1, lambda t: t[1]), ("mean", 3, np.mean)):
            row = by_key[level, method, images, False]
            for index, value in zip((2, 5), row.scores["psnr"], strict=True):
                triplet = clean.triplet(index, level)
                estimate = triplet[1] if method == "input" else select(triplet, axis=0)
                error = np.mean((estimate.astype(float) - volume[index] / 255) ** 2)
                assert value == pytest.approx(-10 * np.log10(error), abs=1e-4)
    # Every filter on one and on three images, without and with correction, at both levels.
    assert len(rows) == 2 * (2 + 4)
    assert "ssim127" not in rows[0].scores, "the slices are smaller than 127 pixels"


def test_mean_and_sd_of_a_row():
    row = Row(POISSON, "input", "Input", 1, False, None, {"psnr": [10.0, 12.0, 17.0]})
    assert row.mean("psnr") == pytest.approx(13)
    assert row.sd("psnr") == pytest.approx(np.std([10, 12, 17], ddof=1))
    assert dataclasses.replace(row, scores={"psnr": [10.0]}).sd("psnr") == 0
    assert Row.from_dict(json.loads(json.dumps(row.as_dict()))) == row


def test_only_the_needed_slices_are_read(few_settings, model):
    volume, tuning = Recorded(tissue(depth=12)), Recorded(tissue(depth=12, seed=1))
    table2(volume, tuning, model, levels=(POISSON,), slices=(3, 9), tuning_slices=(10,))
    assert volume.seen == {0, 2, 3, 4, 8, 9, 10}, "slice 0 tells that the stack is not constant"
    assert tuning.seen == {0, 9, 10, 11}


@pytest.mark.parametrize("images", [3, 2, 1])
def test_the_model_is_scored_as_the_method_says(model, images):
    slices = CleanSlices(tissue(), (4,), 2, name="volume")
    [candidate] = candidates.model_candidates(model, (images,), "cpu")
    before, centre, after = torch.from_numpy(slices.triplet(4, GAUSSIAN))[:, None, None]
    with torch.no_grad():
        f = model.network
        expected = {
            3: (f(before, centre) + f(after, centre)) / 2,
            2: f(after, centre),
            1: f(centre, centre),
        }[images][0, 0].numpy()
    result = candidate.denoise(slices.triplet(4, GAUSSIAN))
    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert np.abs(result - centre.numpy()).max() > 1e-3, "the network must change something"
    [row] = score([candidate], slices, GAUSSIAN)
    error = np.mean((np.clip(expected, 0, 1) - slices.clean(4)) ** 2)
    assert row.scores["psnr"] == [pytest.approx(-10 * np.log10(error), abs=1e-3)]


def test_a_second_model_needs_no_filters_again(few_settings, model, tmp_path, monkeypatch):
    cache = tmp_path / "filters.json"
    volume, tuning = tissue(), tissue(seed=1)
    first = table2(volume, tuning, None, cache=cache, **SMALL)

    def refuse(*_):
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        patch.setattr(candidates, "tune", refuse)
        second = table2(volume, tuning, model, cache=cache, **SMALL)
        assert [row for row in second if row.method != "nrrn"] == first
        assert sum(row.method == "nrrn" for row in second) == 2
        # Other noise, another volume or other slices are not in the cache.
        for changed in ({"seed": 1}, {"slices": (2, 6)}, {"tuning_slices": (1,)}):
            with pytest.raises(AssertionError, match="measured again"):
                table2(volume, tuning, None, cache=cache, **{**SMALL, **changed})
        with pytest.raises(AssertionError, match="measured again"):
            table2(tissue(seed=2), tuning, None, cache=cache, **SMALL)
    assert first == table2(volume, tuning, None, **SMALL), "the same without a cache"


def test_a_stopped_study_continues_where_it_was(few_settings, tmp_path, monkeypatch):
    cache = tmp_path / "filters.json"

    class Stops(NoProgress):
        """Stops in the second level."""

        cancelled = False

        def update(self, done, total, text=""):
            self.cancelled = text.startswith("Gaussian 75")

    with pytest.raises(Cancelled, match=r"kept in .*filters\.json"):
        table2(tissue(), tissue(seed=1), None, cache=cache, progress=Stops(), **SMALL)
    with pytest.raises(Cancelled, match="nothing is kept"):
        table2(tissue(), tissue(seed=1), None, progress=Stops(), **SMALL)
    tuned = []
    genuine = candidates.tune
    monkeypatch.setattr(candidates, "tune", lambda *a: tuned.append(a) or genuine(*a))
    rows = table2(tissue(), tissue(seed=1), None, cache=cache, **SMALL)
    assert len(tuned) == 2, "one filter on two inputs, for the second level alone"
    assert len(rows) == 12


def test_a_damaged_cache_is_measured_again(few_settings, tmp_path):
    cache = tmp_path / "filters.json"
    for content in ("", "{", "[]", '{"key": 1}'):
        cache.write_text(content)
        assert RowCache(cache, "key").get(POISSON) is None
    JsonCache(cache, "key").put("a", [1])
    assert JsonCache(cache, "key").get("a") == [1]
    assert JsonCache(cache, "another key").get("a") is None


def test_progress_counts_to_its_total(few_settings, model):
    class Counts(NoProgress):
        def __init__(self):
            self.steps = []

        def update(self, done, total, text=""):
            self.steps.append((done, total))

    progress = Counts()
    table2(tissue(), tissue(seed=1), model, progress=progress, **SMALL)
    total = progress.steps[0][1]
    assert progress.steps == [(i, total) for i in range(1, total + 1)]


def test_filters_with_correction_win_where_clipping_shifts_the_grey_values():
    volume = np.full((3, 40, 40), 230, np.uint8)
    volume[:, :, ::2] -= 10
    rows = table2(volume, volume.copy(), None, levels=(GAUSSIAN,), slices=(1,), tuning_slices=(1,))
    by_key = {row.key: row.mean("psnr") for row in rows}
    for name in ("gaussian", "nlm"):
        # Half of the noise around 225 of 255 is cut off: filters alone stay too dark.
        assert by_key[name, 3, True] > by_key[name, 3, False] + 5


@pytest.fixture
def files(tmp_path):
    paths = tmp_path / "volume.tif", tmp_path / "tuning.tif"
    for path, seed in zip(paths, (0, 1), strict=True):
        tifffile.imwrite(path, tissue(seed=seed), imagej=True, metadata={"axes": "ZYX"})
    return paths


def test_files_hold_the_table_and_the_card_too(files, model, tmp_path, few_settings):
    out = tmp_path / "study"
    report = table2_files(
        *files,
        str(model.path),
        out,
        slices=(2, 5),
        tuning_slices=(1, 4),
        all_images=True,
        write_card=True,
    )
    names = {path.name for path in out.iterdir()}
    stem = "table2-tiny"
    kinds = (".md", ".csv", ".json", ".html", "-psnr.png", "-ssim.png", "-pictures.png")
    assert names == {stem + kind for kind in kinds} | {"filters.json", "tuned.json"}
    facts = json.loads((out / f"{stem}.json").read_text(encoding="utf-8"))
    assert facts["slices"] == [2, 5] and facts["seed"] == 0
    assert facts["model"] == {"name": "tiny", "hash": model.hash}
    rows = [Row.from_dict(row) for row in facts["rows"]]
    assert len(rows) == 8 * (2 + 4 + 3 + 1)  # one averaged over orientations
    with (out / f"{stem}.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        assert float(line["psnr_mean"]) == pytest.approx(row.mean("psnr"), rel=1e-5)
        assert (line["noise"], float(line["level"])) == row.level
    for kind in kinds[4:]:
        assert (out / (stem + kind)).read_bytes().startswith(b"\x89PNG")
    assert "volume" in (out / f"{stem}.md").read_text(encoding="utf-8")
    assert report.table is not None and len(report.table.header) == 9
    assert str(out) in report.summary and "Of 8 noise levels" in report.summary

    again = load_model(model.path)
    assert again.hash == model.hash, "the weights stay"
    assert again.card["licence"] == "none", "the rest of the card stays"
    kept = again.card["results"]["table2"]
    assert len(kept["rows"]) == len(rows)
    assert kept["rows"][0]["psnr"][0] == pytest.approx(rows[0].mean("psnr"), abs=1e-4)


def test_a_table_of_all_numbers_of_images_is_not_taken_from_one_without(
    files, model, tmp_path, few_settings
):
    common = {"slices": (2,), "tuning_slices": (1,), "levels": "G25"}
    table2_files(*files, str(model.path), tmp_path, **common)
    assert "earlier run" in table2_files(*files, str(model.path), tmp_path, **common).summary
    with pytest.raises(FileExistsError, match="--overwrite"):
        table2_files(*files, str(model.path), tmp_path, **common, all_images=True)
    report = table2_files(
        *files, str(model.path), tmp_path, **common, all_images=True, overwrite=True
    )
    labels = {row[0] for row in report.table.rows}
    assert {"NRRN, 3 images", "NRRN, 2 images", "NRRN, 1 image"} <= labels


def test_filters_alone_need_no_model(files, tmp_path, few_settings):
    report = table2_files(*files, None, tmp_path / "out", slices=(2,), tuning_slices=(1,))
    assert (tmp_path / "out" / "table2-filters.md").is_file()
    assert report.data["model"] is None
    assert "NRRN" not in report.summary


def row_of(level, method, psnr, *, images=1, corrected=False):
    label = f"{method} {images}{' corrected' * corrected}"
    return Row(level, method, label, images, corrected, None, {"psnr": [psnr, psnr + 1]})


def test_markdown_marks_the_best_of_each_level():
    rows = [
        row_of(POISSON, "input", 12),
        row_of(POISSON, "nlm", 20),
        row_of(POISSON, "nrrn", 21),
        row_of(GAUSSIAN, "input", 11),
        row_of(GAUSSIAN, "nlm", 22.5),
        row_of(GAUSSIAN, "nrrn", 22),
    ]
    [(caption, table)] = as_tables(rows)
    assert caption == "PSNR (dB)"
    assert markdown_table(table).splitlines() == [
        "| PSNR (dB) | Poisson 8 | Gaussian 75 |",
        "| --- | ---: | ---: |",
        "| input 1 | 12.50 ± 0.71 | 11.50 ± 0.71 |",
        "| nlm 1 | 20.50 ± 0.71 | **23.00 ± 0.71** |",
        "| nrrn 1 | **21.50 ± 0.71** | 22.50 ± 0.71 |",
    ]
    assert as_csv(as_records(rows)).count("\n") == 7


def test_levels_and_slices_are_read_as_they_are_written():
    assert parse_levels("P8, gaussian:75,p8") == (POISSON, GAUSSIAN)
    assert parse_slice_numbers("3, 10:40:10,7:9") == (3, 10, 20, 30, 7, 8)
    for text in ("", "8", "P0", "Q8", "P8;G9"):
        with pytest.raises(ValueError, match="P8,G25"):
            parse_levels(text)
    for text in ("", "a", "4:4", "1:9:0", "1:2:3:4", "-1"):
        with pytest.raises(ValueError, match="10:120:10"):
            parse_slice_numbers(text)


def test_the_best_filter_leaves_out_the_network_and_what_is_no_filter():
    rows = [
        row_of(POISSON, "mean", 30),
        row_of(POISSON, "nlm", 20),
        row_of(POISSON, "median", 19),
        row_of(POISSON, "nlm", 24, corrected=True),
        row_of(POISSON, "nrrn", 31),
        row_of(GAUSSIAN, "nlm", 40),
    ]
    assert best_filter(rows, POISSON, "psnr", corrected=False) == rows[1]
    assert best_filter(rows, POISSON, "psnr", corrected=True) == rows[3]


def test_misuse_gets_one_sentence(files, model, tmp_path):
    volume = tissue()
    with pytest.raises(ValueError, match=r"volume are 9.*0 … 7"):
        table2(volume, tissue(seed=1), None, slices=(9,), tuning_slices=(1,))
    with pytest.raises(ValueError, match=r"tuning_volume are 227.*0 … 7"):
        table2(volume, tissue(seed=1), None, slices=(1,), tuning_slices=(227,))
    with pytest.raises(ValueError, match="tune on slices that are not scored"):
        table2(volume, volume, None, slices=(1,), tuning_slices=(2,))
    with pytest.raises(ValueError, match="levels is empty"):
        table2(volume, tissue(seed=1), None, levels=())
    with pytest.raises(ValueError, match=r"\(28, 28\).*stack"):
        table2(volume[0], tissue(seed=1), None)
    with pytest.raises(ValueError, match="constant"):
        table2(np.ones((3, 9, 9), np.float32), tissue(seed=1), None, slices=(1,))
    with pytest.raises(ValueError, match="also the volume that is scored"):
        table2_files(files[0], files[0], None, tmp_path / "out")
    with pytest.raises(ValueError, match="no model file"):
        table2_files(*files, None, tmp_path / "out", write_card=True)
    loose = dataclasses.replace(model, path=None)
    with pytest.raises(ValueError, match="no model file"):
        table2_files(*files, loose, tmp_path / "out", write_card=True)
    channels = tmp_path / "channels.tif"
    tifffile.imwrite(
        channels, np.zeros((4, 2, 9, 9), np.uint8), imagej=True, metadata={"axes": "ZCYX"}
    )
    with pytest.raises(ValueError, match="2 channels and 1 time points"):
        table2_files(channels, files[1], None, tmp_path / "out", slices=(1,), tuning_slices=(1,))
    with pytest.raises(ValueError, match="volume are 99"):
        table2_files(*files, None, tmp_path / "out", slices=(99,), tuning_slices=(1,))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        table2_files(tmp_path / "none.tif", files[1], None, tmp_path / "out")
    assert not (tmp_path / "out").exists(), "what is refused leaves nothing behind"
