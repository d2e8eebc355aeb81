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
from wmtp.report.saved_run import SavedRun
from wmtp.report.texts import visible

# d3 and Observable Plot as npm has them (ISC); what versions, docs/decisions/0022 says.
_SCRIPTS = ("d3.min.js", "plot.umd.min.js", "page.js")
_LICENCES = ("d3.LICENSE", "plot.LICENSE")
# Within a script element only this could end it, and in JSON it stands for itself either way.
_IN_SCRIPT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_XRAY = """<h2 id="x-ray">Token X-ray</h2>
<p>Each token is shaded by the weight with which the algorithm learns it: the darker (in dark mode the lighter) and the
thicker the line below it, the more it counts. Weights are those of one head at a time: head k predicts the token that
is k ahead. 1 is the mean over all pairs of token and head.</p>
<div id="xray"></div>"""
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
</head>
<body>
<h1>{title}</h1>
<nav aria-label="Parts"><a href="#runs">What was run</a> <a href="#curve">Curves</a> <a href="#weight">Weights</a>
{link}<a href="#detail">Details</a></nav>
<main>
<h2 id="runs">What was run</h2>
<div class="wide" tabindex="0" role="region" aria-label="Runs side by side">{overview}</div>
{xray}
<h2 id="curve">Curves of each head</h2>
<div id="curves"></div>
<h2 id="weight">Weights over the run</h2>
<div id="weights"></div>
<h2 id="detail">Details of each run</h2>
{details}
</main>
<noscript><p>Curves and tokens are drawn by a script within this file, which this browser does not run.</p></noscript>
<script type="application/json" id="data">{data}</script>
{scripts}
<details><summary>Licences of what draws the figures</summary><pre tabindex="0">{licences}</pre></details>
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
    return _PAGE.format(
        policy=_policy(scripts),
        version=escape(version),
        title=escape(f"Training report: {', '.join(visible(run.name) for run in runs)}"),
        style=_asset("page.css"),
        link='<a href="#x-ray">Tokens</a> ' if with_xray else "",
        overview=overview(runs),
        xray=_XRAY if with_xray else "",
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
