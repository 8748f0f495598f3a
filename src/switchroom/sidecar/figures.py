"""What the crawl has to do, as gauges: jobs that are not over, and their pages."""

from __future__ import annotations

from collections import Counter

from switchroom import metrics
from switchroom.crawler import job_store
from switchroom.crawler.frontier import Frontier
from switchroom.crawler.job import JobState
from switchroom.store import Store

NEWEST = 200
"""Jobs that are looked at."""
_OVER = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})


async def count_crawl(store: Store) -> None:
    """Brings `metrics.CRAWL_JOBS` and `CRAWL_PAGES` up to date."""
    jobs: Counter[str] = Counter({str(state): 0 for state in JobState if state not in _OVER})
    pages: Counter[str] = Counter(queued=0, taken=0, walled=0, done=0)
    for job in await job_store.list_jobs(store, NEWEST):
        if job.state in _OVER:
            continue
        jobs[str(job.state)] += 1
        pages.update(await Frontier(store, job.id, job.spec.max_pages).sizes())
    for state, count in jobs.items():
        metrics.CRAWL_JOBS.labels(state).set(count)
    for state, count in pages.items():
        metrics.CRAWL_PAGES.labels(state).set(count)
