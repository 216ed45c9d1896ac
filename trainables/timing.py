"""How long a trial will take: measured on a few rows of its own data, on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from trainables.batching import gather
from trainables.device import Precision, autocast, pick_device, resolve_precision
from trainables.encoded import Encoded
from trainables.evaluation import open_encoded
from trainables.store import Store
from trainables.student import StudentSpec
from trainables.student import build_model as build_student
from trainables.teacher import TeacherSpec
from trainables.teacher import build_model as build_teacher

PROBE_ROWS = 128


def teacher_seconds(spec: TeacherSpec, store: Store) -> tuple[float, float]:
    """Return the seconds one row takes in training and in a forward pass of this teacher."""
    model = build_teacher(spec)
    return _probe(model, open_encoded(store, spec.train), spec.batch_size, spec.precision)


def student_seconds(spec: StudentSpec, store: Store) -> float:
    """Return the seconds one row takes in the training of this student."""
    model = build_student(spec, store)
    return _probe(model, open_encoded(store, spec.train), spec.batch_size, spec.precision)[0]


def _probe(
    model: nn.Module, rows: Encoded, batch_size: int, precision: Precision
) -> tuple[float, float]:
    device = pick_device()
    resolved = resolve_precision(precision, device)
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

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a trial, which has one CPU unless its resources say more
    try:
        return _median_seconds(step, device) / size, _median_seconds(forward, device) / size
    finally:
        torch.set_num_threads(threads)


def _median_seconds(work: Callable[[], None], device: torch.device) -> float:
    times = []
    for _ in range(4):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])  # the first one warms up
