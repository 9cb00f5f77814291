"""Experiments that train: equal trainings are compared, kept, and told apart from copies."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from small_studies import TINY, by_label, tissue

from nrrn_fiji.metrics import psnr
from nrrn_fiji.scoring import Candidate, Level, Row
from nrrn_fiji.study import alone as alone_module
from nrrn_fiji.study import candidates, jobs
from nrrn_fiji.study import inherited as inherited_module
from nrrn_fiji.study import transfer as transfer_module
from nrrn_fiji.study.alone import alone, part_of
from nrrn_fiji.study.budgets import HOUR
from nrrn_fiji.study.context import Study
from nrrn_fiji.study.inherited import SIGMA, TARGETS, ScanSampler, Target, inherited, verdict
from nrrn_fiji.study.inputs import inputs
from nrrn_fiji.study.table2 import compare, table1
from nrrn_fiji.study.transfer import small_volume, transfer
from nrrn_fiji.study.units import units
from nrrn_fiji.triplets import SampleSettings, TrainingStack

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
