"""Tokenised splits: flat integer tensors in the store, opened by memory map.

Legend: N examples, T tokens of all examples together.

Text is tokenised once for each tokenizer, length and prefix, and never padded on disk: example
``i`` owns ``tokens[offsets[i]:offsets[i + 1]]``. Padding happens when a batch is gathered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainables.data._rows import Ints
from trainables.dataset import SplitTable, load_split, load_test
from trainables.errors import ArtifactMissing, DataError
from trainables.store import Artifact, Store, content_key
from trainables.tokenization import TextTokenizer

FILE = "encoded.safetensors"
CHUNK = 4096


@dataclass(frozen=True, eq=False)
class Encoded:
    """One tokenised split, or several behind each other.

    Attributes:
        tokens: Token ids of all examples, int32 ``[T]``.
        starts: Where each example begins in ``tokens``, int64 ``[N]``.
        lengths: Tokens of each example, at least 1, int64 ``[N]``.
        ids: Example ids, int64 ``[N]``; what cached teacher outputs are matched by.
        labels: Class ids, -100 where there is no label, int64 ``[N]``.
        pad_id: What the tokenizer pads with.
        blocks: The number of each example's group, int64 ``[N]``, where groups stay together.
    """

    tokens: Tensor
    starts: Tensor
    lengths: Tensor
    ids: Tensor
    labels: Tensor
    pad_id: int = 0
    blocks: Tensor | None = None

    @classmethod
    def open(cls, folder: Path) -> Encoded:
        """Map the tensors of an ``encoded`` artifact; pages are read when they are touched."""
        with safe_open(folder / FILE, framework="pt") as stored:
            offsets = stored.get_tensor("offsets")
            grouped = "blocks" in stored.keys()  # noqa: SIM118 (not a dict)
            return cls(
                tokens=stored.get_tensor("tokens"),
                starts=offsets[:-1],
                lengths=offsets.diff(),
                ids=stored.get_tensor("ids"),
                labels=stored.get_tensor("labels"),
                pad_id=int(stored.metadata()["pad_id"]),
                blocks=stored.get_tensor("blocks") if grouped else None,
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def max_length(self) -> int:
        """The length of the longest example, 0 without examples."""
        return int(self.lengths.max()) if len(self) else 0

    def subset(self, index: Tensor | Sequence[int]) -> Encoded:
        """Return the examples at ``index`` ``[M]`` in that order; the tokens are shared."""
        chosen = torch.as_tensor(index, dtype=torch.int64)
        return Encoded(
            tokens=self.tokens,
            starts=self.starts[chosen],
            lengths=self.lengths[chosen],
            ids=self.ids[chosen],
            labels=self.labels[chosen],
            pad_id=self.pad_id,
            blocks=None if self.blocks is None else self.blocks[chosen],
        )


def concatenate(parts: Sequence[Encoded]) -> Encoded:
    """Put splits behind each other: rows of part 1 follow those of part 0, and so on.

    Args:
        parts: At least one, all of the same tokenizer.

    Raises:
        ValueError: No parts, or parts that pad differently.
    """
    if not parts:
        raise ValueError("concatenate needs at least one encoded split")
    if len({part.pad_id for part in parts}) > 1:
        raise ValueError("encoded splits of different tokenizers cannot be concatenated")
    sizes = [len(part.tokens) for part in parts]
    shifts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return Encoded(
        tokens=torch.cat([part.tokens for part in parts]),
        starts=torch.cat([p.starts + int(shift) for p, shift in zip(parts, shifts, strict=True)]),
        lengths=torch.cat([part.lengths for part in parts]),
        ids=torch.cat([part.ids for part in parts]),
        labels=torch.cat([part.labels for part in parts]),
        pad_id=parts[0].pad_id,
    )


def flatten(
    texts: Sequence[str],
    tokenizer: TextTokenizer,
    max_length: int,
    *,
    prefix: str = "",
    specials: bool = False,
) -> tuple[npt.NDArray[np.int32], Ints]:
    """Tokenise ``texts`` into tokens int32 ``[T]`` and offsets int64 ``[N + 1]``.

    A text without any token becomes one unknown token: models need at least one position.

    Args:
        texts: N texts.
        tokenizer: The tokenizer.
        max_length: Tokens kept of each text, special tokens included.
        prefix: Put before each text, as some encoders were trained with (``"query: "``).
        specials: Add the tokenizer's own special tokens ([CLS] and the like).
    """
    tokens, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    for start in range(0, len(texts), CHUNK):
        chunk = [prefix + text for text in texts[start : start + CHUNK]]
        rows = tokenizer.encode(chunk, max_length=max_length, specials=specials)
        rows = [row or [tokenizer.unk_id] for row in rows]
        lengths.append(np.fromiter(map(len, rows), np.int64, len(rows)))
        tokens.append(np.fromiter(chain.from_iterable(rows), np.int32, int(lengths[-1].sum())))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    return np.concatenate(tokens), offsets


def encode(
    table: SplitTable,
    tokenizer: TextTokenizer,
    max_length: int,
    *,
    prefix: str = "",
    specials: bool = False,
) -> dict[str, Tensor]:
    """Tokenise a split into the tensors an ``encoded`` artifact holds.

    Returns:
        ``tokens`` int32 ``[T]``, ``offsets`` int64 ``[N + 1]``, ``ids`` and ``labels`` int64
        ``[N]``, and ``blocks`` int64 ``[N]`` where groups stay together.
    """
    tokens, offsets = flatten(table.texts, tokenizer, max_length, prefix=prefix, specials=specials)
    tensors = {
        "tokens": torch.from_numpy(tokens),
        "offsets": torch.from_numpy(offsets),
        "ids": torch.from_numpy(table.ids),
        "labels": torch.from_numpy(table.labels),
    }
    if table.blocks is not None:
        tensors["blocks"] = torch.from_numpy(table.blocks)
    return tensors


def ensure_encoded(
    store: Store,
    data_key: str,
    split: str,
    tokenizer: Artifact,
    max_length: int,
    *,
    prefix: str = "",
    specials: bool = False,
) -> str:
    """Tokenise train, dev or transfer unless the store holds it; return its ``encoded`` key.

    Args:
        store: The content store.
        data_key: Key of the ``data`` artifact.
        split: ``train``, ``dev`` or ``transfer``.
        tokenizer: An artifact of kind ``tokenizer``.
        max_length: Tokens kept of each text.
        prefix: Put before each text.
        specials: Add the tokenizer's own special tokens; encoders need it, students do not.

    Raises:
        DataError: ``max_length`` has no room, or the data has no such split.
    """
    source = {"data": data_key, "split": split}
    return _ensure(store, source, tokenizer, max_length, prefix, specials)


def ensure_encoded_test(
    store: Store,
    test_key: str,
    tokenizer: Artifact,
    max_length: int,
    *,
    prefix: str = "",
    specials: bool = False,
) -> str:
    """Tokenise the test split; as ``ensure_encoded``, but from the key of the ``testset``."""
    source = {"testset": test_key, "split": "test"}
    return _ensure(store, source, tokenizer, max_length, prefix, specials)


def _ensure(
    store: Store,
    source: dict[str, str],
    tokenizer: Artifact,
    max_length: int,
    prefix: str,
    specials: bool,
) -> str:
    shortest = 3 if specials else 1
    if max_length < shortest:
        raise DataError(
            f"max_length must be at least {shortest}{' with special tokens' if specials else ''}, "
            f"but got {max_length}"
        )
    recipe: dict[str, str | int | bool] = {
        **source,
        "tokenizer": tokenizer.key,
        "max_length": max_length,
        "prefix": prefix,
        "specials": specials,
    }
    key = content_key({"encoded": recipe})
    try:
        store.read("encoded", key)
        return key
    except ArtifactMissing:
        pass
    if "testset" in source:
        table = load_test(store, source["testset"])
    else:
        table = load_split(store, source["data"], source["split"])
    _write(store, key, recipe, table, TextTokenizer.open(tokenizer.path))
    return key


def _write(
    store: Store,
    key: str,
    recipe: dict[str, str | int | bool],
    table: SplitTable,
    tokenizer: TextTokenizer,
) -> None:
    tensors = encode(
        table,
        tokenizer,
        int(recipe["max_length"]),
        prefix=str(recipe["prefix"]),
        specials=bool(recipe["specials"]),
    )
    lengths = tensors["offsets"].diff()
    unknown = int((tensors["tokens"] == tokenizer.unk_id).sum())
    with store.write("encoded", key) as draft:
        save_file(tensors, draft.path / FILE, metadata={"pad_id": str(tokenizer.pad_id)})
        draft.meta |= {
            **recipe,
            "rows": len(table.texts),
            "tokens": len(tensors["tokens"]),
            "longest": int(lengths.max()) if len(lengths) else 0,
            "at_max_length": int((lengths >= int(recipe["max_length"])).sum()),
            "unknown_share": unknown / max(1, len(tensors["tokens"])),
            "pad_id": tokenizer.pad_id,
        }
