from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest

from trainables.errors import StoreError
from trainables.remote import PAUSES, Remote, checked_url


@pytest.fixture(params=["s3", "memory", "file"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Remote]:
    if request.param == "s3":
        yield Remote(request.getfixturevalue("s3"))
    elif request.param == "file":
        yield Remote(f"file://{tmp_path}/remote")
    else:
        yield Remote(f"memory://{tmp_path.name}/place")
        fsspec.filesystem("memory").store.clear()


def test_what_is_written_is_read(remote: Remote) -> None:
    assert remote.read("a/file") is None
    remote.write("a/file", b"one")
    remote.write("a/file", b"two")
    remote.write("b", b"")
    assert remote.read("a/file") == b"two"
    assert remote.read("b") == b""
    assert remote.names("a") == ["a/file"]
    assert remote.names("nothing") == []


def test_only_one_creates(remote: Remote) -> None:
    assert remote.create("lease", b"first")
    assert not remote.create("lease", b"second")
    assert remote.read("lease") == b"first"
    assert remote.create("lease", b"first")  # the answer to the first attempt was lost
    remote.remove("lease")
    assert remote.create("lease", b"second")


def test_removing(remote: Remote) -> None:
    remote.remove("nothing")
    remote.remove_all("nothing")
    for name in ("a/1", "a/b/2", "ab"):
        remote.write(name, b"x")
    remote.remove_all("a")
    assert remote.names("a") == []
    assert remote.read("ab") == b"x"


def test_times_are_those_of_the_service(remote: Remote) -> None:
    assert remote.modified("file") is None
    remote.write("file", b"")
    when = remote.modified("file")
    assert when is not None
    assert abs((datetime.now(UTC) - when).total_seconds()) < 30


def test_files_travel(remote: Remote, tmp_path: Path) -> None:
    contents = {f"{i}/file {i} ü.bin": bytes([i]) * i * 1000 for i in range(6)}
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(content)
    remote.upload([(tmp_path / name, f"deep/{name}") for name in contents])
    remote.download([(f"deep/{name}", tmp_path / "back" / name) for name in contents])
    back = {name: (tmp_path / "back" / name).read_bytes() for name in contents}
    assert back == contents
    with pytest.raises(FileNotFoundError):
        remote.download([("deep/none", tmp_path / "none")])
    remote.upload([])
    remote.download([])


class Flaky:
    """A service that is away for some calls."""

    def __init__(self, files: Any, errors: list[Exception]) -> None:
        self._files = files
        self._errors = errors

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if self._errors:
                raise self._errors.pop()
            return getattr(self._files, name)(*args, **options)

        return call


def flaky(tmp_path: Path, errors: list[Exception]) -> tuple[Remote, list[float]]:
    waited: list[float] = []
    remote = Remote(f"file://{tmp_path}/remote", pause=waited.append)
    remote._files = Flaky(remote._files, errors)
    return remote, waited


def test_an_outage_is_waited_for(tmp_path: Path) -> None:
    remote, waited = flaky(tmp_path, [ConnectionResetError("reset"), TimeoutError("slow")])
    remote.write("file", b"x")
    assert waited == list(PAUSES[:2])
    assert remote.read("file") == b"x"


def test_what_lasts_is_one_sentence(tmp_path: Path) -> None:
    remote, waited = flaky(tmp_path, [ConnectionResetError("line 1\nreset")] * 99)
    with pytest.raises(StoreError, match=r"cannot write file://.*/remote/file: reset; check"):
        remote.write("file", b"x")
    assert waited == list(PAUSES)


def test_what_is_forbidden_is_not_tried_again(tmp_path: Path) -> None:
    remote, waited = flaky(tmp_path, [PermissionError("Access Denied")])
    with pytest.raises(StoreError, match=r"cannot read .*Access Denied"):
        remote.read("file")
    assert waited == []


def test_a_full_disk_here_is_not_the_service(tmp_path: Path) -> None:
    remote, waited = flaky(tmp_path, [OSError(28, "No space left on device")])
    with pytest.raises(OSError, match="No space left"):
        remote.download([("file", tmp_path / "file")])
    assert waited == []


def test_a_bucket_that_is_not_there(s3: str) -> None:
    remote = Remote("s3://nobody-has-made-this/prefix")
    assert remote.read("file") is None
    with pytest.raises(StoreError, match=r"cannot write s3://nobody-has-made-this/prefix/file: "):
        remote.write("file", b"x")


def test_a_server_that_is_away(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("trainables.remote.PAUSES", (1.0,))
    waited: list[float] = []
    remote = Remote(s3, pause=waited.append)
    remote._files = type(remote._files)(skip_instance_cache=True)  # not yet connected
    with pytest.raises(StoreError, match=r"Could not connect .*; check the address of the store"):
        remote.read("file")
    assert waited == [1.0]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://user:secret@bucket/prefix", "must not carry credentials"),
        ("s3://key@bucket/prefix", "must not carry credentials"),
        ("s3://bucket/prefix?token=secret", "must not carry credentials"),
        ("s3://", "names no place"),
        ("nothing://bucket", "Protocol not known: nothing"),
    ],
)
def test_urls_that_cannot_be_used(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        Remote(url)
    assert "secret" not in str(caught.value)


def test_one_spelling() -> None:
    assert checked_url("s3://bucket/prefix/") == "s3://bucket/prefix"
