"""A page holds everything it shows, escapes what it is given, and leaves out what is empty."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import pytest

from nrrn_fiji.pages import Figure, Section, Verdict, page
from nrrn_fiji.reports import Table

PNG = b"\x89PNG\r\n\x1a\n not really"


def whole() -> str:
    return page(
        "A & B <title>",
        [
            Section(
                "First",
                paragraphs=["1 < 2 & <script>alert(1)</script>"],
                verdicts=[Verdict("bad", "Detail", "28 %", "Fine detail is gone.")],
                figures=[Figure(PNG, "A picture", wide=False)],
                table=Table(("name", "value"), (("<b>", "3"),)),
                code='{"units": 3}',
                notes=["How it was measured."],
            ),
            Section("Second"),
        ],
        subtitle="of today",
        footer="made by us",
    )


class Checker(HTMLParser):
    """Follows which elements are open, and notes their attributes."""

    VOID = ("meta", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere() -> None:
    checker = Checker()
    checker.feed(whole())
    assert checker.open == []
    tags = {tag for tag, _ in checker.seen}
    assert not tags & {"script", "link", "iframe", "object"}
    for _, attributes in checker.seen:
        assert "href" not in attributes
        assert (attributes.get("src") or "data:").startswith("data:")
    assert "url(" not in whole() and "@import" not in whole() and "http" not in whole()


def test_texts_are_escaped() -> None:
    text = whole()
    assert "1 &lt; 2 &amp; &lt;script&gt;" in text
    assert "<title>A &amp; B &lt;title&gt;</title>" in text
    assert "<td>&lt;b&gt;</td>" in text


def test_pictures_are_inside() -> None:
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', whole())
    assert base64.b64decode(data) == PNG
    assert 'alt="A picture"' in whole()


def test_judgements_are_words_and_not_colours_alone() -> None:
    assert re.search(r'class="verdict bad">\s*<span class="light">Bad<', whole())


def test_it_follows_light_and_dark() -> None:
    assert "prefers-color-scheme: dark" in whole()
    assert 'name="color-scheme" content="light dark"' in whole()


def test_what_is_empty_is_left_out() -> None:
    text = page("T", [Section("Alone")])
    body = text[text.index("<body>") :]
    assert re.sub(r"\s+", "", body) == re.sub(
        r"\s+", "", "<body><h1>T</h1><section><h2>Alone</h2></section></body></html>"
    )


def test_an_unknown_judgement_is_refused() -> None:
    with pytest.raises(ValueError, match="light is 'green', but it must be one of good, warn"):
        Verdict("green", "a", "b", "c")
