"""The networks the study compares with: the paper's sizes, trained like ours, kept and resumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from clocks import clock_of_training

from nrrn_fiji import training
from nrrn_fiji.baselines import trained
from nrrn_fiji.baselines.denoisenet import DENOISENET_RADIUS, DenoiseNet
from nrrn_fiji.baselines.inference import VIEWS, OnTriplets, denoise_middle, multiply_adds
from nrrn_fiji.baselines.trained import CONTENDERS, Contender, train_contender
from nrrn_fiji.baselines.unet import UNET_MULTIPLE, UNET_RADIUS, UNet
from nrrn_fiji.metrics import psnr
from nrrn_fiji.network import NRRN, TwoBranches
from nrrn_fiji.progress import Cancelled
from nrrn_fiji.scoring import CleanSlices, Level, score
from nrrn_fiji.settings import TrainSettings
from nrrn_fiji.triplets import Batch, TrainingStack

SMALL = TrainSettings(
    units=1, maps=8, crop=32, batch=4, steps=60, rate=3e-3, gaussian=(40, 40), device="cpu"
)
TINY_UNET = (8, 8, 8, 8, 8)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(training, "VALIDATION_CROPS", 4)
    # Small networks of the same kinds: the real ones take seconds per step.
    for key, kind in CONTENDERS.items():
        build: Callable[[TrainSettings], TwoBranches]
        inputs = 3 if key.endswith("three") else 1
        view = {"n2n": "pairs"}.get(key.split("-")[-1], key.split("-")[-1])
        if key.startswith("unet"):

            def build(_: TrainSettings, inputs: int = inputs, view: str = view) -> TwoBranches:
                return OnTriplets(UNet(inputs, TINY_UNET), view, UNET_MULTIPLE)
        elif key.startswith("denoisenet"):

            def build(_: TrainSettings, inputs: int = inputs, view: str = view) -> TwoBranches:
                return OnTriplets(DenoiseNet(inputs, layers=3, maps=9), view)
        else:
            continue
        monkeypatch.setitem(CONTENDERS, key, replace(kind, build=build))


def clean_volume(depth: int = 24, size: int = 48) -> np.ndarray:
    """A smooth volume whose neighbouring slices are alike, in 8 bits."""
    z, y, x = np.mgrid[:depth, :size, :size]
    volume = 0.5 + 0.3 * np.sin(x / 4) * np.cos(y / 5 + z / 40)
    return (volume * 255).round().astype(np.uint8)


def train(kind: str, folder: Path, settings: TrainSettings = SMALL, **more: object) -> Contender:
    stacks = [TrainingStack(clean_volume(), (0, 255))]
    return train_contender(kind, stacks, settings, folder, **more)  # type: ignore[arg-type]


class Watcher:
    """Counts what it is told, and cancels when a number of steps is done."""

    def __init__(self, stop: float = np.inf):
        self.stop, self.done, self.updates = stop, 0.0, 0
        self.messages: list[str] = []

    def update(self, done: float, total: float, text: str = "") -> None:
        self.done, self.updates = done, self.updates + 1

    def message(self, text: str) -> None:
        self.messages.append(text)

    @property
    def cancelled(self) -> bool:
        return self.done >= self.stop


# The networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "view", "parameters", "giga"),
    [
        # From the paper: parameters, and GMAC for 256 × 256.
        (lambda: UNet(1), "single", 31_042_369, 48.1),
        (lambda: DenoiseNet(3), "three", 728_832, 47.7),
    ],
)
def test_the_networks_have_the_size_of_the_papers(build, view, parameters, giga):
    with torch.device("meta"):
        network = OnTriplets(build(), view)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert multiply_adds(network) / 1e9 == pytest.approx(giga, abs=0.05)


def test_multiply_adds_of_an_nrrn_are_the_papers_per_branch():
    # nrrn.md: 19.4 … 87.0 GMAC per branch for 1 … 5 units.
    for units, giga in ((1, 19.4), (4, 70.1)):
        with torch.device("meta"):
            network = NRRN(units, 64)
        assert multiply_adds(network) / 2e9 == pytest.approx(giga, abs=0.05)


def reach(network: OnTriplets, size: int, at: int) -> int:
    """How far from pixel (at, at) a gradient reaches in the centre image."""
    image = torch.rand(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    a, _ = network.double().eval().branches(image, image, image)
    a[0, 0, at, at].backward()
    assert image.grad is not None
    where = image.grad[0, 0].nonzero()
    return int((where - at).abs().max())


def test_receptive_radii_are_as_declared():
    torch.manual_seed(0)
    denoisenet = OnTriplets(DenoiseNet(1, maps=5), "single")
    with torch.no_grad():  # every unit lets something through
        for layer in denoisenet.network.layers:
            layer.weight.abs_()
            layer.bias.abs_()
    assert reach(denoisenet, 64, 32) == DENOISENET_RADIUS
    unet = OnTriplets(UNet(1, (2, 2, 2, 2, 2)), "single", UNET_MULTIPLE)
    assert reach(unet, 320, 160) <= UNET_RADIUS


def test_denoisenet_adds_the_first_map_of_every_layer_to_the_middle_image():
    network = DenoiseNet(3, layers=2, maps=4).requires_grad_(False)
    for parameter in network.parameters():
        parameter.zero_()
    for layer, bias in zip(network.layers, (-0.25, 0.5, -1.0), strict=True):
        layer.bias[0] = bias  # estimates are signed
    images = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(network(images), images[:, 1:2] - 0.25 + 0.5 - 1.0)


def test_what_goes_on_in_denoisenet_passes_a_relu_but_after_the_first_layer():
    network = DenoiseNet(1, layers=2, maps=2).requires_grad_(False)
    for parameter in network.parameters():
        parameter.zero_()
    first, second, third = network.layers
    first.bias[1] = -2.0  # goes on as it is
    second.weight[:, 0, 1, 1] = 1.0  # estimate -2; what goes on is cut to 0
    third.weight[0, 0, 1, 1] = 1.0  # estimate 0
    image = torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(network(image), image - 2.0)


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_shows_what_it_says(view):
    class First(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.seen = images.shape[1]
            return images[:, :1]

    network = First()
    previous, centre, following = (torch.full((2, 1, 20, 21), v) for v in (1.0, 2.0, 6.0))
    a, b = OnTriplets(network, view, 16).branches(previous, centre, following)
    expected = {"single": (2, 2), "mean": (3, 3), "three": (1, 1), "pairs": (1.5, 4)}[view]
    assert (a.mean().item(), b.mean().item()) == pytest.approx(expected)
    assert a.shape == b.shape == centre.shape
    assert network.seen == (3 if view == "three" else 1)


@pytest.mark.parametrize("kind", ["unet", "denoisenet"])
def test_tiles_and_padding_do_not_show(kind):
    torch.manual_seed(1)
    if kind == "unet":
        network: TwoBranches = OnTriplets(UNet(3, (2, 2, 2, 2, 4)), "three", UNET_MULTIPLE)
        radius, multiple, tile, shape = UNET_RADIUS, UNET_MULTIPLE, 64, (3, 390, 301)
    else:
        network = OnTriplets(DenoiseNet(1, maps=5), "pairs")
        radius, multiple, tile, shape = DENOISENET_RADIUS, 1, 32, (3, 90, 123)
    network.train()
    triplet = np.random.default_rng(0).random(shape, np.float32)
    with torch.no_grad():  # batch statistics that are not the initial ones
        network.branches(*torch.from_numpy(triplet)[:, None, None])
    network.eval()
    whole, tiled = (
        denoise_middle(network, triplet, radius=radius, multiple=multiple, tile=t)
        for t in (1024, tile)
    )
    assert whole.shape == shape[1:] and whole.dtype == np.float32
    np.testing.assert_allclose(tiled, whole, atol=2e-6)
    # Not a constant, of which the above would be true too.
    assert whole.std() > 0.01


# Training ----------------------------------------------------------------------------------------


QUICK = ("unet-mean", "denoisenet-three", "nrrn")
"""One of each; the others differ by what they are given, and by the objective."""


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=() if k in QUICK else pytest.mark.slow) for k in CONTENDERS],
)
def test_every_contender_learns_to_denoise(kind, tmp_path):
    if kind.startswith("unet"):  # It must first learn to let the image through.
        settings = replace(SMALL, steps=240, crop=16)
    else:
        settings = replace(SMALL, steps=150)
    contender = train(kind, tmp_path, settings)
    assert contender.facts["steps"] == settings.steps
    level = Level("gaussian", 40)
    scored = CleanSlices(clean_volume(), [12], 7, name="volume")
    [candidate] = contender.candidates()
    [row] = score([candidate], scored, level)
    noisy = psnr(scored.clean(12), scored.noisy(12, level))
    assert row.mean("psnr") > noisy + 3
    assert row.method == f"trained-{kind}" and row.label == CONTENDERS[kind].label


def test_a_killed_training_goes_on_as_if_it_had_not_been(tmp_path):
    settings = replace(SMALL, steps=9)
    straight = train("unet-n2n", tmp_path / "straight", settings)
    broken = tmp_path / "broken"
    with pytest.raises(Cancelled):
        train("unet-n2n", broken, settings, progress=Watcher(stop=4))
    watcher = Watcher()
    resumed = train("unet-n2n", broken, settings, progress=watcher)
    # Five steps were left; one more report is the validation's.
    assert watcher.updates == 6
    assert resumed.facts["losses"] == straight.facts["losses"]
    for name, tensor in straight.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name
    # Nothing but the network is left over.
    assert [p.name for p in broken.iterdir()] == [resumed.path.name]


def test_batch_statistics_are_those_of_the_images(tmp_path):
    contender = train("unet-single", tmp_path, replace(SMALL, steps=40))
    [mean, variance] = [
        tensor
        for name, tensor in contender.network.state_dict().items()
        if name.startswith("network.down.0.1.running")
    ]
    # Fresh ones are 0 and 1: the first convolution of images on [0, 1] has another spread.
    assert (mean.abs() > 1e-3).any() and (variance < 0.7).all()


def test_what_was_trained_is_read_again(tmp_path):
    settings = replace(SMALL, steps=3)
    first = train("nrrn", tmp_path, settings)
    watcher = Watcher()
    again = train("nrrn", tmp_path, settings, progress=watcher)
    assert watcher.updates == 0
    assert again.facts == first.facts
    triplet = np.random.default_rng(0).random((3, 40, 33), np.float32)
    np.testing.assert_array_equal(again.denoise(triplet), first.denoise(triplet))


def test_anything_that_changes_the_result_is_trained_anew(tmp_path):
    settings = replace(SMALL, steps=2)
    contenders = [
        train("unet-mean", tmp_path, settings),
        train("unet-mean", tmp_path, replace(settings, weighting="none")),
        train("unet-single", tmp_path, settings),
        train("unet-mean", tmp_path, replace(settings, seed=1)),
        train("unet-mean", tmp_path, replace(settings, steps=3)),
        train_contender(
            "unet-mean", [TrainingStack(clean_volume(25), (0, 255))], settings, tmp_path
        ),
    ]
    assert len({contender.path for contender in contenders}) == len(contenders)
    # Units and maps are an NRRN's.
    assert train("unet-mean", tmp_path, replace(settings, units=2)).path == contenders[0].path


def test_a_damaged_network_is_trained_again(tmp_path):
    settings = replace(SMALL, steps=2)
    first = train("denoisenet-mean", tmp_path, settings)
    first.path.write_bytes(first.path.read_bytes()[:-100])
    watcher = Watcher()
    again = train("denoisenet-mean", tmp_path, settings, progress=watcher)
    assert "cannot be read" in watcher.messages[0]
    assert again.facts["losses"] == first.facts["losses"]


def test_a_damaged_checkpoint_is_told_and_started_again(tmp_path):
    settings = replace(SMALL, steps=3)
    with pytest.raises(Cancelled):
        train("nrrn", tmp_path, settings, progress=Watcher(stop=1))
    [checkpoint] = tmp_path.glob("*.checkpoint.safetensors")
    checkpoint.write_bytes(b"nonsense")
    watcher = Watcher()
    assert train("nrrn", tmp_path, settings, progress=watcher).facts["steps"] == 3
    assert "damaged" in watcher.messages[0]


def test_a_budget_by_the_clock_ends_by_the_clock(tmp_path, monkeypatch):
    clock = clock_of_training(monkeypatch, 0.125)
    contender = train("nrrn", tmp_path, replace(SMALL, steps=None, minutes=0.01))
    assert contender.facts["steps"] == 5  # in 0.6 s
    assert contender.facts["seconds"] == pytest.approx(clock.now, abs=0.1)


def test_all_contenders_see_the_same_samples(tmp_path, monkeypatch):
    seen: dict[str, list[Batch]] = {}

    def spied(key: str) -> None:
        honest = training.objective_value

        def spy(network: TwoBranches, batch: Batch, settings: TrainSettings) -> torch.Tensor:
            seen.setdefault(key, []).append(batch)
            return honest(network, batch, settings)

        with monkeypatch.context() as patch:
            patch.setattr(training, "objective_value", spy)
            train(key, tmp_path, replace(SMALL, steps=2, gaussian=(10, 75)))

    for key in ("unet-mean", "nrrn"):
        spied(key)
    for ours, theirs in zip(*seen.values(), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


def test_misuse_gets_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"kind is 'dncnn', but it must be one of unet-single"):
        train("dncnn", tmp_path)
    with pytest.raises(ValueError, match="no noise is asked for"):
        train("unet-mean", tmp_path, replace(SMALL, gaussian=None))
    with pytest.raises(ValueError, match="view is 'both'"):
        OnTriplets(UNet(1, TINY_UNET), "both")


def test_two_processes_do_not_train_the_same(tmp_path, monkeypatch):
    honest = trained.train_and_keep

    def meanwhile(*arguments: object) -> object:
        with pytest.raises(FileExistsError, match="Another process is training"):
            train("nrrn", tmp_path, replace(SMALL, steps=1))
        return honest(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(trained, "train_and_keep", meanwhile)
    train("nrrn", tmp_path, replace(SMALL, steps=1))
