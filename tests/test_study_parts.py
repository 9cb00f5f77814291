"""Every experiment measures what it says, keeps what it measured, and writes it down whole."""

from __future__ import annotations

import csv
import dataclasses
import json
import re

import numpy as np
import pytest
import tifffile
import torch

from nrrn_fiji.baselines import inference
from nrrn_fiji.baselines.filters import BM3D, FILTERS, filter_named
from nrrn_fiji.baselines.trained import CONTENDERS
from nrrn_fiji.cli import main
from nrrn_fiji.metrics import psnr, ssim
from nrrn_fiji.models import save_model
from nrrn_fiji.network import NRRN
from nrrn_fiji.plots import COLOURS, OTHERS, colour_of
from nrrn_fiji.progress import Cancelled, NoProgress
from nrrn_fiji.reports import Table
from nrrn_fiji.scoring import Candidate, CleanSlices, Level, Row
from nrrn_fiji.study import alone as alone_module
from nrrn_fiji.study import candidates, jobs
from nrrn_fiji.study import inherited as inherited_module
from nrrn_fiji.study import transfer as transfer_module
from nrrn_fiji.study.alone import alone, part_of
from nrrn_fiji.study.budgets import FULL, HOUR, QUICK
from nrrn_fiji.study.context import Study
from nrrn_fiji.study.cost import cost, multiply_adds, parameters
from nrrn_fiji.study.edges import edges, high_pass
from nrrn_fiji.study.flat import Line, along, busiest_line, flattest_lines
from nrrn_fiji.study.inherited import SIGMA, TARGETS, ScanSampler, Target, inherited, verdict
from nrrn_fiji.study.inputs import inputs
from nrrn_fiji.study.iqr import iqr
from nrrn_fiji.study.jobs import EXPERIMENTS, all_files, run_part, study_files
from nrrn_fiji.study.levels import TABLE1_LEVEL, default_slices
from nrrn_fiji.study.opening import SliceRange, open_study
from nrrn_fiji.study.parts import Part, kept_part, markdown_table, save_part, summarised
from nrrn_fiji.study.report import write_report
from nrrn_fiji.study.table2 import PAPER_TABLE1, compare, table1
from nrrn_fiji.study.tiles import tile_psnr, tiles
from nrrn_fiji.study.transfer import small_volume, transfer
from nrrn_fiji.study.units import fitted, units
from nrrn_fiji.triplets import SampleSettings, TrainingStack

TINY = dataclasses.replace(
    QUICK, contenders=(), thin=1, transfer_steps=2, inherited_steps=2, units=1, maps=4
)


def tissue(depth=9, edge=56, seed=0) -> np.ndarray:
    """Smooth structure that changes slowly along z, 8-bit."""
    z, y, x = np.mgrid[:depth, :edge, :edge]
    grey = 0.5 + 0.2 * np.sin((x + z) / 4 + seed) * np.cos(y / 5) + 0.15 * np.sin(y / 9 + z / 7)
    return np.round(grey * 255).astype(np.uint8)


@pytest.fixture(autouse=True)
def few_settings(monkeypatch):
    """One filter with two settings, so that tuning takes no time."""
    kind = filter_named("gaussian")
    short = dataclasses.replace(kind, grid=lambda noise: kind.grid(noise)[8:12:3])
    monkeypatch.setattr(candidates, "FILTERS", (short,))
    monkeypatch.setattr(candidates, "FILTERS_3D", ())
    monkeypatch.setattr(candidates, "bm3d_is_installed", lambda: False)
    monkeypatch.setattr("nrrn_fiji.training.VALIDATION_CROPS", 2)


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(3)
    return save_model(tmp_path / "tiny.safetensors", NRRN(units=2, maps=4), {})


@pytest.fixture
def idle(tmp_path):
    """A model that changes nothing: without weights every noise estimate is 0."""
    network = NRRN(units=2, maps=4)
    torch.nn.init.zeros_(network.W0.bias)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    return save_model(tmp_path / "idle.safetensors", network, {})


@pytest.fixture
def make(tmp_path):
    """Makes a small study of a model."""

    def study(model, **options) -> Study:
        given = {
            "models": (model,),
            "budget": TINY,
            "out": tmp_path / "out",
            "slices": (3, 6),
            "tuning_slices": (4,),
            "read_training": lambda: [TrainingStack(tissue(seed=1), (0.0, 255.0), "one", "one")],
        }
        return Study(tissue(), tissue(seed=1), **{**given, **options})

    return study


def by_label(part: Part, **wanted) -> dict:
    """The only record with these values."""
    [record] = [r for r in part.records if all(r[k] == v for k, v in wanted.items())]
    return record


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
    assert same.key("tiles") != usual.key("tiles")
    assert same.key("edges") == usual.key("edges")


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


# Trainings ----------------------------------------------------------------------------------------


def sampler(target: Target) -> ScanSampler:
    settings = SampleSettings(objective="clean", crop=40, batch=6, gaussian=(SIGMA, SIGMA), seed=4)
    stack = TrainingStack(tissue(depth=12), (0.0, 255.0))
    return ScanSampler([stack], settings, target)


def test_simulated_scans_share_as_much_noise_with_the_target_as_is_said():
    clean = sampler(TARGETS[0]).batch(7).target
    for target in TARGETS:
        batch = sampler(target).batch(7)
        inputs_ = [batch.previous - clean, batch.centre - clean, batch.following - clean]
        mean = np.mean(inputs_, axis=0)
        residual = batch.target - clean
        for noise in inputs_:
            assert noise.std() * 255 == pytest.approx(SIGMA, rel=0.03)
        share = (residual * mean).sum() / (mean**2).sum()
        assert share == pytest.approx(target.share, abs=0.05)
        if target.scans:
            expected = SIGMA / np.sqrt(target.scans)
            assert residual.std() * 255 == pytest.approx(expected, rel=0.05)
        again = sampler(target).batch(7)
        np.testing.assert_array_equal(batch.centre, again.centre)
        assert np.abs(sampler(target).batch(8).centre - batch.centre).mean() > 0.01


def test_validation_of_scans_is_held_out():
    # Of 12 slices the last 3 are held out; mark them.
    array = tissue(depth=12)
    array[9:] = 255 - array[9:] // 8
    settings = SampleSettings(objective="clean", crop=40, batch=4, seed=1)
    scans = ScanSampler([TrainingStack(array, (0.0, 255.0))], settings, TARGETS[0])
    assert all(batch.target.min() > 0.85 for batch in scans.validation(5, 96))
    assert all(scans.batch(step).target.min() < 0.85 for step in range(5))


def test_inherited_noise_is_measured_against_what_theory_expects(make, model, monkeypatch):
    study = make(model)
    part = inherited(study)
    assert [record["target"] for record in part.records] == [t.name for t in TARGETS]
    floor = by_label(part, target="clean")["noise_left"]
    for target in TARGETS:
        record = by_label(part, target=target.name)
        assert record["expected"] == pytest.approx(floor + target.share * (1 - floor))
        assert 0 < record["noise_left"] < 1.5
    kept = {path.name for path in (study.folder() / "trained").iterdir()}
    assert len(kept) == len(TARGETS), "no checkpoints are left"

    def refuse(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(inherited_module.training, "train", refuse)
    assert inherited(make(model)).records == part.records
    with pytest.raises(AssertionError, match="trained again"):
        inherited(make(model, seed=1))


def test_a_network_that_returns_the_mean_of_its_inputs_keeps_all_their_noise(
    make, model, monkeypatch
):
    monkeypatch.setattr(inherited_module, "trained", lambda study, target: target)
    monkeypatch.setattr(
        inherited_module, "unit_estimates", lambda model, t, device: t.mean(0, keepdims=True)
    )
    part = inherited(make(model))
    for record in part.records:
        assert record["noise_left"] == pytest.approx(1, abs=1e-4)
        assert record["residual_sd"] == pytest.approx(SIGMA / np.sqrt(3), rel=0.05)


def test_the_verdict_follows_from_the_numbers():
    shares = {"clean": 0.1, "mean10": 0.37, "mean4": 0.78, "others4": 0.11, "consensus": 0.12}
    assert verdict(shares).startswith("So the claim holds")
    assert "no clear difference" in verdict({**shares, "mean10": 0.11})
    assert "no clear difference" in verdict({**shares, "consensus": 0.4})


def test_transfer_compares_equal_trainings_and_keeps_them(make, model, monkeypatch):
    assert [level.label for level in transfer_module.LEVELS] == ["Poisson 1", "Gaussian 10"]
    monkeypatch.setattr(transfer_module, "LEVELS", {Level("gaussian", 10): "28.5 dB"})
    study = make(model)
    part = transfer(study)
    pretrained = by_label(part, noise="Gaussian 10", method="pretrained")
    [candidate] = candidates.model_candidates(model)
    level = Level("gaussian", 10)
    expected = [
        psnr(study.scored.clean(z), candidate.denoise(study.scored.triplet(z, level)))
        for z in study.scored.indices
    ]
    assert pretrained["psnr_mean"] == pytest.approx(np.mean(expected), abs=1e-4)
    fresh = by_label(part, noise="Gaussian 10", method="fresh")
    tuned = by_label(part, noise="Gaussian 10", method="tuned")
    assert abs(tuned["psnr_mean"] - pretrained["psnr_mean"]) < abs(
        fresh["psnr_mean"] - pretrained["psnr_mean"]
    ), "two steps do not lead far from where training began"

    def refuse(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr("nrrn_fiji.jobs.train.train_files", refuse)
    assert transfer(make(model)).records == part.records


def test_a_copy_of_a_scored_slice_is_no_training_data(make, model):
    def leaky(z):
        array = tissue(seed=1)
        array[5] = tissue()[z]
        return lambda: [TrainingStack(array, (0.0, 255.0), "copied.tif")]

    with pytest.raises(ValueError, match=r"copied\.tif holds a slice of volume that is scored"):
        _ = make(model, read_training=leaky(6)).stacks
    # Slice 4 is not scored.
    assert len(make(model, read_training=leaky(4)).stacks) == 1


def test_the_small_volume_is_the_beginning_and_the_middle():
    stack = TrainingStack(np.arange(20 * 140 * 150).reshape(20, 140, 150), (0.0, 1.0))
    small = small_volume(stack).array
    assert small.shape == transfer_module.SMALL
    np.testing.assert_array_equal(small, stack.array[:16, 6:134, 11:139])
    assert small_volume(TrainingStack(tissue(), (0.0, 255.0))).array.shape == (9, 56, 56)


def test_competitors_are_trained_once_and_take_part(make, model, monkeypatch):
    budget = dataclasses.replace(TINY, contenders=("nrrn",), size=(1, 4), steps=1)
    study = make(model, compete=True, budget=budget)
    part = table1(study)
    assert {"nrrn", "trained-nrrn"} <= {record["method"] for record in part.records}
    assert part.facts["trained"][0]["steps"] == 1
    assert part.facts["trained"][0]["trained_on"] == ["one"]
    assert "1 steps each on `one`" in part.about
    assert any("NRRN trained alike, clean target " in finding for finding in part.findings)
    monkeypatch.setattr("nrrn_fiji.training.train", lambda *_, **__: pytest.fail("trained again"))
    again = make(model, compete=True, budget=budget)
    assert len(again.trained) == 1
    with pytest.raises(ValueError, match="train is missing"):
        make(model, read_training=None).stacks  # noqa: B018


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


# Files and commands -------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    paths = tmp_path / "volume.tif", tmp_path / "tuning.tif"
    for path, seed in zip(paths, (0, 1), strict=True):
        tifffile.imwrite(path, tissue(seed=seed), imagej=True, metadata={"axes": "ZYX"})
    return paths


def test_the_whole_study_continues_where_it_was(files, model, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "QUICK", TINY)
    out = tmp_path / "study"

    class Stops(NoProgress):
        """Stops in the second part."""

        cancelled = False

        def update(self, done, total, text=""):
            assert 0 <= done <= total == 2
            self.cancelled = text.startswith("edges: Gaussian")

    asked = {"model": [str(model.path)], "parts": "edges,inputs", "quick": True}
    with pytest.raises(Cancelled, match="part 2 of 2, edges: finished parts"):
        all_files(*files, out, **asked, progress=Stops())
    assert (out / "inputs.json").is_file() and not (out / "edges.json").exists()
    report = all_files(*files, out, **asked)
    assert report.data["parts"] == ["inputs", "edges"] and report.data["measured"] == 1
    assert "1 taken from an earlier run" in report.summary
    assert "One, two or three images" in (out / "index.html").read_text(encoding="utf-8")
    with pytest.raises(FileExistsError, match=r"(inputs|edges)\.json holds a result"):
        all_files(*files, out, **asked, seed=3)
    with pytest.raises(ValueError, match="exclude each other"):
        all_files(*files, out, **asked, full=True)
    with pytest.raises(ValueError, match=r"'tile' is no experiment: choose from table1"):
        all_files(*files, out, parts="tile")


def test_an_experiment_is_a_command(files, model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(jobs, "QUICK", TINY)
    out = tmp_path / "results"
    words = ["study", "edges", str(files[0]), "--tuning", str(files[1]), "-m", str(model.path)]
    assert main([*words, "-o", str(out), "--quick", "--slices", "2,5", "-q"]) == 0
    assert json.loads((out / "edges.json").read_text())["slices"] == [2, 5]
    names = {path.name for path in out.iterdir()}
    assert {"edges.md", "edges.csv", "edges.html", "edges-pictures.png"} <= names
    assert main([*words, "-o", str(out), "--quick", "--slices", "2,6", "-q"]) == 1
    assert "--overwrite" in capsys.readouterr().err


def test_every_experiment_has_a_command_and_says_what_it_is(capsys):
    assert main(["study"]) == 2
    shown = capsys.readouterr().out
    for name in ("all", *EXPERIMENTS):
        assert re.search(rf"^  {name} ", shown, re.MULTILINE)
        assert main(["study", name, "--help"]) == 0
        assert callable(getattr(jobs, f"{name}_files"))
        assert "nrrn study" in capsys.readouterr().out


def test_without_a_volume_the_example_is_halved(model, tmp_path):
    messages = []

    class Listens(NoProgress):
        def message(self, text):
            messages.append(text)

    with open_study(None, None, tmp_path / "out", models=[model], progress=Listens()) as study:
        assert study.volume.shape == (12, 192, 192) and study.tuning.shape == (12, 192, 192)
        whole = study.volume.source
        np.testing.assert_array_equal(study.volume.read(1, 3), whole.read(13, 15))
        np.testing.assert_array_equal(study.tuning.read(0, 2), whole.read(0, 2))
        assert min(study.scored.indices) >= 2, "away from what was trained on"
        assert study.stacks[0].array.shape == (12, 192, 192)
    assert "give VOLUME" in messages[0] and "--tuning" in messages[0]
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_said(files, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="tuning is missing"):
        study_files("edges", files[0], None, out)
    with pytest.raises(ValueError, match="volume is missing"):
        study_files("edges", None, files[1], out)
    with pytest.raises(ValueError, match="also the volume that is scored"):
        study_files("edges", *files, out, train=[files[0]])
    with pytest.raises(ValueError, match="no flat area"):
        iqr(
            Study(
                np.where(tissue() > 120, np.uint8(255), np.uint8(0)),
                tissue(seed=1),
                budget=TINY,
                out=out,
                slices=(3,),
                tuning_slices=(4,),
            )
        )
    assert not out.exists(), "what is refused leaves nothing behind"


def test_a_part_of_a_source():
    part = SliceRange(CleanSlices(tissue(), (1,), 0, name="v").source, 2, 6)
    assert part.shape == (4, 56, 56)
    np.testing.assert_array_equal(part.read(1, 3), tissue()[3:5])


@pytest.mark.slow
def test_the_quick_study_runs_anywhere(tmp_path, capsys):
    out = tmp_path / "study"
    assert main(["study", "all", "-o", str(out), "--quick", "-q"]) == 0
    html = (out / "index.html").read_text(encoding="utf-8")
    for experiment in EXPERIMENTS.values():
        content = json.loads(next(out.glob(f"{experiment.name}*.json")).read_text())
        assert content["part"]["title"].split(":")[0] in html
    assert main(["study", "all", "-o", str(out), "--quick", "--json"]) == 0
    assert '"measured": 0' in capsys.readouterr().out


def test_competitors_are_trained_for_as_long_as_is_asked():
    budget = jobs.chosen_budget(False, False, HOUR, None, 7, "unet-mean, nrrn-n2n")
    assert (budget.steps, budget.minutes) == (7, None)
    assert budget.contenders == ("unet-mean", "nrrn-n2n")
    budget = jobs.chosen_budget(False, False, HOUR, 1.5, None, None)
    assert (budget.steps, budget.minutes) == (None, 1.5)
    assert budget.contenders == HOUR.contenders
    with pytest.raises(ValueError, match=r"minutes is 1\.5 and steps is 7, but .*: drop one"):
        jobs.chosen_budget(False, False, HOUR, 1.5, 7, None)
    with pytest.raises(ValueError, match=r"'unit' is none: choose from .*unet-mean"):
        jobs.chosen_budget(False, False, HOUR, None, None, "unit")


# From the noisy stack alone -----------------------------------------------------------------------


def test_alone_trains_on_noisy_slices_and_scores_the_same_ones(make, model, monkeypatch):
    monkeypatch.setattr(alone_module, "careamics_is_installed", lambda: False)
    seen = []
    real = alone_module.train_contender

    def spy(kind, stacks, *rest, **options):
        seen.append((kind, stacks[0].array))
        return real(kind, stacks, *rest, **options)

    monkeypatch.setattr(alone_module, "train_contender", spy)
    study = make(model, budget=dataclasses.replace(TINY, size=(1, 4), steps=1))
    part = alone(study)
    assert [kind for kind, _ in seen] == ["nrrn-masked", "nrrn-n2n"]
    level = alone_module.LEVELS[0]
    for _, noisy in seen:
        assert noisy.shape == study.volume.shape
        for z in (0, 3, 8):
            np.testing.assert_array_equal(noisy[z], study.scored.noisy(z, level))
    record = by_label(part, method="input")
    expected = [psnr(study.scored.clean(z), study.scored.noisy(z, level)) for z in (3, 6)]
    assert record["psnr_mean"] == pytest.approx(np.mean(expected), abs=1e-4)
    assert [t["steps"] for t in part.facts["training"]] == [1, 1]
    assert "Noise2Void is left out" in part.about
    for figure in part.figures:
        assert (study.folder() / figure.file).stat().st_size > 1000


def test_alone_has_noise2void_where_careamics_is_installed(make, model, monkeypatch):
    given = {}

    def stand_in(noisy, folder, **options):
        given.update(options, shape=noisy.shape)
        return Candidate("noise2void", "Noise2Void (CAREamics)", 1, lambda t: t[1] * 0, setting={})

    monkeypatch.setattr(alone_module, "careamics_is_installed", lambda: True)
    monkeypatch.setattr(alone_module, "train_noise2void", stand_in)
    big = tissue(edge=70)
    study = make(model, budget=dataclasses.replace(TINY, size=(1, 4), steps=1))
    study = dataclasses.replace(study, volume=big)
    part = alone(study)
    assert given["shape"] == (9, 70, 70) and given["steps"] == 1 and given["minutes"] is None
    black = [psnr(study.scored.clean(z), np.zeros((70, 70), np.float32)) for z in (3, 6)]
    assert by_label(part, method="noise2void")["psnr_mean"] == pytest.approx(np.mean(black))
    assert "Noise2Void (CAREamics)" in part.findings[0]


def test_the_stack_that_is_learned_from_is_bounded_and_holds_the_scored_slices():
    volume = np.zeros((200, 12, 530), np.uint8)
    volume[:] = np.arange(200)[:, None, None]
    volume[:, :, ::2] += 1
    part = part_of(Study(volume, tissue(), slices=(90, 110)))
    assert part.source.shape == (128, 12, 512)
    assert [round(float(part.clean(i).max() * 255)) for i in part.indices] == [91, 111]


def test_a_single_level_is_told_in_numbers_not_in_counts():
    level = Level("gaussian", 18)

    def row(method, label, value, images=3, corrected=False):
        scores = {"psnr": [value], "ssim": [value / 40]}
        return Row(level, method, label, images, corrected, None, scores)

    rows = [
        row("input", "Input", 20),
        row("gaussian", "Gaussian", 30),
        row("gaussian", "Gaussian, grey-corrected", 30.5, corrected=True),
        row("nrrn", "NRRN, 3 images", 32),
        row("nrrn", "NRRN, 1 image", 31, images=1),
        row("trained-unet-mean", "U-Net, mean of three", 29),
    ]
    [said] = compare(rows)
    assert said == (
        "At Gaussian 18: NRRN, 3 images 32.00 dB (SSIM 0.800), U-Net, mean of three 29.00 dB "
        "(SSIM 0.725); the best filter, grey-corrected where that is better, 30.50 dB (SSIM 0.762)."
    )


@pytest.mark.parametrize("part", [alone, inherited, inputs, transfer, units])
def test_competitors_are_not_trained_for_parts_without_them(make, model, monkeypatch, part):
    monkeypatch.setattr(alone_module, "careamics_is_installed", lambda: False)
    monkeypatch.setattr(transfer_module, "LEVELS", {Level("gaussian", 10): "28.5 dB"})
    monkeypatch.setattr(Study, "trained", property(lambda study: pytest.fail("trained")))
    budget = dataclasses.replace(TINY, contenders=("nrrn",), size=(1, 4), steps=1)
    assert part(make(model, compete=True, budget=budget)).facts["trained"] == []
