"""Client certificates, and certificates of the server that change while connections are open."""

import contextlib
import socket
import ssl

import adbc_driver_manager
import cluster
import pyarrow.flight
import pytest
from auth_server import REFUSED, adbc, answer, ask, command, flight, server, user_of
from authority import CLIENT, SERVER, Authority

# Two looks at the files, and the time between them.
TAKEN_SECONDS = 30
REPLACED = "certificates for clients were replaced"
KEPT = "certificates for clients cannot be replaced: those before stay in use"
TOKEN = "a fixed token of the robot"
# What a client makes of a handshake that failed.
NO_CONNECTION = (pyarrow.ArrowException, pyarrow.flight.FlightError)


def settings(authority, files=("server.pem", "server.key"), more="", auth=f'tokens = {{ robot = "{TOKEN}" }}'):
    pem, key = (authority.folder / file for file in files)
    return f"""
[auth]
mode = "required"
{auth}
[tls]
certificate = "{pem}"
key = "{key}"
{more}
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.issue("server", "server", SERVER)
    made.issue("ana", "ana", CLIENT, emails=["ana@example"])
    made.issue("expired", "ana", CLIENT, days=-1)
    return made


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    made = Authority(tmp_path_factory.mktemp("stranger"), "Another authority")
    made.issue("ana", "ana", CLIENT)
    return made


@pytest.fixture(scope="module", params=["optional", "required"])
def mode(request):
    return request.param


@pytest.fixture(scope="module")
def running(mode, authority, tmp_path_factory):
    more = f'client_ca = "{authority.ca}"\nclient_auth = "{mode}"'
    with server(tmp_path_factory.mktemp(mode), settings(authority, more=more)) as started:
        yield started


def connected(running, authority, shown=None, issuer=None, **options):
    """An ADBC connection with the certificate `shown` of `issuer`."""
    if shown:
        folder = (issuer or authority).folder
        options |= {"mtls_cert_chain": (folder / f"{shown}.pem").read_text(), "mtls_private_key": (folder / f"{shown}.key").read_text()}
    return adbc(running, "grpc+tls", "localhost", tls_root_certs=authority.ca.read_text(), **options)


def test_a_certificate_is_a_user_and_other_credentials_come_first(running, authority):
    with connected(running, authority, "ana") as connection:
        assert user_of(connection) == "ana"
    with connected(running, authority, "ana", authorization_header=f"Bearer {TOKEN}") as connection:
        assert user_of(connection) == "robot"
    with pytest.raises(adbc_driver_manager.Error, match=REFUSED):
        with connected(running, authority, "ana", authorization_header="Bearer wrong") as connection:
            answer(connection, "SELECT 1")


def test_without_a_certificate_it_depends(running, authority, mode):
    if mode == "optional":
        with connected(running, authority, authorization_header=f"Bearer {TOKEN}") as connection:
            assert user_of(connection) == "robot"
        with pytest.raises(adbc_driver_manager.Error, match="asks for a user and password"):
            with connected(running, authority) as connection:
                answer(connection, "SELECT 1")
    else:
        with pytest.raises(adbc_driver_manager.Error):
            with connected(running, authority, authorization_header=f"Bearer {TOKEN}") as connection:
                answer(connection, "SELECT 1")


def told(running, words, happens):
    """Lets something happen until the log says so: of many refused connections, one a second is told of."""

    def said():
        happens()
        return words in running.server.log_text()

    cluster.wait_until(f"the log says '{words}', see {running.server.log}", 60, said)


@pytest.mark.parametrize(
    "shown, of_stranger, words",
    [("ana", True, "not signed by an authority in tls.client_ca"), ("expired", False, "has expired"), ("server", False, "is not for clients")],
)
def test_a_certificate_that_is_not_good_gets_no_connection(running, authority, stranger, shown, of_stranger, words):
    folder = (stranger if of_stranger else authority).folder
    identity = {"cert_chain": (folder / f"{shown}.pem").read_bytes(), "private_key": (folder / f"{shown}.key").read_bytes()}

    def refused():
        with flight(running, "grpc+tls", "localhost", tls_root_certs=authority.ca.read_bytes(), **identity) as client:
            with pytest.raises(NO_CONNECTION):
                ask(client, f"Bearer {TOKEN}")

    refused()
    told(running, words, refused)


def test_the_name_may_be_another_one_of_the_certificate(authority, tmp_path):
    more = f'client_ca = "{authority.ca}"\nclient_user = "email"'
    with server(tmp_path, settings(authority, more=more)) as running:
        with connected(running, authority, "ana") as connection:
            assert user_of(connection) == "ana@example"
        # A certificate without such a name is good for a connection, and names nobody.
        authority.issue("nameless", "nameless", CLIENT)
        with pytest.raises(adbc_driver_manager.Error, match="asks for a user and password"):
            with connected(running, authority, "nameless") as connection:
                answer(connection, "SELECT 1")
        assert "a client certificate names no user" in running.server.log_text()


def test_certificates_alone_are_enough(authority, tmp_path):
    with server(tmp_path, settings(authority, more=f'client_ca = "{authority.ca}"', auth="")) as running:
        with connected(running, authority, "ana") as connection:
            assert user_of(connection) == "ana"


def test_a_caller_without_tls_learns_nothing_and_is_not_kept(running):
    def closed():
        with socket.create_connection(("127.0.0.1", running.port), timeout=30) as plain:
            plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            # A reset ends it as well as a farewell does; what would keep it open is a timeout, and fails here.
            with contextlib.suppress(ConnectionResetError):
                assert plain.recv(1024) == b""

    told(running, "it does not speak TLS: clients connect with grpc+tls://", closed)


def shown_certificate(running, authority):
    """What the server shows to a new connection, in PEM form."""
    context = ssl.create_default_context(cadata=authority.ca.read_text())
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as encrypted:
            return ssl.DER_cert_to_PEM_cert(encrypted.getpeercert(binary_form=True))


def test_new_files_serve_new_connections_and_leave_open_ones_alone(tmp_path):
    old = Authority(tmp_path / "authority")
    pem, key = old.issue("server", "server", SERVER)
    old.issue("ana", "ana", CLIENT)
    clients = tmp_path / "clients.pem"
    clients.write_bytes(old.ca.read_bytes())
    more = f'client_ca = "{clients}"\nclient_auth = "optional"'
    with server(tmp_path / "server", settings(old, more=more)) as running:
        log = lambda text: running.server.log_text().count(text)  # noqa: E731
        first = shown_certificate(running, old)
        with connected(running, old, "ana") as open_connection:
            assert user_of(open_connection) == "ana"
            answer(open_connection, "CREATE VIEW mine AS SELECT 7 AS seven")
            # A new certificate of the same authority.
            old.issue("server", "server", SERVER)
            cluster.wait_until("the new files are taken", TAKEN_SECONDS, lambda: log(REPLACED) == 1)
            second = shown_certificate(running, old)
            assert second != first
            # Files that do not fit together, or are broken, or old: those before stay.
            good = pem.read_bytes(), key.read_bytes()
            for broken in [lambda: pem.write_text("half a certif"), lambda: pem.write_bytes(old.issue("other", "server", SERVER)[0].read_bytes()),
                           lambda: old.issue("server", "server", SERVER, days=-1), key.unlink]:  # fmt: skip
                complaints = log(KEPT)
                broken()
                cluster.wait_until("the broken files are told of", TAKEN_SECONDS, lambda: log(KEPT) > complaints)
                assert shown_certificate(running, old) == second
            assert "is not of the key" in running.server.log_text() and "expired on" in running.server.log_text()
            pem.write_bytes(good[0])
            key.write_bytes(good[1])
            # Another authority for clients: who is connected stays, who comes is checked by the new one.
            new = Authority(tmp_path / "new")
            new.issue("bob", "bob", CLIENT)
            taken = log(REPLACED)
            clients.write_bytes(new.ca.read_bytes())
            cluster.wait_until("the new authority is taken", TAKEN_SECONDS, lambda: log(REPLACED) == taken + 1)
            with connected(running, old, "bob", new) as connection:
                assert user_of(connection) == "bob"
            with pytest.raises(adbc_driver_manager.Error):
                with connected(running, old, "ana") as connection:
                    answer(connection, "SELECT 1")
            # The open connection was open all the time: its session is what it was.
            assert user_of(open_connection) == "ana"
            assert answer(open_connection, "SELECT seven FROM mine") == [(7,)]
        assert "PRIVATE KEY" not in running.server.log_text()


def test_silent_callers_hold_nobody_up(running, authority):
    silent = [socket.create_connection(("127.0.0.1", running.port), timeout=60) for _ in range(50)]
    try:
        with connected(running, authority, "ana") as connection:
            assert user_of(connection) == "ana"
        # And they are not kept.
        assert silent[0].recv(1) == b""
    finally:
        for connection in silent:
            connection.close()


def test_doctor_says_how_long_the_certificate_is_valid(authority, tmp_path):
    (tmp_path / "server.toml").write_text(settings(authority, more=f'client_ca = "{authority.ca}"'))
    said = command(tmp_path, "--config", "server.toml", "doctor").stdout
    assert "certificate  for clients, valid until 20" in said and "client certificates, which everyone must have" in said, said
