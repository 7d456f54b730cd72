"""The commands of the toy environment."""

from mora_environment import Kind, main

from toy_environment.options import NoMethodOptions, PaintOptions, PlainOptions

PAINT = "toy_environment.agent:PaintAgent"
KINDS = {
    "paint": Kind(
        options=PaintOptions,
        build=PAINT,
        weights="weights",
        tiny="toy_environment.tiny:make_tiny",
        tiny_tasks={"colours": "toy_environment.tiny:make_colours"},
    ),
    "plain": Kind(options=PlainOptions, build="toy_environment.agent:PlainAgent"),
    "without_module": Kind(options=PlainOptions, build="toy_environment.absent:Agent"),
    "without_method": Kind(options=NoMethodOptions, build="toy_environment.agent:PlainAgent"),
    "without_option": Kind(options=PlainOptions, build="toy_environment.agent:PlainAgent", weights="wights"),
}

if __name__ == "__main__":
    main(KINDS)
