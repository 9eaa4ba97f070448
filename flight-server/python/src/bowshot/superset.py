"""Bowshot in Superset, which finds this through its entry point `superset.db_engine_specs`.

Without it Superset takes the database of an address `datafusion://…` for one that it knows nothing of: charts have no time grains, and bounds of a
time range are texts.
"""

from superset.db_engine_specs.base import BaseEngineSpec

from bowshot.time_grains import TIME_GRAINS


class BowshotEngineSpec(BaseEngineSpec):
    engine = "datafusion"
    engine_name = "Bowshot"
    drivers = {"flightsql": "Flight SQL (package flightsql-dbapi)"}
    default_driver = "flightsql"
    sqlalchemy_uri_placeholder = "datafusion://user:password@host:47470"

    _time_grain_expressions = {None: "{col}", **TIME_GRAINS}

    @classmethod
    def epoch_to_dttm(cls):
        return "to_timestamp_seconds({col})"

    @classmethod
    def convert_dttm(cls, target_type, dttm, db_extra=None):
        kind = target_type.upper()
        if kind == "DATE":
            return f"DATE '{dttm.date().isoformat()}'"
        if kind.startswith(("TIMESTAMP", "DATETIME")):
            return f"TIMESTAMP '{dttm.isoformat(sep=' ', timespec='microseconds')}'"
        return None
