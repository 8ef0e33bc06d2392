"""stub"""
from quantkit.evaluation.value import Evaluation


def verdict(evaluation: Evaluation) -> tuple[str, ...]:
    """Stub."""
    return ()
