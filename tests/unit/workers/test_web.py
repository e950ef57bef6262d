"""Requests, responses, headers, blobs and forms: what they take, what they give, how they fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from http import HTTPMethod, HTTPStatus
from typing import Any

import pytest

from stepwell.workers.web.blob import Blob, BlobEnding, File
from stepwell.workers.web.form_data import FormData
from stepwell.workers.web.multipart import read_form, write_form
from stepwell.workers.web.request import Request, incoming
from stepwell.workers.web.response import FetchResponse, Response
from stepwell.workers.web.streams import Body, ReadableStream


def test_a_response_and_its_body() -> None:
    """Text has a type, bytes have none, nothing is no body; the status is 200."""

    async def main() -> None:
        response = Response("Grüße")
        assert (response.status, response.ok, response.headers["Content-Type"]) == (200, True, "text/plain;charset=UTF-8")
        assert await response.text() == "Grüße" and response.body_used
        with pytest.raises(OSError, match=r"^Body already used$"):
            await response.text()
        assert await Response(b"\x00\xff").bytes() == b"\x00\xff" and "content-type" not in Response(b"").headers
        empty = Response(status=HTTPStatus.NO_CONTENT)
        assert (empty.status, empty.body, await empty.text()) == (204, None, "")
        assert await Response('{"a": [1, null]}').json() == {"a": [1, None]}
        assert await Response("1.50").json(parse_float=str) == "1.50"
        assert (await Response("ab").buffer()).to_bytes() == b"ab" and await Response("ab").memoryview() == b"ab"
        assert await Response(b"\xef\xbb\xbfab\xff").text() == "ab\ufffd"
        assert isinstance(response, FetchResponse) and repr(response) == "Response(status=200, content_type='text/plain;charset=UTF-8')"

    asyncio.run(main())


def test_json_responses() -> None:
    """`from_json`, and `Response.json` as its other name; a type that is given stays."""

    async def main() -> None:
        for make in (Response.from_json, Response.json):
            response = make({"a": 1}, status=201, status_text="Made", headers={"x-a": "1"})
            assert (response.status, response.status_text, response.headers["x-a"]) == (201, "Made", "1")
            assert response.headers["content-type"] == "application/json" and await response.text() == '{"a": 1}'
        assert Response.json([], headers={"Content-Type": "application/problem+json"}).headers["content-type"] == "application/problem+json"
        assert await Response.json("text").text() == '"text"'

    asyncio.run(main())


@pytest.mark.parametrize(
    ("make", "kind", "sentence"),
    [
        (lambda: Response({"a": 1}), TypeError, r"^Unsupported type in Response: dict$"),
        (lambda: Response(7), TypeError, r"^Unsupported type in Response: int$"),
        (lambda: Response("", status=101), ValueError, "from 200 to 599"),
        (lambda: Response("", status=600), ValueError, "is 600; it must be from 200 to 599"),
        (lambda: Response("x", status=204), TypeError, "a response with status 204 has no body"),
        (lambda: Response("x", headers="x: 1"), TypeError, "headers are str: give a dict, or a list of pairs"),
        (lambda: Response("x", headers={"a b": "1"}), TypeError, "'a b' is no name of a header"),
        (lambda: Response("x", headers={"a": "1\n2"}), TypeError, "a value holds no line breaks"),
        (lambda: Response(None, web_socket=object()), TypeError, "serves no WebSockets"),
        (lambda: Response(Response("x"), status=201), ValueError, "takes no further arguments"),
        (lambda: Response.redirect("/there"), TypeError, "Invalid URL: /there"),
        (lambda: Response.redirect("https://a.example", 200), ValueError, "200 is no status of a redirect"),
        (lambda: Response.json({1, 2}), TypeError, "not JSON serializable"),
        (lambda: Response("", status=404, status_text="Not Found").raise_for_status(), OSError, "^404 Not Found$"),
    ],
)
def test_responses_that_are_refused(make: Callable[[], Any], kind: type[Exception], sentence: str) -> None:
    """By what is wrong with them."""
    with pytest.raises(kind, match=sentence):
        make()


def test_redirects_and_copies() -> None:
    """A redirect names an absolute address; copies have bodies of their own."""

    async def main() -> None:
        moved = Response.redirect("https://a.example", status=308)
        assert (moved.status, moved.headers["location"]) == (308, "https://a.example/")
        first = Response("text", 201, headers={"x-a": "1"})
        second, third = first.clone(), first.replace_body("other")
        assert [await one.text() for one in (first, second, third)] == ["text", "text", "other"]
        assert (third.status, third.headers["x-a"]) == (201, "1")
        with pytest.raises(OSError, match=r"^Body already used$"):
            first.clone()
        same = Response(Response("text", 202))
        assert (same.status, await same.text()) == (202, "text")

    asyncio.run(main())


def test_headers_are_a_copy_with_names_in_any_case() -> None:
    """In order, in lower case; repeated ones joined, but for cookies."""
    response = Response("x", headers=[("X-B", "1"), ("X-A", " 2 "), ("x-b", "3"), ("Set-Cookie", "a=1; Path=/"), ("set-cookie", "b=2")])
    headers = response.headers
    assert headers.items() == [
        ("content-type", "text/plain;charset=UTF-8"),
        ("set-cookie", "a=1; Path=/"),
        ("set-cookie", "b=2"),
        ("x-a", "2"),
        ("x-b", "1, 3"),
    ]
    assert (headers["X-b"], headers.get("nope"), headers.get("nope", "-"), "X-A" in headers) == ("1, 3", None, "-", True)
    assert headers.get_all("Set-Cookie") == ["a=1; Path=/", "b=2"]
    headers["x-c"] = "4"
    assert "x-c" not in response.headers
    assert Response("x", headers=headers).headers["x-c"] == "4"
    assert Response("x", headers={"x-n": 3}).headers["x-n"] == "3"


def test_a_request() -> None:
    """Its parts; the method is Python's own, the address whole."""

    async def main() -> None:
        request = Request("https://Example.com:443/a b?q=ü", method="post", headers={"X-A": "1"}, body="text", cf={"colo": "X"})
        assert request.method is HTTPMethod.POST and request.url == "https://example.com/a%20b?q=%C3%BC"
        assert (request.headers["x-a"], request.headers["content-type"]) == ("1", "text/plain;charset=UTF-8")
        assert (request.cf, request.redirect, request.body_used) == ({"colo": "X"}, "follow", False)
        copy = request.clone()
        assert await request.text() == "text" == await copy.text()
        with pytest.raises(OSError, match=r"^Body already used$"):
            request.clone()
        get = Request("http://localhost:8787")
        assert (get.method, get.url, get.body, get.cf) == ("GET", "http://localhost:8787/", None, None)
        assert Request("http://a.example", method="PATCH", body=b"").method is HTTPMethod.PATCH
        assert Request("http://a.example", method="purge").method == "purge"
        assert repr(get) == "Request(method='GET', url='http://localhost:8787/')"

    asyncio.run(main())


def test_a_request_made_of_another() -> None:
    """With its body, which the other one has no more; what is given goes before."""

    async def main() -> None:
        first = Request("https://a.example/x", method="POST", headers={"x-a": "1"}, body="text")
        second = Request(first, headers={"x-b": "2"})
        assert (second.url, second.method, second.headers.get("x-a"), second.headers["x-b"]) == (first.url, "POST", None, "2")
        assert await second.text() == "text" and first.body_used
        with pytest.raises(OSError, match=r"^Body already used$"):
            Request(first)
        third = Request(Request("https://a.example/x", headers={"x-a": "1"}), method="PUT", body="new")
        assert (third.method, third.headers["x-a"], await third.text()) == ("PUT", "1", "new")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Request("/path"), "Invalid URL: /path"),
        (lambda: Request("ftp://a.example"), "Invalid URL: ftp://a.example"),
        (lambda: Request("http://a.example:port"), "Invalid URL"),
        (lambda: Request("https://a.example", body="x"), "a GET request has no body"),
        (lambda: Request("https://a.example", method="TRACE"), "TRACE is no method"),
        (lambda: Request("https://a.example", redirect="never"), "must be one of follow, error, manual"),
        (lambda: Request("https://a.example", method="POST", body={"a": 1}), "Unsupported type in Request: dict"),
    ],
)
def test_requests_that_are_refused(make: Callable[[], Any], sentence: str) -> None:
    """With a TypeError, as in JavaScript."""
    with pytest.raises(TypeError, match=sentence):
        make()


def test_streams() -> None:
    """A body may come in parts, is read once, by iterating or by a reader, and its source is closed by whoever stops."""
    closed: list[str] = []

    async def parts(name: str) -> AsyncIterator[bytes]:
        try:
            yield b"a"
            yield b"b"
        finally:
            closed.append(name)

    async def main() -> None:
        response = Response(parts("whole"))
        assert [chunk.to_bytes() async for chunk in response.body] == [b"a", b"b"] and response.body_used
        request = incoming("POST", "http://a.example/", [("x-a", "1")], parts("read"))
        reader = request.body.getReader()
        assert (await reader.read()).value.to_string() == "a" and not (await reader.read()).done and (await reader.read()).done
        with pytest.raises(OSError, match=r"^Body already used$"):
            await request.bytes()
        first = Response(parts("shared"))
        second = first.clone()
        assert await second.text() == "ab" == await first.text()
        stopped = Response(parts("stopped")).body
        async for _ in stopped:
            break
        body = Body(parts("discarded"))
        await body.discard()
        with pytest.raises(OSError, match=r"^Body already used$"):
            await body.read()
        stream = ReadableStream(parts("locked"))
        stream.getReader()
        with pytest.raises(OSError, match="a stream is read once"):
            stream.getReader()
        assert await Response(Response(parts("passed on")).body).text() == "ab"

    asyncio.run(main())
    assert closed[:3] == ["whole", "read", "shared"] and "passed on" in closed


def test_blobs_and_files() -> None:
    """Parts are joined; a single one gives its type; a slice counts from both ends."""

    async def main() -> None:
        blob = Blob(["ab", b"cd", memoryview(b"ef"), Blob("g")], content_type="Text/Plain")
        assert (blob.size, blob.content_type, await blob.text(), await blob.bytes()) == (7, "text/plain", "abcdefg", b"abcdefg")
        part = blob.slice(1, -1, "a/b")
        assert (await part.text(), part.content_type, Blob(blob).content_type, Blob([blob]).content_type) == (
            "bcdef",
            "a/b",
            "text/plain",
            "",
        )
        assert Blob("a\r\nb", endings=BlobEnding.NATIVE).size == 3 and Blob("a\r\nb").size == 4
        file = File("x", "x.txt", content_type="text/plain", last_modified=5)
        again = File(file, "y.txt")
        assert (again.name, again.last_modified, again.content_type, await again.text()) == ("y.txt", 5, "text/plain", "x")
        assert File("x", "x").last_modified > 1_700_000_000_000
        with pytest.raises(TypeError, match="not of <class 'int'>"):
            Blob([1])

    asyncio.run(main())


def test_forms() -> None:
    """A name may have several values; a blob becomes a file."""
    form = FormData({"a": "1"})
    form.append("a", "2")
    form.append("f", Blob("x", "text/plain"), "x.txt")
    assert (form["a"], form.get_all("a"), form["nope"], form.get("nope", "-"), "f" in form) == ("1", ["1", "2"], None, "-", True)
    assert list(form) == form.keys() == ["a", "a", "f"] and len(form) == 3
    form["a"] = "3"
    assert [(name, value) for name, value in form.items() if name == "a"] == [("a", "3")]
    form.delete("a")
    assert form.keys() == ["f"] and form["f"].name == "x.txt"
    for wrong in (["1"], None, {"a": 1}):
        with pytest.raises(TypeError, match="one text or one file"):
            form["b"] = wrong  # type: ignore[assignment]
    with pytest.raises(TypeError, match="not of list"):
        FormData([("a", "b")])  # type: ignore[arg-type]


def test_forms_as_bodies() -> None:
    """Both kinds of forms are read; what is written is read as it was."""

    async def main() -> None:
        form = FormData({"näme": 'a "quoted"\r\nvalue'})
        form.append("file", File([b"\r\n--x\r\n\x00\xff"], 'na"me.bin', content_type="image/png"))
        request = Request("https://a.example", method="POST", body=form)
        assert request.headers["content-type"].startswith("multipart/form-data; boundary=")
        read = await request.form_data()
        assert read["näme"] == 'a "quoted"\r\nvalue'
        file = read["file"]
        assert (file.name, file.content_type, await file.bytes()) == ('na"me.bin', "image/png", b"\r\n--x\r\n\x00\xff")
        kind = "application/x-www-form-urlencoded; charset=utf-8"
        plain = Request("https://a.example", method="POST", body="a=1&a=x+y%26&b=", headers={"content-type": kind})
        assert (await plain.form_data()).items() == [("a", "1"), ("a", "x y&"), ("b", "")]
        assert (await Response(form).formData())["näme"]
        with pytest.raises(TypeError, match="content type is 'text/plain;charset=UTF-8'"):
            await Response("a=1").form_data()

    asyncio.run(main())


@pytest.mark.parametrize(
    "body", [b"", b"--x\r\nno", b"--x\r\n\r\nvalue\r\n--x--", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nv\r\n--x']
)
def test_forms_that_are_broken(body: bytes) -> None:
    """They are refused, not read in part."""
    with pytest.raises(TypeError, match=r"last boundary is missing|no name"):
        read_form(body, 'multipart/form-data; boundary="x"')


def test_an_empty_form() -> None:
    """It has no fields, before and after."""
    assert read_form(*write_form(FormData())).items() == []
