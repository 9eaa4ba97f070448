"""Parquet files whose footer says what is not so: `lie(path, change)` gives `change` the footer's fields by their Thrift numbers.

Numbers are those of https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

import pathlib
import struct

import fastparquet
import pyarrow
import pyarrow.parquet

# FileMetaData
SCHEMA, ROWS, GROUPS = 2, 3, 4
# RowGroup
COLUMNS, GROUP_ROWS = 1, 3
# ColumnChunk
FILE_PATH, META, PAGES_AT, PAGES_LENGTH, BOUNDS_AT, BOUNDS_LENGTH = 1, 3, 4, 5, 6, 7
# ColumnMetaData
TYPE, PATH, VALUES, COMPRESSED, DATA_AT, DICTIONARY_AT, STATISTICS = 1, 3, 5, 7, 9, 11, 12
# Statistics
OLD_MAX, OLD_MIN, NULLS, MAX, MIN = 1, 2, 3, 5, 6

ROW_COUNT, GROUP_COUNT = 3000, 3


def write(path, **columns):
    """Three row groups of a thousand rows: `n` counts, `m` counts back, `s` is text."""
    numbers = range(ROW_COUNT)
    columns = columns or {"n": list(numbers), "m": list(reversed(numbers)), "s": [f"v{number:04}" for number in numbers]}
    path.parent.mkdir(parents=True, exist_ok=True)
    size = len(next(iter(columns.values()))) // GROUP_COUNT
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=size, write_page_index=True, use_dictionary=["s"])


def footer_of(path):
    return fastparquet.ParquetFile(str(path)).fmd.contents


def lie(path, change):
    path = pathlib.Path(path)
    content = path.read_bytes()
    (length,) = struct.unpack("<I", content[-8:-4])
    footer = fastparquet.ParquetFile(str(path)).fmd
    change(footer.contents)
    said = footer.to_bytes()
    path.write_bytes(content[: -8 - length] + said + struct.pack("<I", len(said)) + b"PAR1")


def column(footer, group=1, number=0):
    return footer[GROUPS][group][COLUMNS][number]


def number(value):
    return value.to_bytes(8, "little", signed=True)
