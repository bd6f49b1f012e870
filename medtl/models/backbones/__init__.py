"""The families of networks: what `config.model.name` may name."""
