"""An identity provider as far as a service sees one: its published keys, and tokens that it signs."""

import json
import time
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

ISSUER = "https://id.example/realms/everturn"
AUDIENCE = "everturn"


@dataclass
class SigningKey:
    """A key pair; `public` is its entry in the provider's JWKS."""

    kid: str
    algorithm: str
    private: Any
    public: dict[str, Any]

    @classmethod
    def of_curve(cls, kid: str = "first") -> "SigningKey":
        private = ec.generate_private_key(ec.SECP256R1())
        return cls(kid, "ES256", private, {**ECAlgorithm.to_jwk(private.public_key(), as_dict=True), "kid": kid})

    @classmethod
    def of_rsa(cls, kid: str = "rsa") -> "SigningKey":
        private = rsa.generate_private_key(65537, 2048)
        public = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
        return cls(kid, "RS256", private, {**public, "kid": kid, "use": "sig", "alg": "RS256"})


@dataclass
class IdentityProvider:
    """Signs with the last of its keys."""

    keys: list[SigningKey] = field(default_factory=lambda: [SigningKey.of_curve()])

    def jwks(self) -> bytes:
        return json.dumps({"keys": [key.public for key in self.keys]}).encode()

    def token(self, user: str = "ann", *, key: SigningKey | None = None, headers: Any = None, **claims: Any) -> str:
        """A token of `user`, for ten minutes; a claim that is None is left out."""
        key = key or self.keys[-1]
        given = {"sub": user, "iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 600, **claims}
        payload = {name: value for name, value in given.items() if value is not None}
        return jwt.encode(payload, key.private, key.algorithm, headers={"kid": key.kid, **(headers or {})})
