"""Oracles of native heads: they hold on tiny models of each family, and fail when what they guard is broken."""

import pytest
import torch

from native_models import FAMILIES, native
from subjects import make_subject
from wmtp.models.native import NativeMTPForCausalLM
from wmtp.models.targets import Rows
from wmtp.selftest import native_oracles
from wmtp.selftest.run import ORACLES

WITH_MODULES = {"mellum": {}, "deepseek": {"first_k_dense_replace": 1, "num_mtp_layers": 1}}


def outcomes(findings):
    return [(finding.compared, finding.outcome) for finding in findings]


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_read_the_tokens_that_a_server_knows(family, tmp_path):
    found = outcomes(native_oracles.native_heads_read_what_is_known(make_subject(tmp_path, native(family))))
    assert len(found) == 3 + 2 * (family == "inkling")
    assert {outcome for _, outcome in found} == {"ok"}


@pytest.mark.parametrize(("off", "failed"), [(1, "a document, and its beginning"), (-1, "reads the token before")])
def test_a_head_that_reads_another_token_is_found(off, failed, tmp_path, monkeypatch):
    following = Rows.following
    monkeypatch.setattr(Rows, "following", lambda rows, ids, k: following(rows, ids, k + off))
    found = outcomes(native_oracles.native_heads_read_what_is_known(make_subject(tmp_path, native("mimo"))))
    assert (f"head 2: {failed}", "FAIL") in found


@pytest.mark.parametrize("family", WITH_MODULES)
def test_modules_are_held_to_those_of_transformers(family, tmp_path):
    subject = make_subject(tmp_path, native(family, config=WITH_MODULES[family]))
    found = native_oracles.native_modules_are_those_of_transformers(subject)
    assert outcomes(found) == [("head 2: logits of MtpModel", "ok")]


def test_the_wrong_order_of_inputs_is_found(tmp_path):
    subject = make_subject(tmp_path, native("mellum", concatenation="hidden_embedding"))
    found = native_oracles.native_modules_are_those_of_transformers(subject)
    assert outcomes(found) == [("head 2: logits of MtpModel", "FAIL")]


def test_where_transformers_has_no_such_modules_that_is_said(tmp_path):
    (found,) = native_oracles.native_modules_are_those_of_transformers(make_subject(tmp_path, native("mimo")))
    assert (found.outcome, found.note) == ("-", "transformers has no such modules for this model")


def test_every_oracle_holds_on_native_heads_and_changes_no_parameter(tmp_path):
    model = native("mellum")
    before = [parameter.detach().clone() for parameter in model.parameters()]
    subject = make_subject(tmp_path, model)
    found = [finding for oracle in ORACLES for finding in oracle(subject)]
    assert isinstance(subject.model, NativeMTPForCausalLM)
    assert [finding for finding in found if finding.outcome == "FAIL"] == []
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
