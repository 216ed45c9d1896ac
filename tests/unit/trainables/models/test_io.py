from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from trainables import catalog
from trainables.errors import ComponentError, DataError
from trainables.models._io import architecture, load_model, save_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(catalog.build("models", "linear", n_classes=2, vocab_size=9), tmp_path / "m")
    return tmp_path / "m"


def test_frozen_tables_come_back_frozen(tmp_path: Path) -> None:
    values = torch.randn(9, 4)
    model = catalog.build(
        "models",
        "textcnn",
        n_classes=2,
        vocab_size=9,
        embedding_dim=4,
        embedding=values,
        freeze_embedding=True,
    )
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert not loaded.table.weight.requires_grad
    assert torch.equal(loaded.table.weight, model.table.weight)
    assert architecture(loaded)["params"]["freeze_embedding"] is True


def test_missing_description(folder: Path) -> None:
    (folder / "architecture.json").unlink()
    with pytest.raises(DataError, match="holds no model"):
        load_model(folder)


def test_torn_description(folder: Path) -> None:
    (folder / "architecture.json").write_text('{"name": "lin')
    with pytest.raises(DataError, match="holds no model"):
        load_model(folder)


def test_unknown_component(folder: Path) -> None:
    (folder / "architecture.json").write_text(json.dumps({"name": "linnear", "params": {}}))
    with pytest.raises(ComponentError, match="did you mean 'linear'"):
        load_model(folder)


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_torn_weights(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(DataError, match="do not fit"):
        load_model(folder)


def test_weights_of_another_architecture(folder: Path) -> None:
    path = folder / "architecture.json"
    described = json.loads(path.read_text())
    described["params"]["n_classes"] = 5
    path.write_text(json.dumps(described))
    with pytest.raises(DataError, match="do not fit"):
        load_model(folder)


def test_a_class_that_forgets_its_parameters_is_told() -> None:
    class Forgetful(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()

    with pytest.raises(TypeError, match="must keep its parameter 'width'"):
        architecture(Forgetful(3))


def test_foreign_classes_are_named_by_module() -> None:
    class Own(nn.Module):
        pass

    assert architecture(Own())["name"].endswith(
        ":test_foreign_classes_are_named_by_module.<locals>.Own"
    )
