"""duckdb_peer.py DATA parquet|memory: answers benchmark queries, one JSON line each way.

Reads {"sql", "answer"}; runs the query, writes the rows to `answer` as an Arrow file outside the measured time, and prints {"seconds", "rows"}.
"""

import glob
import json
import os
import sys
import time

import duckdb
import pyarrow

TABLES = ["nation", "region", "part", "supplier", "partsupp", "customer", "orders", "lineitem"]


def main():
    data, form = sys.argv[1:]
    engine = duckdb.connect()
    engine.execute(f"SET threads = {os.cpu_count()}")
    for table in TABLES:
        pattern = os.path.join(data, "*", table, "*.parquet")
        kind = "TABLE" if form == "memory" else "VIEW"
        if glob.glob(pattern):
            engine.execute(f"CREATE {kind} {table} AS SELECT * FROM read_parquet('{pattern}')")
    print("{}", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            started = time.perf_counter()
            rows = engine.sql(request["sql"]).to_arrow_table()
            seconds = time.perf_counter() - started
            with pyarrow.OSFile(request["answer"], "wb") as sink, pyarrow.ipc.new_file(sink, rows.schema) as writer:
                writer.write_table(rows)
            print(json.dumps({"seconds": seconds, "rows": rows.num_rows}), flush=True)
        except Exception as error:  # the benchmark prints it beside the query
            print(json.dumps({"error": str(error)}), flush=True)


if __name__ == "__main__":
    main()
