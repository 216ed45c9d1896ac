from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainables import catalog
from trainables.errors import ComponentError, DataError
from trainables.models import _encoder
from trainables.testing import tiny_encoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_encoder(tmp_path / "encoder", layers=3)


def bert(folder: Path, **params: Any) -> Any:
    return catalog.build("models", "bert", n_classes=3, checkpoint=str(folder), **params)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_families_load_their_own_weights(tmp_path: Path, kind: str) -> None:
    folder = tiny_encoder(tmp_path, kind=kind)
    model = bert(folder)
    saved = load_file(folder / "model.safetensors")
    for name, value in model.encoder.named_parameters():
        assert torch.equal(value, saved[name]), name
    assert model.max_length == 64
    assert model.pad_id == (1 if kind == "roberta" else 0)
    assert not any("pooler" in name for name, _ in model.named_parameters())


def test_keeps_the_lowest_layers(folder: Path) -> None:
    whole, cut = bert(folder).encoder.eval(), bert(folder, layers=2).encoder.eval()
    ids = torch.randint(5, 40, (2, 6))
    states = whole(input_ids=ids, output_hidden_states=True).hidden_states
    torch.testing.assert_close(cut(input_ids=ids).last_hidden_state, states[2])
    assert cut.config.num_hidden_layers == 2


@pytest.mark.parametrize("layers", [0, 4])
def test_refuses_layers_that_are_not_there(folder: Path, layers: int) -> None:
    with pytest.raises(ComponentError, match="between 1 and the checkpoint's 3"):
        bert(folder, layers=layers)


def test_poolings(folder: Path) -> None:
    ids, mask = torch.randint(5, 40, (1, 4)), torch.tensor([[True, True, True, False]])
    model = bert(folder).eval()
    states = model.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(model(ids, mask).features, states[:, 0])
    model.pooling = "mean"
    torch.testing.assert_close(model(ids, mask).features, states[:, :3].mean(1))
    with pytest.raises(ComponentError, match="pooling must be one of cls, mean"):
        bert(folder, pooling="max")


def test_freezes_embeddings_and_lower_layers(folder: Path) -> None:
    model = bert(folder)
    model.freeze_lower(0)
    assert all(p.requires_grad for p in model.parameters())
    model.freeze_lower(2)
    layers = _encoder.layer_list(model.encoder)
    frozen = [not any(p.requires_grad for p in layer.parameters()) for layer in layers]
    assert frozen == [True, True, False]
    assert not any(p.requires_grad for p in model.encoder.embeddings.parameters())
    assert model.classifier.weight.requires_grad
    with pytest.raises(ValueError, match="between 0 and the 3 layers"):
        model.freeze_lower(4)


def test_shared_layers_cannot_be_frozen_in_part(tmp_path: Path) -> None:
    from transformers import AlbertConfig, AlbertModel

    config = AlbertConfig(
        vocab_size=40,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=16,
    )
    AlbertModel(config).save_pretrained(tmp_path)
    model = bert(tmp_path, layers=2)
    with pytest.raises(ValueError, match="set freeze_layers to 0"):
        model.freeze_lower(1)


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ("T5Config", "sequence-to-sequence"),
        ("BartConfig", "sequence-to-sequence"),
        ("GPT2Config", "not a text encoder"),
        ("LlamaConfig", "not a text encoder"),
        ("ViTConfig", "not a text encoder"),
    ],
)
def test_refuses_what_is_no_encoder(tmp_path: Path, config: str, what: str) -> None:
    import transformers

    getattr(transformers, config)().to_json_file(tmp_path / "config.json")
    with pytest.raises(DataError, match=f"{what}.*use an encoder such as BERT"):
        bert(tmp_path)


def test_refuses_a_bert_that_decodes(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "is_decoder": True}))
    with pytest.raises(DataError, match="not a text encoder"):
        bert(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no readable config.json"),
        ("{", "no readable config.json"),
        ("[]", "transformers cannot build"),
        ('{"model_type": "homemade"}', "'homemade', which transformers cannot build"),
    ],
)
def test_refuses_unusable_configurations(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(DataError, match=message):
        _encoder.read_config(str(tmp_path))


def test_missing_weights_are_not_made_up(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layer.1." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="would start at random"):
        bert(folder)


def test_torn_weights_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot load the weights"):
        bert(folder)


def test_loading_is_silent(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bert(folder, layers=1)
    assert capfd.readouterr() == ("", "")


def test_half_precision_checkpoints_are_trained_in_float32(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    halves = {
        name: value.half() if value.is_floating_point() else value
        for name, value in weights.items()
    }
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    assert {p.dtype for p in bert(folder).parameters()} == {torch.float32}
