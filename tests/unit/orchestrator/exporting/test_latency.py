"""Timing takes turns and gives percentiles."""

from orchestrator.exporting.latency import LEAST_ROUNDS, MOST_ROUNDS, cores, machine, measure


def test_models_take_turns() -> None:
    order: list[str] = []
    runs = {name: [lambda name=name: order.append(name)] for name in ("a", "b")}
    timings = measure(runs, seconds=0)  # type: ignore[arg-type]
    assert order == ["a", "b", *["a", "b"] * LEAST_ROUNDS]
    assert all(timing.n == LEAST_ROUNDS for timing in timings.values())
    assert all(0 <= timing.p50_ms <= timing.p95_ms for timing in timings.values())


def test_many_seconds_are_cut_off() -> None:
    assert measure({"a": [int]}, seconds=60)["a"].n == MOST_ROUNDS


def test_the_machine_has_a_name_and_cores() -> None:
    found = machine()
    assert found["cpu"] and found["cores"] == cores() >= 1
