"""The report in a real browser: filter, sort, pages, widths, and no complaint on its console.

Needs Chromium and its driver (Debian: apt-get install chromium chromium-driver).  Screenshots and the printed page are
left in ``out/report`` for people to look at.
"""

from __future__ import annotations

import base64
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from package_map import ROOT
from support.journals import records
from verifier.benchmarks.outcomes import Run, of_record
from verifier.benchmarks.record import Status
from verifier.benchmarks.report.render import render

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

SHOTS = ROOT / "out" / "report"
LAPTOP, PHONE = (1280, 800), (390, 844)
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        reason = "no Chromium with its driver here: apt-get install chromium chromium-driver"
        required = os.environ.get("CI") or os.environ.get("REQUIRE_BROWSER")
        pytest.fail(reason) if required else pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report of two runs that contradict each other once."""
    ours, theirs = records(60), records(60, seed=1)
    theirs[0] = replace(theirs[0], status=Status.SAT)
    theirs[8] = replace(theirs[8], status=Status.TIMEOUT)
    path = tmp_path_factory.mktemp("report") / "report.html"
    runs = [Run(name, [of_record(record) for record in found]) for name, found in (("ours", ours), ("theirs", theirs))]
    path.write_text(render(runs), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def opened(browser: webdriver.Chrome, page: str) -> Iterator[webdriver.Chrome]:
    size(browser, LAPTOP)
    browser.get("about:blank")
    browser.get(page)
    yield browser
    complaints = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert not complaints


def size(browser: webdriver.Chrome, extent: tuple[int, int]) -> None:
    mobile = extent == PHONE
    metrics = {"width": extent[0], "height": extent[1], "deviceScaleFactor": 2 if mobile else 1, "mobile": mobile}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def shoot(browser: webdriver.Chrome, name: str, whole: bool = True) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})
    (SHOTS / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))


def shown(browser: webdriver.Chrome) -> list[str]:
    """The numbers of the rows that are visible, from the top."""
    rows = "[...document.querySelectorAll('#table tbody tr')]"
    return browser.execute_script(f"return {rows}.filter(row => row.offsetParent).map(row => row.dataset.i)")


def column(browser: webdriver.Chrome, number: int) -> list[str]:
    script = "return [...document.querySelectorAll('#table tbody tr')].map(r => r.cells[arguments[0]].textContent)"
    return browser.execute_script(script, number)


def until(browser: webdriver.Chrome, true: Callable[[webdriver.Chrome], object]) -> None:
    WebDriverWait(browser, 10).until(true)


def follow(browser: webdriver.Chrome, address: str) -> None:
    browser.execute_script("location.hash = arguments[0]", address)
    until(browser, lambda b: b.find_element(By.ID, "instance").is_displayed() == bool(address))


def test_nothing_is_loaded_from_elsewhere(opened: webdriver.Chrome) -> None:
    loaded = opened.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in loaded if not name.startswith("data:")] == []


def test_filter(opened: webdriver.Chrome) -> None:
    assert len(shown(opened)) == 60
    words = opened.find_element(By.ID, "words")
    words.send_keys("net_1 IMAGE_000")
    assert shown(opened) == ["1", "4", "7"]
    assert opened.find_element(By.ID, "shown").text == "3 shown"
    words.send_keys(" nosuch")
    assert shown(opened) == []
    assert opened.find_element(By.ID, "none").is_displayed()
    words.clear()
    words.send_keys(Keys.SPACE)
    Select(opened.find_element(By.ID, "status")).select_by_visible_text("crashed")
    assert shown(opened) == [str(i) for i in range(60) if i % 4 == 3]
    Select(opened.find_element(By.ID, "status")).select_by_index(0)
    opened.find_element(By.ID, "differing").click()
    assert shown(opened) == ["0", "8"]


def test_sort(opened: webdriver.Chrome) -> None:
    seconds = next(h for h in opened.find_elements(By.CSS_SELECTOR, "#table th") if h.text == "seconds")
    place = opened.execute_script("return arguments[0].cellIndex", seconds)
    button = seconds.find_element(By.TAG_NAME, "button")
    before = column(opened, place)
    button.click()
    assert column(opened, place) == sorted(before, key=float)
    assert seconds.get_attribute("aria-sort") == "ascending"
    button.click()
    assert column(opened, place) == sorted(before, key=float, reverse=True)
    opened.find_elements(By.CSS_SELECTOR, "#table th button")[1].click()
    assert column(opened, 1) == sorted(column(opened, 1))
    assert seconds.get_attribute("aria-sort") is None


def test_plots_are_drawn(opened: webdriver.Chrome) -> None:
    for selector, count in (("#plots svg", 2), ("#plots polyline", 2), ("#plots .mark", 60)):
        found = opened.find_elements(By.CSS_SELECTOR, selector)
        assert len(found) == count
        boxes = [opened.execute_script("return arguments[0].getBoundingClientRect().width", f) for f in found]
        assert min(boxes) > 2
    colours = {
        opened.execute_script("return getComputedStyle(arguments[0]).stroke", line)
        for line in opened.find_elements(By.CSS_SELECTOR, "#plots polyline")
    }
    assert len(colours) == 2


def test_contradictions_are_red_and_on_top(opened: webdriver.Chrome) -> None:
    alarm = opened.find_element(By.ID, "contradictions")
    assert "unsat in ours, sat in theirs" in alarm.text
    assert alarm.location["y"] < opened.find_element(By.ID, "summary").location["y"]
    red, green, blue = (
        int(part) for part in opened.execute_script(
            "return getComputedStyle(arguments[0]).color", alarm.find_element(By.TAG_NAME, "h2")
        )[4:-1].split(",")
    )  # fmt: skip
    assert red > 2 * max(green, blue)
    alarm.find_element(By.TAG_NAME, "a").click()
    until(opened, lambda b: b.find_element(By.ID, "instance").is_displayed())


def test_the_page_of_a_counterexample(opened: webdriver.Chrome) -> None:
    opened.execute_script("document.querySelector('#table tr[data-i=\"5\"]').click()")
    until(opened, lambda b: b.find_element(By.ID, "instance").is_displayed())
    article = opened.find_element(By.ID, "instance")
    assert not opened.find_element(By.ID, "overview").is_displayed()
    images = article.find_elements(By.CSS_SELECTOR, ".triple img")
    assert len(images) == 6, "three for each run"
    until(opened, lambda b: all(b.execute_script("return arguments[0].naturalWidth", i) == 8 for i in images))
    for words in ("class 3, score 2", "class 8, score 1.5", "Looked for: another class than 3", "bound 0.100 s"):
        assert words in article.text
    shoot(opened, "laptop-instance")
    keys = opened.find_element(By.TAG_NAME, "body")
    keys.send_keys(Keys.ARROW_RIGHT)
    until(opened, lambda b: b.current_url.endswith("#i6"))
    keys.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    until(opened, lambda b: b.current_url.endswith("#i4"))
    keys.send_keys(Keys.ESCAPE)
    until(opened, lambda b: b.find_element(By.ID, "overview").is_displayed())


def test_the_page_of_a_crash_shows_what_the_worker_said(opened: webdriver.Chrome) -> None:
    follow(opened, "i3")
    article = opened.find_element(By.ID, "instance")
    assert "this says nothing about the property" in article.text
    words = article.find_element(By.TAG_NAME, "pre").get_attribute("textContent")
    assert words == "Fatal Python error: <b>Segmentation fault</b>", "shown, not interpreted"


def test_the_gallery_opens(opened: webdriver.Chrome) -> None:
    assert len(opened.find_elements(By.CSS_SELECTOR, ".gallery a")) == 15
    assert "class 3 → 8" in opened.find_element(By.CSS_SELECTOR, ".gallery a").text


@pytest.mark.parametrize(("name", "extent"), [("laptop", LAPTOP), ("phone", PHONE)])
def test_nothing_sticks_out(opened: webdriver.Chrome, name: str, extent: tuple[int, int]) -> None:
    size(opened, extent)
    for address in ("", "i1"):
        follow(opened, address)
        widths = opened.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        assert widths[0] <= widths[1] == extent[0]
        shoot(opened, f"{name}{'-instance' if address else ''}")


def test_it_can_be_printed(opened: webdriver.Chrome) -> None:
    printed = base64.b64decode(opened.print_page())
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") >= 2 or len(printed) > 20_000
    SHOTS.mkdir(parents=True, exist_ok=True)
    (SHOTS / "print.pdf").write_bytes(printed)


def test_a_thousand_instances_respond(browser: webdriver.Chrome, tmp_path: Path) -> None:
    path = tmp_path / "large.html"
    path.write_text(render([Run("r", [of_record(record) for record in records(1000)])]), encoding="utf-8")
    began = time.monotonic()
    browser.get(path.as_uri())
    print(f"1,000 instances, {path.stat().st_size / 1e6:.2f} MB, opened in {time.monotonic() - began:.2f} s")
    browser.find_element(By.ID, "words").send_keys("image_099")
    assert len(shown(browser)) == 10
