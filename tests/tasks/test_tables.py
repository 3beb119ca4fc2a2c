import gzip
import tracemalloc

import numpy as np
import pytest

from gated_bert.support.errors import UserError
from gated_bert.tasks.tables import first_row, read_chunks, read_table


def write(folder, name, data):
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_tsv_has_quoting_off_and_breaks_lines_at_newlines_only(tmp_path):
    text = 'sentence\tlabel\r\n"half a quote\t1\r\nline\u2028separator, next\x85line\t0\n'
    table = read_table(write(tmp_path, "a.tsv", text))
    assert table.columns == {"sentence": ['"half a quote', "line\u2028separator, next\x85line"], "label": ["1", "0"]}
    assert table.lines == [2, 3]


def test_csv_keeps_commas_and_newlines_in_quotes(tmp_path):
    table = read_table(write(tmp_path, "a.csv", 'text,label\n"one, ""two""\nthree",x\nfour,y\n'))
    assert table.columns["text"] == ['one, "two"\nthree', "four"]
    assert table.lines == [2, 4]


def test_jsonl_and_gzip_and_byte_order_mark(tmp_path):
    table = read_table(write(tmp_path, "a.jsonl", '{"text": "a", "label": 1}\n\n{"text": "b", "label": true}\n'))
    assert table.columns == {"text": ["a", "b"], "label": [1, True]}
    assert table.lines == [1, 3]
    packed = read_table(write(tmp_path, "b.tsv.gz", gzip.compress("\ufefftext\tlabel\na\t0\n".encode())))
    assert packed.columns == {"text": ["a"], "label": ["0"]}


def test_a_text_longer_than_the_csv_modules_limit(tmp_path):
    long = "word " * 40_000
    assert read_table(write(tmp_path, "a.csv", f"text,label\n{long},1\n")).columns["text"] == [long]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.tsv", "", "a.tsv: no examples in it"),
        ("a.tsv", "text\tlabel\n", "a.tsv: no examples in it"),
        ("a.jsonl", "\n", "a.jsonl: no examples in it"),
        ("a.tsv", "text\tlabel\na\t1\nb\n", r"a.tsv, line 3: 1 columns instead of 2 \(text, label\)"),
        ("a.csv", "text,label\na,b,c\n", "a.csv, line 2: 3 columns instead of 2"),
        ("a.csv", 'text,label\na,b\n"open,c\n', "a.csv, line 3: malformed CSV .*check the quotes"),
        ("a.tsv", "text\ttext\na\tb\n", "a.tsv, line 1: column 'text' appears twice"),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', "a.jsonl, line 2: malformed JSON"),
        ("a.jsonl", "[1]\n", "a.jsonl, line 1: holds a list; allowed: an object"),
        ("a.tsv", b"text\tlabel\nok\t1\ncaf\xe9\t1\n", "a.tsv, line 3: not UTF-8"),
        ("a.tsv.gz", b"no gzip", "a.tsv.gz: damaged gzip file"),
        # Without the time of day: all workers have to collect the same tests.
        ("a.tsv.gz", gzip.compress(b"text\tlabel\na\t1\n" * 99, mtime=0)[:-9], "a.tsv.gz: damaged gzip file"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(tmp_path, name, data, message):
    with pytest.raises(UserError, match=message) as caught:
        read_table(write(tmp_path, name, data))
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="none.tsv: cannot be read"):
        read_table(tmp_path / "none.tsv")


def test_columns_are_checked_cell_by_cell(tmp_path):
    table = read_table(write(tmp_path, "a.jsonl", '{"t": "a", "l": "x", "s": 1}\n{"t": " ", "l": "z", "s": "9"}\n'))
    assert table.classes("l", ("z", "x")).tolist() == [1, 0]
    assert table.targets("s").dtype == np.float32
    with pytest.raises(UserError, match="a.jsonl, line 2: empty text in column 't'; fill it in or remove the line"):
        table.texts("t")
    with pytest.raises(UserError, match="a.jsonl, line 1: 's' holds 1, not a text"):
        table.texts("s")
    with pytest.raises(UserError, match="a.jsonl, line 2: unknown label 'z' in column 'l'; allowed: x, y"):
        table.classes("l", ("x", "y"))
    with pytest.raises(UserError, match="a.jsonl, line 2: '9' in column 's' is refused; allowed: a number from 0 to 5"):
        table.targets("s", 0, 5)
    with pytest.raises(UserError, match="line 1: 'a' in column 't' is refused; allowed: a finite number"):
        table.targets("t")
    with pytest.raises(UserError, match="a.jsonl: no column 'u'; found: t, l, s; name it with --text-column"):
        table.texts("u", "name it with --text-column")


def test_a_txt_is_one_text_a_line_and_none_is_empty(tmp_path):
    table = read_table(write(tmp_path, "a.txt", 'one, "two"\tthree\r\nfour\n'))
    assert table.columns == {"text": ['one, "two"\tthree', "four"]}
    with pytest.raises(UserError, match="b.txt, line 2: empty text in column 'text'"):
        read_table(write(tmp_path, "b.txt", "one\n\nthree\n")).texts("text")


def test_chunks_are_the_table_in_parts_and_each_is_read_when_asked_for(tmp_path):
    rows = [f"text {index}\t{index % 2}" for index in range(7)]
    path = write(tmp_path, "a.tsv", "\n".join(["sentence\tlabel", *rows, "a line too\tlong\there"]))
    chunks = read_chunks(path, 3)
    first, second = next(chunks), next(chunks)
    assert first.columns["label"] == ["0", "1", "0"] and first.lines == [2, 3, 4]
    assert second.columns["sentence"] == ["text 3", "text 4", "text 5"] and second.lines == [5, 6, 7]
    with pytest.raises(UserError, match="a.tsv, line 9: 3 columns instead of 2"):
        next(chunks)


def test_a_field_met_once_is_a_column_of_all_later_chunks(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}\n')
    assert [table.columns["label"] for table in read_chunks(path, 1)] == [[1], [None]]


def test_a_large_packed_file_takes_no_memory(tmp_path):
    path = write(
        tmp_path, "a.tsv.gz", gzip.compress(b"sentence\tlabel\n" + b"a good film of some length\t1\n" * 100_000)
    )
    tracemalloc.start()
    try:
        assert sum(len(table.lines) for table in read_chunks(path, 500)) == 100_000
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()


def test_the_first_row_is_read_as_it_stands(tmp_path):
    assert first_row(write(tmp_path, "a.csv", '"3","one, two"\nnot,"closed')) == ["3", "one, two"]
    assert first_row(write(tmp_path, "b.tsv", "")) == []
