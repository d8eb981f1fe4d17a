"""Workflows whose code changes while they run, over the SDK."""

from typing import Any

from tests.conformance.sdk.program import Program


def test_an_instance_stays_with_the_version_that_it_began_with(program: Program) -> None:
    def first(ctx: Any, _: Any) -> Any:
        yield ctx.wait_for_external_event("go")
        return "v1"

    def second(ctx: Any, _: Any) -> Any:
        yield ctx.wait_for_external_event("go")
        return "v2"

    name = program.named("greet")
    program.runtime.register_versioned_workflow(first, name=name, version_name="v1", is_latest=True)
    old = program.workflows.schedule_new_workflow(name)
    program.runtime.register_versioned_workflow(second, name=name, version_name="v2", is_latest=True)
    new = program.workflows.schedule_new_workflow(name)

    for instance in (old, new):
        program.workflows.raise_workflow_event(instance, "go")

    assert [program.output(instance) for instance in (old, new)] == ['"v1"', '"v2"']


def test_a_patch_holds_for_what_begins_after_it(program: Program) -> None:
    code = {"is": "old"}

    @program.activity
    def reached(_ctx: Any, patched: bool) -> None:
        program.calls.add(patched)

    @program.workflow
    def changing(ctx: Any, _: Any) -> Any:
        yield ctx.wait_for_external_event("go")
        patched = ctx.is_patched("better") if code["is"] == "new" else False
        yield ctx.call_activity(reached, input=patched)
        yield ctx.wait_for_external_event("end")
        return patched

    before = program.start(changing)
    program.workflows.raise_workflow_event(before, "go")
    program.calls.wait_for(1)
    code["is"] = "new"
    after = program.start(changing)
    program.workflows.raise_workflow_event(after, "go")
    program.calls.wait_for(2)
    for instance in (before, after):
        program.workflows.raise_workflow_event(instance, "end")

    assert [program.output(instance) for instance in (before, after)] == ["false", "true"]
