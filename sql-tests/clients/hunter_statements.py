"""Random statements of a seed, for `hunter.py`.

What a statement gives is never left to chance: LIMIT, DISTINCT ON and windows order by all columns, so that rows that tie are alike.
"""

from hunter_expressions import Columns, Expressions

# Queries within each other in FROM.
NESTED_MOST = 2
# Windows that look at a frame.
FRAMED = ("sum", "min", "max", "count", "first_value", "last_value", "nth_value")


class Statements(Expressions):
    """The statements of one seed, made one after the other: `setup` comes first."""

    nested = 0

    def source(self):
        """FROM, and what it shows."""
        if self.chance(0.08):
            return self.used()
        text, seen = self.item("a")
        for alias in self.random.sample(["b", "c"], self.pick(0, 0, 1, 1, 2)):
            join = self.pick("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN", "JOIN", "lateral", "unnest")
            if join == "unnest":
                listed = ", ".join([self.literal("int") for _ in range(self.random.randint(1, 3))] + [column for column in Columns(seen).of("int") if column.startswith("a.")][:1])
                text += f" CROSS JOIN LATERAL unnest(ARRAY[{listed}]) AS {alias}(u)" if "a." in listed else f" CROSS JOIN unnest(ARRAY[{listed}]) AS {alias}(u)"
                seen = [*seen, (f"{alias}.u", "int")]
                continue
            if join == "lateral":
                table = self.random.choice(list(self.tables))
                own = [(f"l{alias}.{column}", kind) for column, kind in self.tables[table]]
                kind = self.pick("int", "txt", "dec", "day")
                limit = f" ORDER BY {self.order([column for column, _ in own])} LIMIT {self.random.randint(1, 2)}" if self.chance(0.5) else ""
                inside = Columns(own + seen)
                query = f"SELECT {self.expression(kind, inside, 1)} AS v FROM {table} l{alias} WHERE {self.condition(inside, 0)}{limit}"
                text += f" {self.pick('CROSS JOIN LATERAL', 'LEFT JOIN LATERAL')} ({query}) {alias}"
                text += " ON true" if text.rsplit("LATERAL", 1)[0].endswith("LEFT JOIN ") else ""
                seen = [*seen, (f"{alias}.v", kind)]
                continue
            joined, theirs = self.item(alias)
            text += f" {join} {joined}"
            if join != "CROSS JOIN":
                text += f" ON a.c0 {self.pick('=', '=', '=', 'IS NOT DISTINCT FROM') if join != 'FULL JOIN' else '='} {alias}.c0"
                if self.chance(0.3) and join != "FULL JOIN":
                    # A subquery stands in the ON of an inner join alone.
                    text += f" AND {self.condition(Columns(seen + theirs), int(join == 'JOIN'))}"
            seen = seen + theirs
        return text, Columns(seen)

    def item(self, alias):
        """A table, or a query in its place, and what it shows. Its first column is an integer."""
        if self.nested < NESTED_MOST and self.chance(0.2):
            self.nested += 1
            text, columns = self.derived()
            self.nested -= 1
            text = f"({text})"
        else:
            text = self.random.choice(list(self.tables))
            columns = self.tables[text]
        return f"{text} {alias}", [(f"{alias}.{column}", kind) for column, kind in columns]

    def derived(self):
        """A query whose columns are c0, c1 and so on, and their kinds."""
        form = self.pick("plain", "distinct", "grouped", "grouped", "union", "limited", "numbered")
        kinds = ["int", *[self.pick("int", "txt", "day", "dec", "yes", "dbl", "time", "small") for _ in range(self.random.randint(0, 2))]]
        names = [f"c{at}" for at in range(len(kinds))]
        selected = self.items_of(kinds, *self.source())
        shown = list(zip(names, kinds))
        if form == "plain":
            return f"SELECT {selected}", shown
        if form == "distinct":
            return f"SELECT DISTINCT {selected}", shown
        if form == "union":
            return f"SELECT {selected} {self.pick('UNION', 'UNION ALL', 'EXCEPT', 'INTERSECT')} SELECT {self.items_of(kinds, *self.source())}", shown
        listed, more = ", ".join(names), f"c{len(kinds)}"
        if form == "limited":
            return f"SELECT * FROM (SELECT {selected}) i ORDER BY {self.order(names)} LIMIT {self.random.randint(1, 9)}", shown
        if form == "numbered":
            return f"SELECT {listed}, row_number() OVER (ORDER BY {self.order(names)}) AS {more} FROM (SELECT {selected}) i", [*shown, (more, "big")]
        kept = shown[: self.random.randint(1, len(shown))]
        keys = ", ".join(name for name, _ in kept)
        value = self.pick(*names)
        function, kind = self.pick(("count", "big"), ("max", dict(shown)[value])) if dict(shown)[value] != "yes" else ("count", "big")
        return f"SELECT {keys}, {function}({value}) AS {more} FROM (SELECT {selected}) i GROUP BY {keys}", [*kept, (more, kind)]

    def items_of(self, kinds, text, sight):
        """Columns c0, c1 and so on of such kinds, and their FROM: mostly columns as they are."""
        of = lambda kind: self.pick(*sight.of(kind)) if sight.of(kind) and self.chance(0.7) else self.expression(kind, sight, 1)
        where = f" WHERE {self.condition(sight, 0)}" if self.chance(0.3) else ""
        return f"{', '.join(f'{of(kind)} AS c{at}' for at, kind in enumerate(kinds))} FROM {text}{where}"

    def used(self):
        """JOIN … USING: the merged column is asked for without a table."""
        left, right = self.random.choice(list(self.tables)), self.random.choice(list(self.tables))
        seen = [("c0", "int"), *[(f"a.{column}", kind) for column, kind in self.tables[left][1:]], *[(f"b.{column}", kind) for column, kind in self.tables[right][1:]]]
        return f"{left} a {self.pick('JOIN', 'LEFT JOIN', 'RIGHT JOIN', 'FULL JOIN')} {right} b USING (c0)", Columns(seen)

    def some_kinds(self, most):
        return [self.pick(*self.kinds) for _ in range(self.random.randint(1, most))]

    def select(self, kinds=None):
        text, sight = self.source()
        kinds = kinds or self.some_kinds(4)
        items = [f"{self.expression(kind, sight, 3)} AS x{at}" for at, kind in enumerate(kinds)]
        where = f" WHERE {self.condition(sight, 2)}" if self.chance(0.7) else ""
        return f"SELECT {self.pick('', '', '', 'DISTINCT ')}{', '.join(items)} FROM {text}{where}"

    def grouped(self):
        text, sight = self.source()
        keys = [f"({self.expression(self.pick('int', 'txt', 'day', 'dec', 'yes', 'dbl', 'time', 'zone', 'odd', 'small'), sight, 1)})" for _ in range(self.pick(0, 1, 2, 3))]
        names = [f"k{at}" for at in range(len(keys))]
        shown = [f"{key} AS {name}" for key, name in zip(keys, names)] + [f"{column} AS v{at}" for at, (column, _) in enumerate(sight.columns)]
        below = f"(SELECT {', '.join(shown)} FROM {text})"
        inside = Columns([(f"v{at}", kind) for at, (_, kind) in enumerate(sight.columns)])
        aggregates = [f"{self.aggregate(inside)} AS a{at}" for at in range(self.random.randint(1, 3))]
        group = ""
        if names:
            form = self.pick("plain", "plain", "plain", "rollup", "cube", "sets", "more")
            listed = ", ".join(names)
            group = " GROUP BY " + {
                "plain": listed,
                "rollup": f"ROLLUP ({listed})",
                "cube": f"CUBE ({listed})",
                "sets": f"GROUPING SETS (({listed}), ())",
                "more": f"GROUPING SETS (({names[0]}), ({names[-1]}), ({listed}), ())",
            }[form]
            if form != "plain" and self.chance(0.3):
                aggregates.append(f"grouping({names[-1]}) AS g0")
        having = f" HAVING {self.pick('count(*)', self.aggregate(inside, ('int',)))} {self.pick('>', '<>', '>=')} {self.random.randint(0, 2)}" if names and self.chance(0.3) else ""
        return f"SELECT {', '.join(names + aggregates)} FROM {below} g{group}{having}"

    def aggregate(self, inside, kinds=("int", "dec", "wide", "txt", "day", "big", "small", "odd", "dbl", "real", "time", "zone", "yes", "count", "tick")):
        kind = self.pick(*kinds)
        argument = self.expression(kind, inside, 1)
        function = self.pick("count", "min", "max")
        if kind in ("int", "dec", "wide", "big", "small", "odd"):
            function = self.pick("count", "min", "max", "sum", "sum")
        if kind in ("int", "small") and self.chance(0.2):
            # Of a decimal it has four more digits: DuckDB's is a double.
            function, argument = "avg", f"CAST({argument} AS INT)"
        if kind == "yes":
            function = self.pick("count", "bool_and", "bool_or")
        if kind == "txt" and self.chance(0.2):
            return f"string_agg({argument}, ',' ORDER BY {argument})"
        distinct = "DISTINCT " if function in ("count", "sum", "avg") and self.chance(0.3) else ""
        only = f" FILTER (WHERE {self.condition(inside, 0)})" if self.chance(0.2) else ""
        return f"{function}({distinct}{argument}){only}"

    def windowed(self):
        table = self.random.choice(list(self.tables))
        sight = Columns([(f"a.{column}", kind) for column, kind in self.tables[table]])
        # The order is of all columns: rows that tie are alike.
        everything = [column for column, _ in sight.columns]
        partition = lambda: f"PARTITION BY {self.expression(self.pick('int', 'txt', 'yes', 'dbl', 'dec'), sight, 0)} " if self.chance(0.6) else ""
        named = f"{partition()}ORDER BY {self.order(everything)}" if self.chance(0.4) else ""
        items = [f"{self.window(sight, named, partition, everything)} AS w{at}" for at in range(self.random.randint(1, 3))]
        where = f" WHERE {self.condition(sight, 1)}" if self.chance(0.2) else ""
        return f"SELECT {', '.join(everything)}, {', '.join(items)} FROM {table} a{where}" + (f" WINDOW w AS ({named})" if named else "")

    def window(self, sight, named, partition, everything):
        function = self.pick(*FRAMED, "lag", "lead", "row_number", "rank", "dense_rank", "ntile", "percent_rank", "cume_dist")
        kind = self.pick("int", "dec", "big", "wide", "odd") if function == "sum" else self.pick("int", "dec", "big", "txt", "day", "dbl", "time")
        argument = self.expression(kind, sight, 1)
        ignore = self.pick("", "", " IGNORE NULLS") if function in ("lag", "lead", "first_value", "last_value", "nth_value") else ""
        call = {
            "lag": f"{function}({argument}{self.pick('', ', 2', ', 0', f', 1, {self.literal(kind)}')}{ignore})",
            "nth_value": f"nth_value({argument}, {self.random.randint(1, 3)}{ignore})",
            "ntile": f"ntile({self.random.randint(1, 4)})",
        }
        call["lead"] = call["lag"]
        text = call.get(function) or (f"{function}()" if function in ("row_number", "rank", "dense_rank", "percent_rank", "cume_dist") else f"{function}({argument}{ignore})")
        only = f" FILTER (WHERE {self.condition(sight, 0)})" if function in ("sum", "min", "max", "count") and self.chance(0.3) else ""
        frame = self.frame() if function in FRAMED else ""
        if function in ("sum", "min", "max", "count") and self.chance(0.25):
            # Values near the row's own, or groups of peers: rows that tie are together in every such frame.
            ends = self.pick("2 PRECEDING AND CURRENT ROW", "1 PRECEDING AND 3 FOLLOWING", "CURRENT ROW AND UNBOUNDED FOLLOWING", "UNBOUNDED PRECEDING AND CURRENT ROW")
            return f"{text}{only} OVER ({partition()}ORDER BY {self.order(['a.c0'])} {self.pick('RANGE', 'GROUPS')} BETWEEN {ends})"
        if named and self.chance(0.7):
            return f"{text}{only} OVER " + (f"(w{frame})" if frame else "w")
        return f"{text}{only} OVER ({partition()}ORDER BY {self.order(everything)}{frame})"

    def frame(self):
        between = " ROWS BETWEEN {} AND {}".format
        return self.pick(
            "",
            between("1 PRECEDING", "1 FOLLOWING"),
            between("UNBOUNDED PRECEDING", "UNBOUNDED FOLLOWING"),
            between("CURRENT ROW", "UNBOUNDED FOLLOWING"),
            between("3 PRECEDING", "2 PRECEDING"),
            between("1 FOLLOWING", "2 FOLLOWING"),
            " ROWS 2 PRECEDING",
            " GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW",
        )

    def combined(self):
        kinds = self.some_kinds(3)
        mixed = [self.pick(*self.NUMBERS) if kind in self.NUMBERS and self.chance(0.5) else kind for kind in kinds]
        operator = lambda: self.pick("UNION", "UNION ALL", "EXCEPT", "INTERSECT", "EXCEPT ALL", "INTERSECT ALL")
        text = f"{self.select(kinds)} {operator()} {self.select(mixed)}"
        return f"({text}) {operator()} {self.select(kinds)}" if self.chance(0.2) else text

    def distinct_on(self, kinds):
        keys = self.random.randint(1, len(kinds))
        listed = ", ".join(f"x{at}" for at in range(keys))
        return f"SELECT DISTINCT ON ({listed}) * FROM ({self.select(kinds)}) q ORDER BY {self.order([f'x{at}' for at in range(len(kinds))])}"

    def shared(self, kinds):
        """A query with a name, used twice or beside a table."""
        inner = self.select(["int", *kinds])
        seen = Columns([(f"{alias}.x{at}", kind) for alias in "ab" for at, kind in enumerate(["int", *kinds])])
        items = ", ".join(f"{self.expression(kind, seen, 1)} AS y{at}" for at, kind in enumerate(kinds))
        return f"WITH q AS ({inner}) SELECT {items} FROM q a {self.pick('JOIN', 'LEFT JOIN', 'FULL JOIN')} q b ON a.x0 = b.x0"

    def recursive(self):
        """Counts up to a bound, and meets a table."""
        table = self.random.choice(list(self.tables))
        seen = Columns([("r.n", "int"), *[(f"a.{column}", kind) for column, kind in self.tables[table]]])
        last = self.random.randint(1, 9)
        steps = f"SELECT CAST({self.random.randint(-2, 1)} AS INT), CAST({self.literal('txt')} AS VARCHAR) UNION ALL SELECT CAST(n + {self.pick(1, 2)} AS INT), v || 'b' FROM r WHERE n < {last}"
        items = ", ".join(f"{self.expression(kind, seen, 1)} AS y{at}" for at, kind in enumerate(self.some_kinds(2)))
        return f"WITH RECURSIVE r(n, v) AS ({steps}) SELECT r.v, {items} FROM r {self.pick('LEFT JOIN', 'JOIN', 'FULL JOIN')} {table} a ON a.c0 = r.n"

    def stored(self):
        """What a SELECT gives, read back from a table that was made of it."""
        made, kinds = f"{self.prefix}_made", self.random.choices(self.stored_kinds(), k=self.random.randint(1, 4))
        query = self.select(kinds)
        if self.chance(0.5):
            return f"DROP TABLE IF EXISTS {made}; CREATE TABLE {made} AS {query}; SELECT * FROM {made}"
        columns = ", ".join(f"x{at} {self.kinds[kind]}" for at, kind in enumerate(kinds))
        return f"DROP TABLE IF EXISTS {made}; CREATE TABLE {made} ({columns}); INSERT INTO {made} {query}; SELECT * FROM {made}"

    def agreeing(self):
        """Statements of Bowshot that must agree: rows of a condition, of its negation and of its NULLs, and two ways to count them."""
        text, sight = self.source()
        condition = self.condition(sight, 2)
        columns = ", ".join(f"{column} AS x{at}" for at, (column, _) in enumerate(sight.columns))
        parts = [f"SELECT {columns} FROM {text} WHERE {part}" for part in (condition, f"NOT {condition}", f"{condition} IS NULL")]
        counts = f"SELECT count(*) FROM {text} WHERE {condition}", f"SELECT coalesce(sum(CASE WHEN {condition} THEN 1 ELSE 0 END), 0) FROM {text}"
        return "; ".join([f"SELECT {columns} FROM {text}", *parts, *counts])

    KINDS_OF_STATEMENTS = ["select"] * 6 + ["set"] * 3 + ["grouped"] * 5 + ["windowed"] * 4 + ["limited"] * 2 + ["counted"] * 2
    KINDS_OF_STATEMENTS += ["distinct on", "shared", "recursive", "stored", "agreeing"]

    def statement(self):
        """The kind of a statement, and the statement."""
        choice = self.random.choice(self.KINDS_OF_STATEMENTS)
        plain = {"select": self.select, "set": self.combined, "grouped": self.grouped, "windowed": self.windowed, "recursive": self.recursive}
        plain |= {"stored": self.stored, "agreeing": self.agreeing}
        if choice in plain:
            return choice, plain[choice]()
        kinds = self.some_kinds(4)
        if choice == "distinct on":
            return choice, self.distinct_on(kinds)
        if choice == "shared":
            return choice, self.shared(kinds)
        inner = self.select(kinds)
        if choice == "counted":
            return choice, f"SELECT count(*) AS n FROM ({inner}) q"
        # By all columns: rows that tie are alike.
        order = self.order([at + 1 for at in range(len(kinds))])
        return choice, f"SELECT * FROM ({inner}) q ORDER BY {order} LIMIT {self.random.randint(0, 5)}{self.pick('', '', ' OFFSET 1')}"
