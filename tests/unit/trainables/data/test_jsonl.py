from pathlib import Path

import pytest

from trainables.data._table import Table
from trainables.data.jsonl import Jsonl
from trainables.errors import DataError


def read(folder: Path, content: str, **params: str | None) -> Table:
    path = folder / "data.jsonl"
    path.write_text(content, encoding="utf-8")
    return Jsonl(path=str(path), **params).read()


def test_values_keep_their_digits(tmp_path: Path) -> None:
    labels = ["1", "1.0", "1e3", "true", '"null"', "NaN", "12345678901234567890123"]
    table = read(tmp_path, "\n".join(f'{{"text": "a", "label": {label}}}' for label in labels))
    assert table.labels == [label.strip('"') for label in labels]


def test_emoji_pairs_and_lone_surrogates(tmp_path: Path) -> None:
    table = read(tmp_path, r'{"text": "\ud83d\ude00 \ud83d!", "label": "x"}')
    assert table.texts == ["😀 \ufffd!"]
    assert "half a surrogate pair" in table.notes[0]


def test_unlabelled_with_line_separator(tmp_path: Path) -> None:
    table = read(tmp_path, '{"text": "a\u2028b"}\n\n{"text": "c", "id": [1]}\n', label=None)
    assert table.texts == ["a\u2028b", "c"]
    assert table.labels is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a", "label": "b"}\n{"text": }', "line 2 is not JSON"),
        ('["a", "b"]', "line 1 is not an object"),
        ("[" * 100_000, "line 1 is not JSON"),
        ('{"text": ["a"], "label": "b"}', "line 1: 'text' is a list"),
        ('{"text": "a", "label": null}', "have no label"),
        ('{"text": "a", "labels": "b"}', "did you mean 'labels'"),
        (r'{"text": "a\u0000", "label": "b"}', "data row 1: the text holds a NUL"),
    ],
)
def test_bad_content(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, content)
    assert message in str(caught.value)
