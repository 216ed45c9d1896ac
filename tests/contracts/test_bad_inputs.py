"""Whatever a config or a data file holds: a plan, or a sentence that tells how to mend it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.config import load_config
from orchestrator.errors import OrchestratorError
from orchestrator.planning import plan_sweep
from trainables.errors import TrainableError

# What the command line prints as a sentence, and the exit code it ends with.
EXPECTED = (OrchestratorError, TrainableError)
# The files are made anew for every example, and what one leaves is what is looked for.
BOUNDED = settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
BASE: dict[str, Any] = {
    "name": "bad",
    "data": {"source": "csv", "path": "rows.csv", "text": "text", "label": "label", "dev": 0.2},
    "teachers": [
        {
            "name": "only",
            "model": {"name": "linear", "embedding_dim": 4},
            "tokenizer": {"kind": "word"},
            "epochs": 1,
        }
    ],
    "student": {
        "model": {"name": "linear", "embedding_dim": 4},
        "tokenizer": {"kind": "word"},
        "epochs": 1,
    },
    "search": {"trials": 1, "space": {"alpha": {"uniform": [0.1, 1.0]}}},
    "confirm": None,
}
GOOD = "text,label\n" + "".join(f"word{n} of {n % 2},{'ab'[n % 2]}\n" for n in range(40))


class Folder:
    """A config, a data file and a home, and what may be left in it after a refusal."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0

    def outcome(self, config: bytes, data: bytes, name: str = "rows.csv") -> tuple[str, str]:
        """Plan, as ``orchestrator plan`` does; returns what came of it and the message."""
        self.number += 1
        place = self.path / str(self.number)
        place.mkdir()
        (place / name).write_bytes(data)
        (place / "config.yaml").write_bytes(config)
        before = sorted(place.iterdir())
        home = place / "home"
        try:
            plan = plan_sweep(
                load_config(str(place / "config.yaml"), []),
                home,
                cpus=1,
                gpus=0,
                estimate=False,
                tell=lambda text: None,
            )
        except EXPECTED as error:
            code = error.exit_code if isinstance(error, OrchestratorError) else 3
            assert code in {2, 3}, error
            message = str(error)
            assert message.strip()
            assert "Traceback" not in message
            assert all(len(line) < 2000 for line in message.splitlines()), "not a sentence"
            assert not list(home.rglob("*.tmp"))
            assert not list((home / "store" / "tmp").glob("*"))
            assert not (home / "sweeps").exists()
            assert sorted(p for p in place.iterdir() if p != home) == before
            return "refused", message
        json.dumps(plan.to_json())
        return "planned", ""

    def data(self, content: bytes, source: str = "csv", **fields: Any) -> tuple[str, str]:
        """Plan with a good config and this data file."""
        name = f"rows.{source}"
        document = {**BASE, "data": {**BASE["data"], "source": source, "path": name, **fields}}
        return self.outcome(yaml.safe_dump(document).encode(), content, name)

    def config(self, content: bytes) -> tuple[str, str]:
        """Plan with good data and this config."""
        return self.outcome(content, GOOD.encode())


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_the_good_ones_are_planned(folder: Folder) -> None:
    assert folder.data(GOOD.encode()) == ("planned", "")
    assert folder.config(yaml.safe_dump(BASE).encode()) == ("planned", "")


TEXTS = st.text(max_size=40)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.just("null"), st.just("\x00")
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def _paths(value: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, entry in entries:
        yield (*prefix, key)
        if isinstance(entry, dict | list):
            yield from _paths(entry, (*prefix, key))


PATHS = list(_paths(BASE))


@BOUNDED
@given(path=st.sampled_from(PATHS), value=VALUES)
def test_a_config_with_any_value_anywhere(
    folder: Folder, path: tuple[Any, ...], value: Any
) -> None:
    document = json.loads(json.dumps(BASE))
    target = document
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    folder.config(yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "replace"))


@BOUNDED
@given(path=st.sampled_from(PATHS[:-1]), name=TEXTS, value=VALUES)
def test_a_config_with_a_field_nobody_knows(
    folder: Folder, path: tuple[Any, ...], name: str, value: Any
) -> None:
    document = json.loads(json.dumps(BASE))
    target = document
    for key in path[:-1]:
        target = target[key]
    if isinstance(target, dict):
        target[f"zz{name}"] = value
    kind, message = folder.config(yaml.safe_dump(document).encode())
    if isinstance(target, dict):
        assert kind == "refused"
        assert message


@BOUNDED
@given(content=st.binary(max_size=200))
def test_a_config_of_any_bytes(folder: Folder, content: bytes) -> None:
    assert folder.config(content)[0] == "refused"


@BOUNDED
@given(cut=st.integers(0, 700), byte=st.integers(0, 255))
def test_a_config_with_a_flipped_byte(folder: Folder, cut: int, byte: int) -> None:
    content = bytearray(yaml.safe_dump(BASE).encode())
    content[cut % len(content)] = byte
    folder.config(bytes(content))


@BOUNDED
@given(content=st.binary(max_size=400), source=st.sampled_from(["csv", "tsv", "jsonl", "parquet"]))
def test_a_data_file_of_any_bytes(folder: Folder, content: bytes, source: str) -> None:
    assert folder.data(content, source)[0] == "refused"


CELLS = st.one_of(
    TEXTS,
    st.sampled_from(
        ["", " ", "null", "NaN", "a,b", '"', "🦉🦉", "مرحبا بالعالم", "‮abc", "\t", "1"]
    ),
)


@BOUNDED
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), max_size=30),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.sampled_from(["", "\ufeff"]),
)
def test_a_csv_of_any_cells(
    folder: Folder, rows: list[tuple[str, str]], newline: str, mark: str
) -> None:
    lines = [mark + "text,label"]
    lines += [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    folder.data((newline.join(lines) + newline).encode("utf-8", "replace"))


@BOUNDED
@given(
    rows=st.lists(st.dictionaries(st.sampled_from(["text", "label", "x"]), SCALARS), max_size=20)
)
def test_jsonl_of_any_rows(folder: Folder, rows: list[dict[str, Any]]) -> None:
    text = "\n".join(json.dumps(row) for row in rows)
    folder.data(text.encode("utf-8", "replace"), "jsonl")


def lines(*rows: str) -> bytes:
    return ("text,label\n" + "\n".join(rows) + "\n").encode()


def many(count: int, classes: int) -> bytes:
    return lines(*(f"word{n} number {n},class{n % classes}" for n in range(count)))


LONG = "x" * (10 * 2**20)
PLANNED: dict[str, Callable[[], bytes]] = {
    "CRLF": lambda: GOOD.replace("\n", "\r\n").encode(),
    "BOM": lambda: b"\xef\xbb\xbf" + GOOD.encode(),
    "a label called null": lambda: GOOD.replace(",a\n", ",null\n").encode(),
    "right-to-left": lambda: GOOD.replace("word", "كلمة ").encode(),
    "emoji": lambda: GOOD.replace("word", "🦉 ").replace(",a\n", ",🎉\n").encode(),
    "no newline at the end": lambda: GOOD.rstrip("\n").encode(),
    "many rows, many classes": lambda: many(1000, 200),
}
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", ""),
    "header only": (lambda: b"text,label\n", ""),
    "one row": (lambda: lines("hello,a"), ""),
    "one class": (lambda: lines(*(f"row {n},a" for n in range(30))), "class"),
    "duplicate column names": (
        lambda: GOOD.replace("text,label", "text,label,label").encode(),
        "label",
    ),
    "NUL bytes": (lambda: bytes(500), ""),
    "no such column": (lambda: GOOD.replace("text,", "words,").encode(), "text"),
    "100,000 classes of one row": (lambda: many(100_000, 100_000), "class"),
    "latin-1": (lambda: GOOD.replace("word", "wört").encode("latin-1"), "UTF-8"),
    "a line of 10 MB": (lambda: GOOD.encode() + f"{LONG},a\n".encode(), "jsonl"),
    "an archive": (lambda: b"PK\x03\x04" + bytes(range(256)) * 8, ""),
}


@pytest.mark.parametrize("name", PLANNED)
def test_unusual_data_that_is_planned(folder: Folder, name: str) -> None:
    assert folder.data(PLANNED[name]()) == ("planned", "")


@pytest.mark.parametrize("name", REFUSED)
def test_unusable_data_that_is_refused(folder: Folder, name: str) -> None:
    make, word = REFUSED[name]
    kind, message = folder.data(make())
    assert kind == "refused"
    assert word.lower() in message.lower()


def test_a_line_of_ten_megabytes_where_lines_have_no_limit(folder: Folder) -> None:
    rows = [{"text": f"word{n} of {n % 2}", "label": "ab"[n % 2]} for n in range(40)]
    rows[0]["text"] = LONG
    text = "\n".join(json.dumps(row) for row in rows)
    assert folder.data(text.encode(), "jsonl") == ("planned", "")


def test_a_hundred_thousand_classes_and_a_row_for_each_split(folder: Folder) -> None:
    kind, _ = folder.data(many(200_000, 100_000))
    assert kind in {"planned", "refused"}
