"""Commands of chaos.py that put a cluster under pressure and print what it does: memory, latencies, and whether busy nodes are taken for dead."""

import contextlib
import pathlib
import random
import threading
import time

import answers
from tpch_load import HANG_SECONDS, in_folder, rows_of, say, start

MEBIBYTE = 1 << 20
OPERATOR_BYTES, CACHE_BYTES = 96 * MEBIBYTE, 64 * MEBIBYTE
# What a process is before its first query. A limit is on what it takes beyond.
IDLE_WORKER_BYTES, IDLE_COORDINATOR_BYTES = 150 * MEBIBYTE, 200 * MEBIBYTE
TOLERANCE = 1.1
IDLE_SECONDS = 20
# A stream's buffers fill within this time; what grows later grows with the rows.
FILL_SECONDS = 6
SLOW_GROWTH_BYTES = 64 * MEBIBYTE
GROUPS = """SELECT l_orderkey, l_partkey, l_suppkey, l_comment, count(*) AS n, sum(l_quantity) AS quantity
FROM lineitem GROUP BY l_orderkey, l_partkey, l_suppkey, l_comment"""
SPILLING = f"{GROUPS} HAVING sum(l_quantity) >= 50 AND min(l_tax) = 0.08"
# What lies above the groups needs a few bytes, and cannot spill.
SPILLING_BELOW = f"SELECT count(*), sum(n), sum(quantity), min(l_comment), max(l_comment) FROM ({GROUPS})"
DASHBOARD = [
    "SELECT count(*), sum(l_extendedprice) FROM lineitem WHERE l_shipdate >= DATE '{year}-01-01' AND l_shipdate < DATE '{year}-02-01'",
    "SELECT l_returnflag, l_linestatus, count(*), sum(l_quantity) FROM lineitem WHERE l_shipdate >= DATE '{year}-06-01' GROUP BY 1, 2",
    "SELECT o_orderpriority, count(*) FROM orders WHERE o_orderdate >= DATE '{year}-01-01' GROUP BY o_orderpriority",
    "SELECT n_name, count(*) FROM customer JOIN nation ON c_nationkey = n_nationkey GROUP BY n_name",
]
YEARS = range(1992, 1999)
PAIRS = "SELECT count(*) FROM lineitem a JOIN lineitem b ON a.l_linenumber = b.l_linenumber WHERE a.l_orderkey + b.l_orderkey <> 5 AND a.l_orderkey <= {last}"
ROWS_WITHOUT_END = "SELECT a.l_orderkey, b.l_comment FROM lineitem a JOIN lineitem b ON a.l_linenumber = b.l_linenumber WHERE a.l_orderkey + b.l_orderkey <> 5"


def memory(process, field="VmRSS"):
    """Bytes of a process: `VmRSS` now, `VmHWM` at most so far."""
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"{process.name} has no {field}: it has ended")


def processes(running):
    return {"coordinator": running.server, **running.workers}


def in_mebibytes(figures):
    return ", ".join(f"{name} {bytes_ / MEBIBYTE:.0f} MiB" for name, bytes_ in figures.items())


@contextlib.contextmanager
def started(folder, workers, scale, more_settings="", operator_bytes=OPERATOR_BYTES, cache_bytes=CACHE_BYTES, hold_limits=True):
    """A cluster whose workers have little memory and spill where it can be seen: (cluster, expected, folder of spilled data)."""
    spill = pathlib.Path(folder) / "spill"
    spill.mkdir(parents=True)
    settings = {"MEMORY_BYTES": str(operator_bytes), "CACHE_BYTES": str(cache_bytes), "SPILL_DIR": str(spill)}
    environment = {f"BOWSHOT__WORKER__{name}": value for name, value in settings.items()}
    running, expected = start(folder, workers, scale, 1, environment=environment, more_settings=more_settings)
    running.limit_bytes = operator_bytes + cache_bytes if hold_limits else None
    with running:
        yield running, expected, spill


class Watch:
    """Looks at memory and spilled bytes until it is left."""

    def __init__(self, running, spill=None):
        self.running, self.spill = running, spill
        self.samples, self.spilled = [], 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self):
        self.since = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _look(self):
        while not self._over.wait(0.25):
            figures = {}
            for name, process in processes(self.running).items():
                with contextlib.suppress(AssertionError, OSError):
                    figures[name] = memory(process)
            self.samples.append((time.monotonic() - self.since, figures))
            spilled = 0
            for file in self.spill.rglob("*") if self.spill else []:
                with contextlib.suppress(OSError):
                    spilled += file.stat().st_size if file.is_file() else 0
            self.spilled = max(self.spilled, spilled)

    def peak(self, begin=0.0, end=float("inf")):
        found = {}
        for at, figures in self.samples:
            for name, bytes_ in figures.items() if begin <= at <= end else ():
                found[name] = max(bytes_, found.get(name, 0))
        return found


def over_limits(running, peaks):
    """Processes that took more than an idle one, what they may use, and a tenth; none where no limit is held."""
    if not running.limit_bytes:
        return []
    allowed = {name: TOLERANCE * (IDLE_WORKER_BYTES + running.limit_bytes) for name in running.workers}
    allowed["coordinator"] = TOLERANCE * (IDLE_COORDINATOR_BYTES + OPERATOR_BYTES)
    return [f"{name} took {peak / MEBIBYTE:.0f} MiB of {allowed[name] / MEBIBYTE:.0f}" for name, peak in peaks.items() if peak > allowed[name]]


def play_idle(running):
    """Memory of processes that have nothing to do. Gives what is broken."""
    # Freed memory is kept for a while.
    time.sleep(IDLE_SECONDS)
    idle = {name: memory(process) for name, process in processes(running).items()}
    say(f"idle: {in_mebibytes(idle)}")
    allowed = lambda name: IDLE_COORDINATOR_BYTES if name == "coordinator" else IDLE_WORKER_BYTES  # noqa: E731
    return [f"an idle {name} takes {bytes_ / MEBIBYTE:.0f} MiB of {allowed(name) / MEBIBYTE:.0f}" for name, bytes_ in idle.items() if bytes_ > allowed(name)]


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


def play_dashboard(running, expected_of, spill, clients, seconds):
    """Small queries of many clients, first alone, then beside a scan that spills. Gives what is broken."""
    problems = []
    for beside in (False, True):
        times, errors, scans, over, lock = [], [], [], threading.Event(), threading.Lock()

        def client(number):
            chance = random.Random(number)
            with running.connect() as connection:
                while not over.is_set():
                    sql = chance.choice(DASHBOARD).format(year=chance.choice(YEARS))
                    began, found = time.monotonic(), None
                    try:
                        found = answers.difference(rows_of(connection, sql), expected_of(sql))
                    except Exception as error:  # counted, and shown
                        found = str(error)
                    with lock:
                        times.append(time.monotonic() - began)
                        errors.extend([f"{sql}: {found}"] if found else [])

        def scan():
            while not over.is_set():
                began = time.monotonic()
                try:
                    found = answers.difference(running.rows(SPILLING, kernel="off"), expected_of(SPILLING))
                except Exception as error:  # counted, and shown
                    found = str(error)
                scans.append(time.monotonic() - began)
                errors.extend([f"the scan that spills: {found}"] if found else [])

        threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(clients)]
        threads += [threading.Thread(target=scan, daemon=True)] if beside else []
        with Watch(running, spill) as watch:
            for thread in threads:
                thread.start()
            time.sleep(seconds)
            over.set()
            for thread in threads:
                thread.join(HANG_SECONDS)
        problems += ["a client hangs"] if any(thread.is_alive() for thread in threads) else []
        p50, p99 = (1000 * percentile(times, share) for share in (0.5, 0.99))
        what = f"beside {len(scans)} scans of {sum(scans) / max(1, len(scans)):.1f} s" if beside else "alone"
        say(f"{clients} clients {what}: {len(times)} queries, p50 {p50:.0f} ms, p99 {p99:.0f} ms, {len(errors)} errors, {watch.spilled / MEBIBYTE:.0f} MiB spilled")
        say(f"  at most: {in_mebibytes(watch.peak())}")
        problems += errors[:3] + over_limits(running, watch.peak())
        problems += ["the scan spilled nothing"] if beside and not watch.spilled else []
    return problems


def dashboard(options, folder):
    """Latencies of small queries beside a scan that spills, and memory."""
    problems = []
    with started(folder, 2, options.scale) as (running, _, spill):
        problems += play_idle(running)
        problems += play_dashboard(running, asked_once(folder), spill, options.clients, options.seconds)
    return problems


def asked_once(folder):
    """DuckDB's answers, each computed on its first use, by one thread at a time."""
    peer, known, lock = answers.duckdb_over(pathlib.Path(folder) / "volumes", answers.TPCH_TABLES), {}, threading.Lock()

    def expected(sql):
        with lock:
            if sql not in known:
                known[sql] = peer.execute(sql).fetchall()
            return known[sql]

    return expected


def play_spilling(running, expected_of, spill, queries, sql=SPILLING):
    """Queries that spill, all at once: each right, nobody killed, memory within its limits. Gives what is broken."""
    problems = []

    def ask():
        try:
            found = answers.difference(running.rows(sql, kernel="off"), expected_of(sql))
        except Exception as error:  # the text is the finding
            found = str(error)
        problems.extend([found] if found else [])

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(queries)]
    began = time.monotonic()
    with Watch(running, spill) as watch:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * HANG_SECONDS)
    hanging = sum(thread.is_alive() for thread in threads)
    took = time.monotonic() - began
    say(f"{queries} queries that spill: {queries - hanging - len(problems)} right in {took:.1f} s, {watch.spilled / MEBIBYTE:.0f} MiB spilled")
    say(f"  at most: {in_mebibytes(watch.peak())}")
    problems += [f"{hanging} queries hang"] if hanging else []
    problems += [] if watch.spilled else ["nothing was spilled"]
    problems += [f"{name} ended" for name, process in processes(running).items() if not process.running()]
    return problems + over_limits(running, watch.peak())


def spilling(options, folder):
    """Queries that spill, all at once."""
    # The rest waits in the coordinator's queue.
    with started(folder, 2, options.scale, more_settings=f"query.max_concurrent = {options.at_once}\n") as (running, _, spill):
        expected_of = asked_once(folder)
        return [problem for sql in (SPILLING, SPILLING_BELOW) for problem in play_spilling(running, expected_of, spill, options.queries, sql)]


def play_slow(running, seconds):
    """A client that reads a batch every half second of a result without end. Gives what is broken."""
    with Watch(running) as watch:
        with running.connect(kernel="off") as connection:
            cursor = connection.cursor()
            cursor.execute(ROWS_WITHOUT_END)
            reader, rows, began = cursor.fetch_record_batch(), 0, time.monotonic()
            while time.monotonic() - began < seconds:
                rows += reader.read_next_batch().num_rows
                time.sleep(0.5)
            with contextlib.suppress(Exception):
                cursor.adbc_cancel()
            with contextlib.suppress(Exception):
                cursor.close()
    early, late = watch.peak(end=FILL_SECONDS), watch.peak(begin=FILL_SECONDS)
    say(f"a slow client took {rows} rows in {seconds:.0f} s; until {FILL_SECONDS} s: {in_mebibytes(early)}; later: {in_mebibytes(late)}")
    grown = {name: late[name] - early[name] for name in late if late[name] - early.get(name, 0) > SLOW_GROWTH_BYTES}
    return [f"behind a slow client {in_mebibytes({name: bytes_})} more" for name, bytes_ in grown.items()] + over_limits(running, late)


def slow(options, folder):
    """A client that reads slower than the cluster computes."""
    with started(folder, 2, options.scale) as (running, _, _):
        return play_slow(running, options.seconds)


def pairs(peer, last):
    """What PAIRS answers, without making the pairs."""
    counts = "SELECT l_linenumber, count(*) AS n FROM lineitem {where} GROUP BY l_linenumber"
    left, right = counts.format(where=f"WHERE l_orderkey <= {last}"), counts.format(where="")
    [(together,)] = peer.execute(f"SELECT sum(x.n * y.n) FROM ({left}) x JOIN ({right}) y USING (l_linenumber)").fetchall()
    [(left_out,)] = peer.execute(
        f"SELECT count(*) FROM lineitem a JOIN lineitem b ON a.l_linenumber = b.l_linenumber AND a.l_orderkey = 5 - b.l_orderkey WHERE a.l_orderkey <= {last}"
    ).fetchall()
    return int(together) - left_out


def play_healthy(running, peer, seconds):
    """A query that takes every core for so long: right, at the first try, and nobody is taken for dead. Gives what is broken."""
    [(orders,)] = peer.execute("SELECT max(l_orderkey) FROM lineitem").fetchall()
    # Short runs say how long each part of the orders takes.
    last, took = max(1, orders // 50), 0.0
    while took < min(5.0, seconds / 4) and last < orders:
        began = time.monotonic()
        running.rows(PAIRS.format(last=last))
        took = time.monotonic() - began
        last *= 1 if took >= min(5.0, seconds / 4) else 2
    last = min(orders, int(last * seconds / took * 1.4))
    problems, states, over = [], set(), threading.Event()

    def look():
        while not over.wait(1):
            with contextlib.suppress(Exception):
                states.update(state for _, state in running.node_states().items())

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    began = time.monotonic()
    sql = PAIRS.format(last=last)
    try:
        [(found,)] = running.rows(sql, query_timeout_ms=3_600_000)
        problems += [] if found == pairs(peer, last) else [f"{found} pairs instead of {pairs(peer, last)}"]
    except Exception as error:  # a false kill is an error too
        problems.append(str(error))
    took = time.monotonic() - began
    over.set()
    looking.join()
    retries = running.rows("SELECT max(retries) FROM system.queries WHERE sql LIKE '%FROM lineitem a JOIN lineitem b%' AND sql NOT LIKE '%system%'")
    say(f"a query took every core for {took:.0f} s, of {seconds:.0f} wanted; states of the workers meanwhile: {sorted(states)}; retries {retries[0][0]}")
    problems += [] if retries == [(0,)] else [f"tried again: {retries}"]
    problems += [] if states <= {"live"} else [f"busy workers were taken for {sorted(states - {'live'})}"]
    return problems + ([] if took >= seconds / 2 else [f"it took only {took:.0f} s: ask for more data with --scale"])


def healthy(options, folder):
    """A query that takes every core for ten times the keepalive."""
    with started(folder, 3, options.scale, operator_bytes=1 << 30) as (running, _, _):
        return play_healthy(running, answers.duckdb_over(pathlib.Path(folder) / "volumes", answers.TPCH_TABLES), options.minutes * 60)


def add_commands(commands):
    for play, scale, *arguments in (
        (dashboard, 0.2, ("--clients", int, 100), ("--seconds", float, 30)),
        (spilling, 0.2, ("--queries", int, 20), ("--at-once", int, 4)),
        (slow, 0.05, ("--seconds", float, 30)),
        (healthy, 0.05, ("--minutes", float, 2.5)),
    ):
        command = commands.add_parser(play.__name__, help=play.__doc__)
        command.add_argument("--scale", type=float, default=scale, help=f"scale of the data (default {scale})")
        for name, kind, default in arguments:
            command.add_argument(name, type=kind, default=default, help=f"default {default}")
        run = lambda options, play=play: in_folder(lambda folder: play(options, folder), options.command)  # noqa: E731
        command.set_defaults(run=run)
