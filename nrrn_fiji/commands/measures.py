"""What is measured: metrics of an image, noise at a place, and the report on a denoised stack."""

from __future__ import annotations

import dataclasses

from .declare import OVERWRITE, Command, Kind, Option

__all__ = ["COMMANDS"]

OVERWRITE_FILE = dataclasses.replace(OVERWRITE, help="Replace an existing file of that name.")

COMMANDS: tuple[Command, ...] = (
    Command(
        name="metrics",
        title="Metrics",
        summary="Measure noise and resolution of an image, or its distance from a clean one.",
        description="With a reference: PSNR and SSIM of every slice, mean and standard "
        "deviation, and down to which size of detail both agree. "
        "Without: noise level, a Poisson-Gaussian fit, correlation of the noise between pixels, "
        "resolution by Fourier ring correlation (for noisy images only), the interquartile range "
        "along a line, and a look for drift, gaps, copies, flicker and empty borders.",
        examples=(
            "nrrn metrics stack.tif",
            "nrrn metrics denoised.tif clean.tif -o scores.csv",
            "nrrn metrics stack.tif --line 20,50,120,50 --json",
        ),
        function="nrrn_fiji.jobs.metrics:metrics_files",
        counts="slices",
        options=(
            Option(
                name="image",
                label="Image",
                help="The image to measure.",
                kind=Kind.IMAGE,
                required=True,
                position="IMAGE",
            ),
            Option(
                name="reference",
                label="Reference",
                help="A clean image of the same shape, if there is one.",
                kind=Kind.IMAGE,
                position="[REFERENCE]",
            ),
            Option(
                name="line",
                label="Line",
                help="x0,y0,x1,y1: where the specimen is flat, in pixels from 0, in the middle "
                "slice. A flat place is looked for when left out.",
                kind=Kind.TEXT,
            ),
            Option(
                name="out",
                label="CSV file",
                help="Also write the numbers as CSV.",
                kind=Kind.FILE,
                spelling=("-o", "--out"),
            ),
            OVERWRITE_FILE,
        ),
    ),
    Command(
        name="measure",
        title="Measure noise",
        summary="Measure noise along a line, in a box, or in a whole slice.",
        description="Interquartile range (IQR) and standard deviation of the grey values where the "
        "specimen is flat, of one image or of two side by side; what Measure Noise... does in "
        "Fiji.",
        examples=(
            "nrrn measure noisy.tif denoised.tif --line 10,50,200,50 -o noise.png",
            "nrrn measure stack.tif --box 10,10,73,73 --slice 4",
        ),
        function="nrrn_fiji.jobs.measure:measure_files",
        options=(
            Option(
                name="image",
                label="Image",
                help="The image to measure.",
                kind=Kind.IMAGE,
                required=True,
                position="IMAGE",
            ),
            Option(
                name="second",
                label="Second image",
                help="Another image of the same shape, measured at the same place.",
                kind=Kind.IMAGE,
                position="[SECOND]",
            ),
            Option(
                name="slice",
                label="Slice",
                help="Number of the slice, counted from 0; the middle one when left out.",
                kind=Kind.INTEGER,
            ),
            Option(
                name="line",
                label="Line",
                help="x0,y0,x1,y1: ends of a line, in pixels from 0.",
                kind=Kind.TEXT,
            ),
            Option(
                name="box",
                label="Box",
                help="x0,y0,x1,y1: opposite corners of a box, both inside, in pixels from 0.",
                kind=Kind.TEXT,
            ),
            Option(
                name="out",
                label="Plot",
                help="Also write box plots, and profiles along a line, as a PNG file.",
                kind=Kind.FILE,
                spelling=("-o", "--out"),
            ),
            OVERWRITE_FILE,
        ),
    ),
    Command(
        name="report",
        title="Quality report",
        summary="Write a page that answers: is my denoised stack good? No clean image is needed.",
        description="Shows what was removed and whether there is structure in it, how much detail "
        "was kept, how grey values moved, and whether all places and slices were treated alike, "
        "each with a judgement in plain words. The page is one HTML file that needs nothing else.",
        examples=(
            "nrrn report noisy.tif denoised.tif",
            "nrrn report noisy.tif denoised.tif -o page.html --overwrite",
            "nrrn report noisy.tif denoised.tif --json",
        ),
        function="nrrn_fiji.quality.page:report_files",
        counts="slices",
        options=(
            Option(
                name="noisy",
                label="Noisy stack",
                help="The stack as it was recorded.",
                kind=Kind.IMAGE,
                required=True,
                position="NOISY",
            ),
            Option(
                name="denoised",
                label="Denoised stack",
                help="The same stack, denoised.",
                kind=Kind.IMAGE,
                required=True,
                position="DENOISED",
            ),
            Option(
                name="out",
                label="Page",
                help="The HTML file to write; denoised-report.html beside denoised.tif when left "
                "out.",
                kind=Kind.FILE,
                spelling=("-o", "--out"),
                named_after="denoised",
                ending="-report.html",
            ),
            OVERWRITE_FILE,
        ),
    ),
)
