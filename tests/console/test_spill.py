"""Spill files: exact, complete before anything is removed, and refused in one line when they are not."""

from __future__ import annotations

import json
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.operations.errors import OperationError
from console.operations.spill import SpillFile, SpillWriter, format_ns, is_complete, tell_kept, tell_restored
from patterns.headers import parse_time_ns
from patterns.stored import StoredMessage, parse_headers

HEAD = {"action": "purge", "stream": "INBOX_CEO", "job": "4f1c22aa", "reason": "why"}


def message(seq, body=b"{}", block=b"NATS/1.0\r\nX: 1\r\nX: 2\r\nY:\xff\xfe\r\n\r\n"):
    return StoredMessage(
        "agents.ceo.inbox.note", seq, 1_700_000_000_123_456_789 + seq, parse_headers(block), body, block
    )


def written(directory, *messages, head=HEAD):
    spill = SpillWriter(directory, head)
    spill.write_all(messages)
    spill.complete()
    return spill.path


def test_what_is_written_is_read_again_byte_by_byte(tmp_path):
    sent = [message(1), message(7, b"\x00\xff"), message(8, b"", b"")]
    with SpillFile(written(tmp_path / "spill", *sent)) as found:
        check(found, sent)


def check(found, sent):
    assert list(found.messages()) == sent
    assert [each.header_block for each in found.messages()] == [each.header_block for each in sent]
    assert found.message(7).body == b"\x00\xff"
    assert found.message(2) is None
    assert (len(found), found.finished, found.stream, found.kept, found.restored) == (
        3,
        True,
        "INBOX_CEO",
        None,
        set(),
    )
    assert found.head["reason"] == "why"
    assert "message bodies" in found.head["holds"]


def test_the_file_is_its_users_own_and_names_what_it_is(tmp_path):
    path = written(tmp_path / "spill", message(1), head=HEAD | {"stream": "../evil/\x1b[2J"})
    assert path.parent == tmp_path / "spill"
    assert path.name.endswith("-4f1c22aa.jsonl")
    assert "/" not in path.name
    assert "\x1b" not in path.name
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_what_was_kept_and_what_was_put_back_is_remembered(tmp_path):
    path = written(tmp_path, message(1), message(2))
    tell_kept(path, [1, 2])
    tell_kept(path, [2])
    tell_restored(path, [1])
    tell_restored(path, [])
    with SpillFile(path) as found:
        assert (found.kept, found.restored, len(found)) == ({2}, {1}, 2)


def test_a_line_that_a_full_disk_cut_off_swallows_neither_the_messages_nor_the_next_line(tmp_path):
    path = written(tmp_path, message(1), message(2))
    with path.open("ab") as file:
        file.write(b'{"kept": [1, ')
    tell_kept(path, [2])
    with SpillFile(path) as found:
        assert (found.kept, len(found), found.finished) == ({2}, 2, True)
    assert is_complete(path)
    assert not is_complete(tmp_path / "nowhere")


def test_a_file_that_was_cut_off_is_not_finished(tmp_path):
    path = written(tmp_path, message(1), message(2))
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"\n", 0, -1) - 5])
    with SpillFile(path) as found:
        assert (found.finished, len(found)) == (False, 1)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{}\n", b"hello\n", b'{"spill": 2, "id": "x"}\n', b'{"spill": 1}\n', b"\xff\xfe\n", b"[" * 100_000 + b"\n",
        b'{"spill": 1, "id": "x"}\n{"seq": "1"}\n', b'{"spill": 1, "id": "x"}\n{"seq": -1, "subject": "a"}\n',
        b'{"spill": 1, "id": "x"}\n{"seq": 1, "subject": "a", "time": "today", "headers": null, "data": ""}\n',
        b'{"spill": 1, "id": "x"}\n{"seq": 1, "subject": "a", "time": "2026-01-01T00:00:00Z", "headers": "%", "data": ""}\n',
    ],
)  # fmt: skip
def test_what_is_no_spill_file_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(OperationError) as refused:
        SpillFile(path)
    assert "\n" not in str(refused.value)
    assert str(path) in str(refused.value)


def test_sequences_that_do_not_rise_are_refused(tmp_path):
    path = written(tmp_path, message(2), message(1))
    with pytest.raises(OperationError, match="must rise"):
        SpillFile(path)


def test_a_file_that_is_not_there_or_cannot_be_written_is_told(tmp_path):
    with pytest.raises(OperationError, match="No such file"):
        SpillFile(tmp_path / "nowhere")
    (tmp_path / "taken").write_text("a file, not a directory")
    with pytest.raises(OperationError, match="nothing was removed"):
        SpillWriter(tmp_path / "taken", HEAD)


@given(st.integers(0, 2**63 - 1))
def test_times_are_exact_to_the_nanosecond(ns):
    assert parse_time_ns(format_ns(ns)) == ns


def test_each_line_is_json_on_its_own(tmp_path):
    path = written(tmp_path, message(1, b"\n\r\n"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [next(iter(line)) for line in lines] == ["spill", "seq", "complete"]
