"""Sessions and prepared statements: what belongs to one, what ends with it, and what a statement notices that was planned before."""

import adbc_driver_manager
import cluster
import flight_messages
import pyarrow
import pyarrow.flight
import pytest

TOKENS = {"ana": "token-of-ana-0123456789", "bob": "token-of-bob-0123456789"}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sessions")
    users = "\n".join(f'{user} = "{token}"' for user, token in TOKENS.items())
    nodes = [cluster.Node("node-1", {"data": folder / "node-1"}, "eu", kernel_device="off")]
    settings = f'[auth]\nmode = "password"\n[auth.tokens]\n{users}\n'
    with cluster.Cluster(folder / "cluster", nodes, settings=settings, token=TOKENS["ana"]) as started:
        yield started


@pytest.fixture
def connection(running):
    with running.connect() as opened:
        yield opened


def rows(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def test_a_session_knows_its_user_and_place(running):
    for user, token in TOKENS.items():
        with running.connect(token=token) as connection:
            assert rows(connection, "SELECT current_user, session_user, current_catalog, current_schema()") == [(user, user, "bowshot", "public")]


def test_nothing_of_one_session_is_seen_by_another(running):
    with running.connect(token=TOKENS["ana"]) as first, running.connect(token=TOKENS["ana"]) as second, running.connect(token=TOKENS["bob"]) as of_bob:
        rows(first, "CREATE SCHEMA IF NOT EXISTS other")
        rows(first, "CREATE VIEW mine AS SELECT 1 AS one")
        rows(first, "SET bowshot.priority = 'low'")
        rows(first, "USE other")
        rows(first, "SET TIME ZONE 'Asia/Tokyo'")
        assert rows(first, "SELECT current_schema()") == [("other",)]
        for other in (second, of_bob):
            assert rows(other, "SELECT current_schema()") == [("public",)]
            assert rows(other, "SHOW bowshot.priority") == [("bowshot.priority", "normal")]
            assert rows(other, "SHOW TIME ZONE")[0][1] != "Asia/Tokyo"
            assert rows(other, "SELECT count(*) FROM information_schema.views") == [(0,)]
            with pytest.raises(adbc_driver_manager.Error, match="NOT_FOUND"):
                rows(other, "SELECT * FROM mine")
        rows(first, "RESET bowshot.priority")
        assert rows(first, "SHOW bowshot.priority") == [("bowshot.priority", "normal")]


def test_a_closed_session_is_gone_with_its_views_and_settings(running):
    client, options = flight_messages.connect(running.port, TOKENS["ana"])
    with client:
        flight_messages.query(client, "CREATE VIEW soon_gone AS SELECT 1 AS one", options)
        flight_messages.query(client, "SET bowshot.priority = 'low'", options)
        assert flight_messages.query(client, "SELECT one FROM soon_gone", options).num_rows == 1
        list(client.do_action(pyarrow.flight.Action("CloseSession", b""), options))
        with pytest.raises(pyarrow.ArrowKeyError):
            flight_messages.query(client, "SELECT one FROM soon_gone", options)
        assert flight_messages.query(client, "SHOW bowshot.priority", options).to_pydict()["value"] == ["normal"]


def test_options_of_the_session_by_their_own_calls(running):
    client, options = flight_messages.connect(running.port, TOKENS["bob"])

    def call(name, body=b""):
        return next(iter(client.do_action(pyarrow.flight.Action(name, body), options))).body.to_pybytes()

    def setting(name, value):
        # Map entry: key, and a value whose first field is text.
        return flight_messages.message({1: flight_messages.message({1: name, 2: flight_messages.message({1: value})})})

    with client:
        flight_messages.query(client, "CREATE SCHEMA IF NOT EXISTS other", options)
        assert call("SetSessionOptions", setting("schema", "other")) == b""
        assert flight_messages.query(client, "SELECT current_schema() AS s", options).to_pydict() == {"s": ["other"]}
        assert b"other" in call("GetSessionOptions")
        # What is refused is named, with its reason as a number of the specification: 1 for the name, 2 for the value.
        assert call("SetSessionOptions", setting("nonsense", "1")) == flight_messages.message({1: flight_messages.message({1: "nonsense", 2: flight_messages.message({1: 1})})})
        assert call("SetSessionOptions", setting("schema", "nowhere")) == flight_messages.message({1: flight_messages.message({1: "schema", 2: flight_messages.message({1: 2})})})
        list(client.do_action(pyarrow.flight.Action("CloseSession", b""), options))


def test_a_prepared_statement_notices_what_changed(connection):
    rows(connection, "CREATE TABLE changing (a INT)")
    rows(connection, "INSERT INTO changing VALUES (1)")
    with connection.cursor() as cursor:
        statement = "SELECT count(*), current_schema() FROM changing WHERE a >= ?"
        cursor.adbc_prepare(statement)
        assert (cursor.execute(statement, (0,)), cursor.fetchall())[1] == [(1, "public")]
        rows(connection, "INSERT INTO changing VALUES (2), (3)")
        assert (cursor.execute(statement, (2,)), cursor.fetchall())[1] == [(2, "public")]
        # Settings of the session too: the name of the table means another one now.
        rows(connection, "CREATE SCHEMA IF NOT EXISTS elsewhere")
        rows(connection, "CREATE TABLE elsewhere.changing (a INT)")
        rows(connection, "USE elsewhere")
        assert (cursor.execute(statement, (0,)), cursor.fetchall())[1] == [(0, "elsewhere")]
        rows(connection, "USE public")
        # A column of another type is another statement: the client was told of other columns.
        cursor.adbc_prepare("SELECT a FROM changing")
        rows(connection, "CREATE OR REPLACE TABLE changing AS SELECT 'text' AS a")
        with pytest.raises(adbc_driver_manager.Error, match="has changed its columns since: prepare it again"):
            cursor.execute("SELECT a FROM changing")
            cursor.fetchall()
    rows(connection, "DROP TABLE changing")
    rows(connection, "DROP SCHEMA elsewhere CASCADE")


def test_a_prepared_statement_is_planned_again_only_after_a_change(running, connection):
    def planned(run):
        before = running.metric("bowshot_statements_planned_total")
        run()
        return running.metric("bowshot_statements_planned_total") - before

    rows(connection, "CREATE TABLE counted (a INT)")
    with connection.cursor() as reader, connection.cursor() as writer, running.connect() as another:
        reading, writing = "SELECT count(*) FROM counted WHERE a < ?", "INSERT INTO counted VALUES (?)"

        def read(times, expected):
            for _ in range(times):
                reader.execute(reading, (100,))
                assert reader.fetchall() == [(expected,)]

        reader.adbc_prepare(reading)
        assert planned(lambda: read(10, 0)) == 0
        writer.adbc_prepare(writing)
        assert planned(lambda: writer.executemany(writing, [(1,), (2,)])) == 0
        # Whoever made the change, it is noticed once.
        assert planned(lambda: read(10, 2)) == 1
        assert planned(lambda: rows(another, "INSERT INTO counted VALUES (3)")) == 1
        assert planned(lambda: read(10, 3)) == 1
        assert planned(lambda: (rows(connection, "SET bowshot.priority = 'low'"), read(10, 3))) == 2
    rows(connection, "DROP TABLE counted")


def test_parameters_of_both_kinds_and_many_rows(connection):
    assert rows(connection, "SELECT $2 AS a, $1 AS b, $2 AS c", (1, "two")) == [("two", 1, "two")]
    assert rows(connection, "SELECT ? + 1, ?", (1, "two")) == [(2, "two")]
    with connection.cursor() as cursor:
        # Each row of values runs the query once; the answers come one after the other.
        cursor.adbc_statement.set_sql_query("SELECT CAST($1 AS BIGINT) * 2 AS twice")
        cursor.adbc_statement.prepare()
        cursor.adbc_statement.bind_stream(pyarrow.table({"$1": list(range(100))}).to_reader())
        handle, _ = cursor.adbc_statement.execute_query()
        found = pyarrow.RecordBatchReader._import_from_c(handle.address).read_all()
        assert found.to_pydict() == {"twice": [2 * number for number in range(100)]}
