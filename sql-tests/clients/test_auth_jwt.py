"""Tokens of an identity provider: which are taken, where its keys come from, and drivers that fetch tokens by themselves (OAuth)."""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import subprocess
import sys
import time

import adbc_driver_manager
import auth_server
import cluster
import pyarrow.flight
import pytest
from auth_server import REFUSED, adbc, answer, ask, flight, refusals, refused_with, server, user_of
from authority import SERVER, Authority
from identity_provider import ACCESS_TOKEN, AUDIENCE, CLIENT_ID, CLIENT_SECRET, SUBJECT_TOKEN, IdentityProvider, SigningKey

# The server asks for unknown keys at most this often (limits.rs), and a test waits longer.
KEYS_SECONDS = 5
FOUND_SECONDS = 60


def settings(provider, more="", tls=""):
    return f"""
[auth]
mode = "required"
[auth.jwt]
issuer = "{provider.issuer}"
audience = "{AUDIENCE}"
{more}
{tls}
"""


@pytest.fixture(scope="module")
def provider():
    with IdentityProvider() as started:
        yield started


@pytest.fixture(scope="module")
def running(provider, tmp_path_factory):
    with server(tmp_path_factory.mktemp("jwt"), settings(provider)) as started:
        yield started


def taken(running, token):
    """Whether the server takes a token."""
    with flight(running) as client:
        try:
            return ask(client, f"Bearer {token}") > 0
        except pyarrow.flight.FlightUnauthenticatedError as error:
            assert REFUSED in str(error)
            return False


def test_a_token_names_its_user(provider, running):
    with adbc(running, authorization_header=f"Bearer {provider.token('ana@example')}") as connection:
        assert user_of(connection) == "ana@example"


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"])
def test_every_algorithm_with_a_public_key_is_taken(algorithm, tmp_path):
    key = SigningKey("one", algorithm)
    with IdentityProvider() as provider:
        provider.keys = [key]
        with server(tmp_path, settings(provider)) as running:
            assert taken(running, provider.token())
            assert not taken(running, provider.token(key=SigningKey("one", algorithm)))


def encoded(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def signed_with_public_key(token, key, algorithm="HS256"):
    """The oldest trick: the public key, which everybody has, as the secret of an HMAC."""
    header = encoded({"alg": algorithm, "typ": "JWT", "kid": key.key_id})
    signed = f"{header}.{token.split('.')[1]}"
    digest = hmac.new(key.public_pem(), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def test_every_other_token_is_refused_in_the_same_words(provider, running):
    now, good = int(time.time()), provider.token()
    header, claims, signature = good.split(".")
    none = encoded({"alg": "none", "typ": "JWT"})
    wrong = {
        "it has expired": provider.token(exp=now - 60),
        "it is not valid yet": provider.token(nbf=now + 600),
        "it is for another audience": provider.token(aud="another service"),
        "its claim 'aud' is missing": provider.token(aud=None),
        "its claim 'exp' is missing": provider.token(exp=None),
        "it is of the issuer 'https://elsewhere.example'": provider.token(iss="https://elsewhere.example"),
        "its claim 'sub' names no user": provider.token(sub=""),
        "its signature is wrong": f"{header}.{encoded({**json.loads(base64.urlsafe_b64decode(claims + '===')), 'sub': 'root'})}.{signature}",
        "its algorithm HS256 is not among": signed_with_public_key(good, provider.keys[0]),
        "its header cannot be read": f"{none}.{claims}.",
        "no key of the issuer fits: kid 'stranger'": provider.token(key=SigningKey("stranger")),
        "its header wants b64 understood": provider.token(headers={"crit": ["b64"], "b64": "false"}),
    }
    with flight(running) as client:
        texts = {refused_with(client, f"Bearer {token}") for token in wrong.values()}
        assert len(texts) == 1 and REFUSED in texts.pop()
        assert ask(client, f"Bearer {good}") > 0
    said = refusals(running)
    for reason in wrong:
        assert any('way="jwt"' in line and reason in line for line in said), (reason, said)
    assert any('user="ana"' in line and "it has expired" in line for line in said)
    # Nothing of a token is in the log.
    assert signature not in running.server.log_text() and claims not in running.server.log_text()


def test_a_login_ends_with_the_token_that_bought_it(provider, running):
    leeway = 30
    with flight(running) as client:
        # Basic is all that the library's handshake sends, so the call is made by hand.
        token = provider.token(exp=int(time.time()) + 3 - leeway)
        login = handshake(client, token)
        # The login itself has no leeway: the token ended before it began.
        assert REFUSED in refused_with(client, login)
        login = handshake(client, provider.token())
        assert ask(client, login) > 0


class Bearer(pyarrow.flight.ClientAuthHandler):
    """A handshake in which nothing is said beside the headers."""

    def authenticate(self, outgoing, incoming):
        self.token = incoming.read()

    def get_token(self):
        return b""


def handshake(client, token):
    handler = Bearer()
    client.authenticate(handler, auth_server.headers(("authorization", f"Bearer {token}")))
    return f"Bearer {handler.token.decode()}"


def test_a_new_key_is_found_and_an_old_one_stays_while_the_issuer_is_away(tmp_path):
    with IdentityProvider() as provider:
        with server(tmp_path, settings(provider)) as running:
            assert taken(running, provider.token())
            first = provider.keys[0]
            provider.keys = [first, SigningKey("second", "ES256")]
            cluster.wait_until("the second key is found", FOUND_SECONDS, lambda: taken(running, provider.token()))
            provider.stop()
            # Unknown keys make the server ask, in vain: it says so, and the keys that it has are good.
            stranger = SigningKey("third")
            complained = lambda: "keys of JWTs cannot be read: those before stay in use" in running.server.log_text()  # noqa: E731
            cluster.wait_until("the server asks in vain", FOUND_SECONDS, lambda: not taken(running, provider.token(key=stranger)) and complained())
            assert taken(running, provider.token()) and taken(running, provider.token(key=first))
            provider.keys = [stranger]
            provider.start()
            cluster.wait_until("the third key is found", FOUND_SECONDS, lambda: taken(running, provider.token()))
            # The first one is withdrawn.
            assert not taken(running, provider.token(key=first))


def test_strangers_cannot_make_the_server_ask_at_will(tmp_path):
    with IdentityProvider() as provider, server(tmp_path, settings(provider)) as running:
        cluster.wait_until("the keys are read", FOUND_SECONDS, lambda: provider.asked.count("/realm/keys") == 1)
        began = time.monotonic()
        for number in range(6):
            assert not taken(running, provider.token(key=SigningKey(f"unknown {number}", "EdDSA")))
        most = 1 + (time.monotonic() - began) / KEYS_SECONDS + 1
        assert provider.asked.count("/realm/keys") <= most
        asked = len(provider.asked)
        # A token of another issuer is sent away before anybody is asked.
        assert not taken(running, provider.token(key=SigningKey("other"), iss="https://elsewhere.example"))
        assert len(provider.asked) == asked


def test_a_server_starts_while_the_issuer_is_away(tmp_path):
    provider = IdentityProvider()
    with server(tmp_path, settings(provider)) as running:
        assert not taken(running, provider.token())
        with provider:
            cluster.wait_until("the issuer is asked again", FOUND_SECONDS, lambda: taken(running, provider.token()))


def test_a_description_of_another_issuer_is_not_believed(tmp_path):
    with IdentityProvider() as provider:
        described = provider.description()
        provider.description = lambda: {**described, "issuer": "https://elsewhere.example"}
        with server(tmp_path, settings(provider)) as running:
            assert not taken(running, provider.token())
            assert "is about the issuer 'https://elsewhere.example'" in running.server.log_text()


def test_keys_of_a_file_and_another_claim(tmp_path):
    provider = IdentityProvider()
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps(provider.key_set()))
    with server(tmp_path / "server", settings(provider, f'jwks_file = "{keys}"\nuser_claim = "email"')) as running:
        with adbc(running, authorization_header=f"Bearer {provider.token(email='ana@example')}") as connection:
            assert user_of(connection) == "ana@example"
        assert not taken(running, provider.token())
        provider.keys = [SigningKey("next", "EdDSA")]
        keys.write_text(json.dumps(provider.key_set()))
        cluster.wait_until("the file is read again", FOUND_SECONDS, lambda: taken(running, provider.token(email="ana@example")))


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory):
    """A provider and a server, both with TLS: ADBC gives tokens to no server without."""
    folder = tmp_path_factory.mktemp("oauth")
    authority = Authority(folder / "authority")
    pem, key = authority.issue("server", "server", SERVER)
    with IdentityProvider(certificate=(pem, key), host="localhost") as provider:
        tls = f'[tls]\ncertificate = "{pem}"\nkey = "{key}"'
        with server(folder / "server", settings(provider, f'ca = "{authority.ca}"', tls)) as running:
            yield provider, running, authority.ca.read_text()


def oauth(encrypted, **options):
    provider, running, ca = encrypted
    options = {"oauth_token_uri": f"{provider.issuer}/token", "tls_root_certs": ca, **options}
    return adbc(running, "grpc+tls", "localhost", **options)


def test_adbc_fetches_a_token_with_client_credentials(encrypted):
    provider, *_ = encrypted
    with plain_token_endpoint(provider) as token_uri:
        options = {"oauth_flow": "client_credentials", "oauth_client_id": CLIENT_ID, "oauth_token_uri": token_uri}
        with oauth(encrypted, **options, oauth_client_secret=CLIENT_SECRET) as connection:
            assert user_of(connection) == CLIENT_ID
        with pytest.raises(adbc_driver_manager.Error, match="invalid_client"):
            with oauth(encrypted, **options, oauth_client_secret="wrong") as connection:
                answer(connection, "SELECT 1")


# Run by a process of its own: the driver's library reads this variable once.
OVER_TLS = """
import sys, types, auth_server
port, issuer, ca, secret = sys.argv[1:]
options = {"oauth_flow": "client_credentials", "oauth_client_id": "service", "oauth_client_secret": secret, "oauth_token_uri": f"{issuer}/token"}
with auth_server.adbc(types.SimpleNamespace(port=port), "grpc+tls", "localhost", tls_root_certs=open(ca).read(), **options) as connection:
    print(auth_server.user_of(connection))
"""


def test_adbc_fetches_a_token_over_tls(encrypted, tmp_path):
    provider, running, ca = encrypted
    (tmp_path / "ca.pem").write_text(ca)
    environment = {**os.environ, "SSL_CERT_FILE": str(tmp_path / "ca.pem")}
    ended = subprocess.run(
        [sys.executable, "-c", OVER_TLS, str(running.port), provider.issuer, str(tmp_path / "ca.pem"), CLIENT_SECRET],
        cwd=pathlib.Path(__file__).parent, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (ended.stdout.strip(), ended.returncode) == (CLIENT_ID, 0), ended.stderr
    assert "/realm/token" in provider.asked


def test_adbc_exchanges_a_token(encrypted):
    provider, *_ = encrypted
    with plain_token_endpoint(provider) as token_uri:
        options = {"oauth_flow": "token_exchange", "oauth_exchange_subject_token_type": ACCESS_TOKEN, "oauth_token_uri": token_uri}
        with oauth(encrypted, **options, oauth_exchange_subject_token=SUBJECT_TOKEN) as connection:
            assert user_of(connection) == "exchanged"


def test_adbc_sends_a_token_of_its_own_over_tls(encrypted):
    provider, running, ca = encrypted
    with adbc(running, "grpc+tls", "localhost", tls_root_certs=ca, authorization_header=f"Bearer {provider.token()}") as connection:
        assert user_of(connection) == "ana"


def plain_token_endpoint(provider):
    """The driver has no option for the authorities of a token endpoint, so in this process it is asked on loopback without TLS; the tokens
    are those of the provider with TLS, where the server finds their keys."""
    return _PlainTokenEndpoint(provider)


class _PlainTokenEndpoint(IdentityProvider):
    def __init__(self, provider):
        super().__init__()
        self.token = provider.token

    def __enter__(self):
        super().__enter__()
        return f"{self.issuer}/token"
