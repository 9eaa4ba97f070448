"""Tables that are pinned to regions: their rows stay there, aggregates of them leave, and what is refused says why."""

import re

import cluster
import pyarrow
import pyarrow.parquet
import pytest

ROWS = 2_000
NODES = {"eu-1": "eu", "eu-2": "eu", "us-1": "us", "us-2": "us"}


def write(folder, table, number, columns):
    target = folder / table / f"part-{number}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), target, row_group_size=500)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """`people_eu` and `people_us` lie in their regions and are pinned there, `orders` lies everywhere and is not."""
    folder = tmp_path_factory.mktemp("regions")
    nodes = []
    for number, (node_id, region) in enumerate(NODES.items()):
        volume = folder / node_id
        ids = list(range(number, 4 * ROWS, 4))
        names = [f"{region}-canary-{value}" for value in ids]
        write(volume, f"people_{region}", number, {"id": ids, "name": names, "age": [value % 90 for value in ids]})
        write(volume, "orders", number, {"person": [value * 7 % (4 * ROWS) for value in ids], "amount": [value % 100 for value in ids]})
        nodes.append(cluster.Node(node_id, {"data": volume}, region=region))
    settings = "[coordinator]\nreplication_grace_ms = 3000\n"
    with cluster.Cluster(folder / "cluster", nodes, settings) as running:
        for region in ("eu", "us"):
            name = f"people_{region}"
            running.rows(f"CREATE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION 'node://*/data/{name}/' OPTIONS ('regions' '{region}')")
        running.create_table("orders", "node://*/data/orders/")
        yield running


def people(region):
    return [value for number, of in enumerate(NODES.values()) if of == region for value in range(number, 4 * ROWS, 4)]


def amounts():
    return {value * 7 % (4 * ROWS): value % 100 for value in range(4 * ROWS)}


LEGAL = {
    "rows for a client in their region": (
        "SELECT count(*) FROM (SELECT id, name FROM people_eu LIMIT 100000) rows",
        lambda: [(len(people("eu")),)],
    ),
    "aggregates of the other region": (
        "SELECT count(*), sum(id), min(id), max(age) FROM people_us",
        lambda: [(len(people("us")), sum(people("us")), min(people("us")), 89)],
    ),
    "groups of the other region": (
        "SELECT age, count(*) FROM people_us WHERE age < 3 GROUP BY age",
        lambda: [(age, sum(value % 90 == age for value in people("us"))) for age in range(3)],
    ),
    "a join within a region": (
        "SELECT count(*) FROM people_us a JOIN people_us b ON a.id = b.id + 4",
        lambda: [(len(set(people("us")) & {value + 4 for value in people("us")}),)],
    ),
    "a join with a table that may go anywhere": (
        "SELECT count(*), sum(amount) FROM people_us JOIN orders ON person = id",
        lambda: [(len(people("us")), sum(amounts()[value] for value in people("us")))],
    ),
    "a join of the coordinator's region with a table that may go anywhere, as rows": (
        "SELECT id, amount FROM people_eu JOIN orders ON person = id WHERE id < 20",
        lambda: [(value, amounts()[value]) for value in people("eu") if value < 20],
    ),
    "aggregates of both regions together": (
        "SELECT e.age, e.n, u.n FROM (SELECT age, count(*) AS n FROM people_eu GROUP BY age) e"
        " JOIN (SELECT age, count(*) AS n FROM people_us GROUP BY age) u ON e.age = u.age WHERE e.age < 4",
        lambda: [
            (age, sum(value % 90 == age for value in people("eu")), sum(value % 90 == age for value in people("us")))
            for age in range(4)
            if any(value % 90 == age for value in people("eu")) and any(value % 90 == age for value in people("us"))
        ],
    ),
    "distinct values that are counted where they are": (
        "SELECT count(DISTINCT name) FROM people_us",
        lambda: [(len(people("us")),)],
    ),
    "distinct values beside other aggregates": (
        "SELECT count(DISTINCT name), sum(id) FROM people_us",
        lambda: [(len(people("us")), sum(people("us")))],
    ),
    "a union of aggregates": (
        "SELECT sum(n) FROM (SELECT count(*) AS n FROM people_eu UNION ALL SELECT count(*) FROM people_us) both",
        lambda: [(len(people("eu")) + len(people("us")),)],
    ),
}
REFUSED = {
    "rows": "SELECT id, name FROM people_us",
    "one row": "SELECT name FROM people_us ORDER BY id LIMIT 1",
    "distinct rows": "SELECT DISTINCT name FROM people_us",
    "two lists of distinct values": "SELECT count(DISTINCT name), count(DISTINCT age) FROM people_us",
    "lists": "SELECT array_agg(name) FROM people_us",
    "strings": "SELECT string_agg(name, ',') FROM people_us",
    "first values": "SELECT first_value(name ORDER BY id) FROM people_us",
    "medians": "SELECT median(id) FROM people_us",
    "rows of both regions": "SELECT count(*) FROM people_eu e JOIN people_us u ON e.age = u.age",
    "windows": "SELECT name, row_number() OVER (ORDER BY id) FROM people_us",
    "unions": "SELECT name FROM people_eu UNION ALL SELECT name FROM people_us",
    "subqueries": "SELECT id FROM people_eu WHERE age IN (SELECT age FROM people_us WHERE name LIKE '%canary-3')",
}


@pytest.mark.parametrize("what", LEGAL)
def test_what_may_leave_is_answered(running, what):
    sql, expected = LEGAL[what]
    assert sorted(running.rows(sql)) == sorted(expected())


@pytest.mark.parametrize("what", REFUSED)
def test_what_must_stay_is_refused_with_table_and_border(running, what):
    with pytest.raises(Exception) as refusal:
        running.rows(REFUSED[what])
    text = str(refusal.value)
    assert "PERMISSION_DENIED" in text.upper().replace(" ", "_") or "UNAUTHORIZED" in text.upper(), text
    assert "people_us must stay in us" in text or "people_eu must stay in eu" in text, text
    assert "canary" not in text, text


@pytest.mark.parametrize("sql", ["SELECT sum(CAST(name AS INT)) FROM people_us", "SELECT count(*) FROM people_us a JOIN people_us b ON a.id = CAST(b.name AS INT)"])
def test_an_error_about_a_row_stays_in_its_region(running, sql):
    with pytest.raises(Exception) as failure:
        running.rows(sql)
    text = str(failure.value)
    assert "canary" not in text and "over rows that must stay in us" in text and re.search(r"on node us-\d", text), text
    assert "INVALID_ARGUMENT" in text.upper().replace(" ", "_") or "InvalidArgument" in text, text
    assert any("canary" in worker.log_text() for name, worker in running.workers.items() if name.startswith("us")), "the node's log says which"
    with pytest.raises(Exception, match="eu-canary"):
        running.rows(sql.replace("people_us", "people_eu"))


def test_copies_stay_in_their_region(running):
    running.rows("ALTER TABLE people_us SET (replicas = 2)")
    missing = "SELECT path FROM system.files WHERE table_name = 'people_us' AND state = 'live' GROUP BY path HAVING count(*) < 2"
    cluster.wait_until("copies are made", 60, lambda: running.rows(missing) == [])
    assert running.rows("SELECT DISTINCT region FROM system.files WHERE table_name = 'people_us'") == [("us",)]
    sql, expected = LEGAL["aggregates of the other region"]
    running.workers["us-2"].kill()
    try:
        assert running.rows(sql) == expected()
        with pytest.raises(Exception, match="must stay in us"):
            running.rows(REFUSED["rows"])
    finally:
        running.restart_worker("us-2")


def test_a_table_is_not_pinned_to_where_its_files_are_not(running):
    with pytest.raises(Exception, match="lies on node us-1 in us"):
        running.rows("ALTER TABLE orders SET (regions = 'eu')")
    with pytest.raises(Exception, match="is no region"):
        running.rows("ALTER TABLE orders SET (regions = 'Europe!')")


def test_a_region_without_workers_is_an_error_not_a_detour(running):
    for node_id in ("us-1", "us-2"):
        running.workers[node_id].kill()
    try:
        with pytest.raises(Exception, match="no live replica of"):
            running.rows("SELECT count(*) FROM people_us")
        assert running.rows("SELECT count(*) FROM people_eu") == [(len(people("eu")),)]
    finally:
        for node_id in ("us-1", "us-2"):
            running.restart_worker(node_id)
