"""Compiles Python files. The package's interpreter runs this module as text, so it imports no module of ours.

Reads a JSON object from standard input: ``root``, ``prefix`` (where that folder will be at run time) and ``files``, a
list of ``[path, form]``. The bytecode of the form ``whole`` is in ``__pycache__``. That of the form ``bare`` has
shortened docstrings and takes the place of the source. A file that this Python cannot read stays unchanged.
"""

import ast
import importlib.util
import json
import marshal
import sys
import warnings
from pathlib import Path
from types import CodeType

# Not None, as under `python -OO`, because SQLAlchemy asserts that some docstrings exist.
_DOCSTRING = "."
# Types of objects to which several places in code may refer.
_REFERRED_TO = (
    *("co_consts", "co_names", "co_varnames", "co_freevars", "co_cellvars"),
    *("co_code", "co_name", "co_qualname", "co_filename"),
)


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


def marshalled(code: CodeType) -> bytes:
    """Marshal code to the same bytes in any process.

    `marshal` marks objects with more than one reference. Before Python 3.11 it also counts references from other files,
    for instance to a name. Therefore this function keeps one more reference to every object, so that all are marked.
    """
    held: list[object] = []
    to_hold: list[object] = [code]
    while to_hold:
        value = to_hold.pop()
        held.append(value)
        match value:
            case CodeType():
                to_hold += [getattr(value, name, None) for name in _REFERRED_TO]
            case tuple() | frozenset():
                to_hold += value
            case str() if len(value) == 1:
                # The process has one object for each such string, and another file may have interned it.
                sys.intern(value)
            case slice():  # a constant since Python 3.14
                to_hold += [value.start, value.stop, value.step]
    return marshal.dumps(code)


def compile_file(root: Path, prefix: str, path: str, form: str) -> None:
    """Compile one file."""
    file = root / path
    source = file.read_bytes()
    bare = form == "bare"
    # The whole form needs no syntax tree: parsing to one takes as long as compiling.
    module = shorten_docstrings(ast.parse(source)) if bare else source
    code = compile(module, f"{prefix}/{path}", "exec", dont_inherit=True)
    # PEP 552: unchecked, so it is valid wherever and whenever the package is unpacked. `py_compile` accepts no syntax
    # tree.
    header = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + importlib.util.source_hash(source)
    cached = Path(f"{file}c" if bare else importlib.util.cache_from_source(str(file)))
    cached.parent.mkdir(exist_ok=True)
    cached.write_bytes(header + marshalled(code))
    if bare:
        file.unlink()


def main() -> None:
    """Compile the files that the JSON on standard input lists."""
    warnings.simplefilter("ignore")  # such as those about escapes in strings of libraries
    request = json.load(sys.stdin)
    for path, form in request["files"]:
        try:
            compile_file(Path(request["root"]), request["prefix"], path, form)
        except (SyntaxError, ValueError):  # a template, or a test of a reader of Python
            continue


if __name__ == "__main__":
    main()
