"""The user's configuration: YAML to typed, frozen settings that refuse unknown keys."""
