"""Tables of earlier commands, read again."""

import pytest

from gated_bert.experiments.reports.csv_file import read_csv
from gated_bert.experiments.runs.resource_log import COLUMNS, ResourceLog
from gated_bert.experiments.studies.activation_table import memory
from gated_bert.experiments.studies.study import _copy, _join_stages
from gated_bert.support.errors import UserError

DAMAGED = {
    "empty": b"",
    "another file": b"\x89PNG\r\n\x1a\n\0\0",
    "utf-16": "a,b\n1,2\n".encode("utf-16"),
    "not a number": b"a,b\n1,2\nx,3\n",
    "another header": b"c,d\n1,2\n",
    "a quote that is never closed": b'a,b\n1,"2\n',
    "cells of no column": b"a,b\n1,2\n1,2,3,4\n",
    "only a header": b"a,b\n",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_what_is_no_table_is_one_sentence(tmp_path, kind):
    path = tmp_path / "a.csv"
    path.write_bytes(DAMAGED[kind])
    with pytest.raises(UserError, match="^.*a.csv: ") as caught:
        read_csv(path, ("a",), ("b",))
    assert len(str(caught.value).splitlines()) == 1
    # Whoever reads such tables reads them there.
    (tmp_path / "sp_lime.csv").write_bytes(DAMAGED[kind])
    for read in (lambda: memory(path), lambda: _join_stages([path], tmp_path),
                 lambda: _copy(tmp_path / "sp_lime.csv", tmp_path / "copy.csv", ())):  # fmt: skip
        with pytest.raises(UserError):
            read()


def test_a_whole_table_is_read_as_it_is(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b,c\n1,x,\n2.5,,\n")
    assert read_csv(path, ("a", "c"), ("b",))["a"].tolist() == [1, 2.5]
    for path in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(UserError, match="no such file"):
            read_csv(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0", b"seconds,time\nx,3\n", b"time\n5\n", b"seconds,time\n1\n",
                                     b"seconds,time\nnan,1e999\n"])  # fmt: skip
def test_a_log_goes_on_whatever_stands_in_it(tmp_path, content):
    with ResourceLog(tmp_path, 100.0) as log:
        pass
    assert log.path.read_text().startswith(",".join(COLUMNS))
    log.path.write_bytes(content)
    with ResourceLog(tmp_path, 100.0, going_on=True):
        pass
    assert log.path.read_bytes().startswith(content) and b"start" in log.path.read_bytes()
