"""Take in models from wherever they come: files, bioimage.io packages, and addresses on the web.

A file from the web is believed only if its hash is the one that was asked for, and is under its
name whole or not at all.  From a package only our own model file is taken: this module must never
run code that came with a model, nor read more of an archive than a model can be large.

Source: https://www.fatiando.org/pooch (downloads with known hashes).
"""

from __future__ import annotations

import logging
import re
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from ..hiccups import out_of_reach
from ..models import CHECKPOINT_SUFFIXES, SUFFIX, Model, install_model

__all__ = ["PACKAGE_SUFFIXES", "fetch_model", "take_in"]

PACKAGE_SUFFIXES = (".zip",)
DESCRIPTIONS = ("rdf.yaml", "bioimageio.yaml")
LARGEST_MODEL = 2**30
"""Bytes; the paper's largest network has 5 MB."""
SHA256 = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")
TIMEOUT = 30
"""Seconds without an answer."""


def take_in(
    source: str | Path,
    name: str | None = None,
    *,
    sha256: str | None = None,
    overwrite: bool = False,
) -> Model:
    """Install a model from a file, a package or an address.

    Parameters
    ----------
    source
        A ``.safetensors`` model, a published checkpoint (``.pth``), a bioimage.io package (zip
        file, folder or its ``rdf.yaml``) that ``nrrn models export`` wrote, or an http(s) address
        of one of these files.
    name
        The name to give it; that of the file when left out.
    sha256
        Hash of the file; needed for an address, and checked for a file if given.
    overwrite
        Replace an installed model of that name.

    Raises
    ------
    FileExistsError
        If the name is taken.
    FileNotFoundError, ValueError, ConnectionError
        If there is no model in the source, it cannot be had, or its hash is another one.
    """
    if is_address(source):
        return fetch_model(str(source), sha256=sha256, name=name, overwrite=overwrite)
    path = Path(source).expanduser()
    if sha256 is not None:
        check_hash(path, sha256)
    if path.name in DESCRIPTIONS and path.is_file():
        path = path.parent
    if path.is_dir():
        return install_model(model_in_folder(path), name, overwrite)
    if path.suffix.lower() in PACKAGE_SUFFIXES and path.is_file():
        with model_in_archive(path) as file:
            try:
                return install_model(file, name, overwrite)
            except ValueError as error:  # of a file that nobody knows by its passing name
                raise ValueError(str(error).replace(str(file), f"{path}/{file.name}")) from error
    return install_model(path, name, overwrite)


def fetch_model(
    url: str, *, sha256: str | None, name: str | None = None, overwrite: bool = False
) -> Model:
    """Download a model whose hash is known, and install it.

    Parameters
    ----------
    url
        http(s) address of a ``.safetensors``, ``.pth`` or ``.zip`` file.
    sha256
        SHA-256 of the file, 64 hexadecimal digits.
    name, overwrite
        As for :func:`take_in`.

    Raises
    ------
    ValueError
        If the hash is missing, malformed or another one, or the file is no model.
    FileExistsError
        If the name is taken.
    ConnectionError
        If the file cannot be had; nothing is kept.
    """
    file_name = PurePosixPath(unquote(urlsplit(url).path)).name
    suffixes = (SUFFIX, *CHECKPOINT_SUFFIXES, *PACKAGE_SUFFIXES)
    if not is_address(url) or Path(file_name).suffix.lower() not in suffixes:
        raise ValueError(
            f"url is {url!r}, but it must be the http or https address of a {', '.join(suffixes)} "
            "file: give the address of the file itself."
        )
    if sha256 is None:
        raise ValueError(
            f"sha256 is missing, and a file from the web is never trusted without its hash. Take "
            f"the hash from where {file_name} is published; if you have the file and trust it, "
            f"`sha256sum {file_name}` (Windows: certutil -hashfile {file_name} SHA256) prints it. "
            f"Then give: nrrn models fetch {url} --sha256 HASH"
        )
    known = digits(sha256)
    with tempfile.TemporaryDirectory(prefix="nrrn-") as folder:
        path = download(url, known, Path(folder), file_name)
        return take_in(path, name, overwrite=overwrite)


def is_address(source: str | Path) -> bool:
    """Whether a source is an address on the web rather than a path."""
    # A Path has lost one of the two slashes.
    return re.match(r"https?:/", str(source), re.IGNORECASE) is not None


def digits(sha256: str) -> str:
    """Return the hexadecimal digits of a hash, in lower case."""
    match = SHA256.fullmatch(sha256.strip())
    if match is None:
        raise ValueError(
            f"sha256 is {sha256!r}, but a SHA-256 has 64 hexadecimal digits: copy all of it."
        )
    return match[1].lower()


def check_hash(path: Path, sha256: str) -> None:
    """Refuse a file that has another hash."""
    import pooch

    known = digits(sha256)
    found = pooch.file_hash(str(path), alg="sha256") if path.is_file() else None
    if found is not None and found != known:
        raise ValueError(
            f"{path} has the SHA-256 {found}, not {known}: it is damaged or another file, so get "
            "it again."
        )


def download(url: str, known: str, folder: Path, file_name: str) -> Path:
    """Return the downloaded file, if it has the hash that is known."""
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.ERROR)  # what went wrong is said below
    try:
        return Path(
            pooch.retrieve(
                url,
                known_hash=f"sha256:{known}",
                fname=file_name,
                path=folder,
                downloader=pooch.HTTPDownloader(timeout=TIMEOUT),
            )
        )
    except requests.RequestException as error:
        status = error.response.status_code if error.response is not None else None
        why = f"the server answered {status}" if status else "the server could not be reached"
        raise ConnectionError(
            f"{url} could not be downloaded: {why}. Check the address and the network; nothing "
            "was kept."
        ) from error
    except ValueError as error:
        raise ValueError(
            f"The file at {url} does not have the SHA-256 {known}: it was replaced, or damaged on "
            "the way. Nothing was kept; ask whoever published the hash."
        ) from error


def model_in_folder(folder: Path) -> Path:
    """Return the model file in the folder of a package."""
    if not any((folder / name).is_file() for name in DESCRIPTIONS):
        raise ValueError(
            f"{folder} is a folder without {' or '.join(DESCRIPTIONS)}, so no bioimage.io package: "
            "give a model file, or the folder of a package."
        )
    return the_model([file for file in sorted(folder.iterdir()) if is_model(file)], folder)


@contextmanager
def model_in_archive(archive: Path) -> Iterator[Path]:
    """Unpack the model file of a package for a while."""
    try:
        with zipfile.ZipFile(archive) as packed:
            held = [(Path(PurePosixPath(info.filename).name), info) for info in packed.infolist()]
            models = [(file, info) for file, info in held if is_model(file)]
            chosen = the_model([file for file, _ in models], archive)
            info = models[0][1]
            if info.file_size > LARGEST_MODEL:
                raise ValueError(
                    f"{archive} holds {chosen} of {info.file_size} bytes, but no model is that "
                    "large: get the package again."
                )
            content = packed.read(info)  # never more than the size it gives
    except Exception as error:  # whatever goes wrong inside a reader of foreign bytes
        if str(archive) in str(error) or out_of_reach(error):
            raise
        raise ValueError(
            f"{archive} is not a zip file, is damaged or locked by a password: get it again."
        ) from error
    with tempfile.TemporaryDirectory(prefix="nrrn-") as folder:
        file = Path(folder) / chosen
        file.write_bytes(content)
        yield file


def is_model(file: Path) -> bool:
    """Whether a file is called as a model is; macOS puts hidden ones of the same name beside."""
    return file.suffix == SUFFIX and not file.name.startswith(".")


def the_model(found: list[Path], package: Path) -> Path:
    """Return the one model file of a package, or say why there is none."""
    if len(found) != 1:
        held = "no model file of ours" if not found else f"{len(found)} model files"
        raise ValueError(
            f"{package} holds {held} ({SUFFIX}), but packages that nrrn can use hold one: export "
            "it with `nrrn models export NAME --bioimageio`, or give the model file itself."
        )
    return found[0]
