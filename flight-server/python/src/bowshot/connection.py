"""ADBC connections to a server."""

import os
import pathlib
import re
import urllib.parse

import adbc_driver_flightsql.dbapi as flight_sql
import adbc_driver_manager
from adbc_driver_flightsql import DatabaseOptions

from bowshot import errors, limits

DEFAULT_URI = "grpc://127.0.0.1:47470"
DEFAULT_PORT = 47470
# A name that goes into a header as it is: HTTP/2 takes no other.
_HEADER_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")

# How a server that misses a certificate, or TLS, is heard: its reason, or only that it is gone, whichever arrives first.
_HUNG_UP = re.compile(r"certificate required|broken pipe|connection reset|EOF|error reading server preface")


def connect(
    uri=DEFAULT_URI,
    *,
    user=None,
    password=None,
    token=None,
    ca=None,
    certificate=None,
    key=None,
    skip_verification=False,
    server_name=None,
    schema=None,
    headers=None,
    timeout=None,
):
    """An ADBC connection (PEP 249, plus Arrow: `fetch_arrow_table`, `adbc_ingest`, …) with autocommit on. The server has been reached,
    and has let the caller in, when this returns. Close it, or use it in a `with` statement: settings and views of the session end with it.

    Parameters
    ----------
    uri
        `grpc://host:port`, `grpc+tls://host:port`, or `host`, `host:port`: encrypted then if anything about certificates is said.
    user, password
        Who to log in as.
    token
        A bearer token, in place of user and password.
    ca
        PEM file of the authorities that the server's certificate is checked against; those of the system without it.
    certificate, key
        PEM files of the client's own certificate and its key, for a server that asks for one.
    skip_verification
        Takes any certificate of the server: whoever is in between can read and change everything. For trying things out.
    server_name
        The name to look for in the server's certificate, if it is not the host of `uri`.
    schema
        The schema of names without one.
    headers
        Headers to send with every call, by name.
    timeout
        Seconds after which starting a query, fetching its rows, or an update fails; no limit without it.

    Raises
    ------
    ValueError
        For arguments that do not fit together.
    OSError
        For a certificate or key that cannot be read.
    adbc_driver_manager.Error
        When the server cannot be reached, or refuses: `OperationalError` (nobody there, no TLS, a certificate that is not trusted),
        `ProgrammingError` (not logged in, no such schema).
    """
    secured = any(value is not None for value in (ca, certificate, key, server_name)) or skip_verification
    uri, login = _address(uri, secured)
    user, password = user if user is not None else login[0], password if password is not None else login[1]
    options = {DatabaseOptions.WITH_MAX_MSG_SIZE.value: str(limits.MESSAGE_BYTES_MAX)}
    options |= _credentials(user, password, token)
    options |= _certificates(ca, certificate, key, skip_verification, server_name)
    options |= _headers(headers or {})
    options |= _timeouts(timeout)
    try:
        connection = flight_sql.connect(uri, db_kwargs=options, autocommit=True)
    except adbc_driver_manager.Error as error:
        raise _not_connected(error, uri, certificate is not None) from None
    try:
        # The driver dials with the first call: a wrong address or password is told here, not by the first query.
        connection.adbc_get_info()
        if schema is not None:
            with connection.cursor() as cursor:
                quoted = schema.replace('"', '""')
                cursor.execute(f'USE "{quoted}"')
    except adbc_driver_manager.Error as error:
        connection.close()
        raise _not_connected(error, uri, certificate is not None) from None
    except BaseException:
        connection.close()
        raise
    return connection


def _address(uri, secured):
    """The address as the driver takes it, and the user and password that it held."""
    uri = os.fspath(uri)
    if "://" not in uri:
        uri = f"{'grpc+tls' if secured else 'grpc'}://{uri}"
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme not in ("grpc", "grpc+tcp", "grpc+tls"):
        raise ValueError(f"an address begins with grpc:// or grpc+tls://, not with {parts.scheme}://")
    try:
        host, port = parts.hostname, parts.port or DEFAULT_PORT
    except ValueError as error:
        raise ValueError(f"the address has no valid port: {error}") from None
    if not host or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("an address is grpc://host:port and no more: what else there is to say has parameters of its own")
    if secured and parts.scheme != "grpc+tls":
        raise ValueError(f"{parts.scheme}:// is not encrypted, certificates mean nothing there: write grpc+tls://{host}:{port}")
    host = f"[{host}]" if ":" in host else host
    login = tuple(part and urllib.parse.unquote(part) for part in (parts.username, parts.password))
    return f"{parts.scheme}://{host}:{port}", login


def _credentials(user, password, token):
    if token is not None:
        if user is not None or password is not None:
            raise ValueError("a token stands in place of user and password: give one or the other")
        return {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {token}"}
    if user is None and password is None:
        return {}
    if user is None or password is None:
        raise ValueError("user and password go together")
    return {"username": user, "password": password}


def _certificates(ca, certificate, key, skip_verification, server_name):
    if (certificate is None) != (key is None):
        raise ValueError("certificate and key go together")
    options = {}
    if ca is not None:
        options[DatabaseOptions.TLS_ROOT_CERTS.value] = pathlib.Path(ca).read_text()
    if certificate is not None:
        options[DatabaseOptions.MTLS_CERT_CHAIN.value] = pathlib.Path(certificate).read_text()
        options[DatabaseOptions.MTLS_PRIVATE_KEY.value] = pathlib.Path(key).read_text()
    if skip_verification:
        options[DatabaseOptions.TLS_SKIP_VERIFY.value] = "true"
    if server_name is not None:
        options[DatabaseOptions.TLS_OVERRIDE_HOSTNAME.value] = server_name
    return options


def _headers(headers):
    options = {}
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name.lower()):
            raise ValueError(f"{name!r} is no name of a header: letters, digits, '.', '-' and '_'")
        options[DatabaseOptions.RPC_CALL_HEADER_PREFIX.value + name.lower()] = str(value)
    return options


def _timeouts(seconds):
    if seconds is None:
        return {}
    if not seconds > 0:
        raise ValueError(f"a timeout is a number of seconds above zero, not {seconds!r}")
    return {
        option.value: str(float(seconds))
        for option in (DatabaseOptions.TIMEOUT_QUERY, DatabaseOptions.TIMEOUT_FETCH, DatabaseOptions.TIMEOUT_UPDATE)
    }


def _not_connected(error, uri, certified):
    said = errors.server_text(error)
    # gRPC wraps what the network said once or twice: connection error: desc = "transport: …".
    said = re.sub(r'^connection error: desc = "(?:transport: )?(.*)"$', r"\1", said)
    hint = ""
    if "first record does not look like a TLS handshake" in said:
        hint = "; the server is not encrypted: write grpc://"
    elif uri.startswith("grpc://") and _HUNG_UP.search(said):
        hint = "; if the server is encrypted, write grpc+tls://"
    elif "certificate signed by unknown authority" in said:
        hint = "; name the file of its authority with ca="
    elif uri.startswith("grpc+tls://") and not certified and _HUNG_UP.search(said):
        hint = "; if the server asks for a certificate, name yours with certificate= and key="
    elif "produced zero addresses" in said:
        said = "no such host"
    return errors.reworded(error, f"cannot connect to {uri}: {said}{hint}")
