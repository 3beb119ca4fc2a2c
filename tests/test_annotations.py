"""The types of what users call: every parameter and result says its own, and the package says that they are there."""

from __future__ import annotations

import ast
import configparser
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "gated_bert"


def missing(source: str) -> list[str]:
    """What lacks a type among the public functions, methods and constructors of a module."""
    found = []
    for node in ast.parse(source).body:
        if node.__class__.__name__ not in ("FunctionDef", "ClassDef") or node.name.startswith("_"):
            continue
        methods = [each for each in getattr(node, "body", ()) if isinstance(each, ast.FunctionDef)]
        functions = [(node, 0, node.name)] if isinstance(node, ast.FunctionDef) else [
            (each, int("staticmethod" not in map(ast.unparse, each.decorator_list)), f"{node.name}.{each.name}")
            for each in methods if not each.name.startswith("_") or each.name in ("__init__", "__call__")
        ]  # fmt: skip
        for each, bound, name in functions:
            given = [*each.args.posonlyargs, *each.args.args][bound:] + each.args.kwonlyargs
            given += [one for one in (each.args.vararg, each.args.kwarg) if one]
            found += [f"{name}: {one.arg}" for one in given if one.annotation is None]
            if each.returns is None and each.name != "__init__":
                found.append(f"{name}: its result")
    return found


def test_what_lacks_a_type_is_found():
    source = (
        "def f(a, *b: int, c=1, **d) -> int: ...\ndef g(): ...\ndef _h(a): ...\n"
        "class A:\n    def __init__(self, a): ...\n    def m(self, a: int): ...\n    def _n(self, a): ...\n"
        "    @staticmethod\n    def s(a) -> int: ...\n    @property\n    def p(self): ...\n"
        "class _B:\n    def m(self, a): ...\n"
    )
    assert missing(source) == ["f: a", "f: c", "f: d", "g: its result", "A.__init__: a", "A.m: its result", "A.s: a",
                               "A.p: its result"]  # fmt: skip


def test_whatever_is_public_says_its_types():
    found = {str(path): missing(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
    assert {module: names for module, names in found.items() if names} == {}


def test_type_checkers_of_users_read_the_types():
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg")
    assert "py.typed" in config["options.package_data"]["gated_bert"].split()
    assert (REPOSITORY / "gated_bert/py.typed").is_file()
