"""Streams between nodes: rows that nobody takes yet hold up no others, and a query may have more streams than servers allow by themselves."""

import random

import cluster
import pyarrow
import pyarrow.flight
import pyarrow.parquet
import pytest
from test_load import Flight

TOKEN = "token-of-the-streams-tests"
SETTINGS = f"""
[auth]
mode = "password"
tokens = {{ ana = "{TOKEN}" }}
[coordinator.query]
max_concurrent = 64
"""
NODES = ("node-1", "node-2", "node-3")
ROWS_A_FILE = 150_000
# What a stream holds back is a megabyte; the texts of a file are sixteen.
TEXT_BYTES = 110
STALLED = 24
# A node's server allows 200 streams of a connection unless it is told otherwise.
BRANCHES = 150


def texts(number):
    """Texts of one file: of each second half the later ones, so that its partitions are sorted in very different times and orders."""
    chance = random.Random(number)
    return [f"{chance.randrange(10**9):09}-{row:07}".ljust(TEXT_BYTES, "x") for row in range(ROWS_A_FILE)]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    nodes = []
    for number, node_id in enumerate(NODES):
        target = folder / node_id / "wide" / f"part-{number}.parquet"
        target.parent.mkdir(parents=True)
        columns = {
            "id": pyarrow.array(range(number * ROWS_A_FILE, (number + 1) * ROWS_A_FILE), pyarrow.int64()),
            "text": pyarrow.array(texts(number)),
        }
        pyarrow.parquet.write_table(pyarrow.table(columns), target, row_group_size=ROWS_A_FILE // 4)
        nodes.append(cluster.Node(node_id, {"data": folder / node_id}, kernel_device="off"))
    with cluster.Cluster(folder / "cluster", nodes, SETTINGS, token=TOKEN) as started:
        started.create_table("wide", "node://*/data/wide/")
        yield started


def test_sorted_partitions_are_merged_however_late_one_comes(running):
    flight = Flight(running, TOKEN).start("SELECT text FROM wide ORDER BY text DESC")
    found = flight.reader.read_all().column(0).to_pylist()
    assert found == sorted((text for number in range(len(NODES)) for text in texts(number)), reverse=True)


def test_clients_that_stop_reading_hold_up_nobody_else(running):
    stalled = [Flight(running, TOKEN).start("SELECT id, text FROM wide") for _ in range(STALLED)]
    try:
        for flight in stalled:
            assert flight.reader.read_chunk().data.num_rows > 0
        rows = len(NODES) * ROWS_A_FILE
        assert running.rows("SELECT count(*), sum(id), count(DISTINCT text) FROM wide") == [(rows, rows * (rows - 1) // 2, rows)]
        flight = stalled.pop()
        flight.read()
    finally:
        for flight in stalled:
            flight.reader.cancel()


def test_a_query_of_hundreds_of_fragments(running):
    branch = "SELECT id % 7 AS k, count(*) AS n FROM wide WHERE id >= {} GROUP BY id % 7"
    union = " UNION ALL ".join(branch.format(start) for start in range(BRANCHES))
    total = sum(len(NODES) * ROWS_A_FILE - start for start in range(BRANCHES))
    assert running.rows(f"SELECT count(*), sum(n) FROM ({union}) branches") == [(7 * BRANCHES, total)]
