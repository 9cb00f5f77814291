"""Every experiment measures what it says, keeps what it measured, and writes it down whole."""

from __future__ import annotations

import csv
import dataclasses
import json
import re

import numpy as np
import pytest
from skimage.io import imread
from small_studies import TINY, by_label, tissue

from nrrn_fiji.baselines import inference
from nrrn_fiji.baselines.filters import BM3D, FILTERS
from nrrn_fiji.baselines.trained import CONTENDERS
from nrrn_fiji.metrics import psnr, ssim
from nrrn_fiji.network import NRRN
from nrrn_fiji.plots import COLOURS, OTHERS, colour_of
from nrrn_fiji.progress import Cancelled, NoProgress
from nrrn_fiji.reports import Table
from nrrn_fiji.scoring import CleanSlices, Level
from nrrn_fiji.study import candidates
from nrrn_fiji.study.budgets import FULL, HOUR, QUICK
from nrrn_fiji.study.context import Study
from nrrn_fiji.study.cost import cost, multiply_adds, parameters
from nrrn_fiji.study.edges import edges, high_pass
from nrrn_fiji.study.figures import Curve, Panel, curves, histograms
from nrrn_fiji.study.flat import Line, along, busiest_line, flattest_lines
from nrrn_fiji.study.inputs import inputs
from nrrn_fiji.study.iqr import iqr
from nrrn_fiji.study.jobs import EXPERIMENTS, run_part
from nrrn_fiji.study.levels import TABLE1_LEVEL, default_slices
from nrrn_fiji.study.parts import Part, kept_part, markdown_table, save_part, summarised
from nrrn_fiji.study.report import write_report
from nrrn_fiji.study.table2 import PAPER_TABLE1
from nrrn_fiji.study.tiles import tile_psnr, tiles
from nrrn_fiji.study.units import fitted, units

# Lines and areas ----------------------------------------------------------------------------------


def test_the_flattest_lines_lie_in_flat_areas_that_are_not_clipped():
    rng = np.random.default_rng(0)
    volume = rng.integers(20, 230, (3, 160, 200)).astype(np.uint8)
    volume[1, 60:100, 40:110] = 128  # flat: resin
    volume[1, 120:160, 120:200] = 255  # flat because it is clipped
    lines = flattest_lines(CleanSlices(volume, (0, 1), 0, name="volume"), 4)
    assert lines[0].z == 1
    assert 60 <= lines[0].y < 100 and lines[0].x >= 40 and lines[0].x + lines[0].length <= 110
    for line in lines:
        values = along(line, volume[line.z] / np.float32(255))
        assert (values == 255).mean() < 0.5
    assert len(flattest_lines(CleanSlices(volume, (0, 1), 0, name="volume"), 1)) == 1


@pytest.mark.parametrize("part", [iqr, inputs, units, cost])
def test_without_a_flat_area_a_sentence_says_so(make, model, part):
    study = make(model)
    black_and_white = np.where(tissue() > 127, np.uint8(255), np.uint8(0))
    study.scored = CleanSlices(black_and_white, (3, 6), 0, name="volume")
    with pytest.raises(ValueError, match="no flat area to measure noise in: choose other slices"):
        part(study)


def test_the_busiest_line_crosses_the_strongest_step():
    volume = np.full((2, 60, 150), 100, np.uint8)
    volume[1, 20:40, 70:] = 220
    line = busiest_line(CleanSlices(volume, (0, 1), 0, name="volume"), (0, 1))
    assert line.z == 1 and 20 <= line.y < 40
    assert line.x < 70 < line.x + line.length


def test_grey_values_along_a_line():
    image = np.arange(40, dtype=np.float32).reshape(4, 10) / 255
    np.testing.assert_allclose(along(Line(0, 2, 3, 4), image), [23, 24, 25, 26], rtol=1e-6)


# Tiles --------------------------------------------------------------------------------------------


def test_psnr_of_tiles():
    clean = np.full((7, 9), 0.5, np.float32)
    estimate = clean.copy()
    # 7 × 9 holds 2 × 3 tiles of 3², beginning at (0, 0); one row is left over.
    estimate[0:3, 3:6] += 0.1
    estimate[3:6, 6:9] += 0.01
    values = tile_psnr(clean, estimate, 3)
    assert values[1] == pytest.approx(20, abs=1e-4)
    assert values[5] == pytest.approx(40, abs=1e-3)
    assert np.isinf([values[i] for i in (0, 2, 3, 4)]).all()


def test_tiles_say_how_far_psnr_spreads(make, model):
    study = make(model, slices=None)
    part = tiles(study)
    # Two of nine slices, and both tiles' edges are larger than the slices: quarters are taken.
    assert part.facts["tile_slices"] == [2, 6]
    whole = CleanSlices(study.volume, (2, 6), 0, name="volume")
    [candidate] = candidates.model_candidates(model)
    expected = [
        [
            psnr(whole.clean(z)[y : y + 28, x : x + 28], estimate[y : y + 28, x : x + 28])
            for y in (0, 28)
            for x in (0, 28)
        ]
        for z in (2, 6)
        for estimate in [candidate.denoise(whole.triplet(z, TABLE1_LEVEL))]
    ]
    record = by_label(part, method="nrrn")
    assert record["edge"] == 28 and record["tiles"] == 8
    assert record["psnr_mean"] == pytest.approx(np.mean(expected), abs=1e-4)
    assert record["psnr_sd"] == pytest.approx(np.std(expected, ddof=1), abs=1e-4)
    within = np.mean([np.std(row, ddof=1) for row in expected])
    assert record["psnr_sd_within_slices"] == pytest.approx(within, abs=1e-4)


def test_slices_with_one_neighbour_do_not_count_more_than_they_are(make, model):
    """A sample of slices leaves out the ends, which every method denoises worse; all is all."""
    few = dataclasses.replace(TINY, tile_slices=4)
    assert make(model, slices=None, budget=few).tile_slices == (1, 3, 5, 7)
    every = dataclasses.replace(TINY, tile_slices=None)
    assert make(model, slices=None, budget=every).tile_slices == tuple(range(9))
    more = dataclasses.replace(TINY, tile_slices=99)
    assert make(model, slices=None, budget=more).tile_slices == tuple(range(9))
    assert make(model, slices=(0, 8), budget=few).tile_slices == (0, 8), "as asked for"


def test_tiles_of_slices_that_were_asked_for_are_another_result(make, model):
    usual = make(model, slices=None)
    same = make(model, slices=usual.scored.indices)
    assert same.tile_slices != usual.tile_slices
    assert EXPERIMENTS["tiles"].key(same) != EXPERIMENTS["tiles"].key(usual)
    assert EXPERIMENTS["edges"].key(same) == EXPERIMENTS["edges"].key(usual)


def test_finished_methods_of_tiles_are_kept(make, model, monkeypatch):
    class Stops(NoProgress):
        cancelled = False

        def update(self, done, total, text=""):
            self.cancelled = "NRRN" in text

    with pytest.raises(Cancelled, match=r"kept in .*kept-tiles\.json"):
        tiles(make(model, progress=Stops()))
    study = make(model)
    seen = []
    genuine = Study.best_filter

    def watched(self, level, steps=None):
        chosen = genuine(self, level, steps)
        return dataclasses.replace(chosen, denoise=lambda t: seen.append(t) or chosen.denoise(t))

    monkeypatch.setattr(Study, "best_filter", watched)
    assert len(tiles(study).records) == 2
    assert not seen, "the filter was finished"


# A model that changes nothing ---------------------------------------------------------------------


def test_units_of_an_idle_model_change_nothing(make, idle):
    part = units(make(idle))
    assert part.facts["slopes"] == pytest.approx(
        {"Input": 1, "Unit 1": 1, "Unit 2": 1, "Output": 1}, abs=1e-5
    )
    study = make(idle)
    for level in (Level("poisson", 30), Level("gaussian", 75)):
        expected = ssim(study.scored.clean(6), study.scored.triplet(6, level)[1])
        for stage in ("Input", "Unit 1", "Output"):
            record = by_label(part, noise=level.label, stage=stage, slice=6)
            assert record["ssim"] == pytest.approx(expected, abs=1e-5)
    assert by_label(part, noise="no noise", stage="Unit 2", slice=3)["ssim"] == pytest.approx(1)


def test_units_tell_what_a_model_removes(make, model):
    study = make(model)
    part = units(study)
    estimates = candidates.unit_estimates(model, study.scored.triplet(3, Level("gaussian", 15)))
    assert len(estimates) == 3
    for stage, estimate in zip(("Unit 1", "Unit 2", "Output"), estimates, strict=True):
        record = by_label(part, noise="Gaussian 15", stage=stage, slice=3)
        assert record["psnr"] == pytest.approx(psnr(study.scored.clean(3), estimate), abs=1e-6)
    assert fitted(np.array([0.0, 1, 2]), np.array([1.0, 3, 5])) == pytest.approx((2, 1))


def test_one_two_and_three_images_of_an_idle_model_are_the_input(make, idle):
    study = make(idle)
    part = inputs(study)
    assert [record["images"] for record in part.records] == [1, 1, 2, 3]
    expected = np.mean(
        [
            psnr(study.scored.clean(z), study.scored.triplet(z, TABLE1_LEVEL)[1])
            for z in study.scored.indices
        ]
    )
    for record in part.records:
        assert record["psnr_mean"] == pytest.approx(expected, abs=1e-3)
    assert "cost 0.00 dB or 0.0 %" in part.findings[0]


def test_edges_of_an_idle_model_are_those_of_the_input(make, idle):
    study = make(idle)
    part = edges(study)
    for index in study.scored.indices:
        truth = high_pass(study.scored.clean(index)).ravel()
        own = high_pass(study.scored.triplet(index, TABLE1_LEVEL)[1]).ravel()
        expected = np.corrcoef(truth, own)[0, 1]
        for method in ("input", "nrrn"):
            record = by_label(part, method=method, slice=index)
            assert record["correlation"] == pytest.approx(expected, abs=1e-4)
            assert record["strength"] == pytest.approx(
                np.linalg.lstsq(truth[:, None], own, rcond=None)[0][0], abs=1e-3
            )


def test_iqr_is_that_of_the_grey_values_along_lines(make, idle):
    study = make(idle)
    part = iqr(study)
    inputs_ = [record for record in part.records if record["method"] == "input"]
    assert inputs_
    for record in inputs_:
        noisy = study.scored.triplet(record["slice"], TABLE1_LEVEL)[1]
        values = 255 * noisy[record["y"], record["x"] : record["x"] + record["length"]]
        low, high = np.percentile(values, (25, 75))
        assert record["iqr"] == pytest.approx(high - low, abs=1e-3)
        assert record["sd"] == pytest.approx(values.std(), abs=1e-3)
    assert {record["method"] for record in part.records} == {"clean", "input", "gaussian", "nrrn"}


# Cost ---------------------------------------------------------------------------------------------


def test_operations_and_parameters_are_those_of_the_paper(model):
    assert [round(multiply_adds(n, 64), 1) for n in range(1, 6)] == [19.4, 36.3, 53.2, 70.1, 87.0]
    for count, millions in zip(range(1, 6), (0.296, 0.518, 0.739, 0.961, 1.182), strict=True):
        network = NRRN(count, 64)
        whole = dataclasses.replace(model, network=network)
        assert parameters(whole, count) / 1e6 == pytest.approx(millions, abs=6e-4)
        assert parameters(whole, count) == sum(p.numel() for p in network.parameters())
    # An independent count, of both branches.
    counted = inference.multiply_adds(NRRN(2, 8)) / 1e9
    assert 2 * multiply_adds(2, 8) == pytest.approx(counted)


def test_cost_stops_models_after_every_unit(make, model, idle):
    study = make(model, models=(model, idle))
    part = cost(study)
    own = [record for record in part.records if record["model"] == "tiny"]
    assert [record["units"] for record in own] == [1, 2]
    assert own[0]["gmac"] == pytest.approx(2 * multiply_adds(1, 4, final=False))
    assert own[0]["parameters"] < own[1]["parameters"]
    first = [
        psnr(
            study.scored.clean(z),
            candidates.unit_estimates(model, study.scored.triplet(z, TABLE1_LEVEL))[0],
        )
        for z in study.scored.indices
    ]
    assert own[0]["psnr_mean"] == pytest.approx(np.mean(first), abs=1e-4)
    noisy = by_label(part, label="Input")
    for record in part.records:
        if record["model"] == "idle":
            assert record["psnr_mean"] == pytest.approx(noisy["psnr_mean"], abs=1e-3)
            assert record["iqr_mean"] == pytest.approx(noisy["iqr_mean"], abs=0.05)


# What is kept and shown ---------------------------------------------------------------------------


def test_a_finished_part_is_kept_and_another_one_is_not_replaced(make, model, idle, monkeypatch):
    experiment = EXPERIMENTS["edges"]
    part, kept = run_part(make(model), experiment)
    assert not kept
    runs = []
    counted = dataclasses.replace(experiment, function=lambda s: runs.append(s) or edges(s))
    again, kept = run_part(make(model), counted)
    assert kept and not runs
    assert json.dumps(again.records) == json.dumps(part.records)
    assert (again.tables, again.findings) == (part.tables, part.findings)
    for changed in (make(idle), make(model, seed=1), make(model, slices=(3, 5))):
        with pytest.raises(FileExistsError, match="--overwrite"):
            run_part(changed, counted)
    assert not runs
    _, kept = run_part(make(model, seed=1), counted, overwrite=True)
    assert not kept and len(runs) == 1
    folder = make(model).folder()
    (folder / part.figures[0].file).unlink()
    assert kept_part(folder, "edges") is None, "a part without its figures is not finished"
    (folder / "edges.json").write_text("{")
    assert kept_part(folder, "edges") is None


def test_files_of_a_part(tmp_path):
    records = ({"label": "a, b", "value": 1 / 3}, {"label": "c", "value": 2.0})
    table = Table(("", "Value"), (("a, b", "**0.33**"), ("c", "2.00")))
    part = Part("x", "Title", "About.", ("Found.",), (("Caption", table),), (), records)
    save_part(tmp_path, part, "key")
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert lines == [{"label": "a, b", "value": "0.333333"}, {"label": "c", "value": "2"}]
    assert "## Title\n\nAbout.\n\nFound.\n\n*Caption*\n\n|  | Value |" in (
        tmp_path / "x.md"
    ).read_text(encoding="utf-8")
    assert markdown_table(table).splitlines()[1] == "| --- | ---: |"
    assert kept_part(tmp_path, "x") == (part, "key")


def test_the_page_holds_every_part_and_needs_no_other_file(make, model):
    study = make(model)
    parts = [run_part(study, EXPERIMENTS[name])[0] for name in ("edges", "iqr")]
    html = write_report(study.folder(), parts).read_text(encoding="utf-8")
    markdown = (study.folder() / "index.md").read_text(encoding="utf-8")
    assert all(f"## {part.title}\n" in markdown for part in parts)
    assert markdown.startswith("# How well is noise removed?\n")
    for part in parts:
        assert part.title in html
    assert html.count("data:image/png;base64,") == 3
    assert not re.search(r'src="(?!data:)', html)
    assert "**" not in html.split("Settings")[0]


def test_the_papers_numbers_stand_beside_methods_that_there_are():
    known = {kind.name for kind in (*FILTERS, BM3D)} | {"input", "nrrn"}
    known |= {f"trained-{key}" for key in CONTENDERS}
    assert {method for method, _ in PAPER_TABLE1} <= known
    for budget in (FULL, HOUR, QUICK):
        assert set(budget.contenders) <= set(CONTENDERS)


def test_a_single_value_has_no_deviation():
    assert summarised([1.0, 2.0, 3.0]) == "2.00 ± 1.00"
    assert summarised([2.5], 1) == "2.5"


def test_a_first_look_is_called_one(make, model):
    study = make(model)
    part = run_part(study, EXPERIMENTS["edges"])[0]
    for name in ("quick", "full"):
        facts = {**part.facts, "budget": {**part.facts["budget"], "name": name}}
        page = write_report(study.folder(), [dataclasses.replace(part, facts=facts)])
        told = "A first look (--quick)" in page.read_text(encoding="utf-8")
        assert told == (name == "quick")


def test_a_histogram_shows_every_method_also_of_a_single_value(tmp_path):
    methods = [
        ("worst", np.array([21.45]), "#ff0000"),
        ("better", np.array([30.23]), "#00ff00"),
        ("best", np.array([31.77]), "#0000ff"),
    ]
    histograms([("", methods)], tmp_path / "h.png", axis="PSNR (dB)", counted="Tiles (%)")
    picture = imread(tmp_path / "h.png")[..., :3].astype(int)
    top = picture[: len(picture) // 3]  # bars of 100 % reach it, the legend is below
    for channel in range(3):
        others = np.delete(top, channel, axis=-1).max(-1)
        assert ((top[..., channel] > 200) & (others < 60)).any()


def test_a_long_title_of_a_narrow_panel_is_not_cut(tmp_path):
    line = (Curve("", np.arange(9.0), np.arange(9.0), "#222222"),)
    panels = [Panel("NRRN trained alike, clean target", line, "Pixel", "Grey value")] * 4
    curves(panels, tmp_path / "c.png", across=4)
    picture = imread(tmp_path / "c.png")[..., :3]
    assert (picture[: len(picture) // 3] < 128).any()
    assert (picture[:, [0, -1]] > 240).all()


def test_colours_are_distinct_and_stay():
    assert len(set(COLOURS.values())) == len(COLOURS)
    assert colour_of("trained-unet-mean") == colour_of("unet-single") == COLOURS["unet"]
    assert colour_of("trained-nrrn") != colour_of("nrrn")
    assert colour_of("something-new") in OTHERS


def test_budgets_are_ordered():
    for smaller, larger in ((QUICK, HOUR), (HOUR, FULL)):
        assert smaller.slices < larger.slices
        assert set(smaller.levels) <= set(larger.levels)
        assert smaller.transfer_steps < larger.transfer_steps
        assert smaller.inherited_steps < larger.inherited_steps
    assert default_slices(128, 3) == (10, 60, 110)
    assert default_slices(128, 1) == (10,)
