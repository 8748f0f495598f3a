// Peer: what a Flowise-like server does. One route, a BullMQ add, and the count of waiting jobs for `pendingCount`.
const express = require('express');
const { Queue } = require('bullmq');
const { randomUUID } = require('crypto');

const queue = new Queue('line', { connection: { host: '127.0.0.1', port: Number(process.env.STORE_PORT) } });
const app = express();
app.use(express.json());
app.post('/enqueue', async (request, response) => {
  const taskId = 'flowise-' + randomUUID();
  await queue.add('call', { form: request.body.form, state: request.body.state }, { jobId: taskId });
  response.status(202).json({ accepted: true, taskId, pendingCount: await queue.getWaitingCount() });
});
queue.waitUntilReady().then(() => {
  const server = app.listen(0, '127.0.0.1', () => console.log('ready http://127.0.0.1:' + server.address().port));
});
