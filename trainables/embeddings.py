"""Initial token vectors for students: from a teacher's own token table, or from a vector file.

An ``embedding`` artifact holds ``embedding.safetensors`` with ``table`` [V, d] float32, row 0
(padding) zero.

Legend: V entries of the student's vocabulary, W of the teacher's, H width of the teacher, d of the
student's table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from trainables.checkpoint_tokenizer import CheckpointTokenizer, read_checkpoint_tokenizer
from trainables.checkpoints import checkpoint_digest
from trainables.errors import ArtifactMissing, DataError
from trainables.models._embedding import PAD_ID
from trainables.store import Artifact, Store, content_key, file_digest
from trainables.tokenization import TOKENIZER_FILE, TextTokenizer
from trainables.vector_file import read_vectors

KIND = "embedding"
FILE = "embedding.safetensors"

# Root mean square of the table's entries. Of 0.05, 0.1, 0.3 and 1 the best after six epochs of a
# TextCNN under AdamW: 62, 65, 66 and 64 % on English snippets, 83.5, 84.4, 84.6 and 84.1 % on
# Chinese headlines (two seeds each). Equalising the components or the rows' lengths did not help.
SCALE = 0.3
OOV_STD = 0.1

# Marks of pieces inside or at the start of words: WordPiece, SentencePiece, byte-level BPE.
_MARKS = ("##", "▁", "Ġ")


def load_embedding(store: Store, key: str) -> Tensor:
    """Return the table [V, d] of an ``embedding`` artifact.

    Raises:
        ArtifactMissing: The store does not hold it.
    """
    table: Tensor = load_file(store.read(KIND, key).file(FILE))["table"]
    return table


def teacher_embedding(store: Store, checkpoint: Path, tokenizer: Artifact, dim: int) -> Artifact:
    """Return a table made from a teacher's token table, making it unless the store holds it.

    Args:
        store: The content store.
        checkpoint: Folder of a pretrained encoder.
        tokenizer: The student's ``tokenizer`` artifact.
        dim: d, at most H.

    Raises:
        DataError: The checkpoint is no encoder, or narrower than ``dim``.
    """
    recipe = {"checkpoint": checkpoint_digest(checkpoint), "dim": dim, "scale": SCALE}
    key = content_key({"embedding": {"tokenizer": tokenizer.key, "teacher": recipe}})
    try:
        return store.read(KIND, key)
    except ArtifactMissing:
        pass
    student = TextTokenizer.open(tokenizer.path)
    source = read_checkpoint_tokenizer(str(checkpoint))
    same_pieces = _pieces(Tokenizer.from_file(str(tokenizer.file(TOKENIZER_FILE)))) == _pieces(
        source.tokenizer
    )
    originals = student.original_ids.tolist() if same_pieces else None
    vectors, known = teacher_vectors(
        student.vocabulary, _token_table(checkpoint), source, original_ids=originals
    )
    table, kept = reduce_width(vectors, known, dim)
    meta = {"source": "teacher", "coverage": _coverage(known), "variance_kept": kept}
    return _write(store, key, table, meta)


def file_embedding(
    store: Store, path: Path, tokenizer: Artifact, dim: int | None = None, seed: int = 0
) -> Artifact:
    """Return a table made from a vector file, making it unless the store holds it.

    Tokens the file lacks get N(0, 0.1) values (METHODS 11); the manifest reports the coverage.

    Args:
        store: The content store.
        path: word2vec, GloVe or fastText vectors as text, also ``.gz``.
        tokenizer: The student's ``tokenizer`` artifact.
        dim: d; fewer than the file has are reached by PCA, None keeps them all.
        seed: Of the tokens that the file lacks.

    Raises:
        DataError: The file is unusable, holds none of the vocabulary, or is narrower than ``dim``.
    """
    if not path.is_file():
        raise DataError(f"there is no vector file {str(path)!r}; check embedding.path")
    recipe = {"file": file_digest(path), "dim": dim, "seed": seed, "scale": SCALE}
    key = content_key({"embedding": {"tokenizer": tokenizer.key, "vectors": recipe}})
    try:
        return store.read(KIND, key)
    except ArtifactMissing:
        vocabulary = TextTokenizer.open(tokenizer.path).vocabulary
    vectors, known = file_vectors(vocabulary, path)
    if not known.any():
        raise DataError(
            f"{path} holds none of the {len(vocabulary)} tokens of the student's vocabulary; "
            "use vectors of the same language and a tokenizer of kind word"
        )
    if dim is not None and dim != vectors.shape[1]:
        table, kept = reduce_width(vectors, known, dim)
    else:
        table, kept = vectors * (SCALE / _rms(vectors[known])), 1.0
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(table.shape, generator=generator) * OOV_STD
    table = torch.where(known.unsqueeze(1), table, random)
    table[PAD_ID] = 0
    meta = {"source": "file", "coverage": _coverage(known), "variance_kept": kept}
    return _write(store, key, table, meta)


def teacher_vectors(
    vocabulary: Sequence[str],
    table: Tensor,
    source: CheckpointTokenizer,
    original_ids: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Find the teacher's vector of each student token.

    A token that is one piece of the teacher gets that piece's row; another the mean of the rows
    of the pieces the teacher cuts it into. The unknown token gets the teacher's own.

    Args:
        vocabulary: The student's V tokens by id; 0 is padding.
        table: [W, H] token table of the teacher.
        source: The teacher's tokenizer.
        original_ids: The teacher's id of each student token where it is known, else -1.

    Returns:
        Vectors [V, H], zero where nothing is known, and which are known [V] bool.
    """
    vectors = torch.zeros(len(vocabulary), table.shape[1])
    known = torch.zeros(len(vocabulary), dtype=torch.bool)
    for number, token in enumerate(vocabulary):
        if number == PAD_ID:
            continue
        original = -1 if original_ids is None else original_ids[number]
        rows = [original] if original >= 0 else _rows(token, source)
        if rows:
            vectors[number] = table[rows].mean(dim=0)
            known[number] = True
    return vectors, known


def file_vectors(vocabulary: Sequence[str], path: Path) -> tuple[Tensor, Tensor]:
    """Find the vector of each token in a file: as it is, without its mark, or in lower case.

    Returns:
        Vectors [V, width of the file], zero where the file has none, and which it has [V] bool.
    """
    spellings = [_spellings(token) for token in vocabulary]
    wanted = {spelling for row in spellings[PAD_ID + 1 :] for spelling in row}
    found, width = read_vectors(path, wanted)
    vectors = torch.zeros(len(vocabulary), width)
    known = torch.zeros(len(vocabulary), dtype=torch.bool)
    for number, row in enumerate(spellings):
        match = next((found[spelling] for spelling in row if spelling in found), None)
        if match is not None and number != PAD_ID:
            vectors[number] = torch.from_numpy(match)
            known[number] = True
    return vectors, known


def reduce_width(vectors: Tensor, known: Tensor, dim: int) -> tuple[Tensor, float]:
    """Project the known vectors on their first principal components, over the vocabulary.

    The result is centred and scaled so that the root mean square of its entries is ``SCALE``:
    only then do learning rates mean the same for every teacher. The signs of the components are
    fixed, so that the table does not depend on the linear algebra library.

    Args:
        vectors: [V, H].
        known: [V] bool; the others become zero, which is the mean.
        dim: d.

    Returns:
        Table [V, d] float32 and the share of the variance it keeps.

    Raises:
        DataError: ``dim`` is larger than H.
    """
    width = vectors.shape[1]
    if not 1 <= dim <= width:
        raise DataError(
            f"the vectors have {width} dimensions and cannot give {dim}; "
            f"set embedding.dim to at most {width}"
        )
    rows = vectors[known].double()
    centred = rows - rows.mean(dim=0)
    variances, components = torch.linalg.eigh(centred.T @ centred / max(len(rows), 1))
    components = components.flip(1)[:, :dim]  # eigh sorts upwards
    largest = components.gather(0, components.abs().argmax(dim=0, keepdim=True))
    projected = centred @ (components * largest.sign())
    table = torch.zeros(len(vectors), dim)
    table[known] = (projected * (SCALE / _rms(projected))).float()
    kept = variances.flip(0)[:dim].sum() / variances.sum().clamp(min=1e-30)
    return table, float(kept)


def _rows(token: str, source: CheckpointTokenizer) -> list[int]:
    """Ids of the teacher's pieces that make up a token; none if it would be unknown."""
    tokenizer = source.tokenizer
    # Whole words carry a mark in some vocabularies; single characters are met inside words.
    marked = len(token) > 1 and _unmarked(token) == token
    for spelling in ("▁" + token, "Ġ" + token, token) if marked else (token,):
        piece = tokenizer.token_to_id(spelling)
        if piece is not None:
            return [piece]
    if token in ("[UNK]", "<unk>"):
        return [source.unk_id]
    encoding = tokenizer.encode(_unmarked(token), add_special_tokens=False)
    pieces = zip(encoding.ids, encoding.tokens, strict=True)
    return [number for number, piece in pieces if number != source.unk_id and piece not in _MARKS]


def _spellings(token: str) -> tuple[str, ...]:
    plain = _unmarked(token)
    return tuple(dict.fromkeys((token, plain, plain.lower()))) if plain else ()


def _unmarked(token: str) -> str:
    for mark in _MARKS:
        if token.startswith(mark) and token != mark:
            return token.removeprefix(mark)
    return token


def _pieces(tokenizer: Tokenizer) -> dict[str, int]:
    pieces: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    return pieces


def _token_table(checkpoint: Path) -> Tensor:
    from trainables.models._encoder import load_encoder

    with torch.random.fork_rng(devices=[]):
        encoder: Any = load_encoder(str(checkpoint), layers=1)
    table: Tensor = encoder.get_input_embeddings().weight.detach()
    return table


def _rms(values: Tensor) -> float:
    return max(float(values.double().square().mean().sqrt()), 1e-12)


def _coverage(known: Tensor) -> float:
    return float(known[PAD_ID + 1 :].double().mean())


def _write(store: Store, key: str, table: Tensor, meta: dict[str, Any]) -> Artifact:
    with store.write(KIND, key) as draft:
        save_file({"table": table.contiguous()}, draft.path / FILE)
        draft.meta |= {"vocab_size": table.shape[0], "dim": table.shape[1], **meta}
    return store.read(KIND, key)
