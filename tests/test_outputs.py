"""A run's output is whole or absent, never mixed, and an interrupted run can be continued."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from output_runs import PLAN, REQUEST, begin, files, interrupt, run

from nrrn_fiji.outputs import partial as outputs
from nrrn_fiji.outputs.partial import BlockKey, PartialOutput


def test_finished_run_leaves_its_output_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "clean.tif"
    with PartialOutput({"image": out}) as part:
        begin(part)
        part.mark(BlockKey(0, 0, 0))
        assert not out.exists()
        part.finish()
    assert out.read_text() == "new image"
    assert [path.name for path in tmp_path.iterdir()] == ["clean.tif"]


def test_failure_before_the_first_block_leaves_nothing(tmp_path: Path) -> None:
    interrupt(tmp_path / "clean.tif", blocks=0)
    assert list(tmp_path.iterdir()) == []


def test_run_that_was_killed_while_it_laid_out_its_files(tmp_path: Path) -> None:
    """No record, so nothing worth keeping: the next run simply begins."""
    out = tmp_path / "clean.tif"
    rest = tmp_path / "clean.tif.partial"
    (rest / "image").mkdir(parents=True)
    (rest / "image" / "clean.tif").write_text("half laid out")
    (rest / "lock").write_text("")
    with PartialOutput({"image": out}) as part:
        assert not part.begun and part.finished == set()
        assert not part.path("image").exists()
        begin(part)
        part.finish()
    assert files(tmp_path) == ["clean.tif"]


@pytest.mark.parametrize("journal", [None, "0 0"])
def test_run_that_was_killed_before_its_first_block_does_not_bind_the_next(
    tmp_path: Path, journal: str | None
) -> None:
    out = tmp_path / "clean.tif"
    interrupt(out, blocks=1)
    finished = tmp_path / "clean.tif.partial" / "finished"
    finished.unlink()
    if journal is not None:
        finished.write_text(journal)  # its line was cut short
    with PartialOutput({"image": out}) as part:
        assert not part.begun
        assert not part.path("image").exists()
        begin(part, "other")
        part.finish()
    assert out.read_text() == "other image"
    assert files(tmp_path) == ["clean.tif"]


def test_looking_at_an_interrupted_run_changes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "clean.tif"
    assert not PartialOutput({"image": out}).look()
    interrupt(out)
    journal = tmp_path / "clean.tif.partial" / "finished"
    with open(journal, "a") as file:
        file.write("0 0 2 3a")  # another run may be writing it at this moment
    text = journal.read_text()
    part = PartialOutput({"image": out})
    assert part.look()
    assert part.finished == {(0, 0, 0), (0, 0, 1)} and part.plan == PLAN
    assert journal.read_text() == text


def test_interrupted_run_remembers_blocks_and_plan(tmp_path: Path) -> None:
    out = tmp_path / "clean.tif"
    interrupt(out)
    assert not out.exists()
    with PartialOutput({"image": out}) as part:
        assert part.begun and not part.complete
        assert part.finished == {(0, 0, 0), (0, 0, 1)}
        assert part.plan == PLAN
        assert part.path("image").read_text() == "new image"
        part.check(REQUEST)
        part.mark(BlockKey(1, 0, 0))
        part.finish()
    assert out.read_text() == "new image"
    assert files(tmp_path) == ["clean.tif"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tile": 32}, "tile was 64, is now 32"),
        ({"units": 2}, "units was not given, is now 2"),
        ({"intensity": None}, "intensity was 0,255, is now not given"),
        ({"input image": "d" * 64}, "the input image has changed"),
    ],
)
def test_resume_with_other_settings_says_what_differs(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    out = tmp_path / "clean.tif"
    interrupt(out)
    with (
        pytest.raises(ValueError, match="--restart") as refusal,
        PartialOutput({"image": out}) as part,
    ):
        part.check({**REQUEST, **change})
    assert said in str(refusal.value)
    with PartialOutput({"image": out}) as part:
        assert len(part.finished) == 2, "a refusal must not cost the finished blocks"


def test_restart_begins_anew(tmp_path: Path) -> None:
    out = tmp_path / "clean.tif"
    interrupt(out)
    with PartialOutput({"image": out}, restart=True) as part:
        assert not part.begun
        assert part.finished == set()
        assert not part.path("image").exists()
    assert list(tmp_path.iterdir()) == []


def test_restart_that_is_refused_keeps_the_blocks(tmp_path: Path) -> None:
    out = tmp_path / "clean.tif"
    interrupt(out)
    out.write_text("finished before")
    with pytest.raises(FileExistsError), PartialOutput({"image": out}, restart=True):
        pass
    with PartialOutput({"image": out}, overwrite=True) as part:
        assert len(part.finished) == 2


def test_existing_output_needs_overwrite_and_stays_until_the_new_one_is_whole(
    tmp_path: Path,
) -> None:
    out = tmp_path / "clean.tif"
    out.write_text("old")
    with pytest.raises(FileExistsError, match="--overwrite"):
        run(out)
    assert [path.name for path in tmp_path.iterdir()] == ["clean.tif"]
    interrupt(out, overwrite=True)
    assert out.read_text() == "old"
    run(out, overwrite=True)
    assert out.read_text() == "new image"
    assert files(tmp_path) == ["clean.tif"]


def test_link_is_followed(tmp_path: Path) -> None:
    real = tmp_path / "disk" / "real.tif"
    real.parent.mkdir()
    real.write_text("old")
    link = tmp_path / "clean.tif"
    link.symlink_to(real)
    run(link, overwrite=True)
    assert link.is_symlink()
    assert real.read_text() == "new image"


def test_two_runs_into_one_output_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "clean.tif"
    hold = (
        "import sys, pathlib; from nrrn_fiji.outputs.partial import PartialOutput\n"
        "with PartialOutput({'image': pathlib.Path(sys.argv[1])}):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", hold, str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match="Another run"):
            run(out)
        with pytest.raises(BlockingIOError, match="Another run"):
            run(out, restart=True)
        process.kill()
    run(out)  # the lock ended with the process that held it
    assert files(tmp_path) == ["clean.tif"]


def test_a_run_that_ends_does_not_remove_the_lock_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins as soon as the lock is let go."""
    lock, release = tmp_path / "clean.tif.partial" / "lock", outputs.FileLock.release

    def release_to_the_next(self: Any, *given: Any, **more: Any) -> None:
        held = self.is_locked
        release(self, *given, **more)
        if held:
            lock.parent.mkdir()
            lock.write_text("theirs")

    monkeypatch.setattr(outputs.FileLock, "release", release_to_the_next)
    run(tmp_path / "clean.tif")
    monkeypatch.undo()
    assert lock.read_text() == "theirs"


def test_folder_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "clean.tif"
    theirs = tmp_path / "clean.tif.partial"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("years of work")
    for restart in (False, True):
        with pytest.raises(ValueError, match=r"thesis\.txt"):
            run(out, restart=restart)
    assert files(theirs) == ["thesis.txt"]


def test_missing_folder_of_the_output(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist: create it"):
        run(tmp_path / "nowhere" / "clean.tif")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="not a folder"):
        run(tmp_path / "file" / "clean.tif")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk always full")
def test_disk_full_is_said_and_blocks_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "clean.tif"
    with (
        pytest.raises(OSError, match="no space left") as full,
        PartialOutput({"image": out}) as part,
    ):
        begin(part)
        part.mark(BlockKey(0, 0, 0))
        with part.kept_said(), open("/dev/full", "w") as file:
            file.write("x")
    assert full.value.errno == errno.ENOSPC
    assert "1 finished slab is kept in" in str(full.value)
    assert not out.exists()
    with PartialOutput({"image": out}) as part:
        assert part.finished == {(0, 0, 0)}


def test_other_errors_pass_through(tmp_path: Path) -> None:
    with (
        pytest.raises(IsADirectoryError),
        PartialOutput({"image": tmp_path / "clean.tif"}) as part,
        part.kept_said(),
    ):
        (tmp_path).read_text()


def test_too_little_space_is_noticed_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PartialOutput({"image": tmp_path / "clean.tif"}) as part:
        begin(part)
        part.path("image").write_bytes(b"x" * 200_000)
        monkeypatch.setattr(outputs, "free_space", lambda folder: 100_000)
        part.check_space(250_000)  # 200 kB of it are there already
        with pytest.raises(OSError, match=r"only 100\.0 kB are free") as full:
            part.check_space(10_000_000)
    assert full.value.errno == errno.ENOSPC
