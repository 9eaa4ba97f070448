"""A cluster of real processes for tests: one coordinator and workers, on free loopback ports, each with its own log.

Processes end with this one whatever happens to it: they read their standard input and stop when it closes.
"""

import contextlib
import dataclasses
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import adbc_driver_flightsql.dbapi as flight_sql

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("BOWSHOT_BINARY", REPOSITORY / "target" / "release" / "bowshot"))
CLUSTER_TOKEN = "cluster-token-of-the-tests"
READY_SECONDS = 60
END_SECONDS = 12
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


# Below the range from which the system hands out ports by itself (32768 and up): no connection of another process takes
# one of these between its choice and its use.
# BOWSHOT_TEST_PORTS=28000-32000 keeps a second run on the machine out of the way of the first.
PORTS = range(*map(int, os.environ.get("BOWSHOT_TEST_PORTS", "12000-28000").split("-")))
_ports = iter(random.sample(PORTS, len(PORTS)))


def free_port():
    """A port that nobody listens on now, and that this process never chose before."""
    for port in _ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError(f"no free port left in {PORTS}")


def wait_until(what, seconds, condition):
    """The first true answer of `condition`; fails naming `what` when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


@dataclasses.dataclass
class Node:
    """A worker to start."""

    node_id: str
    volumes: dict
    region: str = "eu"
    kernel_device: str = "software"
    faults: list = dataclasses.field(default_factory=list)
    environment: dict = dataclasses.field(default_factory=dict)
    # Where clients fetch parts of results, and what they are told of it; nowhere without a port.
    flight_port: int | None = None
    flight_advertised: str | None = None
    # Where the others reach it, and what its command line starts with: a network of its own.
    host: str = "127.0.0.1"
    prefix: list = dataclasses.field(default_factory=list)


class Process:
    """One started program with its log."""

    def __init__(self, name, arguments, environment, folder):
        self.name, self.arguments, self.environment, self.folder = name, [str(part) for part in arguments], environment, folder
        self.child = None
        self.log = pathlib.Path(folder) / f"{name}.log"
        self.start()

    def start(self):
        assert not self.child or not self.running(), f"{self.name} runs already"
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                self.arguments, env={**os.environ, **self.environment}, cwd=self.folder, stdin=subprocess.PIPE, stdout=log, stderr=log
            )

    @property
    def pid(self):
        return self.child.pid

    def running(self):
        return self.child.poll() is None

    def send(self, number):
        os.kill(self.pid, number)

    def kill(self):
        """kill -9, and the process is gone when this returns."""
        self.send(signal.SIGKILL)
        self.child.wait()

    def end(self):
        if not self.running():
            return
        self.send(signal.SIGCONT)
        self.child.stdin.close()
        self.send(signal.SIGTERM)
        try:
            self.child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def log_text(self):
        return self.log.read_text(errors="replace")

    def cpu_seconds(self):
        """CPU time of all threads so far."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS

    def cpu_share(self, seconds=1.0):
        """CPU time per wall time over the next `seconds`: 1.0 is one core."""
        before, started = self.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        return (self.cpu_seconds() - before) / (time.monotonic() - started)


class Certificates:
    """An authority in a folder, and what it issued: `bowshot certs`."""

    def __init__(self, folder, nodes):
        self.folder = pathlib.Path(folder)
        self.said = self.issue(nodes)

    def issue(self, nodes, *flags):
        """Certificates for those of the nodes (and the coordinator) that have none yet. Gives what was printed."""
        for node in nodes:
            flags += ("--node", f"{node.node_id},region={node.region}")
        return subprocess.run([BINARY, "certs", self.folder, *flags], capture_output=True, text=True, check=True, timeout=60).stdout

    def path(self, name):
        return self.folder / name

    def settings(self, section, name):
        """Variables that give a coordinator or worker the certificate `name`."""
        files = {"CERTIFICATE": f"{name}.pem", "KEY": f"{name}.key", "CA": "ca.pem"}
        return {f"BOWSHOT__{section.upper()}__CLUSTER_TLS__{key}": str(self.path(file)) for key, file in files.items()}


class Cluster:
    """A running coordinator with its workers. Use it in a `with` statement."""

    def __init__(self, folder, nodes, settings="", default_schema="public", tls=None, token=None, host="127.0.0.1"):
        """`settings` is TOML for the server's file, beside what the flags say; `tls` the `Certificates` of all nodes, if any; `token` whose
        user the tests are unless they say another; `host` where workers reach the server."""
        self.token, self.host = token, host
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tls = tls
        self.nodes = {node.node_id: node for node in nodes}
        self.port, self.http_port, self.control_port = free_port(), free_port(), free_port()
        self.uri = f"grpc://127.0.0.1:{self.port}"
        self.worker_ports = {node_id: free_port() for node_id in self.nodes}
        settings_file = self.folder / "server.toml"
        settings_file.write_text(settings)
        flags = [
            "--config", settings_file, "--listen", f"127.0.0.1:{self.port}", "--http-listen", f"127.0.0.1:{self.http_port}",
            "--control-listen", f"{host}:{self.control_port}", "--data-dir", self.folder / "coordinator", "--region", "eu",
            "--default-schema", default_schema, "--exit-with-parent",
        ]  # fmt: skip
        environment = {"BOWSHOT__COORDINATOR__CLUSTER_TOKEN": CLUSTER_TOKEN, **(tls.settings("coordinator", "coordinator") if tls else {})}
        self.server = Process("server", [BINARY, "server", *flags], environment, self.folder)
        self.workers = {node_id: self.start_worker(node) for node_id, node in self.nodes.items()}
        try:
            self.wait_ready()
        except BaseException:
            self.end()
            raise

    def start_worker(self, node, port=None, tls=None, name=None, plain=False):
        """A worker with the certificates of the cluster, or those of `tls`, and of these that of its own name, or `name`; or with none."""
        tls = None if plain else tls or self.tls
        scheme = "https" if tls else "http"
        advertised, control_port = self.way(node)
        flags = [
            "--node-id", node.node_id, "--region", node.region, "--listen", f"{node.host}:{port or self.worker_ports[node.node_id]}",
            "--coordinator", f"{scheme}://{self.host}:{control_port}", "--kernel-device", node.kernel_device, "--exit-with-parent",
        ]  # fmt: skip
        if advertised:
            flags += ["--advertise", f"127.0.0.1:{advertised}"]
        if node.flight_port:
            flags += ["--flight-listen", f"127.0.0.1:{node.flight_port}"]
        if node.flight_advertised:
            flags += ["--flight-advertise", node.flight_advertised]
        for volume, path in node.volumes.items():
            pathlib.Path(path).mkdir(parents=True, exist_ok=True)
            flags += ["--volume", f"{volume}={path}"]
        certificate = tls.settings("worker", name or node.node_id) if tls else {}
        environment = {"BOWSHOT__WORKER__CLUSTER_TOKEN": CLUSTER_TOKEN, **certificate, **node.environment}
        if node.faults:
            environment["BOWSHOT__WORKER__FAULTS"] = "[" + ", ".join(f'"{fault}"' for fault in node.faults) + "]"
        return Process(node.node_id, [*node.prefix, BINARY, "worker", *flags], environment, self.folder)

    def way(self, node):
        """The port on which others reach a worker, if not the one that it listens on, and the port on which it reaches the coordinator."""
        return None, self.control_port

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        for process in [*self.workers.values(), self.server]:
            process.end()

    def wait_ready(self):
        wait_until(f"the server is ready, see {self.server.log}", READY_SECONDS, self._server_ready)
        for node_id in self.nodes:
            self.wait_live(node_id)

    def _server_ready(self):
        assert self.server.running(), f"the server ended:\n{self.server.log_text()}"
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            return self.http("/readyz").startswith("ready")

    def wait_live(self, node_id, seconds=READY_SECONDS):
        worker = self.workers[node_id]

        def live():
            assert worker.running(), f"{node_id} ended:\n{worker.log_text()}"
            return self.node_states().get(node_id) == "live"

        wait_until(f"{node_id} is live, see {worker.log}", seconds, live)

    def node_states(self):
        return dict(self.rows("SELECT node_id, state FROM system.nodes WHERE role = 'worker'"))

    def restart_server(self):
        """The same server on the same ports and catalog, once the one before has ended; workers find it by themselves."""
        self.server.end()
        self.server.start()
        self.wait_ready()

    def restart_worker(self, node_id):
        self.workers[node_id].end()
        self.workers[node_id].start()
        self.wait_live(node_id)

    def connect(self, token=None, **options):
        """An ADBC connection; `options` are session settings such as kernel="host"."""
        token = token or self.token
        credentials = {"adbc.flight.sql.authorization_header": f"Bearer {token}"} if token else {}
        connection = flight_sql.connect(self.uri, db_kwargs=credentials, autocommit=True)
        for name, value in options.items():
            with connection.cursor() as cursor:
                cursor.execute(f"SET bowshot.{name} = '{value}'")
        return connection

    def rows(self, sql, **options):
        with self.connect(**options) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            # Column by column: several times faster than row by row for large answers.
            return list(zip(*(column.to_pylist() for column in cursor.fetch_arrow_table().columns)))

    def create_table(self, name, location):
        self.rows(f"CREATE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION '{location}'")

    def shell(self, sql, *flags, command="sql"):
        """`bowshot sql -c`: the finished process."""
        statement = [sql] if command == "explain" else ["-c", sql]
        return subprocess.run([BINARY, command, "--url", self.uri, *flags, *statement], capture_output=True, text=True, timeout=60, cwd=self.folder)

    def http(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=5) as response:
            return response.read().decode()

    def metric(self, name, **labels):
        """Sum of a metric over the series that carry these labels."""
        total = 0.0
        for line in self.http("/metrics").splitlines():
            match = re.fullmatch(rf"{re.escape(name)}(\{{.*\}})? (\S+)", line)
            if match and all(f'{key}="{value}"' in (match[1] or "") for key, value in labels.items()):
                total += float(match[2])
        return total
