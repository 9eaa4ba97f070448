"""Compares answers of Bowshot, fetched through ADBC, with DuckDB's over the same Parquet files.

Integers, decimals, dates and strings must be equal; doubles within 1e-9 relative. Rows are compared in order where the query orders
them, as sorted lists where it does not (ties under ORDER BY are broken by comparing sorted lists too).
"""

import datetime
import decimal
import glob
import math
import os
import re

import adbc_driver_flightsql.dbapi as flight_sql
import duckdb

TPCH_TABLES = ["nation", "region", "part", "supplier", "partsupp", "customer", "orders", "lineitem"]


def connect(uri, **options):
    """An ADBC connection; `options` are session settings such as kernel="host"."""
    connection = flight_sql.connect(uri, autocommit=True)
    for name, value in options.items():
        with connection.cursor() as cursor:
            cursor.execute(f"SET bowshot.{name} = '{value}'")
    return connection


def duckdb_over(data_dir, tables):
    """DuckDB with one view a table over `data_dir/*/<table>/*.parquet`."""
    peer = duckdb.connect()
    for table in tables:
        pattern = os.path.join(data_dir, "*", table, "*.parquet")
        if not glob.glob(pattern):
            raise SystemExit(f"no Parquet files match {pattern}")
        peer.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{pattern}')")
    return peer


def rows_of(connection, sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def same_value(ours, theirs):
    if ours is None or theirs is None:
        return ours is None and theirs is None
    if isinstance(ours, float) or isinstance(theirs, float):
        a, b = float(ours), float(theirs)
        if math.isnan(a) or math.isnan(b):
            return math.isnan(a) and math.isnan(b)
        return a == b or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(ours, datetime.datetime) != isinstance(theirs, datetime.datetime):
        return str(ours)[:10] == str(theirs)[:10]
    return ours == theirs


def same_average(ours, theirs):
    """DuckDB averages decimals as doubles; ours is a decimal of six digits: equal when the double, to its last digit, rounds to it."""
    if isinstance(ours, decimal.Decimal) and isinstance(theirs, float):
        step = decimal.Decimal(1).scaleb(ours.as_tuple().exponent)
        return abs(ours - decimal.Decimal(theirs)) <= max(step, decimal.Decimal(math.ulp(theirs)))
    return same_value(ours, theirs)


def sort_key(row):
    return tuple((value is None, round(float(value), 6) if isinstance(value, (float, decimal.Decimal, int)) else str(value)) for value in row)


def difference(ours, theirs):
    """None when the answers agree, else a sentence about the first difference."""
    if len(ours) != len(theirs):
        return f"{len(ours)} rows against {len(theirs)}"
    for number, (mine, peer) in enumerate(zip(sorted(ours, key=sort_key), sorted(theirs, key=sort_key))):
        if len(mine) != len(peer):
            return f"{len(mine)} columns against {len(peer)}"
        for column, (a, b) in enumerate(zip(mine, peer)):
            if not same_average(a, b):
                return f"row {number}, column {column}: {a!r} against {b!r}"
    return None


def tpch_queries(folder):
    """(name, SQL) of the 22 queries."""
    for path in sorted(glob.glob(os.path.join(folder, "q[0-9][0-9].sql"))):
        name = re.sub(r"\.sql$", "", os.path.basename(path))
        with open(path, encoding="utf-8") as file:
            yield name, file.read().strip().rstrip(";")
