"""The page: one HTML file that needs nothing else, and in which nothing runs but what wmtp has put there."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from wmtp.report.details import details
from wmtp.report.facts import overview
from wmtp.report.rules import rules
from wmtp.report.saved_run import SavedRun
from wmtp.report.settings import differing, warning
from wmtp.report.texts import visible

# d3 and Observable Plot as npm has them (ISC); what versions, docs/decisions/0022 says.
_SCRIPTS = ("d3.min.js", "plot.umd.min.js", "kit.js", "tokens.js", "page.js")
_LICENCES = ("d3.LICENSE", "plot.LICENSE")
# Within a script element only this could end it, and in JSON it stands for itself either way.
_IN_SCRIPT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_XRAY = """<section class="drawn"><h2 id="x-ray">Tokens</h2>
<p>Each token is shaded by the weight with which one head learns it: the darker (in dark mode the lighter) and the
thicker the line below it, the more it counts. Tokens are words or pieces of words; ⏎ is the end of a line.</p>
<div id="xray"></div></section>"""
_CURVES = """<section class="drawn"><h2 id="curve">Curves of each head</h2>
{warning}<p>Held-out loss is measured before the first step and then every train.eval_steps, training loss every
train.logging_steps; tokens are shown at steps that were saved.</p>
<div id="curves"></div></section>
<section class="drawn"><h2 id="weight">Weights over the run</h2>
<p>Of training batches, as logged: weights times the prior of their head. Those that tokens show above are of other
texts, at saved steps, and without the prior; so the largest ones differ.</p>
<div id="weights"></div></section>"""
_UNLIKE = """<p class="warn">Do not compare the curves of these runs: <a href="#runs">they differ in more than the
algorithm</a>.</p>
"""
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="wmtp {version}">
<title>{title}</title>
<style>
{style}</style>
<noscript><style>.drawn, .to-drawn {{ display: none; }}</style></noscript>
</head>
<body>
<h1>{title}</h1>
<noscript><p class="warn">Tokens and curves are drawn by a script within this file, which this browser does not run:
they are left out. All that is in words is here.</p></noscript>
<nav aria-label="Parts"><a href="#runs">What was run</a> <a href="#rules">How tokens are weighed</a>
<span class="to-drawn">{link}<a href="#curve">Curves</a> <a href="#weight">Weights</a></span>
<a href="#detail">Details</a></nav>
<main>
<h2 id="runs">What was run</h2>
{warning}<p class="narrow">The table is wider than the window: scroll it sideways for further runs.</p>
<div class="wide runs" tabindex="0" role="region" aria-label="Runs side by side">{overview}</div>
<h2 id="rules">How tokens are weighed</h2>
{rules}
{words}
{xray}
{curves}
<h2 id="detail">Details of each run</h2>
{details}
</main>
<script type="application/json" id="data">{data}</script>
{scripts}
<details class="licences"><summary>Licences of what draws the figures</summary>
<pre tabindex="0">{licences}</pre></details>
</body>
</html>
"""


def page(runs: Sequence[SavedRun], data: Sequence[Mapping[str, Any]], *, version: str, with_xray: bool) -> str:
    """Return the page.

    Args:
        runs: What was run.
        data: Of each run what is drawn: its log, and its X-ray where there is one.
        version: Of wmtp.
        with_xray: Whether there is a part for tokens.
    """
    scripts = [_asset(name) for name in _SCRIPTS]
    said = f'<p class="warn">{escape(warning(runs))}</p>\n' if warning(runs) else ""
    return _PAGE.format(
        policy=_policy(scripts),
        version=escape(version),
        title=escape(f"Training report: {', '.join(visible(run.name) for run in runs)}"),
        style=_asset("page.css"),
        link='<a href="#x-ray">Tokens</a> ' if with_xray else "",
        warning=said,
        overview=overview(runs),
        rules=rules(runs),
        words=_asset("words.html"),
        xray=_XRAY if with_xray else "",
        curves=_CURVES.format(warning=_UNLIKE if differing(runs) else ""),
        details="".join(details(run) for run in runs),
        data=as_script({"runs": data}),
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
        licences=escape("\n\n".join(f"{name}\n{_asset(name)}" for name in _LICENCES)),
    )


def as_script(value: object) -> str:
    """Return JSON that may stand within a script element: nothing in it ends one, or begins one or a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character, escaped in _IN_SCRIPT.items():
        text = text.replace(character, escaped)
    return text


def _policy(scripts: Sequence[str]) -> str:
    """Return what a browser lets the page do: run these scripts, use its own styles, and ask nobody for anything."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def _asset(name: str) -> str:
    return (files("wmtp.report") / "assets" / name).read_text(encoding="utf-8")
