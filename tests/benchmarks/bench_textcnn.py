"""Time of one TextCNN training step in its two forms, and of AdamW over its token table.

Prints one JSON document: milliseconds of this run and ratios within it, never a verdict. Run with
``python tests/benchmarks/bench_textcnn.py``; one core, as a student trial has.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import torch
from torch import Tensor

from trainables.models.textcnn import TextCNN

BATCH, WIDTH, PADDED, CLASSES = 128, 20, 32, 10
VOCABULARIES = (5_000, 10_000, 30_000)
REPEATS = 15


def milliseconds(step: Callable[[], object]) -> float:
    """Fastest of some repeats: what else runs on the machine only ever adds."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return round(1e3 * min(times), 2)


def batch(vocabulary: int, width: int) -> tuple[Tensor, Tensor]:
    """Rows of 14 to 20 tokens whose frequencies fall like those of words."""
    generator = torch.Generator().manual_seed(0)
    frequencies = 1 / (torch.arange(1, vocabulary) + 10.0)
    drawn = torch.multinomial(frequencies, BATCH * width, True, generator=generator) + 1
    lengths = torch.randint(14, WIDTH + 1, (BATCH, 1), generator=generator)
    mask = torch.arange(width) < lengths
    return drawn.view(BATCH, width) * mask, mask


def training_step(
    model: TextCNN, ids: Tensor, mask: Tensor, convolve: bool, bf16: bool
) -> Callable[[], None]:
    targets = torch.arange(BATCH) % CLASSES

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            if convolve:
                features = model.windows(model.table(ids), mask)
                logits = model.classifier(features)
            else:
                logits = model(ids, mask).logits
        model.zero_grad()
        loss = torch.nn.functional.cross_entropy(logits.float(), targets)
        torch.autograd.backward(loss)

    return step


def steps(vocabulary: int) -> dict[str, float]:
    model = TextCNN(CLASSES, vocabulary)
    result = {}
    for shape, width in (("bucketed", WIDTH), ("padded", PADDED)):
        ids, mask = batch(vocabulary, width)
        for precision in ("fp32", "bf16"):
            for form, convolve in (("convolution", True), ("projection", False)):
                step = training_step(model, ids, mask, convolve, precision == "bf16")
                result[f"{shape}_{precision}_{form}"] = milliseconds(step)
    frozen = TextCNN(CLASSES, vocabulary, embedding=torch.zeros(vocabulary, 300))
    frozen.table.weight.requires_grad_(False)
    step = training_step(frozen, *batch(vocabulary, WIDTH), False, True)
    result["bucketed_bf16_projection_frozen"] = milliseconds(step)
    return result


def optimizers(vocabulary: int) -> dict[str, float]:
    result = {}
    for name, options in (("foreach", {"foreach": True}), ("fused", {"fused": True})):
        table = torch.nn.Parameter(torch.randn(vocabulary, 300))
        table.grad = torch.randn(vocabulary, 300)
        optimizer = torch.optim.AdamW([table], lr=1e-3, **options)  # type: ignore[arg-type]
        result[name] = milliseconds(lambda optimizer=optimizer: optimizer.step())  # type: ignore[misc]
    return result


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    runs = {}
    for vocabulary in VOCABULARIES:
        step = steps(vocabulary)
        ratio = {
            "projection_over_convolution_fp32": step["bucketed_fp32_projection"]
            / step["bucketed_fp32_convolution"],
            "projection_over_convolution_bf16": step["bucketed_bf16_projection"]
            / step["bucketed_bf16_convolution"],
            "best_over_padded_fp32_convolution": step["bucketed_bf16_projection"]
            / step["padded_fp32_convolution"],
        }
        runs[vocabulary] = {
            "step_ms": step,
            "adamw_table_ms": optimizers(vocabulary),
            "ratios": {name: round(value, 3) for name, value in ratio.items()},
        }
    print(json.dumps({"benchmark": "textcnn", "torch": torch.__version__, "by_vocabulary": runs}))


if __name__ == "__main__":
    main()
