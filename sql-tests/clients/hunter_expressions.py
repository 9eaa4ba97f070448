"""Random tables, rows and expressions of a seed, for `hunter_statements.py`.

They are written in Bowshot's SQL; `spoken` turns a statement into that of a peer.
"""

import random
import re

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")

# How peers write what Bowshot writes.
_FIELD = r"((?:\w+\.)?\w+|-?[\d.]+|'[^']*'|CAST\([^()]*(?:\(\d+(?:, \d+)?\))?\)|DATE '[^']*')"
_ROWS = rf"\({_FIELD}, {_FIELD}\) %s \({_FIELD}, {_FIELD}\)"
SPOKEN = {
    "duckdb": [
        (re.compile(r"\bINT UNSIGNED\b"), "UINTEGER"),
        # Field by field: to DuckDB a NULL is equal to a NULL within rows, which the standard and Postgres do not have.
        (re.compile(_ROWS % "="), r"(\1 = \3 AND \2 = \4)"),
        (re.compile(_ROWS % "<>"), r"(\1 <> \3 OR \2 <> \4)"),
    ],
    "postgres": [
        (re.compile(r"\bINT UNSIGNED\b"), "BIGINT"),
        (re.compile(r"\bDOUBLE\b"), "DOUBLE PRECISION"),
        (re.compile(r"\bTIMESTAMP\(9\)"), "TIMESTAMP(6)"),
    ],
}


def spoken(sql, engine):
    for pattern, text in SPOKEN.get(engine, ()):
        sql = pattern.sub(text, sql)
    return sql


class Columns:
    """Columns in sight, by kind."""

    def __init__(self, columns):
        self.columns = columns

    def of(self, kind):
        return [name for name, known in self.columns if known == kind]


class Expressions:
    """What the statements of one seed are made of. Tables are called `prefix`_0 to `prefix`_2, and `prefix`_made."""

    KINDS = {
        "small": "SMALLINT",
        "int": "INT",
        "big": "BIGINT",
        "count": "INT UNSIGNED",
        "dec": "DECIMAL(9, 2)",
        "wide": "DECIMAL(20, 4)",
        "real": "REAL",
        "dbl": "DOUBLE",
        "txt": "VARCHAR",
        "day": "DATE",
        "gap": "INTERVAL",
        "yes": "BOOLEAN",
        "time": "TIMESTAMP",
        "zone": "TIMESTAMPTZ",
    }
    # Numbers that are mixed: the common type of a REAL or an unsigned number with others is another in each engine.
    NUMBERS = ("int", "big", "small", "dec", "wide", "dbl", "odd")
    WHOLE = ("int", "big", "small")

    def __init__(self, seed, prefix="hunt"):
        self.random = random.Random(seed)
        self.prefix = prefix
        self.tables = {}
        self.alias = 0
        self.zone = self.pick(*ZONES)
        self.digits = self.random.randint(1, 38)
        self.scale = self.random.randint(0, self.digits)
        # Postgres has no nanoseconds: most seeds do without.
        self.unit = self.pick(0, 3, 6, 6, 6, 9)
        self.kinds = {**self.KINDS, "odd": f"DECIMAL({self.digits}, {self.scale})", "tick": f"TIMESTAMP({self.unit})"}

    def chance(self, part):
        return self.random.random() < part

    def pick(self, *choices):
        return self.random.choice(choices)

    # Tables and rows.

    def value(self, kind):
        r = self.random
        if self.chance(0.15):
            return "NULL"
        near = r.randint(-5, 5)
        if kind == "small":
            return str(self.pick(near, near, 32767, -32768))
        if kind == "int":
            return str(self.pick(near, near, near, r.randint(-1000, 1000), 2147483647, -2147483648))
        if kind == "big":
            return str(self.pick(near, near, r.randint(-(10**6), 10**6), r.randint(-(10**12), 10**12), 9223372036854775807, -9223372036854775807))
        if kind == "count":
            return f"CAST({self.pick(0, 1, abs(near), 4294967295)} AS INT UNSIGNED)"
        if kind == "dec":
            return f"{r.randint(-99999, 99999) / 100:.2f}" if self.chance(0.7) else self.pick("0.00", "9999999.99", "-0.01", f"{near}.00")
        if kind == "wide":
            return f"{near}.0000" if self.chance(0.3) else f"{r.randint(-(10**8), 10**8)}.{r.randint(0, 9999):04d}"
        if kind == "odd":
            bound = 10 ** self.pick(1, self.digits, r.randint(1, self.digits)) if self.digits > 1 else 10
            return self.decimal(r.randint(1 - bound, bound - 1))
        if kind in ("dbl", "real"):
            return f"CAST({self.floating()} AS {self.kinds[kind]})"
        if kind == "txt":
            return "'" + self.pick("", "a", "b", "ab", "Ab", "zz", "it''s", "é", "a%b", "a_b", "a\\b", " a ", "日本") + "'"
        if kind == "gap":
            return f"INTERVAL '{self.pick(-3, 0, 1, 2, 11)}' {self.pick('MONTH', 'DAY', 'HOUR')}"
        if kind == "yes":
            return self.pick("true", "false")
        day = self.date()
        if kind == "day":
            return f"DATE '{day}'"
        clock = self.pick("00:00:00", f"{r.randint(0, 23):02d}:{r.randint(0, 59):02d}:{r.randint(0, 59):02d}")
        if kind == "zone":
            return f"CAST('{day} {clock}{self.pick('', '.5', '.123456')}+00' AS TIMESTAMPTZ)"
        digits = self.unit if kind == "tick" else 6
        fraction = "." + f"{r.randint(0, 10**digits - 1):0{digits}d}" if digits and self.chance(0.6) else ""
        return f"CAST('{day} {clock}{fraction}' AS {self.kinds[kind]})"

    def date(self):
        r = self.random
        # Nanoseconds reach from 1677 to 2262.
        ends = ("1970-01-01", "1969-12-31") if self.unit == 9 else ("0001-01-01", "9999-12-31", "1582-10-15")
        return self.pick(*[f"20{r.randint(10, 24)}-{r.randint(1, 12):02d}-{r.randint(1, 28):02d}" for _ in range(8)], "2024-02-29", "2024-03-31", *ends)

    def stored_kinds(self):
        """Kinds of columns: Parquet has no interval of months, days and nanoseconds."""
        return [kind for kind in self.kinds if kind != "gap"]

    def decimal(self, digits):
        text = f"{abs(digits):0{self.scale + 1}d}"
        whole, fraction = text[: len(text) - self.scale], text[len(text) - self.scale :]
        return f"CAST('{'-' * (digits < 0)}{whole}{'.' * (self.scale > 0)}{fraction}' AS {self.kinds['odd']})"

    def floating(self):
        r = self.random
        common = ["0.0", "1.5", "-2.25", f"{r.randint(-9, 9)}.5", f"{r.randint(-5, 5)}.0"]
        return self.pick(*common, *common, "'-0.0'", "'NaN'", "'Infinity'", "'-Infinity'", "1e10", "0.1")

    def setup(self):
        """The statements that make the tables; each INSERT is a file of its own."""
        for number in range(3):
            kinds = ["int", *self.random.choices(self.stored_kinds(), k=self.random.randint(3, 7))]
            columns = [(f"c{at}", kind) for at, kind in enumerate(kinds)]
            name = f"{self.prefix}_{number}"
            self.tables[name] = columns
            yield f"DROP TABLE IF EXISTS {name}"
            yield f"CREATE TABLE {name} ({', '.join(f'{column} {self.kinds[kind]}' for column, kind in columns)})"
            for _ in range(self.pick(0, 1, 2, 3, 3)):
                rows = [f"({', '.join(self.value(kind) for _, kind in columns)})" for _ in range(self.random.randint(1, 6))]
                yield f"INSERT INTO {name} VALUES {', '.join(rows)}"

    # Expressions.

    def literal(self, kind):
        value = self.value(kind)
        return f"CAST(NULL AS {self.kinds[kind]})" if value == "NULL" else value

    def expression(self, kind, sight, depth):
        columns = sight.of(kind)
        if depth <= 0 or self.chance(0.35):
            return self.random.choice(columns) if columns and self.chance(0.8) else self.literal(kind)
        below = depth - 1
        if kind == "yes":
            return self.condition(sight, below)
        part = lambda known=kind, deep=below: self.expression(known, sight, deep)
        forms = [*self.common_forms, *self.forms.get(kind, ())]
        if kind in self.NUMBERS:
            forms += self.number_forms
        if depth > 1 and kind in (*self.NUMBERS, "txt", "day", "time"):
            forms.append(lambda s, part: s.scalar_subquery(kind, sight, below))
        if kind not in ("gap", "real", "count"):
            forms.append(lambda s, part: f"CAST({part()} AS {s.kinds[kind]})")
        form = self.random.choice(forms)
        self.now = (kind, sight, below)
        return form(self, part)

    def otherwise(self, part, kind):
        """The other branch of a CASE: numbers are mixed."""
        return part(self.pick(*self.NUMBERS)) if kind in self.NUMBERS else part()

    def case(self, part):
        kind, sight, below = self.now
        if self.chance(0.3):
            return f"CASE {part('int', 0)} WHEN {self.literal('int')} THEN {part()} WHEN {part('int', 0)} THEN {part()} ELSE {self.otherwise(part, kind)} END"
        last = f" ELSE {self.otherwise(part, kind)}" if self.chance(0.8) else ""
        return f"CASE WHEN {self.condition(sight, below)} THEN {part()}{last} END"

    common_forms = [
        case,
        case,
        lambda s, part: f"coalesce({part()}, {part()})",
        lambda s, part: f"nullif({part()}, {part()})",
    ]
    number_forms = [
        lambda s, part: f"({part()} {s.pick('+', '-')} {part(deep=0)})",
        lambda s, part: f"({part()} {s.pick('+', '-')} {part(deep=0)})",
        lambda s, part: f"({part()} * {s.random.randint(-3, 3)})",
        lambda s, part: f"(- {part()})",
        lambda s, part: f"{s.pick('greatest', 'least')}({part()}, {part()})",
        lambda s, part: f"abs({part()})",
    ]
    forms = {
        "int": [
            lambda s, part: f"({part()} % nullif({part(deep=0)}, 0))",
            lambda s, part: f"({part()} / nullif({part(deep=0)}, 0))",
            lambda s, part: f"CAST({s.pick('length', 'ascii')}({part('txt')}) AS INT)",
            lambda s, part: f"CAST(strpos({part('txt')}, {s.pick(chr(39) + 'a' + chr(39), chr(39) + 'b' + chr(39))}) AS INT)",
            lambda s, part: f"CAST(extract({s.pick('year', 'month', 'day', 'dow', 'doy', 'quarter', 'week')} FROM {part(s.pick('day', 'time', 'zone'))}) AS INT)",
            lambda s, part: f"CAST(extract({s.pick('hour', 'minute')} FROM {part(s.pick('time', 'zone'))}) AS INT)",
            lambda s, part: f"CAST({part(s.pick('dec', 'dbl', 'small', 'big', 'odd'))} AS INT)",
        ],
        "big": [
            lambda s, part: f"CAST({part(s.pick('int', 'dec', 'wide', 'small', 'count', 'dbl'))} AS BIGINT)",
            lambda s, part: f"({part('int')} + {part('big', 0)})",
        ],
        "small": [lambda s, part: f"CAST({part('int')} AS SMALLINT)"],
        "dec": [
            lambda s, part: f"CAST({part(s.pick('int', 'wide', 'odd'))} AS DECIMAL(9, 2))",
            lambda s, part: f"{s.pick('round', 'trunc')}({part()}, 1)",
        ],
        "wide": [
            lambda s, part: f"CAST({part(s.pick('int', 'dec', 'big'))} AS DECIMAL(20, 4))",
            lambda s, part: f"({part('dec')} * {part('dec', 0)})",
            lambda s, part: f"{s.pick('floor', 'ceil')}({part()})",
        ],
        "odd": [lambda s, part: f"CAST({part(s.pick('int', 'dec'))} AS {s.kinds['odd']})"],
        "dbl": [
            lambda s, part: f"CAST({part(s.pick('int', 'dec', 'wide', 'real'))} AS DOUBLE)",
            lambda s, part: f"({part()} * {part(deep=0)})",
            lambda s, part: f"{s.pick('floor', 'ceil')}({part()})",
        ],
        "real": [lambda s, part: f"(- {part()})", lambda s, part: f"({part()} + {part(deep=0)})"],
        "txt": [
            lambda s, part: f"({part()} || {part()})",
            lambda s, part: f"{s.pick('upper', 'lower', 'trim', 'ltrim', 'reverse')}({part()})",
            lambda s, part: f"substring({part()}, {s.random.randint(1, 3)}, {s.random.randint(0, 3)})",
            lambda s, part: f"{s.pick('left', 'right')}({part()}, {s.random.randint(-2, 3)})",
            lambda s, part: f"replace({part()}, 'a', {s.literal('txt')})",
            lambda s, part: f"CAST({part(s.pick('int', 'big', 'dec', 'day', 'yes', 'time'))} AS VARCHAR)",
        ],
        "day": [
            lambda s, part: f"CAST({part(s.pick('time', 'zone'))} AS DATE)",
            lambda s, part: f"({part()} {s.pick('+', '-')} {s.random.randint(0, 40)})",
            lambda s, part: f"{s.pick('greatest', 'least')}({part()}, {part()})",
        ],
        "time": [
            lambda s, part: f"({part()} {s.pick('+', '-')} {part('gap', 0)})",
            lambda s, part: f"({part('day')} {s.pick('+', '-')} {part('gap', 0)})",
            lambda s, part: f"date_trunc('{s.pick('year', 'quarter', 'month', 'week', 'day', 'hour', 'minute', 'second')}', {part()})",
            lambda s, part: f"({part('zone')} AT TIME ZONE '{s.pick(*ZONES)}')",
            lambda s, part: f"CAST({part(s.pick('day', 'zone'))} AS TIMESTAMP)",
        ],
        "zone": [
            lambda s, part: f"({part()} {s.pick('+', '-')} {part('gap', 0)})",
            lambda s, part: f"date_trunc('{s.pick('month', 'week', 'day', 'hour')}', {part()})",
            lambda s, part: f"({part('time')} AT TIME ZONE '{s.pick(*ZONES)}')",
        ],
    }

    COMPARED = ("int", "int", "big", "small", "count", "dec", "wide", "odd", "real", "dbl", "txt", "day", "time", "zone", "tick", "gap", "yes")

    def condition(self, sight, depth):
        below = depth - 1
        simple = ["compare"] * 6 + ["null", "in", "between", "like", "truth", "row"]
        choice = self.random.choice(simple + (["and", "or", "not", "case"] + ["exists", "insub", "any", "rowsub"]) * (depth > 0))
        kind = self.pick(*self.COMPARED)
        deep = max(below, 0)
        part = lambda: self.expression(kind, sight, deep)
        if choice == "compare":
            operator = self.pick("=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM")
            other = self.expression(self.pick(*self.NUMBERS), sight, deep) if kind in self.NUMBERS and self.chance(0.3) else part()
            # Without brackets, AND and OR bind less than the comparison.
            more = f" {self.pick('AND', 'OR')} {self.condition(sight, 0)}" if self.chance(0.1) else ""
            return f"({part()} {operator} {other}{more})"
        if choice == "null":
            return f"({part()} IS {self.pick('', 'NOT ')}NULL)"
        if choice in ("and", "or"):
            return f"({self.condition(sight, below)} {choice.upper()} {self.condition(sight, below)})"
        if choice == "not":
            return f"(NOT {self.condition(sight, below)})"
        if choice == "case":
            return f"(CASE WHEN {self.condition(sight, 0)} THEN {self.condition(sight, 0)} ELSE {self.condition(sight, 0)} END)"
        if choice == "truth":
            return f"({self.expression('yes', sight, deep)} IS {self.pick('', 'NOT ')}{self.pick('TRUE', 'FALSE', 'UNKNOWN')})"
        if choice == "in":
            return f"({part()} {self.pick('', 'NOT ')}IN ({', '.join(self.literal(kind) for _ in range(self.random.randint(1, 4)))}))"
        if choice == "between":
            return f"({part()} {self.pick('', 'NOT ')}BETWEEN {self.literal(kind)} AND {self.expression(kind, sight, 0)})"
        if choice == "like":
            pattern = self.pick("'%a%'", "'_b'", "'a!%b' ESCAPE '!'", "'%!_%' ESCAPE '!'", "''", "'%'", self.expression("txt", sight, 0))
            return f"({self.expression('txt', sight, 0)} {self.pick('', 'NOT ')}{self.pick('LIKE', 'LIKE', 'ILIKE')} {pattern})"
        other = self.pick("int", "txt", "dec")
        if choice == "row":
            # Rows of columns, mostly: other parts than columns and constants are refused.
            first, second = ([name for name in sight.of(known) if self.chance(0.9)] or [self.literal(known)] for known in (kind, other))
            left, right = (f"({self.random.choice(first)}, {self.random.choice(second)})" for _ in range(2))
            return f"({left} {self.pick('=', '<>')} {right})" if sight.of(kind) and sight.of(other) else f"({part()} = {part()})"
        inner, table, alias = self.inner(sight)
        own = Columns([(f"{alias}.{column}", known) for column, known in self.tables[table]])
        where = f" WHERE {self.condition(inner, 0)}" if self.chance(0.8) else ""
        if choice == "exists":
            return f"({self.pick('', 'NOT ')}EXISTS (SELECT 1 FROM {table} {alias}{where}))"
        column = self.random.choice(own.of(kind) or own.of("int"))
        kind = dict(own.columns)[column]
        left = self.expression(kind, sight, 0)
        if choice == "rowsub":
            return f"(({left}, {self.expression('int', sight, 0)}) {self.pick('', 'NOT ')}IN (SELECT {column}, {alias}.c0 AS y FROM {table} {alias}{where}))"
        if choice == "insub":
            listed = f"SELECT {column} FROM {table} {alias}{where}"
            if self.chance(0.2):
                listed += f" {self.pick('UNION', 'UNION ALL', 'EXCEPT')} SELECT {self.literal(kind)}"
            return f"({left} {self.pick('', 'NOT ')}IN ({listed}))"
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
        if own.of(kind) and self.chance(0.25):
            # The first row by all columns.
            order = self.order([column for column, _ in own.columns])
            return f"(SELECT {argument} FROM {table} {alias}{where} ORDER BY {order} LIMIT 1)"
        if kind in self.NUMBERS:
            aggregate = self.pick(f"max({argument})", f"min({argument})", f"count({argument})", "count(*)", f"sum({alias}.c0)")
            return f"CAST((SELECT {aggregate} FROM {table} {alias}{where}) AS {self.kinds[kind]})"
        if own.of(kind):
            return f"(SELECT {self.pick('min', 'max')}({argument}) FROM {table} {alias}{where})"
        return self.literal(kind)

    def order(self, columns):
        return ", ".join(f"{column} {self.pick('', 'DESC ')}{self.pick('NULLS FIRST', 'NULLS LAST')}" for column in columns)
