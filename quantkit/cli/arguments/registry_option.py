"""Options whose help lists the content of a registry: --metric, --repair, --rule, --backend and --provider."""

from __future__ import annotations

from collections.abc import Mapping

import click


class RegistryOption(click.Option):
    """An option whose help contains placeholders, which are filled in only when the help is shown.

    Loading a registry takes time, which commands without it should not spend.
    """

    def _values(self) -> Mapping[str, str]:
        """Return the text for each placeholder."""
        raise NotImplementedError

    def _filled(self) -> str:
        return self._text.format_map(self._values())

    def _set_text(self, text: str) -> None:
        self._text = text

    help = property(_filled, _set_text)


class MetricOption(RegistryOption):
    """The option --metric, with `{metrics}` and `{default}` in its help."""

    def _values(self) -> Mapping[str, str]:
        from quantkit.metrics.registry import default_metric, metric_choices

        return {"metrics": metric_choices(remarks=True), "default": default_metric()}


class RepairOption(RegistryOption):
    """The option --repair, with `{repairs}` in its help."""

    def _values(self) -> Mapping[str, str]:
        from quantkit.repairs.registry import repair_choices

        return {"repairs": repair_choices(remarks=True)}


class RuleOption(RegistryOption):
    """The option --rule, with `{rules}` in its help."""

    def _values(self) -> Mapping[str, str]:
        from quantkit.rules import rule_choices

        return {"rules": rule_choices(remarks=True)}


class BackendOption(click.Option):
    """The option --backend, whose values are the backends that exist."""

    def _names(self) -> str:
        from quantkit.backends.session import backend_names

        return "|".join(backend_names())

    metavar = property(_names, lambda *_: None)


class ProviderOption(click.Option):
    """The option --provider, whose values are the providers of the default backend."""

    def _names(self) -> str:
        from quantkit.backends.session import default_backend

        return "|".join(default_backend().providers)

    metavar = property(_names, lambda *_: None)
