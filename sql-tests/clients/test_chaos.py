"""Quick forms of chaos.py: each promise once, under load, on one cluster. The long forms are its commands."""

import json

import chaos
import cluster
import pressure
import pyarrow
import pyarrow.flight
import pyarrow.parquet
import pytest
import tpch_load

FEW_SECONDS = 2.0
SEEDS = [1, 2]
TOKEN_HEADER = b"x-bowshot-cluster-token"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Four workers, two copies of every file, and DuckDB's answers."""
    running, expected = tpch_load.start(tmp_path_factory.mktemp("chaos"), scale=0.01)
    with running:
        yield running, expected


def kept(verdict):
    assert not verdict.problems, "\n".join(verdict.problems)
    assert verdict.queries and not verdict.wrong
    assert verdict.success_share() >= chaos.SUCCESS_SHARE, str(verdict)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_faults_under_load(whole, seed):
    _, verdict = chaos.play_seed(*whole, seed, events=2, longest=FEW_SECONDS)
    kept(verdict)


def test_a_drained_node_ends_without_a_failed_query(whole):
    running, expected = whole
    verdict = chaos.play_drain(running, expected, "node-2")
    try:
        kept(verdict)
        assert not verdict.failed_of_one and not verdict.failed_later, str(verdict)
    finally:
        running.rows("ALTER NODE node-2 RESUME")
        running.restart_worker("node-2")
        tpch_load.wait_whole(running)


def test_a_drained_node_gets_no_tasks_and_ends_those_it_has(whole):
    """The query runs when the node is told to end: it is right, and the node ends only after it."""
    running, _ = whole
    [(rows,)] = running.rows("SELECT count(*) FROM lineitem")
    with running.connect(kernel="off") as connection:
        cursor = connection.cursor()
        # More rows than all buffers on the way hold: it cannot have ended before it is read.
        cursor.execute("SELECT a.l_comment, b.l_comment, c.l_comment FROM lineitem a JOIN lineitem b USING (l_orderkey) JOIN lineitem c USING (l_orderkey)")
        reader = cursor.fetch_record_batch()
        first = reader.read_next_batch().num_rows
        running.workers["node-3"].child.terminate()
        cluster.wait_until("node-3 is leaving", 10, lambda: running.node_states()["node-3"] != "live")
        running.rows("SELECT count(*), sum(l_quantity) FROM lineitem")
        newest = "SELECT DISTINCT node_id FROM system.tasks WHERE query_id = (SELECT max(query_id) FROM system.tasks)"
        assert "node-3" not in {node for (node,) in running.rows(newest)}
        found = first + sum(batch.num_rows for batch in reader)
        cursor.close()
    [(wanted,)] = running.rows("SELECT sum(n * n * n) FROM (SELECT count(*) AS n FROM lineitem GROUP BY l_orderkey)")
    assert found == wanted and wanted > rows
    assert running.workers["node-3"].child.wait(cluster.END_SECONDS) == 0
    running.restart_worker("node-3")


def test_rolling_restart_of_workers_and_coordinator(whole):
    for verdict in chaos.play_rolling(*whole):
        assert not verdict.problems, "\n".join(verdict.problems)


def test_a_killed_coordinator_leaves_no_work_and_gets_its_workers_back(whole):
    assert chaos.play_coordinator(*whole, away=2.0) == []


def test_killed_workers_are_replaced_on_the_same_and_on_an_empty_volume(whole):
    kept(chaos.play_kills(*whole, rounds=3, pace=5.0))


def test_one_file_and_empty_tables(whole):
    running, _ = whole
    schema = pyarrow.schema([("id", pyarrow.int64()), ("name", pyarrow.string())])
    for table, rows in (("one_file", [{"id": 1, "name": "one"}, {"id": 2, "name": None}]), ("empty", [])):
        folder = running.volume("node-1") / table
        folder.mkdir()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), folder / "part-1.parquet")
        running.rows(f"CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION 'node://*/data/{table}/' OPTIONS ('replicas' '2')")
        for kernel in ("auto", "host", "off"):
            ask = lambda sql: running.rows(sql, kernel=kernel)  # noqa: B023, E731
            assert ask(f"SELECT id, name FROM {table} ORDER BY id") == [tuple(row.values()) for row in rows]
            assert ask(f"SELECT count(*), count(name), sum(id), max(name) FROM {table}") == [(2, 1, 3, "one") if rows else (0, 0, None, None)]
            assert ask(f"SELECT id % 2 AS odd, count(*) FROM {table} GROUP BY odd ORDER BY odd") == ([(0, 1), (1, 1)] if rows else [])
            assert ask(f"SELECT count(*) FROM {table} a JOIN nation ON n_nationkey = a.id") == [(len(rows),)]
            assert ask(f"SELECT count(*) FROM nation LEFT JOIN {table} a ON n_nationkey = a.id") == [(25,)]
            assert ask(f"SELECT count(*) FROM nation WHERE n_nationkey NOT IN (SELECT id FROM {table})") == [(25 - len(rows),)]
    cluster.wait_until("copies of both", 30, lambda: not tpch_load.short_files(running))


@pytest.mark.parametrize(("token", "path", "says"), [
    (None, "nation/part-1.parquet", "cluster token"),
    ("not-the-cluster-token", "nation/part-1.parquet", "cluster token"),
    (cluster.CLUSTER_TOKEN, "../../../../../../etc/passwd", "Parquet files of its volumes only"),
    (cluster.CLUSTER_TOKEN, "/etc/passwd", "Parquet files of its volumes only"),
    (cluster.CLUSTER_TOKEN, "file:///etc/passwd", "Parquet files of its volumes only"),
])  # fmt: skip
def test_a_worker_gives_strangers_nothing_and_nodes_no_other_file(whole, token, path, says):
    running, _ = whole
    headers = [(TOKEN_HEADER, token.encode())] if token else []
    with pyarrow.flight.FlightClient(f"grpc://127.0.0.1:{running.worker_ports['node-1']}") as client, pytest.raises(pyarrow.ArrowException, match=says):
        asked = json.dumps({"volume": "data", "path": path}).encode()
        list(client.do_action(("bowshot.read_file", asked), pyarrow.flight.FlightCallOptions(headers=headers, timeout=10)))


def test_little_memory(tmp_path):
    """Queries that spill and wait for each other, a slow client and a dashboard: right, and nobody ends. Limits are held by the long forms."""
    settings = {"more_settings": "query.max_concurrent = 1\n", "operator_bytes": 12 << 20, "cache_bytes": 8 << 20, "hold_limits": False}
    with pressure.started(tmp_path, 2, 0.05, **settings) as (running, _, spill):
        expected_of = pressure.asked_once(tmp_path)
        assert pressure.play_spilling(running, expected_of, spill, queries=4) == []
        assert pressure.play_slow(running, seconds=pressure.FILL_SECONDS + 3) == []
        assert pressure.play_dashboard(running, expected_of, spill, clients=20, seconds=3) == []
