"""Dashboards for Grafana and alert rules for Prometheus, as code."""
