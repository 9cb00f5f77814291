"""Names of results, and files that are whole or not there."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from nrrn_fiji import files
from nrrn_fiji.files import beside


def test_the_examples_hold() -> None:
    assert doctest.testmod(files).failed == 0


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("stack.tif", "stack-x.tif"),
        ("a.b/stack.2.TIFF", "a.b/stack.2-x.TIFF"),
        ("s.OME.TIF", "s-x.OME.TIF"),
        ("v.ome.zarr", "v-x.ome.zarr"),
        ("v.zarr/", "v-x.zarr"),
        ("one.png", "one-x.tif"),
        ("slices", "slices-x"),
        ("a/s_[0-9]*.tif", "a-x"),
        ("/data/slices/", "/data/slices-x"),
        ("a/cells.h5:/raw/0", "a/cells-x.h5"),
        ("v.ome.zarr:/1", "v-x.ome.zarr"),
        ("tomo.rec", "tomo-x.mrc"),
    ],
)
def test_a_result_lies_beside_its_source(source: str, expected: str) -> None:
    assert str(beside(Path(source), "-x")) == expected


def test_what_is_read_gets_a_name_that_is_written() -> None:
    from nrrn_fiji.formats.table import FORMATS, format_of_output, split_inside

    for kind in FORMATS:
        for suffix in kind.reads:
            for name in (f"a{suffix}", f"a{suffix}:/b") if kind.inside else (f"a{suffix}",):
                result = beside(Path(name), "-x")
                assert format_of_output(result).name in (kind.name, "TIFF")
                assert result.stem == f"{Path(split_inside(name)[0]).stem}-x"


def test_a_folder_has_no_suffix_and_the_present_folder_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run.2024"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for source in (folder, Path("."), Path("*.tif")):
        assert beside(source, "-x") == tmp_path / "run.2024-x"


def test_a_file_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_whole(path, b"old")
    with pytest.raises(TypeError):
        files.write_whole(path, "no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["stack [2].tif", "cell*.tif", "why?.tif"])
def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    try:
        source.touch()
    except OSError:
        pytest.skip("this system has no such names")
    assert beside(source, "-x") == tmp_path / f"{source.stem}-x.tif"
