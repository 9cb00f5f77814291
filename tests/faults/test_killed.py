"""Kill -9 at any moment, then the same command again: the result is that of an undisturbed run.

``NRRN_TEST_KILLS=100 NRRN_TEST_MOMENTS=1000 pytest tests/faults/test_killed.py`` looks longer: a
run takes some hundred steps, so that it is killed before each.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
from plain_engine import strong_network

from nrrn_fiji import training
from nrrn_fiji.models import load_model, save_model
from nrrn_fiji.progress import NoProgress
from nrrn_fiji.volumes import create_volume, open_volume

if os.name != "posix":
    pytest.skip("needs fork and SIGKILL", allow_module_level=True)

from victims import KILLED, Victim, contents, journal_of

KILLS = int(os.environ.get("NRRN_TEST_KILLS", "10"))
"""How often a run is killed at random in each of the tests; half as often in further formats."""

MOMENTS = int(os.environ.get("NRRN_TEST_MOMENTS", "10"))
"""Before how many of its steps on the disk a run is killed, from the first to the last."""

SLICES = 24

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Way:
    """A way to call the command."""

    out: str
    more: tuple[str, ...] = ()
    source: str = "raw.tif"

    @property
    def targets(self) -> list[str]:
        """What it writes."""
        return [self.out, *(word for word in self.more if not word.startswith("-"))]


WAYS = {
    "TIFF": Way("clean.tif"),
    "three outputs": Way("clean.tif", ("--noise", "noise.tif", "--units-out", "units.ome.tif")),
    "folder": Way("clean", ("--noise", "noise"), "slices"),
    "OME-Zarr": Way("clean.zarr", ("--noise", "noise.zarr")),
    "HDF5": Way("clean.h5"),
    "MRC": Way("clean.mrc"),
}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stack raw.tif (24, 20, 30), the same as slices, short ones, a model."""
    folder = tmp_path_factory.mktemp("given")
    stack = np.random.default_rng(0).integers(0, 200, (SLICES, 20, 30)).astype(np.uint8)
    for name, depth in (("raw", SLICES), ("short", 3)):
        tifffile.imwrite(folder / f"{name}.tif", stack[:depth], photometric="minisblack")
        slices = folder / {"raw": "slices", "short": "short-slices"}[name]
        slices.mkdir()
        for z in range(depth):
            tifffile.imwrite(slices / f"s{z}.tif", stack[z], photometric="minisblack")
    save_model(folder / "net.safetensors", strong_network(1, 4), {})
    return folder


def words(given: Path, folder: Path, way: Way, *, short: bool = False) -> list[str | Path]:
    """The command line of a way, with outputs in the folder."""
    source = {"raw.tif": "short.tif", "slices": "short-slices"}[way.source] if short else way.source
    line: list[str | Path] = ["denoise", given / source, folder / way.out]
    line += [word if word.startswith("-") else folder / word for word in way.more]
    line += ["--model", given / "net.safetensors", "--device", "cpu", "--tile", "32"]
    return [*line, "--slab", "1", "--precision", "fp32"]


def undisturbed(
    given: Path, tmp_path: Path, way: Way, *, short: bool = False
) -> tuple[dict[str, str], int]:
    """Return the contents that a run makes, and in how many steps."""
    folder = tmp_path / "undisturbed"
    folder.mkdir()
    victim = Victim(words(given, folder, way, short=short), folder)
    assert victim.wait() == 0, victim.said
    return contents(folder), victim.steps


@pytest.mark.parametrize("name", WAYS)
def test_killed_at_random_again_and_again(name: str, given: Path, tmp_path: Path) -> None:
    """At any line of Python in a block; each time some blocks are finished and others not."""
    way, chance = WAYS[name], random.Random(name)
    expected, _ = undisturbed(given, tmp_path, way)
    folder = tmp_path / "killed"
    folder.mkdir()
    out = folder / way.out
    wanted = KILLS if list(WAYS).index(name) < 3 else KILLS // 2
    for kill in range(1, wanted + 1):
        before, more = journal_of(out), chance.choice((1, 1, 2, 3))
        victim = Victim(words(given, folder, way), folder, pieces=more, fraction=chance.random())
        assert victim.wait() == KILLED, victim.said
        assert before + more < journal_of(out) <= before + more + 2 < SLICES
        assert not any((folder / target).exists() for target in way.targets)
        if kill % 4 and kill < wanted:  # four kills take 20 blocks at most
            continue
        victim = Victim(words(given, folder, way), folder)
        kept = journal_of(out)
        assert victim.wait() == 0, victim.said
        assert f"{kept} of {SLICES} slices are finished already" in victim.said
        assert contents(folder) == expected
        for target in way.targets:
            path = folder / target
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("name", WAYS)
def test_killed_at_each_step_on_the_disk(name: str, given: Path, tmp_path: Path) -> None:
    """Also while the first files are laid out, and while the result gets its final names."""
    way = WAYS[name]
    expected, steps = undisturbed(given, tmp_path, way, short=True)
    assert steps > 30
    for step in sorted({moment * (steps - 1) // (MOMENTS - 1) for moment in range(MOMENTS)}):
        folder = tmp_path / f"killed-{step}"
        folder.mkdir()
        victim = Victim(words(given, folder, way, short=True), folder, last_step=step)
        assert victim.wait() == KILLED, victim.said
        left = contents(folder)
        there = {target for target in way.targets if target in left}
        for path in left.keys() & expected.keys():
            assert left[path] == expected[path], f"{path} has its name before it is whole"
        assert way.out not in there or there == set(way.targets), "the image must come last"
        victim = Victim(words(given, folder, way, short=True), folder)
        code = victim.wait()
        if way.out in there and not any(path.endswith("state.json") for path in left):
            assert code == 1 and "exists already" in victim.said  # it had ended, but for its lock
        else:
            assert code == 0, f"step {step}: {victim.said}"
        assert contents(folder) == expected


def test_killed_between_the_last_rename_and_its_end(given: Path, tmp_path: Path) -> None:
    """The same command sees that the output is whole and its own, tidies up and succeeds."""
    way = WAYS["TIFF"]
    expected, step = undisturbed(given, tmp_path, way, short=True)
    seen = []
    while True:
        step -= 1
        folder = tmp_path / f"killed-{step}"
        folder.mkdir()
        victim = Victim(words(given, folder, way, short=True), folder, last_step=step)
        assert victim.wait() == KILLED, victim.said
        left = contents(folder)
        if way.out not in left:
            break
        if "clean.tif.partial/state.json" not in left:
            continue  # only its lock is left to be removed
        seen.append(step)
        assert left[way.out] == expected[way.out]
        if len(seen) % 2:  # and a wrong command is told that there is a result
            line = [*words(given, folder, way, short=True), "--strength", "0.5"]
            other = Victim(line, folder)
            assert other.wait() == 1 and "exists already" in other.said
            assert contents(folder) == expected
            continue
        victim = Victim(words(given, folder, way, short=True), folder)
        assert victim.wait() == 0, victim.said
        assert "An earlier run had finished all 3 slices" in victim.said
        assert contents(folder) == expected
    assert len(seen) > 1, "no kill fell between the last rename and the removal of the record"


def test_half_a_chunk_does_not_stay_in_the_result(given: Path, tmp_path: Path) -> None:
    """A kill while zarr writes a chunk leaves what it has written under a passing name."""
    with (
        open_volume(given / "raw.tif") as raw,
        create_volume(tmp_path / "clean.zarr", raw) as writer,
    ):
        writer.write(0, raw.read(0, SLICES))
        chunk = next(path for path in (tmp_path / "clean.zarr" / "0").rglob("c/**/0"))
        left = chunk.with_name("0.7d6f7e6eebe048b9a7ae03ea3f0ffd85.partial")
        left.write_bytes(b"half")
        writer.finish(NoProgress())
    assert not left.exists()


TRAINING = ["--units", "1", "--maps", "4", "--crop", "16", "--batch", "1", "--steps", "120"]
TRAINING += ["--device", "cpu", "--precision", "fp32", "--seed", "3"]


def test_killed_training_goes_on_with_the_same_losses(given: Path, tmp_path: Path) -> None:
    """With --resume, from its last checkpoint; before the first one, from the beginning."""
    folders = [tmp_path / name for name in ("undisturbed", "killed")]
    for folder in folders:
        folder.mkdir()
    undisturbed, killed = folders
    line = ["train", given / "raw.tif", *TRAINING]
    victim = Victim([*line, "-o", undisturbed / "own.safetensors"], undisturbed)
    assert victim.wait() == 0, victim.said
    line += ["-o", killed / "own.safetensors"]
    checkpoint = killed / "own.checkpoint.safetensors"
    steps, resume = list[int](), False
    chance = random.Random(0)
    while len(steps) < max(3, KILLS // 2) and max(steps, default=0) < 100:
        # The first falls before the first checkpoint, each other one between its next two.
        pieces = (25 if steps else 0) + chance.randint(1, 17)
        victim = Victim(
            [*line, *["--resume"] * resume], killed, pieces=pieces, fraction=chance.random()
        )
        assert victim.wait() == KILLED, victim.said
        assert not (killed / "own.safetensors").exists()
        resume = checkpoint.exists()
        steps.append(step_of(checkpoint) if resume else 0)
        assert steps[-1] == 25 * (len(steps) - 1)
    victim = Victim([*line, "--resume"], killed)
    assert victim.wait() == 0, victim.said
    ours, theirs = ((folder / "own.loss.csv").read_text() for folder in folders)
    assert ours == theirs and ours.count("\n") == 121
    models = [load_model(folder / "own.safetensors") for folder in folders]
    assert models[0].hash == models[1].hash
    assert sorted(path.name for path in killed.iterdir()) == sorted(
        path.name for path in undisturbed.iterdir()
    )


def step_of(checkpoint: Path) -> int:
    """Return how many steps a checkpoint has seen."""
    header, tensors = training.read_checkpoint(checkpoint)
    return training.history_in(header, tensors).step
