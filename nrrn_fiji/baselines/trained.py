"""The networks of the study, all trained alike: same samples, same budget, same seeds, same loop.

:func:`train_contender` trains one of :data:`CONTENDERS` and keeps it in a folder under a name
that holds a digest of everything it depends on: asked for again it is read, and killed and started
again it goes on.  Equal steps and equal time are both a matter of the settings (``steps`` or
``minutes``).  This module must never give one contender a sample, a weighting or a choice of the
best step that another does not get.

Source: nrrn.md of the method, "What the paper compares with".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from .. import __version__, training
from ..device import bf16_is_fast, choose_device
from ..files import write_whole
from ..network import NRRN, TwoBranches, receptive_radius
from ..outputs.locks import locked
from ..progress import NoProgress, Progress
from ..scoring import Candidate, Image
from ..settings import TrainSettings
from ..training_data import fingerprint
from ..triplets import TrainingStack, TripletSampler
from .denoisenet import DENOISENET_RADIUS, DenoiseNet
from .inference import OnTriplets, denoise_middle, multiply_adds
from .unet import UNET_MULTIPLE, UNET_RADIUS, UNet

__all__ = ["CONTENDERS", "Contender", "Kind", "train_contender"]

TRAINED_VERSION = 2
"""Raised whenever a training gives another network than before: what was kept is then forgotten."""

DENOISENET_RATE = 2e-3
"""With 0.004 it diverged at once; 0.003 was 0.2 dB better than 0.001, and close to that edge
(benchmarks/learning_rates.py)."""

FACTS = "nrrn.contender"
"""Key in the header of a kept network, safetensors, of JSON that says how it came about."""


@dataclass(frozen=True)
class Kind:
    """One kind of contender."""

    key: str
    """Name in files, like "unet-mean"."""
    label: str
    """Name in tables."""
    build: Callable[[TrainSettings], TwoBranches]
    """Makes the network with fresh weights."""
    images: int
    """How many of the three images it uses."""
    objective: str
    """``"clean"``, ``"consensus"`` or ``"masked"``."""
    radius: Callable[[TrainSettings], int]
    """How far an output pixel looks."""
    multiple: int = 1
    """Tiles must begin, and padded slices end, at multiples of this."""
    rate: float | None = None
    """Peak learning rate on a CPU, if it is not that of every training."""


def nrrn(key: str, label: str, objective: str) -> Kind:
    """Return an NRRN of the units and maps that the settings ask for."""

    def build(settings: TrainSettings) -> TwoBranches:
        assert settings.units is not None and settings.maps is not None
        return NRRN(settings.units, settings.maps, settings.edge)

    return Kind(key, label, build, 3, objective, lambda s: receptive_radius(s.units or 1))


def unet(view: str, label: str, images: int, objective: str = "clean", key: str = "") -> Kind:
    """Return a U-Net that sees triplets in one way."""
    inputs = 3 if view == "three" else 1
    return Kind(
        f"unet-{key or view}",
        f"U-Net, {label}",
        lambda settings: OnTriplets(UNet(inputs), view, UNET_MULTIPLE),
        images,
        objective,
        lambda settings: UNET_RADIUS,
        UNET_MULTIPLE,
    )


def denoisenet(view: str, label: str, images: int, objective: str = "clean", key: str = "") -> Kind:
    """Return a DenoiseNet that sees triplets in one way."""
    inputs = 3 if view == "three" else 1
    return Kind(
        f"denoisenet-{key or view}",
        f"DenoiseNet, {label}",
        lambda settings: OnTriplets(DenoiseNet(inputs), view),
        images,
        objective,
        lambda settings: DENOISENET_RADIUS,
        rate=DENOISENET_RATE,
    )


CONTENDERS: dict[str, Kind] = {
    kind.key: kind
    for kind in (
        unet("single", "single slice", 1),
        unet("mean", "mean of three", 3),
        unet("three", "three slices", 3),
        unet("pairs", "Noise2Noise", 3, "consensus", key="n2n"),
        denoisenet("single", "single slice", 1),
        denoisenet("mean", "mean of three", 3),
        denoisenet("three", "three slices", 3),
        denoisenet("pairs", "Noise2Noise", 3, "consensus", key="n2n"),
        nrrn("nrrn", "NRRN, clean target", "clean"),
        nrrn("nrrn-n2n", "NRRN, Noise2Noise (the paper's loss)", "consensus"),
        nrrn("nrrn-masked", "NRRN, masked centre", "masked"),
    )
}
"""Everything that can be trained, by its key."""


@dataclass(frozen=True)
class Contender:
    """A trained network of the study."""

    kind: Kind
    network: TwoBranches
    """In fp32 and evaluation mode, on the device of its training."""
    settings: TrainSettings
    """How it was trained, resolved."""
    facts: dict[str, Any]
    """``steps``, ``best_step``, ``best_error``, ``seconds``, ``parameters``, ``macs`` (for one
    slice of 256²), ``device``, ``precision``, ``package_version``."""
    path: Path
    """Where it is kept."""

    def denoise(self, triplet: Image) -> Image:
        """Return the middle one of three noisy slices (3, Y, X) denoised, grey values on [0, 1]."""
        return denoise_middle(
            self.network,
            triplet,
            radius=self.kind.radius(self.settings),
            multiple=self.kind.multiple,
            device=self.settings.device or "cpu",
        )

    def candidates(self) -> list[Candidate]:
        """Return what :func:`nrrn_fiji.scoring.score` measures.

        The method is called ``trained-`` and the key of the kind, so that a contender is never
        mistaken for a shipped model or a filter.
        """
        return [
            Candidate(f"trained-{self.kind.key}", self.kind.label, self.kind.images, self.denoise)
        ]


def train_contender(
    kind: str,
    stacks: Sequence[TrainingStack],
    settings: TrainSettings,
    folder: Path,
    progress: Progress | None = None,
) -> Contender:
    """Train a contender, go on with its training, or read it where it was trained before.

    Parameters
    ----------
    kind
        A key of :data:`CONTENDERS`.
    stacks
        What to train on.
    settings
        Budget, samples, noise and seed; what is left out is chosen as for every training.  The
        objective is that of the kind; units and maps matter to NRRNs only.
    folder
        Where trained networks are kept; made if need be.
    progress
        Told how far the training is; asked whether to stop.

    Returns
    -------
    Contender
        The best network by held-out error, and what it took.

    Raises
    ------
    ValueError
        If the kind is unknown, a setting does not fit the kind, or a stack is too small.
    Cancelled
        If the user stopped; the same call goes on from there.
    nrrn_fiji.training.Diverged
        If the loss is not finite any more.
    FileExistsError
        If another process is training the same contender.
    """
    if kind not in CONTENDERS:
        raise ValueError(f"kind is {kind!r}, but it must be one of {', '.join(CONTENDERS)}.")
    chosen = CONTENDERS[kind]
    progress = progress or NoProgress()
    settings = resolved_for(chosen, settings)
    sampler = TripletSampler(stacks, training.sample_settings(settings))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = chosen.build(settings)
    depends_on = {
        "versions": [TRAINED_VERSION, __version__],
        "kind": [chosen.key, chosen.objective],
        "architecture": {name: list(t.shape) for name, t in network.state_dict().items()},
        "settings": asdict(settings),
        "data": fingerprint(stacks),
    }
    digest = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{chosen.key}-{digest[:12]}.safetensors"
    with locked(
        path.with_suffix(".lock"),
        f"Another process is training {chosen.label} in {folder}: wait for it, or choose another "
        "folder.",
    ):
        facts = read_kept(path, digest, network, progress)
        if facts is None:
            facts = train_and_keep(path, digest, network, sampler, settings, progress)
    # As trained: another order in memory rounds otherwise.
    network.to(settings.device or "cpu").to(memory_format=torch.channels_last)
    network.eval().requires_grad_(False)
    facts |= {
        "device": settings.device,
        "precision": settings.precision,
        "package_version": __version__,
    }
    return Contender(chosen, network, settings, facts, path)


def resolved_for(kind: Kind, settings: TrainSettings) -> TrainSettings:
    """Fill in what the settings leave open, as for every training, and fix what the kind says."""
    device = choose_device(settings.device)
    rate = kind.rate if settings.rate is None and device.type == "cpu" else settings.rate
    resolved = training.resolve(
        replace(settings, objective=kind.objective, rate=rate),
        device=device,
        precision=settings.precision or ("bf16" if bf16_is_fast(device) else "fp32"),
        objective=kind.objective,
    )
    if not kind.key.startswith("nrrn"):
        resolved = replace(resolved, units=None, maps=None, edge=False)
    return resolved


def train_and_keep(
    path: Path,
    digest: str,
    network: TwoBranches,
    sampler: TripletSampler,
    settings: TrainSettings,
    progress: Progress,
) -> dict[str, Any]:
    """Train, from the checkpoint if there is one; leave the best weights in network and file."""
    checkpoint = path.with_suffix(".checkpoint.safetensors")
    resume = checkpoint.exists()
    if resume:
        try:
            training.read_checkpoint(checkpoint)
        except ValueError as error:
            progress.message(f"{error} It is started again.")
            resume = False
    history, best = training.train(
        network,
        sampler,
        settings,
        checkpoint=checkpoint,
        resume=resume,
        data={"training data": digest},
        progress=progress,
    )
    network.load_state_dict(best)
    assert history.best is not None  # a training ends with a validation
    facts: dict[str, Any] = {
        "steps": history.step,
        "best_step": history.best[0],
        "best_error": history.best[1],
        "seconds": history.seconds,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "macs": multiply_adds(network),
        "losses": training.thinned(history.losses),
        "validation": [list(pair) for pair in history.validation],
    }
    write_whole(path, save(best, {FACTS: json.dumps({"digest": digest, "facts": facts})}))
    checkpoint.unlink()
    return facts


def read_kept(
    path: Path, digest: str, network: TwoBranches, progress: Progress
) -> dict[str, Any] | None:
    """Put a kept network's weights into ``network`` and return its facts; None if there is none."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()[FACTS])
            if header["digest"] != digest:
                raise ValueError("it belongs to another training")
            facts: dict[str, Any] = header["facts"]
            network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
            return facts
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        progress.message(f"{path} cannot be read ({error}): it is trained again.")
        return None
