"""Asks generated queries of a cluster in two regions, records everything that passes between these, and holds the regions to their promise.

    python sql-tests/clients/region_traffic.py --queries 10000 --seed 1 [--clients 2] [--kill]
    python sql-tests/clients/region_traffic.py --seed 1 --only 4711                            replays one query of a seed, and prints it

The regions are two network namespaces with one cable between them: eu has the coordinator, two workers and the clients, us has two workers. No value
that was planted in a pinned table may be seen on the cable; every legal query must be answered as DuckDB answers it; every refusal must name table,
border and fragment. The namespaces have no names: they go with the processes, however these end. Needs root.
"""

import argparse
import collections
import ctypes
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

import answers
import canary_tables
import cluster
import duckdb
import region_queries
import traffic_recorder
from canary_tables import NODES, TABLES
from region_queries import BY_PLAN, EXPLAINED, FAILING, LEGAL, REFUSED
from tpch_load import keep_logs, rows_of, say

HOSTS = {"eu": "10.77.0.1", "us": "10.77.0.2"}
CABLE = "to-us"
CLONE_NEWNET = 0x40000000
HANG_SECONDS = 60
SAID_EVERY = 500
# Nothing below is seen by a recorder that reads all there is: days are known by fours, and some stand alone.
SEEN_SHARE = {"date": 0.8}
SETTINGS = """[coordinator]
insecure_cluster = true
replication_grace_ms = 3000
query.compression = "none"
"""
NOTHING_SMALL = ["bowshot.broadcast_join_bytes", *(f"datafusion.optimizer.hash_join_single_partition_threshold{of}" for of in ("", "_rows"))]
# Sessions that plan and compute differently. A query has one by its number.
SESSIONS = [
    {"bowshot.kernel": "host"},
    {"bowshot.kernel": "off"},
    {"bowshot.kernel": "auto"},
    {"bowshot.kernel": "device"},
    {"bowshot.kernel": "host", **{setting: "0" for setting in NOTHING_SMALL}},
    {"bowshot.kernel": "off", "datafusion.optimizer.prefer_hash_join": "false"},
]
REFUSAL = re.compile(
    r"rows of table (?:\w+\.)?(\w+) must stay in ([\w, ]+), but this query would send them from fragment \d+ \(\w+\)"
    r" to (?:the coordinator|node|workers) "
)
DENIED = re.compile(r"permission.?denied|unauthorized", re.IGNORECASE)
LOST = re.compile(r"\(Unavailable;|UNAVAILABLE")
FOREIGN_TEXT, NUMBER = re.compile(r"canary-us-\w+-\d-[0-9a-f]{16}", re.IGNORECASE), re.compile(r"\d{16}")
SYSTEM_TABLES = ["nodes", "files", "cache", "queries", "tasks", "settings"]


def enter_new_network():
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise SystemExit(f"no network of its own: {os.strerror(ctypes.get_errno())}; this needs root")


def network_of_its_own():
    """A network namespace as an open file; it goes when the file and the last process in it do."""
    found = []

    def make():
        enter_new_network()
        found.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return found[0]


def quotes_us(text):
    foreign = {traffic_recorder.upper(kind, "us") for kind in ("integer", "decimal", "timestamp")}
    return FOREIGN_TEXT.search(text) or any(int(number) >> 32 in foreign for number in NUMBER.findall(text))


class Regions:
    """This process in eu, a network us, and the cable between both with its recorder."""

    def __init__(self, folder, planted):
        enter_new_network()
        path = f"/proc/{os.getpid()}/fd/{network_of_its_own()}"
        self.prefix = {"eu": [], "us": ["nsenter", f"--net={path}"]}
        self.report = folder / "report.json"
        (folder / "planted.json").write_text(json.dumps(planted))
        for region in HOSTS:
            self.ip(region, "link", "set", "lo", "up")
        self.ip("eu", "link", "add", CABLE, "type", "veth", "peer", "name", "to-eu", "netns", path)
        self.ip("eu", "address", "add", f"{HOSTS['eu']}/24", "dev", CABLE)
        self.ip("us", "address", "add", f"{HOSTS['us']}/24", "dev", "to-eu")
        self.ip("eu", "link", "set", CABLE, "up")
        # Nothing passes before both ends are up.
        recorder = [sys.executable, pathlib.Path(__file__).with_name("traffic_recorder.py"), CABLE, folder / "planted.json", self.report]
        self.recorder = subprocess.Popen(recorder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.recorder.stdout.readline() == "recording\n", "the recorder did not start"
        self.ip("us", "link", "set", "to-eu", "up")

    def ip(self, region, *arguments):
        return subprocess.run([*self.prefix[region], "ip", *arguments], check=True, capture_output=True, text=True).stdout

    def recorded(self):
        """The recorder's report, after the last frame."""
        self.recorder.communicate(timeout=600)
        [counters] = json.loads(self.ip("eu", "-s", "-j", "link", "show", "dev", CABLE))
        passed = counters["stats64"]["rx"]["packets"] + counters["stats64"]["tx"]["packets"]
        return json.loads(self.report.read_text()) | {"passed": passed}

    def end(self):
        if self.recorder.poll() is None:
            self.recorder.kill()


@dataclasses.dataclass
class Outcome:
    """What became of a query."""

    number: int
    query: region_queries.Query
    started: float
    rows: list | None = None
    error: str = ""
    problem: str = ""
    asked_again: bool = False

    def how(self):
        return "answered" if self.rows is not None else "refused" if REFUSAL.search(self.error) else "error"


class Run:
    """A cluster in two regions, DuckDB over the same files, and the queries of a seed."""

    def __init__(self, running, folder, seed):
        self.running, self.seed = running, seed
        self.peer = duckdb.connect()
        self.peer.execute("SET threads = 1")
        for table in TABLES:
            self.peer.execute(f"CREATE TABLE {table} AS SELECT * FROM read_parquet('{folder}/*/{table}/*.parquet')")
        self.outcomes, self.lock = [], threading.Lock()
        self.whole = threading.Event()
        self.whole.set()
        self.killed_at = []

    def connect(self, session):
        connection = self.running.connect(query_timeout_ms=HANG_SECONDS * 1000)
        for name, value in session.items():
            rows_of(connection, f"SET {name} = '{value}'")
        return connection

    def client(self, numbers):
        """Asks what is left of `numbers`, which clients share."""
        connections, peer = {}, self.peer.cursor()
        while True:
            with self.lock:
                number = next(numbers, None)
            if number is None:
                break
            outcome = self.ask(number, connections)
            outcome.problem = self.problem(outcome, peer)
            if outcome.problem:
                what = f"{outcome.query.shape}, {SESSIONS[number % len(SESSIONS)]}"
                say(f"BROKEN: seed {self.seed} query {number} ({what}): {outcome.problem}\n    {outcome.query.sql}")
            outcome.rows = outcome.rows and []
            with self.lock:
                self.outcomes.append(outcome)
                done = len(self.outcomes)
            if done % SAID_EVERY == 0:
                say(f"{done} queries: {self.counted()}")
        for connection in connections.values():
            connection.close()

    def ask(self, number, connections):
        place = number % len(SESSIONS)
        outcome = Outcome(number, region_queries.query(self.seed, number), time.time())
        while True:
            try:
                if place not in connections:
                    connections[place] = self.connect(SESSIONS[place])
                outcome.rows, outcome.error = rows_of(connections[place], outcome.query.sql), ""
                return outcome
            except Exception as error:  # every kind is an outcome; the judge reads the text
                outcome.error = str(error)
                if not LOST.search(outcome.error) or outcome.asked_again or not self.disturbed(outcome.started):
                    return outcome
            # A worker was killed: the error says "try again".
            connections.pop(place, None)
            outcome.asked_again = True
            self.whole.wait(HANG_SECONDS)

    def disturbed(self, started):
        return any(began - HANG_SECONDS < started < ended + 5 for began, ended in self.killed_at) or not self.whole.is_set()

    def problem(self, outcome, peer):
        """What is wrong with the outcome; empty when nothing is."""
        query, error, how = outcome.query, outcome.error, outcome.how()
        if time.time() - outcome.started > HANG_SECONDS and not outcome.asked_again:
            return f"took {time.time() - outcome.started:.0f} s: {error}"
        if quotes_us(error) or (query.fate == EXPLAINED and quotes_us(str(outcome.rows))):
            return f"quotes what is secret: {error or outcome.rows}"
        if how == "refused":
            wrong = self.wrong_refusal(query, error)
            return wrong or ("" if query.fate in (REFUSED, BY_PLAN, EXPLAINED, FAILING) else f"legal and refused: {error}")
        if query.fate == FAILING:
            return f"an error of the engine itself: {error}" if re.search(r"\bINTERNAL\b|Internal;", error) else ""
        if how == "error":
            return f"neither answered nor refused: {error}"
        if query.fate == EXPLAINED:
            return ""
        if query.fate == REFUSED:
            return f"must be refused, and {len(outcome.rows)} rows came"
        expected = peer.execute(query.peer_sql).fetchall()
        if query.ordered:
            different = answers.difference_in_order(outcome.rows, answers.Expected([[row] for row in expected], None))
        else:
            different = answers.difference(outcome.rows, expected)
        return f"wrong: {different}" if different else ""

    def wrong_refusal(self, query, error):
        table, regions = REFUSAL.search(error).groups()
        if not DENIED.search(error):
            return f"a refusal of another class: {error}"
        if table not in query.tables or regions.split(", ") != TABLES[table][1]:
            return f"a refusal of the wrong table or region: {error}"
        return ""

    def kill_one(self, node_id, after):
        """kill -9 of a worker once `after` queries are done, and its start a moment later."""
        while len(self.outcomes) < after:
            time.sleep(0.1)
        self.whole.clear()
        began = time.time()
        self.running.workers[node_id].kill()
        time.sleep(3)
        self.running.restart_worker(node_id)
        self.killed_at.append((began, time.time()))
        self.whole.set()
        say(f"{node_id} was killed after {after} queries, and is back after {time.time() - began:.1f} s")

    def counted(self):
        count = collections.Counter((outcome.query.fate, outcome.how(), bool(outcome.problem)) for outcome in self.outcomes)
        broken = sum(number for (_, _, problem), number in count.items() if problem)
        wrong = sum(1 for outcome in self.outcomes if outcome.problem.startswith("wrong"))
        by_plan = f"{count[BY_PLAN, 'answered', False]} answered, {count[BY_PLAN, 'refused', False]} refused"
        explained = count[EXPLAINED, "answered", False] + count[EXPLAINED, "refused", False]
        failing = sum(number for (fate, _, problem), number in count.items() if fate == FAILING and not problem)
        again = sum(outcome.asked_again for outcome in self.outcomes)
        return (
            f"{count[LEGAL, 'answered', False]} legal all equal, {count[REFUSED, 'refused', False]} refused all named, by plan {by_plan},"
            f" {explained} explained, {failing} failing on purpose, {again} asked again after a kill, {wrong} wrong, {broken - wrong} failed"
        )


def set_up(running, replicated):
    for table, (_, regions) in TABLES.items():
        options = f" OPTIONS ('regions' '{','.join(regions)}')" if regions else ""
        running.rows(f"CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION 'node://*/data/{table}/'{options}")
    # Before there are copies: what lies abroad has to come from there.
    for sql in region_queries.open_rows():
        running.rows(sql, kernel="off")
    for table in TABLES if replicated else []:
        running.rows(f"ALTER TABLE {table} SET (replicas = 2)")
    if replicated:
        short = "SELECT path FROM system.files WHERE state = 'live' GROUP BY table_name, path HAVING count(*) < 2"
        cluster.wait_until("two copies of every file", HANG_SECONDS, lambda: not running.rows(short))
        for table, (_, regions) in TABLES.items():
            found = {region for (region,) in running.rows(f"SELECT DISTINCT region FROM system.files WHERE table_name = '{table}'")}
            assert not regions or found <= set(regions), f"{table}, pinned to {regions}, has copies in {found}"


def judged(report, must_cross):
    """What the recording proves, or fails to: sentences."""
    problems = [f"crossed: {what}" for what in report["crossed"]]
    for what in ("dropped", "headless", "gaps", "compressed"):
        problems += [f"the recording is not whole: {report[what]} {what}"] if report[what] else []
    if report["passed"] != report["frames"]:
        problems.append(f"the recording is not whole: {report['passed']} frames passed, {report['frames']} were read")
    seen = {kind: sum(report["seen"].get(owner, {}).get(kind, 0) for owner in ("open", "both")) for kind in must_cross}
    for kind, count in must_cross.items():
        if seen[kind] < count * SEEN_SHARE.get(kind, 1):
            problems.append(f"the recorder is blind: {seen[kind]} of {count} canaries seen that crossed by right, {kind}")
    return problems, sum(seen.values())


def play(folder, numbers, seed, clients, kill):
    """Asks the queries of `numbers`. Gives the outcomes and everything that is wrong."""
    planted, must_cross = canary_tables.write(folder / "volumes", seed)
    regions = Regions(folder, planted)
    nodes = [
        cluster.Node(
            node_id, {"data": folder / "volumes" / node_id}, region, host=HOSTS[region], prefix=regions.prefix[region],
            environment={"BOWSHOT__WORKER__INSECURE_CLUSTER": "true"},
        )
        for node_id, region in NODES.items()
    ]  # fmt: skip
    started = time.monotonic()
    try:
        with cluster.Cluster(folder / "cluster", nodes, SETTINGS, host=HOSTS["eu"]) as running:
            set_up(running, replicated=len(numbers) > 1)
            say(f"two regions after {time.monotonic() - started:.0f} s")
            run, left = Run(running, folder / "volumes", seed), iter(numbers)
            threads = [threading.Thread(target=run.client, args=(left,), daemon=True) for _ in range(clients)]
            threads += [threading.Thread(target=run.kill_one, args=("us-2", len(numbers) // 2), daemon=True)] if kill else []
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for table in SYSTEM_TABLES:
                running.rows(f"SELECT * FROM system.{table}")
            dead = [node_id for node_id, worker in running.workers.items() if not worker.running()]
            if dead or any(outcome.problem for outcome in run.outcomes):
                keep_logs(running)
        report = regions.recorded()
    finally:
        regions.end()
    problems, control = judged(report, must_cross)
    problems += [f"{node_id} ended" for node_id in dead]
    crossed = len(report["crossed"])
    say(
        f"{len(run.outcomes)} queries in {time.monotonic() - started:.0f} s: {run.counted()}; {report['bytes'] / 1e6:.1f} MB between regions in"
        f" {report['frames']:,} frames recorded, {report['dropped']} frames dropped, {crossed} canaries of pinned tables crossed;"
        f" control canaries seen: {control}"
    )
    return run.outcomes, problems


def main():
    # Whoever ends it lets it put away what it made.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--kill", action="store_true", help="kill -9 and restart a worker of us halfway")
    parser.add_argument("--only", type=int, help="number of the one query to ask")
    asked = parser.parse_args()
    numbers = range(asked.queries) if asked.only is None else [asked.only]
    with tempfile.TemporaryDirectory(prefix="regions-") as folder:
        outcomes, problems = play(pathlib.Path(folder), numbers, asked.seed, asked.clients, asked.kill)
    if asked.only is not None:
        [outcome] = outcomes
        say(f"{outcome.query.fate}, {outcome.how()}: {outcome.query.sql}\n{outcome.error}")
    for problem in problems:
        say(f"BROKEN: {problem}")
    return 1 if problems or any(outcome.problem for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
