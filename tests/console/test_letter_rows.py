"""How dead letters become rows: groups, folds, marks, notes, and what is made anew when something changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from console.causes import GROUPINGS, Grouping, cause_id, group_letters
from console.notes import about_cause, about_letter
from console.operations.ledger import Note
from console.screens.group_text import group_text, noted_letter_text
from console.screens.letter_rows import (
    FLAT_COLUMNS,
    GROUP_COLUMNS,
    LETTER_COLUMNS,
    NAMED_COLUMNS,
    VARIANTS,
    LetterBook,
    letter_rows,
)
from console.text.safe import is_clean
from console.widgets.row_model import Cell, Column, Row, arrange
from patterns import DeadLetter
from tests.support.letters import DIED, made

HOSTILE = "\x1b]52;c;aGFjaw==\x07\x1b[31m[@click=app.leave]x[/x]\u202e\u200b\r\n"
PLAIN = dict.fromkeys(("bright", "dim", "bad", "accent"), "")
OPEN: frozenset[str] = frozenset()


def cell(row: Row, columns: tuple[Column, ...], id: str) -> Cell:
    """The cell of one column."""
    return row.cells[[column.id for column in columns].index(id)]


def rows_of(letters: list[DeadLetter], by: Grouping = "cause", **options: Any) -> tuple[Row, ...]:
    return letter_rows(group_letters(letters, by), OPEN, DIED, **options)


def note(about: str, text: str = "known, wait") -> dict[str, Note]:
    """One note of two minutes ago."""
    return {about: Note(about, text, "bob@host", (DIED - timedelta(minutes=2)).timestamp())}


class TestRows:
    def test_every_row_has_a_cell_for_each_column(self):
        group, member = rows_of([made()])
        assert (len(group.cells), len(member.cells)) == (len(GROUP_COLUMNS), len(LETTER_COLUMNS))
        assert len(rows_of([made()], "agent")[0].cells) == len(NAMED_COLUMNS)
        assert len(rows_of([made()], "none")[0].cells) == len(FLAT_COLUMNS)

    def test_a_group_and_below_it_its_letters_unless_it_is_folded(self):
        groups = group_letters([made(1), made(2, replays=2), made(3, error="other")])
        found = letter_rows(groups, OPEN, DIED)
        assert [(row.variant, row.indent, row.glyph, row.markable) for row in found] == [
            ("group", 0, "▾", False),
            ("", 1, "", True),
            ("", 1, "", True),
            ("group", 0, "▾", False),
            ("", 1, "", True),
        ]
        assert [row.key for row in found if row.markable] == ["2", "1", "3"]
        folded = letter_rows(groups, frozenset({groups[0].key}), DIED)
        assert [(row.glyph, row.key) for row in folded] == [("▸", groups[0].key), ("▾", groups[1].key), ("", "3")]

    def test_a_group_tells_count_attempts_replays_and_when(self):
        first = DIED - timedelta(hours=2)
        group = rows_of([made(1), made(2, replays=2, deliveries=1, first_at=first)])[0]
        assert cell(group, GROUP_COLUMNS, "source").text == "tasks.backend"
        assert cell(group, GROUP_COLUMNS, "count") == Cell("2", "bad", 2)
        assert cell(group, GROUP_COLUMNS, "tries").text == "tries 1…3"
        assert cell(group, GROUP_COLUMNS, "replays") == Cell("↻2", "warn", 2)
        assert cell(group, GROUP_COLUMNS, "seen").text == "2h…58s ago"

    def test_what_is_the_same_is_said_once_and_what_was_never_replayed_says_nothing(self):
        group = rows_of([made(1)])[0]
        assert cell(group, GROUP_COLUMNS, "tries").text == "tries 3"
        assert cell(group, GROUP_COLUMNS, "replays").text == ""
        assert cell(group, GROUP_COLUMNS, "seen").text == "59s ago"

    def test_a_letter_tells_its_tries_and_that_it_was_replayed(self):
        _, fresh, again = rows_of([made(1, replays=2), made(2)])
        assert cell(fresh, LETTER_COLUMNS, "replays") == Cell("replays 0", "dim", 0)
        assert cell(again, LETTER_COLUMNS, "replays") == Cell("replays 2 ↻", "warn", 2)
        assert cell(again, LETTER_COLUMNS, "tries").text == "tries 3"
        assert cell(again, LETTER_COLUMNS, "seq") == Cell("1", "dim", 1)

    def test_ungrouped_every_letter_tells_where_and_what_of(self):
        found = rows_of([made(1), made(2, error_type="", error="")], "none")
        assert [row.key for row in found] == ["2", "1"]
        assert [cell(row, FLAT_COLUMNS, "error").text for row in found] == [
            "max-deliver",
            "TimeoutError: model did not answer",
        ]
        assert {cell(row, FLAT_COLUMNS, "source").text for row in found} == {"tasks.backend"}
        assert all(row.markable and row.variant == "flat" for row in found)

    def test_a_group_tells_how_many_of_its_letters_are_marked_while_not_all_are(self):
        letters = [made(seq) for seq in range(1, 4)]
        for marks, told in (((), "3"), (("1",), "1/3"), (("1", "2", "3"), "3"), (("9",), "3")):
            assert cell(rows_of(letters, marks=marks)[0], GROUP_COLUMNS, "count") == Cell(told, "bad", 3)

    def test_a_noted_cause_and_a_noted_letter_bear_a_sign(self):
        one, two = made(1), made(2)
        group, *letters = rows_of([one, two], notes=note(about_cause(cause_id(one))) | note(about_letter(one)))
        assert cell(group, GROUP_COLUMNS, "cause").text.startswith("✎ TimeoutError")
        assert [cell(row, LETTER_COLUMNS, "type").text for row in letters] == ["code.feature", "✎ code.feature"]
        assert rows_of([one], "none", notes=note(about_letter(one)))[0].cells[2].text.startswith("✎ ")

    @pytest.mark.parametrize(
        ("cells", "missing"),
        [(73, set()), (69, {"tries"}), (60, {"tries", "replays"}), (50, {"tries", "replays", "seen"})],
    )
    def test_where_it_is_narrow_the_cause_stays_and_the_attempts_go(self, cells, missing):
        shown = {placed.column.id: placed.width for placed in arrange(GROUP_COLUMNS, cells)}
        assert {column.id for column in GROUP_COLUMNS} - shown.keys() == missing
        assert shown["cause"] >= 22

    def test_no_letters_no_rows(self):
        for by in GROUPINGS:
            assert rows_of([], by) == ()

    @pytest.mark.parametrize("by", GROUPINGS)
    def test_no_cell_lets_hostile_texts_through(self, by):
        texts = dict.fromkeys(
            ("name", "subject", "id", "type", "reason", "error_type", "error", "agent", "stream", "correlation_id"),
            HOSTILE,
        )
        found = rows_of([made(1, **texts), made(2, **texts | {"error_type": "", "error": ""})], by)
        shown = [each.text for row in found for each in row.cells]
        assert [text for text in shown if not is_clean(text)] == []
        assert any("click=app.leave" in text for text in shown), "sanitised and not left out"

    def test_variants_are_those_of_the_rows(self):
        used = {row.variant for by in GROUPINGS for row in rows_of([made()], by)}
        assert used == {"", *VARIANTS}


class TestBook:
    def book(self, letters: list[DeadLetter], expression: str = "", by: Grouping = "cause") -> LetterBook:
        book = LetterBook()
        assert book.update(letters, expression, by)
        return book

    def test_nothing_changed_makes_nothing_anew(self):
        letters = [made(seq) for seq in range(1, 5)]
        book, notes = self.book(letters), dict[str, Note]()
        groups, rows = book.groups, book.rows(OPEN, DIED, notes, ())
        assert not book.update(list(letters), "", "cause")
        assert book.groups is groups
        again = book.rows(OPEN, DIED, notes, ())
        assert again == rows
        assert all(one is other for one, other in zip(again[1:], rows[1:], strict=True))

    @pytest.mark.parametrize("expression", ["", "role:backend", "age:>1s"])
    def test_what_came_went_or_was_replaced_is_seen(self, expression):
        letters = [made(seq) for seq in range(1, 5)]
        book = self.book(letters, expression)
        book.rows(OPEN, DIED, {}, ())
        assert book.update([*letters[1:], made(9, error="other")], expression, "cause")
        assert [[letter.seq for letter in group.letters] for group in book.groups] == [[4, 3, 2], [9]]
        # The stream was made anew: the same sequence, another letter.
        other = replace(made(2), entry="tasks.backend.99-1", type="code.review")
        assert book.update([other], expression, "cause")
        assert cell(book.rows(OPEN, DIED, {}, ())[1], LETTER_COLUMNS, "type").text == "code.review"

    def test_filter_grouping_and_notes_are_seen(self):
        letters = [made(1), made(2, agent="backend-2", error="no spec"), made(3)]
        book = self.book(letters)
        assert book.update(letters, "no spec", "cause")
        assert list(book.by_seq) == ["2"]
        assert book.update(letters, "agent:backend-1", "cause")
        assert list(book.by_seq) == ["1", "3"]
        assert book.update(letters, "", "agent")
        assert [group.source for group in book.groups] == ["backend-1", "backend-2"]
        assert book.update(letters, "", "none")
        assert book.by_key == {}
        signed = book.rows(OPEN, DIED, note(about_letter(letters[0])), ())
        assert [row.cells[2].text[0] for row in signed] == ["T", "T", "✎"]
        assert not book.update(letters, "colour:red", "none"), "one that cannot be read lets all through"
        assert len(book.all) == 3

    def test_knows_the_group_of_a_letter_and_of_a_group(self):
        book = self.book([made(1), made(2, error="other")])
        for group in book.groups:
            assert book.group_of(group.key) is group
            assert book.group_of(str(group.newest.seq)) is group
        assert book.group_of("99") is None
        assert book.group_of(None) is None
        book.update([made(1)], "", "none")
        assert book.group_of("1") is None


class TestTexts:
    def test_a_group_in_words_above_its_newest_letter(self):
        letters = [made(1), made(2, agent="backend-2", replays=2), made(3, type="code.review", deliveries=1)]
        (group,) = group_letters(letters)
        text = group_text(group, next(iter(note(about_cause(group.cause)).values())), DIED, PLAIN).plain
        assert (
            "3 dead letters  tasks.backend\nTimeoutError: model did not answer\n✎ known, wait  bob@host, 2m ago\n"
            in text
        )
        for line in (
            "first seen   59s ago",
            "last seen    57s ago",
            "tries        1…3",
            "replayed     1 of them, up to 2",
        ):
            assert f"\n{line}" in text
        assert "\nagents       backend-1 2, backend-2 1\n" in text
        assert "\ntypes        code.feature 2, code.review 1\n" in text
        assert text.index("the newest of them, seq 3") < text.index("code.review  t-3")

    def test_a_group_of_one_is_its_letter(self):
        (group,) = group_letters([made(1)])
        assert group_text(group, None, DIED, PLAIN).plain == noted_letter_text(made(1), [], DIED, PLAIN).plain

    def test_notes_are_inert(self):
        letter = made(1)
        (written,) = note(about_letter(letter), HOSTILE).values()
        text = noted_letter_text(letter, [written, replace(written, author=HOSTILE)], DIED, PLAIN).plain
        assert is_clean(text, multiline=True)
        assert "click=app.leave" in text
