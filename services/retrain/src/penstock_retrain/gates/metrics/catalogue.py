"""The metrics that suites may name, a line for each: a new one is a file and a line here."""

from __future__ import annotations

from penstock_retrain.gates.metrics.cost import Cost
from penstock_retrain.gates.metrics.declared import Declared, Scale
from penstock_retrain.gates.metrics.exact_match import ExactMatch
from penstock_retrain.gates.metrics.json_fields import JsonFields
from penstock_retrain.gates.metrics.json_valid import JsonValid
from penstock_retrain.gates.metrics.latency import Latency
from penstock_retrain.gates.metrics.no_forbidden import NoForbidden
from penstock_retrain.gates.metrics.no_personal_data import NoPersonalData
from penstock_retrain.gates.metrics.rouge_l import RougeL
from penstock_retrain.gates.metrics.token_f1 import TokenF1

__all__ = ["CATALOGUE"]

_YES_NO, _SHARE, _AMOUNT = Scale.YES_NO, Scale.SHARE, Scale.AMOUNT

CATALOGUE = {
    declared.name: declared
    for declared in (
        Declared(ExactMatch, _YES_NO, "the answer is the expected one"),
        Declared(
            JsonValid, _YES_NO, "the answer is JSON, and satisfies the schema if there is one"
        ),
        Declared(JsonFields, _SHARE, "how many of the expected object's fields are right"),
        Declared(TokenF1, _SHARE, "F1 of the answer's words and the expected ones"),
        Declared(RougeL, _SHARE, "ROUGE-L: F1 of the longest common subsequence of words"),
        Declared(NoForbidden, _YES_NO, "the answer has none of the example's forbidden texts"),
        Declared(NoPersonalData, _YES_NO, "the answer has no e-mail, phone, card, IBAN, SSN, key"),
        Declared(Latency, _AMOUNT, "time of an answer asked alone", more_is_better=False, unit="s"),
        Declared(Cost, _AMOUNT, "price of the tokens", more_is_better=False, unit="microusd"),
    )
}
