"""The JDBC driver's ways to connect: password, token, TLS with a trust store or without a look, client certificate, token of a provider.

The driver fetches no tokens by itself (OAuth) before version 19: here a program does that for it and gives it the token.
"""

import subprocess

import auth_server
import cluster
import pytest
from auth_server import REFUSED, WHO, refusals, server
from authority import CLIENT, SERVER, Authority
from identity_provider import AUDIENCE, IdentityProvider
from test_jdbc import driver  # noqa: F401

PROGRAM = cluster.REPOSITORY / "sql-tests" / "jdbc" / "JdbcConnect.java"
PASSWORD = "ana's secret?"
TOKEN = "a fixed token of the robot"
STORE_PASSWORD = "of the trust store"
PLAIN = {"useEncryption": "false"}


def connects(driver, running, host="localhost", **properties):  # noqa: F811
    """The user that the driver is to the server, or what it says that it was refused with."""
    flags = ["--add-opens=java.base/java.nio=ALL-UNNAMED", "-Xmx256m"]
    url = f"jdbc:arrow-flight-sql://{host}:{running.port}"
    pairs = [f"{name}={value}" for name, value in properties.items()]
    ended = subprocess.run(["java", *flags, "-cp", driver, PROGRAM, url, WHO, *pairs], capture_output=True, text=True, timeout=140)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith(("row\t", "refused\t"))]
    return line.split("\t", 1)


@pytest.fixture(scope="module")
def provider():
    with IdentityProvider() as started:
        yield started


def settings(provider, tls=""):
    return f"""
[auth]
mode = "required"
users = {{ ana = "{auth_server.password_hash(PASSWORD)}" }}
tokens = {{ robot = "{TOKEN}" }}
[auth.jwt]
issuer = "{provider.issuer}"
audience = "{AUDIENCE}"
{tls}
"""


@pytest.fixture(scope="module")
def plain(provider, tmp_path_factory):
    with server(tmp_path_factory.mktemp("plain"), settings(provider)) as running:
        yield running


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.issue("server", "server", SERVER)
    made.issue("eve", "eve", CLIENT)
    store = ["keytool", "-importcert", "-noprompt", "-alias", "tests", "-file", made.ca, "-storepass", STORE_PASSWORD]
    subprocess.run([*store, "-keystore", made.folder / "trust.jks"], check=True, capture_output=True, timeout=120)
    return made


@pytest.fixture(scope="module")
def encrypted(provider, authority, tmp_path_factory):
    folder = authority.folder
    tls = f'[tls]\ncertificate = "{folder}/server.pem"\nkey = "{folder}/server.key"\nclient_ca = "{authority.ca}"\nclient_auth = "optional"'
    with server(tmp_path_factory.mktemp("encrypted"), settings(provider, tls)) as running:
        yield running


def test_user_and_password(driver, plain):  # noqa: F811
    assert connects(driver, plain, **PLAIN, user="ana", password=PASSWORD) == ["row", "ana"]


def test_a_wrong_password_is_refused_in_the_servers_words(driver, plain):  # noqa: F811
    outcome, text = connects(driver, plain, **PLAIN, user="ana", password="wrong")
    assert outcome == "refused" and REFUSED in text, text
    assert any('user="ana"' in line and "wrong password" in line for line in refusals(plain))


def test_a_fixed_token(driver, plain):  # noqa: F811
    assert connects(driver, plain, **PLAIN, token=TOKEN) == ["row", "robot"]


def test_a_token_of_an_identity_provider(driver, plain, provider):  # noqa: F811
    assert connects(driver, plain, **PLAIN, token=provider.token("ana@example")) == ["row", "ana@example"]
    outcome, text = connects(driver, plain, **PLAIN, token=provider.token(aud="another service"))
    assert outcome == "refused" and REFUSED in text, text


def test_tls_with_a_trust_store(driver, encrypted, authority):  # noqa: F811
    # Without the last one the driver looks into the machine's own store, and into this one with that one's password.
    trusting = {"trustStore": authority.folder / "trust.jks", "trustStorePassword": STORE_PASSWORD, "useSystemTrustStore": "false"}
    assert connects(driver, encrypted, **trusting, user="ana", password=PASSWORD) == ["row", "ana"]


def test_tls_with_the_authority_in_a_file(driver, encrypted, authority):  # noqa: F811
    assert connects(driver, encrypted, tlsRootCerts=authority.ca, token=TOKEN) == ["row", "robot"]


def test_tls_without_a_look_at_the_certificate(driver, encrypted):  # noqa: F811
    assert connects(driver, encrypted, disableCertificateVerification="true", user="ana", password=PASSWORD) == ["row", "ana"]
    outcome, _ = connects(driver, encrypted, useSystemTrustStore="true", user="ana", password=PASSWORD)
    assert outcome == "refused"


def test_a_client_certificate(driver, encrypted, authority):  # noqa: F811
    shown = {"clientCertificate": authority.folder / "eve.pem", "clientKey": authority.folder / "eve.key"}
    assert connects(driver, encrypted, tlsRootCerts=authority.ca, **shown) == ["row", "eve"]
    assert connects(driver, encrypted, tlsRootCerts=authority.ca, **shown, token=TOKEN) == ["row", "robot"]
