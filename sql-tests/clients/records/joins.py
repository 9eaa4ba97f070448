"""Joins, set operations, grouping sets and DISTINCT."""

from records import dealt, each

KINDS = ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]
KEYS = ["t.k = o.k", "t.i = o.i", "t.p = o.p", "t.s = o.s", "t.d = o.d", "t.f = o.r", "t.k = o.i AND t.s = o.s", "t.i IS NOT DISTINCT FROM o.i", "t.sm = o.k"]
RESIDUES = ["o.id > 4", "t.j > o.i", "t.s <> o.s", "t.b", "o.i IS NULL", "t.id + o.id < 20"]


def joins():
    queries = []
    for kind in KINDS:
        for key in KEYS:
            queries.append(f"SELECT t.id, o.id AS other FROM things t {kind} pairs o ON {key}")
            queries.append(f"SELECT count(*) AS n, count(t.id) AS ours, count(o.id) AS theirs, sum(t.i) AS x, sum(o.i) AS y FROM things t {kind} pairs o ON {key}")
        for key, residue in dealt(KEYS, RESIDUES) + dealt(RESIDUES, KEYS[1:] + KEYS[:1]):
            key, residue = (key, residue) if key in KEYS else (residue, key)
            queries.append(f"SELECT t.id, o.id AS other FROM things t {kind} pairs o ON {key} AND {residue}")
        queries += each(f"SELECT t.id, o.id AS other FROM things t {kind} pairs o ON [0] WHERE [1]", ["t.k = o.k"], ["o.id IS NULL", "t.id IS NULL", "t.id < 6 OR o.id < 3"])
        queries += each(f"SELECT t.id, o.id AS other FROM things t {kind} pairs o ON [0]", ["t.i < o.i AND t.id < 7", "t.id = 3", "t.k > o.k AND o.id < 4", "false", "t.i = o.i OR t.k = o.k"])
        queries += [
            f"SELECT count(*) AS n FROM things t {kind} nothing o ON t.k = o.k",
            f"SELECT count(*) AS n FROM nothing t {kind} things o ON t.k = o.k",
            f"SELECT k, count(*) AS n FROM things {kind} pairs USING (k) GROUP BY k ORDER BY k NULLS LAST",
            f"SELECT t.k, min(o.s) AS s, max(t.p) AS p FROM things t {kind} pairs o ON t.k = o.k AND o.i > 0 GROUP BY t.k ORDER BY t.k NULLS FIRST",
            f"SELECT a.id, b.id AS b, c.id AS c FROM things a {kind} pairs b ON a.i = b.i {kind} pairs c ON b.k = c.k AND c.id < 5 WHERE a.id < 8 OR a.id IS NULL",
        ]
    queries += [
        "SELECT count(*) AS n, sum(t.id * o.id) AS x FROM things t CROSS JOIN pairs o",
        "SELECT count(*) AS n FROM things a, pairs b, nation c WHERE a.k = b.k AND c.n_nationkey = a.i",
        "SELECT t.id, n_name FROM things t JOIN nation ON n_nationkey = t.i + 5 WHERE t.id < 9 ORDER BY t.id",
        "SELECT a.id, b.id AS other FROM things a JOIN things b ON a.i = b.i AND a.id < b.id ORDER BY a.id, b.id",
        "SELECT a.k, count(*) AS n FROM things a JOIN things b ON a.k = b.k GROUP BY a.k ORDER BY a.k",
        "SELECT count(*) AS n FROM things NATURAL JOIN (SELECT k, i FROM things) x",
        "SELECT t.id, o.k, o.n FROM things t JOIN (SELECT k, count(*) AS n FROM pairs GROUP BY k) o ON t.k = o.k WHERE o.n > 2 ORDER BY t.id",
        "SELECT count(*) AS n FROM things t JOIN pairs o ON t.k BETWEEN o.k AND o.k + 1",
        "SELECT t.id, o.id AS other FROM things t JOIN pairs o ON coalesce(t.i, 0) = coalesce(o.i, 0) WHERE t.id < 7 ORDER BY 1, 2",
        "SELECT t.id, o.id AS other FROM things t LEFT JOIN pairs o ON abs(t.i) = abs(o.i) WHERE t.id < 7 ORDER BY 1, 2",
        "SELECT t.id FROM things t LEFT JOIN pairs o ON t.i = o.i WHERE o.id IS NULL ORDER BY t.id",
        "SELECT c_mktsegment, count(*) AS n FROM customer LEFT JOIN orders ON c_custkey = o_custkey AND o_orderstatus = 'P' WHERE o_orderkey IS NULL GROUP BY 1",
    ]
    return queries


SIDES = [("k", "k"), ("i", "i"), ("s", "s"), ("d", "d"), ("p", "p"), ("k, s", "k, s"), ("k, i", "i, k"), ("b", "i > 0"), ("k % 2", "k % 2"), ("NULL, k", "k, NULL")]
SETS = ["UNION", "UNION ALL", "EXCEPT", "EXCEPT ALL", "INTERSECT", "INTERSECT ALL"]


def set_operations():
    queries = []
    for one, other in SIDES:
        for operation in SETS:
            queries.append(f"SELECT {one} FROM things WHERE id < 16 {operation} SELECT {other} FROM pairs")
            queries.append(f"SELECT count(*) AS n FROM (SELECT {one} FROM pairs {operation} SELECT {other} FROM things) x" if "NULL" not in one and one != "b" and "i" not in one else f"SELECT {other} FROM pairs {operation} SELECT {one} FROM things WHERE id > 12")
    for first in SETS:
        for second in SETS:
            queries.append(f"(SELECT k FROM things {first} SELECT k FROM pairs) {second} SELECT i FROM pairs WHERE id < 9")
    queries += [
        "SELECT k FROM things UNION SELECT k FROM pairs ORDER BY k NULLS FIRST",
        "SELECT k, count(*) AS n FROM (SELECT k FROM things UNION ALL SELECT k FROM pairs) x GROUP BY k ORDER BY k NULLS LAST",
        "SELECT k AS x FROM things UNION ALL SELECT i FROM pairs ORDER BY x DESC NULLS LAST LIMIT 7",
        "SELECT k FROM things EXCEPT SELECT k FROM nothing",
        "SELECT k FROM nothing UNION ALL SELECT k FROM things WHERE k = 1",
        "SELECT k FROM things INTERSECT ALL SELECT k FROM things",
        "SELECT k FROM things EXCEPT ALL SELECT k FROM things WHERE id < 12",
        "SELECT 1 AS x, NULL AS y UNION SELECT 1, NULL UNION ALL SELECT 1, NULL",
        "(SELECT id FROM things ORDER BY j LIMIT 3) UNION ALL (SELECT id FROM pairs ORDER BY i NULLS LAST, id LIMIT 2)",
        ("SELECT k, i FROM things UNION SELECT k FROM pairs", "."),
    ]
    return list(dict.fromkeys(queries))


def groups():
    keys = ["GROUPING SETS ((k), (b), ())", "GROUPING SETS ((k, b), (k), (b))", "ROLLUP (k, b)", "CUBE (k, b)", "GROUPING SETS ((k), (k))", "GROUPING SETS ((), ())", "GROUPING SETS (())"]
    values = ["count(*)", "sum(i)", "min(s)", "count(DISTINCT sm)", "sum(p)", "max(d)", "count(i) FILTER (WHERE j > 0)", "bool_or(j > 40)"]
    queries = []
    for key in keys:
        names = ", ".join(name for name in ("k", "b") if name in key.replace("CUBE", "").replace("SETS", ""))
        for value in values:
            queries.append(f"SELECT {names + ', ' if names else ''}{value} AS x FROM things GROUP BY {key}")
        queries += each(f"SELECT {names + ', ' if names else ''}count(*) AS n FROM [0] GROUP BY {key}", ["nothing", "things WHERE id > 100", "pairs JOIN (SELECT id, b FROM things) t USING (id)"])
    queries = [query for query in queries if not ("ROLLUP" in query or "CUBE" in query or "SETS" in query) or ("nothing" not in query and "id > 100" not in query) or "()" in query]
    queries += [
        "SELECT k, b, grouping(k) AS gk, grouping(b) AS gb, count(*) AS n FROM things GROUP BY ROLLUP (k, b)",
        "SELECT k, b, grouping(k) + grouping(b) AS level, sum(i) AS x FROM things GROUP BY CUBE (k, b) HAVING grouping(k) = 0",
        "SELECT grouping(k) AS g, count(*) AS n FROM things GROUP BY GROUPING SETS ((k), ()) ORDER BY g, n",
        "SELECT k, sum(i) AS x FROM things GROUP BY ROLLUP (k) ORDER BY grouping(k), k NULLS FIRST",
        "SELECT k % 2 AS odd, count(*) AS n FROM things GROUP BY ROLLUP (k % 2)",
        "SELECT s, k, count(*) AS n FROM things GROUP BY s, ROLLUP (k) HAVING count(*) > 1",
        "SELECT k, i > 0 AS up, count(*) AS n FROM things GROUP BY k, i > 0",
        "SELECT count(*) AS n FROM things GROUP BY ()",
        "SELECT count(*) AS n FROM nothing GROUP BY ()",
        "SELECT max(i) AS x FROM nothing",
        "SELECT k, max(i) AS x FROM nothing GROUP BY k",
        "SELECT k AS key, count(*) AS n FROM things GROUP BY key ORDER BY key NULLS LAST",
        "SELECT k, b, count(*) AS n FROM things GROUP BY 1, 2 ORDER BY 1 NULLS LAST, 2 NULLS LAST",
        "SELECT k, b, count(*) AS n FROM things GROUP BY ALL",
        "SELECT count(*) AS n FROM things HAVING count(*) > 3",
        "SELECT count(*) AS n FROM things HAVING count(*) > 300",
        "SELECT k FROM things GROUP BY k HAVING max(i) > 3 ORDER BY k NULLS LAST",
        "SELECT k FROM things GROUP BY k HAVING bool_and(b) IS NULL",
        ("SELECT k, i FROM things GROUP BY k", "."),
        ("SELECT k FROM things WHERE count(*) > 1", "."),
        ("SELECT sum(count(*)) FROM things", "."),
    ]
    return list(dict.fromkeys(queries))


def distinct():
    columns = ["k", "i", "sm", "u", "p", "q", "f", "s", "d", "ts", "b"]
    queries = each("SELECT DISTINCT [0] FROM things", columns)
    queries += each("SELECT count(DISTINCT [0]) AS n, count([0]) AS all_of_them FROM things", columns)
    queries += each("SELECT k, count(DISTINCT [0]) AS n FROM things GROUP BY k ORDER BY k NULLS LAST", columns[1:])
    queries += each("SELECT DISTINCT [0] FROM things ORDER BY [0] DESC NULLS LAST LIMIT 3", columns)
    queries += each("SELECT DISTINCT k, [0] FROM things WHERE id < 14", columns[1:])
    queries += each("SELECT DISTINCT ON (k) k, id FROM things ORDER BY k NULLS LAST, [0] [1] NULLS LAST, id", ["i", "s", "d", "p"], ["ASC", "DESC"])
    queries += each("SELECT sum(DISTINCT [0]) AS x, count(DISTINCT [0]) AS n FROM things", ["i", "j", "sm", "p", "q", "f"])
    queries += each("SELECT k, sum(DISTINCT [0]) AS x, sum([0]) AS y FROM things GROUP BY k ORDER BY k NULLS LAST", ["i", "sm", "p"])
    queries += [
        "SELECT DISTINCT k % 2 AS x, b FROM things",
        "SELECT DISTINCT count(*) AS n FROM things GROUP BY k",
        "SELECT count(*) AS n FROM (SELECT DISTINCT k, b FROM things) x",
        "SELECT count(DISTINCT k) AS k, count(DISTINCT s) AS s, count(DISTINCT k + i) AS x, sum(DISTINCT k) AS y FROM things",
        "SELECT count(DISTINCT i) FILTER (WHERE k > 1) AS n, count(DISTINCT i) AS m FROM things",
        "SELECT DISTINCT NULL AS x FROM things",
        "SELECT DISTINCT id FROM things ORDER BY id DESC LIMIT 4 OFFSET 2",
        "SELECT string_agg(DISTINCT s, '|' ORDER BY s) AS x FROM things",
        "SELECT k, string_agg(DISTINCT s, '|' ORDER BY s) AS x FROM things GROUP BY k ORDER BY k NULLS LAST",
        "SELECT count(DISTINCT o_custkey) AS n, count(DISTINCT o_orderstatus) AS m FROM orders",
        "SELECT o_orderstatus, count(DISTINCT o_custkey) AS n FROM orders GROUP BY o_orderstatus",
    ]
    return queries


def scripts():
    return [
        ("joins/kinds", "Joins of every kind by keys of equal and mixed types, NULLs among them, with and without more conditions.", joins()),
        ("sets/operations", "UNION, EXCEPT and INTERSECT, of distinct rows and of all.", set_operations()),
        ("groups/grouping_sets", "GROUP BY: sets of keys, no keys, no rows, HAVING.", groups()),
        ("groups/distinct", "DISTINCT in every place.", distinct()),
    ]
