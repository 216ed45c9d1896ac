from pathlib import Path

import pytest

from trainables.data.tsv import Tsv
from trainables.errors import DataError


def read(folder: Path, content: str) -> list[tuple[str, str]]:
    path = folder / "data.tsv"
    path.write_text(content, encoding="utf-8", newline="")
    table = Tsv(path=str(path)).read()
    return list(zip(table.texts, table.labels or [], strict=True))


def test_raw_quotes_are_characters(tmp_path: Path) -> None:
    rows = read(tmp_path, 'text\tlabel\n"Go until, he said\tham\nit "is\tspam\n')
    assert rows == [('"Go until, he said', "ham"), ('it "is', "spam")]


def test_whole_cells_in_quotes_lose_them(tmp_path: Path) -> None:
    rows = read(tmp_path, 'text\tlabel\r\n"say ""a"" now"\tx\r\n"a" or "b"\ty\r\n')
    assert rows == [('say "a" now', "x"), ('"a" or "b"', "y")]


def test_quoted_tabs_and_newlines(tmp_path: Path) -> None:
    assert read(tmp_path, 'text\tlabel\n"a\tb"\tx\n') == [("a\tb", "x")]
    assert read(tmp_path, 'text\tlabel\n"a\nb"\tx\n') == [("a\nb", "x")]


def test_line_separators_inside_a_text_do_not_break_it(tmp_path: Path) -> None:
    assert read(tmp_path, "text\tlabel\na\u2028b\x0cc\tx\n") == [("a\u2028b\x0cc", "x")]


def test_ragged(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 2: 3 cells where the header has 2"):
        read(tmp_path, "text\tlabel\na\tb\tc\n")
