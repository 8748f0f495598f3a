"""Every key name of the store, one function a key. Nothing else builds a key.

All keys of one flow share the hash tag `{flow_id}`, so that one flow lives in one slot of a cluster and a script may
touch all of them. Flow and task IDs are ours or match `[A-Za-z0-9_-]{1,64}`, so that no key can be forged by a name.
"""

from __future__ import annotations

# --- queue: one flow's calls ---------------------------------------------------------------------------------------


def flow(flow_id: str) -> str:
    """Prefix of a flow's queue keys; the queue's server-side function appends the suffixes below."""
    return f"sr:{{{flow_id}}}:"


CALL = "c:"  # + task ID: string, a call's record (MessagePack)
PAYLOAD = "p:"  # + task ID: string, what a call carries unchanged (JSON)
PENDING = "pending"  # sorted set: task IDs by priority, then sequence
SCHEDULED = "scheduled"  # sorted set: task IDs by due time
HELD = "held"  # sorted set: task IDs by the end of their lease
WRAPUP = "wrapup"  # sorted set: task IDs by the end of their wrap-up
EXPIRY = "expiry"  # sorted set: waiting task IDs by `expiresAt`
JOINED = "joined"  # sorted set: pending task IDs whose caller is connected and waits, in queue order
IDS = "ids"  # hash: caller ID -> its task that has not ended
IDEMPOTENCY = "idem:"  # + key: string, the digest and the answer (MessagePack)
EVENTS = "events"  # stream: every change of state, an entry a run (MessagePack); sockets and records read it
OUTBOX = "outbox"  # stream: the events of calls with a callback URL, or of a flow with webhook endpoints
CONFIG = "conf"  # hash: the rules (MessagePack), enabled and the like, the sequence, the figures of the open minute
STATS = "stats"  # hash: counters; + ":" + yyyymmdd for a day's
ENDED = "ended"  # sorted set: tasks that ended together (\x1f between them) by their end, for retention
DEAD = "dead"  # sorted set: dead letters by their end; calls whose last attempt failed
LANE = (
    "lane:"  # + skills: sorted set like `pending`, of calls that need these skills; `lanes` is the set of their names
)
RELAX = "relax"  # sorted set: calls that need skills, by the time when they need one less
BACKOFF = "backoff"  # sorted set: holder + task, by the time until which this holder is not offered this call
REST = "rest"  # sorted set: calls that are over, by the time until which their line is busy with wrapping up
AVAILABLE = "available"  # sorted set: holders by the time until which they wrap up
IDLE = (
    "idle:"  # + skills: sorted set of waiting holders by the time since when they are idle; `profiles` names the skills
)
WAITING = "waiting"  # hash: waiting holder and its process -> until when, and on what terms
GIVEN = "given"  # sorted set: task and token of calls that were given to a waiting holder and have not arrived
MINUTE = "minute:"  # + minute: hash, counters of one minute that is over; has a short life
INBOX = "w:"  # + process: list, what was given to the waiting holders of this process, and whom to wake


def queue_events(flow_id: str) -> str:
    return flow(flow_id) + EVENTS


def queue_available(flow_id: str) -> str:
    return flow(flow_id) + AVAILABLE


def queue_inbox(flow_id: str, process_id: str) -> str:
    return flow(flow_id) + INBOX + process_id


def queue_outbox(flow_id: str) -> str:
    """Stream: changes that a webhook may want and nobody has made messages of yet."""
    return flow(flow_id) + OUTBOX


def queue_config(flow_id: str) -> str:
    return flow(flow_id) + CONFIG


def hooked_flows() -> str:
    """Set: the flows that may have an outbox."""
    return "sr:webhooks:flows"


def hooked_news() -> str:
    """Stream: wakes the senders when `hooked_flows` grew."""
    return "sr:webhooks:news"


def kiosk_call(flow_id: str, task_id: str) -> str:
    """String with a life of its own: the conversation of a call at a kiosk, for whoever goes on with it."""
    return f"sr:{{{flow_id}}}:kiosk:{task_id}"


def unity_flows() -> str:
    """Set: the flows that ever had a call with a `ccBaseUrl`."""
    return "sr:unity:flows"


def unity_news() -> str:
    """Stream: wakes the dispatchers when `unity_flows` grew."""
    return "sr:unity:news"


def queue_flows() -> str:
    """Set: the flows that ever had a call."""
    return "sr:queue:flows"


# --- records: one flow's executions --------------------------------------------------------------------------------


def execution(flow_id: str, execution_id: str) -> str:
    """Hash: a record's row."""
    return f"sr:{{{flow_id}}}:x:{execution_id}"


def execution_index(flow_id: str, kind: str, value: str = "") -> str:
    """Sorted set: record IDs by their creation; `kind` is `all`, `state`, `session` or `task`."""
    return f"sr:{{{flow_id}}}:xi:{kind}:{value}"


def execution_flow(execution_id: str) -> str:
    """String: the flow of a record."""
    return f"sr:xf:{execution_id}"


def execution_flows() -> str:
    """Set: the flows that ever had a record."""
    return "sr:records:flows"


# --- access --------------------------------------------------------------------------------------------------------


def access_keys() -> str:
    """Hash: key ID -> a stored API key (its digest, never itself)."""
    return "sr:access:keys"


# --- gateway: text conversations -----------------------------------------------------------------------------------


def session(flow_id: str, session_id: str) -> str:
    """String: a text conversation between its turns."""
    return f"sr:{{{flow_id}}}:session:{session_id}"


def session_media(flow_id: str, session_id: str) -> str:
    """Hash: pictures and sounds of a text conversation by their names (JSON)."""
    return f"sr:{{{flow_id}}}:media:{session_id}"


def session_lock(flow_id: str, session_id: str) -> str:
    """String: who runs a turn of this conversation now."""
    return f"sr:{{{flow_id}}}:turn:{session_id}"


# --- realtime: media processes -------------------------------------------------------------------------------------


def media_processes() -> str:
    """Set: IDs of the media processes that ever registered; the dead ones have no `media_process` any more."""
    return "sr:media:processes"


def media_process(process_id: str) -> str:
    """String with a short life: a media process says that it lives, and how full it is."""
    return f"sr:media:process:{process_id}"


def media_inbox(process_id: str) -> str:
    """List: requests for a media process."""
    return f"sr:media:inbox:{process_id}"


def media_reply(request_id: str) -> str:
    """List with a short life: the one reply to a request."""
    return f"sr:media:reply:{request_id}"


def media_call(call_id: str) -> str:
    """String: the media process that carries a leg."""
    return f"sr:media:call:{call_id}"


def media_ticket(ticket_id: str) -> str:
    """String with a short life: what a socket that an API node brings to a media process is about. Read once."""
    return f"sr:media:ticket:{ticket_id}"


def realtime_secret(digest: str) -> str:
    """String with a short life: what a client secret of the Realtime API, known by its SHA-256, opens."""
    return f"sr:media:secret:{digest}"


def realtime_accepted(flow_id: str, task_id: str) -> str:
    """String with a life: how the served session of a waiting call is to begin, once its caller joins."""
    return f"sr:{{{flow_id}}}:accepted:{task_id}"


# --- engine: flows -------------------------------------------------------------------------------------------------


def flow_document(flow_id: str) -> str:
    """Hash: `rev` a word that changes with each save, `doc` the flow (JSON)."""
    return f"sr:{{{flow_id}}}:doc"


def flow_index() -> str:
    """Sorted set: flow IDs by their creation."""
    return "sr:flows"


# --- crawler: one job, one site --------------------------------------------------------------------------------------


def crawl_jobs() -> str:
    """Sorted set: job IDs by their creation."""
    return "sr:crawl:jobs"


def crawl(job_id: str, part: str) -> str:
    """A part of one job: `job` `discover` (strings), `queue` `walled` `runners` (sorted sets), `taken` `seen` `pages`
    `stats` `tries` (hashes), `finals` `closed` (sets), `events` (stream)."""
    return f"sr:{{crawl-{job_id}}}:{part}"


def crawl_host(host: str, part: str) -> str:
    """What all processes that crawl a host share: `users` `tokens` (sorted sets), `next` (string: Unix ms)."""
    return f"sr:{{host-{host}}}:{part}"


def crawl_site(host: str, part: str = "pages") -> str:
    """A part of one site, each a hash: `pages` (URL -> the newest good reading), `found` (URL -> what else is known of
    it), `marks` (URL or pattern -> what a person wants of it), `meta` (`spec`, `version` of the marks, `trust`)."""
    return f"sr:{{site-{host}}}:{part}"


def crawl_sites() -> str:
    """Set: the hosts that were ever crawled."""
    return "sr:crawl:sites"


def crawl_fresh_runs() -> str:
    """Sorted set: Always Fresh's runs by when they began."""
    return "sr:crawl:fresh"


def crawl_fresh_run(run_id: str) -> str:
    """String: one run of Always Fresh (JSON)."""
    return f"sr:crawl:fresh:run:{run_id}"


def crawl_fresh_day(day: str) -> str:
    """String with a short life: the sidecar that does the run of a day."""
    return f"sr:crawl:fresh:day:{day}"


# --- engine: runs under way ------------------------------------------------------------------------------------------


def run(flow_id: str, run_id: str) -> str:
    """Hash: what a run was given, its session, and what it did so far."""
    return f"sr:{{{flow_id}}}:run:{run_id}"


def runs(flow_id: str) -> str:
    """Sorted set: run IDs by the end of their lease."""
    return f"sr:{{{flow_id}}}:runs"


def run_flows() -> str:
    """Set: the flows that ever had a run."""
    return "sr:engine:flows"


# --- housekeeping --------------------------------------------------------------------------------------------------


def records_cursor(flow_id: str) -> str:
    """String: the last queue event that the records of a flow have seen."""
    return f"sr:{{{flow_id}}}:rc"


# --- webhooks: one flow's endpoints and deliveries -----------------------------------------------------------------


def webhooks(flow_id: str) -> str:
    """Prefix of a flow's webhook keys; the webhooks' scripts append the suffixes below."""
    return f"sr:{{{flow_id}}}:wh:"


WH_ENDPOINTS = "endpoints"  # hash: endpoint ID -> endpoint (JSON)
WH_ENABLED = "enabled"  # set: IDs of the endpoints that get messages; its size is `conf.hooks` of the queue
WH_DELIVERY = "d:"  # + delivery ID: hash, a message on its way and what became of it
WH_LANE = "lane:"  # + target + ":" + task ID: list, deliveries of one call that were not tried yet, in order
WH_DUE = "due:"  # + target: sorted set, delivery IDs by when they are tried next, or by the end of their lease
WH_RUNNING = "run:"  # + target: sorted set, delivery IDs under way by the end of their lease
WH_TARGETS = "targets"  # sorted set: targets by when there is something to do
WH_LOG = "log:"  # + endpoint ID: sorted set, all its deliveries by their creation
WH_DONE = "done:"  # + endpoint ID: sorted set, its deliveries that arrived by their end, for retention
WH_FAILED = "failed:"  # + endpoint ID: sorted set, its deliveries that were given up by their end
WH_OPEN = "open"  # hash: endpoint ID -> its deliveries that have not finished; ID + ":dropped" counts refused ones


# --- gateway: chat clients and API processes -----------------------------------------------------------------------


def chat_rate(flow_id: str, who: str) -> str:
    """String: turns of one client in the window that runs."""
    return f"sr:{{{flow_id}}}:rate:{who}"


def chat_rows(flow_id: str, kind: str) -> str:
    """Hash: ID -> a row kept beside a flow (JSON); `kind` is `feedback`, `leads` or `versions`. `+ ":at"`: the same IDs
    by time."""
    return f"sr:{{{flow_id}}}:{kind}"


def broadcast() -> str:
    """Stream: what one API process tells all of them; `k` kind, `d` body (JSON)."""
    return "sr:broadcast"


# --- knowledge: one collection ---------------------------------------------------------------------------------------


def knowledge_names() -> str:
    """Hash: collection ID -> its name."""
    return "sr:knowledge"


def knowledge(collection_id: str, part: str) -> str:
    """A part of one collection: `meta` (hash: `gen`, `seq`, `floor`, times), `docs` and `vectors` (hashes by document
    key), `changes` and `gone` (sorted sets: document key by the `seq` of its last change or of its removal)."""
    return f"sr:{{kn-{collection_id}}}:{part}"


# --- realtime: tokens and telephone calls ----------------------------------------------------------------------------


def call_token(digest: str) -> str:
    """String with a short life: the call (msgpack) that a token opens, by the token's SHA-256."""
    return f"sr:call-token:{digest}"


def call_leg(call_id: str) -> str:
    """String: the SHA-256 of the token with which a leg was joined."""
    return f"sr:call-leg:{call_id}"


def call_memory(flow_id: str, task_id: str) -> str:
    """Hash that expires: a live call's conversation (`v`, JSON) and the fencing token of its writer's hold (`t`)."""
    return f"sr:{{{flow_id}}}:talk:{task_id}"


def call_turn(flow_id: str, task_id: str) -> str:
    """Hash that expires: what the turn under way of a live call has done (`realtime/call_journal.py`)."""
    return f"sr:{{{flow_id}}}:talkturn:{task_id}"


def phone_transfer(task_id: str) -> str:
    """String with a short life: the number at which a telephone caller goes on."""
    return f"sr:phone-transfer:{task_id}"


def phone_stream(token: str) -> str:
    """String with a short life: the call (msgpack) whose stream a telephony provider was told to open at this token."""
    return f"sr:phone:{token}"


# --- figures ---------------------------------------------------------------------------------------------------------


def metric_processes() -> str:
    """Set: names of the processes that leave figures."""
    return "sr:metrics"


def metric_snapshot(process: str) -> str:
    """String that expires: a process's figures, Prometheus text."""
    return f"sr:metrics:{process}"
