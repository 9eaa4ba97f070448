"""Generates queries over the tables of canary_tables.py together with what must become of them, by rules that know nothing of the engine.

The coordinator and its client are in `eu`. Rows know where they may go: those of a table where it is pinned, those of a join where all of its
tables may, aggregates anywhere. A query is legal when its rows may meet and what comes out may go to `eu`; it is `refused` when that cannot be. What
is legal if the plan keeps rows where they are, and must be refused if it gathers them on the coordinator (one order, one window or one list over all
rows, distinct values, joins by inequality), is `by plan`: an equal answer or a proper refusal.
"""

import dataclasses
import random

from canary_tables import TABLES

LEGAL, REFUSED, BY_PLAN, EXPLAINED, FAILING = "legal", "refused", "by plan", "explained", "failing"
HOME = "eu"
KEYS = ["grp", "city", "qty"]
MEASURES = ["age", "qty", "grp", "id", "ref"]
SECRETS = ["name", "note", "ssn", "salary", "weight", "seen", "born"]
COLUMNS = ["id", "ref", *KEYS, "age", *SECRETS]
TABLE_NAMES = ["people", "orders", "visits"]


@dataclasses.dataclass
class Query:
    """A statement and what must become of it."""

    sql: str
    fate: str
    shape: str
    tables: list
    # In DuckDB's words; and whether its ORDER BY leaves nothing open.
    peer_sql: str = ""
    ordered: bool = False

    def __post_init__(self):
        self.peer_sql = self.peer_sql or self.sql.replace("first_value(", "first(").replace("last_value(", "last(")


@dataclasses.dataclass
class Rows:
    """A relation with the standard columns, `reach` (None for anywhere), and whether every part of it has many rows."""

    sql: str
    reach: frozenset | None
    tables: list
    many: bool = True


def meet(*reaches):
    known = [reach for reach in reaches if reach is not None]
    return frozenset.intersection(*known) if known else None


def listed(alias, columns=COLUMNS):
    return ", ".join(f"{alias}.{column}" for column in columns)


class Generator:
    """The queries of a seed: number `n` is the same whatever was asked before."""

    def __init__(self, seed, number):
        self.chance = random.Random(f"queries {seed} {number}")
        self.names = 0

    def pick(self, *options):
        return self.chance.choice(options)

    def alias(self):
        self.names += 1
        return f"t{self.names}"

    def table(self, region):
        name = self.pick("items", "pairs") if region is None else f"{self.pick(*TABLE_NAMES)}_{region}"
        return name, frozenset(TABLES[name][1]) or None

    # Conditions. None of them spells a canary: what a client asks for travels.

    def harmless(self, alias):
        at = lambda column: f"{alias}.{column}"  # noqa: E731
        return self.pick(
            f"{at('age')} < {self.chance.randrange(30, 85)}", f"{at('qty')} <> {self.chance.randrange(1, 10)}", f"{at('city')} > 'C'",
            f"{at('grp')} IN (1, 2, 3, 5, 7)", f"{at('id')} % 3 <> {self.chance.randrange(3)}", f"{at('grp')} IS NOT NULL",
            f"({at('age')} > 20 OR {at('city')} LIKE '%o%')", f"NOT ({at('age')} BETWEEN 40 AND 50)",
        )  # fmt: skip

    def secret(self, alias):
        at = lambda column: f"{alias}.{column}"  # noqa: E731
        digit = self.pick(*"0123456789abcdef")
        return self.pick(
            f"{at('name')} LIKE '%{digit}%'", f"upper({at('name')}) LIKE '%{digit.upper()}'", f"{at('note')} IS NOT NULL", f"{at('ssn')} % 2 = 0",
            f"{at('salary')} > 1000.00", f"{at('weight')} > 100.5", f"{at('seen')} > TIMESTAMP '2020-01-01 00:00:00'",
            f"{at('born')} < DATE '4100-01-01'",
            f"substr({at('name')}, 20, 2) <> '{digit}{digit}'", f"coalesce({at('note')}, 'none') <> {at('name')}", f"{at('name')} <> {at('city')}",
            f"CASE WHEN {at('ssn')} % 5 = 0 THEN {at('name')} ELSE {at('note')} END IS NOT NULL", f"length({at('name')}) > 3",
        )  # fmt: skip

    def where(self, alias, most=2):
        conditions = [self.pick(self.harmless, self.secret)(alias) for _ in range(self.chance.randrange(most + 1))]
        return f" WHERE {' AND '.join(conditions)}" if conditions else ""

    # Relations.

    def rows(self, region, depth=0):
        """Rows of a region's tables (`None`: of tables that may go to both), alone or joined with what may be where they are."""
        makers = [self.scan, self.scan, self.scan, self.pair, self.pair, self.semi, self.with_free, self.with_groups, self.distinct, self.ranked]
        makers += [self.chained, self.listed_groups, self.filtered] if depth < 2 else []
        return self.chance.choice(makers)(region, depth + 1)

    def scan(self, region, _):
        name, reach = self.table(region)
        alias = self.alias()
        return Rows(f"SELECT {listed(alias)} FROM {name} {alias}{self.where(alias)}", reach, [name], many=True)

    def filtered(self, region, depth):
        inner, alias = self.rows(region, depth), self.alias()
        return dataclasses.replace(inner, sql=f"SELECT {listed(alias)} FROM ({inner.sql}) {alias}{self.where(alias)}")

    def pair(self, region, _):
        """Two tables of a region, by keys that are secret or not."""
        left, reach = self.table(region)
        right, other = (f"people_{region}", reach) if region else self.table(None)
        a, b = self.alias(), self.alias()
        pairs = [("note", "name"), ("ref", "id"), ("id", "id"), ("name", "name"), ("ssn", "ssn")]
        on = " = ".join(f"{side}.{column}" for side, column in zip((a, b), self.pick(*pairs)))
        kind = self.pick("JOIN", "JOIN", "LEFT JOIN")
        columns = ", ".join(f"{self.pick(a, b) if column in ('name', 'salary') and kind == 'JOIN' else a}.{column}" for column in COLUMNS)
        return Rows(f"SELECT {columns} FROM {left} {a} {kind} {right} {b} ON {on}{self.where(a)}", meet(reach, other), [left, right], many=False)

    def semi(self, region, _):
        left, reach = self.table(region)
        right, other = self.table(region)
        a, b = self.alias(), self.alias()
        condition = self.pick(
            f"{a}.ref IN (SELECT {b}.id FROM {right} {b}{self.where(b)})",
            f"EXISTS (SELECT 1 FROM {right} {b} WHERE {b}.id = {a}.ref AND {self.secret(b)})",
            f"NOT EXISTS (SELECT 1 FROM {right} {b} WHERE {b}.note = {a}.name)", f"{a}.name IN (SELECT {b}.note FROM {right} {b})",
        )  # fmt: skip
        return Rows(f"SELECT {listed(a)} FROM {left} {a} WHERE {condition}", meet(reach, other), [left, right], many=False)

    def with_free(self, region, _):
        """With a table that may be anywhere."""
        left, reach = self.table(region)
        right, other = self.table(None)
        a, b = self.alias(), self.alias()
        # By secret keys only the bounds of both meet; what is known of the one side's keys must not go to where the other is read.
        pairs = [("id", "id"), ("ref", "id"), ("ref", "id"), ("name", "name"), ("ssn", "ssn"), ("seen", "seen")]
        on = " = ".join(f"{side}.{column}" for side, column in zip((a, b), self.pick(*pairs)))
        sql = f"SELECT {listed(a)} FROM {left} {a} {self.pick('JOIN', 'LEFT JOIN')} {right} {b} ON {on}{self.where(a)}"
        return Rows(sql, meet(reach, other), [left, right], many=False)

    def with_groups(self, region, _):
        """With aggregates of any region: these may go where the rows are."""
        left, reach = self.table(region)
        right, _ = self.table(self.pick("eu", "us", None))
        a, b, key = self.alias(), self.alias(), self.pick("grp", "city")
        groups = f"SELECT {key}, avg(age) AS mean, count(*) AS n FROM {right} GROUP BY {key}"
        sql = self.pick(
            f"SELECT {listed(a)} FROM {left} {a} JOIN ({groups}) {b} ON {a}.{key} = {b}.{key} WHERE {a}.age < {b}.mean",
            f"SELECT {listed(a)} FROM {left} {a} WHERE {a}.age > (SELECT avg(age) FROM {right})",
            f"SELECT {listed(a)} FROM {left} {a} WHERE {a}.city IN (SELECT city FROM {right} GROUP BY city HAVING count(*) > 100)",
            f"SELECT {listed(a)} FROM {left} {a} WHERE {a}.age >= (SELECT avg({b}.age) FROM {right} {b} WHERE {b}.{key} = {a}.{key})",
        )
        return Rows(sql, reach, [left, right], many=False)

    def distinct(self, region, _):
        name, reach = self.table(region)
        alias = self.alias()
        return Rows(f"SELECT DISTINCT {listed(alias)} FROM {name} {alias}{self.where(alias)}", reach, [name], many=False)

    def ranked(self, region, _):
        """By windows of groups: these are made where the groups are."""
        name, reach = self.table(region)
        a, b = self.alias(), self.alias()
        key, order = self.pick("city", "qty"), self.pick("id", "name, id", "ssn, id")
        window = self.pick("row_number()", "rank()", f"count({a}.note)", f"lag({a}.age)")
        inner = f"SELECT {listed(a)}, {window} OVER (PARTITION BY {a}.{key} ORDER BY {order}) AS place FROM {name} {a}"
        return Rows(f"SELECT {listed(b)} FROM ({inner}) {b} WHERE {b}.place > {self.chance.randrange(1, 9)}", reach, [name], many=False)

    def chained(self, region, depth):
        """A union of two relations of one region."""
        one, other = self.rows(region, depth), self.rows(region, depth)
        a, b = self.alias(), self.alias()
        sql = f"SELECT {listed(a)} FROM ({one.sql}) {a} UNION ALL SELECT {listed(b)} FROM ({other.sql}) {b}"
        return Rows(sql, meet(one.reach, other.reach), one.tables + other.tables, one.many and other.many)

    def listed_groups(self, region, _):
        """Groups whose lists carry the rows: they stay where these are, and what is counted of them leaves."""
        name, reach = self.table(region)
        alias, key = self.alias(), self.pick("city", "qty", "age")
        values = [f"first_value({column} ORDER BY name, id) AS {column}" if column != key else key for column in COLUMNS]
        return Rows(f"SELECT {', '.join(values)} FROM {name} {alias} GROUP BY {key}", reach, [name], many=False)

    # What is asked of them.

    def group_keys(self):
        keys = self.pick([], [], ["grp"], ["city"], ["grp", "city"], ["city", "qty"])
        return keys, self.pick("", "", "", "ROLLUP", "CUBE", "GROUPING SETS") if len(keys) == 2 else ""

    def grouped_by(self, keys, how):
        if not keys:
            return ""
        named = f"({', '.join(keys)})" if how else ", ".join(keys)
        return f" GROUP BY GROUPING SETS (({keys[0]}), ({keys[1]}), ())" if how == "GROUPING SETS" else f" GROUP BY {how}{named}"

    def function(self, rows, keys):
        """An aggregate that says something of all values together. Sums of secrets over many rows only: that of one row is the row."""
        chance = self.chance
        options = [
            "count(*)", f"count({chance.choice(SECRETS)})", f"sum({chance.choice(MEASURES)})", f"avg({chance.choice(MEASURES)})",
            f"min({chance.choice(MEASURES)})", f"max({chance.choice(MEASURES)})", "min(city)", "max(city)", "stddev(age)", "var_pop(qty)",
            "var_samp(age)",
            "stddev_pop(id)", f"sum({self.pick('ssn % 1000', 'length(name)', 'age * qty', 'length(note)')})", "bool_and(age > 2)",
            "bool_or(name LIKE '%7f%')",
            "bit_xor(qty)", f"count(*) FILTER (WHERE {self.secret('t0')})", "sum(CASE WHEN note > name THEN 1 ELSE 0 END)",
            "sum(CASE WHEN ssn % 3 = 0 THEN qty END)", "max(length(name))", "sum(qty * 2 + age)", "covar_pop(age, qty)",
        ]  # fmt: skip
        if rows.many and len(keys) < 2:
            options += ["sum(ssn)", "avg(ssn)", "sum(salary)", "avg(salary)", "sum(weight)", "avg(weight)"] * 2
        return chance.choice(options)

    def aggregates(self, rows, keys):
        return list(dict.fromkeys(self.function(rows, keys) for _ in range(self.chance.randrange(1, 5))))

    def from_rows(self, rows):
        """`FROM` with the relation as `t0`, in a subquery or a common table expression: (before, after)."""
        return self.pick(("", f"FROM ({rows.sql}) t0"), (f"WITH base AS ({rows.sql}) ", "FROM base t0"))

    def fate(self, reach, by_plan=False):
        if reach is not None and not reach:
            return REFUSED
        return BY_PLAN if by_plan else LEGAL

    def grouped(self, rows):
        keys, how = self.group_keys()
        before, after = self.from_rows(rows)
        functions = self.aggregates(rows, keys)
        having = self.pick("", "", f" HAVING count(*) > {self.chance.randrange(40)}") if keys else ""
        where = self.pick("", f" WHERE {self.secret('t0')}") if not any("(ssn)" in f or "(salary)" in f or "(weight)" in f for f in functions) else ""
        named = ", ".join(keys + [f"{function} AS a{number}" for number, function in enumerate(functions)])
        return f"{before}SELECT {named} {after}{where}{self.grouped_by(keys, how)}{having}"

    def ask_groups(self, rows):
        return Query(self.grouped(rows), self.fate(rows.reach), "groups", rows.tables)

    def ask_ordered_groups(self, rows):
        before, after = self.from_rows(rows)
        key = self.pick("city", "qty")
        sql = f"{before}SELECT {key}, {self.function(rows, [key])} AS a {after} GROUP BY {key}"
        sql += f" ORDER BY {key} DESC NULLS LAST LIMIT {self.chance.randrange(1, 9)}"
        return Query(sql, self.fate(rows.reach), "ordered groups", rows.tables, ordered=True)

    def ask_nested(self, rows):
        before, after = self.from_rows(rows)
        key = self.pick("grp", "city", "qty", "age")
        outer = self.pick("sum(n), avg(n), count(*)", "min(n), max(m)", "stddev(n)", "count(m)")
        sql = f"{before}SELECT {outer} FROM (SELECT {key}, count(*) AS n, max(age) AS m {after} GROUP BY {key}) groups"
        return Query(sql, self.fate(rows.reach), "nested", rows.tables)

    def ask_derived_key(self, rows):
        """Few values that are made of secret ones: the rest of these must not come along."""
        before, after = self.from_rows(rows)
        key = self.pick(
            "substr(name, 1, 16)", "upper(substr(name, 1, 15))", "length(note)", "ssn % 7", "extract(year FROM seen)", "name LIKE '%3'",
            "left(note, 14)",
        )  # fmt: skip
        functions = ", ".join(self.chance.sample(["count(*)", "sum(age)", "avg(qty)", f"min({key})", f"max({key})", "min(substr(note, 1, 15))"], 2))
        return Query(f"{before}SELECT {key} AS k, {functions} {after} GROUP BY {key}", self.fate(rows.reach), "derived keys", rows.tables)

    def ask_windows_of_groups(self, rows):
        """A window over aggregates."""
        before, after = self.from_rows(rows)
        sql = f"{before}SELECT city, n, rank() OVER (ORDER BY n DESC, city) FROM (SELECT city, count(*) AS n {after} GROUP BY city) groups"
        return Query(sql, self.fate(rows.reach), "windows of groups", rows.tables)

    def ask_aggregates_together(self, rows):
        """Aggregates of two regions meet."""
        other = self.rows(self.pick("eu", "us", None), 2)
        key = self.pick("city", "qty", "grp")
        one, two = (f"SELECT {key}, count(*) AS n, sum(age) AS m FROM ({side.sql}) t0 GROUP BY {key}" for side in (rows, other))
        # The functions of `b` are not asked for: the plan may leave DISTINCT of it, whose groups count as rows.
        exists = f"SELECT count(*) FROM ({one}) a WHERE EXISTS (SELECT 1 FROM ({two}) b WHERE b.{key} = a.{key})"
        sql = self.pick(
            f"SELECT a.{key}, a.n, b.m FROM ({one}) a {self.pick('JOIN', 'LEFT JOIN', 'FULL JOIN')} ({two}) b ON a.{key} = b.{key}",
            f"{one} UNION ALL {two}", f"{one} UNION {two}", f"{one} INTERSECT {two}", f"{one} EXCEPT {two}",
            f"SELECT {key}, sum(n) FROM ({one} UNION ALL {two}) both_sides GROUP BY {key}",
            f"SELECT (SELECT sum(m) FROM ({one}) a) - (SELECT sum(m) FROM ({two}) b)",
            f"SELECT count(*) FROM ({one}) a WHERE a.n > (SELECT avg(n) FROM ({two}) b)",
            f"SELECT count(*) FROM ({one}) a WHERE EXISTS (SELECT 1 FROM ({two}) b WHERE b.{key} = a.{key} AND b.m > a.n)", exists,
        )  # fmt: skip
        return Query(sql, BY_PLAN if sql == exists else LEGAL, "aggregates together", rows.tables + other.tables)

    def ask_home_by_aggregate(self, _):
        """Rows of the client's region, chosen by aggregates of another."""
        home, _ = self.table(HOME)
        away = self.rows("us", 2)
        condition = self.pick(
            f"h.age > (SELECT avg(age) FROM ({away.sql}) t0)", f"h.city IN (SELECT city FROM ({away.sql}) t0 GROUP BY city HAVING count(*) > 3)",
            f"EXISTS (SELECT 1 FROM (SELECT count(*) AS n FROM ({away.sql}) t0) counted WHERE n > h.age)",
            f"h.age >= (SELECT avg(t0.age) FROM ({away.sql}) t0 WHERE t0.qty = h.qty)",
        )  # fmt: skip
        sql = f"SELECT h.id, h.name, h.ssn, h.salary FROM {home} h WHERE {condition}"
        return Query(sql, self.fate(away.reach), "rows at home by aggregates", [home, *away.tables])

    # Rows that come to the client.

    def secret_columns(self):
        return ", ".join(self.chance.sample(["id", "age", *SECRETS], self.chance.randrange(2, 6)))

    def raw(self, rows):
        before, after = self.from_rows(rows)
        key = self.pick(*SECRETS)
        where = self.pick("", f" WHERE {self.secret('t0')}")
        total = ", ".join(f"{column} NULLS LAST" for column in ["id", *self.chance.sample(SECRETS, 7)])
        return self.pick(
            (f"{before}SELECT {self.secret_columns()} {after}{where}", False),
            (f"{before}SELECT id, {key} {after}{where} ORDER BY {key} DESC NULLS LAST, {total} LIMIT {self.chance.randrange(1, 40)}", True),
            (f"{before}SELECT DISTINCT {key} {after}{where}", False),
            (f"{before}SELECT {self.pick('city', 'grp', 'qty', 'age')} AS k {after} GROUP BY k", False),
            (f"{before}SELECT CASE WHEN age < 50 THEN name ELSE note END AS chosen {after}{where}", False),
            (f"{before}SELECT id, {key}, row_number() OVER (ORDER BY {total}) AS place {after}{where}", False),
            (f"{before}SELECT id, count(*) OVER (PARTITION BY city) AS n, max(age) OVER (PARTITION BY grp) AS m {after}", False),
            (f"{before}SELECT city, string_agg(name, ',' ORDER BY name) AS names {after} GROUP BY city", False),
            (f"{before}SELECT array_agg(ssn ORDER BY ssn) AS numbers {after}{where}", False),
            (f"{before}SELECT city, first_value({key} ORDER BY {total}) AS f, last_value(name ORDER BY {total}) AS l {after} GROUP BY city", False),
            (f"{before}SELECT grp, median(CAST(age AS DOUBLE)) AS m {after} GROUP BY grp", False),
            (f"{before}SELECT name {after} UNION SELECT note {after}", False),
            (f"{before}SELECT ssn {after} EXCEPT SELECT id {after}{where}", False),
            (f"{before}SELECT concat(name, '/', city) AS joined, ssn + 1 AS more, lower(note) AS low {after}{where}", False),
        )  # fmt: skip

    def ask_raw(self, rows):
        sql, ordered = self.raw(rows)
        home = rows.reach is None or HOME in rows.reach
        return Query(sql, self.fate(rows.reach) if home else REFUSED, "rows", rows.tables, ordered=ordered)

    def ask_sketch(self, rows):
        """Percentiles and sketches carry values: not from abroad. Theirs are no exact answers, so nobody asks for them at home."""
        before, after = self.from_rows(rows)
        what = self.pick("approx_percentile_cont(age, 0.5)", "approx_distinct(name)", "approx_median(ssn)", "median(ssn)", "array_agg(DISTINCT name)")
        return Query(f"{before}SELECT {what} {after}", REFUSED, "sketches", rows.tables)

    def ask_both(self, _):
        """Rows of two regions that would have to meet."""
        one, two = self.rows("eu", 2), self.rows("us", 2)
        a, b = self.pick((one, two), (two, one))
        key = self.pick("ssn", "name", "id", "city")
        sql = self.pick(
            f"SELECT count(*) FROM ({a.sql}) a JOIN ({b.sql}) b ON a.{key} = b.{key}",
            f"SELECT a.name FROM ({a.sql}) a JOIN ({b.sql}) b ON a.{key} = b.{key}",
            f"SELECT count(*) FROM ({a.sql}) a WHERE a.{key} IN (SELECT {key} FROM ({b.sql}) b)",
            f"SELECT count(*) FROM ({a.sql}) a WHERE EXISTS (SELECT 1 FROM ({b.sql}) b WHERE b.{key} = a.{key} AND b.age > 3)",
            f"SELECT count(*) FROM (SELECT {key} FROM ({a.sql}) a UNION SELECT {key} FROM ({b.sql}) b) both_sides",
            f"SELECT count(*) FROM (SELECT {key} FROM ({a.sql}) a INTERSECT SELECT {key} FROM ({b.sql}) b) both_sides",
            f"SELECT name, ssn FROM ({a.sql}) a UNION ALL SELECT name, ssn FROM ({b.sql}) b",
            f"SELECT a.city, count(*) FROM ({a.sql}) a LEFT JOIN ({b.sql}) b ON a.{key} = b.{key} GROUP BY a.city",
        )  # fmt: skip
        return Query(sql, REFUSED, "rows of both", one.tables + two.tables)

    def ask_by_plan(self, rows):
        before, after = self.from_rows(rows)
        total = ", ".join(f"{column} NULLS LAST" for column in ["id", *SECRETS])
        key, secret = self.pick("city", "grp", "qty"), self.pick("name", "note", "ssn", "born", "age")
        name, other = self.table("us")
        sql = self.pick(
            f"{before}SELECT count(DISTINCT {secret}) {after}", f"{before}SELECT {key}, count(DISTINCT {secret}), sum(age) {after} GROUP BY {key}",
            f"{before}SELECT count(DISTINCT {secret}), count(DISTINCT city) {after}", f"{before}SELECT sum(DISTINCT qty), count(*) {after}",
            f"{before}SELECT count(*), sum(age) FROM (SELECT * {after} ORDER BY {total} LIMIT 25) best",
            f"{before}SELECT sum(place) FROM (SELECT row_number() OVER (ORDER BY {total}) AS place {after}) ranked",
            f"{before}SELECT length(string_agg(name, ',')) {after}",
            f"{before}SELECT avg(s) FROM (SELECT median(CAST(age AS DOUBLE)) AS s {after}) medians",
            f"{before}SELECT count(*) FROM (SELECT name {after} UNION SELECT note {after}) names",
            f"{before}SELECT count(*) FROM (SELECT ssn {after} EXCEPT SELECT id {after}) numbers",
            f"{before}SELECT count(*) {after} JOIN {name} u ON t0.ssn < u.id AND t0.id = 7",
            f"{before}SELECT count(*) {after} WHERE t0.ref NOT IN (SELECT id FROM {name} WHERE age > 40)",
            f"{before}SELECT count(*) {after} FULL JOIN {name} u ON t0.name = u.note",
        )  # fmt: skip
        return Query(sql, self.fate(meet(rows.reach, other), by_plan=True), "by plan", [*rows.tables, name])

    def ask_union_counted(self, rows):
        """Rows of both regions, counted: each where they are, if the plan counts before it unites."""
        other = self.rows("eu", 2)
        key = self.pick("city", "grp")
        both = f"SELECT {key}, age, name FROM ({rows.sql}) a UNION ALL SELECT {key}, age, name FROM ({other.sql}) b"
        asked = self.pick(("count(*), sum(age), count(name)", ""), (f"{key}, count(*), max(age)", f" GROUP BY {key}"))
        sql = f"SELECT {asked[0]} FROM ({both}) both_sides{asked[1]}"
        return Query(sql, BY_PLAN, "unions counted", rows.tables + other.tables)

    def ask_failing(self, rows):
        """A query that fails on some row: the error must not quote rows that may not leave."""
        before, after = self.from_rows(rows)
        what = self.pick(
            "sum(CAST(name AS BIGINT))", "sum(CAST(ssn AS INT))", "max(CAST(note AS DATE))", "sum(CAST(name AS DOUBLE))",
            "count(CAST(name AS TIMESTAMP))",
            "sum(age / (qty - qty))", "sum(CAST(salary AS DECIMAL(4, 2)))", "count(CAST(note AS BOOLEAN))", "count(CAST(name AS INTERVAL))",
            "count(to_timestamp(note))", "count(regexp_like(city, concat(name, '(')))", "count(decode(name, 'hex'))", "count(chr(ssn))",
            "sum(CASE WHEN note > 5 THEN 1 END)", "count(to_char(seen, concat('%', name)))", "count(make_date(ssn, 1, 1))",
            "count(concat(repeat(name, 1000000000)))",
        )  # fmt: skip
        # Not the bounds, which would be quoted instead.
        return Query(f"{before}SELECT {what} {after} WHERE t0.name LIKE 'canar%'", FAILING, "failing", rows.tables)

    def ask_ledger(self, _):
        """Secret group keys and bounds: these cross, by the rule. The tables hold no canaries; answers are compared."""
        table = f"ledger_{self.pick('eu', 'us', 'us')}"
        sql = self.pick(
            f"SELECT name, count(*) FROM {table} GROUP BY name",
            f"SELECT min(ssn), max(salary), min(seen), max(note), max(born), min(weight) FROM {table}",
            f"SELECT count(*), max(n) FROM (SELECT ssn, count(*) AS n FROM {table} GROUP BY ssn) groups",
            f"SELECT note, sum(ssn), max(weight) FROM {table} GROUP BY note",
            f"SELECT city, max(name), min(born) FROM {table} GROUP BY city",
        )  # fmt: skip
        return Query(sql, LEGAL, "ledger", [table])

    def ask_nested_values(self, region):
        """Lists and structures of secrets."""
        table, reach = self.table(region)
        sql, raw = self.pick(
            (f"SELECT id, tags, home FROM {table} WHERE age < 60", True), (f"SELECT home['street'] AS street FROM {table}", True),
            (f"SELECT count(home['street']), sum(cardinality(tags)) FROM {table}", False),
            (f"SELECT city, count(*) FROM {table} WHERE home['zip'] % 2 = 0 GROUP BY city", False),
            (f"SELECT count(tag) FROM (SELECT unnest(tags) AS tag FROM {table}) spread", False), (f"SELECT unnest(tags) AS tag FROM {table}", True),
        )  # fmt: skip
        fate = REFUSED if raw and reach is not None and HOME not in reach else LEGAL
        return Query(sql, fate, "nested values", [table], peer_sql=sql.replace("cardinality(tags)", "len(tags)"))


# How often each is asked, and of whose rows.
SHAPES = [
    (26, "ask_groups", ("us", "us", "eu", None)), (5, "ask_ordered_groups", ("us", "us", "eu")), (6, "ask_nested", ("us", "us", "eu")),
    (6, "ask_derived_key", ("us", "us", "eu")), (3, "ask_windows_of_groups", ("us", "eu")), (10, "ask_aggregates_together", ("us", "eu", None)),
    (5, "ask_home_by_aggregate", (None,)), (24, "ask_raw", ("us", "us", "us", "eu", None)), (3, "ask_sketch", ("us",)), (8, "ask_both", (None,)),
    (7, "ask_by_plan", ("us",)), (3, "ask_union_counted", ("us",)), (2, "ask_failing", ("us", "us", "eu")), (2, "ask_ledger", (None,)),
    (4, "ask_nested_values", ("us", "us", "eu", None)),
]  # fmt: skip
OWN_ROWS = ("ask_home_by_aggregate", "ask_both", "ask_ledger")
EXPLAINED_SHARE = 0.02


def query(seed, number):
    """Query `number` of a seed."""
    made = Generator(seed, number)
    [(_, shape, regions)] = made.chance.choices(SHAPES, [share for share, _, _ in SHAPES])
    region = made.pick(*regions)
    asked = getattr(made, shape)(region if shape in (*OWN_ROWS, "ask_nested_values") else made.rows(region))
    if made.chance.random() < EXPLAINED_SHARE and asked.fate != FAILING:
        return dataclasses.replace(asked, sql=f"{made.pick('EXPLAIN', 'EXPLAIN ANALYZE')} {asked.sql}", fate=EXPLAINED)
    return asked


def open_rows():
    """What crosses by right and must be seen by whoever records: every canary that the other region holds of tables that may leave it."""
    columns = ", ".join([*COLUMNS, "tags", "home"])
    return [f"SELECT {columns} FROM items", f"SELECT {columns} FROM pairs"]
