"""check_demo.py URI DATA_DIR: runs the 22 TPC-H queries on a running demo and compares every answer with DuckDB's.

BOWSHOT_DEMO_KERNEL names the kernels to run them with, separated by commas (default auto). Exits 0 when all agree, 1 with the differences otherwise.
"""

import os
import sys
import time

import answers


def main():
    uri, data_dir = sys.argv[1:]
    kernels = os.environ.get("BOWSHOT_DEMO_KERNEL", "auto").split(",")
    queries = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "datasets", "queries", "tpch")
    peer = answers.duckdb_over(data_dir, answers.TPCH_TABLES)
    expected = {name: peer.execute(sql).fetchall() for name, sql in answers.tpch_queries(queries)}
    if len(expected) != 22:
        print(f"expected 22 queries below {queries}, found {len(expected)}")
        return 1
    wrong = 0
    for kernel in kernels:
        started = time.monotonic()
        with answers.connect(uri, kernel=kernel) as connection:
            for name, sql in answers.tpch_queries(queries):
                try:
                    found = answers.difference(answers.rows_of(connection, sql), expected[name])
                except Exception as error:  # the text a user sees is part of the report
                    found = f"failed: {error}"
                if found:
                    wrong += 1
                    print(f"{name} kernel={kernel}: {found}")
        print(f"kernel={kernel}: {len(expected)} queries compared with DuckDB in {time.monotonic() - started:.1f} s, {wrong} wrong so far")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
