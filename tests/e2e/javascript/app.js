// One program of Dapr's JavaScript SDK: it uses what it can, says in one line how that went, and ends.

const {
  DaprClient,
  DaprServer,
  DaprWorkflowClient,
  HttpMethod,
  WorkflowRuntime,
} = require("@dapr/dapr");
const { WorkflowRuntimeStatus } = require("@dapr/dapr/workflow/runtime/WorkflowRuntimeStatus");

const APP_ID = process.env.APP_ID;
const SECONDS = 60;

// Registered by name, so that nothing hangs on a function's name.
const double = async (_ctx, number) => number * 2;
const breaks = async () => {
  throw new Error("this activity always breaks");
};

async function* doublesTwice(ctx, number) {
  const once = yield ctx.callActivity("double", number);
  return yield ctx.callActivity("double", Number(once));
}

async function* doublesAll(ctx, numbers) {
  const tasks = numbers.map((number) => ctx.callActivity("double", number));
  return yield ctx.whenAll(tasks);
}

async function* waitsAWhile(ctx) {
  yield ctx.createTimer(0.05);
  return "the time has come";
}

async function* hasAChild(ctx, number) {
  return yield ctx.callChildWorkflow("doublesTwice", number, `${ctx.getWorkflowInstanceId()}-child`);
}

async function* waitsForApproval(ctx) {
  ctx.setCustomStatus("waiting for approval");
  const approval = yield ctx.waitForExternalEvent("approval");
  return `approved by ${approval.by}`;
}

async function* countsDown(ctx, number) {
  yield ctx.callActivity("double", number);
  if (number > 0) {
    ctx.continueAsNew(number - 1, false);
    return;
  }
  return "counted down";
}

async function* fails(ctx) {
  return yield ctx.callActivity("breaks", 1);
}

const WORKFLOWS = { doublesTwice, doublesAll, waitsAWhile, hasAChild, waitsForApproval, countsDown, fails };

function shown(state) {
  return {
    status: WorkflowRuntimeStatus[state.runtimeStatus],
    output: state.serializedOutput,
    failure: state.workflowFailureDetails?.getErrorMessage(),
  };
}

async function useWorkflows(client) {
  const run = async (workflow, input) => {
    const id = await client.scheduleNewWorkflow(workflow, input);
    return shown(await client.waitForWorkflowCompletion(id, true, SECONDS));
  };
  const results = {
    activities: await run("doublesTwice", 3),
    fan_out: await run("doublesAll", [1, 2, 3]),
    timer: await run("waitsAWhile"),
    child: await run("hasAChild", 5),
    continued: await run("countsDown", 3),
    failed: await run("fails"),
  };
  results.crowd = await Promise.all(Array.from({ length: 150 }, (_, number) => run("doublesTwice", number + 1)));

  const approved = await client.scheduleNewWorkflow("waitsForApproval");
  const started = await client.waitForWorkflowStart(approved, true, SECONDS);
  results.started = WorkflowRuntimeStatus[started.runtimeStatus];
  await client.suspendWorkflow(approved);
  results.suspended = WorkflowRuntimeStatus[(await client.getWorkflowState(approved, true)).runtimeStatus];
  await client.resumeWorkflow(approved);
  await client.raiseEvent(approved, "approval", { by: "Nadia" });
  results.event = shown(await client.waitForWorkflowCompletion(approved, true, SECONDS));

  const ended = await client.scheduleNewWorkflow("waitsForApproval", undefined, "to-be-terminated");
  await client.waitForWorkflowStart(ended, true, SECONDS);
  results.custom_status = (await client.getWorkflowState(ended, true)).customStatus ?? null;
  await client.terminateWorkflow(ended, "enough");
  results.terminated = shown(await client.waitForWorkflowCompletion(ended, true, SECONDS));
  results.purged = await client.purgeWorkflow(ended);
  results.after_purge = (await client.getWorkflowState(ended, true)) ?? null;
  return results;
}

async function useWorkflowsOverHttp(client, other) {
  const id = await client.scheduleNewWorkflow("waitsForApproval", undefined, "over-http");
  await other.waitForWorkflowStart(id, true, SECONDS);
  await client.pause(id);
  const paused = (await client.getWorkflowState(id)).runtimeStatus;
  await client.resume(id);
  await client.raiseEvent(id, "approval", { by: "Nadia" });
  await other.waitForWorkflowCompletion(id, true, SECONDS);
  const state = await client.getWorkflowState(id);
  await client.purge(id);
  return { paused, status: state.runtimeStatus, output: state.properties["dapr.workflow.output"] };
}

async function useBlocks(client, heard) {
  await client.state.save("statestore", [{ key: "color", value: { name: "blue" } }]);
  await client.pubsub.publish("pubsub", "colors", { name: "green" });
  const results = {
    state: await client.state.get("statestore", "color"),
    bulk: await client.state.getBulk("statestore", ["color", "none"]),
    invoked: await client.invoker.invoke(APP_ID, "greet", HttpMethod.POST, { name: "Nadia" }),
    heard: await heard,
  };
  await client.state.delete("statestore", "color");
  results.deleted = await client.state.get("statestore", "color");
  return results;
}

async function main() {
  const server = new DaprServer({ serverPort: process.env.APP_PORT });
  let hear;
  const heard = new Promise((resolve) => (hear = resolve));
  await server.pubsub.subscribe("pubsub", "colors", async (data) => hear(data));
  await server.invoker.listen("greet", async (data) => ({ greeting: `hello ${JSON.parse(data.body).name}` }), {
    method: HttpMethod.POST,
  });
  await server.start();

  const runtime = new WorkflowRuntime().registerActivityWithName("double", double);
  runtime.registerActivityWithName("breaks", breaks);
  for (const [name, workflow] of Object.entries(WORKFLOWS)) runtime.registerWorkflowWithName(name, workflow);
  await runtime.start();

  const client = new DaprWorkflowClient();
  const dapr = new DaprClient();
  const workflows = await useWorkflows(client);
  workflows.over_http = await useWorkflowsOverHttp(dapr.workflow, client);
  const blocks = await useBlocks(dapr, heard);
  console.log(`RESULTS ${JSON.stringify({ workflows, blocks })}`);
  await runtime.stop();
  await client.stop();
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
