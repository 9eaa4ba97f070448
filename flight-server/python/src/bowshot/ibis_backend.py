"""Ibis over a server: expressions become SQL of the engine, rows travel as Arrow through ADBC."""

import contextlib
import urllib.parse
import weakref

import adbc_driver_manager
import ibis
import ibis.common.exceptions as exceptions
import ibis.expr.operations as ops
import ibis.expr.types as ir
import pyarrow
import pyarrow.dataset
import sqlglot as sg
import sqlglot.expressions as sge
from ibis.backends import CanCreateDatabase, CanListCatalog, DirectPyArrowExampleLoader, HasCurrentCatalog, HasCurrentDatabase
from ibis.backends.sql import SQLBackend
from ibis.formats.pyarrow import PyArrowSchema

import bowshot
from bowshot import interrupts
from bowshot.ibis_compiler import compiler
from bowshot.ibis_types import column_definition

# Rows of a batch that `to_pyarrow_batches` gives at most, unless it is told otherwise: Ibis' own default.
BATCH_ROWS_MAX = 1_000_000


class Backend(SQLBackend, CanListCatalog, CanCreateDatabase, HasCurrentCatalog, HasCurrentDatabase, DirectPyArrowExampleLoader):
    """Tables of a server as Ibis expressions. A `database` of Ibis is a schema there.

    Views last as long as the connection. Tables in memory that an expression uses are sent to the current schema as tables of the server,
    and dropped when the connection is closed, or the program ends.
    """

    name = "bowshot"
    compiler = compiler
    supports_python_udfs = False

    def do_connect(self, *arguments, **parameters):
        """Connect to a server; the parameters are those of `bowshot.connect`."""
        if hasattr(self, "_closing"):
            self._closing()
        self.con = bowshot.connect(*arguments, **parameters)
        self._sent = set()
        # What happens without `disconnect`: the tables in memory go before the connection does.
        self._closing = weakref.finalize(self, _close, self.con, self._sent)

    def _from_url(self, url, **parameters):
        """`ibis.connect("bowshot://user:password@host:port/schema")`; with `?tls=true`, or anything about certificates, it is encrypted."""
        encrypted = str(parameters.pop("tls", "false")).lower() in ("true", "1")
        encrypted = encrypted or bool(parameters.keys() & {"ca", "certificate", "key", "server_name", "skip_verification"})
        if isinstance(parameters.get("skip_verification"), str):
            parameters["skip_verification"] = parameters["skip_verification"].lower() in ("true", "1")
        if isinstance(parameters.get("timeout"), str):
            parameters["timeout"] = float(parameters["timeout"])
        if schema := urllib.parse.unquote(url.path.strip("/")):
            parameters.setdefault("schema", schema)
        return self.connect(f"{'grpc+tls' if encrypted else 'grpc'}://{url.netloc}", **parameters)

    @classmethod
    def from_connection(cls, connection, /):
        """A backend over a connection that `bowshot.connect` gave. Closing one closes the other."""
        backend = cls()
        backend._can_reconnect = False
        backend.con, backend._sent = connection, set()
        backend._closing = weakref.finalize(backend, _close, backend.con, backend._sent)
        return backend

    def disconnect(self):
        """Drops the tables in memory that were sent, and closes the connection."""
        self._closing()

    # What there is.

    @property
    def version(self):
        """The version of the server."""
        return self.con.adbc_get_info()["vendor_version"]

    @property
    def current_catalog(self):
        return self.con.adbc_current_catalog

    @property
    def current_database(self):
        return self.con.adbc_current_db_schema

    def list_catalogs(self, *, like=None):
        catalogs = self.con.adbc_get_objects(depth="catalogs").read_all().to_pylist()
        return self._filter_with_like([catalog["catalog_name"] for catalog in catalogs], like)

    def list_databases(self, *, like=None, catalog=None):
        wanted = catalog or self.current_catalog
        catalogs = self.con.adbc_get_objects(depth="db_schemas").read_all().to_pylist()
        schemas = [schema for found in catalogs if found["catalog_name"] == wanted for schema in found["catalog_db_schemas"] or []]
        return self._filter_with_like([schema["db_schema_name"] for schema in schemas], like)

    def list_tables(self, *, like=None, database=None):
        catalog, schema = self._place(database)
        wanted = {"table_catalog": catalog or self.current_catalog, "table_schema": schema or self.current_database}
        query = sg.select("table_name").from_(sg.table("tables", db="information_schema")).order_by("table_name")
        query = query.where(*(sg.column(column).eq(sge.convert(value)) for column, value in wanted.items()))
        with self._safe_raw_sql(query) as cursor:
            return self._filter_with_like(cursor.fetch_arrow_table()["table_name"].to_pylist(), like)

    def get_schema(self, table_name, *, catalog=None, database=None):
        table = self._table(table_name, catalog, database)
        try:
            return self._get_schema_using_query(sg.select("*").from_(table).sql(self.dialect))
        except adbc_driver_manager.Error as error:
            if error.status_code == adbc_driver_manager.AdbcStatusCode.NOT_FOUND:
                raise exceptions.TableNotFound(table.sql(self.dialect)) from error
            raise

    def _get_schema_using_query(self, query):
        # Planned and not run; the schema that the rows themselves would have.
        with self.con.cursor() as cursor:
            return PyArrowSchema.to_ibis(cursor.adbc_execute_schema(query))

    # Statements and rows.

    def raw_sql(self, query):
        """Runs a statement of the server's SQL, and gives its open cursor: close it."""
        with contextlib.suppress(AttributeError):
            query = query.sql(dialect=self.dialect)
        self._log(query)
        cursor = self.con.cursor()
        try:
            cursor.execute(query)
        except BaseException:
            cursor.close()
            raise
        return cursor

    @contextlib.contextmanager
    def _safe_raw_sql(self, query):
        with contextlib.closing(self.raw_sql(query)) as cursor:
            yield cursor

    def to_pyarrow_batches(self, expr, /, *, params=None, limit=None, chunk_size=BATCH_ROWS_MAX, **_):
        """Rows as they arrive. The query is cancelled on the server when the reader is forgotten before its end."""
        self._run_pre_execute_hooks(expr)
        table = expr.as_table()
        cursor = self.raw_sql(self.compile(table, params=params, limit=limit))
        try:
            reader = cursor.fetch_record_batch()
            schema = _result_schema(table.schema().to_pyarrow(), reader.schema)
        except BaseException:
            cursor.close()
            raise
        return pyarrow.RecordBatchReader.from_batches(schema, _batches(cursor, reader, schema, chunk_size))

    def to_pyarrow(self, expr, /, *, params=None, limit=None, **kwargs):
        with self.to_pyarrow_batches(expr, params=params, limit=limit, **kwargs) as reader:
            table = reader.read_all()
        return expr.__pyarrow_result__(table, schema=PyArrowSchema.to_ibis(table.schema))

    def execute(self, expr, /, *, params=None, limit=None, **kwargs):
        with self.to_pyarrow_batches(expr, params=params, limit=limit, **kwargs) as reader:
            table = reader.read_all()
        return expr.__pandas_result__(table.to_pandas(), schema=PyArrowSchema.to_ibis(table.schema))

    def to_polars(self, expr, /, *, params=None, limit=None, **kwargs):
        import polars

        frame = polars.from_arrow(self.to_pyarrow(expr.as_table(), params=params, limit=limit, **kwargs))
        if isinstance(expr, ir.Table):
            return frame
        return frame.item() if isinstance(expr, ir.Scalar) else frame.to_series()

    # Tables and views.

    def create_database(self, name, /, *, catalog=None, force=False):
        """Makes a schema; `force`: if it is not there yet."""
        self._run(sge.Create(kind="SCHEMA", this=self._schema(name, catalog), exists=force))

    def drop_database(self, name, /, *, catalog=None, force=False):
        """Drops a schema, which must be empty; `force`: if it is there."""
        self._run(_drop("SCHEMA", self._schema(name, catalog), force))

    def drop_table(self, name, /, *, database=None, force=False):
        """Drops a table, with its rows unless they are external; `force`: if it is there."""
        self._run(_drop("TABLE", self._table(name, *self._place(database)), force))

    def drop_view(self, name, /, *, database=None, force=False):
        """Drops a view of this session; `force`: if it is there."""
        self._run(_drop("VIEW", self._table(name, *self._place(database)), force))

    def create_table(self, name, /, obj=None, *, schema=None, database=None, temp=False, overwrite=False):
        """Makes a table of the server: of an expression's rows, which do not leave it; of a table in memory (Arrow, pandas, Polars), by
        bulk ingest; or empty, of a schema. `overwrite` replaces one that is there, in one step."""
        if temp:
            raise exceptions.UnsupportedOperationError(
                "Bowshot has no temporary tables: create_view lasts for the session, create_table for good"
            )
        if obj is None and schema is None:
            raise ValueError("Either `obj` or `schema` must be specified")
        schema = ibis.schema(schema) if schema is not None else None
        catalog, db = self._place(database)
        if (rows := _stream(obj, schema)) is not None:
            self._ingest(name, rows, "replace" if overwrite else "create", catalog, db)
            return self.table(name, database=(catalog, db))
        if obj is not None and not isinstance(obj, ir.Expr):
            obj = ibis.memtable(obj)
        if obj is not None and isinstance(obj.op(), ops.InMemoryTable):
            rows = obj.op().data.to_pyarrow(schema or obj.schema())
            if rows.num_rows:
                self._ingest(name, rows, "replace" if overwrite else "create", catalog, db)
                return self.table(name, database=(catalog, db))
            # The driver sends nothing for an ingest without rows.
            obj, schema = None, schema or obj.schema()
        table = self._table(name, catalog, db)
        if obj is None and not all(dtype.nullable for dtype in schema.types):
            # What may not be NULL is said by columns alone, a query cannot.
            columns = ", ".join(column_definition(column, dtype) for column, dtype in schema.items())
            self._run(f"CREATE {'OR REPLACE ' if overwrite else ''}TABLE {table.sql(self.dialect)} ({columns})")
        else:
            query = self.compiler.no_rows(schema) if obj is None else self._selected(obj, schema)
            self._run(sge.Create(kind="TABLE", this=table, expression=query, replace=overwrite))
        return self.table(name, database=(catalog, db))

    def insert(self, name, /, obj, *, database=None, overwrite=False):
        """Adds rows of an expression, or of a table in memory, to a table; `overwrite`: in place of those that are there, in one step."""
        catalog, db = self._place(database)
        if not overwrite and (rows := _stream(obj)) is not None:
            self._ingest(name, rows, "append", catalog, db)
            return
        if not isinstance(obj, ir.Table):
            obj = ibis.memtable(obj)
        if isinstance(obj.op(), ops.InMemoryTable) and not overwrite:
            rows = obj.op().data.to_pyarrow(obj.schema())
            columns = self._get_columns_to_insert(target=name, source=obj, catalog=catalog, db=db)
            if rows.num_rows:
                self._ingest(name, rows.rename_columns(list(columns)), "append", catalog, db)
            return
        self._run_pre_execute_hooks(obj)
        statement = self._build_insert_from_table(target=name, source=obj, db=db, catalog=catalog)
        statement.set("overwrite", overwrite)
        self._run(statement.sql(self.dialect).replace("INSERT OVERWRITE TABLE", "INSERT OVERWRITE", 1) if overwrite else statement)

    def upsert(self, name, /, obj, on, *, database=None):
        raise exceptions.UnsupportedOperationError(
            "Bowshot has no MERGE yet: tables take insert and truncate_table; create_table with overwrite makes one anew"
        )

    def _selected(self, expr, schema):
        """The query of an expression, in columns of a schema; without one, of the types that Ibis says but for decimals and durations, as
        in `_result_schema`."""
        self._run_pre_execute_hooks(expr)
        quoted, alias = self.compiler.quoted, "rows"
        columns = []
        for name, dtype in (schema or expr.as_table().schema()).items():
            column = sg.column(name, table=alias, quoted=quoted)
            kept = schema is None and (dtype.is_decimal() or dtype.is_interval())
            columns.append((column if kept else self.compiler.exactly(column, dtype)).as_(name, quoted=quoted))
        query = self.compiler.to_sqlglot(expr.as_table())
        return sg.select(*columns).from_(query.subquery(sg.to_identifier(alias, quoted=quoted)))

    def _ingest(self, name, rows, mode, catalog, db):
        if catalog is not None and db is None:
            db = self.current_database
        with self.con.cursor() as cursor:
            cursor.adbc_ingest(name, rows, mode=mode, catalog_name=catalog, db_schema_name=db)

    def _register_in_memory_table(self, op):
        rows = op.data.to_pyarrow(op.schema)
        if rows.num_rows:
            self._ingest(op.name, rows, "create", None, None)
        else:
            self._run(sge.Create(kind="TABLE", this=self._table(op.name, None, None), expression=self.compiler.no_rows(op.schema)))
        self._sent.add((self.current_catalog, self.current_database, op.name))

    def _make_memtable_finalizer(self, name):
        """None: they go with the connection."""

    def _create_cached_table(self, name, expr):
        cached = self.create_table(name, expr)
        self._sent.add((self.current_catalog, self.current_database, name))
        return cached

    def _drop_cached_table(self, name):
        # With the connection it has gone already.
        if self._closing.alive:
            self.drop_table(name, force=True)

    def _register_udfs(self, expr):
        """Nothing to register; the compiler names those that it cannot have."""

    def _run(self, statement):
        with self._safe_raw_sql(statement):
            pass

    def _place(self, database):
        """Catalog and schema of a `database` of Ibis: a name, a dotted name, or a tuple."""
        if database is None:
            return None, None
        parts = database.split(".") if isinstance(database, str) else list(database)
        if len(parts) > 2:
            raise exceptions.IbisInputError(f"{database!r} has more parts than a catalog and a schema")
        return tuple([None] * (2 - len(parts)) + parts)

    def _table(self, name, catalog, db):
        return sg.table(name, db=db, catalog=catalog, quoted=self.compiler.quoted)

    def _schema(self, name, catalog):
        # What is a schema in a catalog looks like a table in a schema to the generator.
        return self._table(name, None, catalog)


def _drop(kind, thing, force):
    """As text: the generator's form of DROP differs between releases that Ibis allows."""
    return f"DROP {kind} {'IF EXISTS ' if force else ''}{thing.sql(compiler.dialect)}"


def _stream(rows, schema=None):
    """Batches of what need not be in memory as a whole; `None` for anything else."""
    if isinstance(rows, pyarrow.dataset.Dataset):
        rows = rows.scanner().to_reader()
    if not isinstance(rows, pyarrow.RecordBatchReader):
        return None
    return rows if schema is None else rows.cast(schema.to_pyarrow())


def _result_schema(expected, sent):
    """The columns that Ibis expects. Decimals and durations stay as the server computed them: Ibis gives a product the digits of its
    factors, and a difference of timestamps whole seconds, and would round both."""

    def exact(field, found):
        kept = any(is_kind(field) and is_kind(found) for is_kind in (pyarrow.types.is_decimal, pyarrow.types.is_duration))
        return found if kept else field

    return pyarrow.schema([field.with_type(exact(field.type, found.type)) for field, found in zip(expected, sent, strict=True)])


def _batches(cursor, reader, schema, rows_max):
    """Batches in the columns of a schema. The cursor is closed at their end, or when nobody wants more."""
    with contextlib.closing(cursor), reader:
        for batch in interrupts.batches(reader, cursor.adbc_cancel):
            columns = [column.cast(field.type) for column, field in zip(batch.columns, schema, strict=True)]
            batch = pyarrow.RecordBatch.from_arrays(columns, schema=schema)
            for start in range(0, batch.num_rows, rows_max):
                yield batch.slice(start, rows_max)


def _close(connection, sent):
    for catalog, db, name in sent:
        # The rest is dropped all the same, and the connection closed; a table that its user has dropped is no matter.
        with contextlib.suppress(adbc_driver_manager.Error), connection.cursor() as cursor:
            cursor.execute(_drop("TABLE", sg.table(name, db=db, catalog=catalog, quoted=True), force=True))
    sent.clear()
    connection.close()
