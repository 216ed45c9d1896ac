"""What runs on the head for a submitted sweep: ``python -m orchestrator.deployment.job CONFIG``.

The head knows by environment where the home, the ledger and MLflow are; the passwords are files
there and enter this process only: not the job's runtime environment, not the trials.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

from orchestrator import cli, home
from orchestrator.deployment import mlflow_server, secrets
from orchestrator.errors import PreflightError, Problem
from search_spaces.loader import load_yaml

LEDGER = "LEDGER_URL"
TRACKING = "ORCHESTRATOR_TRACKING_URI"


def main() -> None:
    """Run the sweep as ``orchestrator sweep`` would, with what this cluster offers."""
    config, *arguments = sys.argv[1:]
    try:
        log_in(secrets.folder_of(), os.environ)
        defaults = cluster_defaults(config, os.environ)
    except PreflightError as error:
        sys.stderr.write("".join(f"error: {problem}\n" for problem in error.problems))
        sys.exit(error.exit_code)
    sys.argv[1:] = ["sweep", config, "--address", "auto", *defaults, *arguments]
    cli.main()


def log_in(folder: Path, environment: MutableMapping[str, str]) -> None:
    """Let this process open the ledger and MLflow with the secrets of the head.

    Raises:
        PreflightError: One is missing, or the head does not say where the home is.
    """
    if not environment.get(home.VARIABLE):
        text = "is not set on the head, so nobody knows what its nodes share"
        raise PreflightError([Problem(home.VARIABLE, text, "set it to a folder that all see")])
    if environment.get(LEDGER):
        secrets.require(folder, [secrets.LEDGER_PASSFILE])
        environment["PGPASSFILE"] = str(folder / secrets.LEDGER_PASSFILE)
    if environment.get(TRACKING):
        environment.update(mlflow_server.client_environment(folder))


def cluster_defaults(config: str, environment: Mapping[str, str]) -> Sequence[str]:
    """Return overrides for what a config leaves open and this cluster has."""
    mapping = load_yaml(config)
    overrides = []
    if environment.get(LEDGER) and not (mapping.get("ledger") or {}).get("url_env"):
        overrides += ["--set", f"ledger.url_env={LEDGER}"]
    if environment.get(TRACKING) and not (mapping.get("tracking") or {}).get("uri"):
        overrides += ["--set", f"tracking.uri={environment[TRACKING]}"]
    return overrides


if __name__ == "__main__":
    main()
