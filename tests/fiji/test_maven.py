"""Plain ImageJ is fetched whole, or it is said why not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from nrrn_fiji.fiji import maven


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache that holds nothing."""
    folder = tmp_path / "cache" / "nrrn-fiji"
    monkeypatch.setattr(maven, "_cache", lambda: folder)
    return folder


def test_a_fetch_that_was_cut_off_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jgo

    names = [":".join(endpoint.split(":")[1:]).replace(":", "-") for endpoint in maven.ENDPOINTS]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder, present in ((whole, names), (cut, names[:2])):
        folder.mkdir()
        for name in present:
            (folder / f"{name}.jar").write_bytes(b"PK")
    asked = []

    def build(endpoint: str, update: bool) -> SimpleNamespace:
        asked.append(update)
        return SimpleNamespace(jars_dir=whole if update else cut, modules_dir=tmp_path / "none")

    monkeypatch.setattr(jgo, "build", build)
    assert not maven.cached_imagej()
    jars = maven.fetch_imagej()
    assert asked == [False, True]
    assert {jar.name for jar in jars} == {f"{name}.jar" for name in names}
    assert maven.cached_imagej()
    for jar in whole.iterdir():  # as jgo does whenever it is asked
        jar.unlink()
    assert all(jar.read_bytes() == b"PK" for jar in jars)
    assert maven.fetch_imagej() == jars
    assert asked == [False, True]  # nothing more


def test_a_home_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import jgo

    (tmp_path / "file").touch()
    monkeypatch.setattr(maven, "_cache", lambda: tmp_path / "file" / "nrrn-fiji")
    there = tmp_path / "there"
    there.mkdir()
    for name in maven.NAMES:
        (there / name).write_bytes(b"PK")
    environment = SimpleNamespace(jars_dir=there, modules_dir=tmp_path / "none")
    monkeypatch.setattr(jgo, "build", lambda endpoint, update: environment)
    assert {jar.parent for jar in maven.fetch_imagej()} == {there}
    assert not maven.cached_imagej()


def test_no_network_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import jgo

    def build(endpoint: str, update: bool) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(jgo, "build", build)
    with pytest.raises(ConnectionError, match=r"Maven Central \(no route to host\).*--fiji DIR"):
        maven.fetch_imagej()
