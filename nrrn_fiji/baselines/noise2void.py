"""Noise2Void by CAREamics: what others use when only the noisy stack is there.

A U-Net of CAREamics' own, trained by CAREamics on single noisy slices with masked pixels.  It is
no :data:`~nrrn_fiji.baselines.trained.CONTENDERS` entry because nothing of its training is ours:
its samples, its schedule and its choice of weights are CAREamics' defaults, which is how users
meet it; budget and seed are stated.  A training that is stopped starts again from its beginning.

CAREamics is an extra (``nrrn-fiji[careamics]``), imported when it is asked for and never otherwise.
This module must never show it a clean image.

Source: Krull, Buchholz and Jug, *Noise2Void*, CVPR 2019; CAREamics 0.3.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from ..files import write_whole
from ..progress import Cancelled, NoProgress, Progress
from ..scoring import Candidate, Image

__all__ = ["careamics_is_installed", "train_noise2void"]

FACTS = "nrrn.noise2void"
"""Key in the header of a kept network, safetensors, of JSON that says how it came about."""

MULTIPLE = 32
"""Slices are padded to multiples of this, by reflection; CAREamics' U-Net halves them twice."""

MANY = 1_000_000


def careamics_is_installed() -> bool:
    """Whether the extra package ``careamics`` is there."""
    return find_spec("careamics") is not None


def train_noise2void(
    noisy: NDArray[np.float32],
    folder: Path,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    batch: int = 32,
    crop: int = 64,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Candidate:
    """Train Noise2Void on a noisy stack, or read it where it was trained before.

    Parameters
    ----------
    noisy
        Slices (Z, Y, X), grey values on about [0, 1].
    folder
        Where the trained network is kept; made if need be.
    steps, minutes
        Length of the training; exactly one of both.
    batch, crop
        Crops per step, and their edge in pixels.
    seed
        Seed of CAREamics' random choices.
    device
        ``"cpu"`` or ``"cuda"``.
    progress
        Told how far the training is; asked whether to stop.

    Returns
    -------
    Candidate
        It denoises the middle one of three slices and ignores the others.  Its setting says what
        its training was: ``steps``, ``seconds``.

    Raises
    ------
    ImportError
        If CAREamics is not installed.
    ValueError
        If not exactly one of ``steps`` and ``minutes`` is given, or ``noisy`` is no stack.
    Cancelled
        If the user stopped; nothing is kept.
    """
    if (steps is None) == (minutes is None):
        raise ValueError(
            f"steps is {steps} and minutes is {minutes}, but exactly one of them sets the length "
            "of the training: give one."
        )
    if noisy.ndim != 3 or min(noisy.shape[1:]) < crop:
        raise ValueError(
            f"noisy has the shape {noisy.shape}, but Noise2Void needs slices (Z, Y, X) of at "
            f"least {crop} x {crop} px: give a stack, or smaller crops."
        )
    if not careamics_is_installed():
        raise ImportError(
            "Noise2Void needs the package careamics, which is not installed: "
            'pip install "nrrn-fiji[careamics]".'
        )
    try:
        package = version("careamics")
    except PackageNotFoundError:
        package = "unknown"
    values = np.ascontiguousarray(noisy, dtype=np.float32)
    facts: dict[str, Any] = {
        "careamics": package,
        "steps": steps,
        "minutes": minutes,
        "batch": batch,
        "crop": crop,
        "seed": seed,
        "device": device,
        "data": hashlib.sha256(values.tobytes()).hexdigest(),
        "mean": float(values.mean()),
        "sd": float(values.std()) or 1.0,
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"noise2void-{digest[:12]}.safetensors"
    progress = progress or NoProgress()
    with tempfile.TemporaryDirectory(prefix=".careamics-", dir=folder) as scratch:
        careamist, report = careamics(facts, Path(scratch), progress)
        network: nn.Module = careamist.model
        took = read_kept(path, digest, network, progress)
        if took is None:
            started = time.monotonic()
            careamist.train(train_data=(values - facts["mean"]) / facts["sd"])
            if progress.cancelled:
                raise Cancelled("The training of Noise2Void was stopped; nothing of it is kept.")
            took = {"steps": report.steps, "seconds": round(time.monotonic() - started, 1)}
            state = {name: t.detach().cpu().contiguous() for name, t in weights(network).items()}
            write_whole(path, save(state, {FACTS: json.dumps({"digest": digest, "took": took})}))
    network.to(device).eval().requires_grad_(False)
    denoise = denoiser(network, facts["mean"], facts["sd"], device)
    return Candidate("noise2void", "Noise2Void (CAREamics)", 1, denoise, setting=took)


def careamics(facts: dict[str, Any], folder: Path, progress: Progress) -> tuple[Any, Any]:
    """Return CAREamics' engine with its defaults, and the callback that counts its steps."""
    from careamics import CAREamist
    from careamics.config.factories import create_advanced_n2v_config
    from lightning.pytorch.callbacks import Callback

    class Report(Callback):
        """Tells the progress, and stops the training when a user asks for it."""

        steps = 0

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            self.steps = trainer.global_step
            progress.update(self.steps, facts["steps"] or 0, f"Noise2Void, step {self.steps}")
            trainer.should_stop = trainer.should_stop or progress.cancelled

    length = {"max_steps": facts["steps"]} if facts["steps"] else {}
    if facts["minutes"]:
        length = {"max_time": {"seconds": 60 * facts["minutes"]}}
    report = Report()
    config = create_advanced_n2v_config(
        experiment_name="noise2void",
        data_type="array",
        axes="SYX",
        patch_size=[facts["crop"], facts["crop"]],
        batch_size=facts["batch"],
        num_epochs=MANY,
        normalization="none",  # done here once, so that one slice is normalised like the stack
        num_workers=0,
        trainer_params={
            "accelerator": "gpu" if facts["device"].startswith("cuda") else "cpu",
            "enable_model_summary": False,
            **length,
        },
        seed=facts["seed"] + 1,  # CAREamics takes no 0
    )
    engine = CAREamist(config, work_dir=folder, callbacks=[report], enable_progress_bar=False)
    return engine, report


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors of a network's state, without what is none."""
    return {name: t for name, t in network.state_dict().items() if isinstance(t, torch.Tensor)}


def read_kept(
    path: Path, digest: str, network: nn.Module, progress: Progress
) -> dict[str, float] | None:
    """Put a kept network's weights into ``network`` and return what its training took."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()[FACTS])
            if header["digest"] != digest:
                raise ValueError("it belongs to another training")
            network.load_state_dict({name: file.get_tensor(name) for name in weights(network)})
            took: dict[str, float] = header["took"]
            return took
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        progress.message(f"{path} cannot be read ({error}): it is trained again.")
        return None


def denoiser(network: nn.Module, mean: float, sd: float, device: str) -> Callable[[Image], Image]:
    """Return what denoises the middle one of three slices."""

    @torch.no_grad()
    def denoise(triplet: Image) -> Image:
        height, width = triplet.shape[1:]
        ends = (0, -height % MULTIPLE), (0, -width % MULTIPLE)
        image = (np.pad(triplet[1], ends, mode="reflect") - mean) / sd
        result = network(torch.from_numpy(image.astype(np.float32))[None, None].to(device))
        restored: Image = result[0, 0, :height, :width].cpu().numpy() * np.float32(sd)
        return restored + np.float32(mean)

    return denoise
