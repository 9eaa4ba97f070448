"""Records every frame of a network interface, puts TCP and HTTP/2 together again, and searches what was carried for planted values.

    python sql-tests/clients/traffic_recorder.py INTERFACE PLANTED.json REPORT.json        until its standard input closes

Values that were split over segments or over HTTP/2 frames are found, in rows (fixed width), in plans (varints, digits), in headers (Huffman) and in
base64. A frame that was lost, a gap in a stream, or a compressed body is reported: what was not read proves nothing.
"""

import base64
import contextlib
import json
import os
import pathlib
import re
import select
import socket
import struct
import sys
import time

# The canary of a text says where it was planted; those of fixed width do so in their upper half, and the lower half is random.
OWNERS = ["eu", "us", "open", "both"]
TEXT = re.compile(rb"canary-(eu|us|open|both)-[a-z]+-[0-7]-[0-9a-f]{16}")
# Upper halves of 64 bits by kind; the owner's number is added. All of them are far from what else is stored, and sums of thousands do not overflow.
UPPER = {"integer": 0x00045AC0, "decimal": 0x00055AC0, "timestamp": 0x00075AC0, "double": 0x41A65AC0}
# Patterns start with the byte that tells most: these run over everything that crosses.
LITTLE_ENDIAN = re.compile(rb"\x5A(?:[\x04\x05\x07]\x00|\xA6\x41)")
BIG_ENDIAN = re.compile(rb"\x5A[\xC0-\xC3]")
# Bits from 35 on, seven a byte: the owner's lie below.
HIGH_BITS = [UPPER[kind] >> 3 for kind in ("integer", "decimal", "timestamp")]
VARINT = re.compile(b"|".join(re.escape(bytes([0x80 | high & 127, 0x80 | high >> 7 & 127, high >> 14])) for high in HIGH_BITS))
DIGITS = re.compile(b"(?:%s)[0-9]{12}" % b"|".join(str(UPPER[kind] << 32).encode()[:4] for kind in ("integer", "decimal", "timestamp")))
# A day has too few bits to be known alone: four of one owner in a row are.
DAY_UPPER, DAYS = 0x000B, 4
DAY_RUN = re.compile(rb"\x0B\x00.." * (DAYS - 1) + rb"\x0B\x00", re.DOTALL)
# What may be split between two pieces of a stream.
TAIL_BYTES = 96


def base64_of(text):
    """What the base64 of everything that holds `text` has in it, wherever it starts."""
    packed = [base64.b64encode(b"\0" * shift + text)[4 if shift else 0 :] for shift in range(3)]
    return [part[:-4] if part.endswith(b"=") else part for part in packed]


BASE64 = {owner: re.compile(b"|".join(map(re.escape, base64_of(f"canary-{owner}-".encode())))) for owner in OWNERS}

BUFFER_BYTES = 512 << 20
FRAME_BYTES = 1 << 18
IDLE_SECONDS = 0.5
SOL_PACKET, PACKET_STATISTICS, SO_RCVBUFFORCE = 263, 6, 33
ETH_P_ALL, ETH_P_IP = 3, 0x0800
SYN = 2
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, CONTINUATION, PADDED, PRIORITY, END_HEADERS, END_STREAM = 0, 1, 9, 8, 0x20, 4, 1


def upper(kind, owner):
    return UPPER[kind] + OWNERS.index(owner)


def huffman_codes():
    """{(length, code): byte} of RFC 7541, whose code is canonical: its lengths, a letter each from `a` = 5 bits on, say all of it."""
    lengths = (
        "isxxxxxxxtzxxzxxxxxxxxzxxxxxxxxxbffhibdgffdgdbbbaaabbbbbbbcdkbhfibccccccccccccccccccccccdcdioijbkabababbbaccbbbabcbaabccccckgjix"
        "prpprrrsrssssststtrstssssqrsrsstrqprrssqsrrtqrssqqrqsrssprrrsrrsvvporsruvvvwwvtuoqvwwvwtqqvvxwwwptpqrqqsrruuttvsvwvvwwwwwxwwwwwvz"
    )
    codes, code, before = {}, 0, 0
    for length, byte in sorted((ord(letter) - ord("a") + 5, byte) for byte, letter in enumerate(lengths)):
        code, before = code << (length - before), length
        codes[length, code] = byte
        code += 1
    return codes


CODES = huffman_codes()


def huffman_text(data):
    text, code, length = bytearray(), 0, 0
    for byte in data:
        for shift in range(7, -1, -1):
            code, length = code << 1 | byte >> shift & 1, length + 1
            found = CODES.get((length, code))
            if found is not None:
                text.append(found)
                code, length = 0, 0
    return bytes(text)


def header_literals(block):
    """Every text that a header block spells out. What it only refers to was spelt out before, on the same connection."""
    at, found = 0, []

    def number(bits):
        nonlocal at
        value, at = block[at] & (1 << bits) - 1, at + 1
        if value == (1 << bits) - 1:
            shift = 0
            while True:
                byte, at = block[at], at + 1
                value, shift = value + ((byte & 127) << shift), shift + 7
                if byte < 128:
                    break
        return value

    def text():
        nonlocal at
        packed = block[at] & 128
        length = number(7)
        piece, at = block[at : at + length], at + length
        found.append(huffman_text(piece) if packed else piece)

    while at < len(block):
        first = block[at]
        if first & 128:
            number(7)
        elif first & 0xE0 == 0x20:
            number(5)
        else:
            if number(6 if first & 64 else 4) == 0:
                text()
            text()
    return found


class Canaries:
    """What was planted, and which of it was seen."""

    def __init__(self, planted):
        self.planted = {kind: {owner: set(values) for owner, values in by_owner.items()} for kind, by_owner in planted.items()}
        self.seen, self.where = {}, []

    def note(self, kind, owner, value, where):
        seen = self.seen.setdefault(owner, {}).setdefault(kind, set())
        if value not in seen:
            seen.add(value)
            if owner in ("eu", "us"):
                self.where.append(f"{time.time():.3f} {kind} of {owner}: {value} in {where()}")

    def fixed(self, kind_upper, low, spelling, where):
        for kind, base in UPPER.items():
            owner = kind_upper - base
            if 0 <= owner < len(OWNERS) and low in self.planted[kind][OWNERS[owner]]:
                self.note(kind + spelling, OWNERS[owner], low, where)

    def search(self, data, where):
        for match in TEXT.finditer(data.lower()):
            self.note("text", match[1].decode(), match[0].decode(), where)
        for match in LITTLE_ENDIAN.finditer(data):
            at = match.start() - 5
            if at >= 0:
                low, high = struct.unpack_from("<II", data, at)
                self.fixed(high, low, "", where)
        for match in BIG_ENDIAN.finditer(data):
            at = match.start() - 2
            if 0 <= at <= len(data) - 8:
                self.fixed(*struct.unpack_from(">II", data, at), " in big endian", where)
        for match in VARINT.finditer(data):
            at = match.start() - 5
            value = sum((byte & 127) << 7 * place for place, byte in enumerate(data[max(at, 0) : at + 8]))
            self.fixed(value >> 32, value & 0xFFFFFFFF, " in a varint", where)
        for match in DIGITS.finditer(data):
            value = int(match[0])
            self.fixed(value >> 32, value & 0xFFFFFFFF, " in digits", where)
        for match in DAY_RUN.finditer(data):
            at = match.start() - 2
            days = struct.unpack(f"<{DAYS}I", data[at : at + 4 * DAYS]) if at >= 0 else ()
            for owner, planted in self.planted["date"].items():
                # Small numbers of another width repeat; days do not.
                if len(set(days)) == DAYS and planted.issuperset(days):
                    for day in days:
                        self.note("date", owner, day, where)
        for owner, pattern in BASE64.items():
            for match in pattern.finditer(data):
                self.note("text in base64", owner, match[0].decode(), where)


class Stream:
    """Bytes that belong together, searched piece by piece."""

    def __init__(self, canaries, name):
        self.canaries, self.name, self.tail = canaries, name, b""

    def feed(self, data):
        data = self.tail + data
        self.canaries.search(data, lambda: self.name)
        self.tail = data[-TAIL_BYTES:]


class Http2:
    """One direction of an HTTP/2 connection: bodies by stream, headers spelt out, other frames as they are."""

    def __init__(self, canaries, name):
        self.canaries, self.name = canaries, name
        self.buffer, self.bodies, self.block, self.plain = bytearray(), {}, b"", None
        self.started, self.compressed = False, 0

    def feed(self, data):
        if self.plain is not None:
            return self.plain.feed(data)
        self.buffer += data
        if not self.started:
            if len(self.buffer) < len(PREFACE) and PREFACE.startswith(self.buffer):
                return
            self.started = True
            if self.buffer.startswith(PREFACE):
                del self.buffer[: len(PREFACE)]
            elif self.buffer[:3].isalpha():
                self.plain = Stream(self.canaries, self.name)
                return self.plain.feed(bytes(self.buffer))
        at = 0
        while len(self.buffer) - at >= 9:
            length, kind, flags = int.from_bytes(self.buffer[at : at + 3], "big"), self.buffer[at + 3], self.buffer[at + 4]
            if len(self.buffer) - at < 9 + length:
                break
            stream = int.from_bytes(self.buffer[at + 5 : at + 9], "big") & 0x7FFFFFFF
            self.frame(kind, flags, stream, bytes(self.buffer[at + 9 : at + 9 + length]))
            at += 9 + length
        del self.buffer[:at]

    def frame(self, kind, flags, stream, payload):
        if kind in (DATA, HEADERS) and flags & PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        if kind == DATA:
            self.body(stream, payload)
        elif kind in (HEADERS, CONTINUATION):
            self.block += payload[5:] if kind == HEADERS and flags & PRIORITY else payload
            if flags & END_HEADERS:
                block, self.block = self.block, b""
                self.headers(stream, header_literals(block))
        else:
            self.canaries.search(payload, lambda: f"{self.name}, HTTP/2 frame of kind {kind}")
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            self.bodies.pop(stream, None)

    def body(self, stream, payload):
        """gRPC puts a byte before every message that says whether it is compressed: the first of a body is looked at."""
        if stream not in self.bodies:
            self.bodies[stream] = Stream(self.canaries, f"{self.name}, stream {stream}")
            self.compressed += payload[:1] == b"\x01"
        self.bodies[stream].feed(payload)

    def headers(self, stream, literals):
        for text in literals:
            self.canaries.search(text, lambda: f"{self.name}, headers of stream {stream}")
            # Errors travel a second time as they are, in base64.
            with contextlib.suppress(ValueError):
                unpacked = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
                self.canaries.search(unpacked, lambda: f"{self.name}, binary headers of stream {stream}")


class Direction:
    """One direction of a TCP connection: segments in order, each byte once."""

    def __init__(self, canaries, name, first):
        self.next, self.waiting, self.reader = first, {}, Http2(canaries, name)

    def ahead(self, sequence):
        """Distance to what is expected, in the numbers of TCP, which come round."""
        return (sequence - self.next + (1 << 31)) % (1 << 32) - (1 << 31)

    def feed(self, sequence, data):
        self.waiting[sequence] = max(self.waiting.get(sequence, b""), data, key=len)
        while self.waiting:
            first = min(self.waiting, key=self.ahead)
            if self.ahead(first) > 0:
                return
            fresh = self.waiting.pop(first)[-self.ahead(first) :]
            if fresh:
                self.next = (self.next + len(fresh)) % (1 << 32)
                self.reader.feed(fresh)


class Recorder:
    """The frames of an interface, from before the first to after the last."""

    def __init__(self, interface, planted):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        self.socket.bind((interface, ETH_P_ALL))
        self.socket.setblocking(False)
        self.canaries = Canaries(planted)
        self.directions, self.ended = {}, []
        self.frames = self.bytes = self.headless = self.gaps = self.compressed = 0

    def record(self, stop):
        """Until `stop` (a file descriptor) is readable, and nothing has come for a while after that."""
        stopping = False
        while True:
            ready, _, _ = select.select([self.socket] if stopping else [self.socket, stop], [], [], IDLE_SECONDS)
            if stopping and not ready:
                return self.close()
            stopping |= stop in ready
            if self.socket in ready:
                self.drain()

    def drain(self):
        for _ in range(1000):
            try:
                frame = self.socket.recv(FRAME_BYTES)
            except BlockingIOError:
                return
            self.frames += 1
            self.bytes += len(frame)
            self.frame(frame)

    def frame(self, frame):
        header = 14 + (frame[14] & 15) * 4
        if struct.unpack_from("!H", frame, 12)[0] != ETH_P_IP or frame[23] != socket.IPPROTO_TCP:
            return self.canaries.search(frame, lambda: "a frame that is not TCP")
        (total,) = struct.unpack_from("!H", frame, 16)
        source, target, sequence = struct.unpack_from("!HHI", frame, header)
        flags = frame[header + 13]
        key = frame[26:34] + frame[header : header + 4]
        if flags & SYN:
            self.end(key)
            name = f"{socket.inet_ntoa(frame[26:30])}:{source} to {socket.inet_ntoa(frame[30:34])}:{target}"
            self.directions[key] = Direction(self.canaries, name, (sequence + 1) % (1 << 32))
            return
        data = frame[header + (frame[header + 12] >> 4) * 4 : 14 + total]
        direction = self.directions.get(key)
        if data and direction is None:
            self.headless += 1
            self.canaries.search(data, lambda: "a connection without a start")
        elif data:
            direction.feed(sequence, data)

    def end(self, key):
        direction = self.directions.pop(key, None)
        if direction:
            self.gaps += bool(direction.waiting)
            self.compressed += direction.reader.compressed

    def close(self):
        for key in list(self.directions):
            self.end(key)
        packets, dropped = struct.unpack("II", self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        seen = {owner: {kind: len(values) for kind, values in kinds.items()} for owner, kinds in self.canaries.seen.items()}
        return {
            "frames": self.frames, "bytes": self.bytes, "offered": packets, "dropped": dropped, "headless": self.headless, "gaps": self.gaps,
            "compressed": self.compressed, "seen": seen, "crossed": self.canaries.where,
        }  # fmt: skip


if __name__ == "__main__":
    recorder = Recorder(sys.argv[1], json.loads(pathlib.Path(sys.argv[2]).read_text()))
    print("recording", flush=True)
    pathlib.Path(sys.argv[3]).write_text(json.dumps(recorder.record(sys.stdin.fileno())))
    os._exit(0)
