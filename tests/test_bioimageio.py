"""A package for bioimage.io is valid, runs elsewhere to our pixels, and comes back as it was."""

from __future__ import annotations

import socket
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

import nrrn_fiji as nrrn
from nrrn_fiji.cli import main
from nrrn_fiji.exchange.bioimageio import export_model, fitting_name, write_package
from nrrn_fiji.exchange.bioimageio_parts import smallest
from nrrn_fiji.models import Model, load_model, save_model
from nrrn_fiji.network import NRRN
from nrrn_fiji.resources import data_folder

pytest.importorskip(
    "bioimageio.core",
    reason="bioimageio.core is not installed, so nothing can test packages for bioimage.io: "
    "pip install 'nrrn-fiji[bioimageio]'",
)
# Theirs, and PyTorch's about TorchScript, which they load.
pytestmark = pytest.mark.filterwarnings("ignore")

EXAMPLE = data_folder("examples") / "fibsem_medulla_noisy.tif"
CARD: dict[str, Any] = {
    "description": "Made for a test.",
    "licence": "CC BY 4.0 (the training data's)",
    "training": {
        "data": [
            {"dtype": "uint8", "shape": [3, 9, 9], "voxel_size": [8, 4, 4], "voxel_unit": "nm"}
        ]
    },
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither writing nor testing a package may need the network."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("this test has no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def tiny(folder: Path, card: Any = CARD, edge: bool = False, name: str = "tiny-model") -> Model:
    torch.manual_seed(4)
    network = NRRN(2, 8, edge)
    return save_model(folder / f"{name}.safetensors", network, card)


def validated(package: Path) -> Any:
    """Let bioimageio.core validate and test a package, and return its description."""
    from bioimageio.core import load_model_description, test_model

    summary = test_model(package)
    failed = [(d.name, d.errors) for d in summary.details if d.status != "passed"]
    assert summary.status == "passed", failed
    return load_model_description(package)


def predicted(description: Any, slices: np.ndarray, weights: str) -> np.ndarray:
    """Let bioimageio.core run a package on (3, Y, X)."""
    from bioimageio.core import create_prediction_pipeline, predict

    pipeline = create_prediction_pipeline(description, weight_format=weights, devices=["cpu"])
    sample = predict(model=pipeline, inputs={"slices": slices[None]})
    return np.asarray(sample.members["denoised"].data)[0, 0]


@pytest.mark.parametrize("form", ["package.zip", "package"])
def test_others_validate_a_package_and_run_it_to_our_pixels(tmp_path: Path, form: str) -> None:
    model = tiny(tmp_path, edge=form == "package")
    package = tmp_path / form
    words = ["models", "export", str(model.path), "--bioimageio", "-o", str(package)]
    assert main([*words, "--author", "Ada Lovelace; London", "--author", "Tom"]) == 0
    description = validated(package)
    assert [author.name for author in description.authors] == ["Ada Lovelace", "Tom"]
    assert description.authors[0].affiliation == "London"
    assert str(description.license) == "CC-BY-4.0"
    halo = model.units + 3
    assert [axis.halo for axis in description.outputs[0].axes[2:]] == [halo, halo]
    assert [axis.scale for axis in description.inputs[0].axes[2:]] == [4, 4]
    # Not what the package was tested with: another place and an odd size.
    slices = tifffile.imread(EXAMPLE)[3:6, 5:92, :73].astype(np.float32)
    expected = nrrn.denoise(slices, model, intensity=(0, 255), device="cpu")[1]
    assert np.abs(expected - slices[1]).max() > 1
    inside = np.s_[halo:-halo, halo:-halo]  # they pad by reflection, the network by zeros
    for weights in ("torchscript", "pytorch_state_dict"):
        made = predicted(description, slices, weights)
        np.testing.assert_allclose(made[inside], expected[inside], rtol=0, atol=255e-5)


def test_a_package_of_a_16_bit_model_maps_percentiles(tmp_path: Path) -> None:
    card = {**CARD, "training": {"data": [{"dtype": "uint16", "shape": [3, 9, 9]}]}}
    model = tiny(tmp_path, card)
    package = write_package(model, tmp_path / "package")
    description = validated(package)
    slices = tifffile.imread(EXAMPLE)[3:6, :64, :64].astype(np.float32) * 257
    low, high = np.percentile(slices, (0.1, 99.9))
    unit = (slices - low) / (high - low)
    expected = nrrn.denoise(unit.astype(np.float32), model, intensity=(0, 1), device="cpu")[1]
    made = predicted(description, slices, "torchscript")
    halo = model.units + 3
    np.testing.assert_allclose(
        made[halo:-halo, halo:-halo], expected[halo:-halo, halo:-halo], rtol=0, atol=1e-5
    )
    assert "The output is on that scale" in (package / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fibsem-medulla", "fibsem-medulla-fast"])
def test_the_shipped_models_are_valid_packages(tmp_path: Path, name: str) -> None:
    package = write_package(load_model(name), tmp_path / "package.zip")
    description = validated(package)
    assert str(description.license) == "CC-BY-3.0"
    with zipfile.ZipFile(package) as packed:
        text = packed.read("README.md").decode()
        assert len(packed.read("cover.png")) < 500_000
    assert "| Input |" in text and "FlyEM" in text


@pytest.mark.parametrize("form", ["package.zip", "package", "package/rdf.yaml"])
def test_a_package_comes_back_as_it_was(tmp_path: Path, user_models: Path, form: str) -> None:
    model = tiny(tmp_path)
    write_package(model, tmp_path / form.split("/")[0])
    assert main(["models", "import", str(tmp_path / form)]) == 0
    back = load_model("tiny-model")
    assert back.path == user_models / "tiny-model.safetensors"
    assert (back.hash, back.card) == (model.hash, model.card)


def test_a_package_tells_what_is_in_it(tmp_path: Path) -> None:
    card = {**CARD, "licence": "Ask the author."}
    package = write_package(tiny(tmp_path, card), tmp_path / "package")
    text = (package / "README.md").read_text()
    for part in ("# Validation", "Made for a test.", "halo of 5 px", "Ask the author."):
        assert part in text
    assert (package / "LICENCE.txt").read_text() == "Ask the author.\n"  # no SPDX identifier
    test = np.load(package / "test_input.npy")
    assert test.shape == (1, 3, 96, 96)
    # The source of the network needs nothing of ours.
    space: dict[str, Any] = {"__name__": "elsewhere"}
    exec((package / "nrrn_network.py").read_text(), space)
    wrapped = space["ThreeSlices"](2, 8)
    wrapped.load_state_dict(torch.load(package / "weights.pt", weights_only=True))


def test_a_package_needs_a_licence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny(tmp_path, {})
    words = ["models", "export", str(model.path), "--bioimageio", "-o", str(tmp_path / "p")]
    assert main(words) == 1
    assert "names no licence" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()
    assert main([*words, "--licence", "BSD-3-Clause"]) == 0


def test_a_package_is_written_without_warnings_about_its_hashes(tmp_path: Path) -> None:
    model = tiny(tmp_path)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        export_model(str(model.path), tmp_path / "p.zip", bioimageio=True)
    assert not [w for w in told if "sha256" in str(w.message)]


def test_what_a_package_needs_is_named_where_it_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nrrn_fiji.exchange.bioimageio.find_spec", lambda name: None)
    out = tmp_path / "p.zip"
    assert main(["models", "export", "fibsem-medulla", "--bioimageio", "-o", str(out)]) == 1
    error = capsys.readouterr().err
    assert "pip install 'nrrn-fiji[bioimageio]'" in error
    assert "should not" not in error and "report" not in error


def test_nothing_is_replaced_that_should_not_be(tmp_path: Path) -> None:
    model = tiny(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(FileExistsError, match="--overwrite"):
        export_model(model, tmp_path / "mine", bioimageio=True)
    with pytest.raises(FileExistsError, match="no package to replace"):
        export_model(model, tmp_path / "mine", bioimageio=True, overwrite=True)
    with pytest.raises(ValueError, match=r"must end in \.zip"):
        export_model(model, tmp_path / "mine.tar", bioimageio=True)
    with pytest.raises(ValueError, match="at least"):
        export_model(model, tmp_path / "p", bioimageio=True, stack=small(tmp_path))
    (tmp_path / "small.tif").unlink()
    (tmp_path / "mine" / "thesis.txt").unlink()
    (tmp_path / "mine").rmdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    write_package(model, tmp_path / "again")
    (tmp_path / "again" / "old").touch()
    write_package(model, tmp_path / "again", overwrite=True)
    assert not (tmp_path / "again" / "old").exists()


def small(folder: Path) -> Path:
    """A stack too small to cut test images from."""
    tifffile.imwrite(folder / "small.tif", np.zeros((3, 9, 9), np.uint8), photometric="minisblack")
    return folder / "small.tif"


def test_a_model_file_is_copied(tmp_path: Path) -> None:
    model = tiny(tmp_path)
    words = ["models", "export", str(model.path), "-o", str(tmp_path / "copy.safetensors")]
    assert main([*words, "--json"]) == 0
    assert load_model(tmp_path / "copy.safetensors").card == model.card
    assert main(words) == 1


def test_names_are_made_fit() -> None:
    assert fitting_name("a.b") == "NRRN a-b"
    assert fitting_name("mouse-cortex_4nm") == "mouse-cortex_4nm"
    assert [smallest(halo) for halo in (4, 8, 15, 16)] == [16, 32, 32, 48]
    assert all(smallest(halo) > 2 * halo for halo in range(1, 60))
