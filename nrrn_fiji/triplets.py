"""Training samples: triplets of crops from stacks or from repeated scans of one slice.

A sample is a *previous*, a *centre* and a *following* crop.  It depends on the seed, the number of
the step and its own number in it alone, never on what was drawn before: so a training that is
resumed sees exactly what it would have seen, samples can be prepared ahead in another thread, and
several processes can make a batch together.

Part of every stack is *held out*: no training sample touches it, and the best model is chosen
there.  This module must never change the arrays it is given.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nrrn_fiji.intensity import to_unit
from nrrn_fiji.masks import MaskShape, mask_pixels
from nrrn_fiji.noise import add_noise, noise_variance
from nrrn_fiji.settings import SMALLEST_CROP

__all__ = ["Batch", "SampleSettings", "TrainingStack", "TripletSampler"]

VARIANCE_FLOOR = 0.003
"""Added to the noise variance before it, or its root, divides a sample's loss (measured)."""

AT_THE_END = 0.05
"""Of levels drawn over their logarithm, the part that lies exactly at each end of the range.  What
is only approached is extrapolated: clipped Poisson noise of peak 1 is black and white, that of no
higher peak is, and a network that never saw it was 2 % too bright there (measured)."""

POWERS = {"variance": 1.0, "deviation": 0.5, "none": 0.0}
"""To which power of its noise variance a sample's error is divided, by weighting."""

HELD_OUT = 0.1
"""Fraction of a stack that no training sample touches."""

SMALLEST_STRIP = 16
"""Least width in pixels of a part that is held out of every slice."""

VALIDATION_STREAM = 1_000_003
"""Keeps the random numbers of validation apart from those of any step."""


class Batch(NamedTuple):
    """Samples of one step; float32 (B, 1, H, W), grey values mapped to [0, 1]."""

    previous: NDArray[np.float32]
    centre: NDArray[np.float32]
    following: NDArray[np.float32]
    target: NDArray[np.float32]
    """What ½(a + b) is compared with (not used by the consensus objective)."""
    weight: NDArray[np.float32]
    """Weight of the squared error, (B, 1, 1, 1) or (B, 1, H, W)."""


@dataclass(frozen=True)
class TrainingStack:
    """A stack in memory, as the file has it, and how its grey values map to [0, 1].

    Parameters
    ----------
    array
        (Z, Y, X) adjacent slices, or (S, Y, X) scans of one slice; a type that
        :func:`nrrn_fiji.intensity.check_dtype` accepts.
    intensity
        Grey values that map to 0 and 1.
    name
        What to call the stack in messages and in the model's card.
    source
        Name of the file it was read from.
    voxel_size, voxel_unit
        Size of a voxel (z, y, x), where the file says it.
    """

    array: NDArray[np.generic]
    intensity: tuple[float, float]
    name: str = "stack"
    source: str = "stack"
    voxel_size: tuple[float, float, float] | None = None
    voxel_unit: str | None = None


@dataclass(frozen=True)
class SampleSettings:
    """How samples are made; the fields are those of :class:`nrrn_fiji.settings.TrainSettings`."""

    objective: str
    crop: int
    batch: int
    scans: bool = False
    isotropic: bool = False
    keep_orientation: bool = False
    rescale: tuple[float, float] | None = None
    poisson: tuple[float, float] | None = None
    gaussian: tuple[float, float] | None = None
    levels: str = "spread"
    weighting: str = "variance"
    clipped: float = 0.0
    mask: float = 0.15
    mask_shape: str | None = None
    seed: int = 0


class Box(NamedTuple):
    """Part of a stack that samples may be cut from."""

    array: NDArray[np.generic]
    intensity: tuple[float, float]


def split(stack: TrainingStack, settings: SampleSettings) -> tuple[Box, Box]:
    """Divide a stack into a part to train on and a part that is held out.

    The last tenth of the slices (at least 3) is held out; where that would leave fewer than 6
    slices to train on, and for repeated scans, a strip of a tenth (at least 16 pixels) at the end
    of the longer side of every slice.

    Raises
    ------
    ValueError
        If the stack is too small for a crop, or has fewer than 3 slices.
    """
    array, crop = stack.array, settings.crop
    depth, height, width = array.shape
    what = "scans" if settings.scans else "slices"
    if depth < 3:
        raise ValueError(
            f"{stack.name} has {depth} {what}, but training needs at least 3: "
            f"give a stack with 3 or more {what}."
        )
    if min(height, width) < crop:
        raise ValueError(
            f"{stack.name} has slices of {width} x {height} px, but a crop is {crop} x {crop} px: "
            + (
                f"choose crop={min(height, width)} or smaller."
                if min(height, width) >= SMALLEST_CROP
                else f"give a stack whose slices have {SMALLEST_CROP} px or more each way."
            )
        )
    held_slices = max(3, round(depth * HELD_OUT))
    if not settings.scans and depth - held_slices >= 6:
        return (
            Box(array[:-held_slices], stack.intensity),
            Box(array[-held_slices:], stack.intensity),
        )
    longer = max(height, width)
    strip = max(SMALLEST_STRIP, round(longer * HELD_OUT))
    if longer - strip < crop:
        raise ValueError(
            f"{stack.name} has {depth} {what} of {width} x {height} px, which leaves no room "
            f"to hold out a part beside crops of {crop} px: choose crop={longer - strip} "
            "or smaller, or give more slices."
        )
    if width >= height:
        return (
            Box(array[:, :, :-strip], stack.intensity),
            Box(array[:, :, -strip:], stack.intensity),
        )
    return Box(array[:, :-strip], stack.intensity), Box(array[:, -strip:], stack.intensity)


class TripletSampler:
    """Cuts, augments, noises and masks the samples of every step.

    Parameters
    ----------
    stacks
        The stacks to train on; larger ones are drawn from more often.
    settings
        How to make samples.

    Raises
    ------
    ValueError
        If no stack is given, or one is too small.
    """

    def __init__(self, stacks: Sequence[TrainingStack], settings: SampleSettings):
        if not stacks:
            raise ValueError("stacks is empty, but training needs at least one stack.")
        self.settings = settings
        self.mask_shape = MaskShape.from_text(settings.mask_shape or "0,0,0")
        parts = [split(stack, settings) for stack in stacks]
        self.training = [part[0] for part in parts]
        self.held_out = [part[1] for part in parts]

    def batch(self, step: int, part: range | None = None) -> Batch:
        """Return the samples of a step, the same for the same step and seed.

        Parameters
        ----------
        step
            Number of the step.
        part
            Which samples of the step's batch to make; all when left out.  Every sample is drawn by
            itself, so that processes can share the work on a batch.
        """
        seed, crop = self.settings.seed, self.settings.crop
        samples = [
            self._sample(np.random.default_rng([seed, step, index]), self.training, crop, None)
            for index in (range(self.settings.batch) if part is None else part)
        ]
        return stacked(samples)

    def validation(self, count: int, crop: int) -> list[Batch]:
        """Return ``count`` held-out samples, one a batch, the same at every call.

        Consensus Noise2Noise cannot see blur, so its samples are made for the masked-centre error.

        Parameters
        ----------
        count
            Number of samples.
        crop
            Edge of the crops in pixels; made smaller where the held-out part is.
        """
        largest = min(min(box.array.shape[1:]) for box in self.held_out)
        rng = np.random.default_rng([self.settings.seed, VALIDATION_STREAM])
        return [
            stacked([self._sample(rng, self.held_out, min(crop, largest), (index + 0.5) / count)])
            for index in range(count)
        ]

    def example(self, crop: int) -> Batch:
        """Return one held-out sample to look at, nothing masked, the same at every call.

        Parameters
        ----------
        crop
            Edge of the crop in pixels; made smaller where the held-out part is.
        """
        shown = copy.copy(self)
        shown.settings = replace(
            self.settings, objective="consensus", keep_orientation=True, rescale=None
        )
        largest = min(min(box.array.shape[1:]) for box in self.held_out)
        rng = np.random.default_rng([self.settings.seed, VALIDATION_STREAM + 1])
        return stacked([shown._sample(rng, self.held_out, min(crop, largest), None)])

    def _sample(
        self,
        rng: np.random.Generator,
        boxes: Sequence[Box],
        crop: int,
        place: float | None,
    ) -> tuple[NDArray[np.float32], ...]:
        """Make one sample; ``place`` in [0, 1] spreads validation samples over the levels."""
        settings = self.settings
        sizes = np.array([box.array.size for box in boxes], dtype=float)
        box = boxes[rng.choice(len(boxes), p=sizes / sizes.sum())]
        clean = self._cut(rng, box, crop, augment=place is None)
        noisy, variance = self._noise(rng, clean, place)
        previous, centre, following = noisy
        if settings.objective == "clean":
            power = POWERS[settings.weighting]
            weight = np.full((1, 1), (variance + VARIANCE_FLOOR) ** -power, np.float32)
            return previous, centre, following, clean[1], weight
        if settings.objective == "masked" or place is not None:
            masked, mask = mask_pixels(noisy, settings.mask, rng, self.mask_shape)
            weight = mask.astype(np.float32) / np.float32(mask.mean())
            return masked[0], masked[1], masked[2], centre, weight
        return previous, centre, following, centre, np.ones((1, 1), np.float32)

    def _cut(
        self, rng: np.random.Generator, box: Box, crop: int, augment: bool
    ) -> NDArray[np.float32]:
        """Cut a (3, crop, crop) triplet and map its grey values."""
        settings = self.settings
        array = box.array
        if settings.isotropic and not settings.scans:
            fitting = [
                axis
                for axis in range(3)
                if array.shape[axis] >= 3 and min(np.delete(array.shape, axis)) >= crop
            ]
            array = np.moveaxis(array, int(rng.choice(fitting)), 0) if fitting else array
        size = crop
        if augment and settings.rescale is not None:
            low, high = settings.rescale
            size = min(round(crop / rng.uniform(low, high)), *array.shape[1:])
        depth, height, width = array.shape
        y = int(rng.integers(height - size + 1))
        x = int(rng.integers(width - size + 1))
        if settings.scans:
            chosen = rng.permutation(depth)[:3]
        else:
            chosen = int(rng.integers(1, depth - 1)) + np.array([-1, 0, 1])
        triplet = np.stack([array[index, y : y + size, x : x + size] for index in chosen])
        if augment and not settings.keep_orientation:
            for axis in (0, 1, 2):
                if rng.random() < 0.5:
                    triplet = np.flip(triplet, axis)
            # Noise that is alike along one axis must stay along it, as the mask does.
            if rng.random() < 0.5 and self.mask_shape.x == self.mask_shape.y:
                triplet = np.swapaxes(triplet, 1, 2)
        mapped = to_unit(triplet, box.intensity)
        return resize(mapped, crop) if size != crop else np.ascontiguousarray(mapped)

    def _noise(
        self, rng: np.random.Generator, clean: NDArray[np.float32], place: float | None
    ) -> tuple[NDArray[np.float32], float]:
        """Return the triplet with synthetic noise, if asked for, and the centre's variance."""
        settings = self.settings
        if settings.poisson is None and settings.gaussian is None:
            return clean, 0.0
        clip = rng.random() < settings.clipped
        if settings.levels == "uniform":
            levels = [self._uniform_levels(rng) for _ in range(3)]
        else:
            levels = [self._spread_levels(rng, place)] * 3
        noisy = np.stack(
            [
                add_noise(image, peak=peak, sigma=sigma, rng=rng, clip=clip)
                for image, (peak, sigma) in zip(clean, levels, strict=True)
            ]
        )
        peak, sigma = levels[1]
        return noisy, noise_variance(float(clean[1].mean()), peak=peak, sigma=sigma)

    def _uniform_levels(self, rng: np.random.Generator) -> tuple[float | None, float | None]:
        """Draw both levels uniformly, as the paper does for every image."""
        peak, sigma = self.settings.poisson, self.settings.gaussian
        return (
            None if peak is None else rng.uniform(*peak),
            None if sigma is None else rng.uniform(*sigma),
        )

    def _spread_levels(
        self, rng: np.random.Generator, place: float | None
    ) -> tuple[float | None, float | None]:
        """Draw a peak evenly over its logarithm, a sigma, or (one in five) both.

        A peak drawn uniformly from 1 … 50 is hardly ever small, where the noise is strongest.  A
        sigma is drawn evenly, or as the peak is; then the ends of the ranges are drawn too.
        """
        settings = self.settings
        logarithmic = settings.levels == "logarithmic"
        where = rng.random() if place is None else place * 5 % 1
        kind = rng.random() if place is None else place
        peak = sigma = None
        if settings.poisson is not None:
            peak = over_logarithm(settings.poisson, to_the_ends(where) if logarithmic else where)
        if settings.gaussian is not None:
            low, high = settings.gaussian
            share = rng.random() if place is None else where
            sigma = (
                over_logarithm(settings.gaussian, to_the_ends(share))
                if logarithmic
                else float(low + share * (high - low))
            )
        if peak is not None and sigma is not None:
            if kind < 0.4:
                sigma = None
            elif kind < 0.8:
                peak = None
        return peak, sigma


def over_logarithm(levels: tuple[float, float], share: float) -> float:
    """Return the level at a share of a range, even over its logarithm; 0 is the low end."""
    low, high = levels
    return float(low * (high / low) ** share)


def to_the_ends(share: float) -> float:
    """Spread a share of [0, 1) so that some of it lies exactly at 0 and at 1."""
    return float(np.clip((share - AT_THE_END) / (1 - 2 * AT_THE_END), 0, 1))


def stacked(samples: Sequence[tuple[NDArray[np.float32], ...]]) -> Batch:
    """Put the parts of samples, each (H, W), together to those of a batch, (B, 1, H, W)."""
    return Batch(*(np.stack(part)[:, None] for part in zip(*samples, strict=True)))


def resize(triplet: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Resample (3, H, W) to (3, size, size), smoothing first where it shrinks."""
    from skimage.transform import resize as resample

    resampled: NDArray[np.float32] = resample(
        triplet, (len(triplet), size, size), order=1, anti_aliasing=True, preserve_range=True
    ).astype(np.float32)
    return resampled
