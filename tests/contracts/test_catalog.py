"""What every file of the catalog must offer, whatever its kind."""

from __future__ import annotations

import subprocess
import sys

import pytest

from trainables.catalog import KINDS, load, names, parameters, summary

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


def test_listing_names_imports_nothing_heavy() -> None:
    code = (
        "import sys; from trainables.catalog import KINDS, names, summary; "
        "[summary(kind, name) for kind in KINDS for name in names(kind)]; "
        "assert not {'torch', 'transformers', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert set(LEAST) < set(KINDS)
