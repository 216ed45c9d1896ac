"""Files behind a URL: what a content store needs of S3, or of anything else fsspec knows.

Credentials and end points come from the usual variables and files of that service, such as
``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL`` or the role of the machine, and never from the URL: the
URL is written down and sent to every node.
"""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import fsspec

from trainables.errors import StoreError

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds to wait before each new attempt."""

_FINAL = (PermissionError, IsADirectoryError, NotADirectoryError)
_REFUSALS = {"InvalidBucketName", "InvalidRequest", "InvalidArgument", "MethodNotAllowed"}
_OWN_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_T = TypeVar("_T")


class Remote:
    """The files below a URL, each written and read as a whole.

    An outage is waited for, about half a minute; what lasts longer becomes a StoreError.

    Args:
        url: ``protocol://place/prefix``, without credentials.
        pause: Waits some seconds.

    Raises:
        StoreError: The URL cannot be used, or the package for its protocol is not installed.
    """

    def __init__(self, url: str, *, pause: Callable[[float], object] = time.sleep) -> None:
        self.url = checked_url(url)
        self._pause = pause
        self._files, base = _open(self.url)
        self._base = base.rstrip("/")

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, None if there is no such file."""
        try:
            content: bytes = self._try("read", name, self._files.cat_file, self._path(name))
        except FileNotFoundError:
            return None
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file, or replace it: a reader sees the old or the new."""
        self._put(name, self._files.pipe_file, self._path(name), content)

    def create(self, name: str, content: bytes) -> bool:
        """Write a file that is not there yet; tells whether this call, and no other, made it.

        NOTE: of several that try, one succeeds if the service can write conditionally, as S3 can.
        On one that cannot, all may succeed.
        """
        try:
            self._put(name, self._create, self._path(name), content)
        except FileExistsError:
            # The answer to a first attempt that succeeded may have been lost.
            return self.read(name) == content
        return True

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError):
            self._try("remove", name, self._files.rm_file, self._path(name))

    def remove_all(self, folder: str) -> None:
        """Remove a folder with all it holds, if it is there."""
        with suppress(FileNotFoundError):
            self._try("remove", folder, self._files.rm, self._path(folder), recursive=True)

    def names(self, folder: str) -> list[str]:
        """Return the names of all files below a folder, sorted."""
        try:
            found = self._try("list", folder, self._files.find, self._path(folder))
        except FileNotFoundError:
            return []
        return sorted(path.removeprefix(f"{self._base}/") for path in found)

    def modified(self, name: str) -> datetime | None:
        """Return when a file was written, by the clock of the service; None if it is not there."""
        try:
            when: datetime = self._try("look at", name, self._files.modified, self._path(name))
        except FileNotFoundError:
            return None
        return when

    def upload(self, pairs: Sequence[tuple[Path, str]]) -> None:
        """Copy files of this machine to names, several at once."""
        sources = [str(path) for path, _ in pairs]
        targets = [self._path(name) for _, name in pairs]
        if pairs:
            self._put(pairs[0][1], self._files.put, sources, targets)

    def download(self, pairs: Sequence[tuple[str, Path]]) -> None:
        """Copy files to this machine, several at once; their folders are made.

        Raises:
            FileNotFoundError: One of them is not there.
        """
        sources = [self._path(name) for name, _ in pairs]
        targets = [str(path) for _, path in pairs]
        if pairs:
            self._try("read", pairs[0][0], self._files.get, sources, targets)

    def _path(self, name: str) -> str:
        return f"{self._base}/{name}"

    def _put(self, name: str, call: Callable[..., object], *args: Any) -> None:
        try:
            self._try("write", name, call, *args)
        except FileNotFoundError as error:  # no such bucket
            raise self._problem("write", name, error) from error

    def _create(self, path: str, content: bytes) -> None:
        try:
            self._files.pipe_file(path, content, mode="create")
        except OSError as error:
            # Services that do not say which condition failed.
            if _code(error) == "PreconditionFailed":
                raise FileExistsError(path) from error
            raise

    def _try(self, verb: str, name: str, call: Callable[..., _T], *args: Any, **options: Any) -> _T:
        """Call, again and again while the service is away.

        Raises:
            FileNotFoundError: There is no such file.
            FileExistsError: There is one already.
            OSError: The disk of this machine is full or read-only.
            StoreError: It is forbidden, or the service stayed away.
        """
        for pause in (*PAUSES, None):
            try:
                return call(*args, **options)
            except (FileNotFoundError, FileExistsError):
                raise
            except _service_errors() as error:
                if getattr(error, "errno", None) in _OWN_DISK:
                    raise
                if pause is None or not _may_pass(error):
                    raise self._problem(verb, name, error) from error
            self._pause(pause)
        raise AssertionError("the last attempt returns or raises")

    def _problem(self, verb: str, name: str, error: Exception) -> StoreError:
        """Return what to tell the user about an error of the service."""
        lines = str(error).strip().splitlines()
        reason = lines[-1] if lines else type(error).__name__
        return StoreError(
            f"cannot {verb} {self.url}/{name}: {reason}; check the address of the store, its "
            "credentials and the network, then start the same command again"
        )


def checked_url(url: str) -> str:
    """Return a store's URL in its one spelling, without a slash at its end.

    Raises:
        StoreError: It carries credentials or options, or names no place.
    """
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None or parts.query:
        raise StoreError(
            f"the store {parts.scheme}://... must not carry credentials or options; give them by "
            "environment variables such as AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL"
        )
    if not (parts.netloc or parts.path.strip("/")):
        raise StoreError(f"the store {url!r} names no place; write it as s3://bucket/prefix")
    return url.rstrip("/")


def _open(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the URL's path in it."""
    # Listings that are remembered would hide what other nodes have written since.
    options: dict[str, Any] = {"use_listings_cache": False}
    protocol = urlsplit(url).scheme
    if protocol in {"s3", "s3a"}:
        # The attempts are counted here; three layers of them would multiply.
        options["config_kwargs"] = {"retries": {"total_max_attempts": 1, "mode": "standard"}}
    elif protocol in {"file", "local"}:
        options["auto_mkdir"] = True
    try:
        files, path = fsspec.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        cure = "s3:// needs 'pip install kd-orchestrator[s3]', others the package of their name"
        raise StoreError(f"cannot use the store {url}: {error}; {cure}") from error
    return files, str(path)


def _service_errors() -> tuple[type[Exception], ...]:
    """Return what a service's calls may raise; botocore's errors are no OSErrors."""
    module = sys.modules.get("botocore.exceptions")
    return (OSError,) if module is None else (OSError, module.BotoCoreError)


def _may_pass(error: Exception) -> bool:
    """Tell whether an error may be gone in a moment."""
    if isinstance(error, OSError):
        return not isinstance(error, _FINAL) and _code(error) not in _REFUSALS
    names = {base.__name__ for base in type(error).__mro__}
    return bool(names & {"ConnectionError", "HTTPClientError"})


def _code(error: BaseException) -> str | None:
    """Return S3's own name of an error, if it is one of S3."""
    response = getattr(error.__cause__, "response", None)
    return response["Error"].get("Code") if isinstance(response, dict) else None
