"""Parquet files of several writers in one folder: read by name, to the type that holds all values, or refused by name.

What is right is what DuckDB's read_parquet(…, union_by_name=true) reads. BOWSHOT_PARQUET_FILES=300 is the long form.
"""

import concurrent.futures
import datetime
import decimal
import math
import os
import shutil
import struct
import uuid

import adbc_driver_flightsql.dbapi
import duckdb
import hunter
import parquet_files
import pyarrow
import pyarrow.parquet
import pytest

FILES = int(os.environ.get("BOWSHOT_PARQUET_FILES", "40"))
FILES_A_FOLDER = 5
KERNELS = ["off", "host", "device"]
NESTED = {"list", "texts", "struct", "map"}
Error = adbc_driver_flightsql.dbapi.Error


class Nodes:
    """Three workers, and a folder of each."""

    def __init__(self, folder):
        self.folder = folder
        for number in (1, 2, 3):
            (folder / f"node-{number}").mkdir()

    def path(self, name, number):
        """The file of this number in a folder: one on each node in turn."""
        path = self.folder / f"node-{number % 3 + 1}" / name / f"{number}.parquet"
        path.parent.mkdir(exist_ok=True)
        return path

    def write(self, name, *tables, first=0, **settings):
        """Tables as files of a folder."""
        for number, table in enumerate(tables, first):
            pyarrow.parquet.write_table(table, self.path(name, number), **settings)

    def duckdb(self, name, sql):
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            files = f"{self.folder}/node-*/{name}/*.parquet"
            connection.execute(f"CREATE VIEW t AS SELECT * FROM read_parquet('{files}', union_by_name=true)")
            return rows_of(connection.execute(sql).fetch_arrow_table())


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    yield Nodes(tmp_path_factory.mktemp("parquet"))


@pytest.fixture(scope="module")
def connect(nodes):
    with hunter.three_nodes(nodes.folder) as running:
        yield lambda: adbc_driver_flightsql.dbapi.connect(running.uri, autocommit=True)


@pytest.fixture(scope="module")
def cursor(connect):
    with connect() as connection, connection.cursor() as cursor:
        yield cursor


def plain(value):
    """A value in the words of any engine."""
    if isinstance(value, (list, tuple)):
        return tuple(plain(item) for item in value)
    if isinstance(value, dict):
        return tuple((name, plain(item)) for name, item in value.items())
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else value.normalize()
    if isinstance(value, datetime.datetime):
        return str(value.astimezone(datetime.UTC) if value.tzinfo else value).replace("+00:00", "Z")
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    return str(value) if isinstance(value, uuid.UUID) else value


def rows_of(table):
    return sorted((plain(row) for row in zip(*(column.to_pylist() for column in table.columns))), key=repr)


def ask(cursor, sql):
    cursor.execute(sql)
    return rows_of(cursor.fetch_arrow_table())


def on_each_kernel(cursor):
    for kernel in KERNELS:
        cursor.execute(f"SET bowshot.kernel = '{kernel}'")
        yield kernel


def create(cursor, name, columns=""):
    cursor.execute(f"CREATE OR REPLACE EXTERNAL TABLE \"{name}\" {columns} STORED AS PARQUET LOCATION 'node://*/data/{name}/'")


def literal(value):
    if isinstance(value, str) and len(value) > 18 and value[4] == "-" and value[13] == ":":
        return f"TIMESTAMP '{value}'" if not value.endswith("Z") else f"TIMESTAMP WITH TIME ZONE '{value}'"
    if isinstance(value, datetime.date):
        return f"DATE '{value}'"
    if isinstance(value, str):
        return None if value == "NaN" else "'" + value.replace("'", "''") + "'"
    return str(value) if isinstance(value, (int, decimal.Decimal)) and not isinstance(value, bool) else None


def questions(columns, rows):
    """What is asked of a folder: all rows, and each column alone, in ways that statistics and kernels take part in."""
    yield "SELECT * FROM t"
    yield "SELECT count(*) FROM t"
    for place, (name, kind) in enumerate(columns.items()):
        yield f'SELECT count("{name}") FROM t'
        if kind in NESTED:
            continue
        yield f'SELECT min("{name}"), max("{name}") FROM t'
        yield f'SELECT "{name}" AS x, count(*) AS y FROM t GROUP BY "{name}"'
        yield f'SELECT count(*) FROM t WHERE "{name}" IS NULL'
        values = sorted({literal(row[place]) for row in rows if row[place] is not None} - {None})
        # Literals of instants are nanoseconds.
        if values and kind != "century":
            middle = values[len(values) // 2]
            yield f'SELECT count(*) FROM t WHERE "{name}" > {middle}'
            yield f'SELECT id FROM t WHERE "{name}" = {middle}'


@pytest.mark.parametrize("seed", range(max(FILES // FILES_A_FOLDER, 1)))
def test_a_folder_is_read_as_duckdb_reads_it(nodes, cursor, seed):
    columns, written = parquet_files.folder(seed, nodes.folder, FILES_A_FOLDER)
    create(cursor, str(seed))
    said = "\n".join(map(str, written))
    listed = ", ".join(f'"{name}"' for name in columns)
    rows = nodes.duckdb(str(seed), f"SELECT {listed} FROM t")
    for question in questions(columns, rows):
        question = question.replace("SELECT *", f"SELECT {listed}")
        right = nodes.duckdb(str(seed), question)
        for kernel in on_each_kernel(cursor):
            assert ask(cursor, question.replace("FROM t", f'FROM "{seed}"')) == right, f"{question} on {kernel}\n{said}"


def test_files_of_the_cluster_are_files_of_anybody(nodes, cursor):
    cursor.adbc_ingest("own", pyarrow.table({"a": [1, 2, None], "s": ["x", None, "y"]}), "create")
    cursor.execute("INSERT INTO own SELECT a + 10, s FROM own")
    found = sorted(nodes.folder.glob("node-*/.bowshot/tables/*/*.parquet"))
    assert len(found) >= 2
    for number, path in enumerate(found):
        shutil.copy(path, nodes.path("copied", number))
    nodes.write("copied", pyarrow.table({"s": pyarrow.array(["z"]).dictionary_encode(), "a": pyarrow.array([5], pyarrow.int8())}), first=len(found))
    create(cursor, "copied")
    for _ in on_each_kernel(cursor):
        assert ask(cursor, "SELECT a, s FROM copied") == nodes.duckdb("copied", "SELECT a, s FROM t")
        assert ask(cursor, "SELECT s, sum(a) FROM copied GROUP BY s") == nodes.duckdb("copied", "SELECT s, sum(a) FROM t GROUP BY s")


def column(values, kind):
    return pyarrow.table({"k": range(len(values)), "x": pyarrow.array(values, kind)})


INSTANT = datetime.datetime(2024, 2, 29, 5)


def of_values(values, kind):
    """A category: codes into a list of values of any type."""
    known = [value for value in values if value is not None]
    keys = pyarrow.array([None if value is None else known.index(value) for value in values], pyarrow.int8())
    return pyarrow.DictionaryArray.from_arrays(keys, pyarrow.array(known, kind))


# Values of categories by their type. Writers leave the type as a hint; Parquet stores the values as those of any column.
CATEGORIES = {
    pyarrow.int8(): [1, None, -128],
    pyarrow.uint16(): [1, None, 65535],
    pyarrow.int64(): [1, None, 2**60],
    pyarrow.uint64(): [1, None, 2**60],
    pyarrow.float32(): [0.5, None, -2.0],
    pyarrow.float64(): [0.5, None, 1e300],
    pyarrow.bool_(): [True, None, False],
    pyarrow.date32(): [datetime.date(2024, 2, 29), None, datetime.date(1, 1, 1)],
    pyarrow.date64(): [datetime.date(2024, 2, 29), None],
    pyarrow.timestamp("ms"): [INSTANT, None],
    pyarrow.timestamp("us", "Europe/Berlin"): [INSTANT.replace(tzinfo=datetime.timezone.utc), None],
    pyarrow.timestamp("ns"): [INSTANT, None],
    pyarrow.time64("us"): [datetime.time(5, 6, 7), None],
    pyarrow.decimal128(9, 2): [decimal.Decimal("1.25"), None],
    pyarrow.decimal128(30, 3): [decimal.Decimal("1234567890123456789012345.125"), None],
    pyarrow.string(): ["a", None, ""],
    pyarrow.large_string(): ["a", None, ""],
    pyarrow.binary(): [b"a", None, b""],
    pyarrow.binary(2): [b"ab", None],
    pyarrow.null(): [None, None],
}


def test_categories_are_columns_of_their_values(nodes, cursor):
    for number, (kind, values) in enumerate(CATEGORIES.items()):
        name = f"category{number}"
        category = of_values(values, kind)
        nodes.write(name, pyarrow.table({"k": range(len(values)), "x": category}), pyarrow.table({"k": [9], "x": pyarrow.array([None], kind)}))
        create(cursor, name)
        for kernel in on_each_kernel(cursor):
            for question in ["SELECT k, x FROM t", "SELECT x, count(*) FROM t GROUP BY x", "SELECT max(x) FROM t"]:
                assert ask(cursor, question.replace("FROM t", f"FROM {name}")) == nodes.duckdb(name, question), f"{question}, {kind} on {kernel}"


# Folders that make no table: what is wrong, the files, the column list, and what the user reads.
REFUSED = {
    "text beside numbers": ([column([1], pyarrow.int64()), column(["a"], pyarrow.string())], "", "column x is BIGINT in .*/0.parquet on node node-1 and VARCHAR in .*/1.parquet on node node-2.*column list.*x VARCHAR"),
    "truth beside numbers": ([column([1], pyarrow.int64()), column([True], pyarrow.bool_())], "", "BIGINT .* BOOLEAN .* no type holds the values of both"),
    "instants with a zone beside those without": ([column([INSTANT], pyarrow.timestamp("us", "UTC")), column([INSTANT], pyarrow.timestamp("us"))], "", "TIMESTAMP WITH TIME ZONE"),
    "bytes beside text": ([column([b"a"], pyarrow.binary()), column(["a"], pyarrow.string())], "", "VARBINARY in .* VARCHAR in"),
    "more digits than a decimal has": ([column([1], pyarrow.decimal256(76, 0)), column([1], pyarrow.decimal128(9, 2))], "", "DECIMAL.76, 0. .* DECIMAL.9, 2."),
    "case": ([pyarrow.table({"Id": [1]}), pyarrow.table({"id": [1]})], "", '"Id" in .*/0.parquet .* and "id" in .*/1.parquet .* differ in upper and lower case alone'),
    "one name twice": ([pyarrow.Table.from_arrays([pyarrow.array([1])] * 2, names=["a", "a"])], "", '0.parquet on node node-1 has two columns of the name "a"'),
    "no column": ([pyarrow.table({"a": [1]}).select([])], "", "0.parquet on node node-1 has no column"),
    "a list that no file knows": ([column([1], pyarrow.int64())], "(y BIGINT)", "no file at this location has a column y: they have k, x"),
    "a list with another spelling": ([column([1], pyarrow.int64())], '("X" BIGINT)', 'they have "x"'),
    "a list of another kind": ([column(["1"], pyarrow.string())], "(x BIGINT)", "column x is declared as BIGINT, and it is VARCHAR in"),
    "a list without NULLs": ([column([1], pyarrow.int64())], "(x BIGINT NOT NULL)", "declared NOT NULL, and .* may have rows without a value"),
    "a list with a default": ([column([1], pyarrow.int64())], "(x BIGINT DEFAULT 5)", "names and types alone"),
}


def test_what_makes_no_table_is_refused_by_name(nodes, cursor, connect):
    """All at once: each waits for the same look of the workers into their folders."""

    def refused(what):
        tables, columns, said = REFUSED[what]
        nodes.write(what, *tables)
        with connect() as connection, connection.cursor() as own, pytest.raises(Error, match=said):
            create(own, what, columns)

    with concurrent.futures.ThreadPoolExecutor(len(REFUSED)) as pool:
        list(pool.map(refused, REFUSED))


def test_files_that_are_not_parquet_are_refused_by_name(nodes, cursor):
    nodes.write("torn", column([1], pyarrow.int64()))
    for content in [b"", b"PAR1", b"garbage" * 100, nodes.path("torn", 0).read_bytes()[:-20]]:
        nodes.path("torn", 1).write_bytes(content)
        with pytest.raises(Error, match="file torn/1.parquet on node node-2 cannot be read as Parquet"):
            create(cursor, "torn")
    nodes.path("torn", 1).unlink()
    create(cursor, "torn")
    nodes.path("torn", 1).write_bytes(b"PAR1")
    with pytest.raises(Error, match="torn/1.parquet on node node-2"):
        cursor.execute("REFRESH TABLE torn")


def test_a_page_that_changed_on_disk_is_refused(nodes, cursor):
    """Spark and pyarrow store a checksum of each page, where they are asked to."""
    table = pyarrow.table({"k": range(100), "x": pyarrow.array([7_000_000_007] * 100, pyarrow.int64())})
    for name, kept in (("unsummed", False), ("summed", True)):
        nodes.write(name, table, write_page_checksum=kept, compression="none", use_dictionary=False)
        path = nodes.path(name, 0)
        content = bytearray(path.read_bytes())
        # One of the values in the page, not the bounds in the footer.
        content[content.index((7_000_000_007).to_bytes(8, "little") * 3) + 8] ^= 1
        path.write_bytes(content)
        create(cursor, name)
    for _ in on_each_kernel(cursor):
        # Nothing in the file tells.
        assert ask(cursor, "SELECT sum(x) FROM unsummed") == [(700_000_000_699,)]
        for question in ("SELECT sum(x) FROM summed", "SELECT * FROM summed", "SELECT max(x) FROM summed WHERE k < 50"):
            with pytest.raises(Error, match="a Parquet file could not be read: .*checksum"):
                ask(cursor, question)
        assert ask(cursor, "SELECT count(*), max(k) FROM summed") == [(100, 99)]


# Values without an equal in the table's type: the files, the column list, the file and what it says of the value.
LOST = {
    "a double of an integer": ([column([2**53 + 1], pyarrow.int64()), column([0.5], pyarrow.float64())], "", "0.parquet: the value 9007199254740993 .BIGINT. has no equal in DOUBLE"),
    "nanoseconds of a far year": ([column([datetime.datetime(9999, 12, 31)], pyarrow.timestamp("us")), column([INSTANT], pyarrow.timestamp("ns"))], "", "0.parquet: the value 9999-12-31"),
    "a narrower list": ([column([1], pyarrow.int32()), column([2**40], pyarrow.int64())], "(x INT)", "1.parquet: the value 1099511627776 .BIGINT. has no equal in INTEGER"),
    "a list of days": ([column([INSTANT], pyarrow.timestamp("us"))], "(x DATE)", "0.parquet: the value 2024-02-29T05:00:00"),
    "a list of fewer digits": ([column([decimal.Decimal("1.25")], pyarrow.decimal128(5, 2))], "(x DECIMAL(5, 1))", "the value 1.25 .DECIMAL.5, 2.. has no equal in DECIMAL.5, 1."),
}


@pytest.mark.parametrize("what", LOST)
def test_a_value_without_an_equal_is_named(nodes, cursor, what):
    tables, columns, said = LOST[what]
    nodes.write(what, *tables)
    create(cursor, what, columns)
    for _ in on_each_kernel(cursor):
        for question in [f'SELECT x FROM "{what}"', f'SELECT max(x) FROM "{what}"', f'SELECT x, count(*) FROM "{what}" GROUP BY x']:
            with pytest.raises(Error, match=f"column x of file {what}/.*{said}"):
                ask(cursor, question)
        assert ask(cursor, f'SELECT count(*) FROM "{what}"') == [(sum(map(len, tables)),)]


def test_instants_of_spark_are_read_over_all_years(nodes, cursor):
    instants = [datetime.datetime(1, 1, 1), datetime.datetime(1582, 10, 4), datetime.datetime(9999, 12, 31, 23, 59, 59, 999_999), None]
    nodes.write("spark", column(instants, pyarrow.timestamp("us")), use_deprecated_int96_timestamps=True)
    create(cursor, "spark")
    for _ in on_each_kernel(cursor):
        assert ask(cursor, "SELECT x FROM spark") == rows_of(pyarrow.table({"x": instants}))
        assert ask(cursor, "SELECT min(x), max(x), count(x) FROM spark") == [(str(instants[0]), str(instants[2]), 3)]
    # Nanoseconds are there where they are asked for.
    nodes.write("impala", column([1709168523000000123], pyarrow.timestamp("ns")), use_deprecated_int96_timestamps=True)
    create(cursor, "impala", "(x TIMESTAMP(9))")
    cursor.execute("SELECT x FROM impala")
    assert cursor.fetch_arrow_table().column(0).cast(pyarrow.int64()).to_pylist() == [1709168523000000123]
    create(cursor, "impala")
    with pytest.raises(Error, match="the value 2024-02-29 01:02:03.000000123 .INT96. has no equal in TIMESTAMP,"):
        ask(cursor, "SELECT x FROM impala")


def test_nans_of_every_sign_and_payload_are_one(nodes, cursor):
    bits = [0xFFF8_0000_0000_0000, 0x7FF8_0000_0000_0000, 0x7FF8_0000_0000_0001]
    nans = [struct.unpack("<d", struct.pack("<Q", bit))[0] for bit in bits]
    nodes.write("nans", column([*nans, 1.5, None], pyarrow.float64()))
    create(cursor, "nans")
    statements = [
        "SELECT count(*) FROM nans WHERE x > 1e300",
        "SELECT count(DISTINCT x), min(x) FROM nans",
        "SELECT count(*) FROM (SELECT x FROM nans GROUP BY x) g",
        "SELECT count(*) FROM nans a JOIN nans b ON a.x = b.x",
        "SELECT max(x) > 1e300 FROM nans",
    ]
    with duckdb.connect() as peer:
        # Over the file itself DuckDB prunes by bounds that leave NaN out.
        peer.execute(f"CREATE TABLE nans AS SELECT * FROM '{nodes.path('nans', 0)}'")
        expected = [peer.execute(sql).fetchall() for sql in statements]
    for _ in on_each_kernel(cursor):
        assert [ask(cursor, sql) for sql in statements] == expected


def test_months_of_intervals_and_uuids_are_kept(nodes, cursor):
    rows = "SELECT 1 AS k, INTERVAL '14 months 3 days 2 seconds' AS i, UUID 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11' AS u, 'b'::ENUM('a', 'b') AS e"
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({rows}) TO '{nodes.path('months', 0)}' (FORMAT parquet)")
    create(cursor, "months")
    cursor.execute("SELECT i, u, e FROM months")
    table = cursor.fetch_arrow_table()
    assert table.schema.types == [pyarrow.month_day_nano_interval(), pyarrow.string(), pyarrow.string()]
    assert table.to_pylist() == [{"i": pyarrow.MonthDayNano([14, 3, 2_000_000_000]), "u": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "e": "b"}]
    assert ask(cursor, "SELECT k FROM months WHERE u = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'") == [(1,)]


def test_min_beside_max_over_row_groups_of_nulls(nodes, cursor):
    values = [None, None, 40, 228, 17, 93, 4, 180, 61, None]
    nodes.write("nulls", column(values, pyarrow.int64()), row_group_size=1)
    create(cursor, "nulls")
    for _ in on_each_kernel(cursor):
        for _ in range(20):
            assert ask(cursor, "SELECT min(x), max(x) FROM nulls") == [(4, 228)]


def test_tables_of_other_types_over_one_file_do_not_share_chunks(nodes, cursor):
    nodes.write("shared", pyarrow.table({"t": pyarrow.array([1, 2], pyarrow.timestamp("us")), "n": pyarrow.array([1, 2], pyarrow.int32())}))
    create(cursor, "shared")
    cursor.execute("CREATE OR REPLACE EXTERNAL TABLE other (n DECIMAL(12, 2), t TIMESTAMP(9)) STORED AS PARQUET LOCATION 'node://*/data/shared/'")
    for _ in on_each_kernel(cursor):
        assert ask(cursor, "SELECT max(t), sum(n) FROM shared") == [("1970-01-01 00:00:00.000002", 3)]
        assert ask(cursor, "SELECT max(t), sum(n) FROM other") == [("1970-01-01 00:00:00.000002", 3)]


def test_refresh_widens_or_refuses_as_create_does(nodes, cursor):
    nodes.write("grows", column([1], pyarrow.int32()))
    create(cursor, "grows")
    nodes.write("grows", pyarrow.table({"new": ["n"], "x": [2**40], "k": [5]}), first=1)
    cursor.execute("REFRESH TABLE grows")
    assert ask(cursor, "SELECT k, x, new FROM grows") == nodes.duckdb("grows", "SELECT k, x, new FROM t")
    nodes.write("grows", column(["text"], pyarrow.string()), first=2)
    with pytest.raises(Error, match="x is BIGINT in grows/1.parquet .* and VARCHAR in grows/2.parquet"):
        cursor.execute("REFRESH TABLE grows")
    assert ask(cursor, "SELECT count(*) FROM grows") == [(2,)]
    create(cursor, "grows", "(x VARCHAR)")
    cursor.execute("REFRESH TABLE grows")
    assert ask(cursor, "SELECT x FROM grows") == [("1",), ("1099511627776",), ("text",)]
    assert "(x VARCHAR)" in ask(cursor, "SHOW CREATE TABLE grows")[0][2]


def test_a_file_is_seen_as_soon_as_it_is_written(nodes, cursor):
    for number in range(5):
        nodes.write("soon", column([number], pyarrow.int64()), first=number)
        create(cursor, "soon")
        assert ask(cursor, "SELECT count(*) FROM soon") == [(number + 1,)]


NAMES = ["", "a.b", "größe", "数据", "x" * 3000, "two words", 'quote"', "quote'", "a,b", "select", "UPPER", "$1", "\t", "a_min"]


def test_columns_of_any_name(nodes, cursor):
    nodes.write("names", pyarrow.table({name: [number, None] for number, name in enumerate(NAMES)}), pyarrow.table({name: [-1] for name in reversed(NAMES)}))
    create(cursor, "names")
    for _ in on_each_kernel(cursor):
        for number, name in enumerate(NAMES):
            quoted = '"' + name.replace('"', '""') + '"'
            assert ask(cursor, f"SELECT {quoted} FROM names WHERE {quoted} >= 0") == [(number,)]
            assert ask(cursor, f"SELECT sum({quoted}), count({quoted}), count(*) FROM names") == [(number - 1, 2, 3)]
