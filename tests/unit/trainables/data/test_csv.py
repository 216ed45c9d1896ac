import gzip
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainables import catalog
from trainables.data._table import Table
from trainables.data.csv import Csv
from trainables.errors import ComponentError, DataError


def write(folder: Path, content: bytes, name: str = "data.csv") -> str:
    path = folder / name
    path.write_bytes(content)
    return str(path)


def read(folder: Path, content: bytes, name: str = "data.csv", **params: str | None) -> Table:
    return catalog.build("data", "csv", path=write(folder, content, name), **params).read()


def error(folder: Path, content: bytes, name: str = "data.csv", **params: str | None) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, content, name, **params)
    return str(caught.value)


@pytest.mark.parametrize("label", ["null", "nan", "NA", "", "01", "1.0", "True", " x "])
def test_labels_survive_as_written(tmp_path: Path, label: str) -> None:
    content = f"text,label\nhello,{label}\nworld,b\n".encode()
    if not label:
        assert "have no label (the first is data row 1)" in error(tmp_path, content)
    else:
        assert read(tmp_path, content).labels == [label, "b"]


def test_quotes_newlines_bom_crlf_and_gzip(tmp_path: Path) -> None:
    content = '\ufefftext,label\r\n"a ""b"",\r\nc",x\r\n\r\nüé😀 שלום,y\r\n'.encode()
    table = read(tmp_path, content)
    assert table.texts == ['a "b",\r\nc', "üé😀 שלום"]
    assert table.labels == ["x", "y"]
    assert read(tmp_path, gzip.compress(content), "data.csv.gz") == table


def test_unlabelled_and_superclass(tmp_path: Path) -> None:
    content = b"text,label,group\na,x,g\n"
    assert read(tmp_path, content, label=None).labels is None
    assert read(tmp_path, content, superclass="group").groups == ["g"]


def test_empty_texts_are_dropped_with_a_note(tmp_path: Path) -> None:
    table = read(tmp_path, b"text,label\na,x\n,y\n \t,\nb,z\n")
    assert table.labels == ["x", "z"]
    assert "2 rows with an empty text" in table.notes[0]
    assert "all 2 texts" in error(tmp_path, b"text,label\n,y\n ,z\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"text,label\n", "no rows"),
        (b"texts,label\na,b\n", "no text column 'text', did you mean 'texts'?; it has: texts, la"),
        (b"text;label\na;b\n", "looks separated by ';'"),
        (b"text,label,text\na,b,c\n", "2 columns named 'text'"),
        (b"text,label\na,b\nc\n", "line 3: 1 cells where the header has 2"),
        (b"text,label\na,b,c\n", "line 2: 3 cells"),
        (b'text,label\n"a,b\nc,d\n', "line 3: unexpected end of data"),
        (b'text,label\n"a"b,c\n', "line 2"),
        (b"text,label\na,b\nc\0d,e\n", "line 3: NUL byte at offset 16"),
        ("text,label\nx,体育新闻报道\n".encode("gb18030"), "iconv -f GB18030"),
        ("text,label\ncafé olé,x\n".encode("cp1252"), "0xe9 at offset 14 (line 2)"),
        ("text,label\ncafé olé,x\n".encode("cp1252"), "iconv -f WINDOWS-1252"),
        ("text,label\na,b\n".encode("utf-16"), "iconv -f UTF-16"),
        (b"\xef\xbb\xbftext,label\n\xff,b\n", "byte 0xff at offset 14 (line 2)"),
    ],
)
def test_bad_content(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in error(tmp_path, content)


def test_all_column_problems_at_once(tmp_path: Path) -> None:
    message = error(tmp_path, b"txt,lable\na,b\n")
    assert "did you mean 'txt'" in message
    assert "did you mean 'lable'" in message


def test_bad_files(tmp_path: Path) -> None:
    write(tmp_path, b"x", "train.csv")
    with pytest.raises(DataError, match=r"does not exist, did you mean 'train.csv'"):
        Csv(path=str(tmp_path / "tran.csv")).read()
    with pytest.raises(DataError, match="is a folder"):
        Csv(path=str(tmp_path)).read()
    with pytest.raises(DataError, match="does not exist"):
        Csv(path=str(tmp_path / "no" / "where.csv")).digest()
    assert "not a complete gzip" in error(tmp_path, b"text,label\na,b\n", "x.csv.gz")
    assert "not a complete gzip" in error(tmp_path, gzip.compress(b"text,label")[:-4], "y.csv.gz")


def test_unknown_parameter() -> None:
    with pytest.raises(ComponentError, match="did you mean 'label'"):
        catalog.build("data", "csv", path="x", lable="y")


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    body=st.binary(max_size=200), header=st.sampled_from([b"", b"text,label\n", b"\xef\xbb\xbf"])
)
@pytest.mark.parametrize("source", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_any_bytes_give_a_table_or_a_data_error(
    tmp_path: Path, source: str, suffix: str, header: bytes, body: bytes
) -> None:
    path = write(tmp_path, header + body, f"any.{source}{suffix}")
    try:
        table = catalog.build("data", source, path=path).read()
    except DataError as caught:
        assert path in str(caught)
    else:
        assert table.labels is not None
        assert len(table.texts) == len(table.labels) > 0
        assert all(text.strip() for text in table.texts)


@settings(
    deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(st.tuples(st.text(max_size=20), st.text(min_size=1, max_size=5)), min_size=1))
def test_round_trip_of_written_rows(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    import csv
    import io

    usable = [
        (text, label)
        for text, label in rows
        if text.strip() and label.strip() and "\0" not in text + label
    ]
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *usable])
    try:
        content = buffer.getvalue().encode()
    except UnicodeEncodeError:
        return
    if usable:
        table = read(tmp_path, content)
        assert list(zip(table.texts, table.labels or [], strict=True)) == usable
