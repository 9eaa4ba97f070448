"""cases.py: asks the cases of `cases.toml` of Bowshot (three workers, every kernel), of plain DataFusion and of DuckDB, and writes `cases.md`.

    .venv/bin/python sql-tests/clients/cases.py

It says which cases fail. DataFusion is the package of that name, in the newest version that is installed.
"""

import dataclasses
import datetime
import glob
import pathlib
import re
import sys
import tempfile
import tomllib

import cluster
import complete_slt
import duckdb
import pyarrow
import pyarrow.parquet
import records

PAGE = cluster.REPOSITORY / "sql-tests" / "cases.toml"
TABLE = PAGE.with_suffix(".md")
KERNELS = ("off", "host", "device")
NODES = 3
SHOWN_MAX = 60


@dataclasses.dataclass
class Case:
    id: str
    sql: str
    before: str
    # Rows as slt scripts write them, `done`, or `error: pattern`.
    right: list | str
    reason: str
    failing: str
    tests: str
    group: dict


@dataclasses.dataclass
class Outcome:
    """What an engine made of a case: rows, `done`, or what it said."""

    rows: list | str | None
    types: list
    error: str = ""
    right: bool = False

    def shown(self):
        if self.error:
            return f"refused: {short(self.error)}"
        return short("no row" if self.rows == [] else self.rows if isinstance(self.rows, str) else "; ".join(self.rows))


def short(text):
    text = re.sub(r"^[A-Z_]+: \[FlightSQL\] ", "", " ".join(text.split()))
    return text if len(text) <= SHOWN_MAX else text[: SHOWN_MAX - 1] + "…"


def read():
    page = tomllib.loads(PAGE.read_text(encoding="utf-8"))
    failing = {sql: why for why, statements in page.get("failing", {}).items() for sql in statements}
    made = []
    for group in page["group"]:
        for sql, before, right, *reason in group["cases"]:
            made.append(Case(group["id"], sql, before, right, reason[0] if reason else "", failing.get(sql, ""), page.get("tests", {}).get(group["id"], ""), group))
    return made


def files(name):
    """The files of a table, one a node in turn, as Arrow tables."""
    moment = datetime.datetime
    table = pyarrow.table
    nan = float("nan")
    two = {
        "case_kv": [table({"k": ["a", "a"], "v": [1, 2]}), table({"k": ["a"], "v": [3]})],
        "case_nan": [table({"k": [1, 1], "x": [nan, 1.0]}), table({"k": [2, 2, 2], "x": [nan, 5.0, nan]})],
        "case_ign": [table({"g": [1, 1], "k": [1, 2], "v": pyarrow.array([None, 20], pyarrow.int64())}), table({"g": [1, 1], "k": [3, 4], "v": pyarrow.array([None, 40], pyarrow.int64())})],
        "case_u32": [table({"u": pyarrow.array([4294967295, 7], pyarrow.uint32())})],
        "case_order": [table({"a": [1], "b": ["x"]}), table({"b": ["y"], "a": [2]})],
        "case_missing": [table({"a": [1], "b": ["x"]}), table({"a": [2]})],
        "case_width": [table({"a": pyarrow.array([1], pyarrow.int32())}), table({"a": pyarrow.array([3_000_000_000], pyarrow.int64())})],
        "case_real": [table({"a": pyarrow.array([0.5], pyarrow.float32())}), table({"a": pyarrow.array([2.1], pyarrow.float64())})],
        "case_units": [table({"a": pyarrow.array([moment(2024, 1, 1)], pyarrow.timestamp("us"))}), table({"a": pyarrow.array([moment(2024, 1, 2)], pyarrow.timestamp("ns"))})],
        "case_nulls": [table({"a": pyarrow.array([None], pyarrow.null())}), table({"a": [7]})],
        "case_large": [table({"a": pyarrow.array(["x"], pyarrow.large_string())}), table({"a": ["y"]})],
        "case_keys": [table({"a": pyarrow.array(["x"]).dictionary_encode()}), table({"a": pyarrow.array(["y"]).cast(pyarrow.dictionary(pyarrow.int8(), pyarrow.string()))})],
        "case_text": [table({"a": pyarrow.array(["x"], pyarrow.large_string())})],
        # As DuckDB writes it: pyarrow has no such type in Parquet.
        "case_interval": ["SELECT INTERVAL '1 day 2 milliseconds' AS a"],
        "case_uuid": [table({"a": pyarrow.array([bytes(range(16))], pyarrow.uuid() if hasattr(pyarrow, "uuid") else pyarrow.binary(16))})],
        "case_path": [table({"a": [1]}), table({"a": [2]})],
        "case_bare": [pyarrow.table({"a": [0] * 5}).select([])],
    }  # fmt: skip
    return two[name]


def folder_of(name):
    """Where the files of a table lie in a volume: one has a path that needs care."""
    return "odd %23 [é] 100%" if name == "case_path" else name


def write_files(root, name):
    """Gives what is wrong if one of them cannot be written."""
    try:
        for number, rows in enumerate(files(name)):
            file = root / f"node-{number % NODES + 1}" / folder_of(name) / f"part-{number}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(rows, str):
                duckdb.execute(f"COPY ({rows}) TO '{file}' (FORMAT parquet)")
            else:
                pyarrow.parquet.write_table(rows, file)
    except (pyarrow.ArrowException, NotImplementedError) as error:
        return str(error)
    return ""


def value(cell):
    return str(cell) if type(cell).__name__ == "MonthDayNano" else complete_slt.cell(cell)


def outcome(case, run):
    """Runs a case with `run`, which gives (types, columns), and judges what comes."""
    try:
        types, columns = run(case.sql)
    except Exception as error:  # noqa: BLE001: every engine has errors of its own, and all are answers here
        made = Outcome(None, [], str(error))
        made.right = isinstance(case.right, str) and case.right.startswith("error: ") and bool(re.search(case.right[7:], made.error))
        return made
    rows = [" ".join(value(cell) for cell in row) for row in zip(*columns)]
    if not records.is_ordered(case.sql):
        rows.sort()
    if case.right == "done":
        return Outcome("done", types, right=True)
    made = Outcome(rows, types)
    if isinstance(case.right, list):
        expected = list(case.right)
        of_types = expected.pop(0).split(" ", 1)[1] if expected and expected[0].startswith("types ") else " ".join(types)
        made.right = rows == expected and of_types == " ".join(types)
        if of_types != " ".join(types):
            made.rows = [f"type {' '.join(types)}", *rows]
    return made


class Bowshot:
    def __init__(self, running, kernel):
        self.connection = running.connect()
        self.run(f"SET bowshot.kernel = '{kernel}'")

    def run(self, sql):
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            rows = cursor.fetch_arrow_table()
            return [str(column.type) for column in rows.schema], [column.to_pylist() for column in rows.columns]


class DuckDb:
    def __init__(self, root):
        self.peer, self.root = duckdb.connect(), root

    def open(self, name):
        # Brackets and stars of a path are a pattern otherwise.
        paths = [re.sub(r"([\[*?])", r"[\1]", str(path)) for path in sorted(self.root.glob("node-*"))]
        found = [path for folder in paths for path in sorted(glob.glob(f"{folder}/{glob.escape(folder_of(name))}/*.parquet"))]
        escaped = ", ".join("'" + re.sub(r"([\[*?])", r"[\1]", path) + "'" for path in found)
        self.peer.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT * FROM read_parquet([{escaped}], union_by_name = true)")

    def run(self, sql):
        rows = self.peer.execute(sql).to_arrow_table() if not sql.startswith(("CREATE", "DROP", "INSERT", "SET", "RESET")) else self.peer.execute(sql) and None
        if rows is None:
            return [], []
        return [str(column.type) for column in rows.schema], [column.to_pylist() for column in rows.columns]


class DataFusion:
    def __init__(self, root):
        import datafusion

        self.context, self.root, self.version = datafusion.SessionContext(), root, datafusion.__version__

    def open(self, name):
        # One folder, as a table of its own is registered.
        target = self.root / "together" / name
        target.mkdir(parents=True, exist_ok=True)
        for number, path in enumerate(sorted(self.root.glob("node-*"))):
            for file in (path / folder_of(name)).glob("*.parquet") if (path / folder_of(name)).is_dir() else []:
                (target / f"{number}-{file.name}").write_bytes(file.read_bytes())
        self.context.register_parquet(name, str(target))

    def run(self, sql):
        batches = self.context.sql(sql).collect()
        if not batches:
            return [], []
        rows = pyarrow.Table.from_batches(batches)
        return [str(column.type) for column in rows.schema], [column.to_pylist() for column in rows.columns]


def attempt(run, statements):
    """Statements that make ready or end: the first error, if any."""
    first = ""
    for statement in statements:
        try:
            run(statement)
        except Exception as error:  # noqa: BLE001: what cannot be made ready shows in the cases
            first = first or f"{statement[:40]}…: {error}"
    return first


def ask_bowshot(asked, folder):
    """[(case, outcome)]: the outcome on every kernel, the first that is not right."""
    root = pathlib.Path(folder)
    nodes = [cluster.Node(f"node-{number + 1}", {"data": root / f"node-{number + 1}"}) for number in range(NODES)]
    names = {name for case in asked for name in case.group.get("files", [])}
    problems = {name: write_files(root, name) for name in sorted(names)}
    found = []
    with cluster.Cluster(root / "cluster", nodes) as running:
        maker = Bowshot(running, "host")
        for name in sorted(names):
            problems[name] = problems[name] or attempt(maker.run, [f"CREATE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION 'node://*/data/{folder_of(name)}/'"])
        for group in groups_of(asked):
            of_group = [case for case in asked if case.group is group]
            outcomes = {id(case): [] for case in of_group}
            for kernel in KERNELS:
                session = Bowshot(running, kernel)
                failed = attempt(session.run, group.get("setup", []))
                failed = attempt(session.run, group.get("bowshot", [])) or failed
                for case in of_group:
                    made = outcome(case, session.run)
                    # A table that is not there is refused for another reason than its name.
                    problem = next((problems[name] for name in group.get("files", []) if name in case.sql and problems[name]), "")
                    if not made.right and made.error:
                        made.error = problem or failed or made.error
                    outcomes[id(case)].append(made)
                attempt(session.run, [*group.get("after", []), *group.get("end", [])])
            for case in of_group:
                found.append((case, next((made for made in outcomes[id(case)] if not made.right), outcomes[id(case)][0])))
    return found


def groups_of(asked):
    seen = []
    for case in asked:
        if case.group not in seen:
            seen.append(case.group)
    return seen


def ask_peer(asked, make, key):
    """The outcomes of another engine, by case."""
    found = {}
    for group in groups_of(asked):
        peer = make()
        attempt(peer.open, group.get("files", []))
        attempt(peer.run, [*group.get("setup", []), *group.get(key, [])])
        for case in (case for case in asked if case.group is group):
            found[id(case)] = outcome(case, peer.run)
    return found


def cell(text):
    return text.replace("|", "\\|").replace("\n", " ")


def markdown(asked, ours, theirs, peers, versions):
    lines = [
        "# Cases that failed once",
        "",
        "Written by `clients/cases.py`, which asks each statement on three workers, on every kernel. `clients/test_cases.py` holds all of them: a case that",
        "passes must go on, one that fails must be taken off the list in `cases.toml` when it passes.",
        f"Beside it stand plain DataFusion {versions[0]} and DuckDB {versions[1]}. Right is Postgres' answer, else the standard's, else DuckDB's.",
        "",
        "| case | statement | before | now | DataFusion | DuckDB | right, where DuckDB's is another | tests |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case, made in ours:
        other = lambda found: "right" if found.right else cell(found.shown())  # noqa: E731: one name for two columns
        now = "right" if made.right else f"**fails**: {cell(made.shown())}"
        said = "; ".join(case.right) if isinstance(case.right, list) else case.right
        right = cell(f"{short(said) or 'no row'}: {case.reason}") if case.reason or not peers[id(case)].right else ""
        lines.append(f"| {case.id} | `{cell(case.sql)}` | {cell(case.before)} | {now} | {other(theirs[id(case)])} | {other(peers[id(case)])} | {right.removesuffix(': ')} | {case.tests} |")
    failing = [case for case, made in ours if not made.right]
    lines += ["", f"{len(ours) - len(failing)} of {len(ours)} cases pass."]
    return "\n".join(lines) + "\n"


def main():
    asked = read()
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        ours = ask_bowshot(asked, root)
        theirs = ask_peer(asked, lambda: DataFusion(root), "datafusion")
        peers = ask_peer(asked, lambda: DuckDb(root), "duckdb")
        versions = (DataFusion(root).version, duckdb.__version__)
    TABLE.write_text(markdown(asked, ours, theirs, peers, versions), encoding="utf-8")
    for case, made in ours:
        if not made.right:
            print(f"{case.id}: {case.sql}\n    {made.shown()}; right: {case.right}{'' if case.failing else ' (not on the list of failing cases)'}")
    print(f"{sum(made.right for _, made in ours)} of {len(ours)} pass; see {TABLE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
