"""Three-valued logic: comparisons, AND, OR, NOT, IN, ANY, ALL and EXISTS, with NULLs on every side and in every place."""

from records import dealt, each

CONDITIONS = [
    "i > 0", "i = k", "i <> k", "i <= j", "j >= sm", "p < i", "p = 0.48", "q > p", "f < 1", "f = i", "s = 'apple'", "s <> t.s || ''", "s > 'b'", "s = ''",
    "d = DATE '2023-12-21'", "d > DATE '2024-01-05'", "ts < TIMESTAMP '2024-03-02 00:00:00'", "b", "NOT b", "b = (i > 0)", "b <> (j > 0)", "i IS NULL",
    "s IS NOT NULL", "i IS DISTINCT FROM k", "i IS NOT DISTINCT FROM k", "b IS TRUE", "b IS NOT TRUE", "b IS FALSE", "b IS NOT FALSE", "(i > k) IS NULL",
    "i BETWEEN -2 AND k", "i NOT BETWEEN k AND 3", "i BETWEEN NULL AND 3", "i IN (1, 2, NULL)", "i NOT IN (1, 2, NULL)", "i IN (k, j)", "NULL", "NULL = NULL",
    "i = NULL", "NOT (i = NULL)", "i > 0 AND NULL", "i > 0 OR NULL",
]  # fmt: skip


def logic():
    queries = each("SELECT id FROM things t WHERE [0] ORDER BY id", CONDITIONS)
    queries += each("SELECT id FROM things t WHERE NOT ([0]) ORDER BY id", CONDITIONS)
    queries += each("SELECT CASE WHEN [0] THEN 'yes' WHEN NOT ([0]) THEN 'no' ELSE 'unknown' END AS answer, count(*) AS n FROM things t GROUP BY 1", CONDITIONS)
    queries += each("SELECT count(*) FILTER (WHERE [0]) AS true, count(*) FILTER (WHERE ([0]) IS NULL) AS unknown FROM things t", CONDITIONS)
    for one, other in dealt(CONDITIONS, CONDITIONS[7:] + CONDITIONS[:7]):
        queries.append(f"SELECT id FROM things t WHERE ({one}) AND ({other}) ORDER BY id")
        queries.append(f"SELECT id FROM things t WHERE ({one}) OR NOT ({other}) ORDER BY id")
    queries += each("SELECT left_side, right_side, left_side [0] right_side AS x FROM booleans ORDER BY id", ["AND", "OR", "=", "<>", "<", ">=", "IS DISTINCT FROM"])
    queries += each("SELECT bool_and([0]) AS every, bool_or([0]) AS some, count([0]) AS known FROM things", ["b", "i > 0", "i > 0 OR NULL", "s LIKE 'a%'", "k = 2"])
    queries += each("SELECT k, bool_and([0]) AS every, bool_or([0]) AS some FROM things GROUP BY k ORDER BY k NULLS LAST", ["b", "i > 0", "j > 0 AND NULL"])
    return list(dict.fromkeys(queries))


# The rows of `pairs` that a subquery gives: with a NULL, without, none, only NULL.
SETS = {
    "a NULL among them": "SELECT i FROM pairs WHERE id < 8",
    "no NULL": "SELECT i FROM pairs WHERE i IS NOT NULL",
    "none": "SELECT i FROM pairs WHERE id > 100",
    "only NULL": "SELECT i FROM pairs WHERE i IS NULL",
    "another type": "SELECT p FROM pairs WHERE id < 9",
    "an aggregate": "SELECT max(i) FROM pairs GROUP BY k",
    "an aggregate of none": "SELECT max(i) FROM pairs WHERE id > 100",
    "a union": "SELECT i FROM pairs UNION ALL SELECT k FROM pairs",
    "the first": "SELECT i FROM pairs ORDER BY id LIMIT 3",
}
FORMS = ["{x} IN ({set})", "{x} NOT IN ({set})", "{x} = ANY ({set})", "{x} <> ALL ({set})", "{x} < ANY ({set})", "{x} >= ALL ({set})", "{x} > ALL ({set})", "{x} <> ANY ({set})"]
PLACES = [
    "SELECT id FROM things WHERE {} ORDER BY id",
    "SELECT id, {} AS x FROM things ORDER BY id LIMIT 14",
    "SELECT id FROM things WHERE NOT ({}) ORDER BY id",
    "SELECT id FROM things WHERE ({}) IS NULL ORDER BY id",
    "SELECT CASE WHEN {} THEN 1 ELSE 0 END AS x, count(*) AS n FROM things GROUP BY 1",
    "SELECT id FROM things WHERE k = 2 OR {} ORDER BY id",
    "SELECT count(*) FILTER (WHERE b) AS n FROM things WHERE {}",
    "SELECT count(*) AS n FROM things JOIN nation ON n_nationkey = k AND {}",
    "SELECT k, count(*) AS n FROM things WHERE {} GROUP BY k ORDER BY k NULLS FIRST",
]


def subquery_sets():
    queries, number = [], 0
    for rows in SETS.values():
        for form in FORMS:
            # Every form of every set in three places, all places in turn.
            for place in range(3):
                condition = form.format(x="i", set=rows)
                queries.append(PLACES[(number + 2 * place + (place > 1)) % len(PLACES)].format(condition))
            number += 1
    queries = list(dict.fromkeys(queries))
    for left, right in (("3", "i"), ("NULL", "i"), ("k + 1", "i"), ("p", "p"), ("s", "s"), ("d", "d"), ("f", "r"), ("i * 1.0", "i")):
        queries += each(f"SELECT id FROM things WHERE {left} [0] (SELECT {right} FROM pairs) ORDER BY id", ["IN", "NOT IN"])
        queries += each(f"SELECT id, {left} [0] (SELECT {right} FROM pairs WHERE {right} IS NOT NULL) AS x FROM things WHERE id < 9 ORDER BY id", ["IN", "NOT IN"])
    queries += each("SELECT id FROM things WHERE ([0]) [1] (SELECT [2] FROM pairs) ORDER BY id", ["k, i"], ["IN", "NOT IN"], ["k, i", "i, k", "k, NULL"])
    queries += each("SELECT id FROM things WHERE [0] EXISTS (SELECT [1] FROM pairs WHERE [2]) ORDER BY id", ["", "NOT"], ["1", "NULL", "count(*)"], ["id > 100", "id < 3"])
    return [query.replace("WHERE  EXISTS", "WHERE EXISTS") for query in queries]


CORRELATIONS = ["o.i = t.i", "o.i < t.i", "o.k = t.k AND o.i > t.j", "o.s = t.s", "o.p >= t.p AND o.k <> t.k", "o.i IS NOT DISTINCT FROM t.i", "o.i = t.k + 1", "o.d > t.d"]


def correlated():
    queries = []
    for condition in CORRELATIONS:
        queries += [
            f"SELECT id FROM things t WHERE EXISTS (SELECT 1 FROM pairs o WHERE {condition}) ORDER BY id",
            f"SELECT id FROM things t WHERE NOT EXISTS (SELECT 1 FROM pairs o WHERE {condition}) ORDER BY id",
            f"SELECT id, EXISTS (SELECT 1 FROM pairs o WHERE {condition}) AS x FROM things t WHERE id < 13 ORDER BY id",
            f"SELECT id, (SELECT count(*) FROM pairs o WHERE {condition}) AS n FROM things t ORDER BY id",
            f"SELECT id, (SELECT max(o.i) FROM pairs o WHERE {condition}) AS x FROM things t WHERE id < 16 ORDER BY id",
            f"SELECT id FROM things t WHERE (SELECT count(*) FROM pairs o WHERE {condition}) > 1 ORDER BY id",
            f"SELECT id FROM things t WHERE j < (SELECT sum(o.i) FROM pairs o WHERE {condition}) ORDER BY id",
            f"SELECT id FROM things t WHERE k IN (SELECT o.k FROM pairs o WHERE {condition}) ORDER BY id",
            f"SELECT id FROM things t WHERE k NOT IN (SELECT o.k FROM pairs o WHERE {condition}) ORDER BY id",
            f"SELECT id FROM things t WHERE k <= ALL (SELECT o.k FROM pairs o WHERE {condition}) ORDER BY id",
            f"SELECT id FROM things t WHERE k > ANY (SELECT o.k FROM pairs o WHERE {condition}) ORDER BY id",
            f"SELECT id, coalesce((SELECT min(o.s) FROM pairs o WHERE {condition}), 'none') AS x FROM things t WHERE id > 12 ORDER BY id",
            f"SELECT id, (SELECT o.id FROM pairs o WHERE {condition} ORDER BY o.id DESC LIMIT 1) AS x FROM things t WHERE id < 13 ORDER BY id",
            f"SELECT sum((SELECT count(*) FROM pairs o WHERE {condition})) AS n FROM things t",
            f"SELECT k, count(*) AS n FROM things t WHERE EXISTS (SELECT 1 FROM pairs o WHERE {condition}) GROUP BY k ORDER BY k NULLS LAST",
            f"SELECT t.id, x.n FROM things t CROSS JOIN LATERAL (SELECT count(*) AS n FROM pairs o WHERE {condition}) x WHERE t.id < 13 ORDER BY t.id",
            f"SELECT t.id, x.id AS other FROM things t LEFT JOIN LATERAL (SELECT o.id FROM pairs o WHERE {condition} ORDER BY o.id LIMIT 2) x ON true WHERE t.id < 9 ORDER BY t.id, x.id",
        ]
    queries += [
        "SELECT id, (SELECT max(j) FROM things) AS x FROM things WHERE id < 4 ORDER BY id",
        "SELECT id FROM things WHERE j = (SELECT max(j) FROM things)",
        "SELECT id FROM things WHERE j > (SELECT avg(j) FROM things) ORDER BY id",
        "SELECT id, i > (SELECT min(i) FROM nothing) AS x FROM things WHERE id < 4 ORDER BY id",
        "SELECT (SELECT i FROM nothing) AS x, (SELECT count(*) FROM nothing) AS n",
        "SELECT k, sum(i) AS n FROM things GROUP BY k HAVING sum(i) > (SELECT min(i) FROM pairs) ORDER BY k NULLS LAST",
        "SELECT k, count(*) AS n FROM things t GROUP BY k HAVING count(*) > (SELECT count(*) FROM pairs o WHERE o.k = t.k) ORDER BY k NULLS LAST",
        "SELECT id FROM things t ORDER BY (SELECT count(*) FROM pairs o WHERE o.k = t.k) DESC, id LIMIT 5",
        "SELECT id FROM things t WHERE EXISTS (SELECT 1 FROM pairs a WHERE a.k = t.k AND EXISTS (SELECT 1 FROM pairs b WHERE b.i = a.i AND b.id > a.id)) ORDER BY id",
        "SELECT id FROM things t WHERE i IN (SELECT i FROM pairs WHERE k IN (SELECT k FROM pairs WHERE id < 5)) ORDER BY id",
        ("SELECT id, (SELECT i FROM pairs) FROM things", "more than one row"),
        ("SELECT id, (SELECT o.i FROM pairs o WHERE o.k = t.k) FROM things t", "more than one row"),
    ]
    return queries


def scripts():
    return [
        ("logic/conditions", "Conditions of every kind, true, false and unknown, in WHERE, CASE, FILTER and beside each other.", logic()),
        ("subqueries/sets", "IN, ANY, ALL and EXISTS over sets with NULLs, without, and empty ones, in every place.", subquery_sets()),
        ("subqueries/correlated", "Subqueries that refer to the row outside, by equality and otherwise.", correlated()),
    ]
