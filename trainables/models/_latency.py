"""How long a model takes for one text: a rough figure that a search can weigh against the score."""

from __future__ import annotations

import copy
import time

import torch
from torch import nn

TOKENS = 32
WARM_UP, LEAST, MOST = 2, 5, 30
BUDGET_SECONDS = 0.1


@torch.inference_mode()
def latency_ms(model: nn.Module) -> float:
    """Return the least milliseconds of a forward pass of one text of 32 tokens on one CPU thread.

    The least, not the mean: what other trials do on the machine only adds. An export measures
    properly, beside the teacher; this compares the students of one search. Takes about a tenth of
    a second, or seven passes.

    Args:
        model: Takes ids and mask ``[1, 32]``; it is left as it is, on its device.
    """
    places = {parameter.device.type for parameter in model.parameters()}
    asked = model if places == {"cpu"} else copy.deepcopy(model).cpu()
    training, threads = model.training, torch.get_num_threads()
    ids = torch.zeros(1, TOKENS, dtype=torch.int64)
    mask = torch.ones(1, TOKENS, dtype=torch.bool)
    asked.eval()
    torch.set_num_threads(1)
    try:
        return 1e3 * _least(asked, ids, mask)
    finally:
        torch.set_num_threads(threads)
        model.train(training)


def _least(model: nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> float:
    taken: list[float] = []
    began = time.perf_counter()
    for turn in range(WARM_UP + MOST):
        if turn >= WARM_UP + LEAST and time.perf_counter() - began > BUDGET_SECONDS:
            break
        started = time.perf_counter()
        model(ids, mask)
        taken.append(time.perf_counter() - started)
    return min(taken[WARM_UP:])
