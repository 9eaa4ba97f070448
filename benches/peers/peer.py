"""peer.py ENGINE DATA TABLE…: a peer that answers benchmark queries, one JSON line each way.

ENGINE is duckdb (over Parquet), duckdb-memory, hyper, polars or chdb (tables loaded into their own formats). The first line printed says
that the tables are there. Then reads {"sql", "answer"}; runs the query, writes its rows to `answer` as an Arrow file outside the measured
time, and prints {"seconds", "rows"} or {"error"}.
"""

import glob
import json
import os
import sys
import time

import pyarrow


class Peer:
    def table(self, rows):
        """What a query returned as an Arrow table."""
        return rows

    def close(self):
        pass


class DuckDb(Peer):
    """`form` is VIEW (over Parquet) or TABLE (its own format in memory)."""

    def __init__(self, files, form):
        import duckdb

        self.connection = duckdb.connect()
        self.connection.execute(f"SET threads = {os.cpu_count()}")
        for table, paths in files.items():
            self.connection.execute(f"CREATE {form} {table} AS SELECT * FROM read_parquet({paths})")

    def run(self, sql):
        return self.connection.sql(sql).to_arrow_table()


class Hyper(Peer):
    """A compiling engine. Its rows come as Python values, which costs little on the few rows of these answers."""

    def __init__(self, files):
        from tableauhyperapi import Connection, HyperProcess, Telemetry

        # All cores are its default; it would write a log file.
        parameters = {"log_config": ""}
        self.process = HyperProcess(telemetry=Telemetry.DO_NOT_SEND_USAGE_DATA_TO_TABLEAU, parameters=parameters)
        self.connection = Connection(self.process.endpoint)
        for table, paths in files.items():
            list_of_paths = ", ".join(f"'{path}'" for path in paths)
            source = f"external(ARRAY[{list_of_paths}], FORMAT => 'parquet')"
            self.connection.execute_command(f"CREATE TEMPORARY TABLE {table} AS (SELECT * FROM {source})")

    def run(self, sql):
        return self.connection.execute_list_query(sql)

    def close(self):
        self.connection.close()
        self.process.close()

    def table(self, rows):
        from tableauhyperapi import Date, Timestamp

        def plain_value(value):
            match value:
                case Date():
                    return value.to_date()
                case Timestamp():
                    return value.to_datetime()
            return value

        plain = [[plain_value(value) for value in row] for row in rows]
        columns = list(zip(*plain))
        return pyarrow.table([pyarrow.array(list(column)) for column in columns], names=[f"c{i}" for i in range(len(columns))])


class Polars(Peer):
    def __init__(self, files):
        import polars

        self.context = polars.SQLContext({table: polars.read_parquet(paths) for table, paths in files.items()}, eager=True)

    def run(self, sql):
        return self.context.execute(sql)

    def table(self, rows):
        return rows.to_arrow()


class ChDb(Peer):
    def __init__(self, files):
        from chdb import session

        self.session = session.Session()
        for table, paths in files.items():
            source = " UNION ALL ".join(f"SELECT * FROM file('{path}', Parquet)" for path in paths)
            self.session.query(f"CREATE TABLE {table} ENGINE = Memory AS {source}")

    def run(self, sql):
        answer = self.session.query(sql, "ArrowStream")
        return pyarrow.ipc.open_stream(answer.bytes()).read_all()

    def table(self, rows):
        # The files' times have no time zone; it reads them as times of its own, which is UTC.
        plain = [pyarrow.timestamp(field.type.unit) if pyarrow.types.is_timestamp(field.type) else field.type for field in rows.schema]
        return rows.cast(pyarrow.schema(list(zip(rows.schema.names, plain))))


def start(engine, files):
    match engine:
        case "duckdb":
            return DuckDb(files, "VIEW")
        case "duckdb-memory":
            return DuckDb(files, "TABLE")
        case "hyper":
            return Hyper(files)
        case "polars":
            return Polars(files)
        case "chdb":
            return ChDb(files)
    raise SystemExit(f"no peer '{engine}'")


def main():
    engine, data, *tables = sys.argv[1:]
    # Peers log as they like: the pipe is for answers alone.
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    files = {table: sorted(glob.glob(os.path.join(os.path.abspath(data), "*", table, "*.parquet"))) for table in tables}
    say = lambda answer: print(json.dumps(answer), file=pipe, flush=True)
    try:
        peer = start(engine, {table: paths for table, paths in files.items() if paths})
    except Exception as error:
        say({"error": f"{type(error).__name__}: {error}"})
        return
    say({})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            started = time.perf_counter()
            rows = peer.run(request["sql"])
            seconds = time.perf_counter() - started
            table = peer.table(rows)
            with pyarrow.OSFile(request["answer"], "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
            say({"seconds": seconds, "rows": table.num_rows})
        except Exception as error:  # the benchmark prints it beside the query
            say({"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"})
    peer.close()


if __name__ == "__main__":
    main()
