"""Artifacts behind a URL, and their copies on this node.

An artifact is the files ``<kind>/<key[:2]>/<key>/<sha256>/<name>`` and, written last and only if
nobody has, ``<kind>/<key[:2]>/<key>/manifest.json``. Files that carry their hash in their path
cannot be mixed up by two writers of one key, whose bytes may differ, and half an upload is never
read. The service is the truth about what exists; the folder on this node only saves downloads, and
its copy is used only while its manifest is the service's.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from trainables.remote import Remote
from trainables.store import CACHE_VARIABLE, MANIFEST, disk_errors

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_PLACE = re.compile(rf"[^/]+/../([^/]+)/{re.escape(MANIFEST)}\Z")


def cache_folder(url: str) -> Path:
    """Return this node's folder for the artifacts of a store elsewhere.

    It is below ``ORCHESTRATOR_CACHE``, else below the user's folder for caches; it may be removed
    whenever no sweep runs.
    """
    base = os.environ.get(CACHE_VARIABLE)
    if not base:
        user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        base = f"{user}/kd-orchestrator"
    readable = re.sub(r"[^a-z0-9]+", "-", url.lower()).strip("-")[:40]
    digest = hashlib.sha256(url.encode("utf-8")).hexdigest()[:12]
    return Path(base).absolute() / f"{readable}-{digest}"


class RemoteArtifacts:
    """The artifacts of one store elsewhere.

    Args:
        remote: Its files.
        root: This node's folder for them.
    """

    def __init__(self, remote: Remote, root: Path) -> None:
        self._remote = remote
        self._root = root
        self._manifests: dict[tuple[str, str], bytes] = {}

    def manifest(self, kind: str, key: str) -> bytes | None:
        """Return the manifest, None if there is none; asked for once, because it never changes."""
        known = self._manifests.get((kind, key))
        if known is None:
            known = self._remote.read(f"{_place(kind, key)}/{MANIFEST}")
            if known is not None:
                self._manifests[kind, key] = known
        return known

    def keys(self, kind: str) -> list[str]:
        """List the keys of all complete artifacts of ``kind``."""
        found = (_PLACE.match(name) for name in self._remote.names(kind))
        return sorted(match[1] for match in found if match)

    def fetch(self, kind: str, key: str, folder: Path) -> str | None:
        """Make this node's copy what the service has; unverified, as files on a disk are.

        Args:
            kind: Kind of the artifact.
            key: Its key; its manifest is there.
            folder: Where the copy belongs.

        Returns:
            Why it cannot be copied, or None.

        Raises:
            StoreError: The service is away, or this disk is full.
        """
        manifest = self.manifest(kind, key)
        if manifest is None:
            return "its manifest is gone"
        with suppress(OSError):
            if (folder / MANIFEST).read_bytes() == manifest:
                return None
        try:
            files = _files(manifest)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return f"its manifest is unreadable ({error})"
        temporary = self._root / "tmp" / f"{kind}-{key[:12]}-{uuid.uuid4().hex}"
        place = _place(kind, key)
        try:
            with disk_errors(f"a copy of {kind}", self._root, elsewhere=True):
                temporary.mkdir(parents=True)
                self._remote.download(
                    [(f"{place}/{digest}/{name}", temporary / name) for name, digest in files]
                )
                (temporary / MANIFEST).write_bytes(manifest)
                _replace(folder, temporary)
        except FileNotFoundError:
            return "files are missing"
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return None

    def publish(self, kind: str, key: str, folder: Path) -> bool:
        """Upload a finished artifact; tells whether it is this one that stands.

        Args:
            kind: Kind of the artifact.
            key: Its key.
            folder: Its files and its manifest.

        Raises:
            StoreError: The service is away or refuses.
        """
        manifest = (folder / MANIFEST).read_bytes()
        place = _place(kind, key)
        files = _files(manifest)
        self._remote.upload([(folder / name, f"{place}/{digest}/{name}") for name, digest in files])
        if self._remote.create(f"{place}/{MANIFEST}", manifest):
            self._manifests[kind, key] = manifest
            return True
        self._discard(kind, key, files)
        return False

    def _discard(self, kind: str, key: str, files: Sequence[tuple[str, str]]) -> None:
        """Remove what was uploaded in vain."""
        try:
            kept = _files(self.refresh(kind, key) or b"")
        except (ValueError, TypeError, KeyError, AttributeError):
            return
        for name, digest in set(files).difference(kept):
            self._remote.remove(f"{_place(kind, key)}/{digest}/{name}")

    def refresh(self, kind: str, key: str) -> bytes | None:
        """Return the manifest after asking for it again."""
        self._manifests.pop((kind, key), None)
        return self.manifest(kind, key)

    def withdraw(self, kind: str, key: str) -> None:
        """Let an artifact that is damaged there no longer exist, unless it is already another."""
        name = f"{_place(kind, key)}/{MANIFEST}"
        known = self._manifests.pop((kind, key), None)
        if known is not None and self._remote.read(name) == known:
            self._remote.remove(name)

    def delete(self, kind: str, key: str) -> None:
        """Remove an artifact; the manifest goes first, so a torn deletion does not exist."""
        self._manifests.pop((kind, key), None)
        self._remote.remove(f"{_place(kind, key)}/{MANIFEST}")
        self._remote.remove_all(_place(kind, key))


def _place(kind: str, key: str) -> str:
    return f"{kind}/{key[:2]}/{key}"


def _files(manifest: bytes) -> list[tuple[str, str]]:
    """Return name and digest of each file.

    Raises:
        ValueError: It is no manifest, or a name would leave the folder of the artifact.
        TypeError, KeyError, AttributeError: It has another form.
    """
    files = []
    for name, facts in json.loads(manifest)["files"].items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or name in {"", ".", MANIFEST}:
            raise ValueError(f"{name!r} is no name of a file")
        if not _DIGEST.match(facts["sha256"]):
            raise ValueError(f"{name} has no checksum")
        files.append((name, facts["sha256"]))
    return files


def _replace(folder: Path, fresh: Path) -> None:
    """Put a fresh copy in the place of an old one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        fresh.rename(folder)
    except OSError as error:
        # Another process of this node was faster; its copy is as good.
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
