"""A short hunt: random statements answered as DuckDB answers them, on every kernel. `hunter.py` hunts longer."""

import cluster
import hunter
import pytest

STATEMENTS = 120


@pytest.fixture(scope="module")
def hunting_ground(tmp_path_factory):
    with hunter.three_nodes(tmp_path_factory.mktemp("hunt")) as running:
        yield running


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_statements_have_the_answers_of_duckdb(hunting_ground, seed):
    hunt = hunter.Hunt(hunting_ground.uri)
    hunt.run(seed, STATEMENTS)
    assert not hunt.wrong
    assert sum(count for (_, verdict), count in hunt.figures.items() if verdict == "same") > STATEMENTS / 2


def test_a_wrong_answer_would_be_seen():
    assert hunter.equal([(1, None), (2.5, "a")], [(2.5000000000001, "a"), (1, None)])
    assert not hunter.equal([(1,)], [(2,)])
    assert not hunter.equal([(1,)], [(1,), (1,)])
    assert not hunter.equal([(None,)], [(0,)])
    assert not hunter.equal([("1",)], [(1,)])
