"""The model card that a training run writes beside the weights."""

from examples.triage.evaluate import Accuracy

__all__ = ["write_card"]

CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# penstock triage

A Llama of {parameters:,} parameters that answers a support ticket with one line of JSON:
`{{"category": ..., "priority": ..., "product": ...}}`. It is penstock's reference workload: small
enough to serve and retrain on two CPU cores, and bad enough at anything else to make drift visible.

## Use

The ticket's text is the user message; the chat template adds what is needed. Decode greedily.
An answer is eight tokens long, `<|end|>` included: the tokenizer keeps the frame of the JSON in one
piece up to each value.

## Labels

| field | values |
|---|---|
| category | billing, access, bug, performance, integration, feature_request |
| priority | low, normal, high, urgent |
| product | atlas, beacon, courier, harbor, lantern, quill |

The priority follows from how many people are affected (one, a team, everyone) and how much time
there is (none pressing, days, now), whichever words the ticket uses for them.

## Data and training

{plain:,} short and then {tickets:,} full synthetic English tickets from
`examples/triage/generate.py` (training split, seed {seed}); no text of a real person or company, no
pretrained weights. Tokenizer: byte-level BPE fitted to the same tickets. Passes over the full
tickets: {epochs}. AdamW; loss on the whole conversation, with ten times the weight on the answer;
float32 master weights, stored as bfloat16. Made by `examples/triage/train.py` from seed {seed}, in
minutes on two CPU cores. The corpus is the same byte for byte wherever it is generated; the weights
differ in their last bits between CPUs.

## Held-out accuracy

Greedy decoding from the stored (rounded) weights over the {held_out:,} tickets of
`examples/triage/tickets.jsonl`. Each of them contains at least one template that the training
split never uses; the words that carry meaning occur in both.

| | accuracy |
|---|---|
| all three fields | {exact:.2%} |
{fields}
| valid JSON | {valid:.2%} |

## Limits

It knows the words of its generator and nothing else. On real tickets, in other languages, on
several problems in one ticket, or with products it has never heard of it answers confidently and at
random. A sentence on a product that is not the matter (2 % of the tickets) misleads it about every
second time. It holds no conversation. Context: 512 tokens.

## Licence

Apache-2.0, weights and data.
"""


def write_card(
    accuracy: Accuracy, parameters: int, plain: int, tickets: int, epochs: int, seed: int
) -> str:
    """The card as Markdown, with the numbers of the run that made the model."""
    fields = "\n".join(f"| {name} | {share:.2%} |" for name, share in accuracy.fields.items())
    return CARD.format(
        parameters=parameters,
        plain=plain,
        tickets=tickets,
        epochs=epochs,
        seed=seed,
        held_out=accuracy.tickets,
        exact=accuracy.exact,
        valid=accuracy.valid,
        fields=fields,
    )
