import os
import stat
from pathlib import Path

import pytest

from orchestrator.deployment import secrets
from orchestrator.errors import PreflightError


def test_every_secret_is_made_once_and_closed_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    assert secrets.make_secrets(folder) == list(secrets.NAMES)
    before = {name: (folder / name).read_bytes() for name in secrets.NAMES}
    (folder / secrets.MLFLOW_KEY).unlink()
    assert secrets.make_secrets(folder) == [secrets.MLFLOW_KEY]
    for name in secrets.NAMES:
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
        if name != secrets.MLFLOW_KEY:
            assert (folder / name).read_bytes() == before[name]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(set(before.values())) == len(before)


def test_two_clusters_have_nothing_in_common(tmp_path: Path) -> None:
    values = []
    for name in ("one", "two"):
        secrets.make_secrets(tmp_path / name)
        values += [(tmp_path / name / secret).read_text() for secret in secrets.NAMES]
    assert len(set(values)) == 2 * len(secrets.NAMES)


def test_a_password_file_is_one_libpq_reads(tmp_path: Path) -> None:
    secrets.make_secrets(tmp_path)
    line = (tmp_path / secrets.LEDGER_PASSFILE).read_text()
    host, port, database, role, password = line.removesuffix("\n").split(":")
    assert (host, port, database, role) == ("*", "*", "ledger", "ledger")
    assert len(password) == 48 and password.isalnum()  # nothing that libpq would unescape


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    secrets.make_secrets(tmp_path)
    (tmp_path / secrets.RAY_TOKEN).chmod(mode)
    with pytest.raises(PreflightError, match=f"mode {mode:04o}.*chmod 600"):
        secrets.require(tmp_path, [secrets.RAY_TOKEN])


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / secrets.RAY_TOKEN).write_text("\n")
    with pytest.raises(PreflightError) as caught:
        secrets.require(tmp_path, [secrets.RAY_TOKEN, secrets.MLFLOW_KEY])
    empty, missing = map(str, caught.value.problems)
    assert "is empty" in empty and "orchestrator cluster init" in missing


def test_ray_gets_the_path_of_the_token_and_not_the_token(tmp_path: Path) -> None:
    secrets.make_secrets(tmp_path)
    environment: dict[str, str] = {}
    secrets.enter_ray(tmp_path, environment)
    assert environment == {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(tmp_path / secrets.RAY_TOKEN),
    }


@pytest.mark.parametrize("mode", ["disabled", "", "k8s"])
def test_authentication_cannot_be_turned_off(tmp_path: Path, mode: str) -> None:
    secrets.make_secrets(tmp_path)
    with pytest.raises(PreflightError, match="could run code in it"):
        secrets.enter_ray(tmp_path, {"RAY_AUTH_MODE": mode})


def test_a_token_in_the_environment_is_enough(tmp_path: Path) -> None:
    environment = {"RAY_AUTH_TOKEN": "from-kubernetes"}
    secrets.enter_ray(tmp_path / "nothing", environment)
    assert environment == {"RAY_AUTH_TOKEN": "from-kubernetes", "RAY_AUTH_MODE": "token"}


def test_without_a_token_ray_is_not_entered(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="cluster init"):
        secrets.enter_ray(tmp_path, {})


@pytest.mark.skipif(os.getuid() == 0, reason="root can write everywhere")
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PreflightError, match="cannot be written"):
        secrets.make_secrets(tmp_path / "secrets")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_made_by_root_they_belong_to_the_user_of_the_image(tmp_path: Path) -> None:
    secrets.make_secrets(tmp_path / "s")
    owners = {path.stat().st_uid for path in (tmp_path / "s", *(tmp_path / "s").iterdir())}
    assert owners == {secrets.IMAGE_UID}
