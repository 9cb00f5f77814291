"""The original ImageJ 1.54p from Maven Central, for machines without a Fiji.

It is fetched the first time and then lies in a cache.  This module must never be asked where a
Fiji folder is there: that needs no network.
"""

from __future__ import annotations

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


def fetch_imagej() -> list[Path]:
    """Return the jars of the original ImageJ 1.54p, fetched from Maven Central the first time.

    Later calls answer from the cache (``~/.cache/jgo``) and need no network.

    Raises
    ------
    ConnectionError
        If they are not in the cache and Maven Central cannot be reached.
    """
    import jgo

    endpoint = "+".join(ENDPOINTS)
    names = [f"{artifact}-{version}.jar" for _, artifact, version in map(_coordinate, ENDPOINTS)]
    try:
        with _alone_with_the_cache():
            for update in (False, True):  # a cache that an interrupted fetch left is fetched again
                environment = jgo.build(endpoint, update=update)
                folders = (environment.jars_dir, environment.modules_dir)
                jars = sorted(jar for folder in folders for jar in folder.glob("*.jar"))
                there = {jar.name for jar in jars} >= set(names)
                if there and all(jar.stat().st_size for jar in jars):
                    return jars
    except Exception as error:  # jgo and requests raise many kinds; the cause is kept
        raise ConnectionError(
            f"ImageJ 1.54p could not be fetched from Maven Central ({error}). Connect this "
            "computer to the Internet once, or name the folder of a Fiji (--fiji DIR), which "
            "needs no network."
        ) from error
    raise ConnectionError(
        f"Maven Central gave no complete ImageJ 1.54p (wanted {', '.join(names)}). Try again, or "
        "name the folder of a Fiji (--fiji DIR), which needs no network."
    )


@contextmanager
def _alone_with_the_cache() -> Iterator[None]:
    """Let one process at a time fill the cache: filling it takes out what others start with."""
    folder = Path(appdirs.user_cache_dir("nrrn-fiji", appauthor=False))
    lock = FileLock(folder / "imagej.lock", timeout=SECONDS_FOR_A_FETCH)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise
    except OSError:  # a home that cannot be written to: then nobody fills the cache either
        yield
        return
    try:
        yield
    finally:
        lock.release()


def cached_imagej() -> bool:
    """Whether plain ImageJ was fetched before, so that it starts without a network."""
    from jgo.config import GlobalSettings

    group, artifact, version = _coordinate(ENDPOINTS[0])
    folder = GlobalSettings.load().cache_dir / "envs" / Path(*group.split(".")) / artifact
    return any(folder.glob(f"*/*/{artifact}-{version}.jar"))


def _coordinate(endpoint: str) -> tuple[str, str, str]:
    group, artifact, version = endpoint.split(":")
    return group, artifact, version
