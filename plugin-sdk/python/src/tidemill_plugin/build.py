"""Makes a plugin of Python files: `python -m tidemill_plugin.build MAIN.py -o OUT.wasm`.

componentize-py makes a component of them and the SDK, in the smallest world that has what they import of the host. It is
looked for beside the Python that runs this, and then on the PATH.
"""

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Iterable, Iterator, List, Optional, Sequence, Tuple

_HERE = Path(__file__).resolve().parent
_VERSION = "componentize-py==0.25.1"

_PROBE = """
import importlib, json, os, sys
main = importlib.import_module(sys.argv[1])
files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
own = [file for file in files.values() if file and file.startswith(sys.argv[2] + os.sep)]
exports = [name for name in ("Transformer", "Dialler") if hasattr(main, name)]
print(json.dumps([exports, list(files), own]))
"""
"""Imports the plugin natively, and says what it exports, what it has imported, and the files of its folder among that."""


class BuildError(Exception):
    """What cannot be built, in words for the person who builds it."""


def world(main: str, exports: Sequence[str], modules: Sequence[str]) -> str:
    """The smallest world that has what the modules of the SDK import, for a main module of this name."""
    used = {module.rpartition(".")[2] for module in modules}
    uses_host = used & {"log", "state", "metrics", "clock", "random"}
    if "Transformer" in exports:
        return "transform-http" if "http" in used else "transform" if uses_host else "transform-pure"
    if "Dialler" in exports:
        return "connector-http" if "http" in used else "connector"
    raise BuildError(f"{main} has neither `Transformer = export(...)` nor `Dialler = export_connector(...)`")


def late_imports(file: Path, imported: Iterable[str]) -> Iterator[Tuple[int, str, str]]:
    """The imports within functions of what the build has not imported: their lines, the modules, and the functions.

    One whose failure is caught may be meant so.
    """
    known = set(imported)

    def visit(node: ast.AST, function: Optional[str]) -> Iterator[Tuple[int, str, str]]:
        if isinstance(node, ast.Try):
            return
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            function = node.name
        if function and isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif function and isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        else:
            names = []
        yield from ((getattr(node, "lineno"), name, str(function)) for name in names if name not in known)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function)

    return visit(ast.parse(file.read_text()), None)


def build(main: Path, output: Path) -> None:
    """Builds a plugin, whose other modules are beside its main one."""
    tool = _tool()
    folder = str(main.resolve().parent)
    paths = [folder, str(_HERE.parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
    probe = subprocess.run(
        [sys.executable, "-c", _PROBE, main.stem, folder], env=environment, cwd=folder, capture_output=True, text=True
    )
    if probe.returncode != 0:
        raise BuildError(f"{main} cannot be imported\n{probe.stderr}")
    # What the plugin prints while it is imported comes first.
    exports, modules, files = json.loads(probe.stdout.rstrip("\n").split("\n")[-1])
    for file in map(Path, files):
        # The SDK may be in the folder, too.
        for line, module, function in late_imports(file, modules) if _HERE not in file.parents else ():
            place = f"{file.relative_to(folder)}:{line}"
            raise BuildError(
                f"{place}: {module} is imported within {function}, when there are no files any more: "
                "import it at the top of the file"
            )
    command: List[str] = [tool, "--wit-path", str(_HERE / "wit"), "--world", world(main.name, exports, modules)]
    command += ["componentize", "--output", str(output)]
    for path in paths:
        command += ["--python-path", path]
    made = subprocess.run([*command, main.stem], capture_output=True, text=True)
    if made.returncode != 0:
        raise BuildError(f"componentize-py failed\n{made.stdout}{made.stderr}")


def _tool() -> str:
    beside = shutil.which("componentize-py", path=str(Path(sys.executable).parent))
    tool = beside or shutil.which("componentize-py")
    if tool is None:
        raise BuildError(f"componentize-py is not installed: pip install {_VERSION}")
    return tool


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="tidemill_plugin.build", description="Makes a plugin of Python files.")
    parser.add_argument("main", type=Path, help="the main module, which has Transformer or Dialler")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the plugin")
    options = parser.parse_args(arguments)
    try:
        build(options.main, options.output)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
