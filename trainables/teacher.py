"""Teachers: fine-tune a big model on the labelled rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from trainables import catalog
from trainables.batching import LengthBuckets, gather
from trainables.checkpoint import Checkpoint
from trainables.device import Precision, autocast, pick_device, resolve_precision
from trainables.encoded import Encoded
from trainables.errors import DataError, TrialFailed
from trainables.evaluation import Predictor, open_encoded
from trainables.folds import outside
from trainables.hierarchy import coarsened
from trainables.loop import Fit, OptimizerSpec
from trainables.metrics import classification_metrics
from trainables.microbatch import LossParts
from trainables.models._output import ModelOutput
from trainables.seeding import batch_generator, seed_torch
from trainables.snapshots import Snapshots, anchor_outputs
from trainables.store import Store, content_key
from trainables.trained import Predictions, report_and_store

_OPTIONS = ("fold", "groups", "anchors", "anchor_splits", "anchor_features")


@dataclass(frozen=True)
class TeacherSpec:
    """Everything that determines a teacher.

    Attributes:
        name: Its name in the config; not part of the key.
        model: Component name and parameters. ``checkpoint`` in it is a local folder; the key
            uses ``checkpoint_digest`` instead, so that moving the folder changes nothing.
        checkpoint_digest: Hash of the checkpoint's files, or empty for a model from scratch.
        n_classes: C, or the number of superclasses if it learns those.
        train: Key of the encoded training split.
        dev: Key of the encoded dev split.
        rows: Train on the first this many rows only, or None: makes a weak teacher.
        epochs: Passes over the training rows.
        batch_size: Rows per step.
        optimizer: How weights are updated.
        freeze_layers: Keep the embeddings and this many of the lowest layers as they are.
        precision: Of the forward passes.
        seed: Of initialisation, dropout and batch order.
        fold: ``(i, k)`` leaves out fold ``i`` of ``k`` of the training rows; None trains on all.
        groups: Superclass of each class, for a teacher of superclasses.
        anchors: Shares of its training after which its outputs are stored as well.
        anchor_splits: Key of the encoded rows of each split to store them for.
        anchor_features: Whether pooled features are stored with them.
    """

    name: str
    model: Mapping[str, Any]
    n_classes: int
    train: str
    dev: str
    checkpoint_digest: str = ""
    rows: int | None = None
    epochs: int = 3
    batch_size: int = 32
    optimizer: OptimizerSpec = field(default_factory=OptimizerSpec)
    freeze_layers: int = 0
    precision: Precision = "auto"
    seed: int = 0
    fold: tuple[int, int] | None = None
    groups: Sequence[int] | None = None
    anchors: Sequence[float] = ()
    anchor_splits: Mapping[str, str] = field(default_factory=dict)
    anchor_features: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TeacherSpec:
        """Read it back from JSON values."""
        fold = values.get("fold")
        return cls(
            **{
                **values,
                "optimizer": OptimizerSpec(**values["optimizer"]),
                "fold": None if fold is None else (int(fold[0]), int(fold[1])),
                "anchors": tuple(values.get("anchors", ())),
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            **vars(self),
            "model": dict(self.model),
            "optimizer": vars(self.optimizer),
            "fold": None if self.fold is None else list(self.fold),
            "groups": None if self.groups is None else list(self.groups),
            "anchors": list(self.anchors),
            "anchor_splits": dict(self.anchor_splits),
        }

    @property
    def key(self) -> str:
        """The key of the artifact this spec makes."""
        payload = self.to_dict()
        del payload["name"]
        for option in _OPTIONS:
            # Left out where not used, so that an option added later renames no old teacher.
            if not payload[option]:
                del payload[option]
        payload["model"] = {k: v for k, v in self.model.items() if k != "checkpoint"}
        return content_key({"kind": "teacher", **payload})


def build_model(spec: TeacherSpec) -> nn.Module:
    """Make the teacher before fine-tuning, on the CPU.

    Raises:
        DataError: The checkpoint is not a usable encoder, or the model has no layers to freeze.
    """
    params = {name: value for name, value in spec.model.items() if name != "name"}
    model: Any = catalog.build("models", spec.model["name"], n_classes=spec.n_classes, **params)
    if spec.freeze_layers:
        if not hasattr(model, "freeze_lower"):
            raise DataError(
                f"teacher {spec.name!r} cannot freeze layers: its model {spec.model['name']!r} "
                "has no pretrained encoder; set freeze_layers to 0"
            )
        model.freeze_lower(spec.freeze_layers)
    return model  # type: ignore[no-any-return]


def _training_rows(spec: TeacherSpec, store: Store) -> Encoded:
    """Return the rows a teacher may see, with the labels it learns.

    Raises:
        TrialFailed: Its fold holds all of them.
    """
    rows = coarsened(open_encoded(store, spec.train), spec.groups)
    if spec.rows is not None:
        rows = rows.subset(range(min(spec.rows, len(rows))))
    if spec.fold is not None:
        rows = rows.subset(outside(rows.ids, *spec.fold, rows.blocks))
    if not len(rows):
        raise TrialFailed(
            f"teacher {spec.name!r} has no training rows outside its fold; lower its folds"
        )
    return rows


def run(
    spec: TeacherSpec, store: Store, checkpoint: Checkpoint | None = None
) -> Iterator[dict[str, Any]]:
    """Fine-tune the teacher and store it; yields one report per epoch.

    Raises:
        NonFiniteLoss: Training diverged.
        DataError: The checkpoint is not a usable encoder.
    """
    seed_torch(spec.seed)
    device = pick_device()
    precision = resolve_precision(spec.precision, device)
    model = build_model(spec).to(device)

    train = _training_rows(spec, store)
    dev = Predictor(coarsened(open_encoded(store, spec.dev), spec.groups), device=device)
    generator = batch_generator(spec.seed)
    buckets = LengthBuckets(train.lengths, spec.batch_size, generator)

    def forward(index: Tensor) -> ModelOutput:
        input_ids, mask = gather(train, index)
        with autocast(precision, device):
            output: ModelOutput = model(input_ids.to(device), mask.to(device))
        return output

    def loss(index: Tensor, output: ModelOutput) -> tuple[Tensor, LossParts]:
        return functional.cross_entropy(output.logits.float(), train.labels[index].to(device)), {}

    def predict_dev() -> Predictions:
        with autocast(precision, device):
            logits, _ = dev(model)
        return dev.ids, logits, dev.targets

    settings = {"features": spec.anchor_features, "precision": spec.precision}
    snapshots = Snapshots(
        anchor_outputs(spec.key, spec.name, spec.anchor_splits, **settings),
        spec.anchors,
        spec.epochs * len(buckets),
        store,
        precision,
        spec.groups,
    )
    fit = Fit(
        model,
        epochs=spec.epochs,
        steps_per_epoch=len(buckets),
        batches=lambda _: buckets,
        forward=forward,
        loss=loss,
        evaluate=lambda: classification_metrics(*predict_dev()[1:], "val_"),
        optimizer=spec.optimizer,
        generator=generator,
        checkpoint=checkpoint,
        after_step=lambda _: snapshots.at(fit.steps, model),
    )
    yield from report_and_store(
        fit,
        store,
        kind="teacher",
        key=spec.key,
        predict=predict_dev,
        checkpoint=checkpoint,
        meta={
            "name": spec.name,
            "spec": spec.to_dict(),
            "precision": precision,
        },
    )
