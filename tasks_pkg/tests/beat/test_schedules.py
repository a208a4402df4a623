"""Cron expressions: what is accepted is run at the times that a reference says, by Beat itself.

The kind is every expression of five fields: numbers, names, lists, ranges, steps, and what means
nothing. `tests/test_preflight_schedule.py` holds preflight's verdict against the same generator.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery
from celray_cron import REPORTED_RIGHT, REPORTED_WRONG, expressions, without_wrapping
from cronsim import CronSim, CronSimError
from hypothesis import assume, given
from hypothesis import strategies as st

from tasks.beat.cron_schedule import CronSchedule
from tasks.schedules import MACROS, Cron, CronError, parse_cron, problems
from tasks.settings import Settings

Configure = Callable[..., Settings]
MOMENTS = st.integers(631_152_000, 3_786_912_000).map(lambda at: datetime.fromtimestamp(at, UTC))


def entry(**rhythm: object) -> dict[str, object]:
    return {"name": "x", "task": "tasks.simple_tasks.ping", **rhythm}


def read(text: str) -> Cron | CronError:
    try:
        return parse_cron(text)
    except CronError as error:
        return error


def reference(text: str, moment: datetime) -> datetime | None:
    try:
        return next(CronSim(without_wrapping(MACROS.get(text, text)), moment))
    except StopIteration:
        return None


@given(expressions(), MOMENTS)
def test_what_is_accepted_is_due_when_the_reference_says(text: str, moment: datetime) -> None:
    cron = read(text)
    if isinstance(cron, CronError):
        assert "never comes" in str(cron)
        assert reference(text, moment) is None
        return
    due = moment
    for _ in range(3):
        wanted = reference(text, due)
        assume(wanted is not None)  # the reference gives up after 50 years
        found = cron.next_after(due)
        assert found == wanted
        assert found
        due = found


@pytest.mark.slow
@given(expressions(wrong=True))
def test_what_the_reference_cannot_read_is_refused(text: str) -> None:
    """The other way round less is accepted: a step that is longer than its field."""
    if isinstance(read(text), CronError):
        return
    try:
        CronSim(without_wrapping(text), datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError:
        pytest.fail(f"{text!r} is accepted, and the reference cannot read it")


@pytest.mark.parametrize("text", [*REPORTED_RIGHT, *MACROS])
def test_what_people_write_is_accepted(text: str) -> None:
    moment = datetime(2026, 2, 27, 23, 59, tzinfo=UTC)
    assert parse_cron(text).next_after(moment) == reference(text, moment)


@pytest.mark.parametrize("text", REPORTED_WRONG)
def test_what_means_nothing_or_never_comes_is_refused(text: str) -> None:
    with pytest.raises(CronError) as caught:
        parse_cron(text)
    assert str(caught.value)


def test_the_days_of_cron_and_not_of_celery() -> None:
    """The 1st and every Monday; with a `*` in either field, a day that fits both."""
    either, both = parse_cron("0 0 1 * 1"), parse_cron("0 0 */2 * 1")
    friday = datetime(2026, 5, 1, tzinfo=UTC) - timedelta(seconds=1)
    assert either.next_after(friday) == datetime(2026, 5, 1, tzinfo=UTC)
    assert both.next_after(friday) == datetime(2026, 5, 11, tzinfo=UTC)


@pytest.mark.slow
@given(expressions(), MOMENTS, st.integers(0, 10**8))
def test_beat_is_due_exactly_when_the_reference_says(text: str, last: datetime, ago: int) -> None:
    now = last + timedelta(seconds=ago)
    due = reference(text, last)
    assume(due is not None)
    app = Celery(set_as_current=False)
    schedule = CronSchedule(text, nowfun=lambda: now, app=app)
    told = schedule.is_due(last)
    assert due
    assert told.is_due == (now >= due)
    if not told.is_due:
        assert told.next == (due - now).total_seconds()


@pytest.mark.slow
@given(expressions(wrong=True))
def test_beat_takes_what_the_rules_accept_and_names_the_rest(text: str) -> None:
    """One wrong entry never takes another with it."""
    good = {**entry(every_seconds=60), "name": "good"}
    schedule = _settings([entry(cron=text), good]).schedule
    names = [spec.name for spec in schedule.entries]
    if problems(entry(cron=text)):
        assert names == ["good"]
        assert repr(text) in schedule.refused["x"] or "exactly one" in schedule.refused["x"]
    else:
        assert names == ["x", "good"]
        CronSchedule(text)


def _settings(schedule: list[object]) -> Settings:
    nowhere = "redis://nobody.invalid:1/0"
    workers = [{"name": "all", "queues": ["default", "ml", "data"]}]
    return Settings.model_validate(
        {
            "broker_url": nowhere,
            "result_backend_url": nowhere,
            "redbeat_url": nowhere,
            "workers": workers,
            "beat_schedule": schedule,
        }
    )


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)
ENTRIES = st.one_of(
    ANYTHING,
    st.fixed_dictionaries(
        {"name": ANYTHING, "task": st.just("tasks.simple_tasks.ping") | ANYTHING},
        optional={
            "queue": st.just("ml") | ANYTHING,
            "every_seconds": st.floats() | st.integers() | ANYTHING,
            "cron": expressions(wrong=True) | ANYTHING,
            "missed": st.sampled_from(["run", "skip", "later"]) | ANYTHING,
        },
    ),
)


@given(st.lists(ENTRIES, max_size=3))
def test_no_entry_of_any_shape_stops_the_others(entries: list[object]) -> None:
    good = {**entry(every_seconds=60), "name": "the good one"}
    schedule = _settings([*entries, good]).schedule
    assert "the good one" in [spec.name for spec in schedule.entries]
    assert len(schedule.entries) + len(schedule.refused) <= len(entries) + 1
    for spec in schedule.entries:
        if spec.cron is None:
            assert spec.every_seconds
            timedelta(seconds=spec.every_seconds)
        else:
            CronSchedule(spec.cron)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (entry(every_seconds=float("nan")), "every_seconds is nan"),
        (entry(every_seconds=0.01), "from 1 to 315360000"),
        (entry(every_seconds=1e300), "every_seconds is 1e+300"),
        (entry(every_seconds=True), "every_seconds is True"),
        ({**entry(cron="@daily"), "name": ":lock"}, "name is ':lock'"),
        (entry(cron="*/90 * * * *"), "a longer interval is every_seconds"),
    ],
)
def test_a_wrong_rhythm_is_refused_with_its_reason(
    configure: Configure, wrong: dict[str, object], words: str
) -> None:
    (why,) = configure(beat_schedule=[wrong]).schedule.refused.values()
    assert words in why
