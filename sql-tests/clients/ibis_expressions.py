"""Expressions of Ibis to compare with DuckDB's answers: what the DataFusion inside Ibis computes by functions in Python, what its
compiler says in words that the engine does not have, and a little of everything else."""

import datetime
import decimal

import ibis
import pyarrow

ROWS = pyarrow.table(
    {
        "k": pyarrow.array(range(5), pyarrow.int64()),
        "i": pyarrow.array([1, -7, 0, None, 42], pyarrow.int64()),
        "tiny": pyarrow.array([1, -7, 0, None, 100], pyarrow.int8()),
        "f": pyarrow.array([1.5, -2.5, 0.0, None, 1e10]),
        "odd": pyarrow.array([1.0, float("nan"), float("inf"), None, -float("inf")]),
        "s": pyarrow.array(["Hello World", "", "é😀x", None, "a,b,c"]),
        "b": pyarrow.array([True, False, True, None, False]),
        "money": pyarrow.array(
            [decimal.Decimal(text) if text else None for text in ("1.25", "-3.75", "0.00", None, "99999.99")], pyarrow.decimal128(12, 2)
        ),
        "day": pyarrow.array(
            [datetime.date(2024, 2, 29), datetime.date(1969, 12, 31), datetime.date(2000, 1, 1), None, datetime.date(2024, 12, 30)]
        ),
        "at": pyarrow.array(
            [
                datetime.datetime(2024, 2, 29, 13, 14, 15, 678901),
                datetime.datetime(1969, 12, 31, 23, 59, 59, 999999),
                datetime.datetime(2000, 1, 1),
                None,
                datetime.datetime(1999, 12, 31, 12, 0, 0, 5000),
            ],
            pyarrow.timestamp("us"),
        ),
        "clock": pyarrow.array(
            [datetime.time(1, 2, 3, 456789), datetime.time(0), datetime.time(23, 59, 59, 999999), None, datetime.time(12)],
            pyarrow.time64("us"),
        ),
        "list": pyarrow.array([[1, 2, 3], [], [5], None, [7]], pyarrow.list_(pyarrow.int64())),
        "pair": pyarrow.array([{"a": 1, "b": "x"}, {"a": None, "b": "y"}, {"a": 3, "b": None}, None, {"a": 5, "b": "z"}]),
    }
)

# What only the DataFusion inside Ibis has as functions in Python, or what its compiler says in words that the engine does not have.
EXPRESSIONS = {
    "sign of an integer": lambda t: t.i.sign(),
    "sign of a double": lambda t: t.f.sign(),
    "epoch of a timestamp": lambda t: t.at.truncate("s").epoch_seconds(),
    "epoch of a date": lambda t: t.day.epoch_seconds(),
    **{
        f"{part} of a timestamp": lambda t, part=part: getattr(t.at, part)()
        for part in ("hour", "minute", "second", "millisecond", "microsecond")
    },
    **{f"{part} of a time": lambda t, part=part: getattr(t.clock, part)() for part in ("hour", "minute", "second", "millisecond")},
    **{
        f"{part} of a date": lambda t, part=part: getattr(t.day, part)()
        for part in ("year", "month", "day", "quarter", "day_of_year", "week_of_year", "iso_year")
    },
    "name of a weekday": lambda t: t.day.day_of_week.full_name(),
    "date of a timestamp": lambda t: t.at.date(),
    "truncated": lambda t: t.at.truncate("M"),
    "formatted": lambda t: t.at.strftime("%Y-%m-%d"),
    "days between": lambda t: t.day.delta(ibis.date(2000, 1, 1), unit="day"),
    "a month later": lambda t: t.day + ibis.interval(months=1),
    "xor": lambda t: t.i ^ 3,
    "not": lambda t: ~t.i,
    "cast that fails": lambda t: t.s.try_cast("int64"),
    "cast to eight bits": lambda t: t.k.cast("int8"),
    "digest": lambda t: t.s.hexdigest("md5"),
    "map": lambda t: ibis.map(ibis.array(["a", "b"]), ibis.array([t.k, t.k + 1]))["b"],
    "place in an array": lambda t: t.list.index(2),
    "element of an array": lambda t: t.list[0],
    "field of a struct": lambda t: t.pair.b,
    "upper case": lambda t: t.s.upper(),
    "part of a text": lambda t: t.s.substr(1, 3),
    "padded": lambda t: t.s.lpad(12, "*"),
    "pattern": lambda t: t.s.re_search("[A-Z]"),
    "replaced by pattern": lambda t: t.s.re_replace("[aeo]", "-"),
    "clipped": lambda t: t.i.clip(0, 10),
    "case": lambda t: ibis.cases((t.i > 0, "p"), (t.i < 0, "n"), else_="z"),
    "NaN": lambda t: t.odd.fill_null(0.0).isnan(),
    "rank": lambda t: ibis.dense_rank().over(order_by=t.b),
    "running sum": lambda t: t.i.cumsum(order_by=t.k),
    "before": lambda t: t.i.lag(1).over(order_by=t.k),
    "window": lambda t: t.i.sum().over(ibis.window(preceding=1, following=1, order_by=t.k)),
}
AGGREGATES = {
    "joined in order": lambda t: t.s.group_concat("|", order_by=t.k.desc()),
    "collected": lambda t: t.i.collect(order_by=t.k),
    "variance": lambda t: t.f.var(),
    "median": lambda t: t.i.median(),
    "distinct": lambda t: t.b.nunique(),
    "where": lambda t: t.i.sum(where=t.b),
    "of decimals": lambda t: t.money.sum(),
    "first": lambda t: t.i.first(order_by=t.k),
    "bits": lambda t: t.k.bit_xor(),
}
