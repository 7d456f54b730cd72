"""The chain of a configuration: a check that its agents fit each other, and the settings that coordinators get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mora_environment.interface import Interface
from mora_runtime.errors import SettingsError
from mora_runtime.process.role import Role
from mora_trainer.settings import StageSettings

from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.agent_options import CheckedOptions


def check_chain(config: TrainConfig, checked: Mapping[str, CheckedOptions]) -> None:
    """Refuse a chain whose agents do not fit each other.

    Raises:
        SettingsError: names the agent, what it takes and what it is given, in one line.
    """
    names = config.chain_names
    interfaces = {name: _interface(config, name, checked[name]) for name in names}
    _check_links(names, interfaces)
    _check_losses(config, names, interfaces)
    for name in config.trains or ():
        if not checked[name].has_optimizer:
            raise SettingsError(f"trains: `{name}` (kind {config.agents[name].kind}) cannot be trained; leave it out")


def stage_settings(
    config: TrainConfig, checked: Mapping[str, CheckedOptions], lock_hashes: Mapping[str, str], replica: int
) -> tuple[StageSettings, ...]:
    """Return a coordinator's settings of every agent of the chain, in the order of the forward.

    Args:
        lock_hashes: by agent, of the environment in which its server runs.
    """
    return tuple(
        StageSettings(
            name=name,
            server=Role.of(name, replica),
            lock_hash=lock_hashes[name],
            interface=_interface(config, name, checked[name]),
            loss_weight=config.loss_weights.get(name, 0.0),
            has_optimizer=checked[name].has_optimizer,
            trains=checked[name].has_optimizer and (config.trains is None or name in config.trains),
            learning_rate=config.agents[name].learning_rate,
            modulation_learning_rate=config.agents[name].modulation_learning_rate,
        )
        for name in config.chain_names
    )


def _interface(config: TrainConfig, name: str, checked: CheckedOptions) -> Interface:
    if checked.interface is None:
        raise SettingsError(
            f"chain: `{name}` (kind {config.agents[name].kind}) cannot be in a chain: its kind declares no interface; "
            "name the agents of the chain with `chain: [...]`"
        )
    return checked.interface


def _check_links(names: Sequence[str], interfaces: Mapping[str, Interface]) -> None:
    before: str | None = None
    for name in names:
        given = {} if before is None else interfaces[before].gives
        for port_name, port in interfaces[name].takes.items():
            if port_name not in given:
                raise SettingsError(
                    f"chain: `{name}` takes `{port_name}` ({port.modality}), but {_said(before, given)}"
                )
            misfit = port.misfit(given[port_name])
            if misfit is not None:
                raise SettingsError(f"chain: `{name}` cannot take `{port_name}` of `{before}`: {misfit}")
        if not interfaces[name].takes and before is not None:
            raise SettingsError(f"chain: `{name}` takes nothing, so it must come first; it comes after `{before}`")
        if interfaces[name].is_critic and name != names[-1]:
            raise SettingsError(f"chain: the critic `{name}` must come last; `{names[-1]}` comes after it")
        before = name


def _said(before: str | None, given: Mapping[str, object]) -> str:
    if before is None:
        return "it comes first; put the agent that makes them before it"
    return f"`{before}` before it gives {', '.join(f'`{name}`' for name in given) or 'nothing: its kind ends a chain'}"


def _check_losses(config: TrainConfig, names: Sequence[str], interfaces: Mapping[str, Interface]) -> None:
    for name in config.loss_weights:
        interface = interfaces[name]
        if config.chain and name not in config.chain and not interface.is_critic:
            raise SettingsError(
                f"losses: `{name}` is not in the chain ({', '.join(config.chain)}), and it is no critic"
            )
        if not interface.has_loss:
            able = [other for other in names if interfaces[other].has_loss]
            hint = f"agents with a loss: {', '.join(able)}" if able else "no agent of this chain has one"
            where = "losses" if config.losses else "chain: the last agent must have a loss, but"
            raise SettingsError(f"{where}: `{name}` (kind {config.agents[name].kind}) has no loss; {hint}")
    if names[-1] not in config.loss_weights:
        raise SettingsError(
            f"losses: the last agent `{names[-1]}` needs a weight, because nothing takes what it gives; add "
            f"`{names[-1]}: 1.0`, or end the chain with `{names[-2] if len(names) > 1 else names[-1]}`"
        )
