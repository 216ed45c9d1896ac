import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_spaces.errors import SpaceError, SpaceProblem
from search_spaces.space import Space

FULL = {
    "loss": {
        "choice": [
            {"name": "kd", "temperature": {"log_uniform": [1, 10]}},
            {"name": "dkd", "temperature": {"log_uniform": [1, 10]}, "beta": {"uniform": [1, 8]}},
            {"name": "kd", "temperature": 1},
        ]
    },
    "weighting": {"choice": ["average", "confidence"]},
    "hint": {"choice": [None, "smooth_l1"]},
    "alpha": {"log_uniform": [0.1, 10]},
    "model.filters": {"grid": [64, 128]},
    "batch_size": {"choice": [32, 64]},
    "epochs": {"int": [1, 8], "log": True},
    "lr": 0.001,
    "n_teachers": {"int": [1, 3]},
}
TEACHERS = ("bert", "bert_cnn", "weak")


@pytest.fixture
def space() -> Space:
    return Space.parse(FULL).with_teachers(TEACHERS)


def problems(mapping: Any, teachers: list[str] | None = None) -> dict[str, SpaceProblem]:
    with pytest.raises(SpaceError) as caught:
        found = Space.parse(mapping)
        if teachers is not None:
            found.with_teachers(teachers)
    return {problem.where: problem for problem in caught.value.problems}


def test_json_round_trip(space: Space) -> None:
    for original in (space, Space.parse(FULL)):
        text = json.dumps(original.to_json())
        assert Space.from_json(json.loads(text)) == original


def test_conditional_paths_carry_the_label_of_their_option(space: Space) -> None:
    paths = [leaf.path for leaf in space.leaves()]
    assert paths == [
        *("loss", "loss.kd.temperature", "loss.dkd.temperature", "loss.dkd.beta"),
        *("weighting", "hint", "alpha", "model.filters", "batch_size", "epochs"),
        *("n_teachers", "n_teachers.1.subset", "n_teachers.2.subset"),
    ]


def test_the_second_option_of_a_name_is_numbered(space: Space) -> None:
    point = space.default_point() | {"loss": {"name": "kd", "temperature": 1}}
    # Temperature 1 is an end of the first range as well, and the first option that fits is taken.
    assert space.paths_of(point)["loss"] == "kd"
    labels = next(leaf.node.labels for leaf in space.leaves() if leaf.path == "loss")
    assert labels == ("kd", "dkd", "kd#2")


@pytest.mark.parametrize("seed", range(40))
def test_paths_of_inverts_sample(space: Space, suggest: Callable[[int], Any], seed: int) -> None:
    sampler = suggest(seed)
    point = space.sample(sampler)
    assert space.contains(point)
    paths = space.paths_of(point)
    if paths["loss"] == sampler.asked["loss"]:
        assert paths == sampler.asked
    assert set(sampler.asked) <= {leaf.path for leaf in space.leaves()}


def test_only_active_parameters_are_asked_for(space: Space, suggest: Callable[[int], Any]) -> None:
    for seed in range(20):
        sampler = suggest(seed)
        point = space.sample(sampler)
        asked_beta = "loss.dkd.beta" in sampler.asked
        assert asked_beta == (point["loss"]["name"] == "dkd")


def test_every_point_names_its_teachers_in_the_order_of_the_config(
    space: Space, suggest: Callable[[int], Any]
) -> None:
    seen = {tuple(space.sample(suggest(seed))["teachers"]) for seed in range(200)}
    assert seen == {
        *(("bert",), ("bert_cnn",), ("weak",)),
        *(("bert", "bert_cnn"), ("bert", "weak"), ("bert_cnn", "weak"), TEACHERS),
    }


def test_no_subset_is_asked_for_when_there_is_one() -> None:
    space = Space.parse({"n_teachers": 2}).with_teachers(["a", "b"])
    assert list(space.leaves()) == []
    assert space.default_point() == {"teachers": ["a", "b"]}
    assert space.paths_of({"teachers": ["a", "b"]}) == {}


def test_a_fixed_number_of_teachers_searches_which() -> None:
    space = Space.parse({"n_teachers": 2}).with_teachers(TEACHERS)
    assert [leaf.path for leaf in space.leaves()] == ["n_teachers.2.subset"]
    assert space.paths_of({"teachers": ["bert", "weak"]}) == {"n_teachers.2.subset": "bert+weak"}


def test_numbers_with_gaps_are_a_choice(suggest: Callable[[int], Any]) -> None:
    space = Space.parse({"n_teachers": {"choice": [3, 1]}}).with_teachers(TEACHERS)
    counts = {len(space.sample(suggest(seed))["teachers"]) for seed in range(30)}
    assert counts == {1, 3}


def test_many_teachers_are_limited_to_the_first() -> None:
    names = [f"t{number}" for number in range(12)]
    space = Space.parse({"n_teachers": {"int": [2, 6]}}).with_teachers(names)
    # 12 choose 2 is 66, over the limit of 64; so are all others up to 12 choose 6.
    assert [leaf.path for leaf in space.leaves()] == ["n_teachers"]
    assert space.default_point()["teachers"] == names[:6]


def test_teachers_may_be_listed() -> None:
    fixed = Space.parse({"teachers": ["b"]}).with_teachers(["a", "b"])
    assert fixed.default_point() == {"teachers": ["b"]}
    chosen = Space.parse({"teachers": {"choice": [["a"], ["a", "b"]]}}).with_teachers(["a", "b"])
    assert chosen.paths_of({"teachers": ["a", "b"]}) == {"teachers": "a+b"}


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ({"n_teachers": {"int": [1, 3]}}, [["a"], ["c"], ["a", "c"]]),
        ({"n_teachers": 3}, [["a", "c"]]),
        ({"teachers": {"choice": [["a", "b"], ["a"], ["b"], ["c", "b"]]}}, [["a"], ["c"]]),
        ({"teachers": ["b", "c"]}, [["c"]]),
        ({}, [["a", "c"]]),
    ],
)
def test_excluded_teachers_shrink_the_space(
    mapping: dict[str, Any], expected: list[list[str]], suggest: Callable[[int], Any]
) -> None:
    space = Space.parse(mapping).with_teachers(["a", "b", "c"], excluded=["b"])
    drawn = {tuple(space.sample(suggest(seed))["teachers"]) for seed in range(50)}
    assert drawn == set(map(tuple, expected))


def test_a_resolved_space_may_be_resolved_again() -> None:
    space = Space.parse({"n_teachers": {"int": [1, 2]}}).with_teachers("abc")
    assert space.with_teachers("abc") == space
    smaller = Space.parse({"n_teachers": {"int": [1, 2]}}).with_teachers("abc", excluded="b")
    assert space.with_teachers("abc", excluded="b") == smaller


def test_a_space_of_excluded_teachers_is_refused() -> None:
    with pytest.raises(SpaceError, match="only excluded teachers"):
        Space.parse({"teachers": ["b"]}).with_teachers(["a", "b"], excluded=["b"])


def test_without_a_word_about_teachers_all_are_used() -> None:
    assert Space.parse({}).with_teachers(["a", "b"]).default_point() == {"teachers": ["a", "b"]}


def test_default_point_takes_first_options_and_preferred_values(space: Space) -> None:
    point = space.default_point({"loss.kd.temperature": 4.0, "alpha": 1000.0})
    assert point["loss"] == {"name": "kd", "temperature": 4.0}
    assert point["alpha"] == pytest.approx(1.0)
    assert point["weighting"] == {"name": "average"}
    assert point["hint"] is None
    assert point["teachers"] == list(TEACHERS)
    assert space.contains(point)


def test_grids_are_combined_and_conditional_grids_run_in_their_option_only() -> None:
    space = Space.parse(
        {
            "loss": {"choice": ["mse_logits", {"name": "kd", "temperature": {"grid": [2, 4]}}]},
            "batch_size": {"grid": [32, 64]},
            "alpha": {"log_uniform": [0.1, 10]},
        }
    )
    points = space.grid_points({"alpha": 2.0})
    found = [(p["loss"].get("temperature"), p["batch_size"], p["alpha"]) for p in points]
    assert found == [(2, 32, 2.0), (2, 64, 2.0), (4, 32, 2.0), (4, 64, 2.0)]
    assert all(space.contains(point) for point in points)
    assert Space.parse({"alpha": 1}).grid_points() == []


def test_size_counts_the_points_of_a_finite_space() -> None:
    finite = {"loss": {"choice": ["kd", {"name": "dkd", "beta": {"int": [1, 3]}}]}, "lr": 0.1}
    assert Space.parse(finite).size() == 4
    assert Space.parse(finite | {"n_teachers": {"int": [1, 2]}}).with_teachers("ab").size() == 12
    assert Space.parse(finite | {"alpha": {"uniform": [0, 1]}}).size() is None


def test_flatten_names_components_by_their_key(space: Space) -> None:
    assert Space.flatten(space.default_point({"loss.kd.temperature": 4.0, "alpha": 1.0})) == {
        "loss": "kd",
        "loss.temperature": 4.0,
        "weighting": "average",
        "hint": "none",
        "alpha": 1.0,
        "model.filters": 64,
        "batch_size": 32,
        "epochs": 3,
        "lr": 0.001,
        "teachers": "bert+bert_cnn+weak",
        "n_teachers": 3,
    }


def test_corners_touch_every_option_and_end(space: Space) -> None:
    corners = space.corners()
    values = [corner.value for corner in corners]
    assert {v["loss"].get("beta") for v in values} == {None, 1, 8}
    assert {v["alpha"] for v in values} == {0.1, 10}
    assert {v["model"]["filters"] for v in values} == {64, 128}
    assert {len(v["teachers"]) for v in values} == {1, 2, 3}
    assert len(corners) <= 6
    dkd = next(c for c in corners if c.value["loss"]["name"] == "dkd")
    assert dkd.where["loss", "beta"] == ".loss.choice[1].beta"


def test_a_dotted_key_and_a_mapping_are_the_same() -> None:
    nested = Space.parse({"model": {"filters": {"choice": [1, 2]}, "dropout": 0.1}})
    dotted = Space.parse({"model.filters": {"choice": [1, 2]}, "model.dropout": 0.1})
    assert nested == dotted


def test_parsing_does_not_change_its_input() -> None:
    mapping = {"model": {"dropout": 0.1}, "model.filters": {"choice": [1, 2]}}
    before = json.dumps(mapping)
    Space.parse(mapping)
    assert json.dumps(mapping) == before


def test_all_problems_are_reported_with_their_key_paths() -> None:
    found = problems(
        {
            "loss": {"choice": ["kd", {"name": "dkd", "temperature": {"log_uniform": [0, 1]}}]},
            "weighting": ["average"],
            "alpha": {"unifrom": [1, 2]},
            "beta": {"categorical": [1, 2]},
            "lr": {"uniform": [1, 2], "log": True},
            "epochs": {"int": [1]},
            "batch_size": {"choice": 3},
            "hint": {"choice": [{"feat_reduction": "sum"}]},
            "momentum": {"uniform": ["0", 1]},
            "n_teachers": {"uniform": [1, 2]},
        }
    )
    assert set(found) == {
        "loss.choice[1].temperature",
        *("weighting", "alpha", "beta", "lr", "epochs", "batch_size"),
        *("hint.choice[0]", "momentum", "n_teachers"),
    }
    assert "did you mean 'uniform'?" in found["alpha"].what
    assert "did you mean 'choice'?" in found["beta"].what
    assert "choice" in found["weighting"].cure


def test_unknown_teachers_are_suggested() -> None:
    found = problems({"teachers": {"choice": [["bert"], ["brt", "bert", "bert"], []]}}, ["bert"])
    assert set(found) == {"teachers.choice[1]", "teachers.choice[2]"}
    assert problems({"teachers": ["brt"]}, ["bert"])["teachers"].cure == "did you mean 'bert'?"
    assert "lists 1" in problems({"n_teachers": {"int": [1, 2]}}, ["bert"])["n_teachers"].what
    assert "n_teachers" in problems({"n_teachers": 1, "teachers": ["a"]})


def test_a_key_given_twice_is_reported() -> None:
    assert "model.filters" in problems({"model": {"filters": 1}, "model.filters": 2})
    assert "loss.temperature" in problems({"loss": "kd", "loss.temperature": 2})


def test_huge_grids_are_refused() -> None:
    grids = {f"k{number}": {"grid": list(range(10))} for number in range(6)}
    assert "1000000 combinations" in problems(grids)[""].what


def test_odd_values_are_refused() -> None:
    assert "a" in problems({"a": float("nan")})
    assert "a" in problems({"a": {1, 2}})
    assert "a.b" in problems({"a.b": object()})
    assert "" in problems([1])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["uniform", "int", "choice", "grid", "fixed", "name", "log", "x", ""]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mapping=st.dictionaries(st.sampled_from(["loss", "alpha", "model.x", "model"]), JSON))
def test_any_mapping_is_a_space_or_lists_its_problems(mapping: dict[str, Any]) -> None:
    try:
        space = Space.parse(mapping)
    except SpaceError as error:
        assert error.problems
        return
    assert Space.from_json(space.to_json()) == space
    assert space.contains(space.default_point())
    assert all(space.contains(corner.value) for corner in space.corners())
    json.dumps(Space.flatten(space.default_point()))
