"""One fault from preflight to verdict.

Steady state under load, injection, proof, hold, healing, recovery, final read, judgement. Every step that cannot be
done makes the fault fail with its reason; only a missing capability of the kernel or the cluster makes it skipped.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from kvsync_testkit.chaos import finalread, probes
from kvsync_testkit.chaos.backend import Backend
from kvsync_testkit.chaos.errors import CapabilityError, ChaosError
from kvsync_testkit.chaos.faults import Fault
from kvsync_testkit.chaos.history import History
from kvsync_testkit.chaos.judging import Evidence, judge
from kvsync_testkit.chaos.load import Load
from kvsync_testkit.chaos.sampler import Look, Sampler, noticed
from kvsync_testkit.chaos.scene import Scene
from kvsync_testkit.chaos.verdicts import Injection, Observation, Report, Verdict, decide, judge_injection
from kvsync_testkit.chaos.witness import SIGNS, witness
from kvsync_testkit.checks import Violation, check_agreement
from kvsync_testkit.waiting import DeadlineError, pause, wait_until

STEADY_S = 3.0
"""Load before the injection, in seconds, from which the usual lag is taken."""
PATIENCE_S = 90.0
"""How long a run waits for a recovery, in seconds, to learn how long it takes if it takes too long."""
CURVE_POINTS = 120
HEALED_WITHIN_S = 10.0
"""How long a probe may still see a fault that was taken away, in seconds: some figures are averages or are cached."""
FAILURES = (ChaosError, DeadlineError, OSError, KeyError, ValueError)


class Run:
    """One fault on one backend."""

    def __init__(
        self, backend: Backend, fault: Fault, out: Path, seed: int = 0, *, patience_s: float = PATIENCE_S
    ) -> None:
        self.backend, self.fault = backend, fault
        self._patience_s = patience_s
        self.report = Report(fault.name, backend.name, fault.breaks)
        self.history = History(out / "history" / f"{fault.name}.jsonl")
        self.load = Load(backend, self.history, f"{seed} {fault.name}")
        self.sampler = Sampler(backend, self.history)
        self.reasons: list[str] = []
        self._compared = False
        self._disagreements: list[Violation] = []

    def execute(self) -> Report:
        """Run the fault and return its report; it never raises what a broken system raises."""
        try:
            self.backend.preflight(self.fault)
        except CapabilityError as error:
            self.report.verdict, self.report.reason = Verdict.SKIPPED, str(error)
            self.history.close()
            return self.report
        try:
            self._run()
        except CapabilityError as error:
            self.report.verdict, self.report.reason = Verdict.SKIPPED, str(error)
            self.backend.discard()
        except FAILURES as error:
            self.report.verdict = Verdict.FAILED
            self.report.reason = "; ".join([*self.reasons, f"{type(error).__name__}: {error}"])[:1500]
            self.backend.discard()
        finally:
            self.load.stop()
            self.sampler.stop()
            self.history.add("verdict", verdict=str(self.report.verdict), reason=self.report.reason)
            self.history.close()
        if self.fault.undetectable or self.report.verdict is Verdict.FAILED:
            self.backend.discard()
        return self.report

    def _run(self) -> None:
        fault, backend = self.fault, self.backend
        backend.start(fault)
        scene = Scene(backend, fault, backend.pair(fault))
        try:
            self._steady(scene)
            self.report.timeline["injected"] = injected = self.history.add("inject", fault=fault.name)
            try:
                scene.mark()
                backend.apply(fault)
                during = self._prove(scene)
                self._hold(scene, injected)
                self.report.timeline["proved"] = during
            finally:
                self._heal()
                self.report.timeline["healed"] = healed = self.history.add("healed")
            recovered = self._recover(healed)
            self._check_healed(scene)
            self._finish(scene, injected, healed, recovered)
        finally:
            scene.close()

    def _steady(self, scene: Scene) -> None:
        finalread.wait_caught_up(self.backend, self.backend.engines(), 60.0)
        wait_until(
            "the router has every engine in its rotation", self._rotation, deadline_s=30.0, retry_on=finalread.NOT_YET
        )
        self.load.start()
        self.sampler.start()
        scene.remember()
        self._before = self._probe(scene)
        self.report.proof["before"] = dict(self._before.detail)
        began = self.history.now()
        wait_until("steady load", lambda: self.history.now() - began >= STEADY_S, deadline_s=STEADY_S + 30)

    def _rotation(self) -> bool:
        listed = self.backend.call("router", "GET", "/v1/endpoints").json()["endpoints"]
        healthy = [one for one in listed if one["healthy"]]
        return len(healthy) == len(listed) == len(self.backend.engines())

    def _probe(self, scene: Scene) -> Observation:
        probe: Callable[[Scene], Observation] = witness
        if self.fault.probe not in SIGNS:
            probe = getattr(probes, self.fault.probe)
        seen = probe(scene)
        self.history.add("probe", affected=seen.affected, control=seen.control, detail=str(dict(seen.detail))[:600])
        return seen

    def _prove(self, scene: Scene) -> float:
        """Wait for the backend's own signal, then probe until the injection is confirmed or the time is over."""
        wait_until(
            "the backend says that the fault is in place",
            lambda: self.backend.injected(self.fault),
            deadline_s=40.0,
            retry_on=(OSError,),
        )
        scene.pair = self.backend.pair(self.fault)
        end = time.monotonic() + max(15.0, self.fault.recovery_s)
        while True:
            seen = self._probe(scene)
            injection, why = judge_injection(self._before, seen)
            if injection is Injection.CONFIRMED or time.monotonic() > end:
                break
            pause(0.3)
        self.report.injection = injection
        if why:
            self.reasons.append(why)
        self.report.proof["during"] = dict(seen.detail)
        return self.history.now()

    def _hold(self, scene: Scene, injected: float) -> None:
        """Keep the fault for its time, and compare the control engine meanwhile."""
        end = self.history.now() + self.fault.hold_s
        found: list[Violation] = []
        while self.history.now() < end or (not self._compared and self.history.now() < end + HEALED_WITHIN_S):
            if not self._compared or found:
                found = self._compare(scene.pair.control)
            pause(0.2)
        self._disagreements = found
        if self.fault.kind == "plane" or self.fault.lasting:
            self.report.timeline["detected"] = noticed(self.sampler.looks, scene.pair.affected, injected) or -1.0

    def _compare(self, engine: str) -> list[Violation]:
        """Compare the control engine at a moment at which it published nothing."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            before = self.backend.call(engine, "GET", "/debug/kv/digest").json()["seq"]
            truth = finalread.engine_table(self.backend, engine)
            row = finalread.index_rows(self.backend)[engine]
            index = finalread.index_table(self.backend, str(row["name"]))
            after = self.backend.call(engine, "GET", "/debug/kv/digest").json()["seq"]
            if before == after and row["last_seq"] == next(iter(after.values())):
                self._compared = True
                return check_agreement(engine, truth, index)
        return []

    def _heal(self) -> None:
        try:
            self.backend.heal(self.fault)
        except FAILURES as error:
            self.reasons.append(f"healing failed: {error}")
            self.backend.discard()

    def _recover(self, healed: float) -> float:
        """Wait until the index is at the engines' batches, and measure how long it took."""
        began = healed if self.fault.lasting else self.report.timeline["injected"]
        if not self.fault.undetectable:
            try:
                finalread.wait_caught_up(
                    self.backend, self.backend.engines(), self._patience_s, complete=self._promises_all()
                )
            except DeadlineError as error:
                self.reasons.append(f"no recovery: {error}")
        now = self.history.add("recovered")
        self.report.timeline["recovered"] = now
        took = round(self._first_recovered(began, now) - began, 3)
        self.report.recovered_s = took
        if took > self.fault.recovery_s:
            self.reasons.append(f"recovery took {took} s, and {self.fault.recovery_s:g} s are allowed")
        return now

    def _promises_all(self) -> bool:
        """Return whether the index must know every block in the end, and say so."""
        return "I1" in self.fault.keeps

    def _first_recovered(self, began: float, now: float) -> float:
        """Return when the index first listed every engine as live for good, from the samples."""
        looks = [look for look in self.sampler.looks if began < look.at_s <= now]
        wanted = set(self.backend.engines())
        for number, look in enumerate(looks):
            if all(_all_live(one, wanted, self._promises_all()) for one in looks[number:]):
                return look.at_s
        return now

    def _check_healed(self, scene: Scene) -> None:
        if not self.fault.lasting or self.fault.kind in ("failure", "plane", "reset"):
            return
        end = time.monotonic() + HEALED_WITHIN_S
        seen = self._probe(scene)
        while seen.affected and time.monotonic() < end:
            pause(0.5)
            seen = self._probe(scene)
        self.report.proof["healed"] = dict(seen.detail)
        if seen.affected is not False:
            self.reasons.append(f"the probe still sees the fault after healing: {dict(seen.detail)}")

    def _finish(self, scene: Scene, injected: float, healed: float, recovered: float) -> None:
        self.load.stop()
        self.sampler.stop()
        detected = noticed(self.sampler.looks, scene.pair.affected, injected)
        self.report.detected_s = None if detected is None else round(detected - injected, 3)
        if detected is not None:
            self.report.timeline["detected"] = detected
        else:
            self.report.timeline.pop("detected", None)
        final = finalread.read_all(self.backend, scene.pair.affected, self.history)
        self._require_counters(scene, injected)
        if self.fault.undetectable:
            self._require_difference(scene)
        evidence = Evidence(
            scene.pair, injected, healed, recovered, final, self.sampler.looks, self.sampler.sizes, self.load.sent,
            self.load.outcomes, self._disagreements, self._compared, self.backend.router_shares_index(),
            silent=self.fault.silences and self.backend.cuts_both_ways(self.fault),
        )  # fmt: skip
        judgement = judge(self.fault, evidence)
        self.report.timeline["ended"] = self.history.now()
        self.report.curves = curves(self.sampler.looks, scene.pair.affected, scene.pair.control)
        self.report.requests = {
            "routed": len(self.load.sent),
            "answered": sum(one.kind == "answered" for one in self.load.outcomes),
            "direct": self.load.direct_answers,
        }
        decide(self.report, self.fault.keeps, judgement.violations, judgement.unchecked, self.reasons)

    def _require_counters(self, scene: Scene, injected: float) -> None:
        """The index must have counted what happened."""
        rows = [(look.at_s, (look.rows or {}).get(scene.pair.affected)) for look in self.sampler.looks]
        before = [row for at, row in rows if row and at <= injected]
        after = [row for at, row in rows if row and at > injected]
        if not self.fault.shows:
            return
        risen = {name: after[-1][name] - before[-1][name] for name in self.fault.shows} if before and after else {}
        self.report.proof["counted"] = risen
        if not any(count > 0 for count in risen.values()):
            self.reasons.append(f"the index counted nothing of it: {risen}")

    def _require_difference(self, scene: Scene) -> None:
        """An undetectable loss must show in the audit."""
        audits = self.backend.call("index", "POST", "/v1/audit", timeout_s=40.0).json()
        said = str(audits)
        self.report.proof["audit"] = said[:300]
        if "different" not in said:
            self.reasons.append(f"the audit does not report the difference of {scene.pair.affected}")


def _all_live(look: Look, wanted: set[str], complete: bool) -> bool:
    rows = look.rows or {}
    return wanted <= set(rows) and all(
        rows[name]["state"] == "live" and not (complete and rows[name]["incomplete"]) for name in wanted
    )


def curves(looks: list[Look], affected: str, control: str) -> dict[str, list[tuple[float, float]]]:
    """Return lag in batches and coverage of the block table, of the affected engine and of the control."""
    found: dict[str, list[tuple[float, float]]] = {}
    for look in looks:
        for role, name in (("affected", affected), ("control", control)):
            row, engine = (look.rows or {}).get(name), look.engines.get(name)
            if row is None or engine is None:
                continue
            count, seq = engine
            behind = max(0, (seq or 0) - (row["last_seq"] if row["last_seq"] is not None else -1))
            found.setdefault(f"lag, {role}", []).append((round(look.at_s, 2), float(min(behind, (seq or 0) + 1))))
            trusted = row["blocks"] if row["state"] == "live" else 0
            share = min(1.0, trusted / count) if count else 1.0
            found.setdefault(f"coverage, {role}", []).append((round(look.at_s, 2), round(share, 3)))
    return {name: points[:: 1 + len(points) // CURVE_POINTS] for name, points in found.items()}


def run_fault(backend: Backend, fault: Fault, out: Path, seed: int = 0, *, patience_s: float = PATIENCE_S) -> Report:
    """Run one fault and return its report; wait at most `patience_s` seconds for the recovery."""
    return Run(backend, fault, out, seed, patience_s=patience_s).execute()
