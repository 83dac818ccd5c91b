"""Where the fleet is: from `--server`, `--context` and the environment to a connected `Fleet`."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

import nats.aio.client
import nats.errors

from console._nats_context import (
    ConnectionProblem,
    Secret,
    auth_options,
    known_contexts,
    load_context,
    selected_context,
    tls_options,
)
from patterns.errors import ConnectError
from patterns.fleet import Fleet

if TYPE_CHECKING:
    from patterns.config import FleetConfig

__all__ = ["ConnectionProblem", "Secret", "Target", "connect", "known_contexts", "resolve"]

DEFAULT_SERVER: Final = "nats://127.0.0.1:4222"

_ENVIRONMENT: Final = {
    "NATS_USER": "user",
    "NATS_PASSWORD": "password",
    "NATS_TOKEN": "token",
    "NATS_CREDS": "creds",
    "NATS_NKEY": "nkey",
    "NATS_JWT": "user_jwt",
    "NATS_SEED": "user_seed",
    "NATS_CA": "ca",
    "NATS_CERT": "cert",
    "NATS_KEY": "key",
}
_PROBE_TIMEOUT_S: Final = 2
_OVERHEAD_S: Final = 3
_REFUSALS: Final = ("authorization violation", "authorization failed", "authentication", "credentials", "nkey", "jwt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server, or the servers of one cluster, and how to log in. Nothing in it shows a secret."""

    name: str = ""
    """The NATS context, `demo` for the demo's own server, or empty."""
    servers: tuple[str, ...]
    """URLs with scheme and port and without user, password or token."""
    origin: str
    """What decided, such as `--server`, `--context prod` or `NATS_URL`."""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Arguments of `nats.connect`: who we are and TLS. Secrets in it show as `***`."""
    domain: str | None = None
    """JetStream domain."""
    api_prefix: str | None = None
    """JetStream API prefix instead of `$JS.API`."""
    event_prefix: str | None = None
    """Prefix of JetStream advisories instead of `$JS.EVENT`."""

    @property
    def display(self) -> str:
        """The servers for people: `host:port`, with a scheme only if it is not plain NATS."""
        return ", ".join(server.removeprefix("nats://") for server in self.servers)

    @property
    def wants_tls(self) -> bool:
        """True if the connection must be encrypted: by `tls://`, or because certificates were given."""
        return "tls" in self.options or any(server.startswith("tls://") for server in self.servers)

    @property
    def identity(self) -> str:
        """Who we are, in words and without a secret: `user ann`, `token`, `creds FILE`, `no credentials`."""
        options = self.options
        if "user" in options:
            user = options["user"]
            return f"user {user}" if user.isprintable() else f"user {user!r}"
        for key, word in (("user_credentials", "creds"), ("nkeys_seed", "nkey")):
            if key in options:
                return f"{word} {options[key]}"
        words = {"nkeys_seed_str": "nkey", "token": "token"}
        return next((word for key, word in words.items() if key in options), "no credentials")


def resolve(server: str | None, context: str | None, environ: Mapping[str, str]) -> Target:
    """Decide where to connect and as whom.

    The order is `--server`, `--context`, `NATS_URL`, the nats context that `NATS_CONTEXT` names or that is selected,
    and `nats://127.0.0.1:4222`. With both options the context says who we are and `--server` where, as with the nats
    command line. Without a context NATS_USER, NATS_PASSWORD, NATS_TOKEN, NATS_CREDS, NATS_NKEY, NATS_JWT, NATS_SEED,
    NATS_CA, NATS_CERT and NATS_KEY apply. Credentials in a URL win over all others.

    Args:
        server: `--server`: one URL, or several of one cluster separated by commas.
        context: `--context`: the name of a nats context.
        environ: environment variables.

    Raises:
        ConnectionProblem: an address, a context or a credential cannot be used; one line without a secret.
    """
    if context:
        origin = f"--server with --context {context}" if server else f"--context {context}"
        return _from_context(context, origin, server, environ)
    if server:
        return _from_environment(server, "--server", environ)
    if url := environ.get("NATS_URL"):
        return _from_environment(url, "NATS_URL", environ)
    if named := environ.get("NATS_CONTEXT"):
        return _from_context(named, f"NATS_CONTEXT {named}", None, environ)
    if selected := selected_context(environ):
        return _from_context(selected, f"selected context {selected}", None, environ)
    return _from_environment(DEFAULT_SERVER, "default", environ)


def _from_environment(urls: str, origin: str, environ: Mapping[str, str]) -> Target:
    fields = {key: environ[name] for name, key in _ENVIRONMENT.items() if environ.get(name)}
    if "user" in fields and "password" not in fields and "token" not in fields:
        # The nats command line takes a user without a password for a token.
        fields["token"] = fields.pop("user")
    servers, login = _servers(urls, origin)
    auth = login or auth_options(fields, environ, "environment")
    return Target(servers=servers, origin=origin, options=auth | tls_options(fields, environ, "environment"))


def _from_context(name: str, origin: str, server: str | None, environ: Mapping[str, str]) -> Target:
    fields = load_context(name, environ)
    where = f"context {name!r}"
    servers, login = _servers(server or fields.get("url", DEFAULT_SERVER), "--server" if server else f"{where}: url")
    options = (login or auth_options(fields, environ, where)) | tls_options(fields, environ, where)
    if "inbox_prefix" in fields:
        options["inbox_prefix"] = fields["inbox_prefix"]
    return Target(
        name=name,
        servers=servers,
        origin=origin,
        options=options,
        domain=fields.get("jetstream_domain"),
        api_prefix=fields.get("jetstream_api_prefix"),
        event_prefix=fields.get("jetstream_event_prefix"),
    )


def _servers(urls: str, where: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Split a list of URLs into addresses and the login that stands in them."""
    servers: list[str] = []
    login: dict[str, Any] = {}
    for text in filter(None, (part.strip() for part in urls.split(","))):
        parts = _split_url(text if "://" in text else f"nats://{text}", where)
        servers.append(_address(parts, where))
        if parts.username is None:
            continue
        user = unquote(parts.username)
        found: dict[str, Any] = {"token": Secret(user)}
        if parts.password is not None:
            found = {"user": user, "password": Secret(unquote(parts.password))}
        if login and login != found:
            raise ConnectionProblem(f"{where}: the servers of one cluster take the same user and password")
        login = found
    if not servers:
        raise ConnectionProblem(f"{where}: no server address")
    return tuple(servers), login


def _split_url(url: str, where: str) -> SplitResult:
    """Parse one URL; errors never repeat it, because what is misread may be a password."""
    try:
        parts = urlsplit(url)
        well_formed = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        well_formed = False
    if not well_formed or "@" in parts.path + parts.query + parts.fragment:
        raise ConnectionProblem(
            f"{where}: not a server address like nats://host:4222 "
            "(special characters in a user or password are written as %40 and so on)"
        )
    if parts.scheme not in ("nats", "tls", "ws", "wss"):
        raise ConnectionProblem(f"{where}: an address begins with nats://, tls://, ws:// or wss://")
    if parts.query or parts.fragment or (parts.scheme in ("nats", "tls") and parts.path not in ("", "/")):
        raise ConnectionProblem(f"{where}: an address ends after the port")
    if parts.scheme in ("ws", "wss") and importlib.util.find_spec("aiohttp") is None:
        raise ConnectionProblem(f"{where}: {parts.scheme}:// needs the package aiohttp, which is not installed")
    return parts


def _address(parts: SplitResult, where: str) -> str:
    place = parts.netloc.rpartition("@")[2]
    if not place.isprintable() or " " in place:
        raise ConnectionProblem(f"{where}: a host name has no spaces or control characters")
    if parts.scheme in ("ws", "wss"):
        return f"{parts.scheme}://{place}{parts.path}"
    return f"{parts.scheme}://{place}" if parts.port else f"{parts.scheme}://{place.rstrip(':')}:4222"


@asynccontextmanager
async def connect(target: Target, *, org: str | None, config: FleetConfig | None = None) -> AsyncIterator[Fleet]:
    """Connect to a fleet, and close the connection at the end.

    Args:
        target: where and as whom, from `resolve`.
        org: prefix of the organization's subjects and streams; None for the default organization.
        config: configuration of the fleet; None for the defaults.

    Raises:
        ConnectionProblem: nothing answers, or it refuses us; one line that says what was tried.
        PatternError: the server answers but cannot be used, or `org` is no name.
    """
    async with AsyncExitStack() as stack:
        try:
            # nats-py 2.16 waits for ever after a failed TLS handshake (Python 3.11).
            async with asyncio.timeout(_OVERHEAD_S + 2 * _PROBE_TIMEOUT_S * len(target.servers)):
                fleet = await stack.enter_async_context(
                    Fleet.connect(
                        list(target.servers),
                        org=org,
                        config=config,
                        domain=target.domain,
                        api_prefix=target.api_prefix,
                        **target.options,
                    )
                )
        except (ConnectError, nats.errors.Error, OSError, TimeoutError) as error:
            raise ConnectionProblem(await _explain(target, error)) from error
        if target.wants_tls and not fleet.nc._server_info.get("tls_required"):
            # nats-py 2.16 goes on in the clear, even for tls://, when the server does not ask for TLS.
            raise ConnectionProblem(f"{target.display} ({target.origin}) does not require TLS, which was asked for")
        yield fleet


async def _explain(target: Target, error: Exception) -> str:
    """Say why no connection came about, by trying once more and listening.

    A client that is told to come back for ever reports a refused password as "no servers available".
    """
    reasons: list[BaseException] = []

    async def listen(reason: Exception) -> None:
        reasons.append(reason)

    client = nats.aio.client.Client()
    try:
        async with asyncio.timeout(_OVERHEAD_S + 2 * _PROBE_TIMEOUT_S * len(target.servers)):
            # With fewer attempts than 1 nats-py 2.16 tries a closed port for ever.
            await client.connect(
                list(target.servers),
                error_cb=listen,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=_PROBE_TIMEOUT_S,
                **target.options,
            )
    except Exception as last:
        # Whatever it is, it becomes the explanation.
        reasons.append(last)
    else:
        return f"connection to {target.display} ({target.origin}) failed: {_one_line(error)}"
    finally:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(client.close(), 1)
    return _describe_failure(target, reasons)


def _describe_failure(target: Target, reasons: list[BaseException]) -> str:
    for reason in reasons:
        if isinstance(reason, nats.errors.Error) and any(word in str(reason).lower() for word in _REFUSALS):
            said = str(reason).lower().removeprefix("nats: ").strip("'\" ")
            return f"{said}: {target.identity} at {target.display} ({target.origin})"
    for reason in reasons:
        if isinstance(reason, ssl.SSLError):
            said = (reason.reason or _one_line(reason)).replace("_", " ").lower()
            if isinstance(reason, ssl.SSLCertVerificationError):
                said = f"{reason.verify_message} (the CA to trust is named by NATS_CA, or by ca in a context)"
            return f"TLS with {target.display} ({target.origin}) failed: {said}"
    telling = [reason for reason in reasons if not isinstance(reason, nats.errors.NoServersError)]
    said = _network_reason(telling[-1]) if telling else "no address left to try"
    return (
        f"no NATS server answers at {target.display} ({target.origin}): {said}; start one, name another with --server "
        "or --context, or try: agent-console demo"
    )


def _network_reason(reason: BaseException) -> str:
    if isinstance(reason, socket.gaierror):
        return "unknown host"
    # asyncio joins the refusals of several addresses of one name into a plain OSError with this text.
    if isinstance(reason, ConnectionRefusedError) or "Connect call failed" in str(reason):
        return "connection refused"
    if isinstance(reason, TimeoutError | asyncio.TimeoutError):
        return f"no answer within {_PROBE_TIMEOUT_S} s"
    return _one_line(reason)


def _one_line(reason: BaseException) -> str:
    return " ".join(str(reason).split()) or type(reason).__name__
