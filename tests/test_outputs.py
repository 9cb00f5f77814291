"""A run's output is whole or absent, never mixed, and an interrupted run can be continued."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nrrn_fiji.outputs import partial as outputs
from nrrn_fiji.outputs.partial import BlockKey, PartialOutput, check_distinct, readable_size

REQUEST = {"input image": "abc", "model": "net 1f", "tile": 64, "intensity": (0, 255)}
PLAN = {"tile": 64, "precision": "fp32"}


def begin(part: PartialOutput, text: str = "new", kinds: tuple[str, ...] = ("image",)) -> None:
    """Do what a run does: create its files, record itself."""
    part.make_folders()
    for kind in kinds:
        part.path(kind).write_text(f"{text} {kind}")
    part.begin(REQUEST, PLAN)


def run(out: Path, *, blocks: int = 2, stop: bool = False, **options: Any) -> None:
    """A whole run, or one that is interrupted after its blocks."""
    with PartialOutput({"image": out}, **options) as part:
        begin(part)
        for number in range(blocks):
            part.mark(BlockKey(0, 0, number))
        if stop:
            raise KeyboardInterrupt
        part.finish()


def interrupt(out: Path, **options: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(out, stop=True, **options)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


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


def test_line_cut_short_by_a_crash_does_not_count(tmp_path: Path) -> None:
    out = tmp_path / "clean.tif"
    interrupt(out)
    journal = tmp_path / "clean.tif.partial" / "finished"
    with open(journal, "a") as file:
        file.write("0 0 1")  # of "0 0 12\n"
    with PartialOutput({"image": out}) as part:
        assert part.finished == {(0, 0, 0), (0, 0, 1)}
        part.mark(BlockKey(0, 0, 7))
    with PartialOutput({"image": out}) as part:
        assert part.finished == {(0, 0, 0), (0, 0, 1), (0, 0, 7)}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"format_version": 99}',
        b"[1, 2]",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        None,
    ],
)
def test_damaged_record_is_refused_and_kept(tmp_path: Path, content: bytes | None) -> None:
    out = tmp_path / "clean.tif"
    interrupt(out)
    damaged = tmp_path / "clean.tif.partial" / "state.json"
    if content is None:  # one digit is not what was written
        content = damaged.read_bytes().replace(b'"tile": 64', b'"tile": 65', 1)
    damaged.write_bytes(content)
    with pytest.raises(ValueError, match="--restart"):
        run(out)
    assert damaged.read_bytes() == content
    run(out, restart=True)
    assert files(tmp_path) == ["clean.tif"]


@pytest.mark.parametrize("damage", [b"1 2\n", b"\xff\xff\n", b"0 0 1 00000000\n", b"0 0 9 %s\n"])
def test_damaged_line_costs_its_block_alone(tmp_path: Path, damage: bytes) -> None:
    """Nothing counts as finished by the mistake of a disk."""
    out = tmp_path / "clean.tif"
    interrupt(out, blocks=3)
    journal = tmp_path / "clean.tif.partial" / "finished"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[1] = damage.replace(b"%s", lines[1].split()[-1])
    journal.write_bytes(b"".join(lines))
    with PartialOutput({"image": out}) as part:
        assert part.finished == {(0, 0, 0), (0, 0, 2)}
        part.mark(BlockKey(0, 0, 1))
    with PartialOutput({"image": out}) as part:
        assert part.finished == {(0, 0, 0), (0, 0, 1), (0, 0, 2)}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk always full")
def test_disk_full_at_the_first_record_does_not_bind_the_next_run(tmp_path: Path) -> None:
    out = tmp_path / "clean.tif"
    with pytest.raises(OSError, match="No space left"), PartialOutput({"image": out}) as part:
        (tmp_path / "clean.tif.partial" / "state.json.new").symlink_to("/dev/full")
        begin(part)
    assert list(tmp_path.iterdir()) == []
    run(out)
    assert files(tmp_path) == ["clean.tif"]


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


def test_all_outputs_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends between two renames is completed by the next one."""
    targets = {"image": tmp_path / "clean.tif", "noise": tmp_path / "noise.tif"}
    rename = outputs.rename

    def ends_after_one(source: Path, target: Path) -> None:
        rename(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(outputs, "rename", ends_after_one)
    with pytest.raises(KeyboardInterrupt), PartialOutput(targets) as part:
        begin(part, kinds=("image", "noise"))
        part.mark(BlockKey(0, 0, 0))
        part.finish()
    monkeypatch.undo()
    assert not (tmp_path / "clean.tif").exists(), "the image must come last: it says all is whole"
    with PartialOutput(targets) as part:
        assert part.complete
        part.check(REQUEST)
        part.finish()
    assert files(tmp_path) == ["clean.tif", "noise.tif"]
    assert (tmp_path / "noise.tif").read_text() == "new noise"


@pytest.fixture
def untidy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An output whose run ended right after its last rename."""
    out = tmp_path / "clean.tif"
    rename = outputs.rename

    def ends(source: Path, target: Path) -> None:
        rename(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(outputs, "rename", ends)
    with pytest.raises(KeyboardInterrupt):
        run(out)
    monkeypatch.undo()
    return out


def again(out: Path, request: dict[str, Any], **options: Any) -> bool:
    """The same command, or another one; whether all was done already."""
    with PartialOutput({"image": out}, **options) as part:
        if part.goes_on(request):
            assert part.moved and part.complete and len(part.finished) == 2
            part.finish()
            return True
        begin(part, "newer")
        part.finish()
        return False


def test_end_between_last_rename_and_tidying_up(untidy: Path, tmp_path: Path) -> None:
    """The same command finds its result whole, and has only to tidy up."""
    assert untidy.exists() and (tmp_path / "clean.tif.partial").exists()
    look = PartialOutput({"image": untidy})
    assert look.look() and look.moved
    assert again(untidy, REQUEST)
    assert untidy.read_text() == "new image"
    assert files(tmp_path) == ["clean.tif"]
    with pytest.raises(FileExistsError, match="exists already"):
        again(untidy, REQUEST)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_whole_output_of_another_request_is_not_ours(
    untidy: Path, tmp_path: Path, overwrite: bool
) -> None:
    other = REQUEST | {"tile": 96}
    if overwrite:
        assert not again(untidy, other, overwrite=True)
    else:
        with pytest.raises(FileExistsError, match="exists already"):
            again(untidy, other)
    assert untidy.read_text() == ("newer image" if overwrite else "new image")
    assert files(tmp_path) == ["clean.tif"]


def test_an_output_that_was_changed_since_is_not_ours(untidy: Path, tmp_path: Path) -> None:
    before = untidy.stat()
    untidy.write_text("old image")  # as long as what was written
    os.utime(untidy, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))
    assert not PartialOutput({"image": untidy}).look()
    with pytest.raises(FileExistsError, match="exists already"):
        again(untidy, REQUEST)
    assert untidy.read_text() == "old image"
    untidy.unlink()
    assert not again(untidy, REQUEST)
    assert untidy.read_text() == "newer image"


def test_a_new_output_replaces_one_of_the_same_size_and_time(tmp_path: Path) -> None:
    """Disks that count time in seconds cannot tell the outputs of two short runs apart."""
    out = tmp_path / "clean.tif"
    with PartialOutput({"image": out}, overwrite=True) as part:
        begin(part)
        part.mark(BlockKey(0, 0, 0))
        out.write_text("old image")
        time = part.path("image").stat().st_mtime_ns
        os.utime(out, ns=(time, time))
        part.finish()
    assert out.read_text() == "new image"


def test_end_in_the_middle_of_tidying_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is the last to go: it is what says that the output is whole."""
    out, removed = tmp_path / "clean.tif", []

    def ends(path: Path) -> None:
        removed.append(path.name)
        if out.exists() and path.name == outputs.SHARED:
            raise KeyboardInterrupt

    monkeypatch.setattr(outputs, "remove", ends)
    with pytest.raises(KeyboardInterrupt):
        run(out)
    monkeypatch.undo()
    assert removed and again(out, REQUEST)
    assert files(tmp_path) == ["clean.tif"]


def test_output_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "clean.tif"
    with pytest.raises(FileExistsError), PartialOutput({"image": out}) as part:
        begin(part)
        part.mark(BlockKey(0, 0, 0))
        out.write_text("theirs")
        part.finish()
    assert out.read_text() == "theirs"
    with PartialOutput({"image": out}, overwrite=True) as part:
        part.finish()
    assert out.read_text() == "new image"


def folder_run(out: Path, **options: Any) -> None:
    with PartialOutput({"image": out}, **options) as part:
        part.make_folders()
        part.path("image").mkdir()
        for number in range(3):
            (part.path("image") / f"{number}.tif").write_text("new")
        part.begin(REQUEST, PLAN)
        part.mark(BlockKey(0, 0, 0))
        part.finish()


def test_folder_output(tmp_path: Path) -> None:
    out = tmp_path / "clean"
    out.mkdir()
    folder_run(out)  # an empty folder has nothing to lose
    assert files(out) == ["0.tif", "1.tif", "2.tif"]
    with pytest.raises(FileExistsError):
        folder_run(out)
    (out / "0.tif").write_text("old")
    (out / "1.tif").unlink()
    folder_run(out, overwrite=True)
    assert files(tmp_path) == [os.path.join("clean", f"{number}.tif") for number in range(3)]
    assert (out / "0.tif").read_text() == "new"


def test_overwrite_never_deletes_other_files_of_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "clean"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"thesis\.txt") as refusal:
        folder_run(out, overwrite=True)
    assert "stays in" not in str(refusal.value), "nothing was computed yet"
    assert files(tmp_path) == [os.path.join("clean", "thesis.txt")], "refused before the work"
    with pytest.raises(FileExistsError, match="is a folder"):
        run(out, overwrite=True)
    assert files(out) == ["thesis.txt"]


def test_output_on_another_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renaming does not work from one disk to another; the result must still appear at once."""
    other = tmp_path / "other"
    other.mkdir()
    replace = os.replace

    def one_disk_only(source: Path, target: Path) -> None:
        if (other in Path(source).parents) != (other in Path(target).parents):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        replace(source, target)

    monkeypatch.setattr(os, "replace", one_disk_only)
    targets = {"image": tmp_path / "clean.tif", "noise": other / "noise.tif"}
    with PartialOutput(targets) as part:
        begin(part, kinds=("image", "noise"))
        part.finish()
    assert (other / "noise.tif").read_text() == "new noise"
    assert files(tmp_path) == ["clean.tif", os.path.join("other", "noise.tif")]


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
    assert "1 finished block is kept in" in str(full.value)
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


def test_record_is_readable(tmp_path: Path) -> None:
    interrupt(tmp_path / "clean.tif")
    state = json.loads((tmp_path / "clean.tif.partial" / "state.json").read_text())
    assert state["request"] == {**REQUEST, "intensity": [0, 255]}
    assert state["plan"] == PLAN


def test_output_equal_to_input_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "raw.tif"
    source.write_text("raw")
    link = tmp_path / "link.tif"
    link.symlink_to(source)
    hard = tmp_path / "hard.tif"
    hard.hardlink_to(source)
    for out in (source, link, hard, tmp_path / "." / "raw.tif"):
        with pytest.raises(ValueError, match="also the input"):
            check_distinct([source], {"out": out})
    check_distinct([source], {"out": tmp_path / "clean.tif", "noise_out": tmp_path / "noise.tif"})


def test_output_in_or_around_the_input_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "1.tif").write_text("raw")
    with pytest.raises(ValueError, match="taken for a slice"):
        check_distinct([folder], {"out": folder / "clean.tif"})
    with pytest.raises(ValueError, match="the folder that the input"):
        check_distinct([folder / "1.tif"], {"out": folder})


def test_outputs_need_different_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="noise_out and out are both"):
        check_distinct([], {"out": tmp_path / "a.tif", "noise_out": tmp_path / "a.tif"})


@pytest.mark.parametrize(
    ("size", "text"),
    [(999, "999 bytes"), (1000, "1.0 kB"), (2_500_000, "2.5 MB"), (7 * 10**12, "7.0 TB")],
)
def test_readable_size(size: int, text: str) -> None:
    assert readable_size(size) == text
