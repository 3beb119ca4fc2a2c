"""Pages of the documentation that are made when it is built: commands from their flags, and files beside `docs/`."""

from __future__ import annotations

import contextlib
import html
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
ELSEWHERE = {
    "results/README.md": "results.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md", "README.md": "index.md",
}  # fmt: skip
"""Page of the repository → page of the site."""
NOTEBOOKS = {f"notebooks/{path.name}": f"tutorial_{path.stem}.md" for path in (ROOT / "notebooks").glob("*.ipynb")}
"""Notebook → page of the site."""
_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]*)(#[^)\s]*)?\)")
_FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config) -> Files:
    """Adds the commands, the notebooks, the pages beside `docs/` and the pictures that they show."""
    files.append(File.generated(config, "commands.md", content=commands_page()))
    for source, page in NOTEBOOKS.items():
        files.append(File.generated(config, page, content=notebook_page(ROOT / source)))
    for source, page in ELSEWHERE.items():
        if source != "README.md":
            text = (ROOT / source).read_text(encoding="utf-8")
            files.append(File.generated(config, page, content=relinked(text, (ROOT / source).parent)))
    for path in sorted(pictures()):
        files.append(File.generated(config, f"pictures/{path.as_posix()}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page, config, files) -> str:
    """Links out of `docs/` lead to the pages that are made of what they name."""
    return relinked(markdown, ROOT / "docs") if not page.file.generated_by else markdown


def pictures() -> set[Path]:
    """Pictures outside of `docs/` that a page shows."""
    found = set()
    for source in (*(ROOT / "docs").glob("*.md"), *(ROOT / each for each in ELSEWHERE)):
        for start, target, _ in _LINK.findall(source.read_text(encoding="utf-8")):
            path = (source.parent / target).resolve()
            if start.startswith("!") and path.is_file() and not path.is_relative_to(ROOT / "docs"):
                found.add(path.relative_to(ROOT))
    return found


def relinked(text: str, folder: Path) -> str:
    """The links of a page in `folder` as those of a page of the site."""

    def link(match: re.Match) -> str:
        start, target, anchor = match[1], match[2], match[3] or ""
        if not target or ":" in target:
            return match[0]
        path = (folder / target).resolve()
        if not path.is_relative_to(ROOT):
            return match[0]
        place = path.relative_to(ROOT).as_posix()
        page = (ELSEWHERE | NOTEBOOKS).get(place)
        if page:
            return f"{start}{page}{anchor})"
        if path.is_relative_to(ROOT / "docs"):
            return f"{start}{path.relative_to(ROOT / 'docs').as_posix()}{anchor})"
        if start.startswith("!"):
            return f"{start}pictures/{place})"
        # A file of the repository that no page shows: its name, as it is there.
        return f"`{place}`" if path.exists() else match[0]

    parts = _FENCED.split(text)
    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in parts)


def notebook_page(path: Path) -> str:
    """A notebook with what it stores: texts, code, and what the code showed."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(relinked(source, path.parent))
        else:
            parts += [f"```python\n{source}\n```", *map(_output, cell["outputs"])]
    return "\n\n".join(parts) + "\n"


def _output(output: dict) -> str:
    shown = {kind: "".join(content) for kind, content in output.get("data", {}).items()}
    if "image/png" in shown:
        width = output["metadata"].get("image/png", {}).get("width", "")
        source = f"data:image/png;base64,{shown['image/png'].strip()}"
        return f'<p><img alt="what the code above draws" width="{width}" src="{source}"></p>'
    if "text/html" in shown:
        # Blank lines would end the markup; a table without style and class of its own gets the site's, and scrolls.
        plain = re.sub("<style scoped>.*?</style>", "", shown["text/html"], flags=re.DOTALL)
        return plain.replace('<table border="1" class="dataframe">', "<table>").replace("\n", "&#10;")
    return f"```text\n{''.join(output.get('text', '')) or shown.get('text/plain', '')}\n```"


class _Shown(Exception):
    """The help of a command, instead of being printed."""


def command_help(name: str) -> tuple[str, str, tuple, dict]:
    """Usage, text, flags and shown defaults of a command, as its parser is given them."""
    from gated_bert.cli import main, parsing

    def take(prog, text, flags, defaults):
        raise _Shown(prog, text, flags, defaults)

    named = [module for module in sys.modules.values() if getattr(module, "make_parser", None) is parsing.make_parser]
    with contextlib.ExitStack() as stack:
        for module in named:
            stack.enter_context(mock.patch.object(module, "make_parser", take))
        try:
            main.COMMANDS[name].run(["-h"])
        except _Shown as shown:
            return shown.args
    raise RuntimeError(f"{name}: reads no flags")


def commands_page() -> str:
    """All commands, their flags and an example of each."""
    from gated_bert.cli.example_lines import EXAMPLES
    from gated_bert.cli.main import COMMANDS

    lines = ["# Commands", "", "Made from the flags themselves; `gated-bert COMMAND -h` says the same. "
             "`./run_experiments.sh` takes the flags of [sweep](#sweep).", "", "| command | what it does |",
             "| --- | --- |"]  # fmt: skip
    lines += [f"| [{name}](#{name}) | {entry.summary} |" for name, entry in COMMANDS.items()]
    told: dict[str, tuple] = {}
    for name in COMMANDS:
        prog, text, flags, defaults = command_help(name)
        lines += ["", f"## {name}", "", _text(text), "", "```bash", EXAMPLES[name], "```"]
        same = next((other for other, known in told.items() if known == flags and len(flags) > 20), None)
        if same:
            lines += ["", f"Its flags are those of [{same}](#{same})."]
            continue
        told[name] = flags
        lines += _tables(name, prog, flags, defaults)
    return "\n".join(lines) + "\n"


def _tables(name: str, prog: str, flags: tuple, defaults: dict) -> Iterator[str]:
    if prog.split()[2:]:
        yield from ("", f"`{prog}`")
    for group in dict.fromkeys(flag.group for flag in flags):
        yield from ("", f"**{group}**", "", "| flag | | default |", "| --- | --- | --- |")
        for flag in flags:
            if flag.group == group:
                value = "" if flag.kind == "alone" else f" {flag.metavar}{' …' * (flag.kind == 'list')}"
                default = f"`{defaults[flag.name]}`" if flag.name in defaults else ""
                options = ", ".join(f"`{option}`" for option in flag.options)
                yield f"| {options}{_text(value)} | {_text(flag.text)} | {default} |"


def _text(text: str) -> str:
    """Text that Markdown leaves as it is."""
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", html.escape(text, quote=False))
