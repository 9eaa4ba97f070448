"""The JDBC driver from Maven Central against three workers: connecting, metadata, types in and out, parameters, batches, cancel, many rows."""

import contextlib
import datetime
import decimal
import os
import subprocess

import answers
import cluster
import pytest

VERSIONS = ["18.3.0"]
PROGRAM = cluster.REPOSITORY / "sql-tests" / "jdbc" / "JdbcDriver.java"
FOLDER = cluster.REPOSITORY / ".bowshot" / "jdbc"
MAVEN_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
# Methods that the driver itself has not written.
NOT_IN_DRIVER = {
    f"{whose}{what}AreVisible/1" for whose in ("own", "others") for what in ("Deletes", "Inserts", "Updates")
} | {f"{what}AreDetected/1" for what in ("deletes", "inserts", "updates")} | {"supportsResultSetHoldability/1", "supportsResultSetType/1"}  # fmt: skip


@pytest.fixture(scope="module", params=VERSIONS)
def driver(request):
    """The driver's jar."""
    jar = FOLDER / f"flight-sql-jdbc-driver-{request.param}.jar"
    if not jar.exists():
        artifact = f"org.apache.arrow:flight-sql-jdbc-driver:{request.param}"
        subprocess.run(["mvn", "-q", "-B", MAVEN_COPY, f"-Dartifact={artifact}", f"-DoutputDirectory={FOLDER}"], check=True, timeout=300)
    return jar


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jdbc")
    nodes = [cluster.Node(name, {"data": folder / name}, "eu", kernel_device="off") for name in ("node-1", "node-2", "node-3")]
    with cluster.Cluster(folder / "cluster", nodes) as started:
        yield started


def told(driver, port, command, *arguments, options="useEncryption=false", heap="512m", zone="America/New_York"):
    """The lines that the program tells, as lists of fields."""
    flags = ["--add-opens=java.base/java.nio=ALL-UNNAMED", f"-Xmx{heap}", "-Dfile.encoding=UTF-8", f"-Duser.timezone={zone}"]
    url = f"jdbc:arrow-flight-sql://127.0.0.1:{port}?{options}"
    ended = subprocess.run(
        ["java", *flags, "-cp", driver, PROGRAM, url, command, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    return [line.split("\t") for line in ended.stdout.splitlines()]


def test_every_method_of_the_metadata_answers(driver, running):
    update = told(driver, running.port, "update", "CREATE TABLE keyed (a INT NOT NULL, b VARCHAR, c DATE, PRIMARY KEY (b, a))")
    assert update == [["updated", "0"]]
    lines = told(driver, running.port, "metadata", "public", "keyed")
    assert {line[1] for line in lines if line[0] == "failed"} == NOT_IN_DRIVER
    assert not [line for line in lines if line[0] == "error"], lines[-1]
    found = {line[1]: line[2] for line in lines if line[0] in ("rows", "value")}
    expected = {
        "getCatalogs/0": "1", "getTables/4": "1", "getColumns/4": "3", "getPrimaryKeys/3": "2", "getImportedKeys/3": "0",
        "getDatabaseProductName/0": "Bowshot", "getIdentifierQuoteString/0": '"', "getSchemaTerm/0": "schema", "supportsTransactions/0": "false",
        "supportsUnionAll/0": "true", "supportsBatchUpdates/0": "true", "isReadOnly/0": "false",
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    told(driver, running.port, "update", "DROP TABLE keyed")


# The driver answers these with an empty set or not at all, whatever the server knows; it says of every column that it cannot be NULL.
NOT_SHOWN = {"indexes", "procedures"}


def test_a_database_browser_finds_its_way(driver, running):
    told(driver, running.port, "update", "CREATE SCHEMA shop")
    told(driver, running.port, "update", "CREATE TABLE shop.customers (id BIGINT NOT NULL, name VARCHAR, PRIMARY KEY (id))")
    orders = "CREATE TABLE shop.orders (id BIGINT NOT NULL PRIMARY KEY, customer BIGINT REFERENCES shop.customers, total DECIMAL(12,2), day DATE)"
    told(driver, running.port, "update", orders)
    filled = "INSERT INTO shop.orders SELECT value, value % 10, value * 2, DATE '2024-02-29' FROM generate_series(1, 500) AS t(value)"
    assert told(driver, running.port, "update", filled) == [["updated", "500"]]
    lines = told(driver, running.port, "browse", "shop", "orders")
    assert not [line for line in lines if line[0] == "error"], lines[-1]
    assert {line[1] for line in lines if line[0] == "failed"} <= NOT_SHOWN, lines
    found = {line[1]: line[2] for line in lines if line[0] == "step"}
    expected = {
        "valid": "true", "autocommit": "true", "transactions": "false", "quote": '"', "keywords": "true", "functions": "true",
        "table types": "SYSTEM TABLE,TABLE,VIEW", "catalogs": "bowshot", "tables": "customers,orders",
        "columns": "id,customer,total,day", "primary key": "id", "imported keys": "customers", "exported keys": "", "execute": "true",
        "result": "id -5 0, customer -5 0, total 3 0, day 91 0", "more results": "false", "warnings": "null",
    }  # fmt: skip
    assert {name: found.get(name) for name in expected} == expected
    assert "shop" in found["schemas"].split(",") and found["product"].startswith("Bowshot ")
    assert found["rows"] in ("200", "500")
    told(driver, running.port, "update", "DROP SCHEMA shop CASCADE")


TYPES = """SELECT true AS flag, CAST(-8 AS TINYINT) AS tiny, CAST(-16 AS SMALLINT) AS small, CAST(-32 AS INT) AS int, CAST(-64 AS BIGINT) AS big,
CAST(8 AS TINYINT UNSIGNED) AS utiny, CAST(1.5 AS REAL) AS float, CAST(2.25 AS DOUBLE) AS double, CAST(-123.45 AS DECIMAL(10,2)) AS money,
'text é' AS text, X'00ff' AS bytes, DATE '2024-02-29' AS day, TIME '01:02:03' AS clock, TIMESTAMP '2024-02-29 01:02:03.456' AS at"""


def test_every_type_comes_out(driver, running):
    # Elsewhere the driver shifts the text of a TIME by the zone; dates and timestamps it leaves alone.
    lines = told(driver, running.port, "types", TYPES, zone="UTC")
    found = {label: (jdbc_type, value) for label, jdbc_type, _, value, _ in lines}
    expected = {
        "flag": ("BOOLEAN", "true"), "tiny": ("TINYINT", "-8"), "small": ("SMALLINT", "-16"), "int": ("INTEGER", "-32"), "big": ("BIGINT", "-64"),
        "float": ("FLOAT", "1.5"), "double": ("DOUBLE", "2.25"), "money": ("DECIMAL", "-123.45"), "text": ("VARCHAR", "text é"),
        "day": ("DATE", "2024-02-29"), "clock": ("TIME", "01:02:03"), "at": ("TIMESTAMP", "2024-02-29 01:02:03.456"),
    }  # fmt: skip
    assert {label: found[label] for label in expected} == expected
    assert found["bytes"][0] == "VARBINARY" and found["utiny"][1] == "8"


def test_columns_say_their_precision_and_scale(driver, running):
    # Spark makes DECIMAL(38,18) of what has none.
    sql = "SELECT n, CAST(n * 1.5 AS DECIMAL(10,2)) AS money, sum(CAST(n AS DECIMAL(9,4))) OVER () AS total FROM generate_series(1, 3) AS t(n)"
    columns = [["n", "BIGINT", "0", "0"], ["money", "DECIMAL", "10", "2"], ["total", "DECIMAL", "19", "4"]]
    assert told(driver, running.port, "columns", sql) == columns * 3


def test_twelve_parameters_go_in_and_come_out_with_nulls(driver, running):
    columns = "a BOOLEAN, b TINYINT, c SMALLINT, d INT, e BIGINT, f REAL, g DOUBLE, h DECIMAL(10,2), i VARCHAR, j BYTEA, k DATE, l TIMESTAMP"
    told(driver, running.port, "update", f"CREATE TABLE twelve ({columns})")
    assert told(driver, running.port, "parameters") == [["parameters", "12"], ["updated", "1"], ["updated", "1"]]
    lines = told(driver, running.port, "types", "SELECT * FROM twelve ORDER BY a NULLS LAST")
    values = ["true", "-8", "-16", "-32", "-64", "1.5", "2.25", "123.45", "text é", None, "2024-02-29", "2024-02-29 01:02:03.456"]
    assert [line[3] for line, value in zip(lines[:12], values) if value] == [value for value in values if value]
    assert [line[3:] for line in lines[12:]] == [["null", "true"]] * 12
    # The bytes as another client has them.
    assert running.rows("SELECT j, l FROM twelve WHERE a")[0][0] == b"\x00\xff"
    told(driver, running.port, "update", "DROP TABLE twelve")


def test_a_batch_is_stored_whole(driver, running):
    told(driver, running.port, "update", "CREATE TABLE batched (n INT, text VARCHAR)")
    assert told(driver, running.port, "batch", 5000) == [["batched", "5000"]]
    assert told(driver, running.port, "query", "SELECT count(*), sum(n), max(text) FROM batched") == [["5000", str(4999 * 2500), "row 999"]]
    told(driver, running.port, "update", "DROP TABLE batched")


def test_a_query_is_cancelled_from_another_thread(driver, running):
    endless = "SELECT a.value FROM generate_series(1, 10000000) AS a(value) CROSS JOIN generate_series(1, 100000) AS b(value)"
    # By chance the driver leaves what it had read ahead, and says that its connection does not close for it.
    outcome, (_, milliseconds), *not_closed = told(driver, running.port, "cancel", endless)
    assert all(line[0] == "close failed" for line in not_closed), not_closed
    assert outcome[0] == "cancelled" and int(milliseconds) < 5000, outcome
    cluster.wait_until("nothing runs any more", 10, lambda: not running.rows(f"SELECT 1 FROM system.queries WHERE state = 'running' AND sql = '{endless}'"))


def test_ten_million_rows_need_little_memory(driver, running):
    ((_, rows, _, total, _, most),) = told(driver, running.port, "many", "SELECT value FROM generate_series(1, 10000000) AS t(value)", heap="256m")
    assert (int(rows), int(total)) == (10_000_000, 10_000_000 * 10_000_001 // 2)
    assert int(most) < 256 << 20


def test_errors_have_their_text(driver, running):
    ((error, _, text),) = told(driver, running.port, "query", "SELECT nothing FROM system.nodes")
    assert error == "error" and "No field named nothing" in text


def typed(text):
    """A field of a line as what it is: a number, a date or a text."""
    with contextlib.suppress(decimal.InvalidOperation):
        return decimal.Decimal(text)
    with contextlib.suppress(ValueError):
        return datetime.date.fromisoformat(text)
    return text


def test_tpch_answers_are_duckdbs(driver, tpch_cluster, duckdb_tpch):
    queries = dict(answers.tpch_queries(cluster.REPOSITORY / "datasets" / "queries" / "tpch"))
    lines = told(driver, tpch_cluster.port, "queries", *queries.values(), zone="UTC")
    found = {name: [] for name in queries}
    for number, *row in lines:
        found[list(queries)[int(number)]].append(row)
    for name, sql in queries.items():
        rows = [[typed(value) for value in row] for row in found[name]]
        # A phone number or a name of digits alone is a text.
        expected = [[typed(value) if isinstance(value, str) else value for value in row] for row in duckdb_tpch.execute(sql).fetchall()]
        assert answers.difference(rows, expected) is None, name
