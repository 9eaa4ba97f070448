"""Breaks a cluster of real processes under load and holds it to its promises: right rows, or an error in time that names what was lost.

    python sql-tests/clients/chaos.py seeds --seeds 50          kills, stops and broken ways at random; --first 17 --seeds 1 replays seed 17
    python sql-tests/clients/chaos.py kills --minutes 10        a worker killed every ten seconds, its disk kept and lost in turns
    python sql-tests/clients/chaos.py drain
    python sql-tests/clients/chaos.py rolling                   all workers restarted, then the coordinator
    python sql-tests/clients/chaos.py coordinator               kill -9 of the coordinator
    python sql-tests/clients/chaos.py dashboard                 a hundred clients beside a scan that spills; and spilling, slow, healthy

Each prints a line an event or seed and a summary, and exits 1 on a broken promise. The load is the 22 TPC-H queries, compared with DuckDB's
answers, over tables of which the cluster keeps two copies.
"""

import argparse
import contextlib
import dataclasses
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time

import answers
import cluster
import pressure
from tpch_load import QUERIES, Load, files, in_folder, keep_logs, rows_of, say, short_files, start, wait_whole, wrong_checksums

ERROR_SECONDS = 15
# A breaker is open for half a minute at most; the way back is a registration, a heartbeat and a listing.
BACK_SECONDS = 45
SUCCESS_SHARE = 0.99
# Still felt after it was healed: by queries that were placed before anyone knew, and by connections that are silent until the keepalive ends.
FELT_SECONDS, FELT_SILENT_SECONDS = 4, 14
# How errors name what failed: the node, and its part of the query.
NAMES_NODE = re.compile(r"\bnode-\d+\b")
# A statement that is refused for the workers it may have cost has no fragment yet.
NAMES_PART = re.compile(r"\bfragment \d+\b|no live replica of |is catalogued but cannot be read|lost while they ran this statement")
AFTER_FIRST_ROW = "rows had already been released"
# What a driver makes of an error that says "try again".
RETRYABLE = re.compile(r"\(Unavailable;")


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
        after = FELT_SILENT_SECONDS if self.kind.startswith(("stall", "black")) else FELT_SECONDS
        return self.began <= asked.ended and asked.started <= (self.ended or asked.ended) + after


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
        if not NAMES_NODE.search(asked.error) or not NAMES_PART.search(asked.error):
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
def started(**more):
    """A cluster in a folder that goes with it."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        running, expected = start(folder, **more)
        try:
            yield running, expected
        except BaseException:
            keep_logs(running)
            raise
        finally:
            running.end()


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
    with started() as (running, expected):
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


def kill_and_replace(running, load, node, empty):
    """kill -9, and at once a worker of the same node id on the same volume or on an empty one. Gives the event."""
    event = Event("kill", node, 0.0)
    event.begin(running)
    if empty:
        shutil.rmtree(running.volume(node))
        running.volume(node).mkdir()
    event.end(running)
    load.note_repeated()
    return event


def play_kills(running, expected, rounds, pace, seed=0, clients=4):
    """A worker killed every `pace` seconds and replaced, its volume kept and lost in turns. Gives the verdict and what was to be whole."""
    chance, events, late = random.Random(seed), [], []
    with Load(running, expected, clients, seed) as load:
        load.wait_queries(clients)
        for number in range(rounds):
            due = time.monotonic() + pace
            node, empty = chance.choice(sorted(running.nodes)), number % 2 == 1
            running.wait_live(node, BACK_SECONDS)
            short = short_files(running, 1, without=[node]) if empty else []
            if short:
                # Killing it now would lose the only copy of a file: no cluster survives that.
                late.append(f"kill {number}, {time.monotonic() - load.since:.0f} s: {len(short)} files have no copy but on {node}, such as {short[0]}")
                empty = False
            events.append(kill_and_replace(running, load, node, empty))
            say(f"kill {number}: {node}, {'an empty' if empty else 'the same'} volume; {len(load.asked)} queries so far, {len(load.failed())} failed")
            time.sleep(max(0.0, due - time.monotonic()))
        load.wait_queries(clients)
    verdict = judge(running, load, events)
    verdict.problems += late
    try:
        for node in running.nodes:
            running.wait_live(node, BACK_SECONDS)
        took = wait_whole(running)
        wrong, hashed = wrong_checksums(running)
        verdict.problems += wrong
        say(f"whole again {took:.1f} s after the last kill's pause; {hashed} copies hashed")
    except AssertionError as error:
        verdict.problems.append(f"{error}: {short_files(running)[:3]}")
    return verdict


def kills(options):
    """A worker killed every ten seconds, and replaced."""
    with started() as (running, expected):
        verdict = play_kills(running, expected, int(options.minutes * 60 / options.pace), options.pace, options.seed)
        if verdict.problems:
            keep_logs(running)
    share = verdict.success_share()
    return summary("kills", verdict, (share >= SUCCESS_SHARE, f"{share:.2%} of the queries that one kill hit succeeded"))


def end_in_peace(running, node_id):
    """SIGTERM. Gives the exit code of the worker."""
    worker = running.workers[node_id]
    worker.child.terminate()
    return worker.child.wait(cluster.END_SECONDS + 40)


def play_drain(running, expected, node, clients=4):
    """Drains a node under load and ends it. Gives what is broken, and how the load went."""
    problems = []
    with Load(running, expected, clients) as load:
        load.wait_queries(clients)
        began = time.monotonic()
        running.rows(f"ALTER NODE {node} DRAIN")
        took = wait_whole(running, without=[node])
        say(f"{node} is drained after {took:.1f} s")
        load.wait_queries(clients)
        code = end_in_peace(running, node)
        say(f"{node} ended with {code} after {time.monotonic() - began:.1f} s")
        problems += [] if code == 0 else [f"{node} ended with {code}"]
        load.wait_queries(clients)
    verdict = judge(running, load, [])
    verdict.problems += problems
    return verdict


def drain(options):
    """A node drained and ended under load: no query may fail."""
    with started() as (running, expected):
        verdict = play_drain(running, expected, "node-2")
        if verdict.problems:
            keep_logs(running)
    return summary("drain", verdict)


def errors_a_client(load):
    counted = {}
    for asked in load.failed():
        counted.setdefault(asked.client, []).append(asked)
    return counted


def play_rolling(running, expected, clients=4):
    """Restarts all workers one after another, then the coordinator, under load of clients that wait until it is ready."""
    verdicts, nodes = [], sorted(running.nodes)
    for what in ("workers", "the coordinator"):
        problems = []
        with Load(running, expected, clients, what, patient=True) as load:
            load.wait_queries(clients)
            for node in nodes if what == "workers" else []:
                code = end_in_peace(running, node)
                problems += [] if code == 0 else [f"{node} ended with {code}"]
                running.workers[node].start()
                running.wait_live(node, BACK_SECONDS)
                say(f"{node} restarted, {len(load.asked)} queries so far, {len(load.failed())} failed")
            if what != "workers":
                running.server.child.terminate()
                code = running.server.child.wait(cluster.END_SECONDS + 40)
                problems += [] if code == 0 else [f"the coordinator ended with {code}"]
                running.server.start()
                cluster.wait_until("the server is ready", cluster.READY_SECONDS, running._server_ready)
                for node in nodes:
                    running.wait_live(node, BACK_SECONDS)
                say(f"the coordinator restarted, {len(load.asked)} queries so far, {len(load.failed())} failed")
            load.wait_queries(clients)
        verdict = Verdict(queries=len(load.asked), wrong=len(load.wrong()), failed_of_one=len(load.failed()))
        verdict.retried = len(load.note_repeated())
        verdict.problems += problems + load.hanging() + [f"wrong: {asked.text(load.since)}" for asked in load.wrong()]
        for client, failed in errors_a_client(load).items():
            if len(failed) > 1:
                verdict.problems.append(f"client {client} saw {len(failed)} errors: " + " | ".join(asked.text(load.since) for asked in failed))
            verdict.problems += [f"not told to try again: {asked.text(load.since)}" for asked in failed if not RETRYABLE.search(asked.error)]
        say(f"restart of {what}: {verdict}")
        verdicts.append(verdict)
    for asked in load.failed():
        say(f"  {asked.text(load.since)}")
    return verdicts


def rolling(options):
    """All workers restarted, then the coordinator."""
    total = Verdict()
    with started() as (running, expected):
        for verdict in play_rolling(running, expected):
            total.add(verdict)
        if total.problems:
            keep_logs(running)
    return summary("rolling restart", total)


# Keeps the workers busy for minutes.
ENDLESS = "SELECT count(*) FROM lineitem a JOIN lineitem b ON a.l_linenumber = b.l_linenumber WHERE a.l_orderkey + b.l_orderkey <> 5"
IDLE_SHARE = 0.05
STOP_SECONDS = 5
REJOIN_SECONDS = 5


def catalog_of(running):
    return sorted(running.rows("SELECT table_schema, table_name, path, node_id, row_count, size_bytes, checksum FROM system.files WHERE kind = 'original'"))


def shares(running, seconds=1.0):
    """CPU share of every worker over the same second."""
    before, began = {node: worker.cpu_seconds() for node, worker in running.workers.items()}, time.monotonic()
    time.sleep(seconds)
    return {node: (worker.cpu_seconds() - before[node]) / (time.monotonic() - began) for node, worker in running.workers.items()}


def play_coordinator(running, expected, away=12.0):
    """kill -9 of the coordinator under a query that would run for minutes. Gives what is broken."""
    problems, before = [], catalog_of(running)
    asking = threading.Thread(target=ask_quietly, args=(running, ENDLESS), daemon=True)
    asking.start()
    cluster.wait_until("the workers are busy", 30, lambda: sum(shares(running, 0.3).values()) > 0.5)
    running.server.kill()
    killed = time.monotonic()
    quiet = None
    while time.monotonic() - killed < STOP_SECONDS + 10:
        now = shares(running, 0.5)
        if all(share < IDLE_SHARE for share in now.values()):
            quiet = time.monotonic() - killed
            break
    say(f"workers are quiet after {quiet and round(quiet, 1)} s (of CPU each {({node: round(share, 2) for node, share in now.items()})})")
    if quiet is None or quiet > STOP_SECONDS + 0.5:
        problems.append(f"the workers run on {quiet or time.monotonic() - killed:.1f} s after their coordinator: {now}")
    time.sleep(max(0.0, away - (time.monotonic() - killed)))
    running.server.start()
    cluster.wait_until("the server is ready", cluster.READY_SECONDS, running._server_ready)
    ready = time.monotonic()
    for node in running.nodes:
        running.wait_live(node, BACK_SECONDS)
    took = time.monotonic() - ready
    say(f"all workers are back {took:.1f} s after the coordinator was ready")
    problems += [] if took <= REJOIN_SECONDS else [f"workers came back {took:.1f} s after the coordinator"]
    problems += [] if catalog_of(running) == before else ["the catalog is another one"]
    for name in ("q01", "q03", "q18"):
        found = answers.difference(running.rows(QUERIES[name]), expected[name])
        problems += [f"{name}: {found}"] if found else []
    asking.join(5)
    return problems


def ask_quietly(running, sql):
    with contextlib.suppress(Exception), running.connect() as connection:
        rows_of(connection, sql)


def coordinator(options):
    """kill -9 of the coordinator."""
    verdict = Verdict()
    with started() as (running, expected):
        for away in options.away:
            say(f"the coordinator is gone for {away:.0f} s")
            verdict.problems += play_coordinator(running, expected, away)
        if verdict.problems:
            keep_logs(running)
    return summary("coordinator", verdict)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("seeds", help=seeds.__doc__)
    command.add_argument("--seeds", type=int, default=50, help="how many (default 50)")
    command.add_argument("--first", type=int, default=1, help="the first of them (default 1)")
    command.add_argument("--events", type=int, default=3, help="faults a seed (default 3)")
    command.set_defaults(run=seeds)
    command = commands.add_parser("kills", help=kills.__doc__)
    command.add_argument("--minutes", type=float, default=10, help="how long (default 10)")
    command.add_argument("--pace", type=float, default=10, help="seconds from kill to kill (default 10)")
    command.add_argument("--seed", type=int, default=0, help="which nodes are killed, and what is asked")
    command.set_defaults(run=kills)
    commands.add_parser("drain", help=drain.__doc__).set_defaults(run=drain)
    commands.add_parser("rolling", help=rolling.__doc__).set_defaults(run=rolling)
    command = commands.add_parser("coordinator", help=coordinator.__doc__)
    command.add_argument("--away", type=float, nargs="+", default=[6, 20, 60], help="seconds until it returns (default 6, 20 and 60)")
    command.set_defaults(run=coordinator)
    pressure.add_commands(commands)
    options = parser.parse_args()
    return options.run(options)


if __name__ == "__main__":
    sys.exit(main())
