"""Short form of region_traffic.py, and its recorder: what it could miss, in pieces."""

import pathlib
import random
import struct
import subprocess
import sys

import pytest
import region_traffic
import traffic_recorder

SCRIPT = pathlib.Path(region_traffic.__file__)
CANARY = "canary-us-name-3-0123456789abcdef"
# Four times what it takes on two quiet cores and more.
SECONDS = 420


def test_generated_queries_over_two_regions_with_all_traffic_recorded():
    """In a process of its own: it moves into a network of its own."""
    ended = subprocess.run([sys.executable, SCRIPT, "--queries", "400", "--seed", "1"], capture_output=True, text=True, timeout=SECONDS)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture
def canaries():
    kinds = [*traffic_recorder.UPPER, "date", "text"]
    return traffic_recorder.Canaries({kind: {"us": [0x000B0101, 0x000B0205, 0x000B0309, 0x000B040D] if kind == "date" else [77]} for kind in kinds})


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def test_a_value_split_over_frames_and_segments_in_any_order_is_found(canaries):
    body = [frame(0, 0, stream, CANARY[at : at + 5].encode()) for at in range(0, len(CANARY), 5) for stream in (1, 3)]
    carried = traffic_recorder.PREFACE + frame(4, 0, 0, b"") + b"".join(body)
    # Sequence numbers come round within it, and segments overlap, come twice and in disorder.
    first = (1 << 32) - 50
    pieces = [((first + at) % (1 << 32), carried[at : at + 11]) for at in range(0, len(carried), 7)] * 2
    random.Random(1).shuffle(pieces)
    direction = traffic_recorder.Direction(canaries, "a way", first)
    for sequence, data in pieces:
        direction.feed(sequence, data)
    assert canaries.seen == {"us": {"text": {CANARY}}} and not direction.waiting
    assert "a way, stream" in canaries.where[0]


@pytest.mark.parametrize(("kind", "spelt"), [
    ("integer", lambda value: struct.pack("<q", value)),
    ("decimal", lambda value: struct.pack("<q", value) + bytes(8)),
    ("double", lambda value: struct.pack("<q", value)),
    ("timestamp in big endian", lambda value: struct.pack(">q", value)),
    ("integer in digits", lambda value: f"value {value}!".encode()),
    ("integer in a varint", lambda value: bytes(value >> 7 * place & 127 | (128 if place < 7 else 0) for place in range(8))),
    ("text", lambda value: CANARY.upper().encode()),
    ("date", lambda value: struct.pack("<4i", 0x000B0101, 0x000B0205, 0x000B0309, 0x000B040D)),
])  # fmt: skip
def test_a_value_is_found_however_it_is_spelt(canaries, kind, spelt):
    value = traffic_recorder.upper(kind.split()[0], "us") << 32 | 77 if kind.split()[0] in traffic_recorder.UPPER else 0
    canaries.search(b"\x01" * 9 + spelt(value) + b"\x01" * 9, lambda: "here")
    assert list(canaries.seen["us"]) == [kind]


def test_a_value_in_a_huffman_coded_header_and_in_base64_is_found(canaries):
    code = {byte: (length, bits) for (length, bits), byte in traffic_recorder.CODES.items()}
    bits = "".join(f"{value:0{length}b}" for length, value in (code[byte] for byte in CANARY.encode()))
    packed = int(bits + "1" * (-len(bits) % 8), 2).to_bytes((len(bits) + 7) // 8, "big")
    block = b"\x88\x00\x04name" + bytes([128 | len(packed)]) + packed
    reader = traffic_recorder.Http2(canaries, "a way")
    reader.feed(frame(4, 0, 0, b"") + frame(1, 0, 1, block[:9]) + frame(9, 4, 1, block[9:]))
    assert canaries.seen == {"us": {"text": {CANARY}}}
    for shift in range(3):
        canaries.seen.clear()
        canaries.search(traffic_recorder.base64.b64encode(b"x" * shift + CANARY.encode()), lambda: "here")
        assert list(canaries.seen["us"]) == ["text in base64"]


def test_a_recording_that_misses_something_proves_nothing():
    whole = {"crossed": [], "dropped": 0, "headless": 0, "gaps": 0, "compressed": 0, "passed": 9, "frames": 9, "seen": {"open": {"text": 5}}}
    assert region_traffic.judged(whole, {"text": 5}) == ([], 5)
    blind, crossed = {"seen": {"open": {"text": 4}}}, {"crossed": ["it"]}
    for missed in ({"dropped": 1}, {"headless": 1}, {"gaps": 1}, {"compressed": 1}, {"passed": 10}, blind, crossed):
        problems, _ = region_traffic.judged(whole | missed, {"text": 5})
        assert len(problems) == 1, missed
