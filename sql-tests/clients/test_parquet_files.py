"""Parquet files of several writers in one folder: read by name, to the type that holds all values, or refused by name.

What is right is what DuckDB's read_parquet(…, union_by_name=true) reads. BOWSHOT_PARQUET_FILES=300 is the long form.
"""

import datetime
import decimal
import os
import shutil
import uuid

import adbc_driver_flightsql.dbapi
import duckdb
import hunter
import parquet_files
import pyarrow
import pyarrow.parquet
import pytest

FILES = int(os.environ.get("BOWSHOT_PARQUET_FILES", "60"))
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

    def write(self, name, *tables, node=None, **settings):
        """Tables as files of a folder, one on each node in turn."""
        for number, table in enumerate(tables):
            path = self.folder / f"node-{node or number % 3 + 1}" / name / f"{number if node is None else node}.parquet"
            path.parent.mkdir(exist_ok=True)
            pyarrow.parquet.write_table(table, path, **settings)

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
def cursor(nodes):
    with hunter.three_nodes(nodes.folder) as running:
        with adbc_driver_flightsql.dbapi.connect(running.uri, autocommit=True) as connection, connection.cursor() as cursor:
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
    return str(value) if isinstance(value, uuid.UUID) else value


def rows_of(table):
    return sorted((plain(row) for row in zip(*(column.to_pylist() for column in table.columns))), key=repr)


def ask(cursor, sql):
    cursor.execute(sql)
    return rows_of(cursor.fetch_arrow_table())


def create(cursor, name, columns=""):
    cursor.execute(f"CREATE OR REPLACE EXTERNAL TABLE \"{name}\" {columns} STORED AS PARQUET LOCATION 'node://*/data/{name}/'")


def literal(value):
    if isinstance(value, str) and len(value) > 18 and value[4] == "-" and value[13] == ":":
        return f"TIMESTAMP '{value}'" if not value.endswith("Z") else f"TIMESTAMP WITH TIME ZONE '{value}'"
    if isinstance(value, datetime.date):
        return f"DATE '{value}'"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
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
        if values:
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
        for kernel in KERNELS:
            cursor.execute(f"SET bowshot.kernel = '{kernel}'")
            assert ask(cursor, question.replace("FROM t", f'FROM "{seed}"')) == right, f"{question} on {kernel}\n{said}"


def test_files_of_the_cluster_are_files_of_anybody(nodes, cursor):
    cursor.adbc_ingest("own", pyarrow.table({"a": [1, 2, None], "s": ["x", None, "y"]}), "create")
    cursor.execute("INSERT INTO own SELECT a + 10, s FROM own")
    found = sorted(nodes.folder.glob("node-*/.bowshot/tables/*/*.parquet"))
    assert len(found) >= 2
    for number, path in enumerate(found):
        target = nodes.folder / "node-1" / "copied" / f"{number}.parquet"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    nodes.write("copied", pyarrow.table({"s": pyarrow.array(["z"]).dictionary_encode(), "a": pyarrow.array([5], pyarrow.int8())}), node=2)
    create(cursor, "copied")
    for kernel in KERNELS:
        cursor.execute(f"SET bowshot.kernel = '{kernel}'")
        assert ask(cursor, "SELECT a, s FROM copied") == nodes.duckdb("copied", "SELECT a, s FROM t")
        assert ask(cursor, "SELECT s, sum(a) FROM copied GROUP BY s") == nodes.duckdb("copied", "SELECT s, sum(a) FROM t GROUP BY s")
