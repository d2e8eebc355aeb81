"""The report in a real browser: nothing goes wrong in it, the keyboard reaches everything, and it fits a phone."""

from __future__ import annotations

import json
import re

import pytest

from browser import launched_browser
from saved_runs import train_saved
from wmtp.report import XRayOptions, write_report

EVIL = "</script><img src=x onerror=alert(1)>"

# How light the page is, then the contrast of its text and of each token, by the formulas of WCAG 2.
_CONTRAST = """() => {
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const elements = [document.body, ...document.querySelectorAll(".text .token:not(.unlearned)")];
  const styles = elements.map((each) => getComputedStyle(each));
  return [light(styles[0].backgroundColor), ...styles.map((s) => ratio(light(s.color), light(s.backgroundColor)))];
}"""


@pytest.fixture(scope="module")
def browser():
    with launched_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def report(rho1_run, critic_run, tmp_path_factory):
    """Three runs, one of them of a text that an attacker would write."""
    directory = tmp_path_factory.mktemp("evil")
    data = {"train": {"files": ["evil.jsonl"], "format": "text", "max_length": 64}, "validation": None}
    (directory / "evil.jsonl").write_text("".join(json.dumps({"text": f"{EVIL}  # {n}"}) + "\n" for n in range(4)))
    evil = train_saved(directory, "baseline-mtp", data=data)
    return write_report([rho1_run, critic_run, evil], directory / "report.html", xray=XRayOptions(documents=3)).path


@pytest.fixture
def open_page(browser, report):
    """Opens the report in a window; whatever goes wrong in it, or is asked of a network, ends the test."""
    contexts, wrong = [], []

    def opened(width=1280, height=800, **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or wrong.append(request.url))
        page.goto(report.as_uri())
        page.wait_for_selector(".token")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def test_a_click_tells_of_a_token_what_the_algorithm_knows(open_page):
    pane = open_page().locator(".pane").first
    pane.locator(".token[data-place='4']").click()
    told = pane.locator(".about").inner_text()
    assert "token 5 of" in told
    assert "loss of the reference model (nats)" in told
    assert "excess loss of head 1 (nats)" in told
    assert "cut-off (nats)" in told
    assert pane.locator(".about tbody tr").count() >= 5  # two heads, three figures
    assert "after steps 1:" in told


def test_pointing_at_a_token_tells_of_it_too(open_page):
    page = open_page()
    page.locator(".pane").first.locator(".token[data-place='7']").hover()
    assert "token 8 of" in page.locator(".about").first.inner_text()


def test_the_keyboard_reaches_every_control_and_every_token(open_page):
    page = open_page()
    reached = set()
    for _ in range(90):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("(e => e.id || e.className || e.tagName)(document.activeElement)"))
        if page.evaluate(
            "document.activeElement.matches('.pane .token') && document.activeElement.closest('#xray') !== null"
        ):
            break
    assert {
        "A",
        "wide runs",
        "pane-0-run",
        "pane-0-document",
        "pane-0-step",
        "pane-0-close",
        "xray-scale",
        "INPUT",
        "BUTTON",
    } <= reached
    page.keyboard.press("End")
    last = page.locator(".pane").first.locator(".token[data-place]").count()
    assert f"token {last} of" in page.locator(".about").first.inner_text()
    page.keyboard.press("ArrowLeft")
    assert f"token {last - 1} of" in page.locator(".about").first.inner_text()
    assert page.evaluate("document.querySelectorAll('.pane:first-child .token[tabindex=\"0\"]').length") == 1


def test_steps_heads_and_texts_change_what_is_shown(open_page):
    pane = open_page().locator(".pane").first
    labels = "els => els.map(e => e.getAttribute('aria-label')).join()"

    def shown():
        return pane.locator(".text .token").evaluate_all(labels)

    seen = [shown()]
    for change in (
        lambda: pane.locator("input[type=range]").press("ArrowLeft"),
        lambda: pane.locator("input[type=radio]").nth(1).check(),
        lambda: pane.get_by_role("button", name="Next text").click(),
    ):
        change()
        seen.append(shown())
    assert len(set(seen)) == 4
    assert pane.locator("output").inner_text() == "1"
    pane.get_by_label("numbers").check()
    assert pane.locator(".token sub").count() > 5


def test_a_number_stands_before_the_end_of_its_line(open_page):
    pane = open_page().locator(".pane").first
    pane.get_by_label("numbers").check()
    ends = pane.locator(".text .token").evaluate_all(
        "els => els.map(e => e.textContent).filter(t => t.includes('\\n') && /[0-9]/.test(t))"
    )
    assert all(re.search(r"⏎[\d.]+\n", text) for text in ends)


def test_every_run_is_shown_from_the_start_and_each_can_be_closed_and_come_back(open_page):
    page = open_page()
    names = "els => els.map(e => e.textContent)"
    shown = page.locator(".pane h3").evaluate_all(names)
    assert len(shown) == 3
    page.locator("#pane-1-close").press("Enter")
    assert page.locator(".pane h3").evaluate_all(names) == [shown[0], shown[2]]
    more = page.locator("#more")
    assert more.evaluate("e => e === document.activeElement")
    assert f"{shown[1].rpartition(' ')[0]} " in more.inner_text()
    more.press("Enter")
    assert page.locator(".pane h3").evaluate_all(names) == [shown[0], shown[2], shown[1]]
    for number in (0, 2):
        page.locator(f"#pane-{number}-close").click()
    assert page.locator(".pane button:disabled").all_inner_texts() == ["Close"]


def test_a_weight_has_one_shade_in_all_runs_until_each_gets_its_own_scale(open_page):
    page = open_page()
    scales = "els => els.map(e => e.textContent)"

    def shown():
        return {text.split("This")[0] for text in page.locator(".pane > .key").evaluate_all(scales)}

    assert len(shown()) == 1
    page.locator("#xray-scale").select_option("own")
    assert len(shown()) == 3
    assert page.get_by_text("This run's own scale").count() == 3


def test_a_click_on_a_curve_chooses_the_token_there(open_page):
    pane = open_page().locator(".pane").first
    pane.locator(".chart svg").click(position={"x": 150, "y": 100})
    chosen = pane.locator(".text .token.chosen")
    assert chosen.count() == 1
    assert f"token {int(chosen.get_attribute('data-place')) + 1} of" in pane.locator(".about").inner_text()


def test_a_loss_that_nothing_gives_is_a_dash_and_no_point_of_a_curve(open_page):
    pane = open_page().locator(".pane").first
    pane.locator(".token[data-place='0']").click()
    row = pane.locator(".about tr", has_text="loss of the reference model")
    assert row.locator("td").inner_text() == "—"
    pane.get_by_label("Curve along the text").select_option("losses (nats)")
    pane.get_by_text("The numbers").click()
    assert pane.locator("figure details tbody th").first.inner_text() == "2"


def test_without_scripts_it_says_first_what_is_left_out_and_shows_the_rest(browser, report):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator("body > *").nth(1).inner_text().startswith("Tokens and curves are drawn by a script")
    assert page.locator("h2:visible").all_inner_texts() == [
        "What was run", "How tokens are weighed", "Details of each run",
    ]  # fmt: skip
    context.close()


def test_heavier_tokens_have_a_thicker_line_and_another_shade(open_page):
    tokens = open_page().locator(".pane").first.locator(".text .token:not(.unlearned)")
    found = tokens.evaluate_all(
        "els => els.map(e => [+e.getAttribute('aria-label').split('weight ')[1], parseFloat(e.style.borderBottomWidth),"
        " e.style.backgroundColor])"
    )
    heavy, light = ([each for each in found if (each[0] > 0) is is_heavy] for is_heavy in (True, False))
    assert min(width for _, width, _ in heavy) > max(width for _, width, _ in light)
    assert not {shade for *_, shade in heavy} & {shade for *_, shade in light}


def test_the_values_of_a_critic_are_a_curve_along_the_text(open_page):
    pane = open_page().locator(".pane").nth(1)
    assert pane.locator("figure .chart svg path").count() > 3
    assert pane.locator(".series").inner_text().count("deviations") == 4
    pane.get_by_text("The numbers").click()
    headers = pane.locator("figure details th[scope=col]").all_inner_texts()
    assert headers[1:] == [
        "advantage A (deviations)",
        "Q, value of the token (deviations)",
        "V, value before the token (deviations)",
        "R, reward of the text (deviations)",
    ]


def test_a_text_that_an_attacker_wrote_is_shown_and_nothing_of_it_runs(open_page):
    page = open_page()
    page.locator("#pane-0-run").select_option(index=2)
    assert EVIL in page.locator(".pane .text").first.inner_text().replace("·", " ")
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it_in_either_scheme(open_page, scheme):
    page = open_page(color_scheme=scheme)
    contrast = page.evaluate(_CONTRAST)
    assert (contrast[0] < 0.1) is (scheme == "dark")
    assert min(contrast[1:]) >= 4.5


@pytest.mark.parametrize(("width", "height"), [(360, 640), (390, 844), (1400, 900)])
def test_nothing_is_wider_than_the_window_not_even_a_phones(open_page, width, height):
    page = open_page(width, height)
    page.locator(".token[data-place='3']").first.click()
    for each in page.locator("details > summary").all():
        each.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_on_paper_it_is_light_whatever_the_screen_is(open_page):
    page = open_page(color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".controls, button").first.is_visible()
    assert page.locator("details:not([open])").evaluate_all("els => els.map(e => e.className)") == [
        *["many"] * page.locator("details.many").count(),
        "licences",
    ]
    assert page.locator(".state").first.inner_text().startswith("Text 1 of 3")
    assert len(page.pdf()) > 10_000
    page.emulate_media(media="screen")
    assert page.locator("details[open]").count() == 0
