// A spoken conversation through npm's @openai/agents-realtime as a browser loads it: URL, KEY, SPEECH (a file of PCM16 at
// 24 kHz). Prints one JSON object: what was said by whom, how much sound came, which tools were called.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const packages = process.env.PACKAGES;
globalThis.WebSocket = createRequire(packages + "/")("ws").WebSocket;
const { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession, tool } = await import(
  packages + "/@openai/agents-realtime/dist/bundle/openai-realtime-agents.mjs"
);

const asked = [];
const hours = tool({
  name: "opening_hours",
  description: "Tells the opening hours of a day",
  strict: false,
  parameters: {
    type: "object",
    properties: { day: { type: "string" } },
    required: ["day"],
    additionalProperties: false,
  },
  execute: async ({ day }) => {
    asked.push(day);
    return "We are open from nine to five.";
  },
});
const agent = new RealtimeAgent({ name: "desk", instructions: "You answer the phone.", tools: [hours] });
const transport = new OpenAIRealtimeWebSocket({ url: process.env.URL, useInsecureApiKey: true });
const session = new RealtimeSession(agent, {
  transport,
  config: { audio: { input: { turnDetection: { type: "server_vad", silenceDurationMs: 400 } } } },
});

let sound = 0;
const errors = [];
const said = new Set();
session.on("audio", (event) => (sound += event.data.byteLength));
session.on("error", (event) => errors.push(event.error ?? event));
const until = (role, words) =>
  new Promise((resolve) =>
    session.on("history_updated", (history) => {
      for (const item of history)
        for (const part of item.content ?? []) {
          const text = part.transcript ?? part.text;
          if (text) said.add(`${item.role}: ${text}`);
        }
      if ([...said].some((line) => line.startsWith(role) && line.includes(words))) resolve();
    }),
  );

await session.connect({ apiKey: process.env.KEY });
const answered = until("assistant", "order number");
const pcm = readFileSync(process.env.SPEECH);
for (let at = 0; at < pcm.length; at += 9600) {
  const piece = pcm.subarray(at, at + 9600);
  session.sendAudio(piece.buffer.slice(piece.byteOffset, piece.byteOffset + piece.byteLength));
}
await answered;
const told = until("assistant", "nine to five");
session.sendMessage("What are the opening hours on Monday?");
await told;
session.close();
console.log(JSON.stringify({ said: [...said], sound, asked, errors }));
process.exit(0);
