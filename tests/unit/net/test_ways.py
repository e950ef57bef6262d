"""Ways to a host: addresses of both families, TLS, proxies."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from stepwell.errors import UsageError
from stepwell.net import addresses
from stepwell.net.addresses import open_socket
from stepwell.net.http_client import Pool
from stepwell.net.http_errors import TimedOut, Unreachable
from stepwell.net.proxies import Proxies
from tests.unit.net.conftest import Certificate, Run
from tests.unit.net.peer import Conn, Peer, Request, answer, answering

# Addresses.


def resolve_to(monkeypatch: pytest.MonkeyPatch, *found: tuple[str, int]) -> None:
    """Let every name have these addresses, of two families by turns."""

    async def resolved(host: str, port: int) -> list[addresses.Address]:
        return [(socket.AF_INET, address) for address in found]

    monkeypatch.setattr(addresses, "_addresses", resolved)


def test_a_refused_address_falls_back_to_the_next(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once; only when all are refused it is an error, which names them all."""

    async def main() -> None:
        async with Peer(answering(answer())) as peer, Pool(environ={}) as client:
            resolve_to(monkeypatch, ("127.0.0.1", 9), ("127.0.0.1", 7), ("127.0.0.1", peer.port))
            assert (await client.request("GET", "http://name.invalid/")).status == 200
            resolve_to(monkeypatch, ("127.0.0.1", 9), ("127.0.0.1", 7))
            with pytest.raises(Unreachable, match=r"127.0.0.1 port 9: Connection refused; 127.0.0.1 port 7: Connection refused"):
                await client.request("GET", "http://other.invalid/")

    run(main())


def test_a_silent_address_is_raced(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one joins after a moment; the loser's socket is closed."""

    async def main() -> None:
        real, tried, closed = addresses._connected, [], asyncio.Event()

        async def connected(family: int, address: Any) -> socket.socket:
            tried.append(address[1])
            if address[1] == 1:
                try:
                    await asyncio.Event().wait()
                finally:
                    closed.set()
            return await real(family, address)

        monkeypatch.setattr(addresses, "_connected", connected)
        async with Peer(answering(answer())) as peer:
            resolve_to(monkeypatch, ("127.0.0.1", 1), ("127.0.0.1", peer.port))
            with await open_socket("h", 80, race_delay_s=0.01) as made:
                assert made.getpeername()[1] == peer.port
            await closed.wait()
            assert tried == [1, peer.port]

    run(main())


def test_no_connection_in_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connect limit says that nothing was sent; the call's own limit, when shorter, that its time is over."""

    async def main() -> None:
        async def connected(family: int, address: Any) -> socket.socket:
            await asyncio.Event().wait()
            raise AssertionError

        monkeypatch.setattr(addresses, "_connected", connected)
        async with Pool(environ={}, connect_s=0.05) as client:
            with pytest.raises(Unreachable, match=r"no connection within 0.05 s"):
                await client.request("GET", "http://127.0.0.1/")
            with pytest.raises(TimedOut, match=r"no whole answer within 0.01 s"):
                await client.request("GET", "http://127.0.0.1/", timeout_s=0.01)

    run(main())


def test_families_take_turns() -> None:
    """In the resolver's order, its first family first (RFC 8305)."""
    six, four = socket.AF_INET6, socket.AF_INET
    found: list[addresses.Address] = [(six, "a"), (six, "b"), (six, "c"), (four, "d")]
    assert [name for _, name in addresses.by_turns(found)] == ["a", "d", "b", "c"]


# TLS.


def test_an_encrypted_call(run: Run, certificate: Certificate) -> None:
    """Over one kept connection, to the name that the certificate is for."""

    async def main() -> None:
        async with (
            Peer(answering(answer(b"x" * 300_000)), tls=certificate.server) as peer,
            Pool(environ={}, tls=certificate.client) as client,
        ):
            for _ in range(3):
                assert len((await client.request("POST", f"https://localhost:{peer.port}/", body=b"y" * 300_000)).body) == 300_000
            assert peer.connections == 1

    run(main())


def test_a_certificate_for_another_name(run: Run, certificate: Certificate) -> None:
    """Nothing is sent."""

    async def main() -> None:
        async with Peer(answering(answer()), tls=certificate.server) as peer, Pool(environ={}, tls=certificate.client) as client:
            with pytest.raises(Unreachable, match=r"no encrypted connection to '127.0.0.1': .*[Ii][Pp] address mismatch"):
                await client.request("POST", f"https://127.0.0.1:{peer.port}/")
            assert peer.requests == []

    run(main())


def test_a_certificate_of_nobody_known(run: Run, certificate: Certificate) -> None:
    """The usual checks are on unless replaced."""

    async def main() -> None:
        async with Peer(answering(answer()), tls=certificate.server) as peer, Pool(environ={}) as client:
            with pytest.raises(Unreachable, match=r"no encrypted connection to 'localhost': self.signed certificate"):
                await client.request("POST", f"https://localhost:{peer.port}/")

    run(main())


def test_no_tls_where_it_is_asked_for(run: Run) -> None:
    """A plain server behind an https address."""

    async def main() -> None:
        async with Peer(lambda conn: conn.send(answer())) as peer, Pool(environ={}) as client:
            with pytest.raises(Unreachable, match="no encrypted connection"):
                await client.request("POST", f"https://localhost:{peer.port}/")

    run(main())


def test_a_cut_encrypted_answer(run: Run, certificate: Certificate) -> None:
    """The kept connection closed under TLS is tried once more, as a plain one."""

    async def script(conn: Conn) -> None:
        await conn.request()
        await conn.send(answer())
        await conn.request()

    async def main() -> None:
        async with Peer(script, tls=certificate.server) as peer, Pool(environ={}, tls=certificate.client) as client:
            for _ in range(2):
                assert (await client.request("POST", f"https://localhost:{peer.port}/")).status == 200
            assert peer.connections == 2 and len(peer.requests) == 3

    run(main())


# Proxies.


def test_a_plain_request_through_a_proxy(run: Run) -> None:
    """The proxy gets the whole address, its login, and the host's name."""

    async def main() -> None:
        async with Peer(answering(answer(b"proxied"))) as proxy:
            environ = {"HTTP_PROXY": f"http://us:p%40ss@127.0.0.1:{proxy.port}", "NO_PROXY": "direct.invalid"}
            async with Pool(environ=environ) as client:
                for path in ("/x?q=1", "/y"):
                    assert (await client.request("POST", f"http://app.invalid:8000{path}", body=b"b")).body == b"proxied"
                with pytest.raises(Unreachable, match="no address"):
                    await client.request("POST", "http://direct.invalid/")
            assert [request.target for request in proxy.requests] == ["http://app.invalid:8000/x?q=1", "http://app.invalid:8000/y"]
            assert proxy.requests[0].headers["host"] == "app.invalid:8000"
            assert proxy.requests[0].headers["proxy-authorization"] == "Basic dXM6cEBzcw=="
            assert proxy.connections == 1

    run(main())


@pytest.mark.parametrize("encrypted_proxy", [False, True])
def test_an_encrypted_request_through_a_proxy(run: Run, certificate: Certificate, encrypted_proxy: bool) -> None:
    """Through a tunnel: the proxy learns where to, the app's certificate is for the app's name, and the login stays with the proxy."""
    asked: list[Request | None] = []

    async def script(conn: Conn) -> None:
        asked.append(await conn.request())
        reader, writer = await asyncio.open_connection("127.0.0.1", app_port)
        await conn.send(b"HTTP/1.1 200 Connection established\r\nx: y\r\n\r\n")
        await asyncio.gather(_pump(conn.reader, writer), _pump(reader, conn.writer))

    async def main() -> None:
        nonlocal app_port
        async with Peer(answering(answer(b"x" * 200_000)), tls=certificate.server) as app:
            app_port = app.port
            async with Peer(script, tls=certificate.server if encrypted_proxy else None) as proxy:
                # This machine is always reached directly, but for the purpose of this test.
                environ = {"https_proxy": f"{'https' if encrypted_proxy else 'http'}://u:p@localhost:{proxy.port}"}
                client = Pool(environ=environ, tls=certificate.client)
                client._proxies = _Everywhere(environ)
                async with client:
                    for _ in range(2):
                        response = await client.request("POST", f"https://localhost:{app.port}/x", body=b"y" * 200_000)
                        assert len(response.body) == 200_000
                assert proxy.connections == app.connections == 1
            assert [(r.method, r.target, r.headers["proxy-authorization"]) for r in asked if r] == [
                ("CONNECT", f"localhost:{app.port}", "Basic dTpw")
            ]
            assert "proxy-authorization" not in app.requests[0].headers

    app_port = 0
    run(main())


class _Everywhere(Proxies):
    """Proxies for this machine too."""

    def of(self, scheme: str, host: str, port: int) -> Any:
        """The scheme's."""
        return self._by_scheme.get(scheme)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407 Proxy Authentication Required"),
        (b"", "it closed the connection"),
        (b"x" * 70_000, "its answer has no end"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "no encrypted connection|was encrypted"),
    ],
)
def test_a_proxy_that_refuses(run: Run, said: bytes, why: str) -> None:
    """Nothing reached the app; the message says that it was the proxy."""

    async def script(conn: Conn) -> None:
        await conn.request()
        await conn.send(said)

    async def main() -> None:
        async with Peer(script) as proxy, Pool(environ={"HTTPS_PROXY": f"127.0.0.1:{proxy.port}"}) as client:
            with pytest.raises(Unreachable, match=why):
                await client.request("POST", "https://app.invalid/")

    run(main())


PROXIED = [
    ("", "http", "a.com", 80, True),
    ("", "https", "a.com", 443, False),
    ("", "http", "localhost", 80, False),
    ("", "http", "127.8.8.8", 80, False),
    ("", "http", "::1", 80, False),
    ("*", "http", "a.com", 80, False),
    ("a.com", "http", "A.com.", 80, False),
    ("a.com", "http", "x.a.com", 80, False),
    ("a.com", "http", "ba.com", 80, True),
    (".a.com", "http", "a.com", 80, True),
    (".a.com", "http", "x.a.com", 80, False),
    ("*.a.com", "http", "x.a.com", 80, False),
    ("b.com, a.com:8080", "http", "a.com", 80, True),
    ("b.com a.com:8080", "http", "a.com", 8080, False),
    ("10.0.0.0/8", "http", "10.1.2.3", 80, False),
    ("10.0.0.0/8", "http", "11.1.2.3", 80, True),
    ("10.1.2.3:81", "http", "10.1.2.3", 81, False),
    ("fd00::/8", "http", "fd00::1", 80, False),
    ("[fd00::1]:81", "http", "fd00::1", 80, True),
    ("fd00::1", "http", "fd00::1", 80, False),
    ("a.com", "http", "10.1.2.3", 80, True),
]


@pytest.mark.parametrize(("no_proxy", "scheme", "host", "port", "proxied"), PROXIED)
def test_what_goes_through_a_proxy(no_proxy: str, scheme: str, host: str, port: int, proxied: bool) -> None:
    """As `NO_PROXY` is read everywhere; this machine never does."""
    proxies = Proxies({"http_proxy": "p:3128", "HTTP_PROXY": "other:1", "NO_PROXY": no_proxy})
    proxy = proxies.of(scheme, host, port)
    assert (proxy is not None) is proxied
    if proxy is not None:
        assert (proxy.host, proxy.port, proxy.tls, proxy.authorization) == ("p", 3128, False, None)


def test_proxies_of_odd_environments() -> None:
    """Under CGI a client could name the proxy; an unusable one is refused at once, its password unsaid."""
    assert Proxies({"HTTP_PROXY": "p:1", "REQUEST_METHOD": "GET"}).of("http", "a.com", 80) is None
    assert Proxies({"http_proxy": "p:1", "REQUEST_METHOD": "GET"}).of("http", "a.com", 80) is not None
    assert Proxies({"http_proxy": ""}).of("http", "a.com", 80) is None
    for value in ("socks5://u:secret@p:1", "http://u:secret@p:x", "http://"):
        with pytest.raises(UsageError) as error:
            Proxies({"https_proxy": value})
        assert "secret" not in str(error.value)
