import jobs
from saq import Queue, Worker


async def producing(url, count, gap_ms):
    queue = Queue.from_url(url)
    await queue.connect()
    await jobs.produce(
        lambda form, state, put_ns: queue.enqueue("call", form=form, state=state, put_ns=put_ns), count, gap_ms
    )


async def working(url, seen):
    async def call(context, *, form, state, put_ns):
        if holding := seen(put_ns):
            await holding

    queue = Queue.from_url(url)
    worker = Worker(queue, functions=[("call", call)], concurrency=jobs.CONCURRENCY)
    print("ready", flush=True)
    await worker.start()


jobs.main(producing, working)
