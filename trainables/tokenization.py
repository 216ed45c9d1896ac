"""Tokenizers for students and for pretrained encoders, as artifacts.

A ``tokenizer`` artifact holds ``tokenizer.json`` and ``numbering.safetensors``: its padding and
unknown ids and, for students of a checkpoint, the original id of each of theirs. Students' ids
are always [PAD] = 0 and [UNK] = 1; the kind ``checkpoint`` keeps the ids of the pretrained model
it belongs to.

Legend: N texts, V entries of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from trainables.checkpoint_tokenizer import CheckpointTokenizer, read_checkpoint_tokenizer
from trainables.data._rows import Ints
from trainables.data._table import did_you_mean
from trainables.dataset import load_split
from trainables.errors import ArtifactMissing, DataError
from trainables.store import Artifact, Store, content_key

TOKENIZER_FILE = "tokenizer.json"
NUMBERING_FILE = "numbering.safetensors"
PAD, UNK = "[PAD]", "[UNK]"
PAD_ID, UNK_ID = 0, 1
KINDS = ("char", "word", "wordpiece", "teacher", "checkpoint")

_CHUNK = 4096


@dataclass(frozen=True)
class TokenizerSpec:
    """Which tokenizer to build.

    Attributes:
        kind: ``char`` (one code point, one token), ``word`` (words, punctuation and each CJK
            character), ``wordpiece`` (trained on the data), ``teacher`` (the pieces of a
            checkpoint, renumbered for a student) or ``checkpoint`` (a checkpoint's own ids, for
            the encoder itself).
        vocab_size: Most entries of a trained vocabulary, [PAD] and [UNK] included.
        min_frequency: Occurrences an entry of a trained vocabulary needs.
        lowercase: Lower the case first; checkpoints decide this themselves.
        prune: With ``teacher``: keep only pieces that occur in the training and transfer rows,
            so that a small student does not carry the whole table.
        checkpoint: Folder or hub id, for ``teacher`` and ``checkpoint``.
    """

    kind: str = "word"
    vocab_size: int = 30_000
    min_frequency: int = 1
    lowercase: bool = True
    prune: bool = True
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        problems = []
        if self.kind not in KINDS:
            problems.append(
                f"unknown kind of tokenizer {self.kind!r}{did_you_mean(self.kind, KINDS)}; "
                f"known: {', '.join(KINDS)}"
            )
        if self.vocab_size < 3 or self.min_frequency < 1:
            problems.append(
                "vocab_size must be at least 3 and min_frequency at least 1, "
                f"but got {self.vocab_size} and {self.min_frequency}"
            )
        if self.needs_checkpoint and not self.checkpoint:
            problems.append(f"a tokenizer of kind {self.kind!r} needs a checkpoint")
        if problems:
            raise DataError("\n".join(problems))

    @property
    def needs_checkpoint(self) -> bool:
        """Whether the vocabulary comes from a pretrained model instead of the data."""
        return self.kind in ("teacher", "checkpoint")

    @property
    def needs_data(self) -> bool:
        """Whether the result depends on the training texts."""
        return self.kind != "checkpoint" and (self.kind != "teacher" or self.prune)


class TextTokenizer:
    """Texts to token ids: a tokenizer and, for students of a checkpoint, its renumbering.

    Args:
        tokenizer: The pipeline of the ``tokenizers`` library; owned by this object from now on.
        pad_id: What batches are padded with.
        unk_id: What stands for unknown pieces.
        originals: Original id of each student id, int64 ``[V]``, of which the first two are the
            original padding and unknown ids; None keeps the ids.
    """

    def __init__(
        self, tokenizer: Tokenizer, pad_id: int, unk_id: int, originals: Ints | None = None
    ) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self.pad_id = pad_id
        self.unk_id = unk_id
        self._originals = originals
        self._remap: npt.NDArray[np.int32] | None = None
        if originals is not None:
            pieces = tokenizer.get_vocab(with_added_tokens=True)
            self._remap = np.full(max(pieces.values()) + 1, unk_id, np.int32)
            self._remap[originals] = np.arange(len(originals), dtype=np.int32)

    @classmethod
    def open(cls, folder: Path) -> TextTokenizer:
        """Load a ``tokenizer`` artifact, or an exported folder with the same files."""
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        stored = load_file(folder / NUMBERING_FILE)
        originals = stored["original_ids"] if len(stored["original_ids"]) else None
        return cls(tokenizer, int(stored["pad_id"]), int(stored["unk_id"]), originals)

    def save(self, folder: Path) -> None:
        """Write what ``open`` reads."""
        self._tokenizer.save(str(folder / TOKENIZER_FILE), pretty=False)
        numbers = {
            "original_ids": np.zeros(0, np.int64) if self._originals is None else self._originals,
            "pad_id": np.array(self.pad_id),
            "unk_id": np.array(self.unk_id),
        }
        save_file(numbers, folder / NUMBERING_FILE)

    def encode(
        self, texts: Sequence[str], *, max_length: int | None = None, specials: bool = False
    ) -> list[list[int]]:
        """Return the token ids of each text.

        Args:
            texts: N texts.
            max_length: Tokens kept of each text, special tokens included; None keeps all.
            specials: Add the tokenizer's own special tokens.

        Raises:
            ValueError: Special tokens of a renumbered tokenizer: students do not have them.
        """
        if specials and self._remap is not None:
            raise ValueError("a renumbered tokenizer has no special tokens")
        if max_length is None:
            self._tokenizer.no_truncation()
        else:
            self._tokenizer.enable_truncation(max_length)
        batch = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=specials)
        if self._remap is None:
            return [encoding.ids for encoding in batch]
        return [self._remap[encoding.ids].tolist() if encoding.ids else [] for encoding in batch]

    @cached_property
    def vocabulary(self) -> list[str]:
        """The pieces by id, ``V`` of them; an id without a piece is the empty string."""
        pieces = self._tokenizer.get_vocab(with_added_tokens=True)
        original = [""] * (max(pieces.values()) + 1)
        for piece, number in pieces.items():
            original[number] = piece
        return [original[number] for number in self.original_ids]

    @cached_property
    def original_ids(self) -> Ints:
        """Id in the tokenizer itself of each entry, int64 ``[V]``; without renumbering the same."""
        if self._originals is not None:
            return self._originals
        pieces = self._tokenizer.get_vocab(with_added_tokens=True)
        return np.arange(max(pieces.values()) + 1, dtype=np.int64)


def build_tokenizer(spec: TokenizerSpec, data: str | Sequence[str], store: Store) -> Artifact:
    """Return the ``tokenizer`` artifact of ``spec``, building it unless the store holds it.

    Args:
        spec: Which tokenizer.
        data: Key of a ``data`` artifact, whose train and transfer rows are used, or the texts.
        store: The content store.

    Raises:
        DataError: The vocabulary came out empty, or the checkpoint has no usable tokenizer.
    """
    checkpoint = None
    if spec.needs_checkpoint:
        assert spec.checkpoint is not None
        checkpoint = read_checkpoint_tokenizer(spec.checkpoint)
    key = content_key({"tokenizer": _recipe(spec, data, checkpoint)})
    try:
        return store.read("tokenizer", key)
    except ArtifactMissing:
        pass
    tokenizer = _make(spec, data, store, checkpoint)
    with store.write("tokenizer", key) as draft:
        tokenizer.save(draft.path)
        draft.meta |= {
            "spec": asdict(spec),
            "kind": spec.kind,
            "vocab_size": len(tokenizer.vocabulary),
            "pad_id": tokenizer.pad_id,
            "unk_id": tokenizer.unk_id,
        }
    return store.read("tokenizer", key)


def _recipe(
    spec: TokenizerSpec, data: str | Sequence[str], checkpoint: CheckpointTokenizer | None
) -> dict[str, Any]:
    recipe: dict[str, Any] = {"kind": spec.kind}
    if checkpoint is not None:
        recipe |= {"checkpoint": checkpoint.digest}
    else:
        recipe |= {
            "vocab_size": spec.vocab_size,
            "min_frequency": spec.min_frequency,
            "lowercase": spec.lowercase,
        }
    if spec.needs_data:
        recipe["data"] = data if isinstance(data, str) else content_key(list(data))
    return recipe


def _make(
    spec: TokenizerSpec,
    data: str | Sequence[str],
    store: Store,
    checkpoint: CheckpointTokenizer | None,
) -> TextTokenizer:
    texts = _texts(data, store) if spec.needs_data else []
    if checkpoint is None:
        return _train(spec, texts)
    if spec.kind == "checkpoint":
        return TextTokenizer(checkpoint.tokenizer, checkpoint.pad_id, checkpoint.unk_id)
    return _renumber(checkpoint, texts if spec.prune else None)


def _texts(data: str | Sequence[str], store: Store) -> list[str]:
    if not isinstance(data, str):
        return list(data)
    # Dev and test texts must not shape the vocabulary.
    return [*load_split(store, data, "train").texts, *load_split(store, data, "transfer").texts]


def _train(spec: TokenizerSpec, texts: list[str]) -> TextTokenizer:
    # Each CJK character gets spaces around it; accents stay, they distinguish words.
    clean = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=spec.lowercase
    )
    common: dict[str, Any] = {
        "vocab_size": spec.vocab_size,
        "min_frequency": spec.min_frequency,
        "special_tokens": [PAD, UNK],
        "show_progress": False,
    }
    trainer: trainers.Trainer
    if spec.kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token=UNK))
        # The default keeps 1,000 characters, far fewer than Chinese text uses.
        trainer = trainers.WordPieceTrainer(limit_alphabet=max(1, spec.vocab_size - 2), **common)
    else:
        tokenizer = Tokenizer(models.WordLevel(unk_token=UNK))
        trainer = trainers.WordLevelTrainer(**common)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), clean])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if spec.kind == "char":
        single = pre_tokenizers.Split(Regex("."), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), single]
        )
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    if tokenizer.get_vocab_size() <= UNK_ID + 1:
        raise DataError(
            f"no {spec.kind} occurs {spec.min_frequency} times in the {len(texts)} training "
            "texts, so the vocabulary is empty; lower min_frequency"
        )
    return TextTokenizer(tokenizer, PAD_ID, UNK_ID)


def _renumber(checkpoint: CheckpointTokenizer, texts: list[str] | None) -> TextTokenizer:
    """Give a checkpoint's pieces student ids; with ``texts`` only those that occur in them."""
    pieces = checkpoint.tokenizer.get_vocab(with_added_tokens=True)
    width = max(pieces.values()) + 1
    kept = np.ones(width, bool)
    if texts is not None:
        kept[:] = False
        raw = TextTokenizer(checkpoint.tokenizer, checkpoint.pad_id, checkpoint.unk_id)
        for start in range(0, len(texts), _CHUNK):
            for row in raw.encode(texts[start : start + _CHUNK]):
                kept[row] = True
    kept[[checkpoint.pad_id, checkpoint.unk_id]] = False
    # Where a checkpoint has no unknown piece of its own, padding stands in for it.
    first = [checkpoint.pad_id, checkpoint.unk_id]
    originals = np.concatenate([first, np.flatnonzero(kept)]).astype(np.int64)
    return TextTokenizer(checkpoint.tokenizer, PAD_ID, UNK_ID, originals)
