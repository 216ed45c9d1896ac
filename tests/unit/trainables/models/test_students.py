from __future__ import annotations

from typing import Any

import pytest
import torch

from trainables import catalog
from trainables.errors import ComponentError
from trainables.models._size import model_bytes, parameter_counts
from trainables.testing import tiny_texts

STUDENTS = [
    name for name in catalog.names("models") if not catalog.load("models", name).needs_checkpoint
]


def build(name: str, **params: Any) -> Any:
    return catalog.build("models", name, **{"n_classes": 3, "vocab_size": 40, **params})


def test_textcnn_has_the_seed_papers_parameters() -> None:
    model = build("textcnn", n_classes=10, vocab_size=4762)
    assert parameter_counts(model) == (2_128_258, 2_128_258)
    assert model_bytes(model) == 8_513_032


@pytest.mark.parametrize("name", STUDENTS)
def test_initial_values_are_used_and_padding_is_zero(name: str) -> None:
    values = torch.randn(40, 16)
    model = build(name, embedding=values, embedding_dim=16)
    assert torch.equal(model.table.weight[1:], values[1:])
    assert not model.table.weight[0].any()
    assert values[0].any(), "the caller's tensor must stay as it is"
    assert model.table.weight.requires_grad


@pytest.mark.parametrize("name", STUDENTS)
def test_frozen_table_is_shared_and_counted_once(name: str) -> None:
    values = torch.randn(40, 16)
    values[0] = 0
    params = {"embedding": values, "embedding_dim": 16, "freeze_embedding": True}
    first, second = build(name, **params), build(name, **params)
    assert first.table.weight.data_ptr() == values.data_ptr()
    total, trainable = parameter_counts(first)
    assert total - trainable == 40 * 16
    assert parameter_counts(first, second)[0] == 2 * trainable + 40 * 16
    assert model_bytes(first, second) == 4 * (2 * trainable + 40 * 16)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"freeze_embedding": True}, "freeze_embedding needs an embedding"),
        ({"embedding": torch.zeros(3, 16), "embedding_dim": 16}, r"\[40, 16\], got \[3, 16\]"),
        ({"embedding_dim": 0}, "embedding_dim must be a whole number above 0"),
    ],
)
def test_table_problems_are_named(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        build("textcnn", **params)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("bilstm", {"pooling": "sum"}, "pooling must be one of max, mean, last"),
        ("linear", {"pooling": "last"}, "pooling must be one of mean, max"),
        ("cnn_lstm", {"mode": "both"}, "mode must be one of parallel, serial"),
        ("transformer", {"heads": 3}, "heads must divide hidden"),
        ("bilstm", {"layers": 0}, "layers must be"),
    ],
)
def test_bad_parameters_are_named(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        build(name, **params)


VARIANTS = [
    ("linear", {"pooling": "max"}),
    ("linear", {"hidden": 12}),
    ("bilstm", {"pooling": "mean", "layers": 2}),
    ("bilstm", {"pooling": "last"}),
    ("cnn_lstm", {"mode": "serial"}),
    ("cnn_lstm", {"mode": "serial", "pooling": "last"}),
    ("transformer", {"embedding_dim": 20}),
    ("textcnn", {"kernels": (1, 6), "filters": 8}),
]


@pytest.mark.parametrize(("name", "params"), VARIANTS)
def test_variants_ignore_padding(name: str, params: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = build(name, **params).eval()
    mask = torch.arange(7) < torch.tensor([[7], [1], [3]])
    ids = torch.randint(1, 40, (3, 7)) * mask
    wide_ids = torch.nn.functional.pad(ids, (0, 5))
    wide_mask = torch.nn.functional.pad(mask, (0, 5))
    narrow, wide = model(ids, mask), model(wide_ids, wide_mask)
    torch.testing.assert_close(narrow.logits, wide.logits, rtol=1e-5, atol=1e-6)
    assert narrow.features.shape == (3, model.n_features)


def test_bilstm_reads_both_ways_like_torch() -> None:
    """Against torch's bidirectional LSTM over packed sequences."""
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    from trainables.models._recurrent import BiLSTM

    torch.manual_seed(0)
    ours, theirs = BiLSTM(5, 4, 1), torch.nn.LSTM(5, 4, batch_first=True, bidirectional=True)
    for suffix, source in (("", ours.ahead[0]), ("_reverse", ours.back[0])):
        for name, value in source.named_parameters():
            theirs.get_parameter(name + suffix).data.copy_(value)
    lengths = torch.tensor([6, 2, 4])
    mask = torch.arange(6) < lengths.unsqueeze(1)
    states = torch.randn(3, 6, 5)
    packed = pack_padded_sequence(states, lengths, batch_first=True, enforce_sorted=False)
    expected, (final, _) = theirs(packed)
    expected, _ = pad_packed_sequence(expected, batch_first=True)
    result = ours(states, mask)
    torch.testing.assert_close(result * mask.unsqueeze(-1), expected)
    last = torch.cat([final[0], final[1]], dim=1)
    torch.testing.assert_close(ours.pool(result, mask, "last"), last)


@pytest.mark.parametrize("name", STUDENTS)
def test_learns_a_separable_problem(name: str) -> None:
    texts, labels = tiny_texts(96, classes=3)
    words = sorted({word for text in texts for word in text.split()})
    numbers = {word: number for number, word in enumerate(words, start=2)}
    rows = [[numbers[word] for word in text.split()] for text in texts]
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
    targets = torch.tensor([int(label[-1]) for label in labels])
    torch.manual_seed(0)
    model = build(name, vocab_size=len(words) + 2, embedding_dim=32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(100):
        loss = torch.nn.functional.cross_entropy(model(ids, ids > 0).logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    assert (model(ids, ids > 0).logits.argmax(1) == targets).float().mean() > 0.95
