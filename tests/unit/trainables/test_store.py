import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trainables.errors import ArtifactCorrupt, ArtifactMissing, StoreError
from trainables.store import ASIDE, MANIFEST, Store, atomic_write, content_key, disk_errors

KEY = "ab" * 32


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def put(store: Store, content: bytes = b"hello", key: str = KEY) -> Path:
    with store.write("student", key) as draft:
        (draft.path / "sub").mkdir()
        (draft.path / "sub" / "file.bin").write_bytes(content)
        draft.meta["metrics"] = {"val_f1_macro": 0.5}
    return store.path("student", key)


def leftovers(store: Store) -> list[Path]:
    return list((store.root / "tmp").glob("*"))


def test_what_is_written_is_read_back(store: Store) -> None:
    put(store)
    artifact = store.read("student", KEY)
    assert artifact.file("sub/file.bin").read_bytes() == b"hello"
    assert artifact.meta == store.meta("student", KEY) == {"metrics": {"val_f1_macro": 0.5}}
    assert store.exists("student", KEY)
    assert store.keys("student") == [KEY]
    assert leftovers(store) == []


def test_missing_is_not_corrupt(store: Store) -> None:
    with pytest.raises(ArtifactMissing, match="has no student abab") as caught:
        store.read("student", KEY)
    assert not isinstance(caught.value, ArtifactCorrupt)
    assert store.meta("student", KEY) is None


def test_an_exception_leaves_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.write("student", KEY) as draft:
        (draft.path / "half").write_bytes(b"x")
        _ = 1 / 0
    assert not store.path("student", KEY).exists()
    assert leftovers(store) == []


def test_a_manifest_that_json_cannot_hold_leaves_nothing(store: Store) -> None:
    with pytest.raises(ValueError, match="JSON"), store.write("student", KEY) as draft:
        draft.meta["loss"] = float("nan")
    assert not store.exists("student", KEY)


def test_a_killed_writer_leaves_no_artifact(store: Store) -> None:
    code = (
        "import sys, time; from trainables.store import Store\n"
        f"with Store({str(store.root)!r}).write('student', {KEY!r}) as draft:\n"
        "    (draft.path / 'half').write_bytes(b'x' * 1000)\n"
        "    print('written', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not store.exists("student", KEY)
    assert store.keys("student") == []
    put(store)
    assert store.read("student", KEY).meta


@pytest.mark.parametrize("damage", ["flipped", "truncated", "removed", "schema", "foreign", "torn"])
def test_damage_is_found_and_set_aside(store: Store, damage: str) -> None:
    folder = put(store)
    file, manifest = folder / "sub" / "file.bin", folder / MANIFEST
    known = json.loads(manifest.read_text())
    if damage == "flipped":
        file.write_bytes(b"hellp")
    elif damage == "truncated":
        file.write_bytes(b"hel")
    elif damage == "removed":
        file.unlink()
    elif damage == "schema":
        manifest.write_text(json.dumps(known | {"schema": 99}))
    elif damage == "foreign":
        manifest.write_text(json.dumps(known | {"key": "cd" * 32}))
    else:
        manifest.write_text(manifest.read_text()[:40])
    fresh = Store(store.root)
    with pytest.raises(ArtifactCorrupt, match="will be made again"):
        fresh.read("student", KEY)
    assert not fresh.exists("student", KEY)
    assert len(list((store.root / ASIDE).iterdir())) == 1
    put(fresh)
    assert fresh.read("student", KEY).file("sub/file.bin").read_bytes() == b"hello"


def test_verified_once_but_again_after_a_new_writing(store: Store) -> None:
    folder = put(store)
    assert store.read("student", KEY) is store.read("student", KEY)
    store.delete("student", KEY)
    with pytest.raises(ArtifactMissing):
        store.read("student", KEY)
    put(store, b"other")
    (folder / "sub" / "file.bin").write_bytes(b"OTHER")
    with pytest.raises(ArtifactCorrupt):
        store.read("student", KEY)


def test_a_torn_deletion_does_not_exist_and_is_replaced(store: Store) -> None:
    folder = put(store)
    (folder / MANIFEST).unlink()
    assert not store.exists("student", KEY)
    put(store, b"again")
    assert store.read("student", KEY).file("sub/file.bin").read_bytes() == b"again"


def test_the_first_of_two_writers_stands(store: Store) -> None:
    with store.write("student", KEY) as slow:
        put(store, b"fast")
        (slow.path / "sub").mkdir()
        (slow.path / "sub" / "file.bin").write_bytes(b"slow")
    assert store.read("student", KEY).file("sub/file.bin").read_bytes() == b"fast"
    assert leftovers(store) == []


def test_two_processes_write_the_same_key(store: Store) -> None:
    code = (
        "from trainables.store import Store\n"
        f"for number in range(20):\n"
        f"    with Store({str(store.root)!r}).write('student', f'key{{number}}') as draft:\n"
        "        (draft.path / 'file').write_bytes(b'same' * 1000)\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(50) for process in processes] == [0, 0]
    assert len(store.keys("student")) == 20
    for key in store.keys("student"):
        assert store.read("student", key)
    assert leftovers(store) == []


def test_two_readers_of_one_damaged_artifact(store: Store) -> None:
    put(store, b"x" * 1_000_000)
    (store.path("student", KEY) / "sub" / "file.bin").write_bytes(b"y" * 1_000_000)
    outcomes: list[type[Exception]] = []

    def read() -> None:
        try:
            Store(store.root).read("student", KEY)
        except ArtifactMissing as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 4


@pytest.mark.parametrize("writer", ["bytes", "safetensors"])
def test_a_full_disk_is_a_store_error_and_leaves_nothing(store: Store, writer: str) -> None:
    put(store, key="cd" * 32)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with (
            pytest.raises(StoreError, match=r"File too large; free space or point --home"),
            store.write("student", KEY) as draft,
        ):
            if writer == "bytes":
                (draft.path / "big").write_bytes(bytes(1_000_000))
            else:
                save_file({"a": torch.zeros(1_000_000)}, draft.path / "big")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not store.exists("student", KEY)
    assert leftovers(store) == []
    put(store)
    assert store.read("student", KEY)


def test_no_space_left_is_a_store_error(store: Store) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with (
        pytest.raises(StoreError, match="No space left"),
        store.write("student", KEY),
        full.open("wb", buffering=0) as stream,
    ):
        stream.write(b"x")
    assert not store.exists("student", KEY)


def test_other_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError), disk_errors("a file", tmp_path):
        raise TimeoutError(110, "timed out")


def test_a_root_that_is_a_file_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write student"):
        put(Store(tmp_path / "file"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_store_is_a_store_error(store: Store) -> None:
    put(store)
    mode = stat.S_IMODE(store.root.stat().st_mode)
    store.root.chmod(0o500)
    (store.root / "tmp").chmod(0o500)
    try:
        with pytest.raises(StoreError, match="Permission denied"):
            put(store, key="cd" * 32)
        assert store.read("student", KEY)
    finally:
        store.root.chmod(mode)
        (store.root / "tmp").chmod(mode)


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="this system has no /sys")
def test_a_forbidden_store_is_a_store_error() -> None:
    with pytest.raises(StoreError, match="cannot write student in /sys/kernel/store"):
        put(Store("/sys/kernel/store"))


@pytest.mark.parametrize("key", ["../evil", "a/b", "", "A" * 64, "x" * 65, "a\n", ".", "a b"])
def test_keys_cannot_leave_the_store(store: Store, key: str) -> None:
    for action in (store.exists, store.read, store.path):
        with pytest.raises(ValueError, match="must match"):
            action("student", key)
        with pytest.raises(ValueError, match="must match"):
            action(key, KEY)
    with pytest.raises(ValueError, match="must match"), store.write("student", key):
        pass


def test_content_key_ignores_order_and_sees_values() -> None:
    assert content_key({"a": 1, "b": [2]}) == content_key({"b": [2], "a": 1})
    assert len({content_key(value) for value in (1, 1.0, "1", [1], None, True)}) == 6
    with pytest.raises(ValueError, match="JSON"):
        content_key(float("inf"))


def test_atomic_write_keeps_the_old_content_on_failure(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "file"
    atomic_write(path, b"old")
    with pytest.raises(TypeError):
        atomic_write(path, "text")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    atomic_write(path, b"new", durable=False)
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]
    assert path.read_bytes() == b"new"


def test_damage_is_told_once(tmp_path: Path) -> None:
    heard: list[str] = []
    store = Store(tmp_path, notify=heard.append)
    with store.write("student", "a" * 64) as draft:
        (draft.path / "file").write_text("content")
    (store.path("student", "a" * 64) / "file").write_text("CONTENT")
    for error in (ArtifactCorrupt, ArtifactMissing):
        with pytest.raises(error):
            store.read("student", "a" * 64)
    (text,) = heard
    assert "student aaaaaaaaaaaa" in text
    assert "has another checksum" in text
