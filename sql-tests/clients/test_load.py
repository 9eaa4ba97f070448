"""Load: places shared fairly, bounded queues and memory, cancels that free everything, slow clients, `bowshot queries`."""

import contextlib
import os
import re
import subprocess
import sys
import threading
import time

import cluster
import pyarrow
import pyarrow.flight
import pyarrow.parquet
import pytest

ANA, BOB = "token-of-the-user-ana", "token-of-the-user-bob"
TOKENS = {"ana": ANA, "bob": BOB}
PLACES, QUEUE = 2, 8
OF_ONE_USER = 6
SETTINGS = f"""
[auth]
mode = "password"
tokens = {{ ana = "{ANA}", bob = "{BOB}" }}
administrators = ["ana"]
[coordinator.query]
max_concurrent = {PLACES}
max_waiting = {QUEUE}
"""
# Holds half of a join's smaller side as a hash table, and not the whole.
LIMIT_OF_A_SHARE = 11_000_000
TOO_MUCH_FOR_A_NODE = r"needs more memory than the \d+ bytes that it may hold on node"
NODES = ("node-1", "node-2")
ROWS_A_FILE = 65_536
CANCEL_SECONDS = 2
IDLE_SHARE = 0.05
# Scans are slowed down (200 ms a batch), so this takes about a second without taking cores.
SECOND = "SELECT count(*), sum(id) FROM numbers WHERE small >= 0"
# Keeps the workers busy for minutes, with a hash table in memory: inside fragments, and all the way to the client.
ENDLESS = "SELECT count(*) FROM numbers a JOIN numbers b ON a.one = b.one WHERE a.id + b.id <> 5"
ENDLESS_ROWS = "SELECT a.id, b.id AS other FROM numbers a JOIN numbers b ON a.one = b.one WHERE a.id + b.id <> 5"
EXPECTED = (2 * ROWS_A_FILE, sum(range(2 * ROWS_A_FILE)))


def write_numbers(volume, number):
    """File `number` of the table."""
    ids = range(number * ROWS_A_FILE, (number + 1) * ROWS_A_FILE)
    columns = {
        "id": pyarrow.array(ids, pyarrow.int64()),
        "small": pyarrow.array([value % 10 for value in ids], pyarrow.int32()),
        "one": pyarrow.array([1] * ROWS_A_FILE, pyarrow.int32()),
    }
    target = volume / "numbers" / f"part-{number}.parquet"
    target.parent.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), target, row_group_size=16_384)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("load")
    nodes = []
    for number, node_id in enumerate(NODES):
        write_numbers(folder / node_id, number)
        nodes.append(cluster.Node(node_id, {"data": folder / node_id}, kernel_device="off", faults=["slow-scan"]))
    with cluster.Cluster(folder / "cluster", nodes, SETTINGS, token=ANA) as started:
        started.create_table("numbers", "node://*/data/numbers/")
        yield started


@pytest.fixture(autouse=True)
def idle_after(running):
    yield
    for query_id, user in queries(running, "state IN ('queued', 'running') AND sql LIKE '%FROM numbers%'", "query_id, user_name"):
        shell(running, "cancel", query_id, token=TOKENS[user])


class Query:
    """A query that runs beside the test, as one connection of a user."""

    def __init__(self, running, sql, token=ANA, **options):
        self.rows = self.error = None
        self.thread = threading.Thread(target=self._run, args=(running, sql, {"token": token, "kernel": "off", **options}), daemon=True)
        self.thread.start()

    def _run(self, running, sql, options):
        try:
            self.rows = running.rows(sql, **options)
        except Exception as error:  # every kind is an outcome; the test judges the text
            self.error = str(error)

    def wait(self, seconds=40):
        self.thread.join(seconds)
        assert not self.thread.is_alive(), f"neither rows nor an error after {seconds} s"
        return self


class Flight:
    """A connection that keeps the FlightInfo of what it runs, for the actions that want it."""

    def __init__(self, running, token=ANA):
        self.client = pyarrow.flight.connect(running.uri.replace("grpc://", "grpc+tcp://"))
        self.options = pyarrow.flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {token}".encode())])

    def start(self, sql):
        command = field(1, b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery") + field(2, field(1, sql.encode()))
        self.info = self.client.get_flight_info(pyarrow.flight.FlightDescriptor.for_command(command), self.options)
        self.reader = self.client.do_get(self.info.endpoints[0].ticket, self.options)
        return self

    def read(self):
        with contextlib.suppress(Exception):
            while True:
                self.reader.read_chunk()

    def act(self, name, body):
        return [result.body.to_pybytes() for result in self.client.do_action((name, body), self.options)]


def field(number, content):
    """A length-delimited field in the encoding of Protocol Buffers."""
    length, left = b"", len(content)
    while left > 127:
        length, left = length + bytes([left & 127 | 128]), left >> 7
    return bytes([number << 3 | 2]) + length + bytes([left]) + content


def queries(running, condition, columns="state"):
    return running.rows(f"SELECT {columns} FROM system.queries WHERE {condition} AND sql NOT LIKE '%system.queries%' ORDER BY started_at, query_id")


def wait_for(running, count, state, seconds=20):
    condition = f"state = '{state}' AND sql LIKE '%FROM numbers%'"
    cluster.wait_until(f"{count} queries are {state}", seconds, lambda: len(queries(running, condition)) == count)


def let_in(running, label):
    """(user, priority) of the queries with this comment in the order in which they were let in."""
    arrived = "CAST(started_at AS BIGINT) + CAST(queued_ms AS BIGINT)"
    rows = running.rows(f"SELECT user_name, priority FROM system.queries WHERE sql LIKE '/* {label} */%' ORDER BY {arrived}, query_id")
    assert rows, label
    return rows


def shell(running, *arguments, token=ANA):
    environment = {**os.environ, "BOWSHOT_URL": running.uri, "BOWSHOT_TOKEN": token}
    return subprocess.run([cluster.BINARY, "queries", *arguments], env=environment, capture_output=True, text=True, timeout=30)


def reserved(running):
    return dict(running.rows("SELECT node_id, memory_reserved_bytes FROM system.nodes"))


def test_a_flood_of_one_user_does_not_hold_up_another(running):
    flood = [Query(running, f"/* flood */ {SECOND}") for _ in range(PLACES + OF_ONE_USER)]
    wait_for(running, OF_ONE_USER, "queued")
    few = [Query(running, f"/* flood */ {SECOND}", BOB) for _ in range(2)]
    for query in flood + few:
        assert query.wait().rows == [EXPECTED], query.error
    order = [user for user, _ in let_in(running, "flood")]
    assert order.count("bob") == 2
    after = len(order) - 1 - max(place for place, user in enumerate(order) if user == "bob")
    assert after >= OF_ONE_USER - 3, f"bob came late, and was let in late: {order}"
    waited = running.rows("SELECT user_name, max(queued_ms) FROM system.queries WHERE sql LIKE '/* flood */%' GROUP BY 1 ORDER BY 1")
    assert waited[1][1] < waited[0][1], waited


def test_priority_the_small_lane_and_a_full_queue(running):
    for _ in range(PLACES):
        Query(running, ENDLESS)
    wait_for(running, PLACES, "running")
    low = [Query(running, f"/* shares */ {SECOND}", BOB, priority="low") for _ in range(OF_ONE_USER - 1)]
    wait_for(running, OF_ONE_USER - 1, "queued")
    high = Query(running, f"/* shares */ {SECOND}", BOB, priority="high")
    wait_for(running, OF_ONE_USER, "queued")

    # One more of this user is refused; statements without stored tables do not even wait.
    refused = Query(running, SECOND, BOB).wait(10).error
    assert "the queue is full for user bob: 6 of their queries wait already" in refused and "coordinator.query.max_waiting" in refused, refused
    started = time.monotonic()
    assert running.rows("SELECT 1", token=BOB) == [(1,)]
    listed = shell(running, "ls").stdout
    assert time.monotonic() - started < 4, "small statements waited behind large ones"
    assert listed.count("| queued  |") == OF_ONE_USER and listed.count("| running |") == PLACES, listed

    # Cancelled while it waits: its place in the queue is free at once.
    (waits,) = queries(running, "priority = 'low' AND state = 'queued'", "query_id")[-1:]
    assert shell(running, "cancel", waits[0], token=BOB).returncode == 0
    wait_for(running, OF_ONE_USER - 1, "queued", 2)

    for (endless,) in queries(running, "state = 'running' AND sql LIKE '%a.one%'", "query_id"):
        assert shell(running, "cancel", endless).returncode == 0
    assert high.wait().rows == [EXPECTED], high.error
    outcomes = [query.wait() for query in low]
    assert [query.rows for query in outcomes].count([EXPECTED]) == OF_ONE_USER - 2, [query.error for query in outcomes]
    assert sum("cancelled" in (query.error or "") for query in outcomes) == 1
    admitted = running.rows("SELECT priority FROM system.queries WHERE sql LIKE '/* shares */%' AND state = 'finished' ORDER BY CAST(started_at AS BIGINT) + CAST(queued_ms AS BIGINT)")
    assert ("high",) in admitted[:PLACES], admitted


def test_a_query_has_its_memory_and_spills_below_it(running):
    failed = Query(running, "SELECT count(*) FROM numbers a JOIN numbers b ON a.id = b.id", memory_limit_bytes=200_000).wait()
    assert failed.rows is None
    wanted = r"needs more memory than the 200000 bytes that it may hold on (node node-\d|the coordinator) \(SET bowshot.memory_limit_bytes\)"
    assert re.search(wanted, failed.error) and re.search(r"\(query [0-9a-f-]{36}\)", failed.error), failed.error
    groups = "SELECT count(*), sum(n) FROM (SELECT id, count(*) AS n FROM numbers GROUP BY id)"
    limit = 3_000_000
    analyzed = Query(running, f"EXPLAIN ANALYZE {groups}", memory_limit_bytes=limit).wait()
    assert analyzed.error is None, analyzed.error
    text = "\n".join(plan for _, plan in analyzed.rows)
    assert re.search(r"spill_count=[1-9]", text) or re.search(r"spilled_rows=[1-9]", text), text
    spilled = Query(running, groups, memory_limit_bytes=limit).wait()
    assert spilled.rows == [(2 * ROWS_A_FILE, 2 * ROWS_A_FILE)], spilled.error
    ((peak,),) = running.rows(f"SELECT peak_memory_bytes FROM system.queries WHERE sql = '{groups}' ORDER BY started_at DESC LIMIT 1")
    # What spills asks for the memory that this takes beside what others hold: for a moment the sum of the shares is beyond the limit.
    assert 0 < peak <= 2 * limit, peak


def test_a_side_of_a_join_that_is_too_much_for_every_node_is_dealt(running):
    """The filter keeps all rows, five times what is foreseen: the copy on each node does not fit, a share on each does."""
    a = "(SELECT id, repeat(CAST(id AS VARCHAR), 10) AS text FROM numbers WHERE abs(id) % 7 < 8) a"
    sql = f"SELECT count(text), sum(a.id) FROM {a} JOIN numbers b ON a.id = b.id"
    analyzed = Query(running, f"EXPLAIN ANALYZE {sql}", memory_limit_bytes=64_000_000).wait()
    assert analyzed.error is None, analyzed.error
    parts = dict(analyzed.rows)
    assert "mode=CollectLeft" in parts["plan"] and "dealt by key" not in parts.get("decisions", ""), parts
    assert Query(running, sql, memory_limit_bytes=64_000_000).wait().rows == [EXPECTED]
    # How many rows are on their way at once hangs on the machine: now and then a share has no room either, which is an error, or the copy has some.
    tries = [Query(running, f"EXPLAIN ANALYZE {sql}", memory_limit_bytes=LIMIT_OF_A_SHARE).wait() for _ in range(4)]
    assert all(re.search(TOO_MUCH_FOR_A_NODE, one.error) for one in tries if one.error), [one.error for one in tries]
    answered = [dict(one.rows) for one in tries if not one.error]
    dealt = [parts for parts in answered if re.search(f"both sides of joins are dealt by key, .*{TOO_MUCH_FOR_A_NODE}", parts.get("decisions", ""))]
    assert dealt, tries
    for parts in answered:
        assert ("mode=CollectLeft" in parts["plan"]) == (parts not in dealt), parts
    tries = [Query(running, sql, memory_limit_bytes=LIMIT_OF_A_SHARE).wait() for _ in range(3)]
    assert {tuple(one.rows) for one in tries if not one.error} == {(EXPECTED,)}, [one.error for one in tries]


def test_a_sort_is_not_refused_for_a_small_limit(running):
    """It sets memory aside for its merge before the first row."""
    rows = Query(running, "SELECT id FROM numbers ORDER BY small, id", memory_limit_bytes=3_000_000).wait()
    assert rows.error is None, rows.error
    assert [value for (value,) in rows.rows] == sorted(range(2 * ROWS_A_FILE), key=lambda value: (value % 10, value))


def test_a_worker_runs_no_more_tasks_than_it_says_and_spills_no_more(tmp_path):
    write_numbers(tmp_path / "volume", 0)
    limits = {"MAX_TASKS": 2, "SPILL_BYTES_MAX": 100_000, "QUERY_MEMORY_BYTES": 1_000_000}
    environment = {f"BOWSHOT__WORKER__{name}": str(value) for name, value in limits.items()}
    node = cluster.Node("node-1", {"data": tmp_path / "volume"}, kernel_device="off", faults=["slow-scan"], environment=environment)
    with cluster.Cluster(tmp_path / "cluster", [node]) as running:
        running.create_table("numbers", "node://*/data/numbers/")
        together = [Query(running, SECOND, None) for _ in range(3)]
        most = 0
        while any(query.thread.is_alive() for query in together):
            ((tasks,),) = running.rows("SELECT CAST(sum(running_tasks) AS BIGINT) FROM system.queries")
            most = max(most, tasks)
        assert [len(query.wait().rows) for query in together] == [1, 1, 1], [query.error for query in together]
        assert 0 < most <= limits["MAX_TASKS"], most
        full = Query(running, "SELECT count(*), sum(n) FROM (SELECT id, count(*) AS n FROM numbers GROUP BY id)", None).wait()
        assert "spilled data would exceed the 97.7 KB" in full.error and "worker.spill_bytes_max" in full.error, full.error


def cancel_flight_info(flight, _):
    flight.act("CancelFlightInfo", field(1, flight.info.serialize()))


def cancel_query(flight, _):
    request = b"type.googleapis.com/arrow.flight.protocol.sql.ActionCancelQueryRequest"
    flight.act("CancelQuery", field(1, request) + field(2, field(1, flight.info.serialize())))


def cancel_by_command(_, running):
    ((query_id,),) = queries(running, "state = 'running' AND sql LIKE '%a.one%'", "query_id")
    said = shell(running, "cancel", query_id[-8:])
    assert said.returncode == 0 and query_id in said.stdout, said.stderr


@pytest.mark.parametrize("way", [cancel_flight_info, cancel_query, cancel_by_command, "timeout", "client killed"], ids=lambda way: getattr(way, "__name__", way))
def test_a_cancel_frees_everything(running, way):
    sql = ENDLESS if way in (cancel_flight_info, "timeout") else ENDLESS_ROWS
    child = flight = None
    if way == "client killed":
        program = (
            f"import adbc_driver_flightsql.dbapi as f\n"
            f"c = f.connect({running.uri!r}, db_kwargs={{'adbc.flight.sql.authorization_header': 'Bearer {ANA}'}}, autocommit=True).cursor()\n"
            f"c.execute({sql!r})\nwhile c.fetchone(): pass"
        )
        child = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    elif way == "timeout":
        Query(running, sql, query_timeout_ms=5_000)
    else:
        flight = Flight(running).start(sql)
        threading.Thread(target=flight.read, daemon=True).start()
    holds = lambda: sum(reserved(running)[node] for node in NODES) > 0  # noqa: E731
    cluster.wait_until("the workers hold memory for the query", 20, holds)
    if way == "timeout":
        wait_for(running, 0, "running")
    elif child:
        child.kill()
        child.wait()
    else:
        way(flight, running)
    ended = time.monotonic()
    time.sleep(max(0, ended + CANCEL_SECONDS - time.monotonic()))
    shares = {node: round(worker.cpu_share(0.8), 3) for node, worker in running.workers.items()}
    assert all(share < IDLE_SHARE for share in shares.values()), shares
    # The first heartbeat that was sent after that has come by now.
    time.sleep(max(0, ended + CANCEL_SECONDS + 1.3 - time.monotonic()))
    assert set(reserved(running).values()) == {0}, reserved(running)
    running_tasks = dict(running.rows("SELECT node_id, running_tasks FROM system.nodes"))
    assert set(running_tasks.values()) == {0}, running_tasks
    (state,) = queries(running, "sql LIKE '%a.one%'", "state")[-1]
    assert state == ("failed" if way == "timeout" else "cancelled")


def test_a_slow_client_keeps_memory_flat(running):
    processes = {"server": running.server, **running.workers}
    flight = Flight(running).start(ENDLESS_ROWS)
    assert flight.reader.read_chunk().data.num_rows > 0
    # Buffers between the processes fill; then everybody waits for the client.
    idle = lambda: all(process.cpu_share(0.3) < 0.1 for process in processes.values())  # noqa: E731
    cluster.wait_until("the query waits for its client", 20, idle)
    before = {name: resident_bytes(process) for name, process in processes.items()}
    time.sleep(3)
    for _ in range(3):
        assert flight.reader.read_chunk().data.num_rows > 0, "the query goes on as far as its client reads"
    time.sleep(1)
    grown = {name: resident_bytes(process) - before[name] for name, process in processes.items()}
    assert all(bytes < 16 << 20 for bytes in grown.values()), grown
    assert queries(running, "state = 'running' AND sql LIKE '%a.one%'"), "the query waits, and has not failed"


def resident_bytes(process):
    with open(f"/proc/{process.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_queries_are_listed_shown_and_cancelled(running):
    assert "no query waits or runs; 'bowshot queries ls --all'" in shell(running, "ls").stdout
    query = Query(running, ENDLESS)
    wait_for(running, 1, "running")
    cluster.wait_until("its tasks run", 10, lambda: queries(running, "state = 'running'", "running_tasks") > [(0,)])
    ((query_id,),) = queries(running, "state = 'running'", "query_id")
    assert query_id[-8:] in shell(running, "ls").stdout
    shown = shell(running, "show", query_id[-8:]).stdout
    for wanted in (f"query      {query_id}", "state      running", "user       ana", "priority   normal", f"sql        {ENDLESS}", "node-1"):
        assert wanted in shown, shown

    for arguments, token, wanted in [
        (("cancel", query_id), BOB, f"the server knows no query '{query_id}'"),
        (("cancel", "00000000"), ANA, "the server knows no query '00000000': 'bowshot queries ls --all'"),
        (("show", "00000000"), ANA, "the server knows no query '00000000'"),
        (("cancel", "my query"), ANA, "'my query' is no query id"),
    ]:
        said = shell(running, *arguments, token=token)
        assert said.returncode == 1 and wanted in said.stderr, said.stderr
    assert f"cancelled query {query_id}" in shell(running, "cancel", query_id).stdout
    assert "cancelled" in query.wait(10).error
    again = shell(running, "cancel", query_id)
    assert again.returncode == 1 and "has ended already: it is cancelled" in again.stderr, again.stderr
    assert query_id[-8:] in shell(running, "ls", "--all").stdout and query_id[-8:] not in shell(running, "ls").stdout
    assert query_id in shell(running, "ls", "--all", "--format", "csv").stdout
