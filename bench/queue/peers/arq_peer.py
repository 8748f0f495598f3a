import jobs
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker, func


async def producing(url, count, gap_ms):
    pool = await create_pool(RedisSettings.from_dsn(url))
    await jobs.produce(lambda form, state, put_ns: pool.enqueue_job("call", form, state, put_ns), count, gap_ms)


async def working(url, seen):
    async def call(context, form, state, put_ns):
        if holding := seen(put_ns):
            await holding

    worker = Worker(
        functions=[func(call, name="call", keep_result=0)],
        redis_settings=RedisSettings.from_dsn(url),
        max_jobs=jobs.CONCURRENCY,
        handle_signals=False,
    )
    print("ready", flush=True)
    await worker.async_run()


jobs.main(producing, working)
