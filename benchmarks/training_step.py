"""What a training step costs: the shared form against the plain one, and what comes on top.

    python benchmarks/training_step.py [--units 3] [--maps 32] [--crop 64] [--batch 8] [--threads 2]

By turns: forward and backward of the plain network (*plain*), of the form that training uses
(*shared*), and whole steps of :func:`nrrn_fiji.training.train` (*step*), that is with samples cut,
turned and noised, the optimiser, the running average of the weights and the record of losses, but
without validations.  The ratios are of one turn, their median is printed, by the clock and by
processor time.  A step should cost at most 1.2 times the bare forward and backward.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from nrrn_fiji.both_branches import both_branches
from nrrn_fiji.network import NRRN
from nrrn_fiji.progress import NoProgress
from nrrn_fiji.settings import TrainSettings
from nrrn_fiji.training import resolve, sample_settings, train
from nrrn_fiji.triplets import TrainingStack, TripletSampler


class Steps(NoProgress):
    """Notes when each step was over, by the clock and by processor time."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def update(self, done: float, total: float, text: str = "") -> None:
        if "validating" not in text:
            self.seen.append((time.perf_counter(), time.process_time()))


def both_clocks(work: Callable[[], object], count: int) -> np.ndarray:
    """Return milliseconds per repetition by the clock and by processor time."""
    clock, processor = time.perf_counter(), time.process_time()
    for _ in range(count):
        work()
    return 1e3 / count * np.array([time.perf_counter() - clock, time.process_time() - processor])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--units", type=int, default=3)
    parser.add_argument("--maps", type=int, default=32)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8, help="of each kind in a turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 256, (60, 256, 256), dtype=np.uint8)
    asked = TrainSettings(
        units=args.units,
        maps=args.maps,
        crop=args.crop,
        batch=args.batch,
        steps=args.steps + 2,
        poisson=(1, 50),
        gaussian=(10, 75),
        rescale=(0.5, 2.0),
    )
    settings = resolve(asked, device=torch.device("cpu"), precision="fp32", objective="clean")
    sampler = TripletSampler([TrainingStack(stack, (0, 255))], sample_settings(settings))
    network = NRRN(args.units, args.maps).to(memory_format=torch.channels_last)
    images = [torch.from_numpy(part) for part in sampler.batch(0)]

    def bare(shared: bool) -> None:
        network.zero_grad(set_to_none=True)
        a, b = both_branches(network, *images[:3]) if shared else network.branches(*images[:3])
        (((a + b) / 2 - images[3]).square() * images[4]).mean().backward()

    def whole() -> np.ndarray:
        steps = Steps()
        with tempfile.TemporaryDirectory() as folder:
            train(
                network,
                sampler,
                settings,
                checkpoint=Path(folder) / "checkpoint.safetensors",
                validate_every=10**6,
                progress=steps,
            )
        between = np.diff(np.array(steps.seen), axis=0)[1:]
        return 1e3 * np.median(between, axis=0)

    bare(False)
    sample = both_clocks(lambda: sampler.batch(1), 5)
    turns = [
        [
            both_clocks(lambda: bare(False), args.steps),
            both_clocks(lambda: bare(True), args.steps),
            whole(),
        ]
        for _ in range(args.turns)
    ]
    plain, shared, step = np.median(turns, axis=0)
    print(
        f"{args.units} units × {args.maps} maps, {args.batch} crops of {args.crop}², "
        f"{args.threads} threads: milliseconds by the clock (of the processors)"
    )
    for name, times in (("plain", plain), ("shared", shared), ("step", step), ("samples", sample)):
        print(f"  {name:7} {times[0]:7.0f} ({times[1]:.0f})")
    gain = np.median([turn[0] / turn[1] for turn in turns], axis=0)
    cost = np.median([turn[2] / turn[1] for turn in turns], axis=0)
    print(
        f"  plain / shared {gain[0]:.3f} ({gain[1]:.3f}),  step / shared {cost[0]:.3f}"
        f" ({cost[1]:.3f})"
    )


if __name__ == "__main__":
    main()
