"""hunter.py [--seeds A-B] [--statements N] [--judge] [--one SEED:NUMBER] …: random statements, answered by Bowshot and by DuckDB.

A seed makes tables, rows and statements: joins of all kinds, subqueries in every place, set operations and CASE over mixed types, windows,
grouping sets, DISTINCT, ORDER BY with LIMIT, over NULLs, NaN, extremes, decimals of 1 to 38 digits and times in the seed's zone. Every statement runs
on one kernel setting in turn. Answers are compared as bags of rows. With `--judge` Postgres decides where the two differ. Some statements must
agree with each other, and with `--beside 7` every answer with that of a cluster of seven workers.

What differs is made small, then printed with its rows, and with the line that replays it. Without --url it starts a cluster of three workers.
With `--kill 20` one of them is killed every 20 seconds: what fails with UNAVAILABLE is asked again.
Exit status 1: an answer was wrong. What only Bowshot refuses is printed once a reason.
"""

import argparse
import collections
import contextlib
import json
import multiprocessing
import pathlib
import random
import re
import signal
import sys
import tempfile
import threading
import time

import adbc_driver_flightsql.dbapi
import cluster
import duckdb
import hunter_judge
import hunter_shrink
from hunter_answers import equal, in_microseconds, rows_of, shown
from hunter_expressions import spoken
from hunter_statements import Statements

KERNELS = ("host", "device", "off")
SHRINK_SECONDS = 30
# So many findings of a client are made small: a fault that many statements meet would take all the time.
SHRUNK_FINDINGS = 20
RETRY_SECONDS = 60
RETRYABLE = re.compile(r"\(Unavailable;")

# What the two engines do differently on purpose: a part of the text of our error, and why.
REFUSED = {
    "beyond BIGINT": "sums of integers are BIGINT; DuckDB's are HUGEINT",
    "beyond DECIMAL": "a decimal has 38 digits; DuckDB goes on as a double",
    "beyond INTEGER": "DuckDB refuses too, at another row",
    "beyond SMALLINT": "a constant that does not fit fails the statement; Postgres leaves out columns that nobody reads first",
    "to store in a Decimal128": "a constant that does not fit fails the statement, as in Postgres; DuckDB's only if a row asks",
    "Can't cast value": "as above",
    "is out of range": "as above",
}

# Statements whose answers differ from DuckDB's on purpose, where Postgres does not say: what stands in them, and why.
DIFFERS = {
    r"LIKE (.*\\|[a-z]\w*[.)])": "a backslash escapes in LIKE, as in Postgres",
    r"(lag|lead) ?\(.*, 1, -?\d+\.\d+ IGNORE NULLS": "a default with more digits than the values keeps them, as in Postgres, which has no IGNORE NULLS. DuckDB rounds it",
    r"\) (NOT )?IN \(SELECT \S+, \S+ AS y": "(3, NULL) is not in ((8, 1)): 3 differs from 8. DuckDB makes every row with a NULL unknown",
}


class Hunt:
    """Two engines with the same tables, and those that judge or stand beside them."""

    def __init__(self, url, judge=None, beside=None, client=0, shrink=True, deadline=None, known=None, strict=False):
        self.ours = {kernel: self.connected(url, kernel) for kernel in KERNELS}
        self.beside = self.connected(beside, "host") if beside else None
        self.theirs = duckdb.connect()
        # Quotients of integers are integers, as in Postgres.
        self.theirs.execute("SET integer_division = true")
        self.theirs.execute("SET order_by_non_integer_literal = true")
        self.postgres = hunter_judge.Connection(judge) if judge else None
        self.prefix = f"hunt{client}" if client else "hunt"
        self.figures, self.reasons = collections.Counter(), {}
        self.wrong = []
        self.retried = 0
        self.shrinks = SHRUNK_FINDINGS if shrink else 0
        self.deadline = deadline
        self.known, self.strict = known and re.compile(known), strict
        self.made, self.postgres_has = None, False

    def connected(self, url, kernel):
        connection = adbc_driver_flightsql.dbapi.connect(url, autocommit=True)
        with connection.cursor() as cursor:
            cursor.execute(f"SET bowshot.kernel = '{kernel}'")
        return connection

    # Engines: each answers a text of one or more statements with the rows of the last.

    def mine(self, sql, kernel="host", connection=None):
        connection = connection or self.ours[kernel]
        until = time.monotonic() + RETRY_SECONDS
        while True:
            try:
                return self.asked(sql, connection)
            except Exception as error:  # noqa: BLE001 any error of the driver
                if not RETRYABLE.search(str(error)) or time.monotonic() > until:
                    raise
                self.retried += 1
                time.sleep(0.2)

    def asked(self, sql, connection):
        rows = []
        for part in sql.split("; "):
            with connection.cursor() as cursor:
                cursor.execute(part)
                rows = rows_of(cursor.fetch_arrow_table()) if cursor.description else []
        return rows

    def peer(self, sql):
        rows = []
        for part in spoken(sql, "duckdb").split("; "):
            rows = rows_of(self.theirs.execute(part).to_arrow_table())
        return rows

    def judged(self, sql):
        """Postgres' answer, or its error. Its tables are made when a seed first needs them."""
        if not self.postgres_has:
            self.postgres.rows(f"SET timezone = '{self.made.zone}'")
            for part in self.tables:
                self.postgres.rows(spoken(part, "postgres"))
            self.postgres_has = True
        try:
            rows = []
            for part in spoken(sql, "postgres").split("; "):
                rows = self.postgres.rows(part)
            return rows
        except hunter_judge.Refused as error:
            return error

    # A seed.

    def prepare(self, seed):
        self.made = Statements(seed, self.prefix)
        self.tables = list(self.made.setup())
        for connection in [*self.ours.values(), *([self.beside] if self.beside else [])]:
            self.mine(f"SET TIME ZONE '{self.made.zone}'", connection=connection)
        self.theirs.execute(f"SET TimeZone = '{self.made.zone}'")
        self.fill()

    def fill(self, statements=None):
        self.postgres_has = False
        for sql in statements or self.tables:
            self.mine(sql)
            if self.beside:
                self.mine(sql, connection=self.beside)
            self.theirs.execute(spoken(sql, "duckdb"))

    def run(self, seed, statements, only=None):
        self.prepare(seed)
        for number in range(statements):
            if self.deadline and time.time() > self.deadline:
                return
            kind, sql = self.made.statement()
            if only is not None and number != only:
                continue
            kernel = KERNELS[number % len(KERNELS)]
            verdict, detail = self.agree(sql, kernel) if kind == "agreeing" else self.compare(sql, kernel)
            if verdict == "wrong" and self.known and self.known.search(sql):
                verdict = "wrong, of a known fault"
                print(f"{verdict} --one {seed}:{number} (kernel {kernel}, {kind})", flush=True)
            self.figures[(kind, verdict)] += 1
            if verdict == "refused":
                reason = re.sub(r"'[^']*'|\"[^\"]*\"|\b(hunt\w*|[a-z]\d*\.\w+|\w*\d\w*)\b|[-\d.]+", "…", re.split(r"\n| \(query", detail)[0])[:100]
                if reason not in self.reasons:
                    print(f"refused --one {seed}:{number} (kernel {kernel})\n  {sql}\n  {detail}", flush=True)
                self.reasons[reason] = self.reasons.get(reason, 0) + 1
            elif verdict == "as DuckDB, Postgres differs":
                print(f"{verdict} --one {seed}:{number} (kernel {kernel})\n  {sql}\n  {detail}", flush=True)
            elif verdict == "wrong":
                self.report(seed, number, kind, kernel, sql, detail)

    def compare(self, sql, kernel):
        """The verdict over a statement, and what there is to say."""
        try:
            theirs = self.peer(sql)
        except (duckdb.Error, ValueError) as error:
            theirs = error
        try:
            ours = self.mine(sql, kernel)
        except Exception as error:  # noqa: BLE001 any error of the driver
            ours = error
        if self.beside and not isinstance(ours, Exception):
            try:
                others = self.mine(sql, connection=self.beside)
            except Exception as error:  # noqa: BLE001 any error of the driver
                return "wrong", f"three workers {shown(ours)}\n  the others {str(error)[:400]}"
            if not equal(ours, others):
                return "wrong", f"three workers {shown(ours, others)}\n  the others {shown(others, ours)}"
        if isinstance(ours, Exception):
            return self.refusal(sql, str(ours), theirs)
        if not isinstance(theirs, Exception) and equal(ours, theirs):
            judged = self.judged(sql) if self.strict and self.postgres else None
            if isinstance(judged, list) and not equal(in_microseconds(ours), judged):
                return "as DuckDB, Postgres differs", f"ours     {shown(ours, judged)}\n  Postgres {shown(judged, ours)}"
            return "same", ""
        judged = self.judged(sql) if self.postgres else None
        if isinstance(judged, list) and equal(in_microseconds(ours), judged):
            judged = ours
        if isinstance(theirs, Exception):
            if judged is None or isinstance(judged, Exception):
                return "only Bowshot answers", str(theirs)
            if equal(ours, judged):
                return "as Postgres, DuckDB refuses", ""
            return "wrong", f"ours     {shown(ours)}\n  DuckDB   refuses: {str(theirs)[:200]}\n  Postgres {shown(judged)}"
        if judged is not None and not isinstance(judged, Exception) and equal(ours, judged):
            return "as Postgres, DuckDB differs", ""
        known = next((why for part, why in DIFFERS.items() if re.search(part, sql)), None)
        if known and not isinstance(judged, list):
            return "differs as known", known
        said = "undecided, see --judge" if judged is None else f"refuses: {str(judged)[:200]}" if isinstance(judged, Exception) else shown(judged, ours)
        return "wrong", f"ours     {shown(ours, theirs)}\n  DuckDB   {shown(theirs, ours)}\n  Postgres {said}"

    def refusal(self, sql, ours, theirs):
        if isinstance(theirs, Exception):
            return "both refuse", ""
        known = next((why for part, why in REFUSED.items() if part in ours), None)
        if known:
            return "refused as known", known
        if self.postgres and isinstance(self.judged(sql), Exception):
            return "refused as Postgres", ""
        return "refused", ours[:600]

    def agree(self, sql, kernel):
        """Whether the rows of a condition, of its negation and of its NULLs make the table, and two counts are one."""
        try:
            table, *parts, counted, summed = (self.mine(part, kernel) for part in sql.split("; "))
        except Exception as error:  # noqa: BLE001 any error of the driver
            try:
                theirs = self.peer(sql)
            except (duckdb.Error, ValueError) as refused:
                theirs = refused
            return self.refusal(sql, str(error), theirs)
        if not equal(table, [row for part in parts for row in part]):
            return "wrong", f"all rows {shown(table)}\n  true, false and NULL: {' and '.join(map(shown, parts))}"
        if counted != summed or counted != [(len(parts[0]),)]:
            return "wrong", f"count {shown(counted)}, sum {shown(summed)}, rows {len(parts[0])}"
        return "same", ""

    # Findings.

    def report(self, seed, number, kind, kernel, sql, detail):
        small, rows = sql, None
        if self.shrinks > 0:
            self.shrinks -= 1
            try:
                small, rows, detail = self.shrink(kind, kernel, sql, detail)
            except Exception as error:  # noqa: BLE001 the finding stands as it is
                print(f"not made small: {error}", flush=True)
                self.fill()
        setup = [f"SET bowshot.kernel = '{kernel}'", f"SET TIME ZONE '{self.made.zone}'", *self.used(small, rows or self.tables)]
        text = f"wrong --one {seed}:{number} (kernel {kernel}, {kind})\n" + "".join(f"  {line};\n" for line in [*setup, small]) + f"  {detail}"
        self.wrong.append(text)
        print(text, flush=True)

    def used(self, sql, statements):
        """Those of the tables' statements that a statement needs."""
        return [line for line in statements if not line.startswith("DROP") and re.search(rf"\b{line.split()[2]}\b", sql)]

    def shrink(self, kind, kernel, sql, detail):
        deadline = time.monotonic() + SHRINK_SECONDS
        # Those who answered answer still, and those who refused refuse.
        voices = lambda text: re.findall(r"^ *(\w+) +(refuses: .{0,50})?", text, re.MULTILINE)[:3]

        def differs(text):
            if kind != "agreeing" and not voices(detail)[1][1]:
                # Most cuts are no SQL any more: DuckDB says so at once.
                try:
                    self.peer(text)
                except (duckdb.Error, ValueError):
                    return False
            verdict, said = self.agree(text, kernel) if kind == "agreeing" else self.compare(text, kernel)
            return verdict == "wrong" and voices(said) == voices(detail)

        small = sql if kind == "agreeing" else hunter_shrink.shorter(sql, differs, time.monotonic() + SHRINK_SECONDS * 0.5)
        statements = list(self.tables)
        for name in [name for name in self.made.tables if re.search(rf"\b{name}\b", small)]:
            start = f"INSERT INTO {name} VALUES "
            files = [line[len(start) :].split("\0") for line in statements if line.startswith(start)]
            files = [hunter_rows(line) for (line,) in files]
            others = [line for line in statements if not line.startswith(start)]
            filled = lambda files: others + [start + ", ".join(file) for file in files]

            def still(files, filled=filled, name=name):
                self.fill([line for line in filled(files) if re.search(rf"\b{name}\b", line)])
                self.tables = filled(files)
                return differs(small)

            whole = self.tables
            try:
                statements = filled(hunter_shrink.fewer(files, still, deadline))
            finally:
                self.tables = whole
            self.fill(statements)
        whole, self.tables = self.tables, statements
        try:
            if kind != "agreeing":
                small = hunter_shrink.shorter(small, differs, deadline)
            said = (self.agree(small, kernel) if kind == "agreeing" else self.compare(small, kernel))[1]
        finally:
            self.tables = whole
            self.fill()
        return small, statements, said


def hunter_rows(values):
    """The rows of a VALUES list, each in its brackets."""
    rows, depth, start = [], 0, 0
    for found in re.finditer(r"'(?:[^']|'')*'|[()]", values):
        if found[0] == "(":
            start = found.start() if depth == 0 else start
            depth += 1
        elif found[0] == ")":
            depth -= 1
            if depth == 0:
                rows.append(values[start : found.end()])
    return rows


def nodes_of(folder, count):
    """A cluster that may make tables."""
    folder = pathlib.Path(folder)
    nodes = [cluster.Node(f"node-{number}", {"data": folder / f"node-{number}"}, "eu") for number in range(1, count + 1)]
    return cluster.Cluster(folder / "cluster", nodes)


def three_nodes(folder):
    return nodes_of(folder, 3)


class Killer(threading.Thread):
    """Kills a worker every so many seconds, and starts it again."""

    def __init__(self, running, seconds):
        super().__init__(daemon=True)
        self.running, self.seconds, self.kills, self.over = running, seconds, 0, threading.Event()
        self.failure = None

    def run(self):
        chance = random.Random(0)
        while not self.over.wait(self.seconds):
            node = chance.choice(sorted(self.running.nodes))
            self.running.workers[node].kill()
            self.running.workers[node].start()
            self.kills += 1
            try:
                self.running.wait_live(node)
            except AssertionError as error:
                self.failure = f"broken: {node} does not come back: {error}"
                return

    def end(self):
        self.over.set()
        self.join(cluster.READY_SECONDS)


_hunt = None


def begin(clients, arguments):
    """A client process: its tables have names of their own."""
    global _hunt
    with clients.get_lock():
        clients.value += 1
        client = clients.value
    _hunt = Hunt(client=client, **arguments)


def hunt_seed(seed, statements):
    """Figures, reasons of refusals, findings and repetitions of a seed."""
    hunt = _hunt
    hunt.figures, hunt.reasons, hunt.wrong, hunt.retried = collections.Counter(), {}, [], 0
    if not hunt.deadline or time.time() < hunt.deadline:
        try:
            hunt.run(seed, statements)
        except Exception as error:  # noqa: BLE001 errors of drivers do not travel between processes
            hunt.figures[("tables", "broken")] += 1
            hunt.wrong.append(f"broken: seed {seed} ended with {error}")
            print(hunt.wrong[-1], flush=True)
    return seed, hunt.figures, hunt.reasons, hunt.wrong, hunt.retried


class Figures:
    """What all clients found."""

    def __init__(self):
        self.counted, self.reasons, self.wrong, self.seeds, self.retried = collections.Counter(), collections.Counter(), [], 0, 0

    def add(self, seed, counted, reasons, wrong, retried):
        self.counted.update(counted)
        self.reasons.update(reasons)
        self.wrong += wrong
        self.retried += retried
        self.seeds += bool(counted)

    def totals(self):
        total = collections.Counter()
        for (_, verdict), count in self.counted.items():
            total[verdict] += count
        return total

    def show(self, seconds, kills):
        verdicts = sorted(self.totals())
        for kind in sorted({kind for kind, _ in self.counted}):
            of = {verdict: self.counted[(kind, verdict)] for verdict in verdicts if self.counted[(kind, verdict)]}
            print(f"{kind:12} {sum(of.values()):7}: " + ", ".join(f"{verdict} {count}" for verdict, count in of.items()))
        for reason, count in self.reasons.most_common():
            print(f"refused {count}: {reason}")
        print(f"{sum(self.totals().values())} statements of {self.seeds} seeds in {seconds:.0f} s; {kills} kills, {self.retried} asked again; ", end="")
        print(", ".join(f"{verdict}: {count}" for verdict, count in sorted(self.totals().items())))

    def stored(self, seconds, kills):
        kinds = collections.defaultdict(dict)
        for (kind, verdict), count in self.counted.items():
            kinds[kind][verdict] = count
        return {
            "seeds": self.seeds, "seconds": round(seconds), "kills": kills, "asked_again": self.retried, "totals": self.totals(), "kinds": kinds,
            "refused": self.reasons, "wrong": self.wrong,
        }  # fmt: skip


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1-3", help="first and last seed")
    parser.add_argument("--statements", type=int, default=100, help="statements a seed")
    parser.add_argument("--minutes", type=float, help="ends then, whatever is left")
    parser.add_argument("--clients", type=int, default=1, help="processes that ask, each a seed at a time")
    parser.add_argument("--url", help="a server that may get and lose tables hunt_0 to hunt_2")
    parser.add_argument("--judge", action="store_true", help="Postgres decides where answers differ")
    parser.add_argument("--strict", action="store_true", help="the judge is asked where Bowshot and DuckDB agree, too")
    parser.add_argument("--beside", type=int, help="workers of a second cluster, which must agree")
    parser.add_argument("--kill", type=float, help="seconds from one killed worker to the next")
    parser.add_argument("--one", help="SEED:NUMBER of a statement")
    parser.add_argument("--no-shrink", action="store_true", help="print findings as they are")
    parser.add_argument("--known", help="a regular expression for statements of faults that are known: counted as such, not printed")
    parser.add_argument("--json", help="a file for the figures")
    chosen = parser.parse_args(arguments)
    # Ended from outside it ends its clusters and the judge too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with contextlib.ExitStack() as stack:
        folder = lambda: stack.enter_context(tempfile.TemporaryDirectory(prefix="hunter-"))
        running = None if chosen.url else stack.enter_context(three_nodes(folder()))
        beside = stack.enter_context(nodes_of(folder(), chosen.beside)).uri if chosen.beside else None
        if chosen.judge and not hunter_judge.found():
            print("no Postgres is installed (Debian: postgresql): what differs stays undecided", flush=True)
        judge = stack.enter_context(hunter_judge.Server()).port if chosen.judge and hunter_judge.found() else None
        figures, began = Figures(), time.time()
        deadline = began + chosen.minutes * 60 if chosen.minutes else None
        settings = {"url": chosen.url or running.uri, "judge": judge, "beside": beside, "shrink": not chosen.no_shrink, "deadline": deadline, "known": chosen.known, "strict": chosen.strict}
        killer = Killer(running, chosen.kill) if chosen.kill else None
        if killer:
            killer.start()
            stack.callback(killer.end)
        if chosen.one:
            seed, number = map(int, chosen.one.split(":"))
            hunt = Hunt(**settings)
            hunt.run(seed, number + 1, number)
            figures.add(seed, hunt.figures, hunt.reasons, hunt.wrong, hunt.retried)
        else:
            first, last = map(int, chosen.seeds.split("-"))
            # Drivers and threads do not survive a fork.
            ways = multiprocessing.get_context("spawn")
            with ways.Pool(chosen.clients, begin, (ways.Value("i", -1), settings)) as pool:
                asked = [pool.apply_async(hunt_seed, (seed, chosen.statements)) for seed in range(first, last + 1)]
                for answer in asked:
                    figures.add(*answer.get())
        kills = killer.kills if killer else 0
        if killer and killer.failure:
            figures.wrong.append(killer.failure)
            print(killer.failure)
        figures.show(time.time() - began, kills)
        if chosen.json:
            pathlib.Path(chosen.json).write_text(json.dumps(figures.stored(time.time() - began, kills), indent=1), encoding="utf-8")
        return 1 if figures.wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
