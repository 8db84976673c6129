"""The expression of a filter as a tree.

Invariant: the text of a tree is canonical. Two texts that differ in spaces, quotes, case of key words, redundant
parentheses, or the order of terms and values have the same canonical text, which is a filter with the same meaning.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

Value: TypeAlias = str | float | bool | None
Operator: TypeAlias = Literal["==", "<", "<=", ">", ">="]

_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
KEY_WORDS: Final = frozenset({"and", "or", "not", "in", "true", "false", "null"})


@dataclass(frozen=True, slots=True)
class Comparison:
    """Whether an attribute has a value that compares so with a constant.

    Attributes:
        attribute: The attribute's name.
        operator: How to compare.
        value: The constant; None, with "==" alone, holds where the attribute is missing.
        column: Where the comparison begins in the text, from 1.
    """

    attribute: str
    operator: Operator
    value: Value
    column: int = field(default=1, compare=False)

    def __str__(self) -> str:
        return f"{name_text(self.attribute)} {self.operator} {value_text(self.value)}"


@dataclass(frozen=True, slots=True)
class Membership:
    """Whether an attribute has one of several values.

    Attributes:
        attribute: The attribute's name.
        values: The constants, in canonical order, each once.
        column: Where it begins in the text, from 1.
    """

    attribute: str
    values: tuple[Value, ...]
    column: int = field(default=1, compare=False)

    def __str__(self) -> str:
        return f"{name_text(self.attribute)} in [{', '.join(map(value_text, self.values))}]"


@dataclass(frozen=True, slots=True)
class Not:
    """Whether an expression does not hold."""

    term: "Expression"

    def __str__(self) -> str:
        return f"not ({self.term})"


@dataclass(frozen=True, slots=True)
class Junction:
    """Whether all terms hold ("and"), or one of them ("or").

    Attributes:
        word: Which of the two.
        terms: At least two, in canonical order, each once, and none of them a junction of the same word.
    """

    word: Literal["and", "or"]
    terms: tuple["Expression", ...]

    def __str__(self) -> str:
        return f" {self.word} ".join(f"({term})" if isinstance(term, Junction) else str(term) for term in self.terms)


Expression: TypeAlias = Comparison | Membership | Not | Junction


def junction(word: Literal["and", "or"], terms: list[Expression]) -> Expression:
    """Join expressions by "and" or "or"."""
    flat: list[Expression] = []
    for term in terms:
        flat += term.terms if isinstance(term, Junction) and term.word == word else (term,)
    by_text = {str(term): term for term in reversed(flat)}
    if len(by_text) == 1:
        return flat[0]
    return Junction(word, tuple(by_text[text] for text in sorted(by_text)))


def negation(term: Expression) -> Expression:
    """Negate an expression; two negations cancel out."""
    return term.term if isinstance(term, Not) else Not(term)


def membership(attribute: str, values: list[Value], column: int) -> Expression:
    """Return whether an attribute has one of several values; a single one is a comparison."""
    by_text = {value_text(value): value for value in values}
    if len(by_text) == 1:
        return Comparison(attribute, "==", values[0], column)
    return Membership(attribute, tuple(by_text[text] for text in sorted(by_text)), column)


def name_text(attribute: str) -> str:
    """Return an attribute's name as a filter writes it: in backquotes unless it is a plain word."""
    if _PLAIN_NAME.fullmatch(attribute) and attribute.lower() not in KEY_WORDS:
        return attribute
    return "`" + attribute + "`"


def value_text(value: Value) -> str:
    """Return a constant as a filter writes it."""
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return json.dumps(value, ensure_ascii=False)


def terms_of(expression: Expression) -> int:
    """Count the comparisons and memberships of an expression."""
    if isinstance(expression, Not):
        return terms_of(expression.term)
    if isinstance(expression, Junction):
        return sum(map(terms_of, expression.terms))
    return 1
