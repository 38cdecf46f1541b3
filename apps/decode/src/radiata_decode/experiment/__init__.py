"""The commands: data and models together."""
