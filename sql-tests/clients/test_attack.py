"""A small share of every attack of `attack.py`, whose whole takes a quarter of an hour. How long others wait is not judged here: the machine does other work."""

import resource

import attack
import pytest

# DataFusion makes one batch of all groups, and accounts neither for it nor for the copy that it sends: GROUPING SETS with millions of groups take
# twice the settings.
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
