"""Tables in files, chunk by chunk: csv, tsv, jsonl, each also as .gz, and parquet to read."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.errors import UsageError

CHUNK = 16_384

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_READABLE = (".csv", ".tsv", ".jsonl", ".parquet")


def read_chunks(path: Path) -> Iterator[tuple[pd.DataFrame, float]]:
    """Yield the rows of a file in chunks, and the share of the file that has been read.

    Cells of csv and tsv stay text as it is written: ``NA`` is a word, not a missing value.

    Raises:
        UsageError: There is no such file, or it is not what its name says.
    """
    kind, gz = _kind(path, _READABLE)
    if not path.is_file():
        raise UsageError(f"{path} does not exist or is not a file; check --input")
    try:
        if kind == ".parquet":
            yield from _parquet(path)
            return
        with path.open("rb") as stream:
            size = max(1, path.stat().st_size)
            for frame in _lines(stream, kind, gz):
                yield frame, min(1.0, stream.tell() / size)
    except (ValueError, OSError, EOFError, pa.ArrowException) as error:
        # pandas' ParserError and EmptyDataError, and UnicodeDecodeError, are ValueErrors.
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"cannot read {path} as {kind[1:]}: {reason}; it must be UTF-8 and complete"
        ) from error


def _lines(stream: IO[bytes], kind: str, gz: bool) -> Iterator[pd.DataFrame]:
    compression: Literal["gzip"] | None = "gzip" if gz else None
    if kind == ".jsonl":
        yield from pd.read_json(
            stream, lines=True, chunksize=CHUNK, dtype=False, compression=compression
        )
        return
    yield from pd.read_csv(
        stream,
        sep=_SEPARATORS[kind],
        chunksize=CHUNK,
        dtype=str,
        keep_default_na=False,
        compression=compression,
        encoding="utf-8-sig",
    )


def _parquet(path: Path) -> Iterator[tuple[pd.DataFrame, float]]:
    with pq.ParquetFile(path) as file:
        done, total = 0, max(1, file.metadata.num_rows)
        for batch in file.iter_batches(CHUNK):
            done += batch.num_rows
            yield batch.to_pandas(), done / total


class TableWriter:
    """Writes frames behind each other; the file appears when the ``with`` block ends well.

    Args:
        path: csv, tsv or jsonl, also .gz.

    Raises:
        UsageError: Its name says none of these, or its folder does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._kind, self._gz = _kind(path, (".csv", ".tsv", ".jsonl"))
        if not path.absolute().parent.is_dir():
            raise UsageError(f"the folder of {path} does not exist; make it, or choose another")
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        self._first = True

    def __enter__(self) -> TableWriter:
        return self

    def write(self, frame: pd.DataFrame) -> None:
        """Append the rows of a frame; every frame has the same columns."""
        options: dict[str, Any] = {
            "mode": "w" if self._first else "a",
            "compression": "gzip" if self._gz else None,
        }
        if self._kind == ".jsonl":
            frame.to_json(
                self._temporary, orient="records", lines=True, force_ascii=False, **options
            )
        else:
            frame.to_csv(
                self._temporary,
                sep=_SEPARATORS[self._kind],
                index=False,
                header=self._first,
                lineterminator="\n",
                **options,
            )
        self._first = False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and not self._first:
            self._temporary.replace(self._path)
        self._temporary.unlink(missing_ok=True)


def _kind(path: Path, allowed: tuple[str, ...]) -> tuple[str, bool]:
    """Return the suffix that says what a file is, and whether it is packed."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    gz = suffixes[-1:] == [".gz"]
    kind = (suffixes[:-1] if gz else suffixes)[-1:]
    if not kind or kind[0] not in allowed or (gz and kind[0] == ".parquet"):
        names = ", ".join(suffix[1:] for suffix in allowed)
        raise UsageError(f"{path} must be one of {names}, by its suffix (also .gz for text)")
    return kind[0], gz
