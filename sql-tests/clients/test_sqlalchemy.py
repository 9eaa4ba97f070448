"""SQLAlchemy over Flight SQL, as Superset uses it: reflection, and the statements that it sends when a dataset is added
and a chart is drawn.

The dialect is that of the package flightsql-dbapi, which Superset's users install: `datafusion` to who has imported nothing of it, and
`datafusion+flightsql` besides to who has. It and Superset want SQLAlchemy 1.4. Superset writes every value into the text, and runs the text with a cursor of the driver: so do these tests.
"""

import contextlib
import datetime
import re
import subprocess
import sys
import warnings

import answers
import cluster
import flightsql.sqlalchemy  # noqa: F401  (registers the dialect)
import pytest
import sqlalchemy as sa
from answers import TPCH_TABLES
from bowshot.time_grains import TIME_GRAINS

TOKEN = "token-of-the-user-ana"


def engine_of(uri, *features, token=None):
    """An engine; `features` of the dialect are off unless they are named."""
    options = "".join(f"&feature-sqlalchemy-{feature}=on" for feature in features) + (f"&token={token}" if token else "")
    with warnings.catch_warnings():
        # The dialect was written before SQLAlchemy 2.
        warnings.simplefilter("ignore", sa.exc.SADeprecationWarning)
        return sa.create_engine(f"datafusion+flightsql://{uri.removeprefix('grpc://')}?insecure=true{options}")


@pytest.fixture(scope="module")
def engine(tpch_cluster):
    return engine_of(tpch_cluster.uri)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A cluster that writes, with a table that has a key, a comment and every type, and users."""
    folder = tmp_path_factory.mktemp("sqlalchemy")
    settings = f'[auth]\nmode = "password"\ntokens = {{ ana = "{TOKEN}" }}\n'
    with cluster.Cluster(folder / "cluster", [cluster.Node("node-1", {"data": folder / "node-1"})], settings, token=TOKEN) as started:
        columns = """a BOOLEAN, b SMALLINT, c INT NOT NULL, d BIGINT NOT NULL, e REAL, f DOUBLE, g DECIMAL(12, 2), h VARCHAR, i BYTEA,
        j DATE, k TIME, l TIMESTAMP, m BIGINT UNSIGNED"""
        started.rows(f"CREATE TABLE typed ({columns}, PRIMARY KEY (d, c))")
        started.rows("""INSERT INTO typed VALUES (true, 1, 2, 3, 1.5, 2.5, 3.25, 'é', X'00ff', DATE '2024-02-29', TIME '01:02:03',
            TIMESTAMP '2024-02-29 01:02:03', 18446744073709551615)""")
        yield started


def of_driver(engine, sql):
    """(columns, rows) of a text, as Superset fetches them."""
    with contextlib.closing(engine.raw_connection()) as connection, contextlib.closing(connection.cursor()) as cursor:
        cursor.execute(sql)
        return [column[0] for column in cursor.description], [tuple(row) for row in cursor.fetchall()]


def compiled(engine, statement):
    return str(statement.compile(engine, compile_kwargs={"literal_binds": True}))


# Reflection.


def test_an_engine_answers_a_ping(engine):
    with engine.connect() as connection:
        assert connection.execute(sa.select(sa.literal_column("1"))).scalar() == 1
        assert engine.dialect.identifier_preparer.initial_quote == '"'


def test_an_address_is_enough_to_find_the_dialect(tpch_cluster):
    # As Superset does, which imports no dialect by itself.
    program = "import sys, sqlalchemy; print(sqlalchemy.create_engine(sys.argv[1]).execute('SELECT count(*) FROM tpch.region').scalar())"
    address = f"datafusion://{tpch_cluster.uri.removeprefix('grpc://')}?insecure=true"
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", program, address], capture_output=True, text=True, timeout=60)
    assert ended.stdout.strip() == "5", ended.stderr


MOMENTS = "generate_series(TIMESTAMP '2023-12-20 00:00:00', TIMESTAMP '2024-03-10 00:00:00', INTERVAL '433 seconds') AS moments(moment)"


@pytest.mark.parametrize(("column", "ours", "theirs"), [("o_orderdate", "tpch.orders", "orders"), ("moment", MOMENTS, MOMENTS)])
def test_superset_s_time_grains_cut_as_duckdb_does(engine, duckdb_tpch, column, ours, theirs):
    for grain, sql in TIME_GRAINS.items():
        width = re.search("date_bin[(](INTERVAL '[^']+')", sql)
        same = f"time_bucket({width[1]}, CAST({{col}} AS TIMESTAMP))" if width else sql
        statement = "SELECT {} AS cut, count(*) AS n FROM {} GROUP BY 1 ORDER BY 1 LIMIT 2000"
        _, found = of_driver(engine, statement.format(sql.format(col=column), ours))
        expected = duckdb_tpch.execute(statement.format(same.format(col=column), theirs)).fetchall()
        assert [(day(cut), n) for cut, n in found] == [(day(cut), n) for cut, n in expected], grain


def day(moment):
    """A date as the timestamp at its beginning."""
    if isinstance(moment, datetime.datetime):
        return moment.replace(tzinfo=None)
    return datetime.datetime.combine(moment, datetime.time())


def test_schemas_tables_and_views_are_listed(engine):
    inspector = sa.inspect(engine)
    assert {"tpch", "public", "system", "information_schema"} <= set(inspector.get_schema_names())
    assert set(inspector.get_table_names(schema="tpch")) == set(TPCH_TABLES)
    assert {"nodes", "queries", "files"} <= set(inspector.get_table_names(schema="system"))
    assert inspector.has_table("orders", schema="tpch") and not inspector.has_table("order", schema="tpch")
    # The dialect knows of no views; it lists them among the tables.
    assert inspector.get_view_names(schema="tpch") == []


def test_columns_have_types_and_say_what_may_be_null(running):
    inspector = sa.inspect(engine_of(running.uri, token=TOKEN))
    found = {column["name"]: (column["type"], column["nullable"]) for column in inspector.get_columns("typed", schema="public")}
    kinds = {name: (kind if isinstance(kind, type) else type(kind)).__name__ for name, (kind, _nullable) in found.items()}
    assert kinds == {
        "a": "BOOLEAN",
        "b": "INTEGER",
        "c": "INTEGER",
        "d": "BIGINT",
        "e": "FLOAT",
        "f": "FLOAT",
        "g": "DECIMAL",
        "h": "TEXT",
        "i": "BINARY",
        "j": "DATE",
        "k": "TIME",
        "l": "TIMESTAMP",
        "m": "BIGINT",
    }
    assert [name for name, (_kind, nullable) in found.items() if not nullable] == ["c", "d"]


def test_keys(running):
    inspector = sa.inspect(engine_of(running.uri, "primary-keys", token=TOKEN))
    assert inspector.get_pk_constraint("typed", schema="public") == {"constrained_columns": ["d", "c"], "name": "typed_pkey"}
    assert inspector.get_foreign_keys("typed", schema="public") == inspector.get_indexes("typed", schema="public") == []


def test_tables_are_reflected_and_queried(running, engine, duckdb_tpch):
    typed = sa.Table("typed", sa.MetaData(), autoload_with=engine_of(running.uri, "primary-keys", token=TOKEN), schema="public")
    assert [column.name for column in typed.primary_key] == ["d", "c"]
    metadata = sa.MetaData(schema="tpch")
    metadata.reflect(bind=engine)
    assert {table.name for table in metadata.tables.values()} == set(TPCH_TABLES)
    orders, customer = metadata.tables["tpch.orders"], metadata.tables["tpch.customer"]
    statement = (
        sa.select(customer.c.c_mktsegment, sa.func.count().label("n"), sa.func.max(orders.c.o_orderdate).label("last"))
        .select_from(orders.join(customer, orders.c.o_custkey == customer.c.c_custkey))
        .where(
            orders.c.o_orderdate >= sa.literal_column("DATE '1995-01-01'"),
            orders.c.o_orderpriority.in_(["1-URGENT", "2-HIGH"]),
            customer.c.c_name.like("%0%"),
        )
        .group_by(customer.c.c_mktsegment)
        .having(sa.func.count() > 10)
        .order_by(sa.desc("n"), customer.c.c_mktsegment)
        .limit(4)
    )
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.execute(statement)]
    expected = duckdb_tpch.execute("""SELECT c_mktsegment, count(*), max(o_orderdate) FROM orders JOIN customer ON o_custkey = c_custkey
        WHERE o_orderdate >= DATE '1995-01-01' AND o_orderpriority IN ('1-URGENT', '2-HIGH') AND c_name LIKE '%0%'
        GROUP BY 1 HAVING count(*) > 10 ORDER BY 2 DESC, 1 LIMIT 4""").fetchall()
    assert len(found) == 4 and answers.difference(found, expected) is None


def test_a_token_is_asked_for_and_rows_come_in_types_of_python(running):
    with pytest.raises(Exception, match="(?i)unauthenticated|log in|token|password"), engine_of(running.uri).connect():
        pass
    columns, rows = of_driver(engine_of(running.uri, token=TOKEN), "SELECT * FROM public.typed")
    assert columns == list("abcdefghijklm")
    [(a, b, c, d, e, f, g, h, i, j, k, l, m)] = rows  # noqa: E741
    assert (a, b, c, d, e, f, str(g), h, i, m) == (True, 1, 2, 3, 1.5, 2.5, "3.25", "é", b"\x00\xff", 2**64 - 1)
    assert (str(j)[:10], k, str(l)) == ("2024-02-29", datetime.time(1, 2, 3), "2024-02-29 01:02:03")


# What Superset sends.

DATASET = (
    "SELECT o_orderkey, o_custkey, o_orderstatus, o_totalprice, o_orderdate, o_orderpriority FROM tpch.orders WHERE o_totalprice > 1000"
)
ORDERS = sa.table(
    "orders", *map(sa.column, ("o_orderdate", "o_orderpriority", "o_totalprice", "o_orderstatus", "o_custkey")), schema="tpch"
)
MONTH = sa.literal_column("DATE_TRUNC('month', o_orderdate)")


def virtual(sql=DATASET):
    """A virtual dataset: the text of its author as a table."""
    return sa.text(sql).columns().alias("virtual_table")


def chart(source, *columns, limit=50_000):
    count = sa.literal_column("COUNT(*)")
    return sa.select(*columns, count.label("count")).select_from(source).group_by(*columns).order_by(sa.desc(count)).limit(limit)


IN_TIME = (
    sa.literal_column("o_orderdate") >= sa.literal_column("TO_TIMESTAMP('1995-01-01 00:00:00.000000')"),
    sa.literal_column("o_orderdate") < sa.literal_column("TO_TIMESTAMP('1996-01-01 00:00:00.000000')"),
)


def limited_series():
    """A line for each of the three greatest groups: a join with the query that finds them."""
    inner = chart(virtual(), sa.literal_column("o_orderpriority").label("o_orderpriority__"), limit=3)
    inner = inner.with_only_columns(
        sa.literal_column("o_orderpriority").label("o_orderpriority__"), sa.literal_column("COUNT(*)").label("mme_inner__")
    )
    inner = inner.alias("series_limit")
    joined = virtual().join(inner, sa.literal_column("o_orderpriority") == inner.c.o_orderpriority__)
    return chart(joined, MONTH.label("__timestamp"), sa.literal_column("o_orderpriority"))


STATEMENTS = {
    "columns of a virtual dataset": sa.select(sa.text("*")).select_from(virtual()).limit(1),
    "first rows of a table": sa.select(sa.text("*")).select_from(sa.table("nation", schema="tpch")).limit(100),
    "samples": sa.select(sa.text("*")).select_from(virtual()).order_by(sa.literal_column("o_orderkey")).limit(1000).offset(100),
    "number of rows": sa.select(sa.literal_column("COUNT(*)").label("rowcount")).select_from(virtual()),
    "a big number": sa.select(sa.literal_column("COUNT(*)").label("count")).select_from(ORDERS),
    "a time series": chart(virtual(), MONTH.label("__timestamp")).where(*IN_TIME),
    "a time series by week": chart(ORDERS, sa.literal_column("DATE_TRUNC('week', o_orderdate)").label("__timestamp")).where(*IN_TIME),
    "a pie": chart(ORDERS, ORDERS.c.o_orderstatus),
    "a pivot table": sa.select(
        ORDERS.c.o_orderstatus, ORDERS.c.o_orderpriority, sa.literal_column("SUM(o_totalprice)").label("SUM(o_totalprice)")
    )
    .group_by(ORDERS.c.o_orderstatus, ORDERS.c.o_orderpriority)
    .order_by(sa.desc("SUM(o_totalprice)"))
    .limit(10_000),
    "a limited series": limited_series(),
    "metrics": sa.select(
        sa.literal_column("AVG(o_totalprice)").label("AVG(o_totalprice)"),
        sa.literal_column("COUNT(DISTINCT o_custkey)").label("COUNT_DISTINCT(o_custkey)"),
        sa.literal_column("SUM(CASE WHEN o_orderstatus = 'F' THEN o_totalprice END)").label("custom"),
    )
    .select_from(virtual())
    .where(sa.column("o_orderstatus").in_(["F", "O"]), sa.column("o_orderpriority").ilike("%high%")),
    "values of a filter": sa.select(ORDERS.c.o_orderpriority).distinct().order_by(ORDERS.c.o_orderpriority).limit(1000),
    "the range of a time filter": sa.select(sa.func.min(ORDERS.c.o_orderdate).label("min"), sa.func.max(ORDERS.c.o_orderdate).label("max")),
    "having": chart(ORDERS, ORDERS.c.o_custkey, limit=5)
    .having(sa.literal_column("SUM(o_totalprice)") > 1_000_000)
    .order_by(ORDERS.c.o_custkey),
    "the latest partition": sa.select(sa.text("*"))
    .select_from(ORDERS)
    .where(ORDERS.c.o_orderdate == sa.select(sa.func.max(ORDERS.c.o_orderdate)).scalar_subquery())
    .limit(100),
    "a common table expression": sa.select(sa.func.count().label("n")).select_from(virtual(f"WITH big AS ({DATASET}) SELECT * FROM big")),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_what_superset_sends_is_answered_as_duckdb_does(engine, duckdb_tpch, name):
    sql = compiled(engine, STATEMENTS[name])
    columns, found = of_driver(engine, sql)
    # DuckDB has the tables in no schema, and another name for a function; its rows for what ORDER BY and LIMIT leave open.
    theirs = sql.replace("tpch.", "").replace("TO_TIMESTAMP(", "CAST(").replace(".000000')", ".000000' AS TIMESTAMP)")
    result = duckdb_tpch.execute(theirs)
    names, expected = [column[0] for column in result.description], result.fetchall()
    assert columns == names and found
    if name in ("columns of a virtual dataset", "having", "the latest partition"):
        assert len(found) == len(expected)
    else:
        assert answers.difference(found, expected) is None


@pytest.mark.parametrize(
    ("sql", "column", "least"),
    [
        ("SHOW TABLES", "table_name", 8),
        ("SHOW COLUMNS FROM tpch.orders", "column_name", 9),
        ("SHOW CREATE TABLE tpch.orders", "table_name", 1),
        ("SHOW ALL", "name", 50),
        ("DESCRIBE tpch.orders", "column_name", 9),
        ("EXPLAIN SELECT count(*) FROM tpch.orders", "plan", 2),
        ("SELECT version()", "version()", 1),
        ("SELECT table_name FROM information_schema.tables WHERE table_schema = 'tpch'", "table_name", 8),
        (
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'tpch' AND table_name = 'orders'",
            "column_name",
            9,
        ),
        ("SELECT schema_name FROM information_schema.schemata", "schema_name", 3),
    ],
)
def test_what_people_type_into_sql_lab_is_answered(engine, sql, column, least):
    columns, rows = of_driver(engine, sql)
    assert column in columns and len(rows) >= least


def test_errors_have_the_servers_text(engine):
    for sql, said in [
        ("SELECT nothing FROM tpch.orders", "No field named nothing"),
        ("SELECT * FROM tpch.order", "there is no table|not found"),
    ]:
        with pytest.raises(Exception, match=said):
            of_driver(engine, sql)


# Parameters: what people who write SQLAlchemy themselves send.


def test_values_of_expressions_and_of_bound_parameters(tpch_cluster, engine):
    nation = sa.Table("nation", sa.MetaData(), autoload_with=engine, schema="tpch")
    by_value = sa.select(nation.c.n_name).where(nation.c.n_nationkey.in_([3, 18])).order_by(nation.c.n_name)
    by_name = sa.text("SELECT n_name FROM nation WHERE n_nationkey = :key OR n_name = :name ORDER BY n_name")
    with engine.connect() as connection:
        assert connection.execute(by_value).scalars().all() == ["CANADA", "CHINA"]
    with engine_of(tpch_cluster.uri, "prepared-statements").connect() as connection:
        assert connection.execute(by_name, {"key": 3, "name": "CHINA"}).scalars().all() == ["CANADA", "CHINA"]
        assert connection.execute(by_value).scalars().all() == ["CANADA", "CHINA"]


@pytest.mark.parametrize("sql", ["SELECT n_name FROM nation ORDER BY n_nationkey LIMIT :n", "SELECT :n AS given", "SELECT :n + 1 AS next"])
def test_bound_parameters_anywhere(tpch_cluster, sql):
    with engine_of(tpch_cluster.uri, "prepared-statements").connect() as connection:
        assert len(connection.execute(sa.text(sql), {"n": 1}).fetchall()) == 1
