"""`python -m deploy.codegen.configuration`: docs/configuration.md, from what the services' settings say."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from shared.settings import SERVICES, MeshSettings

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
# The service, the module and the class of its settings; what shares a service's prefix comes after it.
_PARTS: Final = (
    *((service, f"services.{service}.settings", f"{service.title()}Settings") for service in SERVICES),
    (
        "evaluation, the worker beside the orchestrator",
        "services.orchestrator.evaluation.settings",
        "EvaluationSettings",
    ),
    ("embeddings, within inference", "services.inference.embeddings.settings", "EmbeddingSettings"),
    ("Langfuse, within inference", "services.inference.langfuse.settings", "LangfuseSettings"),
)
_HEAD: Final = """# Configuration

Written by `make gen` from the settings of the services; a test compares. Every setting is an environment variable.
A service reads `AGENTNET_<SERVICE>_<NAME>` first and `AGENTNET_<NAME>` second, each of them from the environment, then
`.env` (see `.env.example`), then `deploy/settings/<environment>.env`, then the default here. A bad setting is named in
one sentence and the process ends with status 2. `agentnet up` sets what connects the parts (addresses, roles, keys)
itself. Durations are seconds or ISO 8601 (`PT30S`)."""
_LOCAL: Final = """
## The local mesh and its clients

| variable | meaning | default |
|---|---|---|
| `AGENTNET_STATE` | folder of a local mesh: its databases, keys and logs | `.agentnet` |
| `AGENTNET_POSTGRES_BUFFERS` | what the embedded Postgres keeps in memory of its files, such as `4GB` \
| a sixteenth of the machine, 64 MB to 2 GB |
| `AGENTNET_EDGE_PORT` | port of the edge, taken at its word | `8080`, a free one where it is taken |
| `AGENTNET_TLS` | `1`: the local mesh makes certificates and speaks TLS, at the edge and inside | in the clear |
| `AGENTNET_EDGE_TLS_FOLDER` | tls.crt and tls.key of a public authority, for the edge | the mesh's own |
| `AGENTNET_CORS_ORIGINS` | whose pages may call the edge: regular expressions, by comma | pages of the same host |
| `AGENTNET_ADDRESS` | the mesh that clients call: host:port, or an https:// URL | the local mesh |
| `AGENTNET_TOKEN`, `AGENTNET_API_KEY` | how they say who they are; the token wins | the local mesh's own token |
| `AGENTNET_CA` | file of the authority of an https:// address | the local mesh's, else the system's |
"""


def page() -> str:
    """The whole page."""
    parts = [_HEAD, "\n## Every service\n", *_table("AGENTNET_", MeshSettings.model_fields)]
    for title, module, name in _PARTS:
        settings: type[MeshSettings] = getattr(importlib.import_module(module), name)
        own = {name: field for name, field in settings.model_fields.items() if name not in MeshSettings.model_fields}
        parts += [f"\n## {title[0].upper()}{title[1:]}\n", *_table(str(settings.model_config["env_prefix"]), own)]
    return "\n".join(parts) + _LOCAL


def _table(prefix: str, fields: dict[str, FieldInfo]) -> Iterator[str]:
    yield "| variable | meaning | default |\n|---|---|---|"
    for name, field in fields.items():
        meaning = (field.description or "").replace("|", "\\|")
        yield f"| `{prefix}{name.upper()}` | {meaning}{_choices(field)}{_limits(field)} | {_default(field)} |"


def _choices(field: FieldInfo) -> str:
    values = [value for value in get_args(field.annotation) if isinstance(value, str)]
    return f" ({', '.join(f'`{value}`' for value in values)})" if values else ""


def _limits(field: FieldInfo) -> str:
    signs = (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than"))
    said = [
        f"{words} {_plain(bound)}"
        for known in field.metadata
        for sign, words in signs
        if (bound := getattr(known, sign, None)) is not None
    ]
    return f" ({', '.join(said)})" if said else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be set"
    if field.annotation is SecretStr and field.default_factory:
        return "none"  # it is read from where it runs
    value = field.get_default(call_default_factory=True, validated_data={})
    return "none" if value in (None, "", PydanticUndefined, [], {}, ()) else f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g} s"
    if isinstance(value, Path):
        return str(value.relative_to(PAGE.parents[1]) if value.is_relative_to(PAGE.parents[1]) else value)
    if isinstance(value, Enum):
        return str(value.value)
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    PAGE.write_text(page())
