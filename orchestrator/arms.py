"""Arms: students that are listed instead of searched, each trained with the same seeds.

An arm may be a student of teachers, a student that grows up with its teacher, an ensemble of
other arms, or a student whose teachers are other arms. So they run in waves: an arm's turn comes
when everything it refers to is there. The controls run with the first wave.

Legend: S seeds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.proposals import Proposal
from orchestrator.records import Stage, TrialRecord, TrialState
from orchestrator.schema import ArmConfig
from orchestrator.specs import StudentFactory, confirm_proposals, student_params
from trainables.confirm import ConfirmSpec
from trainables.ensemble import EnsembleSpec
from trainables.joint import JointSpec
from trainables.outputs import OutputsSpec
from trainables.store import Store, content_key
from trainables.student_spec import TeacherRef

CONTROLS = ("plain", "best_teacher", "average")

Run = Callable[[Stage, Sequence[Proposal], str], Mapping[str, TrialRecord]]


@dataclass
class ArmResult:
    """Where the results of one arm are.

    Attributes:
        kind: Kind of its artifacts: ``confirm`` or ``ensemble``.
        keys: Their keys by seed; only of trials that are complete.
        taught_by: Names of the arms whose students taught it.
    """

    kind: str
    keys: dict[int, str] = field(default_factory=dict)
    taught_by: list[str] = field(default_factory=list)


class Arms:
    """Runs the arms of a config and its controls.

    Args:
        factory: Makes students.
        store: Holds what the trials leave behind.
        test: Key of the student's tokens of the test split, or None.
        run: Runs trials as one stage and returns their records by key.
        warn: Hears which arms are left out, and why.
    """

    def __init__(
        self,
        factory: StudentFactory,
        store: Store,
        test: str | None,
        run: Run,
        warn: Callable[[str], None],
    ) -> None:
        self._factory = factory
        self._store = store
        self._test = test
        self._run = run
        self._warn = warn
        config = factory.config
        assert config.confirm is not None, "checked with the config"
        self._seeds = [config.seed + offset for offset in range(config.confirm.seeds)]
        self._repeats = _repeats(config.arms)
        self.results: dict[str, ArmResult] = {}

    def run(self) -> dict[str, ArmResult]:
        """Run everything and return where the results are, controls first."""
        pending = list(self._factory.config.arms)
        listed = self._controls()
        wave = 0
        while pending:
            ready = [arm for arm in pending if _refers_to(arm, pending).isdisjoint(_names(pending))]
            assert ready, "the config has been checked for circles"
            pending = [arm for arm in pending if arm not in ready]
            usable = [arm for arm in ready if self._usable(arm)]
            wave += 1
            self._graduate(wave, usable)
            listed |= {arm.name: self._proposals(arm) for arm in usable}
            self._wave(wave, usable, listed)
            listed = {}
        return self.results

    def _controls(self) -> dict[str, list[Proposal]]:
        points = self._factory.controls()
        found = {}
        for role, point in points.items():
            student = self._factory.proposal(point, role)
            found[role.removeprefix("control:")] = self._confirmed(student, self._seeds)
        return found

    def _usable(self, arm: ArmConfig) -> bool:
        """Tell whether everything an arm refers to has worked out; says so if not."""
        teachers = arm.point.get("teachers", [])
        for name in (*teachers, *arm.members):
            known = name in self._factory.teachers
            if not known and not self.results.get(name, ArmResult("")).keys:
                self._warn(f"arm {arm.name} is left out: {name} was excluded or has failed")
                return False
        return True

    def _wave(
        self, wave: int, arms: Sequence[ArmConfig], proposals: Mapping[str, Sequence[Proposal]]
    ) -> None:
        planned: dict[str, Proposal] = {}
        for proposal in (p for listed in proposals.values() for p in listed):
            planned.setdefault(proposal.key, proposal)  # an arm may be what a control is
        if not planned:
            return
        records = self._run(Stage.CONFIRM, list(planned.values()), f"wave-{wave}")
        teachers = {arm.name: arm.point.get("teachers", []) for arm in arms}
        for name, listed in proposals.items():
            taught_by = [t for t in teachers.get(name, []) if t in self._factory.graduates]
            kind = listed[0].task if listed else "confirm"
            self.results[name] = ArmResult(kind, taught_by=taught_by)
            for proposal in listed:
                record = records.get(proposal.key)
                if record is not None and record.state is TrialState.COMPLETE:
                    self.results[name].keys[proposal.seed] = proposal.key

    def _proposals(self, arm: ArmConfig) -> list[Proposal]:
        if arm.members:
            return self._ensembles(arm)
        count = len(self._seeds)
        extra = [
            seed + number * count
            for number in range(1, self._repeats[arm.name])
            for seed in self._seeds
        ]
        return [
            replace(proposal, params={**proposal.params, "arm": arm.name})
            for proposal in self._students(arm, [*self._seeds, *extra])
        ]

    def _students(self, arm: ArmConfig, seeds: Sequence[int]) -> list[Proposal]:
        if arm.scheme is not None:
            return [self._joint(arm, seed) for seed in seeds]
        return self._confirmed(self._factory.proposal(arm.point, "candidate"), seeds)

    def _confirmed(self, student: Proposal, seeds: Sequence[int]) -> list[Proposal]:
        """Return confirm trials; seeds beyond the common ones only serve ensembles."""
        return [
            p if p.seed in self._seeds else replace(p, role="member", group=f"{p.group}-member")
            for p in confirm_proposals(student, seeds, self._test)
        ]

    def _joint(self, arm: ArmConfig, seed: int) -> Proposal:
        assert arm.scheme is not None
        (name,) = arm.point.get("teachers", self._factory.usual_teachers)
        teacher = self._factory.teachers[name].materials.spec
        teacher = replace(teacher, anchors=(), anchor_splits={}, anchor_features=False)
        taught = self._factory.spec({**arm.point, "teachers": [name], "beta": 0.0})
        params = {**student_params(taught), "seed": seed, "scheme": arm.scheme}
        base = JointSpec(arm.scheme, teacher, replace(taught, teachers=()))
        spec = ConfirmSpec(replace(base, student=replace(base.student, seed=seed)), self._test)
        return Proposal(
            task="confirm",
            key=spec.key,
            role="candidate",
            spec=spec.to_dict(),
            params=params,
            group=base.key,
            seed=seed,
        )

    def _ensembles(self, arm: ArmConfig) -> list[Proposal]:
        proposals = []
        members = "+".join(arm.members)
        for seed in self._seeds:
            keys = self._members(arm, seed)
            if keys is None:
                self._warn(f"ensemble {arm.name} seed {seed} is left out: a member has failed")
                continue
            spec = EnsembleSpec(keys, arm.combiner)
            proposals.append(
                Proposal(
                    task="ensemble",
                    key=spec.key,
                    role="ensemble",
                    spec=spec.to_dict(),
                    params={"arm": arm.name, "members": members, "combiner": arm.combiner},
                    group=content_key({"members": sorted(arm.members), "by": arm.combiner}),
                    seed=seed,
                )
            )
        return proposals

    def _members(self, arm: ArmConfig, seed: int) -> list[str] | None:
        """Return the confirmed students of an ensemble, or None if one has failed."""
        seen: Counter[str] = Counter()
        keys = []
        for name in arm.members:
            key = self.results[name].keys.get(seed + seen[name] * len(self._seeds))
            if key is None:
                return None
            keys.append(key)
            seen[name] += 1
        return keys

    def _graduate(self, wave: int, arms: Sequence[ArmConfig]) -> None:
        """Let the students of earlier arms answer the training rows, so that they can teach."""
        wanted = {
            name
            for arm in arms
            for name in arm.point.get("teachers", [])
            if name not in self._factory.teachers and name not in self._factory.graduates
        }
        planned = {name: self._outputs(name) for name in sorted(wanted)}
        proposals = [p for listed in planned.values() for p in listed]
        if not proposals:
            return
        self._run(Stage.OUTPUTS, proposals, f"arms-{wave}")
        for name, listed in planned.items():
            key = self._first(name)
            meta = self._store.meta(self.results[name].kind, key) or {"metrics": {}}
            score = float(meta["metrics"].get("val_f1_macro", 0.0))
            outputs = {str(p.spec["split"]): p.key for p in listed}
            self._factory.graduates[name] = TeacherRef(name, key, score, [outputs])

    def _outputs(self, name: str) -> list[Proposal]:
        key = self._first(name)
        tokens = self._factory.materials.student.encoded
        return [
            Proposal(
                task="outputs",
                key=spec.key,
                role=name,
                spec=spec.to_dict(),
                params={"teacher": name, "split": split, "features": False},
            )
            for split in ("train", "transfer")
            if split in tokens
            for spec in [OutputsSpec(key, name, split, tokens[split], members=self._trained(name))]
        ]

    def _first(self, name: str) -> str:
        """Return the artifact of the lowest seed: one student teaches, for all seeds alike."""
        return self.results[name].keys[min(self.results[name].keys)]

    def _trained(self, name: str) -> list[str]:
        """Return the students that answer in the name of an arm."""
        key = self._first(name)
        if self.results[name].kind == "confirm":
            confirmed = [key]
        else:
            confirmed = list((self._store.meta("ensemble", key) or {})["spec"]["members"])
        return [(self._store.meta("confirm", member) or {})["student"] for member in confirmed]


def _repeats(arms: Sequence[ArmConfig]) -> Counter[str]:
    """Return how often an arm takes part in one ensemble, at most; each needs other seeds."""
    repeats = Counter({arm.name: 1 for arm in arms})
    for arm in arms:
        for name, count in Counter(arm.members).items():
            repeats[name] = max(repeats[name], count)
    return repeats


def _names(arms: Sequence[ArmConfig]) -> set[str]:
    return {arm.name for arm in arms}


def _refers_to(arm: ArmConfig, arms: Sequence[ArmConfig]) -> set[str]:
    """Return the arms that must be there before this one."""
    return {*arm.members, *arm.point.get("teachers", [])} & _names(arms)
