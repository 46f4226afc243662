"""How well prompt injection is found, on public labelled texts, each family of attacks left out of training in its turn.

`AGENTNET_BENCH_DATA=<folder> python -m tests.bench.policy_injection`; the folder is described in `policy_injection_data.py`.
Needs scikit-learn and pyarrow, which are no dependencies. `--export` trains on all families that may be trained on and writes the weights
that ship (`shared/monitors/weights/`). Benign texts are split in half for training, a quarter for thresholds, a quarter for
what is reported; look-alikes and Tensor Trust are only ever measured on.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import sys
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from services.inference.embeddings.minilm import MiniLM
from shared.monitors.rules import Action, Bundle, Rule, RuleType, Severity, Target
from shared.monitors.sentences import Sentences
from shared.monitors.stream import compile_rules, judge
from shared.monitors.suspicion import Lexicon, buckets, lexicon
from tests.bench.policy_injection_data import Family, families, within
from tests.support.onnx_files import linear_head

BITS: Final = 16
RATE: Final = 0.005  # of benign prompts, at the threshold that ships: at twice as many, look-alikes pass it too often
RATES: Final = (0.001, RATE, 0.01, 0.02, 0.05)  # the curve
DOCUMENT_RATE: Final = 0.05  # of documents: there are too few to tell one in a hundred
_REGULARISED: Final = 10.0
_ABOUT_INJECTION: Final = ("instruction_bypass", "guidance", "mdexfil", "react", "react_txt", "system_instructions")
_EMBEDDED: Final = 1000  # sentences of each class
_HEAD: Final = Path("services/policy/classifiers/instruction.onnx")
_WEIGHTS: Final = Path("shared/monitors/weights")
Score = Callable[[str], float]


@dataclass(frozen=True, slots=True)
class Split:
    """Benign texts: to train on, to set thresholds with, to report on."""

    train: list[str]
    tune: list[str]
    test: list[str]


def split(chosen: Iterable[Family]) -> Split:
    made = Split([], [], [])
    for one in chosen:
        half, quarter = len(one.texts) // 2, len(one.texts) // 4
        made.train.extend(one.texts[:half])
        made.tune.extend(one.texts[half : half + quarter] if one.tunes else ())
        made.test.extend(one.texts[half + quarter :] if one.tunes else ())
    return made


_placed = cache(buckets)  # the same texts are trained on for every family left out


def trained(benign: Sequence[str], attacks: Sequence[str], *, marks: bool) -> Lexicon:
    """Logistic regression over buckets, its weights rounded to a byte each."""
    sparse, linear = importlib.import_module("scipy.sparse"), importlib.import_module("sklearn.linear_model")
    rows = [sorted(_placed(text, BITS, marks=marks)) or [0] for text in (*benign, *attacks)]
    places = np.cumsum([0, *map(len, rows)])
    values = np.concatenate([np.full(len(row), len(row) ** -0.5) for row in rows])
    matrix = sparse.csr_matrix((values, np.concatenate(rows), places), shape=(len(rows), 1 << BITS))
    model: Any = linear.LogisticRegression(
        C=_REGULARISED, class_weight="balanced", max_iter=300, solver="liblinear", random_state=0
    )
    model.fit(matrix, [0] * len(benign) + [1] * len(attacks))
    scale = float(np.abs(model.coef_).max()) / 127
    weights = array("b", np.round(model.coef_[0] / scale).astype(np.int8).tobytes())
    return Lexicon(BITS, scale, float(model.intercept_[0]), weights, marks)


def calibrated(model: Lexicon, read: Callable[[Lexicon], Score], benign: Sequence[str], rate: float = RATE) -> Lexicon:
    """Moved so that 0.5 is passed by `rate` of the benign texts."""
    worst = float(np.quantile([read(model)(text) for text in benign], 1 - rate))
    worst = min(max(worst, 1e-9), 1 - 1e-9)
    return replace(model, shift=model.shift - float(np.log(worst / (1 - worst))))


def sentences(text: str) -> list[str]:
    cut = Sentences()
    return [one.text for one in (*cut.feed(text), *cut.finish())]


def whole(model: Lexicon) -> Score:
    return model.score


def by_sentence(model: Lexicon) -> Score:
    return lambda text: max(map(model.score, sentences(text)), default=0.0)


def direct(known: Sequence[Family], without: str = "") -> Lexicon:
    """Attacks given as prompts against benign prompts and texts."""
    origin = without.partition(",")[0]
    benign = split(one for one in known if not one.attack and one.trains)
    attacks = [
        text
        for one in known
        if one.attack and one.trains and not one.indirect and one.name.partition(",")[0] != origin
        for text in one.texts
    ]
    return calibrated(trained(benign.train, attacks, marks=False), whole, benign.tune)


def indirect(known: Sequence[Family]) -> Lexicon:
    """Anything that gives an assistant something to do against sentences of mails, tables and prose: no attack is seen."""
    said, told = _instructions_and_sentences(known)
    documents = split(one for one in known if one.name in _DOCUMENTS and one.indirect)
    return calibrated(trained(told, said, marks=True), by_sentence, documents.tune + documents.test, DOCUMENT_RATE)


def _instructions_and_sentences(known: Sequence[Family]) -> tuple[list[str], list[str]]:
    given = [text for one in known if one.name in _INSTRUCTIONS for text in one.texts]
    documents = split(one for one in known if one.name in _DOCUMENTS)
    said = [one for text in given for one in sentences(text)[:4]]
    return said, [one for text in documents.train for one in sentences(text)]


_DOCUMENTS: Final = ("documents", "tables", "prose")
_INSTRUCTIONS: Final = ("instructions", "chat benches", "wildguard")


def patterns() -> Score:
    """The streamed `injection` rule alone: it finds or it does not."""
    rule = Rule("injection", RuleType.INJECTION, Severity.SEVERE, action=Action.REDACT)
    rules = compile_rules([Bundle("bench", "1.0.0", (rule,))], Target.PROMPT)
    return lambda text: float(any(one.kind != "macro" for one in judge(rules, Target.PROMPT, text).verdicts))


def share(score: Score, texts: Sequence[str]) -> float:
    return sum(score(text) >= 0.5 for text in texts) / max(1, len(texts))


def cost(score: Score, texts: Sequence[str]) -> float:
    """CPU milliseconds a kilobyte."""
    began = time.process_time()
    for text in texts:
        score(text)
    return (time.process_time() - began) * 1000 / (sum(len(text.encode()) for text in texts) / 1024)


def compared(root: Path) -> dict[str, Score]:
    """Everyone on the same texts. Peers that are not installed are left out."""
    found: dict[str, Score] = {"patterns": patterns()}
    for name, make in (("LlamaFirewall, regex", _llama_firewall), ("vigil, YARA", _vigil)):
        try:
            found[name] = make(root)
        except (ImportError, StopIteration, FileNotFoundError) as error:
            sys.stdout.write(f"{name}: not to be had here ({error})\n")
    return found


def _llama_firewall(root: Path) -> Score:
    """The patterns of its regex scanner, as they stand in a checkout of PurpleLlama (MIT)."""
    path = next(iter(root.glob("*PurpleLlama*"))) / "LlamaFirewall/src/llamafirewall/scanners/regex_scanner.py"
    assigned = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assign | ast.AnnAssign))
    tables = (ast.literal_eval(node.value) for node in assigned if isinstance(node.value, ast.Dict))
    found = [
        re.compile(pattern, re.IGNORECASE) for table in tables for name, pattern in table.items() if "injection" in name
    ]
    return lambda text: float(any(pattern.search(text) for pattern in found))


def _vigil(root: Path) -> Score:
    """Its YARA rules, those about injection, from a checkout of vigil-llm (Apache-2.0)."""
    yara = importlib.import_module("yara")
    folder = next(iter(root.glob("*vigil*"))) / "data" / "yara"
    rules = yara.compile(
        filepaths={path.stem: str(path) for path in sorted(folder.glob("*.yar")) if path.stem in _ABOUT_INJECTION}
    )
    return lambda text: float(bool(rules.match(data=text)))


def curve(model: Lexicon, benign: Sequence[str], texts: Sequence[str]) -> list[float]:
    """The share of the texts that is suspected where each of the rates of the benign ones is."""
    found = np.array([model.score(text) for text in texts])
    limits = np.quantile([model.score(text) for text in benign], [1 - rate for rate in RATES])
    return [float((found >= limit).mean()) for limit in limits]


def report(root: Path, known: Sequence[Family]) -> None:
    benign = split(one for one in known if not one.attack and one.trains)
    peers = compared(root)
    names = [*(f"{rate:.1%}" for rate in RATES), *peers, "words or patterns"]
    sys.stdout.write("| texts | count | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 2) + "\n")
    full = direct(known)

    def row(name: str, texts: Sequence[str], model: Lexicon) -> list[float]:
        others = [share(score, texts) for score in (*peers.values(), _either(model.score, peers["patterns"]))]
        shares = [*curve(model, benign.tune, texts), *others]
        _line(name, len(texts), shares)
        return shares

    attacks = [one for one in known if one.attack and not one.indirect]
    held = [row(f"{one.name}, left out", one.texts, direct(known, one.name)) for one in attacks if one.trains]
    _line("mean of those left out", len(held), np.mean(held, axis=0).tolist())
    for one in known:
        if (one.attack and not one.trains and not one.indirect) or one.look_alike:
            row(one.name if one.attack else f"benign: {one.name}", one.texts, full)
    row("benign: reported", benign.test, full)
    texts = [text for one in known if not one.indirect for text in one.texts][:1500]
    spent = [cost(score, texts) for score in (full.score, *peers.values())]
    sys.stdout.write("CPU ms/KB, words and the others: " + ", ".join(f"{one:.3f}" for one in spent) + "\n\n")
    _report_indirect(known, peers["patterns"])


def _report_indirect(known: Sequence[Family], fixed: Score) -> None:
    unseen = next(one.texts for one in known if one.name == "documents, unseen")
    score = by_sentence(lexicon("document"))  # the weights that ship: they have seen no attack
    sys.stdout.write("| attacks inside documents | count | words, by sentence | patterns |\n|---|---|---|---|\n")
    for one in known:
        if one.attack and one.indirect:
            placed = [within(unseen[place % len(unseen)], text) for place, text in enumerate(one.texts)]
            _row(one.name, placed, [score, fixed])
    _row("benign: documents, unseen", unseen, [score, fixed])
    sys.stdout.write(f"\nby sentence: {cost(score, unseen):.3f} ms/KB\n")


def _either(first: Score, second: Score) -> Score:
    return lambda text: max(first(text), second(text))


def _row(name: str, texts: Sequence[str], scores: Sequence[Score]) -> None:
    _line(name, len(texts), [share(score, texts) for score in scores])


def _line(name: str, count: int, shares: Iterable[float]) -> None:
    sys.stdout.write(f"| {name} | {count} | " + " | ".join(f"{one:.3f}" for one in shares) + " |\n")
    sys.stdout.flush()


def export(known: Sequence[Family]) -> None:
    _WEIGHTS.mkdir(exist_ok=True)
    for name, model in (("prompt", direct(known)), ("document", indirect(known))):
        (_WEIGHTS / f"{name}.bin").write_bytes(model.packed())
        sys.stdout.write(f"{name}: {len(model.packed())} bytes\n")


def export_head(known: Sequence[Family]) -> None:
    """The ONNX classifier that ships: instructions among the sentences of documents, by their embeddings."""
    linear = importlib.import_module("sklearn.linear_model")
    embedder = MiniLM(threads=0)
    given, told = _instructions_and_sentences(known)
    chosen = [*told[:_EMBEDDED], *given[:_EMBEDDED]]
    vectors = [read.vector for text in chosen for read in embedder.vectors([embedder.tokenise([text])[0].ids])]
    labels = [0] * len(told[:_EMBEDDED]) + [1] * len(given[:_EMBEDDED])
    model: Any = linear.LogisticRegression(C=10, class_weight="balanced", max_iter=1000, random_state=0)
    model.fit(vectors, labels)
    _HEAD.parent.mkdir(exist_ok=True)
    _HEAD.write_bytes(linear_head(model.coef_[0].tolist(), float(model.intercept_[0])))
    sys.stdout.write(f"{_HEAD}: {_HEAD.stat().st_size} bytes, from {len(chosen)} sentences\n")


def shipped(known: Sequence[Family]) -> None:
    """The weights that ship, on what they never saw."""
    sys.stdout.write("| weights that ship | count | suspected |\n|---|---|---|\n")
    for one in known:
        if not one.trains and not one.indirect:
            _row(one.name, one.texts, [lexicon("prompt").score])


def main() -> int:
    root = os.environ.get("AGENTNET_BENCH_DATA", "")
    if not root:
        sys.stdout.write("AGENTNET_BENCH_DATA names no folder; see tests/bench/policy_injection_data.py\n")
        return 1
    known, missing = families(Path(root))
    if missing:
        sys.stdout.write(f"not there: {', '.join(missing)}\n")
    if "--export" in sys.argv:
        export(known)
        export_head(known)
    else:
        report(Path(root), known)
    shipped(known)
    return 0


if __name__ == "__main__":
    sys.exit(main())
