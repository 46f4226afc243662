"""What a change has to pass: types, lint, dependencies that are pinned, and paths of tokens that wait in no thread."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentnet.common.v1.error_reason_pb2 import ErrorReason
from deploy.codegen import configuration, reasons
from shared.settings import SERVICES

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
CHECKS = (ROOT / "deploy" / "codegen" / "check.sh").read_text().splitlines()
SOURCES = [path for folder in ("services", "shared") for path in sorted((ROOT / folder).rglob("*.py"))]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("services/*/README.md"))]
# Where a token, a turn, an admission or a lease passes.
CORE = """
    services/gateway/admission.py services/gateway/door.py services/gateway/question.py
    services/inference/producer.py services/inference/generation.py services/inference/service.py
    services/orchestrator/turns.py services/orchestrator/hearing.py services/orchestrator/drivers
    services/orchestrator/watch.py
    services/cost/ledger.py services/policy/judging.py shared/rpc shared/monitors shared/postgres.py shared/redis.py
"""
# Other drivers and mappers of Postgres.
OTHERS = {"sqlalchemy", "psycopg", "psycopg2", "databases", "tortoise", "peewee", "aiopg"}


def dependencies() -> Iterator[str]:
    """What is installed where a service runs."""
    yield from PROJECT["project"]["dependencies"]
    for group in PROJECT["project"]["optional-dependencies"].values():
        yield from (one for one in group if not one.startswith("agentnet["))


def imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    plain = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    return plain | {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


def test_ci_runs_lint_types_and_every_folder_of_tests_on_real_parts() -> None:
    assert [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("make ")] == [
        "make check", "make test",
    ]  # fmt: skip
    assert {"mypy", "pyright", "buf lint"} <= set(CHECKS)
    assert [line for line in CHECKS if re.match(r"ruff check .*services shared deploy tests", line)]
    recipe = re.search(r"^test:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe
    for folder in ("unit", "contract", "service", "conformance", "e2e"):
        assert f"tests/{folder}" in recipe[1]


def test_types_are_strict_everywhere() -> None:
    assert PROJECT["tool"]["mypy"]["strict"]
    assert set(PROJECT["tool"]["mypy"]["files"]) == {"services", "shared", "deploy"}
    assert PROJECT["tool"]["pyright"]["typeCheckingMode"] == "strict"


def test_every_dependency_has_an_upper_bound_and_tests_have_a_group_of_their_own() -> None:
    unbounded = [one for one in dependencies() if not re.search(r"<|==", one.split(";")[0])]
    assert unbounded == []
    assert any(one.startswith("pytest") for one in PROJECT["dependency-groups"]["dev"])
    assert not [one for one in PROJECT["project"]["dependencies"] if one.startswith("pytest")]


def test_every_package_of_the_lock_is_one_version_with_its_hashes() -> None:
    entries = re.split(r"^(?=[a-z0-9])", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE | re.IGNORECASE)
    packages = [entry for entry in entries if re.match(r"[A-Za-z0-9]", entry)]
    assert len(packages) > 100
    assert [entry.splitlines()[0] for entry in packages if "==" not in entry or "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("part", CORE.split())
def test_nothing_on_the_way_of_a_token_waits_in_a_thread(part: str) -> None:
    path = ROOT / part
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    assert files
    for file in files:
        text = file.read_text()
        assert "to_thread" not in text, file
        assert "run_in_executor" not in text, file
        assert "time.sleep" not in text, file


def test_asyncpg_is_the_only_way_to_postgres() -> None:
    roots = {path: {name.split(".")[0] for name in imported(path)} for path in SOURCES}
    assert not {str(path): found & OTHERS for path, found in roots.items() if found & OTHERS}
    assert [path for path, found in roots.items() if path.name == "postgres.py" and "asyncpg" in found]
    stores = [path for path in SOURCES if path.name.endswith("store_postgres.py")]
    assert stores
    assert not [str(path) for path in stores if "shared.postgres" not in imported(path)]


def test_what_comes_over_the_wire_is_typed_by_its_contract() -> None:
    methods = [
        (f"{path.relative_to(ROOT)}::{method.name}", method)
        for path in SOURCES
        if path.name.startswith("service") and path.parent.parent.name == "services"
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
        for method in node.body
        if isinstance(method, ast.AsyncFunctionDef) and method.name[0].isupper()
    ]
    assert len(methods) > 100
    for name, method in methods:
        request = method.args.args[1].annotation
        taken, given = ast.unparse(request) if request else "", ast.unparse(method.returns) if method.returns else ""
        for said in (taken, given):
            assert said, name
            assert not re.search(r"\b(dict|Mapping|Any)\b", said), (name, said)


def test_the_docs_say_how_every_benchmark_is_run() -> None:
    told = (ROOT / "docs" / "performance.md").read_text() + "".join(
        page.read_text() for page in sorted((ROOT / "docs").glob("*.md"))
    )
    recipes = (ROOT / "Makefile").read_text()
    runnable = [
        path for path in sorted((ROOT / "tests" / "bench").glob("*.py")) if '__name__ == "__main__"' in path.read_text()
    ]
    assert len(runnable) > 15
    for path in runnable:
        name = f"tests.bench.{path.stem}"
        target = re.search(rf"^(bench[a-z-]*):(?:(?!^\S).*\n)*?.*-m {re.escape(name)}\b", recipes, re.MULTILINE)
        by_hand, by_make = name in told, target is not None and f"make {target[1]}" in told
        by_another = any(
            f"{path.stem}.py" in other.read_text() or name in other.read_text() for other in runnable if other != path
        )
        assert by_hand or by_make or by_another, name


def test_the_page_of_settings_is_what_the_services_read() -> None:
    told = configuration.page()
    assert configuration.PAGE.read_text() == told, "run make gen"
    rows = re.findall(r"^\| `(AGENTNET_\w+)` \| (.*) \| .* \|$", told, re.MULTILINE)
    assert len(rows) > 100
    assert [name for name, meaning in rows if not meaning.strip()] == []


def test_no_secret_of_the_environment_gets_into_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-never-shown")
    assert "sk-never-shown" not in configuration.page()


def test_the_page_of_errors_is_what_the_contract_says() -> None:
    told = reasons.page()
    assert reasons.PAGE.read_text() == told, "run make gen"
    rows = re.findall(r"^\| `(\w+)` \| ([A-Z_]*) \| (.+) \|$", told, re.MULTILINE)
    assert {name for name, _, _ in rows} == {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()[1:]}
    assert [name for name, code, _ in rows if not hasattr(grpc.StatusCode, code)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_page_and_every_thing_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    links = [link.partition("#")[0] for link in re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", text)]
    assert not [link for link in links if not (page.parent / link).exists()]
    named = re.findall(
        r"`((?:services|shared|deploy|protos|tests)/[\w./-]+\.(?:py|ya?ml|json|proto|md|sql|txt|lock|env))`", text
    )
    assert not [name for name in named if not (ROOT / name).exists()]
    pages = re.findall(r"(?<![\w/(])(docs/[\w-]+\.(?:md|svg))", text)
    assert not [name for name in pages if not (ROOT / name).exists()]


@pytest.mark.parametrize(
    "page",
    ["docs/api.md", "docs/architecture.md", "docs/deployment.md", "docs/troubleshooting.md", "docs/configuration.md",
     "docs/errors.md", "docs/evaluation.md", "docs/operations.md", "SECURITY.md", "CONTRIBUTING.md", "docs/decisions"],
)  # fmt: skip
def test_a_page_that_people_look_for_is_there_and_reached_from_the_readme(page: str) -> None:
    assert f"]({page})" in (ROOT / "README.md").read_text()
    pages = sorted((ROOT / page).glob("*.md")) if (ROOT / page).is_dir() else [ROOT / page]
    assert pages
    assert all(len(one.read_text().split()) > 30 for one in pages)


def test_the_architecture_is_drawn_and_its_decisions_are_numbered() -> None:
    drawn = re.findall(r"```mermaid\n(.*?)```", (ROOT / "docs" / "architecture.md").read_text(), re.DOTALL)
    assert drawn
    assert all(service in drawn[0] for service in SERVICES)
    numbers = [int(one.name[:4]) for one in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))
