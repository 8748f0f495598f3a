// Asks a flow through the published SDK: BASE_URL, FLOW, QUESTION, STREAMING (`true`/`false`), KEY, SESSION. One JSON a line.
import { createRequire } from "node:module";

const { FlowiseClient } = createRequire(process.env.PACKAGES + "/")("flowise-sdk");
const client = new FlowiseClient({ baseUrl: process.env.BASE_URL, apiKey: process.env.KEY });
const asked = {
  chatflowId: process.env.FLOW,
  question: process.env.QUESTION,
  streaming: process.env.STREAMING === "true",
  overrideConfig: { sessionId: process.env.SESSION },
};
const answer = await client.createPrediction(asked);
if (asked.streaming) for await (const event of answer) console.log(JSON.stringify(event));
else console.log(JSON.stringify(answer));
