"""What is done to models: list, show, import, fetch, export, describe, remove."""

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

GIVEN_NAME = Option(
    name="name",
    label="Name",
    help="The name to give it; the file's name when left out.",
    kind=Kind.TEXT,
)
REPLACE = dataclasses.replace(OVERWRITE, help="Replace an installed model of the same name.")
SHA256 = Option(
    name="sha256",
    label="SHA-256",
    help="SHA-256 of the file, 64 hexadecimal digits; it must be given.",
    kind=Kind.TEXT,
)

COMMANDS: tuple[Command, ...] = (
    Command(
        name="models list",
        title="List models",
        summary="List the models that can be used by name.",
        examples=("nrrn models list",),
        function="nrrn_fiji.jobs.models:list_models",
    ),
    Command(
        name="models show",
        title="Show model",
        summary="Show what a model is, how it was trained, and how well it does.",
        examples=(f"nrrn models show {DEFAULT_MODEL}", "nrrn models show mine.safetensors --json"),
        function="nrrn_fiji.jobs.models:show_model",
        options=(MODEL_NAME,),
    ),
    Command(
        name="models import",
        title="Import model",
        summary="Put a model file into your model folder, where it is found by its name.",
        description="Takes a .safetensors model, a bioimage.io package that nrrn exported (zip or "
        "folder), or a checkpoint (.pth) as the authors of the method publish them, which is "
        "converted. Nothing in them is run. An address on the web needs the file's hash, too.",
        examples=(
            "nrrn models import mine.safetensors",
            "nrrn models import mine.zip",
            "nrrn models import checkpoint.pth --name published-4-units",
        ),
        function="nrrn_fiji.jobs.models:import_model",
        options=(
            Option(
                name="path",
                label="File",
                help="The .safetensors, .zip or .pth file, or the folder of a package.",
                kind=Kind.TEXT,
                required=True,
                position="FILE",
            ),
            GIVEN_NAME,
            REPLACE,
            dataclasses.replace(SHA256, help="SHA-256 that the file must have."),
        ),
    ),
    Command(
        name="models fetch",
        title="Fetch model",
        summary="Download a model whose hash you know, and put it into your model folder.",
        description="The hash stands where the model is published. A file with another hash is "
        "not kept.",
        examples=("nrrn models fetch https://example.org/mine.safetensors --sha256 HASH",),
        function="nrrn_fiji.jobs.models:fetch",
        options=(
            Option(
                name="url",
                label="Address",
                help="The http(s) address of a .safetensors, .zip or .pth file.",
                kind=Kind.TEXT,
                required=True,
                position="URL",
            ),
            SHA256,
            GIVEN_NAME,
            REPLACE,
        ),
    ),
    Command(
        name="models export",
        title="Export model",
        summary="Write a model for others: the model file, or a package for bioimage.io.",
        description="With --bioimageio other programs can run it (bioimageio.core, and what reads "
        "its packages): TorchScript and PyTorch weights, test images, documentation, tiling "
        "information. Needs pip install 'nrrn-fiji[bioimageio]'.",
        examples=(
            f"nrrn models export {DEFAULT_MODEL} --bioimageio -o {DEFAULT_MODEL}.zip",
            "nrrn models export mine -o mine.safetensors",
            "nrrn models export mine --bioimageio -o mine/ --licence CC-BY-4.0 --author 'A. Name'",
        ),
        function="nrrn_fiji.exchange.bioimageio:export_model",
        options=(
            MODEL_NAME,
            Option(
                name="out",
                label="Output",
                help="The file or folder to write: .safetensors; with --bioimageio a .zip file, or "
                "a name without suffix for a folder.",
                kind=Kind.FILE,
                required=True,
                spelling=("-o", "--out"),
            ),
            Option(
                name="bioimageio",
                label="Package for bioimage.io",
                help="Write a bioimage.io package.",
                kind=Kind.FLAG,
                default=False,
            ),
            Option(
                name="stack",
                label="Stack",
                help="The stack that the package's test images are cut from; our example when left "
                "out.",
                kind=Kind.IMAGE,
            ),
            Option(
                name="author",
                label="Author",
                help='An author of the package, "Name" or "Name; affiliation"; may be given again.',
                kind=Kind.TEXT,
                many=True,
                default=(),
            ),
            Option(
                name="licence",
                label="Licence",
                help="Under which licence you hand it on, such as CC-BY-4.0; the card's when left "
                "out.",
                kind=Kind.TEXT,
            ),
            Option(
                name="intensity",
                label="Grey range",
                help="Grey values LO,HI that map to 0 and 1 in the package; 0,255 for models that "
                "were trained on 8-bit stacks, else percentiles.",
                kind=Kind.PAIR,
            ),
            OVERWRITE,
        ),
    ),
    Command(
        name="models describe",
        title="Describe model",
        summary="Complete the card of a model of yours: what it is for, voxel size, licence.",
        examples=(
            "nrrn models describe mine --material 'mouse cortex, OTO' --microscope FIB-SEM",
            "nrrn models describe mine.safetensors --voxel-size 8,4,4 --licence CC-BY-4.0",
        ),
        function="nrrn_fiji.jobs.models:describe_model",
        options=(
            MODEL_NAME,
            Option(
                name="description",
                label="Description",
                help="A sentence on what it is for.",
                kind=Kind.TEXT,
            ),
            Option(
                name="material",
                label="Material",
                help="The specimen, and how it was stained.",
                kind=Kind.TEXT,
            ),
            Option(
                name="microscope",
                label="Microscope",
                help="How the training stacks were taken.",
                kind=Kind.TEXT,
            ),
            Option(
                name="voxel_size",
                label="Voxel size",
                help="Voxel size Z,Y,X of the training stacks, or one number for cubes.",
                kind=Kind.TEXT,
            ),
            Option(
                name="voxel_unit",
                label="Voxel unit",
                help="Unit of the voxel size.",
                kind=Kind.TEXT,
                choices=("nm", "um", "angstrom"),
                default="nm",
            ),
            Option(
                name="licence",
                label="Licence",
                help="Under which licence others may use it.",
                kind=Kind.TEXT,
            ),
        ),
    ),
    Command(
        name="models remove",
        title="Remove model",
        summary="Delete a model from your model folder.",
        examples=("nrrn models remove mine",),
        function="nrrn_fiji.jobs.models:remove_installed",
        options=(
            dataclasses.replace(
                MODEL_NAME, help="The model's name. Shipped models cannot be removed."
            ),
        ),
    ),
)
