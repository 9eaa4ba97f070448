"""A short hunt: random statements answered as DuckDB and Postgres answer them, on every kernel. `hunter.py` hunts longer."""

import contextlib
import decimal

import hunter
import hunter_judge
import hunter_shrink
import pytest
from hunter_answers import equal, postgres_cell, same

STATEMENTS = 60


@pytest.fixture(scope="module")
def hunting_ground(tmp_path_factory):
    with hunter.three_nodes(tmp_path_factory.mktemp("hunt")) as running:
        yield running


@pytest.fixture(scope="module")
def judge():
    """The port of a Postgres, or None where none is installed: DuckDB decides alone then."""
    with hunter_judge.Server() if hunter_judge.found() else contextlib.nullcontext() as server:
        yield server and server.port


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_statements_have_the_answers_of_other_engines(hunting_ground, judge, seed):
    hunt = hunter.Hunt(hunting_ground.uri, judge, shrink=False)
    hunt.run(seed, STATEMENTS)
    assert not hunt.wrong
    assert sum(count for (_, verdict), count in hunt.figures.items() if verdict == "same") > STATEMENTS * 0.7


def test_what_is_known_to_differ_is_a_short_list():
    known = {**hunter.REFUSED, **hunter.DIFFERS}
    assert len(known) <= 30
    assert all(known.values())


def test_a_wrong_answer_would_be_seen():
    one = decimal.Decimal(1)
    assert equal([(one, None), (2.5, "a")], [(2.5000000000001, "a"), (one, None)])
    assert equal([(float("nan"),), (float("inf"),)], [(float("inf"),), (float("nan"),)])
    assert not equal([(one,)], [(one + 1,)])
    assert not equal([(one,)], [(one,), (one,)])
    assert not equal([(None,)], [(decimal.Decimal(0),)])
    assert not equal([("1",)], [(one,)])
    digits = decimal.Decimal("12345678901234567890.1234")
    assert not equal([(digits,)], [(digits + decimal.Decimal("0.0001"),)])
    assert not equal([(True,)], [(one,)])


def test_cells_of_postgres_are_those_of_arrow():
    assert postgres_cell("0001-12-31 23:00:00 BC", 1114) == "at -62135600400000000000"
    assert postgres_cell("2024-02-29 01:00:00.5+01", 1184) == "at 1709164800500000000Z"
    assert postgres_cell("1970-01-02", 1082) == "day 1"
    assert postgres_cell("P1Y2M-3DT4H", 1186) == "14 months -3 days 14400000000000 ns"
    assert postgres_cell("1.50", 1700) == decimal.Decimal("1.5")


def test_findings_become_small():
    """A peer that is wrong wherever `lost` is asked for of a row 7."""
    sql = "SELECT a.x, coalesce(a.y, lost(a.z + 1), 2) AS q FROM t a JOIN u b ON a.x = b.x WHERE (a.x > 1 AND b.y IS NULL) ORDER BY 1 LIMIT 5"
    deadline = hunter.time.monotonic() + 5
    small = hunter_shrink.shorter(sql, lambda text: "lost" in text and text.startswith("SELECT"), deadline)
    assert len(small) < 40, small
    files = [["(1)", "(7)"], ["(2)", "(3)", "(4)"]]
    assert hunter_shrink.fewer(files, lambda files: any("(7)" in file for file in files), deadline) == [["(7)"]]
    assert hunter.hunter_rows("(1, 'a)(', f(2)), (NULL, 'it''s', (3))") == ["(1, 'a)(', f(2))", "(NULL, 'it''s', (3))"]


def test_orders_that_decide_an_answer_stay():
    sql = "SELECT x FROM t ORDER BY x, y LIMIT 3"
    small = hunter_shrink.shorter(sql, lambda text: "FROM t" in text and "LIMIT" in text, hunter.time.monotonic() + 5)
    assert "ORDER BY x, y" in small, small


@pytest.mark.parametrize(
    ("ours", "theirs", "equal"),
    [
        # Decimals of doubles: Postgres takes 15 digits, DuckDB what is left of a product.
        ("-96692.2881183753600000", "-96692.2881183754000000", True),
        ("329.644045895561500", "329.644045895561000", True),
        ("-157531.85017188318000000000000000", "-157531.85017188319771326559551488", True),
        ("2.5", "2", False),
        ("1.005", "1.00", False),
        ("1.00499", "1.005", False),
        ("-21582057.7841", "-21582057", False),
        ("0.12345678901234568", "0.1234567890123456789012", False),
    ],
)
def test_decimals_of_doubles_may_have_other_digits_and_no_other_value(ours, theirs, equal):
    assert same(decimal.Decimal(ours), decimal.Decimal(theirs)) == equal
