"""What every model of the catalog must do; each file of the folder is found and checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainables import catalog
from trainables.errors import ComponentError
from trainables.models._io import architecture, load_model, save_model
from trainables.models._size import model_bytes, parameter_counts
from trainables.testing import tiny_encoder

NAMES = catalog.names("models")
CLASSES = 3
LENGTHS = (9, 1, 4, 2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture(params=NAMES)
def make(request: pytest.FixtureRequest, checkpoint: Path) -> Any:
    component = catalog.load("models", request.param)

    def build(seed: int = 0, **params: Any) -> Any:
        torch.manual_seed(seed)
        if component.needs_checkpoint:
            params = {"checkpoint": str(checkpoint), **params}
        else:
            params = {"vocab_size": 50, **params}
        return catalog.build("models", request.param, **{"n_classes": CLASSES, **params})

    return build


def batch(pad_id: int, extra: int = 0) -> tuple[Tensor, Tensor]:
    width = max(LENGTHS) + extra
    mask = torch.arange(width) < torch.tensor(LENGTHS).unsqueeze(1)
    ids = torch.randint(5, 50, (4, 9), generator=torch.Generator().manual_seed(7))
    ids = nn.functional.pad(ids, (0, extra))
    return torch.where(mask, ids, pad_id), mask


def test_discovers_the_catalog() -> None:
    assert {"bert", "bert_cnn", "textcnn", "bilstm", "cnn_lstm", "linear", "transformer"} <= set(
        NAMES
    )


def test_contract_attributes(make: Any) -> None:
    model = make()
    assert isinstance(model, nn.Module)
    assert model.n_classes == CLASSES
    assert model.needs_tokenizer == ("checkpoint" if model.needs_checkpoint else False)
    assert model.max_length is None or model.max_length > 0
    if not model.needs_checkpoint:
        assert model.pad_id == 0


def test_shapes_and_head(make: Any) -> None:
    model = make().eval()
    output = model(*batch(model.pad_id))
    weight, bias = model.head()
    assert output.logits.shape == (4, CLASSES)
    assert output.features.shape == (4, model.n_features)
    assert weight.shape == (CLASSES, model.n_features)
    torch.testing.assert_close(output.logits, output.features @ weight.T + bias)


def test_padding_changes_nothing(make: Any) -> None:
    model = make().eval()
    tight, loose = model(*batch(model.pad_id)), model(*batch(model.pad_id, extra=6))
    torch.testing.assert_close(tight.logits, loose.logits, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(tight.features, loose.features, rtol=1e-5, atol=1e-6)


def test_what_stands_under_the_mask_changes_nothing(make: Any) -> None:
    model = make().eval()
    ids, mask = batch(model.pad_id)
    other = torch.where(mask, ids, 17)
    torch.testing.assert_close(model(ids, mask).logits, model(other, mask).logits)


def test_rows_do_not_see_each_other(make: Any) -> None:
    model = make().eval()
    ids, mask = batch(model.pad_id)
    together = model(ids, mask).logits
    for row, length in enumerate(LENGTHS):
        alone = model(ids[row : row + 1, :length], mask[row : row + 1, :length]).logits
        torch.testing.assert_close(alone[0], together[row], rtol=1e-5, atol=1e-6)


def test_a_row_without_tokens_is_finite(make: Any) -> None:
    model = make()
    ids, mask = batch(model.pad_id)
    mask[1] = False
    output = model(ids, mask)
    output.logits.square().sum().backward()
    assert output.logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_every_parameter_learns(make: Any) -> None:
    model = make()
    model(*batch(model.pad_id)).logits.square().sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None]
    assert silent == []


def test_one_seed_gives_one_model(make: Any) -> None:
    first, again, other = make(seed=1), make(seed=1), make(seed=2)
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.head()[0], other.head()[0])


def test_saved_model_is_self_contained(make: Any, tmp_path: Path, checkpoint: Path) -> None:
    model = make().eval()
    save_model(model, tmp_path / "saved")
    moved = (tmp_path / "saved").rename(tmp_path / "moved")
    state = torch.get_rng_state()
    loaded = load_model(moved)
    assert torch.equal(torch.get_rng_state(), state)
    assert not loaded.training
    assert architecture(loaded) == architecture(model)
    assert str(checkpoint) not in (moved / "architecture.json").read_text()
    assert parameter_counts(loaded) == parameter_counts(model)
    ids, mask = batch(model.pad_id)
    assert torch.equal(loaded(ids, mask).logits, model(ids, mask).logits)


def test_architecture_is_json(make: Any) -> None:
    described = architecture(make())
    assert described["name"] in NAMES
    assert json.loads(json.dumps(described))["params"]["n_classes"] == CLASSES


def test_sizes(make: Any) -> None:
    model = make()
    total, trainable = parameter_counts(model)
    assert total == trainable == sum(p.numel() for p in model.parameters())
    assert model_bytes(model) == 4 * total


def test_logits_stay_float32_under_autocast(make: Any) -> None:
    model = make().eval()
    ids, mask = batch(model.pad_id)
    exact = model(ids, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(ids, mask)
    assert rough.logits.dtype == rough.features.dtype == torch.float32
    torch.testing.assert_close(rough.logits, exact.logits, rtol=0.05, atol=0.05)


# torch registers an LSTM's weights twice and complains about itself.
@pytest.mark.filterwarnings("ignore:The tensor attributes self.recurrent")
def test_can_be_exported(make: Any) -> None:
    model = make().eval()
    ids, mask = batch(model.pad_id)
    graph = torch.export.export(model, (ids, mask), strict=False).module()
    torch.testing.assert_close(graph(ids, mask).logits, model(ids, mask).logits)


@pytest.mark.parametrize(
    ("params", "named"), [({"n_classes": 1}, "n_classes"), ({"dropout": 1.0}, "dropout")]
)
def test_bad_values_name_the_rule(make: Any, params: dict[str, Any], named: str) -> None:
    with pytest.raises(ComponentError, match=f"{named} must"):
        make(**params)


def test_too_long_a_row_says_what_to_set(make: Any) -> None:
    model = make()
    if model.max_length is None:
        return
    from trainables.errors import DataError

    mask = torch.ones(1, model.max_length + 1, dtype=torch.bool)
    with pytest.raises(DataError, match=f"set data.max_length to {model.max_length}"):
        model(mask.long() * 5, mask)
