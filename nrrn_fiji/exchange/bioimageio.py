"""Model packages for others' programs: the description format of bioimage.io, version 0.5.

A package is a folder, or a zip file of it, with weights as TorchScript (which runs anywhere without
our code) and as a PyTorch state dict with the network's source, test images, documentation, and
our own model file, from which ``nrrn models import`` gets everything back.  The network inside
takes three slices as channels and returns the middle one denoised.

This module must never go online, never leave half a package under its name, and never put
anything into a package that was not measured or is not said by the model's card.

Sources: the specification of bioimage.io model descriptions 0.5, as ``bioimageio.spec`` has it.
"""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..files import write_whole
from ..intensity import to_unit
from ..models import SUFFIX, Model, load_model, save_model
from ..network import receptive_radius
from ..outputs.checks import check_parent
from ..reports import Report
from ..training_facts import TrainingFacts, material_of
from .bioimageio_parts import (
    ThreeSlices,
    architecture_source,
    cover,
    smallest,
    test_images,
    write_weights,
)
from .bioimageio_readme import ARCHITECTURE, PERCENTILES, documentation

__all__ = ["export_model", "write_package"]

SLICES = ("previous", "centre", "following")
EIGHT_BIT = (0.0, 255.0)
METHOD = "Noise Reconstruction and Removal Network (NRRN), submitted to ICLR 2022"
VENUE = "https://openreview.net/group?id=ICLR.cc/2022/Conference"
AUTHORS = ("The nrrn-fiji developers",)
TAGS = ("denoising", "image-restoration", "electron-microscopy", "fib-sem", "nrrn", "pytorch", "2d")
README, COVER, LICENCE = "README.md", "cover.png", "LICENCE.txt"
CREATIVE_COMMONS = re.compile(r"CC[ -](BY(?:[ -](?:SA|NC|ND))*)[ -](\d\.\d)\b", re.IGNORECASE)


def export_model(
    name: str | Path | Model,
    out: str | Path,
    *,
    bioimageio: bool = False,
    stack: str | Path | None = None,
    author: Sequence[str] = (),
    licence: str | None = None,
    intensity: tuple[float, float] | None = None,
    overwrite: bool = False,
) -> Report:
    """Write a model for others: a copy of the model file, or a package for bioimage.io.

    Parameters
    ----------
    name
        Model name, model file or loaded model.
    out
        A ``.safetensors`` file; with ``bioimageio`` a ``.zip`` file, or a name without suffix for
        a folder.
    bioimageio
        Write a package that other programs can run.
    stack
        The stack that test images are cut from; our example when left out.
    author
        Authors of the package, "Name" or "Name; affiliation".
    licence
        An SPDX identifier such as "CC-BY-4.0", or any text; that of the card when left out.
    intensity
        Grey values that map to 0 and 1; 0 and 255 for a model that was trained on 8-bit stacks,
        else percentiles of what is denoised.
    overwrite
        Replace an existing file or package.

    Raises
    ------
    FileExistsError, FileNotFoundError, ValueError, OSError
        If the model is not found, the output cannot be written, or no licence is known.
    ImportError
        If the package ``bioimageio.spec`` is needed and not installed.
    """
    model = load_model(name)
    target = Path(out)
    if bioimageio:
        write_package(
            model,
            target,
            stack=stack,
            authors=author,
            licence=licence,
            intensity=intensity,
            overwrite=overwrite,
        )
        said = (
            f"{target}: a bioimage.io package of {model.name}. Test it with: bioimageio test "
            f"{target}\nHand it on, or import it elsewhere with: nrrn models import {target}"
        )
    else:
        check_target(target, (SUFFIX,), overwrite)
        if model.path is not None and model.path.suffix == SUFFIX:
            write_whole(target, model.path.read_bytes())
        else:
            save_model(target, model.network, model.card)
        said = f"{target}: a copy of {model.name}. Import it with: nrrn models import {target}"
    return Report(said, {"model": model.name, "hash": model.hash, "path": str(target)})


def write_package(
    model: Model,
    out: Path,
    *,
    stack: str | Path | None = None,
    authors: Sequence[str] = (),
    licence: str | None = None,
    intensity: tuple[float, float] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a bioimage.io package; see :func:`export_model` for parameters and errors."""
    if find_spec("bioimageio") is None or find_spec("bioimageio.spec") is None:
        raise ImportError(
            "bioimage.io packages are written with the package bioimageio.spec, which is not "
            "installed: pip install 'nrrn-fiji[bioimageio]'."
        )
    from bioimageio.spec import (
        ValidationContext,
        save_bioimageio_package,
        save_bioimageio_package_as_folder,
    )

    check_target(out, (".zip", ""), overwrite)
    licence = licence or str(model.card.get("licence") or "")
    if not licence.strip():
        raise ValueError(
            f"The card of {model.name} names no licence, and nobody may use a package without: "
            "say under which one you hand it on (licence, such as CC-BY-4.0)."
        )
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=f".{out.name}.") as scratch:
        parts, whole = Path(scratch) / "parts", Path(scratch) / f"whole{out.suffix}"
        parts.mkdir()
        # Nothing is looked up on the network: every file is here, every address is taken as known.
        with (
            warnings.catch_warnings(),
            ValidationContext(known_files={VENUE: None}, log_warnings=False),
        ):
            # Of every file it says that its hash is ignored, though it is in the description.
            warnings.filterwarnings("ignore", "Found mapping with 'source'", UserWarning)
            description = described(model, parts, stack, authors, licence, intensity)
            if out.suffix:
                save_bioimageio_package(description, output_path=whole)
            else:
                save_bioimageio_package_as_folder(description, output_path=whole)
        if out.is_dir():
            out.rename(Path(scratch) / "replaced")
        whole.replace(out)
    return out


def check_target(out: Path, suffixes: tuple[str, ...], overwrite: bool) -> None:
    """Refuse an output that cannot be written, or that would replace something else."""
    if out.suffix not in suffixes:
        kinds = " or ".join(suffix or "a name without suffix, for a folder" for suffix in suffixes)
        raise ValueError(f"out is {out}, but its name must end in {kinds}: give such a name.")
    check_parent(Path(os.path.realpath(out)))
    if not out.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{out} exists already: add --overwrite, or give another name.")
    packed = any((out / name).is_file() for name in ("bioimageio.yaml", "rdf.yaml"))
    if out.is_dir() and not packed:
        raise FileExistsError(f"{out} is a folder, but no package to replace: give another name.")


def described(
    model: Model,
    parts: Path,
    stack: str | Path | None,
    authors: Sequence[str],
    licence: str,
    intensity: tuple[float, float] | None,
) -> Any:
    """Write all files of a package into a folder and return their description."""
    from bioimageio.spec.model import v0_5 as v

    facts = TrainingFacts.of(model.card)
    if intensity is None and (not facts.bits or set(facts.bits) == {8}):
        intensity = EIGHT_BIT
    images = test_images(model, stack, intensity)
    before, after = images.slices[None], images.denoised[None, None]
    if intensity is None:  # what comes out is on the network's scale
        after = to_unit(after, images.intensity)
    np.save(parts / "test_input.npy", before)
    np.save(parts / "test_output.npy", after)
    halo = receptive_radius(model.units)
    write_weights(model, parts)
    cover(model, stack, images.intensity, parts / COVER)
    (parts / ARCHITECTURE).write_text(architecture_source(), encoding="utf-8")
    spdx = spdx_of(licence)
    if spdx is None:
        (parts / LICENCE).write_text(licence.strip() + "\n", encoding="utf-8")
    (parts / README).write_text(documentation(model, licence, intensity, halo), encoding="utf-8")
    attachment = f"{model.name}{SUFFIX}"
    save_model(parts / attachment, model.network, model.card)

    version = v.Version(torch.__version__.split("+")[0])
    size = facts.voxel_sizes[0] if len(facts.voxel_sizes) == 1 else None
    spacing: list[dict[str, Any]] = [
        {} if size is None else {"unit": "nanometer", "scale": edge} for edge in size or (0.0,) * 3
    ]
    tolerance = 1e-5 * (1 if intensity is None else intensity[1] - intensity[0])
    return v.ModelDescr(
        name=fitting_name(model.name),
        description=material_of(model.card)[:500] or "Denoises electron microscopy stacks.",
        authors=[author_of(text) for text in (authors or AUTHORS)],
        cite=[v.CiteEntry(text=METHOD, url=v.HttpUrl(VENUE))],
        license=v.LicenseId(spdx) if spdx else v.FileDescr(source=parts / LICENCE),
        tags=list(TAGS),
        documentation=v.FileDescr(source=parts / README),
        covers=[v.FileDescr(source=parts / COVER)],
        attachments=[v.FileDescr(source=parts / attachment)],
        version=v.Version("1.0.0"),
        inputs=[
            v.InputTensorDescr(
                id=v.TensorId("slices"),
                description="Three adjacent slices; at an end of the stack the neighbour twice.",
                axes=[
                    v.BatchAxis(),
                    v.ChannelAxis(channel_names=[v.Identifier(name) for name in SLICES]),
                    *(
                        v.SpaceInputAxis(
                            id=v.AxisId(axis),
                            size=v.ParameterizedSize(min=smallest(halo), step=1),
                            **about,
                        )
                        for axis, about in zip("yx", spacing[1:], strict=True)
                    ),
                ],
                data=v.IntervalOrRatioDataDescr(type="float32"),
                test_tensor=v.FileDescr(source=parts / "test_input.npy"),
                preprocessing=before_the_network(intensity),
            )
        ],
        outputs=[
            v.OutputTensorDescr(
                id=v.TensorId("denoised"),
                description="The middle slice without its noise.",
                axes=[
                    v.BatchAxis(),
                    v.ChannelAxis(channel_names=[v.Identifier("denoised")]),
                    *(
                        v.SpaceOutputAxisWithHalo(
                            id=v.AxisId(axis),
                            size=v.SizeReference(
                                tensor_id=v.TensorId("slices"), axis_id=v.AxisId(axis)
                            ),
                            halo=halo,
                            **about,
                        )
                        for axis, about in zip("yx", spacing[1:], strict=True)
                    ),
                ],
                data=v.IntervalOrRatioDataDescr(type="float32"),
                test_tensor=v.FileDescr(source=parts / "test_output.npy"),
                postprocessing=after_the_network(intensity),
            )
        ],
        weights=v.WeightsDescr(
            pytorch_state_dict=v.PytorchStateDictWeightsDescr(
                source=parts / "weights.pt",
                pytorch_version=version,
                architecture=v.ArchitectureFromFileDescr(
                    source=parts / ARCHITECTURE,
                    callable=v.Identifier(ThreeSlices.__name__),
                    kwargs={"units": model.units, "maps": model.maps, "edge": model.edge},
                ),
            ),
            torchscript=v.TorchscriptWeightsDescr(
                source=parts / "weights-torchscript.pt",
                pytorch_version=version,
                parent="pytorch_state_dict",
                comment="Traced; any batch and image size.",
            ),
        ),
        config=v.Config(
            bioimageio=v.BioimageioConfig(
                reproducibility_tolerance=[
                    v.ReproducibilityTolerance(
                        relative_tolerance=1e-5,
                        absolute_tolerance=tolerance,
                        mismatched_elements_per_million=0,
                    )
                ],
                architecture_type="recurrent CNN",
                architecture_description=f"NRRN, {model.units} units of {model.maps} maps",
                modality="electron microscopy (FIB-SEM)",
                task="denoising",
                model_parameter_count=sum(p.numel() for p in model.network.parameters()),
            )
        ),
    )


def before_the_network(intensity: tuple[float, float] | None) -> list[Any]:
    """Return the mapping of grey values to the network's scale."""
    from bioimageio.spec.model import v0_5 as v

    if intensity is None:
        low, high = PERCENTILES
        kwargs = v.ScaleRangeKwargs(min_percentile=low, max_percentile=high)
        return [v.ScaleRangeDescr(kwargs=kwargs)]
    low, high = intensity
    if (low, high) == (0, 1):
        return []
    gain = 1 / (high - low)
    return [v.ScaleLinearDescr(kwargs=v.ScaleLinearKwargs(gain=gain, offset=-low * gain))]


def after_the_network(intensity: tuple[float, float] | None) -> list[Any]:
    """Return the mapping back."""
    from bioimageio.spec.model import v0_5 as v

    if intensity is None or tuple(intensity) == (0, 1):
        return []
    low, high = intensity
    return [v.ScaleLinearDescr(kwargs=v.ScaleLinearKwargs(gain=high - low, offset=low))]


def spdx_of(licence: str) -> str | None:
    """Return the SPDX identifier that a licence begins with, or None if it is free text."""
    import pydantic
    from bioimageio.spec.model.v0_5 import LicenseId

    found = CREATIVE_COMMONS.match(licence.strip())
    words = licence.split()
    candidates = [licence.strip(), words[0] if words else ""]
    if found:
        candidates.insert(0, f"CC-{found[1].upper().replace(' ', '-')}-{found[2]}")
    for candidate in candidates:
        try:
            return str(LicenseId(candidate))
        except (ValueError, pydantic.ValidationError):
            continue
    return None


def author_of(text: str) -> Any:
    """Return the author "Name" or "Name; affiliation"."""
    from bioimageio.spec.model.v0_5 import Author

    name, _, affiliation = (part.strip() for part in text.partition(";"))
    if not name or "/" in name or "\\" in name:
        raise ValueError(
            f'author is {text!r}, but it must be "Name" or "Name; affiliation", without slashes: '
            "give it so."
        )
    return Author(name=name, affiliation=affiliation or None)


def fitting_name(name: str) -> str:
    """Return a name that bioimage.io accepts: letters, digits, _, + and -; 5 of them or more."""
    plain = re.sub(r"[^A-Za-z0-9_+() -]", "-", name)
    return plain if len(plain) >= 5 else f"NRRN {plain}"
