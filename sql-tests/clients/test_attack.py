"""A small share of every attack of `attack.py`, whose whole takes half an hour. How long others wait is not judged here: the machine does other work."""

import resource

import attack
import pytest

# Of GROUPING SETS with millions of groups, DataFusion accounts neither for the batch that it makes of them all nor for the copy that it sends.
BESIDE = 1.5


@pytest.fixture
def open_files():
    """What the attack raises is nobody's after it."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("open_files")
def test_a_share_of_every_attack_breaks_no_promise():
    assert attack.main(["--share", "0.01", "--untimed", "--beside", str(BESIDE)]) == 0
