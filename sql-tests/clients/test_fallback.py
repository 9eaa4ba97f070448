"""A kernel that gives up halfway: DataFusion's operators then read this partition's rows, all of them and no others."""

import cluster
import pyarrow
import pyarrow.parquet
import pytest

ROW_GROUP = 30_000
ROW_GROUPS = 8
ROWS = ROW_GROUP * ROW_GROUPS


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fallback")
    target = folder / "numbers" / "part.parquet"
    target.parent.mkdir()
    half = ROWS // 2
    columns = {
        # The second half has a key a row: groups that are not worth a kernel.
        "key": [row % 100 if row < half else row for row in range(ROWS)],
        # The last row groups hold integers that a double rounds.
        "large": [row if row < half else 2**60 + row for row in range(ROWS)],
        "one": [1] * ROWS,
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), target, row_group_size=ROW_GROUP)
    environment = {"BOWSHOT__WORKER__CPU_THREADS": "2"}
    with cluster.Cluster(folder / "cluster", [cluster.Node("node-1", {"data": folder}, environment=environment)]) as one:
        one.create_table("numbers", "node://*/data/numbers/")
        yield one


@pytest.mark.parametrize("kernel", ["host", "device", "off"])
def test_no_row_counts_twice(running, kernel):
    sql = "SELECT count(*), sum(c), sum(s), min(key), max(key) FROM (SELECT key, count(*) AS c, sum(one) AS s FROM numbers GROUP BY key) AS g"
    for _ in range(5):
        assert running.rows(sql, kernel=kernel) == [(100 + ROWS // 2, ROWS, ROWS, 0, ROWS - 1)]
    averages = "SELECT count(*), sum(one), avg(large) > 0 FROM numbers"
    for _ in range(5):
        assert running.rows(averages, kernel=kernel) == [(ROWS, ROWS, True)]


def test_one_partition_gave_up_and_the_other_did_not(running):
    running.rows("SELECT key, count(*) FROM numbers GROUP BY key", kernel="host")
    tasks = "SELECT max(kernel_rows), max(reason) FROM system.tasks WHERE query_id = (SELECT max(query_id) FROM system.tasks)"
    [(kernel_rows, reason)] = running.rows(tasks)
    assert kernel_rows == ROWS // 2, "the other half is DataFusion's"
    assert "rows a group" in reason, reason
