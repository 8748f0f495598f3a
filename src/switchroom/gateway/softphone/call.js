// One call over WebRTC: an SDP offer by HTTP (201, Location, DELETE), Opus both ways, JSON events on a data channel.
// It tells what happens as DOM events of its own; it knows no page.

const CONNECT_MS = 15000;
const DEAD_MS = 4000; // the server pings every second
const GRACE_MS = 30000; // longer than any server keeps a lost call by default
const GATHER_MS = 2000;

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `the server answered ${status}`);
    this.status = status;
    this.code = problem.code || "";
  }
}

// fetch that throws `Refused` with the server's own words.
export async function ask(url, key, options = {}) {
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  const reply = await fetch(url, { ...options, headers });
  if (!reply.ok) throw new Refused(reply.status, await reply.json().catch(() => ({})));
  return reply;
}

// Events: `state` (detail: state, place), `event` (detail: the server's message), `sound` (detail: a MediaStream),
// `over` (detail: reason, and what the server says to it).
export class Call extends EventTarget {
  #leg = null; // { peer, channel, location, seen, timer } of the newest leg
  #over = false;
  #live = false;
  #lostAt = 0;

  constructor(base, flow, task, key, microphone, iceServers) {
    super();
    this.url = `${base}/api/v1/openai-realtime/${encodeURIComponent(flow)}/calls?taskId=${encodeURIComponent(task)}`;
    this.key = key;
    this.microphone = microphone;
    this.iceServers = iceServers;
  }

  async start() {
    this.#say("connecting");
    await this.#dial();
  }

  // DTMF keys, on the event channel: one message, any number of keys.
  press(digits) {
    this.#send({ type: "dtmf", digits });
  }

  mute(quiet) {
    for (const track of this.microphone.getAudioTracks()) track.enabled = !quiet;
  }

  async hangUp() {
    const location = this.#leg?.location;
    this.#finish("hung_up", "");
    if (location) await ask(location, this.key, { method: "DELETE", keepalive: true }).catch(() => {});
  }

  async #dial() {
    const peer = new RTCPeerConnection({ iceServers: this.iceServers });
    const leg = { peer, location: "", seen: performance.now(), timer: 0, up: false };
    try {
      for (const track of this.microphone.getTracks()) peer.addTrack(track, this.microphone);
      leg.channel = peer.createDataChannel("events");
      leg.channel.onmessage = (message) => this.#heard(leg, message.data);
      peer.ontrack = (event) => this.#tell("sound", event.streams[0] ?? new MediaStream([event.track]));
      peer.onconnectionstatechange = () => this.#changed(leg);
      await peer.setLocalDescription();
      await gathered(peer);
      const reply = await ask(this.url, this.key, {
        method: "POST",
        headers: { "Content-Type": "application/sdp", Accept: "application/sdp" },
        body: peer.localDescription.sdp,
      });
      leg.location = new URL(reply.headers.get("Location"), this.url).href;
      await peer.setRemoteDescription({ type: "answer", sdp: await reply.text() });
    } catch (error) {
      peer.close();
      throw error;
    }
    if (this.#over) {
      peer.close(); // hung up meanwhile
      await ask(leg.location, this.key, { method: "DELETE" }).catch(() => {});
      return;
    }
    const old = this.#leg;
    this.#leg = leg;
    if (old) close(old);
    leg.timer = setInterval(() => this.#watch(leg), 1000);
  }

  // A peer that is silent is lost, whatever the browser says: its own check takes half a minute.
  #watch(leg) {
    this.#send({ type: "ping" });
    const quiet = performance.now() - leg.seen;
    if (quiet > (leg.up ? DEAD_MS : CONNECT_MS)) this.#lost(leg);
  }

  #changed(leg) {
    if (leg.peer.connectionState === "connected") {
      leg.seen = performance.now();
      leg.up = true;
      this.#lostAt = 0;
    } else if (leg.peer.connectionState === "failed") {
      this.#lost(leg);
    }
  }

  #heard(leg, text) {
    leg.seen = performance.now();
    if (leg !== this.#leg) return;
    const event = JSON.parse(text);
    if (event.type === "ping") {
      this.#send({ type: "pong" });
    } else if (event.type === "state") {
      this.#live ||= event.state === "live";
      this.#say(event.state, event.place);
    } else if (event.type === "ended") {
      // A process that stops hands its calls back: another one takes them on.
      if (event.reason === "handed_back") this.#lost(leg);
      else this.#finish(event.reason, event.detail ?? "");
    }
    this.#tell("event", event);
  }

  #lost(leg) {
    if (this.#over || leg !== this.#leg || this.#lostAt) return;
    this.#lostAt = performance.now();
    clearInterval(leg.timer);
    this.#say("reconnecting");
    this.#again(250);
  }

  // The same call, by a new leg: the server keeps it for a while, and the newest leg wins.
  async #again(pause) {
    if (this.#over) return;
    try {
      await this.#dial();
      this.#lostAt = 0;
    } catch (error) {
      const ended = error instanceof Refused && error.status < 500 && error.code !== "call_held";
      if (ended || performance.now() - this.#lostAt > GRACE_MS) {
        this.#finish(error.code === "call_ended" ? "ended" : "lost", error.message);
        return;
      }
      setTimeout(() => this.#again(Math.min(pause * 2, 3000)), pause);
    }
  }

  #send(message) {
    const channel = this.#leg?.channel;
    if (channel?.readyState === "open") channel.send(JSON.stringify(message));
  }

  #finish(reason, detail) {
    if (this.#over) return;
    this.#over = true;
    if (this.#leg) close(this.#leg);
    this.#tell("over", { reason, detail, live: this.#live });
  }

  #say(state, place) {
    this.#tell("state", { state, place });
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

function close(leg) {
  clearInterval(leg.timer);
  leg.peer.onconnectionstatechange = null;
  leg.peer.close();
}

function gathered(peer) {
  return new Promise((done) => {
    const timer = setTimeout(done, GATHER_MS);
    const check = () => {
      if (peer.iceGatheringState !== "complete") return;
      clearTimeout(timer);
      done();
    };
    peer.onicegatheringstatechange = check;
    check();
  });
}
