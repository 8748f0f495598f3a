"""Rich text to templates and back, and what templates give."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from switchroom.compact.richtext import plain, wrap
from switchroom.compact.templates import MISSING, render, value_of, walk

MENTION = '<span class="variable" data-type="mention" data-id="$form.x" data-label="$form.x">{{ $form.x }}</span>'


def test_rich_text_becomes_a_template() -> None:
    assert plain(f"<p>Hello {MENTION} </p><p>a &lt; b &amp;&nbsp;c</p>") == "Hello {{$form.x}}\na < b & c"
    assert plain("<ol><li><p>one</p></li><li><p><strong>two</strong></p><ul><li>in</li></ul></li></ol>") == (
        "1. one\n2. **two**\n  - in"
    )
    assert plain("<h2>T</h2><p>x<br>y</p>") == "## T\nx\ny"
    assert plain("<pre><code>if (a &lt; b) {\n  c\n}</code></pre>") == "```\nif (a < b) {\n  c\n}\n```"


def test_what_is_not_rich_is_left_alone() -> None:
    for text in ("a < b and c > d", "use <name> here", "  two  spaces ", "line\nline", '{"a": "<p>x</p>"}'):
        assert plain(text) == text
    assert plain("{{  question  }}") == "{{question}}"
    assert plain(r"{{ llm\_0.output.a\\_b }} \_") == r"{{llm_0.output.a_b}} \_"


@given(st.text(st.sampled_from('ab <p>/&;lt{}$.\n"#-*é'), max_size=60))
def test_freed_text_survives_a_canvas(text: str) -> None:
    freed = plain(text)
    assert plain(wrap(freed)) == freed


@given(st.text(max_size=40))
def test_any_paragraph_survives(text: str) -> None:
    freed = plain(f"<p>{text}</p>")
    assert plain(wrap(freed)) == freed


VALUES: dict[str, Any] = {
    "$form": {"ID": "+386", "n": 3, "list": [{"a": 1}, {"a": None}], "on": True, "f": 2.0},
    "question": "{{ $form.ID }}",
    "node-1": {"output": "x"},
}


def lookup(path: tuple[str, ...]) -> Any:
    return walk(VALUES, path)


def test_templates() -> None:
    assert render("{{ $form.ID }}/{{$form.id}}/{{ $form.n }}/{{$form.on}}/{{$form.f}}", lookup) == "+386/+386/3/true/2"
    assert render('{{ $form.list[0].a }}{{ $form.list.0.a }}{{ $form["n"] }}', lookup) == "113"
    assert render("{{ node-1.output }}", lookup) == "x"
    assert render("[{{ $form.nothing }}{{ nobody.here }}{{ $form.list[9] }}{{ $form.list[1].a }}]", lookup) == "[]"
    assert render("{{ $form.list }}", lookup) == '[{"a":1},{"a":null}]'
    assert render("{{ $form.ID | spell }}", lookup) == "3 8 6"
    assert lookup(("nobody",)) is MISSING


def test_a_value_is_never_read_as_a_template() -> None:
    assert render("{{ question }}", lookup) == "{{ $form.ID }}"


def test_a_lone_reference_keeps_its_type() -> None:
    assert value_of("{{ $form.n }}", lookup) == 3
    assert value_of({"a": ["{{$form.on}}", "n={{$form.n}}"]}, lookup) == {"a": [True, "n=3"]}
