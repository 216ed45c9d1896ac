"""From a trained student to ONNX graphs in float32 and int8.

Letters: B rows, L tokens, C classes, V entries of the tokenizer.

A graph takes ``input_ids`` and ``attention_mask``, both int64 [B, L] with any B and L, and returns
``logits`` float32 [B, C]. Its ids are those of the exported tokenizer: where a student has its own
numbering of a checkpoint's pieces, the graph translates. (Rewriting the tokenizer's vocabulary
instead would change how it splits words, since pieces that the student lacks would be gone.)
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn

from orchestrator.exporting.windows import replace_windows
from trainables.data._rows import Ints

OPSET = 17
# Everything that holds weights but convolutions, which ONNX Runtime slows down in int8.
_QUANTISED = ["MatMul", "Gemm", "Gather", "LSTM"]


class _Graph(nn.Module):
    """The student as a function of two int64 tensors."""

    def __init__(self, model: nn.Module, numbering: Ints | None) -> None:
        super().__init__()
        self.student = copy.deepcopy(model)
        self.shortest = replace_windows(self.student)
        self.numbering: Tensor | None
        self.register_buffer("numbering", None if numbering is None else _compact(numbering))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits [B, C] of ids and mask [B, L]."""
        input_ids, attention_mask = self._lengthen(input_ids), self._lengthen(attention_mask)
        if self.numbering is not None:
            input_ids = self.numbering[input_ids].long()
        logits: Tensor = self.student(input_ids, attention_mask.bool()).logits
        return logits

    def _lengthen(self, values: Tensor) -> Tensor:
        """Pad [B, L] on the right so that the widest kernel fits, without branching on L."""
        if self.shortest == 1:
            return values
        length = torch._shape_as_tensor(values)[1].clamp(min=self.shortest)
        return F.pad(values, (0, self.shortest - 1))[:, :length]


def write_graph(
    model: nn.Module, path: Path, numbering: Ints | None, facts: Mapping[str, str]
) -> None:
    """Write the float32 graph of a model.

    Args:
        model: A student in evaluation mode, on the CPU.
        path: The file to write.
        numbering: Student id of each id of the tokenizer [V], or None if they are the same.
        facts: Put into the file's metadata.
    """
    graph = _Graph(model, numbering).eval()
    # Two rows, one of them padded: a single row would be taken for a constant batch of one.
    length = graph.shortest + 3
    mask = torch.ones(2, length, dtype=torch.int64)
    mask[1, -1] = 0
    axes = {0: "batch", 1: "length"}
    with warnings.catch_warnings():
        # The tracing exporter announces its end and doubts each shape that is taken from a tensor.
        # Its successor fixes the length of an LSTM's input; the check on dev settles the doubts.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            (torch.zeros_like(mask), mask),
            str(path),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_axes={"input_ids": axes, "attention_mask": axes, "logits": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
    written = onnx.load(path)
    onnx.helper.set_model_props(written, dict(facts))
    onnx.checker.check_model(written, full_check=True)
    onnx.save(written, path)


def write_int8(source: Path, target: Path) -> None:
    """Quantise the weights of a float32 graph to int8, token tables included.

    Activations are quantised as they come, so nothing has to be calibrated.
    """
    with _quiet():
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=_QUANTISED,
            per_channel=True,
            weight_type=QuantType.QInt8,
        )


def student_numbers(originals: Ints, size: int, unknown: int) -> Ints:
    """Invert a renumbering: student id of each of the tokenizer's ``size`` ids, int64 [V].

    Args:
        originals: Id in the tokenizer of each student id.
        size: V.
        unknown: Student id of pieces that the student does not have.
    """
    numbers = np.full(size, unknown, np.int64)
    numbers[originals] = np.arange(len(originals))
    return numbers


def _compact(numbers: Ints) -> Tensor:
    """Store ids in two bytes where they fit: for a big checkpoint this table is what is left."""
    small = int(numbers.max()) <= np.iinfo(np.int16).max
    return torch.from_numpy(numbers.astype(np.int16 if small else np.int32))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the quantiser, which logs each integer tensor that it leaves alone."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
