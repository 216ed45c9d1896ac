"""The containers of the cluster, through whichever Docker Compose is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator.deployment import secrets
from orchestrator.deployment.release import VARIABLE as GIT_VARIABLE
from orchestrator.deployment.release import this_release
from orchestrator.errors import OrchestratorError, PreflightError, Problem

FILE = "docker-compose.yml"


class Compose:
    """One compose file and the secrets it mounts.

    Args:
        folder: Where the compose file is: a checkout of the project.
        secret_folder: Holds the secrets.
        run: Runs a command; replaced in tests.

    Raises:
        PreflightError: There is no compose file, or no Compose.
    """

    def __init__(
        self,
        folder: Path,
        secret_folder: Path,
        run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run,
    ) -> None:
        if not (folder / FILE).is_file():
            text = "is not here"
            cure = "run this in a checkout of the project, or name it with --project"
            raise PreflightError([Problem(str(folder / FILE), text, cure)])
        self._folder = folder
        self._run = run
        self._command = [*self._find(), "-f", str(folder / FILE)]
        release = this_release()
        self._environment = {
            **os.environ,
            secrets.VARIABLE: str(secret_folder),
            GIT_VARIABLE: release.git,
            # Another commit is another image, so that no old one is taken for it.
            "ORCHESTRATOR_TAG": f"{release.version}-{release.git[:12]}",
            # The image's user owns the secrets, so that nobody else need read them.
            "ORCHESTRATOR_UID": str(os.getuid() or secrets.IMAGE_UID),
        }

    def _find(self) -> Sequence[str]:
        if shutil.which("docker"):
            probe = ["docker", "compose", "version"]
            if self._run(probe, capture_output=True, text=True, check=False).returncode == 0:
                return ["docker", "compose"]
        if shutil.which("docker-compose"):
            return ["docker-compose"]
        cure = "install it, e.g. apt-get install docker.io docker-compose"
        raise PreflightError([Problem("Docker Compose", "is not installed", cure)])

    def up(self, workers: int, *, gpu: bool = False, build: bool = False) -> None:
        """Start everything with this many workers, and build the images first if they are missing.

        Args:
            workers: How many.
            gpu: Whether they reserve the GPUs.
            build: Build the images in any case.

        Raises:
            OrchestratorError: Compose failed; it has said why.
        """
        service, other = ("ray-worker-gpu", "ray-worker") if gpu else ("ray-worker", "")
        scale = ["--scale", f"{service}={workers}"]
        scale += ["--scale", f"{other}=0"] if other else []
        profile = ["--profile", "gpu"] if gpu else []
        self._call([*profile, "up", "-d", *(["--build"] if build else []), *scale])

    def down(self, *, volumes: bool = False) -> None:
        """Stop and remove the containers; the data stays unless ``volumes`` go too.

        Raises:
            OrchestratorError: Compose failed; it has said why.
        """
        self._call(["--profile", "gpu", "down", *(["--volumes"] if volumes else [])])

    def _call(self, arguments: Sequence[str]) -> None:
        command = [*self._command, *arguments]
        done = self._run(command, env=self._environment, cwd=self._folder, check=False)
        if done.returncode:
            raise OrchestratorError(f"{' '.join(command)} failed; see above")
