"""One request over the wire: certificates are verified, connections are kept, and nothing hangs."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from api_server import Net, data, described, served

import signstep as ss
from signstep.errors import VictimError
from signstep.model.victims.address import Address
from signstep.model.victims.wire import Silence, Wire


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port on this machine where each connection is handed over, until the ``with`` block ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        ended = threading.Event()

        def run() -> None:
            while not ended.is_set():
                try:
                    connection, _ = server.accept()
                except OSError:
                    continue
                connection.settimeout(2)
                with connection, suppress(OSError):
                    serve(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            ended.set()
            thread.join()


def certificate(folder: Path) -> Path:
    """A certificate of 127.0.0.1 that nobody has signed but itself."""
    pytest.importorskip("cryptography")
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "own.pem"
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(text + made.public_bytes(serialization.Encoding.PEM))
    return path


def test_a_certificate_that_nobody_vouches_for_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path))
    came: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            came.append(wrapped.recv(100))

    with listening(serve) as port:
        model = ss.open(f"https://127.0.0.1:{port}/p", endpoint=described())
        with pytest.raises(VictimError, match="its certificate is not trusted") as caught:
            model(data(1)[0])
    assert came == []
    assert ";" in str(caught.value)


def test_one_connection_serves_many_requests_and_one_that_was_closed_is_no_trouble() -> None:
    x, _ = data(4)
    with served() as api:
        model = ss.open(api.url, endpoint=described("png"))
        model(x)
        (first,) = model.network._exchange._wire._open  # type: ignore[attr-defined]
        model(x)
        (again,) = model.network._exchange._wire._open  # type: ignore[attr-defined]
        assert first is again
        first.sock.shutdown(socket.SHUT_RDWR)  # as a server that has waited long enough
        model(x)
        assert api.count == 12 == model.network.requests  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc",
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"",
    ],
)
def test_half_an_answer_is_none(said: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(2**16)
        connection.sendall(said)

    with listening(serve) as port:
        wire = Wire(Address.of(f"http://127.0.0.1:{port}/"), "POST", 20.0)
        with pytest.raises(Silence) as caught:
            wire.send(b"{}", {}, {})
    assert caught.value.again


def test_a_server_that_drips_is_left() -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(2**16)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        for _ in range(200):
            connection.sendall(b" ")
            threading.Event().wait(0.02)

    with listening(serve) as port:
        wire = Wire(Address.of(f"http://127.0.0.1:{port}/"), "POST", 0.3)
        with pytest.raises(Silence, match="no answer in time"):
            wire.send(b"{}", {}, {})


def test_proxies_of_the_environment_are_not_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with served() as api:
        ss.open(api.url, endpoint=described())(data(1)[0])
        assert api.count == 1


@pytest.mark.parametrize("recipe", ["fgsm", "mi-fgsm:steps=3", "deepfool:steps=5"])
def test_attacks_that_begin_at_the_clean_input_take_a_surrogate_too(recipe: str) -> None:
    x, y = data(3)
    with served() as api:
        model = ss.open(api.url, endpoint=described("png"))
        search = ss.Search(surrogate=Net(0.05))
        outcome = ss.attack(model, x, y, threat=ss.linf("32/255", grid=255), recipe=recipe, search=search)
        assert bool(outcome.verified.all())
        assert isinstance(outcome.fooled, torch.Tensor)
        assert api.count > 0
