"""An agent and its builder."""

from collections.abc import Iterable, Sequence
from typing import Self

from kvsync_testkit.agents.carriers import Carrier
from kvsync_testkit.agents.probing import backend_unavailable, make_carrier
from kvsync_testkit.errors import BackendUnavailableError, TransferError
from kvsync_testkit.physical import PhysicalLayout, plan_copy


class Agent:
    """Moves blocks between layouts over the backends it was built with.

    Attributes:
        name: The name given to the builder.
        missing: Optional backends that were left out, with the reason for each.
    """

    def __init__(self, name: str, carriers: dict[str, Carrier], missing: dict[str, str]) -> None:
        self.name = name
        self.missing = missing
        self._carriers = carriers

    @property
    def backends(self) -> tuple[str, ...]:
        """Names of the backends, in the order in which the builder was asked for them."""
        return tuple(self._carriers)

    def has_backend(self, name: str) -> bool:
        """Whether the agent was built with this backend."""
        return name in self._carriers

    def transfer(
        self,
        src: PhysicalLayout,
        src_ids: Sequence[int],
        dst: PhysicalLayout,
        dst_ids: Sequence[int],
        *,
        backend: str | None = None,
        layers: Iterable[int] | None = None,
    ) -> int:
        """Move blocks by position, one layer of all blocks at a time. Returns the number of bytes moved.

        Args:
            src: Where the blocks are read.
            src_ids: Their ids there.
            dst: Where they are written; any layout and storage kind of the same shape.
            dst_ids: Their ids there, as many as `src_ids`.
            backend: Which backend carries the bytes; None takes the agent's first.
            layers: The layers to move; None moves all.

        Raises:
            BackendUnavailableError: the agent has no such backend.
            TransferError: the copy does not fit (nothing was moved), or bytes were lost on the way.
        """
        carrier = self._carrier(backend)
        plan = plan_copy(src, src_ids, dst, dst_ids, layers)
        for layer in plan.layers:
            sent = [src.read_layer(block, layer) for block, _ in plan.pairs]
            received = carrier.carry(sent)
            if len(received) != len(sent):
                raise TransferError(f"{len(received)} of {len(sent)} blocks arrived")
            for (_, block), part in zip(plan.pairs, received, strict=True):
                dst.write_layer(block, layer, part)
        return plan.bytes

    def _carrier(self, backend: str | None) -> Carrier:
        if backend is None and self._carriers:
            return next(iter(self._carriers.values()))
        if backend is None or backend not in self._carriers:
            has = ", ".join(self._carriers) or "no backend at all"
            reason = self.missing.get(backend or "", f"agent {self.name} was built with {has}")
            raise BackendUnavailableError(backend or "any backend", reason)
        return self._carriers[backend]


class AgentBuilder:
    """Names the backends an agent must have, and those it takes if they are there."""

    def __init__(self, name: str, *, required: Iterable[str] = (), optional: Iterable[str] = ()) -> None:
        self._name = name
        self._wanted: dict[str, bool] = {}
        for one in required:
            self.require_backend(one)
        for one in optional:
            self.try_backend(one)

    def require_backend(self, name: str) -> Self:
        """The build fails without this backend."""
        self._wanted[name] = True
        return self

    def try_backend(self, name: str) -> Self:
        """Take this backend if it is there; asking for it as required as well makes it required."""
        self._wanted.setdefault(name, False)
        return self

    def build(self) -> Agent:
        """Probe every backend and make the agent.

        Raises:
            BackendUnavailableError: a required backend is missing; the error has the reason.
            ConfigurationError: no backend has this name.
        """
        carriers: dict[str, Carrier] = {}
        missing: dict[str, str] = {}
        for name, required in self._wanted.items():
            reason = backend_unavailable(name)
            if reason is None:
                carriers[name] = make_carrier(name)
            elif required:
                raise BackendUnavailableError(name, reason)
            else:
                missing[name] = reason
        return Agent(self._name, carriers, missing)
