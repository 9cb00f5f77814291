"""What the site needs beyond Markdown: files from elsewhere in the repository, and equations.

The pages stay readable in a checkout: links there point to the files as they lie, and this turns
them into links of the site.  Nothing here may need a network.
"""

from __future__ import annotations

import ast
import html
import posixpath
import re
import textwrap
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
FENCE = re.compile(r"^(```+|~~~+).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
EQUATION = re.compile(r"^```math\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^<!-- code: (\S+) (\S+) -->$", re.MULTILINE)
# Sphinx's way to name a function in a docstring, which is read by mkdocstrings as text.
ROLE = re.compile(r":(?:func|class|mod|meth|data|attr):(<code>)~?")


def from_elsewhere() -> dict[str, str]:
    """Return the pages that lie outside of ``docs``: page -> file, both with "/"."""
    pages = {
        "changelog.md": "CHANGELOG.md",
        "contributing.md": "CONTRIBUTING.md",
        "benchmarks.md": "benchmarks/README.md",
    }
    for card in sorted((ROOT / "models").glob("*.md")):
        if card.name != "README.md":
            pages[f"cards/{card.name}"] = f"models/{card.name}"
    return pages


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add the pages from elsewhere, and the list of commands."""
    for page, file in from_elsewhere().items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / file)))
    files.append(File.generated(config, "commands.md", content=commands_page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn equations into MathML, and links between files into links between pages."""
    here = from_elsewhere().get(page.file.src_uri, f"docs/{page.file.src_uri}")
    markdown = EQUATION.sub(lambda match: equation(match[1]), markdown)
    markdown = CODE.sub(lambda match: excerpt(match[1], match[2]), markdown)
    parts, end = [], 0
    for fence in FENCE.finditer(markdown):  # code is left as it is
        parts += [linked(markdown[end : fence.start()], here, page, files), fence[0]]
        end = fence.end()
    return "".join([*parts, linked(markdown[end:], here, page, files)])


def on_page_content(html: str, **_: Any) -> str:
    """Drop Sphinx's roles from docstrings."""
    return ROLE.sub(r"\1", html)


def equation(latex: str) -> str:
    """Return lines of LaTeX as MathML, a row for each."""
    rows = [convert(line, display="block") for line in latex.splitlines() if line.strip()]
    return '<div class="equation">' + "".join(rows) + "</div>\n"


def excerpt(file: str, name: str) -> str:
    """Return the body of a function, without its docstring, as a block of code.

    Raises
    ------
    PluginError
        If there is none of that name: the page is older than the code.
    """
    source = (ROOT / file).read_text(encoding="utf-8")
    found: Any = ast.parse(source)
    for part in name.split("."):
        found = next((node for node in found.body if getattr(node, "name", "") == part), None)
        if found is None:
            raise PluginError(f"{file} has no {name}: mend the page that shows it.")
    first = found.body[1] if ast.get_docstring(found) else found.body[0]
    start = found.body[0].end_lineno if ast.get_docstring(found) else first.lineno - 1
    lines = [*source.splitlines()[start : found.end_lineno]]
    head = f"def {found.name}({ast.unparse(found.args)}):"
    body = textwrap.indent(textwrap.dedent("\n".join(lines)), "    ")
    return f'```python title="{file}"\n{head}\n{body}\n```'


def linked(markdown: str, here: str, page: Page, files: Files) -> str:
    """Return text whose links to files of the repository lead to pages of the site.

    A link to a file that is on no page becomes its text.
    """
    pages = {file: name for name, file in from_elsewhere().items()}

    def replace(match: re.Match[str]) -> str:
        target, _, place = match["target"].partition("#")
        if not target or "://" in target or target.startswith("mailto:"):
            return match[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        name = pages.get(file) or (file.removeprefix("docs/") if file.startswith("docs/") else "")
        if not name or files.get_file_from_path(name) is None:
            if file.startswith("docs/"):
                return match[0]  # a dead link, which --strict reports
            return match["text"] if (ROOT / file).exists() else match[0]
        relative = posixpath.relpath(name, posixpath.dirname(page.file.src_uri) or ".")
        return f"{match['image']}[{match['text']}]({relative}{'#' + place if place else ''})"

    return LINK.sub(replace, markdown)


def commands_page() -> str:
    """Return the page of all commands, from the table that the commands themselves come from."""
    from nrrn_fiji.cli import long_help, metavar
    from nrrn_fiji.commands import COMMANDS, Kind

    lines = [
        "# Commands",
        "",
        "Every command as `nrrn COMMAND --help` shows it. All of them also take `--json` (lines of "
        "JSON for programs), `--log FILE` (a log for support requests) and `--debug` (tracebacks); "
        "long jobs take `--quiet`, and those that can say beforehand what they would do `--plan`.",
        "",
    ]
    for command in COMMANDS:
        positions = " ".join(
            option.position + ("..." if option.many else "")
            for option in command.options
            if option.position
        )
        lines += [f"## nrrn {command.name}", "", command.summary, ""]
        if command.description:
            lines += [command.description, ""]
        lines += ["```text", f"nrrn {command.name} {positions} [OPTIONS]".replace("  ", " "), ""]
        lines += [*command.examples, "```", ""]
        if not command.all_options():
            continue
        lines += ["| option | what it does |", "|---|---|"]
        for option in command.all_options():
            dashed = "--" + option.name.replace("_", "-")
            spelling = ", ".join(option.spelling or (dashed,))
            value = "" if option.kind is Kind.FLAG else f" {metavar(option)}"
            name = option.position or spelling + value
            name, words = (html.escape(text).replace("|", "&#124;") for text in
                           (name, long_help(option)))  # fmt: skip
            lines.append(f"| <code>{name}</code> | {words} |")
        lines.append("")
    return "\n".join(lines)
