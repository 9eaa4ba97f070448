"""The comparison itself: what ORDER BY and LIMIT leave open is accepted, and nothing else."""

import answers
import duckdb
import pytest

VALUES = "(VALUES (1, 'a'), (1, 'b'), (2, 'c'), (2, 'd'), (3, 'e')) AS data(place, name)"
ROWS = [(1, "a"), (1, "b"), (2, "c"), (2, "d"), (3, "e")]


def found(sql, ours):
    return answers.difference_in_order(ours, answers.expected_in_order(duckdb.connect(), sql))


@pytest.mark.parametrize("order", ["place", "1", "data.place", "place * 10", "CASE WHEN place > 0 THEN place END"])
def test_rows_of_equal_keys_come_in_any_order_and_others_do_not(order):
    sql = f"SELECT place, name FROM {VALUES} ORDER BY {order}"
    assert found(sql, ROWS) is None
    assert found(sql, [ROWS[1], ROWS[0], *ROWS[2:]]) is None
    assert "from row 0 on" in found(sql, [ROWS[0], ROWS[2], ROWS[1], *ROWS[3:]])


@pytest.mark.parametrize("last", ROWS)
def test_limit_takes_any_row_of_the_run_that_it_cuts(last):
    sql = f"SELECT place, name FROM {VALUES} ORDER BY place LIMIT 3"
    answer = found(sql, [ROWS[0], ROWS[1], last])
    assert answer is None if last[0] == 2 else "is not among theirs" in answer


def test_limit_without_order_takes_any_rows_but_each_once():
    sql = f"SELECT place, name FROM {VALUES} LIMIT 2"
    assert found(sql, [ROWS[4], ROWS[2]]) is None
    assert "is not among theirs" in found(sql, [ROWS[4], ROWS[4]])
    assert found(sql, ROWS[:1]) == "1 rows against 2"


def test_a_key_that_the_answer_does_not_show_holds_too():
    sql = f"SELECT name FROM {VALUES} ORDER BY -place"
    assert found(sql, [("e",), ("d",), ("c",), ("b",), ("a",)]) is None
    assert found(sql, [("e",), ("d",), ("b",), ("c",), ("a",)]) is not None
