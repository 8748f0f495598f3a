"""The queue's functions against a small model, in every order that hypothesis thinks of: also what holders write that
have lost their hold. Time passes by moving the store's own deadlines, never by waiting."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from stored import rewrite

from switchroom.errors import Conflict
from switchroom.queue import (
    CALLER_HUNG_UP,
    EndReason,
    Finished,
    Held,
    LeaseLost,
    NewCall,
    Queue,
    Rules,
    State,
    Waiting,
)
from switchroom.store import Store

FLOW = "model"
PREFIX = f"sr:{{{FLOW}}}:"
LINES = 3
LONG_MS = 3_600_000
RULES = Rules(lines=LINES, max_attempts=2, refuse_backoff_ms=0)

FAILURES = {"failed", "timeout", "no_answer"}
CALLERS = st.sampled_from(["ana", "bor", "cene", "dora"])
OWNERS = st.sampled_from(["kiosk-1", "kiosk-2", "media"])
SKILLS = st.sampled_from([(), ("sl",), ("de",), ("de", "sl")])
REASONS = st.sampled_from([EndReason.COMPLETED, EndReason.TIMEOUT, EndReason.TRANSFERRED, EndReason.FAILED])
MODES = st.sampled_from(["join", "reject", "allow"])
PICK = st.integers(0, 1_000)
PICKS = st.lists(PICK, max_size=3)


@dataclass
class Known:
    """What the model knows of a call."""

    caller: str
    priority: int
    sequence: int
    need: frozenset[str]
    state: str
    owner: str = ""
    token: int = 0
    attempt: int = 0
    failures: int = 0
    reason: str | None = None
    answered: bool = False
    dead: bool = False
    came_back_as: str = ""
    causes: list[str] = field(default_factory=list)

    @property
    def order(self) -> tuple[int, int]:
        return -self.priority, self.sequence


class Model(RuleBasedStateMachine):
    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.store = self.wait(Store.connect(self.url))
        self.wait(self.store.call("FLUSHALL"))
        self.queue = Queue(self.store)
        self.wait(self.queue.configure(FLOW, RULES))
        self.calls: dict[str, Known] = {}
        self.ids: dict[str, str] = {}
        self.joined: set[str] = set()
        self.holds: list[Held] = []
        self.sequence = self.token = self.answered = 0
        self.enabled = True

    def wait(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    def teardown(self) -> None:
        self.wait(self.queue.close())
        self.wait(self.store.close())
        self.runner.close()

    # --- what the model does ---

    def line(self) -> list[str]:
        return sorted((t for t, c in self.calls.items() if c.state == "pending"), key=lambda t: self.calls[t].order)

    def free(self) -> int:
        return LINES - sum(call.state in ("offered", "live") for call in self.calls.values())

    def goes(self, task: str, state: str, cause: str, reason: str | None = None) -> None:
        call = self.calls[task]
        call.causes.append(cause)
        call.state = state
        call.reason = reason or call.reason
        if state != "pending":
            self.joined.discard(task)
        if state in ("pending", "scheduled"):
            call.owner = ""
        if state == "live" and not call.answered:
            call.answered = True
            self.answered += 1
        if state == "ended" and self.ids.get(call.caller) == task:
            del self.ids[call.caller]

    def taken(self, claimed: list[Held], owner: str, answered: bool) -> None:
        """What one claim took."""
        assert all(held.token > self.token for held in claimed)
        for held in claimed:
            self.one_taken(held, owner, answered)
        assert len({held.token for held in claimed}) <= 1

    def one_taken(self, held: Held, owner: str, answered: bool) -> None:
        call = self.calls[held.task_id]
        self.token = held.token
        call.owner, call.token, call.attempt = owner, held.token, call.attempt + 1
        assert (held.attempt, held.call.caller_id) == (call.attempt, call.caller)
        self.goes(held.task_id, "offered", "claimed")
        if answered:
            self.goes(held.task_id, "live", "answered")
        self.holds.append(held)

    def holds_still(self, held: Held, *states: str) -> bool:
        call = self.calls[held.task_id]
        return (call.owner, call.token) == (held.owner, held.token) and call.state in states

    def says(self, held: Held, coroutine: Any, allowed: bool) -> bool:
        """Runs a write of a holder: it is accepted exactly where the model says so."""
        try:
            self.wait(coroutine)
        except LeaseLost as lost:
            assert not allowed
            assert lost.state == self.calls[held.task_id].state
            return False
        assert allowed
        return True

    def any_of(self, pick: int, tasks: list[str]) -> str:
        return tasks[pick % len(tasks)]

    def in_state(self, *states: str) -> list[str]:
        return [task for task, call in self.calls.items() if call.state in states]

    def attempt_failed(self, task: str, cause: str, reason: str) -> None:
        call = self.calls[task]
        call.failures += 1
        if call.failures >= 2:
            call.dead = True
            self.goes(task, "ended", cause, reason)
        else:
            self.goes(task, "pending", cause)

    # --- ways in ---

    @rule(caller=CALLERS, priority=st.integers(0, 2), skills=SKILLS, later=st.booleans(), mode=MODES)
    def enqueue(self, caller: str, priority: int, skills: tuple[str, ...], later: bool, mode: str) -> None:
        new = NewCall(
            form={"ID": caller}, priority=priority, skills=skills, not_before_ms=4_000_000_000_000 if later else None
        )
        rules = Rules(lines=LINES, max_attempts=2, duplicates=mode)
        known = self.ids.get(caller)
        if known and mode == "reject":
            with pytest.raises(Conflict):
                self.wait(self.queue.enqueue(FLOW, new, rules))
            return
        accepted = self.wait(self.queue.enqueue(FLOW, new, rules))
        if known and mode == "join":
            assert (accepted.task_id, accepted.duplicate) == (known, True)
            if self.calls[known].state in ("pending", "scheduled"):
                self.calls[known].need = frozenset(skills)
        else:
            assert not accepted.duplicate
            self.sequence += 1
            cause = "scheduled" if later else "enqueued"
            state = "scheduled" if later else "pending"
            self.calls[accepted.task_id] = Known(
                caller, priority, self.sequence, frozenset(skills), state, causes=[cause]
            )
            self.ids[caller] = accepted.task_id
            if not later:
                assert accepted.position == self.line().index(accepted.task_id) + 1
        assert accepted.state == self.calls[accepted.task_id].state
        assert accepted.pending == len(self.line())

    @precondition(lambda self: any(call.dead for call in self.calls.values()))
    @rule(pick=PICK)
    def requeue(self, pick: int) -> None:
        old = self.any_of(pick, [task for task, call in self.calls.items() if call.dead])
        call = self.calls[old]
        if call.came_back_as:
            assert self.wait(self.queue.requeue(FLOW, old))[0] == call.came_back_as
            return
        if call.caller in self.ids:
            with pytest.raises(Conflict):
                self.wait(self.queue.requeue(FLOW, old))
            return
        new, _ = self.wait(self.queue.requeue(FLOW, old))
        need = call.need
        self.calls[new] = Known(call.caller, call.priority, call.sequence, need, "pending", causes=["requeued"])
        call.came_back_as = new
        self.ids[call.caller] = new

    # --- holders ---

    @rule(owner=OWNERS, limit=st.integers(1, 4), skills=SKILLS, answered=st.booleans(), finish=PICKS)
    def claim(self, owner: str, limit: int, skills: tuple[str, ...], answered: bool, finish: list[int]) -> None:
        chosen = {pick % len(self.holds) for pick in finish} if self.holds else set()
        done = [held for number in sorted(chosen) if (held := self.holds[number]).owner == owner]
        lost = []
        for held in done:
            if self.holds_still(held, "live", "wrapup"):
                self.finished(held, EndReason.COMPLETED)
            else:
                lost.append(held.task_id)
        expected = [task for task in self.line() if self.calls[task].need <= set(skills)]
        expected = expected[: min(limit, max(self.free(), 0))] if self.enabled else []
        got, refused = self.wait(
            self.queue.turn_over(
                FLOW,
                owner,
                [Finished(held=held) for held in done],
                limit=limit,
                lease_ms=LONG_MS,
                offer_ms=LONG_MS,
                answered=answered,
                skills=skills,
            )
        )
        assert [held.task_id for held in got] == expected
        assert refused == lost
        self.taken(got, owner, answered)

    @precondition(lambda self: self.calls)
    @rule(owner=OWNERS, pick=PICK)
    def claim_call(self, owner: str, pick: int) -> None:
        task = self.any_of(pick, list(self.calls))
        claim = self.queue.claim_call(FLOW, task, owner, lease_ms=LONG_MS, offer_ms=LONG_MS)
        if self.calls[task].state != "pending":
            with pytest.raises(Conflict):
                self.wait(claim)
            return
        self.joined.add(task)
        before = sum(other in self.joined for other in self.line()[: self.line().index(task)])
        answer = self.wait(claim)
        if not self.enabled or before >= self.free():
            assert answer == Waiting(place=before + 1)
        else:
            assert isinstance(answer, Held)
            self.taken([answer], owner, False)

    @precondition(lambda self: self.holds)
    @rule(pick=PICK)
    def answer(self, pick: int) -> None:
        held = self.holds[pick % len(self.holds)]
        offered = self.holds_still(held, "offered")
        if self.says(held, self.queue.answer(held), self.holds_still(held, "offered", "live")) and offered:
            self.goes(held.task_id, "live", "answered")

    @precondition(lambda self: self.holds)
    @rule(pick=PICK)
    def heartbeat(self, pick: int) -> None:
        held = self.holds[pick % len(self.holds)]
        self.says(held, self.queue.heartbeat(held), self.holds_still(held, "offered", "live"))

    @precondition(lambda self: self.holds)
    @rule(pick=PICK, refuses=st.booleans())
    def hand_back(self, pick: int, refuses: bool) -> None:
        held = self.holds[pick % len(self.holds)]
        if refuses:
            allowed, word, cause = self.holds_still(held, "offered"), self.queue.refuse(held, "busy"), "refused"
        else:
            allowed, word, cause = self.holds_still(held, "offered", "live"), self.queue.release(held, "stops"), "stops"
        if self.says(held, word, allowed):
            self.goes(held.task_id, "pending", cause)

    @precondition(lambda self: self.holds)
    @rule(pick=PICK, reason=REASONS)
    def hang_up(self, pick: int, reason: EndReason) -> None:
        held = self.holds[pick % len(self.holds)]
        state = self.calls[held.task_id].state
        allowed = self.holds_still(held, "offered", "live", "wrapup")
        if self.says(held, self.queue.hang_up(held, reason, wrapup_ms=LONG_MS), allowed) and state != "wrapup":
            self.goes(held.task_id, "wrapup" if state == "live" else "ended", "hung_up", reason)

    @precondition(lambda self: self.holds)
    @rule(pick=PICK, reason=REASONS)
    def finish(self, pick: int, reason: EndReason) -> None:
        held = self.holds[pick % len(self.holds)]
        if self.says(held, self.queue.finish(held, reason), self.holds_still(held, "live", "wrapup")):
            self.finished(held, reason)

    def finished(self, held: Held, reason: EndReason) -> None:
        call = self.calls[held.task_id]
        if call.state == "live":
            self.goes(held.task_id, "wrapup", "hung_up", reason)
        self.goes(held.task_id, "ended", "finished", call.reason)

    # --- time ---

    @precondition(lambda self: self.in_state("offered", "live"))
    @rule(pick=PICK, late_answer=st.booleans())
    def a_hold_runs_out(self, pick: int, late_answer: bool) -> None:
        task = self.any_of(pick, self.in_state("offered", "live"))
        unanswered = late_answer and self.calls[task].state == "offered"
        if unanswered:
            self.wait(rewrite(self.store, f"{PREFIX}c:{task}", answer_by=1))
        self.wait(self.store.call("ZADD", f"{PREFIX}held", "XX", 1, task))
        self.wait(self.queue.tick(FLOW))
        cause = "no_answer" if unanswered else "lease_expired"
        self.attempt_failed(task, cause, "no_answer" if unanswered else "failed")

    @precondition(lambda self: self.in_state("wrapup"))
    @rule(pick=PICK)
    def a_wrapup_runs_out(self, pick: int) -> None:
        task = self.any_of(pick, self.in_state("wrapup"))
        self.wait(self.store.call("ZADD", f"{PREFIX}wrapup", "XX", 1, task))
        self.wait(self.queue.tick(FLOW))
        self.goes(task, "ended", "wrapup_over")

    @precondition(lambda self: self.in_state("scheduled"))
    @rule(pick=PICK)
    def a_callback_falls_due(self, pick: int) -> None:
        task = self.any_of(pick, self.in_state("scheduled"))
        self.wait(self.store.call("ZADD", f"{PREFIX}scheduled", "XX", 1, task))
        self.wait(self.queue.tick(FLOW))
        self.goes(task, "pending", "due")

    # --- verbs ---

    @precondition(lambda self: self.calls)
    @rule(pick=PICK, verb=st.sampled_from(["cancel", "left", "complete", "remove"]))
    def end_by_verb(self, pick: int, verb: str) -> None:
        task = self.any_of(pick, list(self.calls))
        call = self.calls[task]
        match verb:
            case "cancel" | "left":
                word = self.queue.cancel(FLOW, task, CALLER_HUNG_UP if verb == "left" else "")
                cause = "caller_hung_up" if verb == "left" else "cancelled"
                early, late = ("abandoned", "completed") if verb == "left" else ("cancelled", "cancelled")
                after = {"scheduled": "ended", "pending": "ended", "offered": "ended", "live": "wrapup"}
            case "complete":
                word, cause, early, late = self.queue.complete(FLOW, task), "completed", "", "completed"
                after = {"live": "wrapup"}
            case _:
                word, cause, early, late = self.queue.remove(FLOW, task), "removed", "removed", ""
                after = {"scheduled": "ended", "pending": "ended"}
        done = call.state == "ended" or (call.state == "wrapup" and verb != "remove")
        if not done and call.state not in after:
            with pytest.raises(Conflict):
                self.wait(word)
            return
        answer = self.wait(word)
        if not done:
            reason = late if after[call.state] == "wrapup" else early
            self.goes(task, after[call.state], cause, reason)
        assert answer == (task, call.state, call.reason or "")

    @rule(enabled=st.one_of(st.none(), st.booleans()))
    def toggle(self, enabled: bool | None) -> None:
        self.enabled = not self.enabled if enabled is None else enabled
        assert self.wait(self.queue.toggle(FLOW, enabled)) is self.enabled

    @rule()
    def clear(self) -> None:
        line = self.line()
        assert self.wait(self.queue.clear(FLOW)) == len(line)
        for task in line:
            self.goes(task, "ended", "cleared", "removed")

    # --- what always holds ---

    @invariant()
    def the_store_is_as_the_model_says(self) -> None:
        status, details, (dead, total) = self.wait(self.look())
        line = self.line()
        assert [row.task_id for row in status.pending] == line
        assert status.pending_count == len(line)
        assert status.free == self.free()
        assert {row.task_id for row in status.active} == set(self.in_state("offered", "live", "wrapup"))
        for task, detail in details.items():
            call = self.calls[task]
            assert detail.call.state == call.state
            assert detail.call.end_reason == call.reason
            assert (detail.call.owner, detail.call.attempt) == (call.owner, call.attempt)
            assert [change.cause for change in detail.history] == call.causes
            # the place told is the true one, or a better one that was told before
            assert detail.position <= (line.index(task) + 1 if task in line else 0)
        letters = {task for task, call in self.calls.items() if call.dead and not call.came_back_as}
        assert {call.task_id for call in dead} == letters
        assert (total, status.dead_count) == (len(letters), len(letters))
        ended = [call for call in self.calls.values() if call.state == "ended"]
        assert (status.stats.answered, status.stats.ended) == (self.answered, len(ended))
        assert status.stats.failed == sum(call.reason in FAILURES for call in ended)
        assert status.stats.abandoned == sum(call.reason == "abandoned" and not call.answered for call in ended)

    async def look(self) -> tuple[Any, dict[str, Any], Any]:
        status = await self.queue.status(FLOW, limit=1_000)
        details = await asyncio.gather(*(self.queue.detail(FLOW, task) for task in self.calls))
        return status, dict(zip(self.calls, details, strict=True)), await self.queue.dead_letters(FLOW)


LIFE = settings(deadline=None, suppress_health_check=list(HealthCheck))


def test_the_functions_do_what_the_model_says(server_url: str) -> None:
    machine = type("Machine", (Model,), {"url": server_url})
    run_state_machine_as_test(machine, settings=settings(LIFE, max_examples=40, stateful_step_count=40))


def test_every_event_leaves_the_stream_and_the_history_alike(server_url: str) -> None:
    """One long random life: what the stream told is, call by call, what the records say."""

    class Long(Model):
        def teardown(self) -> None:
            events = self.wait(self.queue.events(FLOW, limit=100_000))
            for task, call in self.calls.items():
                mine = [event for event in events if event.task_id == task]
                assert [event.cause for event in mine] == call.causes
                assert [event.previous for event in mine] == [None, *(event.state for event in mine[:-1])]
                assert mine[-1].state == State(call.state)
            super().teardown()

    Long.url = server_url
    run_state_machine_as_test(
        Long,
        settings=settings(
            max_examples=4, stateful_step_count=120, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
