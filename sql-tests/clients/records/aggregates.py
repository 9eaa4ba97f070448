"""Aggregates and windows, with all that may stand beside them."""

from records import dealt, each

BY_TYPE = {
    "i": ["sum", "min", "max", "avg", "count", "bit_and", "bit_or"],
    "j": ["sum", "min", "max", "avg", "count"],
    "sm": ["sum", "min", "max", "avg", "bit_xor"],
    "u": ["sum", "min", "max"],
    "p": ["sum", "min", "max", "count"],
    "q": ["sum", "min", "max"],
    "f": ["sum", "min", "max", "avg", "count"],
    "s": ["min", "max", "count"],
    "d": ["min", "max", "count"],
    "ts": ["min", "max", "count"],
    "b": ["bool_and", "bool_or", "count"],
}
PLACES = [
    "SELECT {} AS x FROM things",
    "SELECT k, {} AS x FROM things GROUP BY k ORDER BY k NULLS LAST",
    "SELECT {} AS x FROM nothing",
    "SELECT {} AS x FROM things WHERE i > 100",
    "SELECT k, {} AS x FROM things WHERE i > 1 GROUP BY k ORDER BY k NULLS LAST",
    "SELECT b, k % 2 AS odd, {} AS x FROM things GROUP BY b, k % 2",
    "SELECT k FROM things GROUP BY k HAVING {} IS NOT NULL ORDER BY k NULLS LAST",
]
FILTERS = ["k > 2", "i IS NULL", "b", "s LIKE 'a%'", "id > 100", "d > DATE '2024-01-01' OR i > 0"]


def calls():
    return [f"{function}({column})" for column, functions in BY_TYPE.items() for function in functions]


def aggregates():
    queries = []
    for number, call in enumerate(calls()):
        # Of all rows, of groups, and in two of the other places in turn.
        others = PLACES[2:]
        places = [*PLACES[:2], others[number % len(others)], others[(number + 2) % len(others)]]
        queries += [place.format(call) for place in places]
    for call, condition, place in dealt(calls(), FILTERS, PLACES[:2]):
        queries.append(place.format(f"{call} FILTER (WHERE {condition})"))
    for condition, call, place in dealt(FILTERS * 4, calls()[3:], PLACES[1:3] + PLACES[:1]):
        queries.append(place.format(f"{call} FILTER (WHERE {condition})"))
    return list(dict.fromkeys(queries))


def composed():
    queries = each("SELECT [0] AS x FROM things", [
        "count(*)", "count(*) - count(i)", "sum(i) + sum(j)", "sum(i + j)", "sum(i) * 1.5", "max(i) - min(i)", "CAST(sum(p) / 4 AS DOUBLE)", "sum(p * 2)", "sum(i * p)", "sum(q + p)",
        "sum(CASE WHEN b THEN i ELSE -i END)", "sum(CASE WHEN k = 1 THEN 1 ELSE 0 END)", "count(CASE WHEN k = 1 THEN 1 END)", "sum(CASE k WHEN 1 THEN p WHEN 2 THEN q END)",
        "sum(coalesce(i, 100))", "max(coalesce(s, 'zzz'))", "min(nullif(i, -5))", "sum(abs(i))", "max(length(s))", "sum(length(s))", "max(upper(s))", "min(d + 1)",
        "sum(i) FILTER (WHERE j > 0) - sum(i) FILTER (WHERE j < 0)", "count(*) FILTER (WHERE NOT b)", "count(*) FILTER (WHERE NULL)", "sum(1)", "sum(NULL::INTEGER)",
        "max(NULL::INTEGER)", "count(NULL)", "bool_and(i > -10)", "bool_or(i > 10)", "sum(k) % 7", "round(CAST(avg(p) AS DOUBLE), 4)", "round(CAST(avg(q) AS DOUBLE), 4)",
        "round(avg(i), 6)", "avg(i * 2)", "round(stddev(i), 8)", "round(stddev_pop(i), 8)", "round(var_samp(j), 6)", "round(var_pop(f), 6)", "round(corr(i, j), 8)",
        "round(covar_pop(i, j), 8)", "round(covar_samp(k, i), 8)", "round(regr_slope(i, j), 8)", "round(regr_r2(i, j), 8)", "regr_count(i, j)", "median(i)", "median(f)",
    ])  # fmt: skip
    queries += each("SELECT k, [0] AS x FROM things GROUP BY k ORDER BY k NULLS LAST", [
        "count(*)", "count(*) - count(i)", "sum(i) + max(j)", "max(i) - min(i)", "sum(i * p)", "sum(CASE WHEN b THEN i ELSE -i END)", "count(CASE WHEN i > 0 THEN 1 END)",
        "sum(i) FILTER (WHERE j > 0)", "round(avg(j), 6)", "round(stddev(i), 8)", "max(s) || '!'", "min(coalesce(s, 'none'))", "sum(i) > 0", "CASE WHEN sum(i) > 0 THEN 'up' ELSE 'down' END",
        "round(CAST(avg(p) AS DOUBLE), 4)", "count(DISTINCT i) + count(DISTINCT s)", "sum(sum(i)) OVER (ORDER BY k NULLS LAST)", "rank() OVER (ORDER BY sum(j) NULLS LAST)", "median(i)",
    ])  # fmt: skip
    queries += each("SELECT [0] AS x FROM things", [
        "string_agg(s, ',' ORDER BY id)", "string_agg(s, ',' ORDER BY id DESC)", "string_agg(s, '-' ORDER BY k NULLS LAST, id)", "string_agg(CAST(i AS VARCHAR), ';' ORDER BY i, id)",
        "string_agg(s, ',' ORDER BY id) FILTER (WHERE k = 2)", "string_agg(s, ',') FILTER (WHERE id > 100)", 
        "array_length(array_agg(i ORDER BY id))", "array_to_string(array_agg(k ORDER BY id), ',')",
        "array_to_string(array_agg(DISTINCT k ORDER BY k), ',')",
    ])  # fmt: skip
    queries += each("SELECT k, [0] AS x FROM things GROUP BY k ORDER BY k NULLS LAST", [
        "string_agg(s, ',' ORDER BY id)", "string_agg(s, ',' ORDER BY s DESC, id)", "array_to_string(array_agg(i ORDER BY id DESC), ',')",
        "string_agg(s, '/' ORDER BY id) FILTER (WHERE i > 0)",
    ])  # fmt: skip
    queries += [
        "SELECT o_orderpriority, count(*) AS n, sum(o_totalprice) AS total, min(o_orderdate) AS first FROM orders GROUP BY o_orderpriority",
        "SELECT sum(o_totalprice) FILTER (WHERE o_orderstatus = 'P') AS x, count(DISTINCT o_clerk) AS clerks FROM orders WHERE o_orderdate < DATE '1995-01-01'",
        "SELECT max(n) AS n FROM (SELECT o_custkey, count(*) AS n FROM orders GROUP BY o_custkey) x",
        "SELECT n, count(*) AS customers FROM (SELECT o_custkey, count(*) AS n FROM orders GROUP BY o_custkey) x GROUP BY n ORDER BY n LIMIT 6",
        "SELECT avg(n) AS n FROM (SELECT count(*) AS n FROM things GROUP BY k) x",
        "SELECT sum(x) AS x FROM (SELECT i AS x FROM things UNION ALL SELECT k FROM pairs) y",
        "SELECT count(*) AS n FROM (SELECT 1 FROM things LIMIT 7) x",
    ]
    return queries


RANKING = ["row_number()", "rank()", "dense_rank()", "percent_rank()", "cume_dist()", "ntile(3)", "ntile(5)", "lag(i)", "lag(i, 2)", "lag(i, 1, 0)", "lead(j)", "lead(i, 2, -9)", "lag(s)", "lead(s, 1, 'none')", "lead(p, 3)", "lag(d)"]
ORDERS = ["ORDER BY id", "PARTITION BY k ORDER BY id", "PARTITION BY k ORDER BY i NULLS LAST, id", "PARTITION BY b ORDER BY j DESC NULLS LAST, id", "ORDER BY s NULLS FIRST, id DESC", "PARTITION BY k % 2, b ORDER BY d NULLS LAST, id"]
FRAMED = ["sum(i)", "count(*)", "count(i)", "min(j)", "max(s)", "sum(p)", "avg(i)", "first_value(i)", "last_value(i)", "nth_value(i, 2)", "bool_or(b)", "sum(f)", "max(d)", "count(DISTINCT k)"]
FRAMES = [
    "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW", "ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING", "ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING",
    "ROWS BETWEEN 1 FOLLOWING AND 3 FOLLOWING", "ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING", "ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
    "ROWS 2 PRECEDING", "RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW", "RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING",
    "GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW", "GROUPS BETWEEN CURRENT ROW AND 1 FOLLOWING", "GROUPS BETWEEN 2 PRECEDING AND 1 PRECEDING",
]  # fmt: skip
FRAME_ORDERS = ["PARTITION BY k ORDER BY id", "ORDER BY j NULLS LAST, id", "PARTITION BY b ORDER BY i NULLS FIRST, id DESC", "ORDER BY id DESC"]
RANGES = ["RANGE BETWEEN 2 PRECEDING AND 2 FOLLOWING", "RANGE BETWEEN 3 PRECEDING AND CURRENT ROW", "RANGE BETWEEN 1 FOLLOWING AND 4 FOLLOWING", "RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING"]


def windows():
    queries = [f"SELECT id, {function} OVER ({order}) AS x FROM things ORDER BY id" for function in RANKING for order in ORDERS[:4]]
    queries += [f"SELECT id, {function} OVER ({order}) AS x FROM things ORDER BY id LIMIT 9" for function in RANKING[:3] for order in ORDERS[4:]]
    queries += each("SELECT id, [0] OVER ([1]) AS x FROM things ORDER BY id", FRAMED[:7] + ["bool_or(b)"], ["", "PARTITION BY k"])
    for number, function in enumerate(FRAMED):
        for place, frame in enumerate(FRAMES):
            order = FRAME_ORDERS[(number + place) % len(FRAME_ORDERS)]
            if "DISTINCT" not in function or "ROWS BETWEEN UNBOUNDED" in frame:
                queries.append(f"SELECT id, {function} OVER ({order} {frame}) AS x FROM things ORDER BY id")
    for function in ("sum(j)", "count(*)", "min(i)"):
        queries += [f"SELECT id, {function} OVER (ORDER BY i {frame}) AS x FROM things WHERE i IS NOT NULL ORDER BY id" for frame in RANGES]
        queries += [f"SELECT id, {function} OVER (PARTITION BY b ORDER BY k {frame}) AS x FROM things WHERE k IS NOT NULL AND id < 16 ORDER BY id" for frame in RANGES]
    queries += each("SELECT id, [0] OVER (ORDER BY d RANGE BETWEEN INTERVAL '[1]' DAY PRECEDING AND CURRENT ROW) AS x FROM things WHERE d IS NOT NULL ORDER BY id", ["count(*)", "sum(i)", "max(j)"], [1, 7])
    queries += each("SELECT id, [0] OVER (ORDER BY p RANGE BETWEEN 1.5 PRECEDING AND 0.5 FOLLOWING) AS x FROM things WHERE p IS NOT NULL ORDER BY id", ["count(*)", "sum(i)", "min(p)"])
    queries += each("SELECT id, [0] FILTER (WHERE [1]) OVER ([2]) AS x FROM things ORDER BY id", ["count(*)", "sum(i)", "max(s)"], ["b", "j > 0", "s LIKE 'a%'"], ["PARTITION BY k", "ORDER BY id ROWS 3 PRECEDING"])
    queries += each("SELECT id, [0] IGNORE NULLS) OVER ([1]) AS x FROM things ORDER BY id", ["first_value(i", "last_value(i", "lag(i", "lead(j, 2", "nth_value(i, 2", "first_value(s", "lag(d, 2"], [
        "PARTITION BY k ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING", "ORDER BY id", "PARTITION BY b ORDER BY id DESC",
    ])  # fmt: skip
    return queries


def window_places():
    return [
        "SELECT id, sum(i) OVER w AS x, count(*) OVER w AS n FROM things WINDOW w AS (PARTITION BY k ORDER BY id) ORDER BY id",
        "SELECT id, sum(i) OVER (w ROWS 1 PRECEDING) AS x FROM things WINDOW w AS (PARTITION BY k ORDER BY id) ORDER BY id",
        "SELECT id, i - lag(i) OVER (ORDER BY id) AS change FROM things ORDER BY id",
        "SELECT id, sum(i) OVER (PARTITION BY k) * 100 / nullif(sum(i) OVER (), 0) AS share FROM things ORDER BY id",
        "SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY k ORDER BY j DESC NULLS LAST, id) AS n FROM things) x WHERE n = 1 ORDER BY id",
        "SELECT k, id FROM (SELECT k, id, rank() OVER (PARTITION BY k ORDER BY i NULLS LAST) AS n FROM things) x WHERE n <= 2 ORDER BY k NULLS LAST, id",
        "SELECT id, row_number() OVER (ORDER BY id) AS a, row_number() OVER (ORDER BY id DESC) AS b, rank() OVER (PARTITION BY b ORDER BY id) AS c FROM things ORDER BY id LIMIT 8",
        "SELECT id FROM things QUALIFY row_number() OVER (PARTITION BY k ORDER BY id) = 2 ORDER BY id",
        "SELECT k, sum(i) AS x, rank() OVER (ORDER BY sum(i) DESC NULLS LAST) AS n FROM things GROUP BY k ORDER BY n, k",
        "SELECT k, count(*) AS n, sum(count(*)) OVER () AS total FROM things GROUP BY k ORDER BY k NULLS LAST",
        "SELECT id, CASE WHEN row_number() OVER (ORDER BY id) % 2 = 0 THEN 'even' ELSE 'odd' END AS x FROM things ORDER BY id LIMIT 5",
        "SELECT id, max(i) OVER (PARTITION BY k) = i AS is_most FROM things ORDER BY id",
        "SELECT id, sum(sum(i)) OVER (ORDER BY id) AS x FROM things GROUP BY id ORDER BY id LIMIT 10",
        "SELECT id FROM things ORDER BY row_number() OVER (PARTITION BY k ORDER BY id), id LIMIT 6",
        "SELECT DISTINCT k, count(*) OVER (PARTITION BY k) AS n FROM things",
        "SELECT count(*) AS n FROM (SELECT sum(i) OVER (ORDER BY id) AS x FROM things) y WHERE x > 5",
        "SELECT t.id, row_number() OVER (PARTITION BY o.k ORDER BY t.id, o.id) AS n FROM things t JOIN pairs o ON t.k = o.k WHERE t.id < 6 ORDER BY t.id, o.id",
        "SELECT id, first_value(id) OVER (PARTITION BY k ORDER BY i DESC NULLS LAST, id) AS top FROM things ORDER BY id",
        "SELECT id, sum(i) OVER (ORDER BY k NULLS LAST) AS x FROM things ORDER BY id",
        "SELECT id, count(*) OVER (ORDER BY k, b) AS x FROM things WHERE k IS NOT NULL AND b IS NOT NULL ORDER BY id",
        "SELECT id, sum(i) OVER () AS x FROM nothing",
        "SELECT sum(i) OVER () AS x, count(*) OVER (PARTITION BY k) AS n FROM things WHERE id > 100",
        "SELECT o_orderkey, sum(o_totalprice) OVER (PARTITION BY o_custkey ORDER BY o_orderkey) AS x FROM orders WHERE o_custkey < 20 ORDER BY o_orderkey LIMIT 12",
        "SELECT o_custkey, o_orderkey FROM (SELECT *, row_number() OVER (PARTITION BY o_custkey ORDER BY o_totalprice DESC) AS n FROM orders) x WHERE n = 1 AND o_custkey < 30 ORDER BY 1",
        "SELECT count(*) AS n, sum(n) AS m FROM (SELECT dense_rank() OVER (ORDER BY o_custkey) AS n FROM orders) x",
        ("SELECT id FROM things WHERE row_number() OVER (ORDER BY id) = 1", "."),
        ("SELECT sum(i) OVER (ORDER BY id ROWS BETWEEN 1 FOLLOWING AND 1 PRECEDING) FROM things", "."),
        ("SELECT rank() FILTER (WHERE b) OVER (ORDER BY id) FROM things", "."),
        ("SELECT lag(DISTINCT i) OVER (ORDER BY id) FROM things", "."),
    ]


def scripts():
    return [
        ("aggregates/by_type", "Every aggregate over every type, of all rows, of groups, of none, with FILTER.", aggregates()),
        ("aggregates/composed", "Aggregates of expressions, beside each other, in an order.", composed()),
        ("windows/functions", "Window functions over every kind of frame, with FILTER and IGNORE NULLS.", windows()),
        ("windows/places", "Windows named, nested, beside groups and in other places than SELECT.", window_places()),
    ]
