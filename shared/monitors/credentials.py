"""Keys and tokens of the common clouds and services, by the forms their makers document."""

from __future__ import annotations

import math
from collections import Counter
from typing import Final

from shared.monitors.library import Kind

_NAMES: Final = r"(?:api[_-]?key|secret[_-]?key|client[_-]?secret|access[_-]?token|auth[_-]?token|password)"
_LEAST_BITS: Final = 3.0  # of entropy a character: words have 2 to 2.8, random base 62 above 4


def _random(text: str) -> bool:
    """Whether the value after the last separator looks drawn by lot and not written by hand."""
    value = text.rstrip("'\"").split("=")[-1].split(":")[-1].strip(" '\"")
    counts = Counter(value)
    return -sum(n / len(value) * math.log2(n / len(value)) for n in counts.values()) >= _LEAST_BITS


DETECTORS: Final = {
    "aws_access_key": Kind((r"(?<![A-Z0-9])(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Z0-9])",)),
    "aws_secret_key": Kind(
        (r"aws.{0,20}(?:secret|private).{0,20}[=:]\s?['\"]?[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])",),
        check=_random,
        ignore_case=True,
    ),
    "google_api_key": Kind((r"(?<![A-Za-z0-9_-])AIza[\w-]{35}(?![A-Za-z0-9_-])",)),
    "google_oauth": Kind((r"(?<![A-Za-z0-9_-])(?:ya29\.[\w-]{20,200}|GOCSPX-[\w-]{28})(?![A-Za-z0-9_-])",)),
    "azure_storage_key": Kind((r"AccountKey=[A-Za-z0-9+/]{86}==",)),
    "azure_client_secret": Kind((r"(?<![A-Za-z0-9_~.-])[\w~.-]{3}8Q~[\w~.-]{31,34}(?![A-Za-z0-9_~.-])",)),
    "github_token": Kind((r"(?<![A-Za-z0-9_])(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{82})(?![A-Za-z0-9_])",)),
    "gitlab_token": Kind((r"(?<![A-Za-z0-9_-])glpat-[\w-]{20}(?![A-Za-z0-9_-])",)),
    "slack_token": Kind((r"(?<![A-Za-z0-9_-])xox[abeoprs]-[A-Za-z0-9-]{10,120}(?![A-Za-z0-9_-])",)),
    "stripe_key": Kind((r"(?<![A-Za-z0-9_])(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,99}(?![A-Za-z0-9_])",)),
    "openai_key": Kind(
        (r"(?<![A-Za-z0-9_-])sk-(?:proj-|svcacct-|admin-)?[\w-]{32,180}(?![A-Za-z0-9_-])",), check=_random
    ),
    "anthropic_key": Kind((r"(?<![A-Za-z0-9_-])sk-ant-[\w-]{32,180}(?![A-Za-z0-9_-])",)),
    "huggingface_token": Kind((r"(?<![A-Za-z0-9_])hf_[A-Za-z0-9]{34}(?![A-Za-z0-9_])",)),
    "npm_token": Kind((r"(?<![A-Za-z0-9_])npm_[A-Za-z0-9]{36}(?![A-Za-z0-9_])",)),
    "sendgrid_key": Kind((r"(?<![A-Za-z0-9_.-])SG\.[\w-]{22}\.[\w-]{43}(?![A-Za-z0-9_-])",)),
    "twilio_key": Kind((r"(?<![A-Za-z0-9_])SK[0-9a-f]{32}(?![A-Za-z0-9_])",)),
    "jwt": Kind((r"(?<![A-Za-z0-9_-])eyJ[\w-]{8,1000}\.eyJ[\w-]{8,1000}\.[\w-]{16,700}(?![A-Za-z0-9_-])",)),
    "private_key": Kind((r"-----BEGIN (?:[A-Z]{2,10} ){0,2}PRIVATE KEY-----",)),
    "password_in_url": Kind((r"://[^\s:/@]{1,64}:[^\s:/@]{3,64}@",)),
    "assigned_secret": Kind(
        (rf"(?<![A-Za-z0-9_]){_NAMES}['\"]?\s{{0,2}}[=:]\s{{0,2}}['\"]?[\w/+~.-]{{16,64}}(?![A-Za-z0-9_/+~.-])",),
        check=_random,
        ignore_case=True,
    ),
}
