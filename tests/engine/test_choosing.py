"""Choosing without a model: sentences that people say, in other words than the scenarios have."""

from __future__ import annotations

import pytest

from switchroom.engine.choosing import fitting, spoken_of
from switchroom.engine.concepts import affirmed
from switchroom.engine.responder import Scenario

SETS: dict[str, tuple[list[str], list[tuple[str, int]]]] = {
    "support": (
        [
            "Billing question or invoice problem",
            "Technical support",
            "Cancel the subscription",
            "Talk to a human agent",
            "General question or small talk",
        ],
        [
            ("My last bill looks far too high", 0),
            ("why was my card charged twice", 0),
            ("I didn't get my invoice for March", 0),
            ("I'd like to pay what I owe", 0),
            ("there is a payment I do not recognise", 0),
            ("my internet is down", 1),
            ("the router keeps blinking red", 1),
            ("it doesn't work any more", 1),
            ("the app crashes when I log in", 1),
            ("I can't connect to the wifi", 1),
            ("I have a technical problem", 1),
            ("I want to end my contract", 2),
            ("please terminate my plan", 2),
            ("I'm leaving you, stop the subscription", 2),
            ("unsubscribe me", 2),
            ("let me speak to a real person", 3),
            ("get me your supervisor", 3),
            ("operator", 3),
            ("can I talk with somebody", 3),
            ("connect me to a representative please", 3),
            ("how are you today", 4),
            ("hello there", 4),
            ("what's the weather like", 4),
            ("tell me a joke", 4),
            ("I don't want to cancel, I just have a question about my bill", 0),
            ("not billing, it's a technical issue", 1),
            ("I do not want to talk to a human, my internet is broken", 1),
        ],
    ),
    "refund": (
        [
            "User is asking for refund",
            "User is looking for item",
            "User is chatting casually or asking general question",
        ],
        [
            ("I want my money back", 0),
            ("can you reimburse me for the broken lamp", 0),
            ("I'd like to return these shoes", 0),
            ("refund please", 0),
            ("give me back what I paid", 0),
            ("do you have red running shoes", 1),
            ("I'm searching for a desk lamp", 1),
            ("show me laptops under 500", 1),
            ("where can I find a blue shirt", 1),
            ("I want to buy a phone", 1),
            ("hi how are you", 2),
            ("what is the capital of France", 2),
            ("who are you", 2),
            ("I'm not after a refund, I'm looking for a new jacket", 1),
        ],
    ),
    "yesno": (
        ["The caller agrees", "The caller refuses"],
        [
            ("yes", 0),
            ("sure, go ahead", 0),
            ("that's fine", 0),
            ("okay do it", 0),
            ("sounds good", 0),
            ("no", 1),
            ("no thanks", 1),
            ("I'd rather not", 1),
            ("absolutely not", 1),
            ("never mind", 1),
            ("nope", 1),
        ],
    ),
    "rag": (
        ["AI Related", "General"],
        [
            ("How does attention work in transformers?", 0),
            ("what is machine learning", 0),
            ("explain neural networks", 0),
            ("What's for dinner?", 1),
            ("hello", 1),
            ("tell me about large language models", 0),
        ],
    ),
    "hotel": (
        ["Make a reservation", "Change or cancel a reservation", "Opening hours and location", "Complaint", "Other"],
        [
            ("I'd like to book a room for Friday", 0),
            ("do you have a table for two tonight", 0),
            ("can I reserve a double room", 0),
            ("I need a room from Monday to Wednesday", 0),
            ("I need to move my booking to next week", 1),
            ("cancel my booking please", 1),
            ("can we reschedule", 1),
            ("I can't come on Friday any more", 1),
            ("when do you open", 2),
            ("what time do you close on Sundays", 2),
            ("where are you", 2),
            ("what's your address", 2),
            ("how do I get there", 2),
            ("I am very unhappy with the room", 3),
            ("the service was terrible", 3),
            ("I want to complain about the noise", 3),
            ("this is unacceptable", 3),
            ("what is the meaning of life", 4),
        ],
    ),
    "ticket": (
        ["Urgent: production is down", "Feature request", "Bug report", "How-to question"],
        [
            ("the whole site is offline and customers cannot order", 0),
            ("it would be nice to have dark mode", 1),
            ("could you add export to Excel", 1),
            ("I get an error when I click save", 2),
            ("the button does nothing", 2),
            ("how do I change my password", 3),
            ("how can I export my data", 3),
            ("where do I find the settings", 3),
        ],
    ),
    "lead": (
        ["Interested in buying", "Not interested", "Call back later"],
        [
            ("yes I'd love to hear more", 0),
            ("how much does it cost", 0),
            ("send me an offer", 0),
            ("I'm not interested", 1),
            ("please take me off your list", 1),
            ("don't call me again", 1),
            ("I'm busy right now, call me tomorrow", 2),
            ("can you ring me back in an hour", 2),
            ("it's a bad time", 2),
            ("no thank you", 1),
        ],
    ),
    "intent2": (
        ["Sales", "Support"],
        [
            ("I would like to purchase ten licences", 0),
            ("how much is the pro plan", 0),
            ("my screen stays black", 1),
            ("I need help with the installation", 1),
            ("can I get a quote", 0),
            ("something is broken", 1),
        ],
    ),
    "lang": (
        ["Positive feedback", "Negative feedback", "Neutral"],
        [
            ("I love it, great job", 0),
            ("this is awful", 1),
            ("it was the worst call ever", 1),
            ("thank you so much, you were wonderful", 0),
            ("it was okay", 2),
            ("not good at all", 1),
            ("not bad at all", 0),
        ],
    ),
    "clinic": (
        ["Book an appointment", "Prescription refill", "Medical emergency", "Billing and insurance", "Something else"],
        [
            ("I'd like to see the doctor on Tuesday", 0),
            ("is there a slot free tomorrow morning", 0),
            ("I've run out of my blood pressure pills", 1),
            ("can you renew my prescription", 1),
            ("I have chest pain and can't breathe", 2),
            ("my father collapsed", 2),
            ("does my insurance cover this", 3),
            ("I got a bill I don't understand", 3),
            ("do you sell umbrellas", 4),
        ],
    ),
    "bank": (
        ["Lost or stolen card", "Account balance", "Make a transfer", "Speak with an advisor", "Else"],
        [
            ("someone took my wallet", 0),
            ("I lost my card", 0),
            ("my card was stolen yesterday", 0),
            ("how much money do I have", 1),
            ("what's my balance", 1),
            ("send 200 euros to Ana", 2),
            ("I want to transfer money to my savings", 2),
            ("I need to talk to someone about a mortgage", 3),
            ("what's the weather", 4),
        ],
    ),
    "telco": (
        ["New contract", "Existing contract", "Technical fault", "Invoice", "Agent"],
        [
            ("I want to sign up with you", 0),
            ("I'm thinking about becoming a customer", 0),
            ("what is left of my data volume", 1),
            ("no dial tone", 2),
            ("the line is dead", 2),
            ("the amount on my bill is wrong", 3),
            ("get me a human", 4),
            ("agent please", 4),
        ],
    ),
    "shop": (
        ["Order status", "Return or exchange", "Product question", "Complaint"],
        [
            ("where's my package", 0),
            ("has my order shipped yet", 0),
            ("it still hasn't arrived", 0),
            ("I want to send these back", 1),
            ("the shirt is too small, can I swap it", 1),
            ("does this come in blue", 2),
            ("is it waterproof", 2),
            ("your driver was rude", 3),
            ("I'm really angry about this", 3),
        ],
    ),
    "survey": (
        ["The customer is satisfied", "The customer is dissatisfied"],
        [
            ("everything was fine", 0),
            ("it was great", 0),
            ("I'm not happy at all", 1),
            ("no, it was terrible", 1),
            ("could have been better", 1),
            ("very good, thanks", 0),
        ],
    ),
    "confirm": (
        ["Confirmed", "Not confirmed"],
        [
            ("yes that's right", 0),
            ("correct", 0),
            ("no that's wrong", 1),
            ("that is not correct", 1),
            ("yes please", 0),
        ],
    ),
    "route": (
        ["Hardware issue", "Software issue", "Account access"],
        [
            ("my keyboard stopped typing", 0),
            ("the monitor is black", 0),
            ("excel keeps crashing", 1),
            ("windows update failed", 1),
            ("I forgot my password", 2),
            ("I'm locked out", 2),
            ("my laptop won't turn on", 0),
        ],
    ),
    "hr": (
        ["Vacation request", "Payroll question", "IT support", "Other HR topics"],
        [
            ("I'd like to take next Friday off", 0),
            ("how many days off do I have left", 0),
            ("my salary was too low this month", 1),
            ("when do we get paid", 1),
            ("my computer doesn't start", 2),
            ("I need a reference letter", 3),
        ],
    ),
    "esc": (
        ["The user wants to continue with the bot", "The user wants to speak to a human"],
        [
            ("I want a real person", 1),
            ("no human please, go on", 0),
            ("can a person help me", 1),
            ("let's continue", 0),
            ("I don't want to speak to a human, let's go on", 0),
        ],
    ),
    "topic": (
        ["The question is about programming", "The question is about cooking", "The question is about sports"],
        [
            ("how do I reverse a list in python", 0),
            ("what's a good pasta sauce", 1),
            ("who won the match yesterday", 2),
            ("my code throws an exception", 0),
            ("how long do I bake bread", 1),
        ],
    ),
}


@pytest.mark.parametrize("name", SETS)
def test_a_scenario_is_chosen_by_what_is_meant(name: str) -> None:
    names, cases = SETS[name]
    scenarios = [Scenario(scenario=scenario) for scenario in names]
    wrong = [(said, names[chosen]) for said, wanted in cases if (chosen := fitting(said, scenarios)) != wanted]
    assert wrong == []


def test_what_fits_none_goes_to_what_stands_for_the_rest() -> None:
    first = [Scenario(scenario="Anything else"), Scenario(scenario="Invoices"), Scenario(scenario="Deliveries")]
    assert fitting("the sky is blue", first) == 0
    last = [Scenario(scenario="Invoices"), Scenario(scenario="Deliveries")]
    assert fitting("the sky is blue", last) == 1
    assert fitting("", last) == 1


def test_examples_count_as_their_scenario() -> None:
    scenarios = [Scenario(scenario="A", examples=["the cat sat on the mat"]), Scenario(scenario="B")]
    assert fitting("a cat sat on my mat", scenarios) == 0


@pytest.mark.parametrize(
    ("said", "intent"),
    [
        ("get me your supervisor", 1),
        ("somebody overcharged me", 0),
        ("the weather is nice", None),
        ("I don't want a human", None),
        ("", None),
    ],
)
def test_an_intent_is_taken_where_it_is_plainly_spoken_of(said: str, intent: int | None) -> None:
    phrases = [["invoice", "I have a question about my invoice"], ["operator", "I want to talk to an operator"]]
    assert spoken_of(said, phrases) == intent


def test_what_is_denied_is_not_meant_but_what_is_wrong_is() -> None:
    assert affirmed("I don't want a refund, I want a new one") == ["i", "i want a new one"]
    assert "invoice" in " ".join(affirmed("I didn't get my invoice"))


async def test_a_structured_answer_has_what_was_said_and_nothing_else() -> None:
    from switchroom.engine.embedded import Embedded
    from switchroom.engine.responder import Answer, Ask

    fields = [
        {"key": "customerName", "type": "string"},
        {"key": "orderNumber", "type": "string"},
        {"key": "email", "type": "string"},
        {"key": "date", "type": "string"},
        {"key": "price", "type": "number"},
        {"key": "urgent", "type": "boolean"},
        {"key": "mood", "type": "enum", "enum": "positive, negative, neutral"},
        {"key": "note", "type": "string"},
    ]

    async def answered(question: str) -> dict[str, object]:
        ask = Ask(
            question=question, prompts=[], history=[], intents=[], fallback="", schema=fields, previous={},
            lookup=lambda path: None,
        )  # fmt: skip
        found = [piece async for piece in Embedded().answer(ask) if isinstance(piece, Answer)]
        return {key: found[0].output[key] for key in (str(field["key"]) for field in fields)}

    said = "My name is Ana Novak, order four one seven two, I paid 12.50 too much, this is awful, tomorrow please"
    assert await answered(said) == {
        "customerName": "Ana Novak",
        "orderNumber": "4172",
        "email": "",
        "date": "tomorrow",
        "price": 12.5,
        "urgent": False,
        "mood": "negative",
        "note": said,
    }
    assert (await answered("ana@example.com, yes"))["email"] == "ana@example.com"


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("My name is Ana Novak and my number is four one seven", "I noted Ana Novak, 4 1 7."),
        ("It's Friday", "I heard: It's Friday"),
        ("It is 4172, please", "I noted 4 1 7 2."),
    ],
)
async def test_names_and_digits_are_read_back(said: str, text: str) -> None:
    from switchroom.engine.embedded import Embedded
    from switchroom.engine.responder import Answer, Ask

    ask = Ask(
        question=said, prompts=[], history=[], intents=[], fallback="", schema=[], previous={}, lookup=lambda path: None
    )
    found = [piece async for piece in Embedded().answer(ask) if isinstance(piece, Answer)]
    assert found[0].output["content"] == text
