"""HTML pages that need nothing beside them: what is text in them stays text, their style, tables and images."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import PurePath
from urllib.parse import quote

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1f24; max-width: 80rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; margin: 0.5rem 0; } h2 { font-size: 1.25rem; margin: 2rem 0 0.5rem; }
h3 { font-size: 1.05rem; margin: 1.2rem 0 0.3rem; }
.wide { overflow-x: auto; } img { max-width: 100%; height: auto; }
@media (max-width: 45rem) { .wide img { max-width: none; width: 45rem; } }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.5rem; text-align: right; border-bottom: 1px solid #d8dee4; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { background: #f3f5f7; }
table.text th, table.text td { text-align: left; vertical-align: top; white-space: normal; overflow-wrap: anywhere; }
pre { background: #f3f5f7; padding: 0.7rem; font-size: 0.85rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.notice { background: #fff8e1; border-left: 4px solid #e69f00; padding: 0.5rem 0.8rem; margin: 0.5rem 0; }
.failed { background: #fdecea; border-left: 4px solid #b3261e; padding: 0.5rem 0.8rem; margin: 0.5rem 0; }
.notice, .failed { overflow-wrap: anywhere; }
.note { color: #57606a; font-size: 0.9rem; } summary { cursor: pointer; padding: 0.3rem 0; }
"""
_VOID = ("img",)


class Html(str):
    """Markup that `element` made; any other text is escaped where it is put into a page."""


def text(content: object) -> Html:
    """Anything as text; what is markup already stays as it is."""
    return content if isinstance(content, Html) else Html(escape(str(content)))


def element(tag: str, *content: object, **attributes: str) -> Html:
    """An element of a page, with its content and attributes escaped.

    Args:
        tag: its name.
        *content: elements, and anything else as text.
        **attributes: values of its attributes; `kind` stands for the class, which is left out where it is empty.
    """
    names = {"kind": "class"}
    shown = "".join(f' {names.get(name, name)}="{escape(str(value))}"' for name, value in attributes.items()
                    if name != "kind" or value)  # fmt: skip
    return Html(f"<{tag}{shown}>" if tag in _VOID else f"<{tag}{shown}>{joined(content)}</{tag}>")


def joined(content: Iterable[object], between: str = "") -> Html:
    """Elements and texts, one after the other."""
    return Html(escape(between).join(map(text, content)))


def note(*content: object) -> Html:
    """A paragraph in small letters."""
    return element("p", *content, kind="note")


def link(path: str | PurePath, shown: object) -> Html:
    """A link to a file whose path is relative to the page's folder."""
    # With a dot before it no name of a file is taken for a scheme.
    return element("a", shown, href="./" + quote(PurePath(path).as_posix().encode("utf-8", "surrogateescape")))


def inline_hash(content: str) -> str:
    """What a content security policy allows an inline script or style by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def page(
    title: str, parts: Iterable[object], style: str = "", script: str = "", asks_its_server: bool = False
) -> bytes:
    """A page that loads nothing from anywhere, and that runs no script but its own, whatever is in it.

    Args:
        title: its title.
        parts: what is in its body: elements, and anything else as text.
        style: rules of its own, after those of all pages; never made from data.
        script: what runs once the page is there; never made from data.
        asks_its_server: whether the script may read from where the page came from.
    """
    allowed = inline_hash(script) if script else "'none'"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
    policy += "; connect-src 'self'" * asks_its_server
    end = f"<script>{script}</script>" if script else ""
    content = ('<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
               f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
               f'{element("title", title)}<meta name="viewport" content="width=device-width, initial-scale=1">'
               f"<style>{_STYLE}{style}</style></head><body>\n{joined(parts, chr(10))}\n{end}</body></html>\n"
               )  # fmt: skip
    # What is no text, as a name of a file that is not UTF-8, is shown as its escape.
    return content.encode("utf-8", "backslashreplace")


def html_table(heads: Sequence[object], rows: Iterable[Sequence[object]], kind: str = "") -> Html:
    """A table of text cells; `kind` is its class: `text` aligns to the left, of `sortable` a script sorts the rows."""

    def line(cells, tag):
        return element("tr", *(element(tag, cell) for cell in cells))

    table = element("table", line(heads, "th"), "\n", joined((line(row, "td") for row in rows), "\n"), kind=kind)
    return element("div", table, kind="wide")


def html_image(content: bytes, what: str) -> Html:
    """A PNG inside the page; `what` is said where it cannot be seen."""
    encoded = base64.b64encode(content).decode()
    return element("div", element("img", alt=what, src=f"data:image/png;base64,{encoded}"), kind="wide")


def folded(summary: object, *content: object) -> Html:
    """Content that opens when its summary is clicked."""
    return element("details", element("summary", summary), *content)
