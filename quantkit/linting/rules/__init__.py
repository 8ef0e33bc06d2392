"""One file for each lint rule, named after it, with the rule as `RULE`; `quantkit.linting.registry` collects them."""
