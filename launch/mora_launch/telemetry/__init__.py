"""What a server records about single requests: spans, for OpenTelemetry collectors and for the profiler's trace."""
