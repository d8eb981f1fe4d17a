from typing import Any

from dapr.ext.workflow import PropagationScope

from tests.unit.runtime.workflow.rig import Rig


def register(rig: Rig) -> None:
    def seen(ctx: Any) -> list[str] | None:
        history = ctx.get_propagated_history()
        return None if history is None else [workflow.name for workflow in history.get_workflows()]

    @rig.activity
    async def looks(ctx: Any, _: Any) -> list[str] | None:
        return seen(ctx)

    @rig.workflow
    def child(ctx: Any, scope: int | None) -> Any:
        mine = seen(ctx)
        propagation = None if scope is None else PropagationScope(scope)
        theirs = yield ctx.call_activity("looks", propagation=propagation)
        return [mine, theirs]

    @rig.workflow
    def parent(ctx: Any, scopes: list[int | None]) -> Any:
        propagation = None if scopes[0] is None else PropagationScope(scopes[0])
        return (yield ctx.call_child_workflow("child", input=scopes[1], propagation=propagation))


async def test_nothing_travels_unasked(rig: Rig) -> None:
    register(rig)
    await rig.open()

    state = await rig.run("parent", [None, None])

    assert state.serialized_output == "[null, null]"


async def test_lineage_carries_the_histories_of_all_above(rig: Rig) -> None:
    register(rig)
    await rig.open()
    lineage = PropagationScope.LINEAGE.value

    state = await rig.run("parent", [lineage, lineage])

    assert state.serialized_output == '[["parent"], ["parent", "child"]]'


async def test_own_history_leaves_the_ancestors_out(rig: Rig) -> None:
    register(rig)
    await rig.open()

    state = await rig.run("parent", [PropagationScope.LINEAGE.value, PropagationScope.OWN_HISTORY.value])

    assert state.serialized_output == '[["parent"], ["child"]]'
