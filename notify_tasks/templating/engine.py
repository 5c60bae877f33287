"""Jinja2, closed down: what a template can reach, how long it can run, and how each kind of file escapes.

Templates see JSON values, filters and macros. They see no methods and no attributes of Python objects, so
`payload.items` is the payload's field and `''.__class__` is nothing. There is one environment a kind of file:

========  =============  =========================================================================
mode      files          a value in `{{ }}` becomes
========  =============  =========================================================================
html      .html, .css    HTML text (quotes too)
json      .json          the inside of a JSON string; with `| tojson` a whole JSON value
markdown  .md            Markdown text: no link, mention or emphasis can begin in it
text      .txt           itself
========  =============  =========================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any, Final

from jinja2 import (
    BaseLoader,
    StrictUndefined,
    Template,
    TemplateNotFound,
    nodes,
)
from jinja2.environment import TemplateModule
from jinja2.exceptions import SecurityError, TemplateSyntaxError, UndefinedError
from jinja2.runtime import (
    BlockReference,
    Context,
    LoopContext,
    Macro,
    TemplateReference,
)
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from notify_tasks.templating.errors import RenderError
from notify_tasks.templating.folder import LAYOUT
from notify_tasks.templating.manner import FILTERS as MANNER_FILTERS
from notify_tasks.templating.manner import Manner, manner
from notify_tasks.templating.quoting import FILTERS as QUOTING_FILTERS
from notify_tasks.templating.values import (
    JINJA_FILTERS,
    MAX_OUTPUT,
    Budget,
    Missing,
    Refusal,
    bounded_range,
    budget,
    filters_for,
    finalizer_for,
    too_large,
)

_REACHABLE: Final = (LoopContext, TemplateModule, TemplateReference, BlockReference)
_WRITES_TWICE: Final = (nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.AssignBlock, nodes.Block)
_IMPORTS: Final = (nodes.Import, nodes.FromImport, nodes.Extends)


class _Bounds(NodeTransformer):
    """Puts the bounds into a parsed template and refuses what has no bound or no single way to escape."""

    def __init__(self, mode: str) -> None:
        self._plain = mode in ("json", "markdown")

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        if isinstance(node, nodes.ScopedEvalContextModifier):
            raise TemplateSyntaxError("escaping cannot be switched: take the autoescape tag out", node.lineno)
        if self._plain and isinstance(node, (*_WRITES_TWICE, *_IMPORTS)):
            raise TemplateSyntaxError(
                "blocks, macros and imports are for .html and .txt: use if, for, set, include", node.lineno
            )
        return super().visit(node, *args, **kwargs)

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - Jinja calls it by the node's name
        if node.recursive:
            raise TemplateSyntaxError("a recursive loop has no bound: nest loops instead", node.lineno)
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "bounded", [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - as above
        self.generic_visit(node)
        pieces = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(pieces, "concat", [], [], None, None, lineno=node.lineno)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802 - as above
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            # A name that stands in the template may stand in an error too; a computed one may be private.
            return nodes.Getattr(node.node, node.arg.value, node.ctx, lineno=node.lineno)
        return node


class Environment(ImmutableSandboxedEnvironment):
    """Jinja for one kind of file of one type."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, mode: str, loader: BaseLoader) -> None:
        super().__init__(
            loader=loader,
            autoescape=mode == "html",
            undefined=Missing,
            finalize=finalizer_for(mode),
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # constants are computed under the bounds, not while compiling
            auto_reload=False,
            cache_size=-1,
        )
        self.mode = mode
        self.filters = {name: self.filters[name] for name in JINJA_FILTERS}
        self.filters |= filters_for(mode) | {**MANNER_FILTERS, **QUOTING_FILTERS}
        self.globals.clear()
        self.globals["range"] = bounded_range

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        # Extensions see tokens only; this is the one place that both parse() and compile() pass with a tree.
        tree = super()._parse(source, name, filename)
        try:
            bounded: nodes.Template = _Bounds(self.mode).visit(tree)
        except TemplateSyntaxError as error:
            error.name, error.filename = name, filename
            raise
        bounded.set_environment(self)
        return bounded

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`payload.items` is the field of that name. Else only Jinja's own helpers have attributes."""
        if isinstance(obj, Mapping):
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        if isinstance(obj, StrictUndefined):
            return str(obj)  # raises, with the name
        if isinstance(obj, _REACHABLE) and not attribute.startswith("_"):
            return super().getattr(obj, attribute)
        return self.undefined(f"{attribute} is out of reach", exc=SecurityError)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """A key or an index of a JSON value."""
        if isinstance(obj, StrictUndefined):
            return str(obj)  # raises, with the name
        if isinstance(obj, (Mapping, list, tuple, str)):
            try:
                return obj[argument]
            except (TypeError, LookupError):
                return self.undefined("a key or an index in [ ] is missing", obj=obj)
        return self.undefined("this is out of reach", exc=SecurityError)

    def is_safe_callable(self, obj: Any) -> bool:
        """Macros, blocks, `range` and `loop.cycle`; an undefined one says its name."""
        if isinstance(obj, MethodType):
            return isinstance(obj.__self__, LoopContext)
        return obj is bounded_range or isinstance(obj, (Macro, BlockReference, StrictUndefined))

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a macro: recursion has a bound."""
        budget.get().step()
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Operators that can make much out of little."""
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise Refusal(
                "template",
                f"the operator {operator} is not for templates",
                "Compute the value before the call",
            )
        if _size_after(operator, left, right) > MAX_OUTPUT:
            raise too_large()
        return super().call_binop(context, operator, left, right)


def _size_after(operator: str, left: object, right: object) -> int:
    sizes = [len(side) for side in (left, right) if isinstance(side, (str, list, tuple))]
    if operator == "+":
        return sum(sizes)
    if operator != "*":
        return 0
    numbers = [abs(side) for side in (left, right) if isinstance(side, int)]
    if sizes:
        return sizes[0] * (numbers[0] if numbers else 1)
    return sum(number.bit_length() for number in numbers)


class Sources(BaseLoader):
    """Serves the files of one type, each under the name that an error shows."""

    def __init__(self, type_name: str, sources: Mapping[str, str]) -> None:
        self._type = type_name
        self.files = sources

    def shown(self, file: str) -> str:
        """The file's path inside the templates folder."""
        return file if file.startswith(f"{LAYOUT}/") else f"{self._type}/{file}"

    def get_source(self, environment: Any, template: str) -> tuple[str, str, Callable[[], bool]]:  # noqa: ARG002 - as the base class
        if template not in self.files:
            raise TemplateNotFound(template)
        return self.files[template], self.shown(template), lambda: True


def run(
    environment: Environment, sources: Sources, file: str, context: Mapping[str, Any], written: Manner
) -> str:
    """Render one file within its bounds, with values written in one manner.

    Raises:
        RenderError: with file, line and remedy; the library's exception, which may hold values, is dropped.
    """
    token, before = budget.set(Budget()), manner.set(written)
    try:
        return _collect(environment.get_template(file), context)
    except Exception as error:  # noqa: BLE001 - a template can fail with whatever its expressions raise
        failure = explain(error, sources, file)
    finally:
        budget.reset(token)
        manner.reset(before)
    raise failure


def _collect(template: Template, context: Mapping[str, Any]) -> str:
    pieces: list[str] = []
    size = 0
    for piece in template.generate(context):
        size += len(piece)
        if size > MAX_OUTPUT:
            raise too_large()
        pieces.append(piece)
    return "".join(pieces)


def explain(error: Exception, sources: Sources, file: str) -> RenderError:
    """Turn what Jinja raised into file, line and remedy, with no text that may hold a value."""
    place, line = _place(error, sources, file)
    if isinstance(error, Refusal):
        return RenderError(error.code, error.problem, error.remedy, place, line)
    if isinstance(error, SecurityError):
        return RenderError(
            "unsafe",
            "the template reaches for what templates may not touch",
            "Use the fields of payload and recipient, filters and macros; values have no methods here",
            place,
            line,
        )
    if isinstance(error, UndefinedError):
        name = str(error.message).removesuffix(" is missing")
        if name == error.message:
            return RenderError(
                "missing-value", name, 'Write {% if %} around it, or | default("")', place, line
            )
        path = _dotted(name, sources, place, line)
        remedy = f'Put it into the payload, or write {path} | default("") where it may be left out'
        return RenderError("missing-value", f"{path} is missing", remedy, place, line)
    if isinstance(error, RecursionError):
        return RenderError(
            "too-long", "the template calls itself without an end", "Take the call out", place, line
        )
    problem = f"{type(error).__name__} in an expression"
    return RenderError(
        "template",
        problem,
        "Check that its values have the types it needs; the schema can demand them",
        place,
        line,
    )


def _place(error: Exception, sources: Sources, file: str) -> tuple[str, int | None]:
    """The innermost line of a template in the traceback; Jinja has put the template's own lines there."""
    shown = {sources.shown(name) for name in sources.files}
    place, line = sources.shown(file), None
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename in shown:
            place, line = step.tb_frame.f_code.co_filename, step.tb_lineno
        step = step.tb_next
    return place, line


def _dotted(name: str, sources: Sources, place: str, line: int | None) -> str:
    """`payload.order.total` for `total`, as the template's line has it."""
    source = next(text for key, text in sources.files.items() if sources.shown(key) == place)
    lines = source.splitlines()
    if line is None or line > len(lines):
        return name
    found = re.findall(rf"\b(?:\w+\.)+{re.escape(name)}\b", lines[line - 1])
    return str(found[0]) if found else name
