"""From stacks to a model file: what ``nrrn train`` writes, keeps, refuses and goes on with."""

from __future__ import annotations

import csv
import itertools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from clocks import clock_of_training
from training_runs import StopAfter, wavy

from nrrn_fiji import training, training_data
from nrrn_fiji.cli import main
from nrrn_fiji.jobs.train import train, train_files
from nrrn_fiji.jobs.train_outputs import few_steps
from nrrn_fiji.models import load_model
from nrrn_fiji.progress import Cancelled
from nrrn_fiji.settings import TrainSettings
from nrrn_fiji.training import Diverged
from nrrn_fiji.volumes import open_volume


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(training, "VALIDATION_CROPS", 6)


def small(**more: object) -> dict[str, object]:
    return {"units": 1, "maps": 4, "crop": 16, "batch": 2, "steps": 6, "device": "cpu", **more}


def test_a_model_its_curve_and_a_sample_appear(tmp_path: Path) -> None:
    model = train(wavy(), tmp_path / "mine.safetensors", **small())
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "mine.loss.csv",
        "mine.loss.png",
        "mine.safetensors",
        "mine.sample.png",
    ]
    with (tmp_path / "mine.loss.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert float(rows[-1]["validation_error"]) > 0
    again = load_model(tmp_path / "mine.safetensors")
    assert again.hash == model.hash
    card = again.card["training"]
    assert card["objective"] == "masked" and card["ended"] == "finished" and card["steps"] == 6
    assert card["command"].startswith("nrrn train") and "--maps 4" in card["command"]
    assert again.intensity == (0, 255)


def test_the_same_seed_gives_the_same_model(tmp_path: Path) -> None:
    one, two, other = (
        train(wavy(), tmp_path / name, **small(seed=seed)).hash
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert one == two != other


def test_ctrl_c_keeps_the_best_model_and_resuming_finishes_it(tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    settings = TrainSettings(**small())  # type: ignore[arg-type]
    with pytest.raises(Cancelled, match="continue with --resume"):
        train_files([wavy()], out, settings, progress=StopAfter(3))
    assert load_model(out).card["training"]["ended"] == "stopped"
    with pytest.raises(FileExistsError, match=r"--resume .*, or start again with --overwrite"):
        train_files([wavy()], out, settings)
    report = train_files([wavy()], out, settings, resume=True)
    assert report.steps == 6
    straight = train_files([wavy()], tmp_path / "straight", settings)
    assert report.model.hash == straight.model.hash
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        train_files([wavy()], out, settings, resume=True)


def test_an_existing_model_is_not_replaced_unasked(tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    out.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="--overwrite"):
        train(wavy(), out, **small())
    assert out.read_bytes() == b"precious"
    train(wavy(), out, overwrite=True, **small(steps=1))
    assert load_model(out).units == 1


def test_fine_tuning_starts_from_the_model_and_says_so_in_the_card(tmp_path: Path) -> None:
    parent = train(wavy(), tmp_path / "parent", **small(steps=2))
    child = train(
        wavy(seed=5), tmp_path / "child", fine_tune=parent, rate=1e-12, average=0.0, steps=1,
        crop=16, batch=1, device="cpu",
    )  # fmt: skip
    assert child.card["training"]["fine_tuned_from"]["hash"] == parent.hash
    for name, tensor in child.network.state_dict().items():
        torch.testing.assert_close(tensor, parent.network.state_dict()[name], atol=1e-9, rtol=0)
    with pytest.raises(ValueError, match="maps is 8, but the model to fine-tune"):
        train(wavy(), tmp_path / "wrong", fine_tune=parent, maps=8)


def test_fine_tuning_can_add_units_which_start_as_the_last_one(tmp_path: Path) -> None:
    parent = train(wavy(), tmp_path / "parent", **small(steps=2))
    still: dict[str, Any] = {"rate": 1e-12, "average": 0.0, "steps": 1, "crop": 16, "batch": 1}
    child = train(wavy(), tmp_path / "child", fine_tune=parent, units=3, device="cpu", **still)
    assert child.units == 3 and parent.units == 1
    inherited = parent.network.state_dict()
    for name, tensor in child.network.state_dict().items():
        expected = inherited[re.sub(r"BU\.[12]\.", "BU.0.", name)]
        torch.testing.assert_close(tensor, expected, atol=1e-9, rtol=0)
    with pytest.raises(ValueError, match="units can only be added"):
        train(wavy(), tmp_path / "wrong", fine_tune=child, units=2)


def diverge_after(good: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make all values of the objective NaN but the first ``good`` ones."""
    honest, calls = training.objective_value, itertools.count(1)

    def spoiled(*arguments: object) -> torch.Tensor:
        value = honest(*arguments)  # type: ignore[arg-type]
        return value if next(calls) <= good else value * math.nan

    monkeypatch.setattr(training, "objective_value", spoiled)


def test_divergence_keeps_the_last_good_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverge_after(35, monkeypatch)  # 25 steps and one validation of 6 crops go well
    out = tmp_path / "mine.safetensors"
    with pytest.raises(Diverged, match=r"step 25\) is kept.*It is in .*mine.safetensors"):
        train(wavy(), out, **small(steps=100))
    model = load_model(out)
    assert model.card["training"]["ended"] == "diverged"
    assert all(torch.isfinite(tensor).all() for tensor in model.network.state_dict().values())


def test_divergence_before_the_first_validation_says_which_model_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no best one yet, but a checkpoint, which is written every few minutes."""
    diverge_after(3, monkeypatch)
    monkeypatch.setattr(training, "SAVE_SECONDS", -1)
    said = r"no good model yet to keep\. .* That of step 3 is in .*mine\.safetensors"
    with pytest.raises(Diverged, match=said):
        train(wavy(), tmp_path / "mine", **small())
    assert load_model(tmp_path / "mine.safetensors").card["training"]["steps"] == 3


def test_divergence_at_once_does_not_publish_what_an_earlier_training_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "mine.safetensors"
    with pytest.raises(Cancelled):
        train(wavy(), out, progress=StopAfter(3), **small())
    earlier = load_model(out).hash
    monkeypatch.setattr(
        training, "objective_value", lambda network, *_: next(network.parameters()).sum() * math.nan
    )
    with pytest.raises(Diverged, match="no good model yet"):
        train(wavy(seed=9), out, overwrite=True, **small())
    assert load_model(out).hash == earlier  # The old model itself is as it was.
    assert not (tmp_path / "mine.checkpoint.safetensors").exists()


def test_the_command_says_divergence_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        training, "objective_value", lambda network, *_: next(network.parameters()).sum() * math.nan
    )
    tifffile.imwrite(tmp_path / "in.tif", wavy())
    words = ["train", tmp_path / "in.tif", "-o", tmp_path / "mine", "--steps", 3, "--crop", 16]
    assert main([str(word) for word in [*words, "--device", "cpu", "--units", 1]]) == 1
    said = capsys.readouterr().err
    assert "The training diverged" in said and "report" not in said


class Interrupts(StopAfter):
    """A notebook's Ctrl-C, which arrives as an exception."""

    @property
    def cancelled(self) -> bool:
        if self.done >= self.steps:
            raise KeyboardInterrupt
        return False


def test_a_keyboard_interrupt_in_python_keeps_the_best_model(tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(wavy(), out, progress=Interrupts(4), **small())
    assert load_model(out).card["training"]["steps"] == 4
    straight = train(wavy(), tmp_path / "straight", **small())
    assert train(wavy(), out, resume=True, **small()).hash == straight.hash


def test_running_out_of_memory_says_what_to_make_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(training, "objective_value", full)
    with pytest.raises(MemoryError, match="batches of 2 crops of 16 px: choose a smaller batch"):
        train(wavy(), tmp_path / "mine", **small())


def test_fine_tuning_into_the_same_file_is_refused(tmp_path: Path) -> None:
    train(wavy(), tmp_path / "mine", **small(steps=1))
    with pytest.raises(ValueError, match="fine_tune and out are the same file"):
        train(
            wavy(), tmp_path / "mine", fine_tune=tmp_path / "mine.safetensors", overwrite=True,
            crop=16, batch=1, steps=1, device="cpu",
        )  # fmt: skip


def test_slices_without_valid_pixels_are_left_out_and_never_bridged(tmp_path: Path) -> None:
    stack = wavy(30).astype(np.float32)
    stack[12] = np.nan
    progress = StopAfter(1000)
    model = train(stack, tmp_path / "mine", progress=progress, **small(steps=3))
    assert any("1 slice has no valid pixel" in message for message in progress.messages)
    assert [part["shape"][0] for part in model.card["training"]["data"]] == [12, 17]


def test_a_volume_above_the_memory_limit_is_read_in_runs_of_adjacent_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_data, "MEMORY_LIMIT", 40 * 40 * 40)
    stack = wavy(200)
    progress = StopAfter(1000)
    model = train(stack, tmp_path / "mine", progress=progress, **small(steps=2))
    assert any("32 of them, 2 runs of 16" in message for message in progress.messages)
    assert [part["shape"] for part in model.card["training"]["data"]] == [[16, 40, 40]] * 2


@pytest.mark.parametrize("objective", ["consensus", "masked", "clean"])
def test_every_objective_trains_from_the_command_settings(tmp_path: Path, objective: str) -> None:
    noise = {"poisson": (5.0, 50.0), "gaussian": (5.0, 20.0)} if objective == "clean" else {}
    model = train(
        wavy(), tmp_path / "mine", objective=objective, **small(edge=True, maps=8, **noise)
    )
    assert model.card["training"]["objective"] == objective
    assert model.edge
    # The card names no setting that had no part: a reader would take it for a fact.
    told = model.card["training"]["settings"].keys()
    assert told >= {"objective", "rate", "crop"}
    assert {"weighting", "levels", "clipped"} & told == (
        {"weighting", "levels", "clipped"} if objective == "clean" else set()
    )


def test_scans_of_one_slice_train_with_the_consensus_objective(tmp_path: Path) -> None:
    scans = np.stack([wavy(1, 64, seed=seed)[0] for seed in range(4)])
    model = train(scans, tmp_path / "mine", scans=True, **small())
    assert model.card["training"]["objective"] == "consensus"


def test_the_crop_shrinks_to_fit_unless_it_was_asked_for(tmp_path: Path) -> None:
    tiny = wavy(24, 40)
    model = train(tiny, tmp_path / "mine", units=1, maps=4, steps=1, device="cpu")
    assert model.card["training"]["settings"]["crop"] == 40
    with pytest.raises(ValueError, match="a crop is 64 x 64 px: choose crop=40"):
        train(tiny, tmp_path / "wrong", **small(crop=64))


def test_minutes_end_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = clock_of_training(monkeypatch, 0.125)
    settings = small(minutes=0.02)
    del settings["steps"]
    training_of = train(wavy(), tmp_path / "mine", **settings).card["training"]
    assert training_of["steps"] == 10  # in 1.2 s
    assert training_of["seconds"] == pytest.approx(clock.now, abs=0.1)


@pytest.mark.parametrize(
    ("length", "steps", "told"),
    [
        ({"minutes": 0.02}, 1, "Only 1 step was taken in 0.02 min on this machine, a fraction of"),
        ({"minutes": 0.1}, 3, "Only 3 steps were taken in 0.1 min"),
        ({"steps": 1}, 1, None),  # who asks for one step knows
    ],
)
def test_a_clock_that_leaves_few_steps_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    length: dict[str, float],
    steps: int,
    told: str | None,
) -> None:
    """On a slow machine the minutes may be over before anything is learnt."""
    clock_of_training(monkeypatch, 2.0)
    settings = {name: value for name, value in small().items() if name != "steps"}
    progress = StopAfter(1000)
    model = train(wavy(), tmp_path / "mine", progress=progress, **settings, **length)
    assert model.card["training"]["steps"] == steps
    found = [text for text in progress.messages if text.startswith("Only")]
    assert [text[: len(told or "")] for text in found] == ([] if told is None else [told])


def test_a_clock_that_leaves_enough_steps_is_not_told_of() -> None:
    assert "199 steps" in few_steps(199, 20)
    assert few_steps(200, 20) == ""


def test_an_array_of_any_kind_is_one_stack(tmp_path: Path) -> None:
    """Not as many stacks as it has slices."""
    xarray = pytest.importorskip("xarray")
    stack = wavy()
    expected = train(stack, tmp_path / "plain", **small(steps=1)).hash
    labelled = xarray.DataArray(stack, dims=("z", "y", "x"))
    assert train(labelled, tmp_path / "labelled", **small(steps=1)).hash == expected
    with open_volume(stack) as volume:
        assert train(volume, tmp_path / "opened", **small(steps=1)).hash == expected
    hidden = np.ma.masked_less(stack, 100)
    with pytest.raises(TypeError, match="masks are not looked at"):
        train(hidden, tmp_path / "masked", **small(steps=1))


def test_16_bit_stacks_are_mapped_by_their_percentiles(tmp_path: Path) -> None:
    stack = wavy().astype(np.uint16) * 20 + 1000
    model = train(stack, tmp_path / "mine", **small(steps=1))
    low, high = model.intensity or (0, 0)
    assert 1000 <= low < 2000 and 4500 < high <= 6100


def test_the_command_in_the_card_asks_for_the_same_numbers(tmp_path: Path) -> None:
    stack = wavy().astype(np.float32) * 20_000
    span = (1234.5678, 4_999_999.5)
    model = train(stack, tmp_path / "mine", **small(steps=1, intensity=span, rate=0.0031415926))
    words = model.card["training"]["command"].split()
    given = words[words.index("--intensity") + 1]
    assert tuple(float(number) for number in given.split(",")) == span
    assert float(words[words.index("--rate") + 1]) == 0.0031415926


def test_nan_is_filled_and_said(tmp_path: Path) -> None:
    stack = wavy().astype(np.float32)
    stack[3, 4:8, 5:9] = np.nan
    progress = StopAfter(1000)
    model = train(stack, tmp_path / "mine", progress=progress, **small(steps=2))
    assert any("16 pixels are NaN" in message for message in progress.messages)
    assert all(math.isfinite(v) for _, v in model.card["training"]["history"]["validation"])


@pytest.mark.parametrize(
    ("stack", "error", "message"),
    [
        (wavy(2, 64), ValueError, "training needs at least 3"),
        (np.full((20, 64, 64), 7, np.float32), ValueError, "same grey value 7 everywhere"),
        (np.full((20, 64, 64), np.nan, np.float32), ValueError, "no valid pixel"),
        (np.zeros((20, 64, 64), np.complex64), TypeError, "complex"),
    ],
)
def test_a_stack_that_cannot_be_learnt_from_is_refused(
    tmp_path: Path, stack: np.ndarray, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(stack, tmp_path / "mine", **small())
    assert not (tmp_path / "mine.safetensors").exists()


def test_the_model_file_must_be_writable_as_a_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="models are"):
        train(wavy(), tmp_path / "mine.pth", **small())
    with pytest.raises(FileNotFoundError, match="does not exist: create it"):
        train(wavy(), tmp_path / "nowhere" / "mine", **small())
