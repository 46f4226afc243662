"""The first tier against prompt injection: what attacks say, code and markup that run, macros that are not allowed."""

from __future__ import annotations

import re
from typing import Final

_GAP = r"[\s\"'*_.,:-]{1,4}"
_OLD = r"(?:previous|prior|earlier|above|preceding|foregoing|existing|original|initial|system)"
_ORDERS = r"(?:instructions?|prompts?|rules?|directions?|guidelines?|commands?|orders?|programming|constraints?)"
_DROP = r"(?:ignore|disregard|forget|override|bypass|neglect|skip|drop|discard|do not follow|don't follow)"
_TELL = r"(?:reveal|show|print|repeat|output|display|tell me|leak|dump|recite)"
_HIDDEN = r"(?:system|initial|hidden|secret|original|internal|developer)"
_LIMITS = r"(?:ethical|safety|moral|content)(?: and \w{1,12})? (?:restrictions|guidelines|filters?|policies|limits)"
_ANY = rf"(?:\w{{1,12}}{_GAP})"

_ATTACKS: Final[dict[str, tuple[str, ...]]] = {
    "override_instructions": (
        rf"\b{_DROP}{_GAP}{_ANY}{{0,4}}{_OLD}{_GAP}{_ANY}{{0,2}}{_ORDERS}\b",
        rf"\b{_DROP}{_GAP}{_ANY}{{0,4}}{_ORDERS}{_GAP}{_ANY}{{0,2}}(?:above|before|earlier|given)\b",
        rf"\b{_DROP}{_GAP}(?:all|everything|anything){_GAP}{_ANY}{{0,3}}(?:above|before|earlier|told|said|learned|know)\b",
    ),
    "new_role": (
        rf"\byou{_GAP}(?:are|must act as|shall be){_GAP}(?:now{_GAP})?(?:dan|stan|aim|jailbroken)\b",
        rf"\byou{_GAP}are{_GAP}(?:now{_GAP})?(?:an? )?(?:unrestricted|unfiltered|uncensored|evil|amoral)\b",
        r"\b(?:developer|dan|god|jailbreak|sudo) mode(?: is| has been|:)? (?:enabled|activated|on|engaged)\b",
    ),
    "reveal_prompt": (rf"\b{_TELL}\s(?:\w{{1,12}}\s){{0,4}}{_HIDDEN}\s(?:prompt|instructions?|message|rules)\b",),
    "no_restrictions": (
        rf"\b(?:without|no longer have|free (?:of|from)|not bound by) (?:any |all |your |the ){{0,2}}{_LIMITS}\b",
    ),
    "chat_markup": (
        r"<\|(?:im_start|im_end|system|endoftext|start_header_id|eot_id)\|>|\[/?INST\]|<<SYS>>",
        r"\n#{1,3} ?(?:system|assistant)(?: prompt| message)?:",
    ),
    "exfiltration": (r"!\[[^\]\n]{0,80}\]\(https?://[^)\s]{1,200}[?&][^)\s=]{1,40}=(?:\{|%7b|<)",),
    "script": (r"<script[\s>/]|javascript:\S|\bon(?:error|load|click|mouseover)\s?=\s?['\"]",),
    "code_execution": (r"\b(?:eval|exec|__import__|os\.system|subprocess\.(?:run|Popen|call))\s?\(",),
    "sql": (
        r"['\"]\s?;\s?(?:drop|delete|update|insert|alter)\s|\bunion\s(?:all\s)?select\b|'\s?or\s?'?1'?\s?=\s?'?1",
        r"\bdrop\s(?:table|database)\s\w",
    ),
    "shell": (r"\brm\s-(?:rf|fr)\s[/~*]|[;&|]\s?(?:curl|wget)\s[^\n|]{1,200}\|\s?(?:ba|z)?sh\b|\bnc\s-e\s",),
}
ATTACKS: Final = tuple((kind, pattern) for kind, patterns in _ATTACKS.items() for pattern in patterns)
MACRO: Final = r"\{\{[^{}\n]{1,200}\}\}|\$\{[^{}\n]{1,200}\}|\{%[^{}\n]{1,200}%\}"
_NAME: Final = re.compile(r"[A-Za-z_][\w.]*")


def macro_name(text: str) -> str:
    """`user.name` of `{{ user.name | upper }}`."""
    found = _NAME.search(text)
    return found.group() if found else text
