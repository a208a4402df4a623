"""The language of filters and derived columns: parsed here, computed by polars, never executed.

A formula is tokenised and parsed by the rules below into a tree of literals, columns and calls of
known functions; nothing of it reaches Python's own parser or ``eval``. Precedence is Python's
(The Python Language Reference, 6.17). Standard library only, so that a worker can refuse a formula
before a job is started; :mod:`formulas.engine` turns a tree into polars expressions.

Columns are written ``name``, ``name.with.dots``, ``df['any name']``, ``col('any name')``,
``df.name`` or `` `any name` ``.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

from ..protocol import InputProblemError

#: ``other`` stands for types with which no task computes: lists, bytes, durations, in Parquet only.
Kind = Literal["integer", "number", "text", "boolean", "date", "datetime", "missing", "other"]
Value = int | float | str | bool | None

#: The most characters, levels of nesting and tree nodes of a formula, and digits of an integer.
MAX_CHARS, MAX_DEPTH, MAX_NODES, MAX_DIGITS = 4096, 40, 500, 18

NUMERIC = frozenset({"integer", "number"})
TEMPORAL = frozenset({"date", "datetime"})

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?)
    | (?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | (?P<quoted>`[^`]+`)
    | (?P<name>[^\W\d]\w*(?:\.[^\W\d]\w*)*)
    | (?P<sign>\*\*|//|==|!=|<=|>=|&&|\|\||[-+*/%<>()\[\],&|~!=])
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
_KEYWORDS = frozenset({"and", "or", "not", "in", "true", "false", "none", "null"})


@dataclass(frozen=True)
class Function:
    """The number of arguments of a function; ``most`` is None if there is no limit."""

    least: int
    most: int | None


#: The functions of the language. :func:`kind_of` has their types, docs/tasks.md their meaning.
FUNCTIONS: dict[str, Function] = {
    **{name: Function(1, 1) for name in ("abs", "floor", "ceil", "sqrt", "log10", "exp")},
    **{name: Function(1, 1) for name in ("lower", "upper", "strip", "length")},
    **{name: Function(1, 1) for name in ("year", "month", "day", "weekday")},
    **{name: Function(1, 1) for name in ("hour", "minute", "second")},
    **{name: Function(1, 1) for name in ("date", "number", "text", "is_missing")},
    **{name: Function(2, 2) for name in ("contains", "starts_with", "ends_with")},
    **{name: Function(1, 2) for name in ("round", "log")},
    **{name: Function(1, None) for name in ("min", "max", "coalesce", "concat")},
    "replace": Function(3, 3),
    "substring": Function(2, 3),
    "if": Function(3, 3),
}


@dataclass(frozen=True)
class Node:
    """One part of a formula.

    Attributes:
        op: ``literal``, ``column``, an operator, or a function's name.
        position: the position of its first character, from 0.
        value: a literal's value, or a column's name.
        args: the arguments of an operator or function.
    """

    op: str
    position: int
    value: Value = None
    args: tuple["Node", ...] = ()

    def walk(self) -> Iterator["Node"]:
        """Yield this node and all below it."""
        yield self
        for arg in self.args:
            yield from arg.walk()


@dataclass(frozen=True)
class Formula:
    """A parsed formula; ``origin`` names its parameter, such as ``transformations.filter``."""

    text: str
    origin: str
    tree: Node

    def columns(self) -> dict[str, int]:
        """Return the columns that it names, with the position of their first mention."""
        found: dict[str, int] = {}
        for node in self.tree.walk():
            if node.op == "column":
                found.setdefault(str(node.value), node.position)
        return found

    def require_columns(self, known: Sequence[str]) -> None:
        """Refuse a column that does not exist.

        Raises:
            InputProblemError: names the column, its position and the nearest that exists.
        """
        for name, position in self.columns().items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
                shown = ", ".join(known[:30]) + (", ..." if len(known) > 30 else "")  # noqa: PLR2004
                hint = f"Did you mean {near[0]!r}? " if near else ""
                what = f"there is no column {name!r}"
                hint = f"{hint}There are: {shown}."
                _refuse((self.text, self.origin, position), what, hint, "column_missing")

    def refuse(self, node: Node, what: str, hint: str = "") -> NoReturn:
        """Refuse the formula because of one of its parts."""
        _refuse((self.text, self.origin, node.position), what, hint)


def _refuse(
    place: tuple[str, str, int], what: str, hint: str = "", kind: str = "formula_invalid"
) -> NoReturn:
    text, origin, position = place
    shown = text if len(text) <= 120 else f"{text[:117]}..."  # noqa: PLR2004
    message = f"{origin}: {shown!r}, character {position + 1}: {what}."
    raise InputProblemError(kind, message, hint)


def parse(text: str, origin: str) -> Formula:
    """Parse one formula.

    Args:
        text: the formula.
        origin: its parameter, for messages.

    Raises:
        InputProblemError: it is invalid; the text names the position and what was expected.
    """
    if len(text) > MAX_CHARS:
        what = f"it is {len(text)} characters long, and {MAX_CHARS} are allowed"
        _refuse((text, origin, MAX_CHARS), what)
    return Formula(text, origin, _Parser(text, origin).parse())


@dataclass(frozen=True)
class _Token:
    type: str
    text: str
    position: int


class _Parser:
    """A recursive-descent parser with one method per level of precedence."""

    def __init__(self, text: str, origin: str) -> None:
        self.text, self.origin = text, origin
        self.tokens = list(self._tokenise())
        self.at = self.depth = self.nodes = 0

    def parse(self) -> Node:
        tree = self._or()
        if self._now.type != "end":
            self._fail(f"{self._now.text!r} was not expected here")
        return tree

    # -- tokens ------------------------------------------------------------------------------

    def _tokenise(self) -> Iterator[_Token]:
        position, end = 0, len(self.text.rstrip())
        while position < end:
            match = _TOKEN.match(self.text, position)
            if match is None or match.lastgroup is None:
                start = position + len(self.text[position:]) - len(self.text[position:].lstrip())
                what = f"{self.text[start]!r} has no meaning here"
                if self.text[start] in "'\"`":
                    what = f"the quote {self.text[start]} is never closed"
                _refuse((self.text, self.origin, start), what)
            kind = match.lastgroup
            yield _Token(kind, match[kind], match.start(kind))
            position = match.end()
        yield _Token("end", "the end", len(self.text))

    @property
    def _now(self) -> _Token:
        return self.tokens[self.at]

    def _fail(self, what: str, position: int | None = None, hint: str = "") -> NoReturn:
        at = self._now.position if position is None else position
        _refuse((self.text, self.origin, at), what, hint)

    def _take(self, *texts: str) -> _Token | None:
        """Take the next token if it is one of these signs or words."""
        token = self._now
        if (token.type == "sign" and token.text in texts) or (
            token.type == "name" and token.text.lower() in texts
        ):
            self.at += 1
            return token
        return None

    def _need(self, sign: str) -> None:
        if self._take(sign) is None:
            self._fail(f"{sign!r} was expected, and here is {self._now.text!r}")

    def _node(self, op: str, position: int, *args: Node, value: Value = None) -> Node:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            self._fail(f"it has more than {MAX_NODES} parts", position)
        return Node(op, position, value, args)

    # -- levels of precedence, the loosest first -----------------------------------------------

    def _or(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self._fail(f"it is nested more than {MAX_DEPTH} deep")
        left = self._and()
        while token := self._take("or", "||"):
            left = self._node("or", token.position, left, self._and())
        self.depth -= 1
        return left

    def _and(self) -> Node:
        left = self._not()
        while token := self._take("and", "&&"):
            left = self._node("and", token.position, left, self._not())
        return left

    def _not(self) -> Node:
        signs = []
        while token := self._take("not", "!"):
            signs.append(token)
        node = self._comparison()
        for token in reversed(signs):
            node = self._node("not", token.position, node)
        return node

    def _comparison(self) -> Node:
        left = self._bit_or()
        compared: list[Node] = []
        while True:
            if token := self._take(*_COMPARISONS):
                right = self._bit_or()
                compared.append(self._node(token.text, token.position, left, right))
                left = right
            elif self._now.text.lower() in {"in", "not"} and self._now.type == "name":
                compared.append(self._in(left))
            elif self._now.text == "=" and self._now.type == "sign":
                self._fail("'=' assigns, and nothing can be assigned here", hint="Compare by ==.")
            else:
                break
        if not compared:
            return left
        node = compared[0]
        for more in compared[1:]:  # a < b < c means a < b and b < c
            node = self._node("and", more.position, node, more)
        return node

    def _in(self, left: Node) -> Node:
        negated = self._take("not")
        token = self._take("in")
        if token is None:
            self._fail("'in' was expected after 'not'")
        closing = {"(": ")", "[": "]"}
        opened = self._take(*closing)
        if opened is None:
            self._fail("a list such as ('a', 'b') was expected after 'in'")
        items = [self._or()]
        while self._take(","):
            if self._now.text == closing[opened.text]:
                break
            items.append(self._or())
        self._need(closing[opened.text])
        node = self._node("in", token.position, left, *items)
        return self._node("not", negated.position, node) if negated else node

    def _bit_or(self) -> Node:
        left = self._bit_and()
        while token := self._take("|"):
            left = self._node("or", token.position, left, self._bit_and())
        return left

    def _bit_and(self) -> Node:
        left = self._sum()
        while token := self._take("&"):
            left = self._node("and", token.position, left, self._sum())
        return left

    def _sum(self) -> Node:
        left = self._product()
        while token := self._take("+", "-"):
            left = self._node(token.text, token.position, left, self._product())
        return left

    def _product(self) -> Node:
        left = self._unary()
        while token := self._take("*", "/", "//", "%"):
            left = self._node(token.text, token.position, left, self._unary())
        return left

    def _unary(self) -> Node:
        signs = []
        while token := self._take("-", "+", "~"):
            signs.append(token)
        node = self._power()
        for token in reversed(signs):
            op = {"-": "negate", "+": "plus", "~": "not"}[token.text]
            node = self._node(op, token.position, node)
        return node

    def _power(self) -> Node:
        base = self._primary()
        if token := self._take("**"):  # to the right: 2 ** -1 ** 2
            self.depth += 1
            if self.depth > MAX_DEPTH:
                self._fail(f"it is nested more than {MAX_DEPTH} deep")
            node = self._node("**", token.position, base, self._unary())
            self.depth -= 1
            return node
        return base

    def _primary(self) -> Node:
        token = self._now
        self.at += 1
        if token.type == "number":
            return self._number(token)
        if token.type == "string":
            return self._node("literal", token.position, value=_unquote(token.text))
        if token.type == "quoted":
            return self._node("column", token.position, value=token.text[1:-1])
        if token.type == "name":
            return self._name(token)
        if token.type == "sign" and token.text == "(":
            inner = self._or()
            self._need(")")
            return inner
        self.at -= 1
        return self._fail(
            f"a value, a column or a function was expected, and here is {token.text!r}"
        )

    def _number(self, token: _Token) -> Node:
        if token.text.isdigit():
            if len(token.text.lstrip("0")) > MAX_DIGITS:
                self._fail(f"whole numbers have at most {MAX_DIGITS} digits", token.position)
            return self._node("literal", token.position, value=int(token.text))
        value = float(token.text)
        if value == float("inf"):
            self._fail(f"{token.text} is too large for a number", token.position)
        return self._node("literal", token.position, value=value)

    def _name(self, token: _Token) -> Node:
        word = token.text.lower()
        if word in {"true", "false"}:
            return self._node("literal", token.position, value=word == "true")
        if word in {"none", "null"}:
            return self._node("literal", token.position)
        if word in _KEYWORDS:
            self.at -= 1
            self._fail(f"a value was expected before {token.text!r}")
        if token.text == "df" and self._take("["):
            return self._column(token, "]")
        if token.text == "col" and self._take("("):
            return self._column(token, ")")
        if self._now.type == "sign" and self._now.text == "(":
            return self._call(token)
        return self._node("column", token.position, value=token.text.removeprefix("df."))

    def _column(self, token: _Token, closing: str) -> Node:
        name = self._now
        if name.type != "string":
            self._fail("a column's name in quotes was expected")
        self.at += 1
        self._need(closing)
        return self._node("column", token.position, value=_unquote(name.text))

    def _call(self, token: _Token) -> Node:
        name = token.text.removeprefix("np.").lower()
        function = FUNCTIONS.get(name)
        if function is None:
            near = difflib.get_close_matches(name, FUNCTIONS, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            known = ", ".join(sorted(FUNCTIONS))
            what = f"there is no function {token.text!r}"
            self._fail(what, token.position, f"{hint}There are: {known}.")
        self._need("(")
        args: list[Node] = []
        while not self._take(")"):
            if args:
                self._need(",")
            args.append(self._or())
        if not function.least <= len(args) <= (function.most or len(args)):
            wanted = " to ".join(
                str(n) for n in sorted({function.least, function.most or function.least})
            )
            wanted += "" if function.most else " or more"
            self._fail(f"{name} takes {wanted} arguments, not {len(args)}", token.position)
        return self._node(name, token.position, *args)


def _unquote(text: str) -> str:
    return re.sub(
        r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text[1:-1], flags=re.DOTALL
    )


# -- types -----------------------------------------------------------------------------------------

_TEXT = ("lower", "upper", "strip", "length", "contains", "starts_with", "ends_with", "replace")
_DATE_PARTS = ("year", "month", "day", "weekday")
_TIME_PARTS = ("hour", "minute", "second")


def kind_of(formula: Formula, node: Node, columns: Mapping[str, Kind]) -> Kind:
    """Return the type of a part's values; check the types of all parts below it.

    Args:
        formula: for messages.
        node: the part.
        columns: the types of the columns.

    Raises:
        InputProblemError: the types are invalid for an operator or function; the text names its
            position and the type.
    """
    if node.op == "literal":
        return _literal_kind(node.value)
    if node.op == "column":
        return columns[str(node.value)]
    kinds = [kind_of(formula, arg, columns) for arg in node.args]
    return _Checker(formula, node, kinds).kind()


def _literal_kind(value: Value) -> Kind:
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    return "number" if isinstance(value, float) else "text"


def common(kinds: Sequence[Kind]) -> Kind | None:
    """Return the common type of all these types, or None."""
    found = {kind for kind in kinds if kind != "missing"}
    if not found:
        return "missing"
    if found <= NUMERIC:
        return "integer" if found == {"integer"} else "number"
    if found <= TEMPORAL:
        return "date" if found == {"date"} else "datetime"
    return found.pop() if len(found) == 1 else None


class _Checker:
    """Checks the types of one operator or function, given those of its arguments."""

    def __init__(self, formula: Formula, node: Node, kinds: list[Kind]) -> None:
        self.formula, self.node, self.kinds = formula, node, kinds

    def kind(self) -> Kind:
        op = self.node.op
        if op in {"and", "or", "not"}:
            self._all({"boolean"}, "true or false")
            return "boolean"
        if op in _COMPARISONS or op == "in":
            return self._comparison()
        if op in {"+", "-", "*", "/", "//", "%", "**", "negate", "plus"}:
            return self._arithmetic()
        return self._function()

    def _all(self, allowed: set[str] | frozenset[str], what: str) -> None:
        for arg, kind in zip(self.node.args, self.kinds, strict=True):
            if kind not in allowed and kind != "missing":
                name = {"negate": "-", "plus": "+"}.get(self.node.op, self.node.op)
                shown = f"column {arg.value!r} is" if arg.op == "column" else "this is"
                hint = ""
                if what == "numbers" and kind == "text":
                    hint = "number(...) reads numbers from text."
                elif self.node.op in {"and", "or"}:
                    hint = "Put comparisons beside & and | in parentheses."
                self.formula.refuse(arg, f"{name!r} needs {what}, and {shown} {kind}", hint)

    def _common(self) -> Kind:
        kind = common(self.kinds)
        if kind is None:
            what = f"{self.node.op!r} got values of different types: {', '.join(self.kinds)}"
            self.formula.refuse(self.node, what)
        return kind

    def _comparison(self) -> Kind:
        for arg, kind in zip(self.node.args, self.kinds, strict=True):
            # A column may have no value today, and some tomorrow.
            if kind == "missing" and all(part.op != "column" for part in arg.walk()):
                what = "a comparison with a missing value is never true"
                self.formula.refuse(self.node, what, "Ask is_missing(...).")
        first, *others = self.node.args
        if self.node.op == "in":
            for item in others:
                if item.op not in {"literal", "negate"}:
                    self.formula.refuse(item, "the list after 'in' holds plain values only")
        kinds = list(self.kinds)
        if any(kind in TEMPORAL for kind in kinds):  # day > '2026-01-31'
            pairs = zip(kinds, (first, *others), strict=True)
            kinds = [
                "datetime" if kind == "text" and arg.op == "literal" else kind
                for kind, arg in pairs
            ]
        if common(kinds) is None:
            what = f"{self.node.op!r} cannot compare {' with '.join(dict.fromkeys(kinds))}"
            self.formula.refuse(self.node, what)
        return "boolean"

    def _arithmetic(self) -> Kind:
        op = self.node.op
        if op == "+" and "text" in self.kinds and set(self.kinds) <= {"text", "missing"}:
            return "text"
        if op == "-" and common(self.kinds) in TEMPORAL:
            return "number"
        self._all(NUMERIC, "numbers")
        if op in {"/", "**"} or common(self.kinds) == "missing":
            return "number"
        return self._common()

    def _function(self) -> Kind:
        op = self.node.op
        if op in {"abs", "floor", "ceil", "round"}:
            self._all(NUMERIC, "numbers")
            if op == "round" and len(self.node.args) > 1:
                self._literal(self.node.args[1], range(16))
            return "number" if self.kinds[0] == "missing" else self.kinds[0]
        if op in {"sqrt", "log", "log10", "exp"}:
            self._all(NUMERIC, "numbers")
            return "number"
        if op in _TEXT:
            self._all({"text"}, "text")
            if op == "length":
                return "integer"
            return "boolean" if op in {"contains", "starts_with", "ends_with"} else "text"
        if op in _DATE_PARTS or op in _TIME_PARTS:
            allowed = TEMPORAL if op in _DATE_PARTS else {"datetime"}
            self._all(allowed, " or ".join(sorted(allowed)))
            return "integer"
        return self._other()

    def _other(self) -> Kind:
        op = self.node.op
        if op in {"min", "max", "coalesce"}:
            return self._common()
        if op == "if":
            condition, *self.kinds = self.kinds
            if condition not in {"boolean", "missing"}:
                self.formula.refuse(self.node.args[0], f"'if' needs true or false, not {condition}")
            return self._common()
        if op == "substring":
            if self.kinds[0] not in {"text", "missing"}:
                self.formula.refuse(
                    self.node.args[0], f"'substring' needs text, not {self.kinds[0]}"
                )
            for arg in self.node.args[1:]:
                self._literal(arg, range(1 << 20))
            return "text"
        if op == "date":
            self._all({"text", "date", "datetime"}, "text, date or datetime")
            return "date"
        if op == "number":
            self._all({"text", "boolean"} | NUMERIC, "text or numbers")
            return "number"
        return "text" if op in {"text", "concat"} else "boolean"

    def _literal(self, arg: Node, allowed: range) -> None:
        ok = arg.op == "literal" and isinstance(arg.value, int) and arg.value in allowed
        if not ok:
            what = f"{self.node.op!r} needs a plain whole number, 0 to {allowed[-1]}, here"
            self.formula.refuse(arg, what)
