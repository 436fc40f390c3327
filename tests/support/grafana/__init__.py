"""A stand-in for Grafana's HTTP API, from a hand-written subset of its OpenAPI description."""
