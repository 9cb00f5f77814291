"""A stack unlike the training is told of in one sentence; one that is alike is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

import nrrn_fiji as nrrn
from nrrn_fiji.cli import main
from nrrn_fiji.fitness import measured_noise, unlike_training
from nrrn_fiji.intensity import ArraySource
from nrrn_fiji.jobs.preview import preview_file
from nrrn_fiji.models import Model, load_model, save_model
from nrrn_fiji.network import NRRN
from nrrn_fiji.noise import add_noise
from nrrn_fiji.resources import data_folder
from nrrn_fiji.training_facts import TrainingFacts, in_nanometres, size_in_words, training_in_words

EXAMPLES = data_folder("examples")
CARD: dict[str, Any] = {
    "description": "FIB-SEM of resin blocks.",
    "intensity": [0, 255],
    "training": {
        "objective": "clean",
        "data": [
            {
                "name": "one",
                "shape": [10, 100, 200],
                "dtype": "uint8",
                "voxel_size": [0.02, 0.01, 0.01],
                "voxel_unit": "micron",
            }
        ],
        "noise": {"poisson": [1, 50], "gaussian": [10, 75]},
        "steps": 100,
        "seconds": 600,
        "device": "cpu (2 threads)",
        "before": {"steps": 1000, "seconds": 3600},
        "fine_tuned_from": {"name": "parent", "hash": "0"},
    },
}


class Told:
    """Progress that remembers what it was told."""

    cancelled = False

    def __init__(self) -> None:
        self.messages: list[str] = []

    def update(self, done: float, total: float, text: str = "") -> None:
        """Count nothing."""

    def message(self, text: str) -> None:
        self.messages.append(text)


def about(found: list[str]) -> list[str]:
    """The first word of each difference."""
    return [text.split()[0] for text in found]


def differences(card: Any = CARD, **given: Any) -> list[str]:
    values: dict[str, Any] = {"dtype": np.dtype("uint8"), "span": (0.0, 255.0), **given}
    return unlike_training(card, **values)


def noisy(sigma: float | None = None, peak: float | None = None) -> np.ndarray:
    clean = tifffile.imread(EXAMPLES / "fibsem_medulla.tif") / 255
    noisy = add_noise(clean, sigma=sigma, peak=peak, rng=np.random.default_rng(2), clip=True)
    return np.rint(noisy * 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["fibsem-medulla", "fibsem-medulla-fast"])
def test_shipped_models_accept_the_noise_that_they_know(name: str) -> None:
    card = load_model(name).card
    stacks = [tifffile.imread(EXAMPLES / "fibsem_medulla_noisy.tif")]
    stacks += [noisy(sigma=sigma) for sigma in (10, 25, 75)]
    stacks += [noisy(peak=peak) for peak in (1, 8, 50)]
    for stack in stacks:
        assert differences(card, noise=measured_noise(ArraySource(stack))) == []


def test_a_stack_with_hardly_any_noise_is_told_of() -> None:
    for stack in (noisy(sigma=2), noisy(sigma=4)):
        (text,) = differences(noise=measured_noise(ArraySource(stack)))
        assert text.startswith("noise of 3.9 to ")


def test_noise_beyond_the_strongest_is_told_of() -> None:
    card = {"training": {"noise": {"gaussian": [10, 25]}}}
    assert differences(card, noise=(30, 128)) == []
    assert about(differences(card, noise=(40, 128))) == ["noise"]


def test_poisson_noise_depends_on_brightness() -> None:
    """Peak 50: at a mean of 0.5 the weakest is sqrt(0.5 / 50) = 10 % of the range."""
    card = {"training": {"noise": {"poisson": [2, 50]}}}
    assert TrainingFacts.of(card).noise_range(0.5) == pytest.approx((0.1, 0.5))
    assert about(differences(card, noise=(0.06 * 255, 0.5 * 255))) == ["noise"]
    assert differences(card, noise=(0.06 * 255, 0.1 * 255)) == []  # in the dark there is less


def test_measured_noise_of_noisy_training_stacks_counts() -> None:
    stack = {"dtype": "uint8", "noise_level": 0.1}
    card = {"training": {"objective": "masked", "data": [stack]}}
    assert differences(card, noise=(0.1 * 255, 100)) == []
    assert about(differences(card, noise=(0.05 * 255, 100))) == ["noise"]
    assert about(differences(card, noise=(0.16 * 255, 100))) == ["noise"]


def test_large_voxels_and_stacks_are_told_in_plain_numbers() -> None:
    """As people write them: not 1.5e+03 nm."""
    stack = {"name": "a", "shape": [2000, 1500, 1000], "voxel_size": [4, 1.5, 1.5]}
    training = {"data": [stack | {"voxel_unit": "um"}], "noise": {"gaussian": [10, 255]}}
    told = " ".join(training_in_words({"training": training}))
    assert "1500 × 1500 nm in slices 4000 nm apart" in told
    assert "3000 million voxels" in told
    assert "3.9 to 100 % of the grey range" in told


@pytest.mark.parametrize(("dtype", "expected"), [("uint8", []), ("int8", [])])
def test_the_same_bit_depth_is_alike(dtype: str, expected: list[str]) -> None:
    assert differences(dtype=np.dtype(dtype)) == expected


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_another_bit_depth_is_told_of(dtype: str) -> None:
    bits = np.dtype(dtype).itemsize * 8
    assert differences(dtype=np.dtype(dtype)) == [f"8-bit grey values (these are {bits}-bit)"]


@pytest.mark.parametrize(
    ("size", "unit", "depth", "told"),
    [
        ((20, 10, 10), "nm", 9, False),
        ((30, 15, 15), "nm", 9, False),
        ((0.02, 0.01, 0.01), "µm", 9, False),
        ((20, 4, 4), "nm", 9, True),
        ((50, 10, 10), "nm", 9, True),
        ((50, 10, 10), "nm", 1, False),  # a single slice has no distance to the next
        ((1, 10, 10), "nm", 9, False),  # ImageJ's value where nobody gave one
        ((50, 50, 50), "pixel", 9, False),
        ((0.5, 0.5, 0.5), "mm", 9, False),  # the resolution of a printer
        (None, None, 9, False),
    ],
)
def test_voxels_of_twice_the_size_are_told_of(
    size: tuple[float, float, float] | None, unit: str | None, depth: int, told: bool
) -> None:
    found = differences(voxel_size=size, voxel_unit=unit, depth=depth)
    assert about(found) == (["voxels"] if told else [])


@pytest.mark.parametrize(
    "card",
    [
        {},
        {"training": None},
        {"training": {"data": "none", "noise": [1]}},
        {"training": {"data": [{"dtype": 8, "voxel_size": [1, "a", None], "noise_level": True}]}},
        {"training": {"noise": {"gaussian": [float("nan"), 1]}}, "voxel_size": 3},
    ],
)
def test_a_card_that_says_nothing_warns_of_nothing(card: dict[str, Any]) -> None:
    given = {"dtype": np.dtype("uint16"), "voxel_size": (1.0, 2.0, 3.0), "voxel_unit": "nm"}
    assert differences(card, noise=(1.0, 2.0), **given) == []
    assert isinstance(training_in_words(card), list)


class Counting(ArraySource):
    """Remembers which slices were read."""

    def __init__(self, array: np.ndarray) -> None:
        super().__init__(array)
        self.looked: list[int] = []

    def read(self, start: int, stop: int) -> np.ndarray:
        self.looked += range(start, stop)
        return super().read(start, stop)


def test_measuring_looks_at_three_slices() -> None:
    stack = np.random.default_rng(0).normal(100, 7, (40, 600, 600)).astype(np.float32)
    source = Counting(stack)
    level, mean = measured_noise(source) or (0, 0)
    assert source.looked == [0, 20, 39]
    assert level == pytest.approx(7, rel=0.02)
    assert mean == pytest.approx(100, rel=0.01)
    assert measured_noise(ArraySource(np.full((3, 20, 20), np.nan, np.float32))) is None


@pytest.fixture
def model(tmp_path: Path) -> Model:
    torch.manual_seed(1)
    return save_model(tmp_path / "tiny.safetensors", NRRN(units=1, maps=4), CARD)


def test_python_is_told_by_its_progress(model: Model) -> None:
    stack = (np.random.default_rng(0).random((3, 40, 40)) * 60000).astype(np.uint16)
    told = Told()
    nrrn.denoise(stack, model, progress=told)
    list(nrrn.denoise_blocks(stack, model, progress=told))
    unlike = [text for text in told.messages if "unlike" in text]
    assert len(unlike) == 2
    assert unlike[0].startswith(
        "This stack is unlike what tiny was trained on, 8-bit grey values (these are 16-bit)"
    )
    told.messages.clear()
    nrrn.denoise(noisy(sigma=25)[:3], model, progress=told)
    assert not [text for text in told.messages if "unlike" in text]


def test_who_looks_at_a_preview_is_not_sent_to_it(model: Model, tmp_path: Path) -> None:
    stack = (np.random.default_rng(0).random((3, 64, 64)) * 60000).astype(np.uint16)
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    told = Told()
    preview_file(tmp_path / "stack.tif", model=[model], progress=told)
    unlike = [text for text in told.messages if "unlike" in text]
    assert len(unlike) == 3  # one for each model
    assert all("look closely, and compare" in text for text in unlike)


def test_the_command_line_and_its_plan_tell(
    tmp_path: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.tif"
    about = {"axes": "ZYX", "spacing": 50.0, "unit": "nm"}
    tifffile.imwrite(source, noisy(25), imagej=True, resolution=(0.02, 0.02), metadata=about)
    words = ["denoise", str(source), str(tmp_path / "out.tif"), "-m", str(model.path), "--json"]
    voxels = "voxels of 10 × 10 nm in slices 20 nm apart (these are 50 nm cubes)"
    assert main([*words, "--plan"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert sum(voxels in note for note in plan["notes"]) == 1
    assert main(words) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(voxels in line.get("text", "") for line in lines) == 1


def test_a_training_says_what_its_stack_was_like(tmp_path: Path) -> None:
    source = tmp_path / "in.tif"
    about = {"axes": "ZYX", "spacing": 8.0, "unit": "nm"}
    tifffile.imwrite(source, noisy(25), imagej=True, resolution=(0.2, 0.2), metadata=about)
    settings = {"objective": "masked", "units": 1, "maps": 2, "steps": 2, "batch": 2, "crop": 24}
    model = nrrn.train(source, tmp_path / "m.safetensors", device="cpu", **settings)
    (said,) = model.card["training"]["data"]
    assert said["voxel_size"] == pytest.approx([8, 5, 5])
    assert said["voxel_unit"] == "nm"
    assert said["noise_level"] == pytest.approx(25 / 255, rel=0.1)
    facts = TrainingFacts.of(model.card)
    assert facts.voxel_sizes == (pytest.approx((8, 5, 5)),)
    assert facts.noise_range(0.5) == (said["noise_level"],) * 2


def test_a_training_is_told_in_words() -> None:
    assert training_in_words(CARD) == [
        "For: FIB-SEM of resin blocks.",
        "Trained on 1 stack (one), 200000 voxels.",
        "Its voxels were 10 × 10 nm in slices 20 nm apart.",
        "Its images had 8-bit grey values; 0 was taken for black and 255 for white.",
        "It learnt from clean images, to which noise was added.",
        "It knows Poisson (shot) noise of 1 to 50 counts at white and Gaussian (read-out) noise "
        "of 3.9 to 29 % of the grey range.",
        "The training took 1100 steps, 1 h 10 min on cpu (2 threads), and began from the model "
        "parent.",
    ]


def test_sizes_are_read_in_the_units_of_microscopes() -> None:
    assert in_nanometres((1, 2, 3), "Microns") == (1000, 2000, 3000)
    assert in_nanometres((1, 2, 0), "nm") is None
    assert in_nanometres((1, 2, 3), None) is None
    assert size_in_words((10, 10.2, 10)) == "10 nm cubes"
