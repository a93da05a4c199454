"""Compiles Python files; run by the interpreter that a package is built for, as text, with nothing of ours imported.

Reads a JSON object from standard input: ``root``, ``prefix`` (where that folder will be at run time) and ``files``, a
list of ``[path, bare]``. A bare file is replaced by its bytecode, with next to nothing for docstrings; any other gets
its bytecode in ``__pycache__``. What this Python cannot read stays as it is.
"""

import ast
import importlib.util
import json
import marshal
import sys
import warnings
from pathlib import Path

# Not None, as under `python -OO`: SQLAlchemy asserts in places that there is one, and those asserts should stay.
_DOCSTRING = "."


def shorten_docstrings(module: ast.Module) -> ast.Module:
    """Replace every docstring in a module."""
    for node in ast.walk(module):
        match node:
            case (
                ast.Module(body=[ast.Expr(ast.Constant(str()) as docstring), *_])
                | ast.ClassDef(body=[ast.Expr(ast.Constant(str()) as docstring), *_])
                | ast.FunctionDef(body=[ast.Expr(ast.Constant(str()) as docstring), *_])
                | ast.AsyncFunctionDef(body=[ast.Expr(ast.Constant(str()) as docstring), *_])
            ):
                docstring.value = _DOCSTRING
    return module


def compile_file(root: Path, prefix: str, path: str, *, bare: bool) -> None:
    """Compile one file."""
    file = root / path
    source = file.read_bytes()
    module = ast.parse(source)
    code = compile(shorten_docstrings(module) if bare else module, f"{prefix}/{path}", "exec", dont_inherit=True)
    # PEP 552: unchecked, so it holds wherever and whenever the package is unpacked. `py_compile` takes no syntax tree.
    header = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + importlib.util.source_hash(source)
    cached = Path(f"{file}c" if bare else importlib.util.cache_from_source(str(file)))
    cached.parent.mkdir(exist_ok=True)
    cached.write_bytes(header + marshal.dumps(code))
    if bare:
        file.unlink()


def main() -> None:
    """Compile what is asked for on standard input."""
    warnings.simplefilter("ignore")  # about escapes in other people's strings
    asked = json.load(sys.stdin)
    for path, bare in asked["files"]:
        try:
            compile_file(Path(asked["root"]), asked["prefix"], path, bare=bare)
        except (SyntaxError, ValueError):  # a template, or a test of a reader of Python
            continue


if __name__ == "__main__":
    main()
