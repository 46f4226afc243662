"""`python -m services.inference.sealing` keeps an encrypted file of secrets; values come by standard input."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import aiohttp

from services.inference.credentials import MASTER_KEY, CredentialMissing, Credentials
from shared.sealed import MasterKey, SealBroken, Sealed, names


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    asked = _parser().parse_args(arguments)
    try:
        for line in asyncio.run(_done(asked)):
            sys.stdout.write(f"{line}\n")
    except (SealBroken, CredentialMissing) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


async def _done(asked: argparse.Namespace) -> list[str]:
    match asked.command:
        case "key":
            return [MasterKey.new().text]
        case "list":
            held, keys = names(asked.file)
            return [*held, *(f"opens with {key}" for key in keys)]
    master = await _master(os.environ.get(MASTER_KEY, ""))
    there = asked.file.exists()
    opened = Sealed.open(asked.file, master) if there or asked.command != "set" else Sealed.of({}, master)
    match asked.command:
        case "set":
            opened = replace(opened, secrets={**opened.secrets, asked.name: sys.stdin.read().strip("\r\n")})
        case "remove":
            opened = replace(
                opened, secrets={name: held for name, held in opened.secrets.items() if name != asked.name}
            )
        case "rotate":
            opened = Sealed.of(opened.secrets, master, await _master(asked.to))
        case "retire":
            opened = Sealed.of(opened.secrets, master)
    opened.write(asked.file)
    return []


async def _master(reference: str) -> MasterKey:
    if reference.startswith("sealed:"):
        raise CredentialMissing("a master key must lead out of sealed files")
    async with aiohttp.ClientSession() as session:
        return MasterKey.parse((await Credentials(session).read(reference)).get_secret_value())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.inference.sealing", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("key", help="print a new master key")
    told = {
        "list": "names of secrets, and which keys open the file",
        "set": "seal standard input under a name",
        "remove": "take a secret out",
        "rotate": "a new data key, for the present master key and another",
        "retire": "a new data key, for the present master key alone",
    }
    for name, text in told.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("file", type=Path)
        if name in {"set", "remove"}:
            command.add_argument("name")
        if name == "rotate":
            command.add_argument("to", help="a reference to the other master key")
    return parser


if __name__ == "__main__":
    sys.exit(main())
