"""Students: train a small model from cached teacher outputs.

Legend: N rows (labelled, then transfer), B batch, C classes, D features, K teachers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainables import catalog
from trainables.batching import LengthBuckets, gather
from trainables.checkpoint import Checkpoint
from trainables.device import autocast, pick_device, resolve_precision
from trainables.difficulty import selection_by_difficulty
from trainables.embeddings import load_embedding
from trainables.encoded import Encoded, concatenate
from trainables.errors import TrialFailed
from trainables.evaluation import Predictor, open_encoded
from trainables.guidance import Guidance
from trainables.loop import ExtraState, Fit
from trainables.metrics import classification_metrics
from trainables.microbatch import LossParts
from trainables.models._output import ModelOutput
from trainables.objective import Objective
from trainables.protocols import Loss, Schedule, Weighting, trait
from trainables.route import Route
from trainables.seeding import batch_generator, derive_seed, seed_torch
from trainables.store import Store
from trainables.student_spec import StudentSpec, TeacherRef
from trainables.trained import Remarks, report_and_store

__all__ = ["StudentSpec", "TeacherRef", "build_model", "run"]

# Batches sorted by length together. Length often tells the class, and then batches of one length
# hold few classes: a TextCNN on 6,000 THUCNews headlines (one seed) reached 59.9 % after 3 epochs
# and 78.2 % after 8 with 50, but 66.6 % and 79.3 % with 1. On a CPU its padding costs next to
# nothing; a student that is a transformer, or a GPU, pays for it (1.45 times the tokens there).
POOL = 1


def run(
    spec: StudentSpec, store: Store, checkpoint: Checkpoint | None = None
) -> Iterator[dict[str, Any]]:
    """Train the student and store it; yields one report per epoch.

    Raises:
        NonFiniteLoss: Training diverged.
        DataError: Outputs of a teacher do not cover the rows.
    """
    seed_torch(spec.seed)
    training = _Training(spec, store)
    fit = Fit(
        training.model,
        extra=training.objective,
        epochs=spec.epochs,
        steps_per_epoch=-(-training.n_rows // spec.batch_size),
        batches=training.batches,
        forward=training.forward,
        loss=training.loss,
        evaluate=training.evaluate,
        optimizer=spec.optimizer,
        generator=training.generator,
        checkpoint=checkpoint,
        after_step=training.feedback if training.needs_feedback else None,
        extra_state=training.state,
    )
    yield from report_and_store(
        fit,
        store,
        kind="student",
        key=spec.key,
        predict=training.predict_dev,
        checkpoint=checkpoint,
        meta={"spec": spec.to_dict(), "precision": training.precision},
        remark=training.remark,
    )


class _Training:
    """The model, the rows and the objective of one student, as the loop needs them."""

    def __init__(self, spec: StudentSpec, store: Store) -> None:
        self.spec = spec
        self.store = store
        self.device = pick_device()
        self.precision = resolve_precision(spec.precision, self.device)
        self.rows = _open_rows(spec, store)
        self.n_rows = spec.rows_per_epoch or len(self.rows)
        self.dev = Predictor(open_encoded(store, spec.dev), device=self.device)
        self.model = build_model(spec, store).to(self.device)
        self.guidance = _open_guidance(spec, store, self.rows) if spec.distils else None
        self.objective = _build_objective(spec, self.model, self.guidance, self.precision).to(
            self.device
        )
        self.schedule = _build_schedule(spec)
        self.generator = batch_generator(spec.seed)

    @property
    def needs_feedback(self) -> bool:
        """Whether the weighting learns from what each step did to the student."""
        return self.guidance is not None and bool(
            trait(self.objective.weighting, Weighting, "needs_feedback")
        )

    @property
    def state(self) -> ExtraState:
        """How the state of weighting and schedule enters and leaves a checkpoint."""
        parts = {
            "weighting": (self.objective.weighting, Weighting),
            "schedule": (self.schedule, Schedule),
        }

        def restore(saved: dict[str, Any]) -> None:
            for name, (part, contract) in parts.items():
                _hook(part, "load_state_dict", contract)(saved[name])

        return ExtraState(
            lambda: {
                name: _hook(part, "state_dict", contract)()
                for name, (part, contract) in parts.items()
            },
            restore,
        )

    def batches(self, epoch: int) -> Iterator[Tensor]:
        """Yield the row numbers ``[B]`` of each batch of an epoch."""
        _hook(self.objective.weighting, "begin_epoch")(epoch, self.spec.epochs)
        if self.guidance is not None:
            if _hook(self.schedule, "due", Schedule)(epoch, self.spec.epochs):
                self.schedule.advance(self.divergences())
            self.guidance.anchor = self.schedule(epoch, self.spec.epochs)
        order = draw_rows(len(self.rows), self.n_rows, self.generator)
        lengths = self.rows.lengths[order]
        for index in LengthBuckets(lengths, self.spec.batch_size, self.generator, POOL):
            yield order[index]

    def divergences(self) -> list[float]:
        """Return how far the student is from the teachers at each anchor, on dev."""
        _, logits, targets = self.predict_dev()
        self.model.train()
        mine, _ = _hook(self.objective.loss, "teacher_view", Loss)(logits, targets)
        teachers = [(teacher.name, teacher.outputs) for teacher in self.spec.teachers]
        return Route(self.store, teachers, self.dev.ids).divergences(mine)

    def forward(self, index: Tensor) -> ModelOutput:
        """Run the model on rows ``[B]``."""
        input_ids, mask = gather(self.rows, index)
        with autocast(self.precision, self.device):
            output: ModelOutput = self.model(input_ids.to(self.device), mask.to(self.device))
        return output

    def loss(self, index: Tensor, output: ModelOutput) -> tuple[Tensor, LossParts]:
        """Return the objective of rows ``[B]`` and its parts."""
        targets = self.rows.labels[index].to(self.device)
        if self.guidance is None:
            value = self.objective(output.logits, targets, None)
        else:
            value = self.objective(
                output.logits,
                targets,
                self.guidance.logits(index).to(self.device),
                student_features=output.features,
                teacher_features=self.guidance.features(index, self.device),
            )
        return value.total, value.parts

    def feedback(self, index: Tensor) -> None:
        """Show the weighting the updated student's logits of the batch it has just seen."""
        assert self.guidance is not None
        self.model.eval()
        with torch.no_grad():
            logits = self.forward(index).logits
        self.model.train()
        self.objective.feedback(
            logits,
            self.guidance.logits(index).to(self.device),
            self.rows.labels[index].to(self.device),
        )

    def evaluate(self) -> dict[str, float]:
        """Return the dev metrics, and what the weighting says of its epoch."""
        _, logits, targets = self.predict_dev()
        metrics = classification_metrics(logits, targets, "val_")
        return {**metrics, **_hook(self.objective.weighting, "end_epoch")()}

    def remark(self) -> Remarks | None:
        """Return what the weighting has learned about the teachers, if it selects them."""
        if self.guidance is None or not trait(self.objective.weighting, Weighting, "selects"):
            return None
        names = [teacher.name for teacher in self.spec.teachers]
        with autocast(self.precision, self.device):
            return selection_by_difficulty(
                self.objective, self.model, self.rows, self.guidance, names, self.device
            )

    def predict_dev(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return ids ``[N]``, logits ``[N, C]`` and targets ``[N]`` of the dev split."""
        with autocast(self.precision, self.device):
            logits, _ = self.dev(self.model)
        return self.dev.ids, logits, self.dev.targets


def draw_rows(available: int, wanted: int, generator: torch.Generator) -> Tensor:
    """Return ``wanted`` row numbers, each of the available ones as often as any other, +-1."""
    rounds = -(-wanted // available)
    orders = [torch.randperm(available, generator=generator) for _ in range(rounds)]
    return torch.cat(orders)[:wanted]


def _open_rows(spec: StudentSpec, store: Store) -> Encoded:
    rows = open_encoded(store, spec.train)
    if spec.transfer is None or not spec.distils:
        return rows
    return concatenate([rows, open_encoded(store, spec.transfer)])


def _open_guidance(spec: StudentSpec, store: Store, rows: Encoded) -> Guidance:
    splits = ["train"] if spec.transfer is None else ["train", "transfer"]
    teachers = [(teacher.name, teacher.outputs) for teacher in spec.teachers]
    return Guidance(store, teachers, rows, splits)


def build_model(spec: StudentSpec, store: Store) -> nn.Module:
    """Make the untrained student, on the CPU."""
    params = {name: value for name, value in spec.model.items() if name != "name"}
    if spec.embedding is not None:
        params["embedding"] = load_embedding(store, spec.embedding)
        params["embedding_dim"] = params["embedding"].shape[1]
    model: nn.Module = catalog.build(
        "models",
        spec.model["name"],
        n_classes=spec.n_classes,
        vocab_size=spec.vocab_size,
        freeze_embedding=spec.freeze_embedding,
        **params,
    )
    return model


def _build_schedule(spec: StudentSpec) -> Schedule:
    """Make the schedule and check that the teachers' outputs are there for its anchors."""
    schedule: Schedule = _component("schedules", spec.schedule)
    wanted = len(trait(schedule, Schedule, "anchors"))
    for teacher in spec.teachers if spec.distils else ():
        if len(teacher.outputs) != wanted:
            raise TrialFailed(
                f"schedule {spec.schedule['name']!r} has {wanted} anchors, but teacher "
                f"{teacher.name!r} has outputs of {len(teacher.outputs)}; set "
                "student.schedule to constant"
            )
    return schedule


def _component(kind: str, values: Mapping[str, Any]) -> Any:
    params = {name: value for name, value in values.items() if name != "name"}
    return catalog.build(kind, values["name"], **params)


def _hook(part: Any, name: str, contract: type[Any] = Weighting) -> Callable[..., Any]:
    """Return a component's hook, or the contract's for a class that stands alone."""
    default = partial(getattr(contract, name), part)
    hook: Callable[..., Any] = getattr(part, name, default)
    return hook


def _build_objective(
    spec: StudentSpec,
    model: nn.Module,
    guidance: Guidance | None,
    precision: Literal["fp32", "bf16"],
) -> Objective:
    # The key of a student with one teacher leaves the weighting out, so it must not matter.
    several = len(spec.teachers) > 1
    weighting = _component("weightings", spec.weighting if several else {"name": "average"})
    hint = None
    if guidance is not None:
        _hook(weighting, "configure")(
            scores=[teacher.score for teacher in spec.teachers],
            generator_seed=derive_seed(spec.seed, "weighting"),
        )
        if spec.hint is not None and spec.beta:
            hint = _component("hints", spec.hint)
            hint.precision = precision
            guidance.prepare(hint, int(model.n_features))  # type: ignore[arg-type]
    return Objective(
        ce_weight=spec.ce_weight,
        alpha=spec.alpha if guidance is not None else 0.0,
        beta=spec.beta if hint is not None else 0.0,
        loss=_component("losses", spec.loss),
        weighting=weighting,
        hint=hint,
    )
