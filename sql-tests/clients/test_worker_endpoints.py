"""Results that clients fetch from the workers: in one stream a worker, through the server where a worker cannot be reached, whole or refused."""

import signal
import time
import urllib.parse

import adbc_driver_flightsql.dbapi as flight_sql
import adbc_driver_manager
import cluster
import flight_messages
import proxy
import pyarrow
import pyarrow.compute
import pyarrow.flight
import pyarrow.parquet
import pytest
from adbc_driver_flightsql import DatabaseOptions
from auth_server import password_hash
from authority import SERVER, Authority
from test_faults import FILES, ROWS_A_FILE, numbers
from test_jdbc import driver, told  # noqa: F401

NODES = ("node-1", "node-2", "node-3")
ROWS = 3_000_000
REUSE = b"arrow-flight-reuse-connection://?"
SELECT = "SELECT n, text FROM large"
# Enough columns that a large result is expected.
WIDE = f"SELECT n, {', '.join(f'n + {at} AS n{at}' for at in range(30))} FROM large"
TOKENS = {"ana": "token of ana, who runs it", "bob": "token of bob, who does not"}
PASSWORD = "correct horse battery staple"


class Ways:
    """Proxies before the workers' services for clients: who goes through them went to a worker."""

    def __init__(self, proxies):
        self.nodes, self.by_node = [], {}
        for name in NODES:
            port, behind = cluster.free_port(), cluster.free_port()
            self.by_node[name] = proxies.add(port, lambda behind=behind: behind)
            self.nodes.append((name, behind, f"127.0.0.1:{port}"))

    def bytes_to_clients(self):
        return [way.bytes["out"] for way in self.by_node.values()]

    def all(self, change):
        for way in self.by_node.values():
            getattr(way, change)()


def large_table(running, rows=ROWS):
    """A third of the rows on each node."""
    for number, node in enumerate(running.nodes.values()):
        numbers = range(number * rows // 3 + 1, (number + 1) * rows // 3 + 1)
        target = node.volumes["data"] / "large" / f"part-{number}.parquet"
        target.parent.mkdir(parents=True)
        columns = {"n": pyarrow.array(numbers, pyarrow.int64()), "text": pyarrow.array(f"row {n}" for n in numbers)}
        pyarrow.parquet.write_table(pyarrow.table(columns), target, row_group_size=100_000)
    running.create_table("large", "node://*/data/large/")


@pytest.fixture(scope="module")
def ways():
    with proxy.Proxies() as proxies:
        yield Ways(proxies)


@pytest.fixture(scope="module")
def running(ways, tmp_path_factory):
    folder = tmp_path_factory.mktemp("endpoints")
    nodes = [
        cluster.Node(name, {"data": folder / name}, kernel_device="off", flight_port=port, flight_advertised=told)
        for name, port, told in ways.nodes
    ]
    with cluster.Cluster(folder / "cluster", nodes) as started:
        large_table(started)
        yield started


@pytest.fixture
def client(running):
    connected, _ = flight_messages.connect(running.port)
    with connected:
        option(connected, "result_endpoints", "workers")
        yield connected


def option(client, name, value, options=None):
    flight_messages.query(client, f"SET bowshot.{name} = '{value}'", options)


def started(client, sql, options=None):
    return client.get_flight_info(flight_messages.descriptor("CommandStatementQuery", {1: sql}), options)


def endpoints_of(client, sql):
    """How many endpoints a statement has; nobody fetches its result."""
    info = started(client, sql)
    cancel(client, info)
    return len(info.endpoints)


def cancel(client, info):
    list(client.do_action(pyarrow.flight.Action("CancelFlightInfo", flight_messages.message({1: info.serialize()}))))


def at_worker(endpoint, options=None):
    """The reader of an endpoint at its own address."""
    return pyarrow.flight.connect(endpoint.locations[0]).do_get(endpoint.ticket, options)


def query_of(info):
    return info.app_metadata.decode()


def state_of(running, query_id):
    return running.rows(f"SELECT state FROM system.queries WHERE query_id = '{query_id}'")[0][0]


def total(tables):
    table = pyarrow.concat_tables(tables)
    numbers = table.column("n")
    return table.num_rows, pyarrow.compute.sum(numbers).as_py(), pyarrow.compute.count_distinct(numbers).as_py()


WHOLE = (ROWS, ROWS * (ROWS + 1) // 2, ROWS)


# Which results, and how they are fetched


def test_each_worker_has_a_part_and_together_they_are_the_result(running, ways, client):
    info = started(client, SELECT)
    told = [[location.uri for location in endpoint.locations] for endpoint in info.endpoints]
    assert told == [[f"grpc://{address}".encode(), REUSE] for _, _, address in ways.nodes]
    # One after the other, as simple clients do: parts that nobody takes yet hold up none.
    tables = []
    for endpoint in info.endpoints:
        reader = at_worker(endpoint)
        assert reader.schema == info.schema
        tables.append(reader.read_all())
    assert total(tables) == WHOLE and all(table.num_rows > 0 for table in tables)
    cluster.wait_until("the query has ended", 10, lambda: state_of(running, query_of(info)) == "finished")
    assert running.rows(f"SELECT rows FROM system.queries WHERE query_id = '{query_of(info)}'") == [(ROWS,)]
    for again in (lambda: at_worker(info.endpoints[0]), lambda: client.do_get(info.endpoints[0].ticket)):
        with pytest.raises(pyarrow.lib.ArrowKeyError, match="already fetched"):
            again().read_all()


def test_adbc_goes_to_the_workers(running, ways):
    before = ways.bytes_to_clients()
    with running.connect(result_endpoints="workers") as connection, connection.cursor() as cursor:
        cursor.execute(SELECT)
        assert total([cursor.fetch_arrow_table()]) == WHOLE
    assert all(now - then > 5_000_000 for now, then in zip(ways.bytes_to_clients(), before, strict=True))


def test_jdbc_goes_to_the_workers(driver, running, ways):  # noqa: F811
    before = ways.bytes_to_clients()
    [[_, rows, _, sum_of_rows, *_]] = told(driver, running.port, "many", WIDE)
    assert (int(rows), int(sum_of_rows)) == WHOLE[:2]
    assert all(now - then > 5_000_000 for now, then in zip(ways.bytes_to_clients(), before, strict=True))


def test_a_poll_tells_of_all_parts(running):
    with running.connect(result_endpoints="workers") as connection, connection.cursor() as cursor:
        partitions, schema = cursor.adbc_execute_partitions(SELECT)
        assert len(partitions) == 3 and schema.names == ["n", "text"]
        tables = []
        for partition in partitions:
            cursor.adbc_read_partition(partition)
            tables.append(cursor.fetch_arrow_table())
    assert total(tables) == WHOLE


def test_parts_may_wait_on_workers_that_clients_cannot_call(tmp_path):
    nodes = [cluster.Node(name, {"data": tmp_path / name}, kernel_device="off") for name in NODES]
    with cluster.Cluster(tmp_path / "cluster", nodes) as running:
        large_table(running)
        client, _ = flight_messages.connect(running.port)
        with client:
            option(client, "result_endpoints", "workers")
            info = started(client, SELECT)
            assert [endpoint.locations for endpoint in info.endpoints] == [[], [], []]
            assert total([client.do_get(endpoint.ticket).read_all() for endpoint in info.endpoints]) == WHOLE


def test_a_client_that_cannot_reach_the_workers_gets_it_all_from_the_server_from_then_on(running, ways, client):
    option(client, "result_endpoints", "auto")
    assert endpoints_of(client, WIDE) == 3, "this machine reached them a moment ago"
    ways.all("cut")
    try:
        with running.connect(result_endpoints="workers") as connection, connection.cursor() as cursor:
            cursor.execute(SELECT)
            assert total([cursor.fetch_arrow_table()]) == WHOLE
        # It came to the server for what the workers had, which is in the log.
        assert "a client came here for what a worker had for it" in running.server.log_text()
        assert endpoints_of(client, WIDE) == 1
    finally:
        ways.all("heal")
    for endpoint in started_by_workers(client, SELECT).endpoints:
        at_worker(endpoint).read_all()
    # And here to the workers.
    option(client, "result_endpoints", "auto")
    assert endpoints_of(client, WIDE) == 3


def started_by_workers(client, sql):
    option(client, "result_endpoints", "workers")
    return started(client, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT n FROM large ORDER BY n DESC",
        "SELECT n FROM large LIMIT 10",
        "SELECT n % 10 AS n, count(*) FROM large GROUP BY 1",
        "SELECT DISTINCT n % 10 AS n FROM large",
        "SELECT l.n FROM large l JOIN large r ON l.n = r.n WHERE r.n < 10",
        "SELECT n FROM large UNION ALL SELECT n FROM large",
        "SELECT 1 AS n",
        "SELECT n FROM (VALUES (1), (2)) AS t(n)",
        "SHOW TABLES",
        "EXPLAIN SELECT n FROM large",
    ],
)
def test_what_the_coordinator_makes_comes_from_it(client, sql):
    info = started(client, sql)
    assert len(info.endpoints) == 1 and not info.endpoints[0].locations
    client.do_get(info.endpoints[0].ticket).read_all()


def test_who_asks_for_parts_in_vain_can_find_out_why(running):
    def explained(sql, **options):
        return "\n".join(line for row in running.rows(f"EXPLAIN ANALYZE {sql}", result_endpoints="workers", **options) for line in row)

    assert "result_endpoints = workers does not apply: the coordinator has to merge, sort or limit" in explained(f"{SELECT} ORDER BY n LIMIT 3")
    assert "result_endpoints = workers does not apply: bowshot.result_buffer holds rows back" in explained(SELECT, result_buffer="1000")
    assert "does not apply" not in explained(SELECT)


def test_a_query_says_afterwards_where_its_result_came_from(running, client):
    def said(sql):
        info = started(client, sql)
        for endpoint in info.endpoints:
            client.do_get(endpoint.ticket).read_all()
        return running.rows(f"SELECT result_from, decisions FROM system.queries WHERE query_id = '{query_of(info)}'")

    assert said(SELECT) == [("workers", None)]
    [(result_from, decisions)] = said(f"{SELECT} ORDER BY n LIMIT 3")
    assert result_from == "coordinator" and decisions.startswith("result_endpoints = workers does not apply: "), decisions


def test_small_results_and_those_held_back_come_from_the_server(client):
    option(client, "result_endpoints", "auto")
    assert endpoints_of(client, "SELECT n FROM large") == 1, "24 MB"
    assert endpoints_of(client, f"{WIDE} WHERE n = 17") == 1
    option(client, "result_endpoints", "workers")
    option(client, "result_buffer", "100000")
    assert endpoints_of(client, SELECT) == 1
    option(client, "result_buffer", "0")
    option(client, "result_endpoints", "coordinator")
    assert endpoints_of(client, WIDE) == 1
    with pytest.raises(pyarrow.ArrowInvalid, match="use auto, workers or coordinator"):
        option(client, "result_endpoints", "moon")


@pytest.mark.parametrize("sql", [f"{SELECT} WHERE n % 2 = 0", "SELECT upper(text) AS text, n FROM large WHERE text LIKE '%7'", "SELECT n, text FROM large WHERE n < 0"])
def test_both_ways_answer_the_same(running, sql):
    def rows(way, **options):
        with running.connect(result_endpoints=way, **options) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetch_arrow_table().sort_by("n")

    expected = rows("coordinator")
    assert rows("workers").equals(expected)
    for compression in ("lz4", "zstd"):
        assert rows("workers", result_compression=compression).equals(expected)


# Ends before the end


def test_an_error_is_the_same_wherever_it_is_heard(running):
    sql = "SELECT 10 / (n - 1500000) AS q FROM large"
    said = []
    for way in ("coordinator", "workers"):
        with running.connect(result_endpoints=way) as connection, connection.cursor() as cursor:
            with pytest.raises(adbc_driver_manager.ProgrammingError) as raised:
                cursor.execute(sql)
                cursor.fetch_arrow_table()
            said.append(str(raised.value))
    assert all("division by zero" in text.lower() and "(query " in text for text in said), said


def test_a_worker_that_dies_while_parts_are_fetched_shortens_none(running, client):
    for through_server in (False, True):
        info = started(client, SELECT)
        readers = [client.do_get(endpoint.ticket) if through_server else at_worker(endpoint) for endpoint in info.endpoints]
        got = [reader.read_chunk().data.num_rows for reader in readers]
        running.workers["node-2"].kill()
        failed = []
        for number, reader in enumerate(readers):
            try:
                for chunk in reader:
                    got[number] += chunk.data.num_rows
                assert got[number] == ROWS / 3, "a part that ends is whole"
            except (pyarrow.ArrowException, pyarrow.flight.FlightError) as error:
                failed.append(str(error))
        if through_server:
            assert all("node-2" in text and query_of(info) in text for text in failed), failed
        cluster.wait_until("the query has ended", 20, lambda: state_of(running, query_of(info)) != "running")
        running.restart_worker("node-2")
        assert total([running_table(running)]) == WHOLE


def test_a_worker_that_is_lost_before_its_part_is_offered_is_left_out(tmp_path):
    with numbers(tmp_path, copies=FILES) as running, flight_messages.connect(running.port)[0] as client:
        option(client, "result_endpoints", "workers")
        # It counts as alive, and takes no plan.
        running.workers["node-2"].send(signal.SIGSTOP)
        try:
            info = started(client, "SELECT id FROM numbers")
        finally:
            running.workers["node-2"].send(signal.SIGCONT)
        assert len(info.endpoints) == FILES - 1
        ids = pyarrow.concat_tables(client.do_get(endpoint.ticket).read_all() for endpoint in info.endpoints).column("id")
        assert sorted(ids.to_pylist()) == list(range(ROWS_A_FILE * FILES))
        columns = "retries, result_from, decisions"
        [(retries, result_from, decisions)] = running.rows(f"SELECT {columns} FROM system.queries WHERE query_id = '{query_of(info)}'")
        assert (retries, result_from) == (1, "workers") and decisions.startswith("planned again without node-2: "), decisions


def running_table(running):
    with running.connect() as connection, connection.cursor() as cursor:
        cursor.execute(SELECT)
        return cursor.fetch_arrow_table()


def tasks_running(running):
    return running.rows("SELECT sum(running_tasks) FROM system.nodes WHERE role = 'worker'")[0][0]


@pytest.mark.parametrize("end", ["cancel", "leave one part", "cancel unfetched"])
def test_parts_end_with_their_query_and_the_query_with_its_parts(running, client, end):
    # Parts of 250 MB: one of SELECT's may be on its way as a whole before the end of its query arrives.
    info = started(client, WIDE)
    readers = [] if end == "cancel unfetched" else [at_worker(endpoint) for endpoint in info.endpoints]
    got = [reader.read_chunk().data.num_rows for reader in readers]
    if end == "leave one part":
        readers.pop().cancel()
    else:
        cancel(client, info)
    began = time.monotonic()
    for number, reader in enumerate(readers):
        with pytest.raises((pyarrow.ArrowException, pyarrow.flight.FlightError), match="was cancelled|went away"):
            for chunk in reader:
                got[number] += chunk.data.num_rows
            pytest.fail(f"part {number} ended without a word after {got[number]} rows")
    cluster.wait_until("the query has ended", 10, lambda: state_of(running, query_of(info)) == "cancelled")
    cluster.wait_until("the workers are free", 10, lambda: tasks_running(running) == 0)
    assert time.monotonic() - began < 10
    with pytest.raises((pyarrow.ArrowException, pyarrow.flight.FlightError), match="was cancelled|went away"):
        client.do_get(info.endpoints[0].ticket).read_chunk()


def test_a_worker_that_is_told_to_end_gives_its_part_away_first(running, client):
    info = started(client, SELECT)
    readers = [at_worker(endpoint) for endpoint in info.endpoints]
    got = sum(reader.read_chunk().data.num_rows for reader in readers)
    running.workers["node-3"].send(signal.SIGTERM)
    # Slowly at first: it has to wait.
    time.sleep(1)
    for reader in readers:
        for chunk in reader:
            got += chunk.data.num_rows
    assert got == ROWS
    cluster.wait_until("the worker has ended", 20, lambda: not running.workers["node-3"].running())
    running.restart_worker("node-3")


# Who may fetch


@pytest.fixture(scope="module")
def with_users(tmp_path_factory):
    folder = tmp_path_factory.mktemp("users")
    nodes = [cluster.Node(name, {"data": folder / name}, kernel_device="off", flight_port=cluster.free_port()) for name in NODES]
    tokens = ", ".join(f'{user} = "{token}"' for user, token in TOKENS.items())
    settings = f"""
[auth]
mode = "required"
users = {{ eve = "{password_hash(PASSWORD)}" }}
tokens = {{ {tokens} }}
"""
    with cluster.Cluster(folder / "cluster", nodes, settings, token=TOKENS["ana"]) as started:
        large_table(started, 300_000)
        yield started


def options_of(token):
    return pyarrow.flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {token}".encode())])


def test_a_part_is_its_users_alone_at_the_worker_too(with_users):
    client, ana = flight_messages.connect(with_users.port, TOKENS["ana"])
    with client:
        option(client, "result_endpoints", "workers", ana)
        info = started(client, SELECT, ana)
        first, second, _ = info.endpoints
        with pytest.raises(pyarrow.flight.FlightUnauthenticatedError):
            at_worker(first).read_all()
        with pytest.raises(pyarrow.flight.FlightUnauthenticatedError):
            at_worker(first, options_of("wrong")).read_all()
        with pytest.raises(pyarrow.flight.FlightUnauthorizedError, match="not valid here"):
            at_worker(first, options_of(TOKENS["bob"])).read_all()
        forged = bytearray(first.ticket.ticket)
        forged[-1] ^= 1
        with pytest.raises(pyarrow.flight.FlightUnauthorizedError, match="not valid here"):
            pyarrow.flight.connect(first.locations[0]).do_get(pyarrow.flight.Ticket(bytes(forged)), ana).read_all()
        # The right ticket at the wrong worker, and what no worker has.
        with pytest.raises(pyarrow.lib.ArrowKeyError, match="not here"):
            pyarrow.flight.connect(second.locations[0]).do_get(first.ticket, ana).read_all()
        option(client, "result_endpoints", "coordinator", ana)
        whole = started(client, SELECT, ana).endpoints[0]
        with pytest.raises(pyarrow.ArrowInvalid, match="for the server"):
            pyarrow.flight.connect(second.locations[0]).do_get(whole.ticket, ana).read_all()
        # None of these has used it up.
        assert sum(at_worker(endpoint, ana).read_all().num_rows for endpoint in info.endpoints) == 300_000


def test_a_login_at_a_worker_is_one_at_the_server(with_users):
    worker = next(iter(with_users.nodes.values()))
    with pyarrow.flight.connect(f"grpc://127.0.0.1:{worker.flight_port}") as client:
        name, token = client.authenticate_basic_token("eve", PASSWORD)
        assert name == b"authorization"
        with pytest.raises(pyarrow.flight.FlightUnauthenticatedError):
            client.authenticate_basic_token("eve", "wrong")
        with pytest.raises(NotImplementedError, match="everything else is the server's"):
            started(client, "SELECT 1")
    client, _ = flight_messages.connect(with_users.port)
    with client:
        options = pyarrow.flight.FlightCallOptions(headers=[(b"authorization", token)])
        assert flight_messages.query(client, "SELECT current_user AS me", options).column(0).to_pylist() == ["eve"]


def test_drivers_log_in_at_the_workers_with_a_password(driver, with_users):  # noqa: F811
    credentials = {"username": "eve", "password": PASSWORD}
    with flight_sql.connect(with_users.uri, db_kwargs=credentials, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("SET bowshot.result_endpoints = 'workers'")
        cursor.execute(SELECT)
        assert cursor.fetch_arrow_table().num_rows == 300_000
    options = f"useEncryption=false&user=eve&password={urllib.parse.quote(PASSWORD)}"
    [[_, rows, *_]] = told(driver, with_users.port, "many", WIDE, options=options)
    assert int(rows) == 300_000


def test_workers_have_certificates_of_their_own_for_clients(tmp_path):
    authority = Authority(tmp_path)
    authority.issue("server", "server", SERVER)
    pem, key = (tmp_path / file for file in ("server.pem", "server.key"))
    tls = {"BOWSHOT__TLS__CERTIFICATE": str(pem), "BOWSHOT__TLS__KEY": str(key)}
    ports = {name: cluster.free_port() for name in NODES}
    nodes = [
        cluster.Node(name, {"data": tmp_path / name}, kernel_device="off", environment=tls, flight_port=port, flight_advertised=f"localhost:{port}")
        for name, port in ports.items()
    ]
    with cluster.Cluster(tmp_path / "cluster", nodes) as running:
        large_table(running)
        trusted = {DatabaseOptions.TLS_ROOT_CERTS.value: authority.ca.read_text()}
        with flight_sql.connect(running.uri, db_kwargs=trusted, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute("SET bowshot.result_endpoints = 'workers'")
            cursor.execute(SELECT)
            assert total([cursor.fetch_arrow_table()]) == WHOLE
        client, _ = flight_messages.connect(running.port)
        with client:
            # The driver went there: who comes to the server gets later results from it.
            assert endpoints_of(client, WIDE) == 3
            option(client, "result_endpoints", "workers")
            info = started(client, SELECT)
            cancel(client, info)
            told = [endpoint.locations[0].uri.decode() for endpoint in info.endpoints]
        assert told == [f"grpc+tls://localhost:{port}" for port in ports.values()]
