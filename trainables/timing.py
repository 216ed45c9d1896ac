"""How long a trial will take: measured on a few rows of its own data, on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from trainables import catalog
from trainables.batching import gather
from trainables.device import autocast, pick_device, resolve_precision
from trainables.embeddings import load_embedding
from trainables.encoded import Encoded
from trainables.evaluation import open_encoded
from trainables.store import Store
from trainables.student import StudentSpec
from trainables.teacher import TeacherSpec

PROBE_ROWS = 64


def teacher_seconds(spec: TeacherSpec, store: Store) -> tuple[float, float]:
    """Return the seconds one row takes in training and in a forward pass of this teacher."""
    params = {name: value for name, value in spec.model.items() if name != "name"}
    model = catalog.build("models", spec.model["name"], n_classes=spec.n_classes, **params)
    return _probe(model, open_encoded(store, spec.train), spec.batch_size, spec.precision)


def student_seconds(spec: StudentSpec, store: Store) -> float:
    """Return the seconds one row takes in the training of this student."""
    params = {name: value for name, value in spec.model.items() if name != "name"}
    if spec.embedding is not None:
        params["embedding"] = load_embedding(store, spec.embedding)
        params["embedding_dim"] = params["embedding"].shape[1]
    model = catalog.build(
        "models",
        spec.model["name"],
        n_classes=spec.n_classes,
        vocab_size=spec.vocab_size,
        freeze_embedding=spec.freeze_embedding,
        **params,
    )
    return _probe(model, open_encoded(store, spec.train), spec.batch_size, spec.precision)[0]


def _probe(
    model: nn.Module, rows: Encoded, batch_size: int, precision: str
) -> tuple[float, float]:
    device = pick_device()
    resolved = resolve_precision(precision, device)  # type: ignore[arg-type]
    model.to(device)
    size = min(batch_size, PROBE_ROWS, len(rows))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:size]
    input_ids, mask = (tensor.to(device) for tensor in gather(rows, order))
    labels = rows.labels[order].clamp(min=0).to(device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)

    def forward() -> None:
        model.eval()
        with torch.no_grad(), autocast(resolved, device):
            model(input_ids, mask)

    def step() -> None:
        model.train()
        with autocast(resolved, device):
            output = model(input_ids, mask)
        optimizer.zero_grad()
        functional.cross_entropy(output.logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return _median_seconds(step, device) / size, _median_seconds(forward, device) / size


def _median_seconds(work: Callable[[], None], device: torch.device) -> float:
    work()
    times = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return sorted(times)[1]
