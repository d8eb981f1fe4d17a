"""`everturn backup` of a system that runs, and what is there when the copy is started elsewhere."""

import asyncio

from everturn.testing.model_answers import Held, completion
from everturn.testing.model_endpoint import ModelEndpoint
from tests.e2e.conftest import Client, Machine

ASYNC = {"Prefer": "respond-async"}


async def test_turns_in_flight_go_on_from_a_backup(machine: Machine, client: Client) -> None:
    never = asyncio.Event()
    held = [Held(never, completion("never given")) for _ in range(3)]
    async with ModelEndpoint(*held, otherwise=completion("from the backup")) as endpoint:
        model = {"EVERTURN_MODEL_BASE_URL": endpoint.base_url, "EVERTURN_MODEL_NAME": "scripted"}
        running = await machine.up(**model)
        sessions = [f"s{number}" for number in range(3)]
        said = [await client.say("Hi there", session=session, headers=ASYNC) for session in sessions]
        await endpoint.asked(3)

        backup = await machine.run("backup", "copy.db")
        code = await backup.exit_code()
        await running.kill()
        restored = machine.folder / "restored"
        restored.mkdir()
        (machine.folder / "copy.db").rename(restored / "everturn.db")
        second = await machine.up(**model, EVERTURN_DATA_DIR=str(restored))

        assert (code, backup.err.all) == (0, [])
        assert "  resumed 3 unfinished turns" in second.out.all
        for answer in said:
            turn_id = answer.json()["turn_id"]

            async def has_ended(turn_id: str = turn_id) -> bool:
                return bool((await client.turn(turn_id))["status"] == "completed")

            await client.until(has_ended)
            assert (await client.turn(turn_id))["reply"]["reply"] == "from the backup"


async def test_a_system_that_does_not_run_is_backed_up_as_well(machine: Machine, client: Client) -> None:
    running = await machine.up()
    turn_id = (await client.say("Hi there")).json()["turn_id"]
    await running.kill()

    assert await (await machine.run("backup", "copy.db")).exit_code() == 0

    restored = machine.folder / "restored"
    restored.mkdir()
    (machine.folder / "copy.db").rename(restored / "everturn.db")
    await machine.up(EVERTURN_DATA_DIR=str(restored))
    assert (await client.turn(turn_id))["status"] == "completed"


async def test_a_folder_without_a_database_is_named_and_nothing_is_made(machine: Machine) -> None:
    backup = await machine.run("backup", "copy.db", EVERTURN_DATA_DIR="empty")

    assert await backup.exit_code() == 1
    assert "'empty'" in backup.err.all[0]
    assert [path.name for path in machine.folder.iterdir()] == ["home"]


async def test_a_refusal_is_one_line(machine: Machine) -> None:
    await machine.up()
    (machine.folder / "copy.db").write_text("precious")

    backup = await machine.run("backup", "copy.db")

    assert await backup.exit_code() == 1
    assert len(backup.err.all) == 1
    assert "'copy.db' is there already" in backup.err.all[0]
