"""What Envoy measured of each service: requests answered, and latency percentiles since the mesh started."""

from __future__ import annotations

import http.client
import json
from typing import Any

from deploy.local.parts import admin_socket
from deploy.local.probes import UnixConnection
from deploy.local.state import State
from shared.settings import SERVICES

_PERCENTILES = {"p50": 50, "p95": 95, "p99": 99}


def figures(state: State) -> dict[str, dict[str, Any]]:
    """Requests and milliseconds by service; nothing when Envoy does not answer."""
    try:
        measured = stats(state, "upstream_rq_(time|completed)")
    except (OSError, ValueError, http.client.HTTPException):
        return {}
    found: dict[str, dict[str, Any]] = {}
    for entry in measured:
        name = str(entry.get("name", ""))
        if name.startswith("cluster.") and name.endswith(".upstream_rq_completed"):
            found.setdefault(name.split(".")[1], {})["requests"] = entry["value"]
        if "histograms" in entry:
            _add_histograms(found, entry["histograms"])
    return found


def routable(state: State) -> bool:
    """Whether Envoy's own health checks have found every service well."""
    try:
        measured = stats(state, "membership_healthy")
    except (OSError, ValueError, http.client.HTTPException):
        return False
    healthy = {str(entry["name"]).split(".")[1]: entry["value"] for entry in measured if "value" in entry}
    return all(healthy.get(service) for service in SERVICES)


def _add_histograms(found: dict[str, dict[str, Any]], histograms: dict[str, Any]) -> None:
    places = histograms.get("supported_quantiles", [])
    for histogram in histograms.get("computed_quantiles", []):
        name = str(histogram["name"])
        if not (name.startswith("cluster.") and name.endswith(".upstream_rq_time") and name.count(".") == 2):  # noqa: PLR2004
            continue
        values = [value["cumulative"] for value in histogram["values"]]
        found.setdefault(name.split(".")[1], {})["latency_ms"] = {
            label: values[places.index(place)] for label, place in _PERCENTILES.items() if place in places
        }


def stats(state: State, names: str) -> list[dict[str, Any]]:
    """What Envoy counts under names that match, of what was used. Raises OSError when it does not answer."""
    connection = UnixConnection(admin_socket(state))
    connection.request("GET", f"/stats?format=json&usedonly&filter={names}")
    found: list[dict[str, Any]] = json.loads(connection.getresponse().read())["stats"]
    return found
