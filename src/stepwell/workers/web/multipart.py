"""Forms as bytes: `multipart/form-data` and `application/x-www-form-urlencoded`, both ways."""

from __future__ import annotations

import re
import secrets
from urllib.parse import parse_qsl

from stepwell.workers.web.blob import Blob, File, data_of
from stepwell.workers.web.form_data import FormData

_PARAMETER = re.compile(r';\s*([^=;\s]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]*))')
_ESCAPED = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})


def write_form(form: FormData) -> tuple[bytes, str]:
    """A form's body and its content type."""
    boundary = f"----stepwell-{secrets.token_hex(16)}"
    parts = []
    for name, value in form.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name.translate(_ESCAPED)}"'
        if isinstance(value, File):
            kind = value.content_type or "application/octet-stream"
            head += f'; filename="{value.name.translate(_ESCAPED)}"\r\nContent-Type: {kind}'
        data = data_of(value) if isinstance(value, Blob) else value.encode("utf-8", "replace")
        parts.append(head.encode("utf-8", "replace") + b"\r\n\r\n" + data + b"\r\n")
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def read_form(body: bytes, content_type: str | None) -> FormData:
    """The form of a body. Raises `TypeError` for a body that is none."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    form = FormData()
    if kind == "application/x-www-form-urlencoded":
        for name, value in parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True):
            form.append(name, value)
        return form
    boundary = _parameters(content_type or "").get("boundary")
    if kind != "multipart/form-data" or not boundary:
        raise TypeError(
            f"the body's content type is {content_type!r}: a form has multipart/form-data with a boundary, "
            "or application/x-www-form-urlencoded"
        )
    for name, field, filename in _parts(body, boundary.encode()):
        form.append(name, field, filename)
    return form


def _parts(body: bytes, boundary: bytes) -> list[tuple[str, str | Blob, str | None]]:
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise TypeError("the body is no whole multipart form: its last boundary is missing")
    return [_part(piece) for piece in pieces[1:-1]]


def _part(piece: bytes) -> tuple[str, str | Blob, str | None]:
    head, found, data = piece.lstrip(b" \t").removeprefix(b"\r\n").partition(b"\r\n\r\n")
    headers = {}
    for line in head.decode("utf-8", "replace").split("\r\n"):
        key, _, value = line.partition(":")
        headers[key.strip().lower()] = value.strip()
    told = _parameters(headers.get("content-disposition", ""))
    if not found or "name" not in told:
        raise TypeError("a part of the multipart form has no name in its Content-Disposition")
    name = _unescaped(told["name"])
    if "filename" not in told:
        return name, data.decode("utf-8", "replace"), None
    filename = _unescaped(told["filename"])
    return name, File([data], filename, headers.get("content-type") or "application/octet-stream"), filename


def _parameters(header: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, quoted, plain in _PARAMETER.findall(header):
        found[key.lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
    return found


def _unescaped(text: str) -> str:
    return text.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")
