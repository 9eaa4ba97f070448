"""Answers of engines as rows of cells that compare: numbers as numbers, times as counted nanoseconds, everything else as text."""

import datetime
import decimal
import math
import re
import struct

import pyarrow

UNIT_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
# Beyond so many rows no pairing is looked for where the sorted rows differ.
# The fewest digits after the point of a product that has no room for all of them.
ROUNDED_DIGITS = -12
# The most digits that a double's shortest decimal has.
DOUBLE_DIGITS = 17
# DuckDB's text of a double, and ours, which is Postgres'.
SPECIAL_DOUBLES = {"nan": "NaN"}
PRECISE = decimal.Context(prec=100, rounding=decimal.ROUND_HALF_UP)
PAIRED_ROWS = 400


def column_cells(column):
    """The cells of an Arrow column."""
    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        return column_cells(column.cast(kind.value_type))
    if pyarrow.types.is_timestamp(kind):
        factor, zone = UNIT_NANOSECONDS[kind.unit], "Z" if kind.tz else ""
        return [value if value is None else moment(value * factor, zone) for value in column.cast(pyarrow.int64()).to_pylist()]
    if pyarrow.types.is_date32(kind):
        return [value if value is None else f"day {value}" for value in column.cast(pyarrow.int32()).to_pylist()]
    if kind == pyarrow.month_day_nano_interval():
        return [value if value is None else interval(value.months, value.days, value.nanoseconds) for value in column.to_pylist()]
    if pyarrow.types.is_nested(kind):
        raise ValueError(f"{kind} is not compared")
    return [plain(value) for value in column.to_pylist()]


def rows_of(table):
    """The rows of an Arrow table. Columns may share a name."""
    columns = [column_cells(column.combine_chunks()) for column in table.columns]
    return list(zip(*columns)) if columns else []


def moment(nanoseconds, zone):
    return f"at {int(nanoseconds)}{zone}"


def interval(months, days, nanoseconds):
    return f"{months} months {days} days {nanoseconds} ns"


def plain(value):
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, (int, decimal.Decimal)):
        return decimal.Decimal(value)
    return str(value)


def postgres_cell(text, oid):
    """A cell of Postgres: its text, and the number of its type."""
    if text is None:
        return None
    if oid == 16:
        return text == "t"
    if oid in (20, 21, 23, 1700):
        return decimal.Decimal(text) if text not in ("NaN", "Infinity", "-Infinity") else float(text)
    if oid == 700:
        return struct.unpack("f", struct.pack("f", float(text)))[0]
    if oid == 701:
        return float(text)
    if oid in (1082, 1114, 1184) and "infinity" not in text:
        near, days = within_reach(text)
        if oid == 1082:
            return f"day {(datetime.date.fromisoformat(near) - datetime.date(1970, 1, 1)).days + days}"
        zone = datetime.timezone.utc if oid == 1184 else None
        since = datetime.datetime.fromisoformat(near) - datetime.datetime(1970, 1, 1, tzinfo=zone)
        return moment(nanoseconds(since + datetime.timedelta(days)), "Z" if zone else "")
    if oid == 1186:
        # ISO 8601, as the connection asks for it: P1Y2M3DT4H5M6S.
        parts = re.fullmatch(r"P(?:(-?\d+)Y)?(?:(-?\d+)M)?(?:(-?\d+)D)?(?:T(?:(-?\d+)H)?(?:(-?\d+)M)?(?:(-?[\d.]+)S)?)?", text)
        years, months, days, hours, minutes, seconds = (decimal.Decimal(part or 0) for part in parts.groups())
        return interval(int(years * 12 + months), int(days), int((hours * 3600 + minutes * 60 + seconds) * 10**9))
    return text


def within_reach(text):
    """A date or time of Postgres in a year that Python has, and the days that it was moved by: the calendar repeats after 400 years."""
    year, rest = text.removesuffix(" BC").split("-", 1)
    year = 1 - int(year) if text.endswith(" BC") else int(year)
    eras = 0 if 2 < year < 9998 else (year - 2000) // 400
    return f"{year - eras * 400:04d}-{rest}", eras * 146097


def in_microseconds(rows):
    """Rows whose times are rounded to what Postgres keeps of them."""

    def rounded(value):
        if not isinstance(value, str) or not (found := re.fullmatch(r"at (-?\d+)(Z?)", value)):
            return value
        return moment(round(decimal.Decimal(found[1]), -3).to_integral_value(), found[2]) if int(found[1]) % 1000 else value

    return [tuple(map(rounded, row)) for row in rows]


def nanoseconds(delta):
    return (delta.days * 86400 + delta.seconds) * 10**9 + delta.microseconds * 1000


def same(ours, theirs):
    if isinstance(ours, float) or isinstance(theirs, float):
        if not isinstance(ours, (float, decimal.Decimal)) or not isinstance(theirs, (float, decimal.Decimal)):
            return False
        a, b = float(ours), float(theirs)
        return a == b or (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
    if isinstance(ours, str) and isinstance(theirs, str):
        return ours == theirs or ours == SPECIAL_DOUBLES.get(theirs)
    return type(ours) is type(theirs) and (ours == theirs or is_rounded_product(ours, theirs) or is_of_double(ours, theirs))


def is_rounded_product(ours, theirs):
    """Whether it is the other number, rounded, because its type would have more than 38 digits: see docs/sql.md."""
    if not isinstance(ours, decimal.Decimal) or not (ours.is_finite() and theirs.is_finite()):
        return False
    kept, digits = ours.as_tuple().exponent, len(theirs.as_tuple().digits)
    return kept <= ROUNDED_DIGITS and digits >= 38 and ours == PRECISE.quantize(theirs, decimal.Decimal(1).scaleb(kept))


def is_of_double(ours, theirs):
    """Whether it is the shortest decimal that means a double, of which Postgres took 15 digits, and DuckDB a product with a power of ten."""
    if not isinstance(ours, decimal.Decimal) or not ours.is_finite() or not theirs.is_finite():
        return False
    double, scale = float(ours), max(0, -theirs.as_tuple().exponent)
    if ours != decimal.Decimal(repr(double)):
        return False
    if len(PRECISE.normalize(theirs).as_tuple().digits) > DOUBLE_DIGITS:
        return theirs == PRECISE.scaleb(int(double * 10.0**scale), -scale)
    return theirs == decimal.Context(prec=15, rounding=decimal.ROUND_HALF_EVEN).plus(decimal.Decimal(double))


def key(row, digits=6):
    """Sorts numbers as doubles of few digits, so that equal ones lie side by side."""
    return tuple(cell_key(value, digits) for value in row)


def exact_key(row):
    """Tells decimals apart that few digits do not."""
    return key(row, 15)


def cell_key(value, digits):
    if value is None or isinstance(value, (str, bool)):
        return value is None, type(value).__name__, str(value), 0.0
    number = float(value)
    # NaN comes after all other numbers.
    return (False, "number", "NaN", 0.0) if math.isnan(number) else (False, "number", "", float(f"{number:.{digits}e}"))


def same_row(ours, theirs):
    return len(ours) == len(theirs) and all(map(same, ours, theirs))


def equal(ours, theirs):
    """Whether two answers are the same bag of rows."""
    if len(ours) != len(theirs):
        return False
    for order in (key, exact_key):
        ours, theirs = sorted(ours, key=order), sorted(theirs, key=order)
        if all(map(same_row, ours, theirs)):
            return True
    if len(ours) > PAIRED_ROWS:
        return False
    # Rows whose numbers differ beyond the digits that were sorted by.
    left = list(theirs)
    for row in ours:
        found = next((at for at, other in enumerate(left) if same_row(row, other)), None)
        if found is None:
            return False
        left.pop(found)
    return True


def shown(rows, others=()):
    """The first rows for people, those first that the other answer has not."""
    text = lambda value: str(value) if isinstance(value, (decimal.Decimal, float)) else repr(value)
    left, own = list(others)[:PAIRED_ROWS], []
    for row in sorted(rows, key=key)[:PAIRED_ROWS]:
        found = next((at for at, other in enumerate(left) if same_row(row, other)), None)
        own.append((found is not None, row))
        if found is not None:
            left.pop(found)
    first = [row for _, row in sorted(own, key=lambda known: known[0])[:8]]
    return "[" + ", ".join("(" + ", ".join(map(text, row)) + ")" for row in first) + "]" + f" of {len(rows)}" * (len(rows) > 8)
