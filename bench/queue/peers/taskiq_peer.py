import jobs
from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

seen = None


def made(url):
    broker = RedisStreamBroker(url)

    @broker.task(task_name="call")
    async def call(form, state, put_ns):
        if holding := seen(put_ns):
            await holding

    return broker, call


async def producing(url, count, gap_ms):
    broker, call = made(url)
    await broker.startup()
    await jobs.produce(lambda form, state, put_ns: call.kiq(form, state, put_ns), count, gap_ms)
    await broker.shutdown()


async def working(url, counting):
    global seen
    seen = counting
    broker, _ = made(url)
    broker.is_worker_process = True
    await broker.startup()
    print("ready", flush=True)
    await run_receiver_task(broker, max_async_tasks=jobs.CONCURRENCY)


jobs.main(producing, working)
