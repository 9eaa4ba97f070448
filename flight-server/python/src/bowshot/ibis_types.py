"""Types of Ibis in the words of the engine: what `arrow_cast` and `arrow_typeof` call them.

SQL has no word for an eight-bit integer without a sign, or a timestamp in milliseconds; `CAST` would store something else. These words
are exact.
"""

import ibis.common.exceptions as exceptions

_PLAIN = {
    "Boolean": "Boolean",
    "Int8": "Int8",
    "Int16": "Int16",
    "Int32": "Int32",
    "Int64": "Int64",
    "UInt8": "UInt8",
    "UInt16": "UInt16",
    "UInt32": "UInt32",
    "UInt64": "UInt64",
    "Float16": "Float16",
    "Float32": "Float32",
    "Float64": "Float64",
    "String": "Utf8",
    "JSON": "Utf8",
    "UUID": "Utf8",
    "Binary": "Binary",
    "Date": "Date32",
    "Time": "Time64(Nanosecond)",
    "Null": "Null",
}
# What CREATE TABLE calls those that it has a word for.
_SQL = {
    "Boolean": "BOOLEAN",
    "Int8": "TINYINT",
    "Int16": "SMALLINT",
    "Int32": "INT",
    "Int64": "BIGINT",
    "UInt8": "TINYINT UNSIGNED",
    "UInt16": "SMALLINT UNSIGNED",
    "UInt32": "INT UNSIGNED",
    "UInt64": "BIGINT UNSIGNED",
    "Float32": "REAL",
    "Float64": "DOUBLE",
    "String": "VARCHAR",
    "Binary": "BYTEA",
    "Date": "DATE",
    "Time": "TIME",
}
_UNITS = {"s": "Second", "ms": "Millisecond", "us": "Microsecond", "ns": "Nanosecond"}
# Digits of a decimal whose type does not say: as many as 128 bits hold, nine of them behind the point, as in Ibis' own DataFusion backend.
_DECIMAL_DIGITS, _DECIMAL_SCALE = 38, 9
_DECIMAL128_DIGITS_MAX = 38


def arrow_name(dtype):
    """The engine's word for a type. Raises `UnsupportedBackendType` for one that it does not have."""
    name = type(dtype).__name__
    if name in _PLAIN:
        return _PLAIN[name]
    if dtype.is_decimal():
        digits = dtype.precision or _DECIMAL_DIGITS
        scale = dtype.scale if dtype.scale is not None else _DECIMAL_SCALE
        return f"Decimal{128 if digits <= _DECIMAL128_DIGITS_MAX else 256}({digits}, {scale})"
    if dtype.is_timestamp():
        unit = "Microsecond" if dtype.scale is None else _UNITS[dtype.unit.short]
        zone = "None" if dtype.timezone is None else f'Some("{dtype.timezone}")'
        return f"Timestamp({unit}, {zone})"
    if dtype.is_array():
        return f"List({_member(dtype.value_type)})"
    if dtype.is_struct():
        return "Struct(" + ", ".join(f'"{_quotable(field)}": {_member(member)}' for field, member in dtype.items()) + ")"
    if dtype.is_map():
        entries = f'Struct("key": non-null {arrow_name(dtype.key_type)}, "value": {_member(dtype.value_type)})'
        return f'Map("entries": non-null {entries}, unsorted)'
    raise exceptions.UnsupportedBackendType(f"Bowshot has no type {dtype}")


def column_definition(name, dtype):
    """A column of CREATE TABLE. Raises `UnsupportedBackendType` for a type that has no word in SQL."""
    if dtype.is_decimal():
        word = f"DECIMAL({dtype.precision or _DECIMAL_DIGITS}, {dtype.scale if dtype.scale is not None else _DECIMAL_SCALE})"
    elif dtype.is_timestamp() and dtype.timezone is None:
        word = f"TIMESTAMP({6 if dtype.scale is None else dtype.scale})"
    elif type(dtype).__name__ in _SQL:
        word = _SQL[type(dtype).__name__]
    else:
        raise exceptions.UnsupportedBackendType(
            f"SQL has no word for {dtype} of column {name}: in a table with columns that may not be NULL it needs one"
        )
    return f"{quoted(name)} {word}{'' if dtype.nullable else ' NOT NULL'}"


def quoted(name):
    """A name as SQL takes it, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def _member(dtype):
    return f"{'' if dtype.nullable else 'non-null '}{arrow_name(dtype)}"


def _quotable(name):
    # A quote would end the name: the word is read by a parser without escapes.
    if '"' in name:
        raise exceptions.UnsupportedBackendType(f"the name of a field cannot hold a quote here: {name!r}")
    return name
