import math
from collections.abc import Callable
from typing import Any

import pytest

from search_spaces.domains import Choice, Fixed, Grid, Int, LogUniform, Uniform


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: Uniform(2, 1), "low < high must hold"),
        (lambda: Uniform(1, 1), "low < high must hold"),
        (lambda: Uniform(0, math.inf), "finite"),
        (lambda: Uniform(0, True), "finite numbers"),
        (lambda: LogUniform(0, 1), "low > 0 must hold"),
        (lambda: Int(2, 1), "low <= high must hold"),
        (lambda: Int(1, 2.5), "whole numbers"),
        (lambda: Int(0, 5, log=True), "low >= 1 must hold"),
        (lambda: Choice(()), "at least one option"),
        (lambda: Choice((Fixed(1), Fixed(1))), "options must differ"),
        (lambda: Choice((Fixed(None), Fixed("none"))), "options must differ"),
    ],
)
def test_impossible_domains_are_refused_with_rule_and_value(
    make: Callable[[], Any], rule: str
) -> None:
    with pytest.raises(ValueError, match=rule):
        make()


def test_defaults_lie_in_the_middle_of_the_scale() -> None:
    assert Uniform(1, 4).default("x", {}) == 2.5
    assert LogUniform(0.01, 100).default("x", {}) == pytest.approx(1.0)
    assert Int(1, 4).default("x", {}) == 2
    assert Int(1, 100, log=True).default("x", {}) == 10


def test_a_preferred_value_replaces_the_middle_if_it_is_inside() -> None:
    assert LogUniform(1, 10).default("t", {"t": 4.0}) == 4.0
    assert Uniform(1, 4).default("t", {"t": 9.0}) == 2.5
    assert Int(1, 4).default("t", {"t": 2.5}) == 2


def test_int_ends_are_included(suggest: Callable[[int], Any]) -> None:
    drawn = {Int(1, 3).sample(suggest(seed), "n") for seed in range(50)}
    assert drawn == {1, 2, 3}


def test_what_has_one_value_is_not_asked_for(suggest: Callable[[int], Any]) -> None:
    sampler = suggest(0)
    assert Int(3, 3).sample(sampler, "n") == 3
    assert Choice((Fixed("a"),)).sample(sampler, "c") == "a"
    assert sampler.asked == {}


def test_flags_and_numbers_are_passed_as_themselves(suggest: Callable[[int], Any]) -> None:
    assert Choice((Fixed(True), Fixed(False))).labels == (True, False)
    assert Choice((Fixed(32), Fixed(64.5))).labels == (32, 64.5)


def test_labels_of_lists_and_null_are_readable() -> None:
    options = (Fixed(None), Fixed(["a", "b"]), Fixed([2, 3]))
    assert Choice(options).labels == ("none", "a+b", "[2,3]")


def test_a_long_label_is_replaced_by_its_position() -> None:
    assert Choice((Fixed("a"), Fixed(list(range(100))))).labels == ("a", "option2")


def test_a_flag_is_not_a_number() -> None:
    assert Fixed(True).match(1, "x") is None
    assert Int(0, 1).match(True, "x") is None
    assert Fixed([1, {"a": 2}]).match([1, {"a": 2}], "x") == {}


def test_fixed_values_are_copied() -> None:
    node = Fixed([1])
    node.sample(None, "x").append(2)
    assert node.value == [1]


def test_grids_are_choices_that_list_all_values() -> None:
    grid = Grid((Fixed(1), Fixed(2)))
    assert grid.grid("g", {}) == [1, 2]
    assert Choice((Fixed(1), Fixed(2))).grid("g", {}) is None
    assert Choice((Fixed(0), grid)).grid("g", {}) == [1, 2]
