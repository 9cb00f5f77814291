"""The version that ``nrrn --version`` and support requests tell."""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import nrrn_fiji
from nrrn_fiji import version

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    """Forget what earlier tests were told."""
    version.commit.cache_clear()
    yield
    version.commit.cache_clear()


def git(folder: Path, *words: str) -> str:
    """What git answers."""
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    done = subprocess.run(
        ["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one commit, in which the package lies."""
    folder = tmp_path / "checkout"
    (folder / "nrrn_fiji").mkdir(parents=True)
    (folder / "file").write_text("1")
    git(folder, "init", "-q")
    git(folder, "add", "file")
    git(folder, "commit", "-q", "-m", "One")
    monkeypatch.setattr(version, "PACKAGE", folder / "nrrn_fiji")
    return folder


def test_a_checkout_tells_its_commit_and_whether_files_differ(checkout: Path) -> None:
    hashed = git(checkout, "rev-parse", "HEAD")
    known = version.commit()
    assert known is not None and len(known) >= 10 and hashed.startswith(known)
    assert version.full_version() == f"{nrrn_fiji.__version__} (commit {known})"
    (checkout / "file").write_text("2")
    version.commit.cache_clear()
    assert version.commit() == f"{known}-dirty"


def test_an_installed_package_tells_what_was_recorded(checkout: Path) -> None:
    (checkout / "nrrn_fiji" / "_data").mkdir()
    (checkout / "nrrn_fiji" / "_data" / "commit.txt").write_text("0123456789\n")
    assert version.commit() == "0123456789"


def test_without_git_or_a_checkout_the_number_stands_alone(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        assert version.full_version() == nrrn_fiji.__version__
    version.commit.cache_clear()
    monkeypatch.setattr(version, "PACKAGE", tmp_path / "site-packages" / "nrrn_fiji")
    assert version.full_version() == nrrn_fiji.__version__


def test_a_wheel_records_the_commit_by_way_of_the_source_archive_too(tmp_path: Path) -> None:
    from hatchling.builders.sdist import SdistBuilder
    from hatchling.builders.wheel import WheelBuilder

    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    expected = version.commit()
    (archive,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    subprocess.run(["tar", "xzf", archive], cwd=tmp_path, check=True)
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    (wheel,) = WheelBuilder(str(unpacked)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as content:
        recorded = content.read("nrrn_fiji/_data/commit.txt").decode().strip()
    assert recorded.removesuffix("-dirty") == str(expected).removesuffix("-dirty")
