"""From the global options to settings, a target, a guard and a connected fleet."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from nats.aio.client import Client

from console import settings as settings_file
from console.commands.options import GlobalOptions
from console.connection import Target, connect, resolve
from console.operations.errors import UsageError
from console.operations.guard import WriteGuard
from console.settings import Settings
from patterns import Fleet, InvalidName, Names, PatternError
from patterns.connection import leave, open_client

log = logging.getLogger("console")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a command acts, and under which settings; not yet connected."""

    target: Target
    settings: Settings
    names: Names
    read_only: bool
    """By `--read-only`, or by the settings for everything or for this context."""

    @property
    def command_guard(self) -> WriteGuard:
        """The guard of a headless command."""
        return WriteGuard.for_command(read_only=self.read_only)

    @property
    def prod(self) -> bool:
        """Whether the settings call this context production."""
        return self.settings.context(self.target.name).prod

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Fleet]:
        """The fleet, for the length of the block."""
        async with connect(self.target, org=self.names.org) as fleet:
            yield fleet

    @asynccontextmanager
    async def system(self) -> AsyncIterator[Client | None]:
        """A connection of the system account, where the settings name a context for it; without it the lists are read.

        Raises:
            ConnectionProblem: The settings name a context that there is not, or that cannot be used.
        """
        context = self.settings.context(self.target.name).system_context
        if not context:
            yield None
            return
        target = resolve(None, context, os.environ)
        try:
            client = await open_client(target.servers, target.options)
        except PatternError as error:
            log.warning("system context %s: %s", context, error)
            yield None
            return
        try:
            yield client
        finally:
            await leave(client)


def find(options: GlobalOptions) -> Place:
    """Read the settings and decide where to connect.

    Raises:
        SettingsError: The settings cannot be used.
        ConnectionProblem: An address, a context or a credential cannot be used.
        UsageError: `--org` is no name.
    """
    settings = settings_file.load(options.config)
    names = names_of(options)
    target = resolve(options.server, options.context, os.environ)
    return Place(target=target, settings=settings, names=names, read_only=is_read_only(options, settings, target.name))


def names_of(options: GlobalOptions) -> Names:
    """The names of the organization.

    Raises:
        UsageError: `--org` is no name.
    """
    try:
        return Names(options.org)
    except InvalidName as error:
        raise UsageError(f"--org: {error}") from None


def is_read_only(options: GlobalOptions, settings: Settings, context: str) -> bool:
    """Whether nothing may be changed; `--write` does not lift what the settings forbid."""
    return options.read_only or bool(settings.read_only) or settings.context(context).read_only
