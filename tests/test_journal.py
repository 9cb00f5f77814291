"""The record of an interrupted run: damaged lines and records, and what other processes ask it."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from output_runs import PLAN, REQUEST, begin, files, interrupt, run

from nrrn_fiji import hiccups
from nrrn_fiji.hiccups import SourceLostError
from nrrn_fiji.outputs.journal import JOURNAL, STATE, Journal, is_wanted
from nrrn_fiji.outputs.partial import BlockKey, PartialOutput


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


def test_record_is_readable(tmp_path: Path) -> None:
    interrupt(tmp_path / "clean.tif")
    state = json.loads((tmp_path / "clean.tif.partial" / "state.json").read_text())
    assert state["request"] == {**REQUEST, "intensity": [0, 255]}
    assert state["plan"] == PLAN


@pytest.fixture
def under_way(tmp_path: Path) -> Journal:
    """The record of a run with one finished block, as its writer has it."""
    journal = Journal(tmp_path)
    journal.begin(REQUEST, PLAN)
    journal.mark(BlockKey(0, 0, 0))
    return journal


def test_others_learn_which_blocks_a_run_waits_for(under_way: Journal) -> None:
    name = under_way.begun()["run"]
    assert is_wanted(under_way.folder, name, BlockKey(0, 0, 1))
    assert not is_wanted(under_way.folder, name, BlockKey(0, 0, 0)), "it is finished"
    assert not is_wanted(under_way.folder, "another", BlockKey(0, 0, 1))
    under_way.end({"image": "…"})
    assert not is_wanted(under_way.folder, name, BlockKey(0, 0, 1)), "the run is over"
    under_way.clear()
    assert not is_wanted(under_way.folder, name, BlockKey(0, 0, 1)), "its record is gone"


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE, errno.EIO])
@pytest.mark.parametrize("name", [STATE, JOURNAL])
def test_a_record_that_is_out_of_reach_for_a_moment_is_read_again(
    under_way: Journal, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    """Windows refuses a file that is being replaced, NFS one that was replaced by another host."""
    read, fails = Path.read_text, [True, True]

    def read_later(self: Path, **more: Any) -> str:
        if self.name == name and fails:
            fails.pop()
            raise OSError(number, os.strerror(number), str(self))
        return read(self, **more)

    monkeypatch.setattr(hiccups, "WAITS", (0.001, 0.001))
    monkeypatch.setattr(Path, "read_text", read_later)
    run = under_way.begun()["run"]
    assert is_wanted(under_way.folder, run, BlockKey(0, 0, 1))
    assert not fails
    fails += [True] * 3
    with pytest.raises(SourceLostError, match=r"cannot be read any more .*tried 3 times"):
        is_wanted(under_way.folder, run, BlockKey(0, 0, 1))
