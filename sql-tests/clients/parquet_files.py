"""Folders of Parquet files as people make them: several writers, odd settings, columns in any order and type, some missing.

`folder(seed, where)` writes one folder; what must be read from it is what DuckDB's read_parquet(…, union_by_name=true) reads.
"""

import datetime
import decimal
import importlib.util
import math
import pathlib
import random
import uuid

import datafusion
import duckdb
import fastparquet
import pandas
import polars
import pyarrow
import pyarrow.compute
import pyarrow.parquet

# A double has every integer up to here: pandas makes doubles of integers beside NULLs.
DOUBLE_EXACT = 2**53
WORDS = ["", "a", "ä", "数据", "word", "a longer text than a view holds in place", "x" * 300, "NULL", "null", "%", "'"]


def _integer(low, high):
    return lambda choose: choose.choice([low, high, choose.randint(low, high), choose.randint(max(low, -5), min(high, 5))])


def _decimal(digits, scale):
    return lambda choose: decimal.Decimal(choose.randint(-(10**digits) + 1, 10**digits - 1)).scaleb(-scale)


def _instant(choose, first=datetime.datetime(1700, 1, 1), last=datetime.datetime(2260, 1, 1), microseconds=1):
    span = (last - first) // datetime.timedelta(microseconds=microseconds)
    return first + choose.randint(0, span) * datetime.timedelta(microseconds=microseconds)


def _day(choose):
    return datetime.date(1700, 1, 1) + datetime.timedelta(days=choose.randint(0, 200_000))


def _double(choose):
    return choose.choice([0.0, 0.5, -1.25, 1e300, math.inf, math.nan, choose.uniform(-1e6, 1e6)])


def _single(choose):
    return choose.choice([0.0, 0.5, -1.25, math.inf, math.nan, float(choose.randint(-1000, 1000)) / 8])


def _time(microseconds):
    def value(choose):
        instant = datetime.datetime.min + choose.randint(0, 86_400_000_000 // microseconds - 1) * datetime.timedelta(microseconds=microseconds)
        return instant.time()

    return value


def _text(choose):
    return choose.choice(WORDS)


def _bytes(choose):
    return bytes(choose.randrange(256) for _ in range(choose.randint(0, 20)))


def _list_of(value):
    return lambda choose: [value(choose) if choose.random() > 0.2 else None for _ in range(choose.randint(0, 4))]


# What a column is to people, and the types in which writers have it, each with the values that all of them hold.
KINDS = {
    "integer": [
        (pyarrow.int8(), _integer(-128, 127)),
        (pyarrow.int16(), _integer(-(2**15), 2**15 - 1)),
        (pyarrow.int32(), _integer(-(2**31), 2**31 - 1)),
        (pyarrow.int64(), _integer(-DOUBLE_EXACT, DOUBLE_EXACT)),
        (pyarrow.uint8(), _integer(0, 255)),
        (pyarrow.uint16(), _integer(0, 2**16 - 1)),
        (pyarrow.uint32(), _integer(0, 2**32 - 1)),
    ],
    "bigint": [(pyarrow.int64(), _integer(-(2**63), 2**63 - 1)), (pyarrow.uint64(), _integer(0, 2**64 - 1)), (pyarrow.int32(), _integer(-9, 9))],
    "double": [(pyarrow.float64(), _double), (pyarrow.float32(), _single), (pyarrow.int32(), _integer(-1000, 1000)), (pyarrow.float16(), lambda choose: choose.randint(-99, 99) / 4)],
    "decimal": [
        (pyarrow.decimal128(9, 2), _decimal(9, 2)),
        (pyarrow.decimal128(18, 4), _decimal(18, 4)),
        (pyarrow.decimal128(25, 0), _decimal(25, 0)),
        (pyarrow.int32(), _integer(-(2**31), 2**31 - 1)),
    ],
    "text": [
        (pyarrow.string(), _text),
        (pyarrow.large_string(), _text),
        (pyarrow.string_view(), _text),
        (pyarrow.dictionary(pyarrow.int8(), pyarrow.string()), _text),
        (pyarrow.dictionary(pyarrow.int32(), pyarrow.large_string()), _text),
    ],
    "binary": [(pyarrow.binary(), _bytes), (pyarrow.large_binary(), _bytes), (pyarrow.binary(4), lambda choose: choose.randbytes(4))],
    "boolean": [(pyarrow.bool_(), lambda choose: choose.random() < 0.5)],
    "day": [(pyarrow.date32(), _day), (pyarrow.date64(), _day)],
    "instant": [
        (pyarrow.timestamp("us"), _instant),
        (pyarrow.timestamp("ms"), lambda choose: _instant(choose, microseconds=1000)),
        (pyarrow.timestamp("ns"), _instant),
        (pyarrow.date32(), _day),
    ],
    "century": [(pyarrow.timestamp("us"), lambda choose: _instant(choose, datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31)))],
    "zoned": [(pyarrow.timestamp("us", "UTC"), _instant), (pyarrow.timestamp("us", "Europe/Berlin"), _instant)],
    "time": [(pyarrow.time64("us"), _time(1)), (pyarrow.time32("ms"), _time(1000))],
    "list": [(pyarrow.list_(pyarrow.int32()), _list_of(_integer(-9, 9))), (pyarrow.large_list(pyarrow.int64()), _list_of(_integer(-(2**40), 2**40)))],
    "texts": [(pyarrow.list_(pyarrow.string()), _list_of(_text)), (pyarrow.large_list(pyarrow.large_string()), _list_of(_text))],
    "struct": [
        (pyarrow.struct([("a", pyarrow.int32()), ("b", pyarrow.string())]), lambda choose: {"a": choose.randint(0, 9), "b": _text(choose)}),
        (pyarrow.struct([("a", pyarrow.int64()), ("b", pyarrow.large_string())]), lambda choose: {"a": choose.randint(0, 2**40), "b": None}),
    ],
    "map": [(pyarrow.map_(pyarrow.string(), pyarrow.int32()), lambda choose: [(word, choose.randint(0, 9)) for word in choose.sample(WORDS, 2)])],
    "uuid": [(pyarrow.uuid(), lambda choose: uuid.UUID(int=choose.getrandbits(128)).bytes)],
    "untyped": [(pyarrow.null(), lambda choose: None)],
}
SIMPLE = {"integer", "double", "text", "boolean", "instant", "day"}
# fastparquet speaks of what pandas had in 2016.
BASIC = {"integer", "double", "text", "boolean"}


def _arrow(table, path, choose, **settings):
    """pyarrow with settings by chance."""
    chosen = {
        "version": choose.choice(["1.0", "2.4", "2.6"]),
        "data_page_version": choose.choice(["1.0", "2.0"]),
        "compression": choose.choice(["none", "snappy", "gzip", "brotli", "lz4", "zstd"]),
        "use_dictionary": choose.random() < 0.6,
        "row_group_size": choose.choice([1, 7, 100_000]),
        "data_page_size": choose.choice([64, 1 << 20]),
        "write_statistics": choose.random() < 0.7,
        "write_page_index": choose.random() < 0.4,
        "write_page_checksum": choose.random() < 0.3,
        "store_schema": choose.random() < 0.7,
        "use_compliant_nested_type": choose.random() < 0.7,
        "store_decimal_as_integer": choose.random() < 0.3,
    }
    if chosen["version"] != "2.6" or choose.random() < 0.5:
        # Nanoseconds of ours are whole microseconds.
        chosen["coerce_timestamps"] = "us"
    chosen.update(settings)
    if not chosen["store_schema"]:
        # Without it nobody knows of these types again.
        table = pyarrow.table({name: _plain(column) for name, column in zip(table.column_names, table.columns)})
    pyarrow.parquet.write_table(table, path, **chosen)


def _plain(column):
    return column.cast(column.type.value_type) if pyarrow.types.is_dictionary(column.type) else column


def _encoded(table, path, choose):
    """The encodings that nobody chooses unless asked."""
    encodings = {}
    for field in table.schema:
        if pyarrow.types.is_int32(field.type) or pyarrow.types.is_int64(field.type):
            encodings[field.name] = "DELTA_BINARY_PACKED"
        elif pyarrow.types.is_floating(field.type) and not pyarrow.types.is_float16(field.type):
            encodings[field.name] = "BYTE_STREAM_SPLIT"
        elif pyarrow.types.is_string(field.type) or pyarrow.types.is_binary(field.type):
            encodings[field.name] = choose.choice(["DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
    _arrow(table, path, choose, use_dictionary=False, column_encoding=encodings)


def _spark(table, path, choose):
    """As Spark lays it out: INT96, the older list layout, snappy, files that are not data beside it."""
    _arrow(table, path, choose, flavor="spark", use_deprecated_int96_timestamps=True, use_compliant_nested_type=False, compression="snappy", coerce_timestamps=None)
    (path.parent / "_SUCCESS").touch()
    (path.parent / f".{path.name}.crc").write_bytes(b"crc")
    attempt = path.parent / "_temporary" / "0"
    attempt.mkdir(parents=True, exist_ok=True)
    (attempt / "part-00000.parquet").write_bytes(b"PAR1 cut off")


def _pandas(table, path, choose):
    frame = table.to_pandas()
    for field in table.schema:
        if pyarrow.types.is_string(field.type) and choose.random() < 0.4:
            frame[field.name] = frame[field.name].astype("category")
    frame.to_parquet(path, engine="pyarrow", index=False, compression=choose.choice([None, "snappy", "gzip"]), row_group_size=choose.choice([3, 1000]))


def _fastparquet(table, path, choose):
    # Of a column of NULLs alone it makes one of bytes.
    kept = {name: _plain(column) for name, column in zip(table.column_names, table.columns) if column.null_count < len(column)}
    frame = pyarrow.table(kept or {"id": table["id"]}).to_pandas()
    offsets = choose.choice([[0], list(range(0, max(len(frame), 1), 5))])
    fastparquet.write(str(path), frame, compression=choose.choice([None, "SNAPPY", "GZIP", "ZSTD"]), row_group_offsets=offsets, write_index=False, stats=choose.random() < 0.5)


def _polars(table, path, choose):
    frame = polars.from_arrow(table)
    statistics = choose.choice([True, False, "full"])
    frame.write_parquet(path, compression=choose.choice(["uncompressed", "snappy", "lz4", "zstd"]), statistics=statistics, row_group_size=choose.choice([4, None]), data_page_size=choose.choice([64, None]))


def _is_int32(kind):
    """In Parquet."""
    return pyarrow.types.is_date(kind) or pyarrow.types.is_time32(kind) or (pyarrow.types.is_integer(kind) and kind.bit_width <= 32)


def _duckdb(table, path, choose):
    halves = [name for name, kind in zip(table.column_names, table.schema.types) if pyarrow.types.is_float16(kind)]
    for name in halves:
        # It knows no half floats.
        table = table.set_column(table.column_names.index(name), name, table[name].cast(pyarrow.float32()))
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("rows_to_write", table)
        options = [f"COMPRESSION {choose.choice(['uncompressed', 'snappy', 'gzip', 'zstd', 'lz4_raw', 'brotli'])}"]
        # V2 writes deltas of INT32 in 64 bits, which Rust's parquet crate refuses.
        if not any(_is_int32(kind) for kind in table.schema.types):
            options.append("PARQUET_VERSION V2")
        if choose.random() < 0.5:
            options.append("ROW_GROUP_SIZE 2048")
        connection.execute(f"COPY (SELECT * FROM rows_to_write) TO '{path}' (FORMAT parquet, {', '.join(options)})")


def _without_date64(table):
    """Rust's writer makes plain integers of it, which others cannot tell from integers."""
    for place, field in enumerate(table.schema):
        if pyarrow.types.is_date64(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(pyarrow.date32()))
    return table


def _datafusion(table, path, choose):
    """Rust's parquet crate."""
    table = _without_date64(table)
    context = datafusion.SessionContext()
    frame = context.from_arrow(table)
    frame.write_parquet(str(path), compression=choose.choice(["uncompressed", "snappy", "zstd", "gzip", "lz4_raw", "brotli"]))
    if path.is_dir():
        # One file a partition.
        parts = sorted(path.rglob("*.parquet"))
        moved = [part.rename(path.parent / f"{path.stem}-{number}.tmp") for number, part in enumerate(parts)]
        path.rmdir()
        for number, part in enumerate(moved):
            part.rename(path.parent / f"{path.stem}-{number}.parquet")


def _arro3(table, path, choose):
    import arro3.io

    table = _without_date64(table)
    arro3.io.write_parquet(
        table,
        str(path),
        bloom_filter_enabled=choose.random() < 0.5,
        compression=choose.choice(["uncompressed", "snappy", "zstd(3)", "lz4_raw"]),
        dictionary_enabled=choose.random() < 0.5,
        max_row_group_size=choose.choice([5, 1000]),
        write_batch_size=3,
        writer_version=choose.choice(["parquet_1_0", "parquet_2_0"]),
    )


def _chdb(table, path, choose):
    import chdb

    source = path.with_suffix(".arrows")
    with pyarrow.ipc.new_file(source, table.schema) as sink:
        sink.write_table(table)
    compression = choose.choice(["none", "snappy", "zstd", "lz4", "brotli", "gzip"])
    settings = f"output_format_parquet_compression_method='{compression}', output_format_parquet_string_as_string=1, output_format_parquet_row_group_size=1000"
    chdb.query(f"SELECT * FROM file('{source}', Arrow) INTO OUTFILE '{path}' FORMAT Parquet SETTINGS {settings}")
    source.unlink()


# Each writer, the kinds of columns that it keeps, and how often it is chosen.
WRITERS = {
    "pyarrow": (_arrow, set(KINDS), 5),
    "pyarrow, encodings": (_encoded, set(KINDS), 2),
    "Spark's layout": (_spark, set(KINDS) - {"uuid", "time", "zoned"}, 3),
    "pandas": (_pandas, SIMPLE | {"decimal", "list"}, 3),
    "fastparquet": (_fastparquet, BASIC, 2),
    "Polars": (_polars, set(KINDS) - {"map", "uuid", "zoned", "century", "decimal"}, 3),
    "DuckDB": (_duckdb, set(KINDS) - {"untyped"}, 3),
    "DataFusion": (_datafusion, set(KINDS) - {"uuid"}, 2),
}


def _is_installed(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


# Those that ./check does not install.
WRITERS.update(
    (name, (write, kinds, 3))
    for name, module, write, kinds in [
        ("arro3", "arro3.io", _arro3, set(KINDS) - {"uuid", "text"}),
        ("ClickHouse", "chdb", _chdb, {"integer", "decimal"}),
    ]
    if _is_installed(module)
)


def table(choose, columns, rows):
    """Rows of these columns (name to kind): in any order, in any type of the kind."""
    names = list(columns)
    choose.shuffle(names)
    arrays = {}
    for name in names:
        kind, value = choose.choice(KINDS[columns[name]])
        nulls = choose.choice([0, 0.3])
        values = [None if choose.random() < nulls else value(choose) for _ in range(rows)]
        storage = pyarrow.string() if pyarrow.types.is_dictionary(kind) else kind
        if kind == pyarrow.uuid():
            storage = pyarrow.binary(16)
        array = pyarrow.array(values, storage)
        if storage != kind:
            array = pyarrow.ExtensionArray.from_storage(kind, array) if kind == pyarrow.uuid() else array.cast(kind)
        arrays[name] = array
    return pyarrow.table(arrays)


def folder(seed, place, files, nodes=3):
    """Writes `files` files below `node-1`, `node-2`, … of `place`. Gives the columns and what was written by whom."""
    choose = random.Random(seed)
    kinds = choose.sample(sorted(KINDS), choose.randint(2, 6))
    if choose.random() < 0.5 and "bigint" not in kinds:
        # What every writer has.
        kinds = sorted(set(kinds) & SIMPLE | {"integer", "text"})
    columns = {f"c{number}_{kind}": kind for number, kind in enumerate(kinds)}
    able = {name: of for name, of in WRITERS.items() if set(kinds) & of[1]}
    written = []
    for number in range(files):
        writer = choose.choices(list(able), [weight for _, _, weight in able.values()])[0]
        write, known, _ = able[writer]
        mine = {name: kind for name, kind in columns.items() if kind in known and (choose.random() < 0.8 or len(columns) == 1)}
        if not mine:
            mine = {name: kind for name, kind in columns.items() if kind in known}
        # fastparquet writes an empty list of row groups in words that others do not read.
        rows = table(choose, {"id": "integer", **mine}, choose.choice([1, 10, 40] if writer == "fastparquet" else [0, 1, 10, 40]))
        path = pathlib.Path(place) / f"node-{number % nodes + 1}" / f"{seed}" / f"{number}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(rows, path, choose)
        written.append((str(path.relative_to(place)), writer, {name: str(kind) for name, kind in zip(rows.column_names, rows.schema.types)}))
    seen = {name for _, _, types in written for name in types}
    return {"id": "integer", **{name: kind for name, kind in columns.items() if name in seen}}, written
