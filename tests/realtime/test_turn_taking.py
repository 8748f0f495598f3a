"""Who has the floor: the strategies, and the conversation that follows them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from switchroom.engine.events import TurnEnded, TurnInput
from switchroom.realtime.talk_settings import BACKCHANNELS
from switchroom.realtime.turns import AgentTalk, Verdict
from switchroom.realtime.turns.backchannel import Backchannels
from switchroom.realtime.turns.keypad import Keypad
from switchroom.realtime.turns.minimum_words import MinimumWords
from switchroom.realtime.turns.must_hear import MustHear
from switchroom.realtime.turns.transcript import hangs

from .talk import FRAMES_A_WORD, QUICK, Talk, lines

LONG = "Your parcel left the warehouse this morning. It will be with you tomorrow before noon. " * 3
TALKING = AgentTalk("Your parcel left", 5.0, False)
ASKING = AgentTalk("Is that all right? And", 5.0, False)


# --- strategies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        "My order number is",
        "My order number is.",
        "I want to,",
        "and then I, um",
        "It was on the",
        "Four one",
        "My number is 41.",
        "Because",
        "When I opened the box.",
        "Hello.",
        "Yes, good morning.",
        "So what I want is.",
        "I would like to talk to my...",
    ],
)
def test_words_that_hang(said: str) -> None:
    assert hangs(said)


@pytest.mark.parametrize(
    "said",
    [
        "I have a question about my invoice.",
        "My order number is four one seven two.",
        "My order number is for one-seven-two.",  # as it is misheard
        "Yes it is.",
        "The first one.",
        "After lunch.",
        "Good.",
        "Okay, good.",
        "Hello, my parcel is late.",
        "When I opened the box, it was empty.",
        "When are you open on Saturday?",
        "An operator, please.",
        "Where is it from?",
        "Yes",
        "I want that.",
        "",
        "我要找客服",
    ],
)
def test_words_that_are_whole(said: str) -> None:
    assert not hangs(said)


@pytest.mark.parametrize("said", ["Mm-hmm.", "Okay.", "Yeah, okay.", "Uh-huh", "You", "I see.", "Hm."])
def test_signs_of_listening(said: str) -> None:
    strategy = Backchannels(BACKCHANNELS)
    assert strategy.judge(said, TALKING) is Verdict.GO_ON
    assert strategy.judge(said, ASKING) is None  # after a question it is an answer
    assert strategy.judge(said, AgentTalk("Your parcel", 0.4, False)) is None  # the agent is nearly done
    assert strategy.judge(said, AgentTalk("", 5.0, True)) is None  # nothing was heard yet: nothing to agree to


@pytest.mark.parametrize(
    "said", ["Stop.", "No.", "Yes, but what about the invoice?", "Operator", "Okay stop please now"]
)
def test_words_that_interrupt(said: str) -> None:
    assert Backchannels(BACKCHANNELS).judge(said, TALKING) is None


def test_minimum_words_and_must_hear() -> None:
    assert MinimumWords(3).judge("Stop now", TALKING) is Verdict.GO_ON
    assert MinimumWords(3).judge("Stop it now", TALKING) is None
    assert MinimumWords(3).judge("No", ASKING) is None
    assert MustHear().judge("Stop", TALKING) is None
    assert MustHear().judge("Stop", TALKING._replace(must_be_heard=True)) is Verdict.KEEP
    assert MustHear(always=True).judge("Stop", TALKING) is Verdict.KEEP


def test_keypad() -> None:
    pad = Keypad(timeout_s=3)
    assert [pad.press(digit, 10.0) for digit in "417"] == [None, None, None]
    assert pad.due == 13.0
    assert pad.press("#", 11.0) == "417" and pad.due is None
    assert pad.press("#", 12.0) == ""
    menu = Keypad(most=1)
    assert menu.press("2", 0.0) == "2"
    assert Keypad(end="").press("#", 0.0) is None
    late = Keypad()
    late.press("9", 0.0)
    assert late.take() == "9" and late.due is None


# --- the conversation ------------------------------------------------------------------------------------------------


async def test_mm_hm_does_not_interrupt_and_stop_does() -> None:
    async with Talk(lines("Welcome.", LONG)).running() as talk:
        await talk.turn_over(1)
        talk.caller("Where is my parcel?")
        await talk.agent_speaks("warehouse")
        talk.caller("Mm-hmm.")
        talk.caller("")  # a cough
        await talk.until(lambda: len(talk.said("caller")) == 2)
        before = talk.voiced
        await talk.until(lambda: talk.voiced > before + 20)  # it goes on
        talk.caller("Stop, that is enough.")
        await talk.turn_over(3)
        assert talk.asked == ["Where is my parcel?", "Stop, that is enough."]
        assert talk.texts("caller") == ["Where is my parcel?", "Mm-hmm.", "Stop, that is enough."]
        cut = talk.said("agent")[1]
        assert cut.interrupted and LONG.startswith(cut.text) and len(cut.text) < len(LONG.strip())
        spoken = [message.text for message in talk.session.messages]
        assert spoken == ["Welcome.", "Where is my parcel?", cut.text, "Stop, that is enough.", "Right."]


async def test_yes_after_a_question_is_an_answer() -> None:
    async with Talk(lines("Shall I send it again? " + LONG)).running() as talk:
        await talk.agent_speaks("again")
        talk.caller("Yes.")
        await talk.turn_over(2)
        assert talk.asked == ["Yes."]


async def test_words_that_hang_get_time_for_the_rest() -> None:
    async with Talk(lines("Welcome.", "Noted.")).running() as talk:
        await talk.turn_over(1)
        talk.caller("My order number is")
        await talk.until(lambda: len(talk.said("caller")) == 1)
        talk.caller("four one seven two.")
        await talk.turn_over(2)
        assert talk.asked == ["My order number is four one seven two."]
        talk.caller("And then the")
        await talk.turn_over(3)  # nothing more comes: it is answered all the same
        assert talk.asked[1:] == ["And then the"]


async def test_what_must_be_heard_is_heard_and_answered_after() -> None:
    settings = QUICK.model_copy(update={"announcement_text": "This call is recorded.", "greeting_must_be_heard": True})
    async with Talk(lines("Welcome to the shop, how can I help?", "Your bill."), settings).running() as talk:
        await talk.agent_speaks("recorded")
        talk.caller("My bill is wrong.")
        talk.engine.dtmf("5")
        await talk.agent_speaks("Welcome")
        talk.caller("Completely wrong.")
        await talk.turn_over(2)
        assert talk.asked == ["My bill is wrong. Completely wrong."]
        assert not any(one.interrupted for one in talk.said("agent"))
        assert talk.texts("agent")[:2] == ["This call is recorded.", "Welcome to the shop, how can I help?"]


async def test_an_agent_that_cannot_be_interrupted_answers_afterwards() -> None:
    settings = QUICK.model_copy(update={"barge_in": False})
    async with Talk(lines(LONG), settings).running() as talk:
        await talk.agent_speaks("warehouse")
        talk.caller("Stop.")
        await talk.turn_over(2)
        assert talk.asked == ["Stop."] and talk.texts("agent")[0] == LONG.strip()


async def test_digits_of_a_phone_are_a_turn() -> None:
    async with Talk(lines(LONG, "Thanks.", "Thanks.")).running() as talk:
        await talk.until(lambda: talk.voiced > 2 * FRAMES_A_WORD)
        for digit in "4172#":
            talk.engine.dtmf(digit)
        await talk.turn_over(2)
        assert talk.said("agent")[0].interrupted  # a key stops the agent as words do
        for digit in "33":
            talk.engine.dtmf(digit)
        await talk.turn_over(3)  # ended by time
        assert talk.asked == ["4172", "33"] and talk.texts("caller") == ["4172", "33"]


async def test_digits_finish_a_spoken_sentence() -> None:
    async with Talk(lines("Welcome."), QUICK.model_copy(update={"turn_patience_s": 10.0})).running() as talk:
        await talk.turn_over(1)
        talk.caller("My order number is")
        await talk.until(lambda: talk.said("caller"))
        for digit in "417#":
            talk.engine.dtmf(digit)
        await talk.turn_over(2)
        assert talk.asked == ["My order number is 417"]


async def test_push_to_talk_needs_no_strategy() -> None:
    settings = QUICK.model_copy(update={"turn_end": "push_to_talk"})
    async with Talk(lines(LONG), settings).running() as talk:
        await talk.agent_speaks("warehouse")
        for active in (True, True, False):
            talk.engine.message({"type": "talk", "active": active})
        talk.engine.message({"type": "talk", "active": "yes"})
        talk.engine.message({"type": "other"})
        talk.caller("Okay")  # under the button even this is a turn
        await talk.turn_over(2)
        assert talk.asked == ["Okay"]


async def test_a_filler_covers_a_slow_flow_and_is_no_part_of_the_answer() -> None:
    found = asyncio.Event()

    async def script(given: TurnInput) -> AsyncIterator[str | float | TurnEnded]:
        if given.kind == "start":
            yield "Welcome."
            return
        await found.wait()
        yield "It is on its way."

    settings = QUICK.model_copy(update={"filler_texts": ("One moment.", "Still looking.")})
    async with Talk(script, settings).running() as talk:
        await talk.turn_over(1)
        talk.caller("Where is my parcel?")
        await talk.agent_speaks("Still looking")
        found.set()
        await talk.turn_over(2)
        said = talk.texts("agent")
        assert said[:3] == ["Welcome.", "One moment.", "Still looking."] and said[-1] == "It is on its way."
        assert [one.text for one in talk.session.messages][-2:] == ["Where is my parcel?", "It is on its way."]


async def test_words_into_a_filler_are_joined_to_the_question() -> None:
    async def script(given: TurnInput) -> AsyncIterator[str | float | TurnEnded]:
        if given.kind == "start":
            yield "Welcome."
            return
        yield 0.3 if "invoice" in given.text else 30.0
        yield "Here it is."

    settings = QUICK.model_copy(update={"filler_texts": ("One moment.",)})
    async with Talk(script, settings).running() as talk:
        await talk.turn_over(1)
        talk.caller("I am looking for something.")
        await talk.agent_speaks("moment")
        talk.caller("For my invoice, I mean.")
        await talk.turn_over(2)
        assert talk.asked == ["I am looking for something.", "I am looking for something. For my invoice, I mean."]
        callers = [one.text for one in talk.session.messages if one.role == "caller"]
        assert callers == ["I am looking for something. For my invoice, I mean."]


async def test_silence_is_asked_about_and_ends() -> None:
    settings = QUICK.model_copy(
        update={"silence_s": 0.2, "silence_prompts": 1, "silence_prompt_text": "Hello?", "silence_goodbye_text": "Bye."}
    )
    async with Talk(lines("Welcome."), settings).running() as talk:
        assert talk.over is not None
        await talk.until(talk.over.done)
        assert talk.over.result().cause == "silence"
        assert talk.texts("agent") == ["Welcome.", "Hello?", "Bye."]
