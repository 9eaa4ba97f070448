"""Polars, pandas and bare ADBC over three workers: every type there and back with its extremes, every way of writing, metadata,
partitions."""

import datetime
import decimal
import subprocess
import sys

import adbc_driver_manager
import cluster
import pandas
import pandas.errors
import polars
import pyarrow
import pytest

UTC = datetime.timezone.utc


def whole(bits, signed=True):
    least, greatest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return pyarrow.array([least, greatest, 1, None], getattr(pyarrow, f"{'' if signed else 'u'}int{bits}")())


def decimals(kind, *texts):
    return pyarrow.array([*map(decimal.Decimal, texts), None], kind)


def times(unit, *moments):
    moments = moments or (datetime.datetime(1969, 12, 31, 23, 59, 59), datetime.datetime(2262, 1, 1), datetime.datetime(1970, 1, 1))
    return pyarrow.array([*moments, None], unit)


# Three values and a NULL of each type: least, greatest, empty, and what looks like something else.
VALUES = {
    **{f"int{bits}": whole(bits) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": whole(bits, signed=False) for bits in (8, 16, 32, 64)},
    "half": pyarrow.array([1.5, -2.0, 0.0, None]).cast(pyarrow.float16()),
    "real": pyarrow.array([3.4028234663852886e38, 1.401298464324817e-45, float("-inf"), None], pyarrow.float32()),
    "double": pyarrow.array([1.7976931348623157e308, 5e-324, float("nan"), None]),
    "boolean": pyarrow.array([True, False, True, None]),
    "text": pyarrow.array(["", "é😀\u0000\u202ex", "  'q\"\\\n NULL ", None]),
    "large text": pyarrow.array(["", "a" * 100_000, "NULL", None], pyarrow.large_string()),
    "bytes": pyarrow.array([b"", b"\x00\xff", b"x" * 1000, None]),
    "large bytes": pyarrow.array([b"", b"\x00", b"x", None], pyarrow.large_binary()),
    "four bytes": pyarrow.array([b"abcd", b"\0\0\0\0", b"\xff\xff\xff\xff", None], pyarrow.binary(4)),
    "decimal of 9": decimals(pyarrow.decimal32(5, 1), "9999.9", "-9999.9", "0.0"),
    "decimal of 18": decimals(pyarrow.decimal64(15, 1), "1.5", "-2.5", "0.0"),
    "decimal": decimals(pyarrow.decimal128(10, 2), "12345678.90", "-0.01", "0.00"),
    "decimal of 38": decimals(pyarrow.decimal128(38, 0), "9" * 38, "-" + "9" * 38, "0"),
    "decimal of 76": decimals(pyarrow.decimal256(76, 0), "9" * 60, "-" + "9" * 60, "0"),
    "date": pyarrow.array([datetime.date(1, 1, 1), datetime.date(9999, 12, 31), datetime.date(1970, 1, 1), None]),
    "date in milliseconds": pyarrow.array(
        [datetime.date(1970, 1, 1), datetime.date(2024, 2, 29), datetime.date(1900, 1, 1), None], pyarrow.date64()
    ),
    **{f"timestamp in {unit}": times(pyarrow.timestamp(unit)) for unit in ("s", "ms", "us", "ns")},
    "timestamp far away": times(
        pyarrow.timestamp("us"),
        datetime.datetime(1, 1, 1),
        datetime.datetime(9999, 12, 31, 23, 59, 59, 999999),
        datetime.datetime(1970, 1, 1),
    ),
    "timestamp of a zone": times(
        pyarrow.timestamp("us", "Europe/Berlin"), *(datetime.datetime(year, 3, 31, 1, tzinfo=UTC) for year in (2024, 1969, 2000))
    ),
    "time in s": times(pyarrow.time32("s"), datetime.time(0), datetime.time(23, 59, 59), datetime.time(1)),
    "time in ms": times(pyarrow.time32("ms"), datetime.time(0), datetime.time(23, 59, 59, 999_000), datetime.time(1)),
    "time in us": times(pyarrow.time64("us"), datetime.time(0), datetime.time(23, 59, 59, 999_999), datetime.time(1)),
    "time in ns": times(pyarrow.time64("ns"), datetime.time(0), datetime.time(23, 59, 59, 999_999), datetime.time(1)),
    "duration": pyarrow.array(
        [datetime.timedelta(0), datetime.timedelta(days=-1), datetime.timedelta(microseconds=1), None], pyarrow.duration("us")
    ),
    "list": pyarrow.array([[], [1, None], [2**62], None], pyarrow.list_(pyarrow.int64())),
    "large list": pyarrow.array([[], [None], ["é"], None], pyarrow.large_list(pyarrow.string())),
    "list of two": pyarrow.array([[1, 2], [3, None], [5, 6], None], pyarrow.list_(pyarrow.int32(), 2)),
    "struct": pyarrow.array([{"a": 1, "b": ""}, {"a": None, "b": None}, {"a": 3, "b": "é"}, None]),
    "map": pyarrow.array([[("a", 1)], [], [("b", None)], None], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
    "deep": pyarrow.array(
        [[{"x": [{"y": 1}]}], [], [None], None],
        pyarrow.list_(pyarrow.struct([("x", pyarrow.list_(pyarrow.struct([("y", pyarrow.int64())])))])),
    ),
    "dictionary": pyarrow.array(["a", "b", "a", None]).dictionary_encode(),
    "view": pyarrow.array(["a", "b" * 20, "", None], pyarrow.string_view()),
    "view of bytes": pyarrow.array([b"a", b"b" * 20, b"", None], pyarrow.binary_view()),
    "runs": pyarrow.RunEndEncodedArray.from_arrays([3, 4], [1, None]),
    "view of lists": pyarrow.array([[1], [], [2], None], pyarrow.list_view(pyarrow.int64())),
    "nothing": pyarrow.nulls(4),
}
# What is stored in a plainer type, as the README of the package and the engine's `result_types` say.
PLAINER = {
    "half": pyarrow.float32(),
    # Instants are shown by the clock of the session's zone, whatever a frame or a file says.
    "timestamp of a zone": pyarrow.timestamp("us", "UTC"),
    "decimal of 9": pyarrow.decimal128(5, 1),
    "decimal of 18": pyarrow.decimal128(15, 1),
    "date in milliseconds": pyarrow.date32(),
    "large text": pyarrow.string(),
    "large bytes": pyarrow.binary(),
    "dictionary": pyarrow.string(),
    "view": pyarrow.string(),
    "view of bytes": pyarrow.binary(),
    "runs": pyarrow.int64(),
    "view of lists": pyarrow.list_(pyarrow.int64()),
    "large list": pyarrow.list_(pyarrow.string()),
    "nothing": pyarrow.string(),
}
# Types that the libraries themselves do not take, or do not give to a driver.
NOT_OF_POLARS = {"decimal of 76", "runs", "view of lists", "nothing"}
NOT_OF_PANDAS = {"view", "view of bytes", "runs", "view of lists"}


def names(left_out=()):
    return [name for name in VALUES if name not in left_out]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    nodes = [cluster.Node(name, {"data": folder / name}, kernel_device="off") for name in ("node-1", "node-2", "node-3")]
    with cluster.Cluster(folder / "cluster", nodes) as started:
        yield started


@pytest.fixture
def connection(running):
    with running.connect() as opened:
        yield opened


@pytest.fixture(scope="module")
def numbers(running):
    """300,000 rows in files of every worker."""
    with running.connect() as connection, connection.cursor() as cursor:
        for first in range(0, 300_000, 100_000):
            cursor.adbc_ingest("numbers", pyarrow.table({"n": range(first, first + 100_000)}), mode="create_append")
    return "numbers"


def rows(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def table_of(name):
    return pyarrow.table({"id": range(4), "value": VALUES[name]})


READ = "SELECT * FROM typed ORDER BY id"


@pytest.mark.parametrize("name", names())
def test_arrow_there_and_back(connection, name):
    table = table_of(name)
    with connection.cursor() as cursor:
        assert cursor.adbc_ingest("typed", table, mode="replace") == 4
        announced = cursor.adbc_execute_schema(READ)
        cursor.execute(READ)
        found = cursor.fetch_arrow_table()
    assert found.schema.equals(announced)
    assert found.schema.field("value").type == PLAINER.get(name, table.schema.field("value").type)
    # As texts: NaN is not equal to itself.
    expected = table["value"].cast(PLAINER[name]) if name == "timestamp of a zone" else table["value"]
    assert list(map(repr, found["value"].to_pylist())) == list(map(repr, expected.to_pylist()))


@pytest.mark.parametrize("name", names(NOT_OF_POLARS))
def test_polars_there_and_back(connection, name):
    frame = polars.from_arrow(table_of(name))
    assert frame.write_database("typed", connection, engine="adbc", if_table_exists="replace") == 4
    plainer = {"dictionary": polars.String, "half": polars.Float32, "timestamp of a zone": polars.Datetime("us", "UTC")}.get(name)
    expected = frame.with_columns(polars.col("value").cast(plainer)) if plainer else frame
    found = polars.read_database(READ, connection)
    assert found.schema == expected.schema and found.equals(expected, null_equal=True)
    with connection.cursor() as cursor:
        cursor.execute(READ)
        assert cursor.fetch_polars().equals(expected)


@pytest.mark.parametrize("name", names(NOT_OF_PANDAS))
def test_pandas_there_and_back(connection, name):
    table = table_of(name)
    frame = table.to_pandas(types_mapper=pandas.ArrowDtype)
    assert frame.to_sql("typed", connection, if_exists="replace", index=False) == 4
    found = pandas.read_sql(READ, connection, dtype_backend="pyarrow")
    plain = PLAINER.get(name, table.schema.field("value").type)
    pandas.testing.assert_frame_equal(
        found, table.cast(pyarrow.schema([("id", pyarrow.int64()), ("value", plain)])).to_pandas(types_mapper=pandas.ArrowDtype)
    )
    with connection.cursor() as cursor:
        cursor.execute(READ)
        pandas.testing.assert_frame_equal(
            cursor.fetch_df(), table.cast(pyarrow.schema([("id", pyarrow.int64()), ("value", plain)])).to_pandas()
        )


SQL_TYPES = """CREATE TABLE of_sql (a BOOLEAN, b TINYINT, c SMALLINT, d INT, e BIGINT, f TINYINT UNSIGNED, g SMALLINT UNSIGNED,
h INT UNSIGNED, i BIGINT UNSIGNED, j REAL, k DOUBLE, l DECIMAL(38, 10), m VARCHAR, n BYTEA, o DATE, p TIME, q TIMESTAMP, r TIMESTAMP(3),
s TIMESTAMP WITH TIME ZONE, t BIGINT[])"""
SQL_ROWS = """INSERT INTO of_sql VALUES
(true, -128, -32768, -2147483648, -9223372036854775808, 255, 65535, 4294967295, 18446744073709551615, 1.5, -0.1,
 9999999999999999999999999999.9999999999,
 '', X'', DATE '0001-01-01', TIME '23:59:59.999999999', TIMESTAMP '9999-12-31 23:59:59.999999', TIMESTAMP '1969-12-31 23:59:59.999',
 TIMESTAMP '2024-03-31 02:30:00+01:00', [1, NULL]),
(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"""


def test_types_of_sql_as_every_library_reads_them(connection):
    rows(connection, SQL_TYPES)
    rows(connection, SQL_ROWS)
    read = "SELECT * FROM of_sql ORDER BY a NULLS LAST"
    with connection.cursor() as cursor:
        cursor.execute(read)
        found = cursor.fetch_arrow_table()
    kinds = [
        pyarrow.bool_(),
        pyarrow.int8(),
        pyarrow.int16(),
        pyarrow.int32(),
        pyarrow.int64(),
        pyarrow.uint8(),
        pyarrow.uint16(),
        pyarrow.uint32(),
        pyarrow.uint64(),
        pyarrow.float32(),
        pyarrow.float64(),
        pyarrow.decimal128(38, 10),
        pyarrow.string(),
        pyarrow.binary(),
        pyarrow.date32(),
        pyarrow.time64("ns"),
        pyarrow.timestamp("us"),
        pyarrow.timestamp("ms"),
        pyarrow.list_(pyarrow.int64()),
    ]
    assert found.drop_columns("s").schema.types == kinds
    ticks = [found[name].cast(pyarrow.int64())[0].as_py() for name in ("p", "q", "r", "s")]
    assert ticks == [86_399_999_999_999, 253_402_300_799_999_999, -1, 1_711_848_600_000_000]
    values = list(found.drop_columns(["p", "q", "r", "s"]).to_pylist()[0].values())
    assert values == [
        True,
        -128,
        -32768,
        -(2**31),
        -(2**63),
        255,
        65535,
        2**32 - 1,
        2**64 - 1,
        1.5,
        -0.1,
        decimal.Decimal("9" * 28 + "." + "9" * 10),
        "",
        b"",
        datetime.date(1, 1, 1),
        [1, None],
    ]
    assert set(found.to_pylist()[1].values()) == {None}
    assert polars.read_database(read, connection).equals(polars.from_arrow(found))
    arrow_frame = pandas.read_sql(read, connection, dtype_backend="pyarrow")
    pandas.testing.assert_frame_equal(arrow_frame, found.to_pandas(types_mapper=pandas.ArrowDtype))
    # Back into a table of the same columns, as they came.
    with connection.cursor() as cursor:
        assert cursor.adbc_ingest("of_sql", found, mode="append") == 2
    assert rows(connection, "SELECT count(*), count(DISTINCT i), max(p) = min(p), count(t) FROM of_sql") == [(4, 1, True, 2)]
    rows(connection, "DROP TABLE of_sql")


def test_a_timestamp_with_a_time_zone_has_one(connection):
    with connection.cursor() as cursor:
        assert (
            cursor.adbc_execute_schema("SELECT CAST('2024-03-31 02:30:00+01:00' AS TIMESTAMP WITH TIME ZONE) AS at").field("at").type.tz
            is not None
        )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            pyarrow.array([pyarrow.MonthDayNano([1, 2, 3])]),
            r"column value of table public.refused is Interval\(MonthDayNano\), which Parquet files cannot hold: CAST it",
        ),
        (pyarrow.array([{}], pyarrow.struct([])), r"column value of table public.refused is Struct\(\), which Parquet files cannot hold"),
        (
            pyarrow.UnionArray.from_sparse(pyarrow.array([0], pyarrow.int8()), [pyarrow.array([1])]),
            "column value of table public.refused is Union",
        ),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_column_and_type(connection, values, said):
    with connection.cursor() as cursor, pytest.raises(adbc_driver_manager.ProgrammingError, match=said):
        cursor.adbc_ingest("refused", pyarrow.table({"value": values}), mode="create")
    assert rows(connection, "SELECT count(*) FROM information_schema.tables WHERE table_name = 'refused'") == [(0,)]


def test_values_that_do_not_fit_their_column_store_nothing(connection):
    rows(connection, "CREATE TABLE narrow (tiny TINYINT, money DECIMAL(4, 2), day DATE)")
    for column, values in [
        ("tiny", [1, 300]),
        ("money", [decimal.Decimal("1.00"), decimal.Decimal("1000.00")]),
        ("day", ["2024-02-29", "no day"]),
    ]:
        with connection.cursor() as cursor, pytest.raises(adbc_driver_manager.Error, match=f"column {column}: the value .* has no equal in"):
            cursor.adbc_ingest("narrow", pyarrow.table({column: values}), mode="append")
    assert rows(connection, "SELECT count(*) FROM narrow") == [(0,)]
    rows(connection, "DROP TABLE narrow")


def test_every_way_of_writing_with_polars(connection):
    frame = polars.DataFrame({"a": [1, 2], "b": ["x", None]})
    write = lambda mode, table="written": frame.write_database(table, connection, engine="adbc", if_table_exists=mode)  # noqa: E731
    assert write("fail") == 2
    with pytest.raises(adbc_driver_manager.ProgrammingError, match="table public.written exists already"):
        write("fail")
    assert write("append") == 2
    assert polars.read_database("SELECT count(*) AS n FROM written", connection).item() == 4
    assert write("replace") == 2
    assert polars.read_database("SELECT * FROM written ORDER BY a", connection).equals(frame)
    rows(connection, "CREATE SCHEMA of_polars")
    assert write("fail", "of_polars.written") == 2
    assert rows(connection, "SELECT sum(a) FROM of_polars.written") == [(3,)]
    filtered = polars.read_database("SELECT * FROM written WHERE a > ?", connection, execute_options={"parameters": [1]})
    assert filtered.to_dicts() == [{"a": 2, "b": None}]
    assert polars.read_database("SELECT * FROM written WHERE a > 9", connection).schema == frame.schema
    rows(connection, "DROP SCHEMA of_polars CASCADE")
    rows(connection, "DROP TABLE written")


def test_every_way_of_writing_with_pandas(connection):
    frame = pandas.DataFrame({"a": [1, 2], "b": ["x", None]})
    write = lambda mode, **more: frame.to_sql("written", connection, if_exists=mode, index=False, **more)  # noqa: E731
    assert write("fail") == 2
    with pytest.raises(ValueError, match="Table 'written' already exists"):
        write("fail")
    assert write("append") == 2 and rows(connection, "SELECT count(*) FROM written") == [(4,)]
    assert write("replace") == 2
    pandas.testing.assert_frame_equal(pandas.read_sql("SELECT * FROM written ORDER BY a", connection), frame)
    pandas.testing.assert_frame_equal(pandas.read_sql("written", connection).sort_values("a", ignore_index=True), frame)
    with pytest.raises(pandas.errors.DatabaseError, match="Delete is not supported yet"):
        write("delete_rows")
    assert rows(connection, "SELECT count(*) FROM written") == [(2,)]
    rows(connection, "CREATE SCHEMA of_pandas")
    assert write("fail", schema="of_pandas") == 2 and write("append", schema="of_pandas") == 2 and write("replace", schema="of_pandas") == 2
    assert rows(connection, "SELECT count(*) FROM of_pandas.written") == [(2,)]
    assert frame.set_index("a").to_sql("indexed", connection, index=True) == 2
    assert sorted(rows(connection, "SELECT a, b FROM indexed"), key=str) == [(1, "x"), (2, None)]
    rows(connection, "DROP SCHEMA of_pandas CASCADE")
    rows(connection, "DROP TABLE written")
    rows(connection, "DROP TABLE indexed")


def test_names_are_taken_as_they_are(connection):
    table = pyarrow.table({"Order Id": [1], "select": [2], 'a"b': [3], "größe": [4], "x.y": [5]})
    with connection.cursor() as cursor:
        assert cursor.adbc_ingest("Mixed Case", table, mode="create") == 1
    assert polars.read_database('SELECT * FROM "Mixed Case"', connection).to_dicts() == table.to_pylist()
    assert connection.adbc_get_table_schema("Mixed Case").names == table.column_names
    rows(connection, 'DROP TABLE "Mixed Case"')


# ADBC itself.


def objects(connection, **arguments):
    """{(catalog, schema, table): columns} as deep as was asked, with what is missing left out."""
    found = {}
    for catalog in connection.adbc_get_objects(**arguments).read_all().to_pylist():
        found[catalog["catalog_name"],] = None
        for schema in catalog["catalog_db_schemas"] or []:
            found[catalog["catalog_name"], schema["db_schema_name"]] = None
            for table in schema["db_schema_tables"] or []:
                columns = table["table_columns"]
                found[catalog["catalog_name"], schema["db_schema_name"], table["table_name"]] = columns and [
                    column["column_name"] for column in columns
                ]
    return found


@pytest.fixture(scope="module")
def known(running):
    """Tables and a view whose names differ by what LIKE takes for any character."""
    with running.connect() as connection:
        rows(connection, "CREATE SCHEMA known")
        rows(connection, "CREATE TABLE known.a_b (id BIGINT NOT NULL, a_c INT, abc INT, PRIMARY KEY (id))")
        rows(connection, "CREATE TABLE known.axb (id BIGINT, text VARCHAR)")
        yield
        rows(connection, "DROP SCHEMA known CASCADE")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"depth": "catalogs"}, {("bowshot",): None}),
        ({"depth": "catalogs", "catalog_filter": "bow%"}, {("bowshot",): None}),
        ({"depth": "all", "catalog_filter": "nothing"}, {}),
        ({"depth": "db_schemas", "db_schema_filter": "know_"}, {("bowshot",): None, ("bowshot", "known"): None}),
        ({"depth": "db_schemas", "catalog_filter": "b______", "db_schema_filter": "nothing"}, {}),
        ({"depth": "tables", "table_name_filter": "a_b"}, {("a_b",): None, ("axb",): None}),
        ({"depth": "tables", "table_name_filter": r"a\_b"}, {("a_b",): None}),
        ({"depth": "tables", "table_types_filter": ["TABLE"]}, {("a_b",): None, ("axb",): None}),
        ({"depth": "tables", "table_types_filter": ["VIEW", "SYSTEM TABLE"]}, {}),
        ({"depth": "tables", "table_types_filter": ["VIEW", "TABLE"], "table_name_filter": "ax%"}, {("axb",): None}),
        ({"depth": "all"}, {("a_b",): ["id", "a_c", "abc"], ("axb",): ["id", "text"]}),
        ({"depth": "all", "column_name_filter": "i%"}, {("a_b",): ["id"], ("axb",): ["id"]}),
        ({"depth": "all", "table_name_filter": "a_b", "column_name_filter": "a_c"}, {("a_b",): ["a_c", "abc"], ("axb",): []}),
    ],
)
def test_objects_by_every_filter_at_every_depth(connection, known, arguments, expected):
    if arguments["depth"] in ("tables", "all"):
        arguments = {"db_schema_filter": "known", **arguments}
        found = {key[2:]: columns for key, columns in objects(connection, **arguments).items() if len(key) == 3}
    else:
        found = objects(connection, **arguments)
    if arguments["depth"] == "db_schemas" and not expected:
        found = {key: columns for key, columns in found.items() if len(key) == 2}
    assert found == expected


def test_columns_are_described(connection, known):
    [catalog] = connection.adbc_get_objects(depth="all", db_schema_filter="known", table_name_filter="axb").read_all().to_pylist()
    [schema] = [schema for schema in catalog["catalog_db_schemas"] if schema["db_schema_name"] == "known"]
    [table] = schema["db_schema_tables"]
    described = [(column["column_name"], column["ordinal_position"], column["xdbc_type_name"]) for column in table["table_columns"]]
    assert described == [("id", 1, "BIGINT"), ("text", 2, "VARCHAR")]


def test_schemas_of_tables_and_queries(connection, known):
    kept = connection.adbc_get_table_schema("a_b", db_schema_filter="known")
    assert [(field.name, field.type, field.nullable) for field in kept] == [
        ("id", pyarrow.int64(), False),
        ("a_c", pyarrow.int32(), True),
        ("abc", pyarrow.int32(), True),
    ]
    # A name, not a pattern.
    with pytest.raises(adbc_driver_manager.Error, match="NOT_FOUND"):
        connection.adbc_get_table_schema("a__", db_schema_filter="known")
    with pytest.raises(adbc_driver_manager.Error, match="NOT_FOUND"):
        connection.adbc_get_table_schema("a_b", db_schema_filter="public")
    with connection.cursor() as cursor:
        schema = cursor.adbc_execute_schema("SELECT id, count(*) AS n, ? AS given FROM known.a_b WHERE id > ? GROUP BY id")
        assert [(field.name, field.type) for field in schema] == [
            ("id", pyarrow.int64()),
            ("n", pyarrow.int64()),
            ("given", pyarrow.string()),
        ]
        for statement in ("INSERT INTO known.a_b VALUES (1, 1, 1)", "DROP TABLE known.a_b"):
            with pytest.raises(adbc_driver_manager.NotSupportedError, match="did not provide schema"):
                cursor.adbc_execute_schema(statement)
    assert rows(connection, "SELECT count(*) FROM known.a_b") == [(0,)]


def test_many_rows_of_parameters(connection):
    rows(connection, "CREATE TABLE many (n BIGINT, text VARCHAR, price DECIMAL(10, 2), at TIMESTAMP, bytes BYTEA, flag BOOLEAN)")
    with connection.cursor() as cursor:
        at = datetime.datetime(2024, 2, 29, 1, 2, 3, 456789)
        cursor.executemany(
            "INSERT INTO many VALUES (?, ?, ?, ?, ?, ?)", [(1, "é", decimal.Decimal("1.25"), at, b"\x00", True), (None,) * 6]
        )
        assert cursor.rowcount == 2
        cursor.executemany("INSERT INTO many (n) VALUES (?)", pyarrow.record_batch({"n": pyarrow.array(range(1_000), pyarrow.int16())}))
        assert cursor.rowcount == 1_000
        # What is wrong with one row is wrong with the statement.
        with pytest.raises(adbc_driver_manager.Error):
            cursor.executemany("INSERT INTO many (n) VALUES (?)", [("1",), ("no number",)])
        cursor.executemany("INSERT INTO many (n) VALUES (?)", [])
    found = rows(connection, "SELECT n, text, price, CAST(at AS TIMESTAMP(6)), bytes, flag FROM many WHERE text IS NOT NULL")
    assert found == [(1, "é", decimal.Decimal("1.25"), at, b"\x00", True)]
    assert rows(connection, "SELECT count(*), count(n), sum(n) FROM many") == [(1_002, 1_001, 499_501)]
    rows(connection, "DROP TABLE many")


FETCH_PARTITIONS = """
import sys
import adbc_driver_flightsql.dbapi as flight_sql
uri, *partitions = sys.argv[1:]
with flight_sql.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
    total = count = 0
    for partition in partitions:
        cursor.adbc_read_partition(bytes.fromhex(partition))
        for batch in cursor.fetch_record_batch():
            total, count = total + sum(batch["n"].to_pylist()), count + batch.num_rows
print(count, total)
"""


def test_partitions_are_read_by_another_process_once(running, connection, numbers):
    with connection.cursor() as cursor:
        partitions, schema = cursor.adbc_execute_partitions(f"SELECT n FROM {numbers}")
    assert schema.equals(pyarrow.schema([("n", pyarrow.int64())])) and partitions
    command = [sys.executable, "-c", FETCH_PARTITIONS, running.uri, *(partition.hex() for partition in partitions)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout.split() == ["300000", str(sum(range(300_000)))], done.stderr
    again = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert again.returncode != 0 and "this result was already fetched" in again.stderr
    with connection.cursor() as cursor, pytest.raises(adbc_driver_manager.Error):
        cursor.adbc_read_partition(partitions[0][:-8] + b"tampered")


def test_batches_arrive_before_the_end_and_a_cancelled_query_ends(running, connection, numbers):
    sql = f"SELECT a.n + b.n AS cancelled_here FROM {numbers} AS a CROSS JOIN {numbers} AS b"
    state = "SELECT state FROM system.queries WHERE sql LIKE '%cancelled_here%' AND sql NOT LIKE '%system.queries%'"
    with connection.cursor() as cursor:
        cursor.execute(sql)
        reader = cursor.fetch_record_batch()
        assert reader.read_next_batch().num_rows > 0
        cursor.adbc_cancel()
        # Batches that were on their way may still come; then an error, and never an end that looks complete.
        with pytest.raises((adbc_driver_manager.Error, OSError, pyarrow.ArrowException)):
            while True:
                try:
                    reader.read_next_batch()
                except StopIteration:
                    pytest.fail("a cancelled query ended as if all its rows had come")
    cluster.wait_until("the query is cancelled", 20, lambda: running.rows(state) == [("cancelled",)])
    frames = polars.read_database(f"SELECT n FROM {numbers}", connection, iter_batches=True, batch_size=1_000)
    assert sum(frame["n"].sum() for frame in frames) == sum(range(300_000))
