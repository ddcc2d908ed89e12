"""The commands: `python -m pipelines COMMAND`."""
