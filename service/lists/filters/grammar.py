"""The grammar of filters and its parser; loaded at the first filter, because lark costs a server's start.

Invariant: the parser is LALR(1), so its time is linear in the text, and it does not recurse.
"""

import re
from typing import Any, Final, Literal

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedToken, v_args

from service.errors import FilterRefused
from service.lists.filters.expression import Comparison, Expression, Not, Value, junction, membership, negation

DEPTH_LIMIT: Final = 16
"""Levels of parentheses and of `not`."""

GRAMMAR: Final = r"""
    ?start: either
    either: both ("or"i both)*
    both: term ("and"i term)*
    ?term: "not"i term -> negated
         | "(" either ")" -> nested
         | name EQUALITY value -> equality
         | name ORDER value -> order
         | name "in"i list -> among
         | name "not"i "in"i list -> not_among
         | value "in"i name -> contained
         | value "not"i "in"i name -> not_contained
         | name -> holds
    list: "[" value ("," value)* "]"
    name: NAME | QUOTED_NAME
    ?value: STRING -> string
          | NUMBER -> number
          | "true"i -> true
          | "false"i -> false
          | "null"i -> null

    EQUALITY: "==" | "!="
    ORDER: "<=" | ">=" | "<" | ">"
    NAME: /[a-z_][a-z0-9_]*/i
    QUOTED_NAME: /`[^`\x00-\x1f]+`/
    STRING: /"(?:[^"\\\x00-\x1f]|\\.)*"/ | /'(?:[^'\\\x00-\x1f]|\\.)*'/
    NUMBER: /-?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?(?![a-z0-9_])/i
    %ignore /[ \t\r\n]+/
"""
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPED: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "/": "/", "\\": "\\", '"': '"', "'": "'"}
_NUMBER_LIMIT: Final = 1e300
# What may come next in the words of a reader, in the order of a message.
_EXPECTED: Final = {
    "an attribute": {"NAME", "QUOTED_NAME"},
    "an operator (== != < <= > >= in)": {"EQUALITY", "ORDER"},
    "'in'": {"IN"},
    "a value": {"STRING", "NUMBER", "TRUE", "FALSE", "NULL"},
    "'['": {"LSQB"},
    "','": {"COMMA"},
    "']'": {"RSQB"},
    "'and'": {"AND"},
    "'or'": {"OR"},
    "')'": {"RPAR"},
    "the end": {"$END"},
}


def read(text: str) -> Expression:
    """Return the expression of a filter.

    Raises:
        FilterRefused: The text is not of the grammar, or nested too deeply.
    """
    end = len(text) + 1
    try:
        # The transformer returns a tree and its depth in place of lark's parse tree.
        result: tuple[Expression, int] = _LARK.parse(text)  # type: ignore[assignment]
    except UnexpectedToken as error:
        token: Token = error.token
        if token.type == "$END":
            raise FilterRefused(f"ends where {_expected(error.accepts)} is needed", end) from None
        column = (token.start_pos or 0) + 1
        raise FilterRefused(f"has {token.value[:32]!r} where {_expected(error.accepts)} is needed", column) from None
    except UnexpectedCharacters as error:
        # lark declares it as None and sets a number.
        position: Any = error.pos_in_stream
        raise FilterRefused(_unreadable(text, position), position + 1) from None
    return result[0]


class _Builder(Transformer[Token, Any]):
    """Builds trees bottom-up: an expression is a pair of the tree and its depth, a name one of text and column."""

    def either(self, terms: list[Any]) -> Any:
        return _joined("or", terms)

    def both(self, terms: list[Any]) -> Any:
        return _joined("and", terms)

    @v_args(inline=True)
    def negated(self, term: tuple[Expression, int]) -> Any:
        return negation(term[0]), _deeper(term[1])

    @v_args(inline=True)
    def nested(self, term: tuple[Expression, int]) -> Any:
        return term[0], _deeper(term[1])

    @v_args(inline=True)
    def equality(self, name: tuple[str, int], operator: Token, value: Value) -> Any:
        found = Comparison(name[0], "==", value, name[1])
        return (found if operator == "==" else Not(found)), 0

    @v_args(inline=True)
    def order(self, name: tuple[str, int], operator: Token, value: Value) -> Any:
        if value is None or isinstance(value, bool):
            raise FilterRefused(f"compares by {operator} with neither a number nor a string", name[1])
        return Comparison(name[0], operator.value, value, name[1]), 0

    @v_args(inline=True)
    def among(self, name: tuple[str, int], values: list[Value]) -> Any:
        return membership(name[0], values, name[1]), 0

    @v_args(inline=True)
    def not_among(self, name: tuple[str, int], values: list[Value]) -> Any:
        return Not(membership(name[0], values, name[1])), 0

    @v_args(inline=True)
    def contained(self, value: Value, name: tuple[str, int]) -> Any:
        return Comparison(name[0], "==", value, name[1]), 0

    @v_args(inline=True)
    def not_contained(self, value: Value, name: tuple[str, int]) -> Any:
        return Not(Comparison(name[0], "==", value, name[1])), 0

    @v_args(inline=True)
    def holds(self, name: tuple[str, int]) -> Any:
        return Comparison(name[0], "==", value=True, column=name[1]), 0

    def list(self, values: list[Value]) -> Any:
        return values

    @v_args(inline=True)
    def name(self, token: Token) -> Any:
        return token.value.strip("`"), (token.start_pos or 0) + 1

    @v_args(inline=True)
    def string(self, token: Token) -> Value:
        return _unescaped(token)

    @v_args(inline=True)
    def number(self, token: Token) -> Value:
        value = float(token)
        if abs(value) > _NUMBER_LIMIT:
            raise FilterRefused("has a number out of range", (token.start_pos or 0) + 1)
        return value

    def true(self, _: Any) -> Value:
        return True

    def false(self, _: Any) -> Value:
        return False

    def null(self, _: Any) -> Value:
        return None


_LARK: Final = Lark(GRAMMAR, parser="lalr", transformer=_Builder())


def _joined(word: Literal["and", "or"], terms: list[tuple[Expression, int]]) -> tuple[Expression, int]:
    return junction(word, [tree for tree, _ in terms]), max(depth for _, depth in terms)


def _deeper(depth: int) -> int:
    if depth >= DEPTH_LIMIT:
        raise FilterRefused(f"is nested more than {DEPTH_LIMIT} levels deep", 1)
    return depth + 1


def _unescaped(token: Token) -> str:
    start = (token.start_pos or 0) + 2

    def character(match: re.Match[str]) -> str:
        code = match[1]
        if len(code) == 5:
            return chr(int(code[1:], 16))
        if code not in _ESCAPED:
            raise FilterRefused(f"has an unknown escape \\{code} in a string", start + match.start())
        return _ESCAPED[code]

    text = _ESCAPE.sub(character, token.value[1:-1])
    # A pair of surrogates is one character; a lone one is none.
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise FilterRefused("has half a surrogate pair in a string", start) from None


def _expected(terminals: set[str] | None) -> str:
    found = [words for words, names in _EXPECTED.items() if names & (terminals or set())]
    # In front of a term everything may come; the attribute is what a reader looks for.
    if "an attribute" in found:
        return "a comparison"
    if "an operator (== != < <= > >= in)" in found:
        return "an operator (== != < <= > >= in)"
    return ", ".join(found[:-1]) + " or " + found[-1] if len(found) > 1 else (found or ["another token"])[0]


def _unreadable(text: str, position: int) -> str:
    character = text[position]
    if character in "\"'`":
        return f"has a string or name without its closing {character}, or with a control character in it"
    if character == "=":
        return "has '=' where '==' is needed"
    if character.isdigit() or character == "-":
        return "has a malformed number"
    if character in "&|!":
        return f"has {character!r} where 'and', 'or' or 'not' is needed"
    return f"has an unexpected {character!r}"
