.PHONY: quickstart test slow fuzz mutants lint

quickstart:
	@requirements/install.sh
	@.venv/bin/python -m medtl.main --config=configs/quickstart.py

test:
	@requirements/install.sh dev
	.venv/bin/python -m pytest -n 2 --dist loadfile --durations=10 -m "not slow"

slow:
	@requirements/install.sh dev
	.venv/bin/python -m pytest -n 2 --dist load --durations=10 -m slow

fuzz:
	@requirements/install.sh dev
	.venv/bin/python -m tests.fuzz $(if $(SEED),--seed $(SEED)) $(if $(COUNT),--count $(COUNT))

mutants:
	@requirements/install.sh dev
	.venv/bin/python -m tests.mutation $(if $(SEED),--seed $(SEED)) $(if $(COUNT),--count $(COUNT))

lint:
	@requirements/install.sh dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
