"""Users' values as JSON and back, by their annotations.

An annotation says what a stored value becomes: dataclasses, msgspec structs, pydantic models, TypedDicts, named tuples, enums,
datetimes, UUIDs, Decimals and Paths come back as what they were, at any depth. Without an annotation a value comes back as JSON has it.

One thing JSON loses even then: canonical JSON writes `1.0` as `1`. **Marked floats**: where no annotation decides between whole
number and float (no annotation, `Any`, `int | float`), a whole float in a step's result is stored as `{"$float":1}`. A user's own
object that looks like this is stored as `{"$plain":{…}}`. Only step results are marked: events and function results are read by others.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import types
import typing
from enum import Enum
from pathlib import PurePath
from typing import Annotated, Any, Literal, NewType, TypeVar, Union

import msgspec

from stepwell.errors import ProtocolError, UsageError
from stepwell.protocol.codec import Json, canonical

FLOAT_MARK = "$float"
PLAIN_MARK = "$plain"

_NOT_PLAIN = re.compile(rb'[^\x00-\x7f]|\\u|[0-9][.eE]|null|\{"\$')
"""What takes the slow path: a non-ASCII byte, an escape, perhaps a float, perhaps a NaN (written as null), perhaps a mark."""


class Codec:
    """Encodes and decodes the values of one annotation."""

    __slots__ = ("_any", "_decoder", "_marks", "annotation")

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation
        self._any = annotation is Any
        self._marks = not _decides_floats(annotation, set())
        self._decoder = _any_decoder
        if not self._any:
            try:
                self._decoder = msgspec.json.Decoder(annotation, dec_hook=_dec_hook)
            except TypeError:
                # What msgspec cannot express (two custom classes in a union, say) comes back as JSON has it.
                self._any = True

    def encode(self, value: Any, *, mark: bool = False) -> Json:
        """The value's canonical JSON. `mark`: with marked floats. Raises `UsageError` for what JSON cannot hold."""
        try:
            try:
                raw = _encoder.encode(value)
                if value is None or _NOT_PLAIN.search(raw) is None:
                    return raw
            except TypeError:
                # Keys that are no strings cannot be sorted before they are; and what cannot be written at all is told below.
                pass
            plain = msgspec.to_builtins(value, str_keys=True, enc_hook=_enc_hook)
            return canonical(_marked(plain) if mark and self._marks else plain)
        except (TypeError, ValueError, ProtocolError, RecursionError, OverflowError) as error:
            raise UsageError(
                f"a value of type {type(value).__name__} cannot be written as JSON ({error}): "
                "use plain JSON values, dataclasses, pydantic models, msgspec structs or TypedDicts"
            ) from error

    def decode(self, raw: Json, *, marked: bool = False) -> Any:
        """The value of a JSON text. `marked`: as `encode(mark=True)` wrote it. Raises `UsageError` where it does not fit."""
        try:
            if marked and b'"$' in raw and self._marks:
                value = _unmarked(_any_decoder.decode(raw))
                return value if self._any else msgspec.convert(value, self.annotation, str_keys=True, dec_hook=_dec_hook)
            return self._decoder.decode(raw)
        except (msgspec.MsgspecError, ValueError, TypeError, ArithmeticError) as error:
            shown = bytes(raw[:80]).decode("utf-8", "replace")
            raise UsageError(f"{shown} does not fit the annotation {_shown(self.annotation)}: {error}") from error


def _shown(annotation: Any) -> str:
    """An annotation as its user wrote it."""
    return annotation.__qualname__ if isinstance(annotation, type) and not typing.get_args(annotation) else str(annotation)


def _enc_hook(value: Any) -> Any:
    serializer = getattr(type(value), "__pydantic_serializer__", None)
    if serializer is not None:
        return serializer.to_python(value, mode="json", by_alias=True, round_trip=True)
    if isinstance(value, PurePath):
        return str(value)
    for plain in (str, float, int):
        if isinstance(value, plain):
            return plain(value)
    raise TypeError(f"no way to encode {type(value).__name__}")


def _dec_hook(kind: Any, value: Any) -> Any:
    validator = getattr(kind, "__pydantic_validator__", None)
    if validator is not None:
        try:
            return validator.validate_python(value)
        except ValueError as error:
            raise ValueError(_told(error)) from error
    if isinstance(kind, type) and issubclass(kind, PurePath):
        return kind(value)
    if isinstance(kind, type) and isinstance(value, kind):
        return value
    raise TypeError(f"no way to decode {kind!r}")


def _told(error: ValueError) -> str:
    """What a model found wrong: each field's path, and why."""
    try:
        found = error.errors()  # type: ignore[attr-defined]
        return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in found)
    except (AttributeError, KeyError, TypeError):
        return str(error)


_encoder = msgspec.json.Encoder(order="sorted", enc_hook=_enc_hook)
_as_written = msgspec.json.Encoder(enc_hook=_enc_hook)
_any_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def _marked(value: Any) -> Any:
    kind = type(value)
    if kind is float:
        return {FLOAT_MARK: int(value)} if value.is_integer() else value
    if kind is dict:
        inner = {key: _marked(item) for key, item in value.items()}
        return {PLAIN_MARK: inner} if _looks_marked(value) else inner
    if kind is list:
        return [_marked(item) for item in value]
    return value


def _unmarked(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        if _looks_marked(value):
            if PLAIN_MARK in value:
                return {key: _unmarked(item) for key, item in value[PLAIN_MARK].items()}
            return float(value[FLOAT_MARK])
        return {key: _unmarked(item) for key, item in value.items()}
    if kind is list:
        return [_unmarked(item) for item in value]
    return value


def _looks_marked(value: dict[str, Any]) -> bool:
    return len(value) == 1 and (FLOAT_MARK in value or PLAIN_MARK in value)


def _decides_floats(kind: Any, seen: set[int]) -> bool:
    """Whether the annotation says of every number in its values whether it is a float."""
    if isinstance(kind, NewType):
        return _decides_floats(kind.__supertype__, seen)
    if kind is Any or kind is object or isinstance(kind, TypeVar | str) or kind in (dict, list, tuple, set, frozenset):
        return False
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _decides_floats(args[0], seen)
    if origin is Literal:
        return True
    if origin in (Union, types.UnionType):
        return not (float in args and int in args) and all(_decides_floats(arg, seen) for arg in args)
    if id(kind) in seen:
        return True
    seen.add(id(kind))
    if args and not all(arg is Ellipsis or _decides_floats(arg, seen) for arg in args):
        return False
    target = origin or kind
    if not isinstance(target, type):
        return bool(args)
    fields = getattr(target, "__pydantic_fields__", None)
    if fields is not None:
        return all(_decides_floats(field.annotation, seen) for field in fields.values())
    if dataclasses.is_dataclass(target) or (hasattr(target, "__annotations__") and not issubclass(target, Enum)):
        try:
            hints = typing.get_type_hints(target)
        except (NameError, TypeError):
            return False
        return all(_decides_floats(hint, seen) for hint in hints.values())
    return True


ANY = Codec(Any)


def as_written(value: Any) -> Json:
    """The value's JSON with keys in the order in which they were written, for others than us: models fill in a schema in that order."""
    try:
        return _as_written.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"a value of type {type(value).__name__} cannot be written as JSON ({error})") from error


@functools.lru_cache(maxsize=4096)
def _cached(annotation: Any) -> Codec:
    return Codec(annotation)


def codec_of(annotation: Any) -> Codec:
    """The codec of an annotation, made once."""
    if annotation is Any:
        return ANY
    try:
        return _cached(annotation)
    except TypeError:
        return Codec(annotation)


_by_code: dict[Any, Codec] = {}


def result_codec(fn: Any) -> Codec:
    """The codec of what a function returns, by its annotation."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    annotations = getattr(fn, "__annotations__", None)
    annotation = annotations.get("return", Any) if annotations else Any
    if annotation is Any:
        return ANY
    if isinstance(annotation, str):
        code = getattr(fn, "__code__", fn)
        codec = _by_code.get(code)
        if codec is None:
            codec = _by_code[code] = codec_of(hint_of(fn, "return"))
        return codec
    return codec_of(annotation)


def hint_of(fn: Any, name: str) -> Any:
    """A resolved annotation of a function's parameter or `return`; `Any` where there is none, or none that can be resolved."""
    try:
        hints = typing.get_type_hints(fn, include_extras=True)
    except Exception:
        # A name that only exists while type checking: the annotation says nothing at run time.
        return Any
    return hints.get(name, Any)
