"""The page at /docs: the OpenAPI document for people, plain HTML that needs no script."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;max-width:62rem;padding:1.5rem;color:#1b1f24;background:#fff}
h1{margin:0}h2{margin:2.2rem 0 .2rem;border-bottom:1px solid #d0d7de}p{margin:.4rem 0}
code,pre{font:13px ui-monospace,monospace}
nav{display:flex;flex-wrap:wrap;gap:.1rem 1rem}code{overflow-wrap:anywhere}
details{border:1px solid #d0d7de;border-radius:6px;margin:.45rem 0;padding:.4rem .7rem}
summary{cursor:pointer}b{display:inline-block;min-width:4.4rem;color:#0550ae}small{color:#57606a}
table{border-collapse:collapse}td{padding:.1rem .9rem .1rem 0;vertical-align:top}
pre{background:#f6f8fa;padding:.6rem;overflow:auto;max-height:24rem;white-space:pre-wrap;overflow-wrap:anywhere}
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}pre{background:#161b22}b{color:#79c0ff}
h2,details{border-color:#30363d}small{color:#8d96a0}a{color:#79c0ff}}
"""
_CODE: Final = re.compile(r"`([^`]+)`")
POLICY: Final = (
    "default-src 'none'; frame-ancestors 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'"
)


def page(document: Mapping[str, Any]) -> str:
    """The document as one page."""
    info, names = document["info"], [tag["name"] for tag in document["tags"]]
    nav = "".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in names)
    sections = "".join(_section(document, tag) for tag in document["tags"])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>agentnet API</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>agentnet <small>{escape(info['version'])}</small></h1><p>{escape(info['description'])} "
        'The same as data: <a href="/openapi.json">openapi.json</a>.</p>'
        f"<nav>{nav}</nav>{sections}</body></html>"
    )


def _told(text: str) -> str:
    """A comment of the contract's, with what stands in backticks as code."""
    return _CODE.sub(r"<code>\1</code>", escape(text))


def _section(document: Mapping[str, Any], tag: Mapping[str, str]) -> str:
    found = "".join(
        _operation(document, path, verb, operation)
        for path, verbs in document["paths"].items()
        for verb, operation in verbs.items()
        if tag["name"] in operation["tags"]
    )
    name = escape(tag["name"])
    return f'<h2 id="{name}">{name}</h2><p>{_told(tag["description"])}</p>{found}'


def _operation(document: Mapping[str, Any], path: str, verb: str, operation: Mapping[str, Any]) -> str:
    rows = "".join(_rows(document, operation))
    return (
        f"<details><summary><b>{verb.upper()}</b> <code>{escape(path)}</code> "
        f"<small>{_told(operation['summary'])}</small></summary><p>{_told(operation['description'])}</p>"
        f"<p><small>scope {escape(operation['x-agentnet-scope'])}; roles "
        f"{escape(', '.join(operation['x-agentnet-roles']))}</small></p><table>{rows}</table></details>"
    )


def _rows(document: Mapping[str, Any], operation: Mapping[str, Any]) -> Iterator[str]:
    for parameter in operation["parameters"]:
        name, told = escape(parameter["name"]), _told(parameter["schema"].get("description", ""))
        yield f"<tr><td><code>{name}</code></td><td>{parameter['in']}</td><td>{told}</td></tr>"
    if body := operation.get("requestBody"):
        yield _schema_row(document, "request", next(iter(body["content"].values()))["schema"])
    kind, content = next(iter(operation["responses"]["200"]["content"].items()))
    yield _schema_row(document, f"response ({kind})", content["schema"])


def _schema_row(document: Mapping[str, Any], title: str, schema: Mapping[str, Any]) -> str:
    reference = schema.get("$ref", "")
    named = document["components"]["schemas"].get(reference.rpartition("/")[2], schema)
    shown = escape(json.dumps(named, indent=1, ensure_ascii=False))
    return f"<tr><td>{escape(title)}</td><td colspan=2><pre>{shown}</pre></td></tr>"
