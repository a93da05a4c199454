"""The page of a rollout in a real browser: its content, and untrusted text that stays text."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_migrate.fleet import page as page_module
from lambda_migrate.fleet.page import render
from tests.support import browser
from tests.support.reports import BEFORE, HEAD, OLDER, failure, report, target
from tests.support.samples import sampled, sampled_by_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import ConsoleMessage, Error, Page

# One browser for all of them.
pytestmark = pytest.mark.xdist_group("page")

ROWS = "[...document.querySelectorAll('#rows tr')]"
FOUND = "document.getElementById('found').textContent"
HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>\"'&amp;\u202e"


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    if why := browser.missing():
        pytest.skip(why)
    with browser.page() as tab:
        yield tab


@pytest.fixture
def problems(tab: Page) -> Iterator[list[str]]:
    """Return the exceptions of scripts, what they logged, and the requests that the browser refused."""
    found: list[str] = []

    def add_error(error: Error) -> None:
        found.append(str(error))

    def add_line(line: ConsoleMessage) -> None:
        found.append(line.text)

    tab.on("pageerror", add_error)
    tab.on("console", add_line)
    yield found
    tab.remove_listener("pageerror", add_error)
    tab.remove_listener("console", add_line)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "report.html"


# --- as text ---


def tags(page: str) -> list[str]:
    """Return the page's elements without text. The markup must not depend on the text."""
    return re.findall(r"<[!/a-z][^>\s]*", re.sub(r"(<script type=\"application/json\"[^>]*>)[^<]*", r"\1", page))


ANYTHING = st.text(st.characters(exclude_categories=())) | st.sampled_from([HOSTILE, "<!--", "]]>", "\x00", "\ud800"])


@given(ANYTHING, ANYTHING, ANYTHING, ANYTHING)
def test_no_text_of_others_becomes_markup(name: str, message: str, server: str, revision: str) -> None:
    def page(*texts: str) -> str:
        name, message, server, revision = texts
        failures = [failure(name=name, message=message, server=server, error_type=name, target={"database": name})]
        slowest = [{"name": name, "duration_ms": 1}]
        hostile = {"behind": [name, message], "package": f"{name}.", "heads": [revision]}
        content = report(1, failures=failures, slowest=slowest, revisions={revision: 1}, message=message, rollout=name)
        # Together with itself, so that no prefix is left out of one page and not of the other.
        # And with a full stop, because an empty text is no option of a select.
        others = {"server": f"{server}.", "revision": f"{revision}.", "outcome": f"{message}."}
        lines = [target(1, name=name, **others)]
        return render({**content, **hostile}, lines * 2)

    page(name, message, server, revision).encode()
    assert tags(page(name, message, server, revision)) == tags(page("name", "message", "server", "revision"))


@pytest.mark.parametrize("status", ["failed", "stopped", "running"])
def test_after_a_failed_downgrade_the_next_step_is_the_downgrade_and_not_an_upgrade(status: str) -> None:
    page = render(report(3, left=900, status=status, downgrade_to="b2", migrated_by="r"))

    again = "migrate rollout --downgrade-to b2 --migrated-by r --stage prod"
    assert (again in page) is (status != "running")
    assert "migrate rollout retry" not in page
    assert "migrate rollout --stage" not in page


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = render(report(3))

    assert re.findall(r"\b(?:src=|href=|url\(|@import|https?:)", page) == []


@pytest.mark.parametrize(
    "changes,words,command",
    [
        ({}, "Rolled out", None),
        ({"failed": 3}, "Rolled out", "migrate rollout retry 2026-11-23T22-24-00-mona --stage prod"),
        ({"failed": 101, "left": 900}, "Failed", "migrate rollout --stage prod"),
        ({"left": 900, "status": "stopped"}, "Stopped", "migrate rollout --stage prod"),
        ({"status": "running"}, "Running", "migrate rollout status 2026-11-23T22-24-00-mona --stage prod"),
    ],
    ids=["all", "within tolerance", "failed", "stopped", "running"],
)
def test_the_page_shows_the_outcome_and_the_next_step(
    changes: dict[str, object], words: str, command: str | None
) -> None:
    page = render(report(**changes))  # type: ignore[arg-type]

    assert f"</span> {words}</p>" in page
    assert (f"<pre>{command}</pre>" in page) if command else ("<pre>" not in page)


def test_a_plan_says_that_it_is_one() -> None:
    counts = {"targets": 2, "migrated": 0, "current": 1, "behind": 1, "failed": 0, "left": 0}

    page = render(report(plan=True, counts=counts))

    assert "Plan of a rollout" in page
    assert "<pre>migrate rollout --approved 2026-11-23T22-24-00-mona --stage prod</pre>" in page


# --- in a browser ---


def test_ten_thousand_failures_are_searched_and_drawn_as_they_are_scrolled_to(
    tab: Page, problems: list[str], file: Path
) -> None:
    file.write_text(render(report(10_000)))
    browser.show(tab, file)
    assert tab.evaluate(f"{ROWS}.length") <= 300

    tab.evaluate("document.querySelector('#filter input').focus()")
    tab.keyboard.insert_text("TENANT-0012 orders")
    assert tab.evaluate(FOUND) == "3 of 10,000 match"
    names = tab.evaluate(f"{ROWS}.map(row => row.cells[0].textContent)")
    assert names == ["00121", "00124", "00127"]
    assert tab.evaluate(f"{ROWS}[0].querySelector('bdi').title") == "tenant-00121"

    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.name") == "type"
    tab.evaluate("document.querySelector('#filter').reset(); new Promise(done => setTimeout(done, 20))")
    assert tab.evaluate(FOUND) == "10,000 shown"
    tab.evaluate(
        "Object.assign(document.querySelector('[name=server]'), {value: 'db-3.example.internal:5432'})"
        ".dispatchEvent(new Event('input', {bubbles: true}))"
    )
    assert tab.evaluate(FOUND) == "2,500 of 10,000 match"
    before = tab.evaluate(f"{ROWS}.length")
    tab.evaluate("window.scrollTo(0, document.getElementById('more').offsetTop); new Promise(requestAnimationFrame)")
    tab.evaluate("document.getElementById('more').click()")
    assert tab.evaluate(f"{ROWS}.length") > before
    assert problems == []


ALL = "[...document.querySelectorAll('#rows-targets tr')]"


def choose(tab: Page, name: str, value: str) -> None:
    """Choose an option of the filter of all targets."""
    tab.evaluate(
        f"Object.assign(document.querySelector('#filter-targets [name={name}]'), {{value: '{value}'}})"
        ".dispatchEvent(new Event('input', {bubbles: true}))"
    )


def test_every_target_can_be_searched_whatever_became_of_it(tab: Page, problems: list[str], file: Path) -> None:
    file.write_text(render(report(2), [target(number) for number in range(5_000)]))
    browser.show(tab, file)
    found = "document.getElementById('found-targets').textContent"
    assert (tab.evaluate(found), tab.evaluate(f"{ALL}.length")) == ("5,000 shown", 100)

    tab.evaluate("document.querySelector('#filter-targets input').focus()")
    tab.keyboard.insert_text("TENANT-0049 db-3")
    assert tab.evaluate(found) == "3 of 5,000 match"
    choose(tab, "outcome", "behind")
    names = tab.evaluate(f"{ALL}.map(row => row.innerText.split('\\t').map(text => text.trim()))")

    assert names == [["00495", "behind", OLDER, "1.5 s", "db-3", "2"]]
    assert problems == []


def test_of_more_targets_than_the_page_holds_it_holds_those_that_are_not_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(page_module, "MOST_TARGETS", 8)

    page = render(report(2), [target(number) for number in range(12)])

    assert '"8 of 12,000: those that are not done first' in page.replace('<p class="quiet">', '"')
    (embedded,) = re.findall(r'id="targets">(.*?)</script>', page)
    content = json.loads(embedded)
    assert [content["outcomes"][row[1]] for row in content["rows"]][:2] == ["behind", "behind"]
    assert len(content["rows"]) == 8


@pytest.mark.stress
def test_a_hundred_thousand_targets_are_searched(tab: Page, file: Path, figure: Callable[[str], None]) -> None:
    began = time.perf_counter()
    page = render(report(10), (target(number) for number in range(100_000)))
    rendered, size = time.perf_counter() - began, len(page) / 1e6
    file.write_text(page)
    browser.show(tab, file)

    took = tab.evaluate(
        "(() => { const began = performance.now(); const form = document.getElementById('filter-targets');"
        " form.elements.text.value = 'tenant-0999';"
        " form.dispatchEvent(new Event('input')); return performance.now() - began })()"
    )

    figure(f"a page of 100,000 targets: {size:.1f} MB, rendered in {rendered:.1f} s, searched in {took:.0f} ms")
    assert tab.evaluate("document.getElementById('found-targets').textContent") == "10 of 100,000 match"
    assert (size < 8, took < 1_000) == (True, True)


def test_hostile_text_is_shown_and_not_run(tab: Page, file: Path) -> None:
    failures = [failure(name=HOSTILE, message=HOSTILE, server=HOSTILE, error_type=HOSTILE)]
    file.write_text(render(report(1, failures=failures, message=HOSTILE, stage=HOSTILE, revisions={HOSTILE: 1})))

    browser.show(tab, file)

    assert tab.evaluate("window.hacked") is None
    assert tab.evaluate(f"{ROWS}[0].querySelector('bdi').title") == HOSTILE
    assert tab.evaluate("document.querySelectorAll('img').length") == 0


# What a person sees against what is behind it, by WCAG 2.1's formula (success criterion 1.4.3: 4.5 to 1).
CONTRASTS = """
(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (color) => color.slice(0, 3).map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = (element) => {
    const color = rgb(getComputedStyle(element).backgroundColor);
    return color[3] === 0 ? behind(element.parentElement) : color;
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT,
    (node) => node.data.trim() && node.parentElement.checkVisibility() ? 1 : 2);
  const found = [];
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    const [dark, bright] = [light(rgb(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => a - b);
    found.push([(bright + 0.05) / (dark + 0.05), texts.currentNode.data.trim()]);
  }
  return found;
})()
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("status", sampled(["succeeded", "failed", "stopped"], {"failed"}))
def test_every_text_can_be_read_by_day_and_by_night(tab: Page, file: Path, status: str, *, dark: bool) -> None:
    file.write_text(render(report(5, left=10, status=status)))

    browser.show(tab, file, dark=dark)
    found = tab.evaluate(CONTRASTS)

    assert len(found) > 50
    assert [entry for entry in found if entry[0] < 4.5] == []


# Texts that run into each other: each name of a chart against the bar beside it and the number at its end.
OVERLAPS = """
[...document.querySelectorAll('.revisions li')].filter((line) => {
  const boxes = [...line.children].map((child) => child.getBoundingClientRect());
  const range = document.createRange();
  range.selectNodeContents(line.children[0]);
  boxes[0] = range.getBoundingClientRect();
  return boxes.some((one, n) => boxes.slice(n + 1).some((other) =>
    one.left < other.right - 1 && other.left < one.right - 1 &&
    one.top < other.bottom - 1 && other.top < one.bottom - 1));
}).map((line) => line.innerText)
"""


@pytest.mark.parametrize("dark", sampled_by_name({"light": False, "dark": True}, {"light"}))
@pytest.mark.parametrize("width", sampled([360, 900, 1200], {360, 1200}))
def test_nothing_is_wider_than_the_window_and_no_text_runs_into_another(
    tab: Page, file: Path, width: int, *, dark: bool
) -> None:
    endless = "prod/tenants/" + "x" * 480 + "-acme"
    failures = [failure(name=endless, message=HEAD * 40, server="s" * 200, duration_ms=65_000), failure(2)]
    slowest = [{"name": f"prod/tenants/customer-of-a-long-name-{n:05}", "duration_ms": 90_000} for n in range(3)]
    slowest.append({"name": endless, "duration_ms": 1})
    lines = [target(1, name=endless, server="s" * 200), *(target(n, name=f"prod/tenants/{n}") for n in range(2, 9))]
    content = report(
        2, failures=failures, slowest=slowest, revisions={HEAD * 10: 1, BEFORE: 2}, message="m" * 300, behind=[endless]
    )
    file.write_text(render(content, lines))

    browser.show(tab, file, width=width, dark=dark)

    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.evaluate(OVERLAPS) == []
    # The end tells a name from others, and the whole of it is there for whoever points at it.
    assert tab.evaluate(f"{ROWS}[0].cells[0].textContent").endswith("x-acme")
    assert tab.evaluate(f"{ROWS}[0].querySelector('bdi').title") == endless
    assert tab.evaluate(f"{ROWS}[0].cells[5].textContent") == "1 min 5 s"
    tab.screenshot(path=file.with_name(f"page-{width}-{'dark' if dark else 'light'}.png"), full_page=True)


def test_a_telephone_shows_that_the_table_of_waves_continues(tab: Page, file: Path) -> None:
    file.write_text(render(report(5, left=10)))

    browser.show(tab, file, width=360)

    [wide, narrow, shadows] = tab.evaluate(
        "(() => { const box = document.querySelector('.scroll');"
        " return [box.scrollWidth, box.clientWidth, getComputedStyle(box).backgroundImage] })()"
    )
    assert wide > narrow
    assert shadows.count("linear-gradient") == 4


def test_shares_are_of_all_targets_and_names_lose_what_all_have_in_common() -> None:
    page = render(report(3, revisions={HEAD: 6_000, BEFORE: 3_000}), [target(number) for number in range(3)])

    assert "6,000 (50.0 %)" in page
    assert "3,000 (25.0 %)" in page
    assert "Every name begins with <code>tenant-</code>" in page


# --- for those who do not see it ---


def test_whatever_is_drawn_or_typed_into_has_a_name(tab: Page, file: Path) -> None:
    file.write_text(render(report(5, left=10)))
    browser.show(tab, file)

    nodes = tab.context.new_cdp_session(tab).send("Accessibility.getFullAXTree")["nodes"]

    named = {"image", "searchbox", "combobox", "button", "search", "region", "columnheader", "rowheader"}
    met = [(node["role"]["value"], node.get("name", {}).get("value")) for node in nodes if not node["ignored"]]
    assert {"image", "searchbox", "combobox", "region", "columnheader"} <= {role for role, _ in met}
    assert [entry for entry in met if entry[0] in named - {"search"} and not entry[1]] == []
    assert ("image", "All targets: 11,573 migrated, 412 current, 5 failed, 10 left") in met


def test_printing_has_every_failure_that_was_found_and_no_controls(tab: Page, file: Path) -> None:
    file.write_text(render(report(450)))
    browser.show(tab, file)

    tab.emulate_media(media="print")
    tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")

    assert tab.evaluate(f"{ROWS}.length") == 450
    assert tab.evaluate("document.getElementById('filter').checkVisibility()") is False
    tab.emulate_media(media="null")
