"""What makes runs differ besides their algorithm is named, with the mark of its row, and nothing else is."""

from __future__ import annotations

import json
import shutil

import pytest

from wmtp.report import write_report
from wmtp.report.rules import prior_factors, prior_in_words, rule
from wmtp.report.saved_run import SavedRun
from wmtp.report.settings import differing, settings, warning


@pytest.fixture
def changed(rho1_run, tmp_path):
    """The run once more, under another name and with other values in its recipe."""

    def change(**values):
        shutil.copytree(rho1_run, tmp_path / "other", dirs_exist_ok=True)
        path = tmp_path / "other" / "run.json"
        document = json.loads(path.read_text())
        for name, value in values.items():
            section, _, key = name.partition("_")
            document["recipe"][section][key] = value
        path.write_text(json.dumps(document))
        return SavedRun.read(tmp_path / "other")

    return change


@pytest.mark.parametrize(
    ("change", "name", "shown"),
    [
        ({"train_learning_rate": 0.5}, "learning rate", "0.5 at most, "),
        ({"loss_head_prior": {"decay": 0.5}}, "head prior", "{decay: 0.5}"),
        ({"run_seed": 7}, "seed", "7"),
        ({"data_validation": {"files": ["/x/held.txt"]}}, "held-out data", "1 file (held.txt), fingerprint "),
        ({"data_train": {"files": ["/x/a.txt", "b", "c", "d"]}}, "training data", "4 files (a.txt, b, c, …), "),
    ],
)
def test_runs_that_differ_in_more_than_the_algorithm_are_not_to_be_compared(rho1_run, changed, change, name, shown):
    runs = [SavedRun.read(rho1_run), changed(**change)]
    assert differing(runs) == [name]
    assert settings(runs[1])[name].startswith(shown)
    assert f"they differ in {name} (rows with ≠)" in warning(runs)


def test_runs_that_differ_in_nothing_can_be_compared_and_one_alone_has_no_warning(rho1_run, changed):
    runs = [SavedRun.read(rho1_run), changed(rho1_keep_ratio=0.9)]
    assert differing(runs) == []
    assert "their losses can be compared" in warning(runs)
    assert warning(runs[:1]) == ""


def test_a_page_warns_where_the_losses_are_and_where_the_curves_are(rho1_run, changed, tmp_path):
    changed(train_learning_rate=0.5)
    text = write_report([rho1_run, tmp_path / "other"], tmp_path / "r.html").path.read_text()
    assert '<th scope="row">≠ learning rate</th>' in text
    assert '<th scope="row">seed</th>' in text
    assert text.count('<p class="warn">Do not compare') == 2
    assert "Do not compare" not in write_report([rho1_run], tmp_path / "r.html").path.read_text()


def test_a_prior_is_given_for_each_head_and_in_words(changed):
    run = changed(loss_head_prior={"decay": 0.25})
    assert prior_factors(run) == [1.6, 0.4]
    assert "{decay: 0.25}: head 1 1.6, head 2 0.4." in prior_in_words(run)
    assert prior_factors(changed(loss_head_prior=[1, 3])) == [0.5, 1.5]
    assert prior_in_words(changed(loss_head_prior="uniform")).startswith("All heads count the same")


@pytest.mark.parametrize("prior", [{"decay": "x"}, [], [0, 0], "evil", 3, None])
def test_a_prior_that_no_recipe_could_have_is_not_known(changed, prior):
    assert prior_factors(changed(loss_head_prior=prior)) == []


def test_a_rule_has_the_settings_of_the_run_and_an_unknown_algorithm_shows_its_own(rho1_run, changed):
    assert "keep_ratio = 0.5" in rule(SavedRun.read(rho1_run))
    unknown = rule(changed(train_algo="other"))
    assert unknown.startswith("How it weighs tokens its algorithm does not say")
    assert "keep_ratio: 0.5" in unknown
