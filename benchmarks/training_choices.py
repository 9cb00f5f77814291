"""Which training gives the best image: short trainings that differ in one choice each.

    python benchmarks/training_choices.py noisy STACK.tif [--steps 400] [--only NAME]
    python benchmarks/training_choices.py noisy STACK.tif --start MODEL   # trained on clean slices
    python benchmarks/training_choices.py correlated STACK.tif
    python benchmarks/training_choices.py clean STACK.tif [--start MODEL]

``noisy``: only a noisy stack is there (60 slices of STACK with Gaussian noise of sigma 25, added
once); objectives, masked fractions and what replaces a masked pixel.  ``correlated``: the same, the
noise being alike in neighbouring pixels as in a real microscope's; mask shapes.  Both are scored on
slices of that same stack, because denoising them is what such a training is for.  ``clean``: clean
slices with synthetic noise at all levels; weights of the samples and size of the network; scored
on slices of the last tenth of STACK, which no training sees.

Every line is PSNR in dB, mean over the scored slices, estimates clipped to [0, 1].  All trainings
start from the same seed and take the same number of steps.  docs/decisions/training.md keeps the
results that the defaults rest on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from scipy import ndimage

from nrrn_fiji import TrainSettings, load_model, training, triplets
from nrrn_fiji.jobs.train_setup import start_from
from nrrn_fiji.metrics import psnr
from nrrn_fiji.network import NRRN
from nrrn_fiji.noise import add_noise, noise_variance
from nrrn_fiji.objectives import consensus, weighted_squared_error
from nrrn_fiji.triplets import TrainingStack, TripletSampler

Image = NDArray[np.float32]
LEVELS = {
    **{f"P{peak}": {"peak": peak} for peak in (1, 4, 8, 30)},
    **{f"s{sigma}": {"sigma": sigma} for sigma in (10, 25, 35, 75)},
}
SIGMA = 25 / 255
SCORED = (10, 25, 40, 55)
"""Slices of the noisy stack that are scored."""


# What differs from training to training ----------------------------------------------------------


def replaced_by(values: Callable[[Image, np.random.Generator], Image]) -> Any:
    """Make masked pixels take the values of another image than the shuffled one."""
    shuffled = triplets.mask_pixels

    def masked(triplet: Image, fraction: float, rng: np.random.Generator, *shape: Any) -> Any:
        hidden, mask = shuffled(triplet, fraction, rng, *shape)
        hidden[1][mask] = values(triplet[1], rng)[mask]
        return hidden, mask

    return mock.patch.object(triplets, "mask_pixels", masked)


def median_around(image: Image, rng: np.random.Generator) -> Image:
    """The median of the 24 pixels around each."""
    footprint = np.ones((5, 5), bool)
    footprint[2, 2] = False
    return ndimage.median_filter(image, footprint=footprint, mode="reflect")


def mean_around(image: Image, rng: np.random.Generator) -> Image:
    """The mean of the 8 pixels around each."""
    kernel = np.ones((3, 3), np.float32) / 8
    kernel[1, 1] = 0
    return ndimage.convolve(image, kernel, mode="reflect")


def with_consensus(share: float) -> Any:
    """Add a share of the paper's loss, neighbours as targets, to the masked one."""

    def combined(network: NRRN, batch: triplets.Batch, settings: TrainSettings) -> torch.Tensor:
        if not torch.is_grad_enabled():  # held-out samples are judged by masked pixels alone
            return usual_loss(network, batch, settings)
        previous, centre, following, target, weight = (torch.from_numpy(part) for part in batch)
        a, b = network.branches(previous, centre, following)
        masked = weighted_squared_error(a, b, target, weight)
        return masked + share * consensus(a, b, previous, following)

    return mock.patch.object(training, "objective_value", combined)


def psnr_loss(network: NRRN, batch: triplets.Batch, settings: TrainSettings) -> torch.Tensor:
    """The mean logarithm of the samples' squared errors: the mean PSNR, in other units."""
    previous, centre, following, target, _ = (torch.from_numpy(part) for part in batch)
    a, b = network.branches(previous, centre, following)
    return (((a + b) / 2 - target).square().mean((1, 2, 3)) + 2e-4).log().mean()


class ToldLevel(torch.nn.Module):
    """A first layer that sees, beside the image, the deviation of its noise."""

    def __init__(self, maps: int):
        super().__init__()
        self.convolution = torch.nn.Conv2d(2, maps, kernel_size=3, padding=1)
        self.deviation = torch.zeros(1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) -> (B, C, H, W)."""
        deviation = self.deviation.reshape(-1, 1, 1, 1).expand_as(image)
        return self.convolution(torch.cat([image, deviation], dim=1))


def told_loss(network: NRRN, batch: triplets.Batch, settings: TrainSettings) -> torch.Tensor:
    """The usual loss of a network that is told the true noise of every sample."""
    variance = 1 / torch.from_numpy(batch.weight) - triplets.VARIANCE_FLOOR
    network.W0.deviation = variance.clamp(min=0).sqrt().repeat(2, 1, 1, 1)
    return usual_loss(network, batch, settings)


usual_loss = training.objective_value

MASKED: dict[str, Any] = {"objective": "masked", "mask": 0.06}
SYNTHETIC: dict[str, Any] = {
    "objective": "clean",
    "poisson": (1, 50),
    "gaussian": (10, 75),
    "clipped": 0.85,
    "isotropic": True,
}
Choices = dict[str, tuple[dict[str, Any], Any]]
CHOICES: dict[str, Choices] = {
    "noisy": {
        "consensus (the paper)": ({"objective": "consensus"}, None),
        "masked 2 %": (MASKED | {"mask": 0.02}, None),
        "masked 6 %": (MASKED, None),
        "masked 15 %": (MASKED | {"mask": 0.15}, None),
        "masked 30 %": (MASKED | {"mask": 0.3}, None),
        "masked 15 % + 0.1 consensus": (MASKED | {"mask": 0.15}, lambda: with_consensus(0.1)),
        "masked 15 % + consensus": (MASKED | {"mask": 0.15}, lambda: with_consensus(1.0)),
        "masked 15 %, constant rate": (MASKED | {"mask": 0.15, "schedule": "constant"}, None),
        "masked 6 %, median": (MASKED, lambda: replaced_by(median_around)),
        "masked 6 %, mean of 8": (MASKED, lambda: replaced_by(mean_around)),
    },
    "correlated": {
        "point": (MASKED | {"mask_shape": "0,0,0"}, None),
        "1,0,0": (MASKED | {"mask_shape": "1,0,0"}, None),
        "1,1,0": (MASKED | {"mask_shape": "1,1,0"}, None),
        "1,1,1": (MASKED | {"mask_shape": "1,1,1"}, None),
        "2,1,1": (MASKED | {"mask_shape": "2,1,1"}, None),
        "2,2,1": (MASKED | {"mask_shape": "2,2,1"}, None),
        "1,1,1, 15 %": (MASKED | {"mask_shape": "1,1,1", "mask": 0.15}, None),
        "1,1,1, 30 %": (MASKED | {"mask_shape": "1,1,1", "mask": 0.3}, None),
    },
    "clean": {
        "1 / (variance + 0.003)": (SYNTHETIC, None),
        "1 / variance ^ 0.5": (SYNTHETIC | {"weighting": "deviation"}, None),
        "unweighted": (SYNTHETIC | {"weighting": "none"}, None),
        "sigma over its logarithm": (SYNTHETIC | {"levels": "logarithmic"}, None),
        "log of the error": (
            SYNTHETIC,
            lambda: mock.patch.object(training, "objective_value", psnr_loss),
        ),
        "told the noise level": (
            SYNTHETIC,
            lambda: mock.patch.object(training, "objective_value", told_loss),
        ),
        "constant rate": (SYNTHETIC | {"schedule": "constant"}, None),
        "2 units x 24 maps": (SYNTHETIC | {"units": 2, "maps": 24}, None),
        "4 units": (SYNTHETIC | {"units": 4}, None),
        "5 units": (SYNTHETIC | {"units": 5}, None),
        "48 maps": (SYNTHETIC | {"maps": 48}, None),
    },
}


# The experiment ----------------------------------------------------------------------------------


def noisy_stack(clean: Image, correlated: bool) -> Image:
    """Add Gaussian noise of sigma 25; its lag-1 correlation is 0.45, 0.24, 0.24 (x, y, z) or 0."""
    noise = np.random.default_rng(5).standard_normal(clean.shape).astype(np.float32)
    if correlated:
        # A kernel (a, 1, a) / norm has the lag-1 correlation 2a / (1 + 2a²).
        for axis, a in ((2, 0.2645), (1, 0.1269), (0, 0.1269)):
            noise = ndimage.convolve1d(noise, [a, 1, a], axis=axis)
        noise /= noise.std()
    return clean + np.float32(SIGMA) * noise


@torch.no_grad()
def denoised(network: NRRN, triplet: Image) -> Image:
    """Denoise the middle of three slices."""
    previous, centre, following = torch.from_numpy(triplet)[:, None, None]
    a, b = network.branches(previous, centre, following)
    mean: Image = ((a + b) / 2)[0, 0].clamp(0, 1).numpy()
    return mean


def scored_on_itself(network: NRRN, clean: Image, noisy: Image) -> dict[str, float]:
    """Score slices of the stack that the network was trained on."""
    scores = [psnr(clean[z], denoised(network, noisy[z - 1 : z + 2])) for z in SCORED]
    return {"PSNR": float(np.mean(scores))}


def scored_on_levels(network: NRRN, clean: Image) -> dict[str, float]:
    """Score the last tenth at every level, clipped as a detector clips."""
    results = {}
    for label, level in LEVELS.items():
        scores = []
        for z in range(len(clean) - 23, len(clean) - 2, 7):
            rng = np.random.default_rng([z, *level.values()])
            noisy = [
                add_noise(image, **level, rng=rng, clip=True) for image in clean[z - 1 : z + 2]
            ]
            if isinstance(network.W0, ToldLevel):
                variance = noise_variance(float(clean[z].mean()), **level)
                network.W0.deviation = torch.tensor([variance]).sqrt()
            scores.append(psnr(clean[z], denoised(network, np.stack(noisy))))
        results[label] = float(np.mean(scores))
    return results


@contextmanager
def changed(change: Callable[[], Any] | None) -> Iterator[None]:
    """Apply a change while a training runs."""
    if change is None:
        yield
    else:
        with change():
            yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("situation", choices=CHOICES)
    parser.add_argument("stack", help="a clean stack of 8 bits, at least 160 slices")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--units", type=int, default=3)
    parser.add_argument("--maps", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--start", help="a model to continue from instead of fresh weights")
    parser.add_argument("--only", action="append", help="the choices to try")
    args = parser.parse_args()

    torch.set_num_threads(1)
    clean = tifffile.imread(args.stack).astype(np.float32) / 255
    if args.situation != "clean":
        clean = clean[100:160]
    noisy = noisy_stack(clean, args.situation == "correlated")
    stack = clean if args.situation == "clean" else noisy
    if args.situation != "clean":
        smoothed = [
            np.mean(
                [
                    psnr(clean[z], ndimage.gaussian_filter(noisy[z - 1 : z + 2].mean(0), s))
                    for z in SCORED
                ]
            )
            for s in np.arange(0.4, 2.0, 0.1)
        ]
        print(f"{'Gaussian filter, mean of three':32} PSNR {max(smoothed):.2f}", flush=True)
    for name, (asked, change) in CHOICES[args.situation].items():
        if args.only and name not in args.only:
            continue
        common = {"units": args.units, "maps": args.maps, "steps": args.steps, "rate": args.rate}
        settings = training.resolve(
            TrainSettings(**(common | {"crop": 64, "batch": 8, "seed": 1} | asked)),
            device=torch.device("cpu"),
            precision="fp32",
            objective="masked",
        )
        assert settings.units is not None and settings.maps is not None
        torch.manual_seed(0)
        network = NRRN(settings.units, settings.maps)
        if name == "told the noise level":
            network.W0 = ToldLevel(settings.maps)
        if args.start:
            start_from(network, load_model(args.start).network)
        start = time.monotonic()
        with changed(change), TemporaryDirectory() as folder:
            sampler = TripletSampler(
                [TrainingStack(stack, (0.0, 1.0))], training.sample_settings(settings)
            )
            checkpoint = Path(folder) / "checkpoint.safetensors"
            _, best = training.train(
                network, sampler, settings, checkpoint=checkpoint, validate_every=100
            )
        network.load_state_dict(best)
        network.eval()
        scores = (
            scored_on_levels(network, clean)
            if args.situation == "clean"
            else scored_on_itself(network, clean, noisy)
        )
        line = "  ".join(f"{label} {score:.2f}" for label, score in scores.items())
        print(f"{name:32} {line}  ({time.monotonic() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
