import jobs
from streaq import Worker

seen = None


def made(url):
    worker = Worker(redis_url=url, concurrency=jobs.CONCURRENCY, handle_signals=False)

    @worker.task(name="call", ttl=0)
    async def call(form, state, put_ns):
        if holding := seen(put_ns):
            await holding

    return worker, call


async def producing(url, count, gap_ms):
    worker, call = made(url)

    async def put(form, state, put_ns):
        await call.enqueue(form, state, put_ns)

    async with worker:
        await jobs.produce(put, count, gap_ms)


async def working(url, counting):
    global seen
    seen = counting
    worker, _ = made(url)
    print("ready", flush=True)
    await worker.run_async()


jobs.main(producing, working)
