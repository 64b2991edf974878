"""Public model names to the places that can answer. Pure: the workers' own lists are brought here by others."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from msgspec import structs

from gateway.openai.errors import model_not_found
from gateway.settings import ModelSettings, Target
from trestle.errors import CallError, Reason
from trestle.v1 import model_pb2

log = logging.getLogger("gateway")


@dataclass(frozen=True, slots=True)
class Route:
    """A public model name, its targets in the order in which they are tried (never empty), and its limits as in
    `ModelSettings`."""

    name: str
    targets: tuple[Target, ...]
    timeout: float = 0.0
    first_token_timeout: float = 0.0
    idle_timeout: float = 0.0
    hedge_after: float = 0.0
    flush_interval: float = 0.0


@dataclass(frozen=True, slots=True)
class PublicModel:
    """A line of `GET /v1/models`. created: Unix seconds, zero when unknown."""

    id: str
    created: int
    owned_by: str


class Router:
    """Resolves names: the configured models first, then what the workers list that no configured model names.

    catalogue_workers: whose lists make the catalogue; those of others only say which names take options.

    workers: names in the order of the configuration; of two (or two upstreams) that list the same id the first wins.
    """

    def __init__(self, models: Sequence[ModelSettings], workers: Iterable[str]) -> None:
        self._configured = {
            model.name: Route(
                model.name,
                tuple(model.targets),
                model.timeout,
                model.first_token_timeout,
                model.idle_timeout,
                model.hedge_after,
                model.flush_interval,
            )
            for model in models
        }
        named = {target.worker for model in models for target in model.targets}
        self.catalogue_workers = tuple(worker for worker in workers if worker not in named)
        self._lists: dict[str, Mapping[str, model_pb2.Model]] = {}
        self._catalogue: dict[str, Route] = {}
        self._warned: set[tuple[str, str]] = set()

    def take_over(self, other: Router, workers: Iterable[str]) -> None:
        """Takes what another router knows of these workers."""
        for worker in workers:
            if other.knows(worker):
                self.update(worker, other._lists[worker].values())

    @property
    def unlisted(self) -> tuple[str, ...]:
        """Workers whose models belong to the catalogue and have not been heard of yet."""
        return tuple(worker for worker in self.catalogue_workers if worker not in self._lists)

    def offers(self, name: str) -> bool:
        """Whether it is a public name, as it stands, of the configuration or the catalogue."""
        return name in self._configured or name in self._catalogue

    def knows(self, worker: str) -> bool:
        """Whether it has been heard of."""
        return worker in self._lists

    def wanted(self, name: str) -> tuple[str, ...]:
        """Workers never heard of whose lists may say that they know this name, which `resolve` refused."""
        base = self._configured.get(name.partition("?")[0])
        targets = () if base is None else base.targets
        return (*self.unlisted, *(target.worker for target in targets if target.worker not in self._lists))

    def update(self, worker: str, models: Iterable[model_pb2.Model]) -> None:
        """Takes a worker's list, its order the worker's own."""
        listed: dict[str, model_pb2.Model] = {}
        for model in models:
            if listed.setdefault(model.id, model) is not model:
                self._warn(model.id, f"{worker}/{model.upstream}", f"{worker}/{listed[model.id].upstream}")
        self._lists[worker] = listed
        self._catalogue = {}
        for name in self.catalogue_workers:
            for model in self._lists.get(name, {}).values():
                known = self._catalogue.get(model.id)
                if known is None:
                    target = Target(worker=name, upstream=model.upstream, model=model.id)
                    self._catalogue[model.id] = Route(model.id, (target,))
                else:
                    self._warn(model.id, name, known.targets[0].worker)

    def resolve(self, name: str, *, patient: bool = True) -> Route:
        """Raises `CallError`: MODEL_NOT_FOUND, or (patient) OVERLOADED while a worker that may have it has never been
        reached."""
        route = self._configured.get(name) or self._catalogue.get(name)
        if route is not None:
            return route
        base, mark, _ = name.partition("?")
        if mark:
            base_route = self._configured.get(base) or self._catalogue.get(base)
            route = None if base_route is None else self.with_options(base_route, name)
            if route is not None:
                return route
        if patient and self.unlisted:
            raise CallError(
                Reason.OVERLOADED,
                f"The model '{name}' is not known yet: the worker {self.unlisted[0]} has not been reached.",
                code="model_not_known_yet",
                retry_after=1.0,
            )
        raise model_not_found(name)

    def with_options(self, route: Route, name: str) -> Route | None:
        """The route of a name that has options behind it (`NAME?OPTIONS`), where a target of `NAME`'s takes them."""
        options = name.partition("?")[2]
        targets = [target for target in route.targets if self._takes_options(target)]
        if not targets:
            return None
        named = tuple(structs.replace(target, model=_with_options(target.model, options)) for target in targets)
        return replace(route, name=name, targets=named)

    def models(self) -> Iterator[PublicModel]:
        """What there is to ask for, configured models first."""
        for name, route in self._configured.items():
            yield self._public(name, route)
        for name, route in self._catalogue.items():
            if name not in self._configured:
                yield self._public(name, route)

    def model(self, name: str) -> PublicModel:
        """Raises `CallError` as `resolve`."""
        return self._public(name, self.resolve(name))

    def _public(self, name: str, route: Route) -> PublicModel:
        for target in route.targets:
            listed = self._lists.get(target.worker, {}).get(target.model.partition("?")[0])
            if listed is not None:
                return PublicModel(name, listed.created, listed.owned_by or target.worker)
        return PublicModel(name, 0, route.targets[0].worker)

    def _takes_options(self, target: Target) -> bool:
        listed = self._lists.get(target.worker, {}).get(target.model.partition("?")[0])
        return listed is not None and listed.takes_options

    def _warn(self, model: str, hidden: str, shown: str) -> None:
        if (model, hidden) not in self._warned:
            self._warned.add((model, hidden))
            log.warning("the model %s of %s is hidden by that of %s, which stands first", model, hidden, shown)


def _with_options(model: str, options: str) -> str:
    """The name with these options behind those it has; of two of a name the last counts."""
    return f"{model}{'&' if '?' in model else '?'}{options}"
