"""What is done to models: list, show, import, remove."""

from __future__ import annotations

import dataclasses

from ..models import DEFAULT_MODEL
from .declare import OVERWRITE, Command, Kind, Option

__all__ = ["COMMANDS"]

MODEL_NAME = Option(
    name="name",
    label="Model",
    help="A model's name, or a model file.",
    kind=Kind.MODEL,
    required=True,
    position="NAME",
)

COMMANDS: tuple[Command, ...] = (
    Command(
        name="models list",
        title="List models",
        summary="List the models that can be used by name.",
        examples=("nrrn models list",),
        function="nrrn_fiji.catalogue:list_models",
    ),
    Command(
        name="models show",
        title="Show model",
        summary="Show what a model is, how it was trained, and how well it does.",
        examples=(f"nrrn models show {DEFAULT_MODEL}", "nrrn models show mine.safetensors --json"),
        function="nrrn_fiji.catalogue:show_model",
        options=(MODEL_NAME,),
    ),
    Command(
        name="models import",
        title="Import model",
        summary="Put a model file into your model folder, where it is found by its name.",
        description="Takes a .safetensors model, or a checkpoint (.pth) as the authors of the "
        "method publish them, which is converted. Checkpoints are read without running any code "
        "in them.",
        examples=(
            "nrrn models import mine.safetensors",
            "nrrn models import checkpoint.pth --name published-4-units",
        ),
        function="nrrn_fiji.catalogue:import_model",
        options=(
            Option(
                name="path",
                label="File",
                help="The .safetensors or .pth file.",
                kind=Kind.FILE,
                required=True,
                position="FILE",
            ),
            Option(
                name="name",
                label="Name",
                help="The name to give it; the file's name when left out.",
                kind=Kind.TEXT,
            ),
            dataclasses.replace(OVERWRITE, help="Replace an installed model of the same name."),
        ),
    ),
    Command(
        name="models remove",
        title="Remove model",
        summary="Delete a model from your model folder.",
        examples=("nrrn models remove mine",),
        function="nrrn_fiji.catalogue:remove_installed",
        options=(
            dataclasses.replace(
                MODEL_NAME, help="The model's name. Shipped models cannot be removed."
            ),
        ),
    ),
)
