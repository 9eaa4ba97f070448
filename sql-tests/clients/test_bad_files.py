"""Files that lie, rot or vanish: no table is short or wrong for one of them, and each is named."""

import concurrent.futures
import os
import shutil

import adbc_driver_manager
import cluster
import duckdb
import liar
import pytest
import test_flights

KERNELS = ["off", "host"]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    nodes = [cluster.Node(f"node-{number}", {"data": folder / f"node-{number}"}, kernel_device="off") for number in (1, 2)]
    (folder / "served" / "bucket").mkdir(parents=True)
    with test_flights.bucket_server(folder / "served") as endpoint:
        settings = f"""
            [coordinator]
            tables_volume = "data"
            [[coordinator.storage]]
            url = "s3://bucket"
            endpoint = "{endpoint}"
            access_key_id = "{test_flights.KEY}"
            secret_access_key = "{test_flights.SECRET}"
            allow_http = true
            """
        with cluster.Cluster(folder / "cluster", nodes, settings=settings) as started:
            started.volumes = {**{node.node_id: node.volumes["data"] for node in nodes}, "bucket": folder / "served" / "bucket"}
            started.good = folder / "good.parquet"
            liar.write(started.good)
            yield started


def refusal(running, sql, **options):
    with pytest.raises(adbc_driver_manager.Error) as caught:
        running.rows(sql, **options)
    said = str(caught.value)
    assert "lost node" not in said and "(Internal;" not in said and "anicked" not in said, said
    return said


def put(running, name, file, node="node-2"):
    """A copy of the good file at `name/file` of a node."""
    place = running.volumes[node] / name / file
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(running.good, place)
    return place


def swap(fields, one, other):
    if one in fields or isinstance(fields, list):
        fields[one], fields[other] = fields[other], fields[one]


def each_group(change):
    def of_footer(footer):
        for group in footer[liar.GROUPS]:
            change(group)

    return of_footer


def of_column(change, number=0):
    return lambda footer: change(liar.column(footer, 1, number))


def of_meta(change, number=0):
    return lambda footer: change(liar.column(footer, 1, number)[liar.META])


def of_statistics(change, number=0):
    return of_meta(lambda meta: change(meta[liar.STATISTICS]), number)


def swapped_bounds(statistics):
    swap(statistics, liar.MIN, liar.MAX)
    swap(statistics, liar.OLD_MIN, liar.OLD_MAX)


def two_columns_in_one_place(footer):
    for field in (liar.DATA_AT, liar.DICTIONARY_AT, liar.COMPRESSED):
        liar.column(footer, 1, 1)[liar.META][field] = liar.column(footer, 1, 0)[liar.META].get(field)
    liar.column(footer, 1, 1)[liar.META].pop(liar.DICTIONARY_AT)


def a_row_group_twice(footer):
    footer[liar.GROUPS][1] = footer[liar.GROUPS][0]


def columns_in_another_order(footer):
    for group in footer[liar.GROUPS]:
        swap(group[liar.COLUMNS], 0, 1)


def pages_of_another_group(footer):
    for field in (liar.PAGES_AT, liar.PAGES_LENGTH):
        liar.column(footer, 1)[field] = liar.column(footer, 2)[field]


def bounds_of_another_type(footer):
    for field in (liar.BOUNDS_AT, liar.BOUNDS_LENGTH):
        liar.column(footer, 1, 0)[field] = liar.column(footer, 1, 2)[field]


def many_rows(footer):
    footer[liar.ROWS] = 2**62
    footer[liar.GROUPS][0][liar.GROUP_ROWS] = 2**62 - 2000
    for column in footer[liar.GROUPS][0][liar.COLUMNS]:
        column[liar.META][liar.VALUES] = 2**62 - 2000


LIES = {
    "no rows": (lambda footer: footer.update({liar.ROWS: 0}), "the file has 0 rows, and its row groups have 3000"),
    "rows of a group": (each_group(lambda group: group.update({liar.GROUP_ROWS: 2**62})), "row group 0: column n: it has 1000 values of 4611686018427387904 rows"),
    "rows of a group less than none": (lambda footer: footer[liar.GROUPS][0].update({liar.GROUP_ROWS: -5}), "row group 0: it has -5 rows"),
    "more rows than bytes": (many_rows, "values cannot lie in"),
    "fewer values": (of_meta(lambda meta: meta.update({liar.VALUES: 999}), 1), "row group 1: column m: it has 999 values of 1000 rows"),
    "swapped bounds": (of_statistics(swapped_bounds), "row group 1: column n: its least value is greater than its greatest value"),
    "swapped bounds of text": (of_statistics(swapped_bounds, 2), "row group 1: column s: its least value is greater than its greatest value"),
    "more nulls than values": (of_statistics(lambda of: of.update({liar.NULLS: 1001})), "row group 1: column n: 1001 of its 1000 values are NULL"),
    "bytes less than none": (of_meta(lambda meta: meta.update({liar.COMPRESSED: -1})), "row group 1: column n: it has -1 bytes"),
    "before the file": (of_meta(lambda meta: meta.update({liar.DATA_AT: -9, liar.DICTIONARY_AT: None})), "from byte -9"),
    "beyond the file": (of_meta(lambda meta: meta.update({liar.COMPRESSED: 2**40})), "row group 1: column n: 1099511627776 bytes from byte"),
    "over each other": (two_columns_in_one_place, "two columns lie over each other"),
    "a row group twice": (a_row_group_twice, "two row groups of the file begin at the same byte"),
    "columns in another order": (columns_in_another_order, "row group 0: the values of m stand where the schema has n"),
    "another type": (of_meta(lambda meta: meta.update({liar.TYPE: 1})), "column n is INT64 in the schema, and its values are of type 1"),
    "a column less": (lambda footer: footer[liar.GROUPS][1][liar.COLUMNS].pop(), "Schema has 3 columns while Row Group has 2"),
    "in another file": (of_column(lambda column: column.update({liar.FILE_PATH: "other.parquet"})), "its values lie in another file, other.parquet"),
    "pages of another group": (pages_of_another_group, "row group 1: column n: the index of its pages: page 0 cannot lie at byte"),
    "bounds beyond the file": (of_column(lambda column: column.update({liar.BOUNDS_AT: 2**40})), "its index of bounds cannot lie at byte 1099511627776"),
}


def test_a_footer_that_contradicts_itself_is_refused(running):
    for what, (change, _) in LIES.items():
        put(running, what, "good.parquet", "node-1")
        liar.lie(put(running, what, "liar.parquet"), change)
        liar.lie(put(running, what, "liar.parquet", "bucket"), change)

    def refused(what):
        said = refusal(running, f'CREATE EXTERNAL TABLE "{what}" STORED AS PARQUET LOCATION \'node://*/data/{what}/\'')
        assert f"file {what}/liar.parquet on node node-2 cannot be read as Parquet: " in said and LIES[what][1] in said, said
        said = refusal(running, f'CREATE EXTERNAL TABLE "{what}" STORED AS PARQUET LOCATION \'s3://bucket/{what}/\'')
        assert f"s3://bucket/{what}/liar.parquet cannot be read as Parquet: " in said and LIES[what][1] in said, said

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(refused, LIES))


def test_an_index_of_pages_with_swapped_bounds_is_refused(running):
    file = put(running, "pages", "liar.parquet")
    content, said = bytearray(file.read_bytes()), liar.column(liar.footer_of(file))
    place = slice(said[liar.BOUNDS_AT], said[liar.BOUNDS_AT] + said[liar.BOUNDS_LENGTH])
    least, greatest, between = liar.number(1000), liar.number(1999), b"between."
    content[place] = content[place].replace(least, between).replace(greatest, least).replace(between, greatest)
    file.write_bytes(content)
    said = refusal(running, "CREATE EXTERNAL TABLE pages STORED AS PARQUET LOCATION 'node://*/data/pages/'")
    assert "column n: the index of its pages: the least value of page 0 is greater than its greatest value" in said, said


def old_bounds(least, greatest):
    def change(footer):
        for group in footer[liar.GROUPS]:
            column = group[liar.COLUMNS][0]
            column[liar.META][liar.STATISTICS] = {liar.OLD_MAX: greatest, liar.OLD_MIN: least, liar.NULLS: 0}
            for field in (liar.BOUNDS_AT, liar.BOUNDS_LENGTH):
                column.pop(field)

    return change


def test_bounds_in_the_order_of_old_writers_leave_nothing_out(running):
    """Before 2017 writers compared strings by signed bytes: é came before a."""
    file = running.volumes["node-2"] / "old" / "old.parquet"
    liar.write(file, s=["a", "é", "z"] * 1000)
    liar.lie(file, old_bounds("é".encode(), b"z"))
    running.create_table("old", "node://*/data/old/")
    for kernel in KERNELS:
        for question in ["SELECT count(*) FROM old WHERE s = 'a'", "SELECT count(*) FROM old WHERE s < 'b'", "SELECT min(s), max(s) FROM old"]:
            expected = duckdb.sql(question.replace("old", f"(SELECT s || '' AS s FROM '{file}')")).fetchall()
            assert running.rows(question, kernel=kernel) == expected, (kernel, question)


def test_bad_files_are_left_out_on_purpose(running):
    put(running, "mixed", "good.parquet", "node-1")
    put(running, "mixed", "good.parquet", "bucket")
    whole = running.good.read_bytes()
    bad = {"torn.parquet": whole[:-50], "garbage.parquet": b"garbage" * 99, "empty.parquet": b"", "encrypted.parquet": whole[:-4] + b"PARE"}
    for node in ("node-2", "bucket"):
        for name, content in bad.items():
            put(running, "mixed", name, node).write_bytes(content)
        for other in ["_temporary/0/part.parquet", ".hidden.parquet", "_delta_log/0.checkpoint.parquet", ".staging/x.parquet"]:
            put(running, "mixed", other, node).write_bytes(b"of another engine")
        put(running, "mixed", "_SUCCESS", node).write_bytes(b"")
    skip = "OPTIONS ('on_bad_file' 'skip')"
    for table, location, names in [("mixed", "node://*/data/mixed/", ["mixed/"] * 4), ("stored", "s3://bucket/mixed/", ["s3://bucket/mixed/"] * 4)]:
        create = f"CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{location}'"
        said = refusal(running, create)
        assert f"{names[0]}empty.parquet" in said and "cannot be read as Parquet: a file of 0 bytes is no Parquet file" in said and ", and 3 more" in said, said
        assert "'fail' refuses the table" in refusal(running, f"{create} OPTIONS ('on_bad_file' 'ignore')")
        running.rows(f"{create} {skip}")
        listed = f"SELECT path, node_id, state, reason FROM system.files WHERE table_name = '{table}' AND state = 'unreadable' ORDER BY path"

        def as_it_should_be(table=table, listed=listed, names=names):
            assert running.rows(f"SELECT count(*), sum(n) FROM {table}") == [(liar.ROW_COUNT, sum(range(liar.ROW_COUNT)))]
            found = running.rows(listed)
            assert [path for path, *_ in found] == [f"{names[0]}{name}" for name in sorted(bad)], found
            assert {node for _, node, *_ in found} == ({"node-2"} if table == "mixed" else {None})
            reasons = {path.rsplit("/", 1)[1]: reason for path, _, _, reason in found}
            assert "no Parquet file" in reasons["empty.parquet"] and "encrypted" in reasons["encrypted.parquet"] and all(reasons.values()), reasons
            ((definition,),) = running.rows(f"SELECT definition FROM system.tables WHERE table_name = '{table}'")
            assert definition.endswith(skip), definition

        as_it_should_be()
        running.rows(f"REFRESH TABLE {table}")
        as_it_should_be()
    running.restart_server()
    as_it_should_be()
    for name in ("torn.parquet", "garbage.parquet", "encrypted.parquet"):
        put(running, "mixed", name)
    running.rows("REFRESH TABLE mixed")
    assert running.rows("SELECT count(*) FROM mixed") == [(4 * liar.ROW_COUNT,)]
    assert running.rows("SELECT path FROM system.files WHERE table_name = 'mixed' AND state = 'unreadable'") == [("mixed/empty.parquet",)]
    only = "CREATE EXTERNAL TABLE only STORED AS PARQUET LOCATION 'node://*/data/only/' " + skip
    put(running, "only", "x.parquet").write_bytes(b"")
    assert "none of the 1 Parquet files at node://*/data/only/ can be read" in refusal(running, only)


def test_a_volume_that_is_away_is_not_gone(running):
    for node in ("node-1", "node-2"):
        put(running, "spread", f"{node}.parquet", node)
    running.create_table("spread", "node://*/data/spread/")
    volume = running.volumes["node-2"]
    away = volume.with_name("away")
    volume.rename(away)
    try:
        for statement in ["REFRESH TABLE spread", "CREATE EXTERNAL TABLE half STORED AS PARQUET LOCATION 'node://*/data/spread/'"]:
            said = refusal(running, statement)
            assert f"volume 'data' of node node-2 in {volume} is not there" in said and "Nothing was changed" in said and "(FailedPrecondition;" in said, said
        assert running.rows("SELECT count(*) FROM system.files WHERE table_name = 'spread'") == [(2,)]
        # Where the location does not want the volume, nothing is missing.
        running.create_table("first", "node://node-1/data/spread/")
    finally:
        away.rename(volume)
    cluster.wait_until("the volume is back", 10, lambda: "data" not in refused_now(running, "REFRESH TABLE spread"))
    assert running.rows("SELECT count(*) FROM spread") == [(2 * liar.ROW_COUNT,)]


def refused_now(running, sql):
    try:
        running.rows(sql)
    except adbc_driver_manager.Error as error:
        return str(error)
    return ""


def table_file(running, table):
    """The node and the place of a managed table's only file, as an original."""
    ((node, path),) = running.rows(f"SELECT node_id, path FROM system.files WHERE table_name = '{table}' AND kind = 'original'")
    return node, running.volumes[node] / path


def rot(file):
    """Other bytes in the first page, and the modification time as it was."""
    times, content = file.stat(), bytearray(file.read_bytes())
    content[40:44] = bytes(255 - byte for byte in content[40:44])
    with open(file, "r+b") as opened:
        opened.write(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def state_of(running, table):
    return sorted(running.rows(f"SELECT node_id, kind, state FROM system.files WHERE table_name = '{table}'"))


def test_bytes_that_changed_on_a_disk_are_found_and_healed(running):
    for table in ("alone", "kept"):
        running.rows(f"CREATE TABLE {table} AS SELECT CAST(random() * 1000000 AS BIGINT) AS n FROM generate_series(1, 5000)")
    expected = running.rows("SELECT sum(n) FROM kept")
    running.rows("ALTER TABLE kept SET (replicas = 2)")
    cluster.wait_until("there are two copies", 20, lambda: len(state_of(running, "kept")) == 2)
    files = {table: table_file(running, table) for table in ("alone", "kept")}
    for _, file in files.values():
        rot(file)
    for node in ("node-1", "node-2"):
        running.rows(f"ALTER NODE {node} SCRUB")
    node, file = files["kept"]
    cluster.wait_until("it is damaged", 20, lambda: (node, "original", "damaged") in state_of(running, "kept"))
    # A copy on the same node takes its place.
    cluster.wait_until("it is healed", 20, lambda: {(of, "replica", "live") for of in ("node-1", "node-2")} < set(state_of(running, "kept")))
    for kernel in KERNELS:
        assert running.rows("SELECT sum(n) FROM kept", kernel=kernel) == expected
    node, file = files["alone"]
    cluster.wait_until("it is damaged", 20, lambda: state_of(running, "alone") == [(node, "original", "damaged")])
    said = refusal(running, "SELECT sum(n) FROM alone")
    assert f"node {node} has a damaged copy" in said and file.name in said and "SHA-256" in said, said
    assert not file.exists() and file.with_suffix(".damaged").exists()
    ((reason,),) = running.rows("SELECT reason FROM system.files WHERE table_name = 'alone'")
    assert "SHA-256" in reason
    # It is known after a restart, too.
    running.restart_worker(node)
    assert "has a damaged copy" in refusal(running, "SELECT sum(n) FROM alone")
    assert "not in the cluster" in refusal(running, "ALTER NODE node-9 SCRUB")
    for table in files:
        running.rows(f"DROP TABLE {table}")


def test_a_place_that_is_no_bucket_is_named(running):
    for location in ["s3://é", "s3://é/x/", "s3://ä€/", "s3://user@bucket/x/"]:
        said = refusal(running, f"CREATE EXTERNAL TABLE x STORED AS PARQUET LOCATION '{location}'")
        assert location in said and "bucket name" in said, said


def test_a_table_asks_for_what_there_is(running):
    running.rows("CREATE TABLE free AS SELECT 1 AS n")
    files = "CREATE EXTERNAL TABLE asked STORED AS PARQUET LOCATION 'node://*/data/good/'"
    put(running, "good", "good.parquet")
    for statement, said in [
        ("ALTER TABLE free SET (replicas = 9)", "replicas = 9 wants as many nodes, and 2 in"),
        ("CREATE TABLE many WITH (replicas = 9) AS SELECT 1 AS n", "replicas = 9 wants as many nodes, and 2 in"),
        (f"{files} OPTIONS ('replicas' '9')", "replicas = 9 wants as many nodes, and 2 in"),
        ("CREATE TABLE far (n INT) WITH (regions = 'mars')", "nothing of the cluster is in region 'mars': its nodes and buckets are in eu"),
        ("ALTER TABLE free SET (regions = 'mars')", "CREATE TABLE … WITH (regions = 'mars') AS SELECT * FROM public.free"),
        ("CREATE TABLE odd (n INT) WITH (colour = 'red')", "CREATE TABLE does not know WITH (colour = 'red')"),
    ]:
        assert said in refusal(running, statement), statement
    running.rows("CREATE TABLE pinned WITH (regions = 'eu', replicas = 2) AS SELECT n FROM free")
    ((replicas, regions, definition),) = running.rows("SELECT replicas, regions, definition FROM system.tables WHERE table_name = 'pinned'")
    assert (replicas, regions) == (2, "eu") and definition.endswith("WITH (replicas = 2, regions = 'eu')"), definition
    assert running.rows("SELECT n FROM pinned") == [(1,)]
    running.rows(definition.replace("pinned", "again"))
    running.rows("INSERT INTO again SELECT n FROM pinned")
    for table in ("pinned", "again", "free"):
        running.rows(f"DROP TABLE {table}")


def test_a_drain_says_when_it_is_done(running):
    running.rows("CREATE TABLE moved AS SELECT 1 AS n")
    node, file = table_file(running, "moved")
    running.rows(f"ALTER NODE {node} DRAIN")
    left = lambda: dict(running.rows("SELECT node_id, files_left FROM system.nodes WHERE role = 'worker'"))[node]  # noqa: E731
    assert left() is not None
    try:
        cluster.wait_until("the file is elsewhere", 30, lambda: {of for of, *_ in state_of(running, "moved")} == {"node-1", "node-2"})
        cluster.wait_until("the node is empty", 30, lambda: left() == 0)
        cluster.wait_until("the log says so", 5, lambda: "the node is drained" in running.server.log_text())
    finally:
        running.rows(f"ALTER NODE {node} RESUME")
    assert left() is None
    # What an INSERT that was killed leaves goes with the next start; what no table has is spoken of.
    torn = file.with_name("0b0e7a4e-8f6e-4c43-8b7e-2f6f4bb1c111.part")
    torn.write_bytes(b"PAR1")
    running.restart_worker(node)
    assert not torn.exists() and "an unfinished file of an earlier process was deleted" in running.workers[node].log_text()
    running.rows("DROP TABLE moved")
    cluster.wait_until("the log says so", 5, lambda: "are deleted when no query can be reading them" in running.server.log_text())
