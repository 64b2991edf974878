// Calls a worker as it is told: `direct.mjs SETTINGS` takes a call per line on stdin and says on stdout what came of it, all
// of it JSON; the words are those of direct.py. SETTINGS: target, protos, tls, token.
import { createInterface } from "node:readline";

import { Worker } from "./worker.mjs";

const { target, protos, ...access } = JSON.parse(process.argv[2]);
const worker = new Worker(target, protos, access);
const running = new Map();

const say = (command, word) => process.stdout.write(JSON.stringify({ call: command.call, ...word }) + "\n");
const asked = ({ model, text }) => ({ model, messages: [{ role: "ROLE_USER", text }] });

function folded(chunks) {
  const answer = { text: "", finish: null, usage: null };
  for (const chunk of chunks) {
    if (chunk.event === "text") answer.text += chunk.text;
    if (chunk.event === "finish") answer.finish = chunk.finish.reason;
    if (chunk.event === "usage") answer.usage = [chunk.usage.input_tokens, chunk.usage.output_tokens];
  }
  return answer;
}

const calls = {
  async stream(command) {
    const chunks = [];
    for await (const chunk of worker.chat(asked(command.request), command)) {
      chunks.push(chunk);
      if (chunk.text) say(command, { said: chunk.text });
    }
    return folded(chunks);
  },

  complete: async (command) => folded((await worker.ask("Chat", asked(command.request), command)).chunks),

  async leave(command) {
    for await (const chunk of worker.chat(asked(command.request), command)) if (chunk.text) return chunk.text;
  },

  models: async (command) => (await worker.ask("ListModels", {}, command)).models.map(({ id }) => id),
};

function described(error) {
  const { reason, retryAfter, usage, metadata } = worker.failure(error);
  return {
    status: error.code ?? null,
    message: error.details ?? String(error),
    reason: reason ?? "UNSPECIFIED",
    param: metadata.param ?? null,
    retry_after: retryAfter ?? null,
    upstream_status: metadata.upstream_status ? Number(metadata.upstream_status) : null,
    upstream_request_id: metadata.upstream_request_id ?? null,
    usage: usage ? [usage.input_tokens, usage.output_tokens] : null,
  };
}

async function make(command) {
  const controller = new AbortController();
  running.set(command.call, controller);
  try {
    say(command, { answer: (await calls[command.do]({ ...command, signal: controller.signal })) ?? null });
  } catch (error) {
    say(command, { raised: described(error) });
  }
}

console.log(JSON.stringify({ runtime: `Node.js ${process.version}` }));
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  if (command.do === "abort") running.get(command.call).abort();
  else make(command);
}
worker.stub.close();
