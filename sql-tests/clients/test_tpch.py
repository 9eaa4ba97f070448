"""TPC-H over three nodes, each file on one of them only: answers equal DuckDB's, kernels run where they say, few bytes move."""

import pathlib
import re

import answers
import cluster
import pytest
from conftest import NODES

QUERIES = dict(answers.tpch_queries(cluster.REPOSITORY / "datasets" / "queries" / "tpch"))
MOVED_BYTES_MAX = 64 * 1024


def analyzed(running, sql, kernel):
    """EXPLAIN ANALYZE as (tasks, summary figures, query id)."""
    parts = dict(running.rows(f"EXPLAIN ANALYZE {sql}", kernel=kernel))
    summary = parts["summary"]
    figures = {name: int(re.search(rf"{name} (\d+)", summary)[1]) for name in ("bytes moved", "bytes scanned", "tasks", "device", "host kernel")}
    header, *lines = parts["tasks"].splitlines()
    starts = [match.start() for match in re.finditer(r"(?:^|  )(?=\S)", header)] + [None]
    cells = lambda line: [line[a:b].strip() for a, b in zip(starts, starts[1:])]  # noqa: E731
    return [dict(zip(cells(header), cells(line))) for line in lines], figures, re.search(r"query (\S+)", summary)[1]


def recorded_tasks(running, query_id):
    """(node, device, reason, rows a kernel aggregated) of every task of a query."""
    return running.rows(f"SELECT node_id, device, reason, kernel_rows FROM system.tasks WHERE query_id = '{query_id}'")


@pytest.fixture(scope="module")
def expected(duckdb_tpch):
    return {name: duckdb_tpch.execute(sql).fetchall() for name, sql in QUERIES.items()}


def test_all_queries_are_there_and_every_file_is_on_one_node(tpch_cluster):
    assert len(QUERIES) == 22
    assert not pathlib.Path(tpch_cluster.folder / "coordinator" / "lineitem").exists()
    copies = tpch_cluster.rows("SELECT table_name, path, count(*) FROM system.files GROUP BY table_name, path, size_bytes, checksum HAVING count(*) > 1")
    assert copies == []
    homes = tpch_cluster.rows("SELECT DISTINCT node_id FROM system.files WHERE table_name = 'lineitem'")
    assert {node for (node,) in homes} == set(NODES)


@pytest.mark.parametrize("kernel", ["off", "host", "device", "auto"])
@pytest.mark.parametrize("name", sorted(QUERIES))
def test_answers_equal_duckdb(tpch_cluster, expected, name, kernel):
    assert answers.difference(tpch_cluster.rows(QUERIES[name], kernel=kernel), expected[name]) is None


@pytest.mark.parametrize("name", sorted(QUERIES))
def test_tasks_that_adapt_answer_the_same(tpch_cluster, expected, name):
    assert answers.difference(tpch_cluster.rows(QUERIES[name], adaptive_tasks="true"), expected[name]) is None


@pytest.mark.parametrize("name", ["q01", "q06"])
@pytest.mark.parametrize(("kernel", "executor"), [("device", "device"), ("host", "host"), ("auto", "host")])
def test_hot_aggregations_run_where_they_should_on_every_worker(tpch_cluster, name, kernel, executor):
    tasks, figures, query_id = analyzed(tpch_cluster, QUERIES[name], kernel)
    ran = {task["node"] for task in tasks if task["kernel"] == executor and int(task["kernel rows"]) > 0}
    assert ran == set(NODES), tasks
    recorded = recorded_tasks(tpch_cluster, query_id)
    assert {node for node, device, _, rows in recorded if device == executor and rows > 0} == set(NODES), recorded
    assert figures["device" if executor == "device" else "host kernel"] >= len(NODES)
    assert not [task for task in recorded if task[1] == "declined"], recorded


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT sum(CASE WHEN l_returnflag = 'A' THEN l_quantity ELSE 0 END) FROM lineitem",
        "SELECT extract(year FROM l_shipdate) AS year, count(*) FROM lineitem GROUP BY year",
        "SELECT substr(l_shipinstruct, 1, 4) AS start, sum(l_quantity) FROM lineitem GROUP BY start",
        "SELECT sum(CAST(l_quantity AS DOUBLE) * 0.5) FROM lineitem WHERE l_shipdate < l_commitdate",
    ],
)
def test_computed_columns_are_a_kernels_too(tpch_cluster, sql):
    """Twice: the second time the computed columns come from the cache."""
    for _ in range(2):
        tasks, _, query_id = analyzed(tpch_cluster, sql, "host")
        assert {task["node"] for task in tasks if task["kernel"] == "host" and int(task["kernel rows"]) > 0} == set(NODES), tasks
        assert not [task for task in recorded_tasks(tpch_cluster, query_id) if task[1] == "declined"]


@pytest.mark.parametrize("kernel", ["auto", "device", "host"])
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT corr(l_quantity, l_tax) FROM lineitem",
        "SELECT stddev(l_quantity) FROM lineitem",
    ],
)
def test_what_the_kernels_decline_names_its_reason(tpch_cluster, sql, kernel):
    _, _, query_id = analyzed(tpch_cluster, sql, kernel)
    recorded = recorded_tasks(tpch_cluster, query_id)
    declined = [reason for _, device, reason, rows in recorded if device == "declined" and rows == 0]
    assert len(declined) == len(NODES), recorded
    assert all(len(reason) > 10 for reason in declined), recorded


def test_what_only_the_device_declines_runs_on_the_host_kernel_and_says_why(tpch_cluster):
    many_groups = "SELECT l_orderkey, l_partkey, count(*) FROM lineitem GROUP BY l_orderkey, l_partkey"
    _, _, query_id = analyzed(tpch_cluster, many_groups, "device")
    reasons = [reason for _, device, reason, _ in recorded_tasks(tpch_cluster, query_id) if device == "host"]
    assert len(reasons) == len(NODES)
    assert all("group slots exceed" in reason for reason in reasons), reasons


def test_kernel_off_runs_no_kernel(tpch_cluster):
    _, figures, query_id = analyzed(tpch_cluster, QUERIES["q01"], "off")
    assert (figures["device"], figures["host kernel"]) == (0, 0)
    assert all(rows == 0 for _, _, _, rows in recorded_tasks(tpch_cluster, query_id))


@pytest.mark.parametrize("kernel", ["auto", "device"])
def test_few_bytes_move_and_every_place_reports_the_same(tpch_cluster, kernel):
    total = 0
    for name in ("q01", "q06"):
        before = tpch_cluster.metric("bowshot_bytes_moved_total", scope="node")
        tasks, figures, query_id = analyzed(tpch_cluster, QUERIES[name], kernel)
        counted = tpch_cluster.metric("bowshot_bytes_moved_total", scope="node") - before
        [(recorded,)] = tpch_cluster.rows(f"SELECT bytes_moved FROM system.queries WHERE query_id = '{query_id}'")
        moved = figures["bytes moved"]
        assert moved > 0
        assert moved == recorded == counted == sum(int(task["bytes moved"]) for task in tasks)
        total += moved
    assert total < MOVED_BYTES_MAX


def test_the_shell_shows_the_moved_bytes_too(tpch_cluster):
    sql = "SELECT sum(l_extendedprice) AS asked_by_the_shell FROM lineitem"
    done = tpch_cluster.shell(sql)
    assert done.returncode == 0, done.stderr
    [(moved,)] = tpch_cluster.rows("SELECT bytes_moved FROM system.queries WHERE sql LIKE 'SELECT sum%asked_by_the_shell%'")
    footer = re.search(r"moved ([\d.,]+) ?(\w+)", done.stdout + done.stderr)
    assert footer, done.stdout + done.stderr
    unit = {"B": 1, "KB": 1000, "kB": 1000, "KiB": 1024}[footer[2]]
    assert abs(float(footer[1].replace(",", "")) * unit - moved) <= max(0.06 * moved, 1)
