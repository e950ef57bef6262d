"""What a function finds in `ctx.step`: the async tools, their blocking twins, and a small file for what each asks of the server."""

from stepwell.sdk.tools.blocking import SyncStepTools
from stepwell.sdk.tools.steps import StepTools

__all__ = ["StepTools", "SyncStepTools"]
