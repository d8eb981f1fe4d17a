"""Messages that come at once: each is accepted once, has its own place, and a session has one owner."""

import asyncio

import httpx2
import pytest

from tests.conformance.client import ASYNC, Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Races that a store loses show within a few rounds: on Redis all of ten were lost once.
ROUNDS = range(10)


async def test_first_messages_of_a_session_at_once_have_a_place_each(client: Client) -> None:
    for number in ROUNDS:
        session = f"{client.session} {number}"
        texts = [f"message {each} of {session}" for each in range(4)]

        turn_ids = await asyncio.gather(*(client.accept(text, session=session) for text in texts))
        turns = [await client.ended(turn_id) for turn_id in turn_ids]
        history = await client.history_of(8, session)

        assert [turn["status"] for turn in turns] == ["completed"] * 4
        assert sorted(turn["sequence"] for turn in turns) == [1, 2, 3, 4]
        in_order = sorted(zip((turn["sequence"] for turn in turns), texts, strict=True))
        assert history[::2] == [text for _, text in in_order]


async def test_of_two_users_with_one_new_session_one_gets_it(client: Client) -> None:
    for number in ROUNDS:
        session = f"{client.session} {number}"
        users = [f"{client.user} {each}" for each in "ab"]

        answers = await asyncio.gather(
            *(client.say(f"of {user}", user=user, session=session, headers=ASYNC) for user in users)
        )
        by_user = dict(zip(users, answers, strict=True))
        owner, other = sorted(users, key=lambda user: by_user[user].status_code)

        assert (by_user[owner].status_code, by_user[other].status_code) == (202, 403), answers
        assert (await client.ended(by_user[owner].json()["turn_id"]))["sequence"] == 1
        assert await client.history_of(2, session) == [f"of {owner}", "hello"]
        again = await client.say("again", user=other, session=session)
        assert again.status_code == 403


async def test_one_key_sent_at_once_is_one_turn(client: Client) -> None:
    for number in ROUNDS:
        key = {"Idempotency-Key": f"key {number}"}
        session = f"{client.session} {number}"

        answers: list[httpx2.Response] = await asyncio.gather(
            *(client.say("once", session=session, headers=key) for _ in range(4))
        )

        assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
        assert len({answer.json()["turn_id"] for answer in answers}) == 1
        assert await client.history_of(2, session) == ["once", "hello"]
