"""Sessions, training runs and samplers, and the order of what is asked of them.

Everything here belongs to the event loop's thread; tensors are the workshop's, in the compute thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from tinker_officer.engine import wire
from tinker_officer.engine.answers import as_json, failure, protobuf
from tinker_officer.engine.compute import Compute, Job
from tinker_officer.engine.exports import Signer
from tinker_officer.engine.futures import Future, Futures, Reply
from tinker_officer.engine.records import Meta, Run, TinkerPath, now
from tinker_officer.engine.refusal import Refused
from tinker_officer.engine.sessions import Model, Session, Sessions
from tinker_officer.engine.settings import MAX_RANK
from tinker_officer.engine.store import Store
from tinker_officer.engine.usage import Usage
from tinker_officer.engine.workshop import Weights, Workshop, adapter_key
from tinker_officer.errors import EngineError, OfficerError


if TYPE_CHECKING:
    from tinker_officer.engine.sampling import SampleOutput

logger = logging.getLogger(__name__)


class State:
    """What the engine knows, and the one door to the compute thread.

    Args:
        store: where checkpoints are.
        workshop: what the compute thread works on.
        compute: the compute thread.
    """

    def __init__(self, store: Store, workshop: Workshop, compute: Compute) -> None:
        self.store, self.workshop, self.compute = store, workshop, compute
        self.futures = Futures()
        self.here = Sessions()
        self.usage, self.signer = Usage(), Signer()
        self._located: dict[str, asyncio.Task[Path]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store")

    def close(self) -> None:
        """Tell everyone who waits that no answer will come; let a save at hand end."""
        self.futures.close()
        self._writer.shutdown(wait=True, cancel_futures=True)

    # -- sessions

    def finish_session(self, session_id: str, ended: dict[str, Any] | None = None) -> None:
        """End a session, and free what it holds in memory; checkpoints stay."""
        session = self.here.session(session_id)
        session.finished, session.ended = True, ended
        for request_id in self.futures.forget({*session.models, *session.samplers}):
            self.compute.call(partial(self.workshop.cancel, request_id))
        for sampler_id in session.samplers:
            self.here.samplers.pop(sampler_id, None)
        drop = partial(self.workshop.forget_weights, tuple(session.samplers))
        self.compute.call(drop)
        for model_id in session.models:
            self.here.models.pop(model_id, None)
            self._forget(model_id)
            self.compute.submit(Job(model_id, partial(_once, drop), _ignored))  # snapshots still in its queue
        self.here.prune()

    def finish_idle(self, idle_s: float) -> int:
        """End the sessions that nobody was heard of for `idle_s`; return how many there were."""
        idle = [session.id for session in self.here.idle(idle_s)]
        for session_id in idle:
            logger.warning("engine.session_expired: %s", session_id)
            self.finish_session(session_id)
        return len(idle)

    # -- training

    def create_model(
        self,
        session_id: str,
        seq: int,
        base_model: str,
        lora: dict[str, Any],
        user_metadata: dict[str, Any] | None,
    ) -> Future:
        """Begin a training run with a fresh adapter."""
        session = self.here.session(session_id)
        model_id = f"{session.id}:train:{seq}"

        def work(folder: Path) -> Generator[None, None, None]:
            return self.workshop.create(model_id, base_model, folder, lora)

        def answer() -> dict[str, Any]:
            return {"model_id": model_id, "type": "create_model"}

        return self._begin(session, model_id, base_model, lora, user_metadata, work, answer)

    def create_from_state(
        self,
        session_id: str,
        seq: int,
        path: TinkerPath,
        base_model: str | None,
        optimizer: bool,
        user_metadata: dict[str, Any] | None,
    ) -> Future:
        """Begin a training run from a checkpoint.

        Raises:
            Refused: there is no such checkpoint.
        """
        session = self.here.session(session_id)
        meta = self.store.meta(path)
        model_id = f"{session.id}:train:{seq}"
        name = base_model or meta.base_model
        metadata = user_metadata if user_metadata is not None else self._metadata_of(path.run)

        def work(folder: Path) -> Generator[None, None, None]:
            return self.workshop.restore(model_id, name, folder, path, optimizer)

        def answer() -> dict[str, Any]:
            return {"path": str(path), "model_id": model_id, "type": "load_weights"}

        return self._begin(session, model_id, name, meta.lora, metadata, work, answer)

    def forward_backward(self, request: wire.ForwardBackward) -> Future:
        """Queue a forward pass, with or without the backward one."""
        model = self.here.model(request.model_id)
        work = partial(self.workshop.forward_backward, request)
        tokens = sum(datum.tokens.size for datum in request.data)

        def encode(body: bytes) -> Reply:
            self.usage.add(model.session, model.base_model, training=tokens)
            return protobuf(body)

        return self._queue(request.model_id, request.seq_id, work, encode)

    def optim_step(self, model_id: str, seq: int | None, settings: dict[str, float]) -> Future:
        """Queue an optimizer step."""
        self.here.model(model_id)
        work = partial(self.workshop.optim_step, model_id, settings)
        return self._queue(model_id, seq, work, lambda metrics: as_json({"metrics": metrics}))

    def load(self, model_id: str, seq: int | None, path: TinkerPath, optimizer: bool) -> Future:
        """Queue the loading of a checkpoint into a model that is there."""
        self.here.model(model_id)
        work = partial(self.workshop.load, model_id, path, optimizer)
        answer = {"path": str(path), "model_id": model_id, "type": "load_weights"}
        return self._queue(model_id, seq, work, lambda _: as_json(answer))

    def save(
        self,
        model_id: str,
        seq: int | None,
        path: TinkerPath,
        answer: dict[str, Any],
        *,
        overwrite: bool,
        expires: str | None,
        user_metadata: dict[str, str] | None = None,
        changed: Callable[[dict[str, bytes]], dict[str, bytes]] | None = None,
    ) -> Future:
        """Queue the saving of a checkpoint; it is written, `changed`, beside the jobs that follow."""
        model = self.here.model(model_id)

        def work() -> Generator[None, None, tuple[Meta, dict[str, bytes]]]:
            self.store.must_be_free(path, overwrite=overwrite)
            return (yield from self.workshop.state(model_id, optimizer=path.kind == "weights"))

        def write(state: tuple[Meta, dict[str, bytes]]) -> dict[str, Any]:
            meta, files = state
            meta = attrs.evolve(meta, path=str(path), expires=expires, user_metadata=user_metadata)
            saved = self.store.save(path, changed(files) if changed else files, meta, overwrite=overwrite)
            self.usage.add(model.session, model.base_model, checkpoint=1)
            return {**answer, "size_bytes": saved.size_bytes}

        future, fresh = self.futures.begin(model_id, seq)
        if fresh:
            settle = self._settler(future, as_json)

            def written(state: Any) -> None:
                if isinstance(state, Exception):
                    settle(state)
                else:
                    self._writer.submit(_settled, settle, partial(write, state))

            self.compute.submit(Job(model_id, work, written))
        return future

    # -- sampling

    async def open_sampler(
        self, session_id: str, seq: int, base_model: str | None, path: TinkerPath | None
    ) -> str:
        """Begin a sampling session on a base model, or on saved weights.

        Raises:
            Refused: there is no such session or checkpoint.
            ModelError: there is no such base model.
        """
        session = self.here.session(session_id)
        sampler_id = f"{session.id}:sample:{seq}"
        if sampler_id not in self.here.samplers:
            meta = None if path is None else self.store.meta(path)
            name = base_model if meta is None else meta.base_model
            if name is None:
                raise Refused(
                    "nothing to sample from",
                    got="neither base_model nor model_path",
                    need="one of them",
                    fix="service_client.create_sampling_client(base_model=...)",
                )
            folder = await self.locate(name)
            self.here.session(session_id)  # it may have ended meanwhile
            key = None if path is None or meta is None else adapter_key(path, meta)
            self.here.samplers[sampler_id] = Weights(name, folder, key, path)
            session.samplers.append(sampler_id)
        return sampler_id

    def open_snapshot(self, model_id: str, seq: int | None, sampler_seq: int) -> Future:
        """Queue the beginning of a sampling session on a model's present weights."""
        model = self.here.model(model_id)
        sampler_id = f"{model.session}:sample:{sampler_seq}"

        def work() -> Generator[None, None, dict[str, Any]]:
            self.workshop.snapshot(model_id, sampler_id)
            yield
            return {"sampling_session_id": sampler_id, "type": "save_weights_for_sampler"}

        future = self._queue(model_id, seq, work, as_json)
        if sampler_id not in self.here.samplers:
            self.here.samplers[sampler_id] = Weights(model.base_model, model.folder, sampler_id)
            self.here.sessions[model.session].samplers.append(sampler_id)
        return future

    def sample(self, request: wire.Sample) -> Future:
        """Put a sampling request into the batch."""
        weights = self.here.sampler(request.session_id)
        future, fresh = self.futures.begin(request.session_id, request.seq_id)
        if fresh:
            future.samples = request.num_samples
            session = request.session_id.partition(":")[0]

            def encode(output: SampleOutput) -> Reply:
                sampled = sum(len(sequence.tokens) for sequence in output.sequences)
                prompt = len(request.prompt)
                self.usage.add(session, weights.base_model, sampling_prefill=prompt, sampling_sample=sampled)
                return protobuf(wire.encode_sample(output, request))

            settle = self._settler(future, encode)
            self.compute.call(partial(self.workshop.sample, future.id, request, weights, settle))
        return future

    def cancel(self, request_id: str) -> None:
        """Stop a sampling request whose answer nobody wants."""
        future = self.futures.get(request_id)
        if future is not None and future.owner in self.here.samplers:
            self.compute.call(partial(self.workshop.cancel, request_id))
            error = EngineError(
                "the request was cancelled", got=request_id, need="a request that goes on", fix="sample again"
            )
            self._settler(future, protobuf)(error)

    # -- base models

    async def locate(self, base_model: str) -> Path:
        """Return the folder of a base model; slow the first time, and asked for once.

        Raises:
            ModelError: there is none.
        """
        task = self._located.get(base_model)
        if task is None:
            task = asyncio.ensure_future(asyncio.to_thread(_locate, base_model))
            self._located[base_model] = task
        try:
            return await asyncio.shield(task)
        except OfficerError:
            if self._located.get(base_model) is task:  # the next one may find it
                del self._located[base_model]
            raise

    def located(self) -> dict[str, Path]:
        """Return the base models that were asked for, by name."""
        return {
            name: task.result()
            for name, task in self._located.items()
            if task.done() and not task.cancelled() and task.exception() is None
        }

    async def preload(self, base_model: str) -> None:
        """Load a base model before anyone asks for it.

        Raises:
            OfficerError: there is none, or it cannot be loaded.
        """
        folder = await self.locate(base_model)
        await self._in_compute("", partial(_once, partial(self.workshop.base, base_model, folder)))

    # -- private

    def _begin(
        self,
        session: Session,
        model_id: str,
        base_model: str,
        lora: dict[str, Any],
        user_metadata: dict[str, Any] | None,
        work: Callable[[Path], Generator[None, None, None]],
        answer: Callable[[], dict[str, Any]],
    ) -> Future:
        future, fresh = self.futures.begin(model_id, 0)
        if not fresh:
            return future
        settle = self._settler(future, lambda _: as_json(answer()))

        async def prepare() -> None:
            try:
                _check_rank(lora["rank"])
                folder = await self.locate(base_model)
                await self._in_compute(model_id, lambda: work(folder))
                run = Run(model_id, base_model, lora, now(), session.id, user_metadata)
                await asyncio.to_thread(self.store.begin_run, run)
                self.here.session(session.id)  # it may have ended meanwhile
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this request's answer
                self._forget(model_id)
                settle(error)
            else:
                self.here.models[model_id] = Model(model_id, session.id, base_model, folder, lora, now())
                session.models.append(model_id)
                settle(None)

        task = asyncio.ensure_future(prepare())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return future

    async def _in_compute(self, owner: str, work: Callable[[], Generator[None, None, Any]]) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def done(result: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the engine is stopping
                loop.call_soon_threadsafe(_resolve, future, result)

        self.compute.submit(Job(owner, work, done))
        return await future

    def _forget(self, model_id: str) -> None:
        self.compute.submit(Job(model_id, partial(_once, partial(self.workshop.forget, model_id)), _ignored))

    def _queue(
        self,
        owner: str,
        seq: int | None,
        work: Callable[[], Generator[None, None, Any]],
        encode: Callable[[Any], Reply],
    ) -> Future:
        future, fresh = self.futures.begin(owner, seq)
        if fresh:
            self.compute.submit(Job(owner, work, self._settler(future, encode)))
        return future

    def _settler(self, future: Future, encode: Callable[[Any], Reply]) -> Callable[[Any], None]:
        """Return a function, for any thread, that answers `future` with a result or an exception."""
        loop = asyncio.get_running_loop()

        def settle(result: Any) -> None:
            try:
                reply = failure(result) if isinstance(result, Exception) else encode(result)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this request's answer
                reply = failure(error)
            with contextlib.suppress(RuntimeError):  # the loop is closed: the engine is stopping
                loop.call_soon_threadsafe(self.futures.finish, future, reply)

        return settle

    def _metadata_of(self, run_id: str) -> dict[str, Any] | None:
        try:
            return self.store.run(run_id).user_metadata
        except Refused:
            return None


def _locate(base_model: str) -> Path:
    from tinker_officer._models import locate

    return locate(base_model)


def _check_rank(rank: int) -> None:
    if not 1 <= rank <= MAX_RANK:
        raise EngineError(
            f"rank {rank} exceeds max LoRA rank {MAX_RANK}" if rank > MAX_RANK else "rank is out of range",
            got=rank,
            need=f"an integer from 1 to {MAX_RANK}",
            fix="service_client.create_lora_training_client(base_model, rank=32)",
        )


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _once(function: Callable[[], Any]) -> Generator[None, None, None]:
    function()
    yield


def _ignored(result: Any) -> None:
    if isinstance(result, Exception):
        logger.error("engine.cleanup_failed", exc_info=result)


def _settled(settle: Callable[[Any], None], work: Callable[[], Any]) -> None:
    try:
        result = work()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this request's answer
        result = error
    settle(result)
