"""TLS between the nodes, with real processes: who may join, what others are told, and certificates replaced under running queries."""

import contextlib
import json
import os
import re
import socket
import ssl
import subprocess
import threading
import time

import cluster
import pyarrow
import pyarrow.flight
import pyarrow.parquet
import pytest

ROWS_A_FILE = 100_000
NODES = {"node-1": "eu", "node-2": "eu", "node-3": "us"}
TOTAL = ROWS_A_FILE * len(NODES)
# A shuffle, a broadcast or shuffle of rows, and an aggregate: each moves data between workers.
QUERIES = {
    "SELECT id % 7, count(*), sum(id) FROM numbers GROUP BY id % 7": [
        (rest, len(range(rest, TOTAL, 7)), sum(range(rest, TOTAL, 7))) for rest in range(7)
    ],
    "SELECT count(*), sum(a.id) FROM numbers a JOIN numbers b ON a.id = b.id": [(TOTAL, TOTAL * (TOTAL - 1) // 2)],
    "SELECT count(DISTINCT id % 1000) FROM numbers": [(1000,)],
}
REFUSED_SECONDS = 30
# Two looks at the files, and the time between them.
TAKEN_SECONDS = 20
# What the driver makes of a refusal depends on its code.
REFUSALS = (pyarrow.ArrowException, pyarrow.flight.FlightError)
REPLACED = "certificates were replaced"


def nodes_over(folder):
    nodes = []
    for position, (node_id, region) in enumerate(NODES.items()):
        first = position * ROWS_A_FILE
        target = folder / node_id / "numbers" / f"part-{position}.parquet"
        target.parent.mkdir(parents=True)
        ids = pyarrow.array(range(first, first + ROWS_A_FILE), pyarrow.int64())
        pyarrow.parquet.write_table(pyarrow.table({"id": ids}), target, row_group_size=25_000)
        nodes.append(cluster.Node(node_id, {"data": folder / node_id}, region))
    return nodes


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    nodes = nodes_over(folder)
    certificates = cluster.Certificates(folder / "certificates", nodes)
    with cluster.Cluster(folder / "cluster", nodes, tls=certificates) as started:
        started.create_table("numbers", "node://*/data/numbers/")
        yield started
        no_key_was_printed(started)


def assert_answers(running):
    for sql, expected in QUERIES.items():
        assert sorted(running.rows(sql)) == expected, sql


def no_key_was_printed(running):
    said = running.tls.said + "".join(log.read_text(errors="replace") for log in running.folder.glob("*.log"))
    assert "PRIVATE KEY" not in said
    for key in running.tls.folder.glob("*.key"):
        for line in key.read_text().splitlines():
            assert line.startswith("-----") or line not in said, f"a line of {key} was printed"


def test_queries_move_rows_between_nodes_that_trust_each_other(running):
    assert_answers(running)
    addresses = running.rows("SELECT address FROM system.nodes")
    assert len(addresses) == 1 + len(NODES) and all(address.startswith("https://") for (address,) in addresses), addresses


def refused_worker(running, node, **certificate):
    """Starts a worker that must not get in. Gives what it said when it ended."""
    worker = running.start_worker(node, port=cluster.free_port(), **certificate)
    try:
        cluster.wait_until(f"{node.node_id} is refused, see {worker.log}", REFUSED_SECONDS, lambda: not worker.running())
        assert worker.child.returncode != 0
        assert node.node_id not in running.node_states()
        return worker.log_text()
    finally:
        worker.end()


def test_a_worker_without_a_certificate_is_refused(running):
    said = refused_worker(running, cluster.Node("bare", {}), plain=True)
    assert "it wants TLS: set cluster_tls" in said and "bowshot certs" in said, said
    assert "does not speak TLS" in running.server.log_text()


def test_a_worker_of_another_authority_is_refused(running, tmp_path):
    node = cluster.Node("stranger", {})
    other = cluster.Certificates(tmp_path / "other", [node])
    said = refused_worker(running, node, tls=other)
    assert "not signed by an authority in our cluster_tls.ca" in said, said
    # It knows the cluster's authority, but the cluster does not know its own.
    with open(other.path("ca.pem"), "a") as authorities:
        authorities.write(running.tls.path("ca.pem").read_text())
    said = refused_worker(running, node, tls=other)
    assert "the other side refused our certificate" in said, said


def test_a_worker_with_the_certificate_of_another_node_or_region_is_refused(running):
    said = refused_worker(running, cluster.Node("node-9", {}), name="node-1")
    assert "not for node-9.node.bowshot" in said and "node-1.node.bowshot" in said, said
    said = refused_worker(running, cluster.Node("node-4", {}, "us"), name=issued(running, "node-4", "eu"))
    assert "region 'eu'" in said and "not for region 'us'" in said, said


def issued(running, node_id, region):
    running.tls.issue([cluster.Node(node_id, {}, region)])
    return node_id


def control_client(running, name):
    read = lambda file: running.tls.path(file).read_bytes()  # noqa: E731
    return pyarrow.flight.FlightClient(
        f"grpc+tls://127.0.0.1:{running.control_port}", tls_root_certs=read("ca.pem"), cert_chain=read(f"{name}.pem"),
        private_key=read(f"{name}.key"), override_hostname="coordinator.role.bowshot",
    )  # fmt: skip


def call(client, action, message, token=cluster.CLUSTER_TOKEN):
    options = pyarrow.flight.FlightCallOptions(headers=[(b"x-bowshot-cluster-token", token.encode())], timeout=10)
    return [json.loads(answer.body.to_pybytes()) for answer in client.do_action((action, json.dumps(message).encode()), options)]


def test_the_coordinator_believes_the_certificate_and_not_the_message(running):
    (version,) = set(re.findall(r"PROTOCOL_VERSION: u32 = (\d+)", (cluster.REPOSITORY / "engine/src/control/mod.rs").read_text()))
    register = {
        "protocol_version": int(version), "version": "test", "node_id": "node-2", "region": "eu", "address": "https://127.0.0.1:1/node-2",
        "pid": 1, "cpu_threads": 1, "device": "none", "incarnation": "another",
    }  # fmt: skip
    with control_client(running, "node-1") as client:
        with pytest.raises(REFUSALS, match="calls itself node 'node-2', but its certificate is for node 'node-1'"):
            call(client, "bowshot.register", register)
        heartbeat = {
            "node_id": "node-2", "incarnation": "another", "inventory_epoch": 0, "inventory": [], "cached_bytes": 0, "cached_columns": None,
            "device": "none", "listed_at_ms": 0, "unreadable": [],
        }  # fmt: skip
        with pytest.raises(REFUSALS, match="calls itself node 'node-2'"):
            call(client, "bowshot.heartbeat", heartbeat)
        # The certificate alone does not open the door either.
        with pytest.raises(pyarrow.flight.FlightUnauthenticatedError, match="cluster token"):
            call(client, "bowshot.register", {**register, "node_id": "node-1"}, token="not-the-cluster-token")
    assert_answers(running)


def test_callers_without_tls_are_refused_on_every_port_of_the_cluster(running):
    for port in [running.control_port, *running.worker_ports.values()]:
        with pyarrow.flight.FlightClient(f"grpc://127.0.0.1:{port}") as client, pytest.raises(pyarrow.flight.FlightUnauthorizedError, match="wants TLS: set cluster_tls"):
            call(client, "bowshot.register", {})
        # What is not HTTP/2 either learns nothing, and is not kept.
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            told = b""
            # A reset ends it as well as a farewell does; what would keep it open is a timeout, and fails here.
            with contextlib.suppress(ConnectionResetError):
                while part := plain.recv(1024):
                    told += part
        # At most the empty settings with which HTTP/2 begins and the farewell to who does not speak it: lengths, types, no text.
        assert len(told) < 100 and b"HTTP" not in told and not re.search(rb"[A-Za-z]{5}", told), told


def test_traffic_that_leaves_the_machine_wants_certificates(tmp_path):
    port = cluster.free_port()
    environment = {**os.environ, "BOWSHOT__WORKER__CLUSTER_TOKEN": cluster.CLUSTER_TOKEN, "BOWSHOT__COORDINATOR__CLUSTER_TOKEN": cluster.CLUSTER_TOKEN}
    worker = ["worker", "--node-id", "node-1", "--listen", f"127.0.0.1:{port}", "--coordinator", "http://192.0.2.1:47472"]
    server = [
        "server", "--control-listen", f"0.0.0.0:{port}", "--listen", f"127.0.0.1:{cluster.free_port()}",
        "--http-listen", f"127.0.0.1:{cluster.free_port()}", "--data-dir", tmp_path / "coordinator",
    ]  # fmt: skip
    for command, setting in [(worker, "worker.coordinator is http://192.0.2.1:47472"), (server, "coordinator.listen is 0.0.0.0")]:
        ended = subprocess.run([cluster.BINARY, *command], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert ended.returncode != 0
        assert setting in ended.stderr and "bowshot certs" in ended.stderr and "insecure_cluster" in ended.stderr, ended.stderr


def test_doctor_says_how_long_certificates_are_valid(running):
    environment = {**os.environ, **running.tls.settings("coordinator", "coordinator"), **running.tls.settings("worker", "node-1")}
    environment |= {"BOWSHOT__WORKER__NODE_ID": "node-1", "BOWSHOT__WORKER__REGION": "us"}
    said = subprocess.run([cluster.BINARY, "doctor"], env=environment, capture_output=True, text=True, check=True, timeout=60).stdout
    assert re.search(r"^certificate  of the coordinator, valid until \d{4}-", said, re.M), said
    assert re.search(r"^certificate  .*not for region 'us'", said, re.M), said


def shown_certificate(running, node_id):
    """What a worker shows to a new connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(running.tls.path("ca.pem"))
    context.load_cert_chain(running.tls.path("coordinator.pem"), running.tls.path("coordinator.key"))
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", running.worker_ports[node_id]), timeout=5) as plain:
        with context.wrap_socket(plain, server_hostname=f"{node_id}.node.bowshot") as encrypted:
            return ssl.DER_cert_to_PEM_cert(encrypted.getpeercert(binary_form=True))


def shown_in_file(running, node_id):
    return ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(running.tls.path(f"{node_id}.pem").read_text()))


class Load:
    """Queries that run without a pause until they are stopped."""

    def __init__(self, running):
        self.running, self.failures, self.answered, self.stopped = running, [], 0, threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        while not self.stopped.is_set():
            for sql, expected in QUERIES.items():
                try:
                    if sorted(self.running.rows(sql)) != expected:
                        self.failures.append(f"wrong rows: {sql}")
                except Exception as error:  # every kind is a failure here
                    self.failures.append(str(error))
                self.answered += 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()


def test_certificates_and_authority_are_replaced_under_running_queries(tmp_path):
    nodes = nodes_over(tmp_path)
    certificates = cluster.Certificates(tmp_path / "certificates", nodes)
    with cluster.Cluster(tmp_path / "cluster", nodes, tls=certificates) as running:
        running.create_table("numbers", "node://*/data/numbers/")
        replaced = 0

        def taken_everywhere():
            return all(process.log_text().count(REPLACED) >= replaced for process in [running.server, *running.workers.values()])

        def wait_taken():
            cluster.wait_until("every node took its new files", TAKEN_SECONDS, taken_everywhere)

        first = {node_id: shown_certificate(running, node_id) for node_id in NODES}
        assert first == {node_id: shown_in_file(running, node_id) for node_id in NODES}
        with Load(running) as load:
            # New certificates of the same authority.
            certificates.issue(nodes, "--renew")
            certificates.issue([], "--renew")
            replaced += 1
            wait_taken()
            for node_id in NODES:
                assert shown_certificate(running, node_id) == shown_in_file(running, node_id) != first[node_id]
            # Another authority: both are trusted, then everybody gets a certificate of the new one, then the old one goes.
            new = cluster.Certificates(tmp_path / "new", nodes)
            old_authority, new_authority = certificates.path("ca.pem").read_text(), new.path("ca.pem").read_text()
            steps = [{"ca.pem": old_authority + new_authority}]
            steps.append({file.name: file.read_text() for file in new.folder.iterdir() if not file.name.startswith("ca.")})
            steps.append({"ca.pem": new_authority})
            for step in steps:
                for name, text in step.items():
                    certificates.path(name).write_text(text)
                replaced += 1
                wait_taken()
            answered = load.answered
            cluster.wait_until("queries run on", 60, lambda: load.answered >= answered + len(QUERIES))
        assert not load.failures and load.answered > 3 * len(QUERIES), load.failures
        # A file that breaks changes nothing.
        certificates.path("node-1.pem").write_text("half a certif")
        complained = lambda: "cannot be replaced: those before stay in use" in running.workers["node-1"].log_text()  # noqa: E731
        cluster.wait_until("node-1 complains", TAKEN_SECONDS, complained)
        assert_answers(running)
        certificates.path("node-1.pem").write_text(new.path("node-1.pem").read_text())
        # New connections in every direction.
        running.workers["node-2"].kill()
        running.restart_worker("node-2")
        time.sleep(4)
        assert_answers(running)
        no_key_was_printed(running)
