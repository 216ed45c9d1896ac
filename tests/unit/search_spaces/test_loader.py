from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.errors import ConfigFileError, OverrideError
from search_spaces.loader import apply_overrides, load_yaml, locate, preset_names, preset_path
from search_spaces.yaml import YamlError, parse_yaml


def test_scalars_mean_what_people_think() -> None:
    text = (
        "[5e-5, 1.0e-3, 30_000, -2, .5, true, null, ~, no, on, 2024-01-31, 0123, 1:30, yes, .inf]"
    )
    assert parse_yaml(text) == [
        *(5e-5, 1e-3, 30_000, -2, 0.5, True, None, None),
        *("no", "on", "2024-01-31", "0123", "1:30", "yes", ".inf"),
    ]


def test_keys_are_the_text_that_was_written() -> None:
    assert parse_yaml("{1: a, null: b, no: c, 01: d}") == {
        "1": "a",
        "null": "b",
        "no": "c",
        "01": "d",
    }


def test_anchors_and_merges_work() -> None:
    assert parse_yaml("a: &x {b: 1}\nc: {<<: *x, d: 2}")["c"] == {"b": 1, "d": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2", r"line 4, column 3: the key 'c' is given twice"),
        ("a:\n\tb: 1", r"line 2, column 1: a tab where YAML wants spaces"),
        ("a: [1, 2\nb: 3", r"line 2, column 2: .*brackets"),
        ("a: \x00", r"line 1: holds a control character"),
        ("? [1]\n: 2", r"a key must be text"),
        ("a: !!python/object/apply:os.system [ls]", r"tags such as !!python are not allowed"),
        ("a: &a [*a]", r"too large"),
        ("[" * 5000, r"nested too deeply"),
        ("a: !!int x", r"cannot be read"),
        ("a: 1\n---\nb: 2", r"line 2"),
    ],
)
def test_bad_yaml_is_explained_with_its_place(text: str, message: str) -> None:
    with pytest.raises(YamlError, match=message):
        parse_yaml(text)


def test_an_alias_bomb_is_refused() -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    lines = ["a0: &a0 [1, 1, 1]", *levels]
    with pytest.raises(YamlError, match="too large"):
        parse_yaml("\n".join(lines))


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_explained(text: str) -> None:
    try:
        parse_yaml(text)
    except YamlError as error:
        assert str(error)


def write(folder: Path, content: bytes) -> Path:
    path = folder / "config.yaml"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"# only a comment\n", "is empty"),
        (b"- a\n- b\n", "holds a list"),
        (b"name\n", "holds a single value"),
        (b"name: caf\xe9", r"not UTF-8 \(byte 9\)"),
        (b"a: " + b"x" * 1_000_001, "over 1 MB"),
        (b"a: [1", "line 1"),
    ],
)
def test_unusable_files_are_explained(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ConfigFileError, match=message):
        load_yaml(write(tmp_path, content))


def test_a_byte_order_mark_and_windows_lines_are_fine(tmp_path: Path) -> None:
    path = write(tmp_path, b"\xef\xbb\xbfname: x\r\nseed: 1\r\n")
    assert load_yaml(path) == {"name": "x", "seed": 1}


def test_what_cannot_be_found_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "news.yaml").write_text("name: news")
    with pytest.raises(ConfigFileError, match=r"did you mean '.*news\.yaml'"):
        locate(tmp_path / "new.yaml")
    with pytest.raises(ConfigFileError, match="did you mean 'quickstart'"):
        locate("quikstart")
    with pytest.raises(ConfigFileError, match="is a folder"):
        locate(tmp_path)
    with pytest.raises(ConfigFileError, match="no preset 'nope'"):
        preset_path("nope")


def test_a_file_comes_before_a_preset_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("smoke") == preset_path("smoke")
    (tmp_path / "smoke").write_text("name: mine")
    assert load_yaml("smoke") == {"name": "mine"}


def test_presets_are_listed() -> None:
    assert {"quickstart", "smoke"} <= set(preset_names())


BASE: dict[str, Any] = {
    "name": "x",
    "teachers": [{"name": "a", "epochs": 3}],
    "student": {"loss": "kd"},
    "search": {"trials": 4, "early_stopping": None, "space": {"model.filters": 3}},
}


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("search.trials=8", ("search", "trials"), 8),
        ("teachers.0.epochs=1", ("teachers", 0, "epochs"), 1),
        ("student.lr=5e-4", ("student", "lr"), 5e-4),
        ("student.loss.temperature=2", ("student", "loss"), {"name": "kd", "temperature": 2}),
        ("search.early_stopping.reduction=2", ("search", "early_stopping"), {"reduction": 2}),
        ("search.space.alpha={uniform: [0, 1]}", ("search", "space", "alpha"), {"uniform": [0, 1]}),
        ("search.space.model.filters=5", ("search", "space"), {"model.filters": 5}),
        ("data.test=", ("data", "test"), None),
        ("data.path=a=b.csv", ("data", "path"), "a=b.csv"),
        ("confirm=null", ("confirm",), None),
    ],
)
def test_overrides(override: str, path: Any, value: Any) -> None:
    result: Any = apply_overrides(BASE, [override])
    for part in path:
        result = result[part]
    assert result == value


def test_overrides_leave_the_original_alone() -> None:
    apply_overrides(BASE, ["teachers.0.epochs=9", "student.loss.temperature=9"])
    assert BASE["teachers"] == [{"name": "a", "epochs": 3}]
    assert BASE["student"] == {"loss": "kd"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.trials", "not of the form key=value"),
        ("=3", "not of the form"),
        ("a..b=3", "not of the form"),
        ("a=[1", "line 1"),
        ("teachers.1.epochs=1", "list without '1'; indices: 0 to 0"),
        ("teachers.a=1", "list without 'a'"),
        ("search.trials.x=1", "search.trials is 4 and has no 'x'"),
    ],
)
def test_bad_overrides_are_explained(override: str, message: str) -> None:
    with pytest.raises(OverrideError, match=message):
        apply_overrides(BASE, [override])
