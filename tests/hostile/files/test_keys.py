"""Files of strangers: configurations that name an endpoint. Mora sends a key only to a host that the user chose."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mora_launch.chat.endpoint import Chat, ChatSettings
from mora_launch.config.train_config import load_config
from mora_launch.rounds.settings import EndpointSettings
from mora_launch.serving.settings import PromptAgentSettings
from mora_runtime.errors import EndpointFailed, SettingsError
from pydantic import ValidationError

from tests.unit.launch.chat_endpoint import ChatEndpoint, chat_endpoint

TINY = Path(__file__).resolve().parents[3] / "configs" / "tiny.yaml"
SECRETS = {
    "OPENAI_API_KEY": "sk-openai-secret",
    "OPENAI_ADMIN_KEY": "sk-admin-secret",
    "OPENAI_ORG_ID": "org-secret",
    "OPENAI_PROJECT_ID": "project-secret",
    "OPENAI_CUSTOM_HEADERS": "X-Own: header-secret\nAuthorization: Bearer ambient-secret",
    "OPENAI_WEBHOOK_SECRET": "webhook-secret",
    "LAB_API_KEY": "lab-key",
}


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatEndpoint]:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    with chat_endpoint() as server:
        server.answers = ["said"]
        yield server


def ask(settings: ChatSettings) -> str | None:
    return Chat(settings, "test").ask([{"role": "user", "content": "a question"}])


@pytest.mark.parametrize(
    "name",
    [
        "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "HF_TOKEN", "PATH", "HOME", "", "_API_KEY", "openai_api_key",
        "OPENAI_API_KEY\n", "OPENAI_API_KEY ", "OPENAI_API_KEYS", "AWS_SECRET_ACCESS_KEY;X_API_KEY", "A\0_API_KEY",
        "ÄÖ_API_KEY", "9_API_KEY", "GITHUB_TOKEN\nX_API_KEY",
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [ChatSettings, PromptAgentSettings, EndpointSettings])
def test_only_variables_that_end_in_api_key_may_be_named(kind: type[ChatSettings], name: str) -> None:
    with pytest.raises(ValidationError, match="ends in _API_KEY"):
        kind.model_validate({"model": "m", "base_url": "http://127.0.0.1:1/v1", "api_key_variable": name})


def test_a_configuration_with_another_variable_is_refused_when_it_is_read() -> None:
    with pytest.raises(SettingsError, match=r"serving\.prompts\.api_key_variable: .*_API_KEY, .* got 'HF_TOKEN'"):
        load_config(TINY, ["serving.prompts={kind: openai, api_key_variable: HF_TOKEN}"])


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://host/v1", "host/v1", "//host/v1", "http://", "http:///v1", "unix:///run/x", "",
        "http://user:password@host/v1", "http://user@host/v1", "https://@host/v1", "http://host:port/v1", "http://[/v1",
        "http://host\\@evil/v1", "http://ho st/v1", "http://host/\r\nX-Header: 1", "http://host/v1#x", "http://hoſt/v1",
        "javascript:alert(1)", "http://" + "a" * 3000,
    ],
)  # fmt: skip
def test_only_http_addresses_without_a_password_are_accepted(url: str) -> None:
    with pytest.raises(ValidationError, match=r"expected http://HOST"):
        ChatSettings(model="m", base_url=url)


def test_another_endpoint_gets_no_key_and_nothing_from_the_environment(endpoint: ChatEndpoint) -> None:
    assert ask(ChatSettings(model="m", base_url=endpoint.base_url)) == "said"
    assert endpoint.keys == ["Bearer none"]
    arrived = " ".join(f"{name}: {value}" for name, value in endpoint.headers[0].items())
    assert not [value for value in SECRETS.values() if value in arrived or value.split()[-1] in arrived]
    assert not [name for name in endpoint.headers[0] if name.startswith(("openai-", "x-"))]


def test_a_key_that_the_configuration_names_goes_to_the_host_that_it_names(endpoint: ChatEndpoint) -> None:
    ask(ChatSettings(model="m", base_url=endpoint.base_url, api_key_variable="LAB_API_KEY"))
    assert endpoint.keys == ["Bearer lab-key"]
    assert "secret" not in str(endpoint.headers)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(endpoint: ChatEndpoint, status: int) -> None:
    with chat_endpoint() as elsewhere:
        elsewhere.answers = ["said"]
        endpoint.answers, endpoint.location = [(status, b"{}")], f"{elsewhere.base_url}/chat/completions"
        settings = ChatSettings(
            model="m", base_url=endpoint.base_url, api_key_variable="LAB_API_KEY", max_retries=0, timeout_s=5.0
        )
        with pytest.raises(EndpointFailed):
            ask(settings)
        assert elsewhere.headers == []


def test_the_environment_cannot_replace_openais_host(endpoint: ChatEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.base_url)
    made: list[Any] = []
    chat = Chat(ChatSettings(model="m"), "test")
    with chat._client() as client:
        made.append(str(client.base_url))
    assert made == ["https://api.openai.com/v1/"]
    assert endpoint.headers == []


def test_an_endpoints_error_is_shown_as_one_plain_line(endpoint: ChatEndpoint) -> None:
    endpoint.answers = [(400, b'{"error": {"message": "\\u001b[2J\\u001b]0;title\\u0007bad\\r\\nnews \\u202e"}}')]
    with pytest.raises(EndpointFailed) as caught:
        ask(ChatSettings(model="m", base_url=endpoint.base_url, max_retries=0))
    assert str(caught.value).isprintable()
