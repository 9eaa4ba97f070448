"""table_peer.py ENGINE FILE RUNS: runs TPC-H's Q1 and Q6 over lineitem in an Arrow file, loaded into the engine's own memory.

ENGINE is duckdb or polars. Prints one JSON object: {"version", "load_seconds", "queries": {"q1": {"seconds", "rows"}, …}}, where rows
are keys, then sums and counts as unscaled integers (text), averages left out; or {"missing": why} where the engine cannot be imported, or
{"error": why}. All cores of the machine are used.
"""

import json
import os
import sys
import time
from decimal import Decimal

Q1 = """
SELECT l_returnflag, l_linestatus, sum(l_quantity) AS sum_qty, sum(l_extendedprice) AS sum_base_price,
       sum(l_extendedprice * (1 - l_discount)) AS sum_disc_price,
       sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)) AS sum_charge,
       avg(l_quantity) AS avg_qty, avg(l_extendedprice) AS avg_price, avg(l_discount) AS avg_disc, count(*) AS count_order
FROM lineitem WHERE l_shipdate <= DATE '1998-09-02'
GROUP BY l_returnflag, l_linestatus ORDER BY l_returnflag, l_linestatus
"""
Q6 = """
SELECT sum(l_extendedprice * l_discount) AS revenue FROM lineitem
WHERE l_shipdate >= DATE '1994-01-01' AND l_shipdate < DATE '1995-01-01'
  AND l_discount BETWEEN 0.05 AND 0.07 AND l_quantity < 24
"""
# Position of a column in the answer, and digits after the point of its sums.
COMPARED = {"q1": [(0, None), (1, None), (2, 2), (3, 2), (4, 4), (5, 6), (9, 0)], "q6": [(0, 4)]}


class DuckDb:
    def __init__(self, path):
        import duckdb
        import pyarrow

        self.version = duckdb.__version__
        self.connection = duckdb.connect()
        self.connection.execute(f"SET threads = {os.cpu_count()}")
        # The name by which the query finds the rows.
        rows = pyarrow.ipc.open_file(pyarrow.memory_map(path)).read_all()  # noqa: F841
        self.connection.execute("CREATE TABLE lineitem AS SELECT * FROM rows")

    def run(self, sql):
        return self.connection.execute(sql).fetchall()


class Polars:
    def __init__(self, path):
        import polars

        self.version = polars.__version__
        rows = polars.read_ipc(path).rechunk()
        self.context = polars.SQLContext({"lineitem": rows}, eager=True)

    def run(self, sql):
        return self.context.execute(sql).rows()


def unscaled(value, digits):
    if digits is None:
        return str(value)
    return str(int(Decimal(value).scaleb(digits).to_integral_value()))


def best(peer, sql, runs):
    peer.run(sql)
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        rows = peer.run(sql)
        seconds.append(time.perf_counter() - started)
    return min(seconds), rows


def measure(engine, path, runs):
    started = time.perf_counter()
    try:
        peer = {"duckdb": DuckDb, "polars": Polars}[engine](path)
    except ImportError as error:
        return {"missing": str(error)}
    answer = {"version": peer.version, "load_seconds": time.perf_counter() - started, "queries": {}}
    for query, sql in {"q1": Q1, "q6": Q6}.items():
        seconds, rows = best(peer, sql, runs)
        compared = [[unscaled(row[position], digits) for position, digits in COMPARED[query]] for row in rows]
        answer["queries"][query] = {"seconds": seconds, "rows": compared}
    return answer


def main():
    engine, path, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])
    # Engines log as they like: the pipe is for the answer alone.
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        answer = measure(engine, path, runs)
    except Exception as error:  # the benchmark prints it
        answer = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
    print(json.dumps(answer), file=pipe, flush=True)


if __name__ == "__main__":
    main()
