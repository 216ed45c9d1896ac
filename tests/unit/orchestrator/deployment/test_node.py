import argparse
import shlex
import socket

import pytest

from orchestrator.deployment import node
from orchestrator.deployment.release import Release, this_release
from orchestrator.errors import PreflightError

RELEASE = Release("0.1.0", "a" * 40)


def _options(*arguments: str) -> argparse.Namespace:
    return node._parser().parse_args(arguments)


def test_the_head_holds_no_trials_and_tells_its_release() -> None:
    command = node.head_command(_options("head", "--node-ip", "10.0.0.1"), RELEASE)
    assert {"--num-cpus=0", "--num-gpus=0", "--node-ip-address=10.0.0.1", "--block"} <= set(command)
    assert f"--labels={RELEASE.labels()}" in command


def test_a_worker_counts_what_it_is_not_told() -> None:
    told = node.worker_command(_options("worker", "--num-cpus=4", "--num-gpus=1"), RELEASE)
    assert "--num-cpus=4" in told and "--num-gpus=1" in told
    # Compose passes an unset variable as nothing.
    counted = node.worker_command(_options("worker", "--num-cpus="), RELEASE)
    assert not [part for part in counted if part.startswith("--num-")]


def test_labels_give_the_release_back() -> None:
    labels = dict(part.split("=") for part in RELEASE.labels().split(","))
    assert Release.of_labels(labels) == RELEASE
    assert Release.of_labels({}) != RELEASE


@pytest.mark.parametrize("head", [Release("0.1.1", "a" * 40), Release("0.1.0", "b" * 40)])
def test_another_release_is_refused(head: Release) -> None:
    with pytest.raises(PreflightError, match=r"runs release 0\.1\.0 \(aaaaaaaaaaaa\), but"):
        node.check_release(RELEASE, head)
    node.check_release(RELEASE, RELEASE)


def test_the_image_says_which_commit_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_GIT_SHA", "c" * 40)
    assert this_release().git == "c" * 40


def test_a_head_that_does_not_answer_is_told_in_time() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(PreflightError, match="did not answer within 0 s; start it first"):
        node.wait_for_head(address, 0)


def test_what_a_user_has_set_is_kept() -> None:
    environment = {"RAY_JOB_STOP_WAIT_TIME_S": "5"}
    node.enter(environment)
    assert environment["RAY_JOB_STOP_WAIT_TIME_S"] == "5"
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"


def test_no_process_argument_holds_a_secret_option() -> None:
    for role in ("head", "worker"):
        command = shlex.join(getattr(node, f"{role}_command")(_options(role), RELEASE))
        assert "token" not in command and "password" not in command
