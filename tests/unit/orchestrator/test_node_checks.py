from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator import node_checks
from orchestrator.cluster import Node
from orchestrator.deployment import release
from orchestrator.errors import PreflightError
from orchestrator.node_checks import check_nodes, look
from trainables.checkpoints import checkpoint_digest
from trainables.errors import StoreError
from trainables.remote import Remote

A, B = Node("10.0.0.1", 2.0, 0.0, "a"), Node("10.0.0.2", 2.0, 1.0, "b")


def asking(change: Callable[[dict[str, Any]], Any] = lambda answer: answer) -> Any:
    """Return an ``ask`` whose nodes look for real, but node b's answer is changed."""

    def ask(nodes: Sequence[Node], function: Any, *arguments: Any) -> Mapping[str, Any]:
        answers = {node.id: function(*arguments) for node in nodes}
        return {
            name: found
            for name, answer in answers.items()
            if (found := change(answer) if name == "b" else answer) is not None
        }

    return ask


def problems(store: Path, ask: Any, checkpoints: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(PreflightError) as caught:
        check_nodes([A, B], store, checkpoints or {}, ask)
    return [str(problem) for problem in caught.value.problems]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_nodes_like_the_driver_pass_and_nothing_stays(tmp_path: Path, checkpoint: Path) -> None:
    asked = []

    def ask(nodes: Sequence[Node], function: Any, *arguments: Any) -> Mapping[str, Any]:
        asked.extend(nodes)
        return asking()(nodes, function, *arguments)

    check_nodes([A, B], tmp_path, {str(checkpoint): checkpoint_digest(checkpoint)}, ask)
    assert asked == [A, B]
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_node_with_another_folder_as_the_store(tmp_path: Path) -> None:
    def elsewhere(nodes: Sequence[Node], function: Any, folder: str, *rest: Any) -> Any:
        foreign = tmp_path / "foreign" / Path(folder).name
        return {"a": function(folder, *rest), "b": function(str(foreign), *rest)}

    (found,) = problems(tmp_path / "store", elsewhere)
    assert found == (
        f"node 10.0.0.2: does not share the store {tmp_path / 'store'} (No such file or "
        "directory); mount the driver's folder there at the same path"
    )
    assert list((tmp_path / "store" / "tmp").iterdir()) == []


def test_a_node_that_reads_an_old_copy_of_the_store(tmp_path: Path) -> None:
    def stale(nodes: Sequence[Node], function: Any, folder: str, *rest: Any) -> Any:
        answers = {"a": function(folder, *rest)}
        (Path(folder) / node_checks.NONCE).write_text("yesterday's")
        return answers | {"b": function(folder, *rest)}

    (found,) = problems(tmp_path, stale)
    assert "(what it reads is not what was written here)" in found


def test_a_node_whose_writes_stay_on_the_node(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, asking(lambda a: a | {"store": {"signed": "0" * 32}}))
    assert "(what it writes does not arrive here)" in found


def test_a_node_that_may_only_read_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_text

    def refuse(path: Path, *arguments: Any, **options: Any) -> int:
        if path.name != node_checks.NONCE:
            raise OSError(30, "Read-only file system")
        return write(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", refuse)
    found = problems(tmp_path, asking())
    assert len(found) == 2 and all("(Read-only file system)" in line for line in found)


def test_a_node_with_another_release(tmp_path: Path) -> None:
    old = {"version": "0.0.9", "git": "f" * 40}
    (found,) = problems(tmp_path, asking(lambda answer: answer | {"release": old}))
    assert found.startswith("node 10.0.0.2: runs release 0.0.9 (ffffffffffff), but this driver ")
    assert found.endswith("start all nodes from one image, or install the same commit everywhere")


def test_a_release_is_that_of_the_node_not_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(release.VARIABLE, "e" * 40)
    assert look("/nowhere", [])["release"]["git"] == "e" * 40


def test_a_checkpoint_that_is_missing_or_another_one(tmp_path: Path, checkpoint: Path) -> None:
    missing = tmp_path / "missing"
    wanted = {str(checkpoint): "0" * 64, str(missing): "1" * 64}
    found = problems(tmp_path, asking(), wanted)
    assert len(found) == 4
    assert (
        found[0] == f"node 10.0.0.1: cannot use checkpoint {checkpoint} (its files differ from "
        "those of this driver); copy it there, or put it where all nodes see the same files"
    )
    assert f"cannot use checkpoint {missing} (No such file or directory); copy" in found[3]


def test_a_node_that_cannot_be_asked_is_named(tmp_path: Path) -> None:
    error = RuntimeError("traceback\n  of many lines\nNo module named 'orchestrator'\n")
    (found,) = problems(tmp_path, asking(lambda answer: error))
    assert found == (
        "node 10.0.0.2: could not be asked what it has (No module named 'orchestrator'); install "
        "this release of the project there, or take it out"
    )


def test_a_node_that_was_lost_meanwhile_is_no_problem(tmp_path: Path) -> None:
    check_nodes([A, B], tmp_path, {}, asking(lambda answer: None))


def test_everything_wrong_is_listed_at_once(tmp_path: Path) -> None:
    wrong = {"release": {"version": "1", "git": "x"}, "store": {"error": "gone"}}
    assert len(problems(tmp_path, asking(lambda answer: answer | wrong))) == 2


def test_a_store_the_driver_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="free space or point --home elsewhere"):
        check_nodes([A], tmp_path / "file", {}, asking())


def test_a_store_behind_a_url(s3: str) -> None:
    check_nodes([A, B], s3, {}, asking())
    assert Remote(s3).names("tmp") == []


def test_a_node_with_another_bucket(s3: str) -> None:
    def elsewhere(nodes: Sequence[Node], function: Any, folder: str, *rest: Any) -> Any:
        foreign = folder.replace("/distilled/", "/other/")
        return {"a": function(folder, *rest), "b": function(foreign, *rest)}

    with pytest.raises(PreflightError) as caught:
        check_nodes([A, B], s3, {}, elsewhere)
    (found,) = map(str, caught.value.problems)
    assert found.startswith(f"node 10.0.0.2: does not share the store {s3} (No such file")
    assert "the same end point" in found
