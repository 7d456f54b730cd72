"""Several tokens: each has a name, and the request that carries it comes on behalf of that tenant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mora_launch.web.access import OWN_USER, Access
from mora_launch.web.connection import PEER_UID
from mora_launch.web.token import read_tokens, token_of_run
from mora_runtime.errors import SettingsError

ANN, BOB = "a-token-of-ann-123456", "a-token-of-bob-123456"


def token_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "tokens"
    path.write_text(text)
    path.chmod(mode)
    return path


def scope(token: str | None = None, uid: int | None = None, query: str = "") -> dict[str, Any]:
    headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
    return {"headers": headers, "state": {PEER_UID: uid}, "query_string": query.encode()}


@pytest.mark.parametrize("text", [ANN, f"{ANN}\n", f"\n  {ANN}  \n"])
def test_a_file_with_one_bare_token_has_no_name_to_choose(tmp_path: Path, text: str) -> None:
    assert read_tokens(token_file(tmp_path, text)) == {"token": ANN}


def test_lines_have_a_name_and_a_token(tmp_path: Path) -> None:
    tokens = read_tokens(token_file(tmp_path, f"ann {ANN}\n\nteam.bob-2\t{BOB}\n"))
    assert tokens == {"ann": ANN, "team.bob-2": BOB}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "got 0"),
        ("short", "line 1: expected 16 to 1024 printable ASCII characters without spaces, got 5"),
        (f"{ANN}\n{BOB}", "line 1: expected NAME TOKEN, or a single token as the whole file; got 1 words"),
        (f"ann {ANN} x", "line 1: expected NAME TOKEN, .* got 3 words"),
        (f"../ann {ANN}", "line 1: expected a name of letters"),
        (f"ann {ANN}\nann {BOB}", "line 2: .*`ann` comes twice"),
        (f"ann {ANN}\nbob {ANN}", "line 2: .*`bob` comes twice"),
        (f"ann {ANN}\n" * 5000, "expected at most 65536 bytes"),
    ],
)
def test_other_files_are_refused_without_showing_a_token(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told) as refused:
        read_tokens(token_file(tmp_path, text))
    assert ANN not in str(refused.value)
    assert BOB not in str(refused.value)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="chmod 600"):
        read_tokens(token_file(tmp_path, f"ann {ANN}", 0o640))


def test_a_request_comes_on_behalf_of_the_name_of_its_token() -> None:
    access = Access({"ann": ANN, "bob": BOB}, None, None)
    assert access.tenants == ["ann", "bob"]
    assert access.tenant_of(scope(ANN), is_page=False) == "ann"
    assert access.tenant_of(scope(BOB), is_page=False) == "bob"
    assert access.tenant_of(scope(query=f"token={BOB}"), is_page=True) == "bob"
    for refused in (scope(), scope(ANN[:-1]), scope("ann"), scope(query=f"token={BOB}"), scope(uid=7)):
        assert access.tenant_of(refused, is_page=False) is None


def test_the_servers_own_user_is_a_tenant_and_nothing_is_reserved_for_a_single_token(tmp_path: Path) -> None:
    access = Access({"token": token_of_run(tmp_path)}, 7, None)
    assert access.tenant_of(scope(uid=7), is_page=False) == OWN_USER
    assert access.tenant_of(scope(access.token, uid=8), is_page=False) == "token"
    assert access.tenants == []
    assert token_of_run(tmp_path) == access.token, "a run keeps its token"
