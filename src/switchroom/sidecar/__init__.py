"""The crawl host's own application: cookie ingest and crawl jobs."""
