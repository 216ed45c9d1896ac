"""Exported graphs compute what the trained models compute, for every size of batch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from orchestrator.exporting.graph import student_numbers, write_graph, write_int8
from trainables import catalog

VOCABULARY, CLASSES = 300, 5
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("linear", {}),
    ("linear", {"pooling": "max", "hidden": 16}),
    ("textcnn", {"filters": 16}),
    ("textcnn", {"kernels": [1], "filters": 16}),
    ("bilstm", {"hidden": 16}),
    ("bilstm", {"hidden": 16, "layers": 2, "pooling": "last"}),
    ("bilstm", {"hidden": 16, "pooling": "mean"}),
    ("cnn_lstm", {"hidden": 16, "filters": 16}),
    ("cnn_lstm", {"hidden": 16, "filters": 16, "mode": "serial"}),
    ("transformer", {"max_positions": 40, "hidden": 32, "embedding_dim": 20}),
]
SIZES = [(1, 1), (1, 2), (2, 3), (4, 1), (7, 40), (33, 9)]


def build(name: str, params: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = catalog.build(
        "models", name, n_classes=CLASSES, vocab_size=VOCABULARY, **params
    )
    return model.eval()


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for rows, length in SIZES:
        ids = torch.randint(2, VOCABULARY, (rows, length), generator=generator)
        lengths = torch.randint(1, length + 1, (rows, 1), generator=generator)
        lengths[0] = length
        mask = torch.arange(length) < lengths
        yield ids * mask, mask


def run(path: Path, ids: Tensor, mask: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {"input_ids": ids.numpy(), "attention_mask": mask.long().numpy()}
    return torch.from_numpy(session.run(None, feed)[0])


def test_the_list_above_covers_every_student_of_the_catalog() -> None:
    students = {
        name
        for name in catalog.names("models")
        if not catalog.load("models", name).needs_checkpoint
    }
    assert students == {name for name, _ in MODELS}


@pytest.mark.parametrize(("name", "params"), MODELS)
def test_graphs_agree_with_torch(name: str, params: dict[str, Any], tmp_path: Path) -> None:
    model = build(name, params)
    full, small = tmp_path / "full.onnx", tmp_path / "small.onnx"
    write_graph(model, full, None, {})
    write_int8(full, small)
    for ids, mask in batches():
        with torch.no_grad():
            expected = model(ids, mask).logits
        torch.testing.assert_close(run(full, ids, mask), expected, rtol=1e-4, atol=1e-5)
        spread = float(expected.abs().max())
        assert float((run(small, ids, mask) - expected).abs().max()) < 0.05 * spread
    # Weights shrink to a quarter; what is left is the graph itself.
    assert small.stat().st_size < 0.25 * full.stat().st_size + 80_000


def test_export_leaves_the_model_as_it_is(tmp_path: Path) -> None:
    model = build("textcnn", {"filters": 16})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    write_graph(model, tmp_path / "full.onnx", None, {})
    assert model.state_dict().keys() == before.keys()
    assert not model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_graph_translates_the_ids_of_the_tokenizer(tmp_path: Path) -> None:
    model = build("textcnn", {"filters": 16})
    originals = np.concatenate([[7, 3], np.random.default_rng(0).permutation(900)[:VOCABULARY]])
    originals = np.array(list(dict.fromkeys(originals.tolist()))[:VOCABULARY], np.int64)
    path = tmp_path / "full.onnx"
    write_graph(model, path, student_numbers(originals, 1000, unknown=1), {})
    for ids, mask in batches():
        with torch.no_grad():
            expected = model(ids, mask).logits
        found = run(path, torch.from_numpy(originals)[ids], mask)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    strange = torch.tensor([[999]])  # a piece that the student does not have
    assert 999 not in originals
    with torch.no_grad():
        expected = model(torch.tensor([[1]]), torch.ones(1, 1, dtype=torch.bool)).logits
    found = run(path, strange, torch.ones(1, 1, dtype=torch.bool))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_student_numbers_invert_a_renumbering() -> None:
    numbers = student_numbers(np.array([4, 0, 2]), 6, unknown=1)
    assert numbers.tolist() == [1, 1, 2, 1, 0, 1]


def test_facts_travel_with_the_graph(tmp_path: Path) -> None:
    path = tmp_path / "full.onnx"
    write_graph(build("linear", {}), path, None, {"sweep": "news"})
    stored = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert stored["sweep"] == "news"
