"""Component files: the repository's own, and what is said of a wrong one."""

from pathlib import Path

import pytest

from everturn.errors import StartError
from everturn.runtime.resources.components import DEFAULT_COMPONENTS, Subscription, read_components
from everturn.runtime.resources.resiliency import DEFAULT_DELIVERY_RETRY, NO_RETRY, RetryPolicy, duration_s

OURS = Path(__file__).parents[4] / "components"
ONE = "kind: Component\nmetadata: {name: a}\nspec: {type: state.x}"
BOTH = frozenset({"chat-service", "agent-memory-service"})


def written(folder: Path, text: str) -> Path:
    (folder / "file.yaml").write_text(text, "utf-8")
    return folder


def test_our_files_name_what_both_services_use() -> None:
    components = read_components(OURS).components

    assert {name: item.type for name, item in components.items()} == {
        "statestore": "state.redis",
        "pubsub": "pubsub.redis",
        "secretstore": "secretstores.local.env",
    }
    assert all(item.scopes == BOTH for item in components.values())
    assert components["statestore"].metadata["actorStateStore"] == "true"


def test_our_files_subscribe_the_memory_service() -> None:
    memory = frozenset({"agent-memory-service"})

    subscriptions = read_components(OURS).subscriptions

    assert subscriptions == (
        Subscription("pubsub", "conversations", "/conversations", "conversations-dead-letters", memory, True),
        Subscription("pubsub", "conversations-dead-letters", "/conversations/dead-letters", None, memory, True),
    )


def test_our_files_retry_as_the_defaults_do() -> None:
    assert read_components(OURS).delivery_retry("pubsub", "chat-service") == DEFAULT_DELIVERY_RETRY
    assert DEFAULT_COMPONENTS.delivery_retry("pubsub", "any") == DEFAULT_DELIVERY_RETRY


def test_the_defaults_have_the_names_of_our_files() -> None:
    assert set(DEFAULT_COMPONENTS.components) == set(read_components(OURS).components)


def test_a_pubsub_that_no_resiliency_names_is_not_retried(tmp_path: Path) -> None:
    assert read_components(tmp_path).delivery_retry("pubsub", "any") == NO_RETRY


def test_a_component_is_for_the_apps_of_its_scopes_only() -> None:
    components = read_components(OURS)

    assert components.find("state.", "statestore", "chat-service") is not None
    assert components.find("state.", "statestore", "stranger") is None
    assert components.find("pubsub.", "statestore", "chat-service") is None


def test_values_of_yaml_are_the_text_that_was_meant(tmp_path: Path) -> None:
    folder = written(
        tmp_path,
        "kind: Component\nmetadata: {name: a}\n"
        "spec: {type: state.x, metadata: [{name: b, value: true}, {name: n, value: 5}]}",
    )

    assert read_components(folder).components["a"].metadata == {"b": "true", "n": "5"}


def test_a_value_can_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILE", "x.json")
    folder = written(
        tmp_path,
        "kind: Component\nmetadata: {name: a}\nspec: {type: state.x, metadata: [{name: f, envRef: FILE}]}",
    )

    assert read_components(folder).components["a"].metadata == {"f": "x.json"}


def test_a_constant_policy_with_an_end_is_read(tmp_path: Path) -> None:
    folder = written(
        tmp_path,
        "kind: Resiliency\nmetadata: {name: r}\nspec:\n"
        "  policies: {retries: {few: {policy: constant, duration: 1m30s, maxRetries: 3}}}\n"
        "  targets: {components: {my.pubsub: {inbound: {retry: few}}}}",
    )

    assert read_components(folder).delivery_retry("my.pubsub", "any") == RetryPolicy(duration_s=90, max_retries=3)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("kind: [", "cannot be read"),
        ("- a", "kind is missing"),
        ("kind: Component\nspec: {type: state.x}", "metadata.name is missing"),
        ("kind: Component\nmetadata: {name: a}", "spec.type is missing"),
        ("kind: Component\nmetadata: {name: a}\nspec: {type: state.x, metadata: {}}", "spec.metadata must be a list"),
        ("kind: Component\nmetadata: x\nspec: {type: state.x}", "metadata.name must be a mapping up to its last part"),
        ("kind: Component\nmetadata: {name: a}\nspec: {type: state.x}\nscopes: a", "scopes must be a list"),
        (f"{ONE}\n---\n{ONE}", "second component 'a'"),
        ("kind: Subscription\nspec: {topic: t, pubsubname: p}", "spec.routes.default is missing"),
        ("kind: Subscription\nspec: {topic: t, routes: {default: /t}}", "spec.pubsubname is missing"),
        (
            "kind: Resiliency\nspec: {targets: {components: {p: {inbound: {retry: gone}}}}}",
            "no retry policy 'gone'",
        ),
        ("kind: Resiliency\nspec: {policies: {retries: {r: {policy: linear}}}}", "constant or exponential"),
        ("kind: Resiliency\nspec: {policies: {retries: {r: {duration: soon}}}}", "'soon' is no duration"),
    ],
)
def test_a_wrong_file_is_named_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(StartError) as raised:
        read_components(written(tmp_path, text))

    assert sentence in raised.value.message
    assert "file.yaml" in raised.value.message
    assert "\n" not in raised.value.message


def test_a_folder_that_is_not_there_is_a_start_error(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="no folder"):
        read_components(tmp_path / "nothing")


def test_resources_of_other_kinds_are_passed_over(tmp_path: Path) -> None:
    folder = written(tmp_path, "kind: Configuration\nmetadata: {name: c}\nspec: {}\n---\n")

    assert read_components(folder).components == {}


@pytest.mark.parametrize(
    ("text", "seconds"), [("15s", 15), ("500ms", 0.5), ("1m30s", 90), ("1.5h", 5400), ("0s", 0), (".5s", 0.5)]
)
def test_a_go_duration_is_read(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "15", "s", "15s x", "-1s"])
def test_what_is_no_go_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        duration_s(text)
