"""A type's payload schema: JSON Schema, draft 2020-12, without remote references."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import SchemaError, best_match
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from notify_tasks.templating.errors import PayloadInvalid

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_NAMED: Final = ("properties", "patternProperties", "$defs", "dependentSchemas")
_LISTED: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
_SINGLE: Final = (
    *("items", "additionalProperties", "contains", "not", "if", "then", "else", "propertyNames"),
    *("unevaluatedItems", "unevaluatedProperties"),
)
_ANNOTATIONS: Final = frozenset(
    ("title", "description", "default", "examples", "deprecated", "$comment", "$schema", "$id", "$anchor")
)
_KEYWORDS: Final = frozenset((*Draft202012Validator.VALIDATORS, *_NAMED, *_SINGLE, *_ANNOTATIONS))
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")

_TYPES: Final = {
    "object": "an object",
    "array": "a list",
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}
_SAYINGS: Final = {
    "minLength": "is shorter than {0} characters",
    "maxLength": "is longer than {0} characters",
    "minItems": "has fewer than {0} entries",
    "maxItems": "has more than {0} entries",
    "minProperties": "has fewer than {0} fields",
    "maxProperties": "has more than {0} fields",
    "minimum": "is less than {0}",
    "maximum": "is greater than {0}",
    "exclusiveMinimum": "is not greater than {0}",
    "exclusiveMaximum": "is not less than {0}",
    "multipleOf": "is not a multiple of {0}",
    "pattern": "does not match the pattern {0}",
    "format": "does not have the format {0}",
    "const": "is not {0}",
    "uniqueItems": "has an entry twice",
    "anyOf": "fits none of the forms that the schema allows",
    "oneOf": "does not fit exactly one of the forms that the schema allows",
}


class BadSchema(ValueError):
    """The schema itself is wrong: problem and remedy."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy


class PayloadSchema:
    """A schema, checked and compiled once.

    Args:
        schema: the table `[payload]` of notification.toml. An empty one accepts any payload.

    Raises:
        BadSchema: not a valid schema, a remote or dangling reference, an unknown keyword or format.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = dict(schema)
        _check(self._schema)
        # An empty registry: the default one may fetch what it does not know.
        self._validator = Draft202012Validator(
            self._schema, registry=Registry(), format_checker=Draft202012Validator.FORMAT_CHECKER
        )
        self._declared = frozenset(
            key
            for part in _subschemas(self._schema)
            for key in (*part.get("properties", ()), *part.get("required", ()))
        )

    def check(self, payload: Mapping[str, Any]) -> None:
        """Check a payload.

        Raises:
            PayloadInvalid: it does not fit: the first field that is wrong, never its value.
        """
        error = best_match(self._validator.iter_errors(dict(payload)))
        if error is None:
            return
        # The library's error holds the payload: it must not travel as the cause of ours.
        path, problem = self._path(error), _saying(error)
        del error
        raise PayloadInvalid(path, problem)

    def problems(self, payload: Mapping[str, Any]) -> tuple[PayloadInvalid, ...]:
        """Everything that does not fit, for whoever writes the payload: `check` names the gravest alone."""
        found: dict[tuple[str, str], None] = {}
        for error in self._validator.iter_errors(dict(payload)):
            path, problem = self._path(error), _saying(error)
            if error.validator == "required":  # one error a missing field, and each knows them all
                names = _missing(error)
                place = path.removesuffix(f".{names[0]}")
                found.update(dict.fromkeys((f"{place}.{name}", problem) for name in names))
            else:
                found[path, problem] = None
        return tuple(PayloadInvalid(*each) for each in found)

    def minimal(self, payload: Mapping[str, Any]) -> dict[str, Any] | None:
        """The payload without every field the schema does not demand; None where there is none such."""
        smaller = _strip(self._schema, dict(payload))
        return smaller if smaller != payload and self._validator.is_valid(smaller) else None

    def variants(self, payload: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Payloads that the schema lets through as well, each with words for what it lacks.

        Only the required fields; all but one optional field, for each; each list empty. A template that uses one
        optional field where another is there is caught by the second kind.
        """
        full = dict(payload)
        smallest = self.minimal(full)
        if smallest is not None:
            yield "with the required fields alone", smallest
        for path in _paths(full):
            shown = "payload." + ".".join(path).replace(".[]", "[]")
            for words, change in ((f"without {shown}", _without), (f"with {shown} empty", _emptied)):
                changed = change(full, path)
                if changed != full and self._validator.is_valid(changed):
                    yield words, changed

    def _path(self, error: ValidationError) -> str:
        path = "payload"
        for step in error.absolute_path:
            if isinstance(step, int):
                path += f"[{step}]"
            else:
                path += f".{step}" if step in self._declared else ".*"
        if error.validator == "required":
            path += f".{_missing(error)[0]}"
        return path


def _instance(error: ValidationError) -> Any:
    """The part of the payload that is wrong: for looking at keys, never for showing."""
    return error.instance


def _missing(error: ValidationError) -> list[str]:
    """The names that `required` asked for and the instance lacks, in the schema's order."""
    demanded: Any = error.validator_value
    return [key for key in demanded if key not in _instance(error)]


def _saying(error: ValidationError) -> str:
    """What is wrong, made of the schema's words alone."""
    rule = str(error.validator)
    value: Any = error.validator_value
    if rule == "required":
        return "is missing"
    if rule == "type":
        kinds = [value] if isinstance(value, str) else list(value)
        return "is not " + " or ".join(_TYPES.get(kind, kind) for kind in kinds)
    if rule == "enum":
        return "is not one of: " + ", ".join(str(choice) for choice in value)
    if rule == "additionalProperties" and value is False:
        return _extra(error)
    if rule in _SAYINGS:
        return _SAYINGS[rule].format(value)
    return f"breaks the rule {rule!r} of the schema"


def _extra(error: ValidationError) -> str:
    known = list(error.schema.get("properties", ())) if isinstance(error.schema, Mapping) else []
    for key in _instance(error):
        if key not in known and _PLAIN_KEY.fullmatch(key):
            near = difflib.get_close_matches(key, known, n=1)
            return f"has a field {key!r} that the type does not know" + (
                f"; did you mean {near[0]!r}?" if near else ""
            )
    return "has a field that the type does not know"


# --- the schema itself --------------------------------------------------------------------------------


def _check(schema: dict[str, Any]) -> None:
    if schema.get("$schema", DIALECT) != DIALECT:
        raise BadSchema("the schema is not of draft 2020-12", f'Leave "$schema" out, or write "{DIALECT}"')
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        place = ".".join(str(step) for step in ("payload", *error.absolute_path))
        raise BadSchema(f"{place}: {error.message}", "Write it as JSON Schema draft 2020-12 asks") from None
    resolver = Registry().resolver_with_root(DRAFT202012.create_resource(schema))
    for part in _subschemas(schema):
        _check_keywords(part)
        for keyword in ("$ref", "$dynamicRef"):
            if keyword in part:
                _check_reference(str(part[keyword]), resolver)


def _check_keywords(part: Mapping[str, Any]) -> None:
    for keyword in part:
        if keyword not in _KEYWORDS:
            near = difflib.get_close_matches(keyword, _KEYWORDS, n=1)
            raise BadSchema(
                f"the schema has an unknown keyword {keyword!r}",
                f"Did you mean {near[0]!r}?" if near else "Take it out, or put it under properties",
            )
    name = part.get("format")
    known = Draft202012Validator.FORMAT_CHECKER.checkers
    if name is not None and name not in known:
        raise BadSchema(
            f"the format {name!r} is not checked here",
            f"Write a pattern instead, or one of: {', '.join(sorted(known))}",
        )


def _check_reference(reference: str, resolver: Any) -> None:
    if not reference.startswith("#"):
        raise BadSchema(
            f"$ref {reference!r} is remote", "Put the schema under [payload.$defs] and refer to it with #"
        )
    try:
        resolver.lookup(reference)
    except Unresolvable:
        raise BadSchema(f"$ref {reference!r} leads nowhere", "Define it under [payload.$defs]") from None


def _subschemas(schema: object) -> Iterator[Mapping[str, Any]]:
    """The schema and every schema inside it."""
    if not isinstance(schema, Mapping):
        return
    yield schema
    for keyword in _NAMED:
        for inner in schema.get(keyword, {}).values():
            yield from _subschemas(inner)
    for keyword in _LISTED:
        for inner in schema.get(keyword, ()):
            yield from _subschemas(inner)
    for keyword in _SINGLE:
        yield from _subschemas(schema.get(keyword))


def _paths(value: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every field of a payload; `[]` stands for the entries of a list."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*above, key)
            yield from _paths(inner, (*above, key))
    elif isinstance(value, list):
        inside = (path for entry in value for path in _paths(entry, (*above, "[]")))
        yield from dict.fromkeys(inside)


def _without(value: Any, path: tuple[str, ...]) -> Any:
    step, *rest = path
    if isinstance(value, list):
        return [_without(entry, tuple(rest)) for entry in value]
    if not isinstance(value, dict) or step not in value:
        return value
    if not rest:
        return {key: inner for key, inner in value.items() if key != step}
    return {**value, step: _without(value[step], tuple(rest))}


def _emptied(value: Any, path: tuple[str, ...]) -> Any:
    step, *rest = path
    if isinstance(value, list):
        return [_emptied(entry, tuple(rest)) for entry in value]
    if not isinstance(value, dict) or step not in value:
        return value
    if not rest:
        return {**value, step: []} if isinstance(value[step], list) else value
    return {**value, step: _emptied(value[step], tuple(rest))}


def _strip(schema: object, value: Any) -> Any:
    """`value` with optional fields left out, as far as plain `properties` and `items` tell."""
    if not isinstance(schema, Mapping):
        return value
    if isinstance(value, list):
        return [_strip(schema.get("items"), entry) for entry in value]
    if isinstance(value, dict) and "properties" in schema:
        return {
            key: _strip(schema["properties"].get(key), value[key])
            for key in value
            if key in schema.get("required", ())
        }
    return value
