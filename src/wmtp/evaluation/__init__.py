"""What models are worth: figures of their heads on text, programs run against their tests, rewards, pass@k.

Names are resolved on first use, so that the process that runs a program imports nothing that it does not need.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Evaluation": "wmtp.evaluation.results",
    "EvaluationOptions": "wmtp.evaluation.options",
    "TaskEvaluation": "wmtp.evaluation.task_results",
    "TaskOptions": "wmtp.evaluation.solving",
    "evaluate": "wmtp.evaluation.texts",
    "evaluate_tasks": "wmtp.evaluation.solving",
    "Confinement": "wmtp.evaluation.outcomes",
    "Outcome": "wmtp.evaluation.outcomes",
    "Program": "wmtp.evaluation.tasks",
    "RunLimits": "wmtp.evaluation.execution",
    "Task": "wmtp.evaluation.tasks",
    "pass_at_k": "wmtp.evaluation.passing",
    "read_tasks": "wmtp.evaluation.tasks",
    "reward_completions": "wmtp.evaluation.rewards",
    "run_tests": "wmtp.evaluation.execution",
    "write_rewards": "wmtp.evaluation.rewards",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'wmtp.evaluation' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
