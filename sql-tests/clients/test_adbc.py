"""What Python's Flight SQL driver does with a server: metadata, prepared statements, settings, views, codes."""

import datetime
import decimal
import pathlib
import warnings

import adbc_driver_flightsql.dbapi as flight_sql
import adbc_driver_manager
import answers
import cluster
import pyarrow
import pytest
from answers import TPCH_TABLES

QUERIES = cluster.REPOSITORY / "datasets" / "queries" / "tpch"


@pytest.fixture
def connection(tpch_cluster):
    with tpch_cluster.connect() as opened:
        yield opened


def rows(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def objects(connection, **arguments):
    return connection.adbc_get_objects(**arguments).read_all().to_pylist()


def schemas_of(catalogs):
    return {schema["db_schema_name"]: schema for catalog in catalogs for schema in catalog["catalog_db_schemas"] or []}


def tables_of(catalogs):
    return {table["table_name"]: table for schema in schemas_of(catalogs).values() for table in schema["db_schema_tables"] or []}


def test_connecting_with_autocommit_warns_of_nothing(tpch_cluster):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with flight_sql.connect(tpch_cluster.uri, autocommit=True) as connection:
            assert rows(connection, "SELECT 1") == [(1,)]


def test_objects_at_every_depth(connection):
    catalogs = objects(connection, depth="catalogs")
    assert [catalog["catalog_name"] for catalog in catalogs] == ["bowshot"]
    assert not catalogs[0]["catalog_db_schemas"]
    assert {"tpch", "system"} <= set(schemas_of(objects(connection, depth="db_schemas")))
    tables = tables_of(objects(connection, depth="tables", db_schema_filter="tpch"))
    assert set(tables) == set(TPCH_TABLES)
    assert {table["table_type"] for table in tables.values()} == {"TABLE"}
    columns = tables_of(objects(connection, depth="all", db_schema_filter="tpch", table_name_filter="nation"))
    assert [column["column_name"] for column in columns["nation"]["table_columns"]] == ["n_nationkey", "n_name", "n_regionkey", "n_comment"]
    assert [column["ordinal_position"] for column in columns["nation"]["table_columns"]] == [1, 2, 3, 4]


def test_objects_by_pattern_and_type(connection):
    found = tables_of(objects(connection, depth="tables", table_name_filter="part%"))
    assert {"part", "partsupp"} <= set(found)
    assert "lineitem" not in found
    assert tables_of(objects(connection, depth="tables", table_name_filter="nothing_like_it")) == {}
    assert "nation" not in tables_of(objects(connection, depth="tables", table_types_filter=["VIEW"]))
    assert "TABLE" in connection.adbc_get_table_types()


def test_table_schema(connection):
    schema = connection.adbc_get_table_schema("lineitem", db_schema_filter="tpch")
    assert schema.field("l_quantity").type == pyarrow.decimal128(15, 2)
    assert schema.field("l_shipdate").type == pyarrow.date32()
    assert schema.field("l_comment").type == pyarrow.string()
    assert len(schema) == 16
    with pytest.raises(adbc_driver_manager.Error):
        connection.adbc_get_table_schema("no_such_table", db_schema_filter="tpch")


def test_server_info(connection):
    info = connection.adbc_get_info()
    assert info["vendor_name"].lower() == "bowshot"
    assert info["vendor_version"]


def test_schema_of_a_query_equals_that_of_its_stream(connection):
    sql = "SELECT l_returnflag, sum(l_quantity) AS quantity, avg(l_discount) AS discount, count(*) AS n, min(l_shipdate) AS first FROM lineitem GROUP BY l_returnflag"
    with connection.cursor() as cursor:
        announced = cursor.adbc_execute_schema(sql)
        cursor.execute(sql)
        table = cursor.fetch_arrow_table()
    assert table.schema.equals(announced)
    assert not [field for field in table.schema if "view" in str(field.type)]
    assert table.num_rows == 3


def test_question_marks(connection):
    sql = "SELECT n_name FROM nation WHERE n_regionkey = ? AND n_name > ? ORDER BY n_name"
    assert rows(connection, sql, (3, "G")) == [("GERMANY",), ("ROMANIA",), ("RUSSIA",), ("UNITED KINGDOM",)]
    assert rows(connection, sql.replace("?", "$1", 1).replace("?", "$2", 1), (3, "R")) == [("ROMANIA",), ("RUSSIA",), ("UNITED KINGDOM",)]
    assert rows(connection, "SELECT '?' AS mark, ? AS value -- and ? here", ("bound",)) == [("?", "bound")]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("o_orderkey", 1),
        ("o_totalprice", decimal.Decimal("100000.00")),
        ("o_orderdate", datetime.date(1995, 6, 17)),
        ("o_orderstatus", "F"),
        ("o_shippriority", 0),
    ],
)
def test_values_of_every_type(connection, duckdb_tpch, column, value):
    sql = f"SELECT count(*) FROM orders WHERE {column} <= ?"
    assert rows(connection, sql, (value,)) == duckdb_tpch.execute(sql, (value,)).fetchall()


def test_nulls(connection):
    assert rows(connection, "SELECT count(*) FROM nation WHERE n_nationkey = ?", (None,)) == [(0,)]
    assert rows(connection, "SELECT count(*) FROM nation WHERE CAST(? AS BIGINT) IS NULL", (None,)) == [(25,)]
    assert rows(connection, "SELECT coalesce(CAST(? AS VARCHAR), 'nothing') AS value", (None,)) == [("nothing",)]


def test_a_prepared_statement_runs_again_with_other_values(connection):
    with connection.cursor() as cursor:
        sql = "SELECT count(*) FROM nation WHERE n_regionkey = ?"
        cursor.adbc_prepare(sql)
        for region in range(5):
            cursor.execute(sql, (region,))
            assert cursor.fetchall() == [(5,)]


def test_parameters_are_announced_in_order(connection):
    with connection.cursor() as cursor:
        schema = cursor.adbc_prepare("SELECT * FROM nation WHERE n_nationkey > ? AND n_name < ? AND n_regionkey IN (?, ?)")
    assert len(schema) == 4
    assert [field.type for field in schema][1] == pyarrow.string()
    assert all(field.nullable for field in schema)


def test_bounds_of_a_result_are_numbers_of_rows(connection):
    sql = "SELECT n_nationkey FROM nation ORDER BY n_nationkey LIMIT ? OFFSET ?"
    with connection.cursor() as cursor:
        assert [field.type for field in cursor.adbc_prepare(sql)] == [pyarrow.int64(), pyarrow.int64()]
    assert rows(connection, sql, (2, 3)) == [(3,), (4,)]


def test_rows_of_parameters_each_run_the_query(connection):
    with connection.cursor() as cursor:
        cursor.execute("SELECT n_name FROM nation WHERE n_nationkey = ?", pyarrow.record_batch({"key": [0, 2, 4]}))
        assert sorted(cursor.fetchall()) == [("ALGERIA",), ("BRAZIL",), ("EGYPT",)]


def test_a_missing_parameter_is_the_users_error(connection):
    with pytest.raises(adbc_driver_manager.Error) as caught:
        rows(connection, "SELECT n_name FROM nation WHERE n_nationkey = ?")
    assert "INTERNAL" not in str(caught.value)


def test_settings_belong_to_a_session(tpch_cluster, connection):
    kernel = "SELECT value FROM system.settings WHERE name = 'bowshot.kernel'"
    rows(connection, "SET bowshot.kernel = 'off'")
    assert rows(connection, kernel) == [("off",)]
    assert tpch_cluster.rows(kernel) == [("auto",)]


def test_views_belong_to_a_session_and_serve_query_15(tpch_cluster, connection, duckdb_tpch):
    statements = [part.strip() for part in pathlib.Path(QUERIES / "q15_view.sql").read_text().split(";") if part.strip()]
    create, query, drop = [part for part in statements if "select" in part.lower() or "drop" in part.lower()]
    rows(connection, create)
    expected = duckdb_tpch.execute(pathlib.Path(QUERIES / "q15.sql").read_text()).fetchall()
    assert answers.difference(rows(connection, query), expected) is None
    with pytest.raises(adbc_driver_manager.Error, match="NOT_FOUND"):
        tpch_cluster.rows(query)
    rows(connection, drop)
    with pytest.raises(adbc_driver_manager.Error, match="NOT_FOUND"):
        rows(connection, query)


def test_a_statement_without_rows_runs_once(connection):
    rows(connection, "CREATE VIEW once AS SELECT 1 AS one")
    with pytest.raises(adbc_driver_manager.Error, match="exists"):
        rows(connection, "CREATE VIEW once AS SELECT 2 AS two")
    assert rows(connection, "SELECT * FROM once") == [(1,)]


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT * FROM nothing", adbc_driver_manager.ProgrammingError),
        ("SELECT 1 / 0", adbc_driver_manager.ProgrammingError),
        ("SELEC", adbc_driver_manager.ProgrammingError),
    ],
)
def test_errors_have_the_kind_that_python_expects(connection, sql, kind):
    with pytest.raises(kind):
        rows(connection, sql)


def test_a_result_left_unread_does_not_disturb_the_next(connection):
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM lineitem")
        assert cursor.fetchone() is not None
    assert rows(connection, "SELECT count(*) FROM region") == [(5,)]


def test_cancel(tpch_cluster, connection):
    with connection.cursor() as cursor:
        cursor.execute("SELECT a.l_comment FROM lineitem a JOIN lineitem b ON a.l_linenumber = b.l_linenumber")
        assert cursor.fetchone() is not None
        cursor.adbc_cancel()
    states = "SELECT state FROM system.queries WHERE sql LIKE 'SELECT a.l_comment%'"
    cluster.wait_until("the query is cancelled", 10, lambda: tpch_cluster.rows(states) == [("cancelled",)])


def test_results_in_other_forms(connection):
    with connection.cursor() as cursor:
        cursor.execute("SELECT n_nationkey, n_name FROM nation ORDER BY n_nationkey")
        frame = cursor.fetch_df()
    assert list(frame.columns) == ["n_nationkey", "n_name"]
    assert frame.shape == (25, 2)
    assert rows(connection, "SELECT n_name FROM nation WHERE 1 = 0") == []
