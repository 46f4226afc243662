"""Counts: OpenAI's published ones, real vocabularies, and estimates that say they are estimates."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.local.model_server import model_file
from services.inference import vocabularies
from services.inference.embeddings.minilm import _tokenizer_file
from services.inference.tokenizers import Count, Estimator, Tokenizers, TokenizerUnknown, known_tokenizers, load_file
from services.inference.vocabularies import cl100k_base, o200k_base


@dataclass(frozen=True, slots=True)
class Said:
    role: str
    text: str
    name: str = ""


KNOWN = known_tokenizers({"smollm2-135m": model_file(), "minilm": _tokenizer_file()})
# cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken, with the counts OpenAI's API gave there.
COOKBOOK = [
    Said(
        "system",
        "You are a helpful, pattern-following assistant that translates corporate jargon into plain English.",
    ),
    Said("system", "New synergies will help drive top-line growth.", "example_user"),
    Said("system", "Things working well together will increase revenue.", "example_assistant"),
    Said(
        "system",
        "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
        "example_user",
    ),
    Said("system", "Let's talk later when we're less busy about how to do better.", "example_assistant"),
    Said("user", "This late pivot means we don't have time to boil the ocean for the client deliverable."),
]
SAMPLES = {
    "English": "The quarterly report shows that revenue rose by 12.4 percent, while costs stayed where they were. " * 5,
    "German": "Die Geschwindigkeitsbegrenzung auf der Autobahn wurde im vergangenen Jahr mehrmals geändert. " * 5,
    "code": "def add(a: int, b: int) -> int:\n    return a + b\n\nfor i in range(10):\n    print(add(i, i))\n" * 5,
    "Chinese": "人工智能正在改变世界，许多公司都在研究新的模型。" * 5,  # noqa: RUF001 - as it is written
    "Japanese": "お誕生日おめでとうございます。今日はとても良い天気ですね。" * 5,
    "Russian": "Искусственный интеллект меняет мир, и многие компании исследуют новые модели. " * 5,
}


@pytest.mark.parametrize(
    ("text", "cl100k", "o200k"),
    [
        ("antidisestablishmentarianism", 6, 6),
        ("2 + 2 = 4", 7, 7),
        ("お誕生日おめでとう", 9, 8),
        ("tiktoken is great!", 6, 6),
        ("", 0, 0),
    ],
)
def test_texts_count_as_openai_publishes(text: str, cl100k: int, o200k: int) -> None:
    assert KNOWN.count_text(text, "gpt-4") == Count(cl100k, estimated=False)
    assert KNOWN.count_text(text, "gpt-4o") == Count(o200k, estimated=False)


@pytest.mark.parametrize(
    ("model", "tokens"),
    [("gpt-3.5-turbo", 129), ("gpt-4-0613", 129), ("gpt-4", 129), ("gpt-4o", 124), ("gpt-4o-mini-2024-07-18", 124)],
)
def test_prompts_count_as_openai_s_api_counted_them(model: str, tokens: int) -> None:
    assert KNOWN.count(COOKBOOK, model) == Count(tokens, estimated=False)


def test_a_framing_nobody_documents_is_marked_estimated() -> None:
    assert KNOWN.count(COOKBOOK, "gpt-4.1-mini") == Count(124, estimated=True)
    assert KNOWN.count_text("2 + 2 = 4", "gpt-4.1-mini") == Count(7, estimated=False)


@pytest.mark.parametrize("model", ["claude-sonnet-4", "gpt-4.5-preview", "gpt", "", "mistral-large"])
def test_a_model_without_a_vocabulary_is_estimated_and_says_so(model: str) -> None:
    count = KNOWN.count(COOKBOOK, model)
    assert count.estimated
    assert count.tokens == pytest.approx(124, rel=0.35)
    assert KNOWN.count_text("hello", model).estimated


def test_control_words_in_a_text_are_plain_text() -> None:
    assert KNOWN.count_text("<|endoftext|>", "gpt-4").tokens > 1
    assert KNOWN.count_text("<|im_end|>", "smollm2-135m").tokens > 1


def test_the_vocabularies_of_a_wheel_are_openai_s_own_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vocabularies._DIGESTS, "cl100k_base", "0" * 64)
    with pytest.raises(TokenizerUnknown, match="is not OpenAI's"):
        vocabularies._openai("cl100k_base", vocabularies._CL100K)


def test_a_vocabulary_splits_as_tiktoken_s_own_patterns_do() -> None:
    from tiktoken_ext import openai_public

    for name, ours in (("cl100k_base", vocabularies._CL100K), ("o200k_base", vocabularies._O200K)):
        ranks = {bytes([value]): value for value in range(256)}
        openai_public.load_tiktoken_bpe = lambda *_, found=ranks, **__: found  # type: ignore[attr-defined]
        theirs = getattr(openai_public, name)()["pat_str"]
        mine = tiktoken.Encoding("mine", pat_str=ours, mergeable_ranks=ranks, special_tokens={})
        yours = tiktoken.Encoding("yours", pat_str=theirs, mergeable_ranks=ranks, special_tokens={})
        assert ours == theirs
        assert mine.encode_ordinary("Grüße, it's 12345!\n") == yours.encode_ordinary("Grüße, it's 12345!\n")


@pytest.mark.parametrize("model", ["gpt-4", "gpt-4o", "smollm2-135m", "minilm", "unknown"])
@settings(deadline=None)
@given(text=st.text(max_size=80), limit=st.integers(0, 20))
def test_a_cut_text_fits_and_is_a_beginning(model: str, text: str, limit: int) -> None:
    short, cut = KNOWN.cut(text, model, limit)
    assert KNOWN.count_text(short, model).tokens <= limit
    assert text.startswith(short)
    assert cut == (short != text) or KNOWN.count_text(text, model).tokens > limit


def test_a_cut_takes_no_more_than_it_must() -> None:
    text = "word " * 100
    assert KNOWN.cut(text, "gpt-4o", 50)[0].rstrip() == ("word " * 50).rstrip()
    assert KNOWN.cut("short", "gpt-4o", 50) == ("short", False)


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES.keys())
def test_an_estimate_is_near_what_real_vocabularies_count(sample: str) -> None:
    real = [cl100k_base().count(sample), o200k_base().count(sample)]
    estimate = Estimator().count(sample)
    assert 0.7 * min(real) <= estimate <= 1.35 * max(real)


def test_a_vocabulary_is_read_once_and_only_when_needed() -> None:
    loads: list[str] = []

    def load() -> object:
        loads.append("read")
        return load_file(_tokenizer_file())

    tokenizers = Tokenizers({"mine": load})  # type: ignore[dict-item]
    tokenizers.count_text("a", "other")
    assert loads == []
    tokenizers.count_text("a", "mine-1")
    tokenizers.count_text("a", "mine:tuned")
    tokenizers.count_text("a", "ft:mine")
    assert loads == ["read"]


def test_a_tokenizer_json_counts_its_text_and_estimates_its_messages() -> None:
    assert KNOWN.count_text("The cat sits on the mat.", "minilm") == Count(7, estimated=False)
    assert KNOWN.count([Said("user", "The cat sits.")], "minilm").estimated


def test_a_tokenizer_json_with_a_chat_template_counts_messages(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(_tokenizer_file().read_text())
    template = "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} {% endfor %}"
    config = f'{{"chat_template": "{template}", "bos_token": {{"content": "[CLS]"}}}}'
    (tmp_path / "tokenizer_config.json").write_text(config)
    found = load_file(tmp_path / "tokenizer.json")
    assert found.messages([Said("user", "hello there")]) == Count(5, estimated=False)  # [CLS] user : hello there


@pytest.mark.parametrize("template", ["{{ raise_exception('no') }}", "{{ messages[9].content }}", "{{ 1 + 'a' }}"])
def test_a_template_that_refuses_the_messages_leaves_an_estimate(tmp_path: Path, template: str) -> None:
    (tmp_path / "tokenizer.json").write_text(_tokenizer_file().read_text())
    (tmp_path / "tokenizer_config.json").write_text(f'{{"chat_template": "{template}"}}')
    found = load_file(tmp_path / "tokenizer.json").messages([Said("user", "hello")])
    assert (found.tokens, found.estimated) == (3 + 3 + 1 + 1, True)


def test_a_template_cannot_leave_its_sandbox(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(_tokenizer_file().read_text())
    (tmp_path / "tokenizer_config.json").write_text(
        '{"chat_template": "{{ messages.__class__.__mro__[1].__subclasses__() }}"}'
    )
    assert load_file(tmp_path / "tokenizer.json").messages([Said("user", "hello")]).estimated


DAMAGED = {
    "nothing.gguf": b"",
    "words.gguf": b"this is no GGUF at all",
    "short.gguf": b"GGUF\x03\x00\x00\x00",
    "version.gguf": b"GGUF\x09\x00\x00\x00" + bytes(16),
    "huge_count.gguf": b"GGUF\x03\x00\x00\x00" + bytes(8) + b"\xff" * 8,
    "huge_text.gguf": b"GGUF\x03\x00\x00\x00" + bytes(8) + b"\x01" + bytes(7) + b"\xff" * 8,
    "no_vocabulary.gguf": b"GGUF\x03\x00\x00\x00" + bytes(16),
    "no_json.json": b"{",
    "another.json": b'{"a": 1}',
    "list.json": b"[]",
    "unknown_kind.json": b'{"model": {"type": "Telepathy"}}',
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(DAMAGED[name])
    with pytest.raises(TokenizerUnknown, match=name):
        load_file(path)


def test_a_cut_gguf_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    with model_file().open("rb") as file:
        whole = file.read(1_500_000)  # inside the header
    for size in range(0, len(whole), 130_003):
        path = tmp_path / f"{size}.gguf"
        path.write_bytes(whole[:size])
        with pytest.raises(TokenizerUnknown):
            load_file(path)


def test_a_long_run_of_one_character_is_counted_in_time() -> None:
    began = time.perf_counter()
    for text in ("a" * 100_000, " " * 100_000, "日" * 100_000):
        assert KNOWN.count_text(text, "gpt-4o").tokens > 0
    assert time.perf_counter() - began < 10
