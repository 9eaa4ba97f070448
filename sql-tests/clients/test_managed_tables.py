"""Tables that the cluster writes itself, over ADBC: CREATE TABLE, INSERT, TRUNCATE, DROP and bulk ingest on three workers; all rows of a statement
or none, whoever is killed meanwhile."""

import datetime
import decimal
import pathlib
import threading
import time

import adbc_driver_manager
import cluster
import duckdb
import pyarrow
import pytest

NODES = ["node-1", "node-2", "node-3"]
TABLE_FOLDER = ".bowshot/tables"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("managed")
    nodes = []
    for name in NODES:
        (folder / name).mkdir()
        nodes.append(cluster.Node(name, {"data": folder / name}, "eu"))
    with cluster.Cluster(folder / "cluster", nodes) as started:
        started.volumes = folder
        yield started


@pytest.fixture
def connection(running):
    with running.connect() as opened:
        yield opened


def rows(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def update(connection, sql, parameters=None):
    """Rows that a statement changed, as the driver hears it."""
    with connection.cursor() as cursor:
        cursor.adbc_statement.set_sql_query(sql)
        if parameters is not None:
            cursor.adbc_statement.bind(parameters)
            cursor.adbc_statement.prepare()
        return cursor.adbc_statement.execute_update()


def readable(connection, table):
    """The count of a table's rows, in a list; nothing while a node that has some has just started."""
    try:
        return [rows(connection, f"SELECT count(*) FROM {table}")[0][0]]
    except adbc_driver_manager.OperationalError:
        return None


def files(running):
    return sorted(path for name in NODES for path in (running.volumes / name).glob(f"{TABLE_FOLDER}/*/*"))


def test_what_is_inserted_is_there_for_the_next_statement(connection):
    update(connection, "CREATE TABLE notes (id BIGINT NOT NULL, text VARCHAR, price DECIMAL(10,2), day DATE)")
    assert rows(connection, "SELECT count(*), max(text) FROM notes") == [(0, None)]
    assert update(connection, "INSERT INTO notes VALUES (1, 'one', 1.25, DATE '2024-02-29'), (2, NULL, NULL, NULL)") == 2
    assert update(connection, "INSERT INTO notes (text, id) SELECT 'three', 3") == 1
    expected = [(1, "one", decimal.Decimal("1.25"), datetime.date(2024, 2, 29)), (2, None, None, None), (3, "three", None, None)]
    assert rows(connection, "SELECT * FROM notes ORDER BY id") == expected
    # Of itself it takes what was there when it began.
    assert update(connection, "INSERT INTO notes SELECT id + 10, text, price, day FROM notes") == 3
    assert rows(connection, "SELECT count(*), sum(id) FROM notes") == [(6, 42)]
    assert update(connection, "INSERT OVERWRITE notes SELECT * FROM notes WHERE id > 10") == 3
    assert rows(connection, "SELECT id FROM notes ORDER BY 1") == [(11,), (12,), (13,)]
    update(connection, "TRUNCATE TABLE notes")
    assert rows(connection, "SELECT count(*) FROM notes") == [(0,)]
    update(connection, "DROP TABLE notes")
    with pytest.raises(adbc_driver_manager.Error, match="notes"):
        rows(connection, "SELECT * FROM notes")


def test_a_table_of_a_query_has_its_rows(connection, running):
    update(connection, "CREATE TABLE squares AS SELECT value AS n, value * value AS square FROM generate_series(1, 100000) AS t(value)")
    expected = [(100_000, 100_000 * 100_001 // 2, sum(n * n for n in range(1, 100_001)))]
    assert rows(connection, "SELECT count(*), sum(n), sum(square) FROM squares") == expected
    update(connection, "CREATE OR REPLACE TABLE squares AS SELECT n FROM squares WHERE n <= 10")
    assert rows(connection, "SELECT count(*), sum(n) FROM squares") == [(10, 55)]
    update(connection, "CREATE TABLE IF NOT EXISTS squares AS SELECT 1 AS n")
    assert rows(connection, "SELECT count(*) FROM squares") == [(10,)]
    with pytest.raises(adbc_driver_manager.Error, match="table public.squares exists already: add OR REPLACE, or IF NOT EXISTS"):
        update(connection, "CREATE TABLE squares (n INT)")
    # Another engine reads the same rows out of the files.
    (stored,) = [path for path in files(running) if duckdb.sql(f"SELECT count(*) FROM '{path}'").fetchone() == (10,)]
    assert duckdb.sql(f"SELECT sum(n) FROM '{stored}'").fetchone() == (55,)
    update(connection, "DROP TABLE squares")


def test_defaults_and_what_may_not_be_null(connection):
    update(connection, "CREATE TABLE people (id INT NOT NULL, name VARCHAR DEFAULT 'nobody', born DATE DEFAULT DATE '2000-01-01', PRIMARY KEY (id))")
    assert update(connection, "INSERT INTO people (id) VALUES (1), (2)") == 2
    assert rows(connection, "SELECT * FROM people ORDER BY id") == [(1, "nobody", datetime.date(2000, 1, 1)), (2, "nobody", datetime.date(2000, 1, 1))]
    with pytest.raises(adbc_driver_manager.Error, match="column id of table public.people is NOT NULL, and a row has no value for it: nothing was stored"):
        update(connection, "INSERT INTO people VALUES (3, 'ana', NULL), (NULL, 'bob', NULL)")
    assert rows(connection, "SELECT count(*) FROM people") == [(2,)]
    update(connection, "DROP TABLE people")


@pytest.mark.parametrize("keys", ["a INT PRIMARY KEY, b INT, c INT", "a INT, b INT, c INT, CONSTRAINT by_two PRIMARY KEY (c, a)"])
def test_columns_of_a_primary_key_are_never_null(connection, keys):
    update(connection, "DROP TABLE IF EXISTS with_key")
    update(connection, f"CREATE TABLE with_key ({keys})")
    nullable = rows(connection, "SELECT column_name, is_nullable FROM information_schema.columns WHERE table_name = 'with_key' ORDER BY 1")
    of_key = {"a", "c"} if "(c, a)" in keys else {"a"}
    assert nullable == [(name, "NO" if name in of_key else "YES") for name in "abc"]
    with pytest.raises(adbc_driver_manager.Error, match="column a"):
        update(connection, "INSERT INTO with_key (b, c) VALUES (1, 2)")


def test_types_have_the_names_that_tools_write(connection):
    # Spark's, then others'. What SHOW CREATE TABLE writes makes the same table again.
    made = """i INTEGER NOT NULL, ti BYTE, f REAL, d DOUBLE PRECISION, de DECIMAL(12,3), t TEXT, b BIT(1), ts TIMESTAMP, bi BLOB,
        vb VARBINARY(20), cv CHARACTER VARYING(20), c CHARACTER(3), cl CLOB, at DATETIME, at6 DATETIME(6), ts3 TIMESTAMP(3),
        zoned TIMESTAMP(3) WITH TIME ZONE, tm TIME(6), f53 FLOAT(53), mi MEDIUMINT"""
    types = [
        "int32", "int8", "float", "double", "decimal128(12, 3)", "string", "bool", "timestamp[us]", "binary", "binary", "string", "string", "string",
        "timestamp[us]", "timestamp[us]", "timestamp[ms]", "timestamp[ms, tz=UTC]", "time64[ns]", "double", "int32",
    ]  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE of_tools ({made})")
        cursor.execute("SHOW CREATE TABLE of_tools")
        [[_, _, definition]] = cursor.fetchall()
        cursor.execute(definition.replace("of_tools", "again"))
        for table in ("of_tools", "again"):
            cursor.execute(f"SELECT * FROM {table}")
            assert [str(column.type) for column in cursor.fetch_arrow_table().schema] == types, definition
        for name in ("UUID", "BIT(8)"):
            with pytest.raises(adbc_driver_manager.ProgrammingError, match="Unsupported SQL type"):
                cursor.execute(f"CREATE TABLE impossible (a {name})")


def test_what_is_not_supported_says_so(connection, running):
    update(connection, "CREATE TABLE fixed (n INT)")
    for statement, said in [
        ("DELETE FROM fixed WHERE n = 1", "Delete is not supported yet"),
        ("UPDATE fixed SET n = 2", "Update is not supported yet"),
        ("REFRESH TABLE fixed", "table public.fixed is managed"),
        ("CREATE TABLE spans AS SELECT INTERVAL '1' DAY AS i", "column i of table public.spans is Interval"),
        ("CREATE TABLE twice AS SELECT 1 AS a, 2 AS a", "a"),
        ("INSERT INTO nowhere VALUES (1)", "nowhere"),
        ("CREATE EXTERNAL TABLE e STORED AS PARQUET LOCATION 'node://*/data/.bowshot/tables/'", "where the cluster keeps the files of managed tables"),
    ]:
        with pytest.raises(adbc_driver_manager.Error, match=said):
            update(connection, statement)
    update(connection, "DROP TABLE fixed")


def test_a_thousand_inserts_whose_results_nobody_fetches_leave_a_thousand_rows(connection):
    update(connection, "CREATE TABLE counted (n INT)")
    with connection.cursor() as cursor:
        for n in range(1_000):
            cursor.execute(f"INSERT INTO counted VALUES ({n})")
    assert rows(connection, "SELECT count(*), count(DISTINCT n), sum(n) FROM counted") == [(1000, 1000, 499_500)]
    update(connection, "DROP TABLE counted")


def test_rows_of_parameters_are_stored_together(connection, running):
    update(connection, "CREATE TABLE bound (id BIGINT, name VARCHAR, price DECIMAL(10,2))")
    before = len(files(running))
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO bound VALUES (?, ?, ?)", [(n, f"name {n}", decimal.Decimal(n) / 4) for n in range(500)])
        assert len(files(running)) == before + 1
        cursor.executemany("INSERT INTO bound SELECT $1 + 1000, $2, NULL", [(1, "a"), (2, "b")])
    assert rows(connection, "SELECT count(*), count(DISTINCT name), sum(price) FROM bound WHERE id < 1000") == [(500, 500, decimal.Decimal("31187.50"))]
    assert rows(connection, "SELECT id, name FROM bound WHERE id > 1000 ORDER BY 1") == [(1001, "a"), (1002, "b")]
    update(connection, "DROP TABLE bound")


TYPES = pyarrow.table({
    "i8": pyarrow.array([1, None], pyarrow.int8()),
    "u64": pyarrow.array([2**64 - 1, None], pyarrow.uint64()),
    "f32": pyarrow.array([1.5, None], pyarrow.float32()),
    "f64": pyarrow.array([float("inf"), None]),
    "text": pyarrow.array(["é", None]),
    "long": pyarrow.array(["x" * 1000, None], pyarrow.large_string()),
    "words": pyarrow.array(["a", None]).dictionary_encode(),
    "view": pyarrow.array(["view", None], pyarrow.string_view()),
    "bytes": pyarrow.array([b"\x00\xff", None]),
    "flag": pyarrow.array([True, None]),
    "day": pyarrow.array([datetime.date(1969, 7, 20), None]),
    "at": pyarrow.array([datetime.datetime(2024, 1, 2, 3, 4, 5, 678901), None], pyarrow.timestamp("us")),
    "zoned": pyarrow.array([datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc), None], pyarrow.timestamp("ns", "UTC")),
    "clock": pyarrow.array([datetime.time(1, 2, 3), None], pyarrow.time64("us")),
    "money": pyarrow.array([decimal.Decimal("-12.34"), None], pyarrow.decimal128(20, 2)),
    "list": pyarrow.array([[1, None], None], pyarrow.list_(pyarrow.int64())),
    "struct": pyarrow.array([{"a": 1, "b": "x"}, None]),
})  # fmt: skip


def test_ingest_of_every_type_in_every_mode(connection):
    with connection.cursor() as cursor:
        assert cursor.adbc_ingest("kinds", TYPES, mode="create") == 2
        with pytest.raises(adbc_driver_manager.Error, match="table public.kinds exists already"):
            cursor.adbc_ingest("kinds", TYPES, mode="create")
        assert cursor.adbc_ingest("kinds", TYPES, mode="append") == 2
        assert cursor.adbc_ingest("kinds", TYPES.slice(0, 1), mode="create_append") == 1
        cursor.execute("SELECT * FROM kinds")
        found = cursor.fetch_arrow_table()
        assert found.num_rows == 5
        assert sorted(map(str, found.to_pylist())) == sorted(map(str, TYPES.to_pylist() * 2 + TYPES.slice(0, 1).to_pylist()))
        assert cursor.adbc_ingest("kinds", TYPES.slice(1, 1), mode="replace") == 1
        assert rows(connection, "SELECT count(*) FROM kinds") == [(1,)]
        with pytest.raises(adbc_driver_manager.Error, match="there is no table public.missing"):
            cursor.adbc_ingest("missing", TYPES, mode="append")
        # Columns are found by name; those that are left out are NULL.
        assert cursor.adbc_ingest("kinds", TYPES.select(["text", "i8"]).slice(0, 1), mode="append") == 1
        assert rows(connection, "SELECT i8, text, day FROM kinds WHERE text IS NOT NULL") == [(1, "é", None)]
        with pytest.raises(adbc_driver_manager.Error, match="has no column stranger"):
            cursor.adbc_ingest("kinds", pyarrow.table({"stranger": [1]}), mode="append")
        # The driver sends nothing at all: nobody can know which table it meant.
        with pytest.raises(adbc_driver_manager.Error, match="send nothing at all for an ingest without rows: CREATE TABLE"):
            cursor.adbc_ingest("empty", TYPES.slice(0, 0), mode="create")
    update(connection, "DROP TABLE kinds")


def test_a_large_ingest_is_spread_over_the_workers(connection, running):
    batch = pyarrow.record_batch({"n": pyarrow.array(range(100_000), pyarrow.int64()), "text": pyarrow.array(["some text"] * 100_000)})
    before = {path.parts[-5] for path in files(running)}
    reader = pyarrow.RecordBatchReader.from_batches(batch.schema, (batch for _ in range(700)))
    with connection.cursor() as cursor:
        assert cursor.adbc_ingest("large", reader, mode="create") == 70_000_000
    assert rows(connection, "SELECT count(*), sum(n) FROM large") == [(70_000_000, 700 * (99_999 * 100_000 // 2))]
    ((nodes,),) = rows(connection, "SELECT count(DISTINCT node_id) FROM system.files WHERE table_name = 'large'")
    assert nodes == 3, before
    update(connection, "DROP TABLE large")


def test_a_killed_worker_leaves_all_rows_or_none(running):
    with running.connect() as connection:
        update(connection, "CREATE TABLE torn (n BIGINT)")
        statement = "INSERT INTO torn SELECT value FROM generate_series(1, 30000000) AS t(value)"
        for node in NODES:
            outcome = []

            def insert():
                with running.connect() as own:
                    try:
                        outcome.append(update(own, statement))
                    except adbc_driver_manager.Error as error:
                        outcome.append(str(error))

            before = rows(connection, "SELECT count(*) FROM torn")[0][0]
            thread = threading.Thread(target=insert)
            thread.start()
            time.sleep(0.5)
            running.workers[node].kill()
            thread.join(120)
            running.restart_worker(node)
            after = cluster.wait_until(f"{node} shows its files again", 30, lambda: readable(connection, "torn"))[0]
            (said,) = outcome
            if isinstance(said, str):
                assert after == before and "lost node" in said and "nothing was stored" in said, said
            else:
                assert after - before == said == 30_000_000
        update(connection, "DROP TABLE torn")


def test_a_killed_coordinator_leaves_what_it_said_was_stored(running):
    with running.connect() as connection:
        update(connection, "CREATE TABLE kept (n BIGINT)")
    stored, over = [], threading.Event()

    def insert():
        n = 0
        while not over.is_set():
            try:
                with running.connect() as own:
                    while not over.is_set():
                        update(own, f"INSERT INTO kept VALUES ({n})")
                        stored.append(n)
                        n += 1
            except adbc_driver_manager.Error:
                # It may be stored, or not: the number is not used again.
                n += 1
                time.sleep(0.1)

    thread = threading.Thread(target=insert)
    thread.start()
    for _ in range(3):
        time.sleep(1.5)
        running.server.kill()
        running.restart_server()
    over.set()
    thread.join(60)
    with running.connect() as connection:
        found = [n for (n,) in rows(connection, "SELECT n FROM kept")]
        assert len(found) == len(set(found)) and set(stored) <= set(found), (len(stored), len(found))
        assert len(stored) > 20
        update(connection, "DROP TABLE kept")


def test_what_came_in_meanwhile_is_not_overwritten(running):
    with running.connect() as connection:
        update(connection, "CREATE TABLE raced AS SELECT value AS n FROM generate_series(1, 1000) AS t(value)")
        for statement in (
            "INSERT OVERWRITE raced SELECT r.n FROM raced AS r CROSS JOIN generate_series(1, 30000) AS t(value)",
            "CREATE OR REPLACE TABLE raced AS SELECT r.n FROM raced AS r CROSS JOIN generate_series(1, 30000) AS t(value)",
        ):
            said = []

            def overwrite():
                with running.connect() as own, pytest.raises(adbc_driver_manager.Error) as failed:
                    update(own, statement)
                said.append(str(failed.value))

            thread = threading.Thread(target=overwrite)
            thread.start()
            cluster.wait_until("it runs", 20, lambda: rows(connection, f"SELECT 1 FROM system.queries WHERE state = 'running' AND sql = '{statement}'"))
            update(connection, "INSERT INTO raced VALUES (-1)")
            thread.join(120)
            assert "another statement has changed table public.raced meanwhile: nothing was stored, run this one again" in said[0], said
        assert rows(connection, "SELECT count(*), min(n), sum(n) FROM raced") == [(1002, -1, 500_498)]
        update(connection, "DROP TABLE raced")


def test_how_an_insert_comes_to_its_rows_is_explained(connection):
    update(connection, "CREATE TABLE explained (n BIGINT)")
    (logical, *_) = rows(connection, "EXPLAIN INSERT INTO explained SELECT value FROM generate_series(1, 3) AS t(value)")
    assert "generate_series" in logical[1]
    assert rows(connection, "SELECT count(*) FROM explained") == [(0,)]
    with pytest.raises(adbc_driver_manager.Error, match="EXPLAIN ANALYZE would run the statement"):
        rows(connection, "EXPLAIN ANALYZE INSERT INTO explained VALUES (1)")
    update(connection, "DROP TABLE explained")


def test_a_schema_is_used(running):
    with running.connect() as connection:
        update(connection, "CREATE SCHEMA other")
        update(connection, "USE other")
        update(connection, "CREATE TABLE here AS SELECT 1 AS n")
        assert rows(connection, "SELECT n FROM bowshot.other.here") == [(1,)]
        update(connection, "USE bowshot.public")
        with pytest.raises(adbc_driver_manager.Error, match="here"):
            rows(connection, "SELECT n FROM here")
        with pytest.raises(adbc_driver_manager.Error, match="there is no schema 'nowhere'"):
            update(connection, "USE nowhere")
        update(connection, "DROP SCHEMA other CASCADE")


def test_files_of_dropped_tables_are_garbage_and_go(tmp_path):
    (tmp_path / "node-1").mkdir()
    settings = "[coordinator.query]\ntimeout_ms = 1000\n"
    with cluster.Cluster(tmp_path / "cluster", [cluster.Node("node-1", {"data": tmp_path / "node-1"})], settings=settings) as running:
        with running.connect() as connection:
            update(connection, "CREATE TABLE gone AS SELECT 1 AS n")
            (file,) = (tmp_path / "node-1" / TABLE_FOLDER).glob("*/*.parquet")
            update(connection, "DROP TABLE gone")
            assert file.exists(), "a query that began before may read it"
        cluster.wait_until("the file is deleted, and its folder", 90, lambda: not file.parent.exists())
