"""The user's configuration: YAML parsed into typed, frozen settings that refuse unknown keys."""
