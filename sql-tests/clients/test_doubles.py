"""Sums and averages of doubles: the exact sum rounded once, as `math.fsum` gives it, on any number of workers and in any order of rows."""

import collections
import itertools
import math
import random

import cluster
import pyarrow
import pyarrow.parquet
import pytest

ROWS = 40_000
KEYS = 37
NULL_EVERY = 11


def table():
    """Rows `(id, key, tame, wild, whole)`: doubles of one magnitude and of all, some NULL, and integers that doubles hold."""
    choose = random.Random(3)
    tame = [None if row % NULL_EVERY == 0 else choose.randrange(10**7) / 100 for row in range(ROWS)]
    wild = [None if row % NULL_EVERY == 1 else math.ldexp(choose.uniform(-1, 1), choose.randrange(-600, 600)) for row in range(ROWS)]
    whole = [choose.randrange(-(2**52), 2**52) for _ in range(ROWS)]
    return list(zip(range(ROWS), [choose.randrange(KEYS) for _ in range(ROWS)], tame, wild, whole))


def fsum_and_average(values):
    known = [value for value in values if value is not None]
    return (math.fsum(known), math.fsum(known) / len(known)) if known else (None, None)


ROWS_OF_TABLE = table()
GROUPED = "SELECT key, sum(tame), avg(tame), sum(wild), avg(wild), avg(whole) FROM doubles GROUP BY key ORDER BY key"
WHOLE = "SELECT sum(tame), avg(tame), sum(wild), avg(wild), avg(whole), sum(DISTINCT tame), avg(DISTINCT tame) FROM doubles"
EACH = "SELECT id, sum(wild), avg(tame) FROM doubles GROUP BY id ORDER BY id"
FRAME = "SELECT id, sum(wild) OVER (ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) FROM doubles ORDER BY id"


def expected():
    columns = list(zip(*ROWS_OF_TABLE))
    distinct = set(columns[2])
    whole = [*fsum_and_average(columns[2]), *fsum_and_average(columns[3]), fsum_and_average(columns[4])[1], *fsum_and_average(distinct)]
    groups = collections.defaultdict(list)
    for row in ROWS_OF_TABLE:
        groups[row[1]].append(row)
    grouped = []
    for key in sorted(groups):
        _, _, tame, wild, wholes = zip(*groups[key])
        grouped.append((key, *fsum_and_average(tame), *fsum_and_average(wild), fsum_and_average(wholes)[1]))
    each = [(row[0], row[3], row[2]) for row in ROWS_OF_TABLE]
    frames = [(row, fsum_and_average(columns[3][max(0, row - 2) : row + 1])[0]) for row in range(ROWS)]
    return {WHOLE: [tuple(whole)], GROUPED: grouped, EACH: each, FRAME: frames}


EXPECTED = expected()


def spread(folder, nodes):
    """The rows in a new order, in files of uneven length, one or two a node."""
    shuffled = random.Random(len(nodes)).sample(ROWS_OF_TABLE, ROWS)
    files = [(node, part) for node in nodes for part in range(1 + len(nodes) % 2)]
    cuts = [0, *sorted(random.Random(5).sample(range(1, ROWS), len(files) - 1)), ROWS]
    for (node, part), (start, end) in zip(files, itertools.pairwise(cuts)):
        target = folder / node / "doubles" / f"part-{part}.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        rows = shuffled[start:end]
        columns = dict(zip(["id", "key", "tame", "wild", "whole"], map(list, zip(*rows))))
        pyarrow.parquet.write_table(pyarrow.table(columns), target, row_group_size=3_000)


@pytest.mark.parametrize("workers", [1, 3, 7])
def test_the_same_bits_on_any_cluster(workers, tmp_path):
    nodes = [f"node-{number}" for number in range(1, workers + 1)]
    spread(tmp_path, nodes)
    with cluster.Cluster(tmp_path / "cluster", [cluster.Node(node, {"data": tmp_path / node}) for node in nodes]) as running:
        running.create_table("doubles", "node://*/data/doubles/")
        for kernel in ("off", "host", "auto"):
            for sql, answer in EXPECTED.items():
                assert running.rows(sql, kernel=kernel) == answer, f"{workers} workers, kernel {kernel}: {sql}"


def test_the_average_of_integers_runs_on_the_kernel(tmp_path):
    spread(tmp_path, ["node-1"])
    with cluster.Cluster(tmp_path / "cluster", [cluster.Node("node-1", {"data": tmp_path / "node-1"})]) as running:
        running.create_table("doubles", "node://*/data/doubles/")
        running.rows("SELECT key, avg(whole) FROM doubles GROUP BY key", kernel="host")
        assert running.rows("SELECT DISTINCT device FROM system.tasks WHERE kernel_rows > 0") == [("host",)]
