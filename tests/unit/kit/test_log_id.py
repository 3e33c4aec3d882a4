"""A log's name: another topic, or another cluster, another name."""

from __future__ import annotations

import re

from penstock.kafka.log_id import log_id_of

IDS = {"p.requests": bytes(range(16)), "p.responses": bytes(range(16, 32))}


def test_it_is_the_same_in_any_order() -> None:
    assert log_id_of("c", IDS) == log_id_of("c", dict(reversed(IDS.items())))


def test_it_can_stand_in_a_path() -> None:
    assert re.fullmatch(
        r"4L6g3nShT-eMCtK--X86sw\.[\w-]{12}", log_id_of("4L6g3nShT-eMCtK--X86sw", IDS)
    )


def test_another_topic_or_cluster_is_another_log() -> None:
    made_anew = {**IDS, "p.responses": bytes(range(17, 33))}
    names = [log_id_of("c", IDS), log_id_of("c", made_anew), log_id_of("d", IDS)]
    assert len(set(names)) == 3
