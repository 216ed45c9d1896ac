import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from trainables.data._archive import unpack
from trainables.errors import DataError


def tar(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def entry(
    name: str, size: int = 3, kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info


def contents(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_regular_files_of_both_kinds(tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tar.gz", entry("a", 0, tarfile.DIRTYPE), entry("a/b/c.txt"))
    unpack(archive, tmp_path / "tar")
    assert contents(tmp_path / "tar") == {"a/b/c.txt": 3}
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("pkg/", "")
        wheel.writestr("pkg/data.txt", "1234")
    unpack(tmp_path / "a.whl", tmp_path / "zip")
    assert contents(tmp_path / "zip") == {"pkg/data.txt": 4}


@pytest.mark.parametrize(
    "bad",
    [
        entry("../evil"),
        entry("/evil"),
        entry("a/../../evil"),
        entry("a\\..\\evil"),
        entry("link", 0, tarfile.SYMTYPE, "/etc/passwd"),
        entry("link", 0, tarfile.LNKTYPE, "ok"),
        entry("pipe", 0, tarfile.FIFOTYPE),
    ],
)
def test_members_that_leave_their_folder_are_refused(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    archive = tar(tmp_path / "bad.tar.gz", entry("ok"), bad)
    with pytest.raises(DataError, match="refused"):
        unpack(archive, tmp_path / "out" / "deep")
    assert contents(tmp_path / "out") == {"deep/ok": 3}


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "bad.whl", "w") as wheel:
        wheel.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="refused"):
        unpack(tmp_path / "bad.whl", tmp_path / "out")


def test_size_is_bounded_by_what_comes_out(tmp_path: Path) -> None:
    archive = tar(tmp_path / "bomb.tar.gz", entry("a", 4_000_000), entry("b", 4_000_000))
    assert archive.stat().st_size < 20_000
    with pytest.raises(DataError, match="more than 5000000 bytes"):
        unpack(archive, tmp_path / "out", most_bytes=5_000_000)
    assert sum(contents(tmp_path / "out").values()) <= 5_000_000


def test_two_members_of_one_name_do_not_overwrite(tmp_path: Path) -> None:
    archive = tar(tmp_path / "twice.tar.gz", entry("a"), entry("a", 5))
    with pytest.raises(DataError, match="not a readable archive"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 broken"])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.tar.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a readable archive"):
        unpack(path, tmp_path / "out")


def test_torn_download(tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tar.gz", *(entry(f"f{n}", 100_000) for n in range(9)))
    archive.write_bytes(archive.read_bytes()[:600])
    with pytest.raises(DataError, match="not a readable archive"):
        unpack(archive, tmp_path / "out")
