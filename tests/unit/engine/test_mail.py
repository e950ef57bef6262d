"""Signals that are kept for a step that does not wait for them yet: in order, once each, for so long."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell.engine import mail
from stepwell.engine.inputs import SignalSent
from stepwell.engine.model import RunStatus, StepStatus
from stepwell.errors import ProtocolError
from stepwell.protocol.calls import Returned
from stepwell.protocol.ops import Op
from tests.unit.engine.bench import Bench, planned, ran

MINUTE = 60_000


def waits(step_id: str, signal: str = "go") -> Op:
    return Op(op="WaitForSignal", id=step_id, name=step_id, opts=b'{"signal":"%s","timeout":"1h"}' % signal.encode())


def send(bench: Bench, data: bytes, *, signal: str = "go", keep_ms: int | None = MINUTE) -> Any:
    """What the sender is answered."""
    decided = bench.give(SignalSent(signal, data, None if keep_ms is None else bench.clock.ms + keep_ms))
    if decided.error is not None:
        raise decided.error
    return next(effect.value for effect in decided.effects if hasattr(effect, "value"))


def test_kept_signals_are_taken_in_order() -> None:
    """Each by one wait, which ends at once and calls the run again; when none is left, a wait waits."""
    bench = Bench()
    item = bench.start()
    assert [send(bench, data) for data in (b"1", b'{"a":2}')] == [None, None]
    for step, memo in (("a", b'{"data":{"data":1,"signal":"go"}}'), ("b", b'{"data":{"data":{"a":2},"signal":"go"}}')):
        bench.answer(item, waits(step))
        assert (bench.step(step).status, bench.step(step).memo) == (StepStatus.COMPLETED, memo)
        assert bench.jobs() == [f"{step}-signal"]
        (item,) = bench.claim()
    assert len(bench.tables.kv) == 0
    bench.answer(item, waits("c"))
    assert bench.step("c").status is StepStatus.WAITING and bench.run.status is RunStatus.WAITING
    assert send(bench, b"3") == bench.run.id and bench.step("c").memo == b'{"data":{"data":3,"signal":"go"}}'
    assert len(bench.tables.kv) == 0
    (item,) = bench.claim()
    bench.answer(item, answer=Returned(data=b"1"))
    assert bench.run.status is RunStatus.COMPLETED


def test_only_what_is_to_be_kept_is() -> None:
    """Other names are others, also with a NUL in them; without a time nothing is stored."""
    bench = Bench()
    item = bench.start()
    assert send(bench, b"1", keep_ms=None) is None and len(bench.tables.kv) == 0
    send(bench, b"1", signal="go\x00more")
    bench.answer(item, waits("a"))
    assert bench.step("a").status is StepStatus.WAITING


def test_they_expire() -> None:
    """All of a name at the time of the last of them; what has expired is nobody's, and does not live on with the next."""
    bench = Bench()
    item = bench.start()
    send(bench, b"1", keep_ms=2 * MINUTE)
    bench.clock.ms += MINUTE
    send(bench, b"2", keep_ms=MINUTE // 2)
    (entry,) = bench.tables.kv
    assert entry.expires_ms == bench.clock.ms + MINUTE
    bench.clock.ms += MINUTE
    send(bench, b"3", keep_ms=MINUTE)
    bench.answer(item, waits("a"))
    assert bench.step("a").memo == b'{"data":{"data":3,"signal":"go"}}'
    (item,) = bench.claim()
    send(bench, b"4", keep_ms=MINUTE)
    bench.clock.ms += MINUTE
    bench.answer(item, waits("b"))
    assert bench.step("b").status is StepStatus.WAITING and len(bench.tables.kv) == 0


def test_a_wait_in_a_group() -> None:
    """One that ends at once is its group's as any other: the last of them calls the run."""
    bench = Bench()
    item = bench.start()
    send(bench, b"1")
    bench.answer(item, planned("p"), waits("w"))
    assert bench.step("w").status is StepStatus.COMPLETED and bench.jobs() == ["p-plan"]
    (item,) = bench.claim()
    bench.answer(item, ran("p"))
    assert len(bench.jobs()) == 1
    bench.claim()


def test_a_step_told_again_takes_no_second_one() -> None:
    """Its first signal stays its memo."""
    bench = Bench()
    item = bench.start()
    send(bench, b"1")
    send(bench, b"2")
    bench.answer(item, waits("a"))
    (item,) = bench.claim()
    bench.answer(item, waits("a"))
    assert bench.step("a").memo == b'{"data":{"data":1,"signal":"go"}}' and len(bench.tables.kv) == 1


@pytest.mark.parametrize(("limit", "value"), [("KEPT_MAX", 2), ("KEPT_BYTES_MAX", 9)])
def test_so_many_are_kept(monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    """One more is refused with what there is, and nothing of it is stored."""
    monkeypatch.setattr(mail, limit, value)
    bench = Bench()
    send(bench, b"111")
    send(bench, b"222")
    (before,) = bench.tables.kv
    with pytest.raises(ProtocolError, match="2 signals 'go' are kept, for nobody waits for them") as caught:
        send(bench, b"333")
    assert caught.value.status == 429 and list(bench.tables.kv) == [before]
