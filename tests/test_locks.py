"""A lock keeps a second run out, and is gone with its own, on systems of either kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nrrn_fiji.outputs import locks
from nrrn_fiji.outputs.locks import locked


def test_a_second_run_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    lock = tmp_path / "mine.lock"
    with locked(lock, "first"):
        with pytest.raises(FileExistsError, match="wait for it"), locked(lock, "wait for it"):
            pytest.fail("two runs have the same lock")
        assert lock.exists()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError), locked(lock, "second"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_cannot_be_removed_while_it_is_open_goes_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows; the result of the run must not be lost for it."""
    lock, is_open = tmp_path / "mine.lock", True
    release, unlink = locks.FileLock.release, Path.unlink

    def close(self: Any, *given: Any, **more: Any) -> None:
        nonlocal is_open
        release(self, *given, **more)
        is_open = False

    def unlink_closed(self: Path, missing_ok: bool = False) -> None:
        if is_open:
            raise PermissionError(13, "in use", str(self))
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(locks.FileLock, "release", close)
    monkeypatch.setattr(Path, "unlink", unlink_closed)
    with locked(lock, "first"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_the_next_run_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins as soon as the lock is let go."""
    lock, release = tmp_path / "mine.lock", locks.FileLock.release

    def release_to_the_next(self: Any, *given: Any, **more: Any) -> None:
        held = self.is_locked
        release(self, *given, **more)
        if held:
            lock.write_text("theirs")

    monkeypatch.setattr(locks.FileLock, "release", release_to_the_next)
    with locked(lock, "first"):
        pass
    monkeypatch.undo()
    assert lock.read_text() == "theirs"
