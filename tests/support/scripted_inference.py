"""An InferenceService that does as the model's name says, for those who only speak to it."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from agentnet.common.v1 import usage_pb2
from agentnet.inference.v1 import generation_pb2 as gen
from agentnet.inference.v1 import inference_service_pb2 as pb
from agentnet.inference.v1 import inference_service_pb2_grpc as rpc
from agentnet.inference.v1 import media_service_pb2 as media
from agentnet.inference.v1 import media_service_pb2_grpc as media_rpc
from agentnet.inference.v1 import message_pb2
from agentnet.inference.v1 import queue_service_pb2 as queue
from agentnet.inference.v1 import queue_service_pb2_grpc as queue_rpc
from shared import errors
from shared.errors import Reason

WORDS = ("Hello", ", ", "wörld", "!")
TEXT = "".join(WORDS)
KNOWN = frozenset({"words", "slow", "broken", "tools", "mesh", "gone", "anew"})
PICTURE = b"RIFF\x00\xffWEBP"
SOUND = bytes(range(256))


class ModelNotFound(errors.NotFound):
    reason = Reason.ERROR_REASON_MODEL_NOT_FOUND


class BudgetExhausted(errors.ResourceExhausted):
    reason = Reason.ERROR_REASON_BUDGET_EXHAUSTED


class Broken(errors.Unavailable):
    reason = Reason.ERROR_REASON_STREAM_BROKEN


class GenerationNotFound(errors.NotFound):
    reason = Reason.ERROR_REASON_GENERATION_NOT_FOUND


class GenerationCancelled(errors.Aborted):
    reason = Reason.ERROR_REASON_GENERATION_CANCELLED


class ScriptedInference(rpc.InferenceServiceServicer, media_rpc.MediaServiceServicer, queue_rpc.QueueServiceServicer):
    """`words` answers WORDS, `slow` never ends, `broken` breaks after a word, `anew` begins anew after one, `poor` has no money,
    `tools` asks for two, `mesh` for the first it is given and then says what that brought. What is submitted waits while `busy`.
    """

    def __init__(self) -> None:
        self.asked: list[pb.GenerateRequest] = []
        self.cancelled: list[str] = []
        self.media: list[Any] = []
        self.open = 0
        self.submitted: dict[str, pb.GenerateRequest] = {}
        self.busy = False
        self.again: dict[str, str] = {}
        """What is run a second time, by which model."""

    async def SubmitGeneration(self, request: queue.SubmitGenerationRequest, context: Any) -> Any:
        asked = request.generation
        if asked.model not in KNOWN:
            raise ModelNotFound(f"no model {asked.model}", model=asked.model)
        self.submitted[asked.generation_id] = asked
        return queue.SubmitGenerationResponse(generation_id=asked.generation_id)

    async def GetSubmittedGeneration(self, request: queue.GetSubmittedGenerationRequest, context: Any) -> Any:
        name = request.generation_id
        if (asked := self.submitted.get(name)) is None:
            raise GenerationNotFound(f"no generation {name}")
        found = queue.GetSubmittedGenerationResponse(generation_id=name, state=queue.SUBMITTED_STATE_QUEUED)
        if name in self.cancelled:
            found.state = queue.SUBMITTED_STATE_FAILED
            found.failure.CopyFrom(GenerationCancelled("called off").failure())
        elif not self.busy:
            found.running_id, found.state, found.runs = name, queue.SUBMITTED_STATE_RUNNING, 1
        if name in self.again:
            found.running_id, found.runs = f"{name}-run2", 2
        if asked.model == "gone":
            found.state = queue.SUBMITTED_STATE_SUCCEEDED
            found.response.text = TEXT
            found.response.finished.usage.output_tokens = len(WORDS)
        if asked.model == "mesh" and not self.busy and name not in self.cancelled:
            found.state = queue.SUBMITTED_STATE_SUCCEEDED
            async for event in self._served(asked):
                found.response.text += event.text.text
                found.response.tool_calls.extend([event.tool_call.tool_call] if event.HasField("tool_call") else ())
                found.response.finished.CopyFrom(event.finished)
        return found

    async def CancelSubmittedGeneration(self, request: queue.CancelSubmittedGenerationRequest, context: Any) -> Any:
        if request.generation_id not in self.submitted:
            raise GenerationNotFound(f"no generation {request.generation_id}")
        self.cancelled.append(request.generation_id)
        return queue.CancelSubmittedGenerationResponse()

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> Any:
        self.asked.append(request)
        self.open += 1
        try:
            name = request.generation_id or "gen_1"
            events = self._served(request) if request.model == "mesh" else self._events(request.model, name)
            async for event in events:
                yield pb.GenerateResponse(event=event)
        finally:
            self.open -= 1

    async def Attach(self, request: pb.AttachRequest, context: Any) -> Any:
        known = {asked.generation_id: asked.model for asked in (*self.asked, *self.submitted.values())}
        name, _, run = request.generation_id.partition("-run")
        model = self.again[name] if run else known.get(name, "none")
        if model in {"none", "gone"}:
            raise GenerationNotFound(f"no generation {request.generation_id}")
        serves = model == "mesh" and not run
        told = self._served(self.submitted[name]) if serves else self._events(model, request.generation_id)
        async for event in told:
            if event.sequence > request.after_sequence:
                yield pb.AttachResponse(event=event)

    async def CancelGeneration(self, request: pb.CancelGenerationRequest, context: Any) -> Any:
        self.cancelled.append(request.generation_id)
        return pb.CancelGenerationResponse()

    async def Embed(self, request: pb.EmbedRequest, context: Any) -> Any:
        vectors = [pb.Embedding(values=[0.5, -0.25, float(len(text))]) for text in request.texts]
        usage = usage_pb2.Usage(input_tokens=3 * len(vectors))
        return pb.EmbedResponse(embeddings=vectors, model="minilm", usage=usage)

    async def GenerateImages(self, request: media.GenerateImagesRequest, context: Any) -> Any:
        self.media.append(request)
        if request.model == "poor":
            raise BudgetExhausted("the tenant has spent its budget")
        for _ in range(request.count or 1):
            image = media.GeneratedImage(media_type="image/webp", data=PICTURE, revised_prompt="A better cat.")
            yield media.GenerateImagesResponse(image=image)
        yield media.GenerateImagesResponse(spent=_spent(input_tokens=5, output_tokens=272))

    async def Transcribe(self, request: media.TranscribeRequest, context: Any) -> Any:
        self.media.append(request)
        found = media.TranscribeResponse(text=TEXT, language="english", spent=_spent(audio_input_units=3))
        found.duration.FromMilliseconds(2500)
        for place, word in enumerate(("Hello, ", "wörld!") if request.segments and request.model != "redacted" else ()):
            segment = found.segments.add(text=word)
            segment.start.FromMilliseconds(1250 * place)
            segment.end.FromMilliseconds(1250 * place + 1250)
        return found

    async def Speak(self, request: media.SpeakRequest, context: Any) -> Any:
        self.media.append(request)
        for piece in (SOUND[:10], SOUND[10:]):
            yield media.SpeakResponse(audio=media.SpokenAudio(media_type="audio/mpeg", data=piece))
        yield media.SpeakResponse(spent=_spent())

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> Any:
        return pb.ListModelsResponse(models=[pb.Model(name="words", provider="script")])

    async def _served(self, request: pb.GenerateRequest) -> Any:
        name, last = request.generation_id, request.messages[-1]
        yield self._event(name, 1, started=gen.GenerationStarted(provider="script", model="mesh"))
        told = [part.tool_result.content for part in last.content if part.HasField("tool_result")]
        if told:
            yield self._event(name, 2, text=gen.TextProduced(text=f"It is {told[0]}.", token_count=3))
        else:
            named = request.tools[0].name
            arguments = f'{{"prompt": "{last.content[0].text}"}}' if named.startswith("agent_") else '{"a": 41}'
            call = message_pb2.ToolCall(id="call_0", name=named, arguments=arguments)
            yield self._event(name, 2, tool_call=gen.ToolCallProduced(index=0, tool_call=call))
        reason = gen.FINISH_REASON_STOP if told else gen.FINISH_REASON_TOOL_CALLS
        usage = usage_pb2.Usage(input_tokens=5, output_tokens=3)
        yield self._event(name, 3, finished=gen.GenerationFinished(finish_reason=reason, usage=usage))

    async def _events(self, model: str, generation_id: str) -> Any:
        if model == "poor":
            raise BudgetExhausted("the tenant has spent its budget")
        if model not in KNOWN:
            raise ModelNotFound(f"no model {model}", model=model)
        started = gen.GenerationStarted(provider="script", model=model, input_tokens=7)
        yield self._event(generation_id, 1, started=started)
        if model == "anew":
            yield self._event(generation_id, 2, text=gen.TextProduced(text=WORDS[0], token_count=1))
            yield self._event(generation_id, 3, failover=gen.Failover(from_model=model, to_model=model, restarted=True))
        for place, word in enumerate(WORDS):
            yield self._event(generation_id, place + 2, text=gen.TextProduced(text=word, token_count=1))
            if model == "broken":
                failure = Broken("the provider's stream ended in the middle").failure()
                yield self._event(generation_id, 3, failed=gen.GenerationFailed(failure=failure))
                return
            if model == "slow":
                await asyncio.sleep(60)
        if model == "tools":
            for index, city in enumerate(("Oslo", "Rome")):
                call = message_pb2.ToolCall(id=f"call_{index}", name="weather", arguments=f'{{"city": "{city}"}}')
                made = gen.ToolCallProduced(index=index, tool_call=call)
                yield self._event(generation_id, len(WORDS) + 2 + index, tool_call=made)
        usage = usage_pb2.Usage(input_tokens=7, output_tokens=len(WORDS), cached_input_tokens=2)
        reason = gen.FINISH_REASON_TOOL_CALLS if model == "tools" else gen.FINISH_REASON_STOP
        finished = gen.GenerationFinished(finish_reason=reason, usage=usage)
        yield self._event(generation_id, len(WORDS) + 2, finished=finished)

    def _event(self, generation_id: str, sequence: int, **what: Any) -> gen.GenerationEvent:
        event = gen.GenerationEvent(generation_id=generation_id, sequence=sequence, **what)
        event.time.FromSeconds(1_800_000_000)
        return event

    def serve(self, server: grpc.aio.Server) -> None:
        rpc.add_InferenceServiceServicer_to_server(self, server)
        media_rpc.add_MediaServiceServicer_to_server(self, server)
        queue_rpc.add_QueueServiceServicer_to_server(self, server)


def _spent(**counts: int) -> media.MediaSpent:
    found = media.MediaSpent()
    found.usage.input_tokens, found.usage.output_tokens = counts.get("input_tokens", 0), counts.get("output_tokens", 0)
    found.audio_input_units = counts.get("audio_input_units", 0)
    found.time.FromSeconds(1_800_000_000)
    return found
