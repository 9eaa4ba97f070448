"""Strings, dates, timestamps and intervals."""

from records import dealt, each

PATTERNS = ["'a%'", "'%e'", "'%an%'", "'_pple'", "'apple_'", "''", "'%'", "'a\\_b\\%c'", "'A%'", "'Ä%'", "'%\\%%'", "'______'", "NULL", "s", "'%p%l%'"]
FUNCTIONS = [
    "length(s)", "char_length(s)", "octet_length(s)", "upper(s)", "lower(s)", "trim(s)", "ltrim(s)", "rtrim(s)", "trim('a' FROM s)", "trim(BOTH 'ae' FROM s)",
    "trim(LEADING 'a' FROM s)", "trim(TRAILING ' ' FROM s)", "substring(s, 2)", "substring(s, 2, 3)", "substring(s FROM 2 FOR 2)", "substr(s, 0, 3)", "substr(s, -1)",
    "left(s, 2)", "right(s, 2)", "left(s, -1)", "right(s, -2)", "lpad(s, 8, '*')", "rpad(s, 8, '*')", "lpad(s, 3, '*')", "repeat(s, 2)", "reverse(s)",
    "replace(s, 'a', 'xy')", "replace(s, '', 'x')", "translate(s, 'ae', 'AE')", "position('a' IN s)", "strpos(s, 'e')", "split_part(s, 'a', 1)", "split_part(s, 'a', 2)",
    "s || '!'", "s || NULL", "concat(s, '-', i)", "concat_ws('-', s, k, NULL, b)", "initcap(s)", "ascii(s)", "md5(s)", "starts_with(s, 'a')", "coalesce(s, 'none')",
    "nullif(s, '')", "s = trim(s)", "s < 'b'", "s || s = repeat(s, 2)", "regexp_replace(s, 'a', 'b')", "regexp_replace(s, '[aeiou]', '', 'g')", "s ~ '^a'", "s ~* '^A'", "s !~ 'e'",
    "overlay(s PLACING 'XX' FROM 2)", "CAST(s AS VARCHAR)", "chr(65 + k)", "to_hex(k + 250)", "encode(CAST(s AS BYTEA), 'hex')", "length(s || 'ä')", "bit_length(s)",
]  # fmt: skip


def strings():
    queries = each("SELECT id FROM things WHERE s [0] [1] ORDER BY id", ["LIKE", "NOT LIKE"], PATTERNS)
    queries += each("SELECT id FROM things WHERE s [0] [1] ORDER BY id", ["ILIKE", "NOT ILIKE"], PATTERNS[:5] + PATTERNS[8:10])
    queries += each("SELECT id FROM things WHERE s LIKE [0] ESCAPE '[1]' ORDER BY id", ["'a!_b!%c'", "'%!%%'", "'!a%'"], ["!"])
    queries += each("SELECT id, [0] AS x FROM things ORDER BY id LIMIT 12", FUNCTIONS)
    queries += each("SELECT id FROM things WHERE [0] ORDER BY id", [
        "s = 'apple'", "s = 'apple '", "s <> 'apple'", "s > 'Banana'", "s >= 'a' AND s < 'b'", "s BETWEEN 'A' AND 'Z'", "s IN ('apple', '')", "s = ''", "length(s) = 0",
        "s < 'Ä'", "s > 'z'", "upper(s) = 'APPLE'", "lower(s) <> s", "s LIKE '%' || substr(s, 2)", "trim(s) = 'apple'", "substr(s, 1, 1) = 'a'", "s || '' = s",
    ])  # fmt: skip
    queries += each("SELECT [0] AS x", [
        "'a' || 'b' || 'c'", "'a' || 1", "1 || 'a'", "'it''s'", "''", "'ünïcödé'", "length('日本語')", "octet_length('日本語')", "reverse('日本')", "lower('ÀÉ')",
        "substring('hello' FROM 2 FOR 3)", "substring('hello', 10)", "substring('hello', 1, 0)", "position('' IN 'abc')", "position('z' IN 'abc')", "repeat('ab', 0)",
        "repeat('ab', -1)", "left('abc', 10)", "lpad('abc', 5)", "lpad('abc', 2, '')", "split_part('a,b,c', ',', 3)", "split_part('a,b,c', ',', 4)", "trim('  x  ')",
        "concat('a', NULL, 'b')", "concat_ws(',', 'a', NULL, 'b')", "'a' LIKE 'A'", "'a' ILIKE 'A'", "'%' LIKE '\\%'", "'ab' LIKE 'a_'", "'a\nb' LIKE 'a%b'", "NULL LIKE 'a'", "'a' LIKE NULL",
        "'abc' < 'abd'", "'a' < 'B'", "'10' < '9'", "'a' = 'a '", "coalesce(NULL, 'x')", "replace('aaa', 'aa', 'b')", "translate('12345', '143', 'ax')", "ascii('A')", "chr(8364)",
    ])  # fmt: skip
    queries += each("SELECT text, [0] AS x FROM strings WHERE id BETWEEN 3 AND 10 ORDER BY id", ["length(text)", "lower(text)", "substr(text, 1, 1)", "text < 'a'"])
    queries += each("SELECT s, count(*) AS n FROM things GROUP BY s ORDER BY s [0]", ["NULLS FIRST", "NULLS LAST", "DESC NULLS LAST"])
    queries += each("SELECT [0] AS x, count(*) AS n FROM things GROUP BY 1 ORDER BY 1 NULLS LAST", ["length(s)", "upper(s)", "substr(s, 1, 1)", "s LIKE '%a%'", "s || k", "trim(s)"])
    queries += each("SELECT [0](s) AS x FROM things WHERE s [1]", ["min", "max", "count"], ["LIKE 'a%'", "> 'b'", "<> ''", "= 'none'"])
    queries += each("SELECT n_name FROM nation WHERE n_name [0] ORDER BY 1", ["LIKE 'UNITED%'", "LIKE '%A'", "NOT LIKE '%A%'", "LIKE '_R%'", "ILIKE 'ind%'", "BETWEEN 'I' AND 'K'"])
    return list(dict.fromkeys(queries))


PARTS = ["year", "month", "day", "quarter", "week", "dow", "isodow", "doy", "epoch", "decade", "century"]
CLOCK_PARTS = ["hour", "minute", "second", "epoch"]


def dates():
    queries = each("SELECT id, CAST(EXTRACT([0] FROM d) AS DOUBLE) AS x FROM things WHERE id < 12 ORDER BY id", PARTS)
    queries += each("SELECT id, CAST(EXTRACT([0] FROM ts) AS DOUBLE) AS x FROM things WHERE id < 12 ORDER BY id", CLOCK_PARTS + ["day", "month", "dow"])
    queries += each("SELECT id, CAST(EXTRACT([0] FROM date) AS DOUBLE) AS x FROM early_dates WHERE date > DATE '1000-01-01' ORDER BY id", PARTS[:9])
    queries += each("SELECT id, CAST(date_trunc('[0]', d) AS DATE) AS x FROM things WHERE id < 12 ORDER BY id", ["year", "quarter", "month", "week", "day"])
    queries += each("SELECT id, date_trunc('[0]', ts) AS x FROM things WHERE id < 12 ORDER BY id", ["month", "week", "day", "hour", "minute", "second"])
    queries += each("SELECT CAST(date_trunc('[0]', d) AS DATE) AS x, count(*) AS n FROM things GROUP BY 1 ORDER BY 1 NULLS LAST", ["month", "week", "year"])
    queries += each("SELECT id, CAST(d [0] INTERVAL '[1]' AS DATE) AS x FROM things WHERE id < 10 ORDER BY id", ["+", "-"], ["1 day", "3 weeks", "1 month", "13 months", "1 year", "2 years -1 day"])
    queries += each("SELECT id, ts [0] INTERVAL '[1]' AS x FROM things WHERE id < 8 ORDER BY id", ["+", "-"], ["1 hour", "90 minutes", "1 day 2 hours", "1 month", "0.5 seconds", "1 year 2 months 3 days"])
    queries += each("SELECT id, d + [0] AS x FROM things WHERE id < 9 ORDER BY id", [1, 30, -400])
    queries += ["SELECT id, d - DATE '2024-01-01' AS days FROM things WHERE id < 12 ORDER BY id", "SELECT a.id, a.d - b.d AS days FROM things a JOIN pairs b ON a.id = b.id ORDER BY 1"]
    queries += each("SELECT id FROM things WHERE [0] ORDER BY id", [
        "d = DATE '2024-01-02'", "d > '2024-01-05'", "d BETWEEN DATE '2023-12-20' AND DATE '2023-12-31'", "d >= DATE '2024-01-01' - INTERVAL '1 week'", "d < TIMESTAMP '2024-01-01 12:00:00'",
        "ts > DATE '2024-03-03'", "ts < TIMESTAMP '2024-03-01 06:00:00.5'", "ts - INTERVAL '2 days' > TIMESTAMP '2024-03-01'", "EXTRACT(month FROM d) = 12", "date_trunc('day', ts) = DATE '2024-03-02'",
        "CAST(ts AS DATE) = DATE '2024-03-02'", "d IN (DATE '2024-01-02', DATE '2024-01-15', NULL)", "d NOT IN (DATE '2024-01-02', DATE '2024-01-15')", "d + 1 > ts", "d IS NULL AND ts IS NOT NULL",
        "ts BETWEEN TIMESTAMP '2024-03-01' AND TIMESTAMP '2024-03-02'", "EXTRACT(dow FROM d) IN (0, 6)", "d <> DATE '2024-01-02' OR d IS NULL",
    ])  # fmt: skip
    queries += each("SELECT [0] AS x", [
        "DATE '2024-02-29' + INTERVAL '1 year'", "CAST(DATE '2024-01-31' + INTERVAL '1 month' AS DATE)", "CAST(DATE '2024-03-31' - INTERVAL '1 month' AS DATE)", "DATE '2024-03-01' - DATE '2024-02-01'",
        "TIMESTAMP '2024-02-29 23:59:59.999999' + INTERVAL '1 microsecond'", "DATE '0001-01-01'", "DATE '9999-12-31'", "TIMESTAMP '1969-12-31 23:59:59.500001'", "TIMESTAMP '0001-01-01 00:00:00'",
        "TIMESTAMP '9999-12-31 23:59:59.999999'", "TIMESTAMP '3000-01-01 12:00:00'", "TIMESTAMP '1500-06-15 01:02:03'", "CAST('2024-02-29 01:02:03.123456' AS TIMESTAMP)", "CAST('2024-02-29T01:02:03' AS TIMESTAMP)",
        "date_trunc('year', TIMESTAMP '9999-12-31 23:59:59')", "date_trunc('month', TIMESTAMP '1600-05-05 05:05:05')",
        "CAST(EXTRACT(epoch FROM TIMESTAMP '1970-01-02 00:00:00') AS DOUBLE)", "CAST(EXTRACT(year FROM DATE '0099-05-05') AS DOUBLE)", "CAST(EXTRACT(week FROM DATE '2021-01-03') AS DOUBLE)",
        "CAST(EXTRACT(week FROM DATE '2020-12-31') AS DOUBLE)", "CAST(EXTRACT(doy FROM DATE '2024-12-31') AS DOUBLE)", "CAST(EXTRACT(millisecond FROM TIMESTAMP '2024-01-01 00:00:01.234567') AS DOUBLE)",
        "CAST(EXTRACT(microsecond FROM TIMESTAMP '2024-01-01 00:00:01.234567') AS DOUBLE)", "DATE '2024-01-01' < TIMESTAMP '2024-01-01 00:00:00.000001'", "DATE '2024-01-01' = TIMESTAMP '2024-01-01'",
        "INTERVAL '1 day' > INTERVAL '23 hours'", "INTERVAL '1 month' = INTERVAL '30 days'", "INTERVAL '24 hours' = INTERVAL '1 day'", "TIME '12:34:56' < TIME '12:34:57'", "CAST(NULL AS DATE) + 1",
        "make_date(2024, 2, 29)", "CAST(TIMESTAMP '2024-02-29 23:59:59' AS DATE)", "DATE '2024-02-29' + TIME '12:00:00'",
    ])  # fmt: skip
    queries += each("SELECT id, [0] AS x FROM early_dates WHERE id NOT IN (1, 6) ORDER BY id", ["date", "timestamp", "date + 1", "date_trunc('month', timestamp)", "date < DATE '1970-01-01'", "timestamp > TIMESTAMP '1900-01-01'", "CAST(timestamp AS DATE)", "CAST(date AS TIMESTAMP)"])
    queries += each("SELECT [0](date) AS d, [0](timestamp) AS ts FROM early_dates WHERE id > 1", ["min", "max", "count"])
    for one, other in dealt(["o_orderdate < DATE '1992-01-10'", "o_orderdate >= DATE '1998-08-01'", "EXTRACT(year FROM o_orderdate) = 1995"], ["month", "week"]):
        queries.append(f"SELECT CAST(date_trunc('{other}', o_orderdate) AS DATE) AS x, count(*) AS n FROM orders WHERE {one} GROUP BY 1 ORDER BY 1 LIMIT 6")
    queries += [(f"SELECT {value} AS x", ".") for value in ("DATE '2023-02-29'", "TIMESTAMP '2024-01-01 25:00:00'", "INTERVAL '1 fortnightly'", "date_trunc('moon', DATE '2024-01-01')", "EXTRACT(moon FROM DATE '2024-01-01')", "DATE '2024-01-01' + DATE '2024-01-02'")]
    return list(dict.fromkeys(queries))


MOMENTS = ["2024-01-15 12:00:00", "2024-07-15 12:00:00", "2024-03-10 01:59:59", "2024-03-10 03:00:00", "2024-11-03 00:30:00", "1969-12-31 23:59:59"]
ZONES = ["America/Denver", "Europe/Berlin", "Asia/Kolkata", "UTC"]


def zones():
    queries = each("SELECT TIMESTAMP '[0]' AT TIME ZONE '[1]' = TIMESTAMP '[0]' AT TIME ZONE 'UTC' AS same", MOMENTS, ZONES)
    queries += each("SELECT CAST(EXTRACT(epoch FROM TIMESTAMP '[0]' AT TIME ZONE '[1]') AS DOUBLE) AS x", MOMENTS, ZONES)
    queries += each("SELECT CAST((ts AT TIME ZONE '[0]') AT TIME ZONE '[1]' AS VARCHAR) LIKE '2024%' AS x, count(*) AS n FROM things GROUP BY 1", ZONES[:2], ZONES[2:])
    queries += each("SELECT id, CAST(EXTRACT([0] FROM (ts AT TIME ZONE 'UTC') AT TIME ZONE '[1]') AS DOUBLE) AS x FROM things WHERE id < 8 ORDER BY id", ["hour", "day", "minute"], ZONES)
    queries += each("SELECT id FROM things WHERE ts AT TIME ZONE '[0]' > TIMESTAMP '2024-03-02' AT TIME ZONE 'UTC' ORDER BY id", ZONES)
    queries += each("SELECT id, (timestamp_utc AT TIME ZONE '[0]') AS x FROM all_types ORDER BY id", ZONES)
    return queries


def scripts():
    return [
        ("text/strings", "Strings: patterns, functions, order, of one byte a letter and of more.", strings()),
        ("time/dates", "Dates, timestamps and intervals: parts, arithmetic, comparisons, the ends of their range.", dates()),
        ("time/zones", "Time zones: what AT TIME ZONE makes of a time and of a moment.", zones()),
    ]
