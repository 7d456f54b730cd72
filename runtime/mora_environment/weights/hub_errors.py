"""Failures of the Hub's client as one line: what is wrong, the page to open, the token, the folder.

The client's classes are told apart by name and status, because environments have versions of it that share no module.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from mora_runtime.errors import EndpointFailed
from mora_runtime.files.shown_text import shown_line

from mora_environment.weights.hub_cache import cache_folder

_TRANSPORTS = ("httpx", "httpx2", "httpcore", "requests", "urllib3", "urllib", "ssl", "socket", "http")
_LOGIN = "set HF_TOKEN or run `hf auth login`"


@contextmanager
def told_plainly(repository: str, option: str, *, has_token: bool) -> Iterator[None]:
    """Turn every failure of the Hub's client into EndpointFailed with one line.

    Args:
        option: the option that names the repository.
    """
    try:
        yield
    except EndpointFailed:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise EndpointFailed(_line(error, repository, option, has_token=has_token)) from error
    except Exception as error:  # transports have classes of their own below Exception
        if type(error).__module__.partition(".")[0] not in _TRANSPORTS:
            raise
        raise EndpointFailed(_line(error, repository, option, has_token=has_token)) from error


def is_passing(error: BaseException | None) -> bool:
    """Whether the cause of a failure may be over in a moment: a timeout, a lost connection, a busy server."""
    if error is None or type(error).__name__ == "OfflineModeIsEnabled":
        return False
    if type(error).__name__ == "LocalEntryNotFoundError":
        return is_passing(error.__cause__)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return bool(status == 429 or status >= 500)
    return isinstance(error, ConnectionError) or type(error).__module__.partition(".")[0] in _TRANSPORTS


def _line(error: BaseException, repository: str, option: str, *, has_token: bool) -> str:
    page = f"https://huggingface.co/{repository}"
    told = _told(error, page, option, has_token=has_token)
    return f"{repository}: {told}; files go into {cache_folder()}"


def _told(error: BaseException, page: str, option: str, *, has_token: bool) -> str:
    names = {each.__name__ for each in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    if "LocalEntryNotFoundError" in names and error.__cause__ is not None:
        return _told(error.__cause__, page, option, has_token=has_token)
    if "OfflineModeIsEnabled" in names:
        return "HF_HUB_OFFLINE is set: unset it to fetch, or copy the cache from another machine"
    if status == 401 and has_token:
        return f"the Hub refuses the token: make a new one at https://huggingface.co/settings/tokens, {_LOGIN}; {page}"
    if "GatedRepoError" in names and not has_token:
        return f"is gated and there is no token: accept its terms at {page}, then {_LOGIN}"
    if "GatedRepoError" in names or status == 403:
        return (
            f"is gated, and your account has not accepted its terms or your token may not read it: open {page} with "
            f"the account of the token, or {_LOGIN} with a token that may read gated repositories"
        )
    if "RevisionNotFoundError" in names:
        return f"the commit in the cache is not on the Hub any more: see {page}, or {_LOGIN} if it is private"
    if "EntryNotFoundError" in names:
        return f"a file that the agent loads is not there: see {page}; correct `{option}`, or {_LOGIN} if it is private"
    if "RepositoryNotFoundError" in names or status in (401, 404):
        return f"there is no such model, or it is private: see {page}; correct `{option}`, or {_LOGIN}"
    if status is not None:
        return f"the Hub answered {status}: try again later; see {page}, and {_LOGIN} if it limits unknown users"
    if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _TRANSPORTS:
        endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        return (
            f"{endpoint} cannot be reached ({type(error).__name__}: {shown_line(str(error), 120)}): check the network, "
            f"HF_ENDPOINT and the proxy; {page} must open, with HF_TOKEN for private models"
        )
    return f"the Hub's answer cannot be used ({type(error).__name__}: {shown_line(str(error), 120)}); see {page}"
