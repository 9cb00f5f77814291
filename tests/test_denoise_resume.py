"""Runs that are stopped or killed go on and end as others do; long ones need no more memory."""

from __future__ import annotations

import copy
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import tifffile
from held_runs import COMMAND, PATIENCE, finished_blocks, held, wait_until
from numpy.typing import NDArray
from plain_engine import strong_network
from stack_files import Watch, noisy, provenance, strong_model, write

from nrrn_fiji.api import denoise_file, plan_file
from nrrn_fiji.jobs.add_noise import add_noise_file
from nrrn_fiji.jobs.register import register_files
from nrrn_fiji.models import Model, save_model
from nrrn_fiji.network import NRRN
from nrrn_fiji.outputs import partial
from nrrn_fiji.outputs.journal import Journal
from nrrn_fiji.progress import Cancelled
from nrrn_fiji.settings import DenoiseSettings, NoiseSettings, RegisterSettings

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and limits")


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return strong_model(tmp_path)


def undisturbed(source: Path, model: Model, **options: Any) -> NDArray[Any]:
    report = denoise_file(source, source.with_name("undisturbed.tif"), model, **options)
    return tifffile.imread(report.image)


def test_cancelled_run_goes_on_where_it_was(tmp_path: Path, model: Model) -> None:
    source = write(tmp_path / "raw.tif", noisy((2, 4, 2, 20, 20), "float32"), "TZCYX")
    settings = DenoiseSettings(slab=1)
    expected = undisturbed(source, model, settings=settings)
    out = tmp_path / "clean.tif"
    with pytest.raises(Cancelled, match="finished slabs are kept in"):
        denoise_file(source, out, model, settings, progress=Watch(after=14))
    assert not out.exists()
    again = Watch()
    report = denoise_file(source, out, model, settings, progress=again)
    assert 4 < report.resumed < 16
    assert again.seen[0][0] > report.resumed, "finished slices are not computed again"
    assert any("interrupted run" in text for text in again.said)
    np.testing.assert_array_equal(tifffile.imread(out), expected)
    assert not out.with_name("clean.tif.partial").exists()


def test_run_cancelled_at_once_leaves_nothing(tmp_path: Path, model: Model) -> None:
    source = write(tmp_path / "raw.tif", noisy((4, 20, 20)))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(Cancelled, match="nothing is left behind"):
        denoise_file(source, tmp_path / "clean.tif", model, progress=Watch(after=0))
    assert sorted(tmp_path.iterdir()) == before


def stopped(source: Path, out: Path, model: Model, **options: Any) -> None:
    """A run with some finished blocks."""
    with pytest.raises(Cancelled):
        denoise_file(
            source, out, model, DenoiseSettings(slab=1), progress=Watch(after=9), **options
        )


def change_plan(out: Path, **values: Any) -> list[dict[str, Any]]:
    """Change the plan that an interrupted run recorded; return what it was."""
    journal = Journal(out.with_name(out.name + ".partial"))
    assert journal.read()
    plans = journal.begun()["plan"]["channels"]
    before = copy.deepcopy(plans)
    plans[0].update(values)
    journal.write()
    return before


def test_resume_uses_the_plan_of_before(tmp_path: Path, model: Model) -> None:
    """What was chosen then holds now, whatever would be chosen now."""
    source = write(tmp_path / "raw.tif", noisy((6, 80, 80)))
    out = tmp_path / "clean.tif"
    stopped(source, out, model)
    fresh = plan_file(source, out, model, DenoiseSettings(slab=1)).plans[0]
    before = change_plan(out, tile=fresh.tile - 1)
    assert before == [fresh.as_dict() | {"memory": ANY}]
    report = denoise_file(source, out, model, DenoiseSettings(slab=1))
    assert report.resumed > 0
    assert report.plans[0].tile == fresh.tile - 1


def test_plan_tells_of_an_interrupted_run(tmp_path: Path, model: Model) -> None:
    source = write(tmp_path / "raw.tif", noisy((6, 80, 80)))
    out = tmp_path / "clean.tif"
    stopped(source, out, model)
    change_plan(out, tile=33)
    folder = tmp_path / "clean.tif.partial"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    plan = plan_file(source, out, model, DenoiseSettings(slab=1))
    done = finished_blocks(out)
    assert plan.notes == (f"An interrupted run with {done} of 6 slices will be continued.",)
    assert plan.plans[0].tile == 33, "the plan is that of the interrupted run"
    (note,) = plan_file(source, out, model, DenoiseSettings(slab=1), restart=True).notes
    assert "will be dropped" in note
    (note,) = plan_file(source, out, model, DenoiseSettings(slab=2)).notes
    assert "slab was 1, is now 2" in note and "--restart" in note
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before


def test_a_whole_result_whose_run_could_not_tidy_up(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan says that nothing is left to do, and the same command succeeds at once."""
    source = write(tmp_path / "raw.tif", noisy((4, 30, 30)))
    out, settings = tmp_path / "clean.tif", DenoiseSettings(slab=1)
    ended_by_its_last_rename(monkeypatch, lambda: denoise_file(source, out, model, settings))
    result = out.read_bytes()
    plan = plan_file(source, out, model, settings)
    assert plan.notes == ("An earlier run has finished all 4 slices.",)
    assert plan.seconds == 0
    (note,) = plan_file(source, out, model, DenoiseSettings(slab=2)).notes
    assert "exists already" in note
    assert denoise_file(source, out, model, settings).resumed == 4
    assert out.read_bytes() == result
    assert not (tmp_path / "clean.tif.partial").exists()
    with pytest.raises(FileExistsError):
        denoise_file(source, out, model, settings)


def test_a_whole_result_is_told_on_a_machine_without_the_device(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left to compute, so it does not matter what computed it."""
    source = write(tmp_path / "raw.tif", noisy((4, 30, 30)))
    out, settings = tmp_path / "clean.tif", DenoiseSettings(slab=1)
    ended_by_its_last_rename(monkeypatch, lambda: denoise_file(source, out, model, settings))
    change_plan(out, device="cuda:99", precision="int8")
    plan = plan_file(source, out, model, settings)
    assert plan.notes == ("An earlier run has finished all 4 slices.",)
    assert ("device", "cuda:99 (not of this machine)") in plan.table.rows
    told = Watch()
    assert denoise_file(source, out, model, settings, progress=told).resumed == 4
    assert told.said == ["An earlier run had finished all 4 slices and could not say so."]
    assert not out.with_name("clean.tif.partial").exists()


def test_plan_tells_of_a_run_that_ended_between_two_renames(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the command itself, it takes the noise, which has its name, for this run's own."""
    source = write(tmp_path / "raw.tif", noisy((4, 30, 30)))
    out, noise, settings = tmp_path / "clean.tif", tmp_path / "noise.tif", DenoiseSettings(slab=1)

    def run() -> object:
        return denoise_file(source, out, model, settings, noise_out=noise)

    ended_by_its_last_rename(monkeypatch, run)
    assert noise.exists() and not out.exists()
    change_plan(out, device="cuda:99")
    plan = plan_file(source, out, model, settings, noise_out=noise)
    assert plan.notes == (
        "An earlier run has finished all 4 slices; what is left is to give clean.tif the final "
        "name.",
    )
    assert plan.seconds == 0
    run()
    assert out.exists() and noise.exists()


@pytest.mark.parametrize("job", ["add-noise", "register"])
def test_other_jobs_whose_run_could_not_tidy_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    rng = np.random.default_rng(0)
    scan = np.kron(rng.integers(0, 255, (12, 12)), np.ones((6, 6))).astype(np.uint8)
    out = tmp_path / "out.tif"

    def run() -> None:
        if job == "add-noise":
            add_noise_file(scan[None], out, NoiseSettings(gaussian=9.0))
        else:
            pytest.importorskip("pystackreg")
            register_files([np.stack([scan] * 3)], out, RegisterSettings())

    ended_by_its_last_rename(monkeypatch, run)
    result = out.read_bytes()
    run()
    assert out.read_bytes() == result
    assert not (tmp_path / "out.tif.partial").exists()
    with pytest.raises(FileExistsError):
        run()


def ended_by_its_last_rename(monkeypatch: pytest.MonkeyPatch, run: Callable[[], object]) -> None:
    """Let a run end when its result has just got its name."""
    rename = partial.rename

    def ends(source: Path, target: Path) -> None:
        rename(source, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(partial, "rename", ends)
        with pytest.raises(KeyboardInterrupt):
            run()


def test_resume_on_a_machine_without_the_device(tmp_path: Path, model: Model) -> None:
    source = write(tmp_path / "raw.tif", noisy((6, 80, 80)))
    stopped(source, tmp_path / "clean.tif", model)
    change_plan(tmp_path / "clean.tif", device="cuda:99")
    with pytest.raises(ValueError, match="'cuda:99', which this machine does not have"):
        denoise_file(source, tmp_path / "clean.tif", model, DenoiseSettings(slab=1))
    assert finished_blocks(tmp_path / "clean.tif") > 0


def test_resume_on_a_machine_without_int8(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "raw.tif", noisy((6, 80, 80)))
    stopped(source, tmp_path / "clean.tif", model)
    change_plan(tmp_path / "clean.tif", precision="int8")
    monkeypatch.setattr("nrrn_fiji.jobs.denoise_block.missing_for_int8", lambda device: "Numba")
    with pytest.raises(ValueError, match=r"int8, which needs Numba: go on where .*--restart"):
        denoise_file(source, tmp_path / "clean.tif", model, DenoiseSettings(slab=1))
    assert finished_blocks(tmp_path / "clean.tif") > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("input", "the input image has changed"),
        ("model", "the model has changed"),
        ("settings", "images was 3, is now 1"),
        ("slices", "slices was not given, is now 1,3"),
        ("noise", "--noise (noise_out) was not given, is now noise.tif"),
    ],
)
def test_resume_is_refused_when_anything_differs(
    tmp_path: Path, model: Model, change: str, said: str
) -> None:
    source = write(tmp_path / "raw.tif", noisy((6, 20, 20)))
    out = tmp_path / "clean.tif"
    stopped(source, out, model)
    settings, options = DenoiseSettings(slab=1), dict[str, Any]()
    if change == "input":
        write(source, noisy((6, 20, 20), seed=1))
    elif change == "model":
        model = save_model(tmp_path / "models" / "other.safetensors", strong_network(2, seed=5), {})
    elif change == "settings":
        settings = DenoiseSettings(slab=1, images=1)
    elif change == "slices":
        options["slices"] = range(1, 3)
    else:
        options["noise_out"] = tmp_path / "noise.tif"
    with pytest.raises(ValueError, match="--restart") as refusal:
        denoise_file(source, out, model, settings, **options)
    assert said in str(refusal.value)
    assert not out.exists()
    report = denoise_file(source, out, model, settings, restart=True, **options)
    assert report.resumed == 0
    expected = undisturbed(source, model, settings=settings, slices=options.get("slices"))
    np.testing.assert_array_equal(tifffile.imread(out), expected)


def test_model_card_may_change_between_runs(tmp_path: Path, model: Model) -> None:
    """Same weights, same pixels: only they decide."""
    source = write(tmp_path / "raw.tif", noisy((6, 20, 20)))
    stopped(source, tmp_path / "clean.tif", model)
    renamed = save_model(
        tmp_path / "models" / "renamed.safetensors", model.network, {"description": "new"}
    )
    report = denoise_file(source, tmp_path / "clean.tif", renamed, DenoiseSettings(slab=1))
    assert report.resumed > 0


RUN = """
from nrrn_fiji.api import denoise_file
from nrrn_fiji.settings import DenoiseSettings
source, out, model, noise = sys.argv[1:]
denoise_file(source, out, model, DenoiseSettings(slab=1, device="cpu"), noise_out=noise)
"""
DEPTH = 30


def big_job(tmp_path: Path) -> tuple[Path, Model]:
    """A job of some length."""
    (tmp_path / "big").mkdir()
    model = save_model(tmp_path / "big" / "big.safetensors", strong_network(2, 8), {})
    stack = noisy((DEPTH, 150, 140), "float32")
    return write(tmp_path / "big" / "raw.tif", stack), model


@POSIX
def test_killed_runs_end_as_an_undisturbed_one(tmp_path: Path) -> None:
    """kill -9 after random numbers of blocks; then the run is finished and compared."""
    source, model = big_job(tmp_path)
    out, noise = tmp_path / "clean.tif", tmp_path / "noise.tif"
    rng = random.Random(0)
    before = 0
    for _ in range(2):
        more = rng.randint(1, 12)
        words = (source, out, model.path, noise)
        with held(RUN, more, tmp_path / "go on", *words) as process:
            wait_until(lambda: finished_blocks(out) >= before + more, process)  # noqa: B023
            process.kill()
            assert process.wait() == -signal.SIGKILL
        before += more
        assert before == finished_blocks(out) < DEPTH
        assert not out.exists() and not noise.exists()
    settings = DenoiseSettings(slab=1, device="cpu")
    report = denoise_file(source, out, model, settings, noise_out=noise)
    assert report.resumed == before
    expected = undisturbed(source, model, settings=settings, noise_out=tmp_path / "un.tif")
    np.testing.assert_array_equal(tifffile.imread(out), expected)
    np.testing.assert_array_equal(tifffile.imread(noise), tifffile.imread(tmp_path / "un.tif"))
    made, of_expected = provenance(out), provenance(source.with_name("undisturbed.tif"))
    assert made.pop("date") <= of_expected.pop("date")
    memory = made["plan"].pop("memory"), of_expected["plan"].pop("memory")
    assert made == of_expected and min(memory) > 0


@POSIX
def test_command_that_is_interrupted_and_given_again(tmp_path: Path) -> None:
    """Ctrl-C in the command line, then the same command; meanwhile a second run is refused."""
    source, model = big_job(tmp_path)
    out = tmp_path / "clean.tif"
    words = ["denoise", str(source), str(out), "--model", str(model.path), "--slab", "1"]
    words += ["--device", "cpu"]
    settings = DenoiseSettings(slab=1, device="cpu")
    sign = tmp_path / "go on"
    with held(COMMAND, 2, sign, *words) as process:
        wait_until(lambda: finished_blocks(out) >= 2, process)
        with pytest.raises(BlockingIOError, match="Another run is writing"):
            denoise_file(source, out, model, settings)
        process.send_signal(signal.SIGINT)
        sign.touch()  # it has the signal by now, so it goes on to its end, not to a third block
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert finished_blocks(out) == 2
    assert f"2 finished slabs are kept in {out}.partial" in said
    assert "Traceback" not in said
    assert not out.exists()
    command = [sys.executable, "-m", "nrrn_fiji", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert f"2 of {DEPTH} slices are finished already" in done.stderr
    np.testing.assert_array_equal(
        tifffile.imread(out), undisturbed(source, model, settings=settings)
    )


@POSIX
def test_script_that_is_interrupted_keeps_its_blocks(tmp_path: Path) -> None:
    """Ctrl-C in a script that handles nothing: KeyboardInterrupt in the middle of something."""
    source, model = big_job(tmp_path)
    out, noise = tmp_path / "clean.tif", tmp_path / "noise.tif"
    with held(RUN, 3, tmp_path / "go on", source, out, model.path, noise) as process:
        wait_until(lambda: finished_blocks(out) >= 3, process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGINT
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert finished_blocks(out) == 3
    settings = DenoiseSettings(slab=1, device="cpu")
    report = denoise_file(source, out, model, settings, noise_out=noise)
    assert report.resumed == 3
    np.testing.assert_array_equal(
        tifffile.imread(out), undisturbed(source, model, settings=settings)
    )


MEASURE = """
import re, sys
from nrrn_fiji.api import denoise_file
from nrrn_fiji.settings import DenoiseSettings
settings = DenoiseSettings(device="cpu", images=1, slab=8, intensity=(0, 200))
denoise_file(*sys.argv[1:4], settings)
status = open("/proc/self/status").read()
print(int(re.search(r"VmHWM:\\s*(\\d+) kB", status)[1]) * 1024)
"""


# Not resource.getrusage: a new process inherits that peak from the one that starts it.
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_depth(tmp_path: Path) -> None:
    """112 slices more are 59 MB more of input and as much of output; the peak must not notice."""
    model = save_model(tmp_path / "tiny.safetensors", NRRN(1, 4), {})
    peaks = []
    for depth in (16, 128):
        source = tmp_path / f"raw{depth}.tif"
        tifffile.imwrite(source, noisy((depth, 256, 256), "float64"))
        command = [sys.executable, "-c", MEASURE, str(source), str(tmp_path / f"{depth}.tif")]
        done = subprocess.run([*command, str(model.path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 30e6
