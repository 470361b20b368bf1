"""The shape of the code: links, sizes, names and kinds of classes, as STYLE asks.

Imports between layers are checked by `lint-imports`; annotations by mypy; the rest is here, read
from the syntax tree, so that no module is imported.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parent.parent
LINKED = ("model", "engines", "workflows")
SOURCE_FOLDERS = ("tace_al", *LINKED)
OTHER_FOLDERS = ("tests", "benchmarks", "examples")

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 8
BANNED_MODULES = {"utils", "util", "helpers", "helper", "misc", "common", "tools"}
BANNED_CLASS_ENDINGS = ("Manager", "Handler", "Wrapper", "Utils", "Helper", "Helpers", "Mixin")
# Bases whose subclasses are plain data or errors and need no @final.
DATA_BASES = {
    "BaseModel",
    "Document",
    "EmbeddedDocument",
    "Enum",
    "IntEnum",
    "StrEnum",
    "Exception",
    "NamedTuple",
    "Protocol",
    "TypedDict",
    "Warning",
}

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Node = TypeVar("Node", bound=ast.AST)


def python_files(folders: tuple[str, ...]) -> list[Path]:
    """Return the Python files under `folders`, each once: links are not followed."""
    found = []
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            linked = any(parent.is_symlink() for parent in path.parents if parent != ROOT)
            if not linked and "__pycache__" not in path.parts:
                found.append(path)
    return found


@cache
def tree(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def name(path: Path) -> str:
    """Return the path as it is shown in a failure."""
    return str(path.relative_to(ROOT))


def nodes(folders: tuple[str, ...], *kinds: type[Node]) -> Iterator[tuple[Path, Node]]:
    """Yield every node of the given kinds with its file."""
    for path in python_files(folders):
        for node in ast.walk(tree(path)):
            if isinstance(node, kinds):
                yield path, node


def label(node: ast.expr) -> str:
    """Return the last name of `a.b.c`, `a.b[c]` or `a.b(c)`: "b" of "a.b(c)"."""
    if isinstance(node, ast.Call):
        return label(node.func)
    if isinstance(node, ast.Subscript):
        return label(node.value)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def decorators(node: ast.ClassDef | FunctionNode) -> set[str]:
    """Return the last names of a node's decorators."""
    return {label(decorator) for decorator in node.decorator_list}


@cache
def source_classes() -> dict[str, list[tuple[Path, ast.ClassDef]]]:
    """Return every class of the source folders by name."""
    found: dict[str, list[tuple[Path, ast.ClassDef]]] = {}
    for path, node in nodes(SOURCE_FOLDERS, ast.ClassDef):
        found.setdefault(node.name, []).append((path, node))
    return found


def class_named(class_name: str, seen_from: Path) -> tuple[Path, ast.ClassDef] | None:
    """Return the class that a name means in a file: the file's own, or the one elsewhere."""
    known = source_classes().get(class_name, [])
    own = [item for item in known if item[0] == seen_from]
    return (own or known or [None])[0]


def ancestors(class_name: str, seen_from: Path) -> set[str]:
    """Return the names of all bases, followed as far as our own classes go."""
    found: set[str] = set()
    waiting = [(class_name, seen_from)]
    while waiting:
        known = class_named(*waiting.pop())
        if known is not None:
            bases = {label(base) for base in known[1].bases} - found
            found |= bases
            waiting.extend((base, known[0]) for base in bases)
    return found


def is_abstract(node: ast.ClassDef) -> bool:
    """Whether a class has an abstract method."""
    methods = [item for item in node.body if isinstance(item, FunctionNode)]
    return any("abstractmethod" in decorators(method) for method in methods)


def test_root_folders_are_linked_into_the_package() -> None:
    for folder in LINKED:
        link = ROOT / "tace_al" / folder
        assert link.is_symlink(), f"tace_al/{folder} must be a symbolic link"
        assert str(link.readlink()) == f"../{folder}", f"tace_al/{folder} must link to ../{folder}"


def test_files_are_short() -> None:
    long = {
        name(path): num_lines
        for path in python_files(SOURCE_FOLDERS + OTHER_FOLDERS)
        if (num_lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_FILE_LINES
    }
    assert not long, f"files over {MAX_FILE_LINES} lines, split them: {long}"


def test_functions_fit_on_a_screen() -> None:
    long = {
        f"{name(path)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path, node in nodes(SOURCE_FOLDERS + OTHER_FOLDERS, *FUNCTIONS)
        if node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert not long, f"functions over {MAX_FUNCTION_LINES} lines: {long}"


def command_names() -> set[str]:
    """Return the functions that `cli/main.py` registers: `app.command(...)(name)`."""
    return {
        label(node.args[0])
        for node in ast.walk(tree(ROOT / "tace_al/cli/main.py"))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Call) and node.args
        if label(node.func) == "command"
    }


def test_functions_take_few_parameters() -> None:
    """Commands and workflows are exempt: each of their parameters is an option to the user."""
    many, commands = {}, command_names()
    for path, node in nodes(SOURCE_FOLDERS, *FUNCTIONS):
        arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
        names = [argument.arg for argument in arguments if argument.arg not in ("self", "cls")]
        is_command = path.parent.name == "cli" and node.name in commands
        is_workflow = path.parent == ROOT / "workflows"
        if len(names) > MAX_PARAMETERS and not (is_command or is_workflow):
            many[f"{name(path)}:{node.lineno} {node.name}"] = len(names)
    assert commands, "no command is registered in cli/main.py"
    assert not many, f"functions with more than {MAX_PARAMETERS} parameters: {many}"


def test_no_name_says_nothing() -> None:
    files = [name(path) for path in python_files(SOURCE_FOLDERS) if path.stem in BANNED_MODULES]
    folders = [name(path.parent) for path in python_files(SOURCE_FOLDERS)]
    files += [folder for folder in folders if BANNED_MODULES & set(Path(folder).parts)]
    assert not files, f"files named for nothing in particular: {files}"
    classes = [item for item in source_classes() if item.endswith(BANNED_CLASS_ENDINGS)]
    assert not classes, f"classes named for nothing in particular: {classes}"


def test_every_module_says_what_it_is() -> None:
    silent = [
        name(path)
        for path in python_files((*SOURCE_FOLDERS, "benchmarks", "examples"))
        if not ast.get_docstring(tree(path))
    ]
    assert not silent, f"modules without a docstring: {silent}"


def test_the_source_logs_and_never_prints() -> None:
    calls = [
        f"{name(path)}:{node.lineno}"
        for path, node in nodes(SOURCE_FOLDERS, ast.Call)
        if isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not calls, f"print() calls, use logging (or rich in cli): {calls}"


def test_no_star_imports() -> None:
    stars = [
        f"{name(path)}:{node.lineno}"
        for path, node in nodes(SOURCE_FOLDERS + OTHER_FOLDERS, ast.ImportFrom)
        if any(alias.name == "*" for alias in node.names)
    ]
    assert not stars, f"star imports: {stars}"


def test_classes_are_abstract_or_final_or_data() -> None:
    """Data means a frozen, keyword-only, slotted dataclass, or a base from `DATA_BASES`."""
    odd = {}
    for path, node in nodes(SOURCE_FOLDERS, ast.ClassDef):
        if (
            is_abstract(node)
            or "final" in decorators(node)
            or ancestors(node.name, path) & DATA_BASES
        ):
            continue
        keywords = {
            keyword.arg
            for decorator in node.decorator_list
            if isinstance(decorator, ast.Call) and label(decorator) == "dataclass"
            for keyword in decorator.keywords
            if isinstance(keyword.value, ast.Constant) and keyword.value.value is True
        }
        missing = {"frozen", "kw_only", "slots"} - keywords
        if missing:
            odd[f"{name(path)}:{node.lineno} {node.name}"] = sorted(missing)
    assert not odd, f"classes neither abstract, @final nor a frozen kw_only slots dataclass: {odd}"


def test_only_abstract_classes_and_errors_are_subclassed() -> None:
    odd = []
    for path, node in nodes(SOURCE_FOLDERS, ast.ClassDef):
        for base in (label(base) for base in node.bases):
            known = class_named(base, path)
            if known is None or is_abstract(known[1]) or ancestors(base, known[0]) & DATA_BASES:
                continue
            odd.append(f"{name(path)}:{node.lineno} {node.name}({base})")
    assert not odd, f"subclasses of a concrete class; pass a part in instead: {odd}"


def test_to_do_notes_name_an_issue() -> None:
    note = re.compile(r"#\s*(TODO|FIXME|XXX)(?!.*#\d+)")
    found = [
        f"{name(path)}:{number}"
        for path in python_files(SOURCE_FOLDERS + OTHER_FOLDERS)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if note.search(line)
    ]
    assert not found, f"notes without an issue number: {found}"


def test_no_path_of_one_machine() -> None:
    """Absolute paths of the author's machine would be broken on every other."""
    pattern = re.compile(r"(?<![\w.~>}\])-])/(?:" + "|".join(("work", "root", "home")) + r")/\w")
    endings = {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".cff"}
    files = python_files(SOURCE_FOLDERS + OTHER_FOLDERS)
    files += [path for path in (ROOT / "docs").rglob("*") if path.suffix in endings]
    files += [path for path in ROOT.iterdir() if path.suffix in endings]
    found = [name(path) for path in files if pattern.search(path.read_text(encoding="utf-8"))]
    assert not found, f"absolute paths of one machine: {found}"
