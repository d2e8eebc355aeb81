"""Figures as text, and tables for notebooks."""

from wmtp.evaluation.intervals import Estimate
from wmtp.evaluation.shown import Table, as_html, shown


def test_a_figure_stands_with_its_interval_and_its_sign():
    assert shown(Estimate(2.34512, 2.3, 2.4), 3) == "2.345 [2.300, 2.400]"
    assert shown(Estimate(0.5, -0.25, 1.25), 1, signed=True) == "+0.5 [-0.2, +1.2]"
    assert shown(Estimate(2.0), 2) == "2.00"
    assert shown(Estimate(float("nan")), 2) == "-"


def test_what_a_stranger_named_is_no_html():
    made = as_html([Table(("A&B",), [("<script>",)])], ["<b>bold"])
    assert made == (
        '<table><thead><tr><th scope="col">A&amp;B</th></tr></thead>'
        '<tbody><tr><th scope="row">&lt;script&gt;</th></tr></tbody></table>'
        "<p>&lt;b&gt;bold</p>"
    )
