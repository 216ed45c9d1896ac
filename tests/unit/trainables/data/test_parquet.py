import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainables.data.parquet import Parquet
from trainables.errors import DataError


def write(folder: Path, **columns: Any) -> str:
    path = folder / "data.parquet"
    pq.write_table(pa.table(columns), path)
    return str(path)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([1, 0], ["1", "0"]),
        (["null", "nan"], ["null", "nan"]),
        ([True, False], ["true", "false"]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
    ],
)
def test_label_types(tmp_path: Path, labels: Any, expected: list[str]) -> None:
    table = Parquet(path=write(tmp_path, text=["x", "y"], label=labels, other=[1, 2])).read()
    assert table.texts == ["x", "y"]
    assert table.labels == expected


def test_gzip(tmp_path: Path) -> None:
    plain = Path(write(tmp_path, text=["x"], label=["a"]))
    packed = tmp_path / "packed.parquet.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert Parquet(path=str(packed)).read().texts == ["x"]


def test_bad_content(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="have no label"):
        Parquet(path=write(tmp_path, text=["x"], label=pa.array([None], pa.string()))).read()
    with pytest.raises(DataError, match="has type list"):
        Parquet(path=write(tmp_path, text=[["x"]], label=["a"])).read()
    with pytest.raises(DataError, match="did you mean 'texts'"):
        Parquet(path=write(tmp_path, texts=["x"], label=["a"])).read()
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 not parquet PAR1")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        Parquet(path=str(broken)).read()
