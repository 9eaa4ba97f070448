"""complete_slt.py [SCRIPT …]: fills the types and results of the scripts below slt/ with DuckDB's answers over the same files.

Run it after changing a query; read the difference in version control. `--check` changes nothing and exits 1 where a script differs.
A record under a comment that begins with "# Postgres" has Postgres' answer, since DuckDB's is another: it stays as it is.
Cells: NULL, (empty), ten digits of a double, everything else as it reads.
"""

import datetime
import decimal
import difflib
import math
import pathlib
import subprocess
import sys
import tempfile

import answers
import cluster
import duckdb

SCRIPTS = cluster.REPOSITORY / "sql-tests" / "slt"
TPCH_SCALE = "0.01"


def generated_tables(folder):
    """DuckDB with a view for every table that the test of the scripts has."""
    generator = cluster.BINARY.with_name("bowshot-datagen")
    for arguments in (["tpch", "--scale", TPCH_SCALE], ["spread"], ["edge-cases"]):
        subprocess.run([generator, *arguments, "--out", folder / "node"], check=True, capture_output=True)
    peer = answers.duckdb_over(folder, [path.name for path in sorted((folder / "node").iterdir()) if path.is_dir()])
    peer.execute("SET TimeZone = 'UTC'")
    return peer


def cell(value):
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=None).isoformat() + ("Z" if value.tzinfo else "")
    if isinstance(value, datetime.date):
        return value.isoformat()
    return str(value).replace("\n", "\\n") or "(empty)"


def number_text(value):
    if math.isnan(value):
        return "NaN"
    text = repr(float(f"{value:.9e}"))
    mantissa, _, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else text


def column_letter(type_name):
    if "INT" in type_name and not type_name.startswith("INTERVAL"):
        return "I"
    return "R" if type_name.startswith(("DECIMAL", "DOUBLE", "FLOAT")) else "T"


def completed(record, peer):
    """One record, its results replaced by DuckDB's."""
    lines = record.splitlines()
    start = next((number for number, line in enumerate(lines) if line.split(" ")[0] in ("statement", "query")), None)
    if start is None:
        return record
    header = lines[start].split()
    body = lines[start + 1 :]
    sql = "\n".join(body[: body.index("----")] if "----" in body else body)
    if header[0] == "statement":
        if header[1] == "ok":
            peer.execute(sql)
        return record
    if header[1] == "error" or any(line.startswith("# Postgres") for line in lines[:start]):
        return record
    result = peer.execute(sql)
    letters = "".join(column_letter(str(column[1])) for column in result.description)
    rows = [[cell(value) for value in row] for row in result.fetchall()]
    sort_mode = header[2:] or ["nosort"]
    if sort_mode == ["rowsort"]:
        rows.sort()
    shown = [" ".join(row) for row in rows]
    return "\n".join([*lines[:start], " ".join(["query", letters, *sort_mode]), sql, "----", *shown])


def main(arguments):
    check = "--check" in arguments
    chosen = [pathlib.Path(path) for path in arguments if path != "--check"] or sorted(SCRIPTS.glob("**/*.slt"))
    differs = False
    with tempfile.TemporaryDirectory() as folder:
        peer = generated_tables(pathlib.Path(folder))
        for script in chosen:
            before = script.read_text(encoding="utf-8")
            records = [record.strip("\n") for record in before.split("\n\n") if record.strip()]
            try:
                after = "\n\n".join(completed(record, peer) for record in records) + "\n"
            except duckdb.Error as error:
                raise SystemExit(f"{script}: {error}") from error
            if after != before and check:
                differs = True
                sys.stdout.writelines(difflib.unified_diff(before.splitlines(True), after.splitlines(True), str(script), "DuckDB"))
            elif after != before:
                script.write_text(after, encoding="utf-8")
                print(f"{script}: {len(records)} records")
    return 1 if differs else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
