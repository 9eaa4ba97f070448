"""What a user gets when something dies: the right rows, or an error that names it, in time; never fewer rows."""

import contextlib
import signal
import subprocess
import sys
import threading
import time

import cluster
import pyarrow
import pyarrow.parquet
import pytest

ROWS_A_FILE = 240_000
FILES = 3
ERROR_SECONDS = 15
STOPPED_SECONDS = 30
# A worker's patience with its tasks when it is told to end, and the time to end then.
LEAVE_SECONDS = 50
IDLE_SHARE = 0.05
# Streams rows of every file; the other shapes put an aggregate, a shuffle and a broadcast between the scans and the client.
SHAPES = {
    "rows": "SELECT id, small FROM numbers",
    "aggregate": "SELECT count(*), sum(id) FROM numbers WHERE small >= 0",
    "shuffle": "SELECT id % 1000, count(*), max(small) FROM numbers GROUP BY id % 1000",
    "join": "SELECT count(*), sum(a.id) FROM numbers a JOIN numbers b ON a.id = b.id",
}


class Outcome:
    """A query that runs beside the test."""

    def __init__(self, running, sql, **options):
        self.rows, self.error, self.seconds = None, None, None
        self.thread = threading.Thread(target=self._run, args=(running, sql, options))
        self.thread.start()

    def _run(self, running, sql, options):
        started = time.monotonic()
        try:
            self.rows = sorted(running.rows(sql, **options))
        except Exception as error:  # every kind is an outcome; the test judges the text
            self.error = str(error)
        self.seconds = time.monotonic() - started

    def wait(self, seconds):
        self.thread.join(seconds)
        assert not self.thread.is_alive(), f"neither rows nor an error after {seconds} s"
        return self


def write_numbers(folder, number):
    """File `number` of the table: several row groups, so that a node has more than one partition."""
    first = number * ROWS_A_FILE
    ids = pyarrow.array(range(first, first + ROWS_A_FILE), pyarrow.int64())
    small = pyarrow.array([value % 10 for value in range(first, first + ROWS_A_FILE)], pyarrow.int32())
    target = folder / "numbers" / f"part-{number}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table({"id": ids, "small": small}), target, row_group_size=40_000)


@pytest.fixture(scope="module")
def expected():
    total, count = ROWS_A_FILE * FILES, ROWS_A_FILE * FILES
    id_sum = total * (total - 1) // 2
    return {
        "rows": [(value, value % 10) for value in range(total)],
        "aggregate": [(count, id_sum)],
        "shuffle": [(value, count // 1000, value % 10) for value in range(1000)],
        "join": [(count, id_sum)],
    }


@contextlib.contextmanager
def numbers(folder, copies=1, faults=None, tls=False):
    """Three workers over `numbers`; file k lies on node k and on the next `copies - 1` nodes. `faults` by node id."""
    nodes = []
    for position in range(FILES):
        volume = folder / f"volume-{position + 1}"
        for copy in range(copies):
            write_numbers(volume, (position - copy) % FILES)
        node_id = f"node-{position + 1}"
        nodes.append(cluster.Node(node_id, {"data": volume}, faults=(faults or {}).get(node_id, [])))
    certificates = cluster.Certificates(folder / "certificates", nodes) if tls else None
    with cluster.Cluster(folder / "cluster", nodes, tls=certificates) as running:
        running.create_table("numbers", "node://*/data/numbers/")
        yield running


def slow(*node_ids):
    return {node_id: ["slow-scan"] for node_id in node_ids}


def test_sole_replica_dead_before_the_query(tmp_path, expected):
    with numbers(tmp_path) as running:
        running.workers["node-2"].kill()
        outcome = Outcome(running, SHAPES["aggregate"]).wait(ERROR_SECONDS)
        assert outcome.rows is None, "rows without one of the files"
        assert "no live replica of" in outcome.error and "numbers/part-1.parquet" in outcome.error, outcome.error
        time.sleep(4)
        later = Outcome(running, SHAPES["aggregate"]).wait(ERROR_SECONDS)
        assert "no live replica of" in later.error and "part-1.parquet" in later.error, later.error
        running.restart_worker("node-2")
        assert running.rows(SHAPES["aggregate"]) == expected["aggregate"]


@pytest.mark.parametrize("kernel", ["off", "host"])
def test_copy_takes_over_when_a_worker_died_before_the_query(tmp_path, expected, kernel):
    with numbers(tmp_path, copies=2) as running:
        assert running.rows("SELECT min(n), max(n) FROM (SELECT count(*) AS n FROM system.files GROUP BY path)") == [(2, 2)]
        running.workers["node-1"].kill()
        for shape, sql in SHAPES.items():
            outcome = Outcome(running, sql, kernel=kernel).wait(ERROR_SECONDS)
            assert outcome.error is None, f"{shape}: {outcome.error}"
            assert outcome.rows == expected[shape], shape


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_worker_killed_mid_query(tmp_path, expected, shape, copies):
    with numbers(tmp_path, copies, slow("node-1", "node-2", "node-3")) as running:
        outcome = Outcome(running, SHAPES[shape], kernel="off")
        time.sleep(1.5)
        assert outcome.thread.is_alive(), f"the query was over before the kill: {outcome.error or 'with rows'}"
        killed_at = time.monotonic()
        running.workers["node-2"].kill()
        # A retry reads everything again, slowly: the bound on an error holds, that on rows leaves time for it.
        outcome.wait(3 * STOPPED_SECONDS)
        took = time.monotonic() - killed_at
        if outcome.rows is not None:
            assert outcome.rows == expected[shape]
            assert copies == 2, "rows without one of the files"
        else:
            assert "node-2" in outcome.error or "no live replica of" in outcome.error, outcome.error
            assert took < ERROR_SECONDS, f"{outcome.error} after {took:.1f} s"


def test_a_result_that_is_held_back_is_repeated_unseen(tmp_path, expected):
    # One node is slow: rows of the others are there long before it is killed.
    with numbers(tmp_path, copies=2, faults=slow("node-2")) as running:
        query = Outcome(running, SHAPES["rows"], kernel="off", result_buffer=256_000_000)
        time.sleep(1.5)
        running.workers["node-2"].kill()
        query.wait(ERROR_SECONDS + 30)
        assert query.error is None and query.rows == expected["rows"], query.error
        retries = running.rows("SELECT max(retries) FROM system.queries WHERE sql LIKE 'SELECT id, small%'")
        assert retries == [(1,)]
        few = Outcome(running, SHAPES["aggregate"], result_buffer=1)
        few.wait(ERROR_SECONDS)
        assert few.rows == expected["aggregate"], "a buffer smaller than a batch holds nothing back"


def test_worker_killed_mid_query_under_tls(tmp_path, expected):
    """The end of an encrypted connection is another error than that of a plain one; the node is lost all the same."""
    with numbers(tmp_path, 2, slow("node-1", "node-2", "node-3"), tls=True) as running:
        outcome = Outcome(running, SHAPES["shuffle"], kernel="off")
        time.sleep(1.5)
        assert outcome.thread.is_alive(), f"the query was over before the kill: {outcome.error or 'with rows'}"
        running.workers["node-2"].kill()
        outcome.wait(3 * STOPPED_SECONDS)
        assert outcome.rows == expected["shuffle"] if outcome.rows is not None else "node-2" in outcome.error, outcome.error
        later = Outcome(running, SHAPES["shuffle"], kernel="off").wait(3 * STOPPED_SECONDS)
        assert later.rows == expected["shuffle"], later.error


@pytest.mark.parametrize("fault", ["panic-in-scan", "panic-in-head"])
def test_a_panic_in_one_worker_is_an_error(tmp_path, expected, fault):
    with numbers(tmp_path, faults={"node-2": [fault]}) as running:
        for kernel in ("off", "host"):
            for shape, sql in SHAPES.items():
                outcome = Outcome(running, sql, kernel=kernel).wait(ERROR_SECONDS)
                assert outcome.rows is None, f"{shape} with kernel={kernel}: {len(outcome.rows)} rows of {len(expected[shape])} and no error"
                assert "panic" in outcome.error, f"{shape}: {outcome.error}"
        assert all(worker.running() for worker in running.workers.values()), "a panic ended a worker"


@pytest.mark.parametrize("fault", ["device-allocation-3", "device-shader-1", "device-loss-2"])
def test_a_failing_device_is_one_part_on_the_host_with_its_reason(tmp_path, expected, fault):
    with numbers(tmp_path, faults={"node-2": [fault]}) as running:
        pid = running.workers["node-2"].pid
        assert running.rows(SHAPES["aggregate"], kernel="device") == expected["aggregate"]
        tasks = "SELECT node_id, device, reason FROM system.tasks WHERE kernel_rows > 0 AND query_id = (SELECT max(query_id) FROM system.tasks)"
        found = {node: (device, reason) for node, device, reason in running.rows(tasks)}
        assert found["node-1"] == found["node-3"] == ("device", "")
        assert "device" in found["node-2"][1], f"no reason for what ran elsewhere: {found}"
        # One failure is no reason to give the device up, let alone the process.
        assert running.rows(SHAPES["aggregate"], kernel="device") == expected["aggregate"]
        assert set(running.rows(tasks)) == {(node, "device", "") for node in ("node-1", "node-2", "node-3")}
        assert running.workers["node-2"].pid == pid and running.workers["node-2"].running()


# Each keeps the workers busy for minutes: inside a fragment, and between a fragment and the client.
ENDLESS = {
    "aggregate": "SELECT count(*) FROM numbers a JOIN numbers b ON a.small = b.small WHERE a.id + b.id <> 5",
    "rows": "SELECT a.id, b.id AS other FROM numbers a JOIN numbers b ON a.small = b.small WHERE a.id + b.id <> 5",
}


@pytest.mark.parametrize("shape", sorted(ENDLESS))
def test_client_killed_mid_query_leaves_no_work_behind(tmp_path, shape):
    with numbers(tmp_path) as running:
        program = f"import adbc_driver_flightsql.dbapi as f\nc = f.connect({running.uri!r}, autocommit=True).cursor()\nc.execute({ENDLESS[shape]!r})\nfor batch in c.fetch_record_batch(): pass"
        client = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
        busy = lambda: sum(worker.cpu_share(0.2) for worker in running.workers.values()) > 0.5  # noqa: E731
        cluster.wait_until("the workers are busy", 20, busy)
        client.kill()
        client.wait()
        time.sleep(4)
        shares = {node: round(worker.cpu_share(1.0), 3) for node, worker in running.workers.items()}
        states = running.rows("SELECT state FROM system.queries WHERE starts_with(sql, 'SELECT ') AND sql LIKE '%FROM numbers a JOIN%' AND sql NOT LIKE '%system%'")
        assert states == [("cancelled",)]
        assert all(share < IDLE_SHARE for share in shares.values()), shares


def test_a_busy_worker_ends_when_it_is_told_to(tmp_path):
    with numbers(tmp_path) as running:
        outcome = Outcome(running, ENDLESS["aggregate"])
        time.sleep(2)
        # It lets its tasks end, for half a minute; this one never does.
        running.workers["node-2"].child.terminate()
        running.workers["node-2"].child.wait(LEAVE_SECONDS)
        for worker in running.workers.values():
            if worker.running():
                worker.kill()
        assert outcome.wait(STOPPED_SECONDS).error


def test_a_stopped_worker_does_not_hang_a_query_and_rejoins(tmp_path, expected):
    with numbers(tmp_path, faults=slow("node-1", "node-2", "node-3")) as running:
        outcome = Outcome(running, SHAPES["rows"], kernel="off")
        time.sleep(1.5)
        assert outcome.thread.is_alive(), outcome.error
        running.workers["node-2"].send(signal.SIGSTOP)
        try:
            outcome.wait(STOPPED_SECONDS)
        finally:
            running.workers["node-2"].send(signal.SIGCONT)
        if outcome.rows is not None:
            assert outcome.rows == expected["rows"]
        else:
            assert "node-2" in outcome.error or "no live replica of" in outcome.error, outcome.error
        running.wait_live("node-2", seconds=15)
        assert running.rows(SHAPES["aggregate"], kernel="off") == expected["aggregate"]


@pytest.mark.parametrize("end", ["kill", "end"])
def test_a_restarted_coordinator_knows_its_tables_and_workers_come_back(tmp_path, expected, end):
    with numbers(tmp_path) as running:
        before = running.rows("SELECT table_name, path, node_id, row_count FROM system.files ORDER BY 1, 2")
        pids = {node: worker.pid for node, worker in running.workers.items()}
        getattr(running.server, end)()
        running.restart_server()
        assert running.rows("SELECT table_name, path, node_id, row_count FROM system.files ORDER BY 1, 2") == before
        assert running.rows(SHAPES["aggregate"]) == expected["aggregate"]
        assert {node: worker.pid for node, worker in running.workers.items()} == pids


def test_a_sole_copy_that_comes_back_is_waited_for(tmp_path, expected):
    with numbers(tmp_path, faults=slow("node-1", "node-2", "node-3")) as running:
        outcome = Outcome(running, SHAPES["aggregate"], kernel="off")
        time.sleep(1.5)
        assert outcome.thread.is_alive(), outcome.error
        running.workers["node-2"].kill()
        running.restart_worker("node-2")
        outcome.wait(ERROR_SECONDS + STOPPED_SECONDS)
        assert outcome.error is None and outcome.rows == expected["aggregate"], outcome.error
        decided = running.rows("SELECT retries, decisions FROM system.queries WHERE sql LIKE '%FROM numbers%' AND state = 'finished' AND retries > 0")
        assert len(decided) == 1 and "nobody else has its files, and it answers again" in decided[0][1], decided


def test_a_slow_disk_does_not_make_a_node_look_dead(tmp_path, expected):
    with numbers(tmp_path, faults={"node-2": ["slow-listing"]}) as running:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            state, age = running.rows("SELECT state, last_heartbeat_ms FROM system.nodes WHERE node_id = 'node-2'")[0]
            assert state == "live", (state, age)
            time.sleep(0.2)
        assert running.rows(SHAPES["aggregate"]) == expected["aggregate"]


def test_a_statement_that_costs_two_workers_is_quarantined(tmp_path, expected):
    slow = {f"node-{number}": ["slow-scan"] for number in range(1, FILES + 1)}
    with numbers(tmp_path, copies=FILES, faults=slow) as running:
        sql = SHAPES["aggregate"]

        def at_work(retries):
            tasks = "SELECT retries FROM system.queries WHERE state = 'running' AND running_tasks > 0 AND sql LIKE '%FROM numbers%'"
            return (retries,) in running.rows(tasks)

        deadly = Outcome(running, sql)
        for retries, node in enumerate(("node-1", "node-2")):
            cluster.wait_until(f"try {retries} runs", 20, lambda retries=retries: at_work(retries))
            running.workers[node].kill()
        deadly.wait(ERROR_SECONDS)
        assert deadly.rows is None and "2 workers in a row were lost while they ran this statement (node-1, node-2)" in deadly.error, deadly.error
        with pytest.raises(Exception, match="not tried again for"):
            running.rows(sql)
        # Others run, on what is left; and so does this one for who insists. Whoever ends well is no suspect any more.
        assert running.rows("SELECT count(*) FROM numbers WHERE small > 100") == [(0,)]
        assert running.rows(sql, ignore_quarantine="true") == expected["aggregate"]
        assert running.rows(sql) == expected["aggregate"]
