"""How long a time is cut to, by the ISO 8601 durations under which Superset knows its time grains."""

_UNITS = {"PT1S": "second", "PT1M": "minute", "PT1H": "hour", "P1D": "day", "P1W": "week", "P1M": "month", "P3M": "quarter", "P1Y": "year"}
_BINS = {
    "PT5S": "5 seconds", "PT30S": "30 seconds", "PT5M": "5 minutes", "PT10M": "10 minutes", "PT15M": "15 minutes", "PT30M": "30 minutes",
    "PT6H": "6 hours",
}  # fmt: skip

# SQL over `{col}`, a date or a timestamp. Weeks begin on Mondays, but for the last three: on Sundays, and by their last Saturday or Sunday.
TIME_GRAINS = {
    **{grain: f"date_trunc('{unit}', {{col}})" for grain, unit in _UNITS.items()},
    **{grain: f"date_bin(INTERVAL '{width}', CAST({{col}} AS TIMESTAMP), TIMESTAMP '1970-01-01')" for grain, width in _BINS.items()},
    "1969-12-28T00:00:00Z/P1W": "date_trunc('week', {col} + INTERVAL '1 day') - INTERVAL '1 day'",
    "P1W/1970-01-03T00:00:00Z": "date_trunc('week', {col} + INTERVAL '1 day') + INTERVAL '5 days'",
    "P1W/1970-01-04T00:00:00Z": "date_trunc('week', {col}) + INTERVAL '6 days'",
}
