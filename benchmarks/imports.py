"""Which wing of the package imports which, as a Mermaid graph: `python -m benchmarks.imports`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ORDER = (
    "loading", "start", "support", "config", "tasks", "models", "pruning", "compression", "explain",
    "experiments.reports", "experiments.runs", "experiments.sweeps", "experiments.models", "experiments.explanations",
    "experiments.studies", "cli",
)  # fmt: skip
"""Wings from the ground up: each may import those before it."""


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Name of a module below `gated_bert` → its file."""
    paths = sorted((root / "gated_bert").rglob("*.py"))
    names = [".".join(path.relative_to(root / "gated_bert").with_suffix("").parts) for path in paths]
    return {name.removesuffix("__init__").rstrip("."): path for name, path in zip(names, paths, strict=True)}


def imports(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """Pairs of a module and one that it imports, anywhere in its code but for annotations alone."""
    known = modules(root)
    for name, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for_types = {node for branch in ast.walk(tree) if isinstance(branch, ast.If)
                     and ast.unparse(branch.test) == "TYPE_CHECKING" for node in branch.body}  # fmt: skip
        for node in set(ast.walk(tree)) - for_types:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "gated_bert":
                module = node.module.removeprefix("gated_bert").lstrip(".")
                for alias in node.names:
                    inner = f"{module}.{alias.name}".lstrip(".")
                    yield name, inner if inner in known else module
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.startswith("gated_bert."):
                        yield name, alias.name.removeprefix("gated_bert.")


def wing(module: str) -> str | None:
    """The wing that a module stands in; None for the package itself and how it is called."""
    return next((each for each in ORDER if module == each or module.startswith(each + ".")), None)


def graph(root: Path = ROOT) -> str:
    """The wings as Mermaid text; an arrow that others imply is left out."""
    direct = {each: set() for each in ORDER}
    for a, b in imports(root):
        if wing(a) and wing(b) and wing(a) != wing(b):
            direct[wing(a)].add(wing(b))
    reach = {}
    for each in ORDER:
        reach[each] = direct[each].union(*(reach.get(other, set()) for other in direct[each]))
    lines = []
    for each in ORDER:
        implied = set().union(*(reach.get(other, set()) for other in direct[each]))
        lines += [f"  {each.replace('.', '_')}[{each}] --> {other.replace('.', '_')}[{other}]"
                  for other in ORDER if other in direct[each] - implied]  # fmt: skip
    return "\n".join(["graph BT", *lines])


if __name__ == "__main__":
    print(graph())
