"""A table of the page as CSV and LaTeX."""

import csv
import io
import re

from hsw.analysis.estimates import Estimate
from hsw.analysis.page.grid import Cell, Grid, estimate_cell, latex_text, number_cell, time_cell

HOSTILE = r'=1+1 & "a",b $x$ #1 50% a_b {c} \d ^ ~ <e>|'


def grid():
    rows = [
        [Cell(HOSTILE), Cell("=cmd()"), estimate_cell(Estimate(-1.23456, -2.0, 0.5)), time_cell(7300.5)],
        [Cell("b"), Cell("-"), estimate_cell(None), number_cell(None)],
        [Cell("c"), Cell("x"), estimate_cell(Estimate(3.0, None, None)), time_cell(1.0)],
    ]
    return Grid("name", "caption", ["group", "@what", "mean", "time"], rows, frozenset({0, 1}))


def test_csv_has_the_numbers_themselves_and_no_formula():
    head, *rows = csv.reader(io.StringIO(grid().csv))
    assert head == ["group", "'@what", "mean", "mean low", "mean high", "time"]
    assert rows[0] == [f"'{HOSTILE}", "'=cmd()", "-1.23456", "-2.0", "0.5", "7300.5"]
    assert rows[1] == ["b", "", "", "", "", ""]
    assert rows[2] == ["c", "x", "3.0", "", "", "1.0"]


def test_latex_prints_every_character_as_it_is():
    text = grid().latex
    assert text.startswith("\\begin{tabular}{llrr}\n\\toprule\ngroup & @what & mean & time \\\\\n\\midrule\n")
    body = text.split("\\midrule\n")[1].split("\\bottomrule")[0]
    # Without what is escaped no active character is left but the separators of three columns in three rows.
    plain = re.sub(r"\\(textbackslash|textasciicircum|textasciitilde|textless|textgreater|textbar)\{\}", "", body)
    plain = re.sub(r"\\[{}$&#_%]", "", plain)
    assert plain.count("&") == 9
    assert plain.count("\\\\") == 3
    assert not re.search(r"[{}$#_%^~<>|]", plain)
    assert latex_text("a\nb\x1b") == "a b "


def test_latex_compiles_to_the_same_words_back():
    back = latex_text(HOSTILE)
    for name, char in {
        "textasciicircum": "^", "textasciitilde": "~", "textless": "<", "textgreater": ">", "textbar": "|",
    }.items():  # fmt: skip
        back = back.replace(f"\\{name}{{}}", char)
    back = back.replace("\\textbackslash{}", "\0")
    assert re.sub(r"\\([{}$&#_%])", r"\1", back).replace("\0", "\\") == HOSTILE
