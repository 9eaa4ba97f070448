"""A server alone, without workers, for tests of who gets in: its settings as TOML, and ways to ask it who one is."""

import contextlib
import functools
import os
import subprocess

import adbc_driver_flightsql.dbapi as flight_sql
import cluster
import pyarrow.flight
from adbc_driver_flightsql import DatabaseOptions

# What every refusal says, whichever part was wrong.
REFUSED = "the credentials were not accepted"
# Who asks it, by what the server itself noted of this query.
WHO = "SELECT user_name FROM system.queries WHERE state = 'running' AND sql LIKE '%who-asks%' -- who-asks"


@functools.cache
def password_hash(password):
    return subprocess.run([cluster.BINARY, "hash-password"], input=password, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@contextlib.contextmanager
def server(folder, settings):
    with cluster.Cluster(folder, [], settings=settings) as running:
        yield running


def command(folder, *arguments, **variables):
    """A command of the binary in a folder, with variables: the finished process."""
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    return subprocess.run([cluster.BINARY, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def refusals(running):
    """Lines of the log about refused credentials."""
    return [line for line in running.server.log_text().splitlines() if "credentials were refused" in line]


def adbc(running, scheme="grpc", host="127.0.0.1", **options):
    """An ADBC connection; options by the names of DatabaseOptions, and username and password."""
    known = {name: value for name, value in options.items() if name in ("username", "password")}
    named = {DatabaseOptions[name.upper()].value: str(value) for name, value in options.items() if name not in known}
    return flight_sql.connect(f"{scheme}://{host}:{running.port}", db_kwargs={**known, **named}, autocommit=True)


def answer(connection, sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def user_of(connection):
    ((user,),) = answer(connection, WHO)
    return user


def flight(running, scheme="grpc", host="127.0.0.1", **options):
    return pyarrow.flight.FlightClient(f"{scheme}://{host}:{running.port}", **options)


def headers(*pairs):
    return pyarrow.flight.FlightCallOptions(headers=[(name.encode(), value.encode()) for name, value in pairs], timeout=60)


def ask(client, header=None):
    """Lists the actions, which every user may; with an `authorization` header."""
    return len(list(client.list_actions(headers(("authorization", header)) if header else headers())))


def refused_with(client, header):
    """The text of a refusal, without what the library says around it."""
    try:
        ask(client, header)
    except pyarrow.flight.FlightUnauthenticatedError as error:
        return str(error).split("Detail:")[0].split(". gRPC client debug")[0]
    raise AssertionError(f"not refused: {header[:20]}")


def close_session(client, header):
    """CloseSession, whose answer says that it was closed."""
    (result,) = client.do_action(("CloseSession", b""), headers(("authorization", header)))
    assert result.body.to_pybytes() == b"\x08\x01"
