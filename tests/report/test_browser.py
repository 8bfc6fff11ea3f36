"""The report in a real browser: it filters, sorts and zooms, can be read, and runs nothing that logs hold."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select
from tests.report.cases import (
    call_finding,
    finding,
    incident,
    long_stories,
    stories,
    timeline,
    unsure,
    write_output,
)

from agenttrail.cli import main
from agenttrail.report.names import agent_file, incident_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

WIDE, NARROW = 1280, 390
_HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "</title></style></script><svg onload=alert(1)>'\"`--><!--"
    "{{ 7 * 7 }}{% raw %}${7*7}#{7*7}\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp.exe\u2066\u2028\u200b\x00"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = stories(tmp_path_factory.mktemp("stories") / "out", 6)
    assert main(["incidents", "report", "--from", str(out)]) == 0
    return out / "report"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the report of a simulated day."""
    folder = tmp_path_factory.mktemp("demo")
    assert main(["demo", "--agents", "6", "--hours", "3", "--output", str(folder)]) == 0
    return folder / "out" / "report"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a report of which every text is hostile, and some are long."""
    out = tmp_path_factory.mktemp("hostile") / "out"
    kept = {"incident.severity", "finding.severity", "attribution.status", "timeline.kind", "incident.id"}
    times = ("@timestamp", "_seen", "event.start", "event.end", "lease_start", "lease_end", "call.start", "rule.id")

    def spoilt(document: dict[str, Any]) -> dict[str, Any]:
        return {
            name: value if name in kept or name.endswith(times) else _spoil(value) for name, value in document.items()
        }

    def _spoil(value: Any) -> Any:
        if isinstance(value, str):
            return _HOSTILE
        if isinstance(value, list):
            return [spoilt(one) if isinstance(one, dict) else _spoil(one) for one in value]
        return value

    long = "<b>" + "n" * 1_000_000
    entries = [spoilt(entry) for entry in timeline(0)]
    call = next(entry for entry in entries if "gen_ai.tool.call.arguments" in entry)
    call["gen_ai.tool.call.arguments"] = long
    # the address of a peer is text once it is read
    twin = spoilt(unsure(2, incident(0), **{"attribution.status": "ambiguous"}))
    write_output(
        out,
        [
            spoilt(incident(0)),
            {**incident(1), "incident.title": long, "entity.id": long, "gen_ai.agent.id": long},
            twin,
        ],
        [
            spoilt(finding(0)), _ruled(spoilt(call_finding(0))),
            {**finding(1), "finding.title": long, "finding.evidence": [_evidence(long)]},
            {**call_finding(1), "finding.evidence": [_call("ssh -fN -R 16708:" + "n" * 1_000_000)]},
        ],
        entries,
    )  # fmt: skip
    run = {"job": _HOSTILE, "notes": [_HOSTILE, long], "covered": [[_HOSTILE, None]]}
    (out / "run.json").write_bytes(orjson.dumps(run))
    assert main(["incidents", "report", "--from", str(out)]) == 0
    return out / "report"


def _ruled(told: dict[str, Any]) -> dict[str, Any]:
    """Give a spoilt finding on a tool call back what lets the page see it as one, in a text that the rule matches."""
    event = {**told["finding.evidence"][0], "gen_ai.operation.name": "execute_tool"}
    event["gen_ai.tool.call.arguments"] = "ssh -fN -R 16708:localhost:22" + _HOSTILE
    return {**told, "finding.evidence": [event]}


def _call(arguments: str) -> dict[str, Any]:
    return {**call_finding(1)["finding.evidence"][0], "gen_ai.tool.call.arguments": arguments}


def _evidence(line: str) -> dict[str, Any]:
    return {**finding(1)["finding.evidence"][0], "event.original": line, "log.file.path": line}


@pytest.fixture
def page(browser: Chrome) -> Iterator[Chrome]:
    """Give the browser as it is at first; afterwards no page may have asked for anything or complained."""
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get_log("performance")
    _see(browser)
    yield browser
    asked = [orjson.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [one["params"]["request"]["url"] for one in asked if one["method"] == "Network.requestWillBeSent"]
    inside = (
        "data:,",
        "data:image/svg+xml;",
        "about:blank",
    )  # the second is what the browser draws its own fields with
    pages = [url.partition("#")[0] for url in urls if not url.startswith(inside)]
    assert [url for url in pages if not (url.startswith("file:///") and url.endswith(".html"))] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []


def _see(browser: Chrome, *, width: int = WIDE, scheme: str = "light", media: str = "screen") -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def _open(browser: Chrome, path: Path) -> None:
    browser.get(path.as_uri())


def _first_page(report: Path) -> Path:
    return min(report.glob("incident-*.html"))


def _visible(browser: Chrome) -> list[str]:
    rows = browser.find_elements(By.CSS_SELECTOR, "#incidents tbody tr")
    return [
        row.find_element(By.CSS_SELECTOR, "small").text.split(",")[0].split()[-1] for row in rows if row.is_displayed()
    ]


# -- the index


def test_incidents_are_filtered(page: Chrome, report: Path) -> None:
    _open(page, report / "index.html")
    _unfold_filters(page)
    assert _visible(page) == ["t0", "t1", "t2", "t3", "t4", "t5"]
    Select(page.find_element(By.ID, "severity")).select_by_visible_text("high or worse")
    assert _visible(page) == ["t0", "t1", "t3", "t4"]
    assert page.find_element(By.ID, "shown").text == "4 of 6 incidents pass the filters."
    Select(page.find_element(By.ID, "agent")).select_by_value("agent-1")
    assert _visible(page) == ["t1", "t4"]
    _fill(page, "since", "2026-03-02T03:00:00")
    assert _visible(page) == ["t4"]
    page.find_element(By.CSS_SELECTOR, "button[type=reset]").click()
    time.sleep(0.1)
    assert len(_visible(page)) == 6
    _fill(page, "until", "2026-03-02T02:10:00")  # half-open
    assert _visible(page) == ["t0", "t1"]
    Select(page.find_element(By.ID, "technique")).select_by_value("T1021.004")
    assert _visible(page) == ["t0", "t1"]


def _unfold_filters(browser: Chrome) -> None:
    """Where incidents are few, filters are folded."""
    assert not browser.find_element(By.ID, "severity").is_displayed()
    browser.find_element(By.CSS_SELECTOR, "#filtering summary").send_keys(Keys.ENTER)
    assert browser.find_element(By.ID, "severity").is_displayed()


def test_filters_stand_open_where_incidents_are_many(page: Chrome, tmp_path: Path) -> None:
    out = stories(tmp_path / "out", 8)
    assert main(["incidents", "report", "--from", str(out)]) == 0
    _open(page, out / "report" / "index.html")
    assert page.find_element(By.ID, "severity").is_displayed()


def _fill(browser: Chrome, field: str, value: str) -> None:
    """Set a time as a picker would: how it is typed depends on the language of the browser."""
    told = "const one = document.getElementById(arguments[0]); one.value = arguments[1];"
    browser.execute_script(told + "one.dispatchEvent(new Event('input', {bubbles: true}))", field, value)


def test_incidents_are_sorted(page: Chrome, report: Path) -> None:
    _open(page, report / "index.html")
    buttons = {button.text: button for button in page.find_elements(By.CSS_SELECTOR, "#incidents th button")}
    buttons["First seen, UTC"].click()
    assert _visible(page) == ["t5", "t4", "t3", "t2", "t1", "t0"]
    buttons["First seen, UTC"].send_keys(Keys.ENTER)
    assert _visible(page) == ["t0", "t1", "t2", "t3", "t4", "t5"]
    buttons["Agent"].send_keys(Keys.SPACE)
    assert _visible(page) == ["t0", "t3", "t1", "t4", "t2", "t5"]
    heads = page.find_elements(By.CSS_SELECTOR, "#incidents th[aria-sort]")
    assert [(head.text.split()[0], head.get_attribute("aria-sort")) for head in heads] == [("Agent", "ascending")]


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_each_row_has_the_id_that_a_terminal_takes(page: Chrome, report: Path, width: int) -> None:
    """One click selects it, to be copied."""
    _see(page, width=width)
    for name in ("index.html", agent_file("agent-0")):
        _open(page, report / name)
        rows = page.find_elements(By.CSS_SELECTOR, "#incidents tbody tr")
        told = [row.find_element(By.CSS_SELECTOR, "code") for row in rows]
        assert [one.text for one in told if one.is_displayed()] == [f"{0:012x}"] * len(rows)
        ActionChains(page).click(told[-1]).perform()
        assert page.execute_script("return getSelection().toString()") == f"{0:012x}"


def test_a_narrow_page_has_its_own_way_to_sort(page: Chrome, report: Path) -> None:
    _see(page, width=NARROW)
    _open(page, report / "index.html")
    assert not page.find_element(By.CSS_SELECTOR, "#incidents thead").is_displayed()
    _unfold_filters(page)
    Select(page.find_element(By.ID, "sort")).select_by_value("from")
    assert _visible(page) == ["t5", "t4", "t3", "t2", "t1", "t0"]


def test_without_scripts_all_is_there(page: Chrome, report: Path) -> None:
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        _open(page, report / "index.html")
        assert len(_visible(page)) == 6
        assert not page.find_element(By.ID, "filters").is_displayed()
        _open(page, _first_page(report))
        assert not page.find_element(By.CSS_SELECTOR, ".zoom").is_displayed()
        assert page.find_element(By.CSS_SELECTOR, ".plot .bar").is_displayed()
        assert "SSH to an unlisted peer towards 198.51.100.7" in page.find_element(By.CSS_SELECTOR, ".story").text
    finally:
        page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_links_lead_from_index_to_incident_to_agent_and_back(page: Chrome, report: Path) -> None:
    _open(page, report / "index.html")
    page.find_element(By.CSS_SELECTOR, "#incidents a.title").click()
    assert page.current_url.endswith(incident_file(f"{0:032x}"))
    assert page.find_element(By.TAG_NAME, "h1").text == "critical SSH to an unlisted peer"
    page.find_element(By.LINK_TEXT, "agent-0").click()
    assert page.current_url.endswith(agent_file("agent-0"))
    assert _visible(page) == ["t0", "t3"]
    page.find_element(By.LINK_TEXT, "incidents").click()
    assert page.current_url.endswith("index.html")


def _counts(browser: Chrome) -> str:
    return browser.find_element(By.CSS_SELECTOR, ".counts").text


def test_filters_stand_in_the_address_and_going_back_keeps_them(page: Chrome, report: Path) -> None:
    _open(page, report / "index.html")
    assert _counts(page) == "2 critical 2 high 2 medium"
    _unfold_filters(page)
    Select(page.find_element(By.ID, "agent")).select_by_value("agent-1")
    _fill(page, "since", "2026-03-02T03:00:00")
    assert _counts(page) == "0 of 2 critical 1 of 2 high 0 of 2 medium"
    address = page.current_url
    assert address.endswith("#agent=agent-1&since=2026-03-02T03%3A00")
    page.find_element(By.CSS_SELECTOR, "#incidents tbody tr:not([hidden]) a.title").click()
    page.back()
    assert (page.current_url, _visible(page)) == (address, ["t4"])
    page.get("about:blank")
    page.get(address)
    assert _visible(page) == ["t4"]
    assert page.find_element(By.ID, "severity").is_displayed(), "what filters stands open"
    page.find_element(By.CSS_SELECTOR, "button[type=reset]").click()
    time.sleep(0.1)
    assert page.current_url.endswith("index.html")
    assert _counts(page) == "2 critical 2 high 2 medium"


def test_filtering_by_an_agent_keeps_what_it_is_a_candidate_of_and_counts_above(page: Chrome, tmp_path: Path) -> None:
    running = {name: value for name, value in incident(1).items() if name != "attribution.lease_end"}
    out = write_output(tmp_path / "out", [incident(0), running, unsure(9, incident(0))], [finding(0), finding(1)])
    assert main(["incidents", "report", "--from", str(out)]) == 0
    _open(page, out / "report" / "index.html")
    _unfold_filters(page)
    assert "candidate: agent-0" in _rows(page)[1].text
    banners = [one for one in page.find_elements(By.CSS_SELECTOR, ".banner") if one.is_displayed()]
    assert [one.text[:30] for one in banners] == ["00000000 probably repeats 0000", "1 sandbox with an incident sti"]
    agent = Select(page.find_element(By.ID, "agent"))
    for name, rows, above in (("agent-0", 2, [True, False]), ("agent-1", 1, [False, True])):
        agent.select_by_value(name)
        assert [row.is_displayed() for row in _rows(page)].count(True) == rows
        assert [one.is_displayed() for one in banners] == above


def test_where_nothing_passes_the_filters_a_row_says_so(page: Chrome, report: Path) -> None:
    page.get((report / "index.html").as_uri() + "#since=2027-01-01T00:00:00")
    assert page.find_element(By.ID, "none").text == "No incident passes the filters."
    page.get((report / "index.html").as_uri() + "#agent=nobody")  # which is no choice
    assert len(_visible(page)) == 6
    assert not page.find_element(By.ID, "none").is_displayed()


def test_a_row_leads_to_its_incident_and_its_agent_to_the_agent(page: Chrome, report: Path) -> None:
    _open(page, report / "index.html")
    page.find_elements(By.CSS_SELECTOR, "#incidents tbody td.number")[1].click()
    assert page.current_url.endswith(incident_file(f"{1:032x}"))
    page.back()
    page.find_element(By.CSS_SELECTOR, "#incidents td[data-label=Agent] a").click()
    assert page.current_url.endswith(agent_file("agent-0"))
    page.find_element(By.CSS_SELECTOR, "td[data-label='What was found'] a").click()
    assert page.current_url.endswith(incident_file(f"{0:032x}"))


# -- the timeline


def _view(browser: Chrome) -> tuple[float, float]:
    boxes = {plot.get_dom_attribute("viewBox") for plot in browser.find_elements(By.CSS_SELECTOR, ".plot")}
    shown = {tuple(map(float, str(box).split()[:3:2])) for box in boxes}
    assert len(shown) == 1, "all lanes show the same time"
    ((start, width),) = shown
    return start, width


def test_the_timeline_is_zoomed_by_keyboard(page: Chrome, report: Path) -> None:
    _open(page, _first_page(report))
    chart = page.find_element(By.ID, "timeline")
    for _ in range(40):  # it is reached without a mouse
        ActionChains(page).send_keys(Keys.TAB).perform()
        if page.switch_to.active_element == chart:
            break
    assert page.switch_to.active_element == chart
    assert _view(page) == (0, 2000)
    chart.send_keys("+")
    assert _view(page) == (500, 1000)
    chart.send_keys(Keys.ARROW_RIGHT)
    assert _view(page) == (750, 1000)
    for _ in range(9):
        chart.send_keys(Keys.ARROW_RIGHT)
    assert _view(page) == (1000, 1000)
    chart.send_keys("-")
    assert _view(page) == (0, 2000)
    for _ in range(20):
        chart.send_keys("+")
    assert _view(page)[1] == 20
    chart.send_keys("i")
    start, width = _view(page)
    assert start < 10 * 2000 / 59
    assert start + width > 30 * 2000 / 59
    assert width < 1000
    status = page.find_element(By.ID, "view").text
    assert status.startswith("00:07:")
    labels = [text.text for text in page.find_elements(By.CSS_SELECTOR, ".axis text")]
    assert "00:20" in labels
    chart.send_keys("0")
    assert page.find_element(By.ID, "view").text == "00:00:00 to 00:59:00"


def test_the_timeline_is_zoomed_by_buttons_and_by_mouse(page: Chrome, report: Path) -> None:
    _open(page, _first_page(report))
    buttons = {
        button.get_attribute("data-act"): button for button in page.find_elements(By.CSS_SELECTOR, ".zoom button")
    }
    buttons["in"].click()
    assert _view(page) == (500, 1000)
    buttons["left"].send_keys(Keys.ENTER)
    assert _view(page) == (250, 1000)
    buttons["all"].click()
    plot = page.find_elements(By.CSS_SELECTOR, ".plot")[1]
    width = int(plot.rect["width"])
    ActionChains(page).move_to_element_with_offset(plot, -width // 4, 0).click_and_hold().move_by_offset(
        width // 4, 0
    ).release().perform()
    start, shown = _view(page)
    assert abs(start - 500) < 20
    assert abs(shown - 500) < 20
    ActionChains(page).double_click(plot).perform()
    assert _view(page) == (0, 2000)


def test_a_finding_in_the_drawing_leads_to_its_evidence(page: Chrome, report: Path) -> None:
    _open(page, _first_page(report))
    page.find_element(By.CSS_SELECTOR, ".lane a").send_keys(Keys.ENTER)
    assert page.current_url.endswith("#finding-1")
    assert page.find_element(By.CSS_SELECTOR, "#finding-1 code").is_displayed()


def test_folded_context_unfolds_when_it_is_led_to(page: Chrome, tmp_path: Path) -> None:
    low = finding(0, **{"finding.id": "f" * 32, "finding.severity": "low", "finding.title": "Context"})
    out = write_output(tmp_path / "out", [incident(0)], [finding(0), low], timeline(0))
    assert main(["incidents", "report", "--from", str(out)]) == 0
    _open(page, _first_page(out / "report"))
    page.find_element(By.LINK_TEXT, "Other findings").click()
    time.sleep(0.1)
    assert page.find_element(By.ID, "finding-2").is_displayed()


# -- in every light


def _pages(*reports: Path) -> list[Path]:
    return [
        path
        for report in reports
        for path in (report / "index.html", *sorted(report.glob("agent-*"))[:1], *sorted(report.glob("incident-*"))[:3])
    ]


_CONTRAST = """
  const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const parsed = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = parsed(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] === 1) return c;
      if (c[3] > 0) throw new Error("half transparent");
    }
    return [255, 255, 255];
  };
  for (const e of document.querySelectorAll("details")) e.open = true;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const poor = [];
  let seen = 0;
  for (let node; (node = walker.nextNode());) {
    const e = node.parentElement;
    if (!node.data.trim() || ["SCRIPT", "STYLE"].includes(e.tagName) || !e.getClientRects().length) continue;
    const style = getComputedStyle(e);
    const ink = parsed(e.namespaceURI.endsWith("svg") ? style.fill : style.color);
    const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    seen += 1;
    if (ratio < 4.5) poor.push([ratio.toFixed(2), e.tagName, e.className.toString(), node.data.trim().slice(0, 40)]);
  }
  return [seen, poor.slice(0, 10)];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_pages_can_be_read(page: Chrome, report: Path, demo: Path, width: int, scheme: str) -> None:
    """No text of low contrast, nothing that hangs over the edge, nothing cut off."""
    _see(page, width=width, scheme=scheme)
    for path in _pages(report, demo):
        _open(page, path)
        seen, poor = page.execute_script(_CONTRAST)
        assert seen > 20
        assert poor == []
        inside, over = page.execute_script("const e = document.documentElement; return [e.clientWidth, e.scrollWidth]")
        assert over <= inside, path
        assert _dark(page) is (scheme == "dark")


def _dark(browser: Chrome) -> bool:
    color = browser.execute_script("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    return bool(sum(color) < 200)


def test_the_contrast_check_finds_what_is_poor(page: Chrome, report: Path) -> None:
    _open(page, report / "index.html")
    page.execute_script("document.querySelector('h1').style.color = '#bbb'")
    assert page.execute_script(_CONTRAST)[1][0][1] == "H1"


def test_pages_can_be_printed(page: Chrome, report: Path) -> None:
    """On white, whatever the screen is; without what needs a screen."""
    _see(page, scheme="dark", media="print")
    _open(page, _first_page(report))
    assert not _dark(page)
    assert not page.find_element(By.CSS_SELECTOR, ".zoom").is_displayed()
    assert page.execute_script(_CONTRAST)[1] == []
    assert len(page.execute_cdp_cmd("Page.printToPDF", {})["data"]) > 10_000


def test_the_first_screen_says_who_what_why_and_what_to_do(page: Chrome, demo: Path) -> None:
    """On a usual screen nobody has to scroll for it."""
    for path in sorted(demo.glob("incident-*")):
        _open(page, path)
        for what in ("h1", ".lead", ".state", ".fired .why", ".card.who dl", ".card.sure p", ".card.do li"):
            element = page.find_element(By.CSS_SELECTOR, what)
            assert element.rect["y"] + min(element.rect["height"], 40) < 900, (path, what)
            assert element.text


def test_on_a_narrow_screen_what_to_do_comes_first(page: Chrome, report: Path) -> None:
    _see(page, width=NARROW)
    _open(page, _first_page(report))
    tops = [page.find_element(By.CSS_SELECTOR, f".card.{name}").rect["y"] for name in ("do", "who", "sure")]
    assert tops == sorted(tops)
    page.find_element(By.CSS_SELECTOR, ".card.do summary").send_keys(Keys.ENTER)
    command = page.find_element(By.CSS_SELECTOR, ".command")
    assert command.text.startswith("agenttrail incidents list --from ")
    assert command.text.endswith(" --peer 198.51.100.7")
    assert page.execute_script(
        "return arguments[0].scrollWidth <= arguments[0].clientWidth", command.find_element(By.XPATH, "..")
    )


def test_what_is_long_is_folded_and_unfolds_by_keyboard(page: Chrome, tmp_path: Path) -> None:
    """Patterns and original lines: what matched and what they say stands outside."""
    out = write_output(tmp_path / "out", [incident(0)], [finding(0), call_finding(0)], timeline(0))
    assert main(["incidents", "report", "--from", str(out)]) == 0
    _open(page, _first_page(out / "report"))
    told = page.find_element(By.CSS_SELECTOR, ".said").text
    assert "ssh -fN -R 16708:localhost:6006" in told
    for folded in (".asks details", ".evidence details"):
        details = page.find_element(By.CSS_SELECTOR, folded)
        assert not details.find_element(By.TAG_NAME, "code").is_displayed()
        details.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
        assert details.find_element(By.TAG_NAME, "code").is_displayed()
    row = page.find_element(By.CSS_SELECTOR, "#finding-1 .evidence tbody tr").text
    for shown in ("10.0.0.1:40000 → 198.51.100.7:22", "allowed (accept)", "1.5 kB sent in 12 packets"):
        assert shown in row


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_two_incidents_that_are_one_act_lead_to_each_other(page: Chrome, tmp_path: Path, width: int) -> None:
    out = write_output(tmp_path / "out", [incident(0), unsure(1, incident(0))], [finding(0)])
    assert main(["incidents", "report", "--from", str(out)]) == 0
    _see(page, width=width)
    _open(page, out / "report" / "index.html")
    assert len(page.find_elements(By.CSS_SELECTOR, "#incidents .twin a")) == 2
    page.find_element(By.CSS_SELECTOR, "#incidents a.title").click()
    for number in (1, 0):
        page.find_element(By.CSS_SELECTOR, ".notice.twin a").click()
        assert page.current_url.endswith(incident_file(f"{number:032x}"))


# -- hostile logs


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_what_logs_hold_is_shown_and_does_nothing(page: Chrome, hostile: Path, width: int) -> None:
    _see(page, width=width)
    for path in sorted(hostile.iterdir()):
        assert path.stat().st_size < 250_000, path
        _open(page, path)
        assert page.title != "owned", path
        assert page.execute_script("return document.scripts.length") == 1
        assert page.find_elements(By.CSS_SELECTOR, "img, iframe, object, embed, [onload], [onerror]") == []
        text = page.execute_script("return document.documentElement.textContent")
        assert not [char for char in text if not char.isprintable() and char != "\n"]
        assert "49" not in page.find_element(By.TAG_NAME, "h1").text
        inside, over = page.execute_script("const e = document.documentElement; return [e.clientWidth, e.scrollWidth]")
        assert over <= inside, path
    _open(page, hostile / incident_file(f"{0:032x}"))
    lead = page.find_element(By.CSS_SELECTOR, "h1").text
    assert "<script>document.title" in lead
    # the name of its peer is shown as it is, and no address that is none becomes part of a command
    assert ", named <script>" in page.find_element(By.CSS_SELECTOR, ".lead").text
    assert page.find_elements(By.CSS_SELECTOR, ".command") == []
    whole = str(page.find_element(By.TAG_NAME, "body").get_attribute("textContent"))
    for shown in ("{{ 7 * 7 }}{% raw %}", "\\x1b[2J", "\\u202egnp.exe\\u2066\\u2028\\u200b\\x00", "characters…]"):
        assert shown in whole


def test_filters_work_on_hostile_names(page: Chrome, hostile: Path) -> None:
    _open(page, hostile / "index.html")
    _unfold_filters(page)
    agents = Select(page.find_element(By.ID, "agent"))
    assert len(agents.options) == 3
    for number, count in ((1, 1), (2, 2), (0, 3)):  # the ambiguous one has the second as a candidate
        agents.select_by_index(number)
        assert [row.is_displayed() for row in _rows(page)].count(True) == count


def _rows(browser: Chrome) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, "#incidents tbody tr")


def test_the_policy_stops_what_would_get_in(browser: Chrome, report: Path) -> None:
    """Not part of any page: a script, a handler, a style and a request that get into one all the same are refused."""
    browser.get(_first_page(report).as_uri())
    browser.get_log("browser")
    refused = browser.execute_async_script("""
      const done = arguments[0], refused = [];
      addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
      const add = (html) => { document.body.append(document.createRange().createContextualFragment(html)); };
      add("<script>window.owned = 1</script>");
      add("<b onclick='window.owned = 2' id='bait'>x</b>");
      document.getElementById("bait").click();
      add("<i style='color:red'>x</i>");
      add("<img src='https://example.invalid/x.png'>");
      fetch("https://example.invalid/").catch(() => {});
      setTimeout(() => done([window.owned === undefined, refused]), 500);
    """)
    assert refused[0] is True
    assert {"script-src-elem", "script-src-attr", "style-src-attr", "img-src", "connect-src"} <= set(refused[1])
    browser.get_log("browser")  # its complaints are what was wanted


# -- long stories


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the report of incidents with 5,000 timeline entries each: 200 of them in long runs, else a tenth."""
    count = 200 if os.environ.get("HYPOTHESIS_PROFILE") == "acceptance" else 20
    out = long_stories(tmp_path_factory.mktemp("long") / "out", count, 5_000)
    assert main(["incidents", "report", "--from", str(out)]) == 0
    return out / "report"


def test_long_stories_open_at_once_and_are_small(page: Chrome, long: Path) -> None:
    """Two hundred of them are 50 MB at most, so one is a two-hundredth of that."""
    pages = sorted(long.glob("incident-*"))
    total = sum(path.stat().st_size for path in long.iterdir())
    assert total / len(pages) <= 50_000_000 / 200
    for path in [long / "index.html", *pages[:4]]:
        begin = time.monotonic()
        _open(page, path)
        page.find_element(By.CSS_SELECTOR, "h1")
        took = time.monotonic() - begin
        assert took <= 2.0, f"{path.name} took {took:.1f} s"
    assert "1,250 tool calls are drawn as" in page.find_element(By.TAG_NAME, "main").text
    begin = time.monotonic()
    page.find_element(By.ID, "timeline").send_keys("+")
    assert time.monotonic() - begin < 1.0
