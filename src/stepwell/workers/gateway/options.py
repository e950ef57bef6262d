"""Options that both kinds of applications take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

EncodeBody = Literal["automatic", "manual"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """`encode_body="manual"`: the application compresses its bodies itself, as their headers say."""

    encode_body: EncodeBody = "automatic"

    def __post_init__(self) -> None:
        if self.encode_body not in get_args(EncodeBody):
            raise ValueError(f"encode_body is {self.encode_body!r}; it must be one of {', '.join(get_args(EncodeBody))}")


DEFAULT = Options()
