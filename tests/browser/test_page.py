"""The page in a real Chromium, against a real server."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.processes import Process, Server, free_port

pytestmark = pytest.mark.browser
APP = Path(__file__).parent / "page_app.py"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A dev server with a small app served over HTTP by our own SDK."""
    directory = tmp_path_factory.mktemp("page")
    port = free_port()
    running = Server(directory, "-u", f"http://127.0.0.1:{port}/api/stepwell", "--no-poll", "--retry-interval", "0.2")
    app = Process(
        [sys.executable, "-m", "uvicorn", "page_app:web", "--port", str(port), "--log-level", "warning"],
        directory / "app.log",
        env={"STEPWELL_URL": running.url, "STEPWELL_DEV": "1"},
        cwd=APP.parent,
    )
    try:
        running.synced("page-greet")
        yield running
    finally:
        app.kill()
        running.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert path, "Chromium is missing; `make test` installs it when root (Debian: apt-get install chromium)"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """A fresh page, which may log no error."""
    problems: list[str] = []
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.set_default_timeout(10_000)
    page.goto(server.url)
    yield page
    if (folder := os.environ.get("STEPWELL_SHOTS")) is not None:
        page.screenshot(path=f"{folder}/{os.environ['PYTEST_CURRENT_TEST'].split('::')[1].split(' ')[0]}.png", full_page=True)
    page.close()
    assert problems == []


def send(page: Page, name: str, data: str = "{}") -> None:
    """Send an event by the form, and go to the run that it started."""
    page.get_by_role("link", name="Send an event").click()
    page.get_by_label("Name").fill(name)
    page.get_by_label("Data (JSON)").fill(data)
    page.get_by_role("button", name="Send").click()


def test_an_event_sent_by_the_form_runs_and_can_be_looked_into(page: Page) -> None:
    """The run appears, completes while one looks, and shows its event, steps and output as text, whatever they hold."""
    send(page, "page/greet", '{"who": "<img src=x onerror=alert(1)>"}')
    page.get_by_role("link", name="greet").click()
    expect(page.get_by_role("heading", name="Completed")).to_be_visible()
    expect(page.get_by_text("hello <img src=x onerror=alert(1)>").first).to_be_visible()
    page.get_by_role("button", name="compose").first.click()
    expect(page.get_by_role("heading", name="compose")).to_be_visible()
    assert page.locator("main img").count() == 0


def test_a_failing_step_shows_its_error_and_attempts(page: Page) -> None:
    """Each try is in the trace, with its error."""
    send(page, "page/fail")
    page.get_by_role("link", name="fail").click()
    expect(page.get_by_role("heading", name="Failed")).to_be_visible(timeout=15_000)
    expect(page.locator(".row.attempt")).to_have_count(3)
    page.get_by_role("button", name="break").first.click()
    expect(page.get_by_text("ValueError: broken on purpose").first).to_be_visible()


def test_a_sleeping_run_is_paused_resumed_cancelled_and_run_again(page: Page) -> None:
    """Each button does so; cancel asks first; a rerun is a new run that names its origin."""
    send(page, "page/sleep")
    page.get_by_role("link", name="doze").click()
    expect(page.get_by_role("heading", name="Waiting")).to_be_visible()
    first = page.url
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.get_by_text("Paused by")).to_be_visible()
    page.get_by_role("button", name="Resume", exact=True).click()
    expect(page.get_by_role("button", name="Pause", exact=True)).to_be_visible()
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", name="Cancelled")).to_be_visible()
    page.get_by_role("button", name="Rerun").click()
    expect(page.get_by_text("Origin")).to_be_visible()
    assert page.url != first


def test_the_list_is_live_and_filtered(page: Page, server: Server) -> None:
    """A run appears without a reload; a filter keeps the others away."""
    expect(page.get_by_text("live")).to_be_visible()
    before = page.locator("tbody tr").count()
    server.ended(server.run_of(server.send("page/greet", {"who": "you"})))
    expect(page.locator("tbody tr")).to_have_count(before + 1)
    page.get_by_label("Any status").select_option("failed")
    expect(page.locator("tbody tr")).to_have_count(page.locator("td .status.failed").count())
    page.get_by_label("Any status").select_option("queued")
    expect(page.get_by_text("No run fits the filter.")).to_be_visible()


def test_a_refused_event_says_why(page: Page) -> None:
    """The server's sentence is shown, not an empty page."""
    send(page, "inngest/mine")
    expect(page.get_by_role("alert")).to_contain_text("reserved")
    send(page, "page/greet", "{nonsense")
    expect(page.get_by_role("alert")).to_contain_text("not JSON")


def test_apps_are_shown_with_what_is_wrong(page: Page, server: Server) -> None:
    """The app with its functions; a URL that nobody answers is refused with the reason, and stays in sight."""
    page.get_by_role("link", name="Apps").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text("page")
    page.get_by_label("URL of an app").fill("http://127.0.0.1:9/nobody")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("alert")).to_contain_text("127.0.0.1:9")
    page.reload()
    expect(page.get_by_text("http://127.0.0.1:9/nobody could not be synced")).to_be_visible()
    with page.expect_response(lambda answer: answer.url.endswith("/sync")) as synced:
        page.get_by_role("button", name="Sync").click()
    assert synced.value.status == 200
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_text("No app is known yet")).to_be_visible()
