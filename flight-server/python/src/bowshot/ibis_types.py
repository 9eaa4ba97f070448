"""Types of Ibis in the words of the engine: what `arrow_cast` and `arrow_typeof` call them.

SQL has no word for an eight-bit integer without a sign, or a timestamp in milliseconds; `CAST` would store something else. These words are exact.
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
_UNITS = {"s": "Second", "ms": "Millisecond", "us": "Microsecond", "ns": "Nanosecond"}
# Digits of a decimal whose type does not say: as many as 128 bits hold, nine of them behind the point, as Ibis' own DataFusion backend has it.
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


def _member(dtype):
    return f"{'' if dtype.nullable else 'non-null '}{arrow_name(dtype)}"


def _quotable(name):
    # A quote would end the name: the word is read by a parser without escapes.
    if '"' in name:
        raise exceptions.UnsupportedBackendType(f"the name of a field cannot hold a quote here: {name!r}")
    return name
