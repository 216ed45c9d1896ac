"""The tokenizer a pretrained checkpoint was trained with."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from trainables.errors import DataError

_PAD_NAMES = ("[PAD]", "<pad>", "<|padding|>")
_UNK_NAMES = ("[UNK]", "<unk>", "<|unk|>")


@dataclass(frozen=True, eq=False)
class CheckpointTokenizer:
    """A checkpoint's fast tokenizer with its padding and unknown ids.

    Attributes:
        tokenizer: The pipeline of the ``tokenizers`` library.
        pad_id: Padding id; 0 if the checkpoint has none, since masked positions do not count.
        unk_id: Id of the unknown piece; the padding id if there is none (byte-level BPE).
        digest: sha256 of its definition.
    """

    tokenizer: Tokenizer
    pad_id: int
    unk_id: int
    digest: str


def read_checkpoint_tokenizer(checkpoint: str) -> CheckpointTokenizer:
    """Read the tokenizer of a local folder or a hub id.

    Raises:
        DataError: The checkpoint or a fast tokenizer of it cannot be found or read.
    """
    file = Path(checkpoint) / "tokenizer.json"
    if not file.is_file():
        return _describe(_from_transformers(checkpoint), {})
    try:
        definition = file.read_text(encoding="utf-8")
        tokenizer = Tokenizer.from_str(definition)
    except Exception as error:
        # The tokenizers library raises plain Exception for a malformed file.
        if type(error) is not Exception and not isinstance(error, OSError | ValueError):
            raise
        raise DataError(f"{file} is not a usable tokenizer: {error}; copy it again") from error
    return _describe(tokenizer, _special_names(Path(checkpoint)))


def _from_transformers(checkpoint: str) -> Tokenizer:
    # Imported late: it takes seconds and local folders with a tokenizer.json do without.
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DataError(
            f"cannot load the tokenizer of {checkpoint!r}: {reason}; give a folder that holds "
            "tokenizer.json, or check the hub id and the network"
        ) from error
    if not getattr(loaded, "is_fast", False):
        raise DataError(
            f"{checkpoint!r} has no fast tokenizer; convert it to a tokenizer.json first"
        )
    backend: Tokenizer = loaded.backend_tokenizer
    return backend


def _special_names(folder: Path) -> dict[str, str]:
    """Return the names of special tokens that the files beside ``tokenizer.json`` declare."""
    names: dict[str, str] = {}
    for file in (folder / "special_tokens_map.json", folder / "tokenizer_config.json"):
        if not file.is_file():
            continue
        try:
            declared = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{file} is not valid JSON: {error}; copy it again") from error
        for role in ("pad_token", "unk_token"):
            value = declared.get(role)
            name = value.get("content") if isinstance(value, dict) else value
            if isinstance(name, str):
                names[role] = name
    return names


def _describe(tokenizer: Tokenizer, names: dict[str, str]) -> CheckpointTokenizer:
    tokenizer.no_padding()
    tokenizer.no_truncation()
    definition = tokenizer.to_str()
    model: dict[str, Any] = json.loads(definition)["model"]
    pad_id = _first_id(tokenizer, [names.get("pad_token"), *_PAD_NAMES])
    unk_id = _first_id(tokenizer, [names.get("unk_token"), model.get("unk_token"), *_UNK_NAMES])
    if unk_id is None:
        unk_id = model.get("unk_id")
    pad_id = 0 if pad_id is None else pad_id
    digest = hashlib.sha256(f"{definition}\n{pad_id}\n{unk_id}".encode()).hexdigest()
    return CheckpointTokenizer(tokenizer, pad_id, pad_id if unk_id is None else unk_id, digest)


def _first_id(tokenizer: Tokenizer, names: list[str | None]) -> int | None:
    for name in names:
        number = tokenizer.token_to_id(name) if name else None
        if number is not None:
            return int(number)
    return None
