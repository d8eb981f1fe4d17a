// @ag-ui/client against POST /agui: two runs of a thread, one of them with an attempt that breaks off. Prints what the client has.
import { HttpAgent } from "@ag-ui/client";

const [, , url, seenUrl] = process.argv;
const agent = new HttpAgent({ url, threadId: "thread-1", initialMessages: [] });
const runs = [];

async function run(runId, text) {
  if (text) agent.addMessage({ id: `${runId}-user`, role: "user", content: text });
  const types = [];
  const { result, newMessages } = await agent.runAgent({ runId }, {
    onEvent: async ({ event }) => {
      types.push(event.type);
      if (event.delta === "I was goi") await fetch(seenUrl, { method: "POST" });
    },
  });
  runs.push({ runId, types, result, newMessages });
}

await run("run-1", "My name is Junaid");
await run("run-2", "What is my name?");
console.log("RESULTS " + JSON.stringify({ runs, messages: agent.messages }));
