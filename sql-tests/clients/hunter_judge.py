"""Postgres as the judge of `hunter.py`: a server of its own from the installed package, spoken to through libpq.

The package is Debian's `postgresql`; no Python package is needed. Without it `found` is None.
"""

import ctypes
import ctypes.util
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile

import cluster
from hunter_answers import postgres_cell

USER = "postgres"
STATEMENT_SECONDS = 10
PROGRAMS = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))
ROWS, DONE = 2, 1


class Refused(Exception):
    """Postgres' error."""


def found():
    """The folder of the newest installed Postgres, or None."""
    return PROGRAMS[-1] if PROGRAMS and ctypes.util.find_library("pq") else None


class Server:
    """A Postgres on a free loopback port, with a folder that goes with it. Use it in a `with` statement."""

    def __init__(self):
        self.port = cluster.free_port()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="hunter-judge-"))
        self.child = None
        # Postgres refuses to run as root.
        self.identity = {"user": USER, "group": USER, "extra_groups": []} if os.geteuid() == 0 else {}
        if self.identity:
            owner = pwd.getpwnam(USER)
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        return self

    def start(self):
        data = self.folder / "data"
        make = [found() / "initdb", "-D", data, "-U", USER, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        subprocess.run(make, check=True, capture_output=True, cwd=self.folder, **self.identity)
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "fsync": "off", "jit": "off"}
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with open(self.folder / "log", "wb") as log:
            self.child = subprocess.Popen([found() / "postgres", "-D", data, *flags], stdout=log, stderr=log, cwd=self.folder, **self.identity)
        cluster.wait_until(f"Postgres answers, see {self.folder}/log", 60, self.answers)

    def answers(self):
        try:
            Connection(self.port).close()
        except Refused:
            return False
        return True

    def end(self):
        if self.child:
            # Fast: it does not wait for who is connected.
            self.child.send_signal(signal.SIGINT)
            try:
                self.child.wait(cluster.END_SECONDS)
            except subprocess.TimeoutExpired:
                self.child.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __exit__(self, *_):
        self.end()


def library():
    known = ctypes.CDLL(ctypes.util.find_library("pq"))
    texts, pointers = ("PQerrorMessage", "PQresultErrorMessage", "PQgetvalue"), ("PQconnectdb", "PQexec")
    for name in texts:
        getattr(known, name).restype = ctypes.c_char_p
    for name in pointers:
        getattr(known, name).restype = ctypes.c_void_p
    for name in ("PQerrorMessage", "PQstatus", "PQfinish", "PQresultErrorMessage", "PQresultStatus", "PQntuples", "PQnfields", "PQclear"):
        getattr(known, name).argtypes = [ctypes.c_void_p]
    known.PQexec.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    known.PQftype.argtypes = [ctypes.c_void_p, ctypes.c_int]
    known.PQgetvalue.argtypes = known.PQgetisnull.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
    return known


class Connection:
    """A connection to the judge."""

    def __init__(self, port):
        self.library = library()
        self.handle = self.library.PQconnectdb(f"host=127.0.0.1 port={port} user={USER} dbname=postgres".encode())
        if self.library.PQstatus(self.handle) != 0:
            message = self.library.PQerrorMessage(self.handle).decode()
            self.close()
            raise Refused(message)
        for setting in ("client_min_messages = error", "intervalstyle = iso_8601", f"statement_timeout = '{STATEMENT_SECONDS}s'"):
            self.rows(f"SET {setting}")

    def close(self):
        self.library.PQfinish(self.handle)

    def rows(self, sql):
        """The rows of a statement, as cells that compare."""
        result = self.library.PQexec(self.handle, sql.encode())
        try:
            state = self.library.PQresultStatus(result)
            if state not in (ROWS, DONE):
                raise Refused(self.library.PQresultErrorMessage(result).decode().strip())
            columns = range(self.library.PQnfields(result))
            types = [self.library.PQftype(result, column) for column in columns]

            def cell(row, column):
                absent = self.library.PQgetisnull(result, row, column)
                return None if absent else postgres_cell(self.library.PQgetvalue(result, row, column).decode(), types[column])

            return [tuple(cell(row, column) for column in columns) for row in range(self.library.PQntuples(result))]
        finally:
            self.library.PQclear(result)
