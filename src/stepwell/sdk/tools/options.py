"""Options of a single step: `ctx.step.options(retries=2, timeout="30s", effect=True)`."""

from __future__ import annotations

import msgspec

from stepwell.errors import UsageError
from stepwell.protocol.codec import Json, canonical
from stepwell.sdk.durations import Duration, duration_ms
from stepwell.sdk.options import retries_of
from stepwell.sdk.request import Request


class StepOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Checked options. `effect`: what the step does outside is not to be done again lightly; shown, and asked for before a rerun."""

    retries: int | None = None
    timeout_s: float | None = None
    effect: bool = False

    def apply(self, request: Request, kind: str | None = None) -> None:
        """Set them on a step that runs code. `kind` is what the trace calls it, where it is not a plain `run`."""
        if kind is None and self is NONE:
            return
        request.retries, request.timeout_s = self.retries, self.timeout_s
        request.opts = self.opts({} if kind is None else {"type": kind})

    def refuse(self, tool: str, id: str) -> None:
        """A step that the server does takes no option of these. Raises `UsageError` naming it."""
        for name, given in (("retries", self.retries is not None), ("timeout", self.timeout_s is not None), ("effect", self.effect)):
            if given:
                raise UsageError(
                    f"step {id!r}: options({name}=…) is for steps that run code; {tool} runs none"
                    + (": give it a timeout of its own" if name == "timeout" and tool in ("wait_for_event", "invoke") else "")
                )

    def opts(self, opts: dict[str, object]) -> Json | None:
        """The op's opts, with the mark."""
        if self.effect:
            opts = {**opts, "effect": True}
        return canonical(opts) if opts else None


NONE = StepOptions()


def options_of(retries: int | None, timeout: Duration | None, effect: bool, *, where: str, retries_max: int) -> StepOptions:
    """The options, checked. Raises `UsageError`."""
    if retries is not None and retries_of(retries, where) > retries_max:
        raise UsageError(
            f"{where}: retries is {retries}, but the function has retries={retries_max}, "
            "which is the most a step can have: raise the function's"
        )
    if not isinstance(effect, bool):
        raise UsageError(f"{where}: effect is {effect!r}; it must be True or False")
    timeout_s = None if timeout is None else duration_ms(timeout, f"{where}: timeout") / 1000
    return StepOptions(retries=retries, timeout_s=timeout_s, effect=effect)
