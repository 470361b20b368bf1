"""README and docs: what they link to exists, what they show is Python, and what can run runs."""

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from tace_al.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def snippets() -> list[str]:
    """Return the Python of the README, block by block."""
    return BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    local = [target for target in targets if not target.startswith(("http:", "https:", "mailto:"))]
    assert [target for target in local if not (page.parent / target).exists()] == []


def shell_commands(page: Path) -> list[list[str]]:
    """Return the arguments of every `tace-al` in a page's shell blocks."""
    text = page.read_text(encoding="utf-8")
    blocks = [block for language, block in FENCED.findall(text) if language in ("", "bash", "sh")]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").split("\n")]
    found = []
    for line in lines:
        if "tace-al " not in line or "..." in line:
            continue
        words = shlex.split(line, comments=True)
        names = [Path(word).name for word in words]
        if "tace-al" in names:
            ends = [i for i, word in enumerate(words) if word in ("|", "&", ";", "&&", ">")]
            found.append(words[names.index("tace-al") + 1 : min(ends, default=None)])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_have_the_options_that_pages_show(page: Path) -> None:
    program: Any = typer.main.get_command(app)
    for words in shell_commands(page):
        command, rest = program, list(words)
        while hasattr(command, "commands"):
            assert rest and rest[0] in command.commands, f"tace-al {shlex.join(words)}"
            command = command.commands[rest.pop(0)]
        with command.context_class(command) as context:
            try:
                command.make_parser(context).parse_args(rest)
            except Exception as error:
                pytest.fail(f"tace-al {shlex.join(words)}: {error!r}")


def test_the_readme_shows_commands() -> None:
    shown = {words[0] for words in shell_commands(ROOT / "README.md")}
    assert {"run", "driver", "neb", "phonons", "hessian", "label", "train", "db"} <= shown


def test_functions_in_the_list_of_equations_exist() -> None:
    text = (ROOT / "docs/theory/equations.md").read_text(encoding="utf-8")
    places = [place.split(".") for place in re.findall(r"`([a-z_]+\.\w[\w.]*)`", text)]
    named = [place for place in places if place[-1] not in ("py", "md")]
    assert len(named) > 40
    for module, *path in named:
        found: object = importlib.import_module(f"tace_al.model.{module}")
        for name in path:
            assert hasattr(found, name), f"{module} has no {name}"
            found = getattr(found, name)


def test_snippets_of_the_readme_are_python() -> None:
    for index, snippet in enumerate(snippets()):
        compile(snippet, f"README.md, block {index}", "exec")


def test_outputs_by_name_run_as_the_readme_says() -> None:
    (snippet,) = [text for text in snippets() if "model.evaluate" in text]
    names: dict[str, Any] = {}
    exec(snippet, names)
    assert set(names["output"].tensors) == {"forces", "dipole", "born_charges", "quadrupole"}
    assert names["output"]["born_charges"].shape == (3, 3, 3)
