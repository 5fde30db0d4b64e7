"""The examples in the documentation run as they stand."""

from __future__ import annotations

import re

import pytest

from package_map import ROOT

PAGES = [ROOT / "docs" / "api.md"]
"""Those that promise it; examples elsewhere may need files of the reader's own."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page, monkeypatch):
    """All of a page's examples, one after the other in one session, as a reader would."""
    monkeypatch.chdir(ROOT)
    examples = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) >= 3
    session: dict[str, object] = {}
    for number, example in enumerate(examples, 1):
        exec(compile(example, f"{page.name}, example {number}", "exec"), session)
