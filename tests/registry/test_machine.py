"""The registry against a plain dictionary: whatever is done in whatever order, both say the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from tinker_officer.errors import RegistryError
from tinker_officer.registry.gate import Gate
from tinker_officer.registry.refusal import PromotionRefused
from tinker_officer.registry.registry import Registry


CHANNELS = st.sampled_from(["staging", "production", "berlin"])
MODELS = st.sampled_from(["a", "b"])
GATE = Gate().at_least("tickets", 0.5)
WHO = {"actor": "ada", "reason": "because"}


class Model(RuleBasedStateMachine):
    """Channels as stacks in a dictionary; the registry must agree after every step."""

    versions = Bundle("versions")
    card = binary = staticmethod(lambda *_: None)

    @initialize()
    def begin(self):
        """Open a new registry, and an empty dictionary."""
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "models.db"
        self.registry = Registry.open(self.path)
        self.names, self.stacks, self.retired, self.held = {}, {}, [], set()
        self.events, self.count = 0, {}

    def teardown(self):
        """Verify the log, and that a fresh opening sees the same."""
        if not hasattr(self, "registry"):
            return
        assert self.registry.verify().entries == self.events
        copy = Registry.open(self.path)
        for (name, channel), stack in self.stacks.items():
            found = copy.current(channel, name=name)
            assert (found.id if found else None) == (stack[-1] if stack else None)
        self.folder.cleanup()

    @rule(target=versions, name=MODELS, good=st.booleans(), number=st.integers(0, 5))
    def register(self, name, good, number):
        """The same source is the same version; a new one gets the next number."""
        source = f"{name}-{number}-{good}"
        scores = self.binary([1] * 60 if good else [0] * 60)
        version = self.registry.register(source, self.card(scores, target=source), name=name)
        if version.id not in self.names:
            self.count[name] = self.count.get(name, 0) + 1
            self.names[version.id] = (name, self.count[name], good)
            self.events += 2
        assert (version.name, version.number) == self.names[version.id][:2]
        return version.id

    @rule(version=versions, channel=CHANNELS, override=st.booleans(), expect=st.booleans())
    def promote(self, version, channel, override, expect):
        """Only a good version passes the gate; a wrong expectation changes nothing."""
        name, _, good = self.names[version]
        stack = self.stacks.setdefault((name, channel), [])
        now = stack[-1] if stack else None
        ask = {"to": channel, "gate": GATE, "override": override, **WHO}
        if now == version:
            assert self.registry.promote(version, **ask, expected_current=now).version == version
            return
        if not expect:
            with pytest.raises(RegistryError, match="does not hold"):
                self.registry.promote(version, **ask, expected_current=version)
            return
        ask["expected_current"] = now
        if version in self.retired and not override:
            with pytest.raises(RegistryError, match="was retired"):
                self.registry.promote(version, **ask)
            return
        self.events += 1
        if not good and not override:
            with pytest.raises(PromotionRefused):
                self.registry.promote(version, **ask)
            return
        if version in self.retired:
            self.retired.remove(version)
            self.events += 1
        assert self.registry.promote(version, **ask).previous == now
        stack.append(version)

    @rule(channel=CHANNELS, name=MODELS)
    def rollback(self, channel, name):
        """Back to the version before; refused where there is none."""
        stack = self.stacks.get((name, channel), [])
        if len(stack) < 2:
            with pytest.raises(RegistryError):
                self.registry.rollback(channel, name=name, **WHO)
            return
        stack.pop()
        self.registry.rollback(channel, name=name, **WHO)
        self.events += 1

    @rule(version=versions)
    def retire(self, version):
        """Out of every channel, and out of what they fall back on."""
        self.registry.retire(version, **WHO)
        if version in self.retired:
            return
        for (name, _), stack in self.stacks.items():
            if name == self.names[version][0] and version in stack:
                stack[:] = [one for one in stack if one != version]
                self.events += 1
        self.retired.append(version)
        self.events += 1

    @rule(version=versions, on=st.booleans())
    def hold(self, version, on):
        """Held or released; twice is once."""
        (self.registry.hold if on else self.registry.release)(version, **WHO)
        self.events += on != (version in self.held)
        (self.held.add if on else self.held.discard)(version)

    @rule()
    def reopen(self):
        """Nothing lives in the object."""
        self.registry = Registry.open(self.path)

    @precondition(lambda self: self.names)
    @rule(channel=CHANNELS, good=st.booleans())
    def search(self, channel, good):
        """Search agrees with the dictionary."""
        found = {one.id for one in self.registry.search(f"channel = '{channel}'", limit=1000)}
        assert found == {stack[-1] for (_, place), stack in self.stacks.items() if place == channel and stack}
        sign = "=" if good else "!="
        found = {one.id for one in self.registry.search(f"evals.tickets.accuracy {sign} 1", limit=1000)}
        assert found == {one for one, (_, _, right) in self.names.items() if right is good}

    @invariant()
    def agree(self):
        """Every channel holds what the dictionary says."""
        for (name, channel), stack in getattr(self, "stacks", {}).items():
            found = self.registry.current(channel, name=name)
            assert (found.id if found else None) == (stack[-1] if stack else None)


def test_the_registry_agrees_with_a_plain_dictionary(card, binary):
    """Random registrations, promotions, rollbacks, retirements and holds: the two never part."""
    from hypothesis.stateful import run_state_machine_as_test

    Model.card, Model.binary = staticmethod(card), staticmethod(binary)
    run_state_machine_as_test(
        Model,
        settings=settings(
            max_examples=12,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
