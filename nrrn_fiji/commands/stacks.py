"""What is done to stacks of slices: denoise, train, add noise."""

from __future__ import annotations

from ..models import DEFAULT_MODEL
from ..settings import DenoiseSettings, NoiseSettings, PreviewSettings, TrainSettings
from .declare import OVERWRITE, RESTART, Command, Kind, Option

__all__ = ["COMMANDS"]

COMMANDS: tuple[Command, ...] = (
    Command(
        name="denoise",
        title="Denoise",
        summary="Denoise a stack: the same kind of image comes out, with the noise taken away.",
        description="Size, bit depth, calibration and labels stay as they are; what was done is "
        "written into the image's metadata. A run that was stopped goes on where it stopped when "
        "the same command is given again.",
        examples=(
            "nrrn denoise stack.tif",
            "nrrn denoise stack.tif denoised.tif",
            "nrrn denoise 'slices/*.tif' denoised/ --model mine --slices 100:200",
            "nrrn denoise stack.tif denoised.tif --noise noise.tif --plan",
            "nrrn denoise volume.zarr denoised.zarr --memory 2GB",
        ),
        function="nrrn_fiji.api:denoise_file",
        plan="nrrn_fiji.api:plan_file",
        plan_without=("dask", "workers"),
        settings=DenoiseSettings,
        counts="slices",
        options=(
            Option(
                name="source",
                label="Input",
                help="The stack: a file (TIFF, OME-Zarr, HDF5, MRC), a folder of single-slice "
                "images, or a quoted pattern. A dataset of an HDF5 file is given as stack.h5:/raw.",
                kind=Kind.IMAGE,
                required=True,
                position="IN",
            ),
            Option(
                name="out",
                label="Output",
                help="The result: a .tif, .ome.tif, .zarr, .h5 or .mrc file, or a folder; "
                "stack-denoised.tif beside stack.tif when left out.",
                kind=Kind.FILE,
                position="[OUT]",
                named_after="source",
                ending="-denoised",
            ),
            Option(
                name="model",
                label="Model",
                help="The model: a name from `nrrn models list`, or a .safetensors file.",
                kind=Kind.MODEL,
                default=DEFAULT_MODEL,
                spelling=("-m", "--model"),
            ),
            Option(
                name="slices",
                label="Slices",
                help="Denoise only the slices A to B - 1, counted from 0. Their neighbours outside "
                "of the range are still looked at.",
                kind=Kind.SLICES,
            ),
            Option(
                name="noise_out",
                label="Noise output",
                help="Also write what was taken away: input - output, float32.",
                kind=Kind.FILE,
                spelling=("--noise",),
            ),
            Option(
                name="units_out",
                label="Units output",
                help="Also write the image after every building unit, float32.",
                kind=Kind.FILE,
            ),
            Option(
                name="z_axis",
                label="Slices lie along",
                help="The axis that holds the slices of a stack that was saved as time points (T) "
                "or channels (C); as the file says when left out.",
                kind=Kind.TEXT,
                choices=("Z", "T", "C"),
            ),
            OVERWRITE,
            RESTART,
            Option(
                name="dask",
                label="Dask cluster",
                help="Let the workers of a Dask cluster compute: address of its scheduler, as "
                "tcp://host:8786, its scheduler file, or local for workers on this machine.",
                kind=Kind.TEXT,
                expert=True,
            ),
            Option(
                name="workers",
                label="Workers",
                help="Compute with so many processes on this machine.",
                kind=Kind.INTEGER,
                minimum=1,
                expert=True,
            ),
        ),
    ),
    Command(
        name="preview",
        title="Preview",
        summary="Draw a few places of a stack under several settings, to choose by looking.",
        description="The picture has a row for the stack as it is, and one for each model and "
        "setting, with the time for a slice, how much of the noise went, and the command for the "
        "whole stack.",
        examples=(
            "nrrn preview stack.tif",
            "nrrn preview stack.tif -o preview.png -m mine -m other.safetensors",
            "nrrn preview stack.tif --units --strengths 0.25,0.5,0.75",
            "nrrn preview stack.tif --fine-tune-minutes 5",
        ),
        function="nrrn_fiji.jobs.preview:preview_file",
        settings=PreviewSettings,
        counts="settings",
        options=(
            Option(
                name="source",
                label="Input",
                help="The stack: a file, a folder of single-slice images, or a quoted pattern.",
                kind=Kind.IMAGE,
                required=True,
                position="IN",
            ),
            Option(
                name="out",
                label="Picture",
                help="The PNG file; stack-preview.png beside stack.tif when left out.",
                kind=Kind.FILE,
                spelling=("-o", "--out"),
                named_after="source",
                ending="-preview.png",
            ),
            Option(
                name="model",
                label="Models",
                help="A model to show beside the shipped ones: a name or a .safetensors file; may "
                "be given again.",
                kind=Kind.MODEL,
                many=True,
                default=(),
                spelling=("-m", "--model"),
            ),
            Option(
                name="channel",
                label="Channel",
                help="Which channel to look at, counted from 0.",
                kind=Kind.INTEGER,
                default=0,
            ),
            Option(
                name="z_axis",
                label="Slices lie along",
                help="The axis that holds the slices of a stack that was saved as time points (T) "
                "or channels (C); as the file says when left out.",
                kind=Kind.TEXT,
                choices=("Z", "T", "C"),
            ),
            OVERWRITE,
        ),
    ),
    Command(
        name="train",
        title="Train on this stack",
        summary="Train a model on noisy stacks alone, or on clean stacks with synthetic noise.",
        description="A loss curve and a denoised sample lie beside the model while it trains. "
        "Ctrl-C keeps the best model so far, and --resume goes on from there.",
        examples=(
            "nrrn train noisy.tif -o mine.safetensors --minutes 20",
            "nrrn train scans.tif --scans -o mine.safetensors --steps 20000",
            "nrrn train clean1.tif clean2.tif -o mine.safetensors --poisson 1,50 --gaussian 10,75",
            f"nrrn train noisy.tif -o mine.safetensors --fine-tune {DEFAULT_MODEL} --minutes 5",
        ),
        function="nrrn_fiji.jobs.train:train_files",
        settings=TrainSettings,
        counts="steps",
        clock="minutes",
        options=(
            Option(
                name="stacks",
                label="Stacks",
                help="The stacks to train on: files, folders or quoted patterns.",
                kind=Kind.IMAGE,
                required=True,
                many=True,
                position="STACK",
            ),
            Option(
                name="out",
                label="Model file",
                help="The model file to write, ending in .safetensors; named after the first stack "
                "when left out.",
                kind=Kind.FILE,
                spelling=("-o", "--out"),
                named_after="stacks",
                ending="-model.safetensors",
            ),
            Option(
                name="fine_tune",
                label="Fine-tune",
                help="Begin with the weights of this model: a name or a .safetensors file. With "
                "more --units than it has, the further units begin as its last one.",
                kind=Kind.MODEL,
            ),
            Option(
                name="resume",
                label="Resume",
                help="Go on with the interrupted training of this output.",
                kind=Kind.FLAG,
                default=False,
            ),
            OVERWRITE,
            Option(
                name="description",
                label="Description",
                help="A sentence for the model's card: what it is for.",
                kind=Kind.TEXT,
                default="",
                expert=True,
            ),
            Option(
                name="licence",
                label="Licence",
                help="Under which licence others may use the model, for its card.",
                kind=Kind.TEXT,
                default="",
                expert=True,
            ),
        ),
    ),
    Command(
        name="add-noise",
        title="Add noise",
        summary="Add synthetic Poisson or Gaussian noise to a stack, to test or to train on.",
        examples=(
            "nrrn add-noise clean.tif noisy.tif --gaussian 25",
            "nrrn add-noise clean.tif noisy.tif --poisson 8 --clipped --seed 1",
        ),
        function="nrrn_fiji.jobs.add_noise:add_noise_file",
        settings=NoiseSettings,
        counts="slices",
        options=(
            Option(
                name="source",
                label="Input",
                help="The stack: a file, a folder of single-slice images, or a quoted pattern.",
                kind=Kind.IMAGE,
                required=True,
                position="IN",
            ),
            Option(
                name="out",
                label="Output",
                help="The result: a .tif, .ome.tif, .zarr, .h5 or .mrc file, or a folder; "
                "stack-noisy.tif beside stack.tif when left out.",
                kind=Kind.FILE,
                position="[OUT]",
                named_after="source",
                ending="-noisy",
            ),
            OVERWRITE,
            RESTART,
        ),
    ),
)
