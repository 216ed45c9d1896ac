"""What every file of the catalog must offer, whatever its kind."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.home import Home
from orchestrator.listing import NO_SOURCE, list_everything, short_source
from trainables.catalog import KINDS, load, names, parameters, source, source_of, summary

LEAST = {"losses": 12, "weightings": 11, "hints": 5, "schedules": 2}
COMPONENTS = [(kind, name) for kind in LEAST for name in names(kind)]


@pytest.mark.parametrize("kind", LEAST)
def test_the_catalog_is_not_empty(kind: str) -> None:
    assert len(names(kind)) >= LEAST[kind]


def test_the_published_names_are_there() -> None:
    expected = {
        "losses": "kd mse_logits dkd dist nkd wsld lskd ttm wttm rld abkd superclass",
        "weightings": "average average_prob average_logit best_teacher worst_teacher fixed switch "
        "confidence entropy gradient reinforced",
        "hints": "smooth_l1 l2 fitnets ca_mkd logits_l2",
        "schedules": "constant rco",
    }
    for kind, listed in expected.items():
        assert set(listed.split()) <= set(names(kind))


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("losses", "kd", {"temperature"}),
        ("losses", "dkd", {"temperature", "alpha", "beta"}),
        ("losses", "dist", {"temperature", "beta", "gamma"}),
        ("losses", "nkd", {"temperature", "gamma"}),
        ("losses", "ttm", {"gamma"}),
        ("losses", "wttm", {"gamma"}),
        ("losses", "rld", {"temperature", "alpha", "beta"}),
        ("losses", "abkd", {"temperature", "alpha", "beta"}),
        ("weightings", "gradient", {"cap", "gram", "temperature"}),
        ("weightings", "confidence", {"normalize"}),
        ("weightings", "entropy", {"normalize"}),
    ],
)
def test_published_parameters(kind: str, name: str, expected: set[str]) -> None:
    assert expected <= {parameter.name for parameter in parameters(kind, name)}


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
class TestEveryComponent:
    def test_has_one_line_and_a_source(self, kind: str, name: str) -> None:
        component = load(kind, name)
        line = summary(kind, name)
        assert 15 < len(line) <= 100
        assert line == (component.__doc__ or "").partition("\n")[0]
        assert "\n    Source: " in (component.__doc__ or "")

    def test_documents_every_parameter(self, kind: str, name: str) -> None:
        document = load(kind, name).__doc__ or ""
        for parameter in parameters(kind, name):
            assert f"\n        {parameter.name}: " in document


# A year, or the words for what has none to cite.
PAPER = re.compile(r"\b(19|20)\d\d\b|arXiv \d{4}\.\d{4,5}|usual practice|@[0-9a-f]{10}")


@pytest.mark.parametrize("kind", [*LEAST, "models"])
def test_the_list_names_the_source_of_every_method(kind: str, tmp_path: Path) -> None:
    listed = list_everything(Home(tmp_path), kind)[kind]
    assert [entry["name"] for entry in listed] == names(kind)
    for entry in listed:
        assert PAPER.search(short_source(entry["source"])), entry
        assert "\n" not in entry["source"]


def test_a_file_format_has_no_source(tmp_path: Path) -> None:
    listed = {entry["name"]: entry for entry in list_everything(Home(tmp_path), "data")["data"]}
    assert listed["csv"]["source"] == NO_SOURCE
    assert "2014" in listed["pypi"]["source"]


def test_a_source_may_go_over_lines_and_ends_with_its_paragraph() -> None:
    text = "What.\n\nSource: A 2020,\n    arXiv 1; code@0.\n\nMore: b"
    assert source_of(text) == "A 2020, arXiv 1; code@0"
    assert source_of("What. Source: not a paragraph") == ""
    assert short_source(source("losses", "dkd")) == "Zhao et al. 2022, CVPR, arXiv 2203.08679"


def test_listing_names_imports_nothing_heavy() -> None:
    code = (
        "import sys; from trainables.catalog import KINDS, names, source, summary; "
        "[(summary(kind, name), source(kind, name)) for kind in KINDS for name in names(kind)]; "
        "assert not {'torch', 'transformers', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert set(LEAST) < set(KINDS)
