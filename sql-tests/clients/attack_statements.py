"""Statements that attack: deep, large, endless and misspelt ones, for `attack.py`. They read the table `kept`: n, s, d."""

import re

from hunter_statements import Statements
from test_bounds import TOO_MUCH

# How deep: about what is allowed, and far beyond.
DEPTHS = (40, 240, 900, 3000, 20000)
# Numbers and operators of several signs are one token: taken apart and put together again, a statement means the same.
TOKENS = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\d+\.\d+|\w+|[<>=!|:]+|[^\w\s]""")
ODD = (
    "NULL", "9223372036854775807", "-9223372036854775808", "1e308", "'\0'", "'😀'", "(", ")", "DISTINCT", "OVER ()", "FILTER (WHERE true)", "*", "::int[]",
    "AS", "99999999999999999999999999999999999999", "INTERVAL '178000000 years'", "LATERAL", "WITHIN GROUP (ORDER BY 1)", "[1:2]", "->", "?", "$1", ";", "--", "/*",
    "GROUPING SETS ((), ())", "RECURSIVE", "unnest([1, NULL])", "repeat('x', 10000000)",
)  # fmt: skip


def deep(share):
    """Statements of many levels or links of one kind."""
    kinds = {
        "sum": lambda n: f"SELECT max(n{' + 1' * n}) FROM kept",
        "or": lambda n: "SELECT count(*) FROM kept WHERE " + " OR ".join(f"n = {i} + d" for i in range(n)),
        "and": lambda n: "SELECT count(*) FROM kept WHERE " + " AND ".join(f"n <> {i}" for i in range(n)),
        "is null": lambda n: f"SELECT count(*) FROM kept WHERE n{' IS NULL' * n}",
        "cast": lambda n: f"SELECT count(*) FROM kept WHERE (n{'::int' * n}) > 3",
        "not": lambda n: f"SELECT count(*) FROM kept WHERE {'NOT ' * n}n > 3",
        "explain": lambda n: f"{'EXPLAIN ' * n}SELECT 1",
        "interval": lambda n: f"SELECT {'INTERVAL ' * n}'1 day'",
        "except": lambda n: " EXCEPT ".join(["SELECT 1"] * n),
        "minus": lambda n: f"SELECT max({'- ' * n}n) FROM kept",
        "doubling": lambda n: "WITH a0 AS (SELECT 1 AS x)" + "".join(f", a{i} AS (SELECT * FROM a{i - 1} UNION ALL SELECT * FROM a{i - 1})" for i in range(1, n)) + f" SELECT count(*) FROM a{n - 1}",
        "with": lambda n: "WITH a0 AS (SELECT 1 AS x)" + "".join(f", a{i} AS (SELECT x + 1 AS x FROM a{i - 1})" for i in range(1, n)) + f" SELECT count(*) FROM a{n - 1}",
        "case": lambda n: f"SELECT max({'CASE WHEN n = 3 THEN 1 ELSE ' * n}n{' END' * n}) FROM kept",
        "coalesce": lambda n: f"SELECT max({'coalesce(NULL, ' * n}n{')' * n}) FROM kept",
        "concat": lambda n: f"SELECT max(s{' || s' * n}) FROM kept",
        "like": lambda n: f"SELECT count(*) FROM kept WHERE s{' LIKE s' * n}",
        "at time zone": lambda n: "SELECT now()" + " AT TIME ZONE 'UTC'" * n,
        "between": lambda n: f"SELECT count(*) FROM kept WHERE {'1 BETWEEN 0 AND ' * n}1",
        "union": lambda n: " UNION ALL ".join(["SELECT n FROM kept"] * n),
        "values": lambda n: "SELECT count(*) FROM (VALUES " + ",".join(["(1)"] * n) + ") v",
        "in": lambda n: "SELECT count(*) FROM kept WHERE n IN (" + ",".join(map(str, range(n))) + ")",
        "subscript": lambda n: f"SELECT [1]{'[1]' * n}",
        "dots": lambda n: f"SELECT a{'.a' * n} FROM kept a",
        "subquery": lambda n: f"SELECT {'(SELECT ' * n}1{')' * n}",
        "exists": lambda n: f"SELECT 1 WHERE {'EXISTS (SELECT 1 WHERE ' * n}true{')' * n}",
        "arrow": lambda n: f"SELECT s{' -> 1' * n} FROM kept",
        "collate": lambda n: f"SELECT s{' COLLATE x' * n} FROM kept",
        "joined": lambda n: "SELECT count(*) FROM kept a0" + "".join(f" JOIN kept a{i} USING (n)" for i in range(1, n)),
        "brackets": lambda n: f"SELECT count(*) FROM {'(' * n}kept{')' * n}",
        "type": lambda n: f"SELECT CAST(NULL AS INT{'[]' * n})",
        "struct": lambda n: f"CREATE TABLE deep (x {'STRUCT(a ' * n}INT{')' * n})",
        "list": lambda n: f"SELECT {'[' * n}1{']' * n}",
        "window": lambda n: "SELECT " + ", ".join(f"sum(n) OVER (ORDER BY n ROWS {i} PRECEDING)" for i in range(n)) + " FROM kept",
        "columns": lambda n: "SELECT " + ", ".join(f"n + {i} AS c{i}" for i in range(n)) + " FROM kept LIMIT 3",
        "grouping sets": lambda n: "SELECT count(*) FROM kept GROUP BY GROUPING SETS (" + ", ".join(["(n)", "()"] * n) + ")",
        "quotes": lambda n: "SELECT " + "$$" * n,
        "comments": lambda n: "/*" * n + " SELECT 1",
    }  # fmt: skip
    depths = DEPTHS if share >= 1 else DEPTHS[: max(2, int(len(DEPTHS) * share * 4))]
    return [make(depth) for make in kinds.values() for depth in depths]


def too_much():
    """Those that ask functions for more than there is."""
    large = ("lpad", "rpad", "repeat")
    of_columns = [f"SELECT max(length({name}(s, {'CAST(n * 1000 AS INT)' if name == 'repeat' else '1000000'}))) FROM kept" for name in large]
    lists = [
        "SELECT cardinality(array_agg(repeat(s, 1000))) FROM kept",
        "SELECT length(string_agg(repeat(s, 1000), ',')) FROM kept",
        "SELECT s, array_agg(a.n) FROM kept a GROUP BY s ORDER BY 1 LIMIT 3",
        "SELECT count(*) FROM kept a, kept b, unnest(range(1, 1000)) u WHERE a.n < 3 AND b.n < 3",
        "SELECT max(levenshtein(repeat('x', 20000), repeat('y', 20000)))",
        "SELECT regexp_replace(repeat('a', 30000), '(a*)*b', 'x')",
        "SELECT factorial(100000)",
        "SELECT to_char(now(), repeat('%', 1000000))",
    ]
    return [*TOO_MUCH.values(), *of_columns, *lists]


def endless(count):
    """Those that run until somebody ends them."""
    known = [
        "SELECT count(*) FROM kept a, kept b WHERE a.d < b.d + 0.5 AND a.s <> b.s",
        "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b WHERE a.value < b.value",
        "SELECT count(*) FROM kept a JOIN kept b ON a.n % 3 = b.n % 3 WHERE a.d > b.d",
        "WITH RECURSIVE r AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM r WHERE x < 1000000000) SELECT max(x) FROM r",
        "SELECT max(x) FROM (SELECT sum(a.n) OVER (ORDER BY b.d, a.d) AS x FROM kept a, kept b WHERE b.n < 1000)",
        "SELECT a.s, b.s FROM kept a, kept b ORDER BY a.s || b.s LIMIT 1",
    ]
    return [known[at % len(known)] for at in range(count)]


def misspelt(chance, count):
    """Statements of the hunter's with tokens changed."""
    made = Statements(chance.randrange(1 << 30), "attack")
    yield from made.setup()
    for _ in range(count):
        tokens = TOKENS.findall(made.statement()[1])
        for _ in range(chance.choice([1, 1, 2, 5])):
            at = chance.randrange(len(tokens))
            way = chance.randrange(5)
            if way == 0:
                del tokens[at]
                tokens = tokens or ["SELECT"]
            elif way == 1:
                tokens[at] = chance.choice(ODD)
            elif way == 2:
                tokens.insert(at, tokens[chance.randrange(len(tokens))])
            elif way == 3:
                other = chance.randrange(len(tokens))
                tokens[at], tokens[other] = tokens[other], tokens[at]
            else:
                first = chance.randrange(len(tokens))
                tokens[at:at] = tokens[first : first + chance.randrange(1, 40)]
        yield " ".join(tokens)
