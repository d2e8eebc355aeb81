"""Short runs of ways to weigh tokens, from what a demo has made before."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from wmtp.demo.functions import REWARD_COLUMN, write_functions
from wmtp.demo.setting import Tell, recipe_path, save_steps
from wmtp.demo.zoo import stdlib_sources
from wmtp.errors import TrainingError
from wmtp.factory import ComponentFactory
from wmtp.loaders.standardized import load
from wmtp.publishing.exports.next_token import export_module
from wmtp.publishing.parent import copied_files, parent_record
from wmtp.scoring.scores import SCORES_DIRECTORY
from wmtp.scoring.store import FACTS_FILE
from wmtp.settings.config import Config, load_config
from wmtp.settings.recipe import Recipe, load_recipe, split_overrides
from wmtp.training.run import TrainResult, train

_NUM_FUNCTIONS = 1200
# The zoo's fresh trunk is taken. On the baseline's a value head would explain 0.06 after 300 steps and nothing after
# 30: it has learned what comes next, and lets go of a docstring that it has passed.
_VALUE_STEPS = 80
# A quarter of the files is more than short runs read.
EVERY = 4
BATCH = "train.per_device_train_batch_size=16"
# At the baseline's own rate the trunk would run away from the value heads.
_CRITIC_RATES = ("train.learning_rate=5.0e-4", "critic.value_learning_rate=3.0e-3")


@dataclass(frozen=True)
class Mode:
    """One way to weigh tokens.

    Attributes:
        algorithm: The recipe of the demo that it starts from.
        name: What it is called here, and in the names of its runs.
        section: What it says in the algorithm's section.
    """

    algorithm: str
    name: str
    section: tuple[str, ...]


MODES = (
    Mode("rho1-wmtp", "token_skip", ("rho1.selection_mode=token_skip",)),
    Mode("rho1-wmtp", "weighted", ("rho1.selection_mode=weighted",)),
    Mode("rho1-wmtp", "horizon", ("rho1.selection_mode=horizon",)),
    Mode("critic-wmtp", "token", ("critic.credit=token",)),
    Mode("critic-wmtp", "horizon", ("critic.normalize=horizon",)),
    Mode("critic-wmtp", "return", ("critic.credit=return",)),
)


def run_modes(
    modes: Sequence[Mode], directory: Path, baseline: TrainResult, tell: Tell, *, max_steps: int, logging_steps: int
) -> list[TrainResult]:
    """Train each mode for some steps, and load what it made again.

    The zoo's fresh model is trained. The reference of rho1 is the next-token model of the baseline run; the reward of
    critic is whether a function has a docstring.

    Args:
        modes: Which ones, in order.
        directory: Of the demo, with its zoo and recipes.
        baseline: The run before.
        tell: Called with each line for the person who watches.
        max_steps: Optimizer steps of each mode.
        logging_steps: So many steps make a line.

    Raises:
        TrainingError: If a result is not what the demo promises.
    """
    reference = write_reference(baseline)
    tell(f"reference for rho1: the next-token head of that run, in {reference}")
    functions = directory / "functions.jsonl"
    number = write_functions(functions, stdlib_sources(), at_most=_NUM_FUNCTIONS)
    tell(f"reward for critic: {number} functions in {functions}; '{REWARD_COLUMN}' is 1 for half of them, else 0")
    files = json.dumps([str(path) for path in stdlib_sources()[::EVERY]])
    inputs = {
        "rho1-wmtp": ["paths.models.base=./llama-mtp", f"paths.models.ref={reference}", f"data.train.files={files}"],
        "critic-wmtp": [
            "paths.models.base=./llama-mtp",
            f"data.train.files=[{json.dumps(str(functions.resolve()))}]",
            f"critic.reward_column={REWARD_COLUMN}",
            f"critic.stage1_steps={_VALUE_STEPS}",
            *_CRITIC_RATES,
        ],
    }
    length = [f"train.{key}={max_steps}" for key in ("max_steps", "eval_steps")]
    length += [f"train.save_steps={save_steps(max_steps)}", f"train.logging_steps={min(logging_steps, max_steps)}"]
    return [_run_mode(directory, mode, [*length, *inputs[mode.algorithm]], baseline, tell) for mode in modes]


def write_reference(baseline: TrainResult) -> Path:
    """Write the next-token model of a run beside its checkpoints, declared as a reference model for rho1-wmtp.

    This is `wmtp export`, and then two lines of metadata.json changed: what an export may serve as is for people to
    say, not for wmtp to guess.
    """
    destination = baseline.run_directory / "reference"
    trained = load(baseline.final_checkpoint)
    role = {"wmtp_type": "reference_model", "algorithm_compatibility": ["rho1-wmtp"]}
    provenance = {"made_by": "demo", "parent": parent_record(trained)}
    return export_module(
        trained.model,
        destination,
        config=trained.checkpoint.config,
        metadata=trained.metadata.model_copy(update=role | {"provenance": provenance}),
        extra_files=copied_files(trained),
    )


def _run_mode(directory: Path, mode: Mode, inputs: Sequence[str], baseline: TrainResult, tell: Tell) -> TrainResult:
    tell(f"-- {mode.algorithm}, {mode.name}")
    run = f"{baseline.run_directory.name}-{mode.algorithm.partition('-')[0]}-{mode.name}"
    changes = [f"run.name={run}", BATCH, *inputs, *mode.section]
    for_config, for_recipe = split_overrides(changes)
    config = load_config(directory / "config.yaml", for_config)
    recipe = load_recipe(recipe_path(directory, mode.algorithm), for_recipe)
    result = train(config, recipe)
    for line in _scored(config, recipe):
        tell(f"  scored: {line}")
    for line in _learned(result):
        tell(f"  {line}")
    _check_reloaded(result, lambda line: tell(f"  {line}"))
    return result


def _scored(config: Config, recipe: Recipe) -> Iterator[str]:
    """Yield what each score of a run is, and whose: of kept ones by what stands beside them."""
    scores = Path(config.paths.output_dir) / SCORES_DIRECTORY
    for score in ComponentFactory.create_algorithm(recipe).scores:
        if score.column is not None:
            yield f"nothing; {score.name} is '{score.column}' of each function"
        for path in sorted(scores.glob(f"{score.what}-*/{FACTS_FILE}")):
            facts = json.loads(path.read_text())
            if facts["uri"] in getattr(config.paths.models, score.role or "base"):
                yield f"{facts['figures']:,} tokens by {facts['uri']}, kept in {path.parent}"


def _learned(result: TrainResult) -> Iterator[str]:
    before, after = result.initial_metrics, result.final_metrics
    heads = [f"{before[name]:.3f} -> {after[name]:.3f}" for name in before if re.fullmatch(r"eval_ce_\d+", name)]
    yield f"{result.steps} steps in {result.seconds:.0f} s; validation cross-entropy of each head: {', '.join(heads)}"
    if result.explained_variance is not None:
        shares = " ".join(f"{share:.2f}" for share in result.explained_variance)
        yield f"value heads explain of the reward, from begin to end of functions: {shares}"
    # The last ones logged: in the first steps figures over past steps are not there yet.
    kept, effective = _logged(result, "weight_share_kept")[-1], _logged(result, "weight_effective_share")[-1]
    yield f"share of (token, head) pairs kept: {kept:.2f}; effective sample size: {effective:.2f} of them"
    if after["eval_ce_1"] >= before["eval_ce_1"]:
        raise TrainingError(
            f"{result.run_directory}: the next-token cross-entropy has not fallen: {heads[0]}",
            hint="the demo promises that it does: please report this with what 'wmtp env' prints",
        )


def _check_reloaded(result: TrainResult, tell: Tell) -> None:
    reloaded = load(result.final_checkpoint)
    pairs = zip(result.model.state_dict().values(), reloaded.model.state_dict().values(), strict=True)
    if not all(torch.equal(a, b) for a, b in pairs):
        raise TrainingError(
            f"{result.final_checkpoint}: differs from the model in memory",
            hint="this is a fault in wmtp: please report it with what 'wmtp env' prints",
        )
    tell(f"{result.final_checkpoint} loads again, equal to the model in memory")


def _logged(result: TrainResult, name: str) -> list[float]:
    """Return what the run has written for TensorBoard under a name, in the order of its steps."""
    found: list[float] = []
    for path in sorted(result.run_directory.rglob("events.out.tfevents.*")):
        written = EventAccumulator(str(path)).Reload()
        if f"train/{name}" in written.Tags()["scalars"]:
            found += [event.value for event in written.Scalars(f"train/{name}")]
    return found
