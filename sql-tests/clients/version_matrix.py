"""The table of clients in docs/clients.md: what ./check runs, in which version. `version_matrix.py --write` writes it."""

import importlib.metadata
import pathlib
import sys

import cluster
import test_jdbc

PAGE = cluster.REPOSITORY / "docs" / "clients.md"
BEGIN, END = "<!-- clients: written by sql-tests/clients/version_matrix.py -->\n", "<!-- end of clients -->"
# Name for people, package, and the tests that run it.
PACKAGES = [
    ("ADBC (Python)", "adbc-driver-flightsql", ["test_adbc.py", "test_managed_tables.py", "test_sessions.py"]),
    ("Arrow Flight (C++, Python)", "pyarrow", ["test_flight_sql.py"]),
    ("Polars", "polars", ["test_data_frames.py"]),
    ("pandas", "pandas", ["test_data_frames.py"]),
    ("Ibis", "ibis-framework", ["test_python_package.py"]),
    ("IPython", "ipython", ["test_python_package.py"]),
    ("SQLAlchemy dialect of Superset", "flightsql-dbapi", ["test_sqlalchemy.py"]),
    ("SQLAlchemy", "SQLAlchemy", ["test_sqlalchemy.py"]),
    ("Substrait of DataFusion", "datafusion", ["test_substrait.py"]),
]


def table():
    """The table as Markdown."""
    lines = ["| client | version | tests |", "|---|---|---|"]
    rows = [(name, importlib.metadata.version(package), tests) for name, package, tests in PACKAGES]
    rows += [("JDBC, DBeaver's calls", f"flight-sql-jdbc-driver {version}", ["test_jdbc.py", "test_auth_jdbc.py"]) for version in test_jdbc.VERSIONS]
    rows += [("Grafana's calls", "data source 0.1.6", ["test_flight_sql.py"])]
    for name, version, tests in rows:
        assert all(pathlib.Path(__file__).with_name(test).exists() for test in tests), tests
        lines.append(f"| {name} | {version} | {', '.join(f'`{test}`' for test in tests)} |")
    return "\n".join(lines) + "\n"


def parts():
    """The page before, between and after the marks."""
    before, rest = PAGE.read_text().split(BEGIN)
    return (before, *rest.split(END))


if __name__ == "__main__":
    written, (before, _, after) = table(), parts()
    if "--write" in sys.argv:
        PAGE.write_text(before + BEGIN + written + END + after)
    print(written, end="")
