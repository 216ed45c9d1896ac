"""Downloading one archive of one release with pip's settings.

Wheels come through ``pip download``. Source archives cannot: pip runs their ``setup.py`` to learn
about dependencies, even with ``--no-deps``, and code of a package must not run here. For those
the package index is read directly, as PEP 503 describes, at the addresses pip is configured with.
"""

from __future__ import annotations

import ast
import base64
import os
import re
import shutil
import ssl
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit
from urllib.request import Request, url2pathname, urlopen

from trainables.errors import DataError

DEFAULT_INDEX = "https://pypi.org/simple"
PIP_SECONDS = 1800
READ_SECONDS = 60

_PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
_ENDINGS = (".tar.gz", ".zip", ".tar.bz2", ".tgz")


def normalise(name: str) -> str:
    """Return a project name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def download_wheel(name: str, version: str, folder: Path) -> Path:
    """Download the wheel of a release with pip; returns the file.

    Raises:
        DataError: There is none, or pip cannot reach an index.
    """
    command = [*_PIP, "download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    result = _pip([*command, f"{name}=={version}"])
    wheels = list(folder.glob("*.whl"))
    if result.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    lines = (result.stderr or result.stdout).strip().splitlines()
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    raise DataError(f"no wheel ({(errors or lines or ['pip said nothing'])[-1]})")


def download_sdist(name: str, version: str, folder: Path) -> Path:
    """Download the source archive of a release without running anything in it.

    Raises:
        DataError: There is none, or no index can be reached.
    """
    settings = pip_settings()
    problems = []
    for page in settings.pages(normalise(name)):
        try:
            for link in _links(page, settings):
                file = unquote(urlsplit(link).path).rpartition("/")[2]
                if _is_sdist(file, name, version):
                    with _open(link, settings) as source, (folder / file).open("wb") as target:
                        shutil.copyfileobj(source, target)
                    return folder / file
        except (OSError, HTTPException, ValueError) as error:
            problems.append(f"{_without_credentials(page)}: {error}")
    found = "; ".join(problems) or "not in any configured index"
    raise DataError(f"no source archive ({found})")


@dataclass(frozen=True)
class PipSettings:
    """Where pip looks for packages, and how it checks the other side.

    Attributes:
        indexes: Base addresses of simple indexes.
        find_links: Folders or pages with archives.
        certificates: File with the accepted certificate authorities, or None for the system's.
    """

    indexes: tuple[str, ...]
    find_links: tuple[str, ...]
    certificates: str | None

    def pages(self, project: str) -> list[str]:
        """Return the addresses of all pages or folders that may list a project."""
        return [*self.find_links, *(f"{index.rstrip('/')}/{project}/" for index in self.indexes)]


def pip_settings() -> PipSettings:
    """Read the settings pip would use: files, then variables, then the defaults."""
    values = _environment() | _configured()
    no_index = values.get("no-index", "").lower() in {"1", "true", "yes", "on"}
    main = values.get("index-url", DEFAULT_INDEX)
    indexes = () if no_index else (main, *values.get("extra-index-url", "").split())
    return PipSettings(
        tuple(indexes), tuple(values.get("find-links", "").split()), values.get("cert")
    )


def _environment() -> dict[str, str]:
    return {
        name.removeprefix("PIP_").replace("_", "-").lower(): value
        for name, value in os.environ.items()
        if name.startswith("PIP_")
    }


def _configured() -> dict[str, str]:
    # Later sections override earlier ones; ":env:" is what PIP_* variables say.
    sections: dict[str, dict[str, str]] = {"global": {}, "download": {}, ":env:": {}}
    for line in _pip([*_PIP, "config", "list"]).stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in sections:
            sections[section][option] = str(ast.literal_eval(value))
    return {name: value for section in sections.values() for name, value in section.items()}


def _pip(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"pip did not finish within {PIP_SECONDS} s") from error


def _links(page: str, settings: PipSettings) -> list[str]:
    """Return the absolute addresses a page or a local folder lists."""
    local = _local_path(page)
    if local is not None and local.is_dir() and not (local / "index.html").is_file():
        return [entry.resolve().as_uri() for entry in sorted(local.iterdir())]
    address = page if local is None else (local / "index.html").resolve().as_uri()
    with _open(address, settings) as response:
        parser = _Anchors()
        parser.feed(response.read().decode("utf-8", errors="replace"))
    return [urljoin(address, link) for link in parser.links]


class _Anchors(HTMLParser):
    """Collects the targets of the links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if tag == "a" and name == "href" and value]


def _open(address: str, settings: PipSettings) -> IO[bytes]:
    parts = urlsplit(address)
    if parts.scheme not in {"https", "http", "file"}:
        raise ValueError(f"cannot open an address of type {parts.scheme!r}")
    request = Request(_without_credentials(address), headers={"Accept": "text/html, */*;q=0.1"})
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
    context = None
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=settings.certificates)
    response: IO[bytes] = urlopen(request, timeout=READ_SECONDS, context=context)
    return response


def _without_credentials(address: str) -> str:
    parts = urlsplit(address)
    if "@" not in parts.netloc:
        return address
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _local_path(page: str) -> Path | None:
    parts = urlsplit(page)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return Path(page) if parts.scheme == "" else None


def _is_sdist(file: str, name: str, version: str) -> bool:
    for ending in _ENDINGS:
        if file.endswith(ending):
            return normalise(file.removesuffix(ending)) == normalise(f"{name}-{version}")
    return False
