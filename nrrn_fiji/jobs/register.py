"""Repeated scans from files to files: where they lie first, then the average, slice by slice.

The transforms of all slices are found before any pixel is written, and are kept with the unfinished
output, so that a run that was stopped goes on with the same ones.  This module must
never hold the scans of more than one slice, and never decide how to register: that is
:mod:`nrrn_fiji.registration`.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..files import write_whole
from ..formats.table import plain_name
from ..outputs.partial import BlockKey, PartialOutput, check_distinct
from ..progress import Cancelled, NoProgress, Progress
from ..registration import Placement, align_scans
from ..reports import Table
from ..scans.average import as_type, average_scans
from ..scans.files import AlignedLike, Scans
from ..scans.search import turboreg
from ..settings import RegisterSettings
from ..volumes import (
    Volume,
    VolumeWriter,
    create_volume,
    file_of,
    open_volume,
    reopen_volume,
)
from .denoise_checks import check_outputs
from .register_places import PLACING, find_places, placement_as_dict, placement_from_dict
from .shift_plot import plot_shifts

__all__ = ["RegisterReport", "provenance", "register_files"]

COLUMNS = (
    *("slice", "scan", "name", "shift_y_px", "shift_x_px", "correlation", "left_out"),
    *("m00", "m01", "m02", "m10", "m11", "m12"),
)
"""Of the table of shifts; the last are the rows of the transform, see
:attr:`nrrn_fiji.registration.Placement.transforms`."""

PLACED = 1
"""Channel under which a slice whose place is found is marked; that which is written has 0."""


@dataclass(frozen=True)
class RegisterReport:
    """What was written; see :class:`nrrn_fiji.reports.Reportable`."""

    image: Path
    scans: Path | None
    table_file: Path
    plot: Path
    names: tuple[str, ...]
    placements: tuple[Placement, ...]
    """One per slice, or one for all."""
    clipped: float
    """Share of the pixels that were left out as outliers, in the slices that this run wrote."""

    @property
    def summary(self) -> str:
        """What was done and where the result is."""
        kept = min(len(p.kept) for p in self.placements)
        most = max(len(p.kept) for p in self.placements)
        used = f"{kept}" if kept == most else f"{kept} to {most}"
        lines = [
            f"{self.image}: the average of {used} of {len(self.names)} scans.",
            f"Largest shift {self.largest:.2f} px; see {self.plot} and {self.table_file}.",
        ]
        if self.scans is not None:
            lines.append(f"Aligned scans: {self.scans}")
        return "\n".join([*lines, *self.left_out()])

    @property
    def largest(self) -> float:
        """Largest shift of a scan that fits, in pixels."""
        return max(
            float(np.hypot(*p.shifts[i])) if len(p.kept) else 0.0
            for p in self.placements
            for i in p.kept
        )

    def left_out(self) -> list[str]:
        """A sentence per scan that does not fit somewhere."""
        many = len(self.placements) > 1
        lines = []
        for number, name in enumerate(self.names):
            places = [z for z, p in enumerate(self.placements) if number in p.rejected]
            if places:
                first = f"slice {places[0]}"
                if len(places) > 1:
                    first = f"{len(places)} slices, the first {places[0]},"
                where = f" in {first}" if many else ""
                reason = self.placements[places[0]].rejected[number]
                lines.append(f"{name} was left out{where} because {reason}.")
        return lines

    @property
    def table(self) -> Table:
        """Shift and correlation of each scan, in the mean over the slices."""
        shifts = np.mean([p.shifts for p in self.placements], axis=0)
        fit = np.mean([p.correlation for p in self.placements], axis=0)
        rows = tuple(
            (
                name,
                f"{shifts[i, 1]:.2f}",
                f"{shifts[i, 0]:.2f}",
                f"{fit[i]:.3f}",
                "" if not any(i in p.rejected for p in self.placements) else "left out",
            )
            for i, name in enumerate(self.names)
        )
        return Table(("scan", "shift x (px)", "shift y (px)", "correlation", ""), rows)

    def as_dict(self) -> dict[str, Any]:
        """The same in JSON's types."""
        return {
            "image": str(self.image),
            "scans": None if self.scans is None else str(self.scans),
            "shifts": str(self.table_file),
            "plot": str(self.plot),
            "names": list(self.names),
            "placements": [placement_as_dict(p) for p in self.placements],
            "clipped": self.clipped,
        }


def register_files(
    sources: Sequence[str | Path | NDArray[Any]],
    out: str | Path,
    settings: RegisterSettings | None = None,
    *,
    keep: str | Path | None = None,
    overwrite: bool = False,
    restart: bool = False,
    progress: Progress | None = None,
) -> RegisterReport:
    """Register repeated scans and write their average.

    Parameters
    ----------
    sources
        Several images, each a scan of the same slice or of the same stack of slices; or one image
        whose slices are the scans, or whose time points are if it has both.
    out
        The average, of the type and with the metadata of the first scan; integers are rounded.
        ``OUT.shifts.csv`` and ``OUT.shifts.png`` (without the suffix of ``out``) lie beside it.
    settings
        How; the defaults when left out.
    keep
        Also write the aligned scans that fit, as slices, with a time point per slice of the input.
        Where a scan has no data it is NaN, or 0 for integers.
    overwrite
        Replace finished outputs.
    restart
        Begin anew, and drop what an interrupted run left.
    progress
        Told how far it is, and asked whether to stop.

    Raises
    ------
    ValueError, TypeError, OSError
        If the scans do not belong together, do not fit, or an output cannot be written; each with
        one sentence.
    ImportError
        If pystackreg is not installed.
    Cancelled
        If the user stopped; the message says what is kept.
    """
    settings = RegisterSettings() if settings is None else settings
    progress = NoProgress() if progress is None else progress
    out, keep = Path(out), None if keep is None else Path(keep)
    turboreg(settings.transform)  # says at once if it is not installed
    targets = {"image": out} | ({} if keep is None else {"scans": keep})
    inputs = [file_of(source) for source in sources if isinstance(source, str | Path)]
    stem = plain_name(out)
    table_file, plot = (out.with_name(stem + end) for end in (".shifts.csv", ".shifts.png"))
    check_distinct(inputs, {"out": out, "the table": table_file, "the plot": plot})
    if keep is not None:
        check_distinct([*inputs, table_file, plot], {"out": out, "--keep (keep)": keep})
    for source in sources:
        check_outputs(source, targets)
    with ExitStack() as files:
        scans = Scans([files.enter_context(open_volume(source)) for source in sources])
        request = {
            "scans": scans.fingerprints(),
            "package version": __version__,
            "--keep (keep)": None if keep is None else keep.name,
            **asdict(settings),
        }
        part = files.enter_context(PartialOutput(targets, overwrite=overwrite, restart=restart))
        with part.kept_said():
            if not part.goes_on(request):
                check_absent((table_file, plot), overwrite)
                part.begin(request, {})
            placements = places(part, scans, settings, progress)
        job = Job(scans, settings, placements, targets)
        with part.kept_said():
            clipped = 0.0 if part.complete else job.write(part, progress)
            write_whole(table_file, job.as_csv().encode())
            plot_shifts(*job.for_plot(), scans.names, plot)
            part.finish()
    report = RegisterReport(
        out, keep, table_file, plot, scans.names, tuple(placements), round(clipped, 6)
    )
    for line in report.left_out():
        progress.message(line)
    return report


def check_absent(paths: Sequence[Path], overwrite: bool) -> None:
    """Refuse to replace what lies beside the output."""
    for path in paths:
        if path.exists() and not overwrite:
            raise FileExistsError(
                f"{path} exists already: choose another output, or allow to replace it with "
                "--overwrite (overwrite=True)."
            )


def places(
    part: PartialOutput, scans: Scans, settings: RegisterSettings, progress: Progress
) -> list[Placement]:
    """Return where the scans lie, and keep it with the unfinished output."""
    kept = part.remembered
    if "placements" in kept:
        return [placement_from_dict(p) for p in kept["placements"]]
    found = {int(z): placement_from_dict(p) for z, p in kept.get("found", {}).items()}

    def keep(found: Mapping[int, Placement]) -> None:
        part.remember({"found": {z: placement_as_dict(p) for z, p in found.items()}})
        for z in found:
            if BlockKey(0, PLACED, z) not in part.finished:
                part.mark(BlockKey(0, PLACED, z))

    try:
        placements = find_places(scans, settings, progress, found, keep)
    except Cancelled as error:
        again = " Run the same command again to go on." if part.finished else ""
        raise Cancelled(f"Stopped: {part.kept()}{again}") from error
    except ValueError:
        part.finished.clear()  # the same command would end here again: nothing is worth keeping
        raise
    part.remember({"placements": [placement_as_dict(p) for p in placements]})
    return placements


@dataclass
class Job:
    """Scans with known places, to be averaged into files."""

    scans: Scans
    settings: RegisterSettings
    placements: list[Placement]
    targets: dict[str, Path]

    def placement(self, z: int) -> Placement:
        """Return where the scans of a slice lie."""
        return self.placements[z if len(self.placements) > 1 else 0]

    @property
    def used(self) -> list[int]:
        """The scans that fit in some slice."""
        return sorted({i for p in self.placements for i in p.kept})

    def write(self, part: PartialOutput, progress: Progress) -> float:
        """Average and write every slice; return the share of pixels that were left out."""
        scans, depth = self.scans, self.scans.depth
        total = scans.count * depth
        planes = depth * (1 + ("scans" in self.targets) * len(self.used))
        left_out = []
        with ExitStack() as files:
            kept = part.remembered
            if not kept.get("laid_out"):
                part.check_space(planes * int(np.prod(scans.shape)) * scans.dtype.itemsize)
            part.make_folders()
            writers = {
                kind: files.enter_context(self.writer(part, kind, kept.get("laid_out", False)))
                for kind in self.targets
            }
            if not kept.get("laid_out"):
                part.remember({**kept, "laid_out": True})
            for z in range(depth):
                key = BlockKey(0, 0, z)
                if key in part.finished:
                    continue
                if progress.cancelled:
                    again = " Run the same command again to go on." if part.finished else ""
                    raise Cancelled(f"Stopped: {part.kept()}{again}")
                left_out.append(self.write_slice(z, writers))
                part.mark(key)
                done = PLACING + (1 - PLACING) * (z + 1) / depth
                progress.update(total * done, total)
            for writer in writers.values():
                writer.finish(progress)
        return float(np.mean(left_out)) if left_out else 0.0

    def write_slice(self, z: int, writers: dict[str, VolumeWriter]) -> float:
        """Average the scans of one slice; return the share of pixels that were left out."""
        placement = self.placement(z)
        images = self.scans.read(z)
        aligned = align_scans(images, placement)
        mean, clipped = average_scans(aligned, self.settings.average)
        dtype = self.scans.dtype
        writers["image"].write(z, as_type(mean, dtype)[np.newaxis])
        if "scans" in writers:
            planes = np.full((len(self.used), *self.scans.shape), np.nan, np.float32)
            for image, number in zip(aligned, placement.kept, strict=True):
                planes[self.used.index(number)] = image
            writers["scans"].write(0, as_type(planes, dtype), time=z)
        for writer in writers.values():
            writer.flush()
        return clipped

    def writer(self, part: PartialOutput, kind: str, laid_out: bool) -> VolumeWriter:
        """Lay out an output, or go on with it."""
        first, depth = self.scans.first, self.scans.depth
        if kind == "scans":
            names = [self.scans.names[i] for i in self.used]
            like: Volume = AlignedLike(first, names, depth)
            shape, slices = like.shape, range(len(names))
        else:
            like, shape = first, first.shape._replace(t=1, z=depth)
            slices = range(depth)
        path = part.path(kind)
        if laid_out:
            return reopen_volume(path, like, shape=shape, slices=slices)
        if path.is_dir():  # a run was stopped while it laid this out
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        return create_volume(
            path,
            like,
            shape=shape,
            slices=slices,
            slab=len(slices) if kind == "scans" else 1,
            provenance=provenance(self.scans.names, self.settings, self.placements, kind),
        )

    def as_csv(self) -> str:
        """Return a row per slice and scan."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        for z in range(self.scans.depth):
            p = self.placement(z)
            for i, name in enumerate(self.scans.names):
                dy, dx = p.shifts[i]
                row = [f"{dy:.4f}", f"{dx:.4f}", f"{p.correlation[i]:.4f}", p.rejected.get(i, "")]
                matrix = [f"{value:.8g}" for value in p.transforms[i][:2].ravel()]
                table.writerow([z, i, name, *row, *matrix])
        return text.getvalue()

    def for_plot(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
        """Return shifts, correlation and what is rejected, (placements, scans, …)."""
        return (
            np.stack([p.shifts for p in self.placements]),
            np.stack([p.correlation for p in self.placements]),
            np.array([[i in p.rejected for i in range(self.scans.count)] for p in self.placements]),
        )


def provenance(
    names: Sequence[str],
    settings: RegisterSettings,
    placements: Sequence[Placement],
    kind: str = "image",
) -> dict[str, Any]:
    """Return what is recorded in an output; the shifts are the mean over the slices."""
    shifts = np.mean([p.shifts for p in placements], axis=0)
    rejected = {i: reason for p in reversed(placements) for i, reason in p.rejected.items()}
    return {
        "program": "nrrn-fiji",
        "version": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "register",
        "content": "aligned scans" if kind == "scans" else "average of aligned scans",
        "scans": list(names),
        "reference": names[placements[0].reference],
        "shifts (y, x)": np.round(shifts, 4).tolist(),
        "left out": {names[i]: rejected[i] for i in sorted(rejected)},
        "settings": asdict(settings),
    }
