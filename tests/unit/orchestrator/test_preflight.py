import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from orchestrator import preflight
from orchestrator.cluster import Node, slots
from orchestrator.engine import Options
from orchestrator.errors import PreflightError
from orchestrator.home import Home
from orchestrator.records import Stage
from orchestrator.schema import StageResources, SweepConfig


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def problems(call: Any, *arguments: Any) -> list[str]:
    with pytest.raises(PreflightError) as caught:
        call(*arguments)
    return [str(problem) for problem in caught.value.problems]


def test_a_good_home_is_left_as_it_was(tmp_path: Path) -> None:
    preflight.check_home(Home(tmp_path / "home"))
    assert not list((tmp_path / "home").iterdir())


def test_a_home_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 20 * 2**20))
    (problem,) = problems(preflight.check_home, Home(tmp_path))
    assert "only 20 MB are free on its disk, 500 needed; free space or name another" in problem


def test_a_home_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (problem,) = problems(preflight.check_home, Home(tmp_path / "file" / "home"))
    assert problem.endswith("cannot be written (Not a directory); name another --home")


def test_resources_no_machine_has_are_all_listed(make_config: Any) -> None:
    config = make_config(resources={"teacher": {"cpu": 64}, "student": {"gpu": 4}})
    options = Options(cpus=2, gpus=1)
    found = problems(preflight.check_resources, config, options)
    assert found == [
        "resources.teacher.cpu: 64 CPUs are asked for, but this machine has 2; set it to 2 or "
        "less, or run on a cluster with --address",
        "resources.outputs.cpu: 64 CPUs are asked for, but this machine has 2; set it to 2 or "
        "less, or run on a cluster with --address",
        "resources.student.gpu: 4 GPUs are asked for, but this machine has 1; set it to 1 or less",
        "resources.confirm.gpu: 4 GPUs are asked for, but this machine has 1; set it to 1 or less",
    ]
    preflight.check_resources(config, Options(address="auto"))  # the cluster is asked later


def test_methods_that_cannot_work_with_the_data(make_config: Any, make_materials: Any) -> None:
    space = {"loss": {"choice": ["kd", "dkd"]}, "weighting": {"choice": ["average", "confidence"]}}
    config = make_config(search={"space": space})
    data = make_materials(config, classes=2).data
    found = problems(preflight.check_methods, config, data)
    assert any("weighting 'confidence': needs labels" in problem for problem in found)
    alone = make_config(student={"transfer": False}, search={"space": space})
    preflight.check_methods(alone, make_materials(alone).data)


@pytest.mark.parametrize(
    ("cpu", "gpu", "expected"),
    [(1, 0, 2), (0.5, 0, 4), (1, 0.25, 2), (0.25, 0.25, 8), (0.1, 0.6, 2), (0, 1, 2), (4, 0, 0)],
)
def test_slots_count_what_fits_on_a_node(cpu: float, gpu: float, expected: int) -> None:
    assert slots([Node("a", 2.0, 2.0)], {"cpu": cpu, "gpu": gpu}) == expected


def test_a_trial_does_not_span_nodes() -> None:
    nodes = [Node("a", 2.0, 0.0), Node("b", 2.0, 1.0)]
    assert slots(nodes, {"cpu": 3}) == 0
    assert slots(nodes, {"cpu": 1, "gpu": 0.5}) == 2
    problem = str(preflight.does_not_fit(Stage.STUDENTS, {"cpu": 3, "gpu": 0}, nodes))
    assert "a trial wants 3 CPU and 0 GPU, but no node has that: a 2 CPU 0 GPU, b" in problem


def test_expected_slots_follow_the_options(config: SweepConfig) -> None:
    assert preflight.expected_slots(StageResources(cpu=0.5), Options(cpus=2)) == 4
    assert preflight.expected_slots(StageResources(gpu=0.25, cpu=0.1), Options(cpus=2, gpus=1)) == 4
    assert preflight.expected_slots(StageResources(cpu=8), Options(cpus=2)) == 1
