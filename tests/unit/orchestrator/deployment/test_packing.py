from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.config import load_config
from orchestrator.deployment import packing
from orchestrator.errors import ConfigError

CONFIG = {
    "name": "news",
    "data": {
        "source": "csv",
        "path": "train.csv",
        "test": "/store/data/test.csv",
        "transfer": "rest",
        "labelled": 3,
    },
    "teachers": [
        {"name": "big", "model": {"name": "linear"}},
        {"name": "old", "exported": "student"},
    ],
}


@pytest.fixture
def config(tmp_path: Path) -> Any:
    (tmp_path / "train.csv").write_text("text,label\na,b\n")
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "card.md").write_text("a card")
    (tmp_path / "news.yaml").write_text(yaml.safe_dump(CONFIG))
    return load_config(tmp_path / "news.yaml")


def test_local_files_travel_and_the_clusters_own_stay(config: Any, tmp_path: Path) -> None:
    target = tmp_path / "packed"
    target.mkdir()
    packed = yaml.safe_load(packing.pack(config, [], target).read_text())
    assert packed["data"]["test"] == "/store/data/test.csv"
    assert packed["data"]["transfer"] == "rest"
    assert (target / packed["data"]["path"]).read_text() == "text,label\na,b\n"
    assert (target / packed["teachers"][1]["exported"] / "card.md").read_text() == "a card"
    # What arrives says the same as what was sent, wherever it is unpacked.
    again = load_config(target / packing.CONFIG)
    assert again.data.path == str(target / packed["data"]["path"])
    assert again.to_dict() | {"data": 0, "teachers": 0} == config.to_dict() | {
        "data": 0,
        "teachers": 0,
    }


def test_packing_twice_gives_the_same_names(config: Any, tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        texts.append(packing.pack(config, [], tmp_path / name).read_text())
    assert texts[0] == texts[1]


def test_own_components_can_be_taken_along(config: Any, tmp_path: Path) -> None:
    package = tmp_path / "mine"
    (package / "__pycache__").mkdir(parents=True)
    (package / "loss.py").write_text("COMPONENT = 1\n")
    target = tmp_path / "packed"
    target.mkdir()
    packing.pack(config, [package], target)
    assert [path.name for path in (target / "mine").iterdir()] == ["loss.py"]


def test_files_too_big_to_travel_are_named_with_their_cure(
    config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MAX_BYTES", 2**20)
    (tmp_path / "train.csv").write_bytes(b"x" * 3 * 2**20)
    target = tmp_path / "packed"
    target.mkdir()
    expected = "data.path: .*train.csv has 3 of 3 MB.*copy it to the store that the nodes share"
    with pytest.raises(ConfigError, match=expected):
        packing.pack(config, [], target)
    assert list(target.iterdir()) == []


def test_an_extra_file_that_is_missing_is_told(config: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--with: .*nothing does not exist"):
        packing.pack(config, [tmp_path / "nothing"], tmp_path)
