"""Plain ImageJ is fetched whole, or it is said why not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from nrrn_fiji.fiji import maven


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
    jars = maven.fetch_imagej()
    assert asked == [False, True]
    assert {jar.name for jar in jars} == {f"{name}.jar" for name in names}


def test_no_network_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import jgo

    def build(endpoint: str, update: bool) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(jgo, "build", build)
    with pytest.raises(ConnectionError, match=r"Maven Central \(no route to host\).*--fiji DIR"):
        maven.fetch_imagej()
