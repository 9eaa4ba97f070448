"""Sums, averages, products and quotients of decimals against fractions, which are exact; NaN in files whose bounds do not tell of it."""

import decimal
import fractions
import itertools
import os
import random

import adbc_driver_flightsql.dbapi
import cluster
import hunter
import pyarrow
import pyarrow.parquet
import pytest

# 10,000 in the long form: BOWSHOT_EXACT_CASES=10000.
CASES = int(os.environ.get("BOWSHOT_EXACT_CASES", "400"))
# Expressions in one statement.
BATCH = 20


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exact")
    # Four files of doubles on three nodes, row groups of two: some with a NaN beside small numbers.
    rows = [[1.0, float("nan")], [5.0, 2.0, float("nan"), -1.0], [0.5, 1.5], [3.0, None, -0.0, 0.0]]
    for number, values in enumerate(rows):
        target = folder / f"node-{number % 3 + 1}" / "nans"
        target.mkdir(parents=True, exist_ok=True)
        table = pyarrow.table({"x": pyarrow.array(values, pyarrow.float64()), "y": pyarrow.array(values, pyarrow.float32())})
        pyarrow.parquet.write_table(table, target / f"{number}.parquet", row_group_size=2, write_page_index=True)
    with hunter.three_nodes(folder) as running:
        running.create_table("nans", "node://*/data/nans/")
        yield running


@pytest.fixture(scope="module")
def cursor(nodes):
    with adbc_driver_flightsql.dbapi.connect(nodes.uri, autocommit=True) as connection, connection.cursor() as cursor:
        yield cursor


def rows(cursor, sql):
    cursor.execute(sql)
    return cursor.fetchall()


def rounded(exact, scale):
    """Half away from zero, to so many digits."""
    units = abs(exact) * 10**scale
    whole = units.numerator * 2 // units.denominator
    units = (whole + 1) // 2
    return decimal.Decimal(units if exact >= 0 else -units).scaleb(-scale, decimal.Context(prec=100))


def number(choose, digits_max=18):
    digits = choose.randint(1, digits_max)
    scale = choose.randint(0, digits)
    return decimal.Decimal(choose.randint(-(10**digits) + 1, 10**digits - 1)).scaleb(-scale), digits, scale


def text(value, digits, scale):
    return f"CAST('{value:f}' AS DECIMAL({digits}, {scale}))"


def scale_of(value):
    return -value.as_tuple().exponent


def test_products_and_quotients_are_exact_or_rounded_once(cursor):
    choose = random.Random(19)
    cases = []
    while len(cases) < CASES:
        (a, *type_a), (b, *type_b) = number(choose), number(choose)
        operator = choose.choice("+-*/")
        if operator == "/" and b == 0:
            continue
        exact = {"+": lambda x, y: x + y, "-": lambda x, y: x - y, "*": lambda x, y: x * y, "/": lambda x, y: x / y}[operator]
        cases.append((f"{text(a, *type_a)} {operator} {text(b, *type_b)}", exact(fractions.Fraction(a), fractions.Fraction(b)), operator))
    for batch in itertools.batched(cases, BATCH) if hasattr(itertools, "batched") else [cases[at : at + BATCH] for at in range(0, len(cases), BATCH)]:
        answers = rows(cursor, "SELECT " + ", ".join(f"{expression} AS x{at}" for at, (expression, *_) in enumerate(batch)))[0]
        for (expression, exact, operator), answer in zip(batch, answers):
            assert answer == rounded(exact, scale_of(answer)), f"{expression} = {answer}, exactly {float(exact)}"
            assert operator == "/" or fractions.Fraction(answer) == exact, expression
            assert operator != "/" or scale_of(answer) >= 16, expression


def test_sums_and_averages_are_exact_or_rounded_once(cursor):
    choose = random.Random(20)
    for _ in range(max(CASES // 100, 4)):
        digits = choose.randint(1, 30)
        scale = choose.randint(0, digits)
        values = [decimal.Decimal(choose.randint(-(10**digits) + 1, 10**digits - 1)).scaleb(-scale) for _ in range(50)]
        listed = ", ".join(f"({at % 3}, {text(value, digits, scale)})" for at, value in enumerate(values))
        for group, total, average, distinct in rows(cursor, f"SELECT g, sum(v), avg(v), sum(DISTINCT v) FROM (VALUES {listed}) t(g, v) GROUP BY g"):
            members = [fractions.Fraction(value) for at, value in enumerate(values) if at % 3 == group]
            assert fractions.Fraction(total) == sum(members)
            assert fractions.Fraction(distinct) == sum(set(members))
            assert average == rounded(sum(members) / len(members), scale_of(average))


@pytest.mark.parametrize("kernel", ["host", "device", "off"])
def test_bounds_of_files_do_not_hide_nan(cursor, kernel):
    """NaN is greater than all other numbers."""
    rows(cursor, f"SET bowshot.kernel = '{kernel}'")
    for column in "xy":
        asked = {
            f"{column} > 2": 4,
            f"{column} >= 3": 4,
            f"{column} <> 1": 10,
            f"NOT ({column} < 2)": 5,
            f"{column} > 100": 2,
            f"{column} < 1": 4,
            f"{column} BETWEEN 4 AND 1e300": 1,
        }
        for condition, count in asked.items():
            assert rows(cursor, f"SELECT count(*) FROM nans WHERE {condition}") == [(count,)], condition
        for _ in range(5):
            greatest, least = rows(cursor, f"SELECT max({column}), min({column}) FROM nans")[0]
            assert str(greatest) == "nan" and least == -1.0
            assert str(rows(cursor, f"SELECT {column} FROM nans ORDER BY {column} DESC NULLS LAST LIMIT 1")[0][0]) == "nan"


def test_statements_prepared_with_one_type_take_another_only_if_it_is_equal(cursor):
    cursor.execute("SELECT v FROM (VALUES (1), (2), (3)) t(v) WHERE v > ?", (1.5,))
    assert sorted(cursor.fetchall()) == [(2,), (3,)]
    cursor.execute("SELECT v + ? FROM (VALUES (1)) t(v)", (2.0,))
    assert cursor.fetchall() == [(3,)]
    with pytest.raises(adbc_driver_flightsql.dbapi.Error, match="checked_add|announced"):
        cursor.execute("SELECT v + ? FROM (VALUES (1)) t(v)", (2.5,))
        cursor.fetchall()
