"""What Envoy shows and whom it trusts: secrets in files, taken anew when what they name is replaced."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.envoy.inputs import Config, EnvoyInputs, typed
from shared.rpc.tls import AUTHORITY, CERTIFICATE, KEY

_SOCKET = "envoy.transport_sockets.tls"
_TYPES = "envoy.extensions.transport_sockets.tls.v3"


def edge_socket(inputs: EnvoyInputs) -> Config:
    """Of the listener clients reach: our certificate, none of theirs."""
    if inputs.edge_tls is None:
        return {}
    return {"transport_socket": _downstream(inputs, "edge", version="TLSv1_2", protocols=["h2", "http/1.1"])}


def internal_socket(inputs: EnvoyInputs) -> Config:
    """Of the listener services reach: who shows no certificate of the mesh's authority is not heard."""
    if inputs.mesh_tls is None:
        return {}
    trusted = {"validation_context_sds_secret_config": _secret(inputs, "authority")}
    return {
        "transport_socket": _downstream(inputs, "mesh", version="TLSv1_3", protocols=["h2"], client=True, **trusted)
    }


def upstream_socket(inputs: EnvoyInputs, service: str, *, protocol: str = "h2") -> Config:
    """To a service: it must show a certificate with its own name, and is shown Envoy's."""
    if inputs.mesh_tls is None:
        return {}
    name = {"san_type": "DNS", "matcher": {"exact": service}}
    trusted = {
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": [name]},
            "validation_context_sds_secret_config": _secret(inputs, "authority"),
        }
    }
    common = _common(inputs, "mesh", version="TLSv1_3", protocols=[protocol], **trusted)
    return {
        "transport_socket": {
            "name": _SOCKET,
            "typed_config": typed(f"{_TYPES}.UpstreamTlsContext", common_tls_context=common, sni=service),
        }
    }


def secrets(inputs: EnvoyInputs) -> dict[str, str]:
    """The files of secrets by name, to lie beside the bootstrap in `inputs.secrets`."""
    found: dict[str, Config] = {}
    if inputs.edge_tls:
        found["edge"] = _pair(inputs.edge_tls)
    if inputs.mesh_tls:
        found["mesh"] = _pair(inputs.mesh_tls)
        found["authority"] = {
            "validation_context": {"trusted_ca": _file(inputs.mesh_tls, AUTHORITY), **_watched(inputs.mesh_tls)}
        }
    return {
        _file_name(name): json.dumps({"resources": [typed(f"{_TYPES}.Secret", name=name, **secret)]}, indent=1)
        for name, secret in found.items()
    }


def _downstream(inputs: EnvoyInputs, name: str, *, client: bool = False, **more: object) -> Config:
    context = typed(
        f"{_TYPES}.DownstreamTlsContext",
        common_tls_context=_common(inputs, name, **more),
        require_client_certificate=client,
    )
    return {"name": _SOCKET, "typed_config": context}


def _common(inputs: EnvoyInputs, name: str, *, version: object, protocols: object, **trusted: object) -> Config:
    return {
        "alpn_protocols": protocols,
        # Towards servers Envoy's own maximum is 1.2.
        "tls_params": {"tls_minimum_protocol_version": version, "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificate_sds_secret_configs": [_secret(inputs, name)],
        **trusted,
    }


def _secret(inputs: EnvoyInputs, name: str) -> Config:
    path = str(inputs.secrets / _file_name(name))
    return {"name": name, "sds_config": {"resource_api_version": "V3", "path_config_source": {"path": path}}}


def _file_name(name: str) -> str:
    return f"secret-{name}.json"


def _pair(folder: Path) -> Config:
    files = {"certificate_chain": _file(folder, CERTIFICATE), "private_key": _file(folder, KEY)}
    return {"tls_certificate": {**files, **_watched(folder)}}


def _watched(folder: Path) -> Config:
    """Files are renamed into the folder, by us as by Kubernetes: that is when they are read again."""
    return {"watched_directory": {"path": str(folder)}}


def _file(folder: Path, name: str) -> Config:
    return {"filename": str(folder / name)}
