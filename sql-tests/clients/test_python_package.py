"""The package `bowshot`: connecting, the Ibis backend on three workers beside DuckDB, and SQL in a real IPython shell and a notebook."""

import datetime
import decimal
import gc
import re
import signal
import subprocess
import sys
import textwrap
import warnings

import adbc_driver_manager
import answers
import bowshot
import cluster
import ibis
import ibis.common.exceptions as exceptions
import ibis_tpch
import nbclient
import nbformat
import pandas
import polars
import pyarrow
import pytest
from bowshot import display, limits, sql_parameters
from ibis import _
from ibis_expressions import AGGREGATES, EXPRESSIONS, ROWS
from IPython.core.interactiveshell import InteractiveShell

# Keeps three workers busy for hours.
PAIRS = "numbers AS a CROSS JOIN numbers AS b WHERE a.n * b.n <> 7"
QUERIES = dict(answers.tpch_queries(cluster.REPOSITORY / "datasets" / "queries" / "tpch"))


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """A server with certificates at both ends and passwords."""
    folder = tmp_path_factory.mktemp("secured")
    client = cluster.Node("client", {})
    files = cluster.Certificates(folder / "certificates", [client])
    # The coordinator's certificate is made anew for the address as well.
    files.issue([], "--coordinator-host", "127.0.0.1", "--renew")
    hashed = subprocess.run(
        [cluster.BINARY, "hash-password"], input="ana's password", capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()
    settings = f"""
    [tls]
    certificate = "{files.path("coordinator.pem")}"
    key = "{files.path("coordinator.key")}"
    client_ca = "{files.path("ca.pem")}"
    [auth]
    mode = "password"
    users = {{ ana = "{hashed}" }}
    tokens = {{ bob = "token-of-the-user-bob" }}
    """
    with cluster.Cluster(folder / "cluster", [], settings=textwrap.dedent(settings)) as running:
        running.files = files
        yield running


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """Three workers that may write."""
    folder = tmp_path_factory.mktemp("package")
    nodes = [cluster.Node(name, {"data": folder / name}, kernel_device="off") for name in ("node-1", "node-2", "node-3")]
    with cluster.Cluster(folder / "cluster", nodes) as started:
        with bowshot.connect(started.uri) as connection, connection.cursor() as cursor:
            cursor.adbc_ingest("numbers", pyarrow.table({"n": range(300_000)}), mode="create")
        yield started


@pytest.fixture
def con(running):
    backend = ibis.bowshot.connect(running.uri)
    yield backend
    backend.disconnect()


@pytest.fixture
def shell(running):
    """A shell with the extension, connected."""
    shell = InteractiveShell()
    shell.run_cell("%load_ext bowshot").raise_error()
    shell.run_cell(f"%sql {running.uri}").raise_error()
    yield shell
    shell.run_cell("%unload_ext bowshot").raise_error()


# Connecting.


def files_of_client(secured):
    return {"ca": secured.files.path("ca.pem"), "certificate": secured.files.path("client.pem"), "key": secured.files.path("client.key")}


def test_a_connection_with_certificates_and_a_password_or_a_token(secured):
    files, user = files_of_client(secured), {"user": "ana", "password": "ana's password"}
    for address, parameters in [
        (f"127.0.0.1:{secured.port}", user),
        (f"grpc+tls://127.0.0.1:{secured.port}", user),
        (f"grpc+tls://ana:ana%27s%20password@127.0.0.1:{secured.port}", {}),
        (f"127.0.0.1:{secured.port}", {"token": "token-of-the-user-bob", "headers": {"x-trace": "1"}, "timeout": 60}),
        (f"localhost:{secured.port}", {**user, "server_name": "127.0.0.1"}),
        (f"localhost:{secured.port}", {**user, "ca": None, "skip_verification": True}),
    ]:
        with bowshot.connect(address, **{**files, **parameters}) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchall() == [(1,)]


def test_what_stands_in_the_way_of_a_connection_is_told_at_once(secured, running):
    files, address = files_of_client(secured), f"127.0.0.1:{secured.port}"
    user = {"user": "ana", "password": "ana's password"}
    plain = running.uri.removeprefix("grpc://")
    for target, parameters, said in [
        (address, {**files, "user": "ana", "password": "wrong"}, "cannot connect to grpc.tls://127.0.0.1:\\d+: "),
        (address, {**files, "token": "wrong"}, "cannot connect to grpc.tls://127.0.0.1:\\d+: "),
        (address, {**files, **user, "schema": "nowhere"}, "there is no schema 'nowhere'"),
        (address, {**user, "ca": files["ca"]}, "name yours with certificate= and key="),
        (f"grpc://{address}", user, r"write grpc\+tls://"),
        (f"grpc+tls://{plain}", {}, "not encrypted: write grpc://"),
        (
            "grpc+tls://" + address,
            {**user, "certificate": files["certificate"], "key": files["key"]},
            "name the file of its authority with ca=",
        ),
        ("grpc://127.0.0.1:1", {}, "cannot connect to grpc://127.0.0.1:1: .*connection refused"),
        ("no-such-host.invalid", {}, "cannot connect to grpc://no-such-host.invalid:47470: no such host"),
    ]:
        with pytest.raises(adbc_driver_manager.Error, match=said):
            bowshot.connect(target, **parameters)


@pytest.mark.parametrize(
    ("address", "parameters", "said"),
    [
        ("http://host:1", {}, "begins with grpc://"),
        ("grpc://host:port", {}, "no valid port"),
        ("grpc://host/tpch", {}, "no more"),
        ("grpc://", {}, "no more"),
        ("grpc://host", {"skip_verification": True}, r"write grpc\+tls://host:47470"),
        ("host", {"user": "ana"}, "go together"),
        ("host", {"user": "ana", "password": "x", "token": "y"}, "in place of"),
        ("host", {"certificate": "client.pem"}, "go together"),
        ("host", {"timeout": 0}, "above zero"),
        ("host", {"headers": {"not a name": 1}}, "'not a name' is no name of a header"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_anything_is_sent(address, parameters, said):
    with pytest.raises(ValueError, match=said):
        bowshot.connect(address, **parameters)


def test_a_missing_file_of_certificates_is_named():
    with pytest.raises(FileNotFoundError, match="missing.pem"):
        bowshot.connect("host", ca="missing.pem")


def test_settings_of_a_connection(running):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with bowshot.connect(running.uri, schema="system", timeout=1) as connection, connection.cursor() as cursor:
            assert connection.adbc_current_db_schema == "system"
            endless = f"SELECT count(*) FROM public.{PAIRS.replace('JOIN ', 'JOIN public.')}"
            with pytest.raises(adbc_driver_manager.Error, match="TIMEOUT|deadline"):
                cursor.execute(endless)
                cursor.fetchall()
        # The driver's own limit would be 16 MiB.
        with bowshot.connect(running.uri) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT repeat('x', 20000000) AS text")
            assert len(cursor.fetchone()[0]) == 20_000_000


# Ibis.


@pytest.mark.parametrize("name", sorted(QUERIES))
def test_tpch_as_ibis_expressions_is_duckdbs_answer(tpch_cluster, duckdb_tpch, name):
    con = ibis.bowshot.connect(tpch_cluster.uri, schema="tpch")
    try:
        table = con.to_pyarrow(ibis_tpch.expression(name, con.table))
    finally:
        con.disconnect()
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    assert answers.difference_in_order(rows, answers.expected_in_order(duckdb_tpch, QUERIES[name])) is None


@pytest.fixture(scope="module")
def twins(running):
    """The same table in the cluster and in DuckDB."""
    con = ibis.bowshot.connect(running.uri)
    ours, theirs = con.create_table("every_type", ROWS, overwrite=True), ibis.duckdb.connect().create_table("every_type", ROWS)
    yield ours, theirs
    con.drop_table("every_type")
    con.disconnect()


def same(ours, theirs):
    if isinstance(ours, (list, tuple)) and isinstance(theirs, (list, tuple)):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return answers.same_value(ours, theirs)


def same_rows(ours, theirs):
    """Whether two tables are equal; a time of Ibis has nanoseconds."""
    kinds = [pyarrow.time64("us") if pyarrow.types.is_time(field.type) else field.type for field in ours.schema]
    return (
        ours.column_names == theirs.column_names
        and kinds == theirs.schema.types
        and same([list(row.values()) for row in ours.to_pylist()], [list(row.values()) for row in theirs.to_pylist()])
    )


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_values_are_those_of_ibis_over_duckdb(twins, name):
    ours, theirs = (
        [list(row.values()) for row in t.select("k", value=EXPRESSIONS[name](t)).order_by("k").to_pyarrow().to_pylist()] for t in twins
    )
    assert same(ours, theirs), (ours, theirs)


@pytest.mark.parametrize("name", AGGREGATES)
def test_aggregates_are_those_of_ibis_over_duckdb(twins, name):
    ours, theirs = (t.agg(value=AGGREGATES[name](t)).to_pyarrow().to_pylist() for t in twins)
    assert same([row["value"] for row in ours], [row["value"] for row in theirs]), (ours, theirs)


@ibis.udf.scalar.python
def doubled(x: int) -> int:
    return 2 * x


@ibis.udf.scalar.builtin
def levenshtein(a: str, b: str) -> int: ...


@pytest.mark.parametrize(
    ("operation", "expression"),
    [
        ("ExtractHost", lambda t: t.s.host()),
        ("RegexSplit", lambda t: t.s.re_split(",")),
        ("ArrayMap", lambda t: t.list.map(lambda x: x + 1)),
        ("TimestampBucket", lambda t: t.at.bucket(hours=6)),
        ("Mode", lambda t: t.i.mode()),
    ],
)
def test_what_the_engine_lacks_is_refused_by_name(twins, operation, expression):
    ours, _theirs = twins
    assert not ibis.bowshot.has_operation(getattr(ibis.expr.operations, operation))
    with pytest.raises(exceptions.OperationNotDefinedError, match=operation):
        expression(ours).to_pyarrow()


def test_functions_in_python_are_refused_and_those_of_the_engine_are_not(twins):
    ours, _theirs = twins
    with pytest.raises(exceptions.UnsupportedOperationError, match="the server runs no Python, so it cannot run doubled"):
        doubled(ours.i).to_pyarrow()
    assert levenshtein(ours.s, "Hello").max().execute() == 6
    assert ibis.bowshot.has_operation(ibis.expr.operations.ExtractMicrosecond)


def test_results_in_every_form_are_exact(twins):
    ours, _theirs = twins
    assert same_rows(ours.order_by("k").to_pyarrow(), ROWS)
    assert ours.order_by("k").money.to_pyarrow().to_pylist() == ROWS["money"].to_pylist()
    assert ours.count().to_pyarrow() == pyarrow.scalar(5, pyarrow.int64())
    # Ibis would give the product two digits behind the point.
    product = (ours.money * ours.money).sum()
    assert (
        product.to_pyarrow().as_py()
        == product.execute()
        == product.to_polars()
        == decimal.Decimal("9999998000.0001") + decimal.Decimal("15.6250")
    )
    frame = ours.order_by("k").to_pandas()
    assert (
        isinstance(frame, pandas.DataFrame)
        and frame["s"].iloc[2] == "é😀x"
        and frame["tiny"].isna().tolist() == [False] * 3 + [True, False]
    )
    assert ours.order_by("k").drop("clock").to_polars().equals(polars.from_arrow(ROWS.drop_columns("clock")))
    assert ours.order_by("k").s.to_polars().to_list() == ROWS["s"].to_pylist()
    with ours.order_by("k").to_pyarrow_batches(chunk_size=2) as batches:
        assert max(batch.num_rows for batch in batches) == 2
    assert ours.k.max().execute() == 4 and ours.limit(0).to_pyarrow().schema.names == ROWS.column_names
    parameter = ibis.param("int64")
    assert ours.filter(ours.k > parameter).count().execute(params={parameter: 2}) == 2


def test_batches_left_unread_end_their_query(con, running):
    sql = f"SELECT a.n AS unread FROM {PAIRS}"
    batches = con.to_pyarrow_batches(con.sql(sql))
    assert batches.read_next_batch().num_rows > 0
    del batches
    running_still = "SELECT 1 FROM system.queries WHERE state = 'running' AND sql LIKE '%unread%' AND sql NOT LIKE '%system.queries%'"
    cluster.wait_until("the query has ended", 20, lambda: not running.rows(running_still))


def test_what_there_is(con, running):
    assert re.fullmatch(r"\d+\.\d+\.\d+", con.version)
    assert (con.current_catalog, con.current_database, con.list_catalogs()) == ("bowshot", "public", ["bowshot"])
    assert {"public", "system", "information_schema"} <= set(con.list_databases())
    assert con.list_databases(like="^sys") == ["system"]
    assert "nodes" in con.list_tables(database="system") and con.list_tables(database=("bowshot", "system"), like="^node") == ["nodes"]
    assert con.table("nodes", database="system").count().execute() == 4
    assert con.get_schema("nodes", database="system")["node_id"].is_string()
    with pytest.raises(exceptions.TableNotFound, match="nothing"):
        con.table("nothing")
    with pytest.raises(exceptions.IbisInputError, match="more parts"):
        con.list_tables(database="a.b.c")
    address = running.uri.replace("grpc://", "bowshot://")
    by_address = ibis.connect(f"{address}/system?timeout=60")
    assert by_address.current_database == "system"
    by_address.disconnect()
    over = ibis.bowshot.from_connection(bowshot.connect(running.uri))
    assert over.sql("SELECT 1 AS n").n.sum().execute() == 1
    over.disconnect()


SOURCES = {
    "arrow": lambda: ROWS,
    "batches": lambda: pyarrow.RecordBatchReader.from_batches(ROWS.schema, ROWS.to_batches(max_chunksize=2)),
    "polars": lambda: polars.from_arrow(ROWS),
    "lazy": lambda: polars.from_arrow(ROWS).lazy(),
    "pandas": lambda: pandas.DataFrame({"k": [0, 1], "s": ["é", None]}),
    "rows": lambda: [{"k": 0, "s": "é"}, {"k": 1, "s": None}],
    "columns": lambda: {"k": [0, 1], "s": ["é", None]},
    "memtable": lambda: ibis.memtable({"k": [0, 1], "s": ["é", None]}),
}


@pytest.mark.parametrize("source", SOURCES)
def test_tables_are_made_of_whatever_python_has(con, source):
    rows = SOURCES[source]()
    made = con.create_table("made", rows)
    found = made.order_by("k").to_pyarrow()
    expected = ROWS if made.count().execute() == 5 else pyarrow.table({"k": [0, 1], "s": ["é", None]})
    assert same_rows(found, expected)
    con.drop_table("made")


TYPES = {
    "a": "int8",
    "b": "uint16",
    "c": "uint64",
    "d": "float32",
    "e": "timestamp(3)",
    "f": "timestamp('Europe/Berlin', 9)",
    "g": "decimal(38, 10)",
    "h": "array<struct<x: int8, y: array<string>>>",
    "i": "map<string, int64>",
    "j": "binary",
    "k": "time",
    "l": "date",
    "m": "boolean",
}


def test_tables_and_views_come_change_and_go(con, running):
    empty = con.create_table("empty", schema=TYPES)
    # A result shows instants by the session's zone.
    assert {name: str(kind).replace("!", "") for name, kind in empty.schema().items()} == TYPES | {"f": "timestamp('UTC', 9)"}
    assert empty.count().execute() == 0
    con.create_table("empty", pyarrow.table({"n": pyarrow.array([], pyarrow.int32())}), overwrite=True)
    assert con.table("empty").schema() == ibis.schema({"n": "int32"})
    con.drop_table("empty")
    con.create_table("strict", schema={"id": "!uint32", "at": "timestamp(3)", "price": "decimal(10, 2)"})
    con.insert("strict", pyarrow.table({"id": pyarrow.array([1], pyarrow.uint32())}))
    with pytest.raises(adbc_driver_manager.Error, match="column id of table public.strict is NOT NULL"):
        con.insert("strict", pyarrow.table({"id": pyarrow.array([None], pyarrow.uint32())}))
    con.drop_table("strict")
    with pytest.raises(exceptions.UnsupportedBackendType, match="SQL has no word for array<int64> of column l"):
        con.create_table("strict", schema={"id": "!int64", "l": "array<int64>"})
    source = con.create_table("source", ROWS)
    copy = con.create_table("copy", source.filter(_.k < 3).mutate(half=_.k.cast("int16")))
    assert copy.schema()["half"] == ibis.dtype("int16") and copy.count().execute() == 3
    with pytest.raises(adbc_driver_manager.Error, match="exists already"):
        con.create_table("copy", source)
    con.insert("copy", copy)
    con.insert("copy", {"k": [9], "s": ["nine"]})
    assert copy.count().execute() == 7 and copy.filter(_.k == 9).s.execute().tolist() == ["nine"]
    con.insert("copy", copy.filter(_.k == 9), overwrite=True)
    assert copy.k.execute().tolist() == [9]
    con.insert("copy", ibis.memtable({"k": [10, 11]}), overwrite=True)
    assert sorted(copy.k.execute()) == [10, 11]
    view = con.create_view("seen", source.filter(_.b), overwrite=True)
    assert view.count().execute() == 2
    with pytest.raises(exceptions.TableNotFound):
        ibis.bowshot.connect(running.uri).table("seen")
    con.drop_view("seen")
    con.drop_view("seen", force=True)
    con.truncate_table("copy")
    assert copy.count().execute() == 0
    con.create_database("elsewhere")
    con.create_database("elsewhere", force=True)
    con.create_table("there", source.select("k"), database="elsewhere")
    assert con.list_tables(database="elsewhere") == ["there"] and con.table("there", database="elsewhere").count().execute() == 5
    con.drop_table("there", database="elsewhere")
    con.drop_database("elsewhere")
    for refused in (lambda: con.create_table("t", ROWS, temp=True), lambda: con.upsert("copy", source, "k")):
        with pytest.raises(exceptions.UnsupportedOperationError, match="Bowshot has no"):
            refused()
    assert con.sql("SELECT k FROM source WHERE k > 3").to_pyarrow().to_pydict() == {"k": [4]}
    with con.raw_sql("SELECT count(*) FROM source") as cursor:
        assert cursor.fetchall() == [(5,)]
    product = con.create_table("product", source.select(_.k, exact=_.money * _.money))
    assert product.filter(_.k == 4).exact.to_pyarrow().to_pylist() == [decimal.Decimal("9999998000.0001")]
    con.drop_table("product")
    con.drop_table("copy")
    con.drop_table("copy", force=True)
    con.drop_table("source")


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_tables_in_memory_are_gone_after_their_connection(running):
    con = ibis.bowshot.connect(running.uri)
    memory, nothing = ibis.memtable({"k": [1, 2]}), ibis.memtable(pyarrow.table({"k": pyarrow.array([], pyarrow.int64())}))
    assert con.execute(memory.join(memory.view(), "k").count()) == 2
    assert con.execute(nothing.count()) == 0
    cached = con.create_table("kept", memory).cache()
    assert cached.count().execute() == 2
    sent = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public' AND table_name LIKE 'ibis_%'"
    assert running.rows(sent) == [(3,)]
    con.drop_table("kept")
    con.disconnect()
    # Those that an expression alone kept are forgotten without a word.
    del cached
    gc.collect()
    assert running.rows(sent) == [(0,)]
    # Nor does a program leave any that ends without a word.
    program = f"""if True:
        import ibis
        con = ibis.bowshot.connect('{running.uri}')
        print(con.execute(ibis.memtable({{'k': [1]}}).count()), con.list_tables(like='^ibis_'))
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("1 ['ibis_") and done.returncode == 0, done.stdout + done.stderr
    assert running.rows(sent) == [(0,)]


INTERRUPTED = """
import signal, sys
from IPython.core.interactiveshell import InteractiveShell
signal.signal(signal.SIGINT, signal.default_int_handler)
shell = InteractiveShell()
for cell in sys.argv[1:]:
    print(repr(shell.run_cell(cell).error_in_exec), flush=True)
"""


@pytest.mark.parametrize("way", ["magic", "ibis"])
def test_an_interrupt_ends_the_query_and_leaves_the_connection(running, way):
    sql = f"SELECT count(*) AS endless_{way} FROM {PAIRS}"
    cells = {
        "magic": ["%load_ext bowshot", f"%sql {running.uri}", f"%sql {sql}", "%sql SELECT 1 AS n"],
        "ibis": [
            "import ibis",
            f"con = ibis.bowshot.connect('{running.uri}')",
            f"con.sql('{sql}').execute()",
            "con.sql('SELECT 1 AS n').execute()",
        ],
    }
    command = [sys.executable, "-c", INTERRUPTED, *cells[way]]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    state = f"SELECT state FROM system.queries WHERE sql LIKE '%endless_{way}%' AND sql NOT LIKE '%system.queries%'"
    try:
        cluster.wait_until("the query runs", 60, lambda: running.rows(state) == [("running",)])
        program.send_signal(signal.SIGINT)
        said = program.communicate(timeout=60)[0].splitlines()
    finally:
        program.kill()
    assert "KeyboardInterrupt()" in said and said.count("None") == 3, said
    cluster.wait_until("the query is cancelled", 20, lambda: running.rows(state) == [("cancelled",)])


# Notebooks.


def run(shell, cell):
    done = shell.run_cell(cell)
    done.raise_error()
    return done.result


def refused(shell, capsys, cell):
    """What a cell that fails shows."""
    capsys.readouterr()
    assert not shell.run_cell(cell).success
    shown = capsys.readouterr()
    return shown.out + shown.err


def test_a_result_is_an_arrow_table(shell):
    assert run(shell, "%sql SELECT 1 AS one, 'é' AS text").to_pylist() == [{"one": 1, "text": "é"}]
    assert run(shell, "%%sql\nSELECT count(*) AS n\nFROM system.nodes").to_pydict() == {"n": [4]}
    assert run(shell, "kept = %sql SELECT 2 AS two") is None
    assert run(shell, "%sql found << SELECT 3 AS three") is None
    assert run(shell, "%%sql below <<\nSELECT 4 AS four") is None
    assert run(shell, "%%sql\nlast << SELECT 5 AS five") is None
    assert run(shell, "[t.to_pylist()[0] for t in (kept, found, below, last)]") == [{"two": 2}, {"three": 3}, {"four": 4}, {"five": 5}]
    assert run(shell, "%sql CREATE VIEW of_the_shell AS SELECT 6 AS six") is None
    assert run(shell, "%sql SELECT six FROM of_the_shell").to_pylist() == [{"six": 6}]


def test_parameters_are_bound_and_never_written_into_the_text(shell, capsys, running):
    run(shell, 'import datetime\nname = "it\'s; DROP TABLE x"\nday = datetime.date(2024, 2, 29)')
    assert run(shell, "%sql --param name SELECT $name AS name").to_pylist() == [{"name": "it's; DROP TABLE x"}]
    cell = "%%sql --param day --param n=[1, 2][1] --param text='two words'\n"
    cell += "SELECT $day AS day, $n + $n AS n, $text AS t, '$day {name}' AS literal -- $nothing"
    assert run(shell, cell).to_pylist() == [{"day": datetime.date(2024, 2, 29), "n": 4, "t": "two words", "literal": "$day {name}"}]
    assert run(shell, "%sql SELECT '$name {name}' AS text").to_pylist() == [{"text": "$name {name}"}]
    assert not running.rows("SELECT sql FROM system.queries WHERE sql LIKE '%it''s; DROP%' AND sql NOT LIKE '%system.queries%'")
    assert "UsageError: the statement has a parameter $x, which is not given" in refused(shell, capsys, "%sql SELECT $x")
    assert "UsageError: the statement has no parameter $y" in refused(shell, capsys, "%sql --param y=1 SELECT 1")
    assert "nowhere has no value" in refused(shell, capsys, "%sql --param nowhere SELECT $nowhere")


def test_errors_are_the_servers_text_without_a_stack(shell, capsys):
    for cell, said in [
        ("%sql SELECT nothing FROM system.nodes", "No field named nothing"),
        ("%sql SELEC", "the statement does not parse"),
        ("%sql SELECT 1 / (value - 1) FROM generate_series(1, 3) AS t(value)", "UsageError: division by zero"),
        ("%sql", "there is no statement"),
        ("%bowshot nothing", "write %bowshot connect"),
        ("%bowshot connect", "the following arguments are required: uri"),
        ("%bowshot connect grpc://127.0.0.1:1", "cannot connect to grpc://127.0.0.1:1"),
    ]:
        shown = refused(shell, capsys, cell)
        assert said in shown and "Traceback" not in shown and "FlightSQL" not in shown, shown
    # The connection of before is still there.
    assert run(shell, "%sql SELECT 1 AS n").num_rows == 1
    run(shell, "%bowshot close")
    assert "not connected" in refused(shell, capsys, "%sql SELECT 1")


def test_a_password_is_asked_for_and_a_token_taken_from_a_variable(secured, monkeypatch):
    shell = InteractiveShell()
    run(shell, "%load_ext bowshot")
    monkeypatch.setattr("getpass.getpass", lambda prompt: "ana's password" if prompt == "Password of ana: " else "")
    files = " ".join(f"--{name} {path}" for name, path in files_of_client(secured).items())
    run(shell, f"%bowshot connect 127.0.0.1:{secured.port} --user ana {files} --schema system")
    assert run(shell, "%sql SELECT 1 AS n").num_rows == 1
    run(shell, "secret = 'token-of-the-user-bob'")
    run(shell, f"%bowshot connect 127.0.0.1:{secured.port} --token-from secret {files}")
    assert run(shell, "%sql SELECT 1 AS n").num_rows == 1
    run(shell, "%unload_ext bowshot")


def test_what_is_shown_is_a_page():
    table = pyarrow.table({"n": range(1_000), "text": ["<b>&\n" + "x" * 1_000] * 999 + [None]})
    text, page = display.as_text(table), display.as_html(table)
    assert len(text.splitlines()) == limits.SHOWN_ROWS_MAX + 3 and max(map(len, text.splitlines())) < limits.SHOWN_TEXT_MAX + 20
    assert text.endswith("1,000 rows, the first 20 are shown") and "1,000 rows, the first 20 are shown" in page
    assert page.count("<tr>") == limits.SHOWN_ROWS_MAX + 1 and "<b>" not in page and "&lt;b&gt;&amp;" in page
    assert "NULL" in display.as_text(table.slice(999)) and '<td class="null">NULL</td>' in display.as_html(table.slice(999))
    wide = pyarrow.table([[1]] * 100, names=["same"] * 100)
    assert f"{limits.SHOWN_COLUMNS_MAX} of 100 columns" in display.as_text(wide)
    assert display.as_text(pyarrow.table({"a": pyarrow.array([], pyarrow.int64())})) == "a\n-\n0 rows"


@pytest.mark.parametrize(
    ("sql", "values", "expected"),
    [
        ("SELECT $a, $b, $a", {"a": 1, "b": 2}, ("SELECT $1, $2, $1", [1, 2])),
        ("SELECT '$a', \"$a\", $a -- $a\n/* $b */", {"a": 1}, ("SELECT '$a', \"$a\", $1 -- $a\n/* $b */", [1])),
        ("SELECT 'it''s $a' || $a", {"a": "x"}, ("SELECT 'it''s $a' || $1", ["x"])),
        ("SELECT 1", {}, ("SELECT 1", [])),
    ],
)
def test_names_of_parameters_become_numbers(sql, values, expected):
    assert sql_parameters.numbered(sql, values) == expected


def test_a_notebook_shows_results(running):
    cells = ["%load_ext bowshot", f"%sql {running.uri}", "%sql SELECT 42 AS answer, '<i>' AS text", "%sql SELECT nothing"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=100, allow_errors=True).execute()
    shown, failed = notebook.cells[2].outputs[0]["data"], notebook.cells[3].outputs
    assert (
        '<td class="number">42</td><td>&lt;i&gt;</td>' in shown["text/html"]
        and "answer" in shown["text/plain"]
        and "1 row" in shown["text/plain"]
    )
    assert "No field named nothing" in str(failed) and "Traceback" not in str(failed)
