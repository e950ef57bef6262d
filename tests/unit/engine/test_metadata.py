"""What is noted about runs is kept with them, within bounds, and never in a run's way."""

from __future__ import annotations

import msgspec
import pytest

from stepwell.engine.inputs import MetadataTold, SpansTold, StepsCheckpointed
from stepwell.engine.model import Metadata, RunStatus, UserSpan
from stepwell.engine.registry import Settings
from stepwell.engine.spans import SPANS_MAX, SpansReply
from stepwell.errors import NotFound, ProtocolError
from stepwell.protocol.calls import Checkpoint, Ops, Returned
from stepwell.protocol.ids import step_hash
from stepwell.protocol.metadata import RUN_BYTES_MAX, SPAN_BYTES_MAX, Note, merged, notes_of_op, parse_notes
from stepwell.protocol.ops import Op
from stepwell.runtime.heart import Decided
from tests.unit.engine.test_limits import Bench


def note(bench: Bench, values: object, *, change: str = "set", kind: str = "userland.x", scope: str = "run", span: str = "") -> Decided:
    """Note something about the run."""
    one = Note(scope=scope, span=span, kind=kind, change=change, values=msgspec.json.encode(values))  # type: ignore[arg-type]
    return bench.give(MetadataTold(bench.run().id, (one,)))


def noted(bench: Bench) -> dict[tuple[str, str, str], object]:
    """All that is noted."""
    rows: list[Metadata] = list(bench.store.tables.metadata)
    return {(row.scope, row.span, row.kind): msgspec.json.decode(row.values) for row in rows}


def test_set_merge_and_delete() -> None:
    """In place of what is there, laid over it, gone."""
    bench = Bench(Settings())
    note(bench, {"a": 1, "b": 1})
    note(bench, {"b": 2}, change="merge")
    assert noted(bench) == {("run", "", "userland.x"): {"a": 1, "b": 2}}
    note(bench, {"c": 3})
    assert noted(bench) == {("run", "", "userland.x"): {"c": 3}}
    note(bench, {}, change="delete")
    assert noted(bench) == {} and bench.store.tables.trace_totals.rows[bench.run().id].metadata_bytes == 0


def test_the_use_of_models_adds_up() -> None:
    """Counts are summed, of the rest the last one counts."""
    before, later = {"input_tokens": 1, "response_model": "a", "x": 1}, {"input_tokens": 2, "output_tokens": 5, "response_model": "b"}
    assert merged("inngest.ai", before, later) == {"input_tokens": 3, "output_tokens": 5, "response_model": "b", "x": 1}
    assert merged("userland.x", before, later)["input_tokens"] == 2


def test_steps_bring_their_notes_in_answers_and_checkpoints() -> None:
    """Written with the step; of the run where the note says so."""
    bench = Bench(Settings())
    item = bench.claim()
    told = b'[{"kind":"userland.n","op":"set","scope":"step","values":{"n":1}},{"kind":"k","op":"set","scope":"run","values":{"r":1}}]'
    op = Op(op="StepRun", id="s", name="s", data=b"1", metadata=told)
    checkpoint = Checkpoint(run_id=item.run_id, item_id=item.id, fence=item.fence, ops=(op,))
    assert bench.give(StepsCheckpointed(checkpoint)).error is None
    assert noted(bench) == {("step", "s", "userland.n"): {"n": 1}, ("run", "", "k"): {"r": 1}}
    again = b'[{"kind":"userland.n","op":"merge","values":{"m":2}}]'
    bench.answer(item, Ops(ops=(Op(op="StepRun", id="t", name="t", data=b"1", metadata=again),), request_version=2))
    assert noted(bench)["step", "t", "userland.n"] == {"m": 2}


@pytest.mark.parametrize("told", [b'{"a":1}', b'[{"kind":"k","op":"add","values":{}}]', b'[{"kind":"k","op":"set","values":[1]}]'])
def test_notes_of_a_step_that_cannot_be_kept_leave_a_warning(told: bytes) -> None:
    """The run goes on; the warning stands at the step."""
    bench = Bench(Settings())
    bench.answer(bench.claim(), Ops(ops=(Op(op="StepRun", id="s", name="s", data=b"1", metadata=told),), request_version=2))
    warning = noted(bench)["step", "s", "inngest.warnings"]
    assert isinstance(warning, dict) and warning["metadata"].startswith("refused: ")
    assert bench.run().status is RunStatus.RUNNING


def test_a_warning_takes_the_place_of_what_was_too_large() -> None:
    """64 KiB of one step are too much, whether in an op or by request."""
    bench = Bench(Settings())
    values = b'{"x":"' + b"x" * SPAN_BYTES_MAX + b'"}'
    told = b'[{"kind":"k","op":"set","values":' + values + b"}]"
    bench.answer(bench.claim(), Ops(ops=(Op(op="StepRun", id="s", name="s", data=b"1", metadata=told),), request_version=2))
    assert set(noted(bench)) == {("step", "s", "inngest.warnings")}
    refused = note(bench, msgspec.json.decode(values)).error
    assert isinstance(refused, ProtocolError) and refused.status == 413 and f"at most {SPAN_BYTES_MAX}" in str(refused)


def test_a_run_has_so_much_of_notes_and_no_more() -> None:
    """1 MiB, counted over all that is noted; what is refused changes nothing, and what goes makes room."""
    bench = Bench(Settings())
    large = {"x": "x" * (SPAN_BYTES_MAX - 100)}
    count = 0
    while (error := note(bench, large, scope="step", span=str(count)).error) is None:
        count += 1
    assert isinstance(error, ProtocolError) and error.status == 413 and f"at most {RUN_BYTES_MAX}" in str(error)
    assert count == RUN_BYTES_MAX // SPAN_BYTES_MAX
    note(bench, {}, change="delete", scope="step", span="0")
    assert note(bench, large, scope="step", span="new").error is None


def test_an_ended_run_takes_notes_and_a_missing_one_does_not() -> None:
    """Scores come when the result is judged."""
    bench = Bench(Settings())
    bench.answer(bench.claim(), Returned(data=b"1"))
    assert note(bench, {"good": {"value": 1}}, kind="inngest.score").error is None
    one = Note(scope="run", span="", kind="k", change="set", values=b"{}")
    assert isinstance(bench.give(MetadataTold("nobody", (one,))).error, NotFound)


def test_requests_name_what_they_are_about() -> None:
    """Steps by their id or the user's with its repetition; a try, a span; nothing: the run."""

    def place(**target: object) -> tuple[str, str]:
        body = msgspec.json.encode({"target": target, "metadata": [{"kind": "k", "op": "set", "values": {}}]})
        (one,) = parse_notes(body, "R")
        return one.scope, one.span

    assert place() == place(run_id="R") == ("run", "")
    assert place(step_id="a") == place(step_id=step_hash("a"), step_attempt=None) == ("step", step_hash("a"))
    assert place(step_id="a", step_index=2) == ("step", step_hash("a", 2))
    assert place(step_id="a", step_attempt=1) == ("step_attempt", f"{step_hash('a')}/1")
    assert place(step_id="a", span_id="f00") == ("extended_trace", "f00")
    for body, said in (
        (b"[]", "the metadata is not"),
        (b'{"target":{"run_id":"other"},"metadata":[]}', "names run 'other'"),
        (b'{"metadata":[{"kind":"","values":{}}]}', "kind ''"),
        (b'{"metadata":[{"kind":"k","op":"append","values":{}}]}', "none of merge, set, delete"),
        (b'{"metadata":[{"kind":"k","values":1}]}', "must be an object"),
    ):
        with pytest.raises(ProtocolError, match=said):
            parse_notes(body, "R")
    with pytest.raises(ProtocolError, match="at most"):
        notes_of_op(b"[" + b",".join([b'{"kind":"k"}'] * 101) + b"]", "s")


def spans(run_id: str, *ids: str, size: int = 2) -> SpansTold:
    """Spans of a run."""
    rows = [
        UserSpan(
            run_id=run_id, id=span_id, parent_id="", step_id="", name="n", kind="internal", status="ok", message="",
            attributes=b'"' + b"x" * (size - 2) + b'"', started_ms=1, ended_ms=2,
        )
        for span_id in ids
    ]  # fmt: skip
    return SpansTold(run_id, tuple(rows))


def reply(decided: Decided) -> SpansReply:
    """What the exporter is told."""
    (value,) = [effect.value for effect in decided.effects if hasattr(effect, "value")]
    assert isinstance(value, SpansReply)
    return value


def test_spans_are_kept_once_and_counted() -> None:
    """An exporter may try again."""
    bench = Bench(Settings())
    run_id = bench.run().id
    assert reply(bench.give(spans(run_id, "1", "2", "1"))) == SpansReply(2, 0)
    assert reply(bench.give(spans(run_id, "2", "3"))) == SpansReply(1, 0)
    assert reply(bench.give(spans(run_id, "3"))) == SpansReply(0, 0)
    assert isinstance(bench.give(spans("nobody", "1")).error, NotFound)


def test_spans_beyond_what_is_kept_are_told_and_counted() -> None:
    """Too many, too large."""
    bench = Bench(Settings())
    run_id = bench.run().id
    assert reply(bench.give(spans(run_id, "large", size=16 * 1024))) == SpansReply(0, 1)
    assert reply(bench.give(spans(run_id, *map(str, range(SPANS_MAX + 5))))) == SpansReply(SPANS_MAX, 5)
    assert bench.store.tables.trace_totals.rows[run_id].spans_refused == 6
