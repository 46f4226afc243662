"""One framework at a time, as its own documentation uses it: `python frameworks.py <name>` with BASE and TOKEN in the
environment. It prints what it got as JSON; the tests say what that should be.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

BASE, TOKEN = f"{os.environ['BASE']}/v1", os.environ["TOKEN"]


def langchain() -> dict[str, Any]:
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings

    @tool
    def weather(city: str) -> str:
        """The weather of a city."""
        return city

    words = ChatOpenAI(model="words", base_url=BASE, api_key=TOKEN, max_retries=0, stream_usage=True)
    whole = words.invoke("Say hello.")
    streamed = [chunk.text for chunk in words.stream("Say hello.")]
    called = ChatOpenAI(model="tools", base_url=BASE, api_key=TOKEN).bind_tools([weather]).invoke("Weather?")
    agent = ChatOpenAI(model="agent:Athena", base_url=BASE, api_key=TOKEN).invoke("Say hello.")
    vectors = OpenAIEmbeddings(model="minilm", base_url=BASE, api_key=TOKEN, check_embedding_ctx_length=False)
    return {
        "text": whole.text,
        "total": whole.usage_metadata["total_tokens"],
        "streamed": "".join(streamed),
        "calls": [call["args"]["city"] for call in called.tool_calls],
        "agent": agent.text,
        "embedding": vectors.embed_query("abc"),
    }


def pydantic_ai() -> dict[str, Any]:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=BASE, api_key=TOKEN)
    agent = Agent(OpenAIChatModel("words", provider=provider))
    found = agent.run_sync("Say hello.")
    streamed = agent.run_stream_sync("Say hello.").get_output()
    athena = Agent(OpenAIChatModel("agent:Athena", provider=provider)).run_sync("Say hello.")
    return {"text": found.output, "streamed": streamed, "agent": athena.output}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]]()))
