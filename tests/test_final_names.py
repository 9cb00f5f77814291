"""Outputs get their final names together and whole, wherever a run ends meanwhile."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from output_runs import PLAN, REQUEST, begin, files, run

import nrrn_fiji.files
from nrrn_fiji.outputs import partial as outputs
from nrrn_fiji.outputs.partial import BlockKey, PartialOutput


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


@pytest.mark.parametrize("overwrite", [True, False])
def test_end_before_the_first_rename_on_a_disk_with_a_coarse_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    """An older result of the same size and time must not be taken for the new one."""
    out = tmp_path / "clean.tif"

    def ends(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(outputs, "rename", ends)
    with (
        pytest.raises(KeyboardInterrupt),
        PartialOutput({"image": out}, overwrite=True) as part,
    ):
        begin(part)
        for number in range(2):
            part.mark(BlockKey(0, 0, number))
        out.write_text("old image")
        time = part.path("image").stat().st_mtime_ns
        os.utime(out, ns=(time, time))
        part.finish()
    monkeypatch.undo()
    look = PartialOutput({"image": out})
    assert look.look() and not look.moved and list(look.waiting) == ["image"]
    if not overwrite:
        with pytest.raises(FileExistsError, match="exists already"), PartialOutput({"image": out}):
            pass
        assert out.read_text() == "old image"
    with PartialOutput({"image": out}, overwrite=True) as part:
        assert part.goes_on(REQUEST) and part.complete and not part.moved
        part.finish()
    assert out.read_text() == "new image"
    assert files(tmp_path) == ["clean.tif"]


def test_end_of_a_copy_to_another_disk_before_its_source_was_removed(
    untidy: Path, tmp_path: Path
) -> None:
    unfinished = tmp_path / "clean.tif.partial" / "image" / "clean.tif"
    shutil.copy2(untidy, unfinished)
    assert again(untidy, REQUEST)
    assert files(tmp_path) == ["clean.tif"]


def test_a_name_that_somebody_reads_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows does not rename what another process has open."""
    replace, refused = os.replace, []

    def replace_later(source: Path, target: Path) -> None:
        if len(refused) % 3 < 2:
            refused.append(target)
            raise PermissionError(errno.EACCES, "in use")
        refused.append(None)
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_later)
    monkeypatch.setattr(nrrn_fiji.files, "WAITS_FOR_READERS", (0.001, 0.001))
    with pytest.raises(PermissionError):
        run(tmp_path / "clean.tif")
    refused.clear()
    monkeypatch.setattr(nrrn_fiji.files, "READERS_HOLD_NAMES", True)
    run(tmp_path / "clean.tif")
    assert refused.count(None) == 3  # the record twice, and the image
    assert files(tmp_path) == ["clean.tif"]


@pytest.mark.parametrize("folder", [True, False])
def test_a_folder_never_takes_the_place_of_a_file_nor_the_reverse(
    tmp_path: Path, folder: bool
) -> None:
    """Also with overwrite, and before anything is computed."""
    out = tmp_path / "clean"
    if folder:
        out.mkdir()
        (out / "0.tif").write_text("old")
    else:
        out.write_text("old")
    said = "is a folder, but the output is a file" if folder else "is a file, but the output is a"
    with (
        pytest.raises(FileExistsError, match=said),
        PartialOutput({"image": out}, overwrite=True) as part,
    ):
        part.make_folders()
        if folder:
            part.path("image").write_text("new")
        else:
            part.path("image").mkdir()
        part.begin(REQUEST, PLAN)
    assert files(tmp_path) == ([os.path.join("clean", "0.tif")] if folder else ["clean"])
