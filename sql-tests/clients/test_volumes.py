"""Nodes need not have the same volumes: a table lies where its files are, and other nodes have no part in reading it."""

import cluster
import pyarrow
import pyarrow.parquet
import pytest

ROWS = 10_000


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volumes")
    for volume, factor in (("cold", 1), ("warm", 2), ("away", 3)):
        target = folder / volume / "numbers" / "part.parquet"
        target.parent.mkdir(parents=True)
        table = pyarrow.table({"id": list(range(ROWS)), "value": [number * factor for number in range(ROWS)]})
        pyarrow.parquet.write_table(table, target, row_group_size=3_000)
    nodes = [
        cluster.Node("node-1", {"cold": folder / "cold"}),
        cluster.Node("node-2", {"warm": folder / "warm"}),
        cluster.Node(
            "node-3",
            {"empty": folder / "empty", "away": folder / "away"},
            environment={"BOWSHOT__WORKER__VOLUME_REGIONS": '{ away = "us" }'},
        ),
    ]
    with cluster.Cluster(folder / "cluster", nodes) as three:
        three.create_table("cold", "node://*/cold/numbers/")
        three.create_table("warm", "node://*/warm/numbers/")
        yield three


@pytest.mark.parametrize("kernel", ["host", "device", "off"])
def test_tables_of_different_volumes(running, kernel):
    total = sum(range(ROWS))
    assert running.rows("SELECT sum(value), count(*) FROM cold", kernel=kernel) == [(total, ROWS)]
    assert running.rows("SELECT sum(value), max(id) FROM warm WHERE id >= 5000", kernel=kernel) == [(2 * sum(range(5_000, ROWS)), ROWS - 1)]
    assert running.rows("SELECT id, value FROM warm WHERE id > 9997 ORDER BY id", kernel=kernel) == [(9_998, 19_996), (9_999, 19_998)]
    groups = running.rows("SELECT id % 3, count(*) FROM cold GROUP BY id % 3 ORDER BY 1", kernel=kernel)
    assert groups == [(0, 3_334), (1, 3_333), (2, 3_333)]


def test_a_join_of_tables_of_different_volumes(running):
    assert running.rows("SELECT sum(w.value - c.value) FROM cold c JOIN warm w ON c.id = w.id") == [(sum(range(ROWS)),)]
    both = running.rows("SELECT count(*), sum(value) FROM (SELECT value FROM cold UNION ALL SELECT value FROM warm) AS both")
    assert both == [(2 * ROWS, 3 * sum(range(ROWS)))]


def test_nodes_without_files_of_the_table_have_no_task(running):
    running.rows("SELECT sum(value) FROM cold", kernel="host")
    tasks = "SELECT node_id, device, reason FROM system.tasks WHERE query_id = (SELECT max(query_id) FROM system.tasks)"
    # One file on one node: that node has both tasks of the fragment, and the one without a file is no declined kernel.
    assert sorted(running.rows(tasks)) == [("node-1", "-", ""), ("node-1", "host", "")]


def test_a_volume_may_lie_in_another_region_than_its_node(running):
    running.create_table("away", "node://*/away/numbers/")
    assert running.rows("SELECT sum(value) FROM away") == [(3 * sum(range(ROWS)),)]
    assert running.rows("SELECT node_id, region FROM system.files WHERE table_name = 'away'") == [("node-3", "us")]
    with pytest.raises(Exception, match="numbers/part.parquet lies in volume away of node node-3, which is in us"):
        running.rows("ALTER TABLE away SET (regions = 'eu')")
    # Reading it on a node in eu would take its rows there.
    with pytest.raises(Exception, match="lies on node node-3 in eu"):
        running.rows("ALTER TABLE away SET (regions = 'us')")
    with pytest.raises(Exception, match="which is in us"):
        running.rows("CREATE EXTERNAL TABLE pinned STORED AS PARQUET LOCATION 'node://*/away/numbers/' OPTIONS ('regions' 'eu')")
    assert running.rows("SELECT count(*) FROM system.tables WHERE table_name = 'pinned'") == [(0,)]


def test_tables_and_columns_are_described(running):
    running.create_table("described", "node://*/cold/numbers/")
    [(location, files, rows, size)] = running.rows(
        "SELECT location, file_count, row_count, size_bytes FROM system.tables WHERE table_name = 'described'"
    )
    assert (location, files, rows) == ("node://*/cold/numbers/", 1, ROWS)
    assert running.rows("SELECT size_bytes FROM system.files WHERE table_name = 'described'") == [(size,)]
    columns = running.rows(
        "SELECT column_name, data_type, null_count, min_value, max_value FROM system.column_statistics WHERE table_name = 'described' ORDER BY 1"
    )
    assert columns == [("id", "Int64", 0, "0", str(ROWS - 1)), ("value", "Int64", 0, "0", str(ROWS - 1))]
