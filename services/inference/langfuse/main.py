"""How the export to Langfuse is built into inference."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from services.inference.langfuse.exporter import LangfuseExporter, Pace, exporting
from services.inference.langfuse.links import PromptLinks
from services.inference.langfuse.server import LangfuseServer, Project
from services.inference.langfuse.settings import LangfuseSettings
from shared.clock import Clock


@asynccontextmanager
async def langfuse(
    settings: LangfuseSettings, session: aiohttp.ClientSession, clock: Clock
) -> AsyncIterator[LangfuseExporter | None]:
    """The exporter at work in the block; none while no URL is set."""
    if not settings.langfuse_url:
        yield None
        return
    project = Project(settings.langfuse_url, settings.langfuse_public_key, settings.secret_key)
    server = LangfuseServer(project, session)
    made = LangfuseExporter(
        server,
        PromptLinks(server, clock),
        pace=Pace(),
        content=settings.langfuse_content,
        environment=settings.environment,
    )
    async with exporting(made, grace=settings.langfuse_grace) as exporter:
        yield exporter
