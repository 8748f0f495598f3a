"""Words, chunks and sentences, without a store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchroom.knowledge.chunks import MAX_CHARS, chunks_of, plain, sentences
from switchroom.knowledge.languages import telling_words
from switchroom.knowledge.words import detect, spoken_words, terms


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("english", "The opening hours of the office are listed on this page, and you can call us from Monday."),
        ("german", "Die Öffnungszeiten der Geschäftsstelle sind auf dieser Seite und nicht in dem Heft zu finden."),
        ("french", "Les horaires du bureau sont affichés sur la page et vous pouvez nous appeler avec une carte."),
        ("slovene", "Odpiralni čas pisarne je objavljen na tej strani, ki se lahko spremeni tudi med prazniki."),
        ("polish", "Godziny otwarcia biura są podane na tej stronie i nie można się z nimi nie zgodzić."),
        ("russian", "Часы работы офиса указаны на этой странице, и вы можете позвонить нам из дома для записи."),
        ("", "4711 / XK-22"),
    ],
)
def test_the_language_of_a_text_is_known_by_its_small_words(language: str, text: str) -> None:
    assert detect(text) == language


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("english", "connections", "connected"),
        ("german", "Öffnungszeiten", "öffnungszeit"),
        ("german", "Häuser", "hauser"),
        ("slovene", "odpiralnega", "odpiralni"),  # no stemmer knows it: cut
        ("french", "réservations", "reservation"),
        ("english", "ORD-4172", "ord 4172"),
        ("", "東京都庁", "東京都庁"),
    ],
)
def test_forms_of_one_word_are_one_term(language: str, one: str, other: str) -> None:
    assert terms(one, language) == terms(other, language) != []


@pytest.mark.parametrize(
    ("question", "telling"),
    [
        ("How much is a cubic metre of water, please?", ["cubic", "metre", "water"]),
        ("Is the bus to Bled a long one?", ["bus", "bled", "long", "one"]),
        ("the who", ["the", "who"]),
    ],
)
def test_a_question_is_asked_by_the_words_that_say_what_it_is_about(question: str, telling: list[str]) -> None:
    assert telling_words(spoken_words(question), ["english"]) == telling


def test_text_without_blanks_is_found_by_a_part_of_it() -> None:
    assert set(terms("東京都", "")) <= set(terms("私は東京都に住んでいます", ""))


PAGE = """---
url: "https://example.com/"
---

# Help desk

We are here to help.

## Opening hours

| Day | Hours |
|-----|-------|
| Monday to Friday | 9 to 17 |
| Saturday | 9 to 12 |

## Returns

You may return goods within 30 days. See [the form](https://example.com/form "Form") for it.

```
# not a heading
```

### Abroad

Returns from abroad take **60** days.
"""


def test_a_page_falls_into_chunks_under_their_headings() -> None:
    found = [(chunk.headings, chunk.text.partition("\n")[0]) for chunk in chunks_of(PAGE, "Help desk")]
    assert found == [
        ((), "We are here to help."),
        (("Opening hours",), "| Day | Hours |"),
        (("Returns",), 'You may return goods within 30 days. See [the form](https://example.com/form "Form") for it.'),
        (("Returns", "Abroad"), "Returns from abroad take **60** days."),
    ]


def test_sentences_are_as_one_reads_them_aloud() -> None:
    chunks = chunks_of(PAGE, "Help desk")
    assert sentences(chunks[1].text) == ["Day, Hours", "Monday to Friday, 9 to 17", "Saturday, 9 to 12"]
    assert sentences(chunks[2].text)[:2] == ["You may return goods within 30 days.", "See the form for it."]
    assert sentences("- one\n- two, which\n  goes on\n\nThe **end** is e.g. here. Really!") == [
        "one",
        "two, which goes on",
        "The end is e.g. here.",
        "Really!",
    ]


@given(st.text(alphabet="ab .\n#|`-", max_size=4000))
def test_no_chunk_is_too_long_and_no_letter_is_lost(text: str) -> None:
    chunks = chunks_of(text)
    assert all(0 < len(chunk.text) <= MAX_CHARS for chunk in chunks)
    everything = "".join("".join(chunk.headings) + chunk.text for chunk in chunks)
    headings_alone = [line for line in text.split("\n") if line.lstrip().startswith("#")]
    if not headings_alone and not text.startswith("---"):
        assert sorted(everything.replace("\n", "").replace(" ", "")) == sorted(text.replace("\n", "").replace(" ", ""))


def test_markdown_becomes_plain_words() -> None:
    assert plain("> **Note**: see [this](x) and `code` ![a picture](y)") == "Note: see this and code a picture"
