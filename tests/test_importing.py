"""Models from the web are taken by their hash alone, whole or not at all; no package is run."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

import nrrn_fiji as nrrn
from nrrn_fiji.cli import main
from nrrn_fiji.exchange.importing import take_in
from nrrn_fiji.models import Model, load_model, save_model
from nrrn_fiji.network import NRRN


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, cuts some short, and keeps quiet."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Serve a file; what is called cut ends half-way."""
        if "cut" not in self.path:
            super().do_GET()
            return
        content = (Path(self.directory) / self.path.lstrip("/")).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.close_connection = True


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """The folder that the server serves."""
    folder = tmp_path / "published"
    folder.mkdir()
    return folder


@pytest.fixture
def server(published: Path) -> Iterator[str]:
    """The address of a server on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=published)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def model(published: Path) -> Model:
    torch.manual_seed(2)
    return save_model(published / "theirs.safetensors", NRRN(1, 4), {"description": "Theirs."})


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_model_is_fetched_by_its_hash(
    server: str, published: Path, model: Model, user_models: Path
) -> None:
    known = sha256(published / "theirs.safetensors")
    url = f"{server}/theirs.safetensors"
    assert main(["models", "fetch", url, "--sha256", known.upper()]) == 0
    fetched = load_model("theirs")
    assert (fetched.hash, fetched.card) == (model.hash, model.card)
    with pytest.raises(FileExistsError, match="--overwrite"):
        nrrn.fetch_model(url, sha256=f"sha256:{known}")
    words = ["models", "import", url, "--sha256", known, "--name", "other"]
    assert main(words) == 0
    assert sorted(path.name for path in user_models.iterdir()) == [
        "other.safetensors",
        "theirs.safetensors",
    ]


def test_without_a_hash_nothing_is_fetched(
    server: str, model: Model, user_models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("fetch", "import"):
        assert main(["models", command, f"{server}/theirs.safetensors"]) == 1
        said = " ".join(capsys.readouterr().err.split())
        assert "never trusted without its hash" in said
        assert "--sha256 HASH" in said
    assert not user_models.exists()


@pytest.mark.parametrize(
    ("file", "known", "error", "message"),
    [
        ("theirs.safetensors", "0" * 64, ValueError, "does not have the SHA-256"),
        ("theirs.safetensors", "abc", ValueError, "64 hexadecimal digits"),
        ("none.safetensors", "0" * 64, ConnectionError, "the server answered 404"),
        ("cut.safetensors", "", (ConnectionError, ValueError), "othing was kept"),
        ("theirs.exe", "0" * 64, ValueError, r"\.safetensors.*file"),
    ],
)
def test_what_is_not_as_promised_is_not_kept(
    server: str,
    published: Path,
    model: Model,
    user_models: Path,
    file: str,
    known: str,
    error: Any,
    message: str,
) -> None:
    (published / "cut.safetensors").write_bytes((published / "theirs.safetensors").read_bytes())
    known = known or sha256(published / "theirs.safetensors")
    with pytest.raises(error, match=message):
        nrrn.fetch_model(f"{server}/{file}", sha256=known)
    assert not user_models.exists()


def test_a_server_that_is_not_there_is_told(user_models: Path) -> None:
    with pytest.raises(ConnectionError, match="could not be reached"):
        nrrn.fetch_model("http://127.0.0.1:9/a.safetensors", sha256="0" * 64)


@pytest.mark.parametrize("url", ["ftp://a.org/a.safetensors", "file:///a.safetensors"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="http or https"):
        nrrn.fetch_model(url, sha256="0" * 64)


def test_a_file_at_hand_can_be_checked_too(published: Path, model: Model) -> None:
    path = published / "theirs.safetensors"
    with pytest.raises(ValueError, match="has the SHA-256"):
        take_in(path, sha256="0" * 64)
    assert take_in(path, sha256=sha256(path)).hash == model.hash


def packed(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/"), content)
    return path


def test_a_fetched_package_is_unpacked(server: str, published: Path, model: Model) -> None:
    content = (published / "theirs.safetensors").read_bytes()
    files = {"rdf.yaml": b"type: model", "theirs.safetensors": content}
    path = packed(published / "package.zip", **files)
    fetched = nrrn.fetch_model(f"{server}/package.zip", sha256=sha256(path))
    assert (fetched.name, fetched.hash) == ("theirs", model.hash)


def test_an_archive_cannot_write_elsewhere(tmp_path: Path, model: Model) -> None:
    assert model.path is not None
    path = packed(tmp_path / "p.zip", **{"..__..__up.safetensors": model.path.read_bytes()})
    assert take_in(path).name == "up"
    assert not list(tmp_path.parent.glob("up.safetensors"))


def test_what_macos_puts_beside_a_model_is_no_model(tmp_path: Path, model: Model) -> None:
    assert model.path is not None
    content = {"rdf.yaml": b"type: model", "mine.safetensors": model.path.read_bytes()}
    folder = tmp_path / "package"
    folder.mkdir()
    for name, data in {**content, "._mine.safetensors": b"resources"}.items():
        (folder / name).write_bytes(data)
    assert take_in(folder, "first").hash == model.hash
    hidden = {"MACOSX__._mine.safetensors": b"resources"}
    path = packed(tmp_path / "package.zip", **content, **hidden)
    assert take_in(path, "second").hash == model.hash


def test_packages_of_others_are_refused(tmp_path: Path) -> None:
    for files, message in (
        ({"rdf.yaml": b"", "weights.pt": b""}, "no model file of ours"),
        ({"a.safetensors": b"", "b.safetensors": b""}, "2 model files"),
        ({"a.safetensors": b"no"}, "not a model file"),
    ):
        with pytest.raises(ValueError, match=message):
            take_in(packed(tmp_path / "p.zip", **files))
    (tmp_path / "p.zip").write_bytes(b"PK but no zip")
    with pytest.raises(ValueError, match="not a zip file"):
        take_in(tmp_path / "p.zip")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"no bioimage\.io package"):
        take_in(tmp_path / "folder")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        take_in(tmp_path / "none.zip")


def test_a_card_is_completed(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(model.path)
    words = ["models", "describe", path, "--material", "mouse cortex", "--microscope", "FIB-SEM"]
    assert main([*words, "--voxel-size", "8,4,4"]) == 0
    changed = load_model(path)
    assert (changed.hash, changed.card["description"]) == (model.hash, "Theirs.")
    assert (changed.card["voxel_size"], changed.card["voxel_unit"]) == ([8, 4, 4], "nm")
    capsys.readouterr()
    assert main(["models", "show", path]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[2:4] == [
        "For: mouse cortex, FIB-SEM",
        "Its voxels were 4 × 4 nm in slices 8 nm apart.",
    ]
    for wrong in (["--voxel-size", "8,4"], ["--voxel-size", "0"], []):
        assert main(["models", "describe", path, *wrong]) == 1
    assert main(["models", "describe", nrrn.models.DEFAULT_MODEL, "--material", "x"]) == 1


def test_models_show_says_when_units_belong_together(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command, told in (
        ("nrrn train a.tif -o b.safetensors --fine-tune c --units 5", True),
        ("nrrn train a.tif -o b.safetensors --units 5", False),
        ("nrrn train a.tif -o b.safetensors --fine-tune c", False),
    ):
        card = {"training": {"command": "nrrn train x.tif", "before": {"command": command}}}
        path = save_model(published / "grown.safetensors", NRRN(2, 4), card).path
        assert main(["models", "show", str(path)]) == 0
        assert ("all its units only" in capsys.readouterr().out) == told
