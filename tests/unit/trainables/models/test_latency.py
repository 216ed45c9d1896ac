"""The latency of a model: positive, growing with the work, and nothing else changes."""

import torch
from torch import nn

from trainables.models._latency import LEAST, TOKENS, WARM_UP, latency_ms


class Slow(nn.Module):
    """Multiplies a big matrix so many times, and counts its calls."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(256))
        self.times, self.calls = times, 0

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        assert ids.shape == mask.shape == (1, TOKENS) and not self.training
        self.calls += 1
        result = self.weight
        for _ in range(self.times):
            result = result @ self.weight
        return result


def test_more_work_takes_longer_and_the_model_is_left_as_it_was() -> None:
    quick, slow = Slow(1).train(), Slow(40).eval()
    threads = torch.get_num_threads()
    assert 0 < latency_ms(quick) < latency_ms(slow)
    assert quick.training and not slow.training
    assert torch.get_num_threads() == threads
    assert min(quick.calls, slow.calls) >= WARM_UP + LEAST
