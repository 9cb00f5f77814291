"""Sentences in ImageJ's windows: lines that can be read, and not a word changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from nrrn_fiji.fiji.texts import as_in_fiji, exactly, in_lines
from nrrn_fiji.volumes import open_volume

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
    path = "/data/far-away/cells-of-a-fly-denoised.tif"
    assert exactly(f"About 4 min for 24 slices, into {path}", 50, 2).splitlines()[1] == path


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "Choose another name or add --overwrite.",
            "Choose another name or add the option overwrite.",
        ),
        ("drop it with --restart (restart=True).", "drop it with the option restart."),
        ("--noise (noise_out) is where", "the option noise_out is where"),
        ("--units-out is where", "the option units_out is where"),
        ("--noise-level is another one", "--noise-level is another one"),
        ('give --z-axis C (z_axis="C").', "give the option z_axis=C."),
        ("give --z-axis or nothing", "give the option z_axis or nothing"),
    ],
)
def test_options_have_the_names_of_fiji(said: str, expected: str) -> None:
    assert as_in_fiji(said) == expected


def test_slices_that_were_saved_as_times_are_told_in_the_words_of_fiji(tmp_path: Path) -> None:
    file = tmp_path / "times.tif"
    tifffile.imwrite(file, np.zeros((4, 8, 8), np.uint8), imagej=True, metadata={"axes": "TYX"})
    with open_volume(file) as volume:
        (note,) = volume.notes
    assert as_in_fiji(note).endswith("If they are slices in depth, give the option z_axis=T.")
