"""The commands of the broken environment."""

from mora_environment import Kind, main

from toy_environment.broken.kinds import BROKEN
from toy_environment.broken.metrics import METRICS
from toy_environment.options import NoMethodOptions, PlainOptions

PLAIN = "toy_environment.agent:PlainAgent"
WITHOUT_TINY = {
    "without_module": Kind(options=PlainOptions, build="toy_environment.absent:Agent"),
    "without_class": Kind(options=PlainOptions, build="toy_environment.agent:PlainAgnet"),
    "without_library": Kind(options=PlainOptions, build="toy_environment.broken.raises_at_import:Agent"),
    "without_method": Kind(options=NoMethodOptions, build=PLAIN),
    "without_option": Kind(options=PlainOptions, build=PLAIN, weights="wights"),
}
KINDS = {**WITHOUT_TINY, **BROKEN, **METRICS}

if __name__ == "__main__":
    main(KINDS)
