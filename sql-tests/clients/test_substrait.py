"""Substrait plans, made by DataFusion's own Python package and sent by ADBC: answers as those of SQL, and what is refused."""

import adbc_driver_manager
import answers
import cluster
import datafusion
import datafusion.substrait
import flight_messages
import pyarrow
import pyarrow.flight
import pytest

QUERIES = cluster.REPOSITORY / "datasets" / "queries" / "tpch"
# The producer or the consumer lacks a word for a part of the others; which, is told by `test_what_has_no_words_is_refused`.
PLANNED = ("q01", "q03", "q05", "q06", "q10", "q12", "q14", "q19")


@pytest.fixture(scope="module")
def planner(tpch_cluster):
    """A planner that knows the tables' columns, and none of their rows."""
    context = datafusion.SessionContext()
    with tpch_cluster.connect() as connection:
        for table in answers.TPCH_TABLES:
            schema = connection.adbc_get_table_schema(table, db_schema_filter="tpch")
            context.register_record_batches(table, [schema.empty_table().to_batches() or [pyarrow.RecordBatch.from_pylist([], schema=schema)]])
    return lambda sql: bytes(datafusion.substrait.Serde.serialize_bytes(sql, context))


def run(running, plan):
    with running.connect() as connection, connection.cursor() as cursor:
        cursor.execute(plan)
        return cursor.fetchall()


@pytest.mark.parametrize("name", PLANNED)
def test_plans_of_tpch_have_the_answers_of_sql(tpch_cluster, duckdb_tpch, planner, name):
    sql = (QUERIES / f"{name}.sql").read_text()
    assert answers.difference(run(tpch_cluster, planner(sql)), duckdb_tpch.execute(sql).fetchall()) is None


def test_a_plan_is_seen_as_what_it_does(tpch_cluster, planner):
    assert run(tpch_cluster, planner("SELECT n_name FROM nation WHERE n_nationkey = 7")) == [("GERMANY",)]
    (sql,) = tpch_cluster.rows("SELECT sql FROM system.queries WHERE sql LIKE '/* Substrait */%' ORDER BY started_at DESC LIMIT 1")[0]
    assert "n_nationkey" in sql and "7" in sql


def test_a_plan_is_prepared_and_run_again(tpch_cluster, planner):
    with tpch_cluster.connect() as connection, connection.cursor() as cursor:
        plan = planner("SELECT count(*) AS n FROM region")
        cursor.adbc_prepare(plan)
        for _ in range(3):
            cursor.execute(plan)
            assert cursor.fetchall() == [(5,)]


def test_the_schema_of_a_plan(tpch_cluster, planner):
    client, _ = flight_messages.connect(tpch_cluster.port)
    with client:
        plan = flight_messages.message({1: planner("SELECT n_name, n_nationkey FROM nation")})
        schema = client.get_schema(flight_messages.descriptor("CommandStatementSubstraitPlan", {1: plan})).schema
        assert schema.names == ["n_name", "n_nationkey"]


def test_what_is_no_plan_or_names_nothing_is_the_users_error(tpch_cluster, planner):
    context = datafusion.SessionContext()
    context.from_pydict({"a": [1]}, name="nowhere")
    unknown = bytes(datafusion.substrait.Serde.serialize_bytes("SELECT a FROM nowhere", context))
    whole = planner("SELECT n_name, count(*) FROM nation, region WHERE n_regionkey = r_regionkey GROUP BY 1")
    cut = [whole[:length] for length in range(0, len(whole), 7)]
    wrong = [b"\xff\xff\xff", unknown, *cut, *(whole[:at] + bytes([whole[at] ^ 0x1F]) + whole[at + 1 :] for at in range(0, len(whole), 5))]
    client, _ = flight_messages.connect(tpch_cluster.port)
    codes = set()
    with client:
        for plan in wrong:
            command = flight_messages.descriptor("CommandStatementSubstraitPlan", {1: flight_messages.message({1: plan})})
            try:
                client.get_schema(command)
            except pyarrow.ArrowException as error:
                codes.add(type(error))
                assert "panic" not in str(error) and "Internal" not in type(error).__name__, (plan, error)
        # Whatever came, the server goes on.
        assert flight_messages.query(client, "SELECT 1 AS one").to_pydict() == {"one": [1]}
    assert codes <= {pyarrow.ArrowInvalid, pyarrow.ArrowKeyError}, codes
    with pytest.raises(adbc_driver_manager.Error, match="nowhere"):
        run(tpch_cluster, unknown)
