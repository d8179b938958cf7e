"""The embedded engine: a Tinker-protocol server on loopback, and the handle that starts it.

::

    server.py      LocalEngine: starts the server process, watches it, ends it
    __main__.py    that process; settings.py: what it is started with; serve.py: its socket and its end

    guard.py       who may speak: token, Host, Origin, size
    app.py         the routes of training and sampling; rest.py: those that list and manage checkpoints;
                   accounts.py: those of sessions and usage
    usage.py       tokens and checkpoints, counted by the hour; exports.py: signed addresses, encryption
    wire.py        Tinker's messages <-> ours; fields.py: JSON, field by field
    refusal.py     a request turned down, with its HTTP status; answers.py: results and errors as bodies

    state.py       what is asked, in order; sessions.py: who is here; futures.py: answers not fetched yet
    store.py       checkpoints on disk; records.py: their records and addresses; disk.py: swaps and locks
    compute.py     the one thread that owns every tensor; workshop.py: what it works on

    models.py      base models, frozen; decoder.py: their forward pass
    lora.py        adapters; projections.py: linear layers with one beside or merged; kernels.py: products
    trainer.py     gradients and steps; examples.py: checks; packing.py: micro-batches; head.py:
                   log-probabilities; losses.py; adam.py
    memory.py      what was freed goes back to the system
    sampler.py     the continuous batch; sampling.py: a request and its answers; cache.py: keys and values;
                   choosing.py: from logits to a token; probing.py: what a prompt's places say

Nothing here imports another room; the library meets the engine over HTTP, as it meets Tinker itself.
"""

from __future__ import annotations

from tinker_officer.engine.server import LocalEngine as LocalEngine


__all__ = ["LocalEngine"]
