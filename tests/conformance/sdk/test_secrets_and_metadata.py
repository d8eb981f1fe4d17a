"""Secrets, and what a sidecar tells of itself."""

from tests.conformance.sdk.program import Program, code_of


def test_a_secret_of_the_environment_is_read(program: Program) -> None:
    found = program.dapr.get_secret("environment", "COLOUR")
    over_http = program.http.get("secrets/environment/COLOUR")

    assert found.secret == {"COLOUR": "blue"}
    assert (over_http.status_code, over_http.json()) == (200, {"COLOUR": "blue"})


def test_a_secret_of_a_file_is_read(program: Program) -> None:
    assert program.dapr.get_secret("file", "colour").secret == {"colour": "green"}
    assert program.dapr.get_secret("file", "nested:inner").secret == {"nested:inner": "red"}


def test_all_secrets_are_read_at_once(program: Program) -> None:
    of_environment = program.dapr.get_bulk_secret("environment").secrets
    of_file = program.dapr.get_bulk_secret("file").secrets
    over_http = program.http.get("secrets/file/bulk").json()

    assert of_environment == {"COLOUR": {"COLOUR": "blue"}, "SHAPE": {"SHAPE": "round"}}
    assert of_file == {"colour": {"colour": "green"}, "nested:inner": {"nested:inner": "red"}}
    assert over_http == of_file


def test_a_variable_that_is_not_set_is_an_empty_secret(program: Program) -> None:
    assert program.dapr.get_secret("environment", "NOTHING").secret == {"NOTHING": ""}


def test_a_secret_that_a_file_does_not_have_is_an_error(program: Program) -> None:
    over_http = program.http.get("secrets/file/nothing")

    assert code_of(lambda: program.dapr.get_secret("file", "nothing")) == "INTERNAL"
    assert (over_http.status_code, over_http.json()["errorCode"]) == (500, "ERR_SECRET_GET")


def test_an_unknown_store_is_an_error(program: Program) -> None:
    over_http = program.http.get("secrets/nowhere/x")

    assert code_of(lambda: program.dapr.get_secret("nowhere", "x")) == "INVALID_ARGUMENT"
    assert (over_http.status_code, over_http.json()["errorCode"]) == (401, "ERR_SECRET_STORE_NOT_FOUND")


def test_a_sidecar_names_its_app_its_components_and_its_subscriptions(program: Program) -> None:
    over_grpc = program.dapr.get_metadata()
    over_http = program.http.get("metadata").json()

    names = {"statestore", "pubsub", "patient", "environment", "file"}
    assert over_grpc.application_id == over_http["id"] == program.sidecar.app_id
    assert {each.name for each in over_grpc.registered_components} == names
    assert {each["name"] for each in over_http["components"]} == names
    # A stream of another test may be on its way out.
    assert {
        (each["pubsubname"], each["topic"], each.get("deadLetterTopic", ""), each["type"])
        for each in over_http["subscriptions"]
        if each["type"] != "STREAMING"
    } == {
        ("pubsub", "news", "dead-news", "DECLARATIVE"),
        ("pubsub", "dead-news", "", "DECLARATIVE"),
        ("pubsub", "raw-news", "", "DECLARATIVE"),
        ("patient", "letters", "dead-letters", "DECLARATIVE"),
        ("patient", "dead-letters", "", "DECLARATIVE"),
    }
    assert over_http["workflows"]["connectedWorkers"] == 1


def test_a_sidecar_keeps_what_it_is_told_of_itself(program: Program) -> None:
    program.dapr.set_metadata(program.named("a"), "1")
    put = program.http.put(f"metadata/{program.named('b')}", content=b"2", headers={"content-type": "text/plain"})

    told = program.dapr.get_metadata().extended_metadata
    assert put.status_code == 204
    assert (told[program.named("a")], told[program.named("b")]) == ("1", "2")


def test_health_is_told_without_a_body(program: Program) -> None:
    assert [program.http.get(path).status_code for path in ("healthz", "healthz/outbound")] == [204, 204]
