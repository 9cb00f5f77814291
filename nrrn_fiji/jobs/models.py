"""The commands that look after models: list, show, import, fetch, describe, remove.

They put into words what :mod:`nrrn_fiji.models` does, and must do nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..models import (
    Model,
    ModelEntry,
    known_models,
    load_model,
    remove_model,
    save_model,
    shipped_models_dir,
    user_models_dir,
)
from ..reports import Report, Table, counted
from ..training_facts import in_nanometres, psnr_by_noise, training_in_words, units_were_added

__all__ = [
    "describe_model",
    "fetch",
    "import_model",
    "list_models",
    "remove_installed",
    "show_model",
]

SHOWN = 6
"""Longest list of which every entry is shown."""


GROWN = (
    "It works with all its units only: some were added later, so the estimates after fewer are "
    "worse."
)


def list_models() -> Report:
    """Return the known models, one row each."""
    entries = known_models()
    rows = tuple(
        (entry.name, entry.origin, size_of(entry), entry.problem or describe(entry.card))
        for entry in entries
    )
    folder = user_models_dir()
    own = sum(entry.origin == "installed" for entry in entries)
    return Report(
        f"Your model folder is {folder} ({counted(own, 'model')}).",
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
        "",
        *training_in_words(model.card),
        *([GROWN] if model.units > 1 and units_were_added(model.card) else []),
        "",
        "The card:",
        *(f"  {line}" for line in outline(said)),
    ]
    return Report("\n".join(lines), as_dict(model))


def import_model(
    path: str | Path, name: str | None = None, overwrite: bool = False, sha256: str | None = None
) -> Report:
    """Install a model; see :func:`nrrn_fiji.exchange.importing.take_in`."""
    from ..exchange.importing import take_in

    return installed(take_in(path, name, sha256=sha256, overwrite=overwrite))


def fetch(
    url: str, sha256: str | None = None, name: str | None = None, overwrite: bool = False
) -> Report:
    """Download and install a model; see :func:`nrrn_fiji.exchange.importing.fetch_model`."""
    from ..exchange.importing import fetch_model

    return installed(fetch_model(url, sha256=sha256, name=name, overwrite=overwrite))


def installed(model: Model) -> Report:
    """Say which model is there now, and how to use it."""
    return Report(
        f"Installed {model.name} ({size_in_words(model)}) as {model.path}.\n"
        f"Use it with: nrrn denoise IN OUT --model {model.name}",
        as_dict(model),
    )


def describe_model(
    name: str,
    description: str | None = None,
    material: str | None = None,
    microscope: str | None = None,
    voxel_size: str | None = None,
    voxel_unit: str = "nm",
    licence: str | None = None,
) -> Report:
    """Complete a model's card: what people should know, and the program cannot.

    Parameters
    ----------
    name
        An installed model, or a model file.
    description, material, microscope, licence
        Texts; what is left out stays as it is.
    voxel_size
        "z,y,x", or one number for cubes.
    voxel_unit
        Unit of the voxel size.

    Raises
    ------
    ValueError
        If nothing is given, the voxel size is none, or the model came with the package.
    """
    model = load_model(name)
    assert model.path is not None
    if model.path.parent == shipped_models_dir() and name == model.name:
        raise ValueError(
            f"{name} came with the package, and its card stays as it is: copy it first (nrrn "
            f"models export {name} -o mine.safetensors)."
        )
    texts = {
        "description": description,
        "material": material,
        "microscope": microscope,
        "licence": licence,
    }
    added: dict[str, Any] = {key: text for key, text in texts.items() if text}
    if voxel_size is not None:
        size = parse_size(voxel_size)
        if in_nanometres(size, voxel_unit) is None:
            raise ValueError(f"voxel_unit is {voxel_unit!r}, but it must be nm, um or angstrom.")
        added |= {"voxel_size": size, "voxel_unit": voxel_unit}
    if not added:
        raise ValueError("There is nothing to write into the card: give a description, say.")
    changed = save_model(model.path, model.network, {**model.card, **added})
    return Report(
        f"Wrote {', '.join(key.replace('_', ' ') for key in added)} into the card of {model.path}.",
        as_dict(changed),
    )


def parse_size(text: str) -> tuple[float, float, float]:
    """Return (z, y, x) from "z,y,x", or from one number for cubes."""
    try:
        edges = [float(part) for part in text.split(",")]
    except ValueError:
        edges = []
    if len(edges) == 1:
        edges *= 3
    if len(edges) != 3 or not all(0 < edge < float("inf") for edge in edges):
        raise ValueError(
            f"voxel_size is {text!r}, but it must be three numbers z,y,x above 0, or one for cubes."
        )
    return edges[0], edges[1], edges[2]


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
    size = f"{counted(model.units, 'unit')} × {counted(model.maps, 'map')}"
    return f"{size}{', edge variant' if model.edge else ''}"


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
    if rows and all({"noise", "method", "psnr"} <= set(row) for row in rows):
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


def as_text(value: Any) -> str:
    """Return a value as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "–" if value is None else str(value)
