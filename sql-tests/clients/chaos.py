"""Breaks a cluster of real processes under load and holds it to its promises: right rows, or an error in time that names what was lost.

    python sql-tests/clients/chaos.py seeds --seeds 50          kills, stops and broken ways at random; --first 17 --seeds 1 replays seed 17
    python sql-tests/clients/chaos.py kills --minutes 10        a worker killed every ten seconds, its disk kept and lost in turns
    python sql-tests/clients/chaos.py drain
    python sql-tests/clients/chaos.py rolling                   all workers restarted, then the coordinator
    python sql-tests/clients/chaos.py coordinator               kill -9 of the coordinator
    python sql-tests/clients/chaos.py healthy --minutes 2.5     a query that takes every core for ten times the keepalive
    python sql-tests/clients/chaos.py memory                    a slow client, and twenty queries that spill
    python sql-tests/clients/chaos.py dashboard                 a hundred clients beside a scan that spills

Each prints a line an event or seed and a summary, and exits 1 on a broken promise. The load is the 22 TPC-H queries, compared with DuckDB's
answers, over tables of which the cluster keeps two copies.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import answers
import cluster
import proxy

QUERIES = dict(answers.tpch_queries(cluster.REPOSITORY / "datasets" / "queries" / "tpch"))
COPIES = 2
KERNELS = ["auto", "host", "off"]
# The settings' default waits half a minute for a silent node; tests that lose disks want copies sooner.
GRACE_MS = 2_000
ERROR_SECONDS = 15
# A query that takes longer than this hangs. Far beyond three tries of a query that meets a silent node.
HANG_SECONDS = 90
# Silence of ten seconds makes a node dead; the way back is a registration, a heartbeat and a listing.
BACK_SECONDS = 30
WHOLE_SECONDS = 60
SUCCESS_SHARE = 0.99
# Still felt after it was healed: a breaker is open for three seconds, a keepalive takes thirteen.
FELT_SECONDS = 14
# How errors name what failed.
NAMES_NODE = re.compile(r"\bnode[- ](?:node-)?\d+\b")
NAMES_FRAGMENT = re.compile(r"\bfragment \d+\b|no live replica of ")
AFTER_FIRST_ROW = "rows had already been released"
RETRYABLE = re.compile(r"\b(Unavailable|UNAVAILABLE|IO: )")


def say(text):
    print(text, flush=True)


class ProxiedCluster(cluster.Cluster):
    """A cluster in which every worker is reached, and reaches the coordinator, through a proxy of its own."""

    def __init__(self, folder, nodes, **options):
        self.proxies = proxy.Proxies()
        self.data_ways, self.control_ways = {}, {}
        try:
            super().__init__(folder, nodes, **options)
        except BaseException:
            self.proxies.__exit__()
            raise

    def way(self, node):
        if node.node_id not in self.data_ways:
            self.data_ways[node.node_id] = self.proxies.add(cluster.free_port(), lambda: self.worker_ports[node.node_id])
            self.control_ways[node.node_id] = self.proxies.add(cluster.free_port(), lambda: self.control_port)
        return self.data_ways[node.node_id].port, self.control_ways[node.node_id].port

    def end(self):
        super().end()
        self.proxies.__exit__()

    def volume(self, node_id):
        return pathlib.Path(self.nodes[node_id].volumes["data"])


def generated(folder, node_ids, scale):
    """TPC-H in `<folder>/<node>/<table>/`: every file on one node."""
    generator = cluster.BINARY.with_name("bowshot-datagen")
    started = []
    for part, node in enumerate(node_ids, start=1):
        arguments = ["--scale", str(scale), "--part", str(part), "--parts", str(len(node_ids)), "--out", folder / node]
        started.append(subprocess.Popen([generator, "tpch", *arguments], stdout=subprocess.DEVNULL))
    assert [process.wait() for process in started] == [0] * len(node_ids)
    return folder


def duckdb_answers(folder):
    peer = answers.duckdb_over(folder, answers.TPCH_TABLES)
    return {name: peer.execute(sql).fetchall() for name, sql in QUERIES.items()}


def start(folder, workers=4, scale=0.02, copies=COPIES, grace_ms=GRACE_MS, environment=None, more_settings=""):
    """A cluster with the tables of TPC-H, whole, and what DuckDB answers."""
    folder = pathlib.Path(folder)
    node_ids = [f"node-{number}" for number in range(1, workers + 1)]
    generated(folder / "volumes", node_ids, scale)
    expected = duckdb_answers(folder / "volumes")
    nodes = [
        cluster.Node(node_id, {"data": folder / "volumes" / node_id}, kernel_device="off", environment=environment or {})
        for node_id in node_ids
    ]
    settings = f"[coordinator]\nreplication_grace_ms = {grace_ms}\n{more_settings}"
    running = ProxiedCluster(folder / "cluster", nodes, settings=settings, default_schema="tpch")
    try:
        threads = [threading.Thread(target=create_table, args=(running, table, copies)) for table in answers.TPCH_TABLES]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_whole(running, copies)
    except BaseException:
        running.end()
        raise
    return running, expected


def create_table(running, table, copies):
    options = f" OPTIONS ('replicas' '{copies}')" if copies > 1 else ""
    running.rows(f"CREATE EXTERNAL TABLE tpch.{table} STORED AS PARQUET LOCATION 'node://*/data/{table}/'{options}")


def files(running):
    """{(table, path): [(node, kind, state, checksum)]} of all copies."""
    found = {}
    for table, path, *copy in running.rows("SELECT table_name, path, node_id, kind, state, checksum FROM system.files"):
        found.setdefault((table, path), []).append(tuple(copy))
    return found


def short_files(running, copies=COPIES, without=()):
    """Files that have fewer live copies than they should, leaving out those on the nodes `without`."""
    live = lambda held: sum(1 for node, _, state, _ in held if state == "live" and node not in without)  # noqa: E731
    return [f"{table}/{path}: {held}" for (table, path), held in sorted(files(running).items()) if live(held) < copies]


def wait_whole(running, copies=COPIES, seconds=WHOLE_SECONDS, without=()):
    """Waits until every file has its copies. Gives how long it took."""
    started = time.monotonic()
    cluster.wait_until(f"{copies} live copies of every file", seconds, lambda: files(running) and not short_files(running, copies, without))
    return time.monotonic() - started


def wrong_checksums(running):
    """Copies whose content is not what the catalog or their name says."""
    wrong, hashed = [], 0
    for (table, path), held in files(running).items():
        for node, kind, state, checksum in held:
            if state == "live":
                file = f".bowshot/replicas/{checksum}.parquet" if kind == "replica" else path
                content = hashlib.sha256((running.volume(node) / file).read_bytes()).hexdigest()
                hashed += 1
                wrong += [] if content == checksum else [f"{kind} of {table} {path} on {node}: {content} is not {checksum}"]
    for node in running.nodes:
        for file in (running.volume(node) / ".bowshot" / "replicas").glob("*.parquet"):
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            wrong += [] if content == file.stem else [f"{file} holds {content}"]
    return wrong, hashed


@dataclasses.dataclass
class Asked:
    """A query of the load and how it went."""

    client: int
    name: str
    kernel: str
    started: float
    ended: float = 0.0
    wrong: str | None = None
    error: str | None = None

    def text(self, since):
        how = self.wrong or self.error or "right"
        return f"{self.name} kernel={self.kernel} of client {self.client}, {self.started - since:.2f} to {self.ended - since:.2f} s: {how}"


class Load:
    """Clients that ask TPC-H queries one after another until the load ends. Use it in a `with` statement.

    A client that met an error connects anew; with `patient`, only once the coordinator says that it is ready.
    """

    def __init__(self, running, expected, clients=4, seed=0, queries=None, patient=False):
        self.running, self.expected, self.patient = running, expected, patient
        self.names = sorted(queries or QUERIES)
        self.asked, self._lock, self._over = [], threading.Lock(), threading.Event()
        self.repeated = set()
        self.threads = [threading.Thread(target=self._client, args=(number, seed), daemon=True) for number in range(clients)]

    def __enter__(self):
        self.since, self.since_ms = time.monotonic(), int(time.time() * 1000)
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        deadline = time.monotonic() + HANG_SECONDS
        for thread in self.threads:
            thread.join(max(0.1, deadline - time.monotonic()))

    def hanging(self):
        return [f"client {number} hangs" for number, thread in enumerate(self.threads) if thread.is_alive()]

    def _client(self, number, seed):
        # Text seeds a generator the same way in every process.
        chance = random.Random(f"{seed} {number}")
        kernel = KERNELS[number % len(KERNELS)]
        connection = None
        while not self._over.is_set():
            asked = Asked(number, chance.choice(self.names), kernel, time.monotonic())
            try:
                if connection is None:
                    connection = self.running.connect(kernel=kernel, query_timeout_ms=HANG_SECONDS * 1000)
                rows = answers.rows_of(connection, QUERIES[asked.name])
                asked.ended = time.monotonic()
                asked.wrong = answers.difference(rows, self.expected[asked.name])
            except Exception as error:  # every kind is an outcome; the judge reads the text
                asked.ended, asked.error = time.monotonic(), str(error)
                with contextlib.suppress(Exception):
                    connection.close()
                connection = None
            with self._lock:
                self.asked.append(asked)
            if asked.error:
                self._pause()
        if connection is not None:
            connection.close()

    def _pause(self):
        self._over.wait(0.1)
        while self.patient and not self._over.is_set():
            with contextlib.suppress(OSError):
                if self.running.http("/readyz").startswith("ready"):
                    return
            self._over.wait(0.1)

    def wait_queries(self, count, seconds=HANG_SECONDS):
        """Waits until this many more queries have ended."""
        goal = len(self.asked) + count
        cluster.wait_until(f"{count} queries of the load", seconds, lambda: len(self.asked) >= goal)

    def note_repeated(self):
        """The queries so far that were repeated unseen and succeeded. The coordinator remembers a thousand queries: call it every now and then."""
        sql = f"SELECT query_id FROM system.queries WHERE retries > 0 AND state = 'finished' AND started_at >= to_timestamp_millis({self.since_ms})"
        self.repeated.update(query for (query,) in self.running.rows(sql))
        return self.repeated

    def failed(self):
        return [asked for asked in self.asked if asked.error]

    def wrong(self):
        return [asked for asked in self.asked if asked.wrong]


@dataclasses.dataclass
class Event:
    """A fault: `kill`, `stop`, or a broken way of data or control, for some seconds."""

    kind: str
    node: str
    seconds: float
    direction: str = "both"
    began: float = 0.0
    ended: float = 0.0

    def __str__(self):
        direction = "" if self.direction == "both" else f" {self.direction}"
        return f"{self.kind}{direction} {self.node} {self.seconds:.1f} s"

    def begin(self, running):
        self.began = time.monotonic()
        if self.kind == "kill":
            running.workers[self.node].kill()
        elif self.kind == "stop":
            running.workers[self.node].send(signal.SIGSTOP)
        else:
            for way in self._ways(running):
                how = self.kind.split("-")[0]
                way.cut() if how == "cut" else way.stall(self.direction) if how == "stall" else way.blackhole(self.direction)

    def end(self, running):
        if self.kind == "kill":
            running.workers[self.node].start()
        elif self.kind == "stop":
            running.workers[self.node].send(signal.SIGCONT)
        else:
            for way in self._ways(running):
                way.heal()
        self.ended = time.monotonic()

    def _ways(self, running):
        what = self.kind.split("-")[1]
        return [ways[self.node] for name, ways in (("data", running.data_ways), ("control", running.control_ways)) if what in (name, "all")]

    def felt_by(self, asked):
        return self.began <= asked.ended and asked.started <= (self.ended or asked.ended) + FELT_SECONDS


KINDS = ["kill", "stop", *(f"{how}-{what}" for how in ("cut", "stall", "black") for what in ("data", "control", "all"))]
# Shorter than anyone notices, shorter than suspicion, than death, and longer than the keepalive.
SECONDS = [(0.05, 1.0, 4), (1.0, 4.0, 3), (4.0, 9.0, 2), (13.0, 18.0, 1)]


def script(seed, nodes, events=3, longest=None):
    """The faults of a seed, as lists of what happens at once, each with the wait before it. Most are single."""
    chance = random.Random(seed)
    steps = []
    for _ in range(events):
        at_once = 2 if chance.random() < 0.15 else 1
        step = []
        for node in chance.sample(sorted(nodes), at_once):
            kind = chance.choice(KINDS + ["kill", "kill", "stop", "stop"])
            [(least, most, _)] = chance.choices(SECONDS, [weight for _, _, weight in SECONDS])
            direction = chance.choice(["both", "both", "in", "out"]) if kind.startswith(("stall", "black")) else "both"
            seconds = chance.uniform(least, most)
            step.append(Event(kind, node, min(seconds, longest or seconds), direction))
        steps.append((chance.uniform(0.2, 1.5), step))
    return steps


def play(running, load, steps):
    """Plays the faults of a script. Gives the events, and what did not come back."""
    events, problems = [], []
    for wait, step in steps:
        time.sleep(wait)
        for event in step:
            event.begin(running)
        for event in sorted(step, key=lambda event: event.seconds):
            time.sleep(max(0.0, event.began + event.seconds - time.monotonic()))
            event.end(running)
        events += step
        for event in step:
            try:
                running.wait_live(event.node, BACK_SECONDS)
            except AssertionError as error:
                problems.append(f"after {event}: {error}")
        load.note_repeated()
    return events, problems


@dataclasses.dataclass
class Verdict:
    """What a stretch of load came to."""

    queries: int = 0
    retried: int = 0
    failed_of_one: int = 0
    failed_of_several: int = 0
    failed_later: int = 0
    wrong: int = 0
    problems: list = dataclasses.field(default_factory=list)

    def add(self, other):
        for field in ("queries", "retried", "failed_of_one", "failed_of_several", "failed_later", "wrong"):
            setattr(self, field, getattr(self, field) + getattr(other, field))
        self.problems += other.problems

    def success_share(self):
        """Of the queries that one failure hit before their first row, how many succeeded."""
        hit = self.retried + self.failed_of_one
        return self.retried / hit if hit else 1.0

    def __str__(self):
        failed = f"{self.failed_of_one} failed after one fault, {self.failed_of_several} after several, {self.failed_later} with rows out"
        return f"{self.queries} queries, {self.retried} repeated unseen, {failed}, {self.wrong} wrong"


def judge(running, load, events):
    """Holds the load to the promises."""
    verdict = Verdict(queries=len(load.asked), wrong=len(load.wrong()))
    verdict.problems += load.hanging()
    verdict.problems += [f"wrong: {asked.text(load.since)}" for asked in load.wrong()]
    verdict.retried = len(load.note_repeated())
    for asked in load.failed():
        felt = [event for event in events if event.felt_by(asked)]
        told = f"{asked.text(load.since)} (faults: {', '.join(f'{event} at {event.began - load.since:.2f} s' for event in felt) or 'none'})"
        if AFTER_FIRST_ROW in asked.error:
            verdict.failed_later += 1
        elif len(felt) > 1:
            verdict.failed_of_several += 1
        else:
            verdict.failed_of_one += 1
        if not felt:
            verdict.problems.append(f"failed without a fault: {told}")
        if not NAMES_NODE.search(asked.error) or not NAMES_FRAGMENT.search(asked.error):
            verdict.problems.append(f"names no node or no fragment: {told}")
        since = max([asked.started, *(event.began for event in felt if event.began <= asked.ended)])
        if asked.ended - since > ERROR_SECONDS:
            verdict.problems.append(f"failed {asked.ended - since:.1f} s after the fault: {told}")
    return verdict


def play_seed(running, expected, seed, events=3, longest=None, clients=4):
    """One seed: its faults under load, then everything as it was."""
    with Load(running, expected, clients, seed) as load:
        load.wait_queries(clients)
        played, problems = play(running, load, script(seed, running.nodes, events, longest))
        load.wait_queries(clients)
    verdict = judge(running, load, played)
    verdict.problems += problems
    try:
        wait_whole(running)
        verdict.problems += wrong_checksums(running)[0]
    except AssertionError as error:
        verdict.problems.append(f"{error}: {short_files(running)[:3]}")
    return played, verdict


@contextlib.contextmanager
def started(options=None, **more):
    """A cluster in a folder that goes with it."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        scale = options.scale if options else more.pop("scale", 0.02)
        running, expected = start(folder, scale=scale, **more)
        try:
            yield running, expected
        except BaseException:
            keep_logs(running)
            raise
        finally:
            running.end()


def keep_logs(running):
    """Logs outlive the folder of a cluster that broke."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="chaos-logs-"))
    for log in running.folder.glob("*.log"):
        shutil.copy(log, folder)
    say(f"logs are in {folder}")


def summary(what, verdict, *more):
    """Prints the end of a command. Gives its exit code."""
    broken = list(verdict.problems) + [text for held, text in more if not held]
    for problem in broken:
        say(f"BROKEN: {problem}")
    say(f"{what}: {verdict}; {'; '.join(text for held, text in more if held)}{'; ' if more else ''}{len(broken)} promises broken")
    return 1 if broken else 0


def seeds(options):
    """Faults at random."""
    total = Verdict()
    with started(options) as (running, expected):
        for seed in range(options.first, options.first + options.seeds):
            began = time.monotonic()
            played, verdict = play_seed(running, expected, seed, options.events)
            total.add(verdict)
            say(f"seed {seed}: {', '.join(map(str, played))}: {verdict}, in {time.monotonic() - began:.0f} s")
            for problem in verdict.problems:
                say(f"  BROKEN (seed {seed}): {problem}")
        if total.problems:
            keep_logs(running)
    share = total.success_share()
    share_text = f"{share:.2%} of the queries that one fault hit succeeded"
    return summary(f"{options.seeds} seeds", total, (share >= SUCCESS_SHARE, share_text), (not total.wrong, f"{total.wrong} wrong answers"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.02, help="scale of the data (default 0.02)")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("seeds", help=seeds.__doc__)
    command.add_argument("--seeds", type=int, default=50, help="how many (default 50)")
    command.add_argument("--first", type=int, default=1, help="the first of them (default 1)")
    command.add_argument("--events", type=int, default=3, help="faults a seed (default 3)")
    command.set_defaults(run=seeds)
    options = parser.parse_args()
    return options.run(options)


if __name__ == "__main__":
    sys.exit(main())
