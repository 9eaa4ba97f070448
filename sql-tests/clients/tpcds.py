"""TPC-DS over a cluster: generates the tables with DuckDB, deals their files to nodes, and compares the 99 answers with DuckDB's.

    python sql-tests/clients/tpcds.py --scale 1 --workers 3 5 --copies 1 2

runs them on each of the four clusters, with a line a query and a summary; it exits 1 where a query does not answer as DuckDB does.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import itertools
import os
import pathlib
import re
import shutil
import sys
import tempfile
import time

import answers
import cluster
import duckdb
import duckdb_extension_tpcds

TABLES = [
    "call_center", "catalog_page", "catalog_returns", "catalog_sales", "customer", "customer_address", "customer_demographics", "date_dim",
    "household_demographics", "income_band", "inventory", "item", "promotion", "reason", "ship_mode", "store", "store_returns", "store_sales",
    "time_dim", "warehouse", "web_page", "web_returns", "web_sales", "web_site",
]  # fmt: skip
QUERIES = 99
# Small tables are split too: no node has all of one. Never more files than rows.
FILES_OF_A_SMALL_TABLE, FILES_OF_A_LARGE_TABLE, LARGE_ROWS = 5, 10, 100_000
# Cut into ranges, as loads by date leave them: statistics of files then prune. The rows of all others are dealt one by one, so that what
# belongs together never lies together.
IN_RANGES = {"store_sales", "inventory"}
# A new number when files are made otherwise: kept ones are then made again.
LAYOUT = 1
# The slowest, q72, joins in the order in which it is written: minutes at scale 1 on two cores.
QUERY_SECONDS = 900
# What both engines are asked instead, as (pattern, replacement, how often). A quotient of decimals is a decimal of limited digits here and
# a double in DuckDB, and so is an average; where a query multiplies, sums or sorts by quotients the lost digits grow, so the quotient is of doubles for both.
REWRITES = {
    "q57": [(r"(?i)avg\(sum\(cs_sales_price\)\)", "avg(CAST(sum(cs_sales_price) AS DOUBLE))", 1)],
    "q58": [(r"(\w\w_item_rev)/\(\(", r"CAST(\1 AS DOUBLE)/((", 3)],
    "q61": [(r"cast\(promotions AS decimal\(15,4\)\)/", "CAST(promotions AS DOUBLE)/", 1)],
    "q66": [(r"sum\((\w{3}_sales)/w_warehouse_sq_ft\)", r"sum(CAST(\1 AS DOUBLE)/w_warehouse_sq_ft)", 12)],
    "q83": [(r"\((\w\w_item_qty)\*1\.0000\)/", r"CAST(\1 AS DOUBLE)/", 3)],
}


def duckdb_with_tpcds():
    """A new DuckDB in memory that can generate TPC-DS. The extension comes with its package and is signed by DuckDB's makers."""
    [extension] = pathlib.Path(duckdb_extension_tpcds.__file__).parent.glob("extensions/*/tpcds.duckdb_extension")
    peer = duckdb.connect()
    peer.execute(f"LOAD '{extension}'")
    return peer


def queries():
    """The text of every query by its name, rewritten where REWRITES says so."""
    asked = {}
    for number, text in duckdb_with_tpcds().execute("FROM tpcds_queries()").fetchall():
        name, text = f"q{number:02}", text.strip().rstrip(";")
        for pattern, replacement, times in REWRITES.get(name, []):
            text, found = re.subn(pattern, replacement, text)
            assert found == times, f"{name}: {pattern} is there {found} times, not {times}"
        asked[name] = text
    assert len(asked) == QUERIES
    return asked


def file_count(rows):
    return max(1, min(rows, FILES_OF_A_LARGE_TABLE if rows >= LARGE_ROWS else FILES_OF_A_SMALL_TABLE))


def generated(cache, scale):
    """`<cache>/scale-<scale>/files/<table>/<number>.parquet`, made on the first call."""
    folder = pathlib.Path(cache) / f"scale-{scale:g}-layout-{LAYOUT}"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when it is complete: what an interrupted run left is never taken for the data.
    unfinished = pathlib.Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}-"))
    try:
        peer = duckdb_with_tpcds()
        peer.execute(f"CALL dsdgen(sf={scale})")
        for table in TABLES:
            target = unfinished / "files" / table
            target.mkdir(parents=True)
            [(rows,)] = peer.execute(f"SELECT count(*) FROM {table}").fetchall()
            count = file_count(rows)
            for number in range(count):
                part = f"rowid * {count} // {rows}" if table in IN_RANGES else f"rowid % {count}"
                file = target / f"{number}.parquet"
                peer.execute(f"COPY (SELECT * FROM {table} WHERE {part} = {number}) TO '{file}' (FORMAT parquet)")
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def deal(folder, target, nodes, copies):
    """Links every generated file into `<target>/<node>/<table>/` of as many nodes as it has copies; a table begins where the last one ended."""
    assert 1 <= copies <= len(nodes), f"{copies} copies on {len(nodes)} nodes"
    turn = 0
    for table in TABLES:
        for file in sorted((folder / "files" / table).iterdir()):
            for copy in range(copies):
                home = target / nodes[(turn + copy) % len(nodes)] / table
                home.mkdir(parents=True, exist_ok=True)
                os.link(file, home / file.name)
            turn += 1


def start(data, folder, nodes):
    """A cluster over dealt files, with all tables."""
    regions = ["eu", "us"]
    workers = [cluster.Node(node, {"data": data / node}, regions[place % 2], kernel_device="off") for place, node in enumerate(nodes)]
    running = cluster.Cluster(folder, workers, default_schema="tpcds")
    try:
        # All at once: each waits for the next heartbeat of the workers.
        with concurrent.futures.ThreadPoolExecutor(len(TABLES)) as pool:
            list(pool.map(lambda table: running.create_table(f"tpcds.{table}", f"node://*/data/{table}/"), TABLES))
    except BaseException:
        running.end()
        raise
    return running


def duckdb_over(folder):
    """DuckDB with the rows of the generated files, read once, and NULLs where standard SQL and Bowshot put them when a query does not say."""
    peer = duckdb.connect()
    for table in TABLES:
        peer.execute(f"CREATE TABLE {table} AS FROM read_parquet('{folder}/files/{table}/*.parquet')")
    peer.execute("SET default_null_order = 'NULLS_LAST_ON_ASC_FIRST_ON_DESC'")
    return peer


@dataclasses.dataclass
class Outcome:
    """How a query went: `ok`, `wrong` or `error`, with what was found."""

    state: str
    text: str
    seconds: float


def outcome(running, sql, expected):
    started = time.monotonic()
    try:
        rows = running.rows(sql, query_timeout_ms=QUERY_SECONDS * 1000)
    except Exception as error:  # the text a user sees is part of the report
        return Outcome("error", str(error), time.monotonic() - started)
    seconds = time.monotonic() - started
    found = answers.difference_in_order(rows, expected)
    return Outcome("wrong" if found else "ok", found or f"{len(rows)} rows", seconds)


def run(folder, scale, workers, copies, asked, expected):
    """Every query on a cluster of its own over newly dealt files, with a printed line each: whether all were right."""
    nodes = [f"node-{number}" for number in range(1, workers + 1)]
    states = {}
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        scratch = pathlib.Path(scratch)
        deal(folder, scratch / "nodes", nodes, copies)
        with start(scratch / "nodes", scratch / "cluster", nodes) as running:
            for name, sql in asked.items():
                done = outcome(running, sql, expected(name))
                states.setdefault(done.state, []).append(name)
                print(f"{name} {done.state:5} {done.seconds:7.2f} s  {done.text}", flush=True)
    counted = ", ".join(f"{len(names)} {state}" for state, names in sorted(states.items()))
    print(f"scale {scale:g}, {workers} workers, {copies} of each file: {counted}, in {time.monotonic() - started:.0f} s", flush=True)
    return set(states) == {"ok"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default=1, type=float, help="scale factor of the data (default 1)")
    parser.add_argument("--workers", type=int, nargs="+", default=[3], help="how many workers, or several such numbers (default 3)")
    parser.add_argument("--copies", type=int, nargs="+", default=[1], help="how many workers hold each file, or several such numbers (default 1)")
    parser.add_argument("--data", default=cluster.REPOSITORY / ".bowshot" / "tpcds", type=pathlib.Path, help="where generated files are kept")
    parser.add_argument("--queries", nargs="+", help="names such as q01 (default all)")
    options = parser.parse_args()
    asked = queries()
    if options.queries:
        if unknown := set(options.queries) - set(asked):
            parser.error(f"no such queries: {sorted(unknown)}")
        asked = {name: asked[name] for name in options.queries}
    started = time.monotonic()
    folder = generated(options.data, options.scale)
    peer = duckdb_over(folder)
    print(f"scale {options.scale:g} in {folder}, ready after {time.monotonic() - started:.1f} s", flush=True)
    expected = functools.cache(lambda name: answers.expected_in_order(peer, asked[name]))
    # All shapes are run, whatever came of the first.
    right = [run(folder, options.scale, workers, copies, asked, expected) for workers, copies in itertools.product(options.workers, options.copies)]
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
