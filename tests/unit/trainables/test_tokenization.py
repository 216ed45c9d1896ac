import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from trainables.errors import DataError
from trainables.store import Artifact, Store
from trainables.tokenization import TextTokenizer, TokenizerSpec, build_tokenizer

TEXTS = [
    "The cat sat on the mat.",
    "体验2D巅峰 倚天屠龙记",
    "😀 family 👨‍👩‍👧",
    "שלום עולם",
    "naïve café",
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "the", "cat", "sat", "dog", "ran"]
    tokenizer = Tokenizer(models.WordLevel({p: i for i, p in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>", length=16)
    tokenizer.enable_truncation(3)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": {"content": "<pad>"}, "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return str(folder)


def build(kind: str, store: Store, texts: list[str] = TEXTS, **options: object) -> TextTokenizer:
    return open_artifact(build_tokenizer(TokenizerSpec(kind, **options), texts, store))  # type: ignore[arg-type]


def open_artifact(artifact: Artifact) -> TextTokenizer:
    tokenizer = TextTokenizer.open(artifact.path)
    assert artifact.meta["vocab_size"] == len(tokenizer.vocabulary)
    return tokenizer


def pieces(tokenizer: TextTokenizer, text: str) -> list[str]:
    return [tokenizer.vocabulary[number] for number in tokenizer.encode([text])[0]]


@pytest.mark.parametrize("kind", ["char", "word", "wordpiece"])
def test_student_ids_start_with_pad_and_unk(store: Store, kind: str) -> None:
    tokenizer = build(kind, store)
    assert tokenizer.vocabulary[:2] == ["[PAD]", "[UNK]"]
    assert (tokenizer.pad_id, tokenizer.unk_id) == (0, 1)
    assert all(min(row) > 1 for row in tokenizer.encode(TEXTS))
    assert tokenizer.encode(["ж"]) == [[1]]


@pytest.mark.parametrize("kind", ["char", "word", "wordpiece"])
def test_every_cjk_character_is_a_token(store: Store, kind: str) -> None:
    found = pieces(build(kind, store), "倚天屠龙记")
    assert found == list("倚天屠龙记")


def test_pieces_of_each_kind(store: Store) -> None:
    assert pieces(build("word", store), "The CAT, sat.") == ["the", "cat", "[UNK]", "sat", "."]
    assert pieces(build("word", store), "2D巅峰 café") == ["2d", "巅", "峰", "café"]
    assert pieces(build("char", store), "Cat\n\uff12d😀") == ["c", "a", "t", "2", "d", "😀"]
    assert pieces(build("char", store, lowercase=False), "Tc") == ["T", "c"]
    assert "".join(pieces(build("char", store), "שלום")) == "שלום"


def test_vocabulary_limits(store: Store) -> None:
    assert len(build("word", store, vocab_size=5).vocabulary) == 5
    frequent = build("word", store, ["a a b"], min_frequency=2)
    assert frequent.vocabulary == ["[PAD]", "[UNK]", "a"]
    with pytest.raises(DataError, match="lower min_frequency"):
        build("word", store, ["a b c"], min_frequency=2)


def test_the_artifact_is_reused_and_named_by_what_matters(store: Store) -> None:
    first = build_tokenizer(TokenizerSpec("char"), TEXTS, store)
    same = build_tokenizer(TokenizerSpec("char", prune=False, checkpoint="unused"), TEXTS, store)
    assert first.key == same.key
    assert build_tokenizer(TokenizerSpec("char"), TEXTS[:2], store).key != first.key
    assert len(store.keys("tokenizer")) == 2


def test_checkpoint_keeps_its_ids(store: Store, checkpoint: str) -> None:
    tokenizer = build("checkpoint", store, checkpoint=checkpoint)
    assert (tokenizer.pad_id, tokenizer.unk_id) == (1, 3)
    assert tokenizer.encode(["the cat flew"], specials=True) == [[0, 4, 5, 3, 2]]
    assert tokenizer.encode(["the cat sat"], max_length=4, specials=True) == [[0, 4, 5, 2]]
    assert tokenizer.encode(["the cat sat the cat"]) == [[4, 5, 6, 4, 5]]
    assert tokenizer.original_ids.tolist() == list(range(9))


def test_teacher_pieces_are_pruned_and_renumbered(store: Store, checkpoint: str) -> None:
    tokenizer = build("teacher", store, ["the cat ran"], checkpoint=checkpoint)
    assert tokenizer.vocabulary == ["<pad>", "<unk>", "the", "cat", "ran"]
    assert tokenizer.original_ids.tolist() == [1, 3, 4, 5, 8]
    assert tokenizer.encode(["the dog ran", "xyz", ""]) == [[2, 1, 4], [1], []]
    with pytest.raises(ValueError, match="no special tokens"):
        tokenizer.encode(["the"], specials=True)


def test_teacher_without_pruning_depends_on_the_checkpoint_only(
    store: Store, checkpoint: str
) -> None:
    spec = TokenizerSpec("teacher", prune=False, checkpoint=checkpoint)
    first = build_tokenizer(spec, ["the"], store)
    assert build_tokenizer(spec, ["dog"], store).key == first.key
    tokenizer = open_artifact(first)
    assert tokenizer.original_ids.tolist() == [1, 3, 0, 2, 4, 5, 6, 7, 8]


def test_bad_checkpoints(store: Store, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "tokenizer.json").write_text('{"model": 1}')
    with pytest.raises(DataError, match="not a usable tokenizer"):
        build("checkpoint", store, checkpoint=str(broken))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"holds\s+tokenizer.json"):
        build("checkpoint", store, checkpoint=str(empty))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "wrod"}, "did you mean 'word'"),
        ({"vocab_size": 2}, "vocab_size must be at least 3"),
        ({"kind": "teacher"}, "needs a checkpoint"),
    ],
)
def test_impossible_specs(values: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TokenizerSpec(**values)  # type: ignore[arg-type]


@settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_is_encoded_within_bounds(store: Store, text: str) -> None:
    for kind in ("char", "word"):
        tokenizer = build(kind, store)
        (row,) = tokenizer.encode([text], max_length=4)
        assert len(row) <= 4
        assert all(0 < number < len(tokenizer.vocabulary) for number in row)
