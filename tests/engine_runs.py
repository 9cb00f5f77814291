"""Runs of the engine on arrays, and a progress that remembers."""

from __future__ import annotations

import dataclasses

import numpy as np
from plain_engine import (
    ArraySource,
    published_network,
    strong_network,
)

from nrrn_fiji.denoising import denoise_slabs, make_plan
from nrrn_fiji.settings import DenoiseSettings

NETWORKS = {units: strong_network(units, edge=units == 2) for units in (1, 2, 3)}
PUBLISHED = published_network()


class Listener:
    """Progress that is remembered, and cancels after some updates."""

    def __init__(self, cancel_after=10**9):
        self.updates, self.messages, self.cancel_after = [], [], cancel_after

    def update(self, done, total, text=""):
        self.updates.append((done, total))

    def message(self, text):
        self.messages.append(text)

    @property
    def cancelled(self):
        return len(self.updates) >= self.cancel_after


def run(stack, network, *, span=(0, 1), batch=1, progress=None, slices=None, **asked):
    """Denoise an array; returns image, noise, units (E, Z, Y, X)."""
    chosen = DenoiseSettings(**{"device": "cpu", **asked})
    plan = make_plan(stack.shape, stack.dtype, network, chosen, span)
    plan = dataclasses.replace(plan, batch=batch)
    blocks = list(
        denoise_slabs(
            ArraySource(stack),
            network,
            plan,
            slices=slices,
            want_noise=True,
            want_units=True,
            progress=progress,
        )
    )
    return (
        np.concatenate([block.image for block in blocks]),
        np.concatenate([block.noise for block in blocks]),
        np.concatenate([block.units for block in blocks], axis=1),
    )


def noise_stack(shape, seed=0):
    """Random grey values on [0, 1), fp32."""
    return np.random.default_rng(seed).random(shape, np.float32)
