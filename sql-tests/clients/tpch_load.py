"""TPC-H under load on a cluster of real processes, whose every way runs through a proxy: tables of several copies, clients, and who is whole."""

import contextlib
import dataclasses
import hashlib
import pathlib
import random
import shutil
import subprocess
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
# A query that takes longer than this hangs. Far beyond three tries of a query that meets a silent node.
HANG_SECONDS = 90
WHOLE_SECONDS = 60


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


def rows_of(connection, sql):
    """The rows, or the first error: closing what has failed fails too, and says less."""
    cursor = connection.cursor()
    try:
        cursor.execute(sql)
        return cursor.fetchall()
    finally:
        try:
            cursor.close()
        except Exception:
            # The end of the object would try again, and complain where nobody listens.
            cursor._closed = True


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
                rows = rows_of(connection, QUERIES[asked.name])
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


def keep_logs(running):
    """Logs outlive the folder of a cluster that broke."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="chaos-logs-"))
    for log in running.folder.glob("*.log"):
        shutil.copy(log, folder)
    say(f"logs are in {folder}")


def in_folder(play, what):
    """Calls `play` with a folder that goes afterwards, prints what it says is broken, and gives an exit code."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        problems = play(pathlib.Path(folder))
    for problem in problems:
        say(f"BROKEN: {problem}")
    say(f"{what}: {len(problems)} promises broken")
    return 1 if problems else 0
