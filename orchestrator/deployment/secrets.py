"""The secrets of a cluster: one file each, mode 0600, made once by ``orchestrator cluster init``.

They reach a process as a file it is told the path of, never as an argument. PostgreSQL's passwords
are libpq password files, so that no URL holds one.

::

    ray_token              opens the dashboard, the Jobs API, GCS and every Ray port
    ledger_passfile        the driver's role in PostgreSQL
    mlflow_passfile        the MLflow server's role in PostgreSQL
    mlflow_admin_password  of MLflow's user 'admin'
    mlflow_flask_key       signs MLflow's forms
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from pathlib import Path

from orchestrator.errors import PreflightError, Problem

VARIABLE = "ORCHESTRATOR_SECRETS"
DEFAULT = ".secrets"
# The user of the image when root makes the secrets; the Dockerfile has the same number.
IMAGE_UID = 10001

RAY_TOKEN = "ray_token"
LEDGER_PASSFILE = "ledger_passfile"
MLFLOW_PASSFILE = "mlflow_passfile"
MLFLOW_PASSWORD = "mlflow_admin_password"
MLFLOW_KEY = "mlflow_flask_key"


def _passfile(name: str) -> str:
    """Return a line of a libpq password file for the role and database of one name."""
    return f"*:*:{name}:{name}:{secrets.token_hex(24)}\n"


_MAKERS: Mapping[str, Callable[[], str]] = {
    RAY_TOKEN: lambda: secrets.token_hex(32),
    LEDGER_PASSFILE: lambda: _passfile("ledger"),
    MLFLOW_PASSFILE: lambda: _passfile("mlflow"),
    MLFLOW_PASSWORD: lambda: secrets.token_urlsafe(24),
    MLFLOW_KEY: lambda: secrets.token_hex(32),
}
NAMES = tuple(_MAKERS)


def folder_of(path: Path | None = None) -> Path:
    """Return where the secrets are: the given path, the environment's, or ``.secrets`` here."""
    return Path(path or os.environ.get(VARIABLE) or DEFAULT).absolute()


def make_secrets(folder: Path) -> list[str]:
    """Make the secrets that are not there yet and return their names; none is ever replaced.

    Made by root, they belong to the user of the image, who could not read them otherwise.

    Raises:
        PreflightError: The folder cannot be written.
    """
    made = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, maker in _MAKERS.items():
            if not (folder / name).exists():
                _write(folder / name, maker())
                made.append(name)
        folder.chmod(0o700)
        if os.getuid() == 0:
            os.chown(folder, IMAGE_UID, IMAGE_UID)
    except OSError as error:
        problem = Problem(str(folder), f"cannot be written ({error.strerror})", "name another")
        raise PreflightError([problem]) from error
    return made


def _write(path: Path, text: str) -> None:
    # Created with its mode: between open and chmod another user could open it for reading.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        if os.getuid() == 0:
            os.fchown(descriptor, IMAGE_UID, IMAGE_UID)


def read_secret(folder: Path, name: str) -> str:
    """Return a secret.

    Raises:
        PreflightError: It is missing, empty, or open to other users.
    """
    require(folder, [name])
    return (folder / name).read_text(encoding="ascii").strip()


def require(folder: Path, names: Iterable[str]) -> None:
    """Check that secrets are there and closed to other users.

    Raises:
        PreflightError: Lists what is wrong with each.
    """
    problems = [problem for name in names if (problem := _problem(folder / name))]
    if problems:
        raise PreflightError(problems)


def _problem(path: Path) -> Problem | None:
    try:
        state = path.stat()
        with path.open("rb") as file:
            empty = not file.read().strip()
    except OSError as error:
        text = f"cannot be read ({error.strerror})"
        return Problem(str(path), text, "make it with 'orchestrator cluster init'")
    if empty:
        return Problem(str(path), "is empty", "delete it, then run 'orchestrator cluster init'")
    if stat.S_IMODE(state.st_mode) & 0o077:
        text = f"other users can read it (mode {stat.S_IMODE(state.st_mode):04o})"
        return Problem(str(path), text, f"run: chmod 600 {path}")
    return None


def enter_ray(folder: Path, environment: MutableMapping[str, str]) -> None:
    """Make this process and its children speak to Ray with the token.

    Call it before Ray is imported; a token that is in the environment already is left alone.

    Raises:
        PreflightError: There is no token, or authentication was turned off.
    """
    mode = environment.get("RAY_AUTH_MODE", "token")
    if mode != "token":
        text = f"is {mode!r}, so that everybody who reaches Ray could run code in it"
        raise PreflightError([Problem("RAY_AUTH_MODE", text, "unset it or set it to 'token'")])
    environment["RAY_AUTH_MODE"] = mode
    if environment.get("RAY_AUTH_TOKEN"):
        return
    path = Path(environment.get("RAY_AUTH_TOKEN_PATH") or folder / RAY_TOKEN)
    require(path.parent, [path.name])
    environment["RAY_AUTH_TOKEN_PATH"] = str(path)
