"""Run jobs in vLLM on the CPU, one engine after the other in one process; belongs to the server's environment.

    ENV/bin/python vllm_engine.py JOBS.json ANSWERS.jsonl

An answer is written as soon as it is there: when vLLM refuses a model and this process ends, those before it are kept.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs import Answer, Job

# Before vllm is imported. One process: vLLM otherwise starts two more, each of which imports torch and vllm.
SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    "GLOO_SOCKET_IFNAME": "lo",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_COUNTERS = "vllm:spec_decode_"


def serve(job: Job) -> Answer:
    """Start an engine, generate, and read its counters of speculation."""
    from vllm import LLM, SamplingParams

    longest = max(map(len, job.prompts)) + job.num_new_tokens
    extra = {"speculative_config": job.speculative} if job.speculative else {}
    engine = LLM(
        model=job.target,
        dtype=job.dtype,
        enforce_eager=True,
        max_model_len=longest + 16,  # near its end a server drafts less
        max_num_seqs=8,
        enable_prefix_caching=False,
        disable_log_stats=False,
        **extra,
        **job.options,
    )
    sampling = SamplingParams(temperature=0, max_tokens=job.num_new_tokens, ignore_eos=True, detokenize=False)
    prompts = [{"prompt_token_ids": prompt} for prompt in job.prompts]
    found = engine.generate(prompts, sampling, use_tqdm=False)
    outputs = [list(each.outputs[0].token_ids) for each in found]
    counters = _counters(engine)
    engine.llm_engine.engine_core.shutdown()
    return Answer(
        job.name,
        outputs,
        num_rounds=counters.get("num_drafts", 0),
        num_drafted=counters.get("num_draft_tokens", 0),
        accepted=counters.get("num_accepted_tokens_per_pos", []),
    )


def _counters(engine: Any) -> dict[str, Any]:
    # vLLM clears its registry of metrics when an engine starts: these are of this engine alone.
    metrics = [metric for metric in engine.get_metrics() if metric.name.startswith(_COUNTERS)]
    return {
        metric.name.removeprefix(_COUNTERS): metric.values if hasattr(metric, "values") else int(metric.value)
        for metric in metrics
    }


def _forget_engine() -> None:
    """Remove what an engine leaves behind in the process, so that the next one can start."""
    from vllm.distributed import cleanup_dist_env_and_memory

    gc.collect()
    cleanup_dist_env_and_memory()


def main() -> None:
    """Answer every job of a file."""
    os.environ.update(SETTINGS)
    jobs, answers = map(Path, sys.argv[1:])
    for job in json.loads(jobs.read_text()):
        answer = serve(Job(**job))
        with answers.open("a") as file:
            file.write(json.dumps(asdict(answer)) + "\n")
        _forget_engine()
    sys.stdout.flush()
    os._exit(0)  # vLLM's background threads are not waited for


if __name__ == "__main__":
    main()
