"""Sentences in ImageJ's windows: lines that can be read, and not a word changed."""

from __future__ import annotations

from nrrn_fiji.fiji.texts import exactly, in_lines

SENTENCE = "Denoise: " + "the voxels of this stack are far from those that were learnt from, " * 3


def test_no_line_is_longer_and_no_word_is_lost() -> None:
    broken = in_lines(SENTENCE, 50, indent="    ")
    lines = broken.splitlines()
    assert len(lines) > 3
    assert max(map(len, lines)) <= 50
    assert not lines[0].startswith(" ")
    assert all(line.startswith("    ") for line in lines[1:])
    assert broken.split() == SENTENCE.split()


def test_a_path_stays_whole_and_lines_stay_lines() -> None:
    path = "/home/somebody/" + "far-away/" * 12 + "stack.tif"
    assert in_lines(f"There is no file {path}: check it.", 40).splitlines()[1] == f"{path}:"
    assert in_lines("one\n\ntwo", 40) == "one\n\ntwo"
    row = "  NRRN, 3 images      23.01      26.37"
    assert in_lines(row, 20) == row
    assert in_lines("  two words", 9, indent="  ") == "  two\n    words"


def test_a_note_has_as_many_lines_as_there_is_room_for() -> None:
    assert exactly("short", 20, 2) == "short\n "
    cut = exactly(SENTENCE, 20, 2).splitlines()
    assert len(cut) == 2
    assert cut[1].endswith("…")
