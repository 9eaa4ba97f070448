"""Files and folders with names that people give them."""

import adbc_driver_flightsql.dbapi
import hunter
import pyarrow
import pyarrow.parquet
import pytest

NAMES = ["a%20b", "50%", "x#1", "why?", "list[1]", "größe", "数据", "two words", "a=b", "{t}", "~old", "quote'"]


@pytest.fixture(scope="module")
def cursor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    for number, name in enumerate(NAMES):
        target = folder / f"node-{number % 3 + 1}" / "odd" / name
        target.mkdir(parents=True)
        pyarrow.parquet.write_table(pyarrow.table({"n": [number], "name": [name]}), target / f"{name}.parquet")
    with hunter.three_nodes(folder) as running:
        with adbc_driver_flightsql.dbapi.connect(running.uri, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE EXTERNAL TABLE odd STORED AS PARQUET LOCATION 'node://*/data/odd/'")
            yield cursor


@pytest.mark.parametrize("kernel", ["host", "off"])
def test_every_name_is_read(cursor, kernel):
    cursor.execute(f"SET bowshot.kernel = '{kernel}'")
    cursor.execute("SELECT name FROM odd ORDER BY n")
    assert [name for (name,) in cursor.fetchall()] == NAMES
    cursor.execute("SELECT count(*), sum(n) FROM odd")
    assert cursor.fetchall() == [(len(NAMES), sum(range(len(NAMES))))]
