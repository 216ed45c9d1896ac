"""A whole sweep of arms on the smoke data, run in this process instead of by Ray."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.config import parse_config
from orchestrator.errors import ConfigError, UsageError
from orchestrator.history import load_record, load_report
from orchestrator.home import Home
from orchestrator.records import Stage
from orchestrator.report.arms import ArmReport
from orchestrator.report.reproduced import tables, to_markdown
from orchestrator.reproduce import compare, load_reproduction
from orchestrator.schema import SweepConfig
from orchestrator.stages import StageRun
from orchestrator.sweep import Options, Sweep
from orchestrator.tracking import EventBus
from search_spaces.loader import load_yaml, preset_path
from trainables.tasks import run_task

TEACHER = {"name": "transformer", "layers": 1, "hidden": 16, "heads": 2, "ffn": 32}
SUPERCLASS = {"food": "living", "sport": "living", "weather": "sky"}


def settings(**changes: Any) -> dict[str, Any]:
    """A config of seconds: two teachers of the smoke data and no search."""
    teacher = {"model": TEACHER, "epochs": 3, "lr": 5e-3, "batch_size": 16}
    return {
        "name": "arms",
        "data": {
            **load_yaml("smoke")["data"],
            "path": str(preset_path("smoke").with_name("smoke.csv")),
        },
        "teachers": [{"name": "one", **teacher}, {"name": "two", **teacher, "seed": 1}],
        "student": {
            "model": {"name": "textcnn", "filters": 8, "kernels": [1, 2], "embedding_dim": 8},
            "epochs": 2,
            "batch_size": 32,
            "lr": 5e-3,
        },
        "confirm": {"seeds": 2},
        **changes,
    }


def run_inline(sweep: Sweep) -> Callable[..., None]:
    def trials(run: StageRun, resources: Any, early: Any) -> None:
        while (proposal := run.propose()) is not None:
            run.started(proposal.number)
            report: dict[str, Any] = {}
            spec = json.loads(json.dumps(dict(proposal.spec)))  # as across a process border
            for report in run_task(proposal.task, spec, sweep.store):
                if not report["finished"]:
                    run.reported(proposal.number, report)
            run.ended(proposal.number, report, None)

    return trials


def run(config: SweepConfig, folder: Path, warnings: list[str] | None = None) -> Home:
    home = Home(folder)
    heard: list[Any] = []
    sweep = Sweep(config, home, EventBus([heard.append]), Options(cpus=1))
    sweep.engine._run_trials = run_inline(sweep)  # type: ignore[method-assign]
    sweep.run()
    if warnings is not None:
        warnings += [e.text for e in heard if getattr(e, "level", "") == "warning"]
    return home


ARMS = [
    {"name": "dkd", "point": {"loss": {"name": "dkd", "temperature": 2.0}}},
    {"name": "same-as-average", "point": {"teachers": ["one", "two"]}},
    {"name": "joint", "scheme": "coupled", "point": {"teachers": ["one"]}},
    {"name": "lstm", "point": {"model": {"name": "bilstm", "hidden": 6, "embedding_dim": 8}}},
    {"name": "mixed", "members": ["dkd", "lstm"], "combiner": "dev_weighted"},
    {"name": "same", "members": ["lstm", "lstm"]},
    {"name": "historical", "point": {"teachers": ["dkd", "two"], "weighting": "confidence"}},
    {"name": "again", "point": {"teachers": ["mixed"]}},
    {"name": "policy", "point": {"weighting": {"name": "reinforced", "warmup": 0.0}}},
    {
        "name": "route",
        "point": {"schedule": {"name": "rco", "anchors": [0.5, 1.0], "search": "greedy"}},
    },
]
PUBLISHED = {
    "source": "a paper, table 1",
    "rows": {"one": 95.0, "plain": 80.0, "dkd": 90.0, "lstm": 10.0, "mixed": None},
    "notes": ["other data"],
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors only lose by threads, and other tests want the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepConfig, Home]:
    # Transfer rows have no labels, which `confidence` needs.
    student = {**settings()["student"], "transfer": False}
    config = parse_config(settings(arms=ARMS, published=PUBLISHED, student=student))
    return config, run(config, tmp_path_factory.mktemp("arms"))


@pytest.fixture(scope="module")
def listed(done: tuple[SweepConfig, Home]) -> dict[str, Any]:
    record = load_record(done[1], "arms")
    found: dict[str, Any] = dict(record.data["arms"])
    return found


def test_every_arm_and_control_has_run_with_every_seed(listed: dict[str, Any]) -> None:
    assert set(listed) == {"plain", "best_teacher", "average", *(arm["name"] for arm in ARMS)}
    for name, result in listed.items():
        # The ensemble of two like members needs two more seeds of its member.
        seeds = ["0", "1", "2", "3"] if name == "lstm" else ["0", "1"]
        assert sorted(result["keys"], key=int) == seeds


def test_no_search_has_been_made(done: tuple[SweepConfig, Home]) -> None:
    record = load_record(done[1], "arms")
    assert record.of(Stage.STUDENTS) == []
    assert len(record.of(Stage.CONFIRM)) > 20


def test_an_arm_that_is_a_control_is_trained_once(listed: dict[str, Any]) -> None:
    assert listed["same-as-average"]["keys"] == listed["average"]["keys"]


def test_ensembles_take_the_members_of_their_seed(
    done: tuple[SweepConfig, Home], listed: dict[str, Any]
) -> None:
    store = done[1].store
    for seed in ("0", "1"):
        mixed = store.meta("ensemble", listed["mixed"]["keys"][seed])
        same = store.meta("ensemble", listed["same"]["keys"][seed])
        assert mixed is not None
        assert same is not None
        members = [listed["dkd"]["keys"][seed], listed["lstm"]["keys"][seed]]
        assert set(mixed["spec"]["members"]) == set(members)
        other = listed["lstm"]["keys"][str(int(seed) + 2)]
        assert set(same["spec"]["members"]) == {listed["lstm"]["keys"][seed], other}


def test_students_teach_in_turn(done: tuple[SweepConfig, Home], listed: dict[str, Any]) -> None:
    assert listed["historical"]["taught_by"] == ["dkd"]
    meta = done[1].store.meta("confirm", listed["historical"]["keys"]["1"]) or {}
    student = done[1].store.meta("student", meta["student"]) or {}
    teachers = student["spec"]["teachers"]
    assert [teacher["name"] for teacher in teachers] == ["dkd", "two"]
    assert teachers[0]["key"] == listed["dkd"]["keys"]["0"]


def test_a_second_start_trains_nothing(done: tuple[SweepConfig, Home], tmp_path: Path) -> None:
    config, home = done
    before = {kind: home.store.keys(kind) for kind in ("student", "confirm", "ensemble", "joint")}
    sweep = Sweep(config, home, EventBus([]), Options(cpus=1))

    def refuse(*_: Any) -> None:
        raise AssertionError("a trial was run again")

    sweep.engine._run_trials = refuse  # type: ignore[method-assign]
    sweep.run()
    assert before == {kind: home.store.keys(kind) for kind in before}


def test_the_table_puts_ours_beside_the_published(done: tuple[SweepConfig, Home]) -> None:
    config, home = done
    assert config.published is not None
    found = compare("preset", True, config.published, load_record(home, "arms"), home.store)
    lines = {line.name: line for line in found.lines}
    assert lines["one"].kind == "teacher"
    assert lines["one"].published == 0.95
    assert lines["mixed"].published is None
    assert lines["mixed"].kind == "ensemble"
    assert lines["dkd"].arm is not None
    assert lines["dkd"].arm.against_plain is not None
    assert lines["dkd"].arm.against_average is not None
    assert lines["plain"].arm is not None
    assert lines["plain"].arm.against_plain is None
    assert lines["historical"].arm is not None
    assert 0 < (lines["historical"].arm.retention or 0) <= 1
    assert len(lines["dkd"].arm.curve) == 2
    assert set(lines["dkd"].arm.recall or ()) == {"food", "sport", "weather"}
    assert [line.name for line in found.lines][2:6] == ["plain", "best_teacher", "average", "dkd"]
    grids = tables(found)
    assert grids[0].header[:3] == ("", "ours", "paper")
    assert all(len(row) == len(grid.header) for grid in grids for row in grid.rows)
    text = to_markdown(found)
    assert "a paper, table 1" in text
    assert "other data" in text
    json.dumps(found.to_json(), allow_nan=False)


def test_a_policy_tells_whom_it_selects_for_easy_and_hard_rows(
    done: tuple[SweepConfig, Home], listed: dict[str, Any]
) -> None:
    config, home = done
    assert config.published is not None
    record = load_record(home, "arms")
    found = compare("preset", True, config.published, record, home.store)
    policy = next(line.arm for line in found.lines if line.name == "policy")
    assert policy is not None
    assert list(policy.selection or {}) == ["one", "two"]
    assert list(policy.by_difficulty or {}) == ["easy", "medium", "hard"]
    grid = next(grid for grid in tables(found) if grid.title.startswith("how often a teacher"))
    assert grid.header == ("", "all", "easy", "medium", "hard")
    assert [row[0] for row in grid.rows] == ["policy: one", "policy: two"]
    told = [
        trial.metrics["selection_hard_1"]
        for trial in record.of(Stage.CONFIRM)
        if trial.key in listed["policy"]["keys"].values()
    ]
    assert len(told) == 2
    assert (policy.by_difficulty or {})["hard"]["two"] == pytest.approx(sum(told) / 2)


def test_epochs_are_measured_against_the_best_teacher(done: tuple[SweepConfig, Home]) -> None:
    config, home = done
    assert config.published is not None
    found = compare("p", True, config.published, load_record(home, "arms"), home.store)
    lines = {line.name: line for line in found.lines}
    assert found.reference in {"one", "two"}
    assert lines[found.reference].epoch_ratio == 1
    plain = lines["plain"]
    assert plain.arm is not None
    measured = plain.means["epoch_seconds"] / lines[found.reference].means["epoch_seconds"]
    assert plain.epoch_ratio == pytest.approx(measured)
    best = max(plain.arm.curve)
    assert plain.epochs_to_plain == plain.arm.curve.index(best) + 1


def test_a_turned_pair_is_said_plainly(done: tuple[SweepConfig, Home]) -> None:
    config, home = done
    record = load_record(home, "arms")
    ours = {
        row.name: row.metrics["test_accuracy"].mean
        for row in ArmReport(record, home.store, "accuracy").rows()
    }
    low, high = sorted(("dkd", "plain"), key=lambda name: ours[name])
    assert config.published is not None
    turned = config.published.model_copy(update={"rows": {low: 90.0, high: 10.0}})
    first, *rest = compare("p", False, turned, record, home.store).differences
    if ours[low] == ours[high]:
        assert "0 stand in its order here (0 of them beyond chance), 1 level and 0 the" in first
    else:
        assert "1 the other way round" in first
        assert f"the paper has {low} above {high} (90.00 against 10.00)" in rest[0]
    ordered = config.published.model_copy(update={"rows": {}, "order": (low, high)})
    said = compare("p", False, ordered, record, home.store).differences
    assert len(said) == len(rest) + 1
    right = config.published.model_copy(update={"rows": {low: 10.0, high: 90.0}})
    assert len(compare("p", False, right, record, home.store).differences) == 1


def test_the_ordinary_report_works_too(done: tuple[SweepConfig, Home]) -> None:
    report = load_report(done[1], "arms")
    assert report.chosen is not None
    assert {row.role for row in report.confirm} >= {"candidate", "ensemble", "control:plain"}
    json.dumps(report.to_json())


def test_superclass_teachers_their_shuffled_control_and_folds(tmp_path: Path) -> None:
    base = settings()
    teacher = base["teachers"][0]
    config = parse_config(
        {
            **base,
            "data": {**base["data"], "superclass": SUPERCLASS},
            "teachers": [
                {**teacher, "name": "coarse", "labels": "superclass", "epochs": 6},
                {**teacher, "name": "shuffled", "labels": "shuffled", "epochs": 6},
                {**teacher, "name": "fine", "folds": 2},
            ],
            "arms": [
                {"name": name, "point": {"teachers": [teacher], "loss": loss, **more}}
                for name, teacher, loss, more in (
                    ("concept", "coarse", {"name": "superclass"}, {}),
                    ("control", "shuffled", {"name": "superclass"}, {}),
                    ("label", "coarse", {"name": "superclass", "variant": "label"}, {}),
                    (
                        "head",
                        "coarse",
                        {"name": "superclass"},
                        {"alpha": 0.0, "beta": 1.0, "hint": "auxiliary_head"},
                    ),
                )
            ],
            "student": {**base["student"], "transfer": False, "epochs": 1},
            "confirm": {"seeds": 1},
        }
    )
    home = run(config, tmp_path)
    record = load_record(home, "arms")
    specs = {t.params["arm"]: t.spec for t in record.of(Stage.CONFIRM) if "arm" in t.params}
    groups = {name: spec["student"]["loss"]["groups"] for name, spec in specs.items()}
    assert groups["concept"] == groups["label"] == [0, 0, 1]
    assert sorted(groups["control"]) == [0, 0, 1] != groups["control"]
    assert len([t for t in record.of(Stage.TEACHERS) if t.role == "fine"]) == 3
    report = load_report(home, "arms")
    assert {row.name: row.coarse for row in report.teachers} == {
        "coarse": True,
        "shuffled": True,
        "fine": False,
    }
    # The controls learn from the teachers of the classes; with one, best and average are the same.
    (key,) = record.data["arms"]["average"]["keys"].values()
    control = next(t for t in record.of(Stage.CONFIRM) if t.key == key)
    assert control.params["teachers"] == "fine"
    folded = [t for t in record.of(Stage.OUTPUTS) if t.spec["folds"]]
    assert [t.params["split"] for t in folded] == ["train"]


def test_an_arm_whose_teacher_is_excluded_is_left_out(tmp_path: Path) -> None:
    base = settings()
    config = parse_config(
        {
            **base,
            "teachers": [
                base["teachers"][0],
                {**base["teachers"][1], "lr": 1e-9, "epochs": 1},
            ],
            "arms": [{"name": "bad", "point": {"teachers": ["two"]}}, {"name": "fine"}],
            "confirm": {"seeds": 1},
        }
    )
    warnings: list[str] = []
    home = run(config, tmp_path, warnings)
    assert "bad" not in load_record(home, "arms").data["arms"]
    assert any("arm bad is left out: two was excluded" in text for text in warnings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": [{"name": "one"}]}, "is the name of a teacher, a control or another arm"),
        ({"arms": [{"name": "average"}]}, "is the name of a teacher, a control"),
        ({"arms": [{"name": "x", "point": {"alpa": 1.0}}]}, "did you mean 'alpha'"),
        ({"arms": [{"name": "x", "point": {"alpha": "much"}}]}, r"arms\[0\].point.alpha: must be"),
        ({"arms": [{"name": "x", "point": {"loss": "dkdd"}}]}, "dkdd"),
        ({"arms": [{"name": "x", "point": {"teachers": ["onee"]}}]}, "did you mean 'one'"),
        ({"arms": [{"name": "x", "scheme": "coupled"}]}, "trains one teacher"),
        (
            {
                "arms": [
                    {"name": "x", "scheme": "summed", "point": {"teachers": ["one"], "loss": "ttm"}}
                ]
            },
            "stops the gradient at the teacher; use kd or mse_logits",
        ),
        ({"arms": [{"name": "x", "members": ["x", "y"]}]}, "there is no student arm 'x'"),
        ({"arms": [{"name": "y"}, {"name": "x", "members": ["y"]}]}, "at least two members"),
        (
            {
                "arms": [
                    {"name": "x", "point": {"teachers": ["y"]}},
                    {"name": "y", "point": {"teachers": ["x"]}},
                ]
            },
            "x, y wait for each other",
        ),
        ({"arms": [{"name": "x"}], "confirm": None}, "its seeds are what the arms"),
        (
            {"arms": [{"name": "x"}], "search": {"space": {"alpha": {"uniform": [0.0, 1.0]}}}},
            "arms are trained instead of a search",
        ),
        (
            {"arms": [{"name": "x"}], "published": {"source": "p", "rows": {"y": 1.0}}},
            "published.rows: there is no arm, teacher or control 'y'",
        ),
        ({"search": {"trials": 0}}, "is 0 and there are no arms"),
    ],
)
def test_a_bad_arm_is_explained(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(settings(**changes))


def coarse(**changes: Any) -> dict[str, Any]:
    base = settings()
    data = {**base["data"], "superclass": SUPERCLASS}
    first, second = base["teachers"]
    teachers = [{**first, "labels": "superclass"}, second]
    return settings(data=data, teachers=teachers, **changes)


def test_teachers_of_different_classes_are_not_mixed() -> None:
    with pytest.raises(ConfigError, match="cannot teach one student together"):
        parse_config(coarse())
    arms = [{"name": "x", "point": {"teachers": ["one", "two"]}}]
    with pytest.raises(ConfigError, match="list arms with teachers of one kind each"):
        parse_config(coarse(arms=arms))


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"loss": "kd"}, "the loss 'kd' cannot read teachers of superclasses"),
        (
            {"loss": "superclass", "hint": "logits_l2", "beta": 1.0},
            "compares logits, which are over different classes",
        ),
    ],
)
def test_what_cannot_read_superclasses_is_refused(point: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(coarse(arms=[{"name": "x", "point": {"teachers": ["one"], **point}}]))


def test_superclass_teachers_need_superclasses() -> None:
    base = settings()
    teachers = [{**base["teachers"][0], "labels": "superclass"}]
    with pytest.raises(ConfigError, match=r"needs superclasses, but data.superclass is not set"):
        parse_config({**base, "teachers": teachers})


def test_only_a_preset_with_published_numbers_can_be_reproduced() -> None:
    with pytest.raises(UsageError, match="no arms or no published numbers"):
        load_reproduction("smoke", [], fast=False)
    with pytest.raises(ConfigError, match="no file or preset 'nonsense'"):
        load_reproduction("nonsense", [], fast=True)
