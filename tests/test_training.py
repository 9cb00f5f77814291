"""The training loop: what a user relies on when a training is long."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from clocks import clock_of_training
from training_runs import StopAfter, wavy

from nrrn_fiji import training
from nrrn_fiji.network import NRRN
from nrrn_fiji.progress import Cancelled
from nrrn_fiji.settings import TrainSettings
from nrrn_fiji.training import Diverged, History, Snapshot, learning_rate, resolve
from nrrn_fiji.triplets import TrainingStack, TripletSampler

CPU = torch.device("cpu")
SMALL = TrainSettings(units=1, maps=4, crop=16, batch=2, steps=12, rate=3e-3, device="cpu")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(training, "VALIDATION_CROPS", 6)


def run(
    folder: Path, settings: TrainSettings = SMALL, progress: StopAfter | None = None, **more: object
) -> tuple[History, dict[str, torch.Tensor], list[Snapshot]]:
    """Train a tiny network on the wavy volume."""
    resolved = resolve(settings, device=CPU, precision="fp32", objective="masked")
    sampler = TripletSampler([TrainingStack(wavy(), (0, 255))], training.sample_settings(resolved))
    torch.manual_seed(0)
    network = NRRN(resolved.units or 1, resolved.maps or 4)
    seen: list[Snapshot] = []
    history, best = training.train(
        network,
        sampler,
        resolved,
        checkpoint=folder / "checkpoint.safetensors",
        callback=seen.append,
        validate_every=3,
        progress=progress,
        **more,  # type: ignore[arg-type]
    )
    return history, best, seen


def test_a_resumed_training_is_the_one_that_was_not_interrupted(tmp_path: Path) -> None:
    straight, best, _ = run(tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    for stop in (2, 4, 9):  # Before the first validation, and in between validations.
        with pytest.raises(Cancelled):
            run(broken, progress=StopAfter(stop), resume=stop > 2)
    resumed, best_resumed, _ = run(broken, resume=True)
    assert resumed.losses == straight.losses
    assert resumed.rates == straight.rates
    assert resumed.validation == straight.validation
    assert best.keys() == best_resumed.keys()
    for name, tensor in best.items():
        assert torch.equal(tensor, best_resumed[name]), name


def test_resuming_with_other_settings_or_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        run(tmp_path, progress=StopAfter(2))
    with pytest.raises(ValueError, match=r"rate=0.003 \(now 0.001\)"):
        run(tmp_path, replace(SMALL, rate=1e-3), resume=True)
    with pytest.raises(ValueError, match="another training data"):
        run(tmp_path, resume=True, data={"training data": "other"})


@pytest.mark.parametrize("content", [b"", b"\x10\0\0\0\0\0\0\0{}", b"nonsense" * 100])
def test_a_corrupt_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="damaged or not a checkpoint"):
        run(tmp_path, resume=True)


def test_the_best_of_all_validations_is_kept(tmp_path: Path) -> None:
    history, _, seen = run(tmp_path)
    assert [snapshot.history.step for snapshot in seen] == [3, 6, 9, 12]
    assert [step for step, _ in history.validation] == [3, 6, 9, 12]
    lowest = min(history.validation, key=lambda pair: pair[1])
    assert history.best == lowest
    assert seen[[3, 6, 9, 12].index(lowest[0])].is_best


def test_training_lowers_the_held_out_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "VALIDATION_CROPS", 20)
    history, _, _ = run(tmp_path, replace(SMALL, steps=120, maps=8))
    # The error at masked pixels holds the noise of the target itself (σ 0.1, so 0.01), below which
    # nothing can fall; an untouched masked pixel has its neighbour's noise and structure on top.
    assert history.validation[-1][1] < 0.8 * history.validation[0][1]
    assert history.validation[-1][1] > 0.009


def test_writing_checkpoints_takes_nothing_off_the_training_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, honest, written = clock_of_training(monkeypatch, 0.125), training.save_checkpoint, 0

    def slow(*arguments: object) -> None:
        nonlocal written
        written += 1
        clock.now += 7
        honest(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "save_checkpoint", slow)
    history, _, _ = run(tmp_path, replace(SMALL, steps=None, minutes=0.05))
    assert written >= 3
    # In 3 s: three times three steps and a validation of six crops.
    assert history.step == 9
    assert history.seconds == pytest.approx(clock.now - 7 * written)


def test_divergence_stops_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"not finite at step .* Try rate="):
        run(tmp_path, replace(SMALL, rate=1e30, clip=0.0, schedule="constant", steps=200))


def test_weight_averaging_can_be_switched_off(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    _, _, plain = run(tmp_path, replace(SMALL, average=0.0, steps=3))
    _, _, averaged = run(tmp_path / "a", replace(SMALL, steps=3))
    assert plain[-1].history.losses == averaged[-1].history.losses
    assert plain[-1].history.validation != averaged[-1].history.validation


# Choosing settings -------------------------------------------------------------------------------


def chosen(settings: TrainSettings, device: str = "cpu") -> TrainSettings:
    return resolve(settings, device=torch.device(device), precision="fp32", objective="masked")


def test_the_paper_preset_is_the_paper_and_gives_way_to_what_is_asked() -> None:
    paper = chosen(TrainSettings(preset="paper"))
    assert (paper.units, paper.maps, paper.crop, paper.batch) == (4, 64, 256, 16)
    assert (paper.objective, paper.rate, paper.schedule) == ("consensus", 1e-4, "halving")
    assert (paper.levels, paper.weighting, paper.rescale) == ("uniform", "none", (0.5, 2.0))
    assert chosen(TrainSettings(preset="paper", batch=4, units=1)).batch == 4
    assert chosen(TrainSettings(preset="paper", minutes=5)).steps is None
    # A value that is the default without a preset counts as asked for too.
    assert chosen(TrainSettings(preset="paper", clip=1.0)).clip == 1.0
    assert (paper.clip, chosen(TrainSettings()).clip) == (0.0, 1.0)


def test_defaults_suit_the_device() -> None:
    cpu, gpu = chosen(TrainSettings()), chosen(TrainSettings(), "cuda")
    assert cpu.units is not None and gpu.units is not None
    assert cpu.maps is not None and gpu.maps is not None
    assert cpu.units * cpu.maps < gpu.units * gpu.maps
    assert cpu.objective == "masked"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 5, "minutes": 1}, "only one of them"),
        ({"objective": "clean"}, "no noise is asked for"),
    ],
)
def test_contradicting_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen(TrainSettings(**settings))  # type: ignore[arg-type]


def test_rescaling_noise_that_is_to_be_masked_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rescale is .* leave rescale out"):
        chosen(TrainSettings(objective="masked", rescale=(0.5, 2.0)))
    # The paper's preset rescales; with a masked centre it must not.
    assert chosen(TrainSettings(preset="paper", objective="masked")).rescale is None
    noisy = TrainSettings(objective="masked", rescale=(0.5, 2.0), gaussian=(5.0, 9.0))
    assert chosen(noisy).rescale == (0.5, 2.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weighting": "deviation"}, "weighting is deviation, but objective is masked, and only"),
        ({"weighting": "none", "objective": "consensus"}, "weighting is none, but objective is co"),
        ({"weighting": "variance", "gaussian": (5, 9)}, "leave weighting out"),
        ({"levels": "logarithmic"}, r"levels is logarithmic, but no synthetic noise .* levels out"),
        ({"clipped": 0.5}, "clipped is 0.5, but no synthetic noise"),
        ({"objective": "clean", "poisson": (1, 50), "mask": 0.3}, "mask is 0.3, but .* no pixels"),
        ({"objective": "clean", "poisson": (1, 50), "mask_shape": "1,0,0"}, "leave mask_shape out"),
        ({"scans": True, "isotropic": True}, "isotropic is True, but scans of one slice"),
    ],
)
def test_a_setting_without_a_use_is_refused(settings: dict[str, object], message: str) -> None:
    """Whoever gives one believes that it changes the model."""
    with pytest.raises(ValueError, match=message):
        chosen(TrainSettings(**settings))  # type: ignore[arg-type]


def test_settings_that_have_a_use_are_taken() -> None:
    clean = TrainSettings(
        objective="clean",
        gaussian=(5, 9),
        weighting="deviation",
        levels="logarithmic",
        clipped=0.9,
        isotropic=True,
    )
    assert (chosen(clean).weighting, chosen(clean).levels) == ("deviation", "logarithmic")
    masked = TrainSettings(objective="masked", mask=0.3, mask_shape="1,0,0", isotropic=True)
    assert (chosen(masked).mask, chosen(masked).mask_shape) == (0.3, "1,0,0")


@pytest.mark.parametrize("value", [25, (5,), (50, 1), "ab", (1, 2, 3)])
def test_a_range_is_two_numbers_in_order(value: object) -> None:
    with pytest.raises(ValueError, match=r"gaussian is .* two numbers"):
        TrainSettings(gaussian=value)  # type: ignore[arg-type]
    assert TrainSettings(gaussian=[5, 9]).gaussian == (5.0, 9.0)  # type: ignore[arg-type]


def test_fp16_is_refused_for_training() -> None:
    with pytest.raises(ValueError, match='"fp32" or "bf16"'):
        resolve(TrainSettings(), device=CPU, precision="fp16", objective="masked")


@pytest.mark.parametrize(
    ("name", "value"),
    [("objective", "n2n"), ("mask", 0.9), ("steps", 0), ("minutes", -1), ("crop", 8)],
)
def test_settings_out_of_range_name_themselves(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value!r}, but it must be"):
        TrainSettings(**{name: value})  # type: ignore[arg-type]


def test_the_paper_halves_its_rate_every_ten_epochs_of_8190_crops() -> None:
    settings = chosen(TrainSettings(preset="paper"))
    steps = [0, 5118, 5119, 10238]
    rates = [learning_rate(settings, step, 0) for step in steps]
    assert rates == pytest.approx([1e-4, 1e-4, 0.5e-4, 0.25e-4])


def test_the_cosine_schedule_warms_up_and_falls_to_a_hundredth() -> None:
    settings = chosen(TrainSettings(rate=1.0))
    rates = [learning_rate(settings, 0, fraction) for fraction in (0, 0.01, 0.02, 0.51, 1)]
    assert rates == pytest.approx([0.01, 0.5, 1.0, 0.505, 0.01], abs=1e-6)


def test_a_checkpoint_is_json_and_tensors_and_nothing_to_unpickle(tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        run(tmp_path, progress=StopAfter(2))
    header, tensors = training.read_checkpoint(tmp_path / "checkpoint.safetensors")
    assert json.loads(json.dumps(header)) == header
    assert tensors["history.losses"].shape == (2,)
