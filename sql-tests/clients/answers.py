"""Compares answers of Bowshot, fetched through ADBC, with DuckDB's over the same Parquet files.

Integers, decimals, dates and strings must be equal; doubles within 1e-9 relative. `difference` compares rows as sorted lists;
`difference_in_order` holds them to the query's ORDER BY and LIMIT too, and leaves free only what these leave open.
"""

import dataclasses
import datetime
import decimal
import glob
import json
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
    """DuckDB averages and divides decimals as doubles, ours are decimals. They are equal within a unit of ours, or within eight of the double's last
    place: its sums are doubles too, and a quotient of two of them is rounded three times."""
    if isinstance(ours, decimal.Decimal) and isinstance(theirs, float):
        step = decimal.Decimal(1).scaleb(ours.as_tuple().exponent)
        return abs(ours - decimal.Decimal(theirs)) <= max(step, 8 * decimal.Decimal(math.ulp(theirs)))
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


@dataclasses.dataclass
class Expected:
    """DuckDB's answer without the query's LIMIT, as runs of rows that its ORDER BY does not tell apart."""

    runs: list
    limit: int | None

    def count(self):
        rows = sum(len(run) for run in self.runs)
        return rows if self.limit is None else min(rows, self.limit)


def expected_in_order(peer, sql):
    """Asks DuckDB for everything that `sql` would answer without its LIMIT, and for the keys of its ORDER BY beside every row."""
    [(text,)] = peer.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    tree = json.loads(text)
    node = tree["statements"][0]["node"]
    names = [column[0] for column in peer.execute(f"SELECT * FROM ({sql}) LIMIT 0").description]
    limit, places, added = None, [], []
    for modifier in node["modifiers"]:
        if modifier["type"] == "LIMIT_MODIFIER":
            assert modifier["offset"] is None, sql
            limit = modifier["limit"]["value"]["value"]
        elif modifier["type"] == "ORDER_MODIFIER":
            for order in modifier["orders"]:
                key = order["expression"]
                if key["class"] == "CONSTANT":
                    places.append(key["value"]["value"] - 1)
                elif key["class"] == "COLUMN_REF" and len(key["column_names"]) == 1 and key["column_names"][0] in names:
                    places.append(names.index(key["column_names"][0]))
                else:
                    places.append(len(names) + len(added))
                    added.append({**key, "alias": f"order_key_{len(added)}"})
    node["modifiers"] = [modifier for modifier in node["modifiers"] if modifier["type"] != "LIMIT_MODIFIER"]
    node["select_list"] += added
    [(unlimited,)] = peer.execute("SELECT json_deserialize_sql(?)", [json.dumps(tree)]).fetchall()
    runs, last = [], None
    for row in peer.execute(unlimited).fetchall():
        keys = [row[place] for place in places]
        if last is None or not all(same_value(a, b) for a, b in zip(keys, last)):
            runs.append([])
        runs[-1].append(row[: len(names)])
        last = keys
    return Expected(runs, limit)


def difference_in_order(ours, expected):
    """None when the answers agree, else a sentence about the first difference. Within a run of equal keys any order is right, and where
    LIMIT cuts a run any of its rows, each as often as it is there."""
    if len(ours) != expected.count():
        return f"{len(ours)} rows against {expected.count()}"
    start = 0
    for run in expected.runs:
        mine = ours[start : start + len(run)]
        found = difference(mine, run) if len(mine) == len(run) else outside(mine, run)
        if found:
            return f"from row {start} on, where {len(run)} have equal keys: {found}"
        start += len(run)
    return None


def outside(ours, theirs):
    """None when each of our rows is one of theirs, a row of its own, else a sentence about one that is not."""
    left = list(theirs)
    for mine in ours:
        match = next((number for number, peer in enumerate(left) if len(mine) == len(peer) and all(map(same_average, mine, peer))), None)
        if match is None:
            return f"{mine!r} is not among theirs"
        left.pop(match)
    return None


def tpch_queries(folder):
    """(name, SQL) of the 22 queries."""
    for path in sorted(glob.glob(os.path.join(folder, "q[0-9][0-9].sql"))):
        name = re.sub(r"\.sql$", "", os.path.basename(path))
        with open(path, encoding="utf-8") as file:
            yield name, file.read().strip().rstrip(";")
