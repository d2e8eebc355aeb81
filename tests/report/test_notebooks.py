"""Plans, receipts, resolutions and results show themselves in a notebook as short tables."""

import json

import wmtp
from wmtp.factory import resolve_models
from wmtp.run_plan.plan import plan_run


def test_each_shows_a_short_table_with_what_counts(rho1_run):
    directory = rho1_run.parents[1]
    config = wmtp.load_config(directory / "config.json")
    recipe = wmtp.load_recipe(directory / "recipe.json")
    resolution, plan = resolve_models(config, recipe), wmtp.plan_load(directory / "base")
    receipt = wmtp.load(directory / "base").receipt
    for shown, fact in (
        (resolution, f"{directory / 'ref'} (reference_model"),
        (plan, "tensors from model.safetensors"),
        (receipt, "verified"),
        (plan_run(config, recipe), "training</th>"),
    ):
        table = shown._repr_html_()
        assert table.startswith("<table>")
        assert fact in table
        assert table.count("<tr>") <= 21
        assert len(table) < 10_000


def test_a_result_of_training_shows_its_losses(rho1_run):
    receipt = wmtp.load(rho1_run / "final").receipt
    result = wmtp.TrainResult(
        run_directory=rho1_run, final_checkpoint=str(rho1_run / "final"), next_token_checkpoint=None, steps=2,
        initial_metrics={"eval_ce_1": 4.0}, final_metrics={"eval_ce_1": 3.5}, best_step=2, explained_variance=None,
        seconds=1.5, receipt=receipt, model=None,
    )  # fmt: skip
    table = result._repr_html_()
    assert "head 1</th>" in table
    assert "validation cross-entropy 4.000 -&gt; 3.500 nats" in table
    assert json.dumps(result.to_dict())
