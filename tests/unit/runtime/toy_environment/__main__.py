"""The commands of the toy environment."""

from mora_environment import Kind, main

from toy_environment.options import CriticOptions, MetricOptions, PaintOptions, PlainOptions

PAINT = "toy_environment.agent:PaintAgent"
KINDS = {
    "paint": Kind(
        options=PaintOptions,
        build=PAINT,
        weights="weights",
        tiny="toy_environment.tiny:make_tiny",
        tiny_tasks={"colours": "toy_environment.tiny:make_colours"},
    ),
    "critic": Kind(
        options=CriticOptions, build="toy_environment.agent:CriticAgent", tiny="toy_environment.tiny:make_critic"
    ),
    "metric": Kind(
        options=MetricOptions, build="toy_environment.metric:MetricAgent", tiny="toy_environment.tiny:make_metric"
    ),
    "plain": Kind(options=PlainOptions, build="toy_environment.agent:PlainAgent"),
}

if __name__ == "__main__":
    main(KINDS)
