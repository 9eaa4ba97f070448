"""Catalogs and names as BI tools look for them: information_schema, SHOW and DESCRIBE, keys, comments, functions of the session."""

import adbc_driver_manager
import cluster
import flight_messages
import pytest


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    nodes = [cluster.Node(name, {"data": folder / name}, "eu", kernel_device="off") for name in ("node-1", "node-2", "node-3")]
    with cluster.Cluster(folder / "cluster", nodes) as started:
        for sql in (
            "CREATE SCHEMA shop",
            "CREATE TABLE shop.customers (id BIGINT NOT NULL PRIMARY KEY, name VARCHAR DEFAULT 'nobody', since TIMESTAMP)",
            """CREATE TABLE shop.orders (id BIGINT NOT NULL, line INT NOT NULL, customer BIGINT REFERENCES shop.customers (id), total DECIMAL(12,2),
               CONSTRAINT orders_key PRIMARY KEY (id, line))""",
            "CREATE TABLE shop.returns (order_id BIGINT, order_line INT, CONSTRAINT returned FOREIGN KEY (order_id, order_line) REFERENCES shop.orders)",
            "COMMENT ON TABLE shop.orders IS 'what was bought'",
            "COMMENT ON COLUMN shop.orders.total IS 'with tax'",
            "INSERT INTO shop.orders VALUES (1, 1, 7, 10.50), (1, 2, 7, 2.25)",
        ):
            started.rows(sql)
        yield started


def test_information_schema_has_the_names_of_sql(running):
    columns = running.rows(
        """SELECT column_name, ordinal_position, column_default, is_nullable, data_type, numeric_precision, numeric_scale, datetime_precision, column_comment
        FROM information_schema.columns WHERE table_schema = 'shop' AND table_name IN ('customers', 'orders') ORDER BY table_name, ordinal_position"""
    )
    assert columns == [
        ("id", 1, None, "NO", "BIGINT", 64, 0, None, None),
        ("name", 2, "'nobody'", "YES", "VARCHAR", None, None, None, None),
        ("since", 3, None, "YES", "TIMESTAMP", None, None, 6, None),
        ("id", 1, None, "NO", "BIGINT", 64, 0, None, None),
        ("line", 2, None, "NO", "INTEGER", 32, 0, None, None),
        ("customer", 3, None, "YES", "BIGINT", 64, 0, None, None),
        ("total", 4, None, "YES", "DECIMAL", 12, 2, None, "with tax"),
    ]
    tables = running.rows("SELECT table_name, table_type, table_rows, table_comment FROM information_schema.tables WHERE table_schema = 'shop' ORDER BY 1")
    assert tables == [("customers", "BASE TABLE", 0, None), ("orders", "BASE TABLE", 2, "what was bought"), ("returns", "BASE TABLE", 0, None)]
    assert ("bowshot", "shop") in running.rows("SELECT catalog_name, schema_name FROM information_schema.schemata")


def test_keys_in_information_schema(running):
    constraints = running.rows("SELECT table_name, constraint_name, constraint_type, enforced FROM information_schema.table_constraints ORDER BY 1, 2")
    assert constraints == [
        ("customers", "customers_pkey", "PRIMARY KEY", "NO"),
        ("orders", "orders_customer_fkey", "FOREIGN KEY", "NO"),
        ("orders", "orders_key", "PRIMARY KEY", "NO"),
        ("returns", "returned", "FOREIGN KEY", "NO"),
    ]
    # As tools join them: a foreign key's columns with those that they reference.
    joined = running.rows(
        """SELECT k.table_name, k.column_name, u.table_name, u.column_name
        FROM information_schema.referential_constraints r
        JOIN information_schema.key_column_usage k ON k.constraint_name = r.constraint_name AND k.constraint_schema = r.constraint_schema
        JOIN information_schema.key_column_usage u ON u.constraint_name = r.unique_constraint_name
         AND u.constraint_schema = r.unique_constraint_schema AND u.ordinal_position = k.position_in_unique_constraint
        ORDER BY 1, 2"""
    )
    assert joined == [
        ("orders", "customer", "customers", "id"),
        ("returns", "order_id", "orders", "id"),
        ("returns", "order_line", "orders", "line"),
    ]


def test_keys_by_the_commands_of_flight_sql(running):
    client, _ = flight_messages.connect(running.port)

    def columns(name, fields, *wanted):
        found = flight_messages.ask(client, name, fields).to_pydict()
        return list(zip(*(found[column] for column in wanted)))

    with client:
        primary = columns("CommandGetPrimaryKeys", {2: "shop", 3: "orders"}, "column_name", "key_name", "key_sequence")
        assert primary == [("id", "orders_key", 1), ("line", "orders_key", 2)]
        both = ("fk_table_name", "fk_column_name", "pk_table_name", "pk_column_name", "key_sequence", "fk_key_name", "pk_key_name", "update_rule")
        returned = [("returns", "order_id", "orders", "id", 1, "returned", "orders_key", 3), ("returns", "order_line", "orders", "line", 2, "returned", "orders_key", 3)]
        assert columns("CommandGetImportedKeys", {2: "shop", 3: "returns"}, *both) == returned
        assert columns("CommandGetExportedKeys", {2: "shop", 3: "orders"}, *both) == returned
        assert columns("CommandGetCrossReference", {2: "shop", 3: "orders", 5: "shop", 6: "returns"}, *both) == returned
        assert columns("CommandGetCrossReference", {2: "shop", 3: "customers", 5: "shop", 6: "returns"}, *both) == []
        assert columns("CommandGetImportedKeys", {2: "nowhere", 3: "returns"}, *both) == []


def test_keys_are_added_and_taken_away(running):
    running.rows("CREATE TABLE shop.later (a INT, b BIGINT)")
    running.rows("ALTER TABLE shop.later ADD PRIMARY KEY (a)")
    running.rows("ALTER TABLE shop.later ADD CONSTRAINT of_customer FOREIGN KEY (b) REFERENCES shop.customers")
    names = "SELECT constraint_name FROM information_schema.table_constraints WHERE table_name = 'later' ORDER BY 1"
    assert running.rows(names) == [("later_pkey",), ("of_customer",)]
    running.rows("ALTER TABLE shop.later DROP CONSTRAINT later_pkey")
    running.rows("ALTER TABLE shop.later DROP CONSTRAINT IF EXISTS later_pkey")
    assert running.rows(names) == [("of_customer",)]
    for sql, why in (
        ("ALTER TABLE shop.later ADD PRIMARY KEY (c)", "has no column c"),
        ("ALTER TABLE shop.later ADD FOREIGN KEY (a) REFERENCES shop.nowhere", "there is no table shop.nowhere"),
        ("ALTER TABLE shop.later ADD FOREIGN KEY (a, b) REFERENCES shop.customers (id)", "has 2 column\\(s\\) and references 1"),
        ("ALTER TABLE shop.later ADD FOREIGN KEY (a) REFERENCES shop.returns", "has no primary key"),
        ("ALTER TABLE shop.later ADD CHECK (a > 0)", "primary and foreign keys are"),
        ("ALTER TABLE shop.later DROP CONSTRAINT nothing", "has no key nothing"),
    ):
        with pytest.raises(adbc_driver_manager.Error, match=why):
            running.rows(sql)
    # Keys outlive a restart; one that points to a table that is gone is not told of.
    running.rows("CREATE TABLE shop.target (id INT PRIMARY KEY)")
    running.rows("ALTER TABLE shop.later ADD CONSTRAINT dangling FOREIGN KEY (a) REFERENCES shop.target")
    running.restart_server()
    running.wait_ready()
    assert running.rows(names) == [("dangling",), ("of_customer",)]
    running.rows("DROP TABLE shop.target")
    assert running.rows(names) == [("of_customer",)]
    running.rows("DROP TABLE shop.later")


def test_show_and_describe(running):
    assert [row[2] for row in running.rows("SHOW TABLES FROM shop LIKE 'o%'")] == ["orders"]
    assert ("shop", "bowshot") in running.rows("SHOW SCHEMAS") and running.rows("SHOW CATALOGS") == [("bowshot",)]
    described = [("id", "BIGINT", "NO", None, None), ("name", "VARCHAR", "YES", "'nobody'", None), ("since", "TIMESTAMP", "YES", None, None)]
    assert running.rows("DESCRIBE shop.customers") == running.rows("DESC shop.customers") == described
    assert [row[3:5] for row in running.rows("SHOW COLUMNS FROM shop.orders LIKE 't%'")] == [("total", "DECIMAL")]
    assert running.rows("SHOW bowshot.kernel") == [("bowshot.kernel", "auto")]
    assert ("bowshot.kernel", "auto") in running.rows("SHOW ALL")
    assert running.rows("SHOW FUNCTIONS LIKE 'upper'")
    with running.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE VIEW shop.large AS SELECT * FROM shop.orders WHERE total > 5")
        cursor.execute("SHOW VIEWS")
        assert [row[1:3] for row in cursor.fetchall()] == [("shop", "large")]
        cursor.execute("SHOW CREATE VIEW shop.large")
        assert cursor.fetchall() == [("shop", "large", "CREATE VIEW shop.large AS SELECT * FROM shop.orders WHERE total > 5")]
    for sql, why in (
        ("DESCRIBE shop.nothing", "there is no table shop.nothing"),
        ("SHOW COLUMNS FROM nothing", "there is no table public.nothing"),
        ("SHOW nonsense", "'nonsense' is not a setting"),
    ):
        with pytest.raises(adbc_driver_manager.Error, match=why):
            running.rows(sql)


def test_a_table_is_made_anew_by_its_own_definition(running):
    for table in ("customers", "orders", "returns"):
        ((_, _, definition),) = running.rows(f"SHOW CREATE TABLE shop.{table}")
        running.rows(definition.replace(f"shop.{table} (", f"shop.{table}_again (").replace("CONSTRAINT ", "CONSTRAINT again_"))
        again, first = (running.rows(f"DESCRIBE shop.{table}{suffix}") for suffix in ("_again", ""))
        assert [row[:4] for row in again] == [row[:4] for row in first]
        running.rows(f"DROP TABLE shop.{table}_again")


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("SELECT id, line, id FROM shop.orders", ["id", "line", "id"]),
        ("SELECT *, total FROM shop.orders", ["id", "line", "customer", "total", "total"]),
        ('SELECT o.total, line AS "Total", customer AS total, TOTAL FROM shop.orders o ORDER BY o.total', ["total", "Total", "total", "total"]),
        ("SELECT COUNT(*), count(*), sum(line), max(id), sum(line) FROM shop.orders", ["count(*)", "count(*)", "sum(shop.orders.line)", "max(shop.orders.id)", "sum(shop.orders.line)"]),
        ("SELECT id + 1, o.*, id + 1 FROM shop.orders o LIMIT 1", ["o.id + Int64(1)", "id", "line", "customer", "total", "o.id + Int64(1)"]),
        ("SELECT 'x' AS a, 'y' AS a UNION ALL SELECT 'x', 'x'", ["a", "a"]),
        ("SELECT o.id, c.id, o.id AS id FROM shop.orders o LEFT JOIN shop.customers c ON c.id = o.customer", ["id", "id", "id"]),
    ],
)
@pytest.mark.parametrize("way", ["coordinator", "workers"])
def test_columns_of_a_result_may_share_a_name(running, sql, names, way):
    with running.connect(result_endpoints=way) as connection, connection.cursor() as cursor:
        announced = cursor.adbc_execute_schema(sql).names
        cursor.execute(sql)
        table = cursor.fetch_arrow_table()
    assert announced == table.schema.names == names
    assert table.num_rows > 0
    assert any("projection" in line.lower() for row in running.rows(f"EXPLAIN {sql}") for line in row)


def test_columns_that_share_a_name_are_of_results_alone(running):
    for sql in (
        "CREATE VIEW twice AS SELECT id, id FROM shop.orders",
        "CREATE TABLE twice AS SELECT id, id FROM shop.orders",
        "SELECT * FROM (SELECT id, id FROM shop.orders) AS twice",
    ):
        with pytest.raises(adbc_driver_manager.Error, match='unique expression names but the expression "shop.orders.id" at position 0'):
            running.rows(sql)
    # A name that nobody knows is not the reason that is named.
    with pytest.raises(adbc_driver_manager.Error, match="nothing"):
        running.rows("SELECT id, id, nothing FROM shop.orders")
