"""Small tables for notebooks."""

from wmtp.html_table import html_cells, html_lines


def test_lines_become_rows_and_foreign_text_stays_text():
    table = html_lines("A <plan>", ["base: s3://bucket/<b>", "  a note without a colon"])
    assert "<b>A &lt;plan&gt;</b>" in table
    assert ">base</th>" in table
    assert ">s3://bucket/&lt;b&gt;</td>" in table
    assert '<td colspan="2"' in table
    assert "<b>" not in table.replace("<b>A", "")


def test_after_twenty_lines_the_rest_is_counted():
    table = html_lines("long", [f"line {number}" for number in range(25)])
    assert table.count("<tr>") == 21
    assert "and 5 more" in table


def test_cells_have_headers_above_and_before():
    table = html_cells(["", "run"], [["steps", "<3"]])
    assert table.count('scope="col"') == 2
    assert '<th scope="row">steps</th><td>&lt;3</td>' in table
