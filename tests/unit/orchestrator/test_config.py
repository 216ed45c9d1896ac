import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.config import SweepConfig, load_config, parse_config
from orchestrator.errors import ConfigError, Problem
from orchestrator.points import apply_point, default_point, grid_points, student_at, teachers_at

BASE: dict[str, Any] = {
    "name": "news",
    "data": {"path": "train.csv"},
    "teachers": [
        {"name": "bert", "model": {"name": "bert", "checkpoint": "some/encoder"}},
        {"name": "bert_cnn", "model": {"name": "bert_cnn", "checkpoint": "some/encoder"}},
    ],
    "student": {"model": {"name": "textcnn", "filters": 8}},
    "search": {
        "space": {
            "loss": {
                "choice": [
                    {"name": "kd", "temperature": {"log_uniform": [1, 10]}},
                    {"name": "dkd", "beta": {"uniform": [1, 8]}},
                ]
            },
            "weighting": {"choice": ["average", "confidence"]},
            "n_teachers": {"int": [1, 2]},
            "alpha": {"log_uniform": [0.1, 10]},
        }
    },
}

JARGON = (
    "Input should",
    "pydantic",
    "validator",
    "Extra inputs",
    "Field required",
    "Tuple",
    "dict",
)


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the base config with dotted keys set; ``...`` removes the key."""
    result = copy.deepcopy(BASE)
    for key, value in changes.items():
        target: Any = result
        *parents, last = [int(part) if part.isdigit() else part for part in key.split(".")]
        for parent in parents:
            target = target[parent] if isinstance(parent, int) else target.setdefault(parent, {})
        if value is ...:
            del target[last]
        else:
            target[last] = value
    return result


def problems(mapping: dict[str, Any]) -> dict[str, Problem]:
    with pytest.raises(ConfigError) as caught:
        parse_config(mapping)
    for word in JARGON:
        assert word not in str(caught.value)
    return {problem.where: problem for problem in caught.value.problems}


def test_a_small_config_gets_documented_defaults() -> None:
    config = parse_config(BASE)
    assert config.student.loss == {"name": "kd", "temperature": 4.0}
    assert config.data.dev == 0.1
    assert config.search.objectives == {"val_f1_macro": "max"}
    assert config.confirm is not None
    assert (config.confirm.top, config.confirm.seeds) == (3, 3)
    assert config.budget.failed_trials == 0.5


def test_a_config_survives_json() -> None:
    config = parse_config(BASE)
    assert parse_config(json.loads(json.dumps(config.to_dict()))) == config


def test_a_bare_name_is_a_component() -> None:
    config = parse_config(changed({"student.loss": "mse_logits", "student.hint": "smooth_l1"}))
    assert config.student.loss == {"name": "mse_logits"}
    assert config.student.hint == {"name": "smooth_l1"}


def test_outputs_and_confirm_inherit_their_resources() -> None:
    resources = parse_config(
        changed({"resources": {"teacher": {"gpu": 1}, "student": {"gpu": 0.25}}})
    ).resources
    assert resources.outputs.gpu == 1
    assert resources.confirm.gpu == 0.25
    assert parse_config(changed({"resources": {"outputs": {"cpu": 2}}})).resources.outputs.cpu == 2


@pytest.mark.parametrize(
    ("changes", "where", "message"),
    [
        ({"name": ...}, "name", "is missing"),
        ({"name": "My Sweep"}, "name", "a-z 0-9 _ -"),
        ({"data": ...}, "data", "is missing; add `data: {path: train.csv}`"),
        ({"data.path": ...}, "data.path", "is missing"),
        ({"data.pth": "x"}, "data.pth", "did you mean 'path'"),
        ({"data.path": 3}, "data.path", "must be text, got 3; put it in quotes"),
        ({"data.dev": 1.5}, "data.dev", "between 0 and 1"),
        ({"data.dev": 0}, "data.dev", "at least 1"),
        ({"data.dev": True}, "data.dev", "a share, a number of rows or a file"),
        ({"data.source": "cvs"}, "data.source", "did you mean 'csv'"),
        ({"data.source": "pypi:x"}, "data.source", "pypi:NAME==VERSION"),
        (
            {"data.transfer": "rest", "student.transfer": False},
            "data.transfer",
            "labelled is not set",
        ),
        ({"data.superclass": 3}, "data.superclass", "a column or a mapping"),
        ({"data.sha256": "abc"}, "data.sha256", "sha256"),
        ({"seed": "1"}, "seed", "must be a whole number, got '1'; write it without quotes"),
        ({"seed": None}, "seed", "remove the line for the default"),
        ({"teachers": ...}, "teachers", "is missing"),
        ({"teachers": []}, "teachers", "must not be empty"),
        ({"teachers": {"name": "a"}}, "teachers", "must be a list"),
        ({"teachers.0": 3}, "teachers[0]", "must be a mapping"),
        ({"teachers.0.model": ...}, "teachers[0].model", "is missing"),
        ({"teachers.0.model": {}}, "teachers[0].model", "has no name"),
        ({"teachers.0.epohs": 3}, "teachers[0].epohs", "did you mean 'epochs'"),
        ({"teachers.0.lr": 0}, "teachers[0].lr", "greater than 0"),
        ({"teachers.1.name": "bert"}, "teachers[1].name", "name of another teacher"),
        ({"teachers.0.model.name": "brt"}, "teachers[0].model.name", "did you mean 'bert'"),
        ({"teachers.0.model": "bert"}, "teachers[0].model.checkpoint", "needs the parameter"),
        ({"teachers.0.model.pooled": 1}, "teachers[0].model.pooled", "did you mean 'pooling'"),
        ({"teachers.0.model.n_classes": 3}, "teachers[0].model.n_classes", "by the trainer"),
        ({"teachers.0.tokenizer": {}}, "teachers[0].tokenizer", "brings its own tokenizer"),
        ({"teachers.0.folds": 1}, "teachers[0].folds", "at least 2"),
        (
            {"teachers.0.layers": 2, "teachers.0.freeze_layers": 3},
            "teachers[0].freeze_layers",
            "cannot freeze 3 layers of 2",
        ),
        ({"student": []}, "student", "must be a mapping"),
        ({"student.tokenizer.kind": "chr"}, "student.tokenizer.kind", "one of char, word"),
        ({"student.optimizer": "adam"}, "student.optimizer", "one of adamw, sgd"),
        ({"student.model.filters": 0}, "student.model", "filters"),
        ({"student.loss": {"name": "kd", "temp": 1}}, "student.loss.temp", "'temperature'"),
        ({"student.loss": {"name": "kd", "temperature": -1}}, "student.loss", "temperature"),
        ({"student.loss": 3}, "student.loss", "must be a name or a mapping"),
        ({"student.embedding": {"kind": "file"}}, "student.embedding.path", "needs the file"),
        (
            {"student.embedding": {"kind": "teacher", "teacher": "brt"}},
            "student.embedding.teacher",
            "did you mean 'bert'",
        ),
        ({"student.tokenizer": {"checkpoint": "x"}}, "student.tokenizer.checkpoint", "for kind"),
        ({"search.trails": 3}, "search.trails", "did you mean 'trials'"),
        ({"search.objectives": {"test_f1_macro": "max"}}, "search.objectives", "never sees"),
        ({"search.objectives": {"val_f1": "max"}}, "search.objectives", "use 'val_f1_"),
        ({"search.objectives": {"val_loss": "max"}}, "search.objectives", "{val_loss: min}"),
        ({"search.objectives": {}}, "search.objectives", "at least one"),
        ({"search.space": [1]}, "search.space", "must be a mapping"),
        ({"search.space.alhpa": 1}, "search.space.alhpa", "did you mean 'alpha'"),
        ({"search.space.student": {"alpha": 1}}, "search.space.student", "write `alpha`"),
        ({"search.space.tokenizer": {"kind": "char"}}, "search.space.tokenizer", "once per sweep"),
        ({"search.space.alpha": {"uniform": [-1, 1]}}, "search.space.alpha", "at least 0"),
        ({"search.space.alpha": {"unifrom": [0, 1]}}, "search.space.alpha", "'uniform'"),
        ({"search.space.alpha": [0.1, 1]}, "search.space.alpha", "write {choice: [0.1, 1]}"),
        ({"search.space.epochs": {"choice": [3, 0]}}, "search.space.epochs.choice[1]", "at least"),
        ({"search.space.n_teachers": {"int": [1, 3]}}, "search.space.n_teachers", "lists 2"),
        (
            {"search.space.loss.choice": ["kd", {"name": "kd", "temp": {"uniform": [1, 2]}}]},
            "search.space.loss.choice[1].temp",
            "'temperature'",
        ),
        (
            {"search.space.weighting": {"choice": ["average", "avrage"]}},
            "search.space.weighting.choice[1].name",
            "did you mean 'average'",
        ),
        ({"search.early_stopping": {"reduction": 1}}, "search.early_stopping.reduction", "least"),
        ({"confirm": {"seeds": 0}}, "confirm.seeds", "at least 1"),
        ({"resources": {"student": {"gpu": 1.5}}}, "resources.student.gpu", "fraction below 1"),
        ({"tracking": {"uri": "file:///x"}}, "tracking.uri", "http(s)"),
        ({"tracking": {"uri": "http://u:p@h"}}, "tracking.uri", "MLFLOW_TRACKING_PASSWORD"),
        ({"ledger": {"url_env": "postgres://h"}}, "ledger.url_env", "name of an environment"),
        ({"budget": {"failed_trials": 1.5}}, "budget.failed_trials", "at most 1"),
        ({"serach": {}}, "serach", "did you mean 'search'"),
    ],
)
def test_every_mistake_is_named_with_place_and_cure(
    changes: dict[str, Any], where: str, message: str
) -> None:
    found = problems(changed(changes))
    assert where in found, found
    assert message in str(found[where])
    assert len(found) == 1, found


def test_all_problems_are_reported_at_once() -> None:
    found = problems(
        changed(
            {
                "name": ...,
                "data.dev": 2.5,
                "data.transfer": "rest",
                "teachers.0.lr": "x",
                "teachers.0.model.name": "brt",
                "teachers.1.model.pooled": 1,
                "student.epochs": 0,
                "student.model.filterz": 3,
                "search.trails": 3,
                "search.space.alpha": {"uniform": [-1, 1]},
                "search.space.bta": 1,
                "search.space.n_teachers": {"int": [1, 5]},
                "tracking": {"uri": "x"},
            }
        )
    )
    assert set(found) >= {
        *("name", "data.dev", "data.transfer", "tracking.uri", "search.trails"),
        *("teachers[0].lr", "teachers[0].model.name", "teachers[1].model.pooled"),
        *("student.epochs", "student.model.filterz"),
        *("search.space.alpha", "search.space.bta", "search.space.n_teachers"),
    }


def test_a_broken_space_does_not_hide_other_problems() -> None:
    found = problems(
        changed({"search.space.alpha": {"uniform": [2, 1]}, "student.loss": {"name": "kdd"}})
    )
    assert set(found) == {"search.space.alpha", "student.loss.name"}


def test_label_needing_methods_are_refused_for_transfer_rows() -> None:
    transfer = {"data.transfer": "rest", "data.labelled": 100}
    found = problems(changed(transfer))
    assert set(found) == {"search.space.loss.choice[1]", "search.space.weighting.choice[1]"}
    assert "needs labels" in found["search.space.loss.choice[1]"].what
    parse_config(changed({**transfer, "student.transfer": False}))


def test_nothing_to_take_an_embedding_from() -> None:
    scratch = [{"name": "a", "model": "transformer"}]
    student = {"embedding": {"kind": "teacher"}, "tokenizer": {"kind": "teacher"}}
    found = problems(
        changed({"teachers": scratch, "student": student, "search.space": {"alpha": 1.0}})
    )
    assert set(found) == {"student.embedding.kind", "student.tokenizer.kind"}


def test_a_component_of_the_users_own_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_for_config.py").write_text(
        "class Halved:\n"
        "    def __init__(self, *, scale=0.5):\n"
        "        if scale <= 0:\n"
        "            raise ValueError(f'scale > 0 must hold, got {scale}')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    own = {"name": "mine_for_config:Halved"}
    assert parse_config(changed({"student.loss": own | {"scale": 2.0}})).student.loss["scale"] == 2
    assert "scale > 0" in str(problems(changed({"student.loss": own | {"scale": -1}})))
    assert "no parameter" in str(problems(changed({"student.loss": own | {"size": 1}})))


def write(folder: Path, mapping: dict[str, Any]) -> Path:
    path = folder / "my.yaml"
    path.write_text(yaml.safe_dump(mapping), encoding="utf-8")
    return path


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    for folder in (project / "encoder", elsewhere):
        folder.mkdir(parents=True)
    for file in (project / "train.csv", project / "test.csv", elsewhere / "test.csv"):
        file.touch()
    monkeypatch.chdir(elsewhere)
    mapping = changed(
        {
            "data.test": "test.csv",
            "data.transfer": "missing.csv",
            "student.transfer": False,
            "teachers.0.model.checkpoint": "encoder",
            "teachers.1.model.checkpoint": "./gone",
        }
    )
    config = load_config(write(project, mapping))
    assert config.data.path == str(project / "train.csv")
    assert config.data.test == str(project / "test.csv")
    assert config.data.transfer == str(project / "missing.csv")
    assert config.teachers[0].model["checkpoint"] == str(project / "encoder")
    assert config.teachers[1].model["checkpoint"] == str(project / "gone")
    overridden = load_config(project / "my.yaml", ["data.test=test.csv"])
    assert overridden.data.test == str(elsewhere / "test.csv")


def test_what_is_no_path_stays_as_it_is(tmp_path: Path) -> None:
    mapping = changed(
        {
            "data.source": "huggingface",
            "data.path": "owner/texts",
            "data.labelled": 10,
            "data.transfer": "rest",
            "student.transfer": False,
            "teachers.1.model.checkpoint": "pypi:some-package==1.0",
        }
    )
    config = load_config(write(tmp_path, mapping))
    assert config.data.path == "owner/texts"
    assert config.data.transfer == "rest"
    assert config.teachers[0].model["checkpoint"] == "some/encoder"
    assert config.teachers[1].model["checkpoint"] == "pypi:some-package==1.0"


def test_overrides_are_applied(tmp_path: Path) -> None:
    path = write(tmp_path, BASE)
    config = load_config(path, ["search.trials=8", "teachers.0.epochs=1", "confirm=null"])
    assert (config.search.trials, config.teachers[0].epochs, config.confirm) == (8, 1, None)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["search.trials"], "key=value"),
        (["teachers.7.epochs=1"], "list without '7'"),
        (["search.trils=8"], "did you mean 'trials'"),
    ],
)
def test_bad_overrides_are_config_errors(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, BASE), overrides)


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        load_config(tmp_path / "nope.yaml")


def test_a_point_overrides_the_student() -> None:
    student = {"loss": {"name": "kd", "temperature": 4.0}, "model": {"name": "textcnn", "f": 1}}
    same_loss = apply_point(student, {"loss": {"temperature": 2.0}, "teachers": ["a"]})
    assert same_loss["loss"] == {"name": "kd", "temperature": 2.0}
    assert "teachers" not in same_loss
    assert apply_point(student, {"loss": {"name": "dkd"}})["loss"] == {"name": "dkd"}
    assert apply_point(student, {"model": {"f": 2}})["model"] == {"name": "textcnn", "f": 2}
    assert student["loss"] == {"name": "kd", "temperature": 4.0}


def test_the_first_point_is_the_default_configuration() -> None:
    config = parse_config(changed({"student.alpha": 3.0}))
    point = default_point(config)
    assert point["loss"] == {"name": "kd", "temperature": 4.0}
    assert point["alpha"] == 3.0
    assert teachers_at(config, point) == ["bert", "bert_cnn"]
    assert student_at(config, point) == config.student
    config = parse_config(
        changed(
            {"search.space.loss": {"choice": [{"name": "dkd", "beta": {"log_uniform": [1, 50]}}]}}
        )
    )
    assert default_point(config)["loss"] == {"name": "dkd", "beta": 8.0}  # DKD's own default


def test_grid_points_are_students() -> None:
    config = parse_config(changed({"search.space.model.filters": {"grid": [4, 8]}}))
    students = [student_at(config, point) for point in grid_points(config)]
    assert [student.model["filters"] for student in students] == [4, 8]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
KEYS = [
    *("name", "seed", "data", "data.path", "data.dev", "data.source", "data.superclass"),
    *("teachers", "teachers.0", "teachers.0.model", "teachers.0.model.checkpoint"),
    *("teachers.1.name", "student", "student.model", "student.loss", "student.embedding"),
    *("search", "search.space", "search.space.loss", "search.space.alpha", "search.objectives"),
    *("search.space.n_teachers", "search.space.teachers", "confirm", "resources", "tracking"),
]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(key=st.sampled_from(KEYS), value=JSON)
def test_any_value_anywhere_is_accepted_or_explained(key: str, value: Any) -> None:
    try:
        config = parse_config(changed({key: value}))
    except ConfigError as error:
        assert error.problems
        assert all(problem.what for problem in error.problems)
        return
    assert isinstance(config, SweepConfig)
    json.dumps(config.to_dict(), allow_nan=False)


def test_checking_a_huge_model_takes_no_memory() -> None:
    parse_config(changed({"student.model.filters": 10**9}))


def test_reading_the_schema_is_cheap() -> None:
    code = "import sys, orchestrator.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
