"""Compressed bodies."""

from __future__ import annotations

import gzip
import zlib

import pytest

from stepwell.net import content_encoding
from stepwell.net.content_encoding import decoded
from stepwell.net.http_client import Pool
from stepwell.net.http_errors import Broken, HttpError, NotHttp, TooLarge
from tests.unit.net.conftest import Run
from tests.unit.net.peer import Peer, answer, answering

BODY = b'{"a":1}' * 100
RAW = zlib.compressobj(wbits=-15)
RAW_BODY = RAW.compress(BODY) + RAW.flush()


@pytest.mark.parametrize(
    ("encoding", "sent"),
    [
        ("gzip", gzip.compress(BODY, mtime=0)),
        ("X-GZIP", gzip.compress(BODY[:50], mtime=0) + gzip.compress(BODY[50:], mtime=0)),
        ("deflate", zlib.compress(BODY)),
        ("deflate", RAW_BODY),
        ("identity", BODY),
        ("", BODY),
        ("deflate, gzip", gzip.compress(zlib.compress(BODY), mtime=0)),
    ],
)
def test_decoded(encoding: str, sent: bytes) -> None:
    """Each encoding, both kinds of deflate, several members, several encodings."""
    assert decoded(sent, encoding, len(BODY)) == BODY


@pytest.mark.parametrize(
    ("encoding", "sent", "kind"),
    [
        ("gzip", gzip.compress(BODY, mtime=0)[:-9], Broken),
        ("gzip", gzip.compress(BODY[:50], mtime=0) + gzip.compress(BODY[50:], mtime=0)[:-9], Broken),
        ("deflate", zlib.compress(BODY)[:-9], Broken),
        ("gzip", b"no gzip", NotHttp),
        ("gzip", gzip.compress(BODY[:50], mtime=0) + b"more", NotHttp),
        ("deflate", b"\xff\xff\xff", NotHttp),
        ("zstd", BODY, NotHttp),
        ("gzip", gzip.compress(b"x" * len(BODY) + b"y", mtime=0), TooLarge),
        ("gzip", gzip.compress(BODY, mtime=0) + gzip.compress(b"x", mtime=0), TooLarge),
        ("gzip", gzip.compress(b"\0" * 100_000_000, mtime=0), TooLarge),
        ("deflate, gzip", gzip.compress(zlib.compress(b"\0" * 100_000_000), mtime=0), TooLarge),
    ],
)
def test_not_decoded(encoding: str, sent: bytes, kind: type[HttpError]) -> None:
    """Cut off, not what it says, or larger than the bound, of which nothing more is made."""
    with pytest.raises(kind):
        decoded(sent, encoding, len(BODY))


def test_nothing_is_nothing() -> None:
    """An answer without a body may name an encoding all the same."""
    assert decoded(b"", "gzip", 10) == b""


def test_brotli() -> None:
    """Offered and decoded where the library is there, refused where it is not."""
    assert ("br" in content_encoding.ACCEPTED) is (content_encoding.brotli is not None)
    if content_encoding.brotli is None:
        with pytest.raises(NotHttp, match="not offered"):
            decoded(b"x", "br", 10)
        return
    sent = content_encoding.brotli.compress(BODY)
    assert decoded(sent, "br", len(BODY)) == BODY
    for wrong, kind in ((sent[:-4], Broken), (b"\xff\xff\xff", NotHttp), (content_encoding.brotli.compress(b"\0" * 10**8), TooLarge)):
        with pytest.raises(kind):
            decoded(wrong, "br", len(BODY))


def test_a_compressed_answer(run: Run) -> None:
    """The pool says what it takes, and gives the body as it was; one that is broken leaves the connection in order."""

    async def main() -> None:
        good, bad = (
            answer(gzip.compress(BODY, mtime=0), "200 OK", "Content-Encoding: gzip"),
            answer(b"no", "200 OK", "Content-Encoding: gzip"),
        )
        async with Peer(answering(bad, good)) as peer, Pool(environ={}) as client:
            with pytest.raises(NotHttp, match=rf"^POST {peer.url}: the answer's body is not compressed as it says"):
                await client.request("POST", peer.url)
            assert (await client.request("POST", peer.url)).body == BODY
            assert peer.requests[0].headers["accept-encoding"] == content_encoding.ACCEPTED
            assert peer.connections == 1

    run(main())
