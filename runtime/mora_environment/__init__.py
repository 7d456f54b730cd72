"""For authors of environments: the commands of `python -m PACKAGE`, what a kind of agent tells, and tiny models."""

from mora_environment.component import Component
from mora_environment.entry import main
from mora_environment.interface import Interface, Port
from mora_environment.kind import Kind
from mora_environment.weights.weights_source import Conversion, WeightsSource

__all__ = ["Component", "Conversion", "Interface", "Kind", "Port", "WeightsSource", "main"]
