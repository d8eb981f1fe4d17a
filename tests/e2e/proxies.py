"""A real HTTP proxy on loopback, and a TLS front of an endpoint: what stands between a company and a model."""

import asyncio
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from everturn.contracts.fields import utc_now

_HOST = "127.0.0.1"


class Proxy:
    """Takes `CONNECT` and requests with a whole URL (RFC 9110 section 9.3.6, RFC 9112 section 3.2.2).

    Whatever host is asked for, it goes to `upstream_port` of loopback: names need not exist. `asked`: the first line of
    each request that came. It asks for `credentials`, if they are given (RFC 9110 section 11.7).
    """

    def __init__(self, upstream_port: int, credentials: str | None = None) -> None:
        self.upstream_port = upstream_port
        self.asked: list[str] = []
        self._wanted = b64encode(credentials.encode()) if credentials else b""
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, _, rest = head.partition(b"\r\n")
        self.asked.append(line.decode())
        if self._wanted not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
            writer.close()
            return
        onward_reader, onward_writer = await asyncio.open_connection(_HOST, self.upstream_port)
        if line.startswith(b"CONNECT "):
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            method, url, version = line.split(b" ")
            path = b"/" + url.split(b"/", 3)[3]
            onward_writer.write(b" ".join((method, path, version)) + b"\r\n" + rest)
        await asyncio.gather(_pass_on(reader, onward_writer), _pass_on(onward_reader, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def proxy_to(upstream_port: int, credentials: str | None = None) -> AsyncIterator[Proxy]:
    proxy = Proxy(upstream_port, credentials)
    server = await asyncio.start_server(proxy.serve, _HOST, 0)
    proxy.port = server.sockets[0].getsockname()[1]
    async with server:
        yield proxy


@asynccontextmanager
async def tls_front(upstream_port: int, name: str, certificate: Path) -> AsyncIterator[int]:
    """The port of a front that speaks TLS as `name`; its certificate, signed by itself, is written to `certificate`."""
    _write_certificate(name, certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection(_HOST, upstream_port)
        await asyncio.gather(_pass_on(reader, onward_writer), _pass_on(onward_reader, writer))

    server = await asyncio.start_server(serve, _HOST, 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


def _write_certificate(name: str, file: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(utc_now() - timedelta(days=1))
        .not_valid_after(utc_now() + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed.public_bytes(serialization.Encoding.PEM)
    )
