"""Compressed bodies: decoded with a bound on what comes out, since a small body may hold gigabytes."""

from __future__ import annotations

import importlib
import zlib
from typing import Any

from stepwell.net.http_errors import Broken, NotHttp, TooLarge


def _brotli() -> Any:
    """The library, where it is installed and can bound its output (1.2 and later)."""
    try:
        found = importlib.import_module("brotli")
        found.Decompressor().process(b"", output_buffer_limit=1)
    except (ImportError, TypeError, AttributeError):
        return None
    return found


brotli = _brotli()
ACCEPTED = "gzip, deflate" if brotli is None else "gzip, deflate, br"
"""The value of `accept-encoding`."""


def decoded(body: bytes, encoding: str, bytes_max: int) -> bytes:
    """The body without its encodings, the last one named undone first.

    Raises `Broken` for one that is cut off, `TooLarge` beyond the bound, `NotHttp` for one that is not what it says.
    """
    if not body:
        return body
    for name in reversed(encoding.lower().split(",")):
        match name.strip():
            case "" | "identity":
                pass
            case "gzip" | "x-gzip":
                body = _inflated(body, 16 + zlib.MAX_WBITS, bytes_max)
            case "deflate":
                # The standard means zlib's format, some servers send the bare stream: only the former begins with a valid header.
                is_zlib = len(body) >= 2 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0
                body = _inflated(body, zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS, bytes_max)
            case "br" if brotli is not None:
                body = _unbrotlied(body, bytes_max)
            case other:
                raise NotHttp(f"the answer has the content encoding {other[:40]!r}, which was not offered")
    return body


def _inflated(body: bytes, window: int, bytes_max: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while body:
        stream: Any = zlib.decompressobj(window)
        try:
            part: bytes = stream.decompress(body, bytes_max - size + 1)
        except zlib.error as error:
            raise NotHttp(f"the answer's body is not compressed as it says: {error}") from None
        parts.append(part)
        size += len(part)
        if size > bytes_max:
            raise _too_large(bytes_max)
        if not stream.eof:
            raise Broken("the answer's compressed body is cut off")
        body = stream.unused_data if window > zlib.MAX_WBITS else b""  # a gzip file may have several members
    return b"".join(parts)


def _unbrotlied(body: bytes, bytes_max: int) -> bytes:
    stream = brotli.Decompressor()
    parts: list[bytes] = []
    size = 0
    try:
        while not stream.is_finished():
            part: bytes = stream.process(body, output_buffer_limit=bytes_max + 1 - size)
            parts.append(part)
            size += len(part)
            if size > bytes_max:
                raise _too_large(bytes_max)
            if not part and not body:
                raise Broken("the answer's compressed body is cut off")
            body = b""
    except brotli.error as error:
        raise NotHttp(f"the answer's body is not compressed as it says: {error}") from None
    return b"".join(parts)


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"the answer has more than {bytes_max} bytes when decoded")
