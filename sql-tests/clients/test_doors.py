"""What strangers and careless clients send: broken Arrow messages, large ones, silent connections, results that nobody reads. The server lives, its
memory stays bounded, and others are served meanwhile."""

import contextlib
import pathlib
import random
import re
import resource
import socket
import struct
import time

import adbc_driver_flightsql.dbapi as flight_sql
import adbc_driver_manager
import cluster
import flight_messages
import pyarrow
import pyarrow.flight
import pytest
import tamper
from adbc_driver_flightsql import DatabaseOptions

MEMORY_BYTES = 256 << 20
# Errors that a caller can act on; anything else is a defect of ours or a broken connection.
SAID = (
    pyarrow.lib.ArrowInvalid,
    pyarrow.flight.FlightError,
    pyarrow.lib.ArrowNotImplementedError,
    pyarrow.lib.ArrowKeyError,
    pyarrow.lib.ArrowException,
)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doors")
    settings = f"[coordinator]\nmemory_bytes = {MEMORY_BYTES}\n"
    with cluster.Cluster(folder / "cluster", [cluster.Node("node-1", {"data": folder / "data"})], settings) as started:
        yield started


@pytest.fixture
def between(running):
    with tamper.Tamperer(cluster.free_port(), running.port) as proxy:
        yield proxy


def resident_bytes(process, high=False):
    """Memory of a process now, or the most that it had."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(rf"{'VmHWM' if high else 'VmRSS'}:\s+(\d+) kB", status)[1]) << 10


def ingest_descriptor(table, if_there=3):
    options = flight_messages.message({1: 1, 2: if_there})
    return flight_messages.descriptor("CommandStatementIngest", {1: options, 2: table})


def put(client, descriptor, batches, compression=None):
    options = pyarrow.flight.FlightCallOptions(timeout=30, write_options=pyarrow.ipc.IpcWriteOptions(compression=compression))
    writer, reader = client.do_put(descriptor, batches[0].schema, options)
    with writer:
        for batch in batches:
            writer.write_batch(batch)
        writer.done_writing()
        return reader.read()


def prepared(client, sql):
    """The descriptor that binds values to a statement."""
    action = pyarrow.flight.Action("CreatePreparedStatement", flight_messages.command("ActionCreatePreparedStatementRequest", {1: sql}))
    (answer,) = client.do_action(action)
    body = answer.body.to_pybytes()
    at = body.index(b"\x0a\x10", body.index(b"ActionCreatePreparedStatementResult")) + 2
    return flight_messages.descriptor("CommandPreparedStatementQuery", {1: body[at : at + 16]})


def every_kind():
    rows = 40
    return pyarrow.record_batch(
        {
            "n": pyarrow.array([*range(rows - 1), None], pyarrow.int64()),
            "s": pyarrow.array(["text", None, "longer text than a view holds"] * 13 + [""]),
            "v": pyarrow.array(["view", "a view that lies in a buffer of its own"] * 20, pyarrow.string_view()),
            "b": pyarrow.array([True, None] * 20),
            "l": pyarrow.array([[1, 2], None, [], [3]] * 10, pyarrow.list_(pyarrow.int32())),
            "f": pyarrow.array([[1, 2]] * rows, pyarrow.list_(pyarrow.int16(), 2)),
            "o": pyarrow.array([{"a": 1, "b": "x"}, None] * 20),
            "m": pyarrow.array([[("k", 1)], None] * 20, pyarrow.map_(pyarrow.string(), pyarrow.int64())),
            "d": pyarrow.array(["red", "green"] * 20).dictionary_encode(),
            "z": pyarrow.nulls(rows),
            "x": pyarrow.array([b"12345678"] * rows, pyarrow.binary(8)),
            "t": pyarrow.array([0, 1] * 20, pyarrow.timestamp("us", "UTC")),
        }
    )


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_broken_arrow_messages_are_errors_with_a_text(running, between, compression):
    client, _ = flight_messages.connect(between.port)
    direct, _ = flight_messages.connect(running.port)
    batch = every_kind()
    bind = prepared(direct, "SELECT " + ", ".join("?" * batch.num_columns))
    chance = random.Random(5)
    part = [0.0]

    def change(content):
        changed = bytearray(content)
        for at in range(len(changed)):
            if chance.random() < part[0]:
                changed[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        return bytes(changed)

    between.change = change
    before = resident_bytes(running.server)
    said, stored = [], 0
    for attempt in range(1000):
        part[0] = chance.choice([0.0003, 0.001, 0.01])
        descriptor = bind if attempt % 5 else ingest_descriptor(f"tampered_{compression}")
        try:
            put(client, descriptor, [batch, batch], compression)
            stored += 1
        except SAID as error:
            said.append(str(error))
        assert running.server.running(), running.server.log_text()[-2000:]
    assert len(said) > 300, stored
    # An error of the protocol below, or one without words, is no answer.
    broken = [text for text in said if re.search(r"RST_STREAM|Stream removed|Socket closed|no message|unexpectedly|Broken pipe", text)]
    assert not broken, broken[:3]
    assert resident_bytes(running.server) < before + MEMORY_BYTES
    assert running.rows("SELECT 1") == [(1,)]


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
@pytest.mark.parametrize("length", [1 << 62, 1 << 36, -5, 80_001])
def test_the_length_of_a_packed_buffer_is_not_believed(running, between, compression, length):
    client, _ = flight_messages.connect(between.port)
    batch = pyarrow.record_batch({"n": pyarrow.array([7] * 10_000, pyarrow.int64())})
    between.change = lambda content: content.replace(struct.pack("<q", 80_000), struct.pack("<q", length))
    before = resident_bytes(running.server)
    with pytest.raises(SAID, match="nothing was stored|no .* bytes of memory"):
        put(client, ingest_descriptor("packed"), [batch], compression)
    assert resident_bytes(running.server) < before + (64 << 20)
    assert running.rows("SELECT count(*) FROM information_schema.tables WHERE table_name = 'packed'") == [(0,)]


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_small_messages_that_unpack_to_much_stay_within_memory(running, compression):
    client, _ = flight_messages.connect(running.port)
    batch = pyarrow.record_batch({"n": pyarrow.Array.from_buffers(pyarrow.int64(), 50 << 20, [None, pyarrow.py_buffer(bytes(400 << 20))])})
    with pytest.raises(SAID, match="coordinator.memory_bytes"):
        put(client, ingest_descriptor("unpacked"), [batch] * 3, compression)
    assert resident_bytes(running.server, high=True) < 3 * MEMORY_BYTES
    assert running.rows("SELECT count(*) FROM information_schema.tables WHERE table_name = 'unpacked'") == [(0,)]


def test_values_that_rows_share_are_stored_in_pieces(running):
    client, _ = flight_messages.connect(running.port)
    shared = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0, 1] * 200, pyarrow.int32()), ["x" * 1_000_000, "y"])
    put(client, ingest_descriptor("shared"), [pyarrow.record_batch({"s": shared})])
    assert running.rows("SELECT count(*), sum(length(s)) FROM shared") == [(400, 200 * 1_000_001)]
    assert resident_bytes(running.server, high=True) < 4 * MEMORY_BYTES
    # Bound values are held all at once.
    with pytest.raises(SAID, match="the bound values take more than"):
        put(client, prepared(client, "SELECT ?"), [pyarrow.record_batch({"s": shared})] * 2)


def test_rows_without_bytes_are_bounded(running):
    client, _ = flight_messages.connect(running.port)
    put(client, ingest_descriptor("nothing"), [pyarrow.record_batch({"z": pyarrow.nulls(1_000_000)})])
    assert running.rows("SELECT count(*), count(z) FROM nothing") == [(1_000_000, 0)]
    with pytest.raises(SAID, match="without (values|bytes) at most 1048576 are taken at once"):
        put(client, ingest_descriptor("nothing"), [pyarrow.record_batch({"z": pyarrow.nulls(1_100_000)})])


def frame(rows):
    return pyarrow.table({"n": pyarrow.Array.from_buffers(pyarrow.int64(), rows, [None, pyarrow.py_buffer(bytes(8 * rows))])})


def of_large_messages(running):
    return flight_sql.connect(running.uri, db_kwargs={DatabaseOptions.WITH_MAX_MSG_SIZE.value: str((1 << 31) - 1)}, autocommit=True)


def tables(running, name):
    return running.rows(f"SELECT count(*) FROM information_schema.tables WHERE table_name = '{name}'")[0][0]


def test_a_frame_in_one_message_is_stored(tmp_path):
    settings = f"[coordinator]\nmemory_bytes = {2 << 30}\n"
    with cluster.Cluster(tmp_path / "cluster", [cluster.Node("node-1", {"data": tmp_path / "data"})], settings) as large:
        table = frame(25_000_000)
        before = resident_bytes(large.server)
        with of_large_messages(large) as connection, connection.cursor() as cursor:
            assert cursor.adbc_ingest("frame", table, mode="create") == table.num_rows
        assert large.rows("SELECT count(*), sum(n) FROM frame") == [(table.num_rows, 0)]
        assert resident_bytes(large.server, high=True) < before + 3 * table.nbytes


def test_a_frame_that_fails_leaves_nothing_behind(running):
    table = frame(40_000_000)
    # The driver's own bound: it sends the schema, and ends the call as if that were all.
    with running.connect() as connection, connection.cursor() as cursor:
        with pytest.raises(adbc_driver_manager.Error, match="larger than max"):
            cursor.adbc_ingest("beyond", table, mode="create")
    assert tables(running, "beyond") == 0
    with of_large_messages(running) as connection, connection.cursor() as cursor:
        with pytest.raises(adbc_driver_manager.Error, match="coordinator.memory_bytes"):
            cursor.adbc_ingest("beyond", table, mode="create")
        assert tables(running, "beyond") == 0
        assert cursor.adbc_ingest("beyond", table.slice(0, 8_000_000).to_reader(max_chunksize=1_000_000), mode="create") == 8_000_000
    assert tables(running, "beyond") == 1


def connections(port, count, source="127.0.0.1"):
    return [socket.create_connection(("127.0.0.1", port), source_address=(source, 0)) for _ in range(count)]


def ended(sockets):
    """How many of the connections the other side has closed."""
    gone = 0
    for each in sockets:
        each.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            try:
                while each.recv(1 << 16):
                    pass
                gone += 1
            except ConnectionError:
                gone += 1
    return gone


def test_silent_connections_lock_nobody_out(running):
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with running.connect() as connection, connection.cursor() as cursor:
        silent = []
        for _ in range(11):
            silent += connections(running.port, 100)
            silent += connections(running.http_port, 10)
            cursor.execute("SELECT 1")
            assert cursor.fetchall() == [(1,)]
            assert running.http("/healthz") == "ok\n"
        # Who comes new is served as well.
        assert running.rows("SELECT 2") == [(2,)]
        files = len(list(pathlib.Path(f"/proc/{running.server.pid}/fd").iterdir()))
        assert files < 600, files
        # Those that said nothing are ended in time, and whoever talked before is not.
        cluster.wait_until("silent connections end", 15, lambda: ended(silent[:100]) == 100)
        cursor.execute("SELECT 3")
        assert cursor.fetchall() == [(3,)]
        for each in silent:
            each.close()


def test_silent_connections_to_nodes_ports_cut_no_node_off(running):
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    running.rows("CREATE TABLE IF NOT EXISTS of_nodes AS SELECT value AS n FROM generate_series(1, 1000) AS t(value)")
    silent = []
    for _ in range(11):
        for port in (running.control_port, running.worker_ports["node-1"]):
            silent += connections(port, 100)
        assert running.rows("SELECT sum(n) FROM of_nodes") == [(500_500,)]
    for process in (running.server, running.workers["node-1"]):
        files = len(list(pathlib.Path(f"/proc/{process.pid}/fd").iterdir()))
        assert files < 600, (process.name, files)
    cluster.wait_until("silent connections end", 15, lambda: ended(silent[:200]) == 200)
    assert set(running.rows("SELECT state FROM system.nodes")) == {("live",)}
    assert running.rows("SELECT sum(n) FROM of_nodes") == [(500_500,)]
    for each in silent:
        each.close()


def test_a_large_message_of_a_node_without_the_token_is_not_taken(running):
    for process, port in ((running.server, running.control_port), (running.workers["node-1"], running.worker_ports["node-1"])):
        before = resident_bytes(process, high=True)
        with pyarrow.flight.connect(f"grpc://127.0.0.1:{port}") as client:
            for _ in range(3):
                with pytest.raises(pyarrow.flight.FlightUnauthenticatedError, match="cluster token is missing or wrong"):
                    list(client.do_action(pyarrow.flight.Action("bowshot.register", b"x" * (48 << 20))))
        assert resident_bytes(process, high=True) < before + (24 << 20), process.name


def test_a_large_message_of_a_stranger_is_not_taken(tmp_path):
    settings = '[auth]\nmode = "required"\ntokens = { ana = "a token of sixteen" }\n'
    with cluster.Cluster(tmp_path / "cluster", [], settings, token="a token of sixteen") as guarded:
        before = resident_bytes(guarded.server)
        client, _ = flight_messages.connect(guarded.port)
        statement = flight_messages.descriptor("CommandStatementQuery", {1: "SELECT '" + "x" * (48 << 20) + "'"})
        for _ in range(3):
            with pytest.raises(pyarrow.flight.FlightUnauthenticatedError):
                client.get_flight_info(statement)
        assert resident_bytes(guarded.server, high=True) < before + (24 << 20)
        known, options = flight_messages.connect(guarded.port, "a token of sixteen")
        with pytest.raises(pyarrow.lib.ArrowInvalid, match="statement"):
            known.get_flight_info(statement, options)
        assert flight_messages.query(known, "SELECT '" + "x" * 100_000 + "'", options).num_rows == 1


def test_a_result_that_nobody_reads_makes_way_for_others(tmp_path):
    settings = '[coordinator.query]\nmax_concurrent = 2\nunread_ms = 1500\n'
    with cluster.Cluster(tmp_path / "cluster", [cluster.Node("node-1", {"data": tmp_path / "data"})], settings) as slow:
        slow.rows("CREATE TABLE wide AS SELECT value AS n, repeat('x', 1000) AS s FROM generate_series(1, 300000) AS t(value)")
        client, _ = flight_messages.connect(slow.port)
        info = [client.get_flight_info(flight_messages.descriptor("CommandStatementQuery", {1: "SELECT * FROM wide"})) for _ in range(2)]
        readers = [client.do_get(each.endpoints[0].ticket) for each in info]
        for reader in readers:
            reader.read_chunk()
        # With nobody waiting they may take their time.
        time.sleep(3)
        assert slow.rows("SELECT count(*) FROM system.queries WHERE state = 'running' AND sql = 'SELECT * FROM wide'") == [(2,)]
        started = time.monotonic()
        assert slow.rows("SELECT count(*) FROM wide") == [(300_000,)]
        assert time.monotonic() - started < 10
        said = []
        for reader in readers:
            try:
                reader.read_all()
            except pyarrow.lib.ArrowException as error:
                said.append(str(error))
        assert said and all("took no rows of the result for 1500 ms" in text for text in said), said


def test_users_see_their_own_statements_and_administrators_all(tmp_path):
    tokens = {"ana": "a token of sixteen", "bob": "another of sixteen", "eve": "the token of an administrator"}
    listed = ", ".join(f'{user} = "{token}"' for user, token in tokens.items())
    settings = f'[auth]\nmode = "required"\ntokens = {{ {listed} }}\nadministrators = ["eve"]\n'
    with cluster.Cluster(tmp_path / "cluster", [], settings, token=tokens["ana"]) as guarded:
        for user, token in tokens.items():
            with guarded.connect(token) as connection, connection.cursor() as cursor:
                cursor.execute(f"SELECT 'a secret of {user}'")
                cursor.fetchall()
        for user, token in tokens.items():
            with guarded.connect(token) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT DISTINCT user_name FROM system.queries WHERE sql LIKE '%a secret of%' AND sql NOT LIKE '%system%' ORDER BY 1")
                assert [row[0] for row in cursor.fetchall()] == (["ana", "bob", "eve"] if user == "eve" else [user])
