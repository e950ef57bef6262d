"""Asking a model as a step: the server makes the request, tries it again where it fails, and stores the answer."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from stepwell.errors import UsageError
from stepwell.protocol.codec import Json, canonical
from stepwell.sdk.ai import Model, merged
from stepwell.sdk.request import Errand, Request, decode_memo
from stepwell.sdk.serializer import as_written
from stepwell.sdk.tools.fetch import checked_headers, checked_size, checked_url

if TYPE_CHECKING:
    from stepwell.sdk.session import Session
    from stepwell.sdk.tools.options import StepOptions


class AiTools:
    """`ctx.step.ai`."""

    __slots__ = ("_options", "_session")

    def __init__(self, session: Session, options: StepOptions) -> None:
        self._session, self._options = session, options

    def infer(self, id: str, model: Model, body: Mapping[str, Any], *, publish: str | None = None) -> Coroutine[Any, Any, Any]:
        """Ask a model, such as `stepwell.ai.openai("gpt-4o")`; gives its answer's JSON. Raises `StepError` when it has failed for good.

        `body` is the provider's request (`messages` and so on). `publish`: a topic of the run's channel that is told the answer too.
        """
        self._options.refuse("ai.infer", id)
        return self._session.ask(inferring(self._session, self._session.request(id), model, body, publish))


def inferring(session: Session, request: Request, model: Model, body: Mapping[str, Any], publish: str | None) -> Request:
    """The request is one to a model."""
    what = f"step {request.id!r}: ai.infer"
    if not isinstance(model, Model):
        raise UsageError(f'{what}: the model is {model!r}; it must be a stepwell.ai.Model, such as stepwell.ai.openai("gpt-4o")')
    if not isinstance(body, Mapping):
        raise UsageError(f"{what}: the body is {body!r}; it must be a dict, as the provider's API takes it")
    opts: dict[str, Any] = {
        "format": model.format,
        "headers": checked_headers(model.headers, what),
        "type": "step.ai.infer",
        "url": checked_url(model.url, what),
    }
    if model.auth_key:
        opts["auth_key"] = model.auth_key
    if publish is not None:
        opts["publish"] = {"channel": session.run_id, "topic": publish}
    request.errand = Errand(
        op="AIGateway", opts=checked_size(b'{"body":' + as_written(merged(model, body)) + b"," + canonical(opts)[1:], what)
    )
    request.read = _answer
    return request


def _answer(request: Request, memo: Json) -> Any:
    return decode_memo(request, memo, marked=False)
