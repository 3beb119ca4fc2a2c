"""The house keeps its shape: imports go down, no two modules share a name, none shadows the standard library."""

import collections
import sys

from benchmarks.imports import ORDER, ROOT, graph, imports, modules, wing


def test_imports_go_one_way():
    up = [(a, b) for a, b in imports() if wing(a) and wing(b) and ORDER.index(wing(b)) > ORDER.index(wing(a))]
    assert up == []


def test_every_module_stands_in_a_wing():
    outside = {name for name in modules() if wing(name) is None}
    assert outside == {"", "__main__", "installation", "experiments"}


def test_nothing_imports_the_command_line():
    assert {a for a, b in imports() if wing(b) == "cli" and wing(a) != "cli"} == {"__main__"}


def test_modules_do_not_import_each_other_in_circles():
    below = collections.defaultdict(set)
    for a, b in imports():
        below[a].add(b)

    def reach(name, seen):
        for other in below[name] - seen:
            seen.add(other)
            reach(other, seen)
        return seen

    assert [name for name in list(below) if name and name in reach(name, set())] == []


def test_no_two_modules_have_one_name_and_none_that_of_the_standard_library():
    names = collections.Counter(name.rpartition(".")[2] for name in modules() if name)
    assert [name for name, count in names.items() if count > 1] == ["models"]  # the wing, and what is done with models
    assert [name for name in names if name in sys.stdlib_module_names] == []


def test_files_hold_one_idea():
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_the_picture_in_the_documentation_is_that_of_the_code():
    assert graph() in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
