"""Bounds on one statement: what functions may make, and that a cancel, a deadline or a client that goes away end the work on every node."""

import contextlib
import pathlib
import signal
import subprocess
import time

import adbc_driver_manager
import cluster
import pytest
from test_doors import resident_bytes

MEMORY_BYTES = 256 << 20
# What a process takes beside its settings: threads, buffers, the catalog, and what the allocator has not given back.
BESIDE_BYTES = MEMORY_BYTES // 4
# Share of a core that a process may use when its work has ended: heartbeats, and others on the machine.
IDLE_SHARE = 0.3
END_SECONDS = 10


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bounds")
    memory = {"BOWSHOT__WORKER__MEMORY_BYTES": str(MEMORY_BYTES), "BOWSHOT__WORKER__CACHE_BYTES": str(32 << 20)}
    node = cluster.Node("node-1", {"data": folder / "data"}, environment=memory)
    with cluster.Cluster(folder / "cluster", [node], f"[coordinator]\nmemory_bytes = {MEMORY_BYTES}\n") as started:
        started.rows("CREATE TABLE numbers AS SELECT value AS n, value % 10 AS k FROM generate_series(1, 300000)")
        yield started


def processes(running):
    return [running.server, *running.workers.values()]


@contextlib.contextmanager
def memory_stays(running):
    """What each process has at most while the block runs."""
    for process in processes(running):
        pathlib.Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    before = [resident_bytes(process) for process in processes(running)]
    yield
    for process, was in zip(processes(running), before, strict=True):
        grown = resident_bytes(process, high=True) - was
        assert grown <= MEMORY_BYTES + BESIDE_BYTES, f"{process.name} took {grown >> 20} MB more, with a limit of {MEMORY_BYTES >> 20}"


# A row that no message carries is an error of its own.
LONG_ROW = "SELECT repeat('x', 70000000)"
DOUBLED = "".join(f", t{level} AS (SELECT x || x AS x FROM t{level - 1})" for level in range(1, 13))
TOO_MUCH = {
    "repeat": "SELECT repeat('x', 1000000000)",
    "repeat within repeat": "SELECT length(repeat(repeat('x', 10000), 100000))",
    "repeat of rows": "SELECT max(length(repeat(repeat('x', 10000), n::int))) FROM numbers",
    "array_repeat": "SELECT array_repeat(1, 200000000)",
    "range": "SELECT range(1, 1000000000000)",
    "generate_series": "SELECT cardinality(generate_series(1, 1000000000000))",
    "generate_series of seconds": "SELECT generate_series(TIMESTAMP '1900-01-01', TIMESTAMP '2200-01-01', INTERVAL '1' SECOND)",
    "lpad": "SELECT lpad('x', 2000000000)",
    "rpad": "SELECT rpad('é', 1000000000)",
    "array_resize": "SELECT array_resize([1], 1000000000)",
    "replace": "SELECT length(replace(repeat('x', 100000), 'x', repeat('y', 100000)))",
    "regexp_replace": "SELECT length(regexp_replace(repeat('x', 100000), 'x', repeat('y', 100000), 'g'))",
    "to_char": "SELECT length(to_char(now(), repeat('%A', 100000000)))",
    "array_to_string": "SELECT length(array_to_string(range(1, 1000000), repeat('x', 10000)))",
    "|| over and over": f"WITH t0 AS (SELECT repeat('x', 1000000) AS x){DOUBLED} SELECT length(x) FROM t12",
    "array_concat": "SELECT array_concat(range(1, 100000000), range(1, 100000000))",
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_what_is_too_much_is_refused_before_it_is_made(running, name):
    with memory_stays(running), pytest.raises(adbc_driver_manager.Error) as refused:
        running.rows(TOO_MUCH[name])
    text = str(refused.value)
    assert "RESOURCE_EXHAUSTED" in text or "ResourceExhausted" in text, text
    assert "bytes" in text, text


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT length(repeat('x', 10000000))", 10000000),
        ("SELECT cardinality(range(1, 1000001))", 1000000),
        ("SELECT count(*) FROM (SELECT repeat('x', 1000000) AS x FROM numbers LIMIT 1000) WHERE length(x) = 1000000", 1000),
        ("SELECT count(DISTINCT length(x)) FROM (SELECT repeat('x', 1000) || n AS x FROM numbers)", 6),
        ("SELECT count(*) FROM (SELECT repeat('x', 1000) || n AS x FROM numbers ORDER BY x) WHERE length(x) > 1003", 299001),
        ("SELECT count(*) FROM (SELECT repeat('x', 20000000) AS x FROM numbers LIMIT 20) WHERE length(x) = 20000000", 20),
        ("SELECT count(*) FROM (SELECT n FROM numbers LIMIT 20) WHERE array_has(range(1, 1000001), n)", 20),
        ("SELECT length(string_agg(x, ',')) FROM (SELECT repeat('x', 1000) AS x FROM numbers LIMIT 50000)", 50049999),
        # Computed for a kernel, each text another.
        ("SELECT length(max(repeat(CAST(n AS VARCHAR), 300))) FROM numbers", 1500),
    ],
)
def test_what_is_large_is_made_within_memory(running, sql, expected):
    with memory_stays(running):
        assert running.rows(sql) == [(expected,)]


def test_a_row_that_is_too_long_says_so(running):
    with pytest.raises(adbc_driver_manager.Error, match="a row of the result takes 7000.... bytes"):
        running.rows(LONG_ROW)


@pytest.mark.parametrize("levels", [17, 22])
def test_queries_that_double_take_little(running, levels):
    doubled = "".join(f", t{level} AS (SELECT a.x FROM t{level - 1} a, t{level - 1} b)" for level in range(1, levels + 1))
    with memory_stays(running), pytest.raises(adbc_driver_manager.Error, match="more than the limit|more than"):
        running.rows(f"WITH t0 AS (SELECT 1 AS x){doubled} SELECT count(*) FROM t{levels}")


def test_thousands_of_with_queries_take_little(running):
    queries = ", ".join(f"t{at} AS (SELECT {at} AS x)" for at in range(5000))
    with memory_stays(running), pytest.raises(adbc_driver_manager.Error, match="500 WITH queries"):
        running.rows(f"WITH {queries} SELECT * FROM t1")


ENDLESS = {
    "nested loops of series": "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b WHERE a.value < b.value",
    "nested loops of a table": "SELECT count(*) FROM numbers a, numbers b, numbers c WHERE a.n < b.k AND b.n < c.k * a.k",
    "a cross join": "SELECT count(*) FROM numbers a, numbers b, numbers c",
    "equal keys": "SELECT count(*) FROM numbers a JOIN numbers b ON a.k = b.k JOIN numbers c ON b.k = c.k AND a.n + b.n < c.n - 900000",
    "recursion": "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 2000000000) SELECT count(*) FROM r",
}


def is_idle(running):
    return all(process.cpu_share(0.5) < IDLE_SHARE for process in processes(running))


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("way", ["deadline", "Ctrl-C"])
def test_work_ends_on_every_node(running, name, way):
    cluster.wait_until("nothing runs", END_SECONDS, lambda: is_idle(running))
    if way == "deadline":
        with pytest.raises(adbc_driver_manager.Error, match="did not end within 1000 ms"):
            running.rows(ENDLESS[name], query_timeout_ms=1000)
    else:
        shell = subprocess.Popen(
            [cluster.BINARY, "sql", "--url", running.uri, "-c", ENDLESS[name]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        cluster.wait_until("it runs", 20, lambda: running.rows("SELECT count(*) FROM system.queries WHERE state = 'running'") > [(1,)])
        shell.send_signal(signal.SIGINT)
        shell.wait(END_SECONDS)
    ended = time.monotonic()
    cluster.wait_until("all processes are idle", END_SECONDS, lambda: is_idle(running))
    print(f"idle {time.monotonic() - ended:.1f} s after the end by {way}")


def test_small_statements_run_beside_one_that_hogs(running):
    shell = subprocess.Popen(
        [cluster.BINARY, "sql", "--url", running.uri, "-c", ENDLESS["nested loops of a table"]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        cluster.wait_until("it runs", 20, lambda: running.rows("SELECT count(*) FROM system.queries WHERE state = 'running'") > [(1,)])
        took = []
        with running.connect() as connection, connection.cursor() as cursor:
            for _ in range(20):
                began = time.monotonic()
                cursor.execute("SELECT n FROM numbers LIMIT 1")
                assert len(cursor.fetchall()) == 1
                took.append(time.monotonic() - began)
        print(f"median {sorted(took)[10] * 1000:.0f} ms beside a nested-loop join")
        assert sorted(took)[10] < 5
    finally:
        shell.send_signal(signal.SIGINT)
        shell.wait(END_SECONDS)
