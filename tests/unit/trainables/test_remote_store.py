"""A store behind a URL: what it shares with a folder, and what it adds."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trainables.errors import ArtifactCorrupt, ArtifactMissing, StoreError
from trainables.remote import Remote
from trainables.remote_artifacts import cache_folder
from trainables.store import CACHE_VARIABLE, MANIFEST, Store

KEY = "ab" * 32
PLACE = f"student/ab/{KEY}"


@pytest.fixture(params=["folder", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return str(request.getfixturevalue("s3"))
    return str(tmp_path / "store")


def put(store: Store, content: bytes = b"hello", key: str = KEY) -> Path:
    with store.write("student", key) as draft:
        (draft.path / "sub").mkdir()
        (draft.path / "sub" / "file.bin").write_bytes(content)
        (draft.path / "empty").write_bytes(b"")
        draft.meta["metrics"] = {"val_f1_macro": 0.5}
    return store.path("student", key)


def content(store: Store, key: str = KEY) -> bytes:
    return store.read("student", key).file("sub/file.bin").read_bytes()


def on_node(name: str, url: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Store:
    """Open the store as another node would: with an empty folder for copies."""
    monkeypatch.setenv(CACHE_VARIABLE, str(folder / name))
    return Store(url)


@pytest.fixture
def nodes(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, Store]:
    return tuple(on_node(name, s3, monkeypatch, tmp_path) for name in ("one", "two"))  # type: ignore[return-value]


def test_what_is_written_is_read_back(address: str) -> None:
    store = Store(address)
    assert not store.exists("student", KEY)
    assert store.meta("student", KEY) is None
    assert store.keys("student") == []
    put(store)
    for seen in (store, Store(address), Store(store.address)):
        assert content(seen) == b"hello"
        assert seen.read("student", KEY).file("empty").read_bytes() == b""
        assert seen.read("student", KEY).meta == seen.meta("student", KEY)
        assert seen.exists("student", KEY)
        assert seen.keys("student") == [KEY]
    assert list((store.root / "tmp").iterdir()) == []


def test_missing_is_not_corrupt(address: str) -> None:
    with pytest.raises(ArtifactMissing, match="has no student abab") as caught:
        Store(address).read("student", KEY)
    assert not isinstance(caught.value, ArtifactCorrupt)


def test_an_exception_leaves_nothing(address: str) -> None:
    store = Store(address)
    with pytest.raises(ZeroDivisionError), store.write("student", KEY) as draft:
        (draft.path / "half").write_bytes(b"x")
        _ = 1 / 0
    assert not store.exists("student", KEY)
    assert store.remote is None or store.remote.names("student") == []


def test_the_first_of_two_writers_stands(address: str) -> None:
    store, other = Store(address), Store(address)
    with store.write("student", KEY) as slow:
        put(other, b"fast")
        (slow.path / "sub").mkdir()
        (slow.path / "sub" / "file.bin").write_bytes(b"slow")
    assert content(store) == content(other) == content(Store(address)) == b"fast"


def test_what_is_deleted_can_be_made_again(address: str) -> None:
    store = Store(address)
    put(store)
    assert content(store) == b"hello"
    store.delete("student", KEY)
    assert not store.exists("student", KEY)
    with pytest.raises(ArtifactMissing):
        store.read("student", KEY)
    put(store, b"again")
    assert content(store) == content(Store(address)) == b"again"


@pytest.mark.parametrize("key", ["../evil", "a/b", "", "A" * 64, "a\n"])
def test_keys_cannot_leave_the_store(address: str, key: str) -> None:
    store = Store(address)
    for action in (store.exists, store.read, store.path, store.meta, store.delete):
        with pytest.raises(ValueError, match="must match"):
            action("student", key)


def test_two_nodes_see_each_others_artifacts(nodes: tuple[Store, Store]) -> None:
    one, two = nodes
    assert one.root != two.root
    assert not two.exists("student", KEY)
    put(one)
    assert two.exists("student", KEY)
    assert content(two) == b"hello"
    put(two, b"another", "cd" * 32)
    assert one.keys("student") == two.keys("student") == [KEY, "cd" * 32]
    assert content(one, "cd" * 32) == b"another"


def test_a_copy_is_fetched_once_for_a_node(nodes: tuple[Store, Store]) -> None:
    one, two = nodes
    put(one)
    first = two.read("student", KEY).file("sub/file.bin").stat().st_ino
    again = Store(two.address)
    again.root = two.root  # a process that came later
    assert two.remote is not None
    for name in two.remote.names(PLACE):
        if not name.endswith(MANIFEST):
            two.remote.remove(name)
    assert two.read("student", KEY).file("sub/file.bin").stat().st_ino == first


def test_a_copy_that_is_removed_comes_back(nodes: tuple[Store, Store]) -> None:
    one, two = nodes
    put(one)
    assert content(two) == b"hello"
    shutil.rmtree(two.root)
    assert content(two) == b"hello"


def test_a_copy_of_what_was_made_again_is_replaced(nodes: tuple[Store, Store]) -> None:
    one, two = nodes
    put(one, b"old")
    assert content(two) == b"old"
    one.delete("student", KEY)
    put(one, b"new")
    assert content(Store(two.address)) == b"new"


def test_what_the_service_lost_does_not_exist_here(nodes: tuple[Store, Store]) -> None:
    one, _ = nodes
    put(one)
    assert one.remote is not None
    one.remote.remove(f"{PLACE}/{MANIFEST}")
    later = Store(one.address)
    later.root = one.root
    assert not later.exists("student", KEY)
    with pytest.raises(ArtifactMissing):
        later.read("student", KEY)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "removed", "manifest"])
def test_a_damaged_copy_is_fetched_again(nodes: tuple[Store, Store], damage: str) -> None:
    one, two = nodes
    put(one)
    file = two.read("student", KEY).file("sub/file.bin")
    if damage == "flipped":
        file.write_bytes(b"hellp")
    elif damage == "truncated":
        file.write_bytes(b"hel")
    elif damage == "removed":
        file.unlink()
    else:
        (two.path("student", KEY) / MANIFEST).write_text("{")
    later = Store(two.address, notify=pytest.fail)  # nobody need hear of it
    assert content(later) == b"hello"


@pytest.mark.parametrize("damage", ["flipped", "truncated", "removed"])
def test_damage_at_the_service_is_found_and_made_again(
    nodes: tuple[Store, Store], damage: str
) -> None:
    one, two = nodes
    put(one)
    assert one.remote is not None
    (name,) = (n for n in one.remote.names(PLACE) if n.endswith("file.bin"))
    if damage == "removed":
        one.remote.remove(name)
    else:
        one.remote.write(name, b"hellp" if damage == "flipped" else b"hel")
    heard: list[str] = []
    two.notify = heard.append
    with pytest.raises(ArtifactCorrupt, match=r"in s3://.* is damaged: .*will be made again"):
        two.read("student", KEY)
    assert len(heard) == 1
    assert not two.exists("student", KEY)
    assert not two.path("student", KEY).exists()
    put(two, b"again")
    assert content(two) == content(Store(one.address)) == b"again"


def test_a_bad_transfer_is_repeated(
    nodes: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = nodes
    put(one)
    fetched = []
    honest = Remote.download

    def download(self: Remote, pairs: Any) -> None:
        honest(self, pairs)
        fetched.append(pairs)
        if len(fetched) == 1:
            pairs[-1][1].write_bytes(b"noise")

    monkeypatch.setattr(Remote, "download", download)
    assert content(two) == b"hello"
    assert len(fetched) == 2
    assert one.exists("student", KEY)


def test_half_an_upload_is_never_read(
    nodes: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = nodes

    def die(*_: object) -> bool:
        raise StoreError("the node is lost")

    with monkeypatch.context() as patched:
        patched.setattr(Remote, "create", die)
        with pytest.raises(StoreError, match="lost"):
            put(one, b"torn")
    assert two.remote is not None
    assert len(two.remote.names("student")) == 2  # all files, and no manifest
    for store in (one, two):
        assert not store.exists("student", KEY)
        assert store.keys("student") == []
        with pytest.raises(ArtifactMissing):
            store.read("student", KEY)
    put(two, b"whole")
    assert content(one) == b"whole"


def test_a_killed_writer_leaves_no_artifact(s3: str) -> None:
    code = (
        "import os, sys; from trainables.remote import Remote; from trainables.store import Store\n"
        "Remote.create = lambda *_: os._exit(9)\n"
        f"with Store({s3!r}).write('student', {KEY!r}) as draft:\n"
        "    (draft.path / 'file').write_bytes(b'x' * 1000)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert Store(s3).keys("student") == []
    put(Store(s3))
    assert content(Store(s3)) == b"hello"


def test_what_was_uploaded_in_vain_is_removed(nodes: tuple[Store, Store]) -> None:
    one, two = nodes
    with one.write("student", KEY) as slow:
        put(two, b"fast")
        (slow.path / "sub").mkdir()
        (slow.path / "sub" / "file.bin").write_bytes(b"slow")
        (slow.path / "empty").write_bytes(b"")
    assert one.remote is not None
    names = [name.rpartition("/")[2] for name in one.remote.names(PLACE)]
    assert sorted(names) == ["empty", "file.bin", MANIFEST]
    assert content(one) == b"fast"


@pytest.mark.parametrize("name", ["../../evil", "/evil", "a/../../evil", "..\\evil", MANIFEST, ""])
def test_a_manifest_cannot_write_elsewhere(s3: str, tmp_path: Path, name: str) -> None:
    store = Store(s3)
    put(store)
    assert store.remote is not None
    known = json.loads(store.remote.read(f"{PLACE}/{MANIFEST}") or b"")
    known["files"] = {name: known["files"]["sub/file.bin"]}
    store.remote.write(f"{PLACE}/{MANIFEST}", json.dumps(known).encode())
    with pytest.raises(ArtifactCorrupt, match="is no name of a file"):
        Store(s3).read("student", KEY)
    assert list(tmp_path.rglob("*evil*")) == []


@pytest.mark.parametrize("manifest", [b"", b"{", b"[]", b'{"files": {"a": {"sha256": "../x"}}}'])
def test_a_torn_manifest_is_damage(s3: str, manifest: bytes) -> None:
    store = Store(s3)
    assert store.remote is not None
    store.remote.write(f"{PLACE}/{MANIFEST}", manifest)
    with pytest.raises(ArtifactCorrupt, match="unreadable"):
        store.read("student", KEY)
    put(store)
    assert content(Store(s3)) == b"hello"


def test_two_processes_write_the_same_key(s3: str) -> None:
    code = (
        "import sys; from trainables.store import Store\n"
        "for number in range(5):\n"
        f"    with Store({s3!r}).write('student', f'key{{number}}') as draft:\n"
        "        (draft.path / 'file').write_bytes(sys.argv[1].encode() * 1000)\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "ab"]
    assert [process.wait(50) for process in processes] == [0, 0]
    store = Store(s3)
    assert len(store.keys("student")) == 5
    for key in store.keys("student"):
        assert len(set(store.read("student", key).file("file").read_text())) == 1


def test_where_copies_cannot_go_is_said(
    s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put(Store(s3))
    (tmp_path / "file").write_text("in the way")
    store = on_node("file", s3, monkeypatch, tmp_path)
    for attempt in (content, put):
        with pytest.raises(StoreError, match=f"free space or point {CACHE_VARIABLE} elsewhere"):
            attempt(store)


def test_each_url_has_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    folders = {cache_folder(url) for url in ("s3://a/b", "s3://a-b", "s3://A/b", "gs://a/b")}
    assert len(folders) == 4
    assert all(folder.parent == tmp_path for folder in folders)
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert cache_folder("s3://a/b").parent == tmp_path / "user" / "kd-orchestrator"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("s3://a/b").parent == tmp_path / ".cache" / "kd-orchestrator"


def test_a_folder_knows_no_service(tmp_path: Path) -> None:
    code = "import sys; from trainables.store import Store; Store(sys.argv[1]).exists('a', 'b')\n"
    code += "assert 'fsspec' not in sys.modules and 's3fs' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": ""}
    command = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(command, check=False, env=environment).returncode == 0
