"""An exported student as the teacher of another sweep.

It enters the store as the trained teacher it is, so that everything after it (outputs, students,
report) treats it like any other, and nothing is trained.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from orchestrator.exporting.folder import CONFIG, TOKENIZER, damaged_files, holds_student
from orchestrator.exporting.seen import SEEN, count_seen
from trainables.data._table import did_you_mean
from trainables.dataset import PreparedData
from trainables.errors import ArtifactMissing, DataError
from trainables.evaluation import Predictor, open_encoded
from trainables.metrics import classification_metrics
from trainables.models._io import ARCHITECTURE, WEIGHTS, load_model, save_model
from trainables.models._size import model_bytes, parameter_counts
from trainables.store import Artifact, Store, content_key, file_digest
from trainables.teacher import TeacherSpec
from trainables.tokenization import NUMBERING_FILE, TextTokenizer

# A class a teacher does not know gets the mean of its logits less this: about e^-10 of a certain
# answer, and still a number that every loss can take.
UNKNOWN_BELOW = 10.0

_NEEDED = (ARCHITECTURE, WEIGHTS, TOKENIZER, NUMBERING_FILE, CONFIG)


@dataclass(frozen=True)
class Adopted:
    """An exported student that is to teach.

    Attributes:
        name: The teacher's name in the config.
        folder: The exported folder.
        labels: Its labels, in the order of its logits.
        max_length: Tokens it reads of each text.
    """

    name: str
    folder: Path
    labels: tuple[str, ...]
    max_length: int

    @classmethod
    def open(cls, name: str, folder: Path) -> Adopted:
        """Open an exported folder.

        Raises:
            DataError: It is none, or not complete.
        """
        if not holds_student(folder):
            raise DataError(
                f"teacher {name!r}: {folder} holds no exported student; give the folder that "
                "'orchestrator export' wrote"
            )
        damaged = damaged_files(folder, _NEEDED)
        if damaged:
            raise DataError(
                f"teacher {name!r}: {', '.join(damaged)} in {folder} missing or damaged; "
                "export it again"
            )
        config = json.loads((folder / CONFIG).read_bytes())
        return cls(name, folder, tuple(config["labels"]), int(config["max_length"]))

    def tokenizer(self, store: Store) -> Artifact:
        """Return its tokenizer as an artifact."""
        files = [file_digest(self.folder / file) for file in (TOKENIZER, NUMBERING_FILE)]
        key = content_key({"tokenizer": {"exported": files}})
        try:
            return store.read("tokenizer", key)
        except ArtifactMissing:
            pass
        tokenizer = TextTokenizer.open(self.folder)
        with store.write("tokenizer", key) as draft:
            tokenizer.save(draft.path)
            draft.meta |= {
                "kind": "exported",
                "vocab_size": len(tokenizer.vocabulary),
                "pad_id": tokenizer.pad_id,
                "unk_id": tokenizer.unk_id,
            }
        return store.read("tokenizer", key)

    def teacher(self, store: Store, data: PreparedData, encoded: Mapping[str, str]) -> TeacherSpec:
        """Put the student into the store as a trained teacher, and return what names it.

        Args:
            store: The content store.
            data: The sweep's; the teacher's logits are brought into the order of its classes.
            encoded: Key of each split, tokenised for this student.

        Raises:
            DataError: Its labels are not the sweep's classes.
        """
        order = self._order(data.classes)
        described = json.loads((self.folder / ARCHITECTURE).read_bytes())
        own = ("n_classes", "freeze_embedding")
        params = {name: value for name, value in described["params"].items() if name not in own}
        digest = content_key({"weights": file_digest(self.folder / WEIGHTS), "order": order})
        spec = TeacherSpec(
            name=self.name,
            model={"name": described["name"], **params},
            checkpoint_digest=digest,
            n_classes=len(data.classes),
            train=encoded["train"],
            dev=encoded["dev"],
            epochs=1,
        )
        try:
            store.read("teacher", spec.key)
        except ArtifactMissing:
            model = load_model(self.folder)
            _reorder(model, order)
            _write(store, spec, model, self.folder, count_seen(self.folder, store, data))
        return spec

    def unknown(self, classes: Sequence[str]) -> list[str]:
        """Return the classes of a sweep that it has never seen."""
        return [name for name in classes if name not in self.labels]

    def _order(self, classes: Sequence[str]) -> list[int]:
        """Return where each class of the sweep stands among the student's labels, -1 if nowhere.

        A teacher of fewer classes is welcome: models that were in use before a class was added
        know the others. One that knows a class the data lacks has learned another task.
        """
        foreign = sorted(set(self.labels) - set(classes))
        missing = sorted(set(classes) - set(self.labels))
        if foreign:
            parts = []
            if missing:
                hint = did_you_mean(missing[0], foreign)
                parts.append(f"it does not know {', '.join(missing[:5])}{hint}")
            parts.append(f"it knows {', '.join(foreign[:5])} besides")
            raise DataError(
                f"teacher {self.name!r} has other labels than this data: {' and '.join(parts)}; "
                "teachers must know no class but those of the data"
            )
        known = {label: position for position, label in enumerate(self.labels)}
        return [known.get(label, -1) for label in classes]


@torch.no_grad()
def _reorder(model: nn.Module, order: Sequence[int]) -> None:
    """Bring the last layer, weight [C, D] and bias [C], into another order of the classes.

    The logit of a class it does not know is the mean of the others, which is linear in the
    features too, less a constant.

    Args:
        model: The model; its number of classes becomes that of ``order``.
        order: For each class the row it has now, or -1.
    """
    index = torch.tensor(list(order))
    weight, _ = model.head()  # type: ignore[operator]
    last: Any = next(m for m in model.modules() if getattr(m, "weight", None) is weight)
    for name, below in (("weight", 0.0), ("bias", UNKNOWN_BELOW)):
        rows = getattr(last, name)
        moved = rows[index.clamp(min=0)].clone()
        moved[index < 0] = rows.mean(dim=0) - below
        setattr(last, name, nn.Parameter(moved))
    last.out_features = len(order)
    model.n_classes = len(order)  # type: ignore[assignment]


def _write(
    store: Store, spec: TeacherSpec, model: nn.Module, folder: Path, seen: Mapping[str, float]
) -> None:
    """Store the artifact that training this teacher would have left, and what it has seen."""
    device = torch.device("cpu")
    dev = Predictor(open_encoded(store, spec.dev), device=device)
    logits, _ = dev(model)
    scores = classification_metrics(logits, dev.targets, "val_")
    parameters, trainable = parameter_counts(model)
    metrics = {
        **scores,
        "best_epoch": 1.0,
        "parameters": float(parameters),
        "parameters_trainable": float(trainable),
        "model_bytes": float(model_bytes(model)),
        **dict.fromkeys(("train_seconds", "epoch_seconds", "wall_seconds"), 0.0),
        **seen,
    }
    with store.write("teacher", spec.key) as draft:
        save_model(model, draft.path / "model")
        tensors = {"ids": dev.ids, "logits": logits, "targets": dev.targets}
        save_file(tensors, draft.path / "dev.safetensors")
        if (folder / SEEN).is_file():
            shutil.copyfile(folder / SEEN, draft.path / SEEN)
        draft.meta.update(
            name=spec.name,
            spec=spec.to_dict(),
            precision="fp32",
            metrics=metrics,
            history=[{"epoch": 1, **scores}],
        )
