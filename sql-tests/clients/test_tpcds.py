"""TPC-DS, small: each of the 99 queries over three nodes, no node with all of any table, answers equal to DuckDB's.

`tpcds.py` runs the same at any scale, on any number of nodes and with copies of files.
"""

import concurrent.futures
import os

import answers
import pytest
import tpcds

SCALE = float(os.environ.get("BOWSHOT_TEST_TPCDS_SCALE", "0.05"))
NODES = ["node-1", "node-2", "node-3"]
# Queries at once: planning, waiting and DuckDB's own work then fill the cores of a small machine.
AT_ONCE = 3
QUERIES = tpcds.queries()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tpcds.generated(tmp_path_factory.mktemp("tpcds"), SCALE)


@pytest.fixture(scope="module")
def running(files, tmp_path_factory):
    data = files.parent / "nodes"
    tpcds.deal(files, data, NODES, copies=1)
    with tpcds.start(data, tmp_path_factory.mktemp("tpcds-cluster"), NODES) as running:
        yield running


@pytest.fixture(scope="module")
def duckdb_tpcds(files):
    return tpcds.duckdb_over(files)


@pytest.fixture(scope="module")
def outcomes(request, running, duckdb_tpcds):
    """How each chosen query goes, as futures: all are under way from the start."""
    chosen = [item.callspec.params["name"] for item in request.session.items if item.module is request.module and hasattr(item, "callspec")]

    def compared(name):
        peer, sql = duckdb_tpcds.cursor(), QUERIES[name]
        expected = answers.expected_in_order(peer, sql)
        # DuckDB's own answer, with the LIMIT: what is expected is the answer to the same question.
        assert answers.difference_in_order(peer.execute(sql).fetchall(), expected) is None
        return tpcds.outcome(running, sql, expected)

    pool = concurrent.futures.ThreadPoolExecutor(AT_ONCE)
    yield {name: pool.submit(compared, name) for name in chosen}
    pool.shutdown(cancel_futures=True)


def test_every_file_is_on_one_node_and_no_node_has_all_of_a_table(running, duckdb_tpcds):
    copies = running.rows("SELECT path FROM system.files GROUP BY table_name, path, checksum HAVING count(*) > 1")
    assert copies == []
    homes = dict(running.rows("SELECT table_name, count(DISTINCT node_id) FROM system.files GROUP BY table_name"))
    rows = {table: duckdb_tpcds.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in tpcds.TABLES}
    assert homes == {table: min(count, len(NODES)) for table, count in rows.items()}


@pytest.mark.parametrize("name", sorted(QUERIES))
def test_answers_equal_duckdb(outcomes, name):
    done = outcomes[name].result()
    assert done.state == "ok", f"{done.state}: {done.text}"
