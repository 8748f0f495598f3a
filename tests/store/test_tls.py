"""The store over TLS and over IPv6: a real server behind a TLS front, since the wheel's has none built in."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from switchroom.errors import Unavailable
from switchroom.settings import WrongSettings, load
from switchroom.store import Store
from switchroom.store.address import Address, Target
from switchroom.store.wire import Wire


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A self-signed certificate for this machine, as paths of it and of its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), *(x509.IPAddress(ipaddress.ip_address(ip)) for ip in ("127.0.0.1", "::1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return str(paths[0]), str(paths[1])


@contextlib.asynccontextmanager
async def front(server_url: str, host: str, context: ssl.SSLContext | None) -> AsyncIterator[int]:
    """Passes bytes on to the real server. Yields the port."""
    path = Address.from_url(server_url).path
    assert path is not None

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                target.write(data)
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind = await asyncio.open_unix_connection(path)
        await asyncio.gather(copy(reader, behind), copy(behind_reader, writer))

    server = await asyncio.start_server(serve, host, 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def server_context(certificate: tuple[str, str]) -> ssl.SSLContext:
    """Of a server that wants to know who comes."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificate[0])
    context.load_cert_chain(*certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("tls", [True, False])
async def test_a_store_over_tls_and_ipv6(
    server_url: str, store: Store, certificate: tuple[str, str], host: str, tls: bool
) -> None:
    if not _has(host):
        pytest.skip("this machine has no IPv6")
    context = await asyncio.to_thread(server_context, certificate) if tls else None
    async with front(server_url, host, context) as port:
        where = f"[{host}]:{port}/0" if ":" in host else f"{host}:{port}/0"
        cert, key = certificate
        url = (
            f"rediss://{where}?ssl_ca_certs={cert}&ssl_certfile={cert}&ssl_keyfile={key}" if tls else f"redis://{where}"
        )
        outside = await Store.connect(url)
        try:
            await outside.call("SET", "said", "over the wire")
            assert await store.call("GET", "said") == b"over the wire"
            waiting = asyncio.create_task(outside.blocking("BLPOP", "list", "5", timeout_s=7))
            await store.call("RPUSH", "list", "came")
            assert await waiting == [b"list", b"came"]
        finally:
            await outside.close()


async def test_a_server_whom_nobody_vouches_for_is_not_spoken_to(server_url: str, certificate: tuple[str, str]) -> None:
    context = await asyncio.to_thread(server_context, certificate)
    async with front(server_url, "127.0.0.1", context) as port:
        with pytest.raises(Unavailable, match="certificate verify failed"):
            await Wire.open(Address.from_url(f"rediss://127.0.0.1:{port}/0"), timeout_s=5)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("rediss://a/0?ssl_keyfile=KEY", "ssl_keyfile needs ssl_certfile"),
        ("rediss://a/0?ssl_cert_reqs=none", "ssl_cert_reqs"),
        ("redis://a/0?ssl_ca_certs=CERT", "ssl_ca_certs"),
        ("redis+cluster://a:1/?sentinel_password=x", "sentinel_password"),
        ("rediss+cluster://a:1/?ssl_ca_cert=CERT", "ssl_ca_cert"),
    ],
)
def test_an_option_that_cannot_be_kept_is_named(certificate: tuple[str, str], url: str, named: str) -> None:
    cert, key = certificate
    with pytest.raises(ValueError, match=named):
        Target.from_url(url.replace("CERT", cert).replace("KEY", key))


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("rediss://a/0?ssl_ca_certs=/no/such.pem", "ssl_ca_certs /no/such.pem: No such file"),
        ("rediss+cluster://a:1/?ssl_ca_certs=KEY", "ssl_ca_certs .*key.pem"),
        ("rediss+sentinel://a:1/line?ssl_certfile=CERT&ssl_keyfile=CERT", "ssl_keyfile .*cert.pem"),
    ],
)
def test_a_file_that_cannot_be_used_stops_the_start(certificate: tuple[str, str], url: str, named: str) -> None:
    cert, key = certificate
    with pytest.raises(WrongSettings, match=f"SWITCHROOM_STORE_URL: .*{named}"):
        load(store_url=url.replace("CERT", cert).replace("KEY", key))


def test_every_node_is_spoken_to_alike(certificate: tuple[str, str]) -> None:
    target = Target.from_url(
        f"rediss+sentinel://:pw@a:1,[::1]:2/line/3?sentinel_password=s&ssl_ca_certs={certificate[0]}"
    )
    assert [(seed.host, seed.port, seed.password) for seed in target.seeds] == [("a", 1, "s"), ("::1", 2, "s")]
    assert {seed.tls for seed in (*target.seeds, target.primary)} == {target.primary.tls}
    assert target.primary.tls is not None and target.primary.tls.ca_certs == certificate[0]
    assert (target.primary.password, target.primary.database) == ("pw", 3)


def _has(host: str) -> bool:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True
