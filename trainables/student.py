"""Students: train a small model from cached teacher outputs.

Legend: N rows (labelled, then transfer), B batch, C classes, D features, K teachers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trainables import catalog
from trainables.batching import LengthBuckets, gather
from trainables.checkpoint import Checkpoint
from trainables.device import Precision, autocast, pick_device, resolve_precision
from trainables.embeddings import load_embedding
from trainables.encoded import Encoded, concatenate
from trainables.evaluation import Predictor, open_encoded
from trainables.guidance import Guidance
from trainables.loop import ExtraState, Fit, OptimizerSpec
from trainables.metrics import classification_metrics
from trainables.models._output import ModelOutput
from trainables.objective import Objective
from trainables.seeding import batch_generator, derive_seed, seed_torch
from trainables.store import Store, content_key
from trainables.trained import report_and_store


@dataclass(frozen=True)
class TeacherRef:
    """A teacher a student learns from.

    Attributes:
        name: Its name in the config; not part of the student's key.
        key: Key of the teacher artifact.
        score: Its dev macro-F1, which ranks teachers.
        outputs: For each anchor of the schedule, the outputs artifacts by split
            (``train`` and, with transfer rows, ``transfer``).
    """

    name: str
    key: str
    score: float
    outputs: Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class StudentSpec:
    """Everything that determines a student.

    Attributes:
        model: Component name and parameters.
        n_classes: C.
        vocab_size: Entries of the student's tokenizer.
        train: Key of the encoded labelled rows.
        dev: Key of the encoded dev rows.
        transfer: Key of the encoded unlabelled rows, or None.
        teachers: In the order chosen; empty for the plain student.
        loss: Component name and parameters.
        weighting: Component name and parameters.
        hint: Component name and parameters, or None.
        schedule: Component name and parameters.
        ce_weight: Weight of the cross-entropy with the labels.
        alpha: Weight of the distillation loss.
        beta: Weight of the hint.
        embedding: Key of the initial embedding, or None for random.
        freeze_embedding: Keep the embedding as it is.
        epochs: How often ``rows_per_epoch`` rows are seen.
        rows_per_epoch: Rows in an epoch, or None for all there are. Students of one sweep share
            it, so that one without transfer rows gets as many steps as one with them.
        batch_size: Rows per step.
        optimizer: How weights are updated.
        precision: Of the forward passes.
        seed: Of initialisation, dropout and batch order.
    """

    model: Mapping[str, Any]
    n_classes: int
    vocab_size: int
    train: str
    dev: str
    transfer: str | None = None
    teachers: Sequence[TeacherRef] = ()
    loss: Mapping[str, Any] = field(default_factory=lambda: {"name": "kd"})
    weighting: Mapping[str, Any] = field(default_factory=lambda: {"name": "average"})
    hint: Mapping[str, Any] | None = None
    schedule: Mapping[str, Any] = field(default_factory=lambda: {"name": "constant"})
    ce_weight: float = 1.0
    alpha: float = 1.0
    beta: float = 0.0
    embedding: str | None = None
    freeze_embedding: bool = False
    epochs: int = 5
    rows_per_epoch: int | None = None
    batch_size: int = 128
    optimizer: OptimizerSpec = field(default_factory=OptimizerSpec)
    precision: Precision = "auto"
    seed: int = 0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StudentSpec:
        """Read it back from JSON values."""
        teachers = tuple(TeacherRef(**teacher) for teacher in values["teachers"])
        optimizer = OptimizerSpec(**values["optimizer"])
        return cls(**{**values, "teachers": teachers, "optimizer": optimizer})

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            **vars(self),
            "teachers": [
                {**vars(teacher), "outputs": [dict(anchor) for anchor in teacher.outputs]}
                for teacher in self.teachers
            ],
            "optimizer": vars(self.optimizer),
        }

    def canonical(self) -> dict[str, Any]:
        """Return what the result depends on: parts without effect are left out.

        Two configs that train the same student, such as any loss at ``alpha`` 0, must have one
        key, or a search would train it again and again.
        """
        values = self.to_dict()
        if not self.distils:
            for name in ("loss", "weighting", "hint", "schedule", "alpha", "beta", "transfer"):
                values[name] = None
            values["teachers"] = []
            return values
        if self.alpha == 0:
            values["loss"] = None
        if self.beta == 0 or self.hint is None:
            values["hint"], values["beta"] = None, 0.0
        if len(self.teachers) == 1:
            # Every weighting gives a single teacher the weight 1 (METHODS 14.1, property 6).
            values["weighting"] = None
        for teacher in values["teachers"]:
            del teacher["name"]
        return values

    @property
    def distils(self) -> bool:
        """Whether any term compares the student with a teacher."""
        return bool(self.teachers) and (self.alpha != 0 or (self.beta != 0 and bool(self.hint)))

    @property
    def key(self) -> str:
        """The key of the artifact this spec makes."""
        return content_key({"kind": "student", **self.canonical()})


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
        loss=training.loss,
        evaluate=training.evaluate,
        optimizer=spec.optimizer,
        generator=training.generator,
        checkpoint=checkpoint,
        after_step=training.feedback if training.needs_feedback else None,
        extra_state=training.weighting_state,
    )
    yield from report_and_store(
        fit,
        store,
        kind="student",
        key=spec.key,
        predict=training.predict_dev,
        checkpoint=checkpoint,
        meta={"spec": spec.to_dict(), "precision": training.precision},
    )


class _Training:
    """The model, the rows and the objective of one student, as the loop needs them."""

    def __init__(self, spec: StudentSpec, store: Store) -> None:
        self.spec = spec
        self.device = pick_device()
        self.precision = resolve_precision(spec.precision, self.device)
        self.rows = _open_rows(spec, store)
        self.n_rows = spec.rows_per_epoch or len(self.rows)
        self.dev = Predictor(open_encoded(store, spec.dev), device=self.device)
        self.model = _build_model(spec, store).to(self.device)
        self.guidance = _open_guidance(spec, store, self.rows) if spec.distils else None
        self.objective = _build_objective(spec, self.model, self.guidance).to(self.device)
        self.schedule = _component("schedules", spec.schedule)
        self.generator = batch_generator(spec.seed)

    @property
    def needs_feedback(self) -> bool:
        """Whether the weighting learns from what each step did to the student."""
        return self.guidance is not None and bool(self.objective.weighting.needs_feedback)

    @property
    def weighting_state(self) -> ExtraState:
        """How the weighting's state enters and leaves a checkpoint."""
        weighting = self.objective.weighting
        return ExtraState(weighting.state_dict, weighting.load_state_dict)

    def batches(self, epoch: int) -> Iterator[Tensor]:
        """Yield the row numbers ``[B]`` of each batch of an epoch."""
        self.objective.weighting.begin_epoch(epoch, self.spec.epochs)
        if self.guidance is not None:
            self.guidance.anchor = self.schedule(epoch, self.spec.epochs)
        order = draw_rows(len(self.rows), self.n_rows, self.generator)
        lengths = self.rows.lengths[order]
        for index in LengthBuckets(lengths, self.spec.batch_size, self.generator):
            yield order[index]

    def loss(self, index: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the objective of a batch and its parts."""
        output = self._forward(index)
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
            logits = self._forward(index).logits.float()
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
        return {**metrics, **self.objective.weighting.end_epoch()}

    def predict_dev(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return ids ``[N]``, logits ``[N, C]`` and targets ``[N]`` of the dev split."""
        with autocast(self.precision, self.device):
            logits, _ = self.dev(self.model)
        return self.dev.ids, logits, self.dev.targets

    def _forward(self, index: Tensor) -> ModelOutput:
        input_ids, mask = gather(self.rows, index)
        with autocast(self.precision, self.device):
            output: ModelOutput = self.model(input_ids.to(self.device), mask.to(self.device))
        return output


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


def _build_model(spec: StudentSpec, store: Store) -> nn.Module:
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


def _component(kind: str, values: Mapping[str, Any]) -> Any:
    params = {name: value for name, value in values.items() if name != "name"}
    return catalog.build(kind, values["name"], **params)


def _build_objective(spec: StudentSpec, model: nn.Module, guidance: Guidance | None) -> Objective:
    weighting = _component("weightings", spec.weighting)
    hint = None
    if guidance is not None:
        weighting.configure(
            scores=[teacher.score for teacher in spec.teachers],
            generator_seed=derive_seed(spec.seed, "weighting"),
        )
        if spec.hint is not None and spec.beta:
            hint = _component("hints", spec.hint)
            guidance.prepare(hint, int(model.n_features))  # type: ignore[arg-type]
    return Objective(
        ce_weight=spec.ce_weight,
        alpha=spec.alpha if guidance is not None else 0.0,
        beta=spec.beta if hint is not None else 0.0,
        loss=_component("losses", spec.loss),
        weighting=weighting,
        hint=hint,
    )
