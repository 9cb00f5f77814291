"""The original ImageJ 1.54p from Maven Central, for machines without a Fiji.

It is fetched the first time and then lies in a cache.  This module must never be asked where a
Fiji folder is there: that needs no network.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import appdirs
from filelock import FileLock, Timeout

__all__ = ["ENDPOINTS", "cached_imagej", "fetch_imagej"]

SECONDS_FOR_A_FETCH = 600.0

# The original ImageJ and what its patched headless mode needs.  parsington is pinned because the
# version that ij's parent asks for lacks a class that scijava-common needs.
ENDPOINTS = (
    "net.imagej:ij:1.54p",
    "org.scijava:scijava-common:2.99.0",
    "org.scijava:parsington:3.1.0",
    "org.javassist:javassist:3.30.2-GA",
    "net.imagej:ij1-patcher:2.0.0",
)
ENDPOINT = "+".join(ENDPOINTS)
NAMES = tuple("{1}-{2}.jar".format(*endpoint.split(":")) for endpoint in ENDPOINTS)


def fetch_imagej() -> list[Path]:
    """Return the jars of the original ImageJ 1.54p, fetched from Maven Central the first time.

    Later calls answer from a folder of our own and need no network.  (jgo empties its folder and
    fills it anew whenever it is asked, also while another process starts from there.)

    Raises
    ------
    ConnectionError
        If they are not in the cache and Maven Central cannot be reached.
    """
    own = _own_folder()
    if _is_whole(own):
        return _jars_in(own)
    with _alone_with_the_cache() as may_write:
        if _is_whole(own):  # another process was quicker
            return _jars_in(own)
        jars = _jars_of_jgo()
        if not may_write:
            return jars
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=own.parent) as work:
            fresh = Path(work) / "jars"
            fresh.mkdir()
            for jar in jars:
                shutil.copyfile(jar, fresh / jar.name)
            shutil.rmtree(own, ignore_errors=True)
            fresh.replace(own)
    return _jars_in(own)


def cached_imagej() -> bool:
    """Whether plain ImageJ was fetched before, so that it starts without a network."""
    return _is_whole(_own_folder())


def _cache() -> Path:
    return Path(appdirs.user_cache_dir("nrrn-fiji", appauthor=False))


def _own_folder() -> Path:
    """Return the folder of the jars; another one for other versions of them."""
    return _cache() / f"imagej-{hashlib.sha256(ENDPOINT.encode()).hexdigest()[:8]}"


def _jars_in(*folders: Path) -> list[Path]:
    return sorted(jar for folder in folders for jar in folder.glob("*.jar"))


def _is_whole(*folders: Path) -> bool:
    """Whether folders hold all the jars that are wanted."""
    jars = _jars_in(*folders)
    return {jar.name for jar in jars} >= set(NAMES) and all(jar.stat().st_size for jar in jars)


def _jars_of_jgo() -> list[Path]:
    """Let jgo fetch the jars, or find them in its cache.

    Raises
    ------
    ConnectionError
        If it does not.
    """
    import jgo

    try:
        for update in (False, True):  # a cache that an interrupted fetch left is fetched again
            environment = jgo.build(ENDPOINT, update=update)
            folders = (environment.jars_dir, environment.modules_dir)
            if _is_whole(*folders):
                return _jars_in(*folders)
    except Exception as error:  # jgo and requests raise many kinds; the cause is kept
        raise ConnectionError(
            f"ImageJ 1.54p could not be fetched from Maven Central ({error}). Connect this "
            "computer to the Internet once, or name the folder of a Fiji (--fiji DIR), which "
            "needs no network."
        ) from error
    raise ConnectionError(
        f"Maven Central gave no complete ImageJ 1.54p (wanted {', '.join(NAMES)}). Try again, or "
        "name the folder of a Fiji (--fiji DIR), which needs no network."
    )


@contextmanager
def _alone_with_the_cache() -> Iterator[bool]:
    """Let one process at a time fill the cache; false where a home cannot be written to."""
    lock = FileLock(_cache() / "imagej.lock", timeout=SECONDS_FOR_A_FETCH)
    try:
        _cache().mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
