"""The commands of this environment: `python -m my_environment COMMAND`."""

from mora_environment import Kind, main

from my_environment.options import BrightnessOptions, StylistOptions

KINDS = {
    "stylist": Kind(
        options=StylistOptions,
        build="my_environment.stylist_agent:StylistAgent",
        weights="model",
        tiny="my_environment.tiny:make_stylist",
    ),
    "brightness": Kind(
        options=BrightnessOptions,
        build="my_environment.brightness_agent:BrightnessAgent",
        tiny="my_environment.tiny:make_brightness",
    ),
}

if __name__ == "__main__":
    main(KINDS)
