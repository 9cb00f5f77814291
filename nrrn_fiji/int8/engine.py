"""The network with 8-bit integer convolutions, for CPUs that multiply bytes four times as fast.

The convolutions C → C take their inputs as bytes and their kernels as signed bytes; products are
summed exactly, in 32-bit integers.  Everything else stays in fp32 as in :mod:`nrrn_fiji.fused`:
the images, the first convolution, the gates, the maps that the noise estimate is taken from and
its sum.  So what is rounded is what one convolution hands to the next, to 255 steps of the range
that each map really uses.

These ranges come from the weights alone: the network is run on a few made images
(:mod:`.activations`), so they depend neither on tiles nor on the volume, and the same
model gives the same pixels.  On these images the error is known, too
(:func:`error_on_made_images`): this module must never be chosen for a model whose error there is
above the condition of docs/decisions/precision.md.

How kernels are rounded is in :mod:`.kernels`; tiles are computed strip by strip (:mod:`.strips`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..device import check_int8
from ..fused import Centre, FusedNRRN
from ..network import NRRN
from . import gates as compiled
from .activations import made_images, observe
from .kernels import Packed, Scale, convolve
from .room import Room
from .strips import Strips, Threads

__all__ = ["QuantisedNRRN", "error_on_made_images"]


class Known:
    """What is known of a network with its present weights."""

    def __init__(self, network: NRRN, state: tuple[int, ...]):
        self.state = state
        with one_thread():
            self.seen = observe(network)
        self.packed: dict[int, Packed] = {}
        self.error: tuple[float, float] | None = None


_known: WeakKeyDictionary[NRRN, Known] = WeakKeyDictionary()


def known(network: NRRN) -> Known:
    """Return what is known of a network, kept until its weights change.

    Raises
    ------
    FloatingPointError
        If a weight is not finite: rounding would hide it.
    """
    state = tuple(number for p in network.parameters() for number in (p.data_ptr(), p._version))
    kept = _known.get(network)
    if kept is None or kept.state != state:
        if not all(bool(torch.isfinite(value).all()) for value in network.parameters()):
            raise FloatingPointError(
                "The network's result is not finite: the model is damaged, so choose another one."
            )
        _known[network] = kept = Known(network, state)
    return kept


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread: the last bit of a sum depends on how many share it.

    Rounding kernels together makes more of it: half a grey level in the result, which must not
    differ between the workers of a run, nor when it goes on with more threads.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def error_on_made_images(network: NRRN) -> tuple[float, float]:
    """Measure what rounding to bytes costs a network, at noise up to a sigma of 75.

    Not at Poisson noise of peak 1, where the image itself is hardly known.

    Returns
    -------
    rms, worst
        Difference between int8 and fp32 in grey levels of 255: the largest root mean square of a
        made image, and the largest of a pixel.
    """
    kept = known(network)
    if kept.error is None:
        engine = QuantisedNRRN(network)
        errors = []
        made, changes = made_images().unsqueeze(2)[:-2], kept.seen.change[:-2].cpu()
        for (before, here, after), change in zip(made, changes, strict=True):
            centre = engine.centre(here)
            both = [engine.branches(beside, [centre])[0][-1] for beside in (before, after)]
            errors.append(255 * ((both[0] + both[1]) / 2 - change))
        rms = max(float(error.square().mean().sqrt()) for error in errors)
        kept.error = rms, max(float(error.abs().max()) for error in errors)
    return kept.error


class QuantisedNRRN(FusedNRRN):
    """A network on the CPU with 8-bit convolutions; used as :class:`nrrn_fiji.fused.FusedNRRN` is.

    Parameters
    ----------
    network
        The network, fp32; it is not changed.
    units, every, orientation
        As for :class:`nrrn_fiji.fused.FusedNRRN`.

    Raises
    ------
    ValueError
        If ``units`` is not in 1 … L, or this machine cannot do it.
    FloatingPointError
        If a weight is not finite: rounding would hide it.
    """

    def __init__(
        self,
        network: NRRN,
        *,
        units: int | None = None,
        every: bool = False,
        orientation: int = 0,
    ):
        check_int8(torch.device("cpu"))
        super().__init__(
            network,
            device=torch.device("cpu"),
            units=units,
            every=every,
            orientation=orientation,
            merged=False,
        )
        self.maps = network.maps
        self.threads, self.room = Threads(), Room(network.maps)
        packed = known(network).packed
        if orientation not in packed:
            with one_thread():
                packed[orientation] = Packed.of(network, known(network).seen.ranges, orientation)
        self.packed = packed[orientation]

    @torch.inference_mode()
    def centre(self, image: Tensor) -> Centre:
        """Compute what both branches of a centre (B, 1, H, W) share."""
        images = image.split(1)
        height, width = image.shape[2:]
        self.room.use_for(height, width)
        gates = tuple(self.room.take(height, width, count=len(images)) for _ in range(3))
        strips = Strips(height, width * self.maps, self.threads)
        for i, one in enumerate(images):
            features = self._features_as_bytes(one, strips)

            def convolve_strip(start: int, stop: int, i: int = i, x: Tensor = features) -> None:
                for gate, kernel in zip(gates, self.packed.W[0], strict=True):
                    gate[i : i + 1, :, start:stop] = convolve(x[:, :, start : stop + 2], kernel)

            strips.each(convolve_strip)
            self.room.give_back(features)
        return Centre(image, gates)

    def release(self, centre: Centre) -> None:
        """Take back the memory of a centre that is needed no more."""
        self.room.give_back(*centre.gates)

    def _branches(self, neighbour: Tensor, centres: Sequence[Centre]) -> list[Tensor]:
        height, width = neighbour.shape[2:]
        results: list[list[Tensor]] = [[] for _ in centres]
        self.room.use_for(height, width)
        strips = Strips(height, width * self.maps, self.threads)
        for i, one in enumerate(neighbour.split(1)):
            part = slice(i, i + 1)
            beside = [
                Centre(centre.image[part], tuple(gate[part] for gate in centre.gates))
                for centre in centres
            ]
            for result, changes in zip(results, self._one(one, beside, strips), strict=True):
                result.append(changes)
        return [torch.cat(result, dim=1) for result in results]

    def _one(self, neighbour: Tensor, centres: list[Centre], strips: Strips) -> list[Tensor]:
        """Compute the branches of one window, (1, 1, H, W): (E, 1, 1, H, W) for each centre."""
        height, width = neighbour.shape[2:]
        change = [torch.zeros_like(neighbour) for _ in centres]
        changes: list[list[Tensor]] = [[] for _ in centres]
        m = self._features_as_bytes(neighbour, strips)
        precise = self.room.take(height, width)
        states: list[Tensor] = []
        for unit in range(self.units):
            before, m = m, self._blank(height, width, self.packed.memory[unit])
            earlier = states
            states = [self._blank(height, width, self.packed.state[unit]) for _ in centres]

            def memory_strip(
                start: int, stop: int, unit: int = unit, before: Tensor = before, m: Tensor = m
            ) -> None:
                maps = convolve(before[:, :, start : stop + 2], self.packed.W1[unit])
                factor, zero = self.packed.memory[unit].arrays
                compiled.memory(
                    view(maps),
                    factor,
                    zero,
                    view(precise, start, stop),
                    view(m, start + 1, stop + 1),
                )

            def gate_strip(
                start: int,
                stop: int,
                unit: int = unit,
                m: Tensor = m,
                earlier: list[Tensor] = earlier,
                states: list[Tensor] = states,
            ) -> None:
                v = [
                    view(convolve(m[:, :, start : stop + 2], kernel))
                    for kernel in self.packed.V[unit]
                ]
                factor, zero = self.packed.state[unit].arrays
                for i, centre in enumerate(centres):
                    if unit == 0:
                        w = [view(gate, start, stop) for gate in centre.gates]
                    else:
                        padded = earlier[i][:, :, start : stop + 2]
                        w = [view(convolve(padded, kernel)) for kernel in self.packed.W[unit]]
                    compiled.gates(
                        v[0],
                        v[1],
                        v[2],
                        w[0],
                        w[1],
                        w[2],
                        view(precise, start, stop),
                        plane(centre.image, start, stop),
                        plane(change[i], start, stop),
                        factor,
                        zero,
                        view(states[i], start + 1, stop + 1),
                    )

            strips.each(memory_strip)
            strips.each(gate_strip)
            self.room.give_back(before, *earlier)
            if self.every:
                for kept, now in zip(changes, change, strict=True):
                    kept.append(now.clone())
        if self.closes:

            def closing_strip(start: int, stop: int) -> None:
                for state, now in zip(states, change, strict=True):
                    maps = convolve(state[:, :, start : stop + 2], self.packed.W2)
                    compiled.close(view(maps), plane(now, start, stop))

            strips.each(closing_strip)
        self.room.give_back(m, precise, *states)
        if self.closes or not self.every:
            for kept, now in zip(changes, change, strict=True):
                kept.append(now)
        return [torch.stack(kept) for kept in changes]

    def _features_as_bytes(self, image: Tensor, strips: Strips) -> Tensor:
        """ReLU(W0 * image) as bytes, (1, C, H + 2, W + 2)."""
        height, width = image.shape[2:]
        weight, bias = self.W0
        bytes_ = self._blank(height, width, self.packed.features)
        padded = functional.pad(image, (1, 1, 1, 1))[0, 0]
        kernels = weight.flatten(1).T
        factor, zero = self.packed.features.arrays

        def features_strip(start: int, stop: int) -> None:
            # As a matrix product: torch's convolutions are slow with a single map.
            shifted = torch.stack(
                [
                    padded[start + y : stop + y, x : x + width].flatten()
                    for y, x in product(range(3), repeat=2)
                ]
            )
            maps = torch.addmm(bias, shifted.T, kernels).numpy().reshape(stop - start, width, -1)
            compiled.features(maps, factor, zero, view(bytes_, start + 1, stop + 1))

        strips.each(features_strip)
        return bytes_

    def _blank(self, height: int, width: int, scale: Scale) -> Tensor:
        """Make room for maps as bytes, with a border of the bytes that stand for 0."""
        maps = self.room.take(height + 2, width + 2, torch.uint8)
        zero = scale.zero.to(torch.uint8)[None, :, None, None]
        maps[:, :, :1] = maps[:, :, -1:] = zero
        maps[:, :, :, :1] = maps[:, :, :, -1:] = zero
        return maps


def view(maps: Tensor, start: int = 0, stop: int | None = None) -> NDArray[Any]:
    """Return rows of maps (1, C, H, W) as the array (rows, W, C) that shares their memory."""
    array: NDArray[Any] = maps[0, :, start:stop].permute(1, 2, 0).numpy()
    return array


def plane(image: Tensor, start: int, stop: int) -> NDArray[np.float32]:
    """Return rows of an image (1, 1, H, W) as the array (rows, W) that shares their memory."""
    array: NDArray[np.float32] = image[0, 0, start:stop].numpy()
    return array
