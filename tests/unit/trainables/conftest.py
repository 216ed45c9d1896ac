"""A tiny world that the tests of the trainables share: texts, two teachers and their outputs."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from trainables import outputs, teacher
from trainables.loop import OptimizerSpec
from trainables.outputs import OutputsSpec
from trainables.store import Store
from trainables.student import StudentSpec, TeacherRef
from trainables.teacher import TeacherSpec
from trainables.testing import tiny_texts, tiny_vocabulary

CLASSES = 3
ROWS = {"train": 90, "dev": 45, "transfer": 60, "test": 45}
# Another order and other keys than the rows themselves have, as a filtered split would.
FIRST_ID = {"train": 1000, "dev": 2000, "transfer": 3000, "test": 4000}
SPECIALS = ["[PAD]", "[UNK]"]
VOCABULARY = {piece: number for number, piece in enumerate([*SPECIALS, *tiny_vocabulary()])}


def write_encoded(store: Store, key: str, split: str, *, shuffled: bool = False) -> str:
    """Tokenise tiny texts by hand, one word one token, and store them as an encoded split."""
    texts, labels = tiny_texts(ROWS[split], CLASSES, seed=FIRST_ID[split])
    rows = [[VOCABULARY[word] for word in text.split()] for text in texts]
    classes = [-100 if split == "transfer" else int(label[-1]) for label in labels]
    order = list(range(len(rows)))
    if shuffled:
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(3)).tolist()
    rows, classes = [rows[i] for i in order], [classes[i] for i in order]
    lengths = torch.tensor([0, *map(len, rows)])
    with store.write("encoded", key) as draft:
        save_file(
            {
                "tokens": torch.tensor([token for row in rows for token in row]).int(),
                "offsets": lengths.cumsum(0),
                "ids": torch.tensor(order) + FIRST_ID[split],
                "labels": torch.tensor(classes),
            },
            draft.path / "encoded.safetensors",
            metadata={"pad_id": "0"},
        )
    return key


def teacher_spec(name: str, /, **changes: Any) -> TeacherSpec:
    base = TeacherSpec(
        name=name,
        model={
            "name": "transformer",
            "layers": 1,
            "hidden": 16 if name == "small" else 8,
            "heads": 2,
            "ffn": 32,
            "vocab_size": len(VOCABULARY),
        },
        n_classes=CLASSES,
        train="train",
        dev="dev",
        epochs=3,
        batch_size=16,
        optimizer=OptimizerSpec(lr=1e-2),
        precision="fp32",
    )
    return replace(base, **changes)


@dataclass(frozen=True)
class World:
    """A store that holds encoded splits, two trained teachers and their outputs."""

    store: Store
    teachers: tuple[TeacherRef, ...]

    def student(self, **changes: Any) -> StudentSpec:
        base = StudentSpec(
            model={
                "name": "textcnn",
                "filters": 8,
                "kernels": [1, 2],
                "embedding_dim": 12,
                "dropout": 0.2,
            },
            n_classes=CLASSES,
            vocab_size=len(VOCABULARY),
            train="train",
            dev="dev",
            teachers=self.teachers,
            epochs=2,
            batch_size=16,
            optimizer=OptimizerSpec(lr=1e-2),
            precision="fp32",
        )
        return replace(base, **changes)


def run_outputs(store: Store, key: str, split: str, *, features: bool = True) -> str:
    spec = OutputsSpec(key, "teacher", split, split, features, "fp32")
    list(outputs.run(spec, store))
    return spec.key


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors only lose by threads, and other tests want the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def built_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    store = Store(tmp_path_factory.mktemp("world"))
    for split in ROWS:
        write_encoded(store, split, split)
    references = []
    for name in ("small", "tiny"):
        spec = teacher_spec(name)
        *_, last = teacher.run(spec, store)
        keys = {
            split: run_outputs(store, spec.key, split) for split in ("train", "dev", "transfer")
        }
        references.append(TeacherRef(name, spec.key, last["summary"]["val_f1_macro"], [keys]))
    return World(store, tuple(references))


@pytest.fixture
def world(built_world: World, tmp_path: Path) -> World:
    """The world in a store of its own, which a test may damage."""
    root = tmp_path / "store"
    shutil.copytree(built_world.store.root, root)
    return World(Store(root), built_world.teachers)


@pytest.fixture
def write_split() -> Callable[..., str]:
    return write_encoded


@pytest.fixture
def make_teacher() -> Callable[..., TeacherSpec]:
    return teacher_spec
