"""Sums and averages of doubles: the exact sum rounded once, as `math.fsum` gives it. Variances and deviations: the exact one rounded once.
On any number of workers and in any order of rows."""

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
UNIT_BITS = 1_074
ROOT_BITS = 1_200


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


def whole_units(value):
    """A double as a multiple of the least one."""
    numerator, denominator = value.as_integer_ratio()
    return numerator * ((1 << UNIT_BITS) // denominator)


def nearest(numerator, denominator):
    """The double nearest to a fraction: Python divides integers so."""
    try:
        return numerator / denominator
    except OverflowError:
        return math.inf


def nearest_root(numerator, denominator):
    """The double nearest to the root of a fraction: far more bits than it has, and one for what is below them."""
    quotient, rest = divmod(numerator << 2 * ROOT_BITS, denominator)
    root = math.isqrt(quotient)
    below = rest > 0 or root * root < quotient
    return nearest(2 * root + below, 2 << ROOT_BITS)


def variances(values):
    """(var, var_pop, stddev, stddev_pop) in integers of any size."""
    known = [whole_units(value) for value in values if value is not None]
    count = len(known)
    if count == 0:
        return None, None, None, None
    deviations = count * sum(value * value for value in known) - sum(known) ** 2
    population, sample = (count * divisor << 2 * UNIT_BITS for divisor in (count, count - 1))
    of_sample = (nearest(deviations, sample), nearest_root(deviations, sample)) if count > 1 else (None, None)
    return of_sample[0], nearest(deviations, population), of_sample[1], nearest_root(deviations, population)


ROWS_OF_TABLE = table()
GROUPED = "SELECT key, sum(tame), avg(tame), sum(wild), avg(wild), avg(whole) FROM doubles GROUP BY key ORDER BY key"
WHOLE = "SELECT sum(tame), avg(tame), sum(wild), avg(wild), avg(whole), sum(DISTINCT tame), avg(DISTINCT tame) FROM doubles"
EACH = "SELECT id, sum(wild), avg(tame) FROM doubles GROUP BY id ORDER BY id"
FRAME = "SELECT id, sum(wild) OVER (ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) FROM doubles ORDER BY id"


SPREADS = "var({0}), var_pop({0}), stddev({0}), stddev_pop({0})"
WHOLE_SPREADS = (
    f"SELECT {SPREADS.format('tame')}, {SPREADS.format('wild')}, {SPREADS.format('whole')}, {SPREADS.format('key')},"
    f" {SPREADS.format('DISTINCT tame')} FROM doubles"
)
GROUPED_SPREADS = (
    f"SELECT key, {SPREADS.format('tame')}, {SPREADS.format('wild')}, {SPREADS.format('whole')} FROM doubles GROUP BY key ORDER BY key"
)
WHOLE_NUMBER_SPREADS = f"SELECT key, {SPREADS.format('whole')} FROM doubles GROUP BY key ORDER BY key"
FAR_SPREADS = f"SELECT {SPREADS.format('tame + 1e15')} FROM doubles"
EACH_SPREAD = "SELECT id, var_samp(wild), var_population(tame), stddev_samp(wild), stddev_pop(tame) FROM doubles GROUP BY id ORDER BY id"
FRAME_SPREAD = (
    "SELECT * FROM (SELECT id, stddev(wild) OVER last, var_pop(tame) OVER last FROM doubles"
    " WINDOW last AS (ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW)) AS frames WHERE id % 16 = 0 ORDER BY id"
)


def expected_spreads():
    columns = list(zip(*ROWS_OF_TABLE))
    whole = [spread for column in (columns[2], columns[3], columns[4], columns[1], set(columns[2])) for spread in variances(column)]
    groups = collections.defaultdict(list)
    for row in ROWS_OF_TABLE:
        groups[row[1]].append(row)
    columns_of_groups = [(key, list(zip(*groups[key]))) for key in sorted(groups)]
    grouped = [(key, *variances(of[2]), *variances(of[3]), *variances(of[4])) for key, of in columns_of_groups]
    each = [(row[0], None, None if row[2] is None else 0.0, None, None if row[2] is None else 0.0) for row in ROWS_OF_TABLE]
    frames = []
    for row in range(0, ROWS, 16):
        rows = slice(max(0, row - 2), row + 1)
        frames.append((row, variances(columns[3][rows])[2], variances(columns[2][rows])[1]))
    return {
        WHOLE_SPREADS: [tuple(whole)],
        GROUPED_SPREADS: grouped,
        WHOLE_NUMBER_SPREADS: [(row[0], *row[9:13]) for row in grouped],
        FAR_SPREADS: [variances([None if value is None else value + 1e15 for value in columns[2]])],
        EACH_SPREAD: each,
        FRAME_SPREAD: frames,
    }


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


EXPECTED = expected() | expected_spreads()


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


def test_the_variance_of_integers_runs_on_the_kernel_and_that_of_doubles_says_why_not(tmp_path):
    spread(tmp_path, ["node-1"])
    with cluster.Cluster(tmp_path / "cluster", [cluster.Node("node-1", {"data": tmp_path / "node-1"})]) as running:
        running.create_table("doubles", "node://*/data/doubles/")
        for sql, device, reason in [
            (WHOLE_NUMBER_SPREADS, "host", ""),
            ("SELECT bool_and(tame > 5), bool_or(key = 40) FROM doubles", "host", ""),
            ("SELECT stddev(tame) FROM doubles", "declined", "stddev over anything but integers (tame@"[:38]),
        ]:
            running.rows(sql, kernel="host")
            recorded = (
                "SELECT DISTINCT device, left(reason, 38) FROM system.tasks JOIN system.queries USING (query_id)"
                f" WHERE sql = '{sql}' AND (kernel_rows > 0 OR reason <> '')"
            )
            assert running.rows(recorded) == [(device, reason)], sql
