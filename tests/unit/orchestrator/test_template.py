from pathlib import Path

import pytest

from orchestrator.config import load_config
from orchestrator.errors import UsageError
from orchestrator.template import copy_preset, render_preset


def test_a_copied_preset_is_a_config_of_ones_own(tmp_path: Path) -> None:
    target = tmp_path / "mine" / "my.yaml"
    assert copy_preset("smoke", target, "my-sweep") == [target.parent / "smoke.csv", target]
    config = load_config(target)
    assert config.name == "my-sweep"
    assert config.data.path == str(target.parent / "smoke.csv")
    assert target.read_text(encoding="utf-8").startswith("# smoke")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "smoke.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"smoke\.csv exists"):
        copy_preset("smoke", tmp_path / "my.yaml")
    assert not (tmp_path / "my.yaml").exists()
    assert (tmp_path / "smoke.csv").read_text() == "mine"


def test_unknown_presets_and_odd_names_are_explained() -> None:
    with pytest.raises(UsageError, match="did you mean 'smoke'"):
        render_preset("smok")
    with pytest.raises(UsageError, match="a-z 0-9"):
        render_preset("smoke", "My Sweep")
