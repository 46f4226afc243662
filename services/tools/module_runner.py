"""Inside the sandbox: compiles and runs a WebAssembly module that reads JSON and prints JSON (WASI preview 1)."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

import wasmtime

_INPUT, _OUTPUT = "/tmp/input", "/tmp/output"  # noqa: S108 - the call's own, in memory
_MAX_RESULT = 1024 * 1024
_NO_FUEL = 2**63 - 1


def run(order: dict[str, Any]) -> dict[str, Any]:
    """The module's result, or why there is none."""
    with open(_INPUT, "w", encoding="utf-8") as file:  # noqa: PTH123 - pathlib is one more import
        file.write(order["arguments"])
    try:
        _execute(order)
    except wasmtime.ExitTrap as ended:
        if ended.code != 0:
            return {"status": "USER_ERROR", "message": f"the module ended with status {ended.code}"}
    except wasmtime.Trap as trap:
        return {"status": "USER_ERROR", "message": _said(trap)}
    except wasmtime.WasmtimeError as error:
        return {"status": "USER_ERROR", "message": f"the module cannot be run: {error}"[:500]}
    except MemoryError:
        return {"status": "MEMORY_LIMIT", "message": "the module needs more memory than its limit"}
    return _printed()


def _execute(order: dict[str, Any]) -> None:
    engine = wasmtime.Engine(_config())
    module = wasmtime.Module(engine, base64.b64decode(order["module"]))
    store: wasmtime.Store = wasmtime.Store(engine)
    store.set_limits(memory_size=order["memory"], instances=1, memories=1, tables=16, table_elements=100_000)
    store.set_fuel(order["fuel"] or _NO_FUEL)
    store.set_wasi(_wasi())
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    start = linker.instantiate(store, module).exports(store).get("_start")
    if not isinstance(start, wasmtime.Func):
        raise wasmtime.WasmtimeError("it exports no function _start, as a WASI command does")
    start(store)


def _config() -> wasmtime.Config:
    """What a call has none of is not asked for: threads, memory files, address space in reserve."""
    config = wasmtime.Config()
    config.parallel_compilation = False
    config.consume_fuel = True
    config.wasm_threads = False
    config.memory_init_cow = False
    config.memory_reservation = 0
    config.memory_guard_size = 0
    config.memory_reservation_for_growth = 0
    return config


def _wasi() -> wasmtime.WasiConfig:
    wasi = wasmtime.WasiConfig()
    wasi.stdin_file = _INPUT
    wasi.stdout_file = _OUTPUT
    wasi.inherit_stderr()
    return wasi


def _said(trap: wasmtime.Trap) -> str:
    if trap.trap_code is wasmtime.TrapCode.OUT_OF_FUEL:
        return "the module ran more instructions than its fuel allows"
    return f"the module trapped: {trap.message.strip().splitlines()[-1]}"[:500]


def _printed() -> dict[str, Any]:
    size = os.stat(_OUTPUT).st_size  # noqa: PTH116
    if size > _MAX_RESULT:
        return {"status": "USER_ERROR", "message": f"the result has more than {_MAX_RESULT} bytes"}
    with open(_OUTPUT, "rb") as file:  # noqa: PTH123
        data = file.read()
    try:
        return {"status": "OK", "result": json.loads(data) if data.strip() else None}
    except (ValueError, RecursionError):
        return {"status": "USER_ERROR", "message": "what the module printed is not JSON"}
