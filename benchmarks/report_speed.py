"""How large the report of many instances is, and how long Chromium takes to open it.

    python -m verifier.benchmarks.report_speed JOURNAL [--instances 1000]

The journal's records are repeated under other names until there are enough.  Needs selenium, Chromium and its driver.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

from verifier.benchmarks.journal import read_journal
from verifier.benchmarks.outcomes import Run, of_record
from verifier.benchmarks.report.render import MOST_IMAGES, render


def seconds_to_open(path: Path) -> float:
    """Until the page is loaded and laid out, in a browser that runs already."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        browser.get("about:blank")
        began = time.perf_counter()
        browser.get(path.as_uri())
        browser.execute_script("return document.body.getBoundingClientRect().height")
        return time.perf_counter() - began
    finally:
        browser.quit()


def main() -> None:
    parser = argparse.ArgumentParser(prog="report_speed", description="Size and opening time of a report.")
    parser.add_argument("journal", type=Path)
    parser.add_argument("--instances", type=int, default=1000)
    options = parser.parse_args()
    known = read_journal(options.journal).values()
    many = [
        replace(record, vnnlib=f"{i}_{Path(record.vnnlib).name}")
        for i, record in enumerate(islice(cycle(known), options.instances))
    ]
    run = Run("run", [of_record(record) for record in many])
    for images in (0, MOST_IMAGES):
        began = time.perf_counter()
        page = render([run], images=images)
        written = time.perf_counter() - began
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, "report.html")
            path.write_text(page, encoding="utf-8")
            opened = seconds_to_open(path)
        size = len(page.encode()) / 1e6
        print(
            f"{len(many)} instances, at most {images} images: {size:.2f} MB, made in {written:.2f} s, "
            f"opened in {opened:.2f} s"
        )


if __name__ == "__main__":
    main()
