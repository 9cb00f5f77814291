"""Models… and Help: the list of models, and what there is to know, in ImageJ's windows.

This module must never delete or replace anything but the model that was named.
"""

from __future__ import annotations

from html import escape
from typing import Any

from .. import __version__
from ..commands import Kind, Option
from ..jobs.models import import_model, list_models, remove_installed, show_model
from ..models import user_models_dir
from ..reports import Report
from . import java
from .entry import Entry, Host
from .layout import mark_as_ours, show_table
from .texts import INDENT, LOG_LETTERS, in_lines

__all__ = ["help_entry", "models_entry"]

TEXT_SIZE = (800, 480)
"""Width and height of a window of text, in pixels: as wide as its lines."""
LIST, SHOW, IMPORT, REMOVE = "list", "show", "import", "remove"


def models_entry() -> Entry:
    """Return Models…"""
    return Entry(
        label="Models...",
        name="NRRN Models...",
        key="models",
        summary="List, show, import and remove models.",
        options=(
            Option(
                name="action",
                label="What to do",
                help="list: all models; show: what is known of one; import: a model file into the "
                "list; remove: one of your own from the list, and its file.",
                kind=Kind.TEXT,
                default=LIST,
                choices=(LIST, SHOW, IMPORT, REMOVE),
            ),
            Option(name="model", label="Model", help="To show or to remove.", kind=Kind.MODEL),
            Option(
                name="file",
                label="File to import",
                help="A .safetensors file, or a published checkpoint (.pth).",
                kind=Kind.FILE,
            ),
            Option(
                name="name",
                label="Its name in the list",
                help="For import; that of the file when left out.",
                kind=Kind.TEXT,
            ),
            Option(
                name="overwrite",
                label="Overwrite a model of that name",
                help="For import: replace one of your own in the list.",
                kind=Kind.FLAG,
                default=False,
            ),
        ),
        run=models,
        needs_image=False,
    )


def models(host: Host, values: dict[str, Any]) -> None:
    """Do what was asked with the list of models, and say what came of it."""
    action = values.get("action", LIST)
    if action in (SHOW, REMOVE) and "model" not in values:
        raise ValueError(f"model is missing: choose which model to {action}.")
    if action == SHOW:
        tell(host, "Model", show_model(values["model"]).summary)
    elif action == REMOVE:
        tell(host, "Models", remove_installed(values["model"]).summary)
    elif action == IMPORT:
        if "file" not in values:
            raise ValueError("file is missing: choose the model file to import.")
        done = import_model(
            values["file"], values.get("name"), overwrite=values.get("overwrite", False)
        )
        tell(host, "Models", done.summary.splitlines()[0])
    else:
        show_list(host, list_models())


def as_text(report: Report) -> str:
    """Return a report with its table as aligned lines."""
    lines = []
    if report.table is not None:
        rows = [report.table.header, *report.table.rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, "", report.summary])


def show_list(host: Host, report: Report) -> None:
    """Show a report with its table in a window of columns, or in the log without a screen."""
    if host.app.headless or report.table is None:
        tell(host, "Models", as_text(report))
        return
    show_table("NRRN Models", report.table)
    java.JClass("ij.IJ").showStatus(report.summary)


def tell(host: Host, title: str, text: str) -> None:
    """Show a text in a window, or in the log where there is no screen."""
    if host.app.headless:
        java.JClass("ij.IJ").log(text)
        return
    window = java.JClass("ij.text.TextWindow")(
        f"NRRN {title}", in_lines(text, LOG_LETTERS, indent=INDENT), *TEXT_SIZE
    )
    mark_as_ours(window)
    panel = window.getTextPanel()
    panel.setFont(java.JClass("java.awt.Font")("Monospaced", 0, 12), False)
    panel.scrollToTop()


# --- help --------------------------------------------------------------------------------------


def help_entry() -> Entry:
    """Return Help."""
    return Entry(
        label="Help",
        name="NRRN Help",
        key="help",
        summary="Say what the commands do, and how macros call them.",
        run=show_help,
        needs_image=False,
    )


def show_help(host: Host, values: dict[str, Any]) -> None:
    """Show what there is to know, in a window or in the log."""
    if host.app.headless:
        for entry in host.entries.values():
            java.JClass("ij.IJ").log(f"{entry.command}: {entry.summary}")
        return
    page = java.JClass("ij.gui.HTMLDialog")("NRRN Help", help_page(host), False)
    mark_as_ours(page)
    page.toFront()  # see layout.help_in_front


def help_page(host: Host) -> str:
    """Return the help as a page of HTML."""
    rows = []
    for entry in host.entries.values():
        keys = ", ".join(option.name for option in entry.options)
        rows.append(
            f"<p><b>{escape(entry.label)}</b><br>{escape(entry.summary)}<br>"
            f'<code>run("{escape(entry.command)}", "…");</code>'
            + (f" with {escape(keys)}" if keys else "")
            + "</p>"
        )
    return (
        f"<html><body><h2>NRRN {escape(__version__)}</h2>"
        "<p>Open a stack, try settings with <i>Preview…</i>, then run <i>Denoise Stack…</i>: the "
        "result is a new image, and the source stays as it is. Where no model fits your data, "
        "<i>Train on This Stack…</i> makes one from the noisy stack alone. Esc stops whatever "
        "runs.</p>"
        f"{''.join(rows)}"
        '<p>In a macro, after <code>run("NRRN Macro Extensions");</code>, '
        "<code>Ext.noiseLevel(sigma);</code> and <code>Ext.iqr(value);</code> put numbers of the "
        "selection into variables.</p>"
        f"<p>Your own models are in {escape(str(user_models_dir()))}.</p></body></html>"
    )
