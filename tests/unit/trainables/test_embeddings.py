from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from trainables.checkpoint_tokenizer import read_checkpoint_tokenizer
from trainables.embeddings import (
    SCALE,
    file_embedding,
    file_vectors,
    load_embedding,
    reduce_width,
    teacher_embedding,
    teacher_vectors,
)
from trainables.errors import ArtifactMissing, DataError
from trainables.store import Artifact, Store
from trainables.testing import tiny_encoder, tiny_texts
from trainables.tokenization import TextTokenizer, TokenizerSpec, build_tokenizer

TEXTS = tiny_texts(30)[0]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("embeddings") / "encoder")


@pytest.fixture(scope="module")
def table(checkpoint: Path) -> torch.Tensor:
    weights = load_file(checkpoint / "model.safetensors")
    return weights["embeddings.word_embeddings.weight"]


def words(store: Store) -> Artifact:
    return build_tokenizer(TokenizerSpec(kind="word"), TEXTS, store)


def test_pieces_get_the_teachers_rows(checkpoint: Path, table: torch.Tensor) -> None:
    source = read_checkpoint_tokenizer(str(checkpoint))
    number = source.tokenizer.token_to_id
    vocabulary = ["[PAD]", "[UNK]", "word3", "Word3", "cab", "##b", "☃", "[SEP]"]
    vectors, known = teacher_vectors(vocabulary, table, source)
    assert known.tolist() == [False, True, True, True, True, True, False, True]
    assert torch.equal(vectors[1], table[number("[UNK]")])
    assert torch.equal(vectors[2], table[number("word3")])
    assert torch.equal(vectors[3], table[number("word3")])
    pieces = [number("c"), number("##a"), number("##b")]
    torch.testing.assert_close(vectors[4], table[pieces].mean(0))
    assert torch.equal(vectors[5], table[number("##b")])
    assert not vectors[0].any()
    assert not vectors[6].any()


def test_known_ids_win_over_spelling(checkpoint: Path, table: torch.Tensor) -> None:
    source = read_checkpoint_tokenizer(str(checkpoint))
    vectors, _ = teacher_vectors(["[PAD]", "word3", "word4"], table, source, [-1, 9, -1])
    assert torch.equal(vectors[1], table[9])
    assert torch.equal(vectors[2], table[source.tokenizer.token_to_id("word4")])


def test_whole_words_prefer_the_marked_piece() -> None:
    from tokenizers import Tokenizer, models

    from trainables.checkpoint_tokenizer import CheckpointTokenizer

    pieces = [("<pad>", 0.0), ("<unk>", 0.0), ("film", -1.0), ("▁film", -1.0), ("中", -1.0)]
    tokenizer = Tokenizer(models.Unigram([*pieces, ("▁中", -1.0)], unk_id=1, byte_fallback=False))
    source = CheckpointTokenizer(tokenizer, 0, 1, "")
    table = torch.eye(6)
    vectors, _ = teacher_vectors(["[PAD]", "film", "中"], table, source)
    assert vectors.argmax(1).tolist()[1:] == [3, 4]


def test_pca_keeps_distances_and_scale() -> None:
    torch.manual_seed(0)
    plane = torch.randn(50, 3) @ torch.randn(3, 8) + 5
    known = torch.ones(50, dtype=torch.bool)
    known[0] = False
    reduced, kept = reduce_width(plane, known, 3)
    assert kept == pytest.approx(1.0, abs=1e-6)
    assert not reduced[0].any()
    rows = reduced[1:]
    assert float(rows.square().mean().sqrt()) == pytest.approx(SCALE, rel=1e-5)
    torch.testing.assert_close(rows.mean(0), torch.zeros(3), rtol=0, atol=1e-6)
    before, after = torch.pdist(plane[1:]), torch.pdist(rows)
    torch.testing.assert_close(after / after.mean(), before / before.mean(), rtol=1e-4, atol=1e-5)
    assert (rows.var(0).diff() <= 0).all()


def test_pca_does_not_depend_on_the_sign_of_the_solver() -> None:
    torch.manual_seed(0)
    vectors, known = torch.randn(40, 6), torch.ones(40, dtype=torch.bool)
    one, _ = reduce_width(vectors, known, 4)
    # Mirrored data have mirrored components, and so the same coordinates up to a sign per axis.
    other, _ = reduce_width(-vectors, known, 4)
    torch.testing.assert_close(one.abs(), other.abs(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one, -other, rtol=1e-4, atol=1e-5)


def test_cannot_be_wider_than_the_source(store: Store, checkpoint: Path) -> None:
    with pytest.raises(DataError, match=r"32 dimensions .* set embedding\.dim to at most 32"):
        teacher_embedding(store, checkpoint, words(store), 33)


@pytest.mark.parametrize("kind", ["char", "word", "wordpiece", "teacher"])
def test_every_student_tokenizer_gets_a_table(store: Store, checkpoint: Path, kind: str) -> None:
    spec = TokenizerSpec(
        kind=kind, vocab_size=120, checkpoint=str(checkpoint) if kind == "teacher" else None
    )
    tokenizer = build_tokenizer(spec, TEXTS, store)
    artifact = teacher_embedding(store, checkpoint, tokenizer, 16)
    loaded = load_embedding(store, artifact.key)
    size = len(TextTokenizer.open(tokenizer.path).vocabulary)
    assert loaded.shape == (size, 16)
    assert not loaded[0].any()
    assert loaded.isfinite().all()
    assert artifact.meta["coverage"] > 0.9
    assert 0 < artifact.meta["variance_kept"] <= 1
    assert teacher_embedding(store, checkpoint, tokenizer, 16).key == artifact.key


def test_pruned_teacher_pieces_keep_their_geometry(
    store: Store, checkpoint: Path, table: torch.Tensor
) -> None:
    spec = TokenizerSpec(kind="teacher", checkpoint=str(checkpoint))
    artifact = build_tokenizer(spec, TEXTS, store)
    student = TextTokenizer.open(artifact.path)
    whole = load_embedding(store, teacher_embedding(store, checkpoint, artifact, 32).key)
    rows = [number for number, old in enumerate(student.original_ids) if number > 1 and old >= 0]
    before = torch.pdist(table[student.original_ids[rows]])
    after = torch.pdist(whole[rows])
    torch.testing.assert_close(after / after.mean(), before / before.mean(), rtol=1e-4, atol=1e-5)


def vector_file(tmp_path: Path) -> Path:
    path = tmp_path / "vectors.txt"
    path.write_text("word1 1 0 0\nword2 0 2 0\nword3 0 0 3\nword4 1 1 1\nother 9 9 9\n")
    return path


def test_file_vectors_fall_back_to_plain_and_lower_case(tmp_path: Path) -> None:
    vocabulary = ["[PAD]", "word1", "##word2", "WORD3", "absent"]
    vectors, known = file_vectors(vocabulary, vector_file(tmp_path))
    assert known.tolist() == [False, True, True, True, False]
    assert vectors[1:4].tolist() == [[1, 0, 0], [0, 2, 0], [0, 0, 3]]


def test_file_embedding_fills_gaps_by_seed(store: Store, tmp_path: Path) -> None:
    path, tokenizer = vector_file(tmp_path), words(store)
    artifact = file_embedding(store, path, tokenizer, seed=1)
    again = load_embedding(Store(tmp_path / "second"), _copy(artifact, tmp_path / "second"))
    loaded = load_embedding(store, artifact.key)
    other = load_embedding(store, file_embedding(store, path, tokenizer, seed=2).key)
    vocabulary = TextTokenizer.open(tokenizer.path).vocabulary
    have = torch.tensor([word in ("word1", "word2", "word3", "word4") for word in vocabulary])
    assert artifact.meta["coverage"] == pytest.approx(4 / (len(vocabulary) - 1))
    assert torch.equal(loaded, again)
    assert torch.equal(loaded[have], other[have])
    assert not torch.equal(loaded[~have], other[~have])
    assert float(loaded[have].square().mean().sqrt()) == pytest.approx(SCALE, rel=1e-5)
    assert not loaded[0].any()


def _copy(artifact: Artifact, root: Path) -> str:
    second = Store(root)
    tokenizer = words(second)
    made = file_embedding(second, root.parent / "vectors.txt", tokenizer, seed=1)
    assert made.key == artifact.key
    return made.key


def test_file_embedding_can_be_narrowed(store: Store, tmp_path: Path) -> None:
    artifact = file_embedding(store, vector_file(tmp_path), words(store), dim=2)
    assert load_embedding(store, artifact.key).shape[1] == 2


def test_vectors_of_another_language_are_refused(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "foreign.txt"
    path.write_text("eins 1 2\nzwei 3 4\n")
    with pytest.raises(DataError, match="holds none of the"):
        file_embedding(store, path, words(store))


def test_missing_things(store: Store, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no vector file"):
        file_embedding(store, tmp_path / "none.txt", words(store))
    with pytest.raises(ArtifactMissing):
        load_embedding(store, "0" * 64)
