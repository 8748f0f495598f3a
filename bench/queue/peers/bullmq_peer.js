// Peer: BullMQ, the same roles and lines as jobs.py.
const { Queue, Worker } = require('bullmq');

const [role, port, count, gap] = [process.argv[2], ...process.argv.slice(3).map(Number)];
const connection = { host: '127.0.0.1', port, maxRetriesPerRequest: null };
const note = 'a line of what the CRM knows of this caller; '.repeat(7);
const now = () => Number(process.hrtime.bigint());

function payload(number) {
  const form = { ID: '+3864' + String(number).padStart(9, '0'), question: 'Hey, how are you?', note };
  return { form, state: { crm: { tier: 'gold', id: number } }, put: now() };
}

async function produce() {
  const queue = new Queue('line', { connection, defaultJobOptions: { removeOnComplete: true } });
  await queue.waitUntilReady();
  if (gap) {
    for (let number = 0; number < count; number++) {
      await queue.add('call', payload(number));
      await new Promise((done) => setTimeout(done, gap));
    }
  } else {
    let number = 0;
    const some = async () => { while (number < count) await queue.add('call', payload(number++)); };
    await Promise.all(Array.from({ length: 64 }, some));
  }
  await queue.close();
}

function work() {
  const waits = [];
  let first, cpu;
  const spent = () => { const used = process.cpuUsage(); return (used.user + used.system) / 1e6; };
  new Worker('line', async (job) => {
    const at = now();
    if (!waits.length) { first = at; cpu = spent(); }
    waits.push(at - job.data.put);
    if (waits.length === count) {
      const kept = waits.slice(Math.floor(count / 10)).sort((a, b) => a - b);
      const ms = (share) => kept[Math.floor(kept.length * share)] / 1e6;
      console.log(`RESULT ${count} ${(at - first) / 1e9} ${spent() - cpu} ${ms(0.5)} ${ms(0.99)}`);
      process.exit(0);
    }
  }, { connection, concurrency: 64 }).waitUntilReady().then(() => console.log('ready'));
}

function hold() {
  const begun = new Set();
  new Worker('line', async (job) => {
    begun.add(job.id);
    if (begun.size === count) console.log(`RESULT ${now()}`);
    await new Promise(() => {});
  }, { connection, concurrency: 64 }).waitUntilReady().then(() => console.log('ready'));
}

({ produce, work, hold })[role]();
