"""Prompts over REST through the edge: versions, labels, weights, diffs, rendering, and the tie to a generation."""

from __future__ import annotations

from typing import Any

from tests.e2e.conftest import Rest, field_of, reason_of


def prompt(template: str, **changes: Any) -> dict[str, Any]:
    variables = [{"name": "topic", "type": "PROMPT_VARIABLE_TYPE_STRING"}]
    content = {"messages": [{"role": "ROLE_USER", "template": template}], "variables": variables}
    return {"name": "rest.greeting", "content": content} | changes


async def test_a_prompt_is_made_labelled_compared_rendered_and_tied_over_rest(rest: Rest) -> None:
    status, one = await rest("POST", "/v1/prompts", prompt("About {{topic}}?", labels=["production"]))
    assert (status, one["created"], one["version"]["number"]) == (200, True, 1)
    _, two = await rest("POST", "/v1/prompts", prompt("About {{topic}}!"))
    status, found = await rest("GET", f"/v1/prompts/rest.greeting@{two['version']['digest'][:12]}")
    assert (status, found["version"]["number"]) == (200, 2)
    status, diff = await rest("GET", "/v1/prompts:diff?before=rest.greeting@1&after=rest.greeting@2")
    assert (status, diff["changes"][0]["path"]) == (200, "messages[0].template")
    assert "+About {{topic}}!" in diff["unified"]
    targets = [{"version": "1", "weight": 1}, {"version": "2", "weight": 1}]
    status, _ = await rest("POST", "/v1/prompts/rest.greeting/label", {"label": "production", "targets": targets})
    assert status == 200
    render = {"variables": {"topic": "tea"}, "key": "user-1", "generation_id": "gen-rest-prompt"}
    answers = [await rest("POST", "/v1/prompts/rest.greeting/render", render) for _ in range(3)]
    assert {status for status, _ in answers} == {200}
    (text,) = {answer["messages"][0]["content"][0]["text"] for _, answer in answers}
    assert text in ("About tea?", "About tea!")
    messages = answers[0][1]["messages"]
    body = {"generation": {"generation_id": "gen-rest-prompt", "model": "synthetic", "messages": messages}}
    assert (await rest("POST", "/v1/generations:text", body))[0] == 200
    _, tied = await rest("GET", "/v1/prompts/rest.greeting/generations")
    assert [one["generation_id"] for one in tied["generations"]] == ["gen-rest-prompt"]
    assert tied["generations"][0]["digest"] == answers[0][1]["version"]["digest"]
    _, versions = await rest("GET", "/v1/prompts/rest.greeting/versions")
    assert [one["number"] for one in versions["versions"]] == [2, 1]


async def test_a_wrong_template_names_its_place_over_rest(rest: Rest) -> None:
    status, refusal = await rest("POST", "/v1/prompts", prompt("{{topic}}\n {{nobody}}"))
    assert (status, reason_of(refusal), field_of(refusal)) == (400, "PROMPT_INVALID", "content.messages[0].template")
    info = next(detail for detail in refusal["details"] if detail["@type"].endswith("ErrorInfo"))
    assert info["metadata"] == {"line": "2", "column": "2"}


async def test_embeddings_come_batched_and_cached_through_the_edge(rest: Rest) -> None:
    texts = ["A cat lies on a rug.", "Interest rates rose.", "A cat lies on a rug."]
    status, first = await rest("POST", "/v1/inference/embeddings", {"texts": texts})
    _, again = await rest("POST", "/v1/inference/embeddings", {"texts": texts})
    assert (status, len(first["embeddings"]), len(first["embeddings"][0]["values"])) == (200, 3, 384)
    assert first["embeddings"] == again["embeddings"]
    assert first["embeddings"][0] == first["embeddings"][2]
    assert int(first["usage"]["input_tokens"]) > 0
    assert int(again["usage"]["input_tokens"]) == 0
