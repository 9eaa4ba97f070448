"""Arithmetic, casts, and what numbers become beside each other."""

from records import dealt, each

INTEGERS = ["i", "j", "sm", "k"]
NUMBERS = ["i", "j", "sm", "u", "p", "q", "f"]


def arithmetic():
    """Operators over pairs of columns and literals; NULLs fall on other rows in each."""
    queries = []
    for left in NUMBERS:
        for right in NUMBERS:
            for operator in ("+", "-", "*"):
                # An unsigned number beside a signed one has no type of its own in most engines.
                if "u" in (left, right) and left != right and {left, right} & {"i", "j", "sm"} and operator == "-":
                    continue
                if left == right == "u" and operator == "-":
                    continue
                queries.append(f"SELECT id, {left} {operator} {right} AS x FROM things WHERE id <= 9 ORDER BY id")
    for column in INTEGERS:
        for divisor in (2, 3, -4, 7):
            queries.append(f"SELECT id, {column} % {divisor} AS rest FROM things ORDER BY id LIMIT 12")
            queries.append(f"SELECT id, {column} / {divisor} AS quotient FROM things ORDER BY id LIMIT 12")
    for column, divisor in (("p", "4"), ("p", "0.5"), ("q", "8"), ("f", "4"), ("f", "p"), ("i", "0.25"), ("i", "f"), ("j", "2.5")):
        condition = f" WHERE {divisor} <> 0" if divisor.isalpha() else ""
        queries.append(f"SELECT id, round(CAST({column} / {divisor} AS DOUBLE), 6) AS quotient FROM things{condition} ORDER BY id LIMIT 10")
    queries += each("SELECT id, -[0] AS negative, abs([0]) AS magnitude FROM things ORDER BY id", ["i", "j", "p", "q", "f"])
    queries += each("SELECT count(*), sum(x), min(x), max(x) FROM (SELECT [0] AS x FROM things) y", [
        "i + 1", "i * 2 - j", "p + i", "p - q", "p * 2", "q * i", "f * 2", "sm * sm", "-j", "abs(i) + abs(j)", "i * p", "j - p",
    ])  # fmt: skip
    queries += each("SELECT id FROM things WHERE [0] ORDER BY id", [
        "i + j > 0", "i * 2 = j", "p > i", "p - i < q", "-i > 2", "p * 2 >= j", "i % 2 = 1", "i % 2 = -1", "abs(i) < abs(j)", "i + 0.5 > p",
        "q BETWEEN -0.5 AND 0.5", "f * 2 <= i", "j / 10 = -2", "i = 3.0", "i < 2.5", "p = 2.5 * 2", "sm + k = u", "i * i - 4 = 0",
    ])  # fmt: skip
    # The values of rounded decimals are every engine's, their digits after the point are not.
    queries += [f"SELECT id, CAST({name}({column}) AS DOUBLE) AS x FROM things WHERE id <= 10 ORDER BY id" for name in ("floor", "ceil", "round", "trunc") for column in ("p", "q", "f")]
    queries += each("SELECT id, CAST(round([0], [1]) AS DOUBLE) AS x FROM things WHERE id <= 12 ORDER BY id", ["p", "q", "f"], [0, 1, 2])
    queries += each("SELECT id, [0] AS x FROM things WHERE i > 0 ORDER BY id", [
        "power(i, 2)", "sqrt(i * i)", "exp(i - i)", "ln(i) - ln(i)", "log10(i * 0 + 100)", "gcd(j, 12)", "lcm(i, 4)",
        "i & 3", "i | 8", "i << 2", "i >> 1", "greatest(i, 2, k)", "least(i, 2, k)", "nullif(i, 1)", "i * i * i",
    ])  # fmt: skip
    return queries


def constants():
    """Literals alone and beside columns: their types are their digits'."""
    literals = ["1", "-1", "2147483648", "0.1", "-0.05", "1e2", "1.50", "100000000000000000000", "0.000001"]
    queries = each("SELECT [0] + [1] AS x", literals, ["1", "0.1", "-2.25"])
    queries += each("SELECT id, p + [0] AS x FROM things WHERE id IN (1, 2, 3, 4) ORDER BY id", literals)
    queries += each("SELECT id, i * [0] AS x FROM things WHERE id IN (1, 2, 3, 4) ORDER BY id", literals[:7])
    queries += each("SELECT id FROM things WHERE [0] > [1] ORDER BY id", ["p", "i", "f"], ["-1", "0.1", "1.50", "1e2", "-0.05"])
    return queries


VALUES = {
    "SMALLINT": ["0", "-1", "32767", "'12'", "12.5", "-12.5", "true"],
    "INTEGER": ["0", "2147483647", "-2147483648", "'  42 '", "'-7'", "0.5", "1.5", "2.5", "-0.5", "false", "1e3"],
    "BIGINT": ["9223372036854775807", "'-9223372036854775808'", "12345678901234.49", "true"],
    "DECIMAL(9, 2)": ["1", "1.005", "-1.005", "'12.345'", "1234567.89", "0.1"],
    "DECIMAL(38, 10)": ["'1234567890123456789012345678.0123456789'", "1", "0.00000000005", "-0.00000000005"],
    "DECIMAL(4, 0)": ["9999", "0.5", "1.5", "2.5", "-9999.4"],
    "DOUBLE": ["1", "0.1", "'1e300'", "'-0'", "12345678901234567890", "'infinity'", "'nan'"],
    "REAL": ["0.1", "16777217", "'3.4e38'"],
    "VARCHAR": ["1", "-1.50", "true", "DATE '2024-02-29'", "TIMESTAMP '2024-02-29 12:34:56'", "CAST(0.5 AS DOUBLE)"],
    "BOOLEAN": ["1", "0", "'true'", "'f'", "'t'", "'false'"],
    "DATE": ["'2024-02-29'", "TIMESTAMP '2024-02-29 23:59:59'"],
    "TIMESTAMP": ["'2024-02-29 12:34:56.500001'", "DATE '2024-02-29'", "'2024-02-29'"],
}

IMPOSSIBLE = [
    "CAST(40000 AS SMALLINT)", "CAST(-32769 AS SMALLINT)", "CAST(2147483648 AS INTEGER)", "CAST('9223372036854775808' AS BIGINT)",
    "CAST('abc' AS INTEGER)", "CAST('' AS INTEGER)", "CAST('1.5.2' AS DOUBLE)", "CAST(100000 AS DECIMAL(4, 0))", "CAST(9999.5 AS DECIMAL(4, 0))",
    "CAST('2024-02-30' AS DATE)", "CAST('2024-13-01' AS DATE)", "CAST('today-ish' AS TIMESTAMP)", "CAST('maybe' AS BOOLEAN)",
    "CAST(1e30 AS BIGINT)", "CAST('nan' AS DOUBLE)::INTEGER", "CAST(12345678.9 AS DECIMAL(9, 2))",
]  # fmt: skip


def casts():
    queries = [f"SELECT CAST({value} AS {target}) AS x" for target, values in VALUES.items() for value in values]
    queries += ["SELECT CAST(NULL AS INTEGER) AS a, CAST(NULL AS DECIMAL(5, 1)) AS b, CAST(NULL AS VARCHAR) AS c, CAST(NULL AS DATE) AS d"]
    targets = {
        "i": ["BIGINT", "SMALLINT", "DOUBLE", "REAL", "DECIMAL(9, 2)", "DECIMAL(20, 5)", "VARCHAR", "BOOLEAN"],
        "j": ["INTEGER", "DOUBLE", "DECIMAL(10, 1)", "VARCHAR"],
        "u": ["BIGINT", "INTEGER", "VARCHAR", "DOUBLE"],
        "p": ["INTEGER", "BIGINT", "DECIMAL(9, 1)", "DECIMAL(9, 0)", "DECIMAL(12, 4)", "DOUBLE", "VARCHAR"],
        "q": ["INTEGER", "DECIMAL(10, 2)", "DECIMAL(18, 3)", "DOUBLE", "VARCHAR"],
        "f": ["BIGINT", "REAL", "DECIMAL(20, 3)"],
        "b": ["INTEGER", "VARCHAR"],
        "d": ["TIMESTAMP", "VARCHAR"],
        "ts": ["DATE"],
    }
    for column, kinds in targets.items():
        queries += [f"SELECT id, CAST({column} AS {kind}) AS x FROM things WHERE id < 12 ORDER BY id" for kind in kinds]
        queries += [f"SELECT count(CAST({column} AS {kind})) AS n, min(CAST({column} AS {kind})) AS least FROM things" for kind in kinds if column != "b"]
    queries += each("SELECT id FROM things WHERE CAST([0] AS VARCHAR) [1] ORDER BY id", ["i", "p", "k"], ["= '1'", "LIKE '-%'", "IS NULL", "< '2'"])
    queries += each("SELECT id, TRY_CAST([0] AS [1]) AS x FROM things WHERE id < 9 ORDER BY id", ["s", "s || '1'", "CAST(i AS VARCHAR)"], ["INTEGER", "DOUBLE", "DATE"])
    queries += [(f"SELECT {cast} AS x", ".") for cast in IMPOSSIBLE]
    queries += [(f"SELECT CAST({column} AS {kind}) FROM things", ".") for column, kind in (("s", "INTEGER"), ("s", "DATE"), ("j * 1000", "SMALLINT"), ("p", "DECIMAL(2, 2)"), ("f", "SMALLINT"))]
    return queries


BEYOND = [
    "SELECT max(j) + 9223372036854775807 FROM things",
    "SELECT j * 4611686018427387904 FROM things WHERE j > 2",
    "SELECT -j - 9223372036854775807 FROM things WHERE j > 1",
    "SELECT sum(int64) FROM integer_extremes WHERE id = 2 OR id = 2 OR int8 = 127 GROUP BY int8 HAVING sum(int64) + 1 > 0",
    "SELECT sum(x) FROM (SELECT int64 AS x FROM integer_extremes UNION ALL SELECT int64 FROM integer_extremes) y WHERE x > 0",
    "SELECT int64 + 1 FROM integer_extremes",
    "SELECT int64 - 1 FROM integer_extremes",
    "SELECT int64 * 2 FROM integer_extremes",
    "SELECT -int64 FROM integer_extremes",
    "SELECT abs(int64) FROM integer_extremes",
    "SELECT int32 * int32 * int32 FROM integer_extremes",
    "SELECT sum(int64 * 2) FROM integer_extremes",
    "SELECT id FROM integer_extremes WHERE int64 + 1 > 0",
    "SELECT CASE WHEN int64 > 0 THEN int64 + 1 END FROM integer_extremes",
    "SELECT sum(amount) FROM wide_decimals WHERE amount > 1",
    "SELECT amount + amount FROM wide_decimals",
    "SELECT amount * 10 FROM wide_decimals",
    "SELECT 9223372036854775807 + id FROM things",
    "SELECT i / 0 FROM things",
    "SELECT i % 0 FROM things",
    "SELECT p / 0 FROM things",
    "SELECT j / (id - 1) FROM things",
    "SELECT j % (id - 2) FROM things",
    "SELECT sum(i / (k - k)) FROM things",
    "SELECT CAST(int64 AS INTEGER) FROM integer_extremes",
    "SELECT CAST(uint64 AS BIGINT) FROM integer_extremes",
    "SELECT CAST(int32 AS SMALLINT) FROM integer_extremes",
    "SELECT CAST(amount AS BIGINT) FROM wide_decimals",
    "SELECT CAST(amount AS DECIMAL(38, 12)) FROM wide_decimals",
    "SELECT CAST(float64 AS BIGINT) FROM floats",
]

WITHIN = [
    "SELECT sum(int64) AS total FROM integer_extremes",
    "SELECT sum(int32) AS total, sum(int16) AS small, sum(int8) AS tiny FROM integer_extremes",
    "SELECT sum(uint32) AS total, sum(uint16) AS small, sum(uint8) AS tiny FROM integer_extremes",
    "SELECT min(int64) AS least, max(int64) AS most FROM integer_extremes",
    "SELECT sum(x) AS total FROM (SELECT int64 AS x FROM integer_extremes UNION ALL SELECT -1 UNION ALL SELECT 1) y",
    "SELECT int64, int64 - 1 AS less FROM integer_extremes WHERE int64 > 0",
    "SELECT int64, int64 + 1 AS more FROM integer_extremes WHERE int64 < 0 ORDER BY int64",
    "SELECT CAST(int32 AS BIGINT) * int32 AS square FROM integer_extremes ORDER BY id",
    "SELECT CAST(int64 AS DECIMAL(38, 0)) * 2 AS twice FROM integer_extremes ORDER BY id",
    "SELECT count(*) AS n FROM integer_extremes WHERE uint64 = 18446744073709551615",
    "SELECT id FROM integer_extremes WHERE int64 = -9223372036854775808",
    "SELECT id FROM integer_extremes WHERE int64 < -9223372036854775807",
    "SELECT id, uint64 > int64 AS larger FROM integer_extremes ORDER BY id",
    "SELECT max(amount) AS most, min(amount) AS least FROM wide_decimals",
    "SELECT sum(amount) AS total FROM wide_decimals WHERE amount BETWEEN -2 AND 2",
    "SELECT id, -amount AS negative FROM wide_decimals ORDER BY id",
]


def overflow():
    return [*WITHIN, *((query, ".") for query in BEYOND)]


TYPES = [
    ("i", "NULL::INTEGER"), ("j", "7"), ("sm", "1.5"), ("p", "2"), ("q", "0.25"), ("f", "1"), ("p", "f"), ("i", "j"), ("sm", "i"), ("i", "p"),
    ("q", "p"), ("j", "q"), ("i", "f"), ("1", "0.25"), ("0", "f"), ("0", "p"), ("s", "'none'"), ("d", "DATE '2024-01-01'"), ("ts", "d"), ("b", "false"),
    ("u", "1"), ("u", "p"), ("1.5", "f"), ("p", "1234567.891"), ("i", "3000000000"), ("NULL", "i"), ("NULL", "p"), ("NULL", "s"), ("NULL", "d"),
]  # fmt: skip


def results():
    """One type for every branch, in each place that has branches."""
    queries = []
    for one, other in TYPES:
        queries.append(f"SELECT id, CASE WHEN id % 2 = 0 THEN {one} ELSE {other} END AS x FROM things WHERE id < 8 ORDER BY id")
        queries.append(f"SELECT id, CASE WHEN id % 3 = 0 THEN {other} WHEN id % 3 = 1 THEN {one} END AS x FROM things WHERE id < 8 ORDER BY id")
        queries.append(f"SELECT id, COALESCE({one}, {other}) AS x FROM things WHERE id < 9 ORDER BY id")
        queries.append(f"SELECT {one} AS x FROM things WHERE id < 4 UNION ALL SELECT {other} FROM things WHERE id < 4")
        queries.append(f"SELECT {other} AS x FROM things WHERE id < 6 UNION SELECT {one} FROM things WHERE id < 6")
        queries.append(f"SELECT max(CASE WHEN k = 2 THEN {one} ELSE {other} END) AS x FROM things")
    for one, other in [pair for pair in TYPES if pair[0] not in ("b", "s", "NULL", "d", "ts")]:
        queries.append(f"SELECT id, greatest({one}, {other}) AS most, least({one}, {other}) AS least FROM things WHERE id IN (1, 4, 6, 7) ORDER BY id")
        queries.append(f"SELECT id, CAST(NULLIF({one}, {other}) AS DOUBLE) AS x FROM things WHERE id < 8 ORDER BY id")
        queries.append(f"SELECT id FROM things WHERE {one} IN ({other}, 1) ORDER BY id")
        queries.append(f"SELECT sum(CASE WHEN k > 1 THEN {one} ELSE {other} END) AS x FROM things WHERE id < 15")
    rows = ["(1), (2.5)", "(1), (NULL), (3000000000)", "(0.1), (1e0)", "(NULL), (DATE '2024-02-29')", "('a'), (NULL)", "(true), (NULL)", "(1.25), (100)"]
    queries += each("SELECT * FROM (VALUES [0]) AS v(x) ORDER BY x NULLS LAST", rows)
    queries += each("SELECT t.id, v.x FROM things t, (VALUES [0]) AS v(x) WHERE t.id < 3 ORDER BY t.id, v.x NULLS FIRST", rows)
    for one, other in dealt(["i", "j", "p", "q", "sm"], ["1.5", "f", "p", "2147483648"]):
        for last in ("NULL", "0"):
            queries.append(f"SELECT x, count(*) AS n FROM (SELECT {one} AS x FROM things UNION ALL SELECT {other} FROM things UNION ALL SELECT {last}) y GROUP BY x HAVING count(*) > 1 ORDER BY x NULLS LAST")
    return queries


def scripts():
    return [
        ("arithmetic/columns", "Operators and functions over numbers of every pair of types, NULLs among them.", arithmetic()),
        ("arithmetic/literals", "A literal has the type of its digits.", constants()),
        ("arithmetic/overflow", "What fits is exact, what does not is an error, wherever it is computed.", overflow()),
        ("casts/casts", "CAST and TRY_CAST: rounded half away from zero, never cut, never wrapped.", casts()),
        ("casts/result_types", "CASE, COALESCE, UNION, VALUES and their like give the common type of all branches.", results()),
    ]
