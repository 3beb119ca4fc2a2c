"""The records of a `.wandb` file: a log of LevelDB's format, https://github.com/google/leveldb/blob/main/doc/log_format.md."""

import struct
from pathlib import Path

_HEADER, _BLOCK = 7, 32768
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def records(path: Path):
    """Kind and message of every record."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts = path.read_bytes(), _HEADER, b""
    assert content[:4] == b":W&B"
    while place + _HEADER <= len(content):
        left = _BLOCK - place % _BLOCK
        if left < _HEADER:
            place += left
            continue
        _, size, kind = struct.unpack("<IHB", content[place : place + _HEADER])
        if not kind:
            break
        parts = (parts if kind in (_MIDDLE, _LAST) else b"") + content[place + _HEADER : place + _HEADER + size]
        place += _HEADER + size
        if kind in (_FULL, _LAST):
            record = Record()
            record.ParseFromString(parts)
            name = record.WhichOneof("record_type")
            yield name, getattr(record, name)
