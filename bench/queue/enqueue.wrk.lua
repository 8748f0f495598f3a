-- wrk: each request is another caller with another idempotency key, as a ticketing system sends it.
local key, note = os.getenv("BENCH_KEY"), string.rep("a line of what the CRM knows of this caller; ", 7)
local count = 0

function request()
  count = count + 1
  local body = string.format(
    '{"form":{"ID":"+3864%09d","question":"Hey, how are you?","note":"%s"},"state":{"crm":{"tier":"gold","id":%d}}}',
    count, note, count)
  return wrk.format("POST", nil, {
    ["Content-Type"] = "application/json",
    ["Authorization"] = "Bearer " .. key,
    ["Idempotency-Key"] = string.format("ticket-%d-%d", os.time(), count),
  }, body)
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("RESULT %d %d %d %f %f\n", summary.requests, summary.duration,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
