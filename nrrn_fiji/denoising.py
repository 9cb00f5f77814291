"""Stack in, stack out: slabs × tiles, neighbours rolled along z, progress, cancelling, recovery.

A stack is read slab by slab with one slice more on either side.  Within a slab every tile is
followed through all slices: each slice is once the neighbour of the one or two centres beside it
(:mod:`nrrn_fiji.fused`), so nothing but the current slices of a tile is held.

This module must never let the result depend on tiles or slabs, hold more than a slab and two
slices of its source, or write anything: it yields blocks, in order, to whoever keeps them.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Container, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .device import is_out_of_memory, release_memory
from .engines import estimate_seconds, make_engine
from .fused import Centre, FusedNRRN
from .intensity import Source, check_dtype, fill_invalid, invalid_mask, restore, to_unit
from .network import NRRN
from .plan import CPU_TILE, SMALLEST_TILE, Plan, make_plan
from .progress import Cancelled, NoProgress, Progress
from .tiles import Window, slabs, windows

__all__ = ["Block", "Plan", "Source", "denoise_slabs", "estimate_seconds", "make_plan"]

Pairs = dict[int, list[tuple[int, float]]]
"""Neighbour -> its centres, each with the weight of this branch; in the order of z."""


class Block(NamedTuple):
    """Denoised slices ``start`` … ``stop - 1`` of the source."""

    start: int
    stop: int
    image: NDArray[Any]
    """(stop - start, Y, X), type of the source."""
    noise: NDArray[np.float32] | None
    """(stop - start, Y, X), input − image in grey values."""
    units: NDArray[np.float32] | None
    """(L + 1, stop - start, Y, X), x̂[1] … x̂[L] and the final estimate in grey values; (k, …) when
    k units of more are computed."""
    plan: Plan
    """By which it was computed: the one given, but where memory ran out."""


def denoise_slabs(
    source: Source,
    network: NRRN,
    plan: Plan,
    *,
    slices: range | None = None,
    done: Container[int] = (),
    want_noise: bool = False,
    want_units: bool = False,
    progress: Progress | None = None,
    said: set[str] | None = None,
) -> Iterator[Block]:
    """Denoise a stack slab by slab.

    Parameters
    ----------
    source
        The stack; read in order, at most ``plan.slab + 2`` slices held at a time.
    network
        The network that the plan was made for.
    plan
        From :func:`make_plan`.
    slices
        Consecutive slices to denoise, all when left out; neighbours outside are used.
    done
        Indices of slabs to skip: slab i begins at ``slices.start + i * plan.slab``.
    want_noise, want_units
        Fill these fields of the blocks.
    progress
        Is told how many slices are done, what was noticed, and asked whether to stop.
    said
        What was noticed in other stacks of the same image and is not said again; grows.

    Yields
    ------
    Block
        In order; with ``scans`` a single block of one slice, numbered 0.

    Raises
    ------
    ValueError
        If ``slices`` is not within the stack, or the source is not what was planned.
    Cancelled
        When the user stops.
    MemoryError
        If memory runs out even with the smallest tiles on the CPU.
    FloatingPointError
        If the network's result is not finite: damaged weights, or too small a precision.
    """
    progress = NoProgress() if progress is None else progress
    if tuple(source.shape) != plan.shape or check_dtype(source.dtype).name != plan.dtype:
        raise ValueError(
            f"The stack is {tuple(source.shape)} {np.dtype(source.dtype)}, but the plan is for "
            f"{plan.shape} {plan.dtype}: make a new plan."
        )
    depth = plan.shape[0]
    if slices is None or plan.scans:
        slices = range(depth)
    elif slices.step != 1 or not 0 <= slices.start < slices.stop <= depth:
        raise ValueError(
            f"slices is {slices.start}:{slices.stop}, but the stack has slices 0 … {depth - 1} "
            f"(0:{depth}), to be taken in order: choose some of these."
        )
    run = _Run(source, network, plan, want_noise, want_units, progress)
    run.said = set() if said is None else said
    todo = [slab for i, slab in enumerate(slabs(slices, plan.slab)) if i not in done]
    run.total = 1 if plan.scans else sum(map(len, todo))
    for slab in todo:
        block = run.denoise(slab)
        run.finished += block.stop - block.start
        yield block
        del block  # before the next slab is computed


class _Run:
    """One pass over a stack: what stays the same, and what is carried from slab to slab."""

    def __init__(
        self,
        source: Source,
        network: NRRN,
        plan: Plan,
        want_noise: bool,
        want_units: bool,
        progress: Progress,
    ):
        self.source, self.network, self.plan, self.progress = source, network, plan, progress
        self.want_noise, self.want_units = want_noise, want_units
        self.dtype = np.dtype(plan.dtype)
        self.tile, self.batch = plan.tile, plan.batch
        self.device = torch.device(plan.device)
        self.precision = plan.precision
        self.engines: list[FusedNRRN] = []
        self.total, self.finished = 0, 0
        self.held: dict[int, _Slice] = {}
        self.said: set[str] = set()

    def _engines(self) -> list[FusedNRRN]:
        """Return the network as it sees the image in each of the plan's orientations."""
        engines = [
            make_engine(
                self.network,
                device=self.device,
                precision=self.precision,
                units=self.plan.units,
                every=self.want_units,
                orientation=orientation,
            )
            for orientation in range(self.plan.orientations)
        ]
        if engines[0].lacks:
            self.say(
                "The GPU takes longer than it could: it computes gates in several passes over its "
                f"memory, because a single one needs {engines[0].lacks}."
            )
        return engines

    def say(self, text: str, first: str = "") -> None:
        """Tell the user something once, and where it was seen first."""
        if text not in self.said:
            self.said.add(text)
            self.progress.message(f"{text} {first}".rstrip())

    def check_cancelled(self) -> None:
        if self.progress.cancelled:
            raise Cancelled(f"Stopped after {self.finished} of {self.total} slices.")

    def denoise(self, slab: range) -> Block:
        """Read, denoise and return one slab."""
        self.check_cancelled()
        with self.slab_fits():
            self.read(slab)
        if self.plan.scans:
            pairs, centres = self.scan_pairs(), range(1)
        else:
            pairs, centres = self.stack_pairs(slab), slab
        kept = 1
        if self.want_units:
            kept = self.plan.units + (self.plan.units == self.network.units)
        with self.slab_fits():
            changes = np.zeros((kept, len(centres), *self.plan.shape[1:]), np.float32)
        if self.plan.intensity[0] == self.plan.intensity[1]:
            self.say(
                f"All pixels that were looked at equal {self.plan.intensity[0]:g}: "
                "the image is returned as it is."
            )
        else:
            self.compute_or_shrink(pairs, centres, changes)
        with self.slab_fits():
            return self.block(centres, changes)

    @contextmanager
    def slab_fits(self) -> Iterator[None]:
        """Say what to do where a slab itself is too large for memory."""
        try:
            yield
        except MemoryError as error:
            raise MemoryError(
                f"Slabs of {self.plan.slab} slices do not fit into it: close other programs, or "
                "choose a smaller slab."
            ) from error

    def read(self, slab: range) -> None:
        """Hold the slab's slices and the one on either side; keep what is already there."""
        depth = self.plan.shape[0]
        alone = self.plan.images == 1 or self.plan.scans
        margin = 0 if alone else 1
        wanted = range(max(0, slab.start - margin), min(depth, slab.stop + margin))
        # Copies: a view would keep the whole slab that it was read with.
        self.held = {z: held.copy() for z, held in self.held.items() if z in wanted}
        start = wanted.start + len(self.held)
        if start == wanted.stop:
            return
        images = np.asarray(self.source.read(start, wanted.stop))
        if images.shape != (wanted.stop - start, *self.plan.shape[1:]):
            raise ValueError(
                f"Slices {start} … {wanted.stop - 1} were read as an array of {images.shape}, but "
                f"{(wanted.stop - start, *self.plan.shape[1:])} was expected: check the file."
            )
        for z, image in zip(range(start, wanted.stop), images, strict=True):
            self.held[z] = held = _Slice.look_at(image.astype(self.dtype, copy=False))
            if held.filled is None:
                self.say(
                    "Slices without any valid pixel (NaN, infinite or black) are returned "
                    "unchanged, and the slices beside them use their other neighbour.",
                    f"The first is slice {z}, counted from 0.",
                )
            elif held.invalid is not None:
                self.say(
                    "Pixels that are NaN or infinite, or black borders left by registration, are "
                    "returned unchanged.",
                    f"The first are in slice {z}, counted from 0.",
                )

    def stack_pairs(self, slab: range) -> Pairs:
        """List which neighbours serve which centres of a slab, and with what weight."""
        pairs: Pairs = {}
        for z in slab:
            if self.held[z].filled is None:
                continue
            neighbours = self.neighbours(z)
            for neighbour in neighbours:
                pairs.setdefault(neighbour, []).append((z, 1 / len(neighbours)))
        return dict(sorted(pairs.items()))

    def neighbours(self, z: int) -> list[int]:
        """Return the neighbours of slice ``z``: two, or one where the other would be the same.

        At the ends of the stack, and beside a slice without valid pixels, the neighbour on the
        other side takes the missing one's place; without either a slice is its own neighbour.
        """
        if self.plan.images == 1:
            return [z]
        around = (z + 1, z - 1)
        there = [n for n in around if n in self.held and self.held[n].filled is not None]
        if not there:
            return [z]
        return there if self.plan.images == 3 else there[:1]

    def scan_pairs(self) -> Pairs:
        """List the pairs for scans of one slice; their centre is made here, as slice 0.

        Three scans: the second is the centre of the other two.  Two: their mean is the centre of
        both.
        """
        scans = list(self.held.values())
        if len(scans) == 3:
            first, centre, last = scans
        else:
            first, last = scans
            centre = _Slice.mean(first, last)
        self.held = {0: centre, 1: first, 2: last}
        if centre.filled is None:
            return {}
        usable = [z for z in (1, 2) if self.held[z].filled is not None] or [0]
        return {z: [(0, 1 / len(usable))] for z in usable}

    def compute_or_shrink(self, pairs: Pairs, centres: range, changes: NDArray[np.float32]) -> None:
        """Fill ``changes``; when memory runs out, with smaller tiles, and at last on the CPU."""
        while True:
            try:
                if not self.engines:
                    self.engines = self._engines()
                self.compute(pairs, centres, changes)
                return
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            # Out of the handler: the error would keep the tensors alive.
            self.shrink()

    def shrink(self) -> None:
        gc.collect()
        release_memory(self.device)
        smaller = self.tile // 2
        if not self.engines and self.device.type != "cpu":
            self.say(f"Memory on {self.device} does not hold the network: going on on the CPU.")
            self.to_cpu()
        elif self.batch > 1:
            self.batch = 1
            self.say(f"Memory ran out on {self.device}: going on with one tile at a time.")
        elif smaller >= max(SMALLEST_TILE, self.plan.halo):
            self.say(
                f"Memory ran out on {self.device}: going on with tiles of {smaller} px instead of "
                f"{self.tile} px (the result does not depend on it)."
            )
            self.tile = smaller
        elif self.device.type != "cpu":
            self.say(f"Memory ran out on {self.device} even with small tiles: going on on the CPU.")
            self.to_cpu()
        else:
            raise MemoryError(
                f"Memory ran out even with tiles of {self.tile} px: close other programs, or "
                f"choose a slab below {self.plan.slab} slices."
            )

    def to_cpu(self) -> None:
        """Compute on the CPU from now on."""
        self.device, self.engines = torch.device("cpu"), []
        if self.precision == "fp16":  # which CPUs do not compute in
            self.precision = "fp32"
        self.tile, self.batch = max(CPU_TILE, self.plan.halo), 1

    def compute(self, pairs: Pairs, centres: range, changes: NDArray[np.float32]) -> None:
        """Follow every batch of tiles through the slices of a slab."""
        tiles = windows(self.plan.shape[1:], self.tile, self.plan.halo)
        batches = [tiles[i : i + self.batch] for i in range(0, len(tiles), self.batch)]
        steps = len(batches) * max(1, len(pairs)) * len(self.engines)
        step = 0
        changes.fill(0)  # memory may have run out half-way
        for batch, engine in product(batches, self.engines):
            for ready in self.follow(batch, pairs, engine):
                for z, estimate in ready:
                    self.keep(batch, changes[:, z - centres.start], estimate)
                step += 1
                self.progress.update(self.finished + len(centres) * step / steps, self.total)
                self.check_cancelled()

    def follow(
        self, batch: list[Window], pairs: Pairs, engine: FusedNRRN
    ) -> Iterator[list[tuple[int, Tensor]]]:
        """Take a batch of tiles through the neighbours; yield the slices that each completes.

        A slice comes with its change, (E, B, 1, H, W) on the network's scale.
        """
        images: dict[int, Tensor] = {}
        ready: dict[int, Centre] = {}
        sums: dict[int, Tensor] = {}
        last_use = {z: neighbour for neighbour, users in pairs.items() for z, _ in users}
        for neighbour, users in pairs.items():
            for z in (neighbour, *(z for z, _ in users)):
                if z not in images:
                    images[z] = engine.load(self.load(batch, z))
            for z, _ in users:
                if z not in ready:
                    ready[z] = engine.centre(images[z])
            complete = []
            branches = engine.branches(images[neighbour], [ready[z] for z, _ in users])
            for (z, weight), branch in zip(users, branches, strict=True):
                if weight != 1:
                    branch = branch * weight
                sums[z] = sums[z] + branch if z in sums else branch
                if last_use[z] == neighbour:
                    engine.release(ready.pop(z))
                    complete.append((z, sums.pop(z)))
            # Later steps look back one slice at most.
            images = {z: image for z, image in images.items() if z >= neighbour or z in ready}
            yield complete

    def load(self, batch: list[Window], z: int) -> Tensor:
        """Return the windows of slice ``z`` on the network's scale, (B, 1, H, W), on the CPU."""
        image = self.held[z].filled
        assert image is not None
        parts = [
            to_unit(image[y.start : y.stop, x.start : x.stop], self.plan.intensity)
            for y, x in batch
        ]
        return torch.from_numpy(np.stack(parts)[:, None])

    def keep(self, batch: list[Window], into: NDArray[np.float32], estimate: Tensor) -> None:
        """Add one orientation's share of a batch of windows, (E, B, 1, H, W), to (E, Y, X)."""
        values = estimate.cpu().numpy()
        if not np.isfinite(values).all():
            raise FloatingPointError(
                f"The network's result is not finite in {self.precision}: choose precision fp32; "
                "if that is in use, the model is damaged, so choose another one."
            )
        for i, (y, x) in enumerate(batch):
            kept = values[
                :, i, 0, y.first - y.start : y.last - y.start, x.first - x.start : x.last - x.start
            ]
            into[:, y.first : y.last, x.first : x.last] += kept / len(self.engines)

    def block(self, centres: range, changes: NDArray[np.float32]) -> Block:
        """Add the changes to the original slices."""
        kept, count = changes.shape[:2]
        plane = self.plan.shape[1:]
        image = np.empty((count, *plane), self.dtype)
        noise = np.empty((count, *plane), np.float32) if self.want_noise else None
        units = np.empty((kept, count, *plane), np.float32) if self.want_units else None
        span, strength = self.plan.intensity, self.plan.strength
        for i, z in enumerate(centres):
            held = self.held[z]
            image[i] = restore(held.image, changes[-1, i], span, self.dtype, strength)
            if held.invalid is not None:
                image[i][held.invalid] = held.image[held.invalid]
            if noise is not None:
                with np.errstate(invalid="ignore"):
                    noise[i] = np.subtract(held.image, image[i], dtype=np.float64)
                if held.invalid is not None:
                    noise[i][held.invalid] = 0
            if units is not None:
                for unit in range(kept):
                    change, kind = changes[unit, i], np.dtype(np.float32)
                    estimate = restore(held.image, change, span, kind, strength)
                    if held.invalid is not None:
                        estimate[held.invalid] = held.image[held.invalid]
                    units[unit, i] = estimate
        used = dataclasses.replace(
            self.plan,
            device=str(self.device),
            precision=self.precision,
            tile=self.tile,
            batch=self.batch,
        )
        return Block(centres.start, centres.stop, image, noise, units, used)


class _Slice(NamedTuple):
    """A slice that was read, and how the network sees it."""

    image: NDArray[Any]
    """(Y, X) as it came."""
    filled: NDArray[Any] | None
    """(Y, X) without invalid pixels; None if there is no valid one."""
    invalid: NDArray[np.bool_] | None
    """(Y, X), or None if all are valid."""

    @classmethod
    def look_at(cls, image: NDArray[Any]) -> _Slice:
        """Find and fill the invalid pixels."""
        invalid = invalid_mask(image)
        if invalid is None:
            return cls(image, image, None)
        return cls(image, None if invalid.all() else fill_invalid(image, invalid), invalid)

    @classmethod
    def mean(cls, one: _Slice, other: _Slice) -> _Slice:
        """Average two scans; where a pixel of one is invalid, the other one's stands for both."""
        images = []
        for scan, instead in ((one, other), (other, one)):
            image = scan.image.astype(np.float64)
            if scan.invalid is not None:
                image[scan.invalid] = instead.image[scan.invalid]
            images.append(image)
        with np.errstate(invalid="ignore"):  # inf − inf, where both are invalid
            return cls.look_at((images[0] + images[1]) / 2)

    def copy(self) -> _Slice:
        """Return a slice that shares no memory with the array that it was read with."""
        image = self.image.copy()
        return self._replace(image=image, filled=image if self.invalid is None else self.filled)
