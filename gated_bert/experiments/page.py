"""HTML pages that need nothing beside them: their style, their tables, their images."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

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


def page(title: str, parts: Iterable[str], style: str = "") -> bytes:
    """A page that loads nothing from anywhere.

    Args:
        title: its title.
        parts: what is in its body, as HTML.
        style: rules of its own, after those of all pages.
    """
    text = ('<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<title>{escape(title)}</title><meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<style>{_STYLE}{style}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n")  # fmt: skip
    # File names that are no UTF-8 come as lone surrogates.
    return text.encode("utf-8", "replace")


def html_table(heads: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table of text cells; `kind` is its class in the style: `text` aligns to the left."""

    def line(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    return f'<div class="wide"><table class="{kind}">{line(heads, "th")}\n{body}</table></div>'


def html_image(content: bytes, what: str) -> str:
    """A PNG inside the page; `what` is said where it cannot be seen."""
    encoded = base64.b64encode(content).decode()
    return f'<div class="wide"><img alt="{escape(what)}" src="data:image/png;base64,{encoded}"></div>'
