"""What is done to repeated scans of a slice: register and average them."""

from __future__ import annotations

from ..settings import RegisterSettings
from .declare import OVERWRITE, RESTART, Command, Kind, Option

__all__ = ["COMMANDS"]

COMMANDS: tuple[Command, ...] = (
    Command(
        name="register",
        title="Align and average scans",
        summary="Lay repeated scans of the same slice onto each other, and average them.",
        description="The scans are files of one slice each, the slices (or time points) of one "
        "file, or several stacks of the same slices. Scans that do not fit are left out and named. "
        "The shifts lie beside the result as a table (.shifts.csv) and a picture (.shifts.png). "
        "Type, calibration and labels of the first scan are kept.",
        examples=(
            "nrrn register scan1.tif scan2.tif scan3.tif -o average.tif",
            "nrrn register scans.tif -o average.tif --keep aligned.tif",
            "nrrn register pass1.tif pass2.tif pass3.tif -o average.tif --per-slice",
        ),
        function="nrrn_fiji.jobs.register:register_files",
        settings=RegisterSettings,
        counts="scans",
        options=(
            Option(
                name="sources",
                label="Scans",
                help="The scans: files of one slice or of one stack each, or one file that holds "
                "them all.",
                kind=Kind.IMAGE,
                required=True,
                many=True,
                position="SCANS",
            ),
            Option(
                name="out",
                label="Output",
                help="The average: a .tif, .ome.tif, .zarr, .h5 or .mrc file, or a folder; "
                "scan1-average.tif beside scan1.tif when left out.",
                kind=Kind.FILE,
                spelling=("-o", "--out"),
                named_after="sources",
                ending="-average",
            ),
            Option(
                name="keep",
                label="Aligned scans",
                help="Also write the aligned scans, for train --scans and denoise --scans: one "
                "stack whose slices are the scans, with a time point per slice.",
                kind=Kind.FILE,
            ),
            OVERWRITE,
            RESTART,
        ),
    ),
)
