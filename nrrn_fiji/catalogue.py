"""The commands that look after models: list, show, import, remove.

They put into words what :mod:`nrrn_fiji.models` does, and must do nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .models import (
    Model,
    ModelEntry,
    install_model,
    known_models,
    load_model,
    remove_model,
    user_models_dir,
)
from .reports import Report, Table

__all__ = ["import_model", "list_models", "remove_installed", "show_model"]

SHOWN = 6
"""Longest list of which every entry is shown."""


def list_models() -> Report:
    """Return the known models, one row each."""
    entries = known_models()
    rows = tuple(
        (entry.name, entry.origin, size_of(entry), entry.problem or describe(entry.card))
        for entry in entries
    )
    folder = user_models_dir()
    own = sum(entry.origin == "installed" for entry in entries)
    models = "1 model" if own == 1 else f"{own} models"
    return Report(
        f"Your model folder is {folder} ({models}).",
        {
            "models": [
                {
                    "name": entry.name,
                    "origin": entry.origin,
                    "path": str(entry.path),
                    "problem": entry.problem or None,
                    "architecture": entry.card.get("architecture"),
                    "description": describe(entry.card),
                }
                for entry in entries
            ],
            "folder": str(folder),
        },
        Table(("name", "origin", "units × maps", "description"), rows),
    )


def show_model(name: str) -> Report:
    """Return what is known about a model (a name or a file): its card, path and hash."""
    model = load_model(name)
    parameters = sum(weights.numel() for weights in model.network.parameters())
    said = {"file": str(model.path), "hash": model.hash} | {
        key: value for key, value in model.card.items() if key != "architecture"
    }
    lines = [
        f"{model.name}: {size_in_words(model)}, {parameters:,} parameters",
        *(f"  {line}" for line in outline(said)),
    ]
    return Report("\n".join(lines), as_dict(model))


def import_model(path: Path, name: str | None = None, overwrite: bool = False) -> Report:
    """Install a model file or a published checkpoint; see :func:`nrrn_fiji.install_model`."""
    model = install_model(path, name, overwrite)
    return Report(
        f"Installed {model.name} ({size_in_words(model)}) as {model.path}.\n"
        f"Use it with: nrrn denoise IN OUT --model {model.name}",
        as_dict(model),
    )


def remove_installed(name: str) -> Report:
    """Delete an installed model."""
    path = remove_model(name)
    return Report(f"Removed {name} ({path}).", {"name": name, "path": str(path)})


def as_dict(model: Model) -> dict[str, Any]:
    """Return everything but the weights."""
    return {"name": model.name, "path": str(model.path), "hash": model.hash, "card": model.card}


def describe(card: Mapping[str, Any]) -> str:
    """Return the card's description in one line; empty if it has none."""
    text = str(card.get("description") or "")
    return " ".join(text.split())


def size_of(entry: ModelEntry) -> str:
    """Return units × maps as the card has them, or a question mark."""
    architecture = entry.card.get("architecture")
    if not isinstance(architecture, dict):
        return "?"
    edge = " edge" if architecture.get("edge") else ""
    return f"{architecture.get('units')} × {architecture.get('maps')}{edge}"


def size_in_words(model: Model) -> str:
    """Return "4 units × 64 maps"."""
    units = "1 unit" if model.units == 1 else f"{model.units} units"
    return f"{units} × {model.maps} maps{', edge variant' if model.edge else ''}"


def all_mappings(values: list[Any]) -> bool:
    """Whether every value is a mapping."""
    return all(isinstance(value, Mapping) for value in values)


def outline(card: Mapping[str, Any]) -> Iterator[str]:
    """Yield a card as indented lines: short values beside their key, tables as tables."""
    for key, value in card.items():
        label = str(key).replace("_", " ")
        if value is None or value in ({}, [], ""):
            continue
        if rows := table_rows(value):
            yield f"{label}:"
            yield from (f"  {line}" for line in rows)
        elif isinstance(value, Mapping):
            yield f"{label}:"
            yield from (f"  {line}" for line in outline(value))
        elif isinstance(value, list) and len(value) <= SHOWN and all_mappings(value):
            for number, item in enumerate(value, 1):
                yield f"{label} {number}:"
                yield from (f"  {line}" for line in outline(item))
        elif isinstance(value, list) and not all_short(value):
            yield f"{label}: {len(value)} entries"
        elif isinstance(value, list):
            yield f"{label}: {', '.join(as_text(item) for item in value)}"
        else:
            first, *rest = as_text(value).splitlines()
            yield f"{label}: {first}"
            yield from (f"  {line}" for line in rest)


def all_short(values: Sequence[Any]) -> bool:
    """Whether a list is fit to be shown in one line."""
    return len(values) <= 12 and not any(isinstance(value, (dict, list)) for value in values)


def table_rows(value: Any) -> list[str]:
    """Return aligned lines if ``value`` is a table (rows with the same keys), else none."""
    if isinstance(value, Mapping):
        named = all(isinstance(row, Mapping) for row in value.values())
        rows = [{"": key, **row} for key, row in value.items()] if named else []
    elif isinstance(value, list) and all(isinstance(row, Mapping) for row in value):
        rows = list(value)
    else:
        rows = []
    if {"noise", "method", "psnr"} <= set(rows[0] if rows else ()):
        rows = psnr_by_noise(rows)
    if not 2 <= len(rows) <= 40 or any(row.keys() != rows[0].keys() for row in rows):
        return []
    if any(isinstance(item, (dict, list)) for row in rows for item in row.values()):
        return []
    cells = [[str(key) for key in rows[0]]]
    cells += [[as_text(item) for item in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def psnr_by_noise(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the scores of a study (one per noise and method) with a column per noise.

    A score is a mean, or a list that begins with it.
    """
    table: dict[str, dict[str, Any]] = {}
    for row in rows:
        score = row["psnr"][0] if isinstance(row["psnr"], list) else row["psnr"]
        line = table.setdefault(str(row["method"]), {"PSNR (dB)": row["method"]})
        line[str(row["noise"])] = f"{score:.2f}" if isinstance(score, float) else score
    return list(table.values())


def as_text(value: Any) -> str:
    """Return a value as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "–" if value is None else str(value)
