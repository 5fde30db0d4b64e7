"""The HTML report: what is in it, that it needs nothing else, and the numbers behind it."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from support.journals import picture, records
from verifier.benchmarks.outcomes import Run, of_record, read_outcomes
from verifier.benchmarks.record import Record, Status
from verifier.benchmarks.report.accuracy import clopper_pearson, robust_accuracy
from verifier.benchmarks.report.data import items_of, script_json
from verifier.benchmarks.report.pictures import witness_data
from verifier.benchmarks.report.plots import Curve, LogScale, Point, cactus, scatter
from verifier.benchmarks.report.render import render


def run(found: list[Record], name: str = "ours") -> Run:
    return Run(name, [of_record(record) for record in found])


def details(page: str) -> dict:
    text = re.search(r'<script type="application/json" id="details">(.*?)</script>', page, re.DOTALL)
    assert text is not None
    return json.loads(text[1])


# --- accuracy ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [1, 4, 30, 500])
def test_intervals_are_those_of_scipy(total: int) -> None:
    for count in {0, 1, total // 3, total // 2, total - 1, total}:
        share = clopper_pearson(count, total)
        wanted = binomtest(count, total).proportion_ci(0.95, method="exact")
        assert (share.low, share.high) == pytest.approx((wanted.low, wanted.high))
        assert share.low <= share.value <= share.high


def test_accuracy_counts_every_instance_once() -> None:
    found = records(40)
    found[1] = replace(found[1], witness={**picture(np.random.default_rng(1), 8), "original_y": [9.0] + 9 * [0.0]})
    rows = robust_accuracy(found)
    assert [row.network for row in rows] == ["net_0", "net_1", "net_2"]
    assert sum(row.verified.count + row.adversarial.count + row.undecided.count for row in rows) == 40
    assert sum(row.verified.total for row in rows) == 40
    assert sum(row.adversarial.count for row in rows) == 10
    assert sum(row.wrong for row in rows) == 1, "one is misread without any change"
    assert robust_accuracy([replace(found[0], asked={"kind": "general", "sentences": []})]) == []


# --- pictures ----------------------------------------------------------------------------------------------------


def decoded(address: str) -> np.ndarray:
    kind, _, data = address.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_pictures_hold_the_pixels() -> None:
    witness = picture(np.random.default_rng(0), 8)
    found = witness_data(witness, images=True)
    before, after = (np.array(witness[name]).reshape(8, 8) for name in ("original_x", "x"))
    assert np.array_equal(decoded(found["pictures"]["original"]), np.rint(before * 255))
    assert np.array_equal(decoded(found["pictures"]["counterexample"]), np.rint(after * 255))
    difference = decoded(found["pictures"]["difference"])
    assert difference.shape == (8, 8, 3)
    brighter, darker = after > before, after < before
    assert (difference[brighter][:, 0] > difference[brighter][:, 2]).all(), "red where it became brighter"
    assert (difference[darker][:, 2] > difference[darker][:, 0]).all()
    assert found["pictures"]["changed"] == (before != after).sum()
    assert {3, 8} <= {row[0] for row in found["scores"]}
    assert "pictures" not in witness_data(witness, images=False)


def test_inputs_that_are_no_picture_become_bars() -> None:
    witness = {
        "x": [0.5, 1.0], "original_x": [0.0, 0.0], "y": [1.0], "original_y": [None],
        "shape": [1, 2], "lower": [-1.0, -1.0], "upper": [1.0, 1.0],
    }  # fmt: skip
    found = witness_data(witness, images=True)
    assert found["bars"] == [[0, -1.0, 1.0, 0.0, 0.5], [1, -1.0, 1.0, 0.0, 1.0]]
    assert found["scores"] == [[0, None, 1.0]]


# --- plots -------------------------------------------------------------------------------------------------------


def test_scales_contain_their_values() -> None:
    for values in ([], [0.0], [1.0], [0.02, 300.0]):
        scale = LogScale.around(values, 100, 0)
        assert len(scale.ticks) >= 2
        assert all(0 <= scale.at(value) <= 100 for value in [*values, *scale.ticks])
    assert LogScale.around([1, 100], 0, 10).at(10) == pytest.approx(5)


def test_curves_rise_and_carry_names_safely() -> None:
    text = str(cactus([Curve("<b>", [3.0, 1.0, 2.0]), Curve("none", [])]))
    assert "&lt;b&gt;: 3 decided" in text
    (points,) = re.findall(r'points="([^"]*)"', text)
    places = [tuple(map(float, point.split(","))) for point in points.split()]
    assert len(places) == 3
    assert places == sorted(places, key=lambda p: (p[0], -p[1])), "seconds grow with the count"
    assert all(math.isfinite(value) for place in places for value in place)


def test_points_link_to_their_pages() -> None:
    text = str(scatter([Point(1.0, 10.0, "sat", "a & b", "#i4")], "x<", "y"))
    assert '<a href="#i4">' in text
    assert "a &amp; b" in text
    assert "seconds, x&lt;" in text


# --- the page ----------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = render([run(records(12))])
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#|\{\{)[^"']*["']""", page)
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert "@import" not in page
    assert "url(" not in page


def test_every_instance_has_a_row_and_its_details() -> None:
    page = render([run(records(12))])
    assert len(re.findall(r"<tr data-i=", page)) == 12
    items = details(page)["items"]
    assert [outcomes[0]["verdict"] for outcomes in items] == ["unsat", "sat", "timeout", "crashed"] * 3
    assert items[1][0]["witness"]["pictures"]["original"].startswith("data:")
    assert items[3][0]["message"] == "why it ended as crashed"
    assert len(details(page)["places"]) == 1, "machine and versions are stored once"
    assert "here: CPU, 2 cores" in page


def test_nothing_in_a_record_can_break_the_page() -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    found = [
        replace(r, onnx=f"{evil}.onnx", vnnlib=evil, category=evil, message=evil, machine={"host": evil})
        for r in records(4)
    ]
    page = render([run(found, evil)], title=evil)
    assert "<script>alert" not in page
    assert "<img src=x" not in page.replace("\\u003cimg", "")
    assert len(re.findall(r"</script>", page)) == 3
    assert json.loads(script_json({"a": evil})) == {"a": evil}


def test_contradictions_stand_on_top() -> None:
    ours, theirs = records(12), records(12)
    theirs[0] = replace(theirs[0], status=Status.SAT)
    page = render([run(ours, "ours"), run(theirs, "theirs")])
    assert "1 contradiction: one side is wrong" in page
    assert "unsat in ours, sat in theirs" in page
    assert page.index('id="contradictions"') < page.index('id="summary"')
    assert 'class="bad"' in page
    assert page.count('class="mark') == 12
    quiet = render([run(ours, "ours"), run(ours, "again")])
    assert 'id="contradictions"' not in quiet


def test_known_verdicts(tmp_path: Path) -> None:
    path = tmp_path / "reference.csv"
    lines = [f"{r.onnx},{r.vnnlib},{'sat' if i == 0 else 'unsat?'}" for i, r in enumerate(records(4)[:2])]
    path.write_text("onnx,vnnlib,verdict\n" + "\n".join(lines) + "\nz.onnx,z.vnnlib,sat\n")
    page = render([run(records(4)), Run("known", read_outcomes(path))])
    assert "1 contradiction: one side is wrong" in page
    assert "1 disagreement where one side was in doubt itself" in page
    assert "Known verdicts from known." in page
    assert len(re.findall(r"<tr data-i=", page)) == 4, "instances that only the reference has are not the run's"


def test_defects_of_ours_stand_on_top() -> None:
    found = records(4)
    found[2] = replace(found[2], status=Status.ERROR, message="SoundnessError: oh", traceback="Traceback")
    page = render([run(found)])
    assert page.index("1 unforeseen exception in the verifier") < page.index('id="summary"')
    assert "SoundnessError: oh" in page


def test_images_can_be_limited() -> None:
    page = render([run(records(40))], images=3)
    drawn = [o for (o,) in details(page)["items"] if "pictures" in o.get("witness", {})]
    assert len(drawn) == 3
    assert "7 counterexamples are not drawn" in page


def test_a_thousand_instances_stay_small() -> None:
    page = render([run(records(1000), "a"), run(records(1000, seed=1), "b")], images=0)
    assert len(page.encode()) < 5e6
    pictures = render([run(records(1000, side=28))])
    assert len(pictures.encode()) < 5e6


def test_runs_over_different_instances() -> None:
    items = items_of([run(records(4), "a"), run(records(4, category="other"), "b")])
    assert len(items) == 4, "the same by name"
    shifted = [replace(r, vnnlib=f"x{r.vnnlib[7:]}") for r in records(4)]
    items = items_of([run(records(4), "a"), run(shifted, "b")])
    assert [tuple(o is not None for o in item.outcomes) for item in items] == [(True, False)] * 4 + [(False, True)] * 4
    assert render([run(records(4), "a"), run(shifted, "b")])
