"""Statements' shapes: order and limits, WITH, views and tables, LATERAL, unnest, nested values, VALUES, names; and special doubles."""

from records import each

DIRECTIONS = ["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]


def orders():
    queries = each("SELECT id FROM things ORDER BY [0][1], id", ["k", "i", "p", "s", "d", "b", "f", "ts"], [" ASC NULLS FIRST", " ASC NULLS LAST", " DESC NULLS FIRST", " DESC NULLS LAST"])
    queries += each("SELECT id, k FROM things ORDER BY k[0], id DESC LIMIT [1] OFFSET [2]", [" NULLS FIRST", " DESC NULLS LAST"], [0, 3, 100], [0, 2, 23, 30])
    queries += each("SELECT id FROM things ORDER BY [0] LIMIT 6", [
        "i + k NULLS LAST, id", "-id", "abs(i) DESC NULLS LAST, id", "CASE WHEN b THEN 0 ELSE 1 END, id", "length(s) NULLS FIRST, id DESC", "k % 2 NULLS LAST, id", "s || k NULLS LAST, id",
        "k IS NULL, id", "coalesce(k, 9), id DESC", "d NULLS LAST, i NULLS FIRST, id", "(SELECT count(*) FROM pairs WHERE pairs.k = things.k), id", "id DESC, k",
    ])  # fmt: skip
    queries += [
        "SELECT id AS k, k AS id FROM things ORDER BY id NULLS LAST, k LIMIT 5",
        "SELECT i AS x FROM things WHERE id < 9 ORDER BY x NULLS LAST",
        "SELECT -i AS i FROM things WHERE id < 9 ORDER BY i NULLS LAST",
        "SELECT k, i FROM things WHERE id < 9 ORDER BY 2 NULLS LAST, 1 NULLS LAST",
        "SELECT k FROM things ORDER BY id LIMIT 4",
        "SELECT * FROM (SELECT id FROM things ORDER BY id DESC LIMIT 5) x ORDER BY id",
        "SELECT * FROM (SELECT id FROM things ORDER BY id LIMIT 5 OFFSET 3) x ORDER BY id DESC LIMIT 2",
        "SELECT count(*) AS n FROM (SELECT id FROM things LIMIT 7) x",
        "SELECT count(*) AS n FROM (SELECT id FROM things LIMIT 7 OFFSET 20) x",
        "SELECT count(*) AS n FROM (SELECT id FROM things OFFSET 20) x",
        "SELECT max(id) AS x FROM (SELECT id FROM things ORDER BY id LIMIT 9) y",
        "SELECT id FROM things WHERE id IN (SELECT id FROM pairs ORDER BY i NULLS LAST, id LIMIT 4) ORDER BY id",
        "SELECT a.id FROM (SELECT id FROM things ORDER BY id LIMIT 5) a JOIN (SELECT id FROM pairs ORDER BY id DESC LIMIT 12) b ON a.id = b.id ORDER BY 1",
        "SELECT id FROM things ORDER BY id FETCH FIRST 3 ROWS ONLY",
        "SELECT id FROM things ORDER BY id OFFSET 21 ROWS",
        "SELECT o_orderkey FROM orders ORDER BY o_totalprice DESC LIMIT 5",
        "SELECT o_custkey, o_orderdate FROM orders ORDER BY o_orderdate, o_custkey LIMIT 5 OFFSET 100",
        "SELECT o_orderpriority, o_orderkey FROM orders WHERE o_custkey = 7 ORDER BY 1, 2",
        ("SELECT id FROM things ORDER BY 2", "."),
        ("SELECT id FROM things LIMIT -1", "."),
        ("SELECT DISTINCT k FROM things ORDER BY i", "."),
    ]
    return queries


def with_queries():
    queries = [
        "WITH a AS (SELECT k, sum(i) AS x FROM things GROUP BY k) SELECT * FROM a WHERE x > 0 ORDER BY k NULLS LAST",
        "WITH a AS (SELECT * FROM things WHERE id < 10), b AS (SELECT * FROM a WHERE k > 1) SELECT count(*) AS n, sum(id) AS x FROM b",
        "WITH a AS (SELECT k FROM things) SELECT x.k, count(*) AS n FROM a x JOIN a y ON x.k = y.k GROUP BY x.k ORDER BY 1",
        "WITH a(x, y) AS (SELECT id, k FROM things) SELECT x FROM a WHERE y = 2 ORDER BY x",
        "WITH things AS (SELECT 1 AS id) SELECT id FROM things",
        "WITH a AS (SELECT 1 AS x), b AS (WITH a AS (SELECT 2 AS x) SELECT x FROM a) SELECT a.x, b.x AS y FROM a, b",
        "SELECT (WITH a AS (SELECT max(i) AS x FROM things) SELECT x FROM a) AS x",
        "SELECT id FROM things WHERE k IN (WITH a AS (SELECT k FROM pairs WHERE id < 4) SELECT k FROM a) ORDER BY id",
        "WITH a AS (SELECT id FROM things ORDER BY id LIMIT 3) SELECT id FROM a UNION ALL SELECT id FROM a ORDER BY id",
        "WITH a AS MATERIALIZED (SELECT k FROM things) SELECT count(*) AS n FROM a, a b WHERE a.k = b.k",
        "WITH a AS (VALUES (1, 'x'), (2, NULL)) SELECT * FROM a ORDER BY 1",
    ]
    queries += each("WITH RECURSIVE r(n) AS (SELECT [0] UNION ALL SELECT n + 1 FROM r WHERE n < [1]) SELECT [2] AS x FROM r", [1, -2], [5, 40], ["count(*)", "sum(n)", "max(n)"])
    queries += each("WITH RECURSIVE r(n) AS (SELECT 1 [0] SELECT n % 3 + 1 FROM r WHERE n < 10) SELECT n FROM r ORDER BY n", ["UNION"])
    queries += [
        "WITH RECURSIVE r(id, n) AS (SELECT id, 1 FROM things WHERE id = 1 UNION ALL SELECT t.id, r.n + 1 FROM things t JOIN r ON t.id = r.id * 2) SELECT id, n FROM r ORDER BY id",
        "WITH RECURSIVE r(id) AS (SELECT id FROM things WHERE id < 3 UNION SELECT p.i FROM pairs p JOIN r ON p.k = r.id) SELECT id FROM r ORDER BY id NULLS LAST",
        "WITH RECURSIVE f(a, b) AS (SELECT 0, 1 UNION ALL SELECT b, a + b FROM f WHERE b < 1000) SELECT a FROM f ORDER BY a",
        "WITH RECURSIVE r(n, s) AS (SELECT 1, CAST('a' AS VARCHAR) UNION ALL SELECT n + 1, s || 'b' FROM r WHERE n < 5) SELECT s FROM r ORDER BY n",
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 10) SELECT n, count(t.id) AS c FROM r LEFT JOIN things t ON t.k = n GROUP BY n ORDER BY n",
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 10) SELECT id FROM things WHERE id IN (SELECT n * n FROM r) ORDER BY id",
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT n FROM r LIMIT 4",
    ]
    return queries


MADE = [
    "CREATE TABLE rec_made (id BIGINT, name VARCHAR DEFAULT 'none', amount DECIMAL(9,2) DEFAULT 1.5, day DATE, flag BOOLEAN DEFAULT true)",
    "INSERT INTO rec_made VALUES (1, 'one', 1, DATE '2024-01-01', true), (2, NULL, 2.345, NULL, NULL)",
    "INSERT INTO rec_made (id) VALUES (3)",
    "INSERT INTO rec_made (day, id, name) VALUES (DATE '2024-02-29', 4, 'four')",
    "INSERT INTO rec_made (id, name) VALUES (5, 'none'), (6, 'six')",
    "INSERT INTO rec_made (id, name, amount) SELECT id + 100, s, p FROM things WHERE id < 6",
    "INSERT INTO rec_made SELECT id + 200, s, i, d, i > 0 FROM pairs WHERE id IN (1, 2, 3)",
    "CREATE TABLE rec_copy AS SELECT k, count(*) AS n, sum(i) AS x, max(s) AS s, sum(p) AS p, min(d) AS d FROM things GROUP BY k",
    "CREATE TABLE rec_none AS SELECT id, s, p FROM things WHERE id > 100",
    "CREATE TABLE rec_mixed AS SELECT CASE WHEN id % 2 = 0 THEN 1 ELSE 0.25 END AS x, COALESCE(i, 0.5) AS y, id FROM things",
    "CREATE VIEW rec_view AS SELECT id, k, i, s FROM things WHERE id < 12",
    "CREATE VIEW rec_sums AS SELECT k, sum(i) AS x, count(*) AS n FROM rec_view GROUP BY k",
    "CREATE VIEW rec_named (a, b) AS SELECT id, p FROM things WHERE id <= 3",
]
UNMADE = ["DROP VIEW rec_named", "DROP VIEW rec_sums", "DROP VIEW rec_view", "DROP TABLE rec_mixed", "DROP TABLE rec_none", "DROP TABLE rec_copy", "DROP TABLE rec_made"]


def tables():
    queries = ["SELECT * FROM rec_made ORDER BY id", "SELECT * FROM rec_copy ORDER BY k NULLS LAST", "SELECT * FROM rec_none", "SELECT x, y, id FROM rec_mixed ORDER BY id", "SELECT * FROM rec_view ORDER BY id"]
    queries += each("SELECT [0] AS x FROM rec_made", ["count(*)", "count(name)", "sum(amount)", "min(day)", "count(*) FILTER (WHERE flag)", "max(id)", "string_agg(name, ',' ORDER BY id)"])
    queries += each("SELECT id FROM rec_made WHERE [0] ORDER BY id", ["name = 'none'", "name IS NULL", "amount = 1.5", "amount > 2", "flag", "NOT flag", "flag IS NULL", "day IS NOT NULL", "day > DATE '2024-01-15'", "id > 100 AND amount < 0"])
    queries += each("SELECT [0] FROM rec_copy ORDER BY k NULLS FIRST", ["k, n", "k, x * 2 AS x", "k, s || '!' AS s", "k, p + 1 AS p", "n > 4 AS many", "d + 1 AS d"])
    queries += each("SELECT count(*) AS n, [0] AS x FROM rec_none", ["max(s)", "sum(p)", "min(id)"])
    queries += each("SELECT [0] AS x FROM rec_mixed", ["sum(x)", "sum(y)", "min(x)", "max(y)", "count(DISTINCT x)"])
    queries += [
        "SELECT k, x, n FROM rec_sums ORDER BY k NULLS LAST", "SELECT a, b FROM rec_named ORDER BY a", "SELECT v.id, p.id AS other FROM rec_view v JOIN pairs p ON v.k = p.k WHERE v.id < 5 ORDER BY 1, 2",
        "SELECT count(*) AS n FROM rec_view WHERE k IN (SELECT k FROM rec_sums WHERE n > 2)", "SELECT m.id, t.s FROM rec_made m JOIN things t ON m.id = t.id + 100 ORDER BY m.id",
        "SELECT k FROM rec_copy EXCEPT SELECT k FROM rec_sums", "SELECT name, count(*) AS n FROM rec_made GROUP BY name ORDER BY name NULLS LAST", "SELECT id, rank() OVER (ORDER BY amount NULLS LAST) AS n FROM rec_made ORDER BY id",
        ("INSERT INTO rec_made VALUES (1, 2)", "."), ("INSERT INTO rec_made (id, nothing) VALUES (1, 2)", "."), ("INSERT INTO rec_made (id) VALUES ('abc')", "."),
        ("INSERT INTO rec_made (amount) VALUES (123456789.5)", "."), ("CREATE TABLE rec_made (id BIGINT)", "."), ("INSERT INTO rec_view VALUES (1, 2, 3, 'a')", "."), ("DROP TABLE rec_unknown", "."), ("SELECT * FROM rec_unknown", "."),
    ]  # fmt: skip
    return queries


def nested():
    queries = each("SELECT id, [0] AS x FROM nested ORDER BY id", [
        "array_length(l)", "l[1]", "l[2]", "l[-1]", "w[1]", "w[3]", "array_to_string(w, ',')", "array_to_string(l, ',')", "l IS NULL", "array_position(l, 21)",
        "st['x']", "st['y']", "st IS NULL", "st['x'] + 1", "st['x'] > 10", "array_length(w)", "w[1] || '!'", "l[1] + l[2]", "coalesce(l[1], -1)", "l = l", "cardinality(l)",
    ])  # fmt: skip
    queries += each("SELECT id FROM nested WHERE [0] ORDER BY id", ["l[1] > 20", "l IS NOT NULL", "st['x'] = 9", "st['y'] IS NULL", "w[1] = 'Banana'", "array_length(l) = 2", "st['x'] IN (4, 9, NULL)", "l[1] IS NULL"])
    queries += [
        "SELECT id, unnest(l) AS x FROM nested ORDER BY id, x NULLS LAST",
        "SELECT id, unnest(w) AS x FROM nested ORDER BY id, x NULLS LAST",
        "SELECT unnest(l) AS x FROM nested ORDER BY x NULLS LAST",
        "SELECT x, count(*) AS n FROM (SELECT unnest(w) AS x FROM nested) y GROUP BY x ORDER BY x NULLS LAST",
        "SELECT n.id, u.x FROM nested n CROSS JOIN LATERAL (SELECT unnest(n.l) AS x) u ORDER BY 1, 2 NULLS LAST",
        "SELECT n.id, u.x FROM nested n, unnest(n.l) AS u(x) ORDER BY 1, 2 NULLS LAST",
        "SELECT n.id, u.x FROM nested n LEFT JOIN LATERAL unnest(n.l) AS u(x) ON true ORDER BY 1, 2 NULLS LAST",
        "SELECT count(*) AS n FROM nested, unnest(w) AS u(x) WHERE x = 'zeta'",
        "SELECT x FROM unnest([3, 1, NULL, 2]) AS u(x) ORDER BY x NULLS FIRST",
        "SELECT st['y'] AS y, count(*) AS n, sum(st['x']) AS x FROM nested GROUP BY 1 ORDER BY 1 NULLS LAST",
        "SELECT max(st['x']) AS x, min(st['y']) AS y FROM nested",
        "SELECT a.id, b.id AS other FROM nested a JOIN nested b ON a.l[1] = b.l[1] AND a.id < b.id ORDER BY 1, 2",
        "SELECT count(DISTINCT l) AS n, count(DISTINCT st) AS m FROM nested",
        "SELECT t.id, x.n FROM things t, LATERAL (SELECT t.i + 1 AS n) x WHERE t.id < 6 ORDER BY 1",
        "SELECT t.id, x.n FROM things t CROSS JOIN LATERAL (SELECT max(o.i) AS n FROM pairs o WHERE o.k = t.k) x WHERE t.id < 9 ORDER BY 1",
        "SELECT t.id, x.id AS other FROM things t CROSS JOIN LATERAL (SELECT o.id FROM pairs o WHERE o.k = t.k ORDER BY o.id DESC LIMIT 1) x ORDER BY 1",
        "SELECT t.id, y.n FROM things t, LATERAL (SELECT t.k AS k) x, LATERAL (SELECT count(*) AS n FROM pairs o WHERE o.k = x.k) y WHERE t.id < 8 ORDER BY 1",
        "SELECT array_length([1, 2, NULL]) AS n, [1, 2][2] AS x, ([1, 2])[5] AS y",
        "SELECT id, l[1:2] = l AS short FROM nested WHERE l IS NOT NULL ORDER BY id",
        "SELECT array_to_string(array_agg(id ORDER BY id), ',') AS x FROM nested GROUP BY array_length(l) ORDER BY x",
    ]
    return queries


def names():
    return [
        "SELECT id AS \"Id\", k AS \"two words\" FROM things WHERE id < 3 ORDER BY \"Id\"",
        "SELECT ID, K FROM THINGS WHERE Id = 1",
        "SELECT t.* FROM things t WHERE t.id = 1",
        "SELECT things.id FROM things WHERE things.id < 3 ORDER BY things.id",
        "SELECT a.id, b.id FROM things a JOIN pairs b ON a.id = b.id WHERE a.id < 4 ORDER BY a.id",
        "SELECT id, id FROM things WHERE id < 3 ORDER BY 1",
        "SELECT id, CAST(id AS DOUBLE) FROM things WHERE id < 3 ORDER BY 1",
        "SELECT sum(i), sum(CAST(i AS DOUBLE)) FROM things",
        "SELECT count(*), count(*) FROM things",
        "SELECT k, k, count(*) FROM things GROUP BY k ORDER BY k NULLS LAST",
        "SELECT * FROM (SELECT id AS x, k AS y FROM things) t WHERE x = 2",
        "SELECT x.id FROM (SELECT id FROM things) AS x WHERE x.id = 3",
        "SELECT * FROM things a JOIN pairs b USING (id) WHERE id = 2",
        "SELECT a.id + b.id AS id FROM things a, pairs b WHERE a.id = 1 AND b.id = 2",
        "SELECT (SELECT id) AS x FROM things WHERE id = 4",
        "SELECT id AS a FROM things WHERE id < 5 GROUP BY a ORDER BY a",
        "SELECT id + 1 AS id FROM things WHERE id = 1",
        "SELECT max(id) AS id FROM things",
        "SELECT t.id FROM things AS t, (SELECT max(id) AS id FROM pairs) AS m WHERE t.id = m.id",
        "SELECT 1 AS \"select\", 2 AS \"from\"",
        "SELECT 'a' AS x, \"x\".y FROM (SELECT 5 AS y) AS \"x\"",
        "SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS v(n, s) ORDER BY n",
        "SELECT v.s FROM (VALUES (1, 'a'), (2, 'b')) AS v(n, s) WHERE v.n = 2",
        "SELECT count(*) AS n FROM (VALUES (1), (2), (NULL)) v(x)",
        "VALUES (1, 'a'), (2, NULL)",
        "SELECT t.id, v.n FROM things t JOIN (VALUES (1, 10), (2, 20), (NULL, 30)) v(k, n) ON t.k = v.k ORDER BY t.id, v.n LIMIT 6",
        "SELECT id FROM things WHERE (k, i) IN (VALUES (1, 2), (2, 5)) ORDER BY id",
        "SELECT id FROM things WHERE k IN (VALUES (1), (NULL)) ORDER BY id",
        ("SELECT id FROM things a JOIN pairs b ON a.k = b.k", "."),
        ("SELECT nothing FROM things", "."),
        ("SELECT x.id FROM things", "."),
        ("SELECT id AS x FROM things WHERE x > 3", "."),
    ]


def doubles():
    queries = each("SELECT id FROM doubles WHERE x [0] [1] ORDER BY id", ["=", "<>", "<", "<=", ">", ">="], ["0", "-0.0", "1", "CAST('nan' AS DOUBLE)", "CAST('infinity' AS DOUBLE)", "y"])
    queries += each("SELECT id FROM doubles ORDER BY x [0], id", ["NULLS FIRST", "NULLS LAST", "DESC NULLS LAST"])
    queries += each("SELECT [0] AS n FROM doubles", [
        "count(*)", "count(x)", "max(x)", "min(x)", "count(DISTINCT x)", "count(DISTINCT y)", "max(y)", "min(y)", "count(*) FILTER (WHERE x > 0)", "sum(x) FILTER (WHERE x > 0)",
    ])  # fmt: skip
    queries += each("SELECT g, [0] AS n FROM doubles GROUP BY g ORDER BY g NULLS LAST", ["max(x)", "min(x)", "count(DISTINCT x)", "count(*) FILTER (WHERE x = 0)", "max(y)", "count(x)"])
    queries += each("SELECT count(*) AS n FROM (SELECT [0] FROM doubles GROUP BY [0]) z", ["x", "y", "abs(x)", "x + 0"])
    queries += each("SELECT id, [0] AS v FROM doubles WHERE id < 10 ORDER BY id", ["x * 2", "x - x", "x * 0", "-x > 0", "abs(x)", "x = x", "x IS NULL", "x IN (0, 1)", "x BETWEEN -1 AND 1", "greatest(x, 0.5)", "least(x, 0.5)", "isnan(x)", "CAST(x AS VARCHAR) = 'NaN'", "floor(x)", "x > y"])
    queries += [
        "SELECT count(*) AS n FROM doubles a JOIN doubles b ON a.x = b.x",
        "SELECT count(*) AS n FROM doubles a JOIN doubles b ON a.x < b.x",
        "SELECT count(*) AS n FROM doubles a LEFT JOIN doubles b ON a.x = b.y AND b.id > 3",
        "SELECT count(*) AS n FROM (SELECT x FROM doubles UNION SELECT y FROM doubles) z",
        "SELECT count(*) AS n FROM (SELECT x FROM doubles INTERSECT SELECT y FROM doubles) z",
        "SELECT count(*) AS n FROM (SELECT x FROM doubles EXCEPT SELECT x FROM doubles WHERE x > 0) z",
        "SELECT id, rank() OVER (ORDER BY x NULLS LAST) AS n FROM doubles ORDER BY id",
        "SELECT id, count(*) OVER (PARTITION BY x) AS n FROM doubles ORDER BY id",
        "SELECT id, max(x) OVER (ORDER BY id ROWS 1 PRECEDING) AS v FROM doubles ORDER BY id",
        "SELECT id FROM doubles WHERE x IN (SELECT y FROM doubles WHERE y IS NOT NULL) ORDER BY id",
        "SELECT id FROM doubles WHERE x >= ALL (SELECT x FROM doubles WHERE x IS NOT NULL) ORDER BY id",
        "SELECT id FROM doubles WHERE x NOT IN (0, 1) ORDER BY id",
    ]
    return queries


def scripts():
    return [
        ("shapes/order", "ORDER BY with NULLS FIRST and LAST, LIMIT and OFFSET, in and out of subqueries.", orders()),
        ("shapes/with", "WITH, and WITH RECURSIVE.", with_queries()),
        ("shapes/tables", "CREATE TABLE, DEFAULT, INSERT, CREATE TABLE AS and views: what was stored is what was meant.", tables(), MADE, UNMADE),
        ("shapes/nested", "Lists, structs, unnest and LATERAL.", nested()),
        ("shapes/names", "Names, aliases, repeated names, VALUES.", names()),
        ("doubles/special", "NaN is greatest and equal to itself, both zeros are one, infinities are numbers.", doubles()),
    ]
