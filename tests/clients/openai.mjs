// The npm clients `openai` and `ai` against /v1. Prints what each of them has read.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { AbstractChat, DefaultChatTransport, convertToModelMessages, generateText, streamText } from "ai";
import OpenAI from "openai";

const [, , baseURL] = process.argv;
const client = new OpenAI({ baseURL, apiKey: "none" });
const results = {};

const completion = await client.chat.completions.create({ model: "m", messages: [{ role: "user", content: "One" }] });
results.completion = { text: completion.choices[0].message.content, usage: completion.usage };

results.streamed = "";
const chunks = await client.chat.completions.create({
  model: "m",
  messages: [{ role: "user", content: "Two" }],
  stream: true,
  stream_options: { include_usage: true },
});
for await (const chunk of chunks) {
  results.streamed += chunk.choices[0]?.delta?.content ?? "";
  results.usage = chunk.usage ?? results.usage;
}

const first = await client.responses.create({ model: "m", input: "Three" });
const second = client.responses.stream({ model: "m", input: "Four", previous_response_id: first.id });
results.events = [];
for await (const event of second) results.events.push(event.type);
results.responses = [first.output_text, (await second.finalResponse()).output[0].content[0].text];

try {
  await client.chat.completions.create({ model: "m", messages: [{ role: "user", content: " " }] });
} catch (error) {
  results.error = { name: error.constructor.name, status: error.status, type: error.type };
}

const provider = createOpenAICompatible({ name: "everturn", baseURL, includeUsage: true });
const generated = await generateText({ model: provider("m"), prompt: "Five" });
results.generated = generated.text;
const stream = streamText({
  model: provider("m"),
  system: "Be brief.",
  messages: [
    { role: "user", content: "Hi" },
    { role: "assistant", content: "Hello" },
    { role: "user", content: "Six" },
  ],
});
results.pieces = [];
for await (const piece of stream.textStream) results.pieces.push(piece);
results.tokens = (await stream.usage).totalTokens;

// What useChat does, without React: it says something, has the answer again, and changes what it said. The server of
// its page is the function that its transport fetches from.
class Chat extends AbstractChat {
  constructor(init) {
    const state = { messages: [], status: "ready", error: undefined, snapshot: (value) => structuredClone(value) };
    state.pushMessage = (message) => state.messages.push(message);
    state.popMessage = () => state.messages.pop();
    state.replaceMessage = (place, message) => (state.messages[place] = message);
    super({ ...init, state });
  }
}

const server = async (_, { body }) => {
  const messages = await convertToModelMessages(JSON.parse(body).messages);
  return streamText({ model: provider("m"), messages }).toUIMessageStreamResponse();
};
const chat = new Chat({ transport: new DefaultChatTransport({ fetch: server }) });
const saidIn = () => chat.messages.map(({ parts }) => parts.map(({ text }) => text ?? "").join(""));
results.chat = [];
await chat.sendMessage({ text: "Seven" });
results.chat.push(saidIn());
await chat.regenerate();
results.chat.push(saidIn());
await chat.sendMessage({ text: "Eight" });
await chat.sendMessage({ text: "Nine", messageId: chat.messages[2].id });
results.chat.push(saidIn());

console.log("RESULTS " + JSON.stringify(results));
