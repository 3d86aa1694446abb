"""From YAML to one checked config."""
