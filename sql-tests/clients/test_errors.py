"""The text a user sees when something is wrong: it names the thing and the way out, the same through a driver and the shell."""

import os
import re
import shutil
import socket
import subprocess

import adbc_driver_manager
import cluster
import pytest

DEEP = "SELECT " + "(" * 200 + "1" + ")" * 200
LONG = "SELECT " + "1 + " * 5_000 + "1"
USER, MISSING = "INVALID_ARGUMENT", "NOT_FOUND"
# Statement, code of the Flight SQL driver, and what the text must hold.
MISTAKES = {
    "column": ("SELECT l_quantitty FROM lineitem", MISSING, ["l_quantitty", "Did you mean", "l_quantity"]),
    "table": ("SELECT * FROM lineitm", MISSING, ["lineitm", "did you mean", "tpch.lineitem"]),
    "schema": ("SELECT * FROM nope.lineitem", MISSING, ["nope.lineitem", "tpch.lineitem"]),
    "function": ("SELECT summ(l_quantity) FROM lineitem", MISSING, ["'summ'", "Did you mean 'sum'"]),
    "keyword": ("SELEC 1", USER, ["does not parse", "SELEC", "Line: 1, Column: 1"]),
    "unfinished": ("SELECT", USER, ["does not parse"]),
    "division": ("SELECT 1 / 0", USER, ["division by zero"]),
    "division on a worker": ("SELECT l_linenumber / (l_linenumber - l_linenumber) FROM lineitem", USER, ["division by zero"]),
    "division in an aggregate": ("SELECT sum(l_quantity / (l_linenumber - l_linenumber)) FROM lineitem", USER, ["division by zero"]),
    "cast": ("SELECT CAST('abc' AS INT)", USER, ["abc", "Int32"]),
    "cast on a worker": ("SELECT CAST(n_name AS INT) FROM nation", USER, ["ALGERIA", "Int32"]),
    "date": ("SELECT date '2020-13-01'", USER, ["2020-13-01"]),
    "types": ("SELECT n_name + 1 FROM nation", USER, ["arithmetic"]),
    "ungrouped": ("SELECT n_name, count(*) FROM nation", USER, ["n_name", "GROUP BY"]),
    "aggregate of text": ("SELECT sum(n_name) FROM nation", USER, ["sum"]),
    "kernel": ("SET bowshot.kernel = 'gpu'", USER, ["'gpu'", "auto, device, host or off"]),
    "setting": ("SET bowshot.kernal = 'host'", USER, ["kernal"]),
    "setting of nobody": ("SET nonsense.x = 1", USER, ["nonsense.x", "system.settings"]),
    "depth": (DEEP, USER, ["128", "nested"]),
    "length": (LONG, USER, ["250", "split it"]),
    "volume": ("CREATE EXTERNAL TABLE x STORED AS PARQUET LOCATION 'node://*/nothere/x/'", MISSING, ["nothere", "worker.volumes", "node-1"]),
    "node": ("CREATE EXTERNAL TABLE x STORED AS PARQUET LOCATION 'node://node-9/data/x/'", MISSING, ["node-9"]),
    "bucket": ("CREATE EXTERNAL TABLE x STORED AS PARQUET LOCATION 's3://nowhere/x/'", MISSING, ["s3://nowhere", "[[coordinator.storage]]"]),
    "location": ("CREATE EXTERNAL TABLE x STORED AS PARQUET LOCATION 'file:///etc/'", USER, ["file:///etc/", "node://"]),
    "table exists": ("CREATE EXTERNAL TABLE nation STORED AS PARQUET LOCATION 'node://*/data/nation/'", "ALREADY_EXISTS", ["tpch.nation", "exists"]),
    "drop": ("DROP TABLE nope", MISSING, ["nope"]),
}
# Words of our libraries and of our source that tell a user nothing.
INSIDE = ["DataFusionError", "Internal error", "BowshotOptions", "External error", "Arrow error", "Execution error", "panicked", "backtrace", "ExecutionPlan"]


def driver_error(running, sql):
    """(code, text) as a driver reports it, without what the driver itself adds."""
    with pytest.raises(adbc_driver_manager.Error) as caught:
        running.rows(sql)
    match = re.fullmatch(r"(\w+): \[FlightSQL\] (.*) \(\w+; [^()]*\)", str(caught.value), re.DOTALL)
    assert match, str(caught.value)
    return match[1], match[2]


def without_query_id(text):
    return re.sub(r" \(query [0-9a-f-]{36}\)", "", text).strip()


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_a_mistake_is_told_the_same_way_everywhere(tpch_cluster, mistake):
    sql, code, words = MISTAKES[mistake]
    found_code, text = driver_error(tpch_cluster, sql)
    assert found_code == code, text
    assert all(word in text for word in words), text
    shell = tpch_cluster.shell(sql)
    assert shell.returncode == 1
    assert shell.stdout == ""
    assert without_query_id(shell.stderr) == f"error: {without_query_id(text)}"


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_the_text_has_no_words_from_the_inside(tpch_cluster, mistake):
    _, text = driver_error(tpch_cluster, MISTAKES[mistake][0])
    assert [word for word in INSIDE if word in text] == [], text


def test_an_error_while_running_names_its_query(tpch_cluster):
    _, text = driver_error(tpch_cluster, "SELECT 1 / (n_nationkey - n_nationkey) AS named_error FROM nation")
    query_id = re.search(r"\(query ([0-9a-f-]{36})\)", text)[1]
    [(state, error)] = tpch_cluster.rows(f"SELECT state, error FROM system.queries WHERE query_id = '{query_id}'")
    assert state == "failed"
    assert "division by zero" in error


def test_a_scalar_subquery_of_many_rows_is_an_error(tpch_cluster):
    _, text = driver_error(tpch_cluster, "SELECT (SELECT n_name FROM nation) AS name")
    assert "more than one row" in text.lower()


def test_a_connection_survives_errors(tpch_cluster):
    with tpch_cluster.connect() as connection, connection.cursor() as cursor:
        for sql in ("SELEC 1", "SELECT 1 / 0", "SELECT * FROM lineitm"):
            with pytest.raises(adbc_driver_manager.Error):
                cursor.execute(sql)
                cursor.fetchall()
        cursor.execute("SELECT 1")
        assert cursor.fetchall() == [(1,)]


def test_the_shell_takes_a_statement_that_starts_with_a_comment(tpch_cluster):
    done = tpch_cluster.shell("-- one\nSELECT 1 AS one", "--format", "csv")
    assert (done.returncode, done.stdout) == (0, "one\n1\n"), done.stderr


def test_the_shell_says_when_nobody_answers(tmp_path):
    url = f"grpc://127.0.0.1:{cluster.free_port()}"
    done = subprocess.run([cluster.BINARY, "sql", "--url", url, "-c", "SELECT 1"], capture_output=True, text=True, timeout=30, cwd=tmp_path)
    assert done.returncode == 1
    assert url in done.stderr, done.stderr


@pytest.fixture
def own_files(tmp_path, tpch_folder):
    """A small cluster over one file, which a test may spoil."""
    volume = tmp_path / "volume"
    shutil.copytree(tpch_folder / "node-1" / "region", volume / "region")
    nodes = [cluster.Node("node-1", {"data": volume}), cluster.Node("node-2", {"data": tmp_path / "empty"})]
    with cluster.Cluster(tmp_path / "cluster", nodes) as running:
        running.create_table("region", "node://*/data/region/")
        assert running.rows("SELECT r_name FROM region")
        running.file = next((volume / "region").glob("*.parquet"))
        yield running


def test_a_lost_file_is_named(own_files):
    own_files.file.unlink()
    code, text = driver_error(own_files, "SELECT r_name FROM region")
    assert "region/part-1.parquet" in text, text
    # No mistake of the statement: UNAVAILABLE, which this driver calls IO.
    assert code in ("IO", "NOT_FOUND"), f"{code}: {text}"
    assert own_files.shell("SELECT r_name FROM region").returncode == 1
    # Once the node has reported its loss, the text says that no copy is left.
    cluster.wait_until("the loss is known", 20, lambda: "no live replica of" in driver_error(own_files, "SELECT r_name FROM region")[1])


def test_a_replaced_file_is_named(own_files):
    content = own_files.file.read_bytes()
    own_files.file.write_bytes(content)
    os.utime(own_files.file, (1_000_000_000, 1_000_000_000))
    code, text = driver_error(own_files, "SELECT r_name FROM region")
    assert code != "INTERNAL"
    assert "region/part-1.parquet" in text and "REFRESH TABLE" in text, text
    cluster.wait_until("the new version is known", 20, lambda: not own_files.shell("REFRESH TABLE region; SELECT r_name FROM region").returncode)


def started(arguments, folder, **variables):
    """A role that is expected to refuse to start: (exit code, what it says)."""
    environment = {**os.environ, "BOWSHOT__WORKER__CLUSTER_TOKEN": cluster.CLUSTER_TOKEN, **variables}
    done = subprocess.run([cluster.BINARY, *arguments], capture_output=True, text=True, timeout=30, cwd=folder, env=environment, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def taken_port():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


@pytest.mark.parametrize("flag", ["--listen", "--http-listen", "--control-listen"])
def test_a_taken_port_of_the_server(tmp_path, taken_port, flag):
    ports = {name: cluster.free_port() for name in ("--listen", "--http-listen", "--control-listen")} | {flag: taken_port}
    addresses = [part for name, port in ports.items() for part in (name, f"127.0.0.1:{port}")]
    code, text = started(["server", "--data-dir", tmp_path / "coordinator", *addresses], tmp_path)
    assert code == 1
    assert str(taken_port) in text and flag in text, text


def worker_flags(port):
    return ["worker", "--node-id", "node-1", "--listen", f"127.0.0.1:{port}", "--coordinator", "http://127.0.0.1:1"]


def test_a_taken_port_of_a_worker(tmp_path, taken_port):
    code, text = started([*worker_flags(taken_port), "--volume", f"data={tmp_path}"], tmp_path)
    assert code == 1
    assert str(taken_port) in text and "--listen" in text, text


def test_a_missing_volume(tmp_path):
    code, text = started([*worker_flags(cluster.free_port()), "--volume", f"data={tmp_path}/missing"], tmp_path)
    assert code == 1
    assert "'data'" in text and f"{tmp_path}/missing" in text and "does not exist" in text, text


def test_an_unknown_setting_of_the_file_or_the_environment(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text("[worker]\nnode_idd = 'node-1'\n")
    code, text = started(["worker", "--config", file], tmp_path)
    assert code == 1
    assert "worker.node_idd" in text and "settings.toml" in text and "node_id," in text, text
    code, text = started(worker_flags(cluster.free_port()), tmp_path, BOWSHOT__WORKER__VOLUMS="{}")
    assert code == 1
    assert "volums" in text and "volumes" in text, text


def test_a_wrong_kernel_device(tmp_path):
    code, text = started([*worker_flags(cluster.free_port()), "--kernel-device", "cuda"], tmp_path)
    assert code == 2
    assert "cuda" in text and "hardware" in text, text
