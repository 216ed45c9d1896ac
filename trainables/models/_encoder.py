"""Pretrained transformer encoders: loading, cutting and freezing them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from trainables.errors import DataError

# What loading may leave without weights: the pooler, which no model here uses.
_OPTIONAL = ("pooler.",)


def load_encoder(checkpoint: str, layers: int | None = None, pretrained: bool = True) -> nn.Module:
    """Build the encoder of a checkpoint folder in float32, in training mode.

    Args:
        checkpoint: A folder with config.json and model.safetensors.
        layers: Keep only that many of the lowest layers; None keeps all.
        pretrained: Load the weights; without, only the configuration is read.

    Raises:
        DataError: Not a text encoder, or its files do not belong together.
        ValueError: ``layers`` is not between 1 and the number there is.
    """
    config = _shortened(read_config(checkpoint), layers)
    kind = _model_class(config, checkpoint)
    options = {}
    if "add_pooling_layer" in inspect.signature(kind).parameters:
        options["add_pooling_layer"] = False
    if not pretrained:
        return _as_module(kind(config, **options)).train()
    with _quiet():
        try:
            encoder, info = kind.from_pretrained(
                checkpoint,
                config=config,
                dtype=torch.float32,
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise DataError(
                f"cannot load the weights of checkpoint {checkpoint!r}: {error}; "
                "it needs a complete model.safetensors that belongs to its config.json"
            ) from error
    missing = [name for name in info["missing_keys"] if not name.startswith(_OPTIONAL)]
    if missing:
        raise DataError(
            f"checkpoint {checkpoint!r} has no weights for {missing[0]!r} and {len(missing) - 1} "
            "more tensors, which would start at random; use a checkpoint saved by "
            f"{kind.__name__}.save_pretrained"
        )
    return _as_module(encoder).train()


def read_config(checkpoint: str) -> Any:
    """Read and check the transformers configuration of a checkpoint folder, without weights.

    Raises:
        DataError: There is none, it needs foreign code, or it does not describe a text encoder.
    """
    from transformers import AutoConfig

    path = Path(checkpoint) / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"checkpoint {checkpoint!r} has no readable config.json ({error}); "
            "give the folder that transformers' save_pretrained wrote"
        ) from error
    try:
        config = AutoConfig.from_pretrained(
            checkpoint, trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = raw.get("model_type") if isinstance(raw, dict) else None
        raise DataError(
            f"checkpoint {checkpoint!r} is of the type {what!r}, which transformers cannot build "
            "without running the checkpoint's own code; use a BERT-family encoder"
        ) from error
    _check_is_encoder(config, checkpoint)
    return config


def layer_list(encoder: nn.Module) -> nn.ModuleList:
    """Find the list of an encoder's layers, lowest first.

    Raises:
        ValueError: It has none of its configured length, as ALBERT, whose layers are one.
    """
    count: int = encoder.config.num_hidden_layers  # type: ignore[assignment, union-attr]
    for module in encoder.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ValueError(
        f"{type(encoder).__name__} has no list of {count} separate layers to freeze; "
        "set freeze_layers to 0"
    )


def freeze_lower(encoder: nn.Module, count: int) -> None:
    """Stop training the embeddings and the ``count`` lowest layers; 0 freezes nothing.

    Raises:
        ValueError: There are not that many layers.
    """
    if count == 0:
        return
    layers = layer_list(encoder)
    if not 0 < count <= len(layers):
        raise ValueError(
            f"freeze_layers must lie between 0 and the {len(layers)} layers there are, got {count}"
        )
    embeddings = getattr(encoder, "embeddings", None) or encoder.get_input_embeddings()  # type: ignore[operator]
    for part in (embeddings, *layers[:count]):
        part.requires_grad_(False)


def longest_input(encoder: nn.Module) -> int | None:
    """Return how many tokens the encoder can read, None if its positions are unlimited.

    The RoBERTa family counts positions from its padding id + 1, so it reads that much less than
    its config says.
    """
    for name, module in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            reserved = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - reserved
    limit: int | None = getattr(encoder.config, "max_position_embeddings", None)
    return limit if limit and limit > 0 else None


def encode(encoder: nn.Module, input_ids: Tensor, mask: Tensor, pad_id: int) -> Tensor:
    """Run the encoder: ids [B, L] and mask [B, L] bool -> last hidden states [B, L, H].

    Masked places are set to ``pad_id`` first: RoBERTa derives its positions from it.
    """
    input_ids = input_ids.masked_fill(~mask, pad_id)
    states: Tensor = encoder(input_ids=input_ids, attention_mask=mask.long()).last_hidden_state
    return states


def check_length(length: int, limit: int | None) -> None:
    """Refuse a batch that is longer than the positions of the model."""
    if limit is not None and length > limit:
        raise DataError(
            f"a row has {length} tokens but this checkpoint reads at most {limit}; "
            f"set data.max_length to {limit} or less"
        )


def _check_is_encoder(config: Any, checkpoint: str) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        what = "a sequence-to-sequence model"
    elif getattr(config, "is_decoder", False) or kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        what = "not a text encoder"
    else:
        return
    raise DataError(
        f"checkpoint {checkpoint!r} is {what} (type {kind!r}); use an encoder such as BERT, "
        "RoBERTa, DistilBERT, ELECTRA or DeBERTa"
    )


def _shortened(config: Any, layers: int | None) -> Any:
    if layers is None:
        return config
    depth = config.num_hidden_layers
    if not 1 <= layers <= depth:
        raise ValueError(f"layers must lie between 1 and the checkpoint's {depth}, got {layers}")
    config.num_hidden_layers = layers
    if isinstance(getattr(config, "layer_types", None), list):
        config.layer_types = config.layer_types[:layers]
    return config


def _model_class(config: Any, checkpoint: str) -> Any:
    from transformers import MODEL_MAPPING

    kind: Any = MODEL_MAPPING.get(type(config), None)
    if isinstance(kind, tuple):
        kind = kind[0]
    if kind is None:
        raise DataError(
            f"transformers has no encoder for checkpoint {checkpoint!r} of the type "
            f"{config.model_type!r}; use a BERT-family encoder"
        )
    return kind


def _as_module(encoder: Any) -> nn.Module:
    assert isinstance(encoder, nn.Module)
    return encoder


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' loading bar and its list of unused tensors off the terminal."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
