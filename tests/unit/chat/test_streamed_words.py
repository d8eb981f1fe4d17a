"""The words of a stream: written in order, by one attempt at a time, over the real state store."""

import asyncio

from everturn.chat.facts import Accepted, Cancelled, Failed, Reply, TurnRun
from everturn.chat.journal import Journal
from everturn.chat.old_records import facts_of
from everturn.chat.streamed_words import Hints, Words, WordWriter, close_words, words_from
from everturn.dapr.client import DaprClient
from everturn.dapr.wire import Request, Response, Transport

AT = "2026-01-01T12:00:00.000Z"
RUN = TurnRun("t", 0, Accepted(user_id="ann", session_id="s", text="hi", at=AT, streamed=True))


def journal_over(dapr: DaprClient) -> Journal:
    return Journal(dapr, 30, facts_of, close_words)


def writer_of(journal: Journal, hints: Hints | None = None) -> WordWriter:
    return WordWriter(journal, hints or Hints(), 3_600, RUN)


def reply(text: str) -> Reply:
    return Reply(text=text, model="m", at=AT)


async def say(writer: WordWriter, text: str) -> None:
    writer.add(text)
    await writer.end_call()


async def texts(journal: Journal) -> list[str]:
    return [words.text for words in await words_from(journal, RUN)]


async def test_words_are_written_in_pieces_behind_the_beginning_of_their_attempt(dapr: DaprClient) -> None:
    journal = journal_over(dapr)
    writer = writer_of(journal)

    await say(writer, "One ")
    await say(writer, "two")
    closed = await writer.close(reply("One two three"))

    assert [(words.attempt, words.offset, words.text) for words in await words_from(journal, RUN)] == [
        (0, 0, ""),
        (0, 0, "One "),
        (0, 4, "two"),
        (-1, 0, ""),
    ]
    assert (closed.words, closed.place) == (3, (0, 0))


async def test_what_is_heard_is_written_in_the_background_and_hinted_at(dapr: DaprClient) -> None:
    journal, hints, heard = journal_over(dapr), Hints(), asyncio.Queue[tuple[int, Words | None]]()

    with hints.following(RUN, lambda *hint: heard.put_nowait(hint)):
        async with writer_of(journal, hints).writing() as writer:
            writer.begin_call(0)
            begun = await heard.get()
            writer.add("One ")
            number, words = await heard.get()

    assert begun[0] == 0
    assert (number, words and words.text) == (1, "One ")
    assert await texts(journal) == ["", "One "]


async def test_of_two_attempts_the_newer_one_is_heard(dapr: DaprClient) -> None:
    journal = journal_over(dapr)
    dead, alive = writer_of(journal), writer_of(journal_over(dapr))

    await say(dead, "I was")
    await say(alive, "Here")
    await say(dead, " goi")
    await say(alive, " I am")

    assert [(words.attempt, words.text) for words in await words_from(journal, RUN)] == [
        (0, ""),
        (0, "I was"),
        (1, ""),
        (1, "Here"),
        (1, " I am"),
    ]


async def test_attempts_that_begin_at_once_have_different_numbers(dapr: DaprClient) -> None:
    journal = journal_over(dapr)

    await asyncio.gather(*(writer_of(journal).end_call() for _ in range(4)))

    assert [words.attempt for words in await words_from(journal, RUN)] == [0, 1, 2, 3]


async def test_a_reply_of_an_attempt_that_is_over_is_a_new_message(dapr: DaprClient) -> None:
    journal = journal_over(dapr)
    slow = writer_of(journal)
    await say(slow, "I was")
    await say(writer_of(journal), "Here")

    closed = await slow.close(reply("I was slow"))

    assert (closed.words, closed.place) == (4, (0, 2))


async def test_a_reply_that_is_not_what_was_said_is_a_new_message(dapr: DaprClient) -> None:
    writer = writer_of(journal_over(dapr))
    await say(writer, '{"answer": ')

    closed = await writer.close(reply("42"))

    assert closed.place == (0, 1)


async def test_a_verdict_of_a_streamed_turn_closes_its_words(dapr: DaprClient) -> None:
    journal = journal_over(dapr)
    writer = writer_of(journal)
    await say(writer, "I was")

    verdict = await journal.write_verdict(RUN, Cancelled(at=AT))
    await say(writer, " goi")

    assert verdict.words == 2
    assert await texts(journal) == ["", "I was", ""]


async def test_the_verdict_of_a_plain_turn_writes_no_words(dapr: DaprClient) -> None:
    journal, plain = journal_over(dapr), TurnRun("p", 0, Accepted(user_id="ann", session_id="s", text="hi", at=AT))

    verdict = await journal.write_verdict(plain, Failed(step="s", attempts=1, kind="k", message="m", at=AT))

    assert verdict.words == -1
    assert await words_from(journal, plain) == []


async def test_a_character_in_two_halves_is_written_once_it_is_whole(dapr: DaprClient) -> None:
    journal = journal_over(dapr)
    writer = writer_of(journal)

    await say(writer, "smile \ud83d")
    await say(writer, "\ude00 and \x00")

    assert await texts(journal) == ["", "smile ", "\U0001f600 and \ufffd"]


class NoWords:
    """A sidecar whose store takes no words."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    async def send(self, request: Request) -> Response:
        if request.method == "POST" and b":words:" in request.body and b"closed" not in request.body:
            return Response(503)
        return await self._inner.send(request)

    async def close(self) -> None: ...


async def test_words_that_the_store_does_not_take_cost_the_turn_nothing(transport: Transport) -> None:
    journal = journal_over(DaprClient(NoWords(transport)))
    async with writer_of(journal).writing() as writer:
        await say(writer, "One ")

    closed = await writer.close(reply("One two"))

    assert (closed.words, closed.place) == (0, (0, 0))
