"""The commands of the toy environment (see `mora_environment.entry`)."""

from mora_environment import Kind, main

from tests.toy_agents.options import (
    CaptionerOptions,
    CriticOptions,
    EncoderOptions,
    LastOptions,
    MetricOptions,
    MoverOptions,
    SourceOptions,
    TransformOptions,
)

_AGENTS = "tests.toy_agents.agents"
KINDS = {
    "source": Kind(options=SourceOptions, build=f"{_AGENTS}:ToySource", weights="weights"),
    "transform": Kind(options=TransformOptions, build=f"{_AGENTS}:ToyTransform", weights="weights"),
    "editor": Kind(options=TransformOptions, build=f"{_AGENTS}:ToyEditor", weights="weights"),
    "mover": Kind(options=MoverOptions, build=f"{_AGENTS}:ToyMover", weights="weights"),
    "last": Kind(options=LastOptions, build=f"{_AGENTS}:ToyLast", weights="weights"),
    "metric": Kind(options=MetricOptions, build="tests.toy_agents.metric:ToyMetric"),
    "multimodal": Kind(options=CaptionerOptions, build="tests.toy_agents.texts:ToyCaptioner"),
    "text_embedding": Kind(options=EncoderOptions, build="tests.toy_agents.texts:ToyEncoder"),
    "critic": Kind(options=CriticOptions, build=f"{_AGENTS}:ToyCritic"),
}

if __name__ == "__main__":
    main(KINDS)
