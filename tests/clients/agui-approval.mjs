// @ag-ui/client with a turn that waits for a person: the run ends with an interrupt, and the next one resumes it.
import { HttpAgent } from "@ag-ui/client";

const [, , url] = process.argv;
const agent = new HttpAgent({ url, threadId: "thread-1", initialMessages: [] });
agent.addMessage({ id: "m", role: "user", content: "book PK301" });

const first = [];
await agent.runAgent({ runId: "run-1" }, { onEvent: ({ event }) => void first.push(event) });
const interrupts = first.at(-1).outcome.interrupts;
const resume = interrupts.map(({ id }) => ({ interruptId: id, status: "resolved", payload: { approved: true } }));
const { result } = await agent.runAgent({ runId: "run-2", resume });

console.log("RESULTS " + JSON.stringify({ interrupts, result, messages: agent.messages }));
