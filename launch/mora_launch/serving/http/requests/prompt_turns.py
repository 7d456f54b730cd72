"""The prompt agent for requests of several tenants, which do not wait for each other."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from fastapi import Request

from mora_launch.chat.prompt_agent import PromptAgent
from mora_launch.limits import MAX_NUM_QUESTIONS
from mora_launch.serving.http.requests.fields import RequestFields
from mora_launch.serving.http.waiting import unless_disconnected
from mora_launch.serving.settings import ServingSettings
from mora_launch.tasks.errors import BadRequest


def enhances(fields: RequestFields, settings: ServingSettings, *, usually: bool = False) -> bool:
    """Whether a request's prompt is rewritten.

    Args:
        usually: the answer for a request that does not say.

    Raises:
        BadRequest: it asks for the prompt agent, which this server does not have.
    """
    is_asked = fields.flag("enhance", usually)
    if is_asked and not settings.prompts.is_on:
        raise BadRequest("enhance", "this server has no prompt agent (serving.prompts.kind is none); leave it out")
    return is_asked


class PromptTurns:
    """Asks the prompt agent on the event loop, so that a slow endpoint occupies no thread.

    Each tenant may ask a number of questions at a time; its further questions wait, in the order of arrival.

    Args:
        num_at_once: questions of one tenant.
    """

    def __init__(self, agent: PromptAgent, num_at_once: int = MAX_NUM_QUESTIONS) -> None:
        self._agent = agent
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(num_at_once))

    async def enhance(self, request: Request, prompt: str, tenant: str) -> str:
        """Return the prompt as rewritten by the prompt agent.

        Raises:
            Cancelled: the client has disconnected; its question is taken back.
            EndpointFailed: the endpoint gave no answer.
        """
        return await unless_disconnected(request, self._enhance(prompt, tenant))

    async def _enhance(self, prompt: str, tenant: str) -> str:
        async with self._turns[tenant]:
            return await self._agent.enhance(prompt)
