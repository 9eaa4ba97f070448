"""The protocol beneath the drivers: tickets, polls, cancels, bytes on the wire, and the calls of Grafana's data source."""

import pathlib
import threading
import time

import adbc_driver_flightsql.dbapi as flight_sql
import adbc_driver_manager
import cluster
import flight_messages
import proxy
import pyarrow
import pyarrow.flight
import pytest

ENDLESS = "SELECT count(*) FROM generate_series(1, 10000000) AS a(value) CROSS JOIN generate_series(1, 100000) AS b(value)"


@pytest.fixture
def client(tpch_cluster):
    opened, _ = flight_messages.connect(tpch_cluster.port)
    with opened:
        yield opened


@pytest.fixture(scope="module")
def with_users(tmp_path_factory):
    """A server that knows two users by token."""
    folder = tmp_path_factory.mktemp("users")
    settings = '[auth]\nmode = "password"\n[auth.tokens]\nana = "token-of-ana-0123456789"\nbob = "token-of-bob-0123456789"\n'
    nodes = [cluster.Node("node-1", {"data": folder / "node-1"}, "eu", kernel_device="off")]
    with cluster.Cluster(folder / "cluster", nodes, settings=settings, token="token-of-ana-0123456789") as running:
        yield running


def started(client, sql, options=None):
    return client.get_flight_info(flight_messages.descriptor("CommandStatementQuery", {1: sql}), options)


def refused(error, *calls):
    for call in calls:
        with pytest.raises(error):
            call()


def state_of(running, query_id):
    return running.rows(f"SELECT state FROM system.queries WHERE query_id = '{query_id}'")


# Tickets and handles


def test_a_ticket_is_fetched_once(client):
    ticket = started(client, "SELECT 1 AS one").endpoints[0].ticket
    assert client.do_get(ticket).read_all().to_pydict() == {"one": [1]}
    with pytest.raises(pyarrow.ArrowKeyError, match="already fetched; run the statement again"):
        client.do_get(ticket).read_all()


def test_a_forged_ticket_is_refused(client):
    ticket = started(client, "SELECT 1 AS one").endpoints[0].ticket.ticket
    for position in range(1, 60):
        forged = bytearray(ticket)
        forged[-position] ^= 1
        refused((pyarrow.flight.FlightUnauthorizedError, pyarrow.ArrowInvalid), lambda: client.do_get(pyarrow.flight.Ticket(bytes(forged))).read_all())
    refused(pyarrow.ArrowInvalid, lambda: client.do_get(pyarrow.flight.Ticket(b"")).read_all(), lambda: client.do_get(pyarrow.flight.Ticket(b"\xff" * 100)).read_all())
    # The genuine one is as good as before.
    assert client.do_get(pyarrow.flight.Ticket(ticket)).read_all().to_pydict() == {"one": [1]}


def test_tickets_and_handles_of_others_are_refused(with_users):
    ana, as_ana = flight_messages.connect(with_users.port, "token-of-ana-0123456789")
    bob, as_bob = flight_messages.connect(with_users.port, "token-of-bob-0123456789")
    with ana, bob:
        info = started(ana, "SELECT 1 AS one", as_ana)
        ticket = info.endpoints[0].ticket
        refused(pyarrow.flight.FlightUnauthorizedError, lambda: bob.do_get(ticket, as_bob).read_all())
        refused(pyarrow.flight.FlightUnauthenticatedError, lambda: bob.do_get(ticket).read_all())
        # Cancelling what is not one's own has no effect.
        list(bob.do_action(pyarrow.flight.Action("CancelFlightInfo", flight_messages.message({1: info.serialize()})), as_bob))
        create = pyarrow.flight.Action("CreatePreparedStatement", flight_messages.command("ActionCreatePreparedStatementRequest", {1: "SELECT 2 AS two"}))
        created = next(iter(ana.do_action(create, as_ana))).body.to_pybytes()
        handle = handle_in(created)
        refused(pyarrow.ArrowKeyError, lambda: flight_messages.ask(bob, "CommandPreparedStatementQuery", {1: handle}, as_bob))
        assert flight_messages.ask(ana, "CommandPreparedStatementQuery", {1: handle}, as_ana).to_pydict() == {"two": [2]}
        assert ana.do_get(ticket, as_ana).read_all().to_pydict() == {"one": [1]}


def test_a_result_waits_longer_when_it_is_asked_for(client):
    endpoint = started(client, "SELECT 1 AS one").endpoints[0]

    def renewed():
        action = pyarrow.flight.Action("RenewFlightEndpoint", flight_messages.message({1: endpoint.serialize()}))
        return pyarrow.flight.FlightEndpoint.deserialize(next(iter(client.do_action(action))).body.to_pybytes())

    ticket = renewed().ticket
    assert client.do_get(ticket).read_all().to_pydict() == {"one": [1]}
    refused(pyarrow.ArrowKeyError, renewed)


def handle_in(created):
    """The handle of a prepared statement: 16 bytes, field 1 of the result inside of Any."""
    at = created.index(b"\x0a\x10", created.index(b"PreparedStatementResult"))
    return created[at + 2 : at + 18]


# Polls


def partitions(cursor, sql):
    """What a driver gets that polls: how often it asked, its progress on the way, and the partitions."""
    statement = cursor.adbc_statement
    statement.set_options(**{adbc_driver_manager.StatementOptions.INCREMENTAL.value: "true"})
    found, progress = [], []
    while True:
        new, _ = cursor.adbc_execute_partitions(sql)
        progress.append(statement.get_option_float("adbc.statement.exec.progress"))
        if not new:
            return found, progress
        found += new


def test_a_poll_waits_until_rows_can_be_fetched(tpch_cluster):
    # Some seconds of work before the first row.
    sql = "SELECT count(*) AS n FROM generate_series(1, 400000000) AS t(value) WHERE value % 3 = 0"
    with tpch_cluster.connect() as connection, connection.cursor() as cursor:
        found, progress = partitions(cursor, sql)
        assert len(found) == 1 and all(0 <= share <= 1 for share in progress)
        cursor.adbc_read_partition(found[0])
        assert cursor.fetchall() == [(133333333,)]


def test_a_polled_command_runs_once(tpch_cluster):
    with tpch_cluster.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE public.polled (n INT)")
        partitions(cursor, "INSERT INTO public.polled VALUES (1), (2)")
        cursor.execute("SELECT count(*) FROM public.polled")
        assert cursor.fetchall() == [(2,)]
        cursor.execute("DROP TABLE public.polled")


def test_a_polled_query_that_fails_says_so(tpch_cluster):
    with tpch_cluster.connect() as connection, connection.cursor() as cursor, pytest.raises(adbc_driver_manager.Error, match="division by zero"):
        partitions(cursor, "SELECT 1 / (n_nationkey - n_nationkey) FROM tpch.nation")


def test_a_polled_query_is_cancelled(tpch_cluster):
    with tpch_cluster.connect() as connection, connection.cursor() as cursor:
        canceller = threading.Timer(2, cursor.adbc_cancel)
        canceller.start()
        with pytest.raises(adbc_driver_manager.Error):
            while True:
                partitions(cursor, ENDLESS + " /* polled */")
        canceller.join()
    # The driver no longer asks. The server would end the query when it has not heard of it for long; who knows its id need not wait.
    client, _ = flight_messages.connect(tpch_cluster.port)
    with client:
        for (query_id,) in tpch_cluster.rows("SELECT query_id FROM system.queries WHERE sql LIKE '%polled */' AND state = 'running'"):
            list(client.do_action(pyarrow.flight.Action("bowshot.cancel_query", query_id.encode())))
    cluster.wait_until("the query has ended", 10, lambda: not tpch_cluster.rows("SELECT 1 FROM system.queries WHERE sql LIKE '%polled */' AND state = 'running'"))


# Cancel, limit, time


def test_a_cancelled_query_frees_what_it_held(tpch_cluster):
    sql = "SELECT l_comment, count(*) FROM tpch.lineitem a, generate_series(1, 100000) AS b(value) GROUP BY l_comment, b.value"
    client, _ = flight_messages.connect(tpch_cluster.port)
    with client:
        info = started(client, sql)
        query_id = info.app_metadata.decode()
        busy = "SELECT 1 FROM system.nodes WHERE running_tasks > 0"
        cluster.wait_until("it runs on workers", 20, lambda: state_of(tpch_cluster, query_id) == [("running",)] and tpch_cluster.rows(busy))
        list(client.do_action(pyarrow.flight.Action("CancelFlightInfo", flight_messages.message({1: info.serialize()}))))
        cancelled = time.monotonic()
        cluster.wait_until("it has ended", 10, lambda: state_of(tpch_cluster, query_id) == [("cancelled",)])
        cluster.wait_until("workers are idle", 10, lambda: not tpch_cluster.rows(busy))
        print(f"free {time.monotonic() - cancelled:.1f} s after the cancel")
        with pytest.raises(pyarrow.ArrowCancelled):
            client.do_get(info.endpoints[0].ticket).read_all()


def test_a_limit_stops_the_work(client):
    # Its hundred million million rows would take days.
    found = flight_messages.query(client, "SELECT a.value FROM generate_series(1, 10000000) AS a(value) CROSS JOIN generate_series(1, 10000000) AS b(value) LIMIT 10")
    assert found.num_rows == 10


def test_a_statement_timeout_is_told(tpch_cluster):
    with tpch_cluster.connect(query_timeout_ms=300) as connection, connection.cursor() as cursor:
        with pytest.raises(adbc_driver_manager.Error, match="did not end within 300 ms") as failed:
            cursor.execute(ENDLESS)
            cursor.fetchall()
        assert failed.value.status_code == adbc_driver_manager.AdbcStatusCode.TIMEOUT


def test_a_worker_that_dies_while_rows_are_fetched_shortens_no_answer(tmp_path):
    nodes = [cluster.Node(name, {"data": tmp_path / name}, "eu", kernel_device="off") for name in ("node-1", "node-2", "node-3")]
    with cluster.Cluster(tmp_path / "cluster", nodes) as running:
        running.rows("CREATE TABLE large AS SELECT value AS n, concat('row ', value) AS text FROM generate_series(1, 3000000) AS t(value)")
        for turn, victim in enumerate(("node-1", "node-2", "node-3")):
            client, _ = flight_messages.connect(running.port)
            with client:
                reader = client.do_get(started(client, "SELECT * FROM large").endpoints[0].ticket)
                got = 0
                for _ in range(3 + 5 * turn):
                    got += reader.read_chunk().data.num_rows
                running.workers[victim].kill()
                try:
                    for chunk in reader:
                        got += chunk.data.num_rows
                except pyarrow.ArrowException as error:
                    assert victim in str(error) or "run it again" in str(error), error
                else:
                    assert got == 3_000_000
            running.restart_worker(victim)


# Bytes


def test_ten_rows_of_a_wide_column_are_few_bytes(tpch_cluster, tmp_path):
    tpch_cluster.rows("CREATE TABLE public.wide AS SELECT value AS n, repeat(chr(CAST(97 + value % 26 AS INT)), 2000) AS text FROM generate_series(1, 20000) AS t(value)")
    with proxy.Proxies() as proxies:
        way = proxies.add(cluster.free_port(), lambda: tpch_cluster.port)
        for column, bytes_max in (("left(text, 100)", 10_000), ("text", 10 * 2000 + 10_000)):
            before = way.bytes["out"]
            client, _ = flight_messages.connect(way.port)
            with client:
                assert flight_messages.query(client, f"SELECT n, {column} AS text FROM public.wide LIMIT 10").num_rows == 10
            # The batches that they are cut from have millions; schemas and frames are among the bytes.
            assert way.bytes["out"] - before < bytes_max, (column, way.bytes["out"] - before)
            print(f"{column}: {way.bytes['out'] - before} bytes")
    tpch_cluster.rows("DROP TABLE public.wide")


def test_results_are_compressed_for_who_asks(tpch_cluster):
    sql = "SELECT n_name, n_comment, r_name FROM tpch.nation, tpch.region, generate_series(1, 200) AS t(value) ORDER BY 1, 2, 3"
    with proxy.Proxies() as proxies:
        way = proxies.add(cluster.free_port(), lambda: tpch_cluster.port)
        taken, answers = {}, []
        for compression in ("none", "lz4", "zstd"):
            with flight_sql.connect(f"grpc://127.0.0.1:{way.port}", autocommit=True) as connection, connection.cursor() as cursor:
                cursor.execute(f"SET bowshot.result_compression = '{compression}'")
                before = way.bytes["out"]
                cursor.execute(sql)
                answers.append(cursor.fetch_arrow_table())
                taken[compression] = way.bytes["out"] - before
    assert answers[0].num_rows == 25_000 and answers[0].equals(answers[1]) and answers[0].equals(answers[2])
    assert taken["lz4"] < taken["none"] / 3 and taken["zstd"] < taken["lz4"], taken


def test_a_slow_client_of_a_large_result_costs_no_memory(tpch_cluster):
    def resident():
        status = pathlib.Path(f"/proc/{tpch_cluster.server.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) * 1024

    client, _ = flight_messages.connect(tpch_cluster.port)
    with client:
        reader = client.do_get(started(client, "SELECT value FROM generate_series(1, 100000000) AS t(value)").endpoints[0].ticket)
        rows, total, seen, most = 0, 0, None, 0
        for number, chunk in enumerate(reader):
            rows += chunk.data.num_rows
            total += pyarrow.compute.sum(chunk.data.column(0)).as_py()
            # Slow at first, so that whatever is not held back piles up; then as fast as it can.
            if number < 100:
                time.sleep(0.05)
            if number == 50:
                seen = resident()
            if number > 50 and number % 100 == 0:
                most = max(most, resident())
    assert (rows, total) == (100_000_000, 100_000_000 * 100_000_001 // 2)
    # All of it would be 800 MB.
    assert most - seen < 100 << 20, (seen, most)


# Grafana's data source: the calls that it makes, in its order


def test_grafana(client):
    # Health, then what its editor needs: all facts of the server, the tables, the columns of one.
    assert flight_messages.query(client, "select 1").to_pydict() == {"Int64(1)": [1]}
    facts = flight_messages.ask(client, "CommandGetSqlInfo")
    assert facts.num_rows > 80
    tables = flight_messages.ask(client, "CommandGetTables", {4: ["BASE TABLE"]}).to_pydict()
    assert {"lineitem", "orders"} <= set(tables["table_name"]) and set(tables["table_type"]) == {"TABLE"}
    (schema,) = flight_messages.ask(client, "CommandGetTables", {3: "orders", 5: True}).to_pydict()["table_schema"]
    columns = pyarrow.ipc.read_schema(pyarrow.BufferReader(schema))
    assert columns.field("o_orderdate").type == pyarrow.date32()
    # A panel over time, as its macros write it.
    panel = """SELECT date_bin(interval '2592000 second', CAST(o_orderdate AS TIMESTAMP), timestamp '1970-01-01T00:00:00Z') AS time, sum(o_totalprice) AS total
        FROM tpch.orders WHERE o_orderdate >= '1995-01-01T00:00:00Z' AND o_orderdate <= '1995-12-31T23:59:59Z' GROUP BY 1 ORDER BY 1"""
    found = flight_messages.query(client, panel)
    assert pyarrow.types.is_timestamp(found.schema.field("time").type) and 12 <= found.num_rows <= 14
