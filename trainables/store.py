"""The content store: the truth about artifacts.

An artifact is a folder ``<root>/<kind>/<key[:2]>/<key>/`` named by the hash of everything that
changes its content. It is written under a temporary name and renamed into place once its
``manifest.json`` is complete: no manifest, does not exist. Every file is verified against the
manifest before its first use in a process; what does not match is set aside and made again.

The root may be a URL, such as ``s3://bucket/prefix``: then the truth is there, and a folder of this
node holds copies (``trainables.remote_artifacts``).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from trainables.errors import ArtifactCorrupt, ArtifactMissing, StoreError

if TYPE_CHECKING:
    from trainables.remote import Remote
    from trainables.remote_artifacts import RemoteArtifacts

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
ASIDE = "set-aside"
CACHE_VARIABLE = "ORCHESTRATOR_CACHE"
"""Names the environment variable with this node's folder for copies of stores elsewhere."""

# This node's copy, and two that are fetched in its place.
_COPIES = 3
_NAME = re.compile(r"[a-z0-9_-]{1,64}\Z")
_DISK_ERRORS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR),
}


def content_key(payload: Any) -> str:
    """Return the sha256 of the canonical JSON of ``payload``: the name of what it describes.

    Floats are written by ``repr`` so that ``1.0`` and ``1`` differ as they do in a config;
    NaN and infinity are refused because JSON readers disagree about them.
    """
    text = json.dumps(
        {"schema": SCHEMA_VERSION, "payload": payload},
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def is_url(root: Path | str) -> bool:
    """Tell whether a store is a URL, rather than a folder."""
    return isinstance(root, str) and "://" in root


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's bytes as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def atomic_write(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Replace ``path`` by ``content`` so that a reader sees the old or the new, never a part.

    Args:
        path: Where to write; its folder is created.
        content: All bytes of the new file.
        durable: Survive a power cut (fsync); without it, only the death of this process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def disk_errors(what: str, root: Path, *, elsewhere: bool = False) -> Iterator[None]:
    """Turn the errors of a full, read-only or forbidden disk into a StoreError.

    Args:
        what: What is being written, for the message.
        root: Where it goes: the root folder of the store, or the home.
        elsewhere: The store is, and ``root`` holds copies.

    Raises:
        StoreError: The disk is full, read-only or not writable.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        code = _errno(error)
        if code not in _DISK_ERRORS:
            raise
        setting = CACHE_VARIABLE if elsewhere else "--home"
        raise StoreError(
            f"cannot write {what} in {root}: {os.strerror(code)}; "
            f"free space or point {setting} elsewhere, then start the same command again"
        ) from error


def _errno(error: OSError | SafetensorError) -> int:
    """Return the number of a disk error, 0 if it is none."""
    if isinstance(error, OSError):
        return error.errno or 0
    # safetensors writes from Rust; the number is only in the text.
    code = re.search(r"(?:os error|code:) (\d+)", str(error))
    return int(code[1]) if code else 0


@dataclass(frozen=True)
class Artifact:
    """A complete, verified artifact.

    Attributes:
        kind: What it is: ``data``, ``encoded``, ``teacher``, ``outputs``, ``student`` and so on.
        key: Its content key.
        path: The folder that holds its files.
        meta: What its writer recorded: metrics, lineage, sizes. JSON values only.
    """

    kind: str
    key: str
    path: Path
    meta: dict[str, Any]

    def file(self, name: str) -> Path:
        """Return the path of one of its files."""
        return self.path / name


@dataclass
class Draft:
    """An artifact being written: put files into ``path`` and facts into ``meta``."""

    path: Path
    meta: dict[str, Any] = field(default_factory=dict)


class Store:
    """A content store: a folder on a disk or a file system all nodes share, or a URL.

    Args:
        root: Its folder, or the URL of a place that fsspec knows.
        notify: Told in a sentence of every damaged artifact that is set aside.

    Attributes:
        address: The folder or the URL: what another process needs to open the same store.
        root: The folder; of a URL, this node's folder for copies.
        remote: The files behind the URL, None for a folder.

    Raises:
        StoreError: The URL cannot be used.
    """

    def __init__(self, root: Path | str, *, notify: Callable[[str], None] | None = None) -> None:
        self.notify = notify
        self.remote: Remote | None = None
        self._origin: RemoteArtifacts | None = None
        self._verified: dict[tuple[str, str], tuple[int, Artifact]] = {}
        if is_url(root):
            self._open(str(root))
        else:
            self.root = Path(root).absolute()
            self.address = str(self.root)

    def _open(self, url: str) -> None:
        from trainables.remote import Remote  # clients of services are slow to import
        from trainables.remote_artifacts import RemoteArtifacts, cache_folder

        self.remote = Remote(url)
        self.address = self.remote.url
        self.root = cache_folder(self.address)
        self._origin = RemoteArtifacts(self.remote, self.root)

    def path(self, kind: str, key: str) -> Path:
        """Return where the artifact lives or would live."""
        if not _NAME.match(kind) or not _NAME.match(key):
            raise ValueError(f"kind and key must match [a-z0-9_-]{{1,64}}, got {kind!r}, {key!r}")
        return self.root / kind / key[:2] / key

    def exists(self, kind: str, key: str) -> bool:
        """Tell whether a manifest is there; cheap, does not verify the content."""
        path = self.path(kind, key) / MANIFEST
        if self._origin is not None:
            return self._origin.manifest(kind, key) is not None
        return path.is_file()

    def read(self, kind: str, key: str) -> Artifact:
        """Return the artifact after checking sizes and checksums once per process.

        Raises:
            ArtifactMissing: There is no manifest.
            ArtifactCorrupt: Content and manifest disagree; the artifact has been set aside.
            StoreError: The URL of the store does not answer, or this disk is full.
        """
        folder = self.path(kind, key)
        known = self._verified.get((kind, key))
        try:
            stamp = (folder / MANIFEST).stat().st_mtime_ns
        except OSError as error:
            if self._origin is None:
                raise self._missing(kind, key) from error
            known = None
        if known is not None and known[0] == stamp:
            return known[1]
        if self._origin is not None:
            artifact = self._copy(kind, key, folder, self._origin)
            stamp = (folder / MANIFEST).stat().st_mtime_ns
        else:
            artifact = self._verify(kind, key, folder)
        self._verified[kind, key] = (stamp, artifact)
        return artifact

    def _missing(self, kind: str, key: str) -> ArtifactMissing:
        return ArtifactMissing(f"the store has no {kind} {key[:12]} in {self.address}")

    def meta(self, kind: str, key: str) -> dict[str, Any] | None:
        """Return what the manifest records, unverified, or None if there is none."""
        path = self.path(kind, key) / MANIFEST
        try:
            found = path.read_bytes() if self._origin is None else self._origin.manifest(kind, key)
            manifest = json.loads(found or b"")
        except (OSError, ValueError):
            return None
        meta: dict[str, Any] | None = manifest.get("meta")
        return meta

    def keys(self, kind: str) -> list[str]:
        """List the keys of all complete artifacts of ``kind``."""
        if self._origin is not None:
            return self._origin.keys(kind)
        return sorted(path.parent.name for path in (self.root / kind).glob(f"??/*/{MANIFEST}"))

    @contextmanager
    def write(self, kind: str, key: str) -> Iterator[Draft]:
        """Write an artifact: ``with store.write(kind, key) as draft: ...``.

        Leaving the block normally makes all files durable, writes the manifest and renames the
        folder into place. Leaving it by an exception leaves nothing. If another process finished
        the same artifact first, its content stands: both were made from the same key.

        Raises:
            StoreError: The disk is full, read-only or not writable, or the URL does not answer.
        """
        folder = self.path(kind, key)
        temporary = self.root / "tmp" / f"{kind}-{key[:12]}-{uuid.uuid4().hex}"
        try:
            with disk_errors(kind, self.root, elsewhere=self.remote is not None):
                temporary.mkdir(parents=True)
                draft = Draft(temporary)
                yield draft
                self._publish(kind, key, draft, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def delete(self, kind: str, key: str) -> None:
        """Remove an artifact; the manifest goes first, so a torn deletion does not exist."""
        folder = self.path(kind, key)
        self._verified.pop((kind, key), None)
        if self._origin is not None:
            self._origin.delete(kind, key)
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def _publish(self, kind: str, key: str, draft: Draft, folder: Path) -> None:
        files = {}
        for path in sorted(draft.path.rglob("*")):
            _fsync(path)
            if path.is_file():
                files[path.relative_to(draft.path).as_posix()] = {
                    "bytes": path.stat().st_size,
                    "sha256": file_digest(path),
                }
        manifest = {
            "schema": SCHEMA_VERSION,
            "kind": kind,
            "key": key,
            "created": time.time(),
            "files": files,
            "meta": draft.meta,
        }
        text = json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False)
        (draft.path / MANIFEST).write_text(text, encoding="utf-8")
        _fsync(draft.path / MANIFEST)
        _fsync(draft.path)
        if self._origin is not None and not self._origin.publish(kind, key, draft.path):
            return  # another was first; its content is copied when it is read
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists() and not (folder / MANIFEST).is_file():
            self._set_aside(folder)
        try:
            draft.path.rename(folder)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
        _fsync(folder.parent)

    def _verify(self, kind: str, key: str, folder: Path) -> Artifact:
        found = self._check(kind, key, folder)
        if isinstance(found, str):
            self._set_aside(folder)
            raise self._damaged(kind, key, found)
        return found

    def _copy(self, kind: str, key: str, folder: Path, origin: RemoteArtifacts) -> Artifact:
        """Verify this node's copy; a bad one is made anew, and again, before others suffer."""
        if origin.manifest(kind, key) is None:
            raise self._missing(kind, key)
        problem = ""
        for _ in range(_COPIES):
            found = origin.fetch(kind, key, folder) or self._check(kind, key, folder)
            if isinstance(found, Artifact):
                return found
            problem = found
            shutil.rmtree(folder, ignore_errors=True)
            if origin.refresh(kind, key) is None:
                raise self._missing(kind, key)  # withdrawn by another in this moment
        origin.withdraw(kind, key)
        raise self._damaged(kind, key, problem)

    def _check(self, kind: str, key: str, folder: Path) -> Artifact | str:
        """Return the artifact, or what is wrong with it."""
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
            problem = _mismatch(manifest, kind, key, folder)
        except FileNotFoundError as error:
            if self._origin is not None:
                return "its copy was removed"
            raise ArtifactMissing(f"{kind} {key[:12]} was removed from {self.root}") from error
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            problem = f"its manifest is unreadable ({error})"
        return problem or Artifact(kind, key, folder, manifest["meta"])

    def _damaged(self, kind: str, key: str, problem: str) -> ArtifactCorrupt:
        what = f"{kind} {key[:12]} in {self.address} is damaged: {problem}; "
        done = f"it was moved to {ASIDE}/" if self.remote is None else "its manifest was removed"
        text = f"{what}{done} and will be made again"
        if self.notify is not None:
            self.notify(text)
        return ArtifactCorrupt(text)

    def _set_aside(self, folder: Path) -> None:
        target = self.root / ASIDE / f"{folder.parent.parent.name}-{folder.name}-{time.time_ns()}"
        with disk_errors(
            f"what is damaged to {ASIDE}/", self.root, elsewhere=self.remote is not None
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            # Another process may have set it aside in the meantime.
            with suppress(FileNotFoundError):
                folder.rename(target)


def _mismatch(manifest: dict[str, Any], kind: str, key: str, folder: Path) -> str | None:
    """Say what is wrong with the files of an artifact, or None."""
    if manifest["schema"] != SCHEMA_VERSION:
        return f"schema {manifest['schema']} was written by another version"
    if (manifest["kind"], manifest["key"]) != (kind, key):
        return "its manifest belongs to another artifact"
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"]:
            return f"{name} has {path.stat().st_size} bytes instead of {expected['bytes']}"
        if file_digest(path) != expected["sha256"]:
            return f"{name} has another checksum"
    return None


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
