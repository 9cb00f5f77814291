"""What a training has reached: its history, and the checkpoint from which it is resumed exactly.

This module must never train; it writes a checkpoint whole or not at all, and never takes one for
another training's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nrrn_fiji.files import write_whole
from nrrn_fiji.network import TwoBranches
from nrrn_fiji.settings import TrainSettings

__all__ = [
    "History",
    "history_in",
    "load_checkpoint",
    "read_checkpoint",
    "save_checkpoint",
    "state_in",
    "thinned",
]


@dataclass
class History:
    """What happened so far.

    ``losses[i]`` and ``rates[i]`` belong to step i + 1; ``validation`` holds (step, error) pairs.
    """

    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def step(self) -> int:
        """Number of steps taken."""
        return len(self.losses)

    @property
    def best(self) -> tuple[int, float] | None:
        """Step and error of the best validation."""
        return min(self.validation, key=lambda pair: pair[1]) if self.validation else None


def save_checkpoint(
    path: Path,
    network: TwoBranches,
    average: TwoBranches,
    optimiser: torch.optim.Adam,
    settings: TrainSettings,
    data: Mapping[str, str],
    history: History,
    best_state: dict[str, Tensor],
) -> None:
    """Write everything needed to go on, beside the old checkpoint, then replace that."""
    tensors: dict[str, Tensor] = {}
    for prefix, state in (
        ("network", network.state_dict()),
        ("average", average.state_dict()),
        ("best", best_state),
    ):
        for name, tensor in state.items():
            tensors[f"{prefix}.{name}"] = tensor.detach().cpu().contiguous().clone()
    for name, parameter in network.named_parameters():
        for moment in ("exp_avg", "exp_avg_sq"):
            if parameter in optimiser.state:
                tensors[f"{moment}.{name}"] = (
                    optimiser.state[parameter][moment].detach().cpu().contiguous().clone()
                )
    tensors["history.losses"] = torch.tensor(history.losses, dtype=torch.float64)
    tensors["history.rates"] = torch.tensor(history.rates, dtype=torch.float64)
    header = json.dumps(
        {
            "settings": asdict(settings),
            "data": dict(data),
            "validation": history.validation,
            "seconds": history.seconds,
        }
    )
    write_whole(path, save(tensors, {"nrrn.checkpoint": header}))


HEADER = {"settings": dict, "data": dict, "validation": list, "seconds": float}


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return header and tensors of a checkpoint.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is damaged or something else.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no checkpoint {path} to resume from: start without resuming."
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["nrrn.checkpoint"])
            for name, kind in HEADER.items():
                if not isinstance(header[name], kind):
                    raise TypeError(f"{name} is not of type {kind.__name__}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return header, tensors
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError, OSError) as error:
        raise ValueError(
            f"The checkpoint {path} is damaged or not a checkpoint ({error}): start again without "
            "resuming."
        ) from error


def state_in(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return one of a checkpoint's states: "network", "average", "best", "exp_avg", …"""
    start = prefix + "."
    return {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name.startswith(start)
    }


def history_in(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> History:
    """Return the history that a checkpoint holds."""
    return History(
        tensors["history.losses"].tolist(),
        tensors["history.rates"].tolist(),
        [(int(step), float(error)) for step, error in header["validation"]],
        header["seconds"],
    )


def load_checkpoint(
    path: Path,
    network: TwoBranches,
    average: TwoBranches,
    optimiser: torch.optim.Adam,
    settings: TrainSettings,
    data: Mapping[str, str],
) -> tuple[History, dict[str, Tensor]]:
    """Put a checkpoint's state into network, average and optimiser; see :func:`train`."""
    header, tensors = read_checkpoint(path)
    then, now = header["settings"], json.loads(json.dumps(asdict(settings)))
    changed = [name for name in now if now[name] != then.get(name)]
    if changed:
        raise ValueError(
            f"The checkpoint {path} was made with "
            + ", ".join(f"{name}={then.get(name)} (now {now[name]})" for name in changed)
            + ": ask for the same settings again, or start without resuming."
        )
    for name in {**header["data"], **data}:
        if header["data"].get(name) != data.get(name):
            raise ValueError(
                f"The checkpoint {path} was made with another {name}: give the same one, or start "
                "without resuming."
            )

    try:
        network.load_state_dict(state_in(tensors, "network"))
        average.load_state_dict(state_in(tensors, "average"))
        first, second = state_in(tensors, "exp_avg"), state_in(tensors, "exp_avg_sq")
        history = history_in(header, tensors)
        for name, parameter in network.named_parameters():
            optimiser.state[parameter] = {
                "step": torch.tensor(float(history.step)),
                "exp_avg": first[name].to(parameter).clone(memory_format=torch.preserve_format),
                "exp_avg_sq": second[name].to(parameter).clone(),
            }
    except (RuntimeError, KeyError) as error:
        raise ValueError(
            f"The checkpoint {path} does not fit this training ({error}): start again without "
            "resuming."
        ) from error
    return history, state_in(tensors, "best")


def thinned(values: list[float], most: int = 200) -> list[list[float]]:
    """Return (step, mean value) pairs of at most ``most`` equal stretches, for a model's card."""
    if not values:
        return []
    parts: list[NDArray[np.float64]] = np.array_split(np.asarray(values), min(most, len(values)))
    ends = np.cumsum([len(part) for part in parts])
    return [[int(end), float(part.mean())] for end, part in zip(ends, parts, strict=True)]
