import errno
import os
from pathlib import Path

import pytest

from orchestrator.records import Stage, TrialState
from orchestrator.tracking.events import StageFinished, TrialFinished, TrialReported
from orchestrator.tracking.outbox import Cursor, Entry, Outbox, Position

BOUNDARY = TrialFinished(Stage.STUDENTS, "k", TrialState.COMPLETE)


def report(epoch: int) -> TrialReported:
    return TrialReported(Stage.STUDENTS, "k", epoch, {"val_loss": 0.5})


def read(outbox: Outbox, offset: int = 0) -> list[Entry]:
    return list(outbox.read_from(offset))


def test_appended_events_are_read_back_in_order_and_from_any_offset(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "deep" / "outbox.jsonl")
    assert read(outbox) == []
    assert outbox.last_seq == 0
    for epoch in range(5):
        outbox.append(report(epoch))
    entries = read(outbox)
    assert [entry.seq for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry.event for entry in entries] == [report(epoch) for epoch in range(5)]
    assert read(outbox, entries[2].offset) == entries[3:]


def test_a_second_start_continues_the_numbers(tmp_path: Path) -> None:
    path = tmp_path / "outbox.jsonl"
    first = Outbox(path)
    first.append(BOUNDARY)
    first.close()
    second = Outbox(path)
    assert second.last_seq == 1
    second.append(BOUNDARY)
    assert [entry.seq for entry in read(second)] == [1, 2]


@pytest.mark.parametrize("filler", [0, 300_000])
def test_a_torn_last_line_is_set_aside(tmp_path: Path, filler: int) -> None:
    path = tmp_path / "outbox.jsonl"
    first = Outbox(path)
    first.append(BOUNDARY)
    first.close()
    torn = b'{"seq":2,"type":"Tri' + b"x" * filler
    with path.open("ab") as stream:
        stream.write(torn)
    assert len(read(Outbox(path))) == 1
    second = Outbox(path)
    second.append(report(1))
    assert [entry.seq for entry in read(second)] == [1, 2]
    assert path.with_name("outbox.jsonl.torn").read_bytes() == torn + b"\n"


def test_a_damaged_line_is_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "outbox.jsonl"
    outbox = Outbox(path)
    for epoch in range(3):
        outbox.append(report(epoch))
    outbox.close()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\xff\x00" + lines[1][2:] + lines[2])
    again = Outbox(path)
    assert [entry.seq for entry in read(again)] == [1, 3]
    assert again.damaged == 1
    path.write_bytes(lines[0] + lines[1] + b"\xff" + lines[2][1:])
    again = Outbox(path)
    again.append(report(9))
    assert [entry.seq for entry in read(again)] == [1, 2, 3]


def test_only_boundaries_are_synced_to_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    outbox = Outbox(tmp_path / "outbox.jsonl")
    outbox.append(report(1))
    assert synced == []
    outbox.append(BOUNDARY)
    assert len(synced) == 1


def test_a_full_disk_keeps_events_in_memory_and_leaves_no_torn_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    outbox = Outbox(tmp_path / "outbox.jsonl", notify=said.append, limit=3)
    outbox.append(report(0))
    real_write = os.write
    half_written = []

    def full(descriptor: int, data: bytes) -> int:
        if not half_written:
            half_written.append(real_write(descriptor, data[:10]))
            return 10
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    outbox.append(BOUNDARY)
    for epoch in range(1, 5):
        outbox.append(report(epoch))
    assert len(said) == 1
    assert "No space left" in said[0]
    assert outbox.last_seq == 4
    assert outbox.path.read_bytes().endswith(b"\n")

    monkeypatch.setattr(os, "write", real_write)
    outbox.append(report(5))
    events = [entry.event for entry in read(outbox)]
    # The limit of three: the boundary is worth more than the oldest epochs.
    assert events == [report(0), BOUNDARY, report(3), report(4), report(5)]
    assert [entry.seq for entry in read(outbox)] == [1, 2, 3, 4, 5]
    assert said[1].endswith("2 events were lost meanwhile")


def test_a_home_that_cannot_be_made_does_not_raise(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    said: list[str] = []
    outbox = Outbox(tmp_path / "file" / "outbox.jsonl", notify=said.append)
    outbox.append(BOUNDARY)
    outbox.append(BOUNDARY)
    outbox.close()
    assert len(said) == 1


def test_reading_stops_before_a_line_that_is_still_being_written(tmp_path: Path) -> None:
    path = tmp_path / "outbox.jsonl"
    outbox = Outbox(path)
    outbox.append(report(0))
    end = path.stat().st_size
    outbox.append(report(1))
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    reader = Outbox(path)
    assert [entry.offset for entry in read(reader)] == [end]
    path.write_bytes(whole)
    assert [entry.seq for entry in read(reader, end)] == [2]


def test_the_cursor_belongs_to_one_outbox_and_one_destination(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.jsonl")
    outbox.append(StageFinished(Stage.OUTPUTS, time_ms=1))
    cursor = Cursor(tmp_path / "cursor.json", "http://user:secret@a")
    assert cursor.load(outbox) == Position()
    there = Position(outbox.path.stat().st_size, 1)
    cursor.save(outbox, there)
    assert cursor.load(outbox) == there
    assert "secret" not in cursor.path.read_text()
    assert Cursor(cursor.path, "http://b").load(outbox) == Position()

    outbox.close()
    outbox.path.unlink()
    other = Outbox(outbox.path)
    other.append(StageFinished(Stage.OUTPUTS, time_ms=2))
    assert cursor.load(other) == Position()


def test_a_broken_cursor_file_means_the_beginning(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.jsonl")
    outbox.append(BOUNDARY)
    cursor = Cursor(tmp_path / "cursor.json", "a")
    for content in (b"", b"null", b"{}", b'{"offset": "x"}', b"\xff"):
        cursor.path.write_bytes(content)
        assert cursor.load(outbox) == Position()
    cursor.save(outbox, Position(10_000, 9))
    assert cursor.load(outbox) == Position()
