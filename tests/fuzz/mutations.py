"""Ways to damage a file: of its values, where it is JSON, and of its bytes."""

import json
from pathlib import Path

from hypothesis import strategies as st

RAW = ("null", "true", "false", "0", "-1", "1.5", "1000000000000", "-1e30", "1e999", "NaN", "-Infinity", "1" * 5000,
       '""', '" "', '"x"', '"\\ud800"', '"\\u0000"', '"../../etc/passwd"', "[]", "{}", "[[]]", '{"a": {}}',
       '[1, 2, "x"]', '{"a": 1, "a": 2}', "[" * 200 + "]" * 200, "[" * 100_000, '"' + "x" * 100_000 + '"')  # fmt: skip
_HOLE = "\N{REPLACEMENT CHARACTER}hole"


def mutate(draw, path: Path):
    """Damages a file, in a way that is drawn."""
    kinds = ("values", "values", "values", "bytes") if path.suffix in (".json", ".jsonl") else ("bytes",)
    if draw(st.sampled_from(kinds)) == "values":
        path.write_text(_values(draw, path), encoding="utf-8")
    else:
        _bytes(draw, path)


def _values(draw, path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    chosen = draw(st.integers(0, len(lines) - 1))
    whole = {"": json.loads(lines[chosen])}
    nodes = [(whole, "")]
    for parent, key in nodes:
        value = parent[key]
        inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        nodes += [(value, name) for name, _ in inside]
    parent, key = draw(st.sampled_from(nodes))
    raw = draw(st.sampled_from(RAW))
    what = draw(st.sampled_from(("replace", "replace", "remove", "twice", "rename")))
    if what == "remove" and parent is not whole:
        del parent[key]
    elif what == "twice" and isinstance(parent, dict) and parent is not whole:
        parent[f"{_HOLE}{key}"] = parent[key]
    elif what == "rename" and isinstance(parent, dict) and parent is not whole:
        parent[draw(st.sampled_from(("", "x", "\0", "é")))] = parent.pop(key)
    else:
        parent[key] = _HOLE
    lines[chosen] = json.dumps(whole[""]).replace(json.dumps(_HOLE), raw).replace(json.dumps(_HOLE)[1:-1], "")
    return "\n".join(lines) + "\n"


def _bytes(draw, path: Path):
    data = path.read_bytes()
    place = draw(st.integers(0, max(0, len(data) - 1)))
    what = draw(st.sampled_from(("cut", "flip", "insert", "empty", "utf-16", "latin-1", "bom", "null", "gone", "folder",
                                 "loop", "zeros", "line", "raw")))  # fmt: skip
    if what in ("gone", "folder", "loop"):
        path.unlink()
        if what == "folder":
            path.mkdir()
        elif what == "loop":
            path.symlink_to(path.name)
        return
    damaged = {
        "cut": data[:place],
        "flip": data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :] if data else b"\1",
        "insert": data[:place] + draw(st.binary(min_size=1, max_size=8)) + data[place:],
        "empty": b"",
        "utf-16": data.decode("latin-1").encode("utf-16"),
        "latin-1": data[:place] + "é".encode("latin-1") + data[place:],
        "bom": b"\xef\xbb\xbf" + data,
        "null": b"null",
        "zeros": bytes(len(data)),
        "line": data + b"x" * 1_000_000,
        "raw": data[:place] + draw(st.sampled_from(RAW)).encode() + data[place:],
    }[what]
    path.write_bytes(damaged)
