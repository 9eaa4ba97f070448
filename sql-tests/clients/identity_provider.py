"""A small identity provider: OpenID Connect Discovery, its keys, and a token endpoint for OAuth 2.0 (RFC 6749, RFC 8693)."""

import base64
import contextlib
import http.server
import json
import ssl
import threading
import time
import urllib.parse

import cluster
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

AUDIENCE = "bowshot-of-the-tests"
CLIENT_ID = "service"
CLIENT_SECRET = "a secret of the service"
# What a token that is exchanged belongs to.
SUBJECT_TOKEN = "a token of another kind"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


class SigningKey:
    """A private key with its id, and how its public half stands in a key set."""

    def __init__(self, key_id, algorithm="RS256"):
        self.key_id, self.algorithm = key_id, algorithm
        if algorithm.startswith(("RS", "PS")):
            self.private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        elif algorithm == "EdDSA":
            self.private = ed25519.Ed25519PrivateKey.generate()
        else:
            self.private = ec.generate_private_key({"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1()}[algorithm])

    def public_jwk(self):
        signs = jwt.get_algorithm_by_name(self.algorithm)
        return {**json.loads(signs.to_jwk(self.private.public_key())), "kid": self.key_id, "use": "sig", "alg": self.algorithm}

    def public_pem(self):
        return self.private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


class IdentityProvider:
    """A provider on a free port; use it in a `with` statement. `certificate` is a pair of files for https."""

    def __init__(self, certificate=None, host="127.0.0.1"):
        self.certificate, self.port = certificate, cluster.free_port()
        self.issuer = f"{'https' if certificate else 'http'}://{host}:{self.port}/realm"
        self.keys = [SigningKey("first")]
        # What was asked for, by path.
        self.asked = []
        self.server = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        provider = self

        class Handler(_Handler):
            pass

        Handler.provider = provider
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self):
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def description(self):
        return {
            "issuer": self.issuer,
            "jwks_uri": f"{self.issuer}/keys",
            "token_endpoint": f"{self.issuer}/token",
            "authorization_endpoint": f"{self.issuer}/authorize",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def key_set(self):
        return {"keys": [key.public_jwk() for key in self.keys]}

    def token(self, user="ana", key=None, headers=None, **changes):
        """A signed token. `changes` are claims; None takes one away."""
        key = key or self.keys[-1]
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": AUDIENCE, "sub": user, "iat": now, "exp": now + 600, **changes}
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, key.private, algorithm=key.algorithm, headers={"kid": key.key_id, **(headers or {})})

    def grant(self, form, authorization):
        """The answer of the token endpoint: a status and an object."""
        client, secret = form.get("client_id"), form.get("client_secret")
        with contextlib.suppress(ValueError):
            scheme, _, encoded = (authorization or "").partition(" ")
            if scheme == "Basic":
                client, secret = map(urllib.parse.unquote_plus, base64.b64decode(encoded).decode().split(":", 1))
        kind = form.get("grant_type")
        if kind == "client_credentials":
            if (client, secret) != (CLIENT_ID, CLIENT_SECRET):
                return 401, {"error": "invalid_client"}
            user = CLIENT_ID
        elif kind == EXCHANGE:
            if form.get("subject_token") != SUBJECT_TOKEN:
                return 400, {"error": "invalid_grant"}
            user = "exchanged"
        else:
            return 400, {"error": "unsupported_grant_type"}
        return 200, {"access_token": self.token(user), "token_type": "Bearer", "expires_in": 600, "issued_token_type": ACCESS_TOKEN}


class _Handler(http.server.BaseHTTPRequestHandler):
    provider = None

    def do_GET(self):
        self.provider.asked.append(self.path)
        if self.path == "/realm/.well-known/openid-configuration":
            self.answer(200, self.provider.description())
        elif self.path == "/realm/keys":
            self.answer(200, self.provider.key_set())
        else:
            self.answer(404, {})

    def do_POST(self):
        self.provider.asked.append(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if self.path != "/realm/token":
            return self.answer(404, {})
        form = {name: values[0] for name, values in urllib.parse.parse_qs(body).items()}
        self.answer(*self.provider.grant(form, self.headers.get("Authorization")))

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass
