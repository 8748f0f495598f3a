// The page around a call: the form, the buttons, the meters, the transcript.

import { Call, Refused, ask } from "./call.js";
import { Meter } from "./meter.js";

const STATES = {
  connecting: "Connecting…",
  offered: "Connecting…",
  waiting: "Waiting for a line",
  live: "Live",
  lost: "Connection lost",
  reconnecting: "Connection lost, calling again…",
};
const REASONS = {
  hung_up: "You hung up",
  completed: "The call is over",
  replaced: "The call goes on in another window",
  transferred: "You were transferred",
};
const KEYS = "123456789*0#";

const $ = (id) => document.getElementById(id);
const base = new URL(".", location.href).href.replace(/\/$/, "");
const query = new URLSearchParams(location.search);
const lines = new Map();
let call = null;
let meters = [];
let began = 0;

$("flow").value = query.get("flow") ?? "";
$("task").value = query.get("task") ?? "";
$("caller").value = query.get("caller") ?? "";
$("key").value = query.get("token") ?? sessionStorage.getItem("softphone-key") ?? "";

for (const key of KEYS) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = key;
  button.dataset.key = key;
  button.onclick = () => call?.press(key);
  $("keys").append(button);
}

document.addEventListener("keydown", (event) => {
  if (call && !(event.target instanceof HTMLInputElement) && KEYS.includes(event.key)) call.press(event.key);
});

$("dial").onsubmit = async (event) => {
  event.preventDefault();
  problem("");
  $("call").disabled = true;
  try {
    await begin();
  } catch (error) {
    show("idle", "Not in a call");
    problem(error.message);
    end();
  }
  $("call").disabled = false;
};

$("mute").onclick = () => {
  const quiet = $("mute").getAttribute("aria-pressed") !== "true";
  $("mute").setAttribute("aria-pressed", String(quiet));
  $("mute").textContent = quiet ? "Unmute" : "Mute";
  call?.mute(quiet);
};

$("hangup").onclick = () => call?.hangUp();

setInterval(() => {
  for (const meter of meters) meter.draw();
  if (began) $("clock").textContent = duration(performance.now() - began);
}, 50);

async function begin() {
  if (!navigator.mediaDevices) throw new Error("The microphone needs a page on https:// or on localhost.");
  const [flow, key] = [$("flow").value.trim(), $("key").value.trim()];
  sessionStorage.setItem("softphone-key", key);
  show("microphone", "Asking for the microphone…");
  const microphone = await navigator.mediaDevices.getUserMedia({
    audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
  });
  let mine;
  try {
    const task = $("task").value.trim() || (await enqueue(flow, key));
    $("task").value = task;
    history.replaceState(null, "", `?${new URLSearchParams({ flow, task })}`); // a reload comes back into this call
    lines.clear();
    $("transcript").replaceChildren();
    mine = new Call(base, flow, task, key, microphone, await iceServers(flow, task, key));
    call = mine;
    mine.addEventListener("state", ({ detail }) => changed(detail));
    mine.addEventListener("event", ({ detail }) => detail.type === "transcript" && write(detail));
    mine.addEventListener("sound", ({ detail }) => listen(detail));
    mine.addEventListener("over", ({ detail }) => over(detail));
    meters = [new Meter($("caller-level"), microphone)];
    await mine.start();
  } catch (error) {
    for (const track of microphone.getTracks()) track.stop();
    throw error;
  }
  $("dial").hidden = true;
  $("controls").hidden = false;
  $("hangup").focus();
}

// The server's STUN and TURN servers. Who came with a token for one call may not ask: it has none.
async function iceServers(flow, task, key) {
  const url = `${base}/api/v1/openai-realtime/${encodeURIComponent(flow)}/calls/token`;
  const headers = { "Content-Type": "application/json" };
  try {
    const reply = await ask(url, key, { method: "POST", headers, body: JSON.stringify({ taskId: task }) });
    return (await reply.json()).iceServers.map(({ urls, username, credential }) =>
      username ? { urls, username, credential } : { urls },
    );
  } catch (error) {
    if (error instanceof Refused) return [];
    throw error;
  }
}

async function enqueue(flow, key) {
  const caller = $("caller").value.trim() || `softphone-${crypto.randomUUID().slice(0, 8)}`;
  const reply = await ask(`${base}/api/v1/openai-realtime/${encodeURIComponent(flow)}/queue/enqueue`, key, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ form: { ID: caller } }),
  });
  return (await reply.json()).taskId;
}

function changed({ state, place }) {
  if (state === "live" && !began) began = performance.now();
  show(state, place ? `${STATES[state]}: place ${place}` : (STATES[state] ?? state));
}

function listen(stream) {
  $("sound").srcObject = stream;
  const [mine] = meters;
  meters.slice(1).forEach((meter) => meter.close());
  meters = [mine, new Meter($("agent-level"), stream)];
}

// A guess is replaced by a later one of the same speaker and start, and at last by what was heard.
function write({ role, text, final, start_ms: start, interrupted }) {
  const name = `${role}-${start}`;
  let line = lines.get(name);
  if (!line) {
    line = document.createElement("li");
    line.dataset.role = role;
    line.dataset.start = start;
    const later = [...$("transcript").children].find((other) => Number(other.dataset.start) > start);
    $("transcript").insertBefore(line, later ?? null);
    lines.set(name, line);
  }
  line.textContent = text;
  line.classList.toggle("guess", !final);
  line.classList.toggle("interrupted", Boolean(interrupted));
  line.scrollIntoView({ block: "nearest" });
}

function over({ reason, detail }) {
  show("over", REASONS[reason] ?? `The call ended: ${reason}`);
  if (detail && !REASONS[reason]) problem(detail);
  $("task").value = "";
  history.replaceState(null, "", `?${new URLSearchParams({ flow: $("flow").value.trim() })}`);
  end();
}

function end() {
  for (const track of call?.microphone.getTracks() ?? []) track.stop();
  for (const meter of meters) meter.close();
  meters = [];
  call = null;
  began = 0;
  $("sound").srcObject = null;
  $("mute").setAttribute("aria-pressed", "false");
  $("mute").textContent = "Mute";
  $("dial").hidden = false;
  $("controls").hidden = true;
}

function show(state, text) {
  $("state").dataset.state = state;
  $("state").textContent = text;
}

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

function duration(ms) {
  const seconds = Math.floor(ms / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}
