"""make_slt.py: writes the scripts below slt/ that are made of families of statements, the same ones each time.

A family is a module of `records`: its `scripts()` gives, for each script, a heading, statements that make it ready and end it, and its queries. What
stands in a script already under a query stays (`# Postgres` and its answer too); the answers of new ones are DuckDB's, from `complete_slt.py`:

    .venv/bin/python sql-tests/clients/make_slt.py && .venv/bin/python sql-tests/clients/complete_slt.py

`--check` changes nothing and exits 1 where a script differs. `slt/left_out.txt` has the statements that are not answered right yet, each with what is wrong: a script gets them when they are taken off it.
"""

import dataclasses
import importlib
import pathlib
import pkgutil
import sys

import records

SCRIPTS = pathlib.Path(__file__).resolve().parents[1] / "slt"
LEFT_OUT = SCRIPTS / "left_out.txt"
# Scripts of what kernels compute. The others run on one of them: their aggregates are few, and are those of these scripts.
ON_EVERY_KERNEL = {"aggregates/by_type", "aggregates/composed", "arithmetic/overflow", "doubles/special", "groups/distinct", "groups/grouping_sets"}
ONE_KERNEL = "# One kernel: aggregates have scripts of their own, on all of them."


@dataclasses.dataclass
class Script:
    """One file. `queries` are statements whose rows are compared in any order, or in theirs where they end with ORDER BY of the whole; a statement
    that must fail is `Fails`."""

    name: str
    heading: str
    queries: list
    before: list = dataclasses.field(default_factory=list)
    after: list = dataclasses.field(default_factory=list)


def families():
    for module in sorted(pkgutil.iter_modules(records.__path__), key=lambda module: module.name):
        yield importlib.import_module(f"records.{module.name}")


def scripts():
    for family in families():
        for name, heading, queries, *around in family.scripts():
            before, after = around or ([], [])
            yield Script(name, heading, queries, before, after)


def left_out():
    """Statements that are not answered right yet."""
    lines = LEFT_OUT.read_text(encoding="utf-8").splitlines() if LEFT_OUT.exists() else []
    return {line for line in lines if line and not line.startswith("#")}


def known(path):
    """The records of a script by their statement."""
    found = {}
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for record in text.split("\n\n"):
        lines = record.strip("\n").splitlines()
        start = next((number for number, line in enumerate(lines) if line.startswith("query ")), None)
        if start is None:
            continue
        body = lines[start + 1 :]
        found["\n".join(body[: body.index("----")] if "----" in body else body)] = record.strip("\n")
    return found


def record(query, stored, in_order):
    if query in stored:
        return stored[query]
    return f"query T{'' if in_order else ' rowsort'}\n{query}\n----"


def text_of(script, path, out):
    stored, seen = known(path), set()
    parts = [f"# {script.heading}" if script.name in ON_EVERY_KERNEL else f"# {script.heading}\n{ONE_KERNEL}"]
    parts += [f"statement ok\n{statement}" for statement in script.before]
    for query in script.queries:
        failure = query[1] if isinstance(query, tuple) else None
        query = query[0] if failure else query
        if query in seen:
            raise SystemExit(f"{script.name}: twice: {query}")
        seen.add(query)
        if query in out:
            continue
        if failure:
            parts.append(f"query error {failure}\n{query}")
        else:
            parts.append(record(query, stored, records.is_ordered(query)))
    parts += [f"statement ok\n{statement}" for statement in script.after]
    return "\n\n".join(parts) + "\n"


def main(arguments):
    check = "--check" in arguments
    out, count, different = left_out(), 0, 0
    for script in scripts():
        path = SCRIPTS / f"{script.name}.slt"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = text_of(script, path, out)
        count += text.count("\n----") + text.count("query error")
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            different += 1
            print(path)
            if not check:
                path.write_text(text, encoding="utf-8")
    print(f"{count} records")
    return 1 if check and different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
