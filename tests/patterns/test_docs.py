"""The documentation says what is true: its programs run, its configurations load, its tables and links hold.

What a page in `patterns/docs` promises by the language of a fenced block:

* `python`: a complete program. It may `await` at the top level; `url` is the address of a server of its own. A block that
  defines `test_...` functions is a file for pytest with `asyncio_mode = "auto"` instead.
* `toml`: a configuration for `FleetConfig.from_mapping`.
* `nats` or `conf`: a configuration that a nats-server starts with.
* `console` or `shell`: lines that begin with `nats` create what `provision()` creates, or name what it created (agents `ceo`
  and `devops`, role `backend`, subscription `security-events`); lines that begin with `agent-console` are commands it has.
* `mermaid`, `json`, `text` and none at all: to look at.

And by the first cell of a table's head: `option` and `argument of ...` (their second is `default`: as TOML or `none`, and as
Python), `header`, `reason`, `code`.
"""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import inspect
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

import patterns
from console.commands.options import hoist
from console.commands.root import app, valued_options
from patterns import DeadLetterConfig, Fleet, FleetConfig, InvalidConfig, Reject, RemoteError
from patterns.letter import PREFIX, REASONS
from patterns.names import filters_overlap
from patterns.server import LocalServer, ServerError
from tests.support.fleets import connected, fast
from tests.support.waiting import until

FOLDER = Path(patterns.__file__).parent / "docs"
PATTERN_PAGES = ("request-reply", "task-queue", "inbox", "events")
SKELETON = (
    "Use it when",
    "Run it",
    "What is created on the server",
    "Configuration",
    "Guarantees and their limits",
    "Trade-offs",
    "When it goes wrong",
    "Testing your handler",
)
LANGUAGES = {"python", "toml", "nats", "conf", "console", "shell", "mermaid", "json", "text", ""}
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BACKTICKS = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Table:
    """One table, its head apart."""

    page: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Page:
    """One page."""

    name: str
    text: str

    @property
    def blocks(self) -> list[Block]:
        """Its fenced blocks."""
        return [
            Block(self.name, self.text.count("\n", 0, match.start()) + 1, match[1].strip(), match[2])
            for match in FENCE.finditer(self.text)
        ]

    @property
    def prose(self) -> str:
        """The page without its fenced blocks."""
        return FENCE.sub("", self.text)

    @property
    def tables(self) -> list[Table]:
        """Its tables."""
        found = re.findall(r"(?:^\|.*\|$\n?)+", self.prose, re.MULTILINE)
        parsed = [[_cells(line) for line in table.splitlines()] for table in found]
        return [Table(self.name, rows[0], tuple(rows[2:])) for rows in parsed]

    @property
    def headings(self) -> list[str]:
        """Its headings of the second level."""
        return re.findall(r"^## (.*)$", self.prose, re.MULTILINE)

    @property
    def anchors(self) -> set[str]:
        """What a link to a heading of this page ends with."""
        titles = re.findall(r"^#+ (.*)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1]))


PAGES = [Page(path.name, path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.md"))]


def blocks(*languages: str) -> list[Any]:
    """All blocks in one of these languages, as parameters of a test."""
    found = [block for page in PAGES for block in page.blocks if block.language in languages]
    return [pytest.param(block, id=str(block)) for block in found]


# -- the pages themselves


def test_every_page_is_here() -> None:
    assert {page.name for page in PAGES} >= {
        *(f"{name}.md" for name in PATTERN_PAGES),
        *(f"{name}.md" for name in ("choosing", "composition", "envelope", "dead-letters", "differences")),
    }


@pytest.mark.parametrize("name", PATTERN_PAGES)
def test_the_page_of_a_pattern_has_the_common_sections(name: str) -> None:
    (page,) = (page for page in PAGES if page.name == f"{name}.md")
    assert tuple(page.headings) == SKELETON
    assert page.text.count("```mermaid") == 1
    assert f"python -m patterns.examples.{name.replace('-', '_')}`" in page.text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_block_escapes_its_check(page: Page) -> None:
    assert {block.language for block in page.blocks} <= LANGUAGES
    assert page.text.count("```") == 2 * len(page.blocks), "a fence that is indented or not closed"
    assert not re.search(r"exactly[- ]once[- ]execution", page.text, re.IGNORECASE)


# -- programs


async def run_program(block: Block, url: str) -> dict[str, Any]:
    """Run a block as `python -m asyncio` would, and return its names."""
    # The page's own lines, so that a traceback points into it.
    source = "\n" * block.line + block.text
    code = compile(source, str(FOLDER / block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    names: dict[str, Any] = {"__name__": "documented", "url": url}
    try:
        running = eval(code, names)
        if inspect.isawaitable(running):
            async with asyncio.timeout(40):
                await running
    finally:
        for value in names.values():
            if isinstance(value, LocalServer):
                value.stop()
    return names


def is_test_file(block: Block) -> bool:
    return re.search(r"^(?:async )?def test_", block.text, re.MULTILINE) is not None


def run_test_file(block: Block, folder: Path) -> None:
    """Run a block as a file of somebody's tests."""
    (folder / "test_documented.py").write_text(block.text)
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\nfilterwarnings = error\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, cwd=folder)
    assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("block", blocks("python"))
async def test_every_program_runs(block: Block, server: LocalServer, tmp_path: Path) -> None:
    if is_test_file(block):
        await asyncio.to_thread(run_test_file, block, tmp_path)
    else:
        await run_program(block, server.url)


# -- configurations


def load_toml(block: Block) -> FleetConfig:
    return FleetConfig.from_mapping(tomllib.loads(block.text))


@pytest.mark.parametrize("block", blocks("toml"))
def test_every_configuration_is_accepted(block: Block) -> None:
    assert isinstance(load_toml(block), FleetConfig)


def start_with(block: Block) -> None:
    with LocalServer(config=block.text) as server:
        assert server.running


@pytest.mark.parametrize("block", blocks("nats", "conf"))
def test_every_server_configuration_starts_a_server(block: Block) -> None:
    start_with(block)


# -- command lines

NS = 1_000_000_000
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
RETENTION = {"limits": "limits", "work": "workqueue", "interest": "interest"}
STREAM_FLAGS = {
    "subjects": "subjects",
    "retention": "retention",
    "discard": "discard",
    "storage": "storage",
    "max-msgs": "max_msgs",
    "max-msgs-per-subject": "max_msgs_per_subject",
    "max-age": "max_age",
    "max-consumers": "max_consumers",
    "dupe-window": "duplicate_window",
    "replicas": "num_replicas",
    "allow-direct": "allow_direct",
    "discard-per-subject": "discard_new_per_subject",
}
CONSUMER_FLAGS = {
    "ack": "ack_policy",
    "deliver": "deliver_policy",
    "filter": "filter_subjects",
    "wait": "ack_wait",
    "max-deliver": "max_deliver",
    "max-pending": "max_ack_pending",
    "metadata": "metadata",
}
BUCKET_FLAGS = {"ttl": "max_age", "history": "max_msgs_per_subject", "replicas": "num_replicas"}
SWITCHES = {"allow-direct", "discard-per-subject", "pull", "defaults"}
OTHER_VERBS = {
    "stream": {"info", "view", "get", "ls", "report", "subjects", "state", "purge", "rmm", "edit", "backup", "restore"},
    "consumer": {"info", "ls", "report", "pause", "resume", "next", "edit"},
    "kv": {"get", "ls", "info", "history", "watch", "status"},
}
"""Verbs of the nats command line whose first argument names a stream, or a bucket."""
ELSEWHERE = {"micro", "server", "account", "context", "events", "auth", "rtt"}
"""Commands of it that name nothing of ours."""


def command_lines(block: Block, program: str) -> Iterator[list[str]]:
    """The command lines of a block that start this program, a prompt and comments left out."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words[:1] == [program]:
            yield [word for word in words[1:] if word != "&"]


def options_of(words: Iterable[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Arguments and flags of a `nats` command line."""
    arguments, flags, left = [], [], list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("--"):
            arguments.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        if not equals and name not in SWITCHES:
            value = left.pop(0)
            assert not value.startswith("-"), f"the nats command line wants --{name}={value}"
        flags.append((name, value))
    return arguments, flags


def config_of(flags: Iterable[tuple[str, str]], known: dict[str, str]) -> dict[str, Any]:
    """The server's configuration that these flags stand for."""
    config: dict[str, Any] = {}
    for name, value in flags:
        if name in ("pull", "defaults"):
            continue
        assert name in known, f"no flag --{name} is known here; known: {sorted(known)}"
        field = known[name]
        if field in ("subjects", "filter_subjects"):
            config.setdefault(field, []).append(value)
        elif field == "metadata":
            config.setdefault(field, {}).update([value.split("=", 1)])
        elif field in ("max_age", "duplicate_window", "ack_wait"):
            config[field] = int(value[:-1]) * UNITS[value[-1]] * NS
        elif name in SWITCHES:
            config[field] = True
        else:
            config[field] = RETENTION[value] if field == "retention" else int(value) if _is_number(value) else value
    return config


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdigit()


async def configurations(fleet: Fleet) -> dict[str, dict[str, Any]]:
    """What exists on a server: streams by name, consumers by `stream/name`."""
    found: dict[str, dict[str, Any]] = {}
    streams, _ = await fleet.jetstream.streams()
    for stream in streams:
        name = stream["config"]["name"]
        found[name] = stream["config"]
        for consumer in await fleet.jetstream.consumers(name):
            found[f"{name}/{consumer['name']}"] = consumer["config"]
    for config in found.values():
        config["metadata"] = {
            key: value for key, value in (config.get("metadata") or {}).items() if not key.startswith("_nats")
        }
    return found


async def create(fleet: Fleet, words: list[str], wanted: dict[str, dict[str, Any]]) -> str | None:
    """Do what a `nats ... add` line does, or check what another names; the name of what it made."""
    while words[0].startswith("-"):  # global flags
        words = words[1 if "=" in words[0] else 2 :]
    match words[:2]:
        case ["stream", "add"]:
            (name,), flags = options_of(words[2:])
            await fleet.jetstream.api(f"STREAM.CREATE.{name}", {"name": name, **config_of(flags, STREAM_FLAGS)})
            return name
        case ["consumer", "add"]:
            (stream, name), flags = options_of(words[2:])
            config = {"name": name, "durable_name": name, **config_of(flags, CONSUMER_FLAGS)}
            filters = config.get("filter_subjects", [])
            suffix = ""
            if len(filters) == 1:
                config["filter_subject"] = config.pop("filter_subjects")[0]
                suffix = f".{filters[0]}"
            request = {"stream_name": stream, "config": config, "action": "create"}
            await fleet.jetstream.api(f"CONSUMER.CREATE.{stream}.{name}{suffix}", request)
            return f"{stream}/{name}"
        case ["kv", "add"]:
            (bucket,), flags = options_of(words[2:])
            # What the nats command line makes of a bucket, as ADR-8 lays it out.
            config = {
                "name": f"KV_{bucket}", "subjects": [f"$KV.{bucket}.>"], "storage": "file", "discard": "new",
                "max_msgs_per_subject": 1, "duplicate_window": 120 * NS, "allow_rollup_hdrs": True, "deny_delete": True,
                "allow_direct": True, **config_of(flags, BUCKET_FLAGS),
            }  # fmt: skip
            await fleet.jetstream.api(f"STREAM.CREATE.{config['name']}", config)
            return str(config["name"])
        case [("stream" | "consumer" | "kv") as group, verb]:
            assert verb in OTHER_VERBS[group], f"nats {group} {verb} is not a command known here"
            named = [word for word in words[2:] if not word.startswith("-")]
            path = ("KV_" if group == "kv" else "") + "/".join(named[: 2 if group == "consumer" else 1])
            assert not named or path in wanted, f"provision() makes no {path}"
        case ["pub" | "req" as verb, subject]:
            streams = [name for name, config in wanted.items() if _stores(config, subject)]
            assert bool(streams) == (verb == "pub"), f"nats {verb} {subject}: stored by {streams}"
        case [group, *_]:
            assert group in {*ELSEWHERE, "pub", "req", "sub"}, f"nats {group} is not a command known here"
    return None


def _stores(config: dict[str, Any], subject: str) -> bool:
    return any(filters_overlap(pattern, subject) for pattern in config.get("subjects") or [])


async def check_nats_lines(pages: Iterable[Page]) -> set[str]:
    """Compare what the lines of these pages make with what the library makes; what they make."""
    made: set[str] = set()
    lines = [
        (block, words)
        for page in pages
        for block in page.blocks
        if block.language in ("console", "shell")
        for words in command_lines(block, "nats")
    ]
    with LocalServer() as ours, LocalServer() as theirs:
        async with connected(ours.url, agents=["ceo", "devops"], roles=["backend"], config=FleetConfig()) as fleet:
            await fleet.events.subscription("security", "deployment.>", "security.*")
            wanted = await configurations(fleet)
        async with Fleet.connect(theirs.url) as fleet:
            for block, words in lines:
                name = await create(fleet, words, wanted)
                if name is None:
                    continue
                assert name in wanted, f"{block}: provision() makes no {name}"
                assert name not in made, f"{block}: {name} is shown twice"
                made.add(name)
                given = (await configurations(fleet))[name]
                differing = {
                    key: (given.get(key), wanted[name].get(key))
                    for key in {*given, *wanted[name]}
                    if given.get(key) != wanted[name].get(key)
                }
                assert differing == {}, f"{block}: {name}"
    return made


async def test_the_nats_lines_create_what_provision_creates() -> None:
    assert await check_nats_lines(PAGES) == {
        "INBOX_CEO", "INBOX_CEO/ceo-processor", "TASKS_BACKEND", "TASKS_BACKEND/backend-workers", "EVENTS",
        "EVENTS/security-events", "DLQ", "KV_TASKS", "KV_RECEIPTS",
    }  # fmt: skip


def parse_console_line(words: list[str]) -> None:
    """Parse as the program would; it raises for an unknown command or option, and nothing is run."""
    command = typer.main.get_command(app)
    context = command.make_context("agent-console", hoist(words, valued_options(command)), resilient_parsing=False)
    while (rest := [*context._protected_args, *context.args]) and hasattr(context.command, "resolve_command"):
        _, command, left = context.command.resolve_command(context, rest)
        context = command.make_context(command.name, left, parent=context)


@pytest.mark.parametrize("block", blocks("console", "shell"))
def test_every_agent_console_line_is_a_command_it_has(block: Block) -> None:
    for words in command_lines(block, "agent-console"):
        parse_console_line(words)


# -- links


def dead_links(page: Page) -> list[str]:
    """Links of a page to files or headings that are not there."""
    pages = {other.name: other for other in PAGES} | {page.name: page}

    def leads(target: str) -> bool:
        path, _, anchor = target.partition("#")
        if anchor:
            return (found := pages.get(path or page.name)) is not None and anchor in found.anchors
        return (FOLDER / path).exists()

    return [target for target in LINK.findall(page.prose) if "://" not in target and not leads(target)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Page) -> None:
    assert dead_links(page) == []


# -- tables


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """The options of a configuration, or of a TOML value, by their dotted names."""
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {
        name: found
        for key, each in value.items()
        for name, found in flat(each, f"{path}.{key}" if path else key).items()
    }


def first_code(cell: str) -> str:
    """What stands first between backticks."""
    match = BACKTICKS.search(cell)
    assert match is not None, f"nothing between backticks in {cell!r}"
    return match[1]


def rows_of(pages: Iterable[Page], head: str) -> list[tuple[str, ...]]:
    """Rows of all tables whose head begins with this."""
    return [row for page in pages for table in page.tables if table.head[0] == head for row in table.rows]


def documented_options(pages: Iterable[Page]) -> dict[str, Any]:
    """Each option that a table names, with the default it states; an option of two tables has one default."""
    found: dict[str, Any] = {}
    for page in pages:
        for table in page.tables:
            if table.head[0] != "option":
                continue
            assert table.head[1] == "default", table.head
            for row in table.rows:
                text = first_code(row[1])
                default = None if text == "none" else tomllib.loads(f"x = {text}")["x"]
                for name, value in flat(default, first_code(row[0])).items():
                    assert found.setdefault(name, value) == value, f"{page.name}: {name} has two defaults"
    return found


def check_options(pages: Iterable[Page]) -> None:
    """Compare the tables with the dataclasses, both ways."""
    real, stated = flat(FleetConfig()), documented_options(pages)
    assert stated.keys() - real.keys() == set(), "no such option"
    assert real.keys() - stated.keys() == set(), "nowhere documented"
    wrong = {name: (value, real[name]) for name, value in stated.items() if value != real[name]}
    assert wrong == {}, "another default (stated, real)"


def test_every_option_is_documented_with_its_default() -> None:
    check_options(PAGES)


def check_arguments(pages: Iterable[Page]) -> int:
    """Compare the tables of arguments with the signatures; how many there were."""
    checked = 0
    for page in pages:
        for table in page.tables:
            match = re.fullmatch(r"argument of `(\w+)\.(\w+)`", table.head[0])
            if match is None:
                continue
            parameters = inspect.signature(getattr(getattr(patterns, match[1]), match[2])).parameters
            for row in table.rows:
                name, stated = first_code(row[0]), first_code(row[1])
                assert name in parameters, f"{page.name}: {table.head[0]} has no {name}"
                assert parameters[name].default == eval(stated, vars(patterns).copy()), f"{page.name}: {name}"
                checked += 1
    return checked


def test_every_argument_is_documented_with_its_default() -> None:
    assert check_arguments(PAGES) > 10


def test_all_reasons_of_a_death_are_documented() -> None:
    assert [first_code(row[0]) for row in rows_of(PAGES, "reason")] == list(REASONS)


def test_all_codes_of_an_error_reply_are_documented() -> None:
    responder = (FOLDER.parent / "responder.py").read_text()
    sent = set(re.findall(r"_refuse\(\s*msg,\s*endpoint,\s*(\d+)", responder))
    assert {row[0] for row in rows_of(PAGES, "code")} == sent


def numberless(name: str) -> str:
    """A header of which there is one for each death, as the pages name it."""
    return re.sub(r"(?<=-Death-)\d+$", "<n>", name)


def documented_headers(pages: Iterable[Page]) -> set[str]:
    return {name for row in rows_of(pages, "header") for name in BACKTICKS.findall(row[0])}


def test_no_header_is_documented_that_nobody_sets() -> None:
    source = "".join(path.read_text() for path in FOLDER.parent.glob("*.py"))
    for name in documented_headers(PAGES):
        text = name.removesuffix("<n>")
        given = f'{{PREFIX}}{text.removeprefix(PREFIX)}"', f'"{text.removeprefix(PREFIX)}"', f'"{text}"'
        assert any(each in source for each in given), name


async def test_every_header_of_real_messages_is_documented(server: LocalServer) -> None:
    seen: set[str] = set()
    letters = DeadLetterConfig(max_replays=1, warn_replays=1)
    async with connected(server.url, agents=["ceo"], roles=["backend"], config=fast(dead_letters=letters)) as fleet:
        ceo, worker = fleet.agent("ceo"), fleet.agent("backend-1", role="backend")

        @worker.on_task("plan")
        async def delegate(task: patterns.Delivery) -> None:
            await worker.submit("backend", "code", {}, id="child", expires_in=600)

        @worker.on_task("code")
        async def refuse(task: patterns.Delivery) -> None:
            seen.update(task.headers)
            raise Reject("no spec")

        @worker.on_request("load")
        async def failing(request: patterns.Message) -> None:
            seen.update(request.headers)
            raise ValueError("broken")

        async with worker:
            await ceo.submit("backend", "plan")
            for generation in (1, 2):
                letter = (await until(lambda: fleet.dead_letters.list("tasks", "backend")))[0]
                seen.update(letter.message.headers)
                if generation == 1:
                    await fleet.dead_letters.replay(letter.seq, by="test")
            answer = await fleet.nc.request(fleet.names.rpc_subject("backend-1", "load"), b"{}", timeout=5)
            seen.update(answer.headers or {})
            with pytest.raises(RemoteError):
                await ceo.request("backend-1", "load")
        for message in await fleet.inbox("ceo").peek():
            seen.update(message.headers)
    # What was exercised must not shrink unseen.
    assert {"Agent-Replay-Of", "Agent-Hops", "ce-expirytime", "Dead-Letter-Death-1", "Nats-Service-Error"} <= seen
    assert {numberless(name) for name in seen} - documented_headers(PAGES) == set()


# -- the checks themselves can fail


def page(text: str, name: str = "wrong.md") -> Page:
    return Page(name, textwrap.dedent(text))


def fenced(language: str, text: str) -> Page:
    return page(f"```{language}\n{text}\n```\n")


async def test_a_program_that_is_wrong_is_found_out(server: LocalServer, tmp_path: Path) -> None:
    (block,) = fenced(
        "python", "from patterns import Fleet\nasync with Fleet.connect(url) as fleet:\n    assert 1 == 2"
    ).blocks
    with pytest.raises(AssertionError):
        await run_program(block, server.url)
    (block,) = fenced("python", "def test_it():\n    assert 1 == 2").blocks
    assert is_test_file(block)
    with pytest.raises(AssertionError, match="1 failed"):
        run_test_file(block, tmp_path)


def test_a_configuration_that_is_wrong_is_found_out() -> None:
    (block,) = fenced("toml", "[inbox]\nack_weight = 3").blocks
    with pytest.raises(InvalidConfig, match="ack_weight"):
        load_toml(block)
    (block,) = fenced("nats", "jetstream { strict: perhaps, no_such_field: 1 }").blocks
    with pytest.raises(ServerError):
        start_with(block)


GOOD = "nats stream add DLQ --subjects 'dlq.>' --retention limits --discard new --discard-per-subject --defaults"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"{GOOD} --max-msgs-per-subject 1 --storage file --max-msgs 7 --allow-direct", "max_msgs"),
        (f"{GOOD} --max-messages 7", "no flag --max-messages"),
        ("nats stream add DLQ2 --subjects x", "makes no DLQ2"),
        ("nats --context prod stream info INBOX_CTO", "makes no INBOX_CTO"),
        ("nats consumer info INBOX_CEO cto-processor", "makes no INBOX_CEO/cto-processor"),
        ("nats stream recreate DLQ", "not a command"),
        ("nats consumer add INBOX_CEO x --max-deliver -1", "wants --max-deliver=-1"),
        ("nats pub agents.ceo.rpc.ask ''", "stored by \\[\\]"),
        ("nats req agents.ceo.inbox.ask ''", "stored by \\['INBOX_CEO'\\]"),
        ("nats steam ls", "not a command"),
    ],
)
async def test_a_nats_line_that_is_wrong_is_found_out(line: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        await check_nats_lines([fenced("console", line)])


@pytest.mark.parametrize("line", ["dlq bury 7", "dlq list --order age", "flee", "dlq show seven"])
def test_an_agent_console_line_that_is_wrong_is_found_out(line: str) -> None:
    with pytest.raises(Exception, match=r"No such|should be a valid"):
        parse_console_line(shlex.split(line))


def test_a_dead_link_is_found_out() -> None:
    text = "# Here\n[a](nowhere.md) [b](inbox.md#nowhere) [c](#there) [d](inbox.md#run-it) [e](#here) [f](https://nats.io)\n"
    assert dead_links(page(text)) == ["nowhere.md", "inbox.md#nowhere", "#there"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("| `inbox.ack_weight` | `300` |", "no such option"),
        ("| `inbox.max_msgs` | `3` |", "no such option"),
        ("| `inbox.ack_wait` | `60` s |", "two defaults"),
    ],
)
def test_an_option_that_is_wrong_is_found_out(row: str, said: str) -> None:
    wrong = page(f"| option | default |\n|---|---|\n{row}\n")
    with pytest.raises(AssertionError, match=said):
        check_options([*PAGES, wrong])


def test_an_option_that_is_missing_or_has_another_default_is_found_out() -> None:
    changed = [
        Page(each.name, each.text.replace("| `inbox.ack_wait` | `300`", "| `inbox.ack_wait` | `301`")) for each in PAGES
    ]
    with pytest.raises(AssertionError, match="another default"):
        check_options(changed)
    with pytest.raises(AssertionError, match="nowhere documented"):
        check_options([each for each in PAGES if each.name != "dead-letters.md"])


@pytest.mark.parametrize("row", ["| `patience` | `1` |", "| `attempts` | `2` |"])
def test_an_argument_that_is_wrong_is_found_out(row: str) -> None:
    with pytest.raises(AssertionError):
        check_arguments([page(f"| argument of `Requests.request` | default |\n|---|---|\n{row}\n")])
