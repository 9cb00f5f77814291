"""One experiment's result: sentences, tables and figures, and the files that hold them.

A part is written as ``STEM.csv`` (every number), ``STEM.md`` (tables to paste), figures
``STEM-*.png``, and last ``STEM.json``, by which a study that was interrupted knows that the part
is finished.  This module must never measure anything.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..files import write_whole
from ..reports import Table, as_json
from ..scoring import Row

__all__ = [
    "Figure",
    "Part",
    "as_csv",
    "as_markdown",
    "kept_part",
    "markdown_table",
    "mean_and_sd",
    "plus_minus",
    "save_part",
    "scores_records",
    "scores_table",
    "summarised",
]


@dataclass(frozen=True)
class Figure:
    """A picture beside the part's numbers."""

    file: str
    """Name of the PNG in the study's folder."""
    caption: str


@dataclass(frozen=True)
class Part:
    """What one experiment found."""

    name: str
    """Name of the command, like "tiles"."""
    title: str
    about: str
    """What was measured, how, and on what: a paragraph."""
    findings: tuple[str, ...]
    """What came out, in sentences."""
    tables: tuple[tuple[str, Table], ...]
    """Captions and tables, as they are shown."""
    figures: tuple[Figure, ...]
    records: tuple[dict[str, Any], ...]
    """Every number, one record per line of the CSV; all with the same names."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Settings and whatever else a program may want, in JSON's types."""
    stem: str = ""
    """Beginning of the names of the files; the name of the part when left out."""

    @property
    def beginning(self) -> str:
        """Beginning of the names of the part's files."""
        return self.stem or self.name


def plus_minus(mean: float, sd: float, digits: int = 2) -> str:
    """Return "mean ± standard deviation", or the mean alone where there is no deviation, as of a
    single value."""
    return f"{mean:.{digits}f} ± {sd:.{digits}f}" if sd else f"{mean:.{digits}f}"


def mean_and_sd(values: ArrayLike) -> tuple[float, float]:
    """Return the mean and the standard deviation (n - 1; 0 for a single value)."""
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if array.size > 1 else 0.0


def summarised(values: ArrayLike, digits: int = 2) -> str:
    """Return "mean ± standard deviation" of values."""
    return plus_minus(*mean_and_sd(values), digits)


def scores_table(rows: Sequence[Row]) -> tuple[str, Table]:
    """Return PSNR and SSIM of every method at every level, and a caption."""
    lines = tuple(
        (
            row.level.label,
            row.label,
            plus_minus(row.mean("psnr"), row.sd("psnr")),
            plus_minus(row.mean("ssim"), row.sd("ssim"), 3),
        )
        for row in rows
    )
    return (
        "Mean ± standard deviation over the slices",
        Table(("Noise", "", "PSNR (dB)", "SSIM (window 7)"), lines),
    )


def scores_records(rows: Sequence[Row]) -> tuple[dict[str, Any], ...]:
    """Return the same as records."""
    return tuple(
        {
            "noise": row.level.label,
            "method": row.method,
            "label": row.label,
            "psnr_mean": row.mean("psnr"),
            "psnr_sd": row.sd("psnr"),
            "ssim_mean": row.mean("ssim"),
            "ssim_sd": row.sd("ssim"),
        }
        for row in rows
    )


def markdown_table(table: Table) -> str:
    """Return a table in Markdown; all columns but the first are aligned to the right."""
    lines = [table.header, ("---", *("---:",) * (len(table.header) - 1)), *table.rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def as_markdown(part: Part) -> str:
    """Return the part as a section of a page, its figures linked."""
    pieces = [f"## {part.title}", part.about, *part.findings]
    for caption, table in part.tables:
        pieces += [f"*{caption}*", markdown_table(table)]
    pieces += [f"![{figure.caption}]({figure.file})" for figure in part.figures]
    return "\n\n".join(pieces) + "\n"


def as_csv(records: Sequence[dict[str, Any]]) -> str:
    """Return records as CSV, numbers with six digits."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(records[0]) if records else [], lineterminator="\n")
    table.writeheader()
    for record in records:
        table.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in record.items()})
    return text.getvalue()


def save_part(folder: Path, part: Part, key: str, *, texts: dict[str, str] | None = None) -> None:
    """Write a part's files; its figures are there already.

    Parameters
    ----------
    folder
        The study's folder.
    part
        The part.
    key
        Digest of everything the part depends on.
    texts
        What to write instead of the usual forms, by suffix (".md", ".csv").
    """
    forms = {".csv": as_csv(part.records), ".md": as_markdown(part)} | (texts or {})
    for suffix, text in forms.items():
        write_whole(folder / f"{part.beginning}{suffix}", text.encode())
    content = {
        **part.facts,
        "part": {
            "name": part.name,
            "stem": part.stem,
            "title": part.title,
            "about": part.about,
            "findings": part.findings,
            "tables": [[caption, table.header, table.rows] for caption, table in part.tables],
            "figures": [[figure.file, figure.caption] for figure in part.figures],
            "records": part.records,
            "key": key,
        },
    }
    text = json.dumps(as_json(content), indent=1)
    write_whole(folder / f"{part.beginning}.json", text.encode())


def kept_part(folder: Path, stem: str) -> tuple[Part, str] | None:
    """Return a finished part and its key, or None if there is none that is whole."""
    try:
        facts = json.loads((folder / f"{stem}.json").read_text(encoding="utf-8"))
        kept = facts.pop("part")
        part = Part(
            name=kept["name"],
            title=kept["title"],
            about=kept["about"],
            findings=tuple(kept["findings"]),
            tables=tuple(
                (caption, Table(tuple(header), tuple(map(tuple, rows))))
                for caption, header, rows in kept["tables"]
            ),
            figures=tuple(Figure(file, caption) for file, caption in kept["figures"]),
            records=tuple(kept["records"]),
            facts=facts,
            stem=kept["stem"],
        )
        key = str(kept["key"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # Not finished: it is measured again.
    if all((folder / figure.file).is_file() for figure in part.figures):
        return part, key
    return None
