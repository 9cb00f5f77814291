"""What is refused before anything is computed: outputs in the place of inputs or of each other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nrrn_fiji.outputs.checks import checked_output
from nrrn_fiji.outputs.partial import check_distinct, readable_size


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


def test_outputs_do_not_lie_in_each_other(tmp_path: Path) -> None:
    image = tmp_path / "clean.zarr"
    image.mkdir()
    outputs = {"out": image, "--noise": tmp_path / "clean.zarr" / "noise.tif"}
    with pytest.raises(ValueError, match=r"--noise is .* which lies in .* which is out"):
        check_distinct([], outputs)
    check_distinct([], {**outputs, "--noise": tmp_path / "clean.zarr.tif"})


def test_outputs_need_different_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="noise_out and out are both"):
        check_distinct([], {"out": tmp_path / "a.tif", "noise_out": tmp_path / "a.tif"})


@pytest.mark.parametrize(
    ("size", "text"),
    [(999, "999 bytes"), (1000, "1.0 kB"), (2_500_000, "2.5 MB"), (7 * 10**12, "7.0 TB")],
)
def test_readable_size(size: int, text: str) -> None:
    assert readable_size(size) == text


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_a_small_output_is_refused_before_any_work_where_it_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system is asked; here it answers as it does to all but root."""
    asked = []

    def access(path: Path, mode: int) -> bool:
        asked.append(Path(path))
        return False

    monkeypatch.setattr(os, "access", access)
    with pytest.raises(PermissionError, match="cannot be written to: choose another"):
        checked_output(tmp_path / "table.csv", [], (".csv",), overwrite=False)
    assert asked == [tmp_path]
