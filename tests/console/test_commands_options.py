"""Global options stand anywhere; what is no global option is left where it is."""

from __future__ import annotations

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from console.commands.options import FLAGS, VALUED, MissingValue, command_of, hoist
from console.commands.root import app, valued_options

VALUED_HERE = valued_options(typer.main.get_command(app))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", ""),
        ("fleet --json", "fleet --json"),
        ("fleet --server URL --json", "--server URL fleet --json"),
        ("fleet --server=URL --json", "--server=URL fleet --json"),
        ("--org acme fleet --write", "--org acme --write fleet"),
        ("dlq list --context prod --read-only --limit 3", "--context prod --read-only dlq list --limit 3"),
        ("dlq --config=f list --debug", "--config=f --debug dlq list"),
        ("events -- --server URL --write", "events -- --server URL --write"),
        ("events --write -- --server URL", "--write events -- --server URL"),
        ("dlq replay --reason --write 1", "dlq replay --reason --write 1"),
        ("dlq replay --reason=--write 1 --write", "--write dlq replay --reason=--write 1"),
        ("dlq list --filter --server", "dlq list --filter --server"),
        ("dlq list --filter", "dlq list --filter"),
        ("dlq list --server= ", "--server= dlq list"),
        ("fleet --writer --serverless x", "fleet --writer --serverless x"),
        ("fleet --server A --server B", "--server A --server B fleet"),
    ],
)
def test_global_options_move_to_the_front(line: str, expected: str) -> None:
    assert hoist(line.split(), VALUED_HERE) == expected.split()


@pytest.mark.parametrize("line", ["fleet --server", "--server --json fleet", "fleet --org -- x", "--config"])
def test_a_global_option_without_a_value_does_not_swallow_the_next_word(line: str) -> None:
    with pytest.raises(MissingValue, match="needs a value"):
        hoist(line.split(), VALUED_HERE)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--server x check", "check"),
        ("--bogus check", "check"),
        ("", ""),
        ("--version", ""),
        ("fleet --org check", "fleet"),
    ],
)
def test_the_command_is_the_first_word_that_is_no_option(line: str, expected: str) -> None:
    assert command_of(line.split()) == expected


WORDS = st.sampled_from(
    ["fleet", "dlq", "1", "--json", "--filter", "--", "--write", "--server=u", "--org", "x", "--all"]
)


@given(st.lists(WORDS, max_size=10))
def test_hoisting_keeps_every_word_and_the_order_of_the_rest(words: list[str]) -> None:
    try:
        moved = hoist(words, VALUED_HERE)
    except MissingValue:
        return
    assert sorted(moved) == sorted(words)
    assert hoist(moved, VALUED_HERE) == moved


def test_no_option_takes_a_value_in_one_command_and_none_in_another() -> None:
    def flags(command) -> set[str]:
        found = {
            name for each in command.params if each.param_type_name == "option" and each.is_flag for name in each.opts
        }
        return found.union(*(flags(each) for each in getattr(command, "commands", {}).values()))

    root = typer.main.get_command(app)
    assert not flags(root) & VALUED_HERE
    assert set(VALUED) <= VALUED_HERE
    assert set(FLAGS) <= flags(root)
    assert {"--filter", "--limit", "--to", "--rate", "--reason", "--since", "--agents", "--data-dir"} <= VALUED_HERE
