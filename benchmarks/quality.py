"""Do the weights of rho1-wmtp and critic-wmtp do what they are for? Three experiments on very small models.

    python benchmarks/quality.py                    # an hour or two on 2 cores, prints markdown
    python benchmarks/quality.py --short            # one seed, fewer arms and steps: minutes
    python benchmarks/quality.py --only decisions   # one of noise, reward, decisions; may be given again
    python benchmarks/quality.py --tables           # of the results that are there, without running anything

quality_noise.py, quality_reward.py and quality_decisions.py say what is run, and what was fixed before. Every result is
kept when it is there (`runs/quality/<experiment>/results.jsonl`), so that a run that was stopped goes on from where it
was; the end writes `quality.json`.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from quality_plan import Experiment, Job, experiments, versions
from quality_report import Record
from quality_tables import markdown

SUMMARY = "quality.json"


def run_timed(work: tuple[Experiment, Job]) -> Record:
    """Do one job in a worker process; `seconds` are of processor time, as machines are shared."""
    experiment, job = work
    started = time.process_time()
    found = experiment.run(job)
    return asdict(job) | found | {"seconds": round(time.process_time() - started, 1)}


def prepare_worker() -> None:
    """Keep a worker to one core, and to itself."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)


def run_all(chosen: Sequence[Experiment], workers: int) -> list[Record]:
    """Do all jobs that have no result yet; returns all results."""
    records = [record for experiment in chosen for record in experiment.read()]
    by_name = {experiment.name: experiment for experiment in chosen}
    with multiprocessing.get_context("spawn").Pool(workers, prepare_worker) as pool:
        for first in (True, False):
            jobs = [job for experiment in chosen for job in (experiment.first() if first else experiment.then())]
            work = [(by_name[job.experiment], job) for job in jobs if not _is_done(job, records)]
            for record in pool.imap_unordered(run_timed, work):
                records.append(record)
                by_name[record["experiment"]].keep(record)
                print(json.dumps(record), file=sys.stderr, flush=True)
    return records


def _is_done(job: Job, records: Sequence[Record]) -> bool:
    return any(asdict(job).items() <= record.items() for record in records)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="one seed, fewer steps and arms")
    parser.add_argument("--only", action="append", choices=("noise", "reward", "decisions"), help="default: all three")
    parser.add_argument("--tables", action="store_true", help="print tables of the results that are there")
    parser.add_argument("--results", type=Path, metavar="DIR", help="default: runs/quality, or runs/quality-short")
    parser.add_argument("--workers", type=int, default=2, help="processes of one core each (2)")
    arguments = parser.parse_args(argv)
    directory = arguments.results or Path("runs") / ("quality-short" if arguments.short else "quality")
    chosen = [
        experiment
        for experiment in experiments(directory, short=arguments.short)
        if experiment.name in (arguments.only or experiment.name)
    ]
    if arguments.tables:
        records = [record for experiment in chosen for record in experiment.read()]
    else:
        records = run_all(chosen, arguments.workers)
        settings = {experiment.name: experiment.settings() for experiment in chosen}
        summary = json.dumps({"settings": settings, "records": records}, indent=2)
        (directory / SUMMARY).write_text(summary + "\n", encoding="utf-8")
    print(f"{versions()}\n\n{markdown(records)}")


if __name__ == "__main__":
    main()
