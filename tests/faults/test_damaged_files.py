"""Damaged files: whatever is in them, a reader reads or says in a sentence why it does not.

Files of every kind that is read are cut short and changed, in places where readers look (headers,
tables, lengths) more often than elsewhere, by numbers that break readers (0, −1, 2³¹, 10¹²).
A reader must not crash, hang, ask for memory that the file is too small to fill, or let another
error through than a ValueError, TypeError or OSError with a sentence.

``NRRN_TEST_EXAMPLES=20000 pytest tests/faults/test_damaged_files.py`` looks longer.
"""

from __future__ import annotations

import io
import json
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import imageio.v3 as imageio
import mrcfile
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain_engine import FIXTURE, strong_network

if os.name != "posix":
    pytest.skip("needs fork and limits of memory", allow_module_level=True)

from readers import SETTINGS, Reader, read_tree, training_settings, write_tree

from nrrn_fiji import training
from nrrn_fiji.api import denoise_file
from nrrn_fiji.models import save_model
from nrrn_fiji.progress import Cancelled, NoProgress
from nrrn_fiji.volumes import create_volume, open_volume

ASKED = os.environ.get("NRRN_TEST_EXAMPLES")
LOOK = settings(
    max_examples=int(ASKED or 25),
    derandomize=ASKED is None,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

STACK = np.random.default_rng(0).integers(0, 200, (4, 12, 10)).astype(np.uint8)


@dataclass(frozen=True)
class Seed:
    """Whole files, of which one will be damaged."""

    reader: str
    opened: str
    files: dict[str, bytes]
    damaged: tuple[str, ...]
    """Which of them may be."""


# --- whole files --------------------------------------------------------------------------------


def tiff(folder: Path, name: str, stack: Any = STACK, **options: Any) -> None:
    options.setdefault("photometric", "minisblack")
    tifffile.imwrite(folder / name, stack, **options)


def make_tiffs(folder: Path) -> None:
    labels = {"Labels": ["a", "b", "c", "d"], "Info": "A stack.\n", "Ranges": (0.0, 255.0)}
    said = {"axes": "ZYX", "spacing": 4.0, "unit": "nm", **labels}
    tiff(folder, "imagej.tif", imagej=True, resolution=(0.25, 0.25), metadata=said)
    five = STACK.reshape(2, 2, 1, 12, 10)
    tiff(folder, "hyper.tif", five, imagej=True, metadata={"axes": "TZCYX"})
    physical = {"axes": "ZYX", "PhysicalSizeX": 4.0, "PhysicalSizeXUnit": "nm"}
    tiff(folder, "some.ome.tif", ome=True, metadata=physical)
    tiff(folder, "big.tif", bigtiff=True)
    tiff(folder, "big-endian.tif", STACK.astype(np.uint16), byteorder=">", metadata=None)
    for kind in ("zlib", "lzw", "packbits", "zstd", "jpeg", "jpeg2000", "lzma"):
        tiff(folder, f"{kind}.tif", compression=kind, metadata=None)
    tiff(folder, "predictor.tif", compression="zlib", predictor=True)
    wide = np.tile(STACK, (1, 3, 4))
    tiff(folder, "tiles.tif", wide, tile=(16, 16), compression="zlib")
    tiff(folder, "float.tif", STACK.astype(np.float32))
    tiff(folder, "palette.tif", photometric="palette", colormap=np.zeros((3, 256), np.uint16))


def make_pictures(folder: Path) -> None:
    for name in ("grey.png", "grey.bmp", "grey.jpg"):
        imageio.imwrite(folder / name, STACK[0])
    imageio.imwrite(folder / "deep.png", STACK[0].astype(np.uint16) * 200)
    imageio.imwrite(folder / "colour.png", np.repeat(STACK[0, ..., None], 4, axis=2) | 255)


def make_like(folder: Path, *names: str) -> None:
    """Write the stack in further formats by the package itself."""
    tiff(folder.parent, "like.tif")
    with open_volume(folder.parent / "like.tif") as like:
        for name in names:
            with create_volume(folder / name, like, provenance={"a": 1}) as writer:
                writer.write(0, STACK)
                writer.finish(NoProgress())


def make_hdf5(folder: Path) -> None:
    make_like(folder, "own.h5")
    for name, options in {
        "packed.h5": {"chunks": (2, 6, 5), "compression": "gzip"},
        "plain.h5": {},
        "newest.h5": {"chunks": (1, 12, 10)},
    }.items():
        with h5py.File(folder / name, "w", libver="latest" if name[0] == "n" else None) as file:
            data = file.create_dataset("volumes/raw", data=STACK, **options)
            data.attrs["element_size_um"] = (0.1, 0.2, 0.3)


def make_mrc(folder: Path) -> None:
    make_like(folder, "own.mrc")
    with mrcfile.new(folder / "other.mrc", STACK.astype(np.int16)) as file:
        file.voxel_size = 4.0


def make_zarr(folder: Path) -> None:
    make_like(folder, "own.zarr")
    zarr = pytest.importorskip("zarr")
    plain = zarr.create_array(
        str(folder / "two.zarr"), shape=STACK.shape, dtype="u1", chunks=(2, 12, 10), zarr_format=2
    )
    plain[:] = STACK


def make_models(folder: Path) -> None:
    card = {"description": "A model.", "intensity": [0, 255], "training": {"steps": 5}}
    save_model(folder / "net.safetensors", strong_network(1, 4), card)


def make_published(folder: Path) -> None:
    state = torch.load(FIXTURE.with_suffix(".pth"), weights_only=True)
    torch.save(state, folder / "zip.pth")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)


def make_package(folder: Path) -> None:
    model = folder.parent / "net.safetensors"
    save_model(model, strong_network(1, 4), {})
    with zipfile.ZipFile(folder / "net.zip", "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("rdf.yaml", "name: net")
        package.write(model, "net.safetensors")


def make_checkpoint(folder: Path) -> None:
    network = strong_network(1, 4).requires_grad_(True)
    optimiser = torch.optim.Adam(network.parameters())
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    history = training.History([0.5], [0.1], [(1, 0.25)], 1.0)
    training.save_checkpoint(
        folder / "net.checkpoint.safetensors",
        network,
        network,
        optimiser,
        training_settings(),
        {"training data": "x"},
        history,
        {name: value.detach() for name, value in network.state_dict().items()},
    )


class StopsAtTwo(NoProgress):
    """Stops a run in its middle."""

    def __init__(self) -> None:
        self.done = 0.0

    def update(self, done: float, total: float, text: str = "") -> None:
        self.done = done

    @property
    def cancelled(self) -> bool:  # type: ignore[override]
        return self.done >= 2


def make_run(folder: Path) -> None:
    tiff(folder, "raw.tif")
    model = folder / "net.safetensors"
    save_model(model, strong_network(1, 4), {})
    with pytest.raises(Cancelled):
        denoise_file(
            folder / "raw.tif", folder / "clean.tif", model, SETTINGS, progress=StopsAtTwo()
        )


MAKERS = {
    "TIFF": (make_tiffs, "image"),
    "pictures": (make_pictures, "image"),
    "HDF5": (make_hdf5, "image"),
    "MRC": (make_mrc, "image"),
    "OME-Zarr": (make_zarr, "image"),
    "models": (make_models, "model"),
    "published checkpoints": (make_published, "published"),
    "packages": (make_package, "package"),
    "checkpoints of a training": (make_checkpoint, "checkpoint"),
}


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Seed]]:
    """Whole files by kind."""
    made = {}
    for kind, (make, reader) in MAKERS.items():
        folder = tmp_path_factory.mktemp("whole") / "files"
        folder.mkdir()
        make(folder)
        made[kind] = []
        for path in sorted(folder.iterdir()):
            files = {path.name: path.read_bytes()} if path.is_file() else {}
            if path.is_dir():
                files = {f"{path.name}/{name}": data for name, data in read_tree(path).items()}
            made[kind].append(Seed(reader, path.name, files, tuple(files)))
    return made


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """The process that reads."""
    reader = Reader(tmp_path_factory.mktemp("reader"))
    yield reader
    reader.end()


# --- damage -------------------------------------------------------------------------------------

NUMBERS = [
    0,
    1,
    2,
    255,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    10**12,
    2**63 - 1,
    2**64 - 1,
]
WORDS = [
    b"null",
    b"-1",
    b"1e999",
    b"1000000000000",
    b'""',
    b"[]",
    b"{}",
    b"true",
    b"[[[[[[",
    b"\xff",
]


@dataclass(frozen=True)
class Change:
    """One thing that happens to a file."""

    how: str
    where: float
    size: int
    number: int
    word: bytes

    def applied(self, data: bytes) -> bytes:
        """Return the file after it."""
        at = self.place(len(data))
        if self.how == "cut short":
            return data[:at]
        if self.how == "number":
            code = "<>"[self.size % 2] + "BHIQ"[self.size // 2 % 4]
            raw = struct.pack(code, self.number % 256 ** struct.calcsize(code))
            return data[:at] + raw + data[at + len(raw) :]
        if self.how == "leave out":
            return data[:at] + data[at + self.size :]
        if self.how == "twice":
            return data[: at + self.size] + data[at:]
        if self.how == "bit" and data:
            at = min(at, len(data) - 1)
            return data[:at] + bytes([data[at] ^ 1 << self.size % 8]) + data[at + 1 :]
        if self.how == "value":  # of JSON or XML
            found = list(re.finditer(rb'"[^"]{0,40}"|-?\d+(\.\d+)?|true|false|null', data[:65536]))
            if found:
                span = found[int(self.where % 1 * len(found))].span()
                return data[: span[0]] + self.word + data[span[1] :]
        return data

    def place(self, length: int) -> int:
        """Most often near the beginning or the end, where headers and tables are."""
        third, rest = divmod(self.where * 3, 1)
        span = min(length, 512)
        if third == 0:
            return int(rest * span)
        if third == 1:
            return length - span + int(rest * span)
        return int(rest * length)


CHANGES = st.lists(
    st.builds(
        Change,
        st.sampled_from(["number", "number", "value", "bit", "cut short", "leave out", "twice"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 64),
        st.sampled_from(NUMBERS),
        st.sampled_from(WORDS),
    ),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize("kind", MAKERS)
def test_damaged_files_are_read_or_refused_in_a_sentence(
    kind: str, seeds: dict[str, list[Seed]], reader: Reader, tmp_path: Path
) -> None:
    wholes = seeds[kind]
    for whole in wholes:
        write_tree(tmp_path / "in", whole.files)
        assert reader.read(whole.reader, tmp_path / "in" / whole.opened) == "read", whole.opened
    answers: set[str] = set()

    @LOOK
    @given(
        which=st.integers(0, len(wholes) - 1), file=st.floats(0, 1, exclude_max=True), how=CHANGES
    )
    def look(which: int, file: float, how: list[Change]) -> None:
        whole = wholes[which]
        name = whole.damaged[int(file * len(whole.damaged))]
        data = whole.files[name]
        for change in how:
            data = change.applied(data)
        write_tree(tmp_path / "in", {**whole.files, name: data})
        answer = reader.read(whole.reader, tmp_path / "in" / whole.opened)
        answers.add(answer.split(":")[0])
        assert not answer.startswith("wrong"), f"{whole.opened}, {name}: {answer}"

    look()
    assert "refused" in answers, "no damage was noticed: this test tests nothing"


# --- damage that chance does not find -------------------------------------------------------------


def with_header(card: Any, tensors: dict[str, Any], data: bytes = b"") -> bytes:
    """A model file with this header."""
    header = {"__metadata__": {"nrrn.card": card}, **tensors}
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def pickled(state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def published() -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(FIXTURE.with_suffix(".pth"), weights_only=True)
    return state


def zipped(**entries: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in entries.items():
            package.writestr(name.replace("_", "."), content)
    return buffer.getvalue()


def huge_png(edge: int) -> bytes:
    """A PNG that announces so many rows and columns, in less than a kilobyte."""
    data = imageio.imwrite("<bytes>", STACK[0], extension=".png")
    head = data[12:16] + struct.pack(">II", edge, edge) + data[24:29]
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


def huge_tiff(compression: str, edge: int) -> bytes:
    """A TIFF that announces so many rows and columns, in less than a kilobyte."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, STACK[0], compression=compression, photometric="minisblack")
    data = buffer.getvalue()
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        tags = tif.pages.first.tags
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tag = tags[name]
            code = "<H" if tag.dtype == 3 else "<I"
            entry = tag.offset
            # As four bytes, whatever it was.
            data = data[: entry + 2] + struct.pack("<HII", 4, 1, edge) + data[entry + 12 :]
            assert struct.calcsize(code) <= 4
    return data


def bomb_of_xml() -> bytes:
    """OME-XML that grows to 10^9 letters when its entities are put in."""
    lines = "".join(
        f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' if i else '<!ENTITY a0 "boom">' for i in range(9)
    )
    xml = f"<!DOCTYPE OME [{lines}]><OME><Image ID='&a8;'/></OME>"
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer, STACK, description=xml.encode(), metadata=None, photometric="minisblack"
    )
    return buffer.getvalue()


def cycle_of_directories() -> bytes:
    """A TIFF whose second directory says that the first comes next."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, STACK[:2], metadata=None, photometric="minisblack", contiguous=False)
    data = bytearray(buffer.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        first, second = (page.offset for page in tif.pages)
    (count,) = struct.unpack_from("<H", data, second)
    struct.pack_into("<I", data, second + 2 + 12 * count, first)
    return bytes(data)


DEEP = "[" * 100_000
ONE = torch.zeros(1)
KNOWN = {
    "header nested too deeply": (
        "model",
        "a.safetensors",
        lambda: struct.pack("<Q", len(DEEP)) + DEEP.encode(),
    ),
    "card nested too deeply": ("model", "a.safetensors", lambda: with_header(DEEP, {})),
    "as many maps as no computer has": (
        "model",
        "a.safetensors",
        lambda: with_header(
            '{"format_version": 1}',
            {
                "W1.weight": {"dtype": "F32", "shape": [2**40, 0, 3, 3], "data_offsets": [0, 0]},
                "BU.0.Vr.weight": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]},
            },
        ),
    ),
    "weights of a type that cannot be tested": (
        "model",
        "a.safetensors",
        lambda: with_header(
            '{"format_version": 1}',
            {
                "W1.weight": {"dtype": "F8_E4M3", "shape": [4, 1], "data_offsets": [0, 4]},
                "BU.0.Vr.weight": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [4, 5]},
            },
            bytes(5),
        ),
    ),
    "header longer than the file": (
        "model",
        "a.safetensors",
        lambda: struct.pack("<Q", 2**62) + b"{}",
    ),
    "weights that repeat one number": (
        "published",
        "a.pth",
        lambda: pickled({key: ONE.expand(10**6, 10**6) for key in published()}),
    ),
    "weights without numbers": (
        "published",
        "a.pth",
        lambda: pickled({key: value.to("meta") for key, value in published().items()}),
    ),
    "weights that are sparse": (
        "published",
        "a.pth",
        lambda: pickled({key: value.to_sparse() for key, value in published().items()}),
    ),
    "code among the weights": ("published", "a.pth", lambda: pickled({"a": pytest.fail})),
    "archive of zeros": (
        "package",
        "a.zip",
        lambda: zipped(rdf_yaml=b"a", net_safetensors=bytes(10**7)),
    ),
    "archive with a broken stream": (
        "package",
        "a.zip",
        lambda: zipped(rdf_yaml=b"a", net_safetensors=os.urandom(5000)).replace(
            b"\x00" * 4, b"\xff" * 4
        ),
    ),
    "slices of 10^12 pixels": ("image", "a.tif", lambda: huge_tiff("zlib", 10**6)),
    "slices of 10^9 pixels": ("image", "a.tif", lambda: huge_tiff("zstd", 30_000)),
    "pictures of 10^12 pixels": ("image", "a.png", lambda: huge_png(10**6)),
    "pictures of 10^9 pixels": ("image", "a.png", lambda: huge_png(30_000)),
    "letters that multiply": ("image", "a.tif", bomb_of_xml),
    "directories in a circle": ("image", "a.tif", cycle_of_directories),
}


@pytest.mark.parametrize("name", KNOWN)
def test_damage_that_was_thought_of(name: str, reader: Reader, tmp_path: Path) -> None:
    kind, file, make = KNOWN[name]
    write_tree(tmp_path / "in", {file: make()})
    answer = reader.read(kind, tmp_path / "in" / file)
    if name == "letters that multiply":  # which the parser of XML refuses, and pixels need not
        assert not answer.startswith("wrong"), answer
    else:
        assert answer.startswith("refused"), answer


@pytest.mark.parametrize("damage", ["state", "line", "plan", "pixels cut off", "no pixels"])
def test_damaged_record_of_a_run(damage: str, reader: Reader, tmp_path: Path) -> None:
    """Nothing of a run that was interrupted is believed without its checksum."""
    folder = tmp_path / "run"
    folder.mkdir()
    make_run(folder)
    denoise_file(folder / "raw.tif", folder / "expected.tif", folder / "net.safetensors", SETTINGS)
    partial = folder / "clean.tif.partial"
    state, journal = partial / "state.json", partial / "finished"
    text = state.read_text()
    if damage == "state":
        state.write_text(text[: len(text) // 2])
    elif damage == "plan":
        state.write_text(text.replace('"tile": 32', '"tile": -1'))
    elif damage == "line":
        journal.write_text(journal.read_text().replace("0 0 0", "0 0 3"))
    elif damage == "pixels cut off":
        os.truncate(partial / "image" / "clean.tif", 300)
    else:
        (partial / "image" / "clean.tif").unlink()
    answer = reader.read("record", folder)
    assert answer == "read" if damage == "line" else answer.startswith("refused"), answer
