"""Every case of the corpus, each loaded in a process of its own."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import Queue

import pytest

from hostile.case import KINDS, Case
from hostile.corpus import CASES
from hostile.runner import Outcome, Zygote, faults_of, run_case
from hostile.tree import remove


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Outcome]]]:
    """What comes of every case that was picked: two processes run ahead of the tests that look at it."""
    params = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    cases = [found["case"] for found in params if isinstance(found.get("case"), Case)]
    zygotes: Queue[Zygote] = Queue()
    with ExitStack() as stack:
        for _ in range(2):
            zygotes.put(stack.enter_context(Zygote()))
        pool = stack.enter_context(ThreadPoolExecutor(2))
        yield {case.name: pool.submit(_run, case, zygotes) for case in cases}
        pool.shutdown(cancel_futures=True)


def _run(case: Case, zygotes: Queue[Zygote]) -> Outcome:
    # Not tmp_path: some cases are deeper, and some larger, than what should be kept or can be deleted by others.
    work, zygote = Path(tempfile.mkdtemp()).resolve(), zygotes.get()
    try:
        return run_case(zygote, case, work)
    finally:
        zygotes.put(zygote)
        remove(work)


@pytest.mark.parametrize("case", CASES, ids=[f"{case.kind}-{case.name}" for case in CASES])
def test_a_case_of_the_corpus_comes_out_as_it_must(case: Case, outcomes: dict[str, Future[Outcome]]):
    assert faults_of(case, outcomes[case.name].result()) == []


def test_the_corpus_has_two_hundred_hostile_cases_of_every_kind_and_a_dozen_good_ones():
    kinds = Counter(case.kind for case in CASES)
    assert set(kinds) == set(KINDS)
    assert min(kinds.values()) >= 12
    assert sum(not case.is_good for case in CASES) >= 200


def test_no_two_cases_have_one_name():
    twice = [name for name, count in Counter(case.name for case in CASES).items() if count > 1]
    assert twice == []


def test_every_hostile_case_says_which_file_or_field_its_refusal_names():
    assert [case.name for case in CASES if not case.is_good and not case.naming] == []
