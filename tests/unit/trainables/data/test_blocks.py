"""Whole groups: a row's companions are never on the other side of a split."""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainables.data import _blocks
from trainables.dataset import DataSpec, PreparedData, load_split, load_test, prepare
from trainables.encoded import Encoded, ensure_encoded
from trainables.errors import ComponentError, DataError
from trainables.folds import fold_of, inside, outside
from trainables.store import Store
from trainables.tokenization import TokenizerSpec, build_tokenizer

HOTEL_REVIEWS = Path(__file__).parents[5] / "shared" / "data" / "deceptive_opinion_spam"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def write(folder: Path, sizes: dict[str, int], name: str = "train.csv") -> str:
    """Rows of two classes in turn; the text names the group, the group column does too."""
    with (folder / name).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label", "hotel"])
        for group, size in sizes.items():
            writer.writerows((f"{group} row {n}", "ab"[n % 2], group) for n in range(size))
    return str(folder / name)


def groups(texts: list[str]) -> Counter[str]:
    return Counter(text.split()[0] for text in texts)


def divided(data: PreparedData, store: Store) -> dict[str, Counter[str]]:
    found = {split: groups(load_split(store, data.key, split).texts) for split in ("train", "dev")}
    if data.test_key is not None:
        found["test"] = groups(load_test(store, data.test_key).texts)
    return found


def test_no_group_is_on_two_sides(tmp_path: Path, store: Store) -> None:
    sizes = {f"h{n}": 10 + n % 5 for n in range(40)}
    spec = DataSpec(path=write(tmp_path, sizes), dev=0.15, test=0.2, group="hotel")
    data = prepare(spec, store)
    found = divided(data, store)
    total = sum(sizes.values())
    assert sum(map(len, found.values())) == 40
    assert {name: count for part in found.values() for name, count in part.items()} == sizes
    assert data.rows["dev"] == pytest.approx(0.15 * total, abs=8)
    assert data.rows["test"] == pytest.approx(0.2 * total, abs=8)
    for counts in data.class_counts.values():
        assert counts[0] == pytest.approx(counts[1], rel=0.15)
    assert data.blocks == {split: len(part) for split, part in found.items()}
    assert any("groups of 'hotel' in each split: " in note for note in data.notes)


def test_without_a_group_they_are(tmp_path: Path, store: Store) -> None:
    path = write(tmp_path, {f"h{n}": 12 for n in range(20)})
    found = divided(prepare(DataSpec(path=path, dev=0.2), store), store)
    assert found["train"].keys() & found["dev"].keys()


def test_the_key_of_data_without_a_group_is_what_it_was(tmp_path: Path, store: Store) -> None:
    (tmp_path / "train.csv").write_text("text,label\na x,a\nb x,b\na y,a\nb y,b\n")
    spec = DataSpec(path=str(tmp_path / "train.csv"), dev=2)
    # Computed by the code of before the field; it must not change, or all old work is lost.
    assert prepare(spec, store).key == KEY
    assert prepare(spec, store).blocks is None


KEY = "237a70a1c9d4ce6fe6d6bf081b3bc138d0b47505aab82ccdc4949fc7653a2809"


def test_other_seeds_other_groups_and_the_order_of_the_file_changes_nothing(
    tmp_path: Path, store: Store
) -> None:
    sizes = {f"h{n}": 8 for n in range(30)}
    first = write(tmp_path, sizes)
    turned = write(tmp_path, dict(reversed(sizes.items())), "turned.csv")
    found = [
        divided(prepare(DataSpec(path=path, group="hotel", seed=seed), store), store)["dev"]
        for path, seed in ((first, 0), (turned, 0), (first, 1))
    ]
    assert found[0] == found[1]
    assert found[0].keys() != found[2].keys()


def test_classes_that_lie_in_groups_are_on_both_sides() -> None:
    # Each block holds one class only, as the reviews of one author do: shares need the search.
    labels = np.repeat(np.arange(4), 40)
    blocks = np.arange(160) // 5  # 32 blocks, 8 of each class
    for seed in range(5):
        chosen = _blocks.choose(labels, blocks, 20, 4, spare=1, seed=seed, purpose="dev")
        counts = np.bincount(labels[chosen], minlength=4)
        assert counts.tolist() == [5, 5, 5, 5]


def test_blocks_bigger_than_what_is_wanted_and_none_to_spare() -> None:
    labels, blocks = np.arange(90) % 2, np.arange(90) // 30
    one = _blocks.choose(labels, blocks, 5, 2, spare=2, seed=0, purpose="dev")
    assert one.sum() == 30
    two = _blocks.choose(labels, blocks, 89, 2, spare=1, seed=0, purpose="dev")
    assert two.sum() == 60


def test_numbers_fall_with_the_size() -> None:
    numbers = _blocks.numbered(np.array([7, 7, 9, 5, 5, 5]))
    assert numbers.tolist() == [1, 1, 2, 0, 0, 0]


def test_folds_keep_groups_together(tmp_path: Path, store: Store) -> None:
    sizes = {f"h{n}": 3 + n for n in range(20)}
    data = prepare(DataSpec(path=write(tmp_path, sizes), group="hotel"), store)
    tokenizer = build_tokenizer(TokenizerSpec(kind="word"), data.key, store)
    key = ensure_encoded(store, data.key, "train", tokenizer, 8)
    rows = Encoded.open(store.read("encoded", key).path)
    assert rows.blocks is not None
    texts = load_split(store, data.key, "train").texts
    folds: dict[str, set[int]] = {}
    for text, fold in zip(texts, fold_of(rows.ids, 4, rows.blocks).tolist(), strict=True):
        folds.setdefault(text.split()[0], set()).add(fold)
    assert all(len(found) == 1 for found in folds.values())
    sizes_of_folds = [len(inside(rows.ids, fold, 4, rows.blocks)) for fold in range(4)]
    assert min(sizes_of_folds) > 0.6 * max(sizes_of_folds)
    part = rows.subset(torch.arange(0, len(rows), 2))
    assert part.blocks is not None
    assert set(part.blocks[outside(part.ids, 1, 4, part.blocks)].remainder(4).tolist()) == {0, 2, 3}
    dev = ensure_encoded(store, data.key, "dev", tokenizer, 8)
    assert Encoded.open(store.read("encoded", dev).path).blocks is None


def test_files_that_share_groups_are_used_and_noted(tmp_path: Path, store: Store) -> None:
    path = write(tmp_path, {f"h{n}": 6 for n in range(9)})
    test = write(tmp_path, {"h1": 3, "new": 4}, "test.csv")
    (tmp_path / "test.csv").write_text((tmp_path / "test.csv").read_text().replace("row", "line"))
    spec = DataSpec(path=path, test=test, dev=0.2, group="hotel", seed=3)
    data = prepare(spec, store)
    assert data.rows["test"] == 7
    assert sum("are in both" in note for note in data.notes) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group": "hotle"}, r"has no group column 'hotle', did you mean 'hotel'\?; it has: "),
        ({"group": "hotel", "dev": 0.2, "test": 0.2}, "has 2 different values, but train and test"),
    ],
)
def test_problems_are_one_sentence(
    tmp_path: Path, store: Store, changes: dict[str, Any], message: str
) -> None:
    path = write(tmp_path, {"x": 20, "y": 20})
    with pytest.raises(DataError, match=message) as caught:
        prepare(DataSpec(path=path, **changes), store)
    assert "\n" not in str(caught.value)


def test_rows_without_a_group_and_classes_that_cannot_be_covered(
    tmp_path: Path, store: Store
) -> None:
    path = tmp_path / "train.csv"
    lines = [f"{n} word,{'ab'[n % 2]},h{n % 2}" for n in range(20)]
    path.write_text("\n".join(["text,label,hotel", *lines, "more words,a,"]) + "\n")
    with pytest.raises(DataError, match=r"1 rows of .* have no group"):
        prepare(DataSpec(path=str(path), group="hotel"), store)
    path.write_text("\n".join(["text,label,hotel", *lines]) + "\n")
    with pytest.raises(DataError, match=r"ask for a larger share, or leave data\.group out"):
        prepare(DataSpec(path=str(path), group="hotel"), store)


@pytest.mark.parametrize("column", ["text", "label", ""])
def test_a_group_is_a_column_of_its_own(column: str) -> None:
    with pytest.raises(DataError, match="must be a column besides text and label"):
        DataSpec(path="x.csv", group=column)


def test_a_package_without_columns_is_refused(store: Store) -> None:
    with pytest.raises(ComponentError, match="has no columns, so no column 'author'"):
        prepare(DataSpec(source="pypi:vaderSentiment==3.3.2", group="author"), store)


@pytest.mark.parametrize("suffix", ["tsv", "jsonl", "parquet"])
def test_every_format_reads_groups(tmp_path: Path, store: Store, suffix: str) -> None:
    import pandas as pd

    frame = pd.read_csv(write(tmp_path, {f"h{n}": 6 for n in range(10)}))
    path = str(tmp_path / f"train.{suffix}")
    if suffix == "tsv":
        frame.to_csv(path, sep="\t", index=False)
    elif suffix == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    found = divided(prepare(DataSpec(source=suffix, path=path, group="hotel"), store), store)
    assert sum(map(len, found.values())) == 10


def test_hotel_reviews(store: Store) -> None:
    path = HOTEL_REVIEWS / "all.csv"
    if not path.is_file():
        pytest.skip("needs the hotel reviews in ../shared/data")
    data = prepare(DataSpec(path=str(path), dev=0.15, test=0.2, group="hotel"), store)
    assert data.blocks is not None
    assert sum(data.blocks.values()) == 20
    for split, share in (("dev", 0.15), ("test", 0.2)):
        assert data.rows[split] == pytest.approx(share * 1600, abs=80)
        fake, true = data.class_counts[split]
        assert fake == pytest.approx(true, rel=0.05)
