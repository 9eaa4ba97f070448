"""TCP proxies that stand between two programs and break the way between them: cut, stalled, or black.

All proxies of a process share one thread. Use them like this:

    with proxy.Proxies() as proxies:
        way = proxies.add(free_port(), lambda: port_behind)
        way.stall()        # bytes wait and arrive later, as behind a queue that is full
        way.blackhole()    # bytes are lost; connections that lost some are reset when the way is healed
        way.cut()          # connections are reset, new ones too
        way.heal()
        way.bytes          # bytes that went through so far, by direction
"""

import asyncio
import contextlib
import socket
import struct
import threading

READ_BYTES = 64 * 1024
# Close sends a reset instead of an orderly end.
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
START_SECONDS = 10


class Proxies:
    """The proxies of a test and the thread that they run in."""

    def __init__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="proxies")
        self._thread.start()
        self._ways = []

    def add(self, port, behind):
        """A proxy that listens on `port` and connects to the port that `behind()` says then."""
        way = Way(self._loop, port, behind)
        self.call(way.start())
        self._ways.append(way)
        return way

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(START_SECONDS)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for way in self._ways:
            self.call(way.end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_SECONDS)


class Way:
    """One proxy. Its state is `open`, `stalled`, `black` or `cut`, in both directions or one."""

    def __init__(self, loop, port, behind):
        self._loop, self.port, self._behind = loop, port, behind
        self._state, self._direction = "open", "both"
        self.bytes = {"in": 0, "out": 0}
        self._changed = asyncio.Event()
        self._connections = set()
        self._tasks = set()

    async def start(self):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def end(self):
        self._server.close()
        for connection in list(self._connections):
            connection.reset()
        for task in list(self._tasks):
            task.cancel()

    def stall(self, direction="both"):
        """Bytes wait. `direction` is `in` (to what is behind the proxy), `out`, or `both`."""
        self._set("stalled", direction)

    def blackhole(self, direction="both"):
        """Bytes are lost."""
        self._set("black", direction)

    def cut(self):
        """Connections are reset, and new ones too, until the way is healed."""
        self._set("cut", "both")

    def heal(self):
        """As if nothing had been; only connections that lost bytes are reset."""
        self._set("open", "both")

    @property
    def state(self):
        return self._state if self._direction == "both" else f"{self._state} {self._direction}"

    def _set(self, state, direction):
        done = threading.Event()

        def change():
            self._state, self._direction = state, direction
            for connection in list(self._connections):
                if state == "cut" or (state == "open" and connection.lost_bytes):
                    connection.reset()
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()
            done.set()

        self._loop.call_soon_threadsafe(change)
        assert done.wait(START_SECONDS), "the proxies' thread hangs"

    def _now(self, direction):
        return self._state if self._direction in ("both", direction) else "open"

    async def _accept(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        connection = Connection(writer)
        self._connections.add(connection)
        try:
            # Nobody answers on a way that is stalled or black, not even with a refusal.
            while self._state in ("stalled", "black"):
                connection.lost_bytes |= self._state == "black"
                await self._changed.wait()
            if self._state == "cut" or connection.ended:
                return
            try:
                back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self._behind())
            except OSError:
                return
            connection.writers.append(back_writer)
            pumps = [self._pump(connection, reader, back_writer, "in"), self._pump(connection, back_reader, writer, "out")]
            await asyncio.gather(*pumps)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            connection.reset()
            self._connections.discard(connection)
            self._tasks.discard(task)

    async def _pump(self, connection, reader, writer, direction):
        while not connection.ended:
            data = await reader.read(READ_BYTES)
            while self._now(direction) == "stalled":
                await self._changed.wait()
            if self._now(direction) == "black":
                # The end of a process does not come through either.
                connection.lost_bytes = True
                if not data:
                    while self._now(direction) == "black":
                        await self._changed.wait()
                continue
            if not data:
                connection.reset()
                return
            self.bytes[direction] += len(data)
            writer.write(data)
            await writer.drain()


class Connection:
    """A connection of a client with the one behind it."""

    def __init__(self, writer):
        self.writers, self.lost_bytes, self.ended = [writer], False, False

    def reset(self):
        self.ended = True
        for writer in self.writers:
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            writer.transport.abort()
