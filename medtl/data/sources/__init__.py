"""Where data come from: what `config.data.name` may name."""
