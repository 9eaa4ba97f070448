"""CACHE TABLE, UNCACHE TABLE and system.cache over real workers: what is loaded, pinned, dropped, refused, and forgotten with its file."""

import cluster
import pyarrow
import pyarrow.parquet
import pytest

ROWS = 100_000
ROW_GROUP = 25_000
NODES = ["node-1", "node-2"]


def write(folder, node, first):
    """Rows `(id, kind, weight, note)`: `id` counts from `first`, `note` is a type that no kernel reads."""
    target = folder / node / "things" / f"{node}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    ids = list(range(first, first + ROWS))
    columns = {
        "id": ids,
        "kind": [f"kind {number % 7}" for number in ids],
        "weight": [number % 1_000 for number in ids],
        "note": pyarrow.array([[number] for number in ids], pyarrow.list_(pyarrow.int64())),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), target, row_group_size=ROW_GROUP)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    for number, node in enumerate(NODES):
        write(folder, node, number * ROWS)
    # Room for all columns of the second node, not of the first: ids and weights take 500 kB there.
    small = {"BOWSHOT__WORKER__CACHE_BYTES": "500000"}
    nodes = [
        cluster.Node(node, {"data": folder / node}, kernel_device="off", environment=small if node == "node-1" else {}) for node in NODES
    ]
    with cluster.Cluster(folder / "cluster", nodes) as cluster_of_two:
        cluster_of_two.create_table("things", "node://*/data/things/")
        cluster_of_two.folder_of_data = folder
        yield cluster_of_two


def cached(running):
    """Row groups and pinned row groups by node and column."""
    rows = running.rows("SELECT node_id, column_name, row_groups, pinned_row_groups FROM system.cache WHERE table_name = 'things'")
    return {(node, column): (row_groups, pinned) for node, column, row_groups, pinned in rows}


def test_columns_are_loaded_pinned_listed_and_dropped(running):
    done = running.rows("CACHE TABLE public.things COLUMNS (weight, kind)")
    row_groups = ROWS // ROW_GROUP
    assert [(node, column, groups, reason) for node, column, groups, _, reason in done] == [
        (node, column, row_groups, None) for node in NODES for column in ("kind", "weight")
    ]
    # A lane of one byte for seven kinds, of two for weights below 1,000.
    assert all(ROWS * width <= size < ROWS * width * 1.1 for (_, _, _, size, _), width in zip(done, [1, 2, 1, 2]))
    pinned = {(node, column): (row_groups, row_groups) for node in NODES for column in ("kind", "weight")}
    cluster.wait_until("heartbeats tell", 10, lambda: cached(running) == pinned)

    # Queries take them from there, and what they load beside them is not pinned.
    assert running.rows("SELECT kind, count(*), sum(weight) FROM things GROUP BY kind ORDER BY kind LIMIT 1", kernel="host") == [
        ("kind 0", len(range(0, 2 * ROWS, 7)), sum(number % 1_000 for number in range(0, 2 * ROWS, 7)))
    ]
    running.rows("SELECT max(id) FROM things", kernel="host")
    cluster.wait_until("ids are cached", 10, lambda: cached(running).get(("node-2", "id")) == (row_groups, 0))

    dropped = running.rows("UNCACHE TABLE things COLUMNS (kind)")
    assert [(node, column, groups) for node, column, groups, _, _ in dropped] == [(node, "kind", row_groups) for node in NODES]
    cluster.wait_until("kinds are gone", 10, lambda: ("node-2", "kind") not in cached(running))
    running.rows("UNCACHE TABLE things")
    cluster.wait_until("nothing is left", 10, lambda: cached(running) == {})
    assert running.rows("UNCACHE TABLE things") == []


def test_pins_beyond_their_share_are_refused_with_the_reason_and_answers_stay(running):
    done = {(node, column): (groups, reason) for node, column, groups, _, reason in running.rows("CACHE TABLE things")}
    assert {column for _, column in done} == {"id", "kind", "weight"}, "a list is no column of the cache"
    assert all(done["node-2", column] == (ROWS // ROW_GROUP, None) for column in ("id", "kind", "weight"))
    refused = [reason for (node, _), (_, reason) in done.items() if node == "node-1" and reason]
    assert refused and all("exceed 3/4 of the column cache" in reason for reason in refused), done
    for kernel in ("host", "off"):
        assert running.rows("SELECT sum(id), count(DISTINCT kind) FROM things", kernel=kernel) == [(sum(range(2 * ROWS)), 7)]
    assert dict(running.rows("SELECT node_id, cached_bytes FROM system.nodes WHERE role = 'worker'"))["node-1"] <= 500_000
    running.rows("UNCACHE TABLE things")


def test_a_replaced_file_leaves_no_pinned_chunk_behind(running):
    running.rows("CACHE TABLE things COLUMNS (weight)")
    write(running.folder_of_data, "node-2", 5 * ROWS)

    def refreshed():
        running.rows("REFRESH TABLE things")
        return running.rows("SELECT max(id) FROM things", kernel="host") == [(6 * ROWS - 1,)]

    cluster.wait_until("the new file is read", 20, refreshed)
    # Nobody pinned the new version, and the old one's chunks are gone with it.
    assert running.rows("SELECT sum(weight), count(*) FROM things", kernel="host") == [(200 * sum(range(1_000)), 2 * ROWS)]
    cluster.wait_until("no pin is left there", 10, lambda: cached(running).get(("node-2", "weight")) == (ROWS // ROW_GROUP, 0))
    assert cached(running)["node-1", "weight"] == (ROWS // ROW_GROUP, ROWS // ROW_GROUP)


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("CACHE TABLE thing", "there is no table 'public.thing'; did you mean public.things?"),
        ("CACHE TABLE things COLUMNS (wight)", "table public.things has no column 'wight'; did you mean 'weight'?"),
        ("CACHE TABLE things COLUMNS (note)", "column note of table public.things cannot be cached: a column of type List"),
        ("UNCACHE things", "write UNCACHE TABLE <schema>.<table> [COLUMNS (<column>, …)]"),
        ("SET bowshot.cache_action = 'pin'", "'bowshot.cache_action' is not a setting of a session"),
    ],
)
def test_what_cannot_be_cached_is_said(running, sql, text):
    finished = running.shell(sql)
    assert finished.returncode != 0 and text in finished.stderr, finished.stderr
