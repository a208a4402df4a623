"""Generators of valid and invalid cron expressions, for the tests of both readers."""

from hypothesis import strategies as st

#: The least and the greatest number of each field, and its words.
FIELDS = (
    (0, 59, ()),
    (0, 23, ()),
    (1, 31, ("L",)),
    (1, 12, ("jan", "FEB", "dec", "march")),
    (0, 7, ("sun", "MON", "fri", "saturday")),
)

#: Expressions from bug reports: each of these passed preflight and stopped Beat.
REPORTED_WRONG = ("61 * * * *", "0 0 31 2 *", "* * * *", "@nightly", "0 3 L,5W * *", "*/0 * * * *")
REPORTED_RIGHT = ("0 3 * * 7", "@daily", "0 3 L * *", "5/15 * * * *", "0 3 * * sun", "0 22-2 * * *")


def _number(least: int, most: int) -> st.SearchStrategy[str]:
    inside = st.integers(least, most)
    near = st.integers(max(0, least - 1), most + 1)
    return st.one_of(inside, inside, inside, near).map(str)


@st.composite
def item(draw: st.DrawFn, place: int, *, wrong: bool) -> str:
    """Return an item of a field: `*`, `n`, `n-m` or a name, with or without a step; or nonsense."""
    least, most, words = FIELDS[place]
    number = _number(least, most) if wrong else st.integers(least, most).map(str)
    one = st.one_of(number, st.sampled_from(words)) if words else number
    shapes = [one, st.just("*"), st.tuples(number, number).map("-".join)]
    if wrong:
        shapes.append(st.sampled_from(["", "?", "x", "1-", "-1", "1#2", "5L", "1.5", "*-3", "٣"]))
    shape = draw(st.one_of(shapes))
    step = draw(st.one_of(st.just(""), st.integers(0 if wrong else 1, most - least).map(str)))
    return f"{shape}/{step}" if step and shape != "L" else shape


@st.composite
def field(draw: st.DrawFn, place: int, *, wrong: bool) -> str:
    """Return a field: `*` in a third of the cases, otherwise one to three items."""
    if draw(st.integers(0, 2)) == 0:
        return "*"
    return ",".join(draw(st.lists(item(place, wrong=wrong), min_size=1, max_size=3)))


@st.composite
def expressions(draw: st.DrawFn, *, wrong: bool = False) -> str:
    """Return five fields; with ``wrong``, possibly invalid ones."""
    fields = [draw(field(place, wrong=wrong)) for place in range(len(FIELDS))]
    if wrong and draw(st.integers(0, 9)) == 0:
        fields = draw(st.permutations(fields))[: draw(st.integers(0, 5))]
    return " ".join(fields)


def without_wrapping(text: str) -> str:
    """Return the expression in words and ranges that the reference implementation knows.

    Full names and ranges that wrap around the end of their field are rewritten.
    """
    fields = []
    for place, given in enumerate(text.split()):
        least, most, _ = FIELDS[place]
        items: list[str] = []
        for one in given.lower().replace("march", "mar").replace("saturday", "sat").split(","):
            range_, _, step = one.partition("/")
            first, dash, last = range_.partition("-")
            if dash and first == last:  # the reference reads 3-3/2 as 3/2
                items.append(first)
            elif dash and int(first) > int(last):
                over = most - 1 if place == 4 else most
                run = [*range(int(first), over + 1), *range(least, int(last) + 1)]
                items += map(str, run[:: int(step or 1)])
            else:
                items.append(one.upper() if one == "l" else one)
        fields.append(",".join(items))
    return " ".join(fields)
