"""Work that runs ahead is bounded, in order, and given up when nobody wants it any more."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from wmtp.storage import order
from wmtp.storage.order import Waited, in_order


def test_answers_come_in_the_order_of_the_items_whoever_is_first():
    second_done = threading.Event()

    def act(item: int) -> int:
        if item == 0:
            assert second_done.wait(300)
        elif item == 1:
            second_done.set()
        return item

    with ThreadPoolExecutor(2) as pool:
        assert list(in_order(pool, act, range(5), ahead=2)) == [0, 1, 2, 3, 4]


def test_no_more_items_are_taken_than_may_be_ahead():
    taken: list[int] = []

    def items():
        for item in range(100):
            taken.append(item)
            yield item

    with ThreadPoolExecutor(2) as pool:
        answers = in_order(pool, str, items(), ahead=3)
        assert next(answers) == "0"
        assert taken == [0, 1, 2]
        answers.close()


def test_a_failure_is_raised_in_its_turn_and_what_has_not_begun_is_given_up():
    begun: list[int] = []

    def act(item: int) -> int:
        begun.append(item)
        if item == 1:
            raise ValueError(item)
        return item

    with ThreadPoolExecutor(1) as pool:
        answers = in_order(pool, act, range(50), ahead=2)
        assert next(answers) == 0
        with pytest.raises(ValueError, match="1"):
            next(answers)
    assert len(begun) < 5


def test_waiting_is_told_apart_from_work(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(order.time, "monotonic", lambda: now[0])

    def slow():
        for _ in range(3):
            now[0] += 2.0
            yield "item"

    waited = Waited(slow())
    assert not waited.mostly
    next(waited)
    assert waited.mostly
    now[0] += 5.0  # the user's own work
    next(waited)
    assert not waited.mostly
