"""Bowshot from Python.

`connect` gives an ADBC connection, which Polars, pandas and everything else that speaks DBAPI or Arrow can use; `ibis.bowshot.connect`
an Ibis backend (`bowshot.ibis_backend`); `%load_ext bowshot` SQL in notebooks (`bowshot.magic`).
"""

from bowshot.connection import connect

__all__ = ["connect"]
__version__ = "0.1.0"


def load_ipython_extension(shell):
    """Called by `%load_ext bowshot`."""
    from bowshot import magic

    magic.load(shell)


def unload_ipython_extension(shell):
    """Called by `%unload_ext bowshot`."""
    from bowshot import magic

    magic.unload(shell)
