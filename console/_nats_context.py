"""The configuration files of the nats command line, and the secrets they lead to.

A context is a JSON file `nats/context/<name>.json` in the per-user configuration directory; `nats/context.txt` beside
the directory names the selected one (nats-architecture ADR-21).
"""

from __future__ import annotations

import base64
import json
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import nkeys
from nats.aio.client import RawCredentials

from console.settings import config_home, home

_REFUSED: Final = (
    "socks_proxy",
    "nsc",
    "windows_cert_store",
    "windows_cert_match_by",
    "windows_cert_match",
    "windows_ca_certs_match",
)
_TEXTS: Final = frozenset(
    (
        *("url", "user", "password", "token", "creds", "nkey", "user_jwt", "user_seed", "cert", "key", "ca"),
        *("inbox_prefix", "jetstream_domain", "jetstream_api_prefix", "jetstream_event_prefix"),
    )
)
_VARIABLE: Final = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


class ConnectionProblem(Exception):
    """No fleet can be reached as asked; the text is one line and holds no secret."""


class Secret(str):
    """A text that shows as `***` wherever it is printed, formatted or dumped with a traceback's locals.

    It is still the text to everything that uses it as one, so it goes to the client as it is.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        return "***"


class SecretCredentials(RawCredentials):
    """The text of a credentials file, which the client takes in place of a path; shows as `***`."""

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__


def selected_context(environ: Mapping[str, str]) -> str:
    """Return the name in `nats/context.txt`; empty if nothing is selected."""
    try:
        return (config_home(environ) / "nats" / "context.txt").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def known_contexts(environ: Mapping[str, str]) -> list[str]:
    """Return the names of all contexts, sorted."""
    return sorted(file.stem for file in (config_home(environ) / "nats" / "context").glob("*.json"))


def load_context(name: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Read a context file; what is empty in it is left out.

    Raises:
        ConnectionProblem: there is no such context, it cannot be read, or it asks for what the client cannot do.
    """
    if not name or "/" in name or "\\" in name or ".." in name:
        raise ConnectionProblem(f"{name!r} is not the name of a context")
    file = config_home(environ) / "nats" / "context" / f"{name}.json"
    try:
        loaded = json.loads(file.read_bytes())
    except FileNotFoundError:
        known = ", ".join(map(repr, known_contexts(environ))) or "none"
        raise ConnectionProblem(f"unknown context {name!r}: no file {str(file)!r} (known: {known})") from None
    except OSError as error:
        raise ConnectionProblem(f"context {name!r}: {str(file)!r} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ConnectionProblem(f"context {name!r}: {str(file)!r} is not valid JSON") from None
    if not isinstance(loaded, dict):
        raise ConnectionProblem(f"context {name!r}: {str(file)!r} is not a JSON object")
    fields = {key: value for key, value in loaded.items() if value}
    for key in _REFUSED:
        if key in fields:
            raise ConnectionProblem(f"context {name!r}: {key} is not supported by the Python client")
    for key, value in fields.items():
        if key in _TEXTS and not isinstance(value, str):
            raise ConnectionProblem(f"context {name!r}: {key} must be a text")
    return fields


def auth_options(fields: Mapping[str, Any], environ: Mapping[str, str], origin: str) -> dict[str, Any]:
    """Turn the fields that say who we are into options of `nats.connect`.

    As in the nats command line user wins over creds, creds over nkey, nkey over user_jwt; a token comes on top.

    Raises:
        ConnectionProblem: a value cannot be resolved, or a file is missing or is not what it should be.
    """
    options: dict[str, Any] = {}
    if "user" in fields:
        options["user"] = str.__str__(_resolve("user", fields, environ, origin))
        options["password"] = _resolve("password", fields, environ, origin)
    elif "creds" in fields:
        options["user_credentials"] = _credentials(fields["creds"], environ, origin)
    elif "nkey" in fields:
        options |= _nkey(fields["nkey"], environ, origin)
    elif "user_jwt" in fields:
        if "user_seed" not in fields:
            raise ConnectionProblem(f"{origin}: user_jwt without user_seed is not supported")
        jwt, seed = _resolve("user_jwt", fields, environ, origin), _resolve("user_seed", fields, environ, origin)
        text = "\n".join(("-----BEGIN NATS USER JWT-----", jwt, "-----BEGIN USER NKEY SEED-----", seed, ""))
        options["user_credentials"] = SecretCredentials(text)
    if "token" in fields:
        options["token"] = _resolve("token", fields, environ, origin)
    return options


def tls_options(fields: Mapping[str, Any], environ: Mapping[str, str], origin: str) -> dict[str, Any]:
    """Turn ca, cert, key and tls_first into options of `nats.connect`.

    Raises:
        ConnectionProblem: a file is missing or is not what it should be.
    """
    options: dict[str, Any] = {}
    if ("cert" in fields) != ("key" in fields):
        raise ConnectionProblem(f"{origin}: cert and key are given together or not at all")
    files = {each: _path(fields[each], environ) for each in ("ca", "cert", "key") if each in fields}
    for each, file in files.items():
        _read(file, each, origin)
    if files:
        try:
            options["tls"] = context = ssl.create_default_context(cafile=files.get("ca"))
            if "cert" in files:
                # Without a password OpenSSL would ask for one on the terminal that the console draws on.
                context.load_cert_chain(files["cert"], files["key"], password="")
        except (ssl.SSLError, OSError, ValueError) as error:
            names = ", ".join(f"{each} {str(file)!r}" for each, file in files.items())
            raise ConnectionProblem(f"{origin}: not usable for TLS: {names} ({_first_line(error)})") from None
    if fields.get("tls_first"):
        options["tls_handshake_first"] = True
    return options


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _path(value: str, environ: Mapping[str, str]) -> Path:
    """Expand `file://`, a leading `~` and `$VARIABLE` as the nats command line does."""
    text = value.removeprefix("file://")
    text = _VARIABLE.sub(lambda found: environ.get(found[1] or found[2], ""), text)
    if text == "~" or text.startswith("~/"):
        text = str(home(environ)) + text[1:]
    return Path(text)


def _read(file: Path, field: str, origin: str) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError) as error:
        said = (error.strerror if isinstance(error, OSError) else "") or "not a path"
        raise ConnectionProblem(f"{origin}: {field} file {str(file)!r} cannot be read: {said}") from None


def _inline(value: str, field: str, environ: Mapping[str, str], origin: str) -> Secret | None:
    """Return what an `env://` or `data:` reference holds; None for any other value."""
    if value.startswith("env://"):
        name = value.removeprefix("env://")
        if name not in environ:
            raise ConnectionProblem(f"{origin}: {field} refers to the environment variable {name!r}, which is not set")
        return Secret(environ[name].rstrip("\r\n"))
    if value.startswith("data:"):
        head, _, payload = value.partition(",")
        try:
            decoded = base64.b64decode(payload, validate=True).decode() if "base64" in head.split(";") else ""
        except ValueError:
            decoded = ""
        if not decoded:
            raise ConnectionProblem(f"{origin}: {field} is not a valid data:;base64, reference")
        return Secret(decoded.rstrip("\r\n"))
    if value.startswith(("op://", "nsc://")):
        scheme = value.partition(":")[0]
        raise ConnectionProblem(f"{origin}: {field} is a {scheme}:// reference, which is not supported")
    return None


def _resolve(field: str, fields: Mapping[str, Any], environ: Mapping[str, str], origin: str) -> Secret:
    value = fields.get(field, "")
    inline = _inline(value, field, environ, origin)
    if inline is not None:
        return inline
    if value.startswith("file://"):
        return Secret(_read(_path(value, environ), field, origin).rstrip("\r\n"))
    return Secret(value)


def _credentials(value: str, environ: Mapping[str, str], origin: str) -> Any:
    inline = _inline(value, "creds", environ, origin)
    file = _path(value, environ)
    text = _read(file, "creds", origin) if inline is None else inline
    # nats-py 2.16 reads for ever, and holds the event loop, when the first of these lines is missing.
    if "BEGIN NATS USER JWT" not in text or "BEGIN USER NKEY SEED" not in text:
        where = f"file {str(file)!r}" if inline is None else "reference"
        raise ConnectionProblem(f"{origin}: the creds {where} holds no NATS credentials")
    return str(file) if inline is None else SecretCredentials(str.__str__(inline))


def _nkey(value: str, environ: Mapping[str, str], origin: str) -> dict[str, Any]:
    inline = Secret(value) if _is_seed(value) else _inline(value, "nkey", environ, origin)
    if inline is not None:
        if not _is_seed(inline):
            raise ConnectionProblem(f"{origin}: the nkey reference holds no user seed")
        return {"nkeys_seed_str": inline}
    file = _path(value, environ)
    if not _is_seed(_read(file, "nkey", origin)):
        raise ConnectionProblem(f"{origin}: the nkey file {str(file)!r} holds no user seed")
    return {"nkeys_seed": str(file)}


def _is_seed(text: str) -> bool:
    try:
        nkeys.from_seed(bytearray(text.strip().encode())).wipe()
    except Exception:
        # For what is no seed nkeys lets out errors of its own, of base64 and of its cryptography library.
        return False
    return text.strip().startswith("SU")
