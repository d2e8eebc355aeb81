"""Small errors in a program, as people and models make them: each one change of its syntax tree."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from dataclasses import dataclass

_OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mod,
    ast.Mod: ast.FloorDiv,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
_COMPARISONS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


@dataclass(frozen=True)
class Mutation:
    """A program with one change, and of which kind that is."""

    kind: str
    code: str


def normalised(code: str) -> str:
    """Return a program as Python writes its syntax tree, so that its layout tells nothing; raises SyntaxError."""
    return ast.unparse(ast.parse(code))


def mutations(code: str, draws: random.Random, count: int) -> list[Mutation]:
    """Return programs with one change each, all different, and of different kinds as far as there are any.

    Args:
        code: From `normalised`.
        draws: Decides which.
        count: How many, at most.
    """
    found = {code: Mutation("none", code)}
    for place in range(sum(1 for _ in ast.walk(ast.parse(code)))):
        tree = ast.parse(code)
        node = list(ast.walk(tree))[place]
        for kind in _changes(node, _names(tree), draws):
            changed = ast.unparse(ast.fix_missing_locations(tree))
            found.setdefault(changed, Mutation(kind, changed))
    drawn = [mutation for mutation in found.values() if mutation.kind != "none"]
    draws.shuffle(drawn)
    seen: dict[str, int] = {}
    ranks = []
    for mutation in drawn:
        ranks.append(seen.setdefault(mutation.kind, 0))
        seen[mutation.kind] += 1
    return [mutation for _, mutation in sorted(zip(ranks, drawn, strict=True), key=lambda pair: pair[0])][:count]


def _changes(node: ast.AST, names: list[str], draws: random.Random) -> Iterator[str]:
    """Change a node in place where it can be; yields the kind of change."""
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in _OPERATORS:
        node.op = _OPERATORS[type(node.op)]()  # type: ignore[assignment]
        yield "operator"
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARISONS:
        node.ops[0] = _COMPARISONS[type(node.ops[0])]()  # type: ignore[call-overload]
        yield "comparison"
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        node.value += draws.choice((-1, 1))
        yield "constant"
    elif isinstance(node, ast.If):
        node.test = ast.Constant(value=bool(node.orelse and draws.random() < 0.5))
        yield "branch"
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and len(names) > 1 and node.id in names:
        node.id = draws.choice([name for name in names if name != node.id])
        yield "variable"


def _names(tree: ast.AST) -> list[str]:
    """Return the variables and arguments of a program."""
    stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return sorted(stored | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)})
