"""Bundle documents: what loads, and what is said about what does not."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from services.policy import document
from services.policy.document import parse, read
from services.policy.errors import BundleInvalid
from shared.monitors import factories

SEED = """
rules:
  - name: no_pii
    type: regex
    severity: severe
    pattern: "(\\\\b\\\\d{3}-\\\\d{2}-\\\\d{4}\\\\b)"
  - name: toxicity_screen
    type: llm_classifier
    severity: major
    params: { model: "moderation-small", threshold: 0.78 }
  - name: semantic_block_list
    type: semantic_similarity
    severity: severe
    params: { embedding_set: "restricted_corpora", max_similarity: 0.92 }
"""


def test_the_seeds_document_loads_as_it_stands() -> None:
    rules = parse(SEED)
    assert [(rule.name, rule.enforced) for rule in rules] == [
        ("no_pii", True), ("toxicity_screen", True), ("semantic_block_list", True),
    ]  # fmt: skip
    assert rules[0].pattern == r"(\b\d{3}-\d{2}-\d{4}\b)"


def test_json_is_yaml_too() -> None:
    assert parse('{"rules": [{"name": "a", "type": "keyword", "severity": "minor", "keywords": ["x"]}]}')[0].name == "a"


def test_json_may_escape_what_it_says_and_its_lines_stay() -> None:
    said = {"name": "a", "type": "keyword", "severity": "minor", "keywords": ["🔒 vault", r"\\ud83d\\udd12"]}
    assert parse(json.dumps({"rules": [said]}))[0].keywords == ("🔒 vault", r"\\ud83d\\udd12")
    with pytest.raises(BundleInvalid) as refused:
        parse(json.dumps({"rules": [{**said, "severity": "🔒"}]}, indent=1))
    assert refused.value.facts["line"] == "6"


@pytest.mark.parametrize(
    ("document", "line", "path"),
    [
        ("rules:\n  - name: a\n    type: regex\n    severity: bad\n    pattern: x\n", 4, "rules.0.severity"),
        ("rules:\n  - name: a\n    type: regex\n    severity: minor\n    pattern: '('\n", 5, "rules.0.pattern"),
        ("rules:\n  - name: 'a b'\n    type: keyword\n    severity: minor\n", 2, "rules.0.name"),
        ("rules: [\n", 2, ""),
    ],
    ids=["severity", "pattern", "name", "yaml"],
)
def test_a_fault_is_named_by_line_and_path(document: str, line: int, path: str) -> None:
    with pytest.raises(BundleInvalid) as raised:
        parse(document)
    assert (raised.value.facts["line"], raised.value.facts["path"]) == (str(line), path)


@pytest.mark.parametrize(
    ("document", "says"),
    [("hello", "line 1: there is a mapping expected here"), ("rules: [{name: a, type: keyword, severity: minor, keywords: [x], colour: red}]", "line 1: colour is not known here"),
     ("rules: [{name: a, type: keyword, severity: minor, keywords: [x]}]\nprofiles: 3", "line 2: there is a mapping expected here")],
)  # fmt: skip
def test_a_fault_of_form_is_told_in_words_of_the_document(document: str, says: str) -> None:
    with pytest.raises(BundleInvalid) as raised:
        parse(document)
    assert raised.value.message == says


def test_a_condition_that_calls_an_unknown_function_is_no_bundle() -> None:
    rule = "rules:\n- {name: a, type: tool_arguments, severity: minor, params: {when: 'siz(args.x) > 1'}}"
    with pytest.raises(BundleInvalid, match="the expression does not compile: there is no function siz; there are"):
        parse(rule)


def test_patterns_that_are_too_large_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "_MAX_STATES", 500)
    rules = "".join(f"  - {{name: r{n}, type: regex, severity: minor, pattern: 'a{{100}}x{n}'}}\n" for n in range(8))
    with pytest.raises(BundleInvalid, match="make several bundles") as raised:
        read("rules:\n" + rules)
    assert raised.value.facts["line"] == "6"


def test_the_example_of_the_docs_loads() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "policy.md").read_text()
    example = textwrap.dedent(page.split("mode: strict", 1)[1].split("| type |", 1)[0].join(["    mode: strict", ""]))
    loaded = read(example)
    assert [rule.name for rule in loaded.rules] == ["personal", "big_payments"]
    assert {profile.name: profile.rules for profile in loaded.profiles}["finance"] == ("personal", "big_payments")
    assert loaded.agents == {"Athena": "base"}


@pytest.mark.parametrize("name", factories.SETS)
def test_guardrails_ready_made_are_written_as_a_document(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert factories.main([name]) == 0
    loaded, made = read(capsys.readouterr().out), factories.SETS[name]()
    assert (loaded.rules, loaded.mode) == (made.rules, made.mode)


def test_guardrails_of_another_name_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert factories.main(["none"]) == 2
    assert "minimal|standard|strict|permissive" in capsys.readouterr().err


def test_the_digest_is_of_the_rules_and_not_of_the_text() -> None:
    assert read(SEED).digest == read(SEED + "\n# a comment\n").digest


def test_profiles_that_meet_again_are_resolved_once_each() -> None:
    steps = 40
    levels = [f"  {side}{n}: {{extends: [a{n + 1}, b{n + 1}]}}\n" for n in range(steps) for side in "ab"]
    ends = f"  a{steps}: {{rules: [x]}}\n  b{steps}: {{rules: [y]}}\n"
    rules = [f"  - {{name: {name}, type: keyword, severity: minor, keywords: [{name}]}}\n" for name in "xy"]
    loaded = read(f"rules:\n{''.join(rules)}profiles:\n{''.join(levels)}{ends}")
    assert {profile.name: profile.rules for profile in loaded.profiles}["a0"] == ("x", "y")


def test_a_long_chain_of_profiles_is_followed_and_too_many_are_refused() -> None:
    rule = "rules: [{name: x, type: keyword, severity: minor, keywords: [x]}]\nprofiles:\n"
    chain = [f"  p{n}: {{extends: [p{n + 1}]}}\n" for n in range(255)]
    assert read(f"{rule}{''.join(chain)}  p255: {{rules: [x]}}\n").profiles[0].rules == ("x",)
    with pytest.raises(BundleInvalid, match=r"line 3: .* at most 256"):
        read(f"{rule}{''.join(chain)}  p255: {{rules: [x]}}\n  p256: {{}}\n")


def test_profiles_that_add_up_to_too_much_are_refused() -> None:
    rules = [f"  - {{name: r{n}, type: keyword, severity: minor, keywords: [k{n}]}}\n" for n in range(100)]
    names = ", ".join(f"r{n}" for n in range(100))
    heirs = [f"  p{n:03}: {{extends: [base]}}\n" for n in range(201)]
    with pytest.raises(BundleInvalid, match=r"line 30\d: the profiles up to here add up to more than 20000 rules"):
        read(f"rules:\n{''.join(rules)}profiles:\n  base: {{rules: [{names}]}}\n{''.join(heirs)}")


def test_a_stored_document_is_read_again_where_its_plug_in_is_gone() -> None:
    rule = "{name: loud, type: custom, severity: major, params: {plugin: nowhere}}"
    assert read(f"rules: [{rule}]").rules[0].params["plugin"] == "nowhere"
