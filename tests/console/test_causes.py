"""What counts as dying alike: folded errors, causes, their ids, and groups."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.causes import GROUPINGS, LONGEST, cause_id, cause_of, fold, group_letters, identify
from console.filters import FilterError, parse
from console.letters import record_of
from console.text.safe import is_clean
from tests.support.letters import DIED, made

HOSTILE = "\x1b]52;c;aGFjaw==\x07\x1b[31m[@click=app.leave]x[/x]\u202e\u200b\r\n \ud800"

ADDRESSES = st.ip_addresses().map(str).filter(lambda text: any(each.isdigit() for each in text))
"""Without a digit it may as well be a name of C++."""


class TestFold:
    @pytest.mark.parametrize(
        ("text", "folded"),
        [
            ("task 17 failed after 3.5 s", "task # failed after # s"),
            ("task -17 failed, +3.2e-5 of 1,234,567.89 left", "task # failed, # of # left"),
            ("used 98% of 1_000_000 tokens", "used #% of # tokens"),
            ("missing ids 1, 2, 3", "missing ids #"),
            ("gone after 1m30s, asked for 250ms, sent 3.5MiB of 12kb", "gone after #, asked for #, sent # of #"),
            ("1st, 2nd and 3rd attempt", "# and # attempt"),
            ("object at 0x7f3e355f0d50", "object at #"),
            ("commit deadbeef12 of deadbeefcafe", "commit # of deadbeefcafe"),
            ("job 3fa85f64-5717-4562-b3fc-2c963f66afa6 died", "job # died"),
            ("run 01ARZ3NDEKTSV4RRFFQ69G5FAV died", "run # died"),
            ("call_Ab3dE9fG12x is unknown", "call_# is unknown"),
            ("chatcmpl-9XyZAbCdEfGhIjKlMnOpQrStUvW is unknown", "chatcmpl-# is unknown"),
            ("req-8f3k2 timed out", "req-# timed out"),
            ("feat-12 has no spec", "feat-# has no spec"),
            ("bad token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N", "bad token #"),
            ("dial tcp 10.0.0.1:4222: refused", "dial tcp #: refused"),
            ("dial tcp [fe80::1ff:fe23:4567:890a]:4222: refused", "dial tcp [#]:#: refused"),
            ("dial tcp ::1 refused", "dial tcp # refused"),
            ("db-3.example.com:5432 refused", "db-#.example.com:# refused"),
            ("mail to bob.smith+x@example.co.uk bounced", "mail to # bounced"),
            (
                "for url 'https://api.example.com:443/v1/users/8812/items?id=3&x=y'",
                "for url 'https://api.example.com:#/v#/users/#/items?#'",
            ),
            ("postgres://app:pa55@db/main?sslmode=x).", "postgres://#@db/main?#)."),
            ("at 2026-01-01T12:03:04.123456Z", "at #"),
            ("at 2026-01-01 12:03:04,123+02:00", "at #"),
            ("at 12:03:04 on Mon, 05 Jan 2026 12:00:00 GMT", "at # on #"),
            ("since Mon Jan  5 12:00:00 2026", "since #"),
            ("5 decisions of 2026", "# decisions of #"),
            ("Http2ProtocolError: K8sAPIError, IPv6Error", "Http#ProtocolError: K#sAPIError, IPv#Error"),
            ("std::bad_alloc in a::b", "std::bad_alloc in a::b"),
            ("Zeitüberschreitung nach 30 s", "Zeitüberschreitung nach # s"),
            ("two  spaces\nand a line", "two spaces and a line"),
            ("no spec", "no spec"),
            ("", ""),
        ],
    )
    def test_what_differs_between_alike_deaths_is_folded(self, text, folded):
        assert fold(text) == folded
        assert fold(folded) == folded

    @pytest.mark.parametrize(
        "text",
        [
            "HTTP 404 Not Found",
            "HTTP/1.1 502 Bad Gateway",
            "HTTPError: 503 Server Error",
            "Client error '404 Not Found'",
            "ApiStatusError: 529 overloaded",
            "status 429 from upstream",
            "status_code=429",
            '{"statusCode": 500}',
            "exit code 137",
            "exited with code 1",
            "exit status 2",
            "killed by signal 9",
            "[Errno 111] Connection refused",
            "ERROR 1062",
            "err_code=10071",
            "code E1234",
            "SQLSTATE[42P01]: undefined table",
        ],
    )
    def test_a_number_that_says_what_happened_stays(self, text):
        assert fold(text) == text

    @pytest.mark.parametrize(
        "text", ["Error: 17 items left", "could not decode 17 bytes", "code 123456", "status 3.5 of 4", "line 17"]
    )
    def test_a_number_that_only_stands_near_such_a_word_does_not(self, text):
        assert not any(character.isdigit() for character in fold(text))

    @given(st.text(max_size=2 * LONGEST))
    def test_any_text_is_folded_to_what_is_folded_no_further_and_is_no_longer(self, text):
        folded = fold(text)
        assert len(folded) <= LONGEST
        assert fold(folded) == folded

    @given(st.lists(st.sampled_from(["12", "a1", "#", "-", ":", "://", " ", "?", "http", "error", "f00d", ".", ","])))
    def test_so_are_texts_made_of_what_is_folded(self, parts):
        folded = fold("".join(parts))
        assert fold(folded) == folded

    @given(st.integers(min_value=0), st.integers(min_value=0))
    def test_two_numbers_are_alike(self, one, other):
        assert fold(f"after {one} tokens") == fold(f"after {other} tokens")

    @given(st.uuids(), st.uuids(), ADDRESSES, ADDRESSES)
    def test_so_are_two_ids_and_two_addresses(self, one, other, here, there):
        assert fold(f"task {one} on {here} died") == fold(f"task {other} on {there} died")

    @pytest.mark.parametrize(
        "part",
        ["1", "1.", "a@", "a.b-", ":", "dead:", "#-", "a1", "http", "error:", "mon ", "1,234,", "1m", "ab://", "0x", "12:",
         "+-", " ", "Aa1", "\u0660", "\ud800", "x" * 99 + " "],
    )  # fmt: skip
    def test_a_megabyte_of_anything_costs_no_more_than_an_error(self, part):
        text = part * (1_000_000 // len(part))
        started = time.perf_counter()
        fold(text)
        assert time.perf_counter() - started < 0.1


class TestCause:
    def test_is_the_folded_error_or_else_the_reason(self):
        assert cause_of(made(error="no answer in 5 s")) == "TimeoutError: no answer in # s"
        assert cause_of(made(error_type="", error="no answer")) == "no answer"
        assert cause_of(made(error_type="", error="")) == "max-deliver"
        assert cause_of(made(error_type="", error=" \n")) == "max-deliver"
        assert cause_of(made(error="x" * 5000 + "1")) == fold("TimeoutError: " + "x" * 600)

    def test_id_is_of_place_and_cause_and_the_same_in_every_process(self):
        letter = made(error="no answer in 5 s")
        known = cause_id(letter)
        assert len(known) == 8
        assert set(known) <= set("0123456789abcdef")
        assert cause_id(made(2, error="no answer in 77 s")) == known
        assert identify("tasks.backend", "TimeoutError: no answer in 9 s", "") == known
        assert cause_id(replace(letter, name="frontend")) != known
        assert cause_id(replace(letter, error="no spec")) != known
        code = "from console.causes import identify; print(identify('tasks.backend', 'TimeoutError: no answer in 9 s', ''))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == known

    def test_filter_takes_its_beginning(self):
        letter, other = made(), made(2, error="no spec")
        known = cause_id(letter)
        for text in (known, known[:4], known.upper()):
            wanted = parse(f"cause:{text}")
            assert (wanted.matches(record_of(letter)), wanted.matches(record_of(other))) == (True, False)
        assert parse(f"!cause:{known}").matches(record_of(other))
        assert parse(f"cause:{known},{cause_id(other)}").matches(record_of(other))

    @pytest.mark.parametrize("text", ["3fa", "3fa9c1d2e", "xyzz", "*", "3fa9*"])
    def test_filter_refuses_what_is_no_id(self, text):
        with pytest.raises(FilterError, match="4 to 8 hex digits"):
            parse(f"cause:{text}")


class TestGroups:
    def test_one_group_a_place_and_cause_the_largest_first_and_the_newest_letter_first(self):
        given = [
            made(1, error="no answer within 5 s"),
            made(2, kind="inbox", name="ceo", error_type="Reject", error="no spec"),
            made(3, error="no answer within 7 s"),
            made(4, kind="inbox", name="ceo", error="no answer within 5 s"),
            made(5, error="no answer within 9 s"),
        ]
        groups = group_letters(given)
        assert [(group.source, len(group.letters)) for group in groups] == [
            ("tasks.backend", 3),
            ("inbox.ceo", 1),
            ("inbox.ceo", 1),
        ]
        assert [each.seq for each in groups[0].letters] == [5, 3, 1]
        assert groups[0].newest.seq == 5
        assert groups[0].text == "TimeoutError: no answer within # s"
        assert [group.text for group in groups[1:]] == ["Reject: no spec", "TimeoutError: no answer within 5 s"]
        assert len({group.key for group in groups}) == 3
        assert [group.cause for group in groups] == [cause_id(group.newest) for group in groups]
        assert group_letters(reversed(given)) == groups, "however they come"

    def test_letters_that_died_of_exactly_the_same_keep_their_numbers(self):
        (group,) = group_letters([made(1, error="after 5 s"), made(2, error="after 5 s")])
        assert group.text == "TimeoutError: after 5 s"
        assert group.exact == ("tasks.backend", "TimeoutError: after 5 s")

    def test_what_happened_keeps_deaths_apart(self):
        groups = group_letters([made(1, error="HTTP 404 for /a/1"), made(2, error="HTTP 500 for /a/2")])
        assert len(groups) == 2

    def test_tells_times_attempts_and_replays(self):
        first = DIED - timedelta(days=2)
        (group,) = group_letters(
            [made(1, deliveries=1), made(2, replays=2, first_at=first), made(3, deliveries=5, replays=1), made(4)]
        )
        assert (group.first_at, group.last_at) == (first, DIED - timedelta(seconds=56))
        assert group.deliveries == (1, 5)
        assert (group.replays, group.replayed) == (2, 2)

    def test_by_agent_subject_or_type_it_tells_what_most_of_them_died_of(self):
        given = [
            made(1, agent="a", type="x", subject="s.1"),
            made(2, agent="a", type="y", subject="s.1", error="no spec"),
            made(3, agent="a", type="y", subject="s.2"),
            made(4, agent="", type="", subject=""),
        ]
        assert [(group.source, len(group.letters)) for group in group_letters(given, "agent")] == [
            ("a", 3),
            ("no agent", 1),
        ]
        assert group_letters(given, "agent")[0].text == "TimeoutError: model did not answer, and 1 more"
        assert [group.source for group in group_letters(given, "type")] == ["y", "no type", "x"]
        assert [group.source for group in group_letters(given, "subject")] == ["s.1", "no subject", "s.2"]
        for by in ("agent", "subject", "type"):
            assert {group.cause for group in group_letters(given, by)} == {""}

    def test_ungrouped_all_are_one_without_a_key_the_newest_first(self):
        (group,) = group_letters([made(1), made(3, error="other"), made(2)], "none")
        assert group.key == ""
        assert [letter.seq for letter in group.letters] == [3, 2, 1]

    @pytest.mark.parametrize("by", GROUPINGS)
    def test_nothing_is_no_group(self, by):
        assert group_letters([], by) == ()

    @pytest.mark.parametrize("by", GROUPINGS)
    def test_titles_are_inert_and_short_and_the_exact_ones_exact(self, by):
        texts = dict.fromkeys(("name", "subject", "type", "reason", "error_type", "error", "agent"), HOSTILE)
        groups = group_letters(
            [made(1, **texts), made(2, **texts | {"error_type": "", "error": ""}), made(3, error="x" * 9999)], by
        )
        for group in groups:
            assert is_clean(group.source)
            assert is_clean(group.text)
            assert max(len(group.source), len(group.text)) <= 200
        if by not in ("none", "cause"):
            assert HOSTILE in {group.exact[0] for group in groups}

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=30))
    def test_every_letter_is_in_exactly_one_group_of_each_grouping(self, given):
        letters = [made(seq, agent=agent, error=f"HTTP 40{code}") for seq, (agent, code) in enumerate(given, 1)]
        for by in GROUPINGS:
            found = [letter.seq for group in group_letters(letters, by) for letter in group.letters]
            assert sorted(found) == [letter.seq for letter in letters]
            assert [len(group.letters) for group in group_letters(letters, by)] == sorted(
                (len(group.letters) for group in group_letters(letters, by)), reverse=True
            )
