"""The outbox against a model of it: any order of what processes and operators do."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clocks import Clock
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from service.dicom.entries import DeliveryStateError, Entry, Leased
from service.dicom.outbox import Outbox

NAMES, MODEL, LEASE = ("pacs", "ris"), "swift/1.1.0", 60.0
UIDS = st.integers(0, 5).map(str)
SOME = st.integers(0, 9)


class OutboxStates(RuleBasedStateMachine):
    """Two processes, two destinations, six instances, and a clock."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.clock = Clock(1e6)
        url = f"sqlite:///{Path(self.folder.name)}/outbox.sqlite"
        self.outboxes = [Outbox(url, self.clock), Outbox(url, self.clock)]
        self.expected: dict[tuple[str, str], str] = {}  # state by destination and instance
        self.held: list[Leased] = []  # by senders, whether their lease is good or not
        self.owner: dict[tuple[str, str], str] = {}  # the lease that is good
        self.due: dict[tuple[str, str], float] = {}
        self.sent: dict[tuple[str, str], int] = {}

    def teardown(self) -> None:
        for outbox in self.outboxes:
            outbox.close()
        self.folder.cleanup()

    @rule(uid=UIDS, process=st.integers(0, 1), names=st.sets(st.sampled_from(NAMES)))
    def put(self, uid: str, process: int, names: set[str]) -> None:
        new = self.outboxes[process].answer(uid, MODEL) is None
        entries = [Entry(name, f"{name} {uid}".encode()) for name in sorted(names)]
        assert self.outboxes[process].put(uid, MODEL, uid, entries) is new
        if new:
            for name in names:
                self.expected[name, uid], self.due[name, uid] = "pending", self.clock.seconds

    @rule(name=st.sampled_from(NAMES), process=st.integers(0, 1), most=st.integers(1, 3))
    def lease(self, name: str, process: int, most: int) -> None:
        free = {
            key
            for key, due in self.due.items()
            if key[0] == name
            and due <= self.clock.seconds
            and self.expected[key] in {"pending", "leased"}
        }
        found = self.outboxes[process].lease(name, most, LEASE)
        keys = [(each.destination, each.sop_instance_uid) for each in found]
        assert set(keys) <= free
        assert len(keys) == min(most, len(free))
        for key, each in zip(keys, found, strict=True):
            assert each.payload == f"{key[0]} {key[1]}".encode()
            self.held.append(each)
            self.owner[key], self.expected[key] = each.lease, "leased"
            self.due[key] = self.clock.seconds + LEASE

    @rule(number=SOME, how=st.sampled_from(["delivered", "dead", "retry_at", "release", "renew"]))
    def settle(self, number: int, how: str) -> None:
        if not self.held:
            return
        each = self.held[number % len(self.held)]
        key = (each.destination, each.sop_instance_uid)
        outbox = self.outboxes[number % 2]
        later = self.clock.seconds + 30
        acts: dict[str, Any] = {
            "delivered": lambda: outbox.delivered(each),
            "dead": lambda: outbox.dead(each, "rejected", "HTTP 422"),
            "retry_at": lambda: outbox.retry_at(each, later, "busy", "HTTP 503"),
            "release": lambda: outbox.release(each),
            "renew": lambda: outbox.renew(each, LEASE),
        }
        good = self.owner.get(key) == each.lease
        assert acts[how]() is good
        if not good:
            return
        if how == "renew":
            self.due[key] = self.clock.seconds + LEASE
            return
        del self.owner[key]
        self.expected[key] = {"delivered": "delivered", "dead": "dead"}.get(how, "pending")
        self.due[key] = later if how == "retry_at" else self.clock.seconds
        self.sent[key] = self.sent.get(key, 0) + (how == "delivered")

    @rule(number=SOME, drop=st.booleans())
    def operate(self, number: int, drop: bool) -> None:
        rows = self.outboxes[0].deliveries()
        if not rows:
            return
        row = rows[number % len(rows)]
        key = (row.destination, row.sop_instance_uid)
        allowed = row.state != "delivered" if drop else row.state in {"dead", "pending"}
        try:
            (self.outboxes[1].drop if drop else self.outboxes[1].retry)(row.id)
        except DeliveryStateError:
            assert not allowed
            return
        assert allowed
        self.owner.pop(key, None)
        self.expected[key], self.due[key] = "dropped" if drop else "pending", self.clock.seconds

    @rule(seconds=st.sampled_from([1.0, 29.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.clock.seconds += seconds

    @invariant()
    def every_delivery_is_as_expected(self) -> None:
        rows = self.outboxes[0].deliveries(most=99)
        found = {(row.destination, row.sop_instance_uid): row.state for row in rows}
        assert found == self.expected
        assert len(rows) == len(self.expected)
        assert all(number <= 1 for number in self.sent.values())
        counted = self.outboxes[1].counts()
        assert sum(sum(each.states.values()) for each in counted.values()) == len(rows)


OutboxStates.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestOutboxStates = OutboxStates.TestCase
