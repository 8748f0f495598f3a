"""Which language a text is in, by its commonest small words; short texts and unknown languages have none. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

# Words that are frequent in one language and rare in its neighbours weigh most, so each list mixes both kinds.
_SMALL_WORDS = {
    "english": "the and of to is that for with you this are not have from your which they was be on by an or can has",
    "german": "der die und das ist nicht mit ein eine für auf den dem sich werden auch von zu sie oder",
    "french": "le la les et des est une pour dans que qui pas vous sur avec sont nous au aux du",
    "spanish": "el los las y es una para por con que del se su como más está puede sobre lo al",
    "italian": "il gli della che è una per con non sono di nel alla anche questo come dei le si più",
    "portuguese": "o os as e é uma para com que não do da dos das você mais em ao pelo são",
    "dutch": "de het een en van is niet met voor op dat zijn aan ook wordt naar bij door worden u",
    "swedish": "och att det som en är för med på av inte den till du kan ett har om vi eller",
    "danish": "og at det som en er for med på af ikke den til du kan et har om vi eller blev",
    "norwegian": "og at det som en er for med på av ikke den til du kan et har om vi eller ble",
    "finnish": "ja on ei että se ovat mutta tai kun sen joka voi ole niin myös kuin sekä jos olla sinun",
    "polish": "i w nie na z się do jest że to są oraz od przez dla jak po tym lub można",
    "czech": "a v je na se že s z do pro jsou které nebo by jako od při ale být můžete",
    "hungarian": "a az és hogy nem egy is van meg ez ha de csak vagy mint lehet ki azt el kell",
    "romanian": "și în de la nu este cu care pe pentru sunt din o sau mai că fi dacă se prin",
    "turkish": "ve bir bu için ile da de olarak daha çok olan gibi ne değil var kadar sonra her veya en",
    "slovene": "in je na ki za se so ne da v z po pri tudi ter ali lahko kot smo bo",
    "croatian": "i je na koji za se su ne da u s po od kao te ili može što biti kod",
    "russian": "и в не на что с по это для как от вы или за из при также может если до",
    "greek": "και το να του της η με για που από στο είναι τα την στη δεν οι σε ή μας",
    "lithuanian": "ir yra kad iš su į ne kaip tai arba bei jūsų gali už ar nuo bus būti apie kurie",
    "estonian": "ja on ei et see ka või kui oma mis ning mida kes aga siis teie saab olema selle kuid",
    "indonesian": "yang dan di untuk dengan ini itu dari tidak pada ke anda adalah atau dalam akan oleh dapat",
}
_LANGUAGES = {name: frozenset(words.split()) for name, words in _SMALL_WORDS.items()}
_SPEAKERS: dict[str, list[str]] = {}
for _name, _words in _LANGUAGES.items():
    for _word in _words:
        _SPEAKERS.setdefault(_word, []).append(_name)

_ASK = (
    "a an i me my we us our it its he she what when where who whom whose why how does do did can could would should "
    "will shall may might must am been being has had there here then than so as at by in into or if but about please "
    "tell want know like any some was wie wo wann wer warum quel quelle quand où comment qué cuál cuándo dónde cómo "
    "cosa quando dove come kdaj kje kako kaj zakaj kdo jak gdzie kiedy"
)
_ASKING = frozenset(_ASK.split())

_LOOKED_AT = 600
_LEAST = 2


def language_of(words: Iterable[str]) -> str:
    """The language of lower-case `words`, by Snowball's name of it; "" where they do not say."""
    points: Counter[str] = Counter()
    for count, word in enumerate(words):
        if count >= _LOOKED_AT:
            break
        speakers = _SPEAKERS.get(word)
        if speakers is not None:
            for name in speakers:
                points[name] += 60 // len(speakers)
    if not points:
        return ""
    name, best = points.most_common(1)[0]
    return name if best >= 20 * _LEAST else ""


_AFTER_HOW = frozenset({"long", "much", "many", "often", "far", "soon", "late", "early"})


def telling_words(words: Sequence[str], languages: Iterable[str]) -> list[str]:
    """The words of a question that say what it is about, each once; all of them where none does."""
    known = list(languages)
    telling = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if not is_small_word(word, known) and not (before == "how" and word in _AFTER_HOW)
    ]
    return list(dict.fromkeys(telling or words))


def is_small_word(word: str, languages: Iterable[str]) -> bool:
    """Whether the word says little in a question to texts of `languages`."""
    return word in _ASKING or any(word in _LANGUAGES.get(language, ()) for language in languages)
