"""Attacks a cluster of real processes in every way that a client, a file or a connection has, while somebody else goes on working.

    python sql-tests/clients/attack.py                 all of it, about a quarter of an hour on two cores
    python sql-tests/clients/attack.py --share 0.05    a twentieth of each attack
    python sql-tests/clients/attack.py messages files  these attacks alone; --seed 7 for others of their kind
    python sql-tests/clients/attack.py --untimed       on a machine that does other work: how long others waited is printed, and no promise

Statements are deep, large, endless and misspelt; messages have bytes changed; files are torn and lie; connections say nothing; readers stop reading.
Each prints a line, and the summary says what was promised: no process ends, nobody else waits, memory stays within its settings, tables are as
they were. Exit status 1: a promise was broken.
"""

import argparse
import collections
import contextlib
import dataclasses
import pathlib
import random
import re
import resource
import shutil
import socket
import sys
import tempfile
import threading
import time

import adbc_driver_manager
import cluster
import flight_messages
import liar
import pyarrow
import pyarrow.flight
import tamper
from attack_statements import deep, endless, misspelt, too_much
from test_doors import SAID, every_kind, ingest_descriptor, prepared, put, resident_bytes

# Of the coordinator and of each worker, half of that for the cache, which gives way to queries.
MEMORY_BYTES = 256 << 20
# A process keeps within its settings and a quarter, beside what it takes before any of them is used.
BESIDE = 0.25
WITNESS_P99_SECONDS = 0.5
STATEMENT_SECONDS, ENDLESS_SECONDS = 60, 2
# The same of a small share: whatever takes longer is ended, which is an answer too.
SHORT_SHARE, SHORT_STATEMENT_SECONDS = 0.05, 5
# A result that nobody reads for so long makes way for others.
UNREAD_MS = 5000
SLOW_READERS = 24
# What is left of a statement or call that was cut off without a word.
CUT_OFF = re.compile(r"RST_STREAM|Stream removed|Socket closed|unexpectedly|Broken pipe|http2 error|connection reset", re.IGNORECASE)
PANIC = re.compile(r"panicked at|overflowed its stack|SIGSEGV|memory allocation of")


@dataclasses.dataclass
class Attack:
    """What came of one kind of attack."""

    name: str
    answered: int = 0
    refused: int = 0
    broken: list = dataclasses.field(default_factory=list)
    defects: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    seconds: float = 0.0

    def said(self, error):
        text = str(error)
        self.refused += 1
        if CUT_OFF.search(text):
            self.broken.append(text[:300])
        elif "(Internal;" in text or "Flight returned internal error" in text:
            self.defects[re.sub(r"\d+|[0-9a-f-]{36}", "…", text)[:160]] += 1

    def __str__(self):
        return f"{self.name:12} {self.seconds:6.0f} s: {self.answered} answered, {self.refused} refused, {len(self.broken)} cut off, {sum(self.defects.values())} told as defects"


class Witness(threading.Thread):
    """Another user, who asks for little all along."""

    def __init__(self, running):
        super().__init__(daemon=True)
        self.running, self.took, self.errors, self.over = running, [], [], threading.Event()

    def run(self):
        with self.running.connect() as connection, connection.cursor() as cursor:
            while not self.over.wait(0.05):
                began = time.monotonic()
                try:
                    cursor.execute("SELECT 1")
                    if cursor.fetchall() != [(1,)]:
                        self.errors.append("another answer")
                except adbc_driver_manager.Error as error:
                    self.errors.append(str(error)[:300])
                self.took.append(time.monotonic() - began)

    def at(self, share):
        took = sorted(self.took)
        return took[min(len(took) - 1, int(len(took) * share))] if took else 0.0


class Memory(threading.Thread):
    """The most that each process grew by."""

    def __init__(self, processes):
        super().__init__(daemon=True)
        self.before = {process: resident_bytes(process) for process in processes}
        self.most, self.over = collections.Counter(), threading.Event()

    def run(self):
        while not self.over.wait(0.1):
            for process, before in self.before.items():
                with contextlib.suppress(OSError, TypeError):
                    self.most[process.name] = max(self.most[process.name], resident_bytes(process) - before)


class Attacker:
    def __init__(self, running, folder, share, seed):
        self.running, self.folder, self.share, self.chance = running, folder, share, random.Random(seed)
        self.statement_ms = 1000 * (STATEMENT_SECONDS if share > SHORT_SHARE else SHORT_STATEMENT_SECONDS)

    def many(self, count):
        return max(1, int(count * self.share))

    def ask(self, attack, statements, timeout_ms):
        connection = self.running.connect()
        try:
            for sql in statements:
                try:
                    with connection.cursor() as cursor:
                        cursor.execute(f"SET bowshot.query_timeout_ms = {timeout_ms}")
                        cursor.execute(sql)
                        if cursor.description:
                            cursor.fetch_arrow_table()
                    attack.answered += 1
                except (adbc_driver_manager.Error, pyarrow.ArrowException, OSError) as error:
                    attack.said(error)
                    if CUT_OFF.search(str(error)):
                        attack.broken[-1] += f"\n    {sql[:200]}"
                    connection.close()
                    connection = self.running.connect()
        finally:
            connection.close()

    # The attacks.

    def statements(self, attack):
        """Deep and large ones, and those that ask functions for too much."""
        known = [*deep(self.share), *too_much()]
        self.ask(attack, known, self.statement_ms)

    def endless(self, attack):
        """Those that would never end."""
        self.ask(attack, endless(self.many(20)), ENDLESS_SECONDS * 1000)

    def misspelt(self, attack):
        """Statements of the hunter's grammar with tokens changed, left out and repeated."""
        self.ask(attack, misspelt(self.chance, self.many(3000)), 5000)

    def messages(self, attack):
        """Bytes changed in what clients send: of stored rows, bound values, commands, tickets and actions."""
        with tamper.Tamperer(cluster.free_port(), self.running.port) as between:
            client, options = flight_messages.connect(between.port)
            direct, _ = flight_messages.connect(self.running.port)
            batch = every_kind()
            bind = prepared(direct, "SELECT " + ", ".join("?" * batch.num_columns))
            between.change = self.changed
            for kind in (bind, ingest_descriptor("attacked")):
                for number in range(self.many(1000)):
                    self.call(attack, lambda kind=kind, number=number: put(client, kind, [batch], [None, "lz4", "zstd"][number % 3]))
            info = direct.get_flight_info(flight_messages.descriptor("CommandStatementQuery", {1: "SELECT * FROM kept"}))
            command = flight_messages.descriptor("CommandStatementQuery", {1: "SELECT count(*) FROM kept"}).command
            prepare = flight_messages.command("ActionCreatePreparedStatementRequest", {1: "SELECT ?"})
            timed = pyarrow.flight.FlightCallOptions(timeout=30)
            for _ in range(self.many(1000)):
                changed = pyarrow.flight.FlightDescriptor.for_command(self.changed(command))
                self.call(attack, lambda changed=changed: direct.get_flight_info(changed, timed))
                self.call(attack, lambda changed=changed: direct.get_schema(changed, timed))
                ticket = pyarrow.flight.Ticket(self.changed(info.endpoints[0].ticket.ticket))
                self.call(attack, lambda ticket=ticket: direct.do_get(ticket, timed).read_all())
                action = pyarrow.flight.Action(self.chance.choice(["CreatePreparedStatement", "ClosePreparedStatement", "CancelFlightInfo"]), self.changed(prepare))
                self.call(attack, lambda action=action: list(direct.do_action(action, timed)))

    def nodes(self, attack):
        """The doors of workers and of the control port: noise, and tickets that nobody gave."""
        ports = [self.running.control_port, *(self.running.worker_ports.values())]
        timed = pyarrow.flight.FlightCallOptions(timeout=10)
        for _ in range(self.many(1000)):
            port = self.chance.choice(ports)
            if self.chance.random() < 0.5:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as noise:
                    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" if self.chance.random() < 0.5 else b""
                    noise.sendall(preface + self.chance.randbytes(200))
                    attack.refused += 1
                continue
            with pyarrow.flight.connect(f"grpc://127.0.0.1:{port}") as client:
                self.call(attack, lambda client=client: client.do_get(pyarrow.flight.Ticket(self.chance.randbytes(60)), timed).read_all(), other=True)

    def call(self, attack, call, other=False):
        try:
            call()
            attack.answered += 1
        except (*SAID, OSError, StopIteration) as error:
            # A port that speaks another protocol may hang up.
            attack.refused += 1 if other else 0
            if not other:
                attack.said(error)

    def changed(self, content):
        changed, part = bytearray(content), self.chance.choice([0.0003, 0.001, 0.01])
        for at in range(len(changed)):
            if self.chance.random() < part:
                changed[at] = self.chance.choice([0, 1, 0x7F, 0x80, 0xFF, self.chance.randrange(256)])
        return bytes(changed)

    def files(self, attack):
        """Torn Parquet files, some in their footers, each alone in a table."""
        good = self.folder / "good.parquet"
        liar.write(good)
        content = good.read_bytes()
        root = self.folder / "node-1"
        for number in range(self.many(300)):
            torn, kind = bytearray(content), number % 4
            if kind == 0:
                del torn[self.chance.randrange(len(torn)) :]
            for _ in range(self.chance.choice([1, 3, 30]) if kind else 0):
                start = len(torn) - 4000 if kind == 1 else 0
                torn[self.chance.randrange(max(0, start), len(torn))] = self.chance.randrange(256)
            place = root / f"torn_{number}" / "part.parquet"
            place.parent.mkdir(parents=True)
            place.write_bytes(bytes(torn))
        # The next listing has them.
        time.sleep(4)
        for number in range(self.many(300)):
            read = f"SELECT count(*), sum(n), max(s), min(m) FROM torn_{number} WHERE n > 7"
            made = f"CREATE EXTERNAL TABLE torn_{number} STORED AS PARQUET LOCATION 'node://*/data/torn_{number}/'"
            self.ask(attack, [made, read, f"DROP TABLE IF EXISTS torn_{number}"], self.statement_ms)
            shutil.rmtree(root / f"torn_{number}")

    def connections(self, attack):
        """Connections that say nothing, or half a word."""
        silent = []
        others = [self.running.http_port, self.running.control_port, *self.running.worker_ports.values()]
        for number in range(self.many(2000)):
            port = others[number // 3 % len(others)] if number % 3 == 0 else self.running.port
            with contextlib.suppress(OSError):
                door = socket.create_connection(("127.0.0.1", port), timeout=5)
                if number % 4 == 0:
                    door.sendall(b"PRI * HTTP/2.0\r\n\r\nSM")
                silent.append(door)
            if number % 100 == 0 and self.running.rows("SELECT 2") == [(2,)]:
                attack.answered += 1
        attack.refused = len(silent)
        for door in silent:
            door.close()

    def readers(self, attack):
        """Results of which a batch is read and then no more."""
        held = []
        for _ in range(self.many(SLOW_READERS)):
            connection = self.running.connect()
            cursor = connection.cursor()
            cursor.execute("SELECT a.n, b.n AS m, a.s FROM kept a, kept b")
            held.append((connection, cursor))
            next(iter(cursor.fetch_record_batch()))
        for _ in range(self.many(100)):
            self.ask(attack, ["SELECT count(*), sum(n) FROM kept", "SELECT s, count(*) FROM kept GROUP BY s LIMIT 3"], 1000 * STATEMENT_SECONDS)
        for connection, cursor in held:
            with contextlib.suppress(adbc_driver_manager.Error):
                cursor.close()
                connection.close()


ATTACKS = ("statements", "endless", "misspelt", "messages", "nodes", "files", "connections", "readers")
KEPT = "SELECT count(*), sum(n), min(s), max(s), sum(length(s)), count(DISTINCT d) FROM kept"


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attacks", nargs="*", choices=[[], *ATTACKS], help="these alone")
    parser.add_argument("--share", type=float, default=1.0, help="part of each attack")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--untimed", action="store_true", help="without the promise about others' time")
    parser.add_argument("--beside", type=float, default=BESIDE, help="memory that a process may take beyond its settings, as a part of them")
    chosen = parser.parse_args(arguments)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    with tempfile.TemporaryDirectory(prefix="attack-") as name:
        folder = pathlib.Path(name)
        memory = {"BOWSHOT__WORKER__MEMORY_BYTES": str(MEMORY_BYTES // 2), "BOWSHOT__WORKER__CACHE_BYTES": str(MEMORY_BYTES // 2)}
        nodes = [cluster.Node(f"node-{number}", {"data": folder / f"node-{number}"}, environment=memory) for number in (1, 2, 3)]
        with cluster.Cluster(folder / "cluster", nodes, f"[coordinator]\nmemory_bytes = {MEMORY_BYTES}\nquery.unread_ms = {UNREAD_MS}\n") as running:
            return attacked(running, folder, chosen)


def attacked(running, folder, chosen):
    running.rows("CREATE TABLE kept AS SELECT value AS n, 'row ' || value AS s, CAST(value AS DOUBLE) / 7 AS d FROM generate_series(1, 100000)")
    before, processes = running.rows(KEPT), [running.server, *running.workers.values()]
    pids = [process.pid for process in processes]
    witness, memory = Witness(running), Memory(processes)
    witness.start()
    memory.start()
    attacker, broken = Attacker(running, folder, chosen.share, chosen.seed), []
    for name in chosen.attacks or ATTACKS:
        attack, began = Attack(name), time.monotonic()
        try:
            getattr(attacker, name)(attack)
        except Exception as error:  # noqa: BLE001 the next attacks are made all the same
            broken.append(f"{name} ended with {type(error).__name__}: {str(error)[:300]}")
        attack.seconds = time.monotonic() - began
        print(attack, flush=True)
        for text in attack.broken[:5]:
            print(f"  cut off: {text}", flush=True)
        for text, count in attack.defects.most_common(5):
            print(f"  told as a defect {count} times: {text}", flush=True)
        if attack.broken:
            broken.append(f"{name}: {len(attack.broken)} calls were cut off")
    for each in (witness, memory):
        each.over.set()
        each.join(60)
    broken += judged(running, before, processes, pids, witness, memory, chosen)
    print("\n".join(f"BROKEN {promise}" for promise in broken) or "no promise was broken")
    return 1 if broken else 0


def judged(running, before, processes, pids, witness, memory, chosen):
    """The promises that do not hold."""
    broken = [f"{process.name} ended: {process.log_text()[-500:]}" for process, pid in zip(processes, pids, strict=True) if process.pid != pid or not process.running()]
    after = running.rows(KEPT)
    if after != before:
        broken.append(f"the table was {before} and is {after}")
    print(f"SELECT 1 of another user, {len(witness.took)} times: median {witness.at(0.5) * 1000:.0f} ms, p99 {witness.at(0.99) * 1000:.0f} ms, longest {witness.at(1) * 1000:.0f} ms, {len(witness.errors)} errors")
    if witness.at(0.99) > WITNESS_P99_SECONDS and not chosen.untimed:
        broken.append(f"another user's p99 is {witness.at(0.99) * 1000:.0f} ms")
    broken += [f"another user: {text}" for text in witness.errors[:5]]
    for name, grown in memory.most.items():
        print(f"{name} grew by {grown >> 20} MB at most, with a limit of {MEMORY_BYTES >> 20}")
        if grown > MEMORY_BYTES * (1 + chosen.beside):
            broken.append(f"{name} grew by {grown >> 20} MB")
    for process in processes:
        panics = [line for line in process.log_text().splitlines() if PANIC.search(line)]
        print(f"{process.name}: {len(panics)} panics in its log, all caught" if process.running() else f"{process.name}: ended")
        for line, count in collections.Counter(re.sub(r"\(\d+\) ", "", line) for line in panics).most_common(5):
            print(f"  {count} times: {line[:200]}")
    return broken


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
