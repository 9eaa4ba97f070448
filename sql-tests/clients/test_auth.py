"""Passwords, logins and fixed tokens: who gets in, what everybody else is told, and how long that takes them."""

import base64
import os
import re
import threading
import time

import adbc_driver_manager
import auth_server
import cluster
import pyarrow.flight
import pytest
from auth_server import REFUSED, adbc, answer, ask, command, flight, refusals, refused_with, server, user_of

PASSWORD = "ana's secret?"
FIXED_TOKEN = "a fixed token of the robot"


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def settings(more=""):
    return f"""
[auth]
mode = "required"
users = {{ ana = "{auth_server.password_hash(PASSWORD)}" }}
tokens = {{ robot = "{FIXED_TOKEN}" }}
{more}
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with server(tmp_path_factory.mktemp("auth"), settings()) as started:
        yield started
        no_secret_was_logged(started)


def no_secret_was_logged(running):
    said = running.server.log_text()
    for secret in [PASSWORD, FIXED_TOKEN, basic("ana", PASSWORD), "argon2id"]:
        assert secret not in said, secret
    # Tokens begin so; modules that say something do too.
    assert not re.search("bowshot_(?!engine|kernels)", said)


def login(running, user="ana", password=PASSWORD):
    """The `authorization` header of a new login."""
    with flight(running) as client:
        name, value = client.authenticate_basic_token(user, password)
        assert name == b"authorization"
        return value.decode()


def test_a_user_is_who_the_password_says(running):
    with adbc(running, username="ana", password=PASSWORD) as connection:
        assert user_of(connection) == "ana"


def test_a_fixed_token_is_a_user(running):
    with adbc(running, authorization_header=f"Bearer {FIXED_TOKEN}") as connection:
        assert user_of(connection) == "robot"


def test_basic_credentials_need_no_padding(running):
    padded = basic("ana", PASSWORD)
    assert padded.endswith("=")
    with flight(running) as client:
        for header in [padded, padded.rstrip("="), padded.replace("Basic", "basic")]:
            assert ask(client, header) > 0
    # As ADBC sends any header that it is given.
    with adbc(running, authorization_header=padded.rstrip("=")) as connection:
        assert user_of(connection) == "ana"


def test_without_credentials_there_is_nothing(running):
    with flight(running) as client, pytest.raises(pyarrow.flight.FlightUnauthenticatedError, match="asks for a user and password, or a token"):
        ask(client)
    before = len(refusals(running))
    with pytest.raises(adbc_driver_manager.Error, match="asks for a user and password"), adbc(running) as connection:
        answer(connection, "SELECT 1")
    assert len(refusals(running)) == before


def test_every_refusal_says_the_same_and_is_told_of_in_the_log(running):
    token = login(running)
    tampered = token[:-8] + ("AAAAAAAA" if not token.endswith("AAAAAAAA") else "BBBBBBBB")
    wrong = {
        'user="ana" .*way="password" reason="wrong password"': basic("ana", "wrong"),
        'user="eve" .*way="password" reason="unknown user"': basic("eve", PASSWORD),
        'user="" .*way="token" reason="unknown token"': "Bearer not a token",
        'user="" .*way="login" reason="not a token of this server"': tampered,
        'user="" .*way="unreadable"': "Basic %%%",
        # Whatever a name holds, it is one line, bounded.
        r'user="a\\nb\\u\{1b\}c" .*way="password"': basic("a\nb\x1bc", "wrong"),
        r'user="x{80}…" .*way="password"': basic("x" * 2000, "wrong"),
    }
    before = running.metric("bowshot_auth_failures_total", way="password")
    with flight(running) as client:
        texts = {refused_with(client, header) for header in wrong.values()}
    assert len(texts) == 1 and REFUSED in texts.pop()
    said = refusals(running)
    for pattern in wrong:
        assert any(re.search(pattern, line.replace("\\\\", "\\")) for line in said), (pattern, said)
    assert all(re.search(r"address=127\.0\.0\.1:\d+ ", line) for line in said)
    assert running.metric("bowshot_auth_failures_total", way="password") == before + 4


def test_a_login_is_closed_for_good_and_others_stay_open(running):
    closed, other = login(running), login(running)
    with flight(running) as client:
        auth_server.close_session(client, closed)
        assert REFUSED in refused_with(client, closed)
        assert ask(client, other) > 0
        # A fixed token is no login: closing ends its session alone.
        auth_server.close_session(client, f"Bearer {FIXED_TOKEN}")
        assert ask(client, f"Bearer {FIXED_TOKEN}") > 0
    assert any('user="ana"' in line and 'reason="the login was closed"' in line for line in refusals(running))


def test_a_login_is_one_session_and_another_login_another(running):
    first, second = login(running), login(running)
    with adbc(running, authorization_header=first) as one, adbc(running, authorization_header=first) as same:
        with adbc(running, authorization_header=second) as other:
            answer(one, "CREATE VIEW mine AS SELECT 7 AS seven")
            assert answer(same, "SELECT seven FROM mine") == [(7,)]
            with pytest.raises(adbc_driver_manager.Error, match="mine"):
                answer(other, "SELECT seven FROM mine")


def test_a_login_expires(tmp_path):
    with server(tmp_path, settings("token_ttl_s = 2")) as running:
        issued = time.monotonic()
        token = login(running)
        with flight(running) as client:
            expired = lambda: any('reason="the login has expired"' in line for line in refusals(running))  # noqa: E731

            def asked():
                try:
                    ask(client, token)
                except pyarrow.flight.FlightUnauthenticatedError as error:
                    assert REFUSED in str(error)
                return expired()

            cluster.wait_until("the login expires", 60, asked)
            assert time.monotonic() - issued >= 1.9
            assert ask(client, basic("ana", PASSWORD)) > 0


def test_logins_survive_a_restart_with_a_key_file_and_end_with_a_random_key(tmp_path):
    key = tmp_path / "token.key"
    key.write_bytes(os.urandom(48))
    key.chmod(0o600)
    for file, survives in [(f'token_key_file = "{key}"', True), ("", False)]:
        with server(tmp_path / str(survives), settings(file)) as running:
            token = login(running)
            running.server.kill()
            running.restart_server()
            with flight(running) as client:
                if survives:
                    cluster.wait_until("the client is connected again", 60, lambda: connected(client, token))
                else:
                    cluster.wait_until("the client is connected again", 60, lambda: connected(client, basic("ana", PASSWORD)))
                    assert REFUSED in refused_with(client, token)


def connected(client, header):
    try:
        return ask(client, header) > 0
    except pyarrow.flight.FlightUnavailableError:
        return False


@pytest.mark.timeout(400)
def test_twenty_wrong_passwords_take_their_time(tmp_path):
    with server(tmp_path, settings()) as running, flight(running) as client:
        began, texts = time.monotonic(), set()
        for number in range(20):
            texts.add(refused_with(client, basic("ana", f"guess {number}")))
        took = time.monotonic() - began
        delays = [int(re.search(r"delay_ms=(\d+)", line)[1]) for line in refusals(running)]
        assert len(texts) == 1 and delays == [250, 500, 1000, 2000] + [4000] * 16
        # What the log says was really waited.
        assert took >= sum(delays) / 1000
        # The owner is not locked out, nor is anybody else here.
        assert ask(client, basic("ana", PASSWORD)) > 0
        assert ask(client, f"Bearer {FIXED_TOKEN}") > 0
        assert running.metric("bowshot_auth_failures_total", way="password") == 20


@pytest.mark.timeout(400)
def test_guessing_beside_each_other_gains_nothing(tmp_path):
    guesses = 16
    with server(tmp_path, settings()) as running:
        texts, stop = [], threading.Barrier(guesses + 1)

        def guess(number):
            with flight(running) as client:
                stop.wait()
                texts.append(refused_with(client, basic("ana", f"guess {number}")))

        threads = [threading.Thread(target=guess, args=[number]) for number in range(guesses)]
        for thread in threads:
            thread.start()
        stop.wait()
        began = time.monotonic()
        # Somebody's right password waits for its turn, and is taken.
        with flight(running) as client:
            assert ask(client, basic("ana", PASSWORD)) > 0
        for thread in threads:
            thread.join()
        assert len(texts) == guesses and all(REFUSED in text for text in texts)
        # The first few were checked before anything was known of them; then two at a time, four seconds each. At once, all would take four.
        assert time.monotonic() - began >= 12


@pytest.mark.parametrize(
    "more, words",
    [
        ("token_ttl_s = 0", ["auth.token_ttl_s is 0", "1 to 2592000"]),
        ('token_key_file = "nowhere.key"', ["auth.token_key_file", "nowhere.key cannot be read"]),
        ('token_key_file = "short.key"', ["auth.token_key_file", "openssl rand"]),
        ('jwt = { issuer = "https://login.example" }', ["auth.jwt.audience is not set"]),
        ('jwt = { audience = "bowshot" }', ["auth.jwt.issuer is not set"]),
        ('jwt = { issuer = "http://login.example", audience = "bowshot" }', ["auth.jwt.issuer", "not encrypted", "jwks_file"]),
        ('jwt = { issuer = "https://a", audience = "b", algorithms = ["HS256"] }', ["auth.jwt.algorithms", "'HS256'", "RS256"]),
        ('jwt = { issuer = "https://a", audience = "b", jwks_file = "short.key" }', ["auth.jwt.jwks_file", "no JWK set"]),
        ('jwt = { issuer = "https://a", audience = "b", secret = "c" }', ["unknown setting 'auth.jwt.secret'"]),
        ('[tls]\nclient_ca = "ca.pem"', ["tls.client_ca needs tls.certificate"]),
        ('[tls]\nclient_auth = "required"', ["tls.client_auth", "tls.client_ca"]),
        ('[tls]\ncertificate = "short.key"', ["tls.certificate and tls.key must be set together"]),
        ('[tls]\nclient_auth = "maybe"', ["tls.client_auth"]),
    ],
)
def test_bad_settings_end_the_server_at_once_by_their_names(tmp_path, more, words):
    (tmp_path / "server.toml").write_text(settings(more))
    (tmp_path / "short.key").write_text("too short")
    ended = command(tmp_path, "--config", "server.toml", "server", BOWSHOT__SERVER__LISTEN=f"127.0.0.1:{cluster.free_port()}")
    checked = command(tmp_path, "--config", "server.toml", "config", "check")
    for said in [ended, checked]:
        assert said.returncode != 0
        assert all(word in said.stderr for word in words), said.stderr


def test_doctor_and_config_show_know_the_settings_and_tell_no_secret(tmp_path):
    (tmp_path / "token.key").write_bytes(os.urandom(32))
    keys = tmp_path / "keys.json"
    keys.write_text('{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}')
    jwt = f'jwt = {{ issuer = "https://login.example", audience = ["a", "b"], jwks_file = "{keys}" }}'
    (tmp_path / "server.toml").write_text(settings(f'token_key_file = "token.key"\n{jwt}'))
    shown = command(tmp_path, "--config", "server.toml", "config", "show").stdout
    for line in ['auth.mode = "required"', 'auth.users.ana = (hidden)', 'auth.tokens.robot = (hidden)', 'auth.jwt.issuer = "https://login.example"',
                 'auth.token_key_file = "token.key"', 'tls.client_auth = (unset)']:  # fmt: skip
        assert line in shown, shown
    doctor = command(tmp_path, "--config", "server.toml", "doctor")
    assert re.search(
        r"^clients +1 user with a password, 1 fixed token, JWTs of https://login\.example \(keys in .*keys\.json\); "
        r"logins last 43200 s, signed with the key in token\.key$", doctor.stdout, re.M
    ), doctor.stdout + doctor.stderr  # fmt: skip
    for secret in [FIXED_TOKEN, "argon2id"]:
        assert secret not in shown + doctor.stdout + doctor.stderr
    bad = command(tmp_path, "--config", "server.toml", "doctor", BOWSHOT__AUTH__TOKEN_KEY_FILE="nowhere.key")
    assert re.search(r"^clients +auth\.token_key_file: nowhere\.key cannot be read", bad.stdout, re.M), bad.stdout
