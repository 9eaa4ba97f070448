"""A proxy between a gRPC client and its server that changes what the client sends, without touching the frames around it.

    with tamper.Tamperer(free_port(), port_behind) as between:
        between.change = lambda content: …        # bytes of messages (not their lengths) to as many other bytes
"""

import socket
import struct
import threading

FRAME_HEADER_BYTES, DATA, PREFIX_BYTES = 9, 0, 5
PREFACE_BYTES = 24


class Tamperer:
    def __init__(self, port, behind):
        self.port, self._behind, self.change = port, behind, None
        self._listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._behind))
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_pass_on, args=(server, client), daemon=True).start()
            threading.Thread(target=self._tamper, args=(client, server), daemon=True).start()

    def _tamper(self, client, server):
        source, streams = client.makefile("rb"), {}
        try:
            server.sendall(source.read(PREFACE_BYTES))
            while len(head := source.read(FRAME_HEADER_BYTES)) == FRAME_HEADER_BYTES:
                payload = source.read(int.from_bytes(head[:3], "big"))
                if head[3] == DATA and self.change:
                    stream = streams.setdefault(struct.unpack(">I", head[5:])[0], _Stream())
                    payload = stream.changed(payload, self.change)
                server.sendall(head + payload)
        except OSError:
            pass
        finally:
            server.close()


class _Stream:
    """Where the messages of a stream begin."""

    def __init__(self):
        self.prefix, self.left = b"", 0

    def changed(self, payload, change):
        out = b""
        while payload:
            content, payload = payload[: self.left], payload[self.left :]
            self.left -= len(content)
            out += change(content) if content else b""
            if self.left == 0 and payload:
                more = PREFIX_BYTES - len(self.prefix)
                self.prefix += payload[:more]
                out, payload = out + payload[:more], payload[more:]
                if len(self.prefix) == PREFIX_BYTES:
                    self.left, self.prefix = int.from_bytes(self.prefix[1:], "big"), b""
        return out


def _pass_on(source, target):
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
    except OSError:
        pass
    finally:
        target.close()
