"""The page of queues in a real Chromium, against a real server."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.test_page import browser as browser  # a fixture
from tests.support.processes import Server, running, until

pytestmark = pytest.mark.browser
APP = Path(__file__).parent / "queues_page_app.py"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A dev server with an app of queues in child processes."""
    with running(Server(tmp_path_factory.mktemp("queues-page"), f"{APP}:app", "--retry-interval", "0.2")) as server:
        server.synced("queues-work")
        yield server


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """A fresh page at the list of queues, which may log no error."""
    problems: list[str] = []
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.set_default_timeout(10_000)
    page.goto(server.url)
    page.get_by_role("link", name="Queues").click()
    yield page
    shot(page, "end")
    page.close()
    assert problems == []


def shot(page: Page, name: str) -> None:
    """A picture, for whoever wants to look."""
    if (folder := os.environ.get("STEPWELL_SHOTS")) is not None:
        test = os.environ["PYTEST_CURRENT_TEST"].split("::")[1].split(" ")[0]
        page.screenshot(path=f"{folder}/{test}-{name}.png", full_page=True)


def die(server: Server, *tenants: str) -> None:
    """Messages that are dead letters when this returns."""
    before = waiting(server, "jobs-dead")
    server.ask("/queues/jobs/messages", {"messages": [{"body": {"tenant": one, "report": n}} for n, one in enumerate(tenants)]})
    until(lambda: waiting(server, "jobs-dead") == before + len(tenants), "they are dead letters")


def waiting(server: Server, queue: str) -> int:
    """How many messages wait."""
    found: int = {one["name"]: one["waiting"] for one in server.ask("/api/queues")["queues"]}.get(queue, 0)
    return found


def test_queues_are_listed_and_a_message_is_sent_held_and_purged(page: Page, server: Server) -> None:
    """The counts follow without a reload; what cannot be sent says why and stays in the form; a purge asks first."""
    expect(page.get_by_role("row", name=re.compile("jobs.*queues-work: batches of 1"))).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("orders.*queues-fulfil: a run each"))).to_be_visible()
    shot(page, "list")
    server.ask("/api/queues/mail/messages", {"body": {"to": "ann"}})
    page.get_by_role("link", name="mail").click()
    expect(page.get_by_text("1 message, 12 bytes")).to_be_visible()
    page.get_by_text("Send a message").click()
    page.get_by_label("Body").fill("{nonsense")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("not JSON")
    expect(page.get_by_label("Body")).to_have_value("{nonsense")
    page.get_by_label("as a text").check()
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.locator("#told")).to_contain_text("is sent")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.get_by_role("heading", name="mail paused")).to_be_visible()
    page.get_by_role("button", name="Resume", exact=True).click()
    expect(page.get_by_role("heading", name="mail", exact=True)).to_be_visible()
    server.ask("/api/queues/mail/messages", {"body": "from elsewhere"})
    expect(page.locator("tbody tr")).to_have_count(3)
    page.get_by_text("Settings", exact=True).click()
    page.get_by_label("Kept for").fill("1s")
    page.get_by_role("button", name="Set").click()
    expect(page.get_by_role("alert")).to_contain_text("1s")
    page.get_by_label("Kept for").fill("2d")
    page.get_by_label("Dead letters to").fill("mail-dead")
    page.get_by_role("button", name="Set").click()
    expect(page.get_by_role("link", name="mail-dead")).to_be_visible()
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Purge").click()
    expect(page.locator("tbody tr")).to_have_count(3)
    shot(page, "queue")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Purge").click()
    expect(page.get_by_text("No message waits.")).to_be_visible()


def test_dead_letters_are_looked_at_mended_and_sent_back(page: Page, server: Server) -> None:
    """With their error as text, whatever it holds; one by its button, some by ticks, all that a condition means."""
    die(server, "<img src=x onerror=alert(1)>", "globex", "globex", "initech")
    page.get_by_role("link", name="jobs-dead").first.click()
    expect(page.get_by_role("heading", name="jobs-dead")).to_be_visible()
    expect(page.locator("tbody tr")).to_have_count(4)
    page.locator("tr", has_text="onerror").get_by_role("link").first.click()
    expect(page.get_by_role("heading", name="Error")).to_be_visible()
    expect(page.locator("aside").get_by_text("LookupError: there is no tenant <img").first).to_be_visible()
    assert page.locator("main img").count() == 0
    shot(page, "letter")
    page.get_by_text("Edit the body").click()
    page.locator("#edited").fill('{"tenant": "acme"}')
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#told")).to_contain_text("another body")
    expect(page.locator("aside pre").last).to_contain_text('"acme"')
    page.get_by_role("button", name="Send it back").click()
    expect(page.locator("#told")).to_contain_text("1 message sent back")
    expect(page.locator("tbody tr")).to_have_count(3)
    until(lambda: waiting(server, "jobs") == 0, "it is consumed")
    page.locator("tr", has_text="initech").get_by_role("checkbox").check()
    expect(page.get_by_text("1 ticked")).to_be_visible()
    shot(page, "ticked")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator("#told")).to_contain_text("1 message deleted")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_label("Only where").fill("message.")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_role("alert")).to_contain_text("where: ")
    page.get_by_label("Only where").fill("message.body.report == 1")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete all").click()
    expect(page.locator("#told")).to_contain_text("1 message deleted")
    page.get_by_label("Only where").fill("")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Send back all").click()
    expect(page.locator("#told")).to_contain_text("1 message sent back")


def test_numbers_that_javascript_cannot_hold_stay_as_they_are(page: Page, server: Server) -> None:
    """A body is shown, edited and sent as the text that it is."""
    server.ask("/api/queues/large/messages", b'{"body":{"id":9007199254740993}}')
    page.reload()
    page.get_by_role("link", name="large").click()
    expect(page.get_by_role("heading", name="large")).to_be_visible()
    page.locator("tbody a").first.click()
    expect(page.locator("aside pre")).to_have_text('{"id":9007199254740993}')
    page.get_by_text("Edit the body").click()
    expect(page.locator("#edited")).to_have_value('{"id":9007199254740993}')
    page.locator("#edited").fill('{"id":9007199254740993,"ok":true}')
    page.get_by_role("button", name="Save").click()
    expect(page.locator("aside pre")).to_have_text('{"id":9007199254740993,"ok":true}')
    (message,) = server.ask("/api/queues/large/messages")["messages"]
    assert message["body"] == {"id": 9007199254740993, "ok": True}


def test_many_messages_are_paged(page: Page, server: Server) -> None:
    """Fifty at a time, and back to the first."""
    for _ in range(2):
        server.ask("/queues/many/messages", {"messages": [{"body": "x" * 300}] * 60})
    page.reload()
    page.get_by_role("link", name="many").click()
    expect(page.get_by_role("heading", name="many")).to_be_visible()
    expect(page.locator("tbody tr")).to_have_count(50)
    page.get_by_role("button", name="More").click()
    expect(page.get_by_role("button", name="First")).to_be_visible()
    page.get_by_role("button", name="More").click()
    expect(page.locator("tbody tr")).to_have_count(20)
    shot(page, "last")
    page.get_by_role("button", name="First").click()
    expect(page.locator("tbody tr")).to_have_count(50)
