"""Model files: what goes in comes out, and what is no model is refused with a sentence."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import nrrn_fiji
from nrrn_fiji import models
from nrrn_fiji.network import NRRN


@pytest.fixture
def network() -> NRRN:
    torch.manual_seed(5)
    return NRRN(units=2, maps=8)


@pytest.fixture
def file(tmp_path: Path, network: NRRN) -> Path:
    path = tmp_path / "mine.safetensors"
    models.save_model(path, network, {"description": "A test.", "intensity": (10, 200.5)})
    return path


def rewrite(path: Path, card: Any = None, **changes: Any) -> None:
    """Write the file again with another card (a text, or None for none) or other tensors."""
    state = {**NRRN(units=2, maps=8).state_dict(), **changes}
    state = {name: tensor for name, tensor in state.items() if tensor is not None}
    if card is None:
        save_file(state, path)
    else:
        save_file(state, path, {"nrrn.card": card if isinstance(card, str) else json.dumps(card)})


CARD = {"format_version": 1, "architecture": {"units": 2, "maps": 8, "edge": False}}


# What goes in comes out ----------------------------------------------------------------------


@pytest.mark.parametrize(("units", "maps", "edge"), [(1, 3, False), (5, 8, False), (2, 16, True)])
def test_a_saved_model_computes_the_same(tmp_path: Path, units: int, maps: int, edge: bool) -> None:
    torch.manual_seed(1)
    network = NRRN(units, maps, edge)
    pair = torch.rand(2, 1, 1, 12, 14)
    before = network(*pair)
    models.save_model(tmp_path / "a.safetensors", network, {})
    model = models.load_model(tmp_path / "a.safetensors")
    assert torch.equal(model.network(*pair), before)
    assert (model.units, model.maps, model.edge) == (units, maps, edge)


def test_a_loaded_model_is_ready_to_denoise(file: Path) -> None:
    model = models.load_model(file)
    assert not model.network.training
    assert all(weights.dtype == torch.float32 for weights in model.network.parameters())
    assert not any(weights.requires_grad for weights in model.network.parameters())


def test_the_card_comes_back_completed(file: Path) -> None:
    model = models.load_model(file)
    assert model.card == {
        "description": "A test.",
        "intensity": [10, 200.5],
        "format_version": 1,
        "architecture": {"units": 2, "maps": 8, "edge": False},
        "package_version": nrrn_fiji.__version__,
    }
    assert model.intensity == (10.0, 200.5)
    assert (model.name, model.path) == ("mine", file)


@pytest.mark.parametrize("said", [None, 5, [0], [0, "255"], [0, None], {"low": 0}])
def test_a_grey_range_that_is_none_is_unknown(file: Path, said: Any) -> None:
    """A card is a file's: nothing is believed of it but what has the right form."""
    rewrite(file, {**CARD, "intensity": said})
    assert models.load_model(file).intensity is None


def test_a_card_may_hold_numpy_numbers_paths_and_nan(tmp_path: Path, network: NRRN) -> None:
    card = {
        "loss": [float("nan"), np.float32(0.5), float("inf")],
        "steps": np.int64(7),
        "data": Path("a") / "b.tif",
        "levels": np.array([1, 2]),
        "range": (0, 1),
        4: True,
    }
    model = models.save_model(tmp_path / "a.safetensors", network, card)
    for key, value in {
        "loss": [None, 0.5, None],
        "steps": 7,
        "data": str(Path("a") / "b.tif"),
        "levels": [1, 2],
        "range": [0, 1],
        "4": True,
    }.items():
        assert model.card[key] == value
    with pytest.raises(TypeError, match="JSON"):
        models.save_model(tmp_path / "b.safetensors", network, {"a": object()})
    assert not (tmp_path / "b.safetensors").exists()


def test_the_file_is_read_by_safetensors_alone(file: Path, network: NRRN) -> None:
    from safetensors import safe_open

    with safe_open(file, "np") as opened:
        assert set(opened.keys()) == set(network.state_dict())
        weights = opened.get_tensor("BU.1.Wc.weight")
        assert json.loads(opened.metadata()["nrrn.card"])["format_version"] == 1
    assert weights.dtype == np.float32
    np.testing.assert_array_equal(weights, network.BU[1].Wc.weight.detach().numpy())


def test_the_hash_is_that_of_the_weights_alone(tmp_path: Path, network: NRRN) -> None:
    one = models.save_model(tmp_path / "one.safetensors", network, {"a": 1})
    two = models.save_model(tmp_path / "two.safetensors", network, {"b": 2})
    assert one.hash == two.hash
    assert len(one.hash) == 64
    with torch.no_grad():
        network.W2.bias[0] += 1e-6
    assert models.save_model(tmp_path / "two.safetensors", network, {}).hash != one.hash


def test_the_hash_is_computed_as_documented() -> None:
    import hashlib

    state = {"b": torch.tensor([[1.0, -2.0]]), "a": torch.tensor([0.5], dtype=torch.float16)}
    written = b"a\n(1,)\n" + struct.pack("<f", 0.5) + b"b\n(1, 2)\n" + struct.pack("<ff", 1, -2)
    assert models.weights_hash(state) == hashlib.sha256(written).hexdigest()


def test_half_precision_weights_are_loaded_as_fp32(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    half = {name: tensor.half() for name, tensor in NRRN(2, 8).state_dict().items()}
    save_file(half, path, {"nrrn.card": json.dumps(CARD)})
    model = models.load_model(path)
    assert model.network.W1.weight.dtype == torch.float32
    assert torch.equal(model.network.W1.weight, half["W1.weight"].float())


def test_loading_does_not_shift_the_users_seed(file: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    models.load_model(file)
    assert torch.equal(torch.rand(2), expected)


def test_a_model_is_passed_through(file: Path) -> None:
    model = models.load_model(file)
    assert models.load_model(model) is model


def test_saving_never_leaves_a_part(
    file: Path, network: NRRN, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        models.save_model(file, NRRN(3, 8), {})
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir() if path.is_file()] == [file.name]


# Published checkpoints -----------------------------------------------------------------------


def test_a_published_checkpoint_computes_what_the_published_network_does(data: Path) -> None:
    model = nrrn_fiji.import_checkpoint(data / "published_format_1unit.pth")
    assert (model.units, model.maps, model.edge) == (1, 64, False)
    with np.load(data / "published_format_1unit.npz") as reference:
        x = torch.from_numpy(reference["x"])[:, None, None]
        f = model.network
        centre = (x[0] + x[1]) / 2
        computed = {
            "pair": f(x[0], x[1]),
            "triplet": (f(x[0], x[1]) + f(x[2], x[1])) / 2,
            "two": (f(x[0], centre) + f(x[1], centre)) / 2,
            "one": f(x[0], x[0]),
        }
        for name, result in computed.items():
            np.testing.assert_allclose(result.numpy()[0, 0], reference[name], atol=1e-5, rtol=0)


GATES = {
    "Gate_reset_a": "Vr",
    "Gate_reset_b": "Wr",
    "Gate_update_a": "Vu",
    "Gate_update_b": "Wu",
    "Gates2_a": "Vc",
    "Gates2_b": "Wc",
}


def published(network: NRRN, prefix: str = "") -> dict[str, torch.Tensor]:
    """The network's weights under the authors' names (nrrn.md, "File format")."""
    layers = {"nrrn.conv1": network.W0, "nrrn.conv3": network.W1, "nrrn.conv2": network.W2}
    for i, unit in enumerate(network.BU):
        layers |= {f"nrrn.BU.{i}.{theirs}": getattr(unit, ours) for theirs, ours in GATES.items()}
    state = {}
    for name, layer in layers.items():
        state[f"{prefix}{name}.weight"] = layer.weight.detach()
        state[f"{prefix}{name}.bias"] = layer.bias.detach()
    return state


@pytest.mark.parametrize(("units", "maps"), [(1, 4), (3, 6), (12, 2)])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_checkpoints_of_any_size_are_imported(
    tmp_path: Path, units: int, maps: int, prefix: str
) -> None:
    network = NRRN(units, maps)
    torch.save(published(network, prefix), tmp_path / "a.pth")
    model = models.import_checkpoint(tmp_path / "a.pth")
    assert model.hash == models.weights_hash(network.state_dict())


def test_a_checkpoint_with_missing_or_strange_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    state = published(NRRN(2, 4))
    for changed, message in (
        ({k: v for k, v in state.items() if k != "nrrn.BU.1.Gates2_b.bias"}, "BU.1.Wc.bias"),
        ({**state, "nrrn.conv9.weight": torch.zeros(1)}, "nrrn.conv9.weight"),
        ({**state, "nrrn.conv2.weight": torch.zeros(4, 4, 1, 1)}, "W2.weight"),
        ({**state, "nrrn.conv2.bias": torch.full((4,), torch.nan)}, "W2.bias"),
        ({"weights": [1, 2]}, "state dict"),
        ([torch.zeros(2)], "state dict"),
        ({}, "not an NRRN"),
    ):
        torch.save(changed, path)
        with pytest.raises(ValueError, match=message):
            models.import_checkpoint(path)


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("trapped"),))


def test_a_checkpoint_never_runs_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"nrrn.conv1.weight": Trap()}, "evil.pth")
    with pytest.raises(ValueError, match="safely"):
        models.import_checkpoint("evil.pth")
    assert not Path("trapped").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(50), bytes(100)])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pth is not a checkpoint"):
        models.import_checkpoint(tmp_path / "a.pth")


def test_load_model_points_from_a_checkpoint_to_its_import(data: Path) -> None:
    with pytest.raises(ValueError, match="nrrn models import"):
        models.load_model(data / "published_format_1unit.pth")


# Damaged, strange and too new files ----------------------------------------------------------


def test_a_file_cut_short_is_refused(file: Path) -> None:
    whole = file.read_bytes()
    for length in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="damaged or cut short"):
            models.load_model(file)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell a peak of memory")
def test_a_header_that_claims_too_much_is_refused_without_memory(file: Path) -> None:
    code = (
        "import resource, sys\n"
        "from nrrn_fiji.models import load_model\n"
        "import torch, safetensors.torch, nrrn_fiji.network\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    load_model(sys.argv[1])\n"
        "except ValueError as error:\n    print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    large = {"dtype": "F32", "shape": [30000, 30000, 3, 3], "data_offsets": [0, 4 * 9 * 30000**2]}
    header = {"__metadata__": {"nrrn.card": json.dumps(CARD)}, "W1.weight": large}
    text = json.dumps(header).encode()
    for content in (
        struct.pack("<Q", len(text)) + text + bytes(1000),
        struct.pack("<Q", 2**62) + text,
    ):
        file.write_bytes(content)
        done = subprocess.run(
            [sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True
        )
        message, grown = done.stdout.splitlines()
        assert "damaged or cut short" in message
        assert int(grown) < 50_000  # kB


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (None, "has no card"),
        ("{", "card is unreadable"),
        ("[]", "card is unreadable"),
        ({"architecture": {}}, "card is unreadable"),
        ({**CARD, "format_version": True}, "card is unreadable"),
        ({**CARD, "format_version": 2}, "format version 2.*update nrrn-fiji"),
        ({**CARD, "architecture": {"units": 3, "maps": 8, "edge": False}}, "card says"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(file: Path, card: Any, message: str) -> None:
    rewrite(file, card)
    with pytest.raises(ValueError, match=message):
        models.load_model(file)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("W2.bias", None, "W2.bias is missing"),
        ("W9.bias", torch.zeros(8), "W9.bias is missing, unknown"),
        ("W2.bias", torch.zeros(9), "W2.bias"),
        ("W2.bias", torch.full((8,), torch.inf), "W2.bias are not finite"),
        ("W2.bias", torch.zeros(8, dtype=torch.int32), "W2.bias are not finite"),
        ("W1.weight", torch.tensor(1.0), "not an NRRN"),
        ("W0.factor", torch.zeros(4, 1, 1, 1), "W0"),
        ("BU.7.Vr.weight", torch.zeros(8, 8, 3, 3), "BU.2"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    file: Path, name: str, tensor: torch.Tensor | None, message: str
) -> None:
    rewrite(file, CARD, **{name: tensor})
    with pytest.raises(ValueError, match=message):
        models.load_model(file)


def test_a_network_with_nan_is_not_saved(tmp_path: Path, network: NRRN) -> None:
    with torch.no_grad():
        network.W1.bias[2] = torch.nan
    with pytest.raises(ValueError, match=r"W1\.bias are not finite"):
        models.save_model(tmp_path / "a.safetensors", network, {})
    assert not (tmp_path / "a.safetensors").exists()


def test_a_model_file_has_its_suffix(tmp_path: Path, network: NRRN) -> None:
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        models.save_model(tmp_path / "a.pth", network, {})


# Names ---------------------------------------------------------------------------------------


def test_a_user_installs_uses_and_removes_a_model(file: Path, user_models: Path) -> None:
    installed = models.install_model(file)
    assert installed.path == user_models / "mine.safetensors"
    assert models.load_model("mine").hash == models.load_model(file).hash
    entry = next(entry for entry in models.known_models() if entry.name == "mine")
    assert (entry.origin, entry.problem) == ("installed", "")
    assert entry.card["description"] == "A test."
    assert models.remove_model("mine") == installed.path
    assert not installed.path.exists()
    with pytest.raises(FileNotFoundError, match="'mine'"):
        models.load_model("mine")


def test_installing_twice_asks(file: Path) -> None:
    models.install_model(file, "other")
    with pytest.raises(FileExistsError, match=r"other is installed already.*--overwrite"):
        models.install_model(file, "other")
    changed = models.save_model(file, NRRN(1, 4), {})
    assert models.install_model(file, "other", overwrite=True).hash == changed.hash


def test_a_checkpoint_is_converted_when_it_is_installed(data: Path, user_models: Path) -> None:
    model = models.install_model(data / "published_format_1unit.pth", "published")
    assert model.path == user_models / "published.safetensors"
    assert model.hash == models.import_checkpoint(data / "published_format_1unit.pth").hash
    assert model.card["source"]["file"] == "published_format_1unit.pth"


def test_what_is_no_model_is_not_installed(file: Path, user_models: Path) -> None:
    file.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a model"):
        models.install_model(file)
    assert not user_models.exists()


@pytest.mark.parametrize(
    "name", ["", "../up", "a/b", ".hidden", "-x", "a b", "x.safetensors", "x.pth", "x.pt"]
)
def test_a_name_that_is_no_name_is_refused(file: Path, name: str) -> None:
    with pytest.raises(ValueError, match="choose another name"):
        models.install_model(file, name)


@pytest.fixture
def shipped(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one shipped model, ``given``."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    monkeypatch.setattr(models, "shipped_models_dir", lambda: folder)
    (folder / "given.safetensors").write_bytes(file.read_bytes())
    return folder


def test_a_shipped_model_is_found_and_stays(shipped: Path, file: Path) -> None:
    assert models.load_model("given").path == shipped / "given.safetensors"
    with pytest.raises(FileExistsError, match="shipped model"):
        models.install_model(file, "given", overwrite=True)
    with pytest.raises(ValueError, match="cannot be removed"):
        models.remove_model("given")
    assert models.load_model("given").units == 2


def test_an_unknown_name_lists_the_known_ones(shipped: Path, file: Path) -> None:
    models.install_model(file)
    with pytest.raises(FileNotFoundError, match="'gven'; known models: given, mine"):
        models.load_model("gven")
    with pytest.raises(FileNotFoundError, match="'gven'; known models: given, mine"):
        models.remove_model("gven")


def test_a_name_beside_its_file_is_pointed_at_the_file(
    shipped: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    with pytest.raises(FileNotFoundError, match=r"Did you mean the file mine\.safetensors"):
        models.load_model("mine")
    assert models.load_model("mine.safetensors").units == 2


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no file .*none\.safetensors"):
        models.load_model(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="is a folder"):
        models.load_model(tmp_path)


def test_a_damaged_installed_model_does_not_hide_the_others(file: Path, user_models: Path) -> None:
    models.install_model(file)
    (user_models / "broken.safetensors").write_bytes(b"broken")
    entries = {entry.name: entry for entry in models.known_models()}
    assert entries["mine"].problem == ""
    assert "not a model file" in entries["broken"].problem
    assert entries["broken"].card == {}
    models.remove_model("broken")
    assert "broken" not in {entry.name for entry in models.known_models()}


def test_the_user_folder_is_the_systems_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(models.user_models_dir()).endswith("user-models")
    monkeypatch.delenv("NRRN_MODELS")
    assert models.user_models_dir().parts[-2:] == ("nrrn-fiji", "models")


def test_every_shipped_model_loads_and_has_a_whole_card() -> None:
    assert models.DEFAULT_MODEL in {entry.name for entry in models.known_models()}
    for entry in models.known_models():
        model = models.load_model(entry.name)
        assert entry.origin == "shipped"
        for key in ("description", "licence", "training", "results", "intensity"):
            assert key in model.card, f"the card of {entry.name} lacks {key!r}"
