"""Several processes that train together take the steps of one, and what happens when one dies."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from held_runs import PATIENCE, wait_until

from nrrn_fiji import distributed_training
from nrrn_fiji.distributed_training import ALONE, Team, joined
from nrrn_fiji.jobs.train import train
from nrrn_fiji.models import load_model

SETTINGS = {"units": 1, "maps": 4, "crop": 16, "batch": 5, "device": "cpu", "rate": 3e-3}

TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m")


def stack(folder: Path) -> Path:
    z, y, x = np.mgrid[:12, :40, :40]
    noise = 0.1 * np.random.default_rng(0).standard_normal(z.shape)
    clean = 0.5 + 0.3 * np.sin(x / 4) * np.cos(y / 5 + z / 9) + noise
    path = folder / "noisy.tif"
    tifffile.imwrite(path, np.clip(clean * 255, 0, 255).astype(np.uint8), photometric="minisblack")
    return path


def by_two(source: Path, out: Path, *words: str) -> subprocess.Popen[str]:
    """Start ``nrrn train`` in two processes, as a user does."""
    settings = [word for key, value in SETTINGS.items() for word in (f"--{key}", str(value))]
    return subprocess.Popen(
        [sys.executable, *TORCHRUN, "nrrn_fiji", "train", source, "-o", out, *settings, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def losses(model: Path) -> np.ndarray:
    with open(model.with_name(model.stem + ".loss.csv"), newline="") as file:
        return np.array([float(row["loss"]) for row in csv.DictReader(file)])


def steps_told(model: Path) -> int:
    """How many steps are in the table of losses."""
    return len(losses(model)) if model.with_name(model.stem + ".loss.csv").exists() else 0


def test_parts_of_a_batch_are_shared_out_and_count_by_their_size() -> None:
    teams = [Team(rank, 3) for rank in range(3)]
    parts = [team.part(8) for team in teams]
    assert [index for part in parts for index in part] == list(range(8))
    # The mean of the processes' weighted means is the mean of all samples.
    values = np.random.default_rng(0).random(8)
    means = [values[part].mean() for part in parts]
    weighted = [mean * team.share(8) for mean, team in zip(means, teams, strict=True)]
    assert np.mean(weighted) == pytest.approx(values.mean())
    with pytest.raises(ValueError, match="batch is 2, but 3 processes"):
        teams[0].part(2)


def test_a_process_gets_a_gpu_of_its_own_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [Team(5, 8, local).device(None) for local in (0, 1)] == ["cuda:0", "cuda:1"]
    assert Team(5, 8, 1).device("cpu") == "cpu"
    with pytest.raises(ValueError, match="Process 2 of this machine has no GPU, for there are 2"):
        Team(2, 3, 2).device("cuda")
    with pytest.raises(ValueError, match="device is 'cuda:1', but 3 processes"):
        Team(2, 3, 2).device("cuda:1")
    assert ALONE.device("cuda:1") == "cuda:1"


def test_without_a_launcher_a_training_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")  # left by something else
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with joined(None) as team:
        assert team is ALONE
    assert distributed_training.launched() is ALONE


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_and_resume(tmp_path: Path) -> None:
    source, alone, two = stack(tmp_path), tmp_path / "alone.safetensors", tmp_path / "two"
    straight = train(source, alone, steps=8, **SETTINGS)  # type: ignore[arg-type]
    out = two.with_suffix(".safetensors")
    run = by_two(source, out, "--steps", "8")
    said, errors = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, errors
    assert said.count("Model:") == 1  # one of them speaks
    assert "by 2 processes" in errors
    assert len(losses(alone)) == 8
    np.testing.assert_allclose(losses(out), losses(alone), rtol=1e-5)
    for name, tensor in straight.network.state_dict().items():
        torch.testing.assert_close(load_model(out).network.state_dict()[name], tensor)
    assert sorted(path.name for path in tmp_path.glob("two*")) == [
        "two.loss.csv", "two.loss.png", "two.safetensors", "two.sample.png",
    ]  # fmt: skip
    wrong = by_two(source, out, "--steps", "8")
    _, errors = wrong.communicate(timeout=PATIENCE)
    assert wrong.returncode != 0
    assert errors.count("exists: choose another name") == 1
    assert "Something happened" not in errors


def workers(launcher: subprocess.Popen[str]) -> dict[int, int]:
    """The processes of a launcher, by rank."""
    import psutil

    return {
        int(child.environ()["RANK"]): child.pid
        for child in psutil.Process(launcher.pid).children()
        if "RANK" in child.environ()
    }


@pytest.mark.slow
def test_a_process_that_dies_ends_the_training_with_a_sentence_and_loses_nothing(
    tmp_path: Path,
) -> None:
    source, out = stack(tmp_path), tmp_path / "two.safetensors"
    run = by_two(source, out, "--steps", "6000")
    try:
        # Validated twice: what the first time takes longer, such as importing what draws, is over
        # before the launcher gives the other process its half minute to end.
        wait_until(lambda: steps_told(out) > 150, run)
        os.kill(workers(run)[1], signal.SIGKILL)
        _, errors = run.communicate(timeout=PATIENCE)
    finally:
        run.kill()
    assert run.returncode != 0
    assert "Process 0 of the 2 that train together (counted from 0) has lost the others" in errors
    assert f"The best model so far is in {out}. Continue with --resume" in errors
    kept = load_model(out).card["training"]
    assert kept["ended"] == "stopped" and kept["steps"] >= len(losses(out)) > 0
    before = losses(out)
    again = by_two(source, out, "--steps", "6000", "--resume")
    try:
        wait_until(lambda: steps_told(out) > len(before) + 150, again)
        again.terminate()  # as a cluster's scheduler does
        _, errors = again.communicate(timeout=PATIENCE)
    finally:
        again.kill()
    assert "going on from the checkpoint" in errors
    assert losses(out)[: len(before)].tolist() == before.tolist()
    assert load_model(out).card["training"]["steps"] >= kept["steps"]
