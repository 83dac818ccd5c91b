from __future__ import annotations

import base64
import json
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nacl.signing
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from console.connection import ConnectionProblem, Secret, Target, connect, known_contexts, resolve
from patterns.errors import InvalidName
from patterns.server import LocalServer

Environ = dict[str, str]
WriteContext = Callable[..., None]
CREDS = "-----BEGIN NATS USER JWT-----\njwt-part\n------END-----\n-----BEGIN USER NKEY SEED-----\nseed-part\n------END-----\n"


@pytest.fixture
def environ(tmp_path: Path) -> Environ:
    return {"XDG_CONFIG_HOME": str(tmp_path / "config"), "HOME": str(tmp_path)}


@pytest.fixture
def write_context(tmp_path: Path) -> WriteContext:
    def write(name: str, /, *, selected: bool = False, **fields: Any) -> None:
        folder = tmp_path / "config" / "nats" / "context"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps({"description": "", **fields}))
        if selected:
            (folder.parent / "context.txt").write_text(f"{name}\n")

    return write


@pytest.fixture
def seed() -> str:
    """A user nkey: two prefix bytes, the key, CRC-16/XMODEM in little endian, in base32."""
    raw = bytes([(18 << 3) | (160 >> 5), (160 & 31) << 3]) + bytes(nacl.signing.SigningKey.generate())
    crc = 0
    for byte in raw:
        crc ^= byte << 8
        for _ in range(8):
            crc = ((crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return base64.b32encode(raw + crc.to_bytes(2, "little")).decode().rstrip("=")


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# What decides


def test_each_source_gives_way_to_the_one_before(environ: Environ, write_context: WriteContext) -> None:
    seen = [resolve(None, None, environ)]
    write_context("chosen", url="nats://chosen:1", selected=True)
    seen.append(resolve(None, None, environ))
    write_context("named", url="nats://named:1")
    environ["NATS_CONTEXT"] = "named"
    seen.append(resolve(None, None, environ))
    environ["NATS_URL"] = "nats://env:1"
    seen.append(resolve(None, None, environ))
    write_context("prod", url="nats://prod:1")
    seen.append(resolve(None, "prod", environ))
    seen.append(resolve("nats://given:1", None, environ))
    assert [(target.servers, target.origin, target.name) for target in seen] == [
        (("nats://127.0.0.1:4222",), "default", ""),
        (("nats://chosen:1",), "selected context chosen", "chosen"),
        (("nats://named:1",), "NATS_CONTEXT named", "named"),
        (("nats://env:1",), "NATS_URL", ""),
        (("nats://prod:1",), "--context prod", "prod"),
        (("nats://given:1",), "--server", ""),
    ]


def test_with_both_options_the_context_logs_in_at_the_server(environ: Environ, write_context: WriteContext) -> None:
    write_context("prod", url="nats://prod:1", user="ann", password="s3cret")
    target = resolve("nats://other:1", "prod", environ)
    assert target.servers == ("nats://other:1",)
    assert target.name == "prod"
    assert target.options == {"user": "ann", "password": "s3cret"}
    assert target.origin == "--server with --context prod"


def test_contexts_stand_in_the_home_directory_without_xdg(
    environ: Environ, write_context: WriteContext, tmp_path: Path
) -> None:
    write_context("prod", url="nats://prod:1")
    (tmp_path / "config").rename(tmp_path / ".config")
    del environ["XDG_CONFIG_HOME"]
    assert resolve(None, "prod", environ).servers == ("nats://prod:1",)
    assert known_contexts(environ) == ["prod"]


# Addresses


@pytest.mark.parametrize(
    ("url", "servers", "display"),
    [
        ("host", ("nats://host:4222",), "host:4222"),
        ("host:1", ("nats://host:1",), "host:1"),
        ("nats://host:", ("nats://host:4222",), "host:4222"),
        ("nats://host/", ("nats://host:4222",), "host:4222"),
        (" a:1 , nats://b:2,", ("nats://a:1", "nats://b:2"), "a:1, b:2"),
        ("tls://host", ("tls://host:4222",), "tls://host:4222"),
        ("nats://[::1]:1", ("nats://[::1]:1",), "[::1]:1"),
        ("[::1]", ("nats://[::1]:4222",), "[::1]:4222"),
    ],
)
def test_addresses(environ: Environ, url: str, servers: tuple[str, ...], display: str) -> None:
    target = resolve(url, None, environ)
    assert (target.servers, target.display, dict(target.options)) == (servers, display, {})


@pytest.mark.parametrize(
    ("url", "options", "identity"),
    [
        ("nats://ann:s3cret@host:1", {"user": "ann", "password": "s3cret"}, "user ann"),
        ("ann:s3cret@host:1", {"user": "ann", "password": "s3cret"}, "user ann"),
        ("nats://a%40b:s3%2Ccret@host:1", {"user": "a@b", "password": "s3,cret"}, "user a@b"),
        ("nats://s3cret@host:1", {"token": "s3cret"}, "token"),
        ("nats://ann:s3cret@host:1,ann:s3cret@host:1", {"user": "ann", "password": "s3cret"}, "user ann"),
        ("nats://%1b%5b31m:s3cret@host:1", {"user": "\x1b[31m", "password": "s3cret"}, r"user '\x1b[31m'"),
    ],
)
def test_a_login_in_a_url_is_used_and_never_shown(
    environ: Environ, url: str, options: dict[str, str], identity: str
) -> None:
    environ |= {"NATS_USER": "other", "NATS_PASSWORD": "other"}
    target = resolve(url, None, environ)
    assert set(target.servers) == {"nats://host:1"}
    assert target.options == options
    assert target.identity == identity
    assert "s3cret" not in repr(target) + target.display
    assert "s3,cret" not in repr(target)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nats://ann:s3#cret@host:1", "%40 and so on"),
        ("nats://ann:1#s3cret@host:1", "%40 and so on"),
        ("nats://ann:s3/cret@host", "%40 and so on"),
        ("nats://ann:s3?cret@host", "%40 and so on"),
        ("nats://:1", "not a server address"),
        ("nats://host:s3cret", "not a server address"),
        ("nats://host:99999", "not a server address"),
        ("nats://[::1", "not a server address"),
        ("http://host", "begins with nats://"),
        ("nats://host:1/s3cret", "ends after the port"),
        ("nats://host:1?s3cret", "ends after the port"),
        ("nats://ho st:1", "no spaces"),
        ("nats://ho\x1bst:1", "no spaces"),
        ("nats://ann:s3cret@a,nats://bob:s3cret@b", "same user and password"),
        (" , ", "no server address"),
        ("ws://host", "aiohttp"),
    ],
)
def test_a_bad_address_is_said_without_repeating_it(environ: Environ, url: str, said: str) -> None:
    with pytest.raises(ConnectionProblem) as caught:
        resolve(url, None, environ)
    assert said in str(caught.value)
    assert str(caught.value).startswith("--server: ")
    assert "cret" not in str(caught.value)
    assert str(caught.value).isprintable()


@given(st.text(max_size=60))
def test_any_address_is_a_target_or_a_problem(url: str) -> None:
    try:
        target = resolve(url, None, {"HOME": "/nonexistent"})
    except ConnectionProblem as problem:
        said = str(problem)
    else:
        said = target.display
    assert said.isprintable()


# Credentials


def test_credentials_from_the_environment(environ: Environ, tmp_path: Path, seed: str) -> None:
    creds, nkey = tmp_path / "me.creds", tmp_path / "me.nk"
    creds.write_text(CREDS)
    nkey.write_text(seed + "\n")
    for given_variables, expected in (
        ({"NATS_USER": "ann", "NATS_PASSWORD": "p"}, {"user": "ann", "password": "p"}),
        ({"NATS_USER": "s3cret"}, {"token": "s3cret"}),
        ({"NATS_TOKEN": "s3cret"}, {"token": "s3cret"}),
        ({"NATS_CREDS": str(creds)}, {"user_credentials": str(creds)}),
        ({"NATS_CREDS": "~/me.creds"}, {"user_credentials": str(creds)}),
        ({"NATS_NKEY": str(nkey)}, {"nkeys_seed": str(nkey)}),
        ({"NATS_NKEY": seed}, {"nkeys_seed_str": seed}),
    ):
        target = resolve("host", None, environ | given_variables)
        assert target.options == expected
        assert seed not in repr(target)
        assert "s3cret" not in repr(target)


def test_the_environment_does_not_log_in_to_a_context(environ: Environ, write_context: WriteContext) -> None:
    write_context("prod", url="nats://prod:1")
    environ |= {"NATS_USER": "ann", "NATS_PASSWORD": "p", "NATS_CA": "/missing"}
    assert resolve(None, "prod", environ).options == {}


def test_everything_in_a_context(environ: Environ, write_context: WriteContext) -> None:
    write_context(
        "prod",
        url="nats://a:1,nats://b:2",
        user="ann",
        password="s3cret",
        token="",
        socks_proxy="",
        tls_first=True,
        inbox_prefix="_INBOX_ann",
        jetstream_domain="hub",
        jetstream_api_prefix="hub.api",
        jetstream_event_prefix="hub.event",
        color_scheme="blue",
        invented_next_year=1,
    )
    target = resolve(None, "prod", environ)
    assert target == Target(
        name="prod",
        servers=("nats://a:1", "nats://b:2"),
        origin="--context prod",
        options={
            "user": "ann",
            "password": Secret("s3cret"),
            "tls_handshake_first": True,
            "inbox_prefix": "_INBOX_ann",
        },
        domain="hub",
        api_prefix="hub.api",
        event_prefix="hub.event",
    )
    assert "s3cret" not in repr(target)


def test_a_context_without_an_address_is_the_local_server(environ: Environ, write_context: WriteContext) -> None:
    write_context("empty")
    assert resolve(None, "empty", environ).servers == ("nats://127.0.0.1:4222",)


def test_which_login_of_a_context_wins(
    environ: Environ, write_context: WriteContext, tmp_path: Path, seed: str
) -> None:
    (tmp_path / "me.creds").write_text(CREDS)
    fields = {"nkey": seed, "creds": "$HOME/me.creds", "user": "ann", "token": "t"}
    seen = []
    while fields:
        write_context("prod", **fields)
        seen.append(dict(resolve(None, "prod", environ).options))
        fields.popitem()
    assert seen == [
        {"user": "ann", "password": "", "token": "t"},
        {"user": "ann", "password": ""},
        {"user_credentials": str(tmp_path / "me.creds")},
        {"nkeys_seed_str": seed},
    ]


def test_values_that_stand_elsewhere(environ: Environ, write_context: WriteContext, tmp_path: Path, seed: str) -> None:
    environ |= {"MY_PASSWORD": "s3cret\n", "WHERE": str(tmp_path)}
    (tmp_path / "pass").write_text("from-file\n")

    def options(**fields: Any) -> dict[str, Any]:
        write_context("prod", **fields)
        target = resolve(None, "prod", environ)
        assert "s3cret" not in repr(target)
        return dict(target.options)

    def data(text: str) -> str:
        return "data:;base64," + base64.b64encode(text.encode()).decode()

    assert options(user="ann", password="env://MY_PASSWORD")["password"] == "s3cret"
    assert options(user="ann", password="file://$WHERE/pass")["password"] == "from-file"
    assert options(user="ann", password="file://~/pass")["password"] == "from-file"
    assert options(token=data("s3cret"))["token"] == "s3cret"
    assert options(nkey=data(seed))["nkeys_seed_str"] == seed
    environ["MY_CREDS"] = CREDS
    for reference in (data(CREDS), "env://MY_CREDS"):
        credentials = options(creds=reference)["user_credentials"]
        assert repr(credentials) == f"{credentials}" == "***"
        assert Client()._read_creds_user_jwt(credentials) == b"jwt-part"
        assert Client()._read_creds_user_nkey(credentials) == b"seed-part"
    credentials = options(user_jwt="jwt-part", user_seed=data("seed-part"))["user_credentials"]
    assert Client()._read_creds_user_jwt(credentials) == b"jwt-part"
    assert Client()._read_creds_user_nkey(credentials) == b"seed-part"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"socks_proxy": "socks5://x"}, "socks_proxy is not supported"),
        ({"nsc": "nsc://a/b/c"}, "nsc is not supported"),
        ({"windows_cert_store": "user"}, "windows_cert_store is not supported"),
        ({"windows_ca_certs_match": ["x"]}, "windows_ca_certs_match is not supported"),
        ({"user": "a", "password": "op://vault/s3cret"}, "password is a op:// reference"),
        ({"token": "env://NOT_THERE"}, "environment variable 'NOT_THERE', which is not set"),
        ({"token": "data:s3cret"}, "token is not a valid data:;base64, reference"),
        ({"token": "data:;base64,s3cret!"}, "token is not a valid data:;base64, reference"),
        ({"token": "file:///not/there"}, "token file '/not/there' cannot be read: No such file"),
        ({"creds": "/not/there"}, "creds file '/not/there' cannot be read: No such file"),
        ({"creds": "data:;base64,eA=="}, "creds reference holds no NATS credentials"),
        ({"nkey": "/not/there"}, "nkey file '/not/there' cannot be read: No such file"),
        ({"nkey": "data:;base64,eA=="}, "nkey reference holds no user seed"),
        ({"user_jwt": "s3cret"}, "user_jwt without user_seed"),
        ({"user": 5}, "user must be a text"),
        ({"url": ["nats://a"]}, "url must be a text"),
        ({"url": "http://s3cret"}, "url: an address begins with"),
        ({"cert": "/a"}, "cert and key are given together"),
        ({"ca": "/not/there"}, "ca file '/not/there' cannot be read"),
    ],
)
def test_what_a_context_cannot_say(
    environ: Environ, write_context: WriteContext, fields: dict[str, Any], said: str
) -> None:
    write_context("prod", **fields)
    with pytest.raises(ConnectionProblem) as caught:
        resolve(None, "prod", environ)
    assert said in str(caught.value)
    assert "context 'prod'" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_what_they_should_be(environ: Environ, write_context: WriteContext, tmp_path: Path) -> None:
    (tmp_path / "junk").write_text("junk")
    for field, said in (("creds", "holds no NATS credentials"), ("nkey", "holds no user seed"), ("ca", "not usable")):
        write_context("prod", **{field: str(tmp_path / "junk")})
        with pytest.raises(ConnectionProblem, match=said):
            resolve(None, "prod", environ)


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "a\\b"])
def test_a_context_name_is_no_path(environ: Environ, name: str) -> None:
    with pytest.raises(ConnectionProblem, match="is not the name of a context"):
        resolve(None, name, environ)


def test_an_unknown_context_names_the_known_ones(environ: Environ, write_context: WriteContext) -> None:
    with pytest.raises(ConnectionProblem, match=r"unknown context 'x': .*known: none"):
        resolve(None, "x", environ)
    write_context("prod")
    write_context("dev", selected=True)
    with pytest.raises(ConnectionProblem, match=r"known: 'dev', 'prod'"):
        resolve(None, "x", environ)


def test_a_selected_context_that_is_gone_is_an_error_and_not_another_server(
    environ: Environ, write_context: WriteContext, tmp_path: Path
) -> None:
    write_context("prod", selected=True)
    file = tmp_path / "config" / "nats" / "context" / "prod.json"
    for text in ("{", "[]"):
        file.write_text(text)
        with pytest.raises(ConnectionProblem, match=r"not valid JSON|not a JSON object"):
            resolve(None, None, environ)
    file.unlink()
    with pytest.raises(ConnectionProblem, match="unknown context 'prod'"):
        resolve(None, None, environ)


def test_tls_is_wanted_by_url_or_by_certificates(environ: Environ) -> None:
    assert resolve("tls://host", None, environ).wants_tls
    assert not resolve("host", None, environ).wants_tls
    assert Target(servers=("nats://a",), origin="", options={"tls": ssl.create_default_context()}).wants_tls


def test_a_secret_never_shows() -> None:
    secret = Secret("s3cret")
    assert (repr(secret), str(secret), f"{secret}", f"{secret:>9}", repr({"a": secret})) == ("***",) * 4 + (
        "{'a': ***}",
    )
    assert secret == "s3cret"
    assert json.dumps(secret) == '"s3cret"'


# Connecting


async def test_a_fleet_is_connected(server: LocalServer, environ: Environ) -> None:
    async with connect(resolve(server.url, None, environ), org=None) as fleet:
        assert fleet.nc.is_connected
    assert fleet.nc.is_closed


async def test_nothing_listens(environ: Environ) -> None:
    address = f"127.0.0.1:{closed_port()}"
    with pytest.raises(ConnectionProblem) as caught:
        async with connect(resolve(f"nats://ann:s3cret@{address}", None, environ), org=None):
            pytest.fail("connected to nothing")
    assert str(caught.value) == (
        f"no NATS server answers at {address} (--server): connection refused; start one, name another with --server "
        "or --context, or try: agent-console demo"
    )


@pytest.mark.parametrize(
    ("login", "who"), [("ann:wrong-s3cret@", "user ann"), ("s3cret@", "token"), ("", "no credentials")]
)
async def test_wrong_credentials_are_said(environ: Environ, login: str, who: str) -> None:
    with LocalServer(config='authorization { user: ann, password: "s3cret" }') as server:
        address = f"127.0.0.1:{server.port}"
        async with connect(resolve(f"ann:s3cret@{address}", None, environ), org=None) as fleet:
            assert fleet.nc.is_connected
        with pytest.raises(ConnectionProblem) as caught:
            async with connect(resolve(f"nats://{login}{address}", None, environ), org=None):
                pytest.fail("connected with wrong credentials")
    assert str(caught.value) == f"authorization violation: {who} at {address} (--server)"


async def test_tls_that_was_asked_for_is_not_given_up_silently(server: LocalServer, environ: Environ) -> None:
    target = resolve(server.url.replace("nats://", "tls://"), None, environ)
    with pytest.raises(ConnectionProblem, match="does not require TLS, which was asked for"):
        async with connect(target, org=None):
            pytest.fail("connected in the clear")


async def test_errors_of_the_work_itself_pass(server: LocalServer, environ: Environ) -> None:
    target = resolve(server.url, None, environ)
    with pytest.raises(ConnectionRefusedError):
        async with connect(target, org=None):
            raise ConnectionRefusedError
    with pytest.raises(InvalidName):
        async with connect(target, org="no name"):
            pytest.fail("an organization without a name")
