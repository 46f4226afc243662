// One client at a time, as its own documentation uses it: `node clients.mjs <name>` with BASE, TOKEN and DESCRIPTORS in
// the environment. It prints what it got as JSON; the tests say what that should be.
const { BASE, TOKEN, DESCRIPTORS } = process.env;

const clients = {
  async openai() {
    const { default: OpenAI } = await import("openai");
    const client = new OpenAI({ baseURL: `${BASE}/v1`, apiKey: TOKEN, maxRetries: 0 });
    const messages = [{ role: "user", content: "Say hello." }];
    const whole = await client.chat.completions.create({ model: "words", messages });
    let streamed = "";
    let usage = null;
    const stream = await client.chat.completions.create({
      model: "words", messages, stream: true, stream_options: { include_usage: true },
    });
    for await (const chunk of stream) {
      streamed += chunk.choices[0]?.delta?.content ?? "";
      usage = chunk.usage ?? usage;
    }
    const tools = await client.chat.completions.create({
      model: "tools", messages,
      tools: [{ type: "function", function: { name: "weather", parameters: { type: "object" } } }],
    });
    const response = await client.responses.create({ model: "words", input: "Say hello." });
    const events = [];
    for await (const event of await client.responses.create({ model: "words", input: "Hello.", stream: true })) {
      events.push(event.type);
    }
    const embedding = await client.embeddings.create({ model: "minilm", input: "abc" });
    const failed = await client.chat.completions.create({ model: "none", messages }).catch((error) => error);
    return {
      whole: whole.choices[0].message.content, total: whole.usage.total_tokens, streamed, usage: usage.completion_tokens,
      calls: tools.choices[0].message.tool_calls.map((call) => JSON.parse(call.function.arguments).city),
      response: response.output_text, first: events[0], last: events.at(-1), embedding: embedding.data[0].embedding,
      failed: [failed.constructor.name, failed.status, failed.code],
      models: (await client.models.list()).data.map((model) => model.id),
    };
  },

  async anthropic() {
    const { default: Anthropic } = await import("@anthropic-ai/sdk");
    const client = new Anthropic({ baseURL: BASE, apiKey: TOKEN, maxRetries: 0 });
    const asked = { model: "words", max_tokens: 50, messages: [{ role: "user", content: "Say hello." }] };
    const whole = await client.messages.create(asked);
    const streamed = await client.messages.stream(asked).finalText();
    return { whole: whole.content[0].text, streamed, stop: whole.stop_reason };
  },

  async vercel() {
    const { createOpenAI } = await import("@ai-sdk/openai");
    const { generateObject, generateText, streamText, embed, tool, jsonSchema } = await import("ai");
    const mesh = createOpenAI({ baseURL: `${BASE}/v1`, apiKey: TOKEN });
    const { text, usage } = await generateText({ model: mesh.chat("words"), prompt: "Say hello.", maxRetries: 0 });
    let streamed = "";
    for await (const part of streamText({ model: mesh.chat("words"), prompt: "Say hello." }).textStream) streamed += part;
    const schema = jsonSchema({ type: "object", properties: { city: { type: "string" } }, required: ["city"] });
    const called = await generateText({
      model: mesh.chat("tools"), prompt: "Weather?", tools: { weather: tool({ inputSchema: schema }) },
    });
    const { embedding } = await embed({ model: mesh.textEmbeddingModel("minilm"), value: "abc" });
    const agent = await generateText({ model: mesh.chat("agent:Athena"), prompt: "Say hello.", maxRetries: 0 });
    return {
      text, streamed, total: usage.totalTokens, calls: called.toolCalls.map((call) => call.input.city), embedding,
      agent: agent.text,
    };
  },

  async grpc() {
    const grpc = await import("@grpc/grpc-js");
    const { default: loader } = await import("@grpc/proto-loader");
    const { readFileSync } = await import("node:fs");
    const definition = loader.loadFileDescriptorSetFromBuffer(readFileSync(DESCRIPTORS), { keepCase: true, longs: Number });
    const { agentnet } = grpc.loadPackageDefinition(definition);
    const secret = grpc.credentials.createInsecure();
    const metadata = new grpc.Metadata();
    metadata.set("authorization", `Bearer ${TOKEN}`);
    const sessions = new agentnet.orchestrator.v1.SessionService(new URL(BASE).host, secret);
    const call = (method, request, given = metadata) =>
      new Promise((resolve) => sessions[method](request, given, (error, answer) => resolve(error ?? answer)));
    const started = await call("StartSession", { topic: "Say hello.", mode: "single", agents: ["Athena"] });
    const texts = [];
    for await (const item of sessions.WatchSession({ session_id: started.session.id }, metadata)) {
      if (item.event?.tokens_produced) texts.push(item.event.tokens_produced.text);
    }
    const refused = await call("StartSession", { topic: "x", mode: "single", agents: ["Athena"] }, new grpc.Metadata());
    const missing = await call("StartSession", { topic: "x", mode: "single", agents: ["Zeus"] });
    return { texts, refused: grpc.status[refused.code], missing: grpc.status[missing.code] };
  },

  async connect() {
    const { createClient } = await import("@connectrpc/connect");
    const { createGrpcWebTransport } = await import("@connectrpc/connect-web");
    const { createFileRegistry, fromBinary } = await import("@bufbuild/protobuf");
    const { FileDescriptorSetSchema } = await import("@bufbuild/protobuf/wkt");
    const { readFileSync } = await import("node:fs");
    const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(DESCRIPTORS)));
    const service = registry.getService("agentnet.orchestrator.v1.SessionService");
    const authorized = (next) => (request) => { request.header.set("authorization", `Bearer ${TOKEN}`); return next(request); };
    const client = createClient(service, createGrpcWebTransport({ baseUrl: BASE, interceptors: [authorized] }));
    const stranger = createClient(service, createGrpcWebTransport({ baseUrl: BASE }));
    const { session } = await client.startSession({ topic: "Say hello.", mode: "single", agents: ["Athena"] });
    const texts = [];
    for await (const answer of client.watchSession({ sessionId: session.id })) {
      const payload = answer.item.value?.payload;
      if (payload?.case === "tokensProduced") texts.push(payload.value.text);
    }
    const refused = await stranger.startSession({ topic: "x" }).catch((error) => error);
    return { texts, refused: refused.code };
  },

  async mcp() {
    const { Client, StreamableHTTPClientTransport } = await import("@modelcontextprotocol/client");
    const spoken = {};
    for (const mode of ["legacy", "auto"]) {
      const client = new Client({ name: "conformance", version: "1.0.0" }, { versionNegotiation: { mode } });
      const headers = { authorization: `Bearer ${TOKEN}` };
      await client.connect(new StreamableHTTPClientTransport(new URL(`${BASE}/mcp`), { requestInit: { headers } }));
      const { tools } = await client.listTools();
      const called = await client.callTool({ name: "test_simple_text", arguments: {} });
      const read = await client.readResource({ uri: "test://static-text" });
      spoken[mode] = [client.getNegotiatedProtocolVersion(), tools.length, called.content[0].text, read.contents[0].uri];
      await client.close();
    }
    return spoken;
  },
};

console.log(JSON.stringify(await clients[process.argv[2]]()));
process.exit(0);
