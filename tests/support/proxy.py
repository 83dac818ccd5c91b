"""A network that fails without a word: a TCP proxy on loopback that can stop forwarding and go on later."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Self

CHUNK = 1 << 16


class Proxy:
    """Forwards to a local port; while it is paused both ends stay connected and hear nothing of each other.

    That is a half-open connection: neither side is told, and what was sent meanwhile arrives late, in order, once it is
    resumed. New connections are reset during a pause, as by a gateway that has no way. An async context manager.

    Args:
        port: The port on 127.0.0.1 to forward to.
    """

    def __init__(self, port: int) -> None:
        self.taken = 0
        """Connections so far, those of pauses included."""
        self._port = port
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where clients connect instead of to the server."""
        if self._server is None:
            raise RuntimeError("the proxy is not started")
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def pause(self) -> None:
        """Forward nothing in either direction, not even that one end has closed."""
        self._flowing.clear()

    def resume(self) -> None:
        """Forward what is held back, and go on."""
        self._flowing.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        if not self._flowing.is_set():
            # With this option closing is a reset; an orderly end would be a word.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return
        # asyncio runs this in a task of its own and prints the trace of one that is cancelled; this one ends quietly.
        connection = asyncio.create_task(self._join(reader, writer), name="proxied connection")
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        await asyncio.wait([connection])

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
            writers.append(far_writer)
            # The end of either direction ends both: NATS closes whole connections only.
            ways = [asyncio.ensure_future(self._pump(*way)) for way in ((reader, far_writer), (far_reader, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            return  # the server is not there: the client's connection ends, as it would without a proxy
        finally:
            for each in writers:
                each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
            await self._flowing.wait()
