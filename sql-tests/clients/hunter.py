"""hunter.py [--seeds A-B] [--statements N] [--url URL] [--one SEED:NUMBER]: random statements, answered by Bowshot and by DuckDB.

A seed makes tables, rows and statements: joins of all kinds, subqueries in every place, set operations and CASE over mixed types, windows,
grouping sets, DISTINCT, ORDER BY with LIMIT, over NULLs, extremes and decimals of several precisions. Every statement runs on one kernel
setting in turn. Answers are compared as bags of rows; what differs is printed with the line that replays it, eight rows of either side.

Without --url it starts a cluster of three workers. Exit status 1: an answer was wrong. What only Bowshot refuses is printed too.
"""

import argparse
import collections
import contextlib
import decimal
import math
import pathlib
import random
import sys
import tempfile

import adbc_driver_flightsql.dbapi
import cluster
import duckdb

KERNELS = ("host", "device", "off")

# What the two engines do differently on purpose: a part of the text of our error, and why.
REFUSED = {
    "beyond BIGINT": "sums of integers are BIGINT; DuckDB's are HUGEINT",
    "beyond DECIMAL": "a decimal has 38 digits; DuckDB goes on as a double",
    "beyond INTEGER": "DuckDB refuses too, at another row",
    "to store in a Decimal128": "a constant that does not fit fails the statement, as in Postgres; DuckDB's only if a row asks",
    "Can't cast value": "as above",
}


class Columns:
    """Columns in sight, by kind."""

    def __init__(self, columns):
        self.columns = columns

    def of(self, kind):
        return [name for name, known in self.columns if known == kind]


class Statements:
    """The statements of one seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.tables = {}
        self.alias = 0

    def chance(self, part):
        return self.random.random() < part

    def pick(self, *choices):
        return self.random.choice(choices)

    # Tables and rows.

    KINDS = {
        "int": "INT",
        "big": "BIGINT",
        "dec": "DECIMAL(9, 2)",
        "wide": "DECIMAL(20, 4)",
        "dbl": "DOUBLE",
        "txt": "VARCHAR",
        "day": "DATE",
        "yes": "BOOLEAN",
    }
    NUMBERS = ("int", "big", "dec", "wide", "dbl")

    def value(self, kind):
        r = self.random
        if self.chance(0.15):
            return "NULL"
        if kind == "int":
            return str(self.pick(r.randint(-5, 5), r.randint(-5, 5), r.randint(-1000, 1000), 2147483647, -2147483648))
        if kind == "big":
            return str(self.pick(r.randint(-5, 5), r.randint(-(10**6), 10**6), r.randint(-(10**12), 10**12)))
        if kind == "dec":
            return f"{r.randint(-99999, 99999) / 100:.2f}" if self.chance(0.7) else self.pick("0.00", "9999999.99", "-0.01")
        if kind == "wide":
            return f"{r.randint(-(10**8), 10**8)}.{r.randint(0, 9999):04d}"
        if kind == "dbl":
            return f"CAST({self.pick('0.0', '1.5', '-2.25', '1e10', '0.1', str(r.randint(-9, 9)) + '.5')} AS DOUBLE)"
        if kind == "txt":
            return "'" + self.pick("", "a", "b", "ab", "Ab", "zz", "it''s", "é") + "'"
        if kind == "day":
            return f"DATE '20{r.randint(10, 24)}-{r.randint(1, 12):02d}-{r.randint(1, 28):02d}'"
        return self.pick("true", "false")

    def setup(self):
        """The statements that make the tables; each INSERT is a file of its own."""
        for number in range(3):
            kinds = ["int", *self.random.choices(list(self.KINDS), k=self.random.randint(2, 5))]
            columns = [(f"c{at}", kind) for at, kind in enumerate(kinds)]
            name = f"hunt_{number}"
            self.tables[name] = columns
            yield f"DROP TABLE IF EXISTS {name}"
            yield f"CREATE TABLE {name} ({', '.join(f'{column} {self.KINDS[kind]}' for column, kind in columns)})"
            for _ in range(self.pick(0, 1, 2, 3)):
                rows = [f"({', '.join(self.value(kind) for _, kind in columns)})" for _ in range(self.random.randint(1, 6))]
                yield f"INSERT INTO {name} VALUES {', '.join(rows)}"

    # Expressions.

    def literal(self, kind):
        value = self.value(kind)
        return f"CAST(NULL AS {self.KINDS[kind]})" if value == "NULL" else value

    def number(self, sight, depth):
        kind = self.pick(*self.NUMBERS)
        return self.expression(kind, sight, depth)

    def expression(self, kind, sight, depth):
        columns = sight.of(kind)
        if depth <= 0 or self.chance(0.35):
            return self.random.choice(columns) if columns and self.chance(0.8) else self.literal(kind)
        below = depth - 1
        if kind == "yes":
            return self.condition(sight, below)
        choices = ["case", "coalesce", "nullif"]
        if kind in self.NUMBERS:
            choices += ["add", "add", "multiply", "negate", "cast", "greatest"]
        if kind == "txt":
            choices += ["concat", "upper"]
        if depth > 1 and kind in self.NUMBERS:
            choices.append("scalar")
        choice = self.random.choice(choices)
        part = lambda: self.expression(kind, sight, below)
        if choice == "case":
            other = self.number(sight, below) if kind in self.NUMBERS else part()
            return f"CASE WHEN {self.condition(sight, below)} THEN {part()} ELSE {other} END"
        if choice == "coalesce":
            return f"coalesce({part()}, {part()})"
        if choice == "nullif":
            return f"nullif({part()}, {part()})"
        if choice == "add":
            return f"({part()} {self.pick('+', '-')} {self.expression(kind, sight, 0)})"
        if choice == "multiply":
            return f"({part()} * {self.random.randint(-3, 3)})"
        if choice == "negate":
            return f"(- {part()})"
        if choice == "greatest":
            return f"{self.pick('greatest', 'least')}({part()}, {part()})"
        if choice == "cast":
            return f"CAST({self.expression(self.pick('int', kind), sight, below)} AS {self.KINDS[kind]})"
        if choice == "concat":
            return f"({part()} || {part()})"
        if choice == "upper":
            return f"{self.pick('upper', 'lower')}({part()})"
        return self.scalar_subquery(kind, sight, below)

    def condition(self, sight, depth):
        below = depth - 1
        choice = self.random.choice(["compare"] * 5 + ["null", "and", "or", "not", "in", "between", "like"] + ["exists", "insub", "any"] * (depth > 0))
        kind = self.pick("int", "int", "big", "dec", "wide", "dbl", "txt", "day")
        part = lambda: self.expression(kind, sight, max(below, 0))
        if choice == "compare" or depth <= 0:
            other = self.number(sight, max(below, 0)) if kind in self.NUMBERS and self.chance(0.3) else part()
            return f"({part()} {self.pick('=', '<>', '<', '<=', '>', '>=', 'IS DISTINCT FROM')} {other})"
        if choice == "null":
            return f"({part()} IS {self.pick('', 'NOT ')}NULL)"
        if choice in ("and", "or"):
            return f"({self.condition(sight, below)} {choice.upper()} {self.condition(sight, below)})"
        if choice == "not":
            return f"(NOT {self.condition(sight, below)})"
        if choice == "in":
            return f"({part()} {self.pick('', 'NOT ')}IN ({', '.join(self.literal(kind) for _ in range(self.random.randint(1, 4)))}))"
        if choice == "between":
            return f"({part()} BETWEEN {self.literal(kind)} AND {self.literal(kind)})"
        if choice == "like":
            return f"({self.expression('txt', sight, 0)} LIKE {self.pick(chr(39) + '%a%' + chr(39), chr(39) + '_b' + chr(39))})"
        inner, table, alias = self.inner(sight)
        own = Columns([(f"{alias}.{column}", known) for column, known in self.tables[table]])
        where = f" WHERE {self.condition(inner, 0)}" if self.chance(0.8) else ""
        if choice == "exists":
            return f"({self.pick('', 'NOT ')}EXISTS (SELECT 1 FROM {table} {alias}{where}))"
        column = self.random.choice(own.of(kind) or own.of("int"))
        kind = dict(own.columns)[column]
        left = self.expression(kind, sight, 0)
        if choice == "insub":
            return f"({left} {self.pick('', 'NOT ')}IN (SELECT {column} FROM {table} {alias}{where}))"
        return f"({left} {self.pick('=', '<>', '<', '>=')} {self.pick('ANY', 'ALL')} (SELECT {column} FROM {table} {alias}{where}))"

    def inner(self, sight):
        """A table of a subquery, and what its conditions see."""
        self.alias += 1
        table, alias = self.random.choice(list(self.tables)), f"s{self.alias}"
        own = [(f"{alias}.{column}", kind) for column, kind in self.tables[table]]
        # The rows outside are seen more often than not.
        return Columns(own + (sight.columns if self.chance(0.7) else [])), table, alias

    def scalar_subquery(self, kind, sight, depth):
        inner, table, alias = self.inner(sight)
        own = Columns([(f"{alias}.{column}", known) for column, known in self.tables[table]])
        where = f" WHERE {self.condition(inner, 0)}" if self.chance(0.8) else ""
        argument = self.random.choice(own.of(kind) or own.of("int"))
        aggregate = self.pick(f"max({argument})", f"min({argument})", f"count({argument})", "count(*)")
        return f"CAST((SELECT {aggregate} FROM {table} {alias}{where}) AS {self.KINDS[kind]})"

    # Statements.

    def source(self):
        """FROM, and what it shows."""
        table = self.random.choice(list(self.tables))
        text = f"{table} a"
        seen = [(f"a.{column}", kind) for column, kind in self.tables[table]]
        for alias in self.random.sample(["b", "c"], self.pick(0, 0, 1, 1, 2)):
            table = self.random.choice(list(self.tables))
            theirs = [(f"{alias}.{column}", kind) for column, kind in self.tables[table]]
            join = self.pick("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN", "JOIN")
            text += f" {join} {table} {alias}"
            if join != "CROSS JOIN":
                text += f" ON a.c0 = {alias}.c0"
                if self.chance(0.3) and join != "FULL JOIN":
                    text += f" AND {self.condition(Columns(seen + theirs), 0)}"
            seen += theirs
        return text, Columns(seen)

    def select(self, kinds=None):
        text, sight = self.source()
        kinds = kinds or [self.pick(*self.KINDS) for _ in range(self.random.randint(1, 4))]
        items = [f"{self.expression(kind, sight, 3)} AS x{at}" for at, kind in enumerate(kinds)]
        where = f" WHERE {self.condition(sight, 2)}" if self.chance(0.7) else ""
        return f"SELECT {self.pick('', '', '', 'DISTINCT ')}{', '.join(items)} FROM {text}{where}"

    def grouped(self):
        text, sight = self.source()
        keys = [f"({self.expression(self.pick('int', 'txt', 'day', 'dec', 'yes'), sight, 1)})" for _ in range(self.pick(0, 1, 2))]
        names = [f"k{at}" for at in range(len(keys))]
        below = f"(SELECT {', '.join([f'{key} AS {name}' for key, name in zip(keys, names)] + [f'{column} AS v{at}' for at, (column, _) in enumerate(sight.columns)])} FROM {text})"
        inside = Columns([(f"v{at}", kind) for at, (_, kind) in enumerate(sight.columns)])
        aggregates = []
        for at in range(self.random.randint(1, 3)):
            kind = self.pick("int", "dec", "wide", "txt", "day", "big")
            argument = self.expression(kind, inside, 1)
            function = self.pick("count", "min", "max", "sum") if kind in self.NUMBERS else self.pick("count", "min", "max")
            distinct = "DISTINCT " if function in ("count", "sum") and self.chance(0.3) else ""
            only = f" FILTER (WHERE {self.condition(inside, 0)})" if self.chance(0.2) else ""
            aggregates.append(f"{function}({distinct}{argument}){only} AS a{at}")
        group = ""
        if names:
            form = self.pick("plain", "plain", "plain", "rollup", "cube", "sets")
            listed = ", ".join(names)
            group = " GROUP BY " + {
                "plain": listed,
                "rollup": f"ROLLUP ({listed})",
                "cube": f"CUBE ({listed})",
                "sets": f"GROUPING SETS (({listed}), ())",
            }[form]
        having = f" HAVING count(*) {self.pick('>', '<>', '>=')} {self.random.randint(0, 2)}" if names and self.chance(0.3) else ""
        return f"SELECT {', '.join(names + aggregates)} FROM {below} g{group}{having}"

    def windowed(self):
        table = self.random.choice(list(self.tables))
        sight = Columns([(f"a.{column}", kind) for column, kind in self.tables[table]])
        everything = ", ".join(column for column, _ in sight.columns)
        items = []
        for at in range(self.random.randint(1, 2)):
            kind = self.pick("int", "dec", "big")
            argument = self.expression(kind, sight, 1)
            function = self.pick("sum", "min", "max", "count", "lag", "lead", "first_value", "last_value", "row_number", "rank")
            partition = f"PARTITION BY {self.expression('int', sight, 0)} " if self.chance(0.6) else ""
            # The order is of all columns: rows that tie are alike.
            order = "ORDER BY " + ", ".join(f"{column}{self.pick('', ' DESC')} {self.pick('NULLS FIRST', 'NULLS LAST')}" for column, _ in sight.columns)
            frame, only = "", ""
            if function in ("sum", "min", "max", "count", "first_value", "last_value"):
                frame = self.pick("", " ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING", " ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING")
            if function in ("sum", "min", "max", "count") and self.chance(0.3):
                only = f" FILTER (WHERE {self.condition(sight, 0)})"
            call = f"{function}()" if function in ("row_number", "rank") else f"{function}({argument})"
            items.append(f"{call}{only} OVER ({partition}{order}{frame}) AS w{at}")
        return f"SELECT {everything}, {', '.join(items)} FROM {table} a"

    def statement(self):
        choice = self.pick("select", "select", "select", "set", "grouped", "grouped", "windowed", "limited", "counted")
        if choice == "select":
            return choice, self.select()
        if choice == "set":
            kinds = [self.pick(*self.KINDS) for _ in range(self.random.randint(1, 3))]
            mixed = [self.pick(*self.NUMBERS) if kind in self.NUMBERS and self.chance(0.5) else kind for kind in kinds]
            operator = self.pick("UNION", "UNION ALL", "EXCEPT", "INTERSECT", "EXCEPT ALL", "INTERSECT ALL")
            return choice, f"{self.select(kinds)} {operator} {self.select(mixed)}"
        if choice == "grouped":
            return choice, self.grouped()
        if choice == "windowed":
            return choice, self.windowed()
        kinds = [self.pick(*self.KINDS) for _ in range(self.random.randint(1, 4))]
        inner = self.select(kinds)
        if choice == "counted":
            return choice, f"SELECT count(*) AS n FROM ({inner}) q"
        # By all columns: rows that tie are alike.
        order = ", ".join(f"{at + 1} {self.pick('', 'DESC ')}{self.pick('NULLS FIRST', 'NULLS LAST')}" for at in range(len(kinds)))
        return choice, f"SELECT * FROM ({inner}) q ORDER BY {order} LIMIT {self.random.randint(0, 5)}"


def plain(value):
    """A cell that compares across drivers: numbers as numbers, everything else as text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, decimal.Decimal)):
        return decimal.Decimal(value)
    if isinstance(value, float):
        return value
    return str(value)


def same(ours, theirs):
    if isinstance(ours, float) or isinstance(theirs, float):
        if ours is None or theirs is None or isinstance(ours, str) or isinstance(theirs, str):
            return False
        a, b = float(ours), float(theirs)
        return a == b or (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
    return type(ours) is type(theirs) and ours == theirs


def key(row):
    """Numbers sort as doubles of few digits, so that equal ones lie side by side."""
    return tuple((value is None, type(value).__name__ if isinstance(value, (str, bool)) else "number", str(value) if isinstance(value, str) else round(float(value or 0), 4)) for value in row)


def equal(ours, theirs):
    if len(ours) != len(theirs):
        return False
    ours, theirs = sorted(ours, key=key), sorted(theirs, key=key)
    return all(len(a) == len(b) and all(map(same, a, b)) for a, b in zip(ours, theirs))


class Hunt:
    """Two engines with the same tables."""

    def __init__(self, url):
        self.ours = adbc_driver_flightsql.dbapi.connect(url, autocommit=True)
        self.theirs = duckdb.connect()
        self.figures = collections.Counter()
        self.wrong = []

    def mine(self, sql):
        with self.ours.cursor() as cursor:
            cursor.execute(sql)
            return [tuple(map(plain, row)) for row in cursor.fetchall()] if cursor.description else []

    def peer(self, sql):
        return [tuple(map(plain, row)) for row in self.theirs.execute(sql).fetchall()]

    def run(self, seed, statements, only=None):
        made = Statements(seed)
        for sql in made.setup():
            self.mine(sql)
            self.theirs.execute(sql)
        for number in range(statements):
            kind, sql = made.statement()
            if only is not None and number != only:
                continue
            kernel = KERNELS[number % len(KERNELS)]
            self.mine(f"SET bowshot.kernel = '{kernel}'")
            verdict, detail = self.judge(sql)
            self.figures[(kind, verdict)] += 1
            if verdict in ("wrong", "refused"):
                self.wrong.append((verdict, seed, number, kernel, sql, detail))
                print(f"{verdict} --one {seed}:{number} (kernel {kernel})\n  {sql}\n  {detail}", flush=True)

    def judge(self, sql):
        try:
            theirs = self.peer(sql)
        except duckdb.Error as error:
            theirs = error
        try:
            ours = self.mine(sql)
        except Exception as error:  # noqa: BLE001 any error of the driver
            text = str(error)
            if isinstance(theirs, duckdb.Error):
                return "both refuse", ""
            known = next((why for part, why in REFUSED.items() if part in text), None)
            return ("refused as known", known) if known else ("refused", text[:400])
        if isinstance(theirs, duckdb.Error):
            return "DuckDB refuses", str(theirs)
        if equal(ours, theirs):
            return "same", ""
        return "wrong", f"ours {sorted(ours, key=key)[:8]}\n  theirs {sorted(theirs, key=key)[:8]}"


def three_nodes(folder):
    """A cluster that may make tables."""
    folder = pathlib.Path(folder)
    nodes = [cluster.Node(f"node-{number}", {"data": folder / f"node-{number}"}, "eu") for number in range(1, 4)]
    return cluster.Cluster(folder / "cluster", nodes)


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1-3", help="first and last seed")
    parser.add_argument("--statements", type=int, default=100, help="statements a seed")
    parser.add_argument("--url", help="a server that may get and lose tables hunt_0 to hunt_2")
    parser.add_argument("--one", help="SEED:NUMBER of a statement")
    chosen = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        url = chosen.url or stack.enter_context(three_nodes(stack.enter_context(tempfile.TemporaryDirectory()))).uri
        hunt = Hunt(url)
        if chosen.one:
            seed, number = map(int, chosen.one.split(":"))
            hunt.run(seed, number + 1, number)
        else:
            first, last = map(int, chosen.seeds.split("-"))
            for seed in range(first, last + 1):
                hunt.run(seed, chosen.statements)
        for (kind, verdict), count in sorted(hunt.figures.items()):
            print(f"{kind:10} {verdict:18} {count}")
        total = collections.Counter()
        for (_, verdict), count in hunt.figures.items():
            total[verdict] += count
        print(", ".join(f"{verdict}: {count}" for verdict, count in sorted(total.items())))
        return 1 if any(verdict == "wrong" for verdict, *_ in hunt.wrong) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
