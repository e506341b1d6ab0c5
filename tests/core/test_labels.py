import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.demand import labels
from broker.core.demand.labels import Expression, Op
from tests.each import each

ABC = ("a", "b", "c")


def truth(text):
    """Return for which sets of the labels a, b and c an expression holds."""
    parsed = labels.parse(text)
    return {
        frozenset(chosen)
        for size in range(4)
        for chosen in itertools.combinations(ABC, size)
        if parsed.matches(frozenset(chosen))
    }


@each(
    ("text", "same_as"),
    [
        ("a||b&&c", "a||(b&&c)"),
        ("a&&b||c", "(a&&b)||c"),
        ("!a&&b", "(!a)&&b"),
        ("!(a&&b)", "!a||!b"),
        ("a->b", "!a||b"),
        ("a->b||c", "a->(b||c)"),
        ("a<->b->c", "a<->(b->c)"),
        ("a<->b<->c", "(a<->b)<->c"),
        ("a<->b", "(a->b)&&(b->a)"),
        ("a||b||c", "(a||b)||c"),
        ("  a  &&\tb ", "a&&b"),
        ('"a"&&b', "a&&b"),
    ],
)
def test_precedence_and_associativity(text, same_as):
    """Operators bind as the controller's grammar has them."""
    assert truth(text) == truth(same_as)


@each(
    ("text", "name"),
    [
        ("linux", "linux"),
        ("jdk-17", "jdk-17"),
        ("a-", "a-"),
        ("win[7]:x86@home#1", "win[7]:x86@home#1"),
        ("größe", "größe"),
        ('"label with space"', "label with space"),
        (r'"say \"hi\"\t\\"', 'say "hi"\t\\'),
        ('""', ""),
    ],
)
def test_atoms(text, name):
    """An atom is anything that is no operator; quotes allow the rest."""
    assert labels.parse(text) == Expression(Op.ATOM, name=name)


def test_a_minus_before_an_arrow_belongs_to_the_arrow():
    """``a->b`` is an implication although ``-`` may be part of a label."""
    assert labels.parse("jdk-17->b") == Expression(
        Op.IMPLIES, parts=(labels.atom("jdk-17"), labels.atom("b"))
    )


@each(
    ("text", "words"),
    [
        ("", "ends where a label or '(' is expected"),
        ("a b", "'b' at character 3, expected is an operator or the end"),
        ("a &&", "ends where a label or '('"),
        ("(a", "ends where ')' is expected"),
        ("a)", "')' at character 2"),
        ("!!a", "'!' at character 2"),
        ("a->b->c", "'->' at character 5"),
        ("a & b", "unexpected '&' at character 3"),
        ("it's", 'unexpected "\'" at character 3'),
        ('"open', "unexpected '\"' at character 1"),
        ("a<b", "unexpected '<' at character 2"),
        ("(" * 60 + "a" + ")" * 60, "more than 50 parentheses"),
        ("x" * 5000, "5000 characters"),
    ],
)
def test_what_the_controller_refuses(text, words):
    """A malformed text says where it is wrong."""
    with pytest.raises(labels.LabelError) as raised:
        labels.parse(text)
    assert words in str(raised.value)


def test_a_long_chain_needs_no_deep_stack():
    """Six hundred alternatives are one flat expression."""
    text = "||".join(f"l{n}" for n in range(600))
    assert labels.parse(text).matches({"l599"})


expressions = st.recursive(
    st.sampled_from([*ABC, "with space", 'q"uote', "->", "", "x-"]).map(labels.atom),
    lambda inner: st.one_of(
        inner.map(lambda e: Expression(Op.NOT, parts=(e,))),
        st.tuples(
            st.sampled_from([Op.AND, Op.OR, Op.IFF]), st.lists(inner, min_size=2, max_size=4)
        ).map(lambda p: Expression(p[0], parts=tuple(p[1]))),
        st.tuples(inner, inner).map(lambda p: Expression(Op.IMPLIES, parts=p)),
    ),
    max_leaves=12,
)


@given(expressions, st.sets(st.sampled_from([*ABC, "with space", "->", "x-"])))
def test_the_canonical_text_means_the_same(expression, has):
    """What is written can be read again, and reads the same when written once more."""
    text = expression.canonical()
    again = labels.parse(text)
    assert again.matches(has) == expression.matches(has)
    assert again.canonical() == text
    assert again.atoms() == expression.atoms()


@given(expressions, st.sets(st.sampled_from([*ABC, "x-"])), st.permutations([*ABC, "->"]))
def test_a_table_says_what_each_way_to_take_labels_says(expression, own, asked):
    """Bit by bit the same as when it is asked for each way."""
    own -= set(asked[:3])
    table = expression.truth(asked[:3], own)
    assert 0 <= table < 1 << 8
    for way in range(8):
        taken = {asked[place] for place in range(3) if way >> place & 1}
        assert expression.matches(own | taken) == bool(table >> way & 1)


@given(st.text(alphabet="ab!&|<->() \"'\\", max_size=30))
def test_any_text_is_parsed_or_refused(text):
    """No text makes anything but an expression or a LabelError."""
    try:
        parsed = labels.parse(text)
    except labels.LabelError:
        return
    assert labels.parse(parsed.canonical()).canonical() == parsed.canonical()


@given(st.lists(st.sampled_from([*"abtnfr'\"\\", "\\\\", "\b\t\n", "ä "]), max_size=12))
def test_any_text_in_quotes_is_one_label(parts):
    """Whatever is escaped in it, in whatever order."""
    name = "".join(parts)
    if not name:
        return
    written = labels.atom(name).canonical()
    assert labels.parse(written) == labels.atom(name)


def test_thousands_of_escapes_are_read_in_whole_passes():
    """A thousand such labels are parsed again at every look: too many to be remembered."""
    texts = ['"' + "\\\\" * 2000 + f'{number}"' for number in range(200)]
    began = time.thread_time()
    for text in texts:
        labels._parsed(text, labels.Grammar.TODAY)
    taken = time.thread_time() - began
    began = time.thread_time()
    for number in range(200):
        labels._parsed('"' + "a" * 4000 + f'{number}"', labels.Grammar.TODAY)
    assert taken < 10 * (time.thread_time() - began) + 0.02
