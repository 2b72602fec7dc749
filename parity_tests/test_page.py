"""The HTML page and the notebook fragment, on made-up reports."""

import json
import re
from importlib.resources import files

import numpy as np
import pytest

import instep.parity
from instep.parity import Leaf, Verdict
from instep.parity._html import page
from instep.parity._judge import Ledger
from instep.parity._records import Curve, Matched, Plan
from instep.parity._summary import make_report


KINDS = ("gradient", "update", "parameter")
HOSTILE = "</script><img src=x onerror=alert(1)>\u2028<!--{{title}}"
CURVES = (
    Curve("float64", (2.0, 1.0, 0.5), (2.0, 1.0, 0.5)),
    Curve("float32", (2.0, np.nan, 0.5), (2.0, np.inf, 0.25)),
)


def made_up(name="w", factor=1.0, jax="kernel", **report):
    """Three steps of one parameter; JAX's gradient is ``factor`` times PyTorch's at step 2."""
    ledgers = [Ledger(), Ledger(plan=Plan("float64", synced=True))]
    for ledger in ledgers:
        for step in range(4):
            x = np.linspace(1.0, 2.0, 10) / (1 + step)
            seen = {Leaf(kind, name): x for kind in KINDS} | {Leaf("loss", "loss"): x[0]}
            wrong = Leaf("gradient", name)
            there = seen | ({wrong: x * factor} if step == 2 else {})
            ledger.judge(step, seen, [], there)
    weights = [Matched("linear", (name,), (jax,), "same")]
    return make_report(ledgers, 3, weights, **{"curves": CURVES, **report})


def embedded(html):
    scripts = re.findall(r"<script\b[^>]*>(.*?)</script>", html, flags=re.DOTALL)
    assert len(scripts) == 2, "the report and the viewer"
    return scripts[0]


@pytest.mark.parametrize("factor", [1.0, 2.0, np.inf])
def test_the_page_holds_the_report(tmp_path, factor):
    report = made_up(factor=factor)
    report.to_html(tmp_path / "page.html", title="a & b")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert json.loads(embedded(html)) == json.loads(json.dumps(report.to_dict()))
    assert "<title>a &amp; b</title>" in html and "{{" not in html
    without_script = re.search("<noscript>(.*?)</noscript>", html, flags=re.DOTALL)
    assert without_script and report.verdict.upper() in without_script[1]
    assert report.reason in without_script[1]


def test_it_asks_nothing_of_the_network():
    html = page(made_up())
    assert "http://" not in html and "https://" not in html
    assert not re.search(r"\b(src|href|action)\s*=|@import|url\(|fetch\(|XMLHttp", html)
    assert "default-src 'none'" in html


def test_markup_comes_from_the_page_alone():
    viewer = files(instep.parity).joinpath("page.html").read_text(encoding="utf-8")
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in viewer


def test_a_hostile_name_stays_text():
    report = made_up(HOSTILE, factor=2.0, jax=HOSTILE, not_walked=[HOSTILE])
    html = page(report, title=HOSTILE)
    assert "<img" not in html and "\u2028" not in embedded(html)
    assert "<" not in embedded(html)
    assert json.loads(embedded(html))["first_divergence"]["name"] == HOSTILE
    assert html.count("<script") == page(made_up()).count("<script")
    in_notebook = report._repr_html_()
    assert "<img" not in in_notebook and "&lt;img" in in_notebook


def test_in_a_notebook():
    healthy, diverged = made_up(), made_up(factor=2.0, not_walked=["bfloat16: no reason"])
    assert healthy.verdict is Verdict.IN_STEP
    assert "IN STEP" in healthy._repr_html_() and "NOT IN STEP" not in healthy._repr_html_()
    html = diverged._repr_html_()
    for text in (
        "NOT IN STEP",
        "where: step 2, stage gradient: gradient of w (JAX: kernel)",
        "not walked: bfloat16: no reason",
        "float64 re-synchronised</th>",
        "<strong>✕&nbsp;",
        "<polyline",
    ):
        assert text in html, text
    assert not re.search(r"<script|<style|\bon\w+=|url\(", html)


def test_a_fragment_says_what_was_not_seen_and_what_to_do():
    def one_sided(step):
        x = np.ones(3) * (1 + step)
        return {Leaf(kind, "w"): x for kind in KINDS} | {Leaf("loss", "loss"): x[0]}

    ledger = Ledger()
    for step in range(3):
        there = {leaf: x for leaf, x in one_sided(step).items() if leaf.kind != "gradient"}
        ledger.judge(step, one_sided(step), [], there)
    report = make_report([ledger], 2, []).with_hint("return the <gradients> too")
    html = report._repr_html_()
    assert "INCONCLUSIVE" in html and "not seen: gradient" in html
    assert "hint: return the &lt;gradients&gt; too" in html
    assert "<svg" not in html, "no curve, no chart"
