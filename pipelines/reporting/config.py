"""Reading a run's `config.py` without running it: a report is made of directories that others wrote."""

import ast
from pathlib import Path
from typing import Any


class _Plain(ast.NodeTransformer):
    """`dict(a=1)` and, of keys that are no names, `dict({"b.c": 1})`, as MMEngine writes them, to dictionaries."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if not (isinstance(node.func, ast.Name) and node.func.id == "dict"):
            raise ValueError(f"line {node.lineno}: not a plain value")
        if len(node.args) == 1 and isinstance(node.args[0], ast.Dict) and not node.keywords:
            return node.args[0]
        if node.args:
            raise ValueError(f"line {node.lineno}: not a plain value")
        keys: list[ast.expr | None] = [ast.Constant(keyword.arg) for keyword in node.keywords]
        return ast.Dict(keys, [keyword.value for keyword in node.keywords])


def read_config(path: Path) -> dict[str, Any]:
    """The variables of a composed config.

    Raises:
        OSError: it cannot be read.
        SyntaxError, ValueError: it is not Python, or holds more than plain values.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    config: dict[str, Any] = {}
    for statement in tree.body:
        if not (isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)):
            raise ValueError(f"line {statement.lineno}: not a composed config")
        config[statement.targets[0].id] = ast.literal_eval(_Plain().visit(statement.value))
    return config


def at(config: Any, path: str, default: Any = None) -> Any:
    """The value at a dotted path, or the default where something on the way is missing or no dictionary."""
    for key in path.split("."):
        if not isinstance(config, dict) or key not in config:
            return default
        config = config[key]
    return config
