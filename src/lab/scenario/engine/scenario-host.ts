/** The host of a scenario while it is played: machine, kernel, TDs, what its programs hold, and its virtual clock. */
import { type AddressRange, formatRange, hex, overlaps, PAGE_4K } from '../../../abi/address.ts';
import type { KernelError, Reason } from '../../../abi/errno.ts';
import type { HostKernel } from '../../../kernel/host-kernel.ts';
import type { MemoryRange } from '../../../machine/description.ts';
import type { Machine } from '../../../machine/machine.ts';
import { MSR } from '../../../machine/platform.ts';
import { createHost, type Host } from '../../host.ts';
import type { PolicySet, Scenario } from '../scenario.ts';
import type { ScenarioTd } from '../td/scenario-td.ts';
import { TdHost } from '../td/td-host.ts';
import { HostMemory } from './host-memory.ts';
import { EventEnd, noSuch, type Outcome } from './outcome.ts';

/** @public */
export class ScenarioHost {
  readonly scenario: Scenario;
  readonly policy: PolicySet;
  readonly host: Host;
  /** TDs by name, in the order in which they began; dead ones stay until they are stopped. */
  readonly tds = new Map<string, ScenarioTd>();
  /** Ranges that the host was refused, and has not got since. */
  readonly refusedMemory: MemoryRange[] = [];
  /** KeyIDs that other users of the host have. */
  readonly foreignKeyIds: number[] = [];
  /** Memory that went while it was in use: the kernel still hands its pages out. */
  #gone: AddressRange[] = [];
  /** Why the host is no more; null while it runs. */
  down: Reason | null = null;
  memory: HostMemory;
  /** Consequences of the event that is played. */
  readonly fates: Pick<Outcome, 'event' | 'result' | 'reason'>[] = [];
  #tdHost: TdHost | null = null;
  #kernel: HostKernel;

  constructor(scenario: Scenario, policy: PolicySet, seed: number) {
    this.scenario = scenario;
    this.policy = policy;
    const { machine, hints } = scenario;
    this.host = createHost(machine, { hints, policy: policy.knobs, seed: BigInt(seed) });
    if (scenario.seamretErratum !== undefined) setSeamretErratum(this.host.machine, scenario.seamretErratum);
    this.#kernel = this.host.kernel;
    this.memory = new HostMemory(this.#kernel.allocator);
  }

  /** The kernel that runs now: kexec starts another one. */
  get kernel(): HostKernel {
    return this.#kernel;
  }

  /** Goes on with another kernel; TDs and what programs had are gone. */
  adopt(kernel: HostKernel): void {
    this.#kernel = kernel;
    this.#tdHost = null;
    this.#gone = [];
    this.tds.clear();
    this.foreignKeyIds.length = 0;
    this.memory = new HostMemory(kernel.allocator);
    this.#follow();
  }

  async boot(): Promise<void> {
    await this.#kernel.boot();
    this.#follow();
  }

  /** What TDs share, with the module initialised. Throws ENODEV and what initialisation throws. */
  async tdHost(): Promise<TdHost> {
    const sysinfo = await this.#kernel.getTdx();
    this.#tdHost ??= new TdHost(this.#kernel, sysinfo);
    return this.#tdHost;
  }

  /** The same where it is known to be there; null before the first user. */
  get knownTdHost(): TdHost | null {
    return this.#tdHost;
  }

  /** TDs that live. */
  *living(): Generator<ScenarioTd> {
    for (const td of this.tds.values()) if (td.dead === null) yield td;
  }

  /** The living TD that an event means: by name, one of `web-1`, `web-2`... for `web`, or `any`. Throws ENOENT. */
  findTd(name: string, draw: number): ScenarioTd {
    const exact = this.tds.get(name);
    if (exact?.dead === null) return exact;
    const candidates = [...this.living()].filter(
      (td) => name === 'any' || td.figures.name.startsWith(`${name}-`),
    );
    const found = candidates[Math.floor(draw * candidates.length)];
    if (found === undefined) throw noSuch('td', name);
    return found;
  }

  /** The part of an area that an event means. */
  area(event: { memory: string; offset?: number | undefined; size?: number | undefined }): MemoryRange {
    const area = this.scenario.areas.get(event.memory)!;
    const start = area.start + (event.offset ?? 0);
    return {
      ...area,
      start,
      end: event.size === undefined ? area.end : Math.min(area.end, start + event.size),
    };
  }

  /**
   * A SEAMCALL for a living TD failed that should not: what the policy `onError` says. Returns for TDs that are dead
   * now; throws the error again where the TD lives on.
   */
  callFailed(td: ScenarioTd, error: KernelError): never {
    const { onError } = this.#kernel.policy;
    if (onError === 'refuse') throw error;
    this.end(td, error.reason, onError === 'kill-td');
    if (onError === 'shutdown') {
      this.#kernel.shutDownTdx(error.reason);
      const reason = { code: 'module-shut-down', text: 'the module was shut down after an error', data: {} };
      for (const other of [...this.living()]) this.kill(other, { ...reason, data: { why: error.reason } });
    }
    throw new EventEnd('killed', error.reason);
  }

  /** Ends a TD because of an event that was about something else. */
  kill(td: ScenarioTd, reason: Reason, isReclaimed = false): void {
    this.end(td, reason, isReclaimed);
    this.fates.push({ event: td.figures.name, result: 'killed', reason });
  }

  /** A TD lives no more; what it has stays with it unless it is reclaimed. */
  end(td: ScenarioTd, reason: Reason, isReclaimed: boolean): void {
    td.dead = reason.code;
    if (!isReclaimed) return;
    td.stop();
    this.tds.delete(td.figures.name);
  }

  /** Memory went: TDs that had pages in it die of the machine check. */
  lose(range: AddressRange): void {
    if (this.#kernel.memblock.some((region) => region.kind === 'ram' && overlaps(region, range)))
      this.#gone.push(range);
    for (const td of [...this.living()]) {
      const reason = lossOf(td, range);
      if (reason !== null) this.kill(td, reason);
    }
  }

  /** A TD got memory: where the kernel gave it some that is gone, the TD dies of its first access. Throws EventEnd. */
  touch(td: ScenarioTd): void {
    for (const range of this.#gone) {
      const reason = lossOf(td, range);
      if (reason === null) continue;
      this.end(td, reason, false);
      throw new EventEnd('killed', reason);
    }
  }

  /** The host is no more, and no TD on it. */
  goDown(why: Reason): void {
    if (this.down !== null) return;
    this.down = why;
    for (const td of [...this.living()]) this.kill(td, { code: 'host-down', text: why.text, data: {} });
  }

  /** Hears of processors that go and of memory that fails. */
  #follow(): void {
    const kernel = this.#kernel;
    kernel.onCpuOffline((cpu) => {
      for (const td of this.tds.values()) td.leaveCpu(cpu);
    });
    kernel.memoryUsers.add({ memoryFailure: (pfn) => Promise.resolve(this.#failed(pfn * PAGE_4K)) });
  }

  /** The page at `address` has failed: the TD that has it ends, and its memory comes back without the page. */
  #failed(address: number): boolean {
    const td = [...this.living()].find((one) => one.lostWith(address, address + PAGE_4K) !== null);
    if (td === undefined) return false;
    this.#kernel.allocator.poison(address / PAGE_4K);
    const text = `the memory at ${hex(address)}, which the TD has, has failed`;
    this.kill(td, { code: 'memory-failed', text, data: { address } }, true);
    return true;
  }
}

function lossOf(td: ScenarioTd, { start, end }: AddressRange): Reason | null {
  const lost = td.lostWith(start, end);
  if (lost === null) return null;
  const what = lost === 'memory' ? 'memory' : 'a control structure';
  const text = `${what} of the TD was in ${formatRange({ start, end })}, which is gone`;
  return { code: 'td-memory-gone', text, data: { start, end } };
}

/** IA32_VMX_BASIC bit 60: SEAMRET leaves the current VMCS valid. */
const NO_SEAMRET_INVD_VMCS = 1n << 60n;

function setSeamretErratum(machine: Machine, has: boolean): void {
  const basic = machine.msrs.get(MSR.VMX_BASIC) ?? 0n;
  machine.msrs.set(MSR.VMX_BASIC, has ? basic & ~NO_SEAMRET_INVD_VMCS : basic | NO_SEAMRET_INVD_VMCS);
}
